# ruff: noqa: TID251  a bench reads the machine's clock
"""Figures of the simulator: ticks, faults and handovers for a second of CPU, with the whole world and its judge.

Compared with the controller in a world that is almost nothing (bench/world.py): the difference is what simulated
proxies, relays, names, the store and the invariants cost.
"""

from __future__ import annotations

import gc
import time
from statistics import median

from bench import world
from bench.figure import Aim, Figure, Say, interleaved
from failover.simulator.campaign import PROFILES, default_pool, plan
from failover.simulator.run import play

AIM = Aim(2000.0, at_least=True, of="measured")
QUIET_HOURS = 1.0


def _bare(hours: float) -> float:
    gc.collect()
    began = time.process_time()
    counter = world.live(hours, lambda host, of: world.MemoryStore(None))
    return counter.ticks / (time.process_time() - began)


def _quiet(hours: float) -> float:
    gc.collect()
    began = time.process_time()
    run = play(default_pool(), (), hours * 3600)
    return run.ticks / (time.process_time() - began)


def _dense(seeds: range) -> tuple[float, float, float]:
    """Ticks, faults and handovers for a second of CPU."""
    gc.collect()
    ticks = faults = handovers = 0
    began = time.process_time()
    for seed in seeds:
        run = plan(seed).run()
        ticks, faults, handovers = ticks + run.ticks, faults + len(run.happened), handovers + run.handovers
    seconds = time.process_time() - began
    return ticks / seconds, faults / seconds, handovers / seconds


def figures(quick: bool, say: Say) -> list[Figure]:
    """Quiet hours, and one seed of every mix of faults."""
    hours, rounds = (0.1, 1) if quick else (QUIET_HOURS, 3)
    seeds = range(1, 2) if quick else range(len(PROFILES))
    say(f"{rounds} rounds of {hours:g} quiet hours, and seeds {seeds.start} to {seeds.stop - 1}")
    _quiet(0.02)
    bare, quiet = (median(v) for v in interleaved(rounds, lambda: _bare(hours), lambda: _quiet(hours)))
    ticks, faults, handovers = _dense(seeds)
    almost = "the controller in a world that is almost nothing"
    note = f"seeds {seeds.start} to {seeds.stop - 1}, one of every mix of faults; CPU time of one process"
    return [
        Figure("simulation, quiet", quiet, "ticks/s", bare, almost, AIM, f"{hours:g} hours without a fault"),
        Figure("simulation, ticks", ticks, "ticks/s", bare, almost, AIM, note),
        Figure("simulation, faults", faults, "/s", None, "", None, note),
        Figure("simulation, handovers", handovers, "/s", None, "", None, note),
    ]
