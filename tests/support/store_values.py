"""Values that go into stores, real or simulated."""

from __future__ import annotations

from dataclasses import replace

from failover.model import Assignment, Cause, Instant, Phase, Request, Verb

T0 = Instant("boot-1", 1_000.0, 1_790_000_000.0)
DURATION, WAIT = 60.0, 10.0  # seconds: of a lease, and beyond it until another may overtake it


def assignment(revision: int, **changes: object) -> Assignment:
    plain = Assignment(revision, revision, Phase.STEADY, "main", None, Cause.ADOPTED, T0, "first start")
    return replace(plain, **changes)  # type: ignore[arg-type]


def request(number: int, verb: Verb = Verb.PAUSE) -> Request:
    return Request(f"id-{number:03d}", verb, T0.after(number), T0.after(number + 60), "alice")
