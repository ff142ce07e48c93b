"""Hosts in a simulated world: what their agents do, who has the pool's keys, what firewalls let out, who has power.

As measured of the real agent (agent.py): one order at a time under a lock; numbers that are older than what was heard
are refused; a close moves the files away, tells the node (SIGHUP), and waits until its about-to-lead counter stands
still; whatever an agent that was killed left half done, the next one finishes. A node reads its credentials when it
starts, and when it is told to; one that starts while its gate is closed starts without forging.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from failover.errors import GateError, GateRefused, GateTimeout, ProbeError
from failover.model import GateKind, GateReading, Kick, NodeReading, Producer, RelayReading, RelaySession, StepKind
from failover.simulator.host import UTC0
from failover.simulator.nature import Nature
from failover.simulator.nodes import Node, Process
from failover.simulator.relays import Relay

WINDOW = 3.0  # seconds for which a counter must stand still to count as flat (agent.py: three slots)
MARGIN = 1.0  # seconds before its caller's deadline at which an agent gives up by itself
HEARS = 0.1  # seconds until a node has done what SIGHUP tells it
STARTS = 8.0  # seconds for which a closed node's files are in place while it starts
POLL = 0.5  # seconds between two looks at a counter
BACKLOG = 64  # requests that wait for an agent that hangs
WATCHES = 1.0  # seconds between two looks of a fuse
KES_LEFT = 40  # periods that a key is good for, as a rule
FORGING, FIREWALL, POWER = GateKind.FORGING, GateKind.FIREWALL, GateKind.POWER
US, HAND, FUSE = "us", "a hand", "the fuse"

Answer = Callable[[Any, GateError | None], None]
Deeds = Generator[float, None, Any]  # seconds until the next deed


class Files(StrEnum):
    """Where a producer's credentials are."""

    LIVE = "live"
    PARTLY = "partly"  # a part of the set: the node cannot forge by it
    ASIDE = "aside"


@dataclass(eq=False, slots=True)
class Task:
    """One request that an agent carries out. ``until``: when it gives up by itself (seconds of the world)."""

    what: str
    deeds: Deeds
    answer: Answer
    until: float
    locked: bool
    begun: bool = field(default=False)
    gone: bool = field(default=False)


class Agent:
    """The agent of one host: an SSH server, and a process for each caller. What it remembers is on its disk."""

    def __init__(self, name: str, nature: Nature) -> None:
        self.name = name
        self.running = True
        self.hung = False
        self.delay = 0.0  # seconds that each deed takes longer
        self.babbles = False  # it does what it is told, and answers with something else
        self.heard: dict[str, tuple[int, int]] = {}  # by what was ordered: the highest generation and term
        self._nature = nature
        self._waiting: list[Callable[[], None]] = []  # while it hangs
        self._at_work: Task | None = None  # who holds the lock
        self._queue: list[Task] = []
        self._open: list[Task] = []  # everything that was not answered yet

    @property
    def listens(self) -> bool:
        """Whether a connection to it is taken."""
        return self.running

    @property
    def busy(self) -> bool:
        """Whether an order is being carried out."""
        return self._at_work is not None

    def take(self, task: Task) -> None:
        """A request has arrived."""
        if self.hung:
            if len(self._waiting) < BACKLOG:
                self._waiting.append(lambda: self.take(task))
            return
        self._open.append(task)
        if not task.locked:
            self._go(task)
        elif self._at_work is not None:
            self._queue.append(task)
        else:
            self._at_work = task
            self._go(task)

    def _go(self, task: Task) -> None:
        if task.gone:
            return
        if not task.begun and self._nature.now() >= task.until:
            self._end(task, None, GateRefused(f"{self.name} refused (busy): its time was over before it began"))
            return
        if self.hung:
            self._waiting.append(lambda: self._go(task))
            return
        task.begun = True
        try:
            pause = next(task.deeds)
        except StopIteration as ended:
            self._end(task, ended.value, None)
        except GateError as error:
            self._end(task, None, error)
        else:
            self._nature.after(pause + self.delay, lambda: self._go(task))
        self._nature.changed()

    def _end(self, task: Task, outcome: Any, error: GateError | None) -> None:
        task.gone = True
        self._open.remove(task)
        task.answer(outcome, error)
        if self._at_work is task:
            self._at_work = None
            self._next()

    def _next(self) -> None:
        while self._queue and self._at_work is None:
            task = self._queue.pop(0)
            if self._nature.now() >= task.until:
                words = f"{self.name} refused (busy): another order is being carried out"
                self._end(task, None, GateRefused(words))
                continue
            self._at_work = task
            self._go(task)

    def kill(self) -> None:
        """Its processes end, in the middle of whatever they do; callers see their connections end."""
        lost, self._open = self._open, []
        self._at_work, self._queue, self._waiting = None, [], []
        for task in lost:
            task.gone = True
            words = f"{self.name} closed the connection before answering {task.what}: its effect is unknown"
            task.answer(None, GateTimeout(words, "nothing: it is read again"))
        self._nature.changed()

    def resume(self) -> None:
        """It goes on after it hung."""
        self.hung = False
        waiting, self._waiting = self._waiting, []
        for go in waiting:
            go()
        self._nature.changed()

    def fresh(self, what: str, generation: int, term: int) -> None:
        """Remember an order's numbers. Raises GateRefused for an old one."""
        known = self.heard.get(what, (0, 0))
        if generation < known[0] or term < known[1]:
            words = f"{self.name} refused (stale): generation {generation}, term {term}; {known} was heard"
            raise GateRefused(words, "the assignment moved on")
        self.heard[what] = (generation, term)

    def heal(self) -> None:
        """It runs and answers."""
        self.running, self.delay = True, 0.0
        if self.hung:
            self.resume()


class ProducerHost(Agent):
    """One producer's host: its agent, its node's credentials, its firewall; and the switch of its machine."""

    def __init__(self, config: Producer, node: Node, nature: Nature, *, active: bool, fuse: float | None) -> None:
        super().__init__(config.name, nature)
        self.node = node
        self.kinds = config.gates
        self.power = PowerSwitch(node, nature, starts=config.power is not None and config.power.on is not None)
        self.files = Files.LIVE if active or FORGING not in config.gates else Files.ASIDE
        self.closed = not active  # what was ordered last
        self.doing: str | None = None  # close or open: begun, and not known to be finished
        self.mute = False  # the node's metrics cannot be read
        self.rebooting = False
        self.after = fuse
        self.heard_at = nature.now()
        self.pid = 1000
        self.moved_by: dict[GateKind, str] = dict.fromkeys(config.gates, US)
        self.moved_at: dict[GateKind, float] = dict.fromkeys(config.gates, -1e9)  # when somebody else did
        self._began = nature.now() - 100_000.0
        self._up = True
        self._off = False  # its machine was without power since its node last ran
        self._told = True  # whether the process was told of the files as they are
        self._owed = False  # it hangs, and has yet to hear
        self._starting = -1.0  # until when the files of a closed node are in place, for its start
        self._flat_since = -1e9
        self._counted, self._counts_from = 1000 if active else 0, nature.now()
        self._counting = True
        if FORGING in config.gates and not active:
            node.keyless = True
        if FIREWALL in config.gates:
            node.walled = not active
        self._counting = self._counts()
        if fuse is not None:
            nature.after(WATCHES, self._watch)

    @property
    def listens(self) -> bool:
        """Whether a connection to the agent is taken."""
        return self.running and self.node.powered and not self.rebooting

    @property
    def runs(self) -> bool:
        """Whether the node's process is there, and has started."""
        return self.node.powered and self.node.process in (Process.UP, Process.HUNG)

    def shut(self) -> bool:
        """Whether one of its own gates keeps its blocks from getting out, in truth."""
        node = self.node
        idle = node.keyless or self._owed or not self.runs
        keyless = FORGING in self.kinds and idle and self.files is not Files.LIVE
        return keyless or node.walled or (POWER in self.kinds and not node.powered)

    # ------------------------------------------------------------ as time passes

    def reckon(self) -> None:
        """Take note of what has become of the node's process."""
        node = self.node
        if self.runs is not self._up:
            self._up = self.runs
            if self._up:
                self._started()
            elif not node.powered:
                self._off = True
                self.kill()
        if self._up and self._owed and node.process is Process.UP:
            self._owed = False
            self._hear(self.pid)
        counts = self._counts()
        if counts is not self._counting:
            now = self._nature.now()
            if self._counting:
                self._counted += int(now) - int(self._counts_from)
                self._flat_since = now
            self._counts_from, self._counting = now, counts

    def _counts(self) -> bool:
        return self.node.forges and not self.node.keyless

    def _started(self) -> None:
        """The process began: closed, it has the flag, and its files are in place until it answers."""
        self.pid += 1
        if self._off and {FORGING, POWER} <= set(self.kinds) and not self.closed:
            # somebody has switched it on, with its keys in place
            self._moved(FORGING, HAND)
        self._off = False
        self._began, self._counted, self._counts_from = self._nature.now(), 0, self._nature.now()
        self._flat_since, self._counting, self._owed, self._told = self._began, False, False, True
        if FORGING not in self.kinds:
            return
        if self.doing == "open" and self.files is not Files.LIVE:
            self.closed = True
        if self.files is Files.LIVE and not self.closed:
            self.node.keyless = False
            return
        self.node.keyless, self.files, self.doing = True, Files.ASIDE, None
        self._starting = self._nature.now() + STARTS
        self._nature.after(STARTS + 0.001, self._nature.changed)

    def _sighup(self) -> None:
        self._told = True
        if not self.runs:
            return
        if self.node.process is Process.HUNG:
            self._owed = True
        else:
            pid = self.pid
            self._nature.after(HEARS, lambda: self._hear(pid))

    def _hear(self, pid: int) -> None:
        """The node reads its credentials anew: a part of them is none."""
        if pid != self.pid or not self.runs:
            return
        if self.node.process is Process.HUNG:
            self._owed = True
            return
        self.node.keyless = self.files is not Files.LIVE
        if self.node.keyless and self.closed and self.moved_by[FORGING] == HAND:
            self.moved_by[FORGING] = US  # what another hand did is undone
        self._nature.changed()

    # ------------------------------------------------------------ what it says

    def counter(self) -> int:
        """The about-to-lead counter of this process."""
        return self._counted + (int(self._nature.now()) - int(self._counts_from) if self._counting else 0)

    def metrics(self) -> NodeReading:
        """What the node says of itself. Raises ProbeError."""
        if not self.runs or self.node.process is Process.HUNG or self.mute:
            raise ProbeError(f"{self.name}: its metrics cannot be read", "see whether the node runs")
        return NodeReading(
            slot=int(self.node.slot()),
            about_to_lead=self.counter(),
            kes_remaining=0 if self.node.spent else KES_LEFT,
            started=UTC0 + self._began,
            version="10.5.1",
        )

    def reading(self, kind: GateKind) -> GateReading:
        """How one of its gates stands, as far as the agent can tell."""
        if kind is FIREWALL:
            process = f"{self.pid}.{self._began:.0f}" if self.runs else None
            shown = ("both directions cut",) if self.node.walled else ()
            return GateReading(not self.node.walled, self.node.walled, shown, process=process)
        return self._forging()

    def _forging(self) -> GateReading:
        process = f"{self.pid}.{self._began:.0f}" if self.runs else None
        if not self.runs:
            state: bool | None = {Files.LIVE: True, Files.ASIDE: False, Files.PARTLY: None}[self.files]
            return GateReading(state, state is False, ("the node does not run",), process=process)
        if self._nature.now() < self._starting:
            return GateReading(None, False, (), ("the node is being started",), process, starting=True)
        seen = self.node.process is Process.UP and not self.mute
        if self.files is Files.LIVE:
            if self.closed:
                lacks = ("key files are back at their places although this gate was closed",)
                return GateReading(True, False, (), lacks, process)
            idle = self.node.keyless or self.doing == "open"
            return GateReading(None if idle else True, False, ("files in place",), (), process)
        if self.files is Files.PARTLY or not (self.node.keyless or self._owed):
            lacks = ("a part of the files is there",) if self.files is Files.PARTLY else ("it may still forge",)
            rises = not self.node.keyless and not self._told
            return GateReading(True if rises else None, False, (), lacks, process)
        flat = self._nature.now() - self._flat_since
        if not seen:
            return GateReading(False, False, ("files gone",), ("the about-to-lead counter cannot be read",), process)
        if flat < WINDOW:
            return GateReading(False, False, ("files gone",), ("the counter was not seen flat yet",), process)
        return GateReading(False, True, ("files gone", "SIGHUP delivered", "counter flat"), (), process)

    # ------------------------------------------------------------ what it does

    def status(self, kind: GateKind, lease: tuple[float, int, int] | None) -> Deeds:
        """Read a gate; finish what an earlier agent left half done."""
        yield 0.02
        if lease is not None and lease[0] > 0:
            self._hear_lease(lease[1], lease[2])
        if self.doing == "close" and not self.busy:
            self.files, self.doing = Files.ASIDE, None
            self._sighup()
            yield 2 * HEARS
        return self.reading(kind)

    def order(self, kind: GateKind, step: StepKind, generation: int, term: int, until: float) -> Deeds:
        """Open or close a gate."""
        yield 0.03
        self.fresh(kind.value, generation, term)
        if step is StepKind.OPEN and self._lapsed():
            raise GateRefused(f"{self.name} refused: no valid lease was heard lately")
        if kind is FIREWALL:
            yield 0.1
            self._wall(step is StepKind.CLOSE, US)
            return None
        deeds = self._close(until, US) if step is StepKind.CLOSE else self._open_keys(until)
        return (yield from deeds)

    def _close(self, until: float, who: str) -> Deeds:
        self.closed = True
        if self._nature.now() < self._starting:
            return None  # whoever watches over the start closes
        self.doing = "close"
        if self.files is not Files.ASIDE:
            self.files, self._told = Files.PARTLY, False
            if who != US and self.moved_by[FORGING] != HAND:  # what a hand opened is its doing until it is undone
                self._moved(FORGING, who)
            yield 0.2
            self.files = Files.ASIDE
            yield 0.05
        self._sighup()
        yield 2 * HEARS
        while not self.reading(FORGING).certain and self._nature.now() < until and self.node.process is Process.UP:
            if self.reading(FORGING).open is False and (self.mute or not self.runs):
                break
            yield POLL
        if self.reading(FORGING).open is False:
            self.doing = None
        return None

    def _open_keys(self, until: float) -> Deeds:
        if self.node.spent:
            raise GateRefused(f"{self.name} refused (unable): its KES key has expired", "rotate it")
        yield 0.1
        self.closed = False
        if self._nature.now() < self._starting:
            self._starting, self.files = self._nature.now(), Files.LIVE
        self.doing = "open"
        if self.files is not Files.LIVE:
            self.files, self._told = Files.PARTLY, False
            yield 0.2
            self.files = Files.LIVE
            self._moved(FORGING, US)
            yield 0.05
        self._sighup()
        yield 2 * HEARS
        while self.node.keyless and self.runs and self._nature.now() < until:
            yield POLL
        if not self.runs or not self.node.keyless:
            self.doing = None
        return None

    def _wall(self, shut: bool, who: str) -> None:
        self.node.walled = shut
        self._moved(FIREWALL, who)
        self._nature.changed()

    def _moved(self, kind: GateKind, who: str) -> None:
        self.moved_by[kind] = who
        if who != US:
            self.moved_at[kind] = self._nature.now()
        self._nature.changed()

    # ------------------------------------------------------------ what others do

    def hand(self, *, open_: bool, told: bool) -> None:
        """Somebody moves the keys by hand, and tells the node, or does not."""
        if FORGING not in self.kinds:
            return
        self.files = Files.LIVE if open_ else Files.ASIDE
        self._told = False
        self._moved(FORGING, HAND)
        if told:
            self._sighup()

    def flush(self) -> None:
        """Somebody flushes the firewall's rules."""
        if self.node.walled:
            self._wall(False, HAND)

    def reboot(self, seconds: float) -> None:
        """The machine starts anew: its node, its agent; what was closed stays closed."""
        self.rebooting = True
        self.kill()
        self.node.set(Process.DOWN)

        def back() -> None:
            if not self.rebooting:  # everything was mended meanwhile
                return
            self.rebooting = False
            if self.doing is not None:
                self.files, self.closed, self.doing = Files.ASIDE, True, None
            if self.node.powered:
                self.node.set(Process.UP)

        self._nature.after(seconds, back)

    def heal(self) -> None:
        """All is well with it; the keys stay where they are."""
        super().heal()
        self.mute, self.node.spent, self.rebooting = False, False, False
        self.power.hung = self.power.loses = False
        self.power.lies = ""

    # ------------------------------------------------------------ the fuse

    def _hear_lease(self, generation: int, term: int) -> None:
        try:
            self.fresh("lease", generation, term)
        except GateRefused:
            return
        self.heard_at = self._nature.now()

    def _lapsed(self) -> bool:
        return self.after is not None and self._nature.now() - self.heard_at >= self.after

    def _watch(self) -> None:
        self._nature.after(WATCHES, self._watch)
        if not self._lapsed() or not self.listens or self.hung or self.busy:
            return
        until = self._nature.now() + 20.0
        if FORGING in self.kinds:
            if self.files is not Files.ASIDE or not self.node.keyless:
                self.take(Task("fuse", self._close(until, FUSE), lambda *_: None, until, locked=True))
        elif FIREWALL in self.kinds and not self.node.walled:
            self._wall(True, FUSE)


class PowerSwitch:
    """The switch of one machine, by the operator's command: it takes a while, and may hang, lie, or lose its answer."""

    def __init__(self, node: Node, nature: Nature, *, starts: bool = False) -> None:
        self.node = node
        self.starts = starts  # whether there is a command that switches it on
        self.missing = False  # there is no such command any more
        self.babbles = False  # it prints something else, and ends as failed
        self.hung = False
        self.loses = False
        self.lies = ""  # order: that it was switched off, and nothing happens; status: that it is off
        self._nature = nature

    def reading(self) -> GateReading:
        """What status says."""
        on = self.node.powered and self.lies != "status"
        return GateReading(open=on, certain=not on, shown=(f"status says {'on' if on else 'off'}",))

    def off(self) -> None:
        """Switch it off."""
        if self.lies != "order" and self.node.powered:
            self.node.power(on=False)

    def on(self) -> None:
        """Switch it on."""
        if not self.node.powered:
            self.node.power(on=True)


class RelayAgent(Agent):
    """The agent on a relay's host."""

    def __init__(self, relay: Relay, nature: Nature, addresses: dict[str, str]) -> None:
        super().__init__(relay.name, nature)
        self._relay = relay
        self._addresses = addresses

    def sessions(self) -> Deeds:
        """Whom its node is connected to."""
        yield 0.02
        found = self._relay.direct()
        others = sum(len(way.sessions()) for way in self._relay.ways) - len(found)
        rows = (
            RelaySession(s.producer, self._addresses[s.producer], f"{self.name}:{40_000 + s.serial}", False)
            for s in found
        )
        return RelayReading(tuple(rows), others, process="1")

    def end(self, kick: Kick) -> Deeds:
        """End the sessions with one producer."""
        yield 0.03
        self.fresh("kick", kick.generation, kick.term)
        for session in self._relay.direct():
            if session.producer == kick.producer:
                session.end()
        self._nature.changed()
        return None
