"""Plays seeds of the simulator and prints the hash of each one's trace: for any CPython, without any library."""

from __future__ import annotations

import sys

from failover.simulator.campaign import plan

for word in sys.argv[1:]:
    name, _, seed = word.rpartition(":")
    run = plan(int(seed), profile=name or None).run()
    print(word, run.trace_hash, len(run.violations))
