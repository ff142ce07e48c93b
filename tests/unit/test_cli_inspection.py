"""What ``failover check`` says of the clock, of the state folder and of records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest
from policy_world import make_pool

from failover.cli.inspection import OFFSETS, Found, Severity, clock, records, state
from failover.errors import RecordRefused, RecordUnreachable
from failover.host import RealHost
from failover.model import (
    Change,
    DnsAnswer,
    Fault,
    LeaseSettings,
    Pool,
    Record,
    RecordReading,
    RecordType,
    Route53Zone,
    RRset,
    Tip,
)
from failover.ports import Host, RecordPort, VerifyPort

T = TypeVar("T")
UTC = 1_800_000_000.0


def judged(late: float, *, magic: int = 764824073, kernel: int | None = 0) -> tuple[str, str]:
    pool = replace(make_pool(), magic=magic)
    tip = Tip(int(UTC - late - OFFSETS.get(magic, 0)), "aa", 1)
    (found,) = clock(pool, [tip, Tip(5, "aa", 1)], UTC, lambda: kernel)
    return found.severity.value, found.what


@pytest.mark.parametrize(("late", "severity"), [(-3600, "error"), (-30, "ok"), (20, "ok"), (3600, "warning")])
def test_the_clock_is_judged_by_the_best_tip_where_slots_have_known_times(late: float, severity: str) -> None:
    assert judged(late)[0] == severity


def test_on_an_unknown_network_only_the_kernel_is_asked() -> None:
    assert judged(3600, magic=42)[0] == "ok"
    assert judged(3600, magic=42, kernel=5) == (
        "note",
        "the kernel does not know of a time server; the times in the journal may be off",
    )


def at(folder: Path) -> Pool:
    return replace(make_pool(), state=folder)


def test_a_folder_that_is_not_there_is_made_later_and_not_now(tmp_path: Path) -> None:
    found = state(at(tmp_path / "a" / "b"))
    assert [f.severity for f in found] == [Severity.OK]
    assert not (tmp_path / "a").exists()


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    (found,) = state(at(tmp_path / "state"))
    assert found.severity is Severity.ERROR
    assert found.mend


def test_a_damaged_store_is_an_error_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "failover.sqlite").write_bytes(b"not a database" * 100)
    found = [f for f in state(at(tmp_path)) if f.severity is Severity.ERROR]
    assert len(found) == 1
    assert "damaged" in found[0].what
    assert found[0].mend


# ---------------------------------------------------------------- records

A, B = "192.0.2.10", "192.0.2.20"
RECORD = Record("bp.example.com.", "bp.example.com.", {"main": A, "backup": B}, Route53Zone("Z1"))


def held(*values: str, ttl: int = 60, kind: RecordType = RecordType.A) -> RRset:
    return RRset(kind, values, ttl)


def said(rrset: RRset | None, server: str = "ns1", **changes: object) -> DnsAnswer:
    return replace(DnsAnswer(server, True, rrset), **changes)  # type: ignore[arg-type]


@dataclass
class Fake:
    """A record's provider and servers; what is an error is raised, what is None never answers."""

    reading: RecordReading | Exception | None
    answers: tuple[DnsAnswer, ...] | Exception | None
    closed: int = 0
    changed: bool = False

    async def read(self, timeout: float) -> RecordReading:
        return await _or_raise(self.reading)

    async def look(self, timeout: float) -> tuple[DnsAnswer, ...]:
        return await _or_raise(self.answers)

    async def change(self, change: Change, timeout: float, still_valid: Callable[[], bool]) -> str | None:
        self.changed = True
        return ""

    async def settled(self, change_id: str, timeout: float) -> bool:
        return True

    async def close(self) -> None:
        self.closed += 1


async def _or_raise(value: T | Exception | None) -> T:
    if value is None:
        await asyncio.Event().wait()
    if isinstance(value, Exception):
        raise value
    assert value is not None
    return value


async def looked(*fakes: Fake, names: tuple[str, ...] = ("bp", "b2")) -> list[Found]:
    """What is found of as many records as there are fakes."""
    labels = [f"{name}.example.com." for name in names[: len(fakes)]]
    pool = replace(
        make_pool(),
        records=tuple(replace(RECORD, name=label, label=label) for label in labels),
        lease=LeaseSettings(action_timeout=0.2),
    )
    by_label = dict(zip(labels, fakes, strict=True))

    def provider(record: Record, host: Host) -> RecordPort:
        return by_label[record.label]

    def verifier(record: Record, host: Host) -> VerifyPort:
        return by_label[record.label]

    async with asyncio.TaskGroup() as group:
        found = group.create_task(records(pool, RealHost(), provider, verifier))
    assert [(fake.closed, fake.changed) for fake in fakes] == [(2, False)] * len(fakes)
    return found.result()


def told(found: list[Found]) -> list[tuple[str, str]]:
    assert all(f.mend for f in found if f.severity in (Severity.ERROR, Severity.WARNING)), found
    return [(f.severity.value, f.what) for f in found]


async def test_a_record_that_points_to_a_producer_everywhere_is_well() -> None:
    good = held(A)
    found = await looked(Fake(RecordReading(good), (said(good), said(good, "ns2"))))
    assert {f.part for f in found} == {"record bp.example.com."}
    assert told(found) == [
        ("ok", f"it points to main: A {A} (TTL 60)"),
        ("ok", "as its provider says: ns1, ns2"),
    ]


HELD = {
    "nothing": (None, "error", "its provider holds nothing: relays are told that there is no such name, and ask again"),
    "several": (held(A, B), "warning", f"its provider holds several values, of which relays take any: A {A}, {B} (TTL"),
    "nobody's": (held("192.0.2.99"), "warning", "it points to no producer of the file: A 192.0.2.99 (TTL 60)"),
    "another TTL": (held(B, ttl=300), "warning", "it points to backup with TTL 300, and the file says 60"),
    "TTL 0": (held(B, ttl=0), "warning", "with TTL 0, which cardano-node takes for 900 s, and the file says 60"),
}


@pytest.mark.parametrize("case", HELD)
async def test_what_is_wrong_at_the_provider_is_said_with_its_mend(case: str) -> None:
    rrset, severity, words = HELD[case]
    first, *others = told(await looked(Fake(RecordReading(rrset), (said(rrset),))))
    assert first[0] == severity
    assert words in first[1]
    assert others == [("ok", "as its provider says: ns1")]


async def test_a_name_that_holds_nothing_is_mended_with_the_record_to_make() -> None:
    found = await looked(Fake(RecordReading(None), (said(None),)))
    assert f"(for main: A {A} (TTL 60))" in found[0].mend


async def test_a_record_that_must_not_be_touched_is_an_error() -> None:
    found = await looked(Fake(RecordReading(None, "is an alias"), (said(held(A)),)))
    assert told(found) == [
        ("error", "it cannot be moved: it is an alias"),
        ("note", f"ns1 says A {A} (TTL 60), which is main's; whether its provider says so too cannot be told"),
    ]


async def test_a_provider_that_refuses_is_an_error_with_its_own_mend_and_the_servers_are_still_asked() -> None:
    refusal = RecordRefused("bp.example.com.: AccessDenied", "allow route53:ListResourceRecordSets")
    found = await looked(Fake(refusal, (said(held("192.0.2.99")),)))
    assert told(found) == [
        ("error", "AccessDenied"),
        ("note", "ns1 says A 192.0.2.99 (TTL 60); whether its provider says so too cannot be told"),
    ]
    assert found[0].mend == "allow route53:ListResourceRecordSets"


async def test_each_server_that_says_otherwise_is_named() -> None:
    good = held(A)
    answers = (
        said(good, "ns1"),
        said(held(B), "ns2"),
        said(None, "ns3"),
        said(held(A, ttl=300), "ns4"),
        said(None, "ns5", fault=Fault.LAME, error="answers without authority"),
        said(None, "ns6", fault=Fault.SILENT, error="no answer within 5 s"),
    )
    assert told((await looked(Fake(RecordReading(good), answers)))[1:]) == [
        ("ok", "as its provider says: ns1"),
        ("warning", f"ns2 says A {B} (TTL 60), and its provider holds A {A} (TTL 60)"),
        ("warning", f"ns3 says that there is no such name, and its provider holds A {A} (TTL 60)"),
        ("warning", "ns4 has TTL 300, and its provider 60"),
        ("warning", "ns5 is lame: it should have authority, and answers without authority"),
        ("warning", "ns6 gives no answer: no answer within 5 s"),
    ]


async def test_what_is_left_of_a_resolvers_time_to_live_is_no_difference() -> None:
    good = held(A)
    found = await looked(Fake(RecordReading(good), (said(held(A, ttl=7), "10.0.0.2", authoritative=False),)))
    assert told(found)[1] == ("ok", "as its provider says: 10.0.0.2")


async def test_servers_that_cannot_be_found_are_a_warning() -> None:
    lost = RecordUnreachable("bp.example.com.: no NS of example.com", "name them under `verify`")
    found = await looked(Fake(RecordReading(held(A)), lost))
    assert told(found)[1] == ("warning", "no NS of example.com")


async def test_who_never_answers_is_given_up_and_holds_up_no_other_record() -> None:
    good = held(A)
    found = await looked(Fake(None, None), Fake(RecordReading(good), (said(good),)))
    assert told(found) == [
        ("error", "its provider did not answer within 0.2 s"),
        ("warning", "its servers did not answer within 0.2 s"),
        ("ok", f"it points to main: A {A} (TTL 60)"),
        ("ok", "as its provider says: ns1"),
    ]


async def test_records_that_point_to_different_producers_are_told() -> None:
    found = await looked(Fake(RecordReading(held(A)), (said(held(A)),)), Fake(RecordReading(held(B)), (said(held(B)),)))
    assert told(found)[-1] == (
        "warning",
        "they point to different producers: bp.example.com. to main, b2.example.com. to backup",
    )
