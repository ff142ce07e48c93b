"""What every way to a HAProxy promises (ProxyPort, failover/ports.py), simulated and real. A new way joins by a row."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from contracts import contract_of
from haproxy_world import ANSWER, World, close, open_, until, world

from failover.errors import GateRefused, GateTimeout, GateUnreachable
from failover.lab.haproxy import WayIn
from failover.model import Address, Admin, Proxy, ProxyReading, StepKind
from failover.ports import ProxyPort
from failover.simulator.edges import Exit, SimProxyPort
from failover.simulator.host import VirtualHost
from failover.simulator.loop import VirtualLoop
from failover.simulator.nature import Nature, Network
from failover.simulator.nodes import Node
from failover.simulator.proxies import HAProxy
from failover.simulator.wire import make_proxy
from failover.simulator.wire_haproxy import RuntimeSession
from failover.simulator.wire_stats import WireStatsPort

SHORT = 0.7  # seconds, for what must time out


class Edge(ABC):
    """A proxy in front of main, which it serves, and backup, which it does not; ``port`` is the way to it."""

    port: ProxyPort

    @abstractmethod
    async def relay(self) -> Callable[[], bool]:
        """Let a relay connect through the proxy. What is returned says whether its session has ended."""

    @abstractmethod
    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition, bounded."""

    @abstractmethod
    def hang(self) -> None:
        """Let the proxy hang, as by SIGSTOP."""

    @abstractmethod
    def resume(self) -> None:
        """Let it go on."""

    @abstractmethod
    async def stop(self) -> None:
        """End its process."""

    @abstractmethod
    async def reload(self) -> None:
        """Let a new worker take over."""

    @abstractmethod
    async def restart(self, *, keep_state: bool) -> None:
        """End it and start it, with its state file or with none."""

    async def sees(self, wanted: Callable[[ProxyReading], bool]) -> ProxyReading:
        """The first reading that is as wanted."""
        reading = await self.port.read(ANSWER)

        async def right() -> bool:
            nonlocal reading
            reading = await self.port.read(ANSWER)
            return wanted(reading)

        await self.until(right)
        return reading

    async def admins(self) -> dict[str, Admin]:
        return {name: view.admin for name, view in (await self.port.read(ANSWER)).servers.items()}


class RealEdge(Edge):
    """A real HAProxy on loopback."""

    def __init__(self, made: World, way: WayIn) -> None:
        self.port = made.port(way)
        self._world = made

    async def relay(self) -> Callable[[], bool]:
        relay = await self._world.relay()
        return lambda: relay.ended

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        await until(condition)

    def hang(self) -> None:
        self._world.lab.process.suspend()

    def resume(self) -> None:
        self._world.lab.process.resume()

    async def stop(self) -> None:
        await self._world.lab.process.stop()

    async def reload(self) -> None:
        await self._world.lab.process.reload()

    async def restart(self, *, keep_state: bool) -> None:
        await self._world.lab.process.restart(keep_state=keep_state)


class SimulatedEdge(Edge):
    """A simulated one, with two simulated nodes behind it."""

    def __init__(self, loop: VirtualLoop, make: Callable[[HAProxy, Exit], ProxyPort]) -> None:
        nature = Nature(loop, seed=1)
        network = Network(nature)
        self._host = VirtualHost(loop, seed=1)
        servers = {"main": "main", "backup": "backup"}
        nodes = {name: Node(name, nature, network) for name in servers}
        config = Proxy("proxy-1", "producers", servers, Address("proxy-1", 9999), watch="watch", hard_stop_after=2.0)
        self.haproxy = HAProxy(config, nodes, nature, network, checks="l7", active="main")
        self.exit = Exit(nature, network, self._host)
        self.port = make(self.haproxy, self.exit)

    async def relay(self) -> Callable[[], bool]:
        ends: list[str] = []
        assert self.haproxy.connect("relay-1", lambda: ends.append("ended")) is not None
        return lambda: bool(ends)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(100):
            if await condition():
                return
            await self._host.sleep(0.1)
        pytest.fail("it did not come to be within 10 s")

    def hang(self) -> None:
        self.haproxy.hang()

    def resume(self) -> None:
        self.haproxy.resume()

    async def stop(self) -> None:
        self.haproxy.stop()

    async def reload(self) -> None:
        self.haproxy.reload("current")

    async def restart(self, *, keep_state: bool) -> None:
        self.haproxy.restart("current" if keep_state else "none")


Story = Callable[[Edge], Awaitable[None]]


def simulated(make: Callable[[HAProxy, Exit], ProxyPort]) -> Callable[[Path, Story], None]:
    def run(folder: Path, story: Story) -> None:
        async def main() -> None:
            await story(SimulatedEdge(loop, make))

        loop = VirtualLoop()
        loop.run(main())

    return run


def real(way: WayIn) -> Callable[[Path, Story], None]:
    def run(folder: Path, story: Story) -> None:
        async def main() -> None:
            async with world(folder) as made:
                await story(RealEdge(made, way))

        asyncio.run(main())

    return run


ROWS = {
    "simulated, as values": simulated(SimProxyPort),
    "simulated, as text": simulated(make_proxy),
    "simulated, as pages": simulated(WireStatsPort),
    "runtime socket": real(WayIn.SOCKET),
    "stats page": real(WayIn.STATS),
}
contract = contract_of(ROWS)


# ---------------------------------------------------------------- the promises


@contract
async def test_closing_shows_maint_and_ends_its_sessions(edge: Edge) -> None:
    ended = await edge.relay()
    await edge.sees(lambda r: r.servers["main"].sessions == 1)
    assert await close(edge.port, "main")
    closed = await edge.sees(lambda r: r.servers["main"].sessions == 0)
    main = closed.servers["main"]
    assert (main.admin, main.status, main.serves) == (Admin.MAINT, "MAINT", False)

    async def over() -> bool:
        return ended()

    await edge.until(over)


@contract
async def test_opening_shows_ready_and_serves(edge: Edge) -> None:
    await close(edge.port, "main")
    await edge.port.read(ANSWER)
    assert await open_(edge.port, "backup")
    served = await edge.sees(lambda r: r.servers["backup"].serves)
    assert served.servers["backup"].admin is Admin.READY
    await edge.relay()
    assert (await edge.sees(lambda r: r.servers["backup"].sessions == 1)).servers["main"].sessions == 0


@contract
async def test_both_are_idempotent(edge: Edge) -> None:
    await edge.port.read(ANSWER)
    assert [await close(edge.port, "main"), await close(edge.port, "main")] == [True, True]
    assert await edge.admins() == {"main": Admin.MAINT, "backup": Admin.MAINT}
    assert [await open_(edge.port, "main"), await open_(edge.port, "main")] == [True, True]
    assert await edge.admins() == {"main": Admin.READY, "backup": Admin.MAINT}


@contract
async def test_nothing_is_sent_when_still_valid_says_no(edge: Edge) -> None:
    ended = await edge.relay()
    await edge.sees(lambda r: r.servers["main"].sessions == 1)
    assert await edge.port.set(StepKind.CLOSE, "main", ANSWER, lambda: False) is False
    assert await edge.port.set(StepKind.OPEN, "backup", ANSWER, lambda: False) is False
    assert await edge.admins() == {"main": Admin.READY, "backup": Admin.MAINT}
    assert not ended()


@contract
async def test_still_valid_is_asked_again_before_the_sessions_are_ended(edge: Edge) -> None:
    answers = iter([True, False])
    assert await edge.port.set(StepKind.CLOSE, "main", ANSWER, lambda: next(answers)) is False
    assert (await edge.admins())["main"] is Admin.MAINT


@contract
async def test_a_proxy_that_is_not_there_is_unreachable(edge: Edge) -> None:
    await edge.port.read(ANSWER)
    await edge.stop()
    with pytest.raises(GateUnreachable):
        await edge.port.read(ANSWER)
    for kind in StepKind:
        with pytest.raises(GateUnreachable):
            await edge.port.set(kind, "main", ANSWER, lambda: True)


@contract
async def test_one_that_hangs_times_out_and_gets_no_command_that_it_could_run_later(edge: Edge) -> None:
    await edge.port.read(ANSWER)
    edge.hang()
    with pytest.raises(GateTimeout):
        await edge.port.read(SHORT)
    with pytest.raises(GateUnreachable, match="no command was sent"):
        await edge.port.set(StepKind.OPEN, "backup", SHORT, lambda: True)
    edge.resume()
    assert await edge.admins() == {"main": Admin.READY, "backup": Admin.MAINT}


@contract
async def test_a_command_that_timed_out_takes_effect_when_the_proxy_goes_on(edge: Edge) -> None:
    """It hangs in the instant between the last look and the command."""
    await edge.port.read(ANSWER)
    asked: list[str] = []

    def hang() -> bool:
        asked.append("still valid?")
        edge.hang()
        return True

    with pytest.raises(GateTimeout):
        await edge.port.set(StepKind.OPEN, "backup", SHORT, hang)
    edge.resume()
    await edge.sees(lambda r: r.servers["backup"].admin is Admin.READY)
    with pytest.raises(GateTimeout):
        await edge.port.set(StepKind.CLOSE, "backup", SHORT, hang)
    assert len(asked) == 2, "the second command of a closing is not sent behind one that was not answered"
    edge.resume()
    await edge.sees(lambda r: r.servers["backup"].admin is Admin.MAINT)


@contract
async def test_a_reload_hides_sessions_and_shows_in_process_and_total(edge: Edge) -> None:
    ended = await edge.relay()
    before = await edge.sees(lambda r: r.servers["main"].sessions == 1)
    await edge.reload()
    after = await edge.port.read(ANSWER)
    assert not ended(), "the old worker still carries it"
    assert after.servers["main"].sessions == 0
    assert after.total < before.total
    assert after.process != before.process
    assert not after.stopping
    await close(edge.port, "main")
    assert not ended(), "nobody can end it but the old worker"

    async def over() -> bool:
        return ended()

    await edge.until(over)  # hard-stop-after


@contract
async def test_nothing_is_opened_in_another_process_than_was_read(edge: Edge) -> None:
    await edge.port.read(ANSWER)
    await edge.reload()
    with pytest.raises(GateRefused, match="reloaded or restarted since it was read"):
        await open_(edge.port, "backup")
    assert await close(edge.port, "main"), "closing is right in any process"
    assert (await edge.admins())["backup"] is Admin.MAINT
    assert await open_(edge.port, "backup")


@contract
async def test_a_restart_without_a_state_file_opens_the_preferred_one_alone(edge: Edge) -> None:
    before = await edge.port.read(ANSWER)
    await close(edge.port, "main")
    await open_(edge.port, "backup")
    await edge.restart(keep_state=False)
    assert await edge.admins() == {"main": Admin.READY, "backup": Admin.MAINT}
    assert (await edge.port.read(ANSWER)).process != before.process


@contract
async def test_a_restart_with_its_state_file_keeps_what_was_closed_and_opened(edge: Edge) -> None:
    await edge.port.read(ANSWER)
    await close(edge.port, "main")
    await open_(edge.port, "backup")
    await edge.restart(keep_state=True)
    assert await edge.admins() == {"main": Admin.MAINT, "backup": Admin.READY}


# ---------------------------------------------------------------- the text itself

COMMANDS = (
    "set server producers/backup state maint",
    "set server producers/backup state drain",
    "set server producers/backup state ready",
    "set server producers/backup state MAINT",
    "set server producers/nosuch state maint",
    "set server nosuch/backup state maint",
    "set server backup state maint",
    "shutdown sessions server producers/main",
    "shutdown sessions server producers/nosuch",
    "shutdown sessions server nosuch/main",
    "shutdown sessions server main",
    "show servers state nosuch",
)


async def test_the_simulated_haproxy_answers_word_for_word_as_the_real_one(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        reader, writer = await asyncio.open_unix_connection(made.lab.socket)
        spoken = []
        for command in ("prompt", *COMMANDS):
            writer.write(command.encode() + b"\n")
            spoken.append(await reader.readuntil(b"\n> "))
        writer.transport.abort()
    asked = ("prompt", *COMMANDS)
    assert dict(zip(asked, simulated_answers(), strict=True)) == dict(zip(asked, spoken, strict=True))


def simulated_answers() -> list[bytes]:
    """What the simulated one answers to ``prompt`` and then to COMMANDS."""
    answers: list[bytes] = []
    loop = VirtualLoop()
    edge = SimulatedEdge(loop, SimProxyPort)
    line = RuntimeSession(edge.haproxy, lambda data: answers.append(data or b""), edge.exit)
    for command in ("prompt", *COMMANDS):
        line.take(command.encode() + b"\n")
    loop.close()
    return answers
