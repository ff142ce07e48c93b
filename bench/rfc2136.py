"""Figures ``rfc2136``: from the decision to the update accepted by BIND, against nsupdate and bare dnspython.

All three send one signed update over TCP, with a prerequisite, a deletion and an addition, each to a name of its own
in one zone. The controller moreover reads the name, over the same connection, right before it changes it. The bare
ones read nothing, decide nothing and write nothing down; they take turns with the controller.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import dns.exception
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update

from bench.figure import Aim, Figure, Say
from bench.named import Named, named
from bench.signpost import BARE, TARGETS, TTL, ZONE, Move, parts, pointing, record
from bench.steering import HOST, WAIT
from failover.lab.haproxy import LabError

SCALE = 10.0  # how many times faster than in life the controller's paces are; an update is as fast as it is
AGAINST_NSUPDATE, AGAINST_DNSPYTHON = Aim(1.0), Aim(6.0)

Swap = Callable[[str, str], None]
"""Puts the second address in the place of the first. Blocks."""


def nsupdate(server: Named) -> Swap:
    """A process for each update."""
    address = server.address

    def swap(old: str, new: str) -> None:
        lines = (
            f"server {address.host} {address.port}\nzone {ZONE}\nprereq yxrrset {BARE} A {old}\n"
            f"update delete {BARE} A\nupdate add {BARE} {TTL} A {new}\nsend\n"
        )
        command = ["nsupdate", "-v", "-k", str(server.key_file)]
        done = subprocess.run(command, input=lines.encode(), capture_output=True, timeout=WAIT, check=False)
        if done.returncode:
            raise LabError(f"nsupdate: {done.stderr.decode(errors='replace').strip()}")

    return swap


def dnspython(server: Named) -> Swap:
    """A connection for each update."""
    key = dns.tsig.Key(dns.name.from_text(server.provider.key_name), server.provider.key, server.provider.algorithm)

    def swap(old: str, new: str) -> None:
        update = dns.update.UpdateMessage(ZONE, keyring=key)
        name = dns.name.from_text(BARE)
        update.present(name, "A", old)
        update.delete(name, "A")
        update.add(name, TTL, "A", new)
        try:
            answer = dns.query.tcp(update, server.address.host, WAIT, server.address.port)
        except dns.exception.DNSException as error:
            raise LabError(f"{server.address}: the bare update: {error}") from error
        if answer.rcode() != dns.rcode.NOERROR:
            raise LabError(f"{server.address}: the bare update was answered {dns.rcode.to_text(answer.rcode())}")

    return swap


async def _bare(swap: Swap) -> float:
    """Milliseconds of one update there; one back is not counted."""
    worker, (old, new) = HOST.worker("bare"), TARGETS.values()

    def timed() -> float:
        began = HOST.now().mono
        swap(old, new)
        took = HOST.now().mono - began
        swap(new, old)
        return took * 1e3

    try:
        return await worker.call(timed, 2 * WAIT)
    finally:
        worker.close()


async def _figures(quick: bool, say: Say) -> list[Figure]:
    rounds = 2 if quick else 15
    moves: list[Move] = []
    bare: list[list[float]] = [[], []]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="fob-")))
        server = await stack.enter_async_context(named(folder))
        swaps = [nsupdate(server), dnspython(server)]
        pointer = await stack.enter_async_context(pointing(record(server.provider, (server.address,)), folder, SCALE))
        await pointer.move()
        for swap in swaps:
            await _bare(swap)
        say(f"{rounds} updates each, by the controller, nsupdate and dnspython in turn")
        for _ in range(rounds):
            moves.append(await pointer.move())
            for swap, took in zip(swaps, bare, strict=True):
                took.append(await _bare(swap))
    ours = [(move.accepted - move.decided) * 1e3 for move in moves]
    tools, library = bare
    note = (
        f"decision to the update accepted by BIND, median of {rounds}: {parts(moves)}; the name is read right before; "
        f"ours {min(ours):.1f} to {max(ours):.1f}, nsupdate {min(tools):.1f} to {max(tools):.1f}, dnspython "
        f"{min(library):.1f} to {max(library):.1f} ms"
    )
    return [
        Figure(
            "rfc2136, nsupdate", median(ours), "ms", median(tools), "one nsupdate, whole process", AGAINST_NSUPDATE,
            note,
        ),
        Figure(
            "rfc2136, bare", median(ours), "ms", median(library), "one update by dnspython, nothing read before",
            AGAINST_DNSPYTHON,
        ),
    ]  # fmt: skip


def figures(quick: bool, say: Say) -> list[Figure]:
    """Both figures."""
    return asyncio.run(_figures(quick, say))
