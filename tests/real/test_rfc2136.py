"""Records in zones of real name servers: read, swapped, and left alone when another hand was there in between."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from dns_world import NAME, SERVERS, Between, DnsServer, bind, powerdns, record_at

from failover.errors import RecordConflict
from failover.host import RealHost
from failover.model import Address, Change, Record, RecordReading, RecordType, Rfc2136Zone, RRset
from failover.records import record_port
from failover.records.rfc2136 import Rfc2136Port

ANSWER = 20.0  # seconds that a call may take
MAIN, BACKUP = "192.0.2.10", "192.0.2.20"
SIX = "2001:db8::20"
ELSEWHERE, HOME = "elsewhere.example.net.", "home.example.org."

A, AAAA, CNAME = RecordType.A, RecordType.AAAA, RecordType.CNAME


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DnsServer]:
    with SERVERS[request.param](tmp_path) as made:
        yield made


@asynccontextmanager
async def port_of(record: Record) -> AsyncIterator[Rfc2136Port]:
    assert isinstance(record.provider, Rfc2136Zone)
    port = Rfc2136Port(record, record.provider, RealHost())
    try:
        yield port
    finally:
        await port.close()


async def read(record: Record) -> RecordReading:
    async with port_of(record) as port:
        return await port.read(ANSWER)


async def swap(record: Record, expected: RRset | None, wanted: RRset) -> str | None:
    async with port_of(record) as port:
        return await port.change(Change(expected, wanted), ANSWER, lambda: True)


def a(*values: str, ttl: int = 60) -> RRset:
    return RRset(A, values, ttl)


def aaaa(*values: str, ttl: int = 60) -> RRset:
    return RRset(AAAA, values, ttl)


def cname(value: str, ttl: int = 60) -> RRset:
    return RRset(CNAME, (value,), ttl)


def put(server: DnsServer, rrset: RRset) -> None:
    """Another hand makes the name hold this and nothing else."""
    added = [f"update add {NAME} {rrset.ttl} {rrset.type.value} {value}" for value in rrset.values]
    server.update(f"update delete {NAME}", *added)


Holding = list[tuple[tuple[str, ...], int | None]]


def holding(server: DnsServer) -> Holding:
    """What the name holds of the types that these tests put there."""
    return [server.holds(NAME, kind) for kind in ("A", "AAAA", "CNAME", "TXT")]


# ---------------------------------------------------------------- reading


async def test_an_address_is_read_with_its_ttl(server: DnsServer) -> None:
    record = record_at(server, MAIN, BACKUP)
    assert await read(record) == RecordReading(a(MAIN))
    put(server, a(BACKUP, ttl=300))
    assert await read(record) == RecordReading(a(BACKUP, ttl=300))


async def test_several_values_are_read_sorted(server: DnsServer) -> None:
    put(server, a("192.0.2.9", "192.0.2.30", "192.0.2.4"))
    reading = await read(record_at(server, MAIN, BACKUP))
    assert reading == RecordReading(a("192.0.2.30", "192.0.2.4", "192.0.2.9"))


async def test_ipv6_addresses_are_read_in_their_shortest_form(server: DnsServer) -> None:
    put(server, aaaa("2001:DB8:0:0:0::20"))
    assert await read(record_at(server, MAIN, SIX)) == RecordReading(aaaa(SIX))


async def test_names_are_read_absolute_and_in_lower_case(server: DnsServer) -> None:
    put(server, cname("Elsewhere.Example.NET."))
    assert await read(record_at(server, ELSEWHERE, HOME)) == RecordReading(cname(ELSEWHERE))


async def test_a_name_that_is_free_reads_as_nothing(server: DnsServer) -> None:
    server.delete(NAME)
    assert await read(record_at(server, MAIN, BACKUP)) == RecordReading(None)
    assert await read(record_at(server, MAIN, ELSEWHERE)) == RecordReading(None)


async def test_what_else_the_name_holds_is_not_seen_by_a_record_of_addresses(server: DnsServer) -> None:
    server.set(NAME, "AAAA", SIX)
    server.set(NAME, "TXT", '"note"')
    assert await read(record_at(server, MAIN, BACKUP)) == RecordReading(a(MAIN))
    server.delete(NAME, "A")
    assert await read(record_at(server, MAIN, BACKUP)) == RecordReading(None)


async def test_a_cname_found_where_the_record_has_addresses_is_not_ours(server: DnsServer) -> None:
    put(server, cname(ELSEWHERE))
    reading = await read(record_at(server, MAIN, BACKUP))
    assert reading.rrset is None
    assert reading.unownable == f"holds a CNAME ({ELSEWHERE}), and this record has addresses only"


async def test_two_kinds_of_which_one_at_a_time_is_ours_are_not_ours(server: DnsServer) -> None:
    server.set(NAME, "AAAA", SIX)
    reading = await read(record_at(server, MAIN, SIX))
    assert reading.rrset is None
    assert reading.unownable is not None
    assert "holds A and AAAA at once" in reading.unownable


@pytest.mark.parametrize(("type", "value"), [("TXT", '"note"'), ("MX", "10 mail.example.net."), ("AAAA", SIX)])
async def test_a_record_with_a_cname_does_not_share_its_name(server: DnsServer, type: str, value: str) -> None:  # noqa: A002
    server.set(NAME, type, value)
    reading = await read(record_at(server, MAIN, ELSEWHERE))
    assert reading.rrset == a(MAIN)
    assert reading.unownable is not None
    assert f"holds {type}, beside which a CNAME cannot stand" in reading.unownable


# ---------------------------------------------------------------- changing


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        (a(MAIN), a(BACKUP)),
        (a(MAIN, ttl=300), a(MAIN)),
        (a(MAIN, "192.0.2.11", ttl=300), a(MAIN)),
        (a(MAIN), aaaa(SIX)),
        (aaaa(SIX), aaaa("2001:db8::30")),
        (aaaa(SIX), a(MAIN)),
        (a(MAIN), cname(ELSEWHERE)),
        (aaaa(SIX), cname(ELSEWHERE)),
        (cname(ELSEWHERE), cname(HOME)),
        (cname(ELSEWHERE, ttl=300), cname(ELSEWHERE)),
        (cname(ELSEWHERE), a(MAIN)),
        (cname(ELSEWHERE), aaaa(SIX)),
        (None, a(MAIN)),
        (None, aaaa(SIX)),
        (None, cname(HOME)),
    ],
    ids=str,
)
async def test_what_the_name_holds_is_swapped(server: DnsServer, before: RRset | None, wanted: RRset) -> None:
    if before is None:
        server.delete(NAME)
    else:
        put(server, before)
    targets = [rrset.values[0] for rrset in (before or wanted, wanted)]
    record = record_at(server, *targets)
    assert await swap(record, before, wanted) == ""
    assert await read(record) == RecordReading(wanted)
    assert server.holds(NAME, wanted.type.value) == (wanted.values, wanted.ttl)
    if before is not None and before.type is not wanted.type:
        held = [str(rrset.name) for rrset in server.ask(NAME, before.type.value).answer if rrset.rdtype.name != "CNAME"]
        assert NAME not in held


async def test_what_else_the_name_holds_stays(server: DnsServer) -> None:
    server.set(NAME, "AAAA", SIX)
    server.set(NAME, "TXT", '"note"')
    assert await swap(record_at(server, MAIN, BACKUP), a(MAIN), a(BACKUP)) == ""
    assert server.holds(NAME, "AAAA") == ((SIX,), 60)
    assert server.holds(NAME, "TXT") == (('"note"',), 60)


async def test_names_are_swapped_whatever_their_case(server: DnsServer) -> None:
    put(server, cname("Elsewhere.Example.NET."))
    record = record_at(server, ELSEWHERE, HOME)
    assert await swap(record, cname(ELSEWHERE), cname(HOME)) == ""
    assert await read(record) == RecordReading(cname(HOME))


async def test_another_ttl_that_was_not_read_is_a_conflict_for_it_says_how_long_the_old_value_is_believed(
    server: DnsServer,
) -> None:
    put(server, a(MAIN, ttl=300))
    with pytest.raises(RecordConflict, match=r"it holds A 192\.0\.2\.10 \(TTL 300\), and not .* \(TTL 60\)"):
        await swap(record_at(server, MAIN, BACKUP), a(MAIN, ttl=60), a(BACKUP))
    assert await swap(record_at(server, MAIN, BACKUP), a(MAIN, ttl=300), a(BACKUP)) == ""


async def test_the_name_is_never_seen_empty_while_it_is_swapped(server: DnsServer) -> None:
    record = record_at(server, MAIN, ELSEWHERE)
    done = threading.Event()
    seen: list[bool] = []

    def watch() -> None:
        while not done.is_set():
            seen.append(bool(server.ask(NAME, "A").answer))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        here, there = a(MAIN), cname(ELSEWHERE)
        for _ in range(30):
            assert await swap(record, here, there) == ""
            here, there = there, here
    finally:
        done.set()
        watching.join()
    assert len(seen) > 1
    assert all(seen)


async def test_a_change_to_what_is_expected_sends_nothing(server: DnsServer) -> None:
    async with Between(server.address) as between:
        record = record_at(server, MAIN, BACKUP, server=between.address)
        assert await swap(record, a(MAIN), a(MAIN)) == ""
        assert (between.questions, between.updates) == (0, 0)


async def test_nothing_is_sent_when_it_is_no_longer_wanted_at_the_last_moment(server: DnsServer) -> None:
    async with Between(server.address) as between:
        asked_after: list[int] = []

        def still_valid() -> bool:
            asked_after.append(between.questions)
            return False

        async with port_of(record_at(server, MAIN, BACKUP, server=between.address)) as port:
            assert await port.change(Change(a(MAIN), a(BACKUP)), ANSWER, still_valid) is None
        assert asked_after == [1]  # after the reading that comes before every change
        assert between.updates == 0
    assert server.holds(NAME, "A") == ((MAIN,), 60)


async def test_a_change_that_would_leave_the_name_empty_is_a_mistake(server: DnsServer) -> None:
    for wanted in (RRset(A, (), 60), a(BACKUP, ttl=0)):
        with pytest.raises(ValueError, match="left empty"):
            await swap(record_at(server, MAIN, BACKUP), a(MAIN), wanted)


async def test_a_change_is_settled_when_it_is_answered(server: DnsServer) -> None:
    async with port_of(record_at(server, MAIN, BACKUP)) as port:
        assert await port.settled("", ANSWER)


# ---------------------------------------------------------------- another hand


async def test_a_change_is_refused_after_another_hand_was_there(server: DnsServer) -> None:
    record = record_at(server, MAIN, BACKUP)
    assert (await read(record)).rrset == a(MAIN)
    server.set(NAME, "A", "192.0.2.66")
    async with Between(server.address) as between:
        with pytest.raises(RecordConflict, match=r"it holds A 192\.0\.2\.66 \(TTL 60\), and not A 192\.0\.2\.10"):
            await swap(record_at(server, MAIN, BACKUP, server=between.address), a(MAIN), a(BACKUP))
        assert between.updates == 0
    assert server.holds(NAME, "A") == (("192.0.2.66",), 60)


async def test_a_change_is_refused_when_the_name_is_no_longer_ours(server: DnsServer) -> None:
    put(server, cname(HOME))
    with pytest.raises(RecordConflict, match="addresses only"):
        await swap(record_at(server, MAIN, BACKUP), None, a(BACKUP))


@dataclass(frozen=True, slots=True)
class SecondWriter:
    """What another hand does to a name that holds ``expected``, while a record of two targets is to be swapped."""

    targets: tuple[str, str]
    expected: RRset | None
    lines: tuple[str, ...]


ADDED = f"update add {NAME} 60 "
SECOND_WRITERS = {
    "another value": SecondWriter((MAIN, BACKUP), a(MAIN), (f"update delete {NAME} A", ADDED + "A 192.0.2.66")),
    "one value more": SecondWriter((MAIN, BACKUP), a(MAIN), (ADDED + "A 192.0.2.66",)),
    "deleted": SecondWriter((MAIN, BACKUP), a(MAIN), (f"update delete {NAME}",)),
    "another kind beside": SecondWriter((MAIN, SIX), a(MAIN), (ADDED + "AAAA 2001:db8::66",)),
    "a CNAME instead": SecondWriter((MAIN, BACKUP), a(MAIN), (f"update delete {NAME} A", ADDED + f"CNAME {HOME}")),
    "something beside a CNAME to be": SecondWriter((MAIN, ELSEWHERE), a(MAIN), (ADDED + 'TXT "note"',)),
    "taken": SecondWriter((MAIN, BACKUP), None, (ADDED + "A 192.0.2.66",)),
    "taken by another kind": SecondWriter((MAIN, ELSEWHERE), None, (ADDED + "AAAA 2001:db8::66",)),
    "taken by a CNAME": SecondWriter((MAIN, BACKUP), None, (ADDED + f"CNAME {HOME}",)),
}


@pytest.mark.parametrize("case", SECOND_WRITERS)
async def test_a_second_writer_between_reading_and_change_wins(server: DnsServer, case: str) -> None:
    other = SECOND_WRITERS[case]
    if other.expected is None:
        server.delete(NAME)
    after: list[Holding] = []

    def first(update: bytes) -> bytes:
        server.update(*other.lines)
        after.append(holding(server))
        return update

    async with Between(server.address, ask=first) as between:
        record = record_at(server, *other.targets, server=between.address)
        with pytest.raises(RecordConflict, match="XRRSET") as caught:
            await swap(record, other.expected, record.wanted("backup"))
        assert between.updates == 1
    assert "read again first" in caught.value.mend
    assert [holding(server)] == after


@pytest.mark.parametrize("targets", [(MAIN, SIX), (SIX, MAIN), (MAIN, ELSEWHERE)])
async def test_a_change_between_two_questions_is_not_taken_for_two_types_or_none(
    server: DnsServer, targets: tuple[str, str]
) -> None:
    record = record_at(server, *targets)
    put(server, record.wanted("main"))
    asked: list[bytes] = []

    def swap_before_the_second(question: bytes) -> bytes:
        asked.append(question)
        if len(asked) == 2:
            put(server, record.wanted("backup"))
        return question

    async with Between(server.address, ask=swap_before_the_second, updates_only=False) as between:
        reading = await read(record_at(server, *targets, server=between.address))
    assert reading == RecordReading(record.wanted("backup"))


async def test_of_two_that_change_at_once_one_wins(server: DnsServer) -> None:
    record = record_at(server, MAIN, BACKUP)
    wanted = [a(f"192.0.2.{number}") for number in range(101, 106)]
    outcomes = await asyncio.gather(*(swap(record, a(MAIN), each) for each in wanted), return_exceptions=True)
    won = [each for each, outcome in zip(wanted, outcomes, strict=True) if outcome == ""]
    assert len(won) == 1
    assert all(outcome == "" or isinstance(outcome, RecordConflict) for outcome in outcomes)
    assert await read(record) == RecordReading(won[0])


async def test_a_wildcard_that_answers_for_the_name_is_told_as_one(server: DnsServer) -> None:
    server.delete(NAME)
    server.set("*.example.test.", "A", MAIN)
    record = record_at(server, MAIN, BACKUP)
    assert (await read(record)).rrset == a(MAIN)
    with pytest.raises(RecordConflict, match="NXRRSET") as caught:
        await swap(record, a(MAIN), a(BACKUP))
    assert "wildcard" in caught.value.mend


# ---------------------------------------------------------------- servers


@pytest.mark.parametrize("algorithm", ["hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"])
@pytest.mark.parametrize("kind", sorted(SERVERS))
async def test_every_algorithm_signs(tmp_path: Path, kind: str, algorithm: str) -> None:
    with SERVERS[kind](tmp_path, algorithm=algorithm) as server:
        record = record_at(server, MAIN, BACKUP)
        assert await swap(record, a(MAIN), a(BACKUP)) == ""
        assert await read(record) == RecordReading(a(BACKUP))


async def test_a_server_is_found_by_name_and_over_ipv6(tmp_path: Path) -> None:
    with bind(tmp_path) as four, bind(tmp_path, host="::1") as six:
        by_name = record_at(four, MAIN, BACKUP, server=Address("localhost", four.address.port))
        assert await read(by_name) == RecordReading(a(MAIN))
        assert await swap(record_at(six, MAIN, BACKUP), a(MAIN), a(BACKUP)) == ""
        assert six.holds(NAME, "A") == ((BACKUP,), 60)


async def test_a_reading_sees_the_view_that_the_key_opens(tmp_path: Path) -> None:
    with bind(tmp_path) as server:
        server.stop()
        file = server.folder / "named.conf"
        text = file.read_text("utf-8")
        head, zone = text[: text.index("zone ")], text[text.index("zone ") :]
        other = zone.replace('file "zone"', 'file "public"').replace("update-policy", "// update-policy")
        (server.folder / "public").write_text((server.folder / "zone").read_text("utf-8").replace(MAIN, "198.51.100.1"))
        file.write_text(
            f'{head}view "inside" {{ match-clients {{ key failover.; key admin.; }}; {zone} }};\n'
            f'view "public" {{ match-clients {{ any; }}; {other} }};\n'
        )
        server.start()
        assert server.holds(NAME, "A") == (("198.51.100.1",), 60)
        record = record_at(server, MAIN, BACKUP)
        assert await read(record) == RecordReading(a(MAIN))
        assert await swap(record, a(MAIN), a(BACKUP)) == ""
        assert await read(record) == RecordReading(a(BACKUP))
        assert server.holds(NAME, "A") == (("198.51.100.1",), 60)


async def test_a_change_past_dns_is_a_conflict_also_while_powerdns_answers_from_its_cache(tmp_path: Path) -> None:
    with powerdns(tmp_path) as server:
        record = record_at(server, MAIN, BACKUP)
        assert (await read(record)).rrset == a(MAIN)  # now it is in the cache, for 20 s
        server.tool("replace-rrset", server.zone, "bp", "A", "60", "192.0.2.66")
        with pytest.raises(RecordConflict):
            await swap(record, a(MAIN), a(BACKUP))


async def test_an_ipv6_address_written_past_dns_in_a_long_form_is_told(tmp_path: Path) -> None:
    with powerdns(tmp_path, records=("ns1 60 A 127.0.0.1", "bp 60 AAAA 2001:DB8:0:0::20")) as server:
        record = record_at(server, SIX, "2001:db8::30")
        assert (await read(record)).rrset == aaaa(SIX)
        with pytest.raises(RecordConflict) as caught:
            await swap(record, aaaa(SIX), aaaa("2001:db8::30"))
        assert "not in its shortest form" in caught.value.mend


async def test_the_port_of_a_record_is_chosen_by_its_provider(tmp_path: Path) -> None:
    with bind(tmp_path) as server:
        record = replace(record_at(server, MAIN, BACKUP), label="bp.example.test. (A)")
        port = record_port(record, RealHost())
        assert isinstance(port, Rfc2136Port)
        assert await port.read(ANSWER) == RecordReading(a(MAIN))
        await port.close()


def test_dnspython_is_imported_only_where_a_record_needs_it() -> None:
    program = "import sys, failover.records; sys.exit('dns' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
