"""A node's metrics over real HTTP: an endpoint that behaves, and ones that do not, each a clear error with its mend."""

from __future__ import annotations

import asyncio
import gzip
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from failover.errors import ProbeError
from failover.host import RealHost
from failover.model import NodeReading
from failover.probes.metrics import MAX_ANSWER, HttpNodePort

HOST = RealHost()
SHORT = 0.5  # seconds, where no whole answer is expected
LONG = 20.0
GOOD = b"cardano_node_metrics_slotNum_int 42\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    """An endpoint that reads a request and then does ``talk``; its URL."""
    tasks: dict[asyncio.Task[Any] | None, None] = {}

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks[asyncio.current_task()] = None
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever asked has given up
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()


def saying(data: bytes) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        await asyncio.Event().wait()

    return talk


async def read(url: str, timeout: float = LONG) -> NodeReading:
    port = HttpNodePort(url, HOST)
    try:
        return await port.read(timeout)
    finally:
        await port.close()


async def failure(url: str, timeout: float = LONG) -> str:
    with pytest.raises(ProbeError) as caught:
        await read(url, timeout)
    assert caught.value.mend
    return str(caught.value)


async def test_an_endpoint_that_behaves_is_read() -> None:
    async with serving(saying(answer(GOOD))) as url:
        assert await read(url) == NodeReading(slot=42)


async def test_metrics_of_a_node_that_has_no_numbers_yet_are_a_reading_of_nothing() -> None:
    async with serving(saying(answer(b"cardano_node_metrics_RTS_threads_int 9\n"))) as url:
        assert await read(url) == NodeReading()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<!DOCTYPE html><html><body>ekg</body></html>", "answered with an HTML page"),
        (b"  \n", "answered with nothing"),
        (b"", "answered with nothing"),
        (b'{"ekg": {}}', "answered with JSON"),
        (b"# HELP x\nnode_load1 0.5\n", "answered with no metric of a node, but 'node_load1 0.5'"),
    ],
)
async def test_what_is_no_metrics_is_named(body: bytes, says: str) -> None:
    async with serving(saying(answer(body))) as url:
        assert await failure(url) == f"{url} {says}"


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "401 Unauthorized", "500 Oops", "204 No Content"])
async def test_an_answer_that_is_not_200_is_named(status: str) -> None:
    async with serving(saying(answer(GOOD, status))) as url:
        assert await failure(url) == f"{url} answered {status[:3]}"


async def test_a_redirect_is_not_followed() -> None:
    async with (
        serving(saying(answer(GOOD))) as good,
        serving(saying(answer(b"", "302 Found", f"Location: {good}"))) as url,
    ):
        assert await failure(url) == f"{url} answered 302"


async def test_one_that_dribbles_is_given_up_at_the_deadline_and_can_be_read_again_at_once() -> None:
    behaves = asyncio.Event()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if behaves.is_set():
            writer.write(answer(GOOD))
            await writer.drain()
            await asyncio.Event().wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"#")
            await writer.drain()
            await HOST.sleep(0.02)

    async with serving(talk) as url:
        port = HttpNodePort(url, HOST)
        before = HOST.now().mono
        with pytest.raises(ProbeError) as caught:
            await port.read(SHORT)
        assert SHORT <= HOST.now().mono - before < LONG
        assert str(caught.value) == f"{url} did not answer in full within 0.5 s"
        behaves.set()
        assert await port.read(LONG) == NodeReading(slot=42)
        await port.close()


async def test_one_that_says_nothing_is_given_up_at_the_deadline() -> None:
    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(talk) as url:
        assert "0.5 s" in await failure(url, SHORT)


async def test_a_huge_answer_is_not_read_to_its_end() -> None:
    sent = 0

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while sent < 16 * MAX_ANSWER:
            writer.write(GOOD * 10_000)
            await writer.drain()
            sent += len(GOOD) * 10_000

    async with serving(talk) as url:
        assert await failure(url) == f"{url} sent more than 4 MiB"
    assert sent < 16 * MAX_ANSWER


async def test_a_packed_answer_is_not_unpacked() -> None:
    async with serving(saying(answer(gzip.compress(GOOD * 1000), "200 OK", "Content-Encoding: gzip"))) as url:
        assert await failure(url) == f"{url} sent its answer packed ('gzip')"


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        answer(GOOD)[:-5],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["not HTTP", "nothing at all", "cut short", "bad chunks"],
)
async def test_what_breaks_off_or_is_no_http_is_named(data: bytes) -> None:
    async with serving(saying(data)) as url:
        assert await failure(url) == f"{url} broke off without a whole answer to HTTP"


async def test_a_refused_connection_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/metrics"
    assert await failure(url) == f"{url} took no connection: Connection refused"


async def test_a_name_that_is_not_there_is_named() -> None:
    assert "took no connection" in await failure("http://no-such-node.invalid:12798/metrics")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/metrics", "127.0.0.1:12798", "http://[::1/metrics", "http://"])
async def test_what_is_no_address_is_named_with_an_example(url: str) -> None:
    with pytest.raises(ProbeError) as caught:
        await read(url)
    assert "is no address of metrics" in str(caught.value)
    assert "http://127.0.0.1:12798/metrics" in caught.value.mend


async def test_a_password_in_the_address_is_in_no_error() -> None:
    async with serving(saying(answer(b"", "500 Oops"))) as url:
        words = await failure(url.replace("//", "//somebody:secret@") + "?token=hidden")
    assert words == f"{url} answered 500"


async def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    async with serving(saying(answer(GOOD))) as url:
        assert await read(url) == NodeReading(slot=42)


def test_requests_is_loaded_only_when_it_is_needed() -> None:
    code = "import sys, failover.probes.metrics; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=LONG, check=False).returncode == 0
