"""What scenes share: an operator's moves, waits, and the words for what was seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from failover.host import RealHost
from failover.lab.pool import Plan
from failover.lab.story import ACTION_TIMEOUT, ANSWERED, DNS, RELAYS, Answer, Stage
from failover.lab.verdict import Verdict
from failover.model import Request, Verb
from failover.store.sqlite import SqliteStore

MAIN, BACKUP = "main", "backup"
CALM = 2.0  # seconds in which nothing may move
HANDOVER = 4 * ACTION_TIMEOUT  # seconds; a fence, an opening, and the relays' redial

Play = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Story:
    """One story: a pool, its scenes in their order, and how it is judged at its end.

    ``plan`` is the pool for a scale, ``cast`` what it consists of, in words.
    """

    name: str
    title: str
    cast: str
    plan: Callable[[float], Plan]
    scenes: tuple[tuple[str, Play], ...]
    judge: Callable[[Stage], Verdict]


# ---------------------------------------------------------------- moves


async def switchover(stage: Stage, to: str) -> None:
    """Move the role by command; ``moved`` is how long it took until every relay was there. Raises Broken."""
    began = stage.now()
    answer = await stage.told("switchover", "--to", to, "--yes", "--reason", "demo")
    stage.need(answer.status == 0, f"the switchover to {to} is done", ANSWERED, answer.last)
    there = await stage.until(lambda: stage.all_with(to), HANDOVER)
    stage.took("moved", stage.now() - began)
    stage.need(there, f"every relay is with {to}", RELAYS, reached(stage))


def ask_for_switchover(stage: Stage, to: str) -> None:
    """Ask as ``failover switchover --no-wait`` does, but without the time that a command takes to start."""
    host = RealHost()
    now = host.now()
    store = SqliteStore(stage.lab.folder / "state", pool="LAB", boot=now.boot, clock=host.now, check=False)
    try:
        store.submit(Request(host.new_id(), Verb.SWITCHOVER, now, now.after(60.0), "demo", to, "demo"))
    finally:
        store.close()


# ---------------------------------------------------------------- waits


async def steady_status(stage: Stage) -> Answer:
    """What ``failover status`` says once the pool is steady, or at last."""
    said = Answer(-1, "")
    for _ in range(30):
        said = await stage.daemon.ask("status")
        if said.status == 0:
            break
        await stage.wait(0.5)
    return said


async def calm(stage: Stage, seconds: float, began: float | None = None) -> None:
    """Let time pass, and claim that no session has begun or ended since ``began``, or now."""
    start = stage.now() if began is None else began
    await stage.wait(seconds)
    changes = stage.changes(start)
    over = stage.now() - start
    stage.claim(not changes, "no session begins or ends", RELAYS, f"{changes} in {over:.1f} s")


async def record_follows(stage: Stage, to: str, began: float, after: str) -> None:
    """Claim that the record comes to point at ``to``, and how long ``after`` the moment ``began``. Raises Broken."""
    there = await stage.until(lambda: _all_said(stage, to, began), HANDOVER)
    seconds = stage.took("record", since(began, stage.names.everywhere(to, began)))
    found = f"{seconds:.1f} s after {after}" if there else answers(stage)
    stage.need(there, f"the record follows: every DNS server says {to}", DNS, found)


def _all_said(stage: Stage, to: str, began: float) -> bool:
    return stage.names.all_say(to) and stage.names.everywhere(to, began) is not None


# ---------------------------------------------------------------- words


def since(began: float, moment: float | None) -> float:
    """Seconds; NaN for what never came."""
    return float("nan") if moment is None else moment - began


def in_seconds(seconds: float) -> str:
    """Seconds, in words."""
    return f"{seconds:.2f} s"


def reached(stage: Stage) -> str:
    """With whom the relays are."""
    found = stage.lab.reached()
    numbers = {p: sum(producer == p for producer in found.values()) for p in stage.lab.plan.producers}
    told = [f"{number} with {producer}" for producer, number in numbers.items() if number]
    return f"{' and '.join(told)}, of {len(stage.pairs)}" if told else "no session"


def admitted(stage: Stage) -> str:
    """Whom each proxy lets in."""
    found = {}
    for name, sample in stage.witness.now().items():
        found[name] = "silent" if sample is None else " and ".join(sorted(sample.admitted)) or "nobody"
    return ", ".join(f"{name}: {who}" for name, who in found.items())


def answers(stage: Stage) -> str:
    """Whom each DNS server names."""
    return ", ".join(f"{server}: {stage.names.whom(look)}" for server, look in stage.names.now().items())
