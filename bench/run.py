"""``make bench``: speed and memory as ratios, each taken in one run against something bare. Asserts nothing.

    bench/run.py [--only NAME]... [--quick] [--json]

The machine may be shared: what is compared is run in turn, and medians are told. Progress goes to stderr, the table
or the JSON to stdout. Everything stays on loopback, and every process that was started is ended, also at Ctrl-C.
Exit status: 0 also for aims that are missed; 1 when something could not be measured; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from time import monotonic  # noqa: TID251  a bench reads the machine's clock

from bench.figure import Figure, table
from failover.errors import FailoverError

BENCHES = {
    "pings": "full pings and kept-open sessions per second, against a bare asyncio client",
    "ticks": "ticks per second of the whole loop, and of the pure middle",
    "startup": "failover --help and failover ping, against the interpreter that does nothing",
    "handover": "first command to first session over two HAProxies, against a bare script",
    "repair": "split brain forced to repaired, against the observing interval",
    "agents": "decision to confirmed not forging, a handover over 2 producers, 2 proxies and 4 relays; an agent's cost",
    "route53": "decision to accepted, to INSYNC and to all servers right, against bare boto3; calls an hour",
    "rfc2136": "decision to accepted by BIND, against nsupdate and a bare dnspython update",
    "simulation": "ticks, faults and handovers per second of CPU in the simulator, with world and invariants",
    "daemon": "resident memory and CPU time of the daemon with one pool",
}
INTERRUPTED = 130


def arguments() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    listed = "\n".join(f"  {name:12}{what}" for name, what in BENCHES.items())
    parser = argparse.ArgumentParser(
        description="Speed and memory as ratios taken in one run.",
        epilog=f"benches:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", action="append", choices=tuple(BENCHES), metavar="NAME", help="this bench; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds each: shows that it runs, measures badly")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    return parser


def measure(names: Sequence[str], quick: bool) -> tuple[list[Figure], dict[str, str]]:
    """The figures of these benches, and why some could not be measured, by name."""
    found: list[Figure] = []
    failed: dict[str, str] = {}
    for name in names:
        began = monotonic()

        def say(words: str, name: str = name) -> None:
            print(f"{name}: {words}", file=sys.stderr, flush=True)

        try:
            found += import_module(f"bench.{name}").figures(quick, say)
        except (FailoverError, OSError) as error:
            mend = getattr(error, "mend", "")
            failed[name] = f"{error}; {mend}" if mend else str(error)
            say(f"not measured: {failed[name]}")
        else:
            say(f"done in {monotonic() - began:.1f} s")
    return found, failed


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "byte_code": "compiled into a folder of its own; PYTHONDONTWRITEBYTECODE is unset for programs measured",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = arguments().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, on = monotonic(), machine()
    try:
        found, failed = measure(given.only or tuple(BENCHES), given.quick)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    seconds = round(monotonic() - began, 1)
    if given.json:
        document = {"seconds": seconds, "quick": given.quick, "machine": on, "not_measured": failed}
        print(json.dumps({**document, "figures": [figure.document() for figure in found]}, indent=2))
    else:
        print(table(found))
        for name, why in failed.items():
            print(f"{name}: not measured: {why}")
        words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in on.items())
        print(f"\nin {timedelta(seconds=round(seconds))}; {words}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
