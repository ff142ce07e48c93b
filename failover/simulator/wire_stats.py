"""A simulated HAProxy's stats page, and the product's own client in front of it.

``requests`` blocks, and a simulation must not: each call runs in a thread of its own that never runs at the same time
as the loop. It goes on until it asks for a page; then the loop goes on until the answer has come. Who runs when is
decided by the loop alone, so a run repeats exactly.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import parse_qs

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from failover.errors import WorkerBusy
from failover.gates.haproxy_stats import StatsPort
from failover.model import Admin, ProxyReading
from failover.simulator.edges import BACKLOG, Exit
from failover.simulator.proxies import HAProxy
from failover.simulator.wire_haproxy import VERSION, table

R = TypeVar("R")
Outcome = requests.Response | Exception

HANDS_BACK = 60.0  # real seconds within which the thread hands back; it computes and nothing else


class Lockstep:
    """A function in a thread that runs only while ``step`` is called. ``ask`` is for the function to call."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._asked: requests.PreparedRequest | None = None
        self._given: Outcome | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="simulated stats page", daemon=True)

    def step(self, answer: Outcome | None = None) -> requests.PreparedRequest | None:
        """Let it run with an answer to what it asked last: what it asks next, or None when it has ended."""
        self._given, self._asked = answer, None
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        if not self._back.acquire(timeout=HANDS_BACK):
            raise RuntimeError(f"a simulated call computes for more than {HANDS_BACK:g} s")
        return self._asked

    def ask(self, request: requests.PreparedRequest) -> requests.Response:
        """In the thread: what the answer is, some simulated time later."""
        self._asked = request
        self._back.release()
        self._go.acquire()
        if isinstance(self._given, requests.Response):
            return self._given
        raise self._given or requests.ConnectionError("nobody waits any more")

    def outcome(self) -> Any:
        """What the function returned or raised."""
        if self._error is not None:
            raise self._error
        return self._value

    def end(self) -> None:
        """Let the function end, if it has not: whatever it asks for from now on fails."""
        while self._asked is not None:
            self.step()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001  it is raised again in the loop
            self._error = error
        self._back.release()


class WireStatsPort(StatsPort):
    """The product's port on the stats page, with a simulated HAProxy behind it."""

    def __init__(self, haproxy: HAProxy, way_out: Exit) -> None:
        page = f"http://{haproxy.name}:8404/stats"
        bare = {"socket": None, "username": None, "password": None, "ca_file": None, "cert_file": None}
        super().__init__(replace(haproxy.config, stats=page, key_file=None, **bare), way_out.host)  # type: ignore[arg-type]
        self._haproxy = haproxy
        self._exit = way_out
        self._running: Lockstep | None = None
        self._pid: int | None = None  # of the process that took the connection
        self._session.mount("http://", _PageAdapter(self._ask))

    async def _work(self, work: Callable[[], R], timeout: float) -> R:
        if not self._exit.alive:
            raise requests.ConnectionError("this process was killed")
        if self._running is not None:
            raise WorkerBusy(f"{self._haproxy.name}: an earlier call still runs")
        self._pid = None
        running = self._running = Lockstep(work)
        try:
            async with self._exit.host.timeout(timeout):
                request = running.step()
                while request is not None:
                    request = running.step(await self._exchange(request))
        finally:
            running.end()
            self._running = None
        found: R = running.outcome()
        return found

    def _ask(self, request: requests.PreparedRequest) -> requests.Response:
        """In the thread. A new worker closes the connections that its predecessor kept open between two requests."""
        call = self._adapter.call
        if self._pid is not None and self._pid != self._haproxy.pid:
            self._pid = None
            if call.on_reconnect is not None:
                call.on_reconnect()
        assert self._running is not None  # noqa: S101  _work made it
        return self._running.ask(request)

    # ------------------------------------------------------------ one request, there and back

    def _exchange(self, request: requests.PreparedRequest) -> Awaitable[Outcome]:
        """The answer, or what broke the connection; never when something on the way is lost."""
        way, haproxy = self._exit, self._haproxy
        answered: asyncio.Future[Outcome] = way.nature.loop.create_future()
        moment = moment_of(request)
        if moment and not way.survives(f"{moment}: before"):
            answered.set_result(requests.ConnectionError("this process was killed"))
            return answered
        first, call = self._pid is None, self._adapter.call
        trip = way.network.trip(way.place, haproxy.name)
        if trip is None or (first and not way.network.open(haproxy.name, way.place)):
            return answered

        def arrive() -> None:
            nonlocal first
            if haproxy.running and first:
                first = False
                self._pid, call.connected = haproxy.pid, True
            if haproxy.hung:
                if len(haproxy.waiting) < BACKLOG:
                    haproxy.waiting.append(arrive)
            elif not haproxy.running:
                self._back(answered, requests.ConnectionError("Connection refused" if first else "reset"), "")
            elif self._pid != haproxy.pid:
                self._back(answered, requests.ConnectionError("reset"), "")
            else:
                found = answer(haproxy, request)
                if moment:
                    way.survives(f"{moment}: effect")
                self._back(answered, found, moment)

        way.nature.after(trip, arrive)
        return answered

    def _back(self, answered: asyncio.Future[Outcome], found: Outcome, moment: str) -> None:
        way = self._exit

        def settle() -> None:
            if answered.done():
                return
            lives = way.survives(f"{moment}: reply") if moment else way.alive
            answered.set_result(found if lives else requests.ConnectionError("this process was killed"))

        trip = way.network.trip(self._haproxy.name, way.place)
        if trip is not None:
            way.nature.after(trip, lambda: way.host.deliver(settle))


class _PageAdapter(BaseAdapter):
    """What ``requests`` sends through."""

    def __init__(self, ask: Callable[[requests.PreparedRequest], requests.Response]) -> None:
        super().__init__()
        self._ask = ask

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """See BaseAdapter."""
        return self._ask(request)

    def close(self) -> None:
        """See BaseAdapter."""


# ---------------------------------------------------------------- the page


def moment_of(request: requests.PreparedRequest) -> str:
    """The crash point that a request belongs to; empty for questions of which nothing depends."""
    if request.method == "POST":
        return "proxy set open" if _form(request).get("action") == "ready" else "proxy set close"
    return "proxy read" if (request.url or "").endswith(";csv") else ""


def answer(haproxy: HAProxy, request: requests.PreparedRequest) -> requests.Response:
    """What the page answers, and does (facts/haproxy.md, section 2)."""
    if request.method == "POST":
        return _response(request, 303, {"Location": f"/stats;st={_act(haproxy, _form(request))}"}, "")
    reading = haproxy.reading()
    if (request.url or "").endswith(";csv"):
        return _response(request, 200, {"Content-Type": "text/plain"}, table(haproxy, reading))
    return _response(request, 200, {"Content-Type": "text/html"}, _heading(haproxy, reading))


def _act(haproxy: HAProxy, form: Mapping[str, str]) -> str:
    config = haproxy.config
    if not {"s", "b", "action"} <= set(form):
        return "NONE"
    producer = next((name for name, server in config.servers.items() if server == form["s"]), None)
    if form["b"] != config.backend or producer is None:
        return "ERRP"
    match form["action"]:
        case "maint":
            haproxy.close(producer)
        case "ready":
            haproxy.open(producer)
        case "shutdown":
            haproxy.shutdown(producer)
        case "drain":
            haproxy.hand(producer, Admin.DRAIN)
        case _:
            return "ERRP"
    return "DONE"


def _form(request: requests.PreparedRequest) -> dict[str, str]:
    body = request.body or ""
    return {key: values[-1] for key, values in parse_qs(body if isinstance(body, str) else body.decode()).items()}


def _heading(haproxy: HAProxy, reading: ProxyReading) -> str:
    uptime = int(reading.uptime or 0)
    spelled = f"{uptime // 86400}d {uptime // 3600 % 24}h{uptime // 60 % 60:02}m{uptime % 60:02}s"
    return (
        f'<html><head><title>Statistics Report for HAProxy</title></head>\n<body><h1><a href="http://www.haproxy.org/" '
        f'style="text-decoration: none;">HAProxy version {VERSION}, released 2026/10/17</a></h1>\n'
        f"<h2>Statistics Report for pid {haproxy.pid}</h2>\n"
        f"<p><b>pid = </b> {haproxy.pid} (process #1, nbproc = 1, nbthread = 2)<br>\n"
        f"<b>uptime = </b> {spelled};</body></html>\n"
    )


def _response(
    request: requests.PreparedRequest, status: int, headers: Mapping[str, str], body: str
) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers = CaseInsensitiveDict(headers)
    made.raw = io.BytesIO(body.encode())
    made.url, made.request = request.url or "", request
    return made
