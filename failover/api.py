"""The HTTP endpoints of the daemon, on ``listen``: /metrics, /healthz, /status. Read-only, served from snapshots.

Runs in the daemon's own loop, so it is kept small: connections are few and short, and nothing is logged for each
request. An address that is in use (a second daemon on this host) is tried again; it never ends the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import socket
from collections.abc import Callable, Generator, Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from .model import Address, Event, Instant, Ping
from .ports import Host
from .tick import Outcome

CONNECTIONS = 32  # at the same time; more are turned away
LIFETIME = 30.0  # seconds of a connection, whatever it does
RETRY = 5.0  # seconds until an address that is in use is tried again
LATE = 30.0  # seconds without a tick after which the daemon is unwell; three intervals, when these are longer
TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format


class Pulse:
    """An Observer that remembers when it was last decided, for /healthz, the status and the watchdog."""

    def __init__(self, host: Host, beat: Callable[[], None] = lambda: None) -> None:
        self._host = host
        self._beat = beat
        self.started = host.now()
        self.last: Instant | None = None

    def event(self, event: Event) -> None:
        """Not of interest here."""

    def ping(self, producer: str, ping: Ping) -> None:
        """Not of interest here."""

    def ticked(self, seconds: float, outcome: Outcome) -> None:
        """Another decision was made."""
        self.last = self._host.now()
        self._beat()

    def trouble(self, interval: float) -> str | None:
        """Why the daemon is unwell, or None: no tick for longer than LATE, or three ``interval`` (seconds)."""
        silence, limit = self._host.now().since(self.last or self.started), max(LATE, 3 * interval)
        if silence <= limit:
            return None
        return f"no decision for {silence:.0f} s (at most {limit:g} s are normal)"


class _Connection(H11Protocol):
    """uvicorn's connection, of which there are few, and none lives long: a slow client costs no descriptor for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(LIFETIME, transport.abort)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the daemon's."""
        yield


def application(
    status: Callable[[], Mapping[str, Any]], metrics: Callable[[], bytes], trouble: Callable[[], str | None]
) -> Starlette:
    """The three endpoints. ``trouble`` says why the daemon is unwell, or None."""

    async def healthz(request: Request) -> Response:
        words = trouble()
        return PlainTextResponse("ok\n" if words is None else f"{words}\n", 200 if words is None else 503)

    async def document(request: Request) -> Response:
        return Response(json.dumps(status(), allow_nan=False) + "\n", media_type="application/json")

    async def exposition(request: Request) -> Response:
        return Response(metrics(), headers={"Content-Type": TEXT})

    routes = [("/healthz", healthz), ("/status", document), ("/metrics", exposition)]
    return Starlette(routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in routes])


async def serve(app: Starlette, listen: Address, host: Host, warn: Callable[[str], None]) -> None:
    """Serve until cancelled. An address that cannot be listened on is said once through ``warn``, and tried again."""
    said = ""
    while True:
        try:
            listener = await _listener(listen, host)
        except OSError as error:
            words = f"{listen}: cannot listen: {error.strerror or error}"
            if error.errno == errno.EADDRINUSE:
                words = f"{listen}: in use (a second daemon on this host?); observing goes on without /status"
            if words != said:
                warn(words)
                said = words
            await host.sleep(RETRY)
            continue
        said = ""
        await _serve_on(app, listener)


async def _serve_on(app: Starlette, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        backlog=CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16384,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
    finally:
        listener.close()


async def _listener(listen: Address, host: Host) -> socket.socket:
    """A bound socket. Names are looked up in a thread. Raises OSError."""
    literal, name = listen.host, listen.host
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(literal)
        name = ""
    if name:
        worker = host.worker("listen name")
        try:
            found = await worker.call(lambda: socket.getaddrinfo(name, listen.port, type=socket.SOCK_STREAM), RETRY)
        except TimeoutError as error:
            raise OSError(f"{name}: no answer from the name servers") from error
        finally:
            worker.close()
        literal = str(found[0][4][0])
    made = socket.socket(socket.AF_INET6 if ":" in literal else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind((literal, listen.port))
        made.listen(CONNECTIONS)
    except OSError:
        made.close()
        raise
    return made
