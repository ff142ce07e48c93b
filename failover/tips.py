"""Whether two nodes stand on the same chain, as far as the tips of their pings can tell. Pure.

Every source (a producer, a reference) has a short ``History`` of the blocks that it stood on. Two histories are
compared where they have a block of the same number, or of the same slot: the same hash there means the same chain up to
it, whatever was read before.

Theory of operation
- Tips are read at different moments, so nodes of one chain are seen a block apart all the time, and a node that lags,
  many: nothing follows from tips that have neither number nor slot in common.
- A slot battle shows two hashes of one number for a while: about one block in twenty has a rival, and the next block
  settles it. So one number proves nothing, however often it is read: no next block within 60 s is as likely as
  0.95^60 = 5 %. HEIGHTS blocks in a row, all apart, over APART_FOR seconds, take as many battles in a row, each
  settled differently at both nodes.
- Nodes that stand still apart are told by time alone: no block for STANDING seconds is as likely as 0.95^300 = 2e-7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .model import Instant, Tip

REMEMBERED = 16  # blocks of one source: about five minutes at one block in 20 s
HEIGHTS = 3  # blocks in a row that are apart, each read from both
APART_FOR = 60.0  # seconds between the first and the last of them, at least
STANDING = 300.0  # seconds for which two nodes that stand still are apart
READINGS = 3  # of each of them in that time, at least


@dataclass(frozen=True, slots=True)
class Block:
    """One block that a source stood on, and when it was first and last read there."""

    slot: int
    number: int
    hash: str
    first: Instant
    last: Instant
    readings: int = 1


History = tuple[Block, ...]  # numbers rise


def fold(history: History, tip: Tip, at: Instant) -> History:
    """The history after one more tip; what a rollback has left behind is forgotten."""
    if not tip.hash:  # genesis
        return history
    if history and (history[-1].number, history[-1].hash) == (tip.block_no, tip.hash):
        return (*history[:-1], replace(history[-1], last=at, readings=history[-1].readings + 1))
    kept = tuple(block for block in history if block.number < tip.block_no)
    return (*kept, Block(tip.slot, tip.block_no, tip.hash, at, at))[-REMEMBERED:]


@dataclass(frozen=True, slots=True)
class Apart:
    """Two sources on two chains: the newest blocks that differ, since when, and whether the first ones share a slot."""

    one: str
    other: str
    mine: Block
    theirs: Block
    since: Instant
    same_slot: bool

    @property
    def pair(self) -> tuple[str, str]:
        """Both names."""
        return (self.one, self.other)


@dataclass(frozen=True, slots=True)
class Compared:
    """What two histories say: together (they agree at their newest common block), apart, or neither can be told."""

    together: bool = False
    apart: Apart | None = None


def compare(one: str, mine: History, other: str, theirs: History) -> Compared:
    """Whether two sources stand on one chain or on two."""
    by_number = {block.number: block for block in theirs}
    by_slot = {block.slot: block for block in theirs}
    differing: list[tuple[Block, Block]] = []
    for block in reversed(mine):
        rival = by_number.get(block.number) or by_slot.get(block.slot)
        if rival is None:
            continue
        if rival.hash == block.hash:
            return Compared(together=True) if not differing else _judged(one, other, mine, theirs, differing)
        differing.append((block, rival))
    return _judged(one, other, mine, theirs, differing)


def _judged(one: str, other: str, mine: History, theirs: History, differing: list[tuple[Block, Block]]) -> Compared:
    if not differing:
        return Compared()
    newest, oldest = differing[0], differing[-1]
    since = _later(oldest[0].first, oldest[1].first)
    known = Apart(one, other, *newest, since, any(a.slot == b.slot for a, b in differing))
    grown = len(differing) >= HEIGHTS and _later(newest[0].first, newest[1].first).since(since) >= APART_FOR
    return Compared(apart=known) if grown or _standing(mine[-1], theirs[-1]) else Compared()


def _standing(mine: Block, theirs: Block) -> bool:
    """Whether both stand still on different blocks of one number or slot, and have for long."""
    if mine.hash == theirs.hash or (mine.number != theirs.number and mine.slot != theirs.slot):
        return False
    if min(mine.readings, theirs.readings) < READINGS:
        return False
    seen = mine.last if theirs.last.since(mine.last) > 0 else theirs.last
    return seen.since(_later(mine.first, theirs.first)) >= STANDING


def _later(one: Instant, other: Instant) -> Instant:
    return other if other.since(one) > 0 else one


@dataclass(frozen=True, slots=True)
class Chains:
    """All sources' histories, and what was last found of each pair, by both names in the order of the sources."""

    histories: Mapping[str, History]
    apart: Mapping[tuple[str, str], Apart]
    together: frozenset[tuple[str, str]] = frozenset()

    def on(self, one: str, other: str) -> bool:
        """Whether two sources were last seen on one chain."""
        return (one, other) in self.together or (other, one) in self.together


NONE = Chains({}, {})


def read(chains: Chains, source: str, tip: Tip, at: Instant) -> Chains:
    """The chains after one more tip of a source. Two that were apart stay so until they are seen together."""
    before = chains.histories.get(source, ())
    history = fold(before, tip, at)
    histories = {**chains.histories, source: history}
    if history is before:
        return chains
    apart, together = dict(chains.apart), set(chains.together)
    order = sorted(histories)
    for other in order:
        if other == source:
            continue
        pair = (source, other) if source < other else (other, source)
        found = compare(pair[0], histories[pair[0]], pair[1], histories[pair[1]])
        if found.together:
            together.add(pair)
            apart.pop(pair, None)
        elif found.apart is not None:
            together.discard(pair)
            since = apart[pair].since if pair in apart else found.apart.since
            apart[pair] = replace(found.apart, since=since)
    return Chains(histories, apart, frozenset(together))


def forget(chains: Chains, source: str) -> Chains:
    """The chains without a source that no longer answers: it may come back with another chain."""
    if source not in chains.histories:
        return chains
    return Chains(
        {name: history for name, history in chains.histories.items() if name != source},
        {pair: apart for pair, apart in chains.apart.items() if source not in pair},
        frozenset(pair for pair in chains.together if source not in pair),
    )
