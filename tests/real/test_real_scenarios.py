"""The same scenarios in the simulator and on real parts: the same order of phases and steps, and the same end.

Real are the HAProxies, the node-to-node speaking processes, the daemon and its state folder; a process hangs by
SIGSTOP and dies by SIGKILL, and packets are dropped between network namespaces. Nobody here says what should come:
each side is held against the other.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from haproxy_world import require_haproxy
from real_stage import Played, Simulated, grouped, needs_root, real, simulated

from failover.simulator import scenario
from failover.simulator.scenario import Cast

FOLDER = Path(__file__).parent / "scenarios"
NAMES = tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))
AT_ONCE = 6  # stages

Told = tuple[Simulated, Played | BaseException]


def cast_of(name: str) -> Cast:
    return scenario.cast(scenario.load(FOLDER / f"{name}.yaml"))


def missing_root() -> None:
    reason = "network namespaces need root"
    if {"root", "all"} & set(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split()):
        pytest.fail(f"FAILOVER_REQUIRE asks for root: {reason}")
    pytest.skip(reason)


async def played(casts: dict[str, Cast], told: dict[str, Simulated]) -> dict[str, Told]:
    """Every scenario on real parts; what went wrong is kept for its own test."""
    places, starting = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(2)

    async def one(name: str) -> Played:
        folder = Path(tempfile.mkdtemp(prefix="fo-"))
        try:
            async with places:
                return await real(casts[name], told[name], folder / "lab", starting)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    found = await asyncio.gather(*map(one, casts), return_exceptions=True)
    return {name: (told[name], came) for name, came in zip(casts, found, strict=True)}


@pytest.fixture(scope="module")
def both(request: pytest.FixtureRequest) -> dict[str, Told]:
    """What came of each scenario that was asked for, by name."""
    require_haproxy()
    ours = (item for item in request.session.items if item.path == request.path)
    asked = {item.callspec.params["name"] for item in ours if hasattr(item, "callspec")}
    wanted = tuple(name for name in NAMES if name in asked)
    if os.geteuid() != 0:
        wanted = tuple(name for name in wanted if not needs_root(cast_of(name)))
    casts = {name: cast_of(name) for name in wanted}
    told = {name: simulated(cast) for name, cast in casts.items()}  # a loop of its own, while no other runs
    return asyncio.run(played(casts, told))


@pytest.mark.parametrize("name", NAMES)
def test_real_parts_take_the_same_phases_and_steps_as_simulated_ones_and_end_alike(
    both: dict[str, Told], name: str
) -> None:
    if name not in both:
        missing_root()
    told, came = both[name]
    if isinstance(came, BaseException):
        raise came
    assert told.broken == ()
    assert grouped(came.order) == grouped(told.played.order)
    assert came.health == told.played.health
    assert came.votes == told.played.votes
    assert came.admitted == told.played.admitted
    assert came.reached == told.played.reached
    assert came.records == told.played.records
    assert came.assignment == told.played.assignment
    assert came.split == told.played.split


def test_there_are_a_dozen_and_every_kind_of_part_and_fault_is_among_them() -> None:
    casts = [cast_of(name) for name in NAMES]
    kinds = {(fault.kind, target) for cast in casts for fault in cast.faults for target in fault.targets or ("pool",)}
    assert len(NAMES) >= 12
    assert {
        ("stop", "main"),
        ("stop", "backup"),
        ("stop", "proxy-2"),
        ("hang", "main"),
        ("hang", "proxy-1"),
        ("reload", "proxy-1"),
        ("hand-open", "proxy-2"),
        ("kill", "controller"),
        ("stop-controller", "controller"),
        ("cut", "controller"),
        ("ask", "pool"),
    } <= kinds
    assert {cast.setup.checks for cast in casts} >= {"l7", "l4"}
    assert {(bool(cast.pool.records), cast.pool.gateless) for cast in casts} == {
        (False, False),
        (True, False),
        (True, True),
    }
