"""The same handover without a controller: a bare script that sends the same commands and reads in the same order.

One connection for each act, in interactive mode, both proxies side by side, as failover/gates/haproxy_runtime.py does
it. It decides nothing, checks no generation and writes nothing down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from failover.host import RealHost

HOST = RealHost()
BACKEND = "producers"
LIMIT = 1 << 21  # bytes of an answer
PROMPT = b"\n> "
READS = 200  # until the old producer's sessions are gone; two are enough


async def _talk(path: Path, *commands: str) -> tuple[float, list[str]]:
    """The answers to commands on one connection, and CLOCK_BOOTTIME just before the first of them was sent."""
    reader, writer = await asyncio.open_unix_connection(path, limit=LIMIT)
    at, answers = 0.0, []
    try:
        for number, command in enumerate(("prompt", "show info", *commands)):
            at = HOST.now().mono if number == 2 else at
            writer.write(command.encode() + b"\n")
            answers.append((await reader.readuntil(PROMPT)).removesuffix(PROMPT).decode())
    finally:
        writer.transport.abort()
    return at, answers[2:]


async def shut(path: Path, producer: str) -> float:
    """Close one gate, and end its sessions; CLOCK_BOOTTIME just before the first command was sent."""
    server = f"{BACKEND}/{producer}"
    at, _ = await _talk(path, f"set server {server} state maint", f"shutdown sessions server {server}")
    return at


async def is_shut(path: Path, producer: str) -> bool:
    """Read everything that the controller reads: whether the gate is in maint, and without a session."""
    _, (_, stat) = await _talk(path, f"show servers state {BACKEND}", "show stat")
    head, *rows = (line.split(",") for line in stat.strip().splitlines())
    for row in rows:
        if row[:2] == [BACKEND, producer]:
            return row[head.index("status")].startswith("MAINT") and row[head.index("scur")] == "0"
    return False


async def handover(paths: Sequence[Path], old: str, new: str) -> float:
    """Old shut everywhere, seen to be so everywhere, new opened everywhere; CLOCK_BOOTTIME of the first command."""
    began = await asyncio.gather(*(shut(path, old) for path in paths))
    for _ in range(READS):
        if all(await asyncio.gather(*(is_shut(path, old) for path in paths))):
            break
    await asyncio.gather(*(_talk(path, f"set server {BACKEND}/{new} state ready") for path in paths))
    await asyncio.gather(*(is_shut(path, new) for path in paths))
    return min(began)
