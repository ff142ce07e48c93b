"""The simulated edges, as values and through the text of the protocols: the same truth, the same failures."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from failover.errors import GateError, GateRefused, GateTimeout, GateUnreachable, PingError
from failover.model import Address, Admin, Proxy, ProxyReading, StepKind
from failover.ports import PingPort, ProxyPort
from failover.simulator.edges import BACKLOG, Exit, SimPing, SimProxyPort
from failover.simulator.host import VirtualHost
from failover.simulator.loop import VirtualLoop
from failover.simulator.nature import Nature, Network
from failover.simulator.nodes import Node, Process
from failover.simulator.proxies import HAProxy
from failover.simulator.streams import Pipe, Take
from failover.simulator.wire import make_ping, make_proxy
from failover.simulator.wire_haproxy import RuntimeSession
from failover.simulator.wire_stats import WireStatsPort

MakeProxy = Callable[[HAProxy, Exit], ProxyPort]
MakePing = Callable[[Mapping[Address, Node], Exit], PingPort]

TIMEOUT = 5.0  # seconds
MAIN = Address("10.0.1.10", 6000)

each_proxy = pytest.mark.parametrize("make", [SimProxyPort, make_proxy, WireStatsPort], ids=["values", "text", "pages"])
each_ping = pytest.mark.parametrize("make", [SimPing, make_ping], ids=["values", "bytes"])


@dataclass
class Truth:
    """One proxy, two producers, and a controller's way out to them."""

    loop: VirtualLoop
    nature: Nature
    network: Network
    host: VirtualHost
    nodes: dict[str, Node]
    haproxy: HAProxy
    exit: Exit

    def admin(self, producer: str) -> Admin:
        return self.haproxy.admin[producer]

    async def set(self, port: ProxyPort, kind: StepKind, producer: str, then: Callable[[], None] | None = None) -> bool:
        """Send a step; ``then`` happens in the instant before its first command leaves."""

        left = [then] if then is not None else []

        def valid() -> bool:
            if left:
                left.pop()()
            return True

        return await port.set(kind, producer, TIMEOUT, valid)


def truth(loop: VirtualLoop, *, checks: str = "l7", watch: str | None = "watch", seed: int = 1) -> Truth:
    nature = Nature(loop, seed)
    network = Network(nature)
    host = VirtualHost(loop, seed=seed)
    nodes = {name: Node(name, nature, network) for name in ("main", "backup")}
    config = Proxy("proxy-1", "producers", {"main": "bp1", "backup": "bp2"}, Address("p", 9999), watch=watch)
    haproxy = HAProxy(config, nodes, nature, network, checks=checks, active="main")
    haproxy.addresses = {"main": str(MAIN), "backup": "10.0.2.10:6000"}
    nature.changed = haproxy.reckon
    return Truth(loop, nature, network, host, nodes, haproxy, Exit(nature, network, host))


def run(story: Callable[[Truth], Awaitable[None]], **given: object) -> None:
    async def main() -> None:
        await story(truth(loop, **given))  # type: ignore[arg-type]

    loop = VirtualLoop()
    loop.run(main())


def said(reading: ProxyReading) -> ProxyReading:
    """What all ways say alike: how a process is called is each one's own, and time goes on between two readings."""
    return replace(reading, process=None, version=None, uptime=None)


def uptime(reading: ProxyReading) -> float:
    assert reading.uptime is not None
    return reading.uptime


# ---------------------------------------------------------------- the same truth


@pytest.mark.parametrize(("checks", "watch"), [("l7", "watch"), ("l7", None), ("l4", None), ("none", None)])
def test_text_and_values_read_the_same_whatever_is_true(checks: str, watch: str | None) -> None:
    async def story(t: Truth) -> None:
        typed, wire = SimProxyPort(t.haproxy, t.exit), make_proxy(t.haproxy, t.exit)
        page = WireStatsPort(t.haproxy, t.exit)
        t.haproxy.connect("relay-1", lambda: None)
        for admin, process, swapped in itertools.product(Admin, Process, (False, True)):
            t.haproxy.hand("main", admin)
            t.nodes["main"].set(process)
            t.haproxy.swapped = swapped
            await t.host.sleep(20.0)
            assert not t.loop.pending()[1:], "nothing is left running"
            first, *others = [await port.read(TIMEOUT) for port in (typed, wire, page)]
            if admin is Admin.DRAIN and first.servers["main"].status != "DRAIN":
                others.pop()  # the page shows a drain by the status alone
            for other in others:
                assert said(first) == said(other), (admin, process)
                assert abs(uptime(first) - uptime(other)) <= 1.0

    run(story, checks=checks, watch=watch)


@each_proxy
def test_a_step_changes_the_truth(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        ends: list[str] = []
        t.haproxy.connect("relay-1", lambda: ends.append("relay-1"))
        await port.read(TIMEOUT)
        assert await t.set(port, StepKind.CLOSE, "main")
        assert (t.haproxy.admin["main"], t.haproxy.sessions, ends) == (Admin.MAINT, [], ["relay-1"])
        assert await t.set(port, StepKind.OPEN, "backup")
        assert t.haproxy.admin == {"main": Admin.MAINT, "backup": Admin.READY}

    run(story)


# ---------------------------------------------------------------- the network


@each_proxy
@pytest.mark.parametrize("ways", [("controller", "proxy-1"), ("proxy-1", "controller")])
def test_what_is_cut_off_one_way_is_unreachable_after_the_timeout(make: MakeProxy, ways: tuple[str, str]) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        t.network.cut([ways[0]], [ways[1]], both=False)
        for call in (port.read(TIMEOUT), t.set(port, StepKind.CLOSE, "main")):
            began = t.nature.now()
            with pytest.raises(GateUnreachable, match="took no connection within 5 s"):
                await call
            assert t.nature.now() - began == pytest.approx(TIMEOUT)
        assert t.admin("main") is Admin.READY

    run(story)


@each_proxy
def test_where_nobody_listens_it_is_unreachable_at_once(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        t.haproxy.stop()
        for call in (port.read(TIMEOUT), t.set(port, StepKind.CLOSE, "main")):
            with pytest.raises(GateUnreachable, match="Connection refused"):
                await call
        assert t.nature.now() < 0.1

    run(story)


@each_proxy
def test_a_command_that_the_network_holds_up_takes_effect_when_it_arrives(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        await port.read(TIMEOUT)
        with pytest.raises(GateTimeout):
            await t.set(port, StepKind.OPEN, "backup", lambda: t.network.slow(["controller"], ["proxy-1"], 30.0))
        assert t.nature.now() == pytest.approx(TIMEOUT, abs=0.1)
        assert t.admin("backup") is Admin.MAINT
        await t.host.sleep(26.0)
        assert t.admin("backup") is Admin.READY

    run(story)


@each_proxy
def test_a_command_whose_answer_is_lost_has_had_its_effect(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        with pytest.raises(GateTimeout):
            await t.set(port, StepKind.CLOSE, "main", lambda: t.network.cut(["proxy-1"], ["controller"], both=False))
        assert t.admin("main") is Admin.MAINT

    run(story)


@each_proxy
def test_a_command_to_a_process_that_ends_is_in_doubt_at_once(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        with pytest.raises(GateTimeout, match="its effect is unknown"):
            await t.set(port, StepKind.CLOSE, "main", t.haproxy.stop)
        assert t.nature.now() < 0.2
        assert t.admin("main") is Admin.READY

    run(story)


@each_proxy
def test_a_command_never_reaches_a_process_that_took_over_since_the_question(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        await port.read(TIMEOUT)
        words = r"Proxy is disabled\.|closed the connection before the command"
        with pytest.raises((GateRefused, GateUnreachable), match=words):
            await t.set(port, StepKind.OPEN, "backup", lambda: t.haproxy.reload("current"))
        assert t.admin("backup") is Admin.MAINT

    run(story)


@each_proxy
def test_a_command_under_way_when_a_new_worker_takes_over_has_no_effect(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        with pytest.raises((GateRefused, GateTimeout)):
            await t.set(port, StepKind.CLOSE, "main", lambda: _soon(t, lambda: t.haproxy.reload("current")))
        assert t.admin("main") is Admin.READY

    run(story)


def test_what_is_lost_on_a_connection_stays_lost_with_all_behind_it() -> None:
    async def story(t: Truth) -> None:
        came: list[bytes | None] = []
        pipe = Pipe(t.nature, t.network, "controller", "proxy-1", came.append)
        pipe.send(b"a" * 2000)
        t.network.cut(["controller"], ["proxy-1"])
        pipe.send(b"lost")
        t.network.heal()
        pipe.send(b"behind it")
        await t.host.sleep(60.0)
        assert came == [b"a" * 1460, b"a" * 540]

    run(story)


@each_proxy
def test_lost_packets_delay_and_do_not_repeat(make: MakeProxy) -> None:
    async def outcomes(t: Truth) -> list[str]:
        port = make(t.haproxy, t.exit)
        t.network.lossy(["controller"], ["proxy-1"], 0.3)
        found = []
        for _ in range(60):
            try:
                await port.read(TIMEOUT)
                found.append(f"{t.loop.now_ns} read")
            except GateError as error:
                found.append(f"{t.loop.now_ns} {type(error).__name__}")
        return found

    def once() -> list[str]:
        async def main() -> list[str]:
            return await outcomes(truth(loop))

        loop = VirtualLoop()
        return loop.run(main())

    first = once()
    assert first == once(), "the same seed, the same story"
    assert {line.split()[1] for line in first} == {"read", "GateTimeout", "GateUnreachable"}


# ---------------------------------------------------------------- a process that hangs


@each_proxy
def test_a_proxy_that_goes_on_in_time_answers(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        t.haproxy.hang()
        t.nature.after(3.0, t.haproxy.resume)
        await port.read(TIMEOUT)
        assert 3.0 < t.nature.now() < 3.2

    run(story)


@each_proxy
def test_a_proxy_that_hangs_for_long_keeps_a_bounded_number_of_requests(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        t.haproxy.hang()
        for _ in range(BACKLOG + 10):
            with pytest.raises(GateError):
                await port.read(0.1)
        assert len(t.haproxy.waiting) == BACKLOG
        t.haproxy.resume()
        await port.read(TIMEOUT)

    run(story)


# ---------------------------------------------------------------- the controller's own fate


@each_proxy
def test_a_suspended_controller_is_not_woken_by_an_answer(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        t.nature.after(0.0005, lambda: t.host.suspend(100.0))
        await port.read(1000.0)
        assert t.nature.now() > 100.0

    run(story)


@each_proxy
def test_nothing_leaves_a_process_that_was_killed(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        await port.read(TIMEOUT)
        t.exit.sever()
        for call in (port.read(TIMEOUT), t.set(port, StepKind.CLOSE, "main")):
            began = t.nature.now()
            with pytest.raises(GateUnreachable):
                await call
            assert t.nature.now() == began
        assert t.admin("main") is Admin.READY

    run(story)


@each_proxy
def test_what_had_left_a_process_before_it_was_killed_arrives(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        port = make(t.haproxy, t.exit)
        with pytest.raises(GateError):
            await t.set(port, StepKind.CLOSE, "main", lambda: _soon(t, t.exit.sever))
        assert t.admin("main") is Admin.MAINT

    run(story)


def _soon(t: Truth, call: Callable[[], None]) -> None:
    """Before any trip ends, after what leaves now."""
    t.nature.after(0.0005, call)


@each_proxy
def test_a_process_that_is_killed_at_the_last_look_sends_no_command(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        with pytest.raises(GateError):
            await t.set(make(t.haproxy, t.exit), StepKind.CLOSE, "main", t.exit.sever)
        await t.host.sleep(60.0)
        assert t.admin("main") is Admin.READY

    run(story)


READ = ["proxy read: before", "proxy read: effect", "proxy read: reply"]
OPEN = ["proxy set open: before", "proxy set open: effect", "proxy set open: reply"]
CLOSE = 2 * ["proxy set close: before", "proxy set close: effect", "proxy set close: reply"]


@each_proxy
def test_crash_points_are_told_in_order(make: MakeProxy) -> None:
    async def story(t: Truth) -> None:
        told: list[str] = []
        t.exit.moment = told.append
        port = make(t.haproxy, t.exit)
        await port.read(TIMEOUT)
        await t.set(port, StepKind.CLOSE, "main")
        await t.set(port, StepKind.OPEN, "backup")
        assert told == READ + CLOSE + OPEN

    run(story)


@each_proxy
@pytest.mark.parametrize("number", range(9))
def test_a_kill_at_a_crash_point_leaves_what_was_true_there(make: MakeProxy, number: int) -> None:
    moments = CLOSE + OPEN

    async def story(t: Truth) -> None:
        told: list[str] = []

        def moment(text: str) -> None:
            told.append(text)
            if len(told) == number + 1:
                t.exit.sever()

        t.exit.moment = moment
        port = make(t.haproxy, t.exit)
        steps = [(StepKind.CLOSE, "main"), (StepKind.OPEN, "backup")]
        with pytest.raises(GateError):
            assert not [await t.set(port, kind, producer) for kind, producer in steps], "killed before the end"
        assert told == moments[: number + 1], "a dead process is told nothing more"
        await t.host.sleep(60.0)
        closed, opened = number >= 1, number >= 7
        assert t.admin("main") is (Admin.MAINT if closed else Admin.READY)
        assert t.admin("backup") is (Admin.READY if opened else Admin.MAINT)

    run(story)


def test_one_page_at_a_time_is_asked_for() -> None:
    async def story(t: Truth) -> None:
        port = WireStatsPort(t.haproxy, t.exit)
        first = t.loop.create_task(port.read(TIMEOUT))
        await t.host.sleep(0)
        with pytest.raises(GateUnreachable, match="an earlier call still hangs"):
            await port.read(0.05)
        assert (await first).servers

    run(story)


def test_no_thread_is_left_behind_by_calls_that_were_given_up_or_killed() -> None:
    async def story(t: Truth) -> None:
        port = WireStatsPort(t.haproxy, t.exit)
        t.haproxy.hang()
        with pytest.raises(GateTimeout):
            await port.read(TIMEOUT)
        given_up = t.loop.create_task(port.read(TIMEOUT))
        await t.host.sleep(1.0)
        given_up.cancel()
        await t.host.sleep(1.0)
        assert given_up.cancelled()

    run(story)
    for thread in threading.enumerate():
        if thread.name == "simulated stats page":
            thread.join(60.0)  # real seconds, an upper bound
            assert not thread.is_alive()


# ---------------------------------------------------------------- pings


@each_ping
def test_a_node_without_power_or_network_is_silent_and_does_not_refuse(make: MakePing) -> None:
    async def story(t: Truth) -> None:
        port = make({MAIN: t.nodes["main"]}, t.exit)
        faults: list[Callable[[], None]] = [
            lambda: t.nodes["main"].power(on=False),
            lambda: t.network.cut(["controller"], ["main"]),
            lambda: t.network.cut(["main"], ["controller"], both=False),
        ]
        for fault in faults:
            fault()
            began = t.nature.now()
            with pytest.raises(PingError, match="no answer to the connection attempt within 5 s") as caught:
                await port(MAIN, 42, TIMEOUT)
            assert (caught.value.stage, caught.value.refused) == ("connect", False)
            assert t.nature.now() - began == pytest.approx(TIMEOUT)
            t.network.heal()
            t.nodes["main"].heal()

    run(story)


@each_ping
@pytest.mark.parametrize("process", [Process.DOWN, Process.STARTING])
def test_a_node_that_does_not_listen_yet_refuses_at_once(make: MakePing, process: Process) -> None:
    async def story(t: Truth) -> None:
        t.nodes["main"].set(process)
        with pytest.raises(PingError) as caught:
            await make({MAIN: t.nodes["main"]}, t.exit)(MAIN, 42, TIMEOUT)
        assert (caught.value.stage, caught.value.refused) == ("connect", True)
        assert t.nature.now() < 0.1

    run(story)


@each_ping
def test_a_node_that_is_slow_to_tell_its_tip_fails_at_that_stage(make: MakePing) -> None:
    async def story(t: Truth) -> None:
        t.nodes["main"].delay = 6.0
        with pytest.raises(PingError) as caught:
            await make({MAIN: t.nodes["main"]}, t.exit)(MAIN, 42, TIMEOUT)
        assert caught.value.stage == "tip"

    run(story)


@each_ping
def test_a_ping_tells_its_crash_points_and_a_killed_process_sends_none(make: MakePing) -> None:
    async def story(t: Truth) -> None:
        told: list[str] = []
        t.exit.moment = told.append
        port = make({MAIN: t.nodes["main"]}, t.exit)
        await port(MAIN, 42, TIMEOUT)
        assert told == ["ping: before", "ping: reply"]
        t.exit.sever()
        began = t.nature.now()
        with pytest.raises(PingError) as caught:
            await port(MAIN, 42, TIMEOUT)
        assert (caught.value.stage, t.nature.now(), len(told)) == ("connect", began, 2)

    run(story)


@each_ping
@pytest.mark.parametrize("host", ["bp1.example.internal", "2001:db8:0::10"])
def test_nodes_are_found_by_name_and_by_address_of_either_kind(make: MakePing, host: str) -> None:
    async def story(t: Truth) -> None:
        address = Address(host, 6000)
        tip, _ = await make({address: t.nodes["main"]}, t.exit)(address, 42, TIMEOUT)
        assert tip == t.nodes["main"].tip()

    run(story)


@each_ping
def test_a_suspended_controller_is_not_woken_by_a_tip(make: MakePing) -> None:
    async def story(t: Truth) -> None:
        t.nature.after(0.0005, lambda: t.host.suspend(100.0))
        await make({MAIN: t.nodes["main"]}, t.exit)(MAIN, 42, 1000.0)
        assert t.nature.now() > 100.0

    run(story)


# ---------------------------------------------------------------- the runtime API's text


def session(t: Truth) -> tuple[Take, list[bytes | None]]:
    answers: list[bytes | None] = []
    return RuntimeSession(t.haproxy, answers.append, t.exit).take, answers


def test_without_prompt_one_command_is_answered_and_the_connection_ends() -> None:
    async def story(t: Truth) -> None:
        say, answers = session(t)
        say(b"set server producers/bp1 state maint\n")
        assert answers == [b"\n", b""]
        say(b"set server producers/bp1 state ready\n")
        assert (len(answers), t.haproxy.admin["main"]) == (2, Admin.MAINT)

    run(story)


def test_lines_are_taken_however_they_are_cut() -> None:
    async def story(t: Truth) -> None:
        say, answers = session(t)
        for byte in b"prompt\nset server producers/bp1 state maint\nquit\n":
            say(bytes([byte]))
        assert answers == [b"\n> ", b"\n> ", b""]
        assert t.admin("main") is Admin.MAINT

    run(story)


def test_a_kept_connection_stays_with_the_old_worker_after_a_reload() -> None:
    async def story(t: Truth) -> None:
        say, answers = session(t)
        say(b"prompt\n")
        t.haproxy.reload("none")
        say(b"show info\n")
        info = str(answers[-1])
        assert "Stopping: 1" in info
        assert f"Pid: {t.haproxy.pid - 1}" in info
        for command in (b"set server producers/bp2 state ready\n", b"shutdown sessions server producers/bp1\n"):
            say(command)
            assert answers[-1] == b"Proxy is disabled.\n\n> "

    run(story)


def test_a_line_without_an_end_ends_the_connection() -> None:
    async def story(t: Truth) -> None:
        say, answers = session(t)
        say(b"x" * 20_000)
        assert answers == [b""]

    run(story)
