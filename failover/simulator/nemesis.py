"""The nemesis: lets faults happen in a simulated world, and undoes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from failover.errors import StoreError
from failover.model import BEGIN_WITHIN, Admin, Request, RRset, Verb
from failover.simulator.faults import KINDS, Fault, Value
from failover.simulator.nodes import Node, Process
from failover.simulator.proxies import HAProxy
from failover.simulator.store import SimStore
from failover.simulator.world import Line

if TYPE_CHECKING:
    from failover.simulator.hosts import ProducerHost
    from failover.simulator.names import Name
    from failover.simulator.world import World

Undo = Callable[[], None]
MOST_CYCLES = 1000  # of one crash loop


class Nemesis:
    """Does to a world what its faults say."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: list[Fault] = []
        self._healed = False
        self._waiting: list[Fault] = []
        self._asked = 0
        world.moments.append(self._moment)

    def schedule(self, faults: Sequence[Fault]) -> None:
        """Let each happen at its time."""
        for fault in faults:
            self.world.nature.after(fault.at, lambda f=fault: self._due(f))  # type: ignore[misc]

    def _due(self, fault: Fault) -> None:
        if self._healed:
            return
        if fault.on is None:
            self.do(fault)
        else:
            self._waiting.append(fault)

    def _moment(self, what: str) -> None:
        ready = [fault for fault in self._waiting if fault.on == what]
        self._waiting = [fault for fault in self._waiting if fault.on != what]
        for fault in ready:  # not inside the controller's own call
            self.world.nature.after(0.0, lambda f=fault: None if self._healed else self.do(f))  # type: ignore[misc]

    def do(self, fault: Fault) -> None:
        """Let it happen now."""
        self.done.append(fault)
        who = "operator" if fault.kind == "ask" else "world"
        self.world.timeline.append(Line(self.world.nature.now(), who, str(fault)))
        self.world.nature.loop.trace(f"fault {fault.kind} {' '.join(fault.targets)}")
        act = getattr(self, "_" + fault.kind.replace("-", "_"))
        undo: Undo | None = act(fault)
        self.world.reckon()
        if fault.lasts is not None and undo is not None:
            self.world.nature.after(fault.lasts, lambda: self._undo(fault, undo))

    def _undo(self, fault: Fault, undo: Undo) -> None:
        if self._healed:
            return
        self.world.timeline.append(Line(self.world.nature.now(), "world", fault.end()))
        undo()
        self.world.reckon()

    def heal(self) -> None:
        """End everything that is wrong, and let nothing more begin."""
        self._healed = True
        world = self.world
        world.timeline.append(Line(world.nature.now(), "world", "every fault is over"))
        world.network.heal()
        for node in (*world.nodes.values(), *world.references.values()):
            node.heal()
        for proxy in world.proxies.values():
            proxy.heal()
        for host in world.hosts.values():
            host.heal()
        for agent in world.agents.values():
            agent.heal()
        for name in world.names.values():
            name.throttled, name.hung, name.loses_replies, name.refuses = False, False, False, None
            name.late, name.pending_for, name.unownable = 0.0, 0.0, None
            name.silent, name.lame, name.frozen = set(), set(), set()
        disk, machine = world.disk, world.machine
        disk.full, disk.broken, disk.lose_acks, disk.conflicts = False, None, 0, 0
        machine.latency, machine.drift = 0.002, 0
        machine.host.set_drift(0)
        machine.host.wake()
        machine.wanted = True
        machine.power(on=True)
        for daemon in machine.daemons:
            daemon.crash_at = None
        machine.start_again()
        self._submit(Verb.RESUME, "", {})
        world.reckon()

    # ------------------------------------------------------------ parts

    def _nodes(self, fault: Fault) -> list[Node]:
        world = self.world
        found = []
        for name in fault.targets:
            if name in world.nodes:
                found.append(world.nodes[name])
            found.extend(n for n in world.references.values() if n.name == name)
        return found

    def _hosts(self, fault: Fault) -> list[ProducerHost]:
        return [self.world.hosts[name] for name in fault.targets if name in self.world.hosts]

    def _proxies(self, fault: Fault) -> list[HAProxy]:
        return [self.world.proxies[name] for name in fault.targets if name in self.world.proxies]

    def _names(self, fault: Fault) -> list[Name]:
        return [self.world.names[name] for name in fault.targets if name in self.world.names]

    # ------------------------------------------------------------ processes and machines

    def _stop(self, fault: Fault) -> Undo:
        for node in self._nodes(fault):
            node.set(Process.DOWN)
        for proxy in self._proxies(fault):
            proxy.stop()
        return lambda: self._start(fault)

    def _start(self, fault: Fault) -> None:
        for node in self._nodes(fault):
            if node.powered:
                node.set(Process.UP)
        for proxy in self._proxies(fault):
            if not proxy.running:
                proxy.start(str(fault.args.get("state", "current")))

    def _hang(self, fault: Fault) -> Undo:
        for node in self._nodes(fault):
            if node.process is Process.UP:
                node.set(Process.HUNG)
        for proxy in self._proxies(fault):
            if proxy.running:
                proxy.hang()
        return lambda: self._resume(fault)

    def _resume(self, fault: Fault) -> None:
        for node in self._nodes(fault):
            if node.process is Process.HUNG:
                node.set(Process.UP)
        for proxy in self._proxies(fault):
            if proxy.hung:
                proxy.resume()

    def _power_off(self, fault: Fault) -> Undo:
        for node in self._nodes(fault):
            node.power(on=False)
        for proxy in self._proxies(fault):
            self.world.network.power(proxy.name, on=False)
            proxy.stop()
        if "controller" in fault.targets:
            self.world.machine.power(on=False)
        return lambda: self._power_on(fault)

    def _power_on(self, fault: Fault) -> None:
        for node in self._nodes(fault):
            if not node.powered:
                node.power(on=True)
        for proxy in self._proxies(fault):
            self.world.network.power(proxy.name, on=True)
            if not proxy.running:
                proxy.start(str(fault.args.get("state", "current")))
        if "controller" in fault.targets:
            self.world.machine.power(on=True)

    def _replay(self, fault: Fault) -> Undo:
        for node in self._nodes(fault):
            node.set(Process.STARTING)
        return lambda: self._end_replay(fault)

    def _end_replay(self, fault: Fault) -> None:
        for node in self._nodes(fault):
            if node.process is Process.STARTING:
                node.set(Process.UP)

    def _crash_loop(self, fault: Fault) -> Undo:
        down, up = _number(fault, "down"), _number(fault, "up")
        node = self._nodes(fault)[0]
        going = [True]

        def cycle(left: int) -> None:
            if not going[0] or self._healed or left <= 0:
                return
            node.set(Process.DOWN)
            self.world.nature.after(down, lambda: rise(left))

        def rise(left: int) -> None:
            if not going[0] or self._healed:
                return
            if node.powered:
                node.set(Process.UP)
            self.world.nature.after(up, lambda: cycle(left - 1))

        cycle(MOST_CYCLES)

        def undo() -> None:
            going[0] = False
            if node.powered:
                node.set(Process.UP)

        return undo

    # ------------------------------------------------------------ nodes

    def _slow(self, fault: Fault) -> Undo:
        return self._each(fault, "delay", _number(fault, "seconds"), 0.0)

    def _lag(self, fault: Fault) -> Undo:
        return self._each(fault, "held_back", int(_number(fault, "slots")), 0)

    def _stick(self, fault: Fault) -> Undo:
        return self._each(fault, "stuck", True, False)

    def _lie(self, fault: Fault) -> Undo:
        return self._each(fault, "lies_ahead", int(_number(fault, "slots")), 0)

    def _fork(self, fault: Fault) -> Undo:
        for node in self._nodes(fault):
            node.branch_off()
        return self._each(fault, "fork", self._nodes(fault)[0].fork, None)

    def _each(self, fault: Fault, attribute: str, value: object, healed: object) -> Undo:
        def put(what: object) -> None:
            for node in self._nodes(fault):
                setattr(node, attribute, what)

        put(value)
        return lambda: put(healed)

    # ------------------------------------------------------------ proxies

    def _reload(self, fault: Fault) -> None:
        for proxy in self._proxies(fault):
            if not proxy.hung:
                proxy.reload(str(fault.args.get("state", "current")))

    def _restart(self, fault: Fault) -> None:
        for proxy in self._proxies(fault):
            proxy.restart(str(fault.args.get("state", "current")))

    def _hand_open(self, fault: Fault) -> None:
        for proxy in self._proxies(fault):
            proxy.hand(str(fault.args["producer"]), Admin.READY)

    def _hand_close(self, fault: Fault) -> None:
        for proxy in self._proxies(fault):
            proxy.hand(str(fault.args["producer"]), Admin.MAINT)

    def _swap(self, fault: Fault) -> Undo:
        def put(what: bool) -> None:
            for proxy in self._proxies(fault):
                proxy.swapped = what

        put(True)
        return lambda: put(False)

    # ------------------------------------------------------------ hosts

    def _agent_down(self, fault: Fault) -> Undo:
        agents = [*self._hosts(fault), *(self.world.agents[n] for n in fault.targets if n in self.world.agents)]

        def put(running: bool) -> None:
            for agent in agents:
                agent.running = running

        put(False)
        for agent in agents:
            agent.kill()
        return lambda: put(True)

    def _agent_hang(self, fault: Fault) -> Undo:
        hosts = self._hosts(fault)
        for host in hosts:
            host.hung = True

        def resume() -> None:
            for host in hosts:
                host.resume()

        return resume

    def _agent_slow(self, fault: Fault) -> Undo:
        return self._each_host(fault, "delay", _number(fault, "seconds"), 0.0)

    def _agent_kill(self, fault: Fault) -> None:
        for host in self._hosts(fault):
            self.world.nature.after(_number(fault, "seconds"), host.kill)

    def _credentials_by_hand(self, fault: Fault) -> None:
        told = fault.args.get("node", "told") == "told"
        for host in self._hosts(fault):
            host.hand(open_=fault.args.get("keys", "back") == "back", told=told)

    def _node_restart(self, fault: Fault) -> None:
        for node in self._nodes(fault):
            node.set(Process.DOWN)
        self.world.nature.after(_number(fault, "seconds"), lambda: None if self._healed else self._start(fault))

    def _host_reboot(self, fault: Fault) -> None:
        for host in self._hosts(fault):
            host.reboot(_number(fault, "seconds"))

    def _metrics_silent(self, fault: Fault) -> Undo:
        return self._each_host(fault, "mute", True, False)

    def _kes_expire(self, fault: Fault) -> Undo:
        return self._each(fault, "spent", True, False)

    def _firewall_flush(self, fault: Fault) -> None:
        for host in self._hosts(fault):
            host.flush()

    def _power_hang(self, fault: Fault) -> Undo:
        return self._each_switch(fault, "hung", True, False)

    def _power_lies(self, fault: Fault) -> Undo:
        return self._each_switch(fault, "lies", str(fault.args.get("about", "order")), "")

    def _power_lose_reply(self, fault: Fault) -> Undo:
        return self._each_switch(fault, "loses", True, False)

    def _each_host(self, fault: Fault, attribute: str, value: object, healed: object) -> Undo:
        def put(what: object) -> None:
            for host in self._hosts(fault):
                setattr(host, attribute, what)

        put(value)
        return lambda: put(healed)

    def _each_switch(self, fault: Fault, attribute: str, value: object, healed: object) -> Undo:
        def put(what: object) -> None:
            for host in self._hosts(fault):
                setattr(host.power, attribute, what)

        put(value)
        return lambda: put(healed)

    # ------------------------------------------------------------ the network

    def _cut(self, fault: Fault, *, both: bool = True) -> Undo:
        network, left, right = self.world.network, fault.targets, _names(fault, "from")
        network.cut(left, right, both=both)
        return lambda: network.mend(left, right, both=both)

    def _cut_one_way(self, fault: Fault) -> Undo:
        return self._cut(fault, both=False)

    def _slow_path(self, fault: Fault) -> Undo:
        network, left, right = self.world.network, fault.targets, _names(fault, "from")
        network.slow(left, right, _number(fault, "seconds"))
        return lambda: network.slow(left, right, 0.0)

    def _lossy(self, fault: Fault) -> Undo:
        network, left, right = self.world.network, fault.targets, _names(fault, "from")
        network.lossy(left, right, _number(fault, "share"))
        return lambda: network.lossy(left, right, 0.0)

    # ------------------------------------------------------------ DNS

    def _throttle(self, fault: Fault) -> Undo:
        return self._each_name(fault, "throttled", True, False)

    def _hang_dns(self, fault: Fault) -> Undo:
        return self._each_name(fault, "hung", True, False)

    def _refuse_dns(self, fault: Fault) -> Undo:
        return self._each_name(fault, "refuses", "AccessDenied", None)

    def _pending(self, fault: Fault) -> Undo:
        return self._each_name(fault, "pending_for", fault.lasts or 900.0, 0.0)

    def _lose_dns_replies(self, fault: Fault) -> Undo:
        return self._each_name(fault, "loses_replies", True, False)

    def _late_dns(self, fault: Fault) -> Undo:
        return self._each_name(fault, "late", _number(fault, "seconds"), 0.0)

    def _each_name(self, fault: Fault, attribute: str, value: object, healed: object) -> Undo:
        def put(what: object) -> None:
            for name in self._names(fault):
                setattr(name, attribute, what)

        put(value)
        return lambda: put(healed)

    def _hand_point(self, fault: Fault) -> None:
        for name in self._names(fault):
            wanted: RRset = name.record.wanted(str(fault.args["producer"]))
            name.point(wanted, "somebody")

    def _empty_record(self, fault: Fault) -> None:
        for name in self._names(fault):
            name.empty()

    def _freeze_server(self, fault: Fault) -> Undo:
        def put(frozen: bool) -> None:
            for name in self._names(fault):
                name.frozen = {"ns2"} if frozen else set()

        put(True)
        return lambda: put(False)

    # ------------------------------------------------------------ the state folder

    def _disk_full(self, fault: Fault) -> Undo:
        self.world.disk.full = True
        return lambda: setattr(self.world.disk, "full", False)

    def _disk_broken(self, fault: Fault) -> Undo:
        self.world.disk.broken = "input/output error"
        return lambda: setattr(self.world.disk, "broken", None)

    def _lose_acks(self, fault: Fault) -> None:
        self.world.disk.lose_acks = int(_number(fault, "count"))

    def _conflict(self, fault: Fault) -> None:
        self.world.disk.conflicts = int(_number(fault, "count"))

    def _roll_back(self, fault: Fault) -> None:
        machine = self.world.machine
        machine.kill()  # nobody puts a backup in place under a running daemon
        self.world.judge.tamper()
        self.world.disk.roll_back(seconds=_number(fault, "seconds"))
        self.world.nature.after(5.0, machine.start_again)

    def _delete_state(self, fault: Fault) -> None:
        machine = self.world.machine
        machine.kill()
        self.world.judge.tamper()
        self.world.disk.delete()
        self.world.nature.after(5.0, machine.start_again)

    # ------------------------------------------------------------ the controller's machine

    def _kill(self, fault: Fault) -> Undo:
        machine = self.world.machine
        machine.wanted = False
        machine.kill()
        return machine.start_one

    def _stop_controller(self, fault: Fault) -> Undo:
        machine = self.world.machine
        machine.wanted = False
        for daemon in machine.daemons:
            daemon.stop()
        return machine.start_one

    def _start_controller(self, fault: Fault) -> None:
        self.world.machine.start()

    def _crash(self, fault: Fault) -> None:
        for daemon in self.world.machine.daemons[:1]:
            daemon.crash_at = (daemon.calls + int(_number(fault, "call")), str(fault.args.get("point", "before")))
            daemon.back_in = fault.lasts or 5.0

    def _suspend(self, fault: Fault) -> None:
        self.world.machine.host.suspend(fault.lasts or 60.0)

    def _freeze(self, fault: Fault) -> None:
        self.world.machine.host.freeze(fault.lasts or 60.0)

    def _step_clock(self, fault: Fault) -> None:
        self.world.machine.host.step_utc(_number(fault, "seconds"))

    def _drift(self, fault: Fault) -> Undo:
        machine = self.world.machine

        def put(ppm: int) -> None:
            machine.drift = ppm
            machine.host.set_drift(ppm)

        put(int(_number(fault, "ppm")))
        return lambda: put(0)

    def _slow_ticks(self, fault: Fault) -> Undo:
        machine = self.world.machine
        machine.latency = _number(fault, "seconds")
        return lambda: setattr(machine, "latency", 0.002)

    def _reload_file(self, fault: Fault) -> None:
        for daemon in self.world.machine.daemons:
            if daemon.controller is not None:
                daemon.controller.reload(self.world.pool)

    def _second(self, fault: Fault) -> Undo:
        machine = self.world.machine
        daemon = machine.start(second=True)
        return lambda: daemon.sever() if daemon is not None else None

    # ------------------------------------------------------------ people

    def _ask(self, fault: Fault) -> None:
        self._submit(Verb(str(fault.args["verb"])), str(fault.args.get("producer", "")), fault.args)

    def _submit(self, verb: Verb, producer: str, args: object) -> None:
        values = args if isinstance(args, dict) else dict(args)  # type: ignore[call-overload]
        machine = self.world.machine
        now = machine.host.now()
        self._asked += 1
        seconds = values.get("seconds")
        request = Request(
            f"request-{self._asked}",
            verb,
            now,
            now.after(BEGIN_WITHIN),
            "operator",
            producer or None,
            reason=str(values.get("reason", "")),
            seconds=None if seconds is None else float(seconds),
            force=bool(values.get("force", False)),
        )
        try:
            store = SimStore(self.world.disk, boot=machine.host.boot, clock=machine.host.now)
            store.submit(request)
            store.close()
        except StoreError as error:  # the command fails, as it would at the operator's terminal
            self.world.note(f"the request could not be written: {error}")


def _number(fault: Fault, name: str) -> float:
    value: Value = fault.args.get(name, KINDS[fault.kind].defaults.get(name, 0.0))
    return float(value)  # type: ignore[arg-type]


def _names(fault: Fault, name: str) -> tuple[str, ...]:
    value = fault.args.get(name, ())
    return value if isinstance(value, tuple) else (str(value),)
