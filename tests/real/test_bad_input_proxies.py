"""A proxy that is not what the file says, through ``check`` and the daemon: said with its mend, nothing moved."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import test_cli_daemon
from test_cli_daemon import Done, Pool

from failover.lab.haproxy import LabProxy, WayIn, free_ports

pool = test_cli_daemon.pool  # the fixture

STILL = 3  # pings of a producer within which a daemon would have moved something


def findings(done: Done) -> list[tuple[str, str, str]]:
    return [(f["severity"], f["what"], f["mend"]) for f in json.loads(done.out)["findings"] if f["part"] == "proxy p1"]


def by_stats(pool: Pool, *, url: str | None = None, password: str = LabProxy.PASSWORD) -> str:
    """The way in by the stats page, as the file names it."""
    secret = pool.folder / "secret"
    secret.touch(0o600)
    secret.write_text(password)
    return f"stats: {url or pool.lab.proxy(WayIn.STATS).stats}, username: failover, password_file: {secret}"


def other(pool: Pool, way: str | None = None, **keys: str) -> Path:
    """The pool's file with another way in or other keys of the proxy."""
    text = pool.text
    if way is not None:
        text = text.replace(f"socket: {pool.lab.socket}", way)
    if keys:
        text = text.replace("watch: watch", ", ".join(f"{key}: {value}" for key, value in keys.items()))
    path = pool.folder / "other.yaml"
    path.write_text(text)
    return path


def reload(pool: Pool, old: str, new: str) -> None:
    text: str = pool.lab.text()
    assert old in text
    pool.call(pool.lab.process.reload(text.replace(old, new)))


def found(pool: Pool, file: Path, severity: str, words: str) -> str:
    """What ``check`` found with these words; it changed no gate and told no password. Returns the mend."""
    before = pool.gates()
    done = pool.run("check", "--json", file=file)
    matching = [f for f in findings(done) if f[0] == severity and words in f[1]]
    assert matching, done.out
    assert done.code == 1
    assert done.err == ""
    assert "not-the-password" not in done.out
    assert pool.gates() == before
    assert not (pool.folder / "state").exists()
    told = pool.run("check", file=file)
    assert told.code == 1
    assert words in told.out
    return matching[0][2]


# ---------------------------------------------------------------- a real HAProxy that says no


def test_check_of_an_unreachable_proxy_says_so(pool: Pool) -> None:
    port = free_ports(1)[0]
    assert found(pool, other(pool, f'socket: "127.0.0.1:{port}"'), "error", f"127.0.0.1:{port}")
    assert found(pool, other(pool, f"socket: {pool.folder}/nosuch.sock"), "error", "No such file")
    url = f"http://127.0.0.1:{port}/stats"
    assert found(pool, other(pool, by_stats(pool, url=url)), "error", f"127.0.0.1:{port}")


def test_check_of_a_proxy_that_hangs_says_that_it_did_not_answer(pool: Pool) -> None:
    done: list[Done] = []
    for way in (None, f'socket: "{pool.lab.runtime}"', by_stats(pool)):
        file = other(pool, way)
        pool.lab.process.suspend()
        try:
            done.append(pool.run("check", "--json", file=file))
        finally:
            pool.lab.process.resume()
    for each in done:
        assert each.code == 1
        assert any(severity == "error" and "did not answer" in what for severity, what, _ in findings(each)), each


def test_check_with_a_wrong_password_says_so_and_does_not_tell_it(pool: Pool) -> None:
    mend = found(pool, other(pool, by_stats(pool, password="not-the-password")), "error", "401")
    assert "password_file" in mend


def test_check_of_a_page_without_stats_admin_says_that_nothing_may_be_moved_there(pool: Pool) -> None:
    reload(pool, "stats admin if TRUE", "stats admin if FALSE")
    mend = found(pool, other(pool, by_stats(pool)), "error", "servers may not be moved there")
    assert "stats admin" in mend


@pytest.mark.parametrize("level", ["user", "operator"])
def test_check_of_a_socket_without_admin_level_says_which_it_has(pool: Pool, level: str) -> None:
    reload(pool, f"{pool.lab.user_runtime} level user", f"{pool.lab.user_runtime} level {level}")
    mend = found(pool, other(pool, f'socket: "{pool.lab.user_runtime}"'), "error", f"level '{level}'")
    assert "level admin" in mend


@pytest.mark.parametrize("way", ["socket", "stats"])
def test_check_of_a_backend_or_server_that_is_not_there_names_what_is(pool: Pool, way: str) -> None:
    entry = None if way == "socket" else by_stats(pool)
    file = other(pool, entry)
    file.write_text(file.read_text().replace("backend: producers", "backend: nosuch"))
    assert "correct `backend`" in found(pool, file, "error", "no backend 'nosuch'; HAProxy has producers, watch")
    file = other(pool, entry, servers="{main: main, backup: bp2}")
    assert "servers" in found(pool, file, "error", "no server 'bp2' in backend 'producers'; it has backup, main")
    assert "watch" in found(pool, other(pool, entry, watch="nosuch"), "error", "no backend 'nosuch'")


@pytest.mark.parametrize("way", ["socket", "stats"])
def test_check_of_servers_that_are_the_other_producer_says_where_each_leads(pool: Pool, way: str) -> None:
    entry = None if way == "socket" else by_stats(pool)
    file = other(pool, entry, servers="{main: backup, backup: main}")
    assert "servers" in found(pool, file, "error", f"server backup leads to {pool.backup.address}, and main is at")
    assert found(pool, file, "error", f"server main leads to {pool.main.address}, and backup is at")


def test_check_of_a_page_without_addresses_warns_that_it_cannot_be_told_whose_a_server_is(pool: Pool) -> None:
    reload(pool, "    stats show-legends\n", "")
    mend = found(pool, other(pool, by_stats(pool)), "warning", "server main: whether it is main cannot be told")
    assert "stats show-legends" in mend


# ---------------------------------------------------------------- something else where the stats page belongs


@contextmanager
def page(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that reads each request and hands the connection to ``answer``."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.settimeout(10)
                    connection.recv(65536)
                    answer(connection)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/stats"
        finally:
            stop.set()
            thread.join()


WELCOME = b"<html><h1>Welcome</h1></html>"
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
HTML = HEAD % len(WELCOME) + WELCOME


def dribble(connection: socket.socket) -> None:
    pause = threading.Event()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\n# ")
    for _ in range(200):
        connection.sendall(b"x")
        pause.wait(0.05)


def late(connection: socket.socket) -> None:
    threading.Event().wait(2)
    connection.sendall(HTML)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda c: c.sendall(HTML), "answered another HTML page"),
        (dribble, "did not answer within"),
        (late, "did not answer within"),
        (lambda c: c.shutdown(socket.SHUT_RDWR), "127.0.0.1"),
    ],
    ids=["HTML", "a dribble", "an answer after the timeout", "an end at once"],
)
def test_check_of_something_else_than_a_stats_page_says_so_in_time(
    pool: Pool, answer: Callable[[socket.socket], None], words: str
) -> None:
    with page(answer) as url:
        assert found(pool, other(pool, by_stats(pool, url=url)), "error", words)


# ---------------------------------------------------------------- the daemon


def restarted(pool: Pool, file: Path) -> None:
    """The daemon that adopted main ends; one with the other file begins."""
    pool.daemons[-1].terminate()
    assert pool.daemons[-1].wait(test_cli_daemon.WAIT) == 0
    pool.file.write_text(file.read_text())
    pool.daemon()
    pool.until(lambda: pool.get("/status")[0] == 200, "it answers")


def proxy(pool: Pool) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(pool.get("/status")[1])["proxies"][0]
    return document


def test_a_daemon_with_a_wrong_password_says_so_moves_nothing_and_refuses_a_switchover(pool: Pool) -> None:
    pool.adopted()
    restarted(pool, other(pool, by_stats(pool, password="not-the-password")))
    pool.until(lambda: "401" in (proxy(pool)["error"] or ""), "the error is shown")
    assert proxy(pool)["reachable"] is False
    status = pool.run("status")
    assert status.code == 1
    assert "not-the-password" not in status.out + (pool.folder / "daemon.log").read_text()
    refused = pool.run("switchover", "--to", "backup", "--yes")
    assert refused.code == 1
    assert "refused" in refused.err
    assert pool.gates() == {"main": "open", "backup": "closed"}


@pytest.mark.parametrize("way", ["socket", "stats"])
def test_a_daemon_without_rights_says_why_its_handover_did_not_come_to_be_and_main_stays(pool: Pool, way: str) -> None:
    pool.adopted()
    if way == "stats":
        reload(pool, "stats admin if TRUE", "stats admin if FALSE")
    restarted(pool, other(pool, by_stats(pool) if way == "stats" else f'socket: "{pool.lab.user_runtime}"'))
    pool.until(lambda: pool.run("status").code == 0, "steady")
    done = pool.run("switchover", "--to", "backup", "--yes", "--timeout", "30s")
    assert done.code == 1, done
    words = "DENY" if way == "stats" else "Permission denied"
    assert words in done.out + done.err
    assert pool.gates() == {"main": "open", "backup": "closed"}
    pool.until(lambda: pool.steady("main"), "taken back")


def test_a_daemon_whose_backend_is_gone_says_which_are_there_and_goes_on_when_it_is_back(pool: Pool) -> None:
    pool.adopted()
    text = pool.lab.text()
    pool.call(
        pool.lab.process.reload(
            text.replace("backend producers", "backend elsewhere").replace(
                "default_backend producers", "default_backend elsewhere"
            )
        )
    )
    pool.until(lambda: "producers" in (proxy(pool)["error"] or ""), "the error is shown")
    assert pool.run("status").code == 1
    pool.call(pool.lab.process.reload(text))
    pool.until(lambda: pool.steady("main") and proxy(pool)["error"] is None, "steady again")
