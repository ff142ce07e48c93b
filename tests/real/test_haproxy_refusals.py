"""What is said when a proxy's management says no, says something else, or does not say anything in time."""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
import time  # noqa: TID251 - a real peer dribbles in real time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from haproxy_world import ANSWER, World, close, open_, until, world

from failover.errors import ConfigError, GateError, GateRefused, GateTimeout, GateUnreachable
from failover.gates.haproxy import proxy_port
from failover.host import RealHost
from failover.lab.haproxy import Style, WayIn, free_ports, installed
from failover.model import Address, Admin, Proxy, StepKind
from failover.ports import ProxyPort

BARE = Proxy("proxy-1", "producers", {"main": "main", "backup": "backup"})


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


# ---------------------------------------------------------------- real refusals


async def test_a_wrong_password_is_refused_without_telling_it(pool: World) -> None:
    port = pool.port(WayIn.STATS, password="not-the-password")
    for attempt in (port.read(ANSWER), close(port, "main")):
        with pytest.raises(GateRefused, match="answered 401") as caught:
            await attempt
        assert "password_file" in caught.value.mend
        assert "not-the-password" not in str(caught.value) + caught.value.mend + repr(port)


async def test_a_name_and_password_in_the_url_are_not_told(pool: World) -> None:
    port = pool.port(WayIn.STATS, stats=pool.lab.stats.replace("//", "//somebody:hush@"), username=None)
    with pytest.raises(GateRefused) as caught:
        await port.read(ANSWER)
    assert "hush" not in str(caught.value) + caught.value.mend


async def test_a_stats_page_without_admin_denies_commands_but_reads(pool: World) -> None:
    await pool.lab.process.reload(pool.lab.text().replace("stats admin if TRUE", "stats admin if FALSE"))
    port = pool.port(WayIn.STATS)
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.READY
    with pytest.raises(GateRefused, match="DENY") as caught:
        await close(port, "main")
    assert "stats admin" in caught.value.mend


async def test_a_socket_without_admin_level_reads_but_is_refused_commands(pool: World) -> None:
    port = pool.port(WayIn.TCP, socket=pool.lab.user_runtime)
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.READY
    with pytest.raises(GateRefused, match="Permission denied") as caught:
        await close(port, "main")
    assert "level admin" in caught.value.mend


async def test_a_path_beside_the_stats_page_is_refused_with_its_mend(pool: World) -> None:
    port = pool.port(WayIn.STATS, stats=pool.lab.stats.replace("/stats", "/other"))
    with pytest.raises(GateRefused, match="answered 503") as caught:
        await port.read(ANSWER)
    assert "stats enable" in caught.value.mend


@pytest.mark.parametrize("stats", ["http://127.0.0.1:{}/stats", "https://127.0.0.1:{}/stats"])
async def test_the_runtime_port_is_no_stats_page(pool: World, stats: str) -> None:
    port = pool.port(WayIn.STATS, stats=stats.format(pool.lab.runtime.port))
    with pytest.raises(GateUnreachable):
        await port.read(ANSWER)


async def test_tls_to_a_plain_page_is_unreachable(pool: World) -> None:
    port = pool.port(WayIn.STATS, stats=pool.lab.stats.replace("http:", "https:"))
    for attempt in (port.read(ANSWER), close(port, "main")):
        with pytest.raises(GateUnreachable, match="TLS failed"):
            await attempt


async def test_the_stats_page_is_no_runtime_port(pool: World) -> None:
    address = Address("127.0.0.1", int(pool.lab.stats.split(":")[2].split("/")[0]))
    port = pool.port(WayIn.TCP, socket=address)
    for attempt in (port.read(ANSWER), close(port, "main")):
        with pytest.raises(GateError) as caught:
            await attempt
        assert not isinstance(caught.value, GateTimeout)


async def test_a_socket_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    port = proxy_port(replace(BARE, socket=tmp_path / "nosuch.sock"), RealHost())
    with pytest.raises(GateUnreachable, match="No such file") as caught:
        await port.read(ANSWER)
    assert "group" in caught.value.mend


async def test_a_ca_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    proxy = replace(BARE, stats="https://127.0.0.1:9/stats", ca_file=tmp_path / "nosuch.pem")
    port = proxy_port(proxy, RealHost())
    with pytest.raises(GateUnreachable, match=r"nosuch\.pem"):
        await port.read(ANSWER)
    await port.close()


@pytest.mark.parametrize(
    "change", [{"backend": "a; shutdown frontend x"}, {"servers": {"main": "a b"}}, {"watch": "a\nb"}]
)
def test_names_that_could_carry_a_command_are_refused_before_anything_is_sent(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="no HAProxy name"):
        proxy_port(replace(replace(BARE, socket=Path("/nosuch")), **change), RealHost())  # type: ignore[arg-type]


def test_a_proxy_with_two_ways_in_or_none_is_refused() -> None:
    for proxy in (BARE, replace(BARE, socket=Path("/x"), stats="http://127.0.0.1/")):
        with pytest.raises(ConfigError, match="exactly one"):
            proxy_port(proxy, RealHost())


# ---------------------------------------------------------------- reloads in the middle of a call


async def test_a_connection_that_stays_with_the_old_worker_changes_nothing_and_says_so(pool: World) -> None:
    await pool.relay()  # keeps the old worker alive
    port = pool.port(WayIn.SOCKET)
    await pool.sees(port, lambda r: r.servers["main"].sessions == 1)
    for kind, producer in ((StepKind.OPEN, "backup"), (StepKind.CLOSE, "main")):
        await port.read(ANSWER)
        reloads = 0

        def meanwhile() -> bool:
            """Reload after the look and before the command: what a real reload can hit."""
            nonlocal reloads
            reloads += 1
            reload_by_hand(pool)
            return True

        with pytest.raises(GateRefused, match="Proxy is disabled"):
            await port.set(kind, producer, ANSWER, meanwhile)
        assert reloads == 1
        await pool.lab.process.worker()
    after = await port.read(ANSWER)
    assert after.servers["backup"].admin is Admin.MAINT
    assert after.servers["main"].admin is Admin.READY


async def test_a_stats_page_that_was_reloaded_between_look_and_command_opens_nothing(pool: World) -> None:
    port = pool.port(WayIn.STATS)
    await port.read(ANSWER)

    def meanwhile() -> bool:
        reload_by_hand(pool)
        return True

    with pytest.raises((GateUnreachable, GateTimeout)):
        await port.set(StepKind.OPEN, "backup", ANSWER, meanwhile)
    assert (await port.read(ANSWER)).servers["backup"].admin is Admin.MAINT


async def test_a_stats_page_that_was_reloaded_between_look_and_command_is_closed_in_the_new_process(
    pool: World,
) -> None:
    port = pool.port(WayIn.STATS)
    await port.read(ANSWER)
    asked = 0

    def meanwhile() -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            reload_by_hand(pool)
        return True

    assert await port.set(StepKind.CLOSE, "main", ANSWER, meanwhile)
    assert asked == 3, "before each command, and after the connection had to be made anew"
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.MAINT


async def test_a_stats_page_that_went_away_between_look_and_command_got_nothing(pool: World) -> None:
    port = pool.port(WayIn.STATS)
    await port.read(ANSWER)

    def meanwhile() -> bool:
        in_a_thread(pool.lab.process.stop)
        return True

    with pytest.raises(GateUnreachable, match="Connection refused"):
        await port.set(StepKind.CLOSE, "main", ANSWER, meanwhile)


def reload_by_hand(pool: World) -> None:
    """A whole reload while the caller's loop stands still."""
    in_a_thread(pool.lab.process.reload)


def in_a_thread(action: Callable[[], Coroutine[None, None, object]]) -> None:
    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(action())
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not failure, failure


# ---------------------------------------------------------------- somebody else answers


@asynccontextmanager
async def peer(answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Address]:
    """A peer on loopback that calls ``answer`` with each request's first bytes."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while data := await reader.read(65536):
                await answer(data, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: text/html", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stats_at(address: Address) -> ProxyPort:
    return proxy_port(replace(BARE, stats=f"http://{address}/stats", username="u", password="p"), RealHost())


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        ("200 OK", b"<html><form>Password: <input></form></html>", "a login page"),
        ("200 OK", b"<!DOCTYPE html><html>It works!</html>", "another HTML page"),
        ("200 OK", b"<html><h1>Statistics Report for pid 7</h1>", "HAProxy's page instead of its CSV"),
        ("200 OK", b'{"status": "ok"}', "instead of CSV"),
        ("200 OK", b"", "answered nothing"),
        ("200 OK", b"# pxname,svname\n", "lack the columns scur, status, stot"),
        ("401 Unauthorized", b"", "answered 401"),
        ("403 Forbidden", b"", "answered 403"),
        ("404 Not Found", b"", "answered 404"),
        ("503 Service Unavailable", b"", "answered 503"),
        ("302 Found", b"", "answered 302"),
        ("200 OK", b"# pxname" + b"x" * (3 << 20), "more than 2048 KiB"),
    ],
)
async def test_what_is_no_stats_page_is_refused_with_a_mend(status: str, body: bytes, words: str) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(status, body, "Location: http://127.0.0.1:1/elsewhere"))

    async with peer(answer) as address:
        port = stats_at(address)
        with pytest.raises(GateRefused, match=words) as caught:
            await port.read(ANSWER)
        assert caught.value.mend
        await port.close()


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (http("303 See Other", b"", "Location: /stats;st=NONE"), GateRefused, "NONE: nothing was done"),
        (http("303 See Other", b"", "Location: /stats;st=ERRP"), GateRefused, "ERRP: no such backend"),
        (http("303 See Other", b"", "Location: /stats;st=PART"), GateRefused, "PART: only a part"),
        (http("303 See Other", b"", "Location: /stats;st=DENY"), GateRefused, "DENY: this page is read-only"),
        (http("303 See Other", b"", "Location: /stats;st=EXCD"), GateRefused, "EXCD: the request was too large"),
        (http("303 See Other", b"", "Location: /stats;st=UNKN"), GateRefused, "UNKN"),
        (http("303 See Other", b"", "Location: /stats;st=NEWS"), GateRefused, "NEWS: an answer that this version"),
        (http("303 See Other", b"", "Location: /login"), GateRefused, "answered 303"),
        (http("200 OK", b"<html>"), GateRefused, "answered 200"),
        (http("403 Forbidden", b""), GateRefused, "answered 403"),
        (http("502 Bad Gateway", b""), GateTimeout, "its effect is unknown"),
        (b"", GateTimeout, "its effect is unknown"),
        (b"nonsense\r\n\r\n", GateTimeout, "its effect is unknown"),
    ],
)
async def test_every_answer_to_a_command_but_done_has_its_own_words(
    reply: bytes, error: type[GateError], words: str
) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if request.startswith(b"GET"):
            writer.write(http("200 OK", b"<html>Statistics Report for pid 7"))
        elif reply:
            writer.write(reply)
        else:
            writer.transport.abort()

    async with peer(answer) as address:
        port = stats_at(address)
        with pytest.raises(error, match=words):
            await open_(port, "main")
        await port.close()


async def test_no_connection_to_a_stats_page_outlives_a_call() -> None:
    asked: dict[asyncio.StreamWriter, int] = {}

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        for verb in re.findall(rb"(GET|POST) /stats", request):  # a form may come glued to what follows it
            asked[writer] = asked.get(writer, 0) + 1
            if verb == b"GET":
                table = b"# pxname,svname,scur,stot,status\nproducers,main,0,0,UP\nproducers,backup,0,0,MAINT\n"
                writer.write(http("200 OK", table))
            else:
                writer.write(http("303 See Other", b"", "Location: /stats;st=DONE"))

    async with peer(answer) as address:
        port = stats_at(address)
        await port.read(ANSWER)
        await close(port, "main")
        await open_(port, "main")
        await port.read(ANSWER)
        await port.close()
    assert list(asked.values()) == [2, 3, 2, 2], "one connection a call: look, and what follows"


async def test_a_command_is_never_sent_twice() -> None:
    posts = 0

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        if request.startswith(b"GET"):
            writer.write(http("200 OK", b"<html>Statistics Report for pid 7"))
        elif request.startswith(b"POST"):
            posts += 1
            writer.transport.abort()

    async with peer(answer) as address:
        port = stats_at(address)
        for kind in (StepKind.OPEN, StepKind.CLOSE):
            with pytest.raises(GateTimeout):
                await port.set(kind, "main", ANSWER, lambda: True)
        assert posts == 2
        await port.close()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n# pxname"])
async def test_a_page_that_dribbles_is_cut_at_the_total_deadline_and_frees_its_thread(head: bytes) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head or b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(600):
            writer.write(b"x")
            await asyncio.sleep(0.05)  # noqa: TID251 - a real peer in real time
            if writer.transport.is_closing():
                return

    async with peer(answer) as address:
        port = stats_at(address)
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(GateTimeout):
                await port.read(0.6)
            assert time.monotonic() - begun < 5
        await port.close()


async def test_a_runtime_peer_that_dribbles_is_left_at_the_deadline() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        for _ in range(600):
            writer.write(b"x")
            await asyncio.sleep(0.05)  # noqa: TID251 - a real peer in real time

    async with peer(answer) as address:
        port = proxy_port(replace(BARE, socket=address), RealHost())
        with pytest.raises(GateTimeout):
            await port.read(0.6)
        with pytest.raises(GateUnreachable):
            await port.set(StepKind.OPEN, "main", 0.6, lambda: True)


async def test_a_runtime_peer_that_never_stops_is_refused() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * (3 << 20))

    async with peer(answer) as address:
        port = proxy_port(replace(BARE, socket=address), RealHost())
        with pytest.raises(GateRefused, match="more than 2048 KiB"):
            await port.read(ANSWER)


async def test_an_answer_after_the_timeout_is_not_taken_for_the_next_one() -> None:
    late: list[asyncio.StreamWriter] = []

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        late.append(writer)
        if len(late) > 1:
            writer.write(http("404 Not Found", b""))

    async with peer(answer) as address:
        port = stats_at(address)
        with pytest.raises(GateTimeout):
            await port.read(0.3)
        if not late[0].transport.is_closing():
            late[0].write(http("200 OK", b"# pxname,svname,scur,stot,status\n"))
        with pytest.raises(GateRefused, match="404"):
            await port.read(ANSWER)
        await port.close()


async def test_a_name_is_resolved_and_one_that_cannot_be_is_unreachable(pool: World) -> None:
    port = pool.port(WayIn.TCP, socket=Address("localhost", pool.lab.runtime.port))
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.READY
    assert await close(port, "main")
    with pytest.raises(GateUnreachable):
        await pool.port(WayIn.TCP, socket=Address("nosuch.invalid", 1)).read(ANSWER)
    with pytest.raises(GateUnreachable):
        await pool.port(WayIn.STATS, stats="http://nosuch.invalid:1/stats").read(ANSWER)


def runtime(stopping: list[bool], commands: list[str]) -> Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]:
    """A runtime API whose process is stopping as told, one entry per connection; notes what changes something."""

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        for command in request.decode().splitlines():
            text = ""
            if command == "show info":
                now = stopping.pop(0) if len(stopping) > 1 else stopping[0]
                text = f"Pid: 7\nStopping: {int(now)}\n"
            elif command == "show stat":
                text = "# pxname,svname,scur,stot,status\nproducers,main,4,9,UP\nproducers,backup,0,0,MAINT\n"
            elif command not in ("prompt", "show servers state producers"):
                commands.append(command)
            writer.write(text.encode() + b"\n> ")

    return answer


async def test_a_command_waits_for_the_present_worker_over_several_connections() -> None:
    commands: list[str] = []
    async with peer(runtime([True, True, False], commands)) as address:
        assert await close(proxy_port(replace(BARE, socket=address), RealHost()), "main")
    assert commands == ["set server producers/main state maint", "shutdown sessions server producers/main"]


async def test_an_old_worker_that_is_all_there_is_gets_no_command_and_reads_as_stopping() -> None:
    commands: list[str] = []
    async with peer(runtime([True], commands)) as address:
        port = proxy_port(replace(BARE, socket=address), RealHost())
        assert (await port.read(ANSWER)).stopping
        for kind in StepKind:
            with pytest.raises(GateRefused, match="stopping or reloading"):
                await port.set(kind, "main", ANSWER, lambda: True)
    assert commands == []


# ---------------------------------------------------------------- client certificates


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)


def certificates(folder: Path) -> None:
    """A CA, a server's certificate for 127.0.0.1, and a client's."""
    openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-subj", "/CN=lab", "-days", "2")  # fmt: skip
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")  # fmt: skip
        (folder / f"{name}.ext").write_text(extension)
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip
    (folder / "server.pem").write_text((folder / "server.crt").read_text() + (folder / "server.key").read_text())


async def test_a_stats_page_that_asks_for_client_certificates(tmp_path: Path, pool: World) -> None:
    if (missing := installed("openssl")) is not None:
        pytest.skip(missing)
    certificates(tmp_path)
    tls = free_ports(1)[0]
    bind = f"bind 127.0.0.1:{tls} ssl crt {tmp_path}/server.pem ca-file {tmp_path}/ca.pem verify required"
    text = pool.lab.text().replace("    stats enable\n", f"    {bind}\n    stats enable\n")
    await pool.lab.process.reload(text)
    given = {
        "stats": f"https://127.0.0.1:{tls}/stats",
        "ca_file": tmp_path / "ca.pem",
        "cert_file": tmp_path / "client.crt",
        "key_file": tmp_path / "client.key",
    }
    port = pool.port(WayIn.STATS, **given)
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.READY
    assert await close(port, "main")
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.MAINT

    for wrong in ({**given, "cert_file": None, "key_file": None}, {**given, "ca_file": None}):
        port = pool.port(WayIn.STATS, **wrong)
        for attempt in (port.read(ANSWER), open_(port, "main")):
            with pytest.raises(GateUnreachable) as caught:
                await attempt
            assert caught.value.mend
    assert (await pool.port(WayIn.SOCKET).read(ANSWER)).servers["main"].admin is Admin.MAINT


async def test_without_a_password_the_reference_page_lets_this_host_in_only_where_told(tmp_path: Path) -> None:
    """The style that operators may bring: no watch, no password; what is there is read all the same."""
    async with world(tmp_path, Style.UNCHECKED) as pool:
        text = pool.lab.text()
        text = "".join(line for line in text.splitlines(keepends=True) if "stats auth" not in line)
        await pool.lab.process.reload(text)
        port = pool.port(WayIn.STATS, username=None, password=None)
        await port.read(ANSWER)
        assert await close(port, "main")

        async def closed() -> bool:
            return (await port.read(ANSWER)).servers["main"].admin is Admin.MAINT

        await until(closed)
