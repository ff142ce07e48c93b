"""Simulated relays: what they dial, what they stick to, and how long they take to dial again.

Redialling after 5, 10, ... 160 s (give or take 2), and at once to a lost session as measured: 2 to 5 s
(facts/cardano-node-and-peers.md, sections 2 and 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from failover.simulator.nature import Nature, Network
from failover.simulator.nodes import Node, Process
from failover.simulator.proxies import SILENT_PEER, HAProxy, Session

LOOKS_AGAIN = 20.0  # seconds from one look at what a name leads to, to the next; the lookups have their own times
BACKOFF = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)


@dataclass(eq=False, slots=True)
class Way:
    """One entry of a relay's topology: a proxy, a producer's address, or a name that it looks up."""

    kind: str  # proxy, direct, record
    goal: str
    lookup: Callable[[], str | None] = field(default=lambda: None)  # record: the producer that it leads to now
    session: Session | None = None
    failures: int = 0
    dialling: bool = False
    older: list[Session] = field(default_factory=list)  # to where the name led before: demoted, and never closed

    def sessions(self) -> list[Session]:
        """All that are open."""
        self.older = [session for session in self.older if session.open]
        present = [self.session] if self.session is not None and self.session.open else []
        return [*present, *self.older] if self.older else present


class Relay:
    """One relay. Its sessions stay where they are until somebody ends them."""

    def __init__(
        self,
        name: str,
        ways: tuple[Way, ...],
        nodes: Mapping[str, Node],
        proxies: Mapping[str, HAProxy],
        nature: Nature,
        network: Network,
    ) -> None:
        self.name = name
        self.ways = ways
        self._nodes = nodes
        self._proxies = proxies
        self._nature = nature
        self._network = network
        self._serial = 0

    def direct(self) -> list[Session]:
        """Its open sessions with producers themselves."""
        return [session for way in self.ways for session in way.sessions() if session.proxy is None]

    def start(self) -> None:
        """Dial everything."""
        for way in self.ways:
            self._dial(way)
            if way.kind == "record":
                self._nature.after(LOOKS_AGAIN, lambda w=way: self._follow(w))  # type: ignore[misc]

    def _follow(self, way: Way) -> None:
        """Dial where the name leads by now; a session to where it led before stays (facts: demoted to warm)."""
        self._nature.after(LOOKS_AGAIN, lambda: self._follow(way))
        session, producer = way.session, way.lookup()
        if session is None or not session.open or producer is None or producer == session.producer:
            return
        way.older.append(session)
        way.session = None
        self._dial(way)

    def _again(self, way: Way, seconds: float) -> None:
        if not way.dialling:
            way.dialling = True
            self._nature.after(seconds, lambda: self._dial(way))

    def _dial(self, way: Way) -> None:
        way.dialling = False
        if way.session is not None and way.session.open:
            return
        way.session = self._connect(way)
        if way.session is not None:
            way.failures = 0
            self._nature.changed()
            return
        pause = BACKOFF[min(way.failures, len(BACKOFF) - 1)]
        way.failures += 1
        self._again(way, pause + self._nature.between(-2.0, 2.0, "redial", self.name, way.goal))

    def _connect(self, way: Way) -> Session | None:
        if way.kind == "proxy":
            return self._proxies[way.goal].connect(self.name, lambda: self._lost(way))
        producer = way.lookup() if way.kind == "record" else way.goal
        if producer is None:
            return None
        node = self._nodes[producer]
        takes = node.powered and not node.walled and node.process in (Process.UP, Process.HUNG)
        if not takes or not self._network.joined(self.name, producer):
            return None
        self._serial += 1
        return Session(self.name, producer, None, lambda: self._lost(way), serial=self._serial)

    def _lost(self, way: Way) -> None:
        if way.session is not None and way.session.open:
            return  # an older one has ended
        self._again(way, self._nature.between(2.0, 5.0, "lost", self.name, way.goal))

    def reckon(self) -> None:
        """End direct sessions whose other end is gone."""
        for session in self.direct():
            node = self._nodes[session.producer]
            joined = self._network.joined(self.name, session.producer)
            if joined and (node.walled or node.process in (Process.DOWN, Process.STARTING)):
                session.end()
                continue
            answers = joined and node.process is not Process.HUNG
            if not answers and not session.broken:
                session.broken = True
                self._nature.after(SILENT_PEER, lambda s=session: s.end() if s.broken else None)  # type: ignore[misc]
            elif answers:
                session.broken = False
