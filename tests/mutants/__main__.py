"""``python -m tests.mutants``: every mutant is hunted by the simulator, each in a process of its own.

It prints a table: by which run each was found, what that broke, and the CPU seconds until then. It ends with 1 if one
survives, or if the product itself, whole, breaks anything in the same runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .hook import install
from .table import MUTANTS, Mutant, named

DEADLINE = 1800.0  # seconds for one process


def _child(*arguments: str) -> Any:
    """What a process of this module prints. Raises RuntimeError."""
    command = [sys.executable, "-m", __package__ or "mutants", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {ended.stderr.strip()[-2000:]}")
    return json.loads(ended.stdout)


def hunted(mutant: Mutant, seeds: int | None = None) -> dict[str, Any]:
    """Hunt one mutant in a process of its own: ``found`` (or None) and the ``runs`` that it took."""
    more = () if seeds is None else ("--seeds", str(seeds))
    found: dict[str, Any] = _child("--one", mutant.name, *more)
    return found


def control(runs: list[str]) -> dict[str, str]:
    """What the product itself breaks in these runs, by run."""
    found: dict[str, str] = _child("--control", *runs) if runs else {}
    return found


def _one(name: str, seeds: int | None) -> None:
    mutant = named(name)
    install(mutant)
    from .hunt import hunt

    print(json.dumps(hunt(mutant, seeds)))


def _whole(runs: list[str]) -> None:
    from .hunt import run

    broken = {}
    for each in runs:
        plan, _, seed = each.partition("#")
        for invariant, words in run(plan, int(seed))[:1]:
            broken[each] = f"{invariant}: {words}"
    print(json.dumps(broken))


def _row(mutant: Mutant, found: dict[str, Any] | None, within: int) -> str:
    if found is None:
        return f"{mutant.name:<62} SURVIVES {within} seeds of {', '.join(mutant.hunts)}"
    run = f"{found['plan']}#{found['seed']}"
    return f"{mutant.name:<62} {run:<26} {found['invariant']:<14} {found['seconds']:6.1f} s  within {within}"


def main() -> int:
    """Hunt, print, and say whether all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a mutant; all of them if none is named")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--seeds", type=int, help="seeds of each plan, instead of what the table says")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--control", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        _one(given.one, given.seeds)
        return 0
    if given.control is not None:
        _whole(given.control)
        return 0
    mutants = [named(name) for name in given.names] or [m for m in MUTANTS if m.hunts]
    survived, runs = 0, dict[str, None]()
    with ThreadPoolExecutor(given.jobs) as pool:
        for mutant, result in zip(mutants, pool.map(lambda m: hunted(m, given.seeds), mutants), strict=True):
            print(_row(mutant, result["found"], given.seeds or mutant.within), flush=True)
            survived += result["found"] is None
            runs.update(dict.fromkeys(result["runs"]))
    broken = control(list(runs))
    for run, words in broken.items():
        print(f"{'the product itself':<62} {run:<26} {words}")
    print(
        f"{len(mutants)} mutants, {survived} survive; the product breaks something in {len(broken)} of {len(runs)} runs"
    )
    return 1 if survived or broken else 0


if __name__ == "__main__":
    sys.exit(main())
