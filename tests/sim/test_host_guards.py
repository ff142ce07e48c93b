"""What is asked right before something leaves for a producer's or a relay's host, of the real controller at work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from failover.board import Board
from failover.controller import Controller
from failover.edge import Order
from failover.errors import GateUnreachable
from failover.gate_edges import GateEdge
from failover.hostgates import GateTrack
from failover.model import Event, Gate, GateKind, GateReading, Instant, Kick, PolicySettings, Pool, Step, StepKind
from failover.simulator.campaign import default_pool
from failover.simulator.faults import Fault
from failover.simulator.host import VirtualHost
from failover.simulator.judge import Judge
from failover.simulator.loop import VirtualLoop
from failover.simulator.nemesis import Nemesis
from failover.simulator.world import Setup, World

QUICK = PolicySettings(60.0, 300.0)
FORGING = GateKind.FORGING


def at(seconds: float, pool: Pool, look: Callable[[World, Controller], None], *faults: Fault) -> None:
    """Let a world run for so long, and look at it then."""
    loop = VirtualLoop(seed=0)
    world = World(pool, loop, 0, Setup(relays=2))
    world.judge = Judge(world)
    nemesis = Nemesis(world)

    async def main() -> None:
        nemesis.schedule(faults)
        world.begin()
        reached: asyncio.Future[None] = loop.create_future()
        world.nature.after(seconds, lambda: reached.set_result(None))
        await reached
        daemon = world.machine.daemons[0]
        assert daemon.controller is not None
        look(world, daemon.controller)
        daemon.sever()

    loop.run(main())


def relays_pool() -> Pool:
    return default_pool(policy=QUICK, proxies=0, records=1, require="none", relays=2)


def keys_pool(**fields: object) -> Pool:
    return replace(default_pool(policy=QUICK, proxies=0, gates=(FORGING,)), **fields)  # type: ignore[arg-type]


def kick_now(world: World, **fields: object) -> Kick:
    """Off a standby, as the store stands; with changes."""
    a, lease = world.disk.assignment, world.disk.lease
    assert a is not None
    assert lease is not None
    return replace(Kick("relay-1", "backup", a.generation, lease.term, "a test"), **fields)  # type: ignore[arg-type]


def test_a_relay_is_made_to_let_go_of_a_standby_in_the_present_generation_alone() -> None:
    def look(world: World, controller: Controller) -> None:
        kick = kick_now(world)
        assert controller.may_kick(kick)
        assert not controller.may_kick(replace(kick, generation=kick.generation - 1))
        assert not controller.may_kick(replace(kick, term=kick.term - 1))
        assert not controller.may_kick(replace(kick, producer="main"))

    at(60.0, relays_pool(), look)


def test_no_relay_is_made_to_let_go_in_the_middle_of_a_handover() -> None:
    def look(world: World, controller: Controller) -> None:
        a = world.disk.assignment
        assert a is not None
        assert a.phase.value == "promoting"
        assert not controller.may_kick(kick_now(world, producer="main"))
        assert not controller.may_kick(kick_now(world, producer="backup"))
        assert not controller.may_kick(kick_now(world, producer="spare"))

    ask = Fault(60.0, "ask", (), None, {"verb": "switchover", "producer": "backup"})
    hang = Fault(50.0, "hang-dns", ("bp.example.com.",), None, {}, "promoting")
    at(63.0, relays_pool(), look, hang, ask)


def test_fuses_are_told_of_the_lease_by_whoever_decides() -> None:
    def look(world: World, controller: Controller) -> None:
        left = controller.lease_left()
        assert left is not None
        assert 0 < left[0] <= 60.0
        assert left[1:] == (1, world.disk.lease.term if world.disk.lease else 0)

    at(60.0, keys_pool(), look)


def test_an_observer_tells_fuses_nothing_beside_the_controller_that_steers() -> None:
    def look(world: World, controller: Controller) -> None:
        assert controller.lease_left() is None

    at(60.0, keys_pool(mode="observe"), look)


def test_fuses_do_not_blow_because_an_operator_took_the_pool_in_hand() -> None:
    def look(world: World, controller: Controller) -> None:
        assert controller.lease_left() is not None

    at(60.0, keys_pool(), look, Fault(30.0, "ask", (), None, {"verb": "release"}))


class Port:
    """A gate's port: it notes whether a step was still valid when it was about to be sent; ``gone``: nobody answers."""

    def __init__(self, reads: bool) -> None:
        self.asked: list[bool] = []
        self.reads, self.gone = reads, False

    async def read(self, timeout: float) -> GateReading:
        if self.gone:
            raise GateUnreachable("no connection")
        return GateReading(open=self.reads)

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        if self.gone:
            raise GateUnreachable("no connection")
        self.asked.append(still_valid())
        return self.asked[-1]

    async def close(self) -> None:
        """Nothing to let go of."""


BACKUP = Gate(FORGING.value, "backup")


def given(port: Port, *steps: Step, then: Callable[[], None] = lambda: None) -> tuple[GateTrack, list[str]]:
    """Play an edge that is given these steps, 20 s apart, after ``then``: the gate's track, and what became of each."""
    loop = VirtualLoop()
    board, host, ended = Board(keys_pool(), Instant("boot", 0.0, 0.0)), VirtualHost(loop, seed=1), list[Event]()
    edge = GateEdge(
        BACKUP,
        port,
        board,
        host,
        interval=5.0,
        read_timeout=5.0,
        step_timeout=10.0,
        valid=lambda step: step.generation == 2,
        posted=lambda: None,
        report=ended.append,
    )

    async def main() -> None:
        running = asyncio.ensure_future(edge.run())
        await host.sleep(20.0)
        then()
        for number, step in enumerate(steps):
            edge.offer((Order(f"order-{number}", step),))
            await host.sleep(20.0)
        running.cancel()

    loop.run(main())
    return board.gates[BACKUP], [str(event.detail["result"]) for event in ended]


def test_a_step_for_a_gate_on_a_producers_host_is_not_sent_once_it_is_overtaken() -> None:
    port = Port(reads=True)
    steps = [Step(StepKind.CLOSE, BACKUP, generation, 1, "a test") for generation in (1, 2)]
    assert given(port, *steps)[1] == ["overtaken", "sent"]
    assert port.asked == [False, True]


def test_an_opening_that_reached_nobody_leaves_the_gate_as_it_was_last_read() -> None:
    port = Port(reads=False)
    track, results = given(port, Step(StepKind.OPEN, BACKUP, 2, 1, "a test"), then=lambda: setattr(port, "gone", True))
    assert results == ["unreachable"]
    assert (track.is_open, track.answers, track.sent, track.opened) == (False, False, False, False)
