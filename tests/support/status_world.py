"""What a controller would report of a small world (policy_world.py)."""

from __future__ import annotations

from dataclasses import replace

from policy_world import World, instant

from failover.controller import Report


def report(world: World, **changes: object) -> Report:
    """The report of a controller that holds the lease in this world; ``changes`` override its fields."""
    made = Report(
        pool=world.pool,
        view=world.board.view(),
        assignment=world.assignment,
        outcome=world.outcomes[-1] if world.outcomes else None,
        lease=world.board.lease,
        held=True,
        now=instant(world.t),
        started=instant(0),
        store_error=None,
        tick_seconds=0.0001,
    )
    return replace(made, **changes)  # type: ignore[arg-type]
