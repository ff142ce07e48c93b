"""One hunt: the plans of a mutant, seed after seed, until an invariant is broken. It imports the product."""

from __future__ import annotations

import os
from typing import Any

from .plans import plan_of
from .table import Mutant


def run(plan: str, seed: int) -> tuple[tuple[str, str], ...]:
    """The invariants that one run breaks, with their words."""
    return tuple((v.name, v.words) for v in plan_of(plan, seed).run().violations)


def hunt(mutant: Mutant, seeds: int | None = None) -> dict[str, Any]:
    """Each plan with each seed until something is broken: what was ``found`` (or None), and the ``runs`` it took.

    ``seeds`` is the number of seeds, instead of the mutant's ``within``.
    """
    started, runs = os.times().user, []
    for seed in range(mutant.within if seeds is None else seeds):
        for plan in mutant.hunts:
            runs.append(f"{plan}#{seed}")
            for invariant, words in run(plan, seed):
                seconds = os.times().user - started
                found = {"plan": plan, "seed": seed, "invariant": invariant, "words": words, "seconds": seconds}
                return {"found": found, "runs": runs}
    return {"found": None, "runs": runs}
