"""What is asked right before something leaves for a producer's or a relay's host, of the real controller at work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from failover.board import Board
from failover.controller import Controller
from failover.edge import Order
from failover.gate_edges import GateEdge
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
    """A gate's port that notes whether the step was still valid when it was about to be sent."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def read(self, timeout: float) -> GateReading:
        return GateReading(open=True)

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        self.asked.append(still_valid())
        return self.asked[-1]

    async def close(self) -> None:
        """Nothing to let go of."""


def test_a_step_for_a_gate_on_a_producers_host_is_not_sent_once_it_is_overtaken() -> None:
    loop = VirtualLoop()
    host, port, gate, ended = VirtualHost(loop, seed=1), Port(), Gate(FORGING.value, "backup"), list[Event]()
    pool = keys_pool()
    edge = GateEdge(
        gate,
        port,
        Board(pool, Instant("boot", 0.0, 0.0)),
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
        for generation in (1, 2):
            step = Step(StepKind.CLOSE, gate, generation, 1, "a test")
            edge.offer((Order(f"order-{generation}", step),))
            await host.sleep(20.0)
        running.cancel()

    loop.run(main())
    assert port.asked == [False, True]
    assert [event.detail["result"] for event in ended] == ["overtaken", "sent"]
