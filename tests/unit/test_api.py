"""The HTTP endpoints over real connections on loopback."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from failover import api
from failover.host import RealHost
from failover.lab.haproxy import free_ports
from failover.model import Address

TIMEOUT = 10.0


class Served:
    """The endpoints, with values that a test can change."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {"pool": "TEST"}
        self.trouble: str | None = None
        self.listen = Address("127.0.0.1", free_ports(1)[0])
        self.warnings: list[str] = []
        self.app = api.application(lambda: self.document, lambda: b"x 1\n", lambda: self.trouble)

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(api.serve(self.app, self.listen, RealHost(), self.warnings.append))

    def get(self, path: str, method: str = "GET") -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection(self.listen.host, self.listen.port, timeout=TIMEOUT)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type") or "", response.read()
        finally:
            connection.close()

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, bytes]:
        return await asyncio.to_thread(self.get, path, method)  # noqa: TID251 - a client beside the loop

    async def up(self) -> None:
        await eventually(lambda: self.get("/healthz")[0] in (200, 503))


async def eventually(true: Callable[[], bool]) -> None:
    """Wait until it is so, at most TIMEOUT."""

    def so() -> bool:
        with suppress(OSError):
            return true()
        return False

    for _ in range(int(TIMEOUT / 0.02)):
        if await asyncio.to_thread(so):  # noqa: TID251 - a client beside the loop
            return
        await asyncio.sleep(0.02)  # noqa: TID251 - real peers, real time
    raise AssertionError("not so in time")


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_three_endpoints_answer_and_nothing_else_does() -> None:
    served = Served()
    task = served.start()
    await served.up()
    code, kind, body = await served.ask("/status")
    assert (code, kind, json.loads(body)) == (200, "application/json", {"pool": "TEST"})
    code, kind, body = await served.ask("/metrics")
    assert (code, body) == (200, b"x 1\n")
    assert kind.startswith("text/plain; version=0.0.4")
    assert (await served.ask("/healthz"))[0] == 200
    assert (await served.ask("/"))[0] == 404
    assert (await served.ask("/status", "POST"))[0] == 405
    await end(task)


async def test_healthz_says_why_the_daemon_is_unwell() -> None:
    served = Served()
    served.trouble = "no decision for 99 s"
    task = served.start()
    await served.up()
    code, _, body = await served.ask("/healthz")
    assert (code, body) == (503, b"no decision for 99 s\n")
    await end(task)


async def test_an_address_in_use_is_said_once_and_taken_when_it_is_free(monkeypatch: Any) -> None:
    monkeypatch.setattr(api, "RETRY", 0.05)
    first, second = Served(), Served()
    second.listen = first.listen
    second.document = {"pool": "SECOND"}
    one = first.start()
    await first.up()
    two = second.start()
    await eventually(lambda: bool(second.warnings))
    await asyncio.sleep(0.2)  # noqa: TID251 - several more attempts
    assert len(second.warnings) == 1
    assert "in use" in second.warnings[0]
    await end(one)
    await eventually(lambda: json.loads(first.get("/status")[2]) == {"pool": "SECOND"})
    await end(two)


async def test_an_address_that_is_not_ours_is_said_and_does_not_end_the_daemon() -> None:
    served = Served()
    served.listen = Address("192.0.2.1", 9465)
    task = served.start()
    await eventually(lambda: bool(served.warnings))
    assert not task.done()
    assert "192.0.2.1:9465: cannot listen" in served.warnings[0]
    await end(task)


async def test_connections_are_few_and_a_flood_does_not_shut_out_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr(api, "LIFETIME", 0.3)
    served = Served()
    task = served.start()
    await served.up()
    flood = [await asyncio.open_connection(served.listen.host, served.listen.port) for _ in range(2 * api.CONNECTIONS)]
    for reader, _ in flood:  # silent clients are all let go of, the surplus at once
        async with asyncio.timeout(TIMEOUT):  # noqa: TID251 - a bound on a real peer
            with suppress(ConnectionError):
                assert await reader.read(1) == b""
    assert (await served.ask("/healthz"))[0] == 200
    for _, writer in flood:
        writer.close()
    await end(task)


async def test_its_end_is_quick_and_leaves_the_address_free() -> None:
    served = Served()
    for _ in range(2):
        task = served.start()
        await served.up()
        await end(task)
