"""Proxies and nodes as a simulated controller reaches them: its ports as values, without the text of a protocol.

What a call costs and how it fails is as with the real edges: a request travels, has its effect when it arrives, and
its answer travels back; either may be slow or lost, and an effect that comes late comes all the same.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from failover.errors import GateError, GateRefused, GateTimeout, GateUnreachable
from failover.model import Address, ProxyReading, StepKind, Tip
from failover.ouroboros.failures import explain
from failover.simulator.host import VirtualHost
from failover.simulator.nature import Nature, Network
from failover.simulator.nodes import Node, Process
from failover.simulator.proxies import HAProxy

R = TypeVar("R")

BACKLOG = 1024  # requests that the kernel keeps for a process that hangs; what comes then is not taken


class Exit:
    """One process's way out into the world, from ``place``.

    ``moment`` is told when a call is at a point at which a crash would matter ("ping: before", "proxy read: effect",
    "proxy set close: reply"); it may ``sever``: then the process was killed at that very point. Nothing leaves after
    that; what has left arrives.
    """

    def __init__(self, nature: Nature, network: Network, host: VirtualHost, place: str = "controller") -> None:
        self.nature = nature
        self.network = network
        self.host = host
        self.place = place
        self.alive = True
        self.moment: Callable[[str], None] = lambda text: None

    def sever(self) -> None:
        """The process is gone."""
        self.alive = False

    def survives(self, moment: str) -> bool:
        """Tell of a crash point; whether the process still lives behind it."""
        if self.alive:
            self.moment(moment)
        return self.alive


@dataclass(slots=True)
class _Call:
    """How far a call has come; decides what an error means, as in haproxy_runtime.py."""

    pid: int | None = None  # of the process that took the connection
    sent: bool = False  # a command that changes something


class SimProxyPort:
    """ProxyPort on a simulated HAProxy."""

    def __init__(self, haproxy: HAProxy, way_out: Exit) -> None:
        self._haproxy = haproxy
        self._exit = way_out
        self._process: str | None = None  # of the last reading

    async def read(self, timeout: float) -> ProxyReading:
        """See ProxyPort."""
        call = _Call()
        self._live("proxy read: before")
        try:
            async with self._exit.host.timeout(timeout):
                seen = await self._ask(call, self._haproxy.reading, "proxy read: effect")
        except TimeoutError as error:
            raise self._late(call, timeout, change=False) from error
        self._live("proxy read: reply")
        self._process = seen.process
        return seen

    async def set(self, kind: StepKind, producer: str, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See ProxyPort. The order is haproxy_runtime.py's: first the question who answers, then the commands."""
        call, haproxy, words = _Call(), self._haproxy, f"proxy set {kind.value}"
        if not self._exit.alive:
            raise self._gone()
        if kind is StepKind.OPEN:
            commands = [lambda: haproxy.open(producer)]
        else:
            commands = [lambda: haproxy.close(producer), lambda: haproxy.shutdown(producer)]
        try:
            async with self._exit.host.timeout(timeout):
                process = await self._ask(call, lambda: haproxy.reading().process, "")
                if kind is StepKind.OPEN and self._process not in (None, process):
                    raise GateRefused(
                        f"{haproxy.name}: HAProxy was reloaded or restarted since it was read; nothing was opened",
                        "nothing: it is read again first",
                    )
                for command in commands:
                    self._live(f"{words}: before")
                    if not still_valid():
                        return False
                    call.sent = True
                    await self._ask(call, command, f"{words}: effect")
                    self._live(f"{words}: reply")
        except TimeoutError as error:
            raise self._late(call, timeout, change=True) from error
        return True

    async def close(self) -> None:
        """See ProxyPort."""

    # ------------------------------------------------------------ one request, there and back

    def _ask(self, call: _Call, act: Callable[[], R], moment: str) -> asyncio.Future[R]:
        """Let a request travel, be carried out and answered. The future never ends when one of these is lost."""
        way, haproxy = self._exit, self._haproxy
        answered: asyncio.Future[R] = way.nature.loop.create_future()
        trip = way.network.trip(way.place, haproxy.name)
        if not way.alive or trip is None or (call.pid is None and not way.network.open(haproxy.name, way.place)):
            return answered  # without a way back there is no connection either

        def arrive() -> None:
            if haproxy.hung:
                if len(haproxy.waiting) < BACKLOG:
                    call.pid = call.pid or haproxy.pid  # its kernel makes the connection
                    haproxy.waiting.append(arrive)
                return
            try:
                self._taken(call)
                outcome = act()
            except GateError as error:
                self._back(answered, None, error)
            else:
                if moment:
                    way.survives(moment)
                self._back(answered, outcome, None)

        way.nature.after(trip, arrive)
        return answered

    def _taken(self, call: _Call) -> None:
        """The process takes the request, or its successor does not. Raises GateError."""
        haproxy = self._haproxy
        if not haproxy.running:
            if call.sent:
                words = "closed the connection before answering the command: its effect is unknown"
                raise GateTimeout(f"{haproxy.name}: {words}", "look into its log")
            raise GateUnreachable(f"{haproxy.name}: Connection refused", "check that HAProxy runs")
        if call.pid is None:
            call.pid = haproxy.pid
        elif call.pid != haproxy.pid:
            raise GateRefused(f"{haproxy.name}: 'Proxy is disabled.'", "nothing: an old worker answered")

    def _back(self, answered: asyncio.Future[R], outcome: R | None, error: GateError | None) -> None:
        def settle() -> None:
            if answered.done():
                return
            if error is None:
                answered.set_result(outcome)  # type: ignore[arg-type]
            else:
                answered.set_exception(error)

        way = self._exit
        trip = way.network.trip(self._haproxy.name, way.place)
        if trip is not None:
            way.nature.after(trip, lambda: way.host.deliver(settle))

    # ------------------------------------------------------------ what went wrong

    def _live(self, moment: str) -> None:
        if not self._exit.survives(moment):
            raise self._gone()

    def _gone(self) -> GateUnreachable:
        return GateUnreachable(f"{self._haproxy.name}: this process was killed; nothing was sent")

    def _late(self, call: _Call, timeout: float, *, change: bool) -> GateTimeout | GateUnreachable:
        name = self._haproxy.name
        if not self._exit.alive:
            return self._gone()
        if call.sent or (call.pid is not None and not change):
            return GateTimeout(f"{name} did not answer within {timeout:g} s", "see whether HAProxy hangs")
        if call.pid is not None:
            return GateUnreachable(
                f"{name} did not answer within {timeout:g} s; no command was sent", "see whether HAProxy hangs"
            )
        return GateUnreachable(
            f"{name} took no connection within {timeout:g} s", "check the address, routing and firewalls"
        )


class SimPing:
    """PingPort on simulated nodes. Raises KeyError for an address at which the world has none."""

    def __init__(self, nodes_by_address: Mapping[Address, Node], way_out: Exit) -> None:
        self._nodes = nodes_by_address
        self._exit = way_out

    async def __call__(self, address: Address, magic: int, timeout: float) -> tuple[Tip, float]:
        """See PingPort. A slow node (``delay``) is slow to tell its tip; the network may be slow at any stage."""
        ping = _Pinging(self._nodes[address], self._exit)
        host = self._exit.host
        began = host.now().mono
        try:
            self._live("ping: before")
            async with host.timeout(timeout):
                tip = await ping.ask()
            self._live("ping: reply")
        except OSError as error:  # TimeoutError is one
            raise explain(error, ping.stage, str(address), timeout) from error
        return tip, host.now().mono - began

    def _live(self, moment: str) -> None:
        if not self._exit.survives(moment):
            raise ConnectionAbortedError(errno.ECONNABORTED, "this process was killed")


class _Pinging:
    """One ping. ``stage`` is how far it has come."""

    __slots__ = ("_answered", "_exit", "_node", "stage")

    def __init__(self, node: Node, way_out: Exit) -> None:
        self.stage = "connect"
        self._node = node
        self._exit = way_out
        self._answered: asyncio.Future[Tip] = way_out.nature.loop.create_future()

    def ask(self) -> asyncio.Future[Tip]:
        """The tip, when it has come back; never when something on the way is lost."""
        way, name = self._exit, self._node.name
        trip = way.network.trip(way.place, name)
        if trip is not None and way.network.open(name, way.place):
            way.nature.after(trip, self._arrive)
        return self._answered

    def _arrive(self) -> None:
        node = self._node
        if not node.powered:
            return
        if node.process in (Process.DOWN, Process.STARTING):
            self._back(None)
            return
        self.stage = "handshake"
        if node.process is Process.UP:
            self.stage = "tip"
            if node.delay > 0:
                self._exit.nature.after(node.delay, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        if self._node.forges:
            self._back(self._node.tip())

    def _back(self, tip: Tip | None) -> None:
        def settle() -> None:
            if self._answered.done():
                return
            if tip is not None:
                self._answered.set_result(tip)
            else:
                refused = errno.ECONNREFUSED
                self._answered.set_exception(ConnectionRefusedError(refused, os.strerror(refused)))

        way = self._exit
        trip = way.network.trip(self._node.name, way.place)
        if trip is not None:
            way.nature.after(trip, lambda: way.host.deliver(settle))
