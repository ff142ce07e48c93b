"""A record at Route 53, through boto3, against the lab's endpoint: what is read, how it is swapped, what it costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from route53_world import (
    ANSWER,
    BACKUP,
    KEY,
    MAIN,
    NAME,
    SWAP,
    TARGETS,
    ZONE,
    a,
    answering,
    changed,
    close_all,
    failed,
    isolated,
    listing_xml,
    port_to,
    world,
    xml,
)

import failover.lab.route53 as lab
from failover.errors import RecordConflict, RecordRefused, RecordUnreachable
from failover.lab.httpport import Reply, Request
from failover.lab.route53 import Faults, Pace
from failover.lab.zone import Alias, RecordSet, record
from failover.model import Change, RecordReading, RRset
from failover.records.route53_sets import COMMENT, escaped

ROOT = Path(__file__).resolve().parents[2]
V6 = {"main": "2001:db8::1", "backup": "2001:db8::2"}
NAMES = {"main": "bp1.example.net.", "backup": "bp2.example.net."}


@pytest.fixture(autouse=True)
async def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[None]:
    isolated(monkeypatch, tmp_path)
    yield
    await close_all()


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("targets", "there", "read"),
    [
        (TARGETS, record(NAME, MAIN), a(MAIN)),
        (TARGETS, record(NAME, "192.0.2.9", MAIN, ttl=300), a(MAIN, "192.0.2.9", ttl=300)),
        (TARGETS, record(NAME, MAIN, ttl=0), a(MAIN, ttl=0)),
        (V6, record(NAME, "2001:0DB8:0:0::1"), a("2001:db8::1")),
        (NAMES, record(NAME, "BP1.Example.net"), a("bp1.example.net.")),
        ({"main": MAIN, "backup": NAMES["backup"]}, record(NAME, NAMES["backup"]), a(NAMES["backup"])),
        ({"main": MAIN, "backup": NAMES["backup"]}, record(NAME, MAIN), a(MAIN)),
        (TARGETS, record("other.example.test.", MAIN), None),
    ],
    ids=["one", "several", "ttl-0", "v6", "cname", "a-or-cname-now-cname", "a-or-cname-now-a", "none"],
)
async def test_what_stands_at_the_name_is_read_in_canonical_text(
    targets: dict[str, str], there: RecordSet, read: RRset | None
) -> None:
    async with world(there) as lab:
        assert await lab.port(targets).read(ANSWER) == RecordReading(read)


async def test_neighbours_of_the_name_and_names_that_only_look_alike_are_not_read() -> None:
    others = ["a.bp.example.test.", "bo.example.test.", "bp-.example.test.", "bq.example.test.", "*.example.test."]
    async with world(*(record(name, "192.0.2.9") for name in others)) as lab:
        assert await lab.port().read(ANSWER) == RecordReading(None)
    alike = listing_xml(r"<Name>bp\056example.test.</Name><Type>A</Type><TTL>60</TTL>")
    async with answering(lambda request: alike) as url:
        assert await port_to(url).read(ANSWER) == RecordReading(None)


async def test_a_name_with_odd_characters_is_found_and_swapped_under_route_53s_spelling() -> None:
    assert escaped("*.example.test.") == r"\052.example.test."
    async with world(record("*.example.test.", MAIN), record("BP_1.example.test.", MAIN)) as lab:
        port = lab.port(name="bp_1.example.test.")
        assert await port.read(ANSWER) == RecordReading(a(MAIN))
        await changed(port)
        assert lab.holds("bp_1.example.test.") == [("A", (BACKUP,), 60)]
        assert lab.holds("*.example.test.") == [("A", (MAIN,), 60)]
    spelt = listing_xml(
        r"<Name>\142\120.example.test.</Name><Type>A</Type><TTL>60</TTL>"
        "<ResourceRecords><ResourceRecord><Value>192.0.2.1</Value></ResourceRecord></ResourceRecords>"
    )
    async with answering(lambda request: spelt) as url:
        assert await port_to(url).read(ANSWER) == RecordReading(a(MAIN))


def special(*policy: tuple[str, str], identifier: str | None = "blue") -> RecordSet:
    return RecordSet(NAME, "A", 60, (MAIN,), identifier, policy)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (special(("Weight", "10")), "is a weighted set (SetIdentifier blue): "),
        (special(("Region", "eu-west-1")), "is a latency set (SetIdentifier blue): "),
        (special(("Failover", "PRIMARY"), ("HealthCheckId", "x")), "is a failover set (SetIdentifier blue): "),
        (special(("MultiValueAnswer", "true")), "is a multi-value set (SetIdentifier blue): "),
        (special(("HealthCheckId", "x"), identifier=None), "has a health check: "),
        (RecordSet(NAME, "A", alias=Alias("Z1", "x.example.test.")), "is an alias (to x.example.test.): "),
    ],
    ids=["weighted", "latency", "failover", "multi-value", "health-check", "alias"],
)
async def test_a_set_that_cannot_be_swapped_safely_is_not_owned_and_named(there: RecordSet, words: str) -> None:
    async with world(there) as lab:
        reading = await lab.port().read(ANSWER)
    assert reading.rrset is None
    assert reading.unownable is not None
    assert reading.unownable.startswith(words)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("<GeoLocation><CountryCode>DE</CountryCode></GeoLocation>", "is a geolocation set (SetIdentifier blue): "),
        ("<GeoProximityLocation><Bias>1</Bias></GeoProximityLocation>", "is a geoproximity set (SetIdentifier blue): "),
        ("<CidrRoutingConfig><LocationName>x</LocationName></CidrRoutingConfig>", "is a CIDR set (SetIdentifier blue)"),
        ("", "is one of several sets by a routing policy (SetIdentifier blue): "),
    ],
    ids=["geolocation", "geoproximity", "cidr", "unknown"],
)
async def test_sets_by_place_or_by_a_policy_of_later_days_are_not_owned_either(inside: str, words: str) -> None:
    values = "<TTL>60</TTL><ResourceRecords><ResourceRecord><Value>192.0.2.1</Value></ResourceRecord></ResourceRecords>"
    one = f"<Name>{NAME}</Name><Type>A</Type><SetIdentifier>blue</SetIdentifier>{inside}{values}"
    async with answering(lambda request: listing_xml(one)) as url:
        reading = await port_to(url).read(ANSWER)
    assert (reading.unownable or "").startswith(words)


async def test_what_a_traffic_policy_made_is_not_owned() -> None:
    one = (
        f"<Name>{NAME}</Name><Type>A</Type><TTL>60</TTL><TrafficPolicyInstanceId>1</TrafficPolicyInstanceId>"
        "<ResourceRecords><ResourceRecord><Value>192.0.2.1</Value></ResourceRecord></ResourceRecords>"
    )
    async with answering(lambda request: listing_xml(one)) as url:
        assert (await port_to(url).read(ANSWER)).unownable == (
            "was made by a traffic policy: only one simple set can be changed safely"
        )


@pytest.mark.parametrize(
    ("targets", "there", "rrset", "words"),
    [
        (TARGETS, [record(NAME, "x.example.net.")], None, "is a CNAME (to x.example.net.): this record is of type A"),
        (V6, [record(NAME, "x.example.net.")], None, "is a CNAME (to x.example.net.): this record is of type AAAA"),
        (NAMES, [record(NAME, MAIN)], None, "holds A: this record is of type CNAME"),
        (NAMES, [RecordSet(NAME, "TXT", 60, ('"x"',))], None, "holds TXT: this record is of type CNAME"),
        (
            {"main": MAIN, "backup": NAMES["backup"]},
            [record(NAME, MAIN), RecordSet(NAME, "MX", 60, ("10 mx.example.net.",))],
            a(MAIN),
            "holds MX: this record is of type A and CNAME",
        ),
        (
            {"main": MAIN, "backup": V6["backup"]},
            [record(NAME, MAIN), record(NAME, V6["backup"])],
            None,
            "holds A and AAAA at once: ",
        ),
        (
            TARGETS,
            [RecordSet(NAME, "CNAME", 60, ("x.example.net.",), "blue", (("Weight", "1"),))],
            None,
            "is a weighted set (SetIdentifier blue): this record is of type A",
        ),
    ],
    ids=["cname-for-a", "cname-for-aaaa", "a-for-cname", "txt-for-cname", "mx-beside", "both", "weighted-cname"],
)
async def test_a_set_of_another_type_that_is_in_the_way_is_named(
    targets: dict[str, str], there: list[RecordSet], rrset: RRset | None, words: str
) -> None:
    async with world(*there) as lab:
        reading = await lab.port(targets).read(ANSWER)
    assert reading.rrset == rrset
    assert (reading.unownable or "").startswith(words)


async def test_the_other_address_family_at_the_name_is_none_of_ours() -> None:
    alias = RecordSet(NAME, "AAAA", alias=Alias("Z1", "x.example.test."))
    for beside in (record(NAME, V6["main"], ttl=300), alias, RecordSet(NAME, "TXT", 60, ('"x"',))):
        async with world(record(NAME, MAIN), beside) as lab:
            port = lab.port()
            assert await port.read(ANSWER) == RecordReading(a(MAIN))
            await changed(port)
            assert len(lab.holds()) == 2
            assert ("A", (BACKUP,), 60) in lab.holds()


# ---------------------------------------------------------------- pages


async def test_several_records_of_one_zone_are_read_across_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "MOST_PAGE", 1)
    txt = RecordSet(NAME, "TXT", 60, ('"x"',))
    async with world(record(NAME, V6["main"]), txt, record("bp2.example.test.", MAIN)) as made:
        readings = await asyncio.gather(
            made.port().read(ANSWER),
            made.port(V6).read(ANSWER),
            made.port(name="bp2.example.test.").read(ANSWER),
        )
        assert [reading.rrset for reading in readings] == [None, a(V6["main"]), a(MAIN)]
        assert made.aws.counts["ListResourceRecordSets"] == 2 + 2 + 1  # none once the name changes


async def test_pages_go_on_within_a_set_of_many_identifiers() -> None:
    many = [RecordSet(NAME, "TXT", 60, ('"x"',), f"{i:03}", (("Weight", "1"),)) for i in range(45)]
    async with world(record(NAME, MAIN), *many, record("bq.example.test.", MAIN)) as lab:
        assert await lab.port().read(ANSWER) == RecordReading(a(MAIN))
        assert lab.aws.counts["ListResourceRecordSets"] == 3


async def test_reading_ends_where_a_name_has_no_end() -> None:
    many = [RecordSet(NAME, "TXT", 60, ('"x"',), f"{i:03}", (("Weight", "1"),)) for i in range(250)]
    async with world(record(NAME, MAIN), *many) as lab:
        assert await lab.port().read(ANSWER) == RecordReading(None, "holds more than 200 sets")
        assert lab.aws.counts["ListResourceRecordSets"] == 10


# ---------------------------------------------------------------- changing


async def test_a_change_is_one_batch_that_deletes_what_was_and_creates_what_is_to_be() -> None:
    bodies = []

    def take(request: Request) -> Reply:
        bodies.append(request.body)
        info = "<Id>/change/C1</Id><Status>PENDING</Status><SubmittedAt>2026-11-21T00:00:00Z</SubmittedAt>"
        return xml("ChangeResourceRecordSetsResponse", f"<ChangeInfo>{info}</ChangeInfo>")

    async with answering(take) as url:
        assert await changed(port_to(url)) == "C1"
    (body,) = bodies
    told = [(e.tag.rpartition("}")[2], (e.text or "").strip()) for e in ET.fromstring(body).iter()]  # noqa: S314
    assert ("Comment", COMMENT) in told
    fields = [(tag, text) for tag, text in told if tag in ("Action", "Name", "Type", "TTL", "Value")]
    what = [("Name", NAME), ("Type", "A"), ("TTL", "60")]
    assert fields == [
        ("Action", "DELETE"), *what, ("Value", MAIN),
        ("Action", "CREATE"), *what, ("Value", BACKUP),
    ]  # fmt: skip


@pytest.mark.parametrize("targets", [TARGETS, V6, NAMES, {"main": MAIN, "backup": NAMES["backup"]}])
async def test_a_record_is_swapped_there_and_back_and_its_name_is_never_empty(targets: dict[str, str]) -> None:
    async with world(record(NAME, targets["main"])) as lab:
        port = lab.port(targets)
        there = Change(a(targets["main"]), a(targets["backup"]))
        assert await changed(port, there)
        assert await port.read(ANSWER) == RecordReading(a(targets["backup"]))
        assert await changed(port, Change(there.wanted, there.expected or a(MAIN)))
        assert await port.read(ANSWER) == RecordReading(a(targets["main"]))
        assert all(len(version.zone.at(NAME)) == 1 for version in lab.live.history)
        assert len(lab.live.history) == 3


@pytest.mark.parametrize(
    ("targets", "spelt"), [(V6, "2001:0DB8:0:0:0:0:0:1"), (NAMES, "BP1.Example.net")], ids=["v6", "cname"]
)
async def test_a_set_that_another_hand_spelt_otherwise_is_deleted_as_it_is_stored(
    targets: dict[str, str], spelt: str
) -> None:
    async with world(record(NAME, spelt, ttl=300)) as lab:
        port = lab.port(targets)
        reading = await port.read(ANSWER)
        assert reading.rrset == a(targets["main"], ttl=300)
        await changed(port, Change(reading.rrset, a(targets["backup"])))
        assert [values for _, values, _ in lab.holds()] == [(targets["backup"],)]


async def test_several_values_and_a_wrong_ttl_are_swapped_too() -> None:
    async with world(record(NAME, MAIN, "192.0.2.9", ttl=0)) as lab:
        port = lab.port()
        reading = await port.read(ANSWER)
        await changed(port, Change(reading.rrset, a(BACKUP)))
        assert lab.holds() == [("A", (BACKUP,), 60)]


async def test_where_nothing_is_expected_the_set_is_created() -> None:
    async with world(record("other.example.test.", MAIN)) as lab:
        await changed(lab.port(), Change(None, a(MAIN)))
        assert lab.holds() == [("A", (MAIN,), 60)]


async def test_a_change_to_what_is_there_asks_nobody() -> None:
    async with world() as lab:
        assert await changed(lab.port(), Change(a(MAIN), a(MAIN))) == ""
        assert not lab.aws.counts


@pytest.mark.parametrize(
    ("expected", "other"),
    [
        (a(MAIN), "192.0.2.9"),
        (a(MAIN), NAMES["main"]),
        (a(MAIN), None),
        (a(MAIN, ttl=300), MAIN),
        (None, MAIN),
    ],
    ids=["another value", "another type", "gone", "another ttl", "appeared"],
)
async def test_a_change_whose_expectation_does_not_hold_is_a_conflict_and_changes_nothing(
    expected: RRset | None, other: str | None
) -> None:
    async with world(record(NAME, other) if other else record("other.example.test.", MAIN)) as lab:
        before = lab.live.zone
        await failed(changed(lab.port(), Change(expected, a(BACKUP))), RecordConflict, "another hand", "read again")
        assert lab.live.zone == before
        assert lab.aws.counts == {"ChangeResourceRecordSets": 1}


async def test_a_second_writer_between_reading_and_writing_wins() -> None:
    async with world() as lab:
        port = lab.port()
        reading = await port.read(ANSWER)
        lab.aws.interpose = lambda: lab.live.put(NAME, "192.0.2.66", ttl=300)
        await failed(changed(port, Change(reading.rrset, a(BACKUP))), RecordConflict)
        assert lab.holds() == [("A", ("192.0.2.66",), 300)]
        again = await port.read(ANSWER)
        assert await changed(port, Change(again.rrset, a(BACKUP)))
        assert lab.holds() == [("A", (BACKUP,), 60)]


async def test_of_two_that_make_the_same_swap_one_wins() -> None:
    async with world() as lab:
        outcomes = await asyncio.gather(*(changed(lab.port()) for _ in range(2)), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RecordConflict", "str"]


async def test_a_name_outside_the_zone_is_refused_with_its_mend() -> None:
    async with world() as lab:
        port = lab.port(name="bp.example.net.")
        assert await port.read(ANSWER) == RecordReading(None)
        await failed(changed(port, Change(None, a(MAIN))), RecordRefused, "not permitted in zone", "route53.zone")


async def test_a_cname_at_the_zones_apex_is_refused_and_not_a_conflict() -> None:
    async with world() as lab:
        change = Change(None, a(NAMES["main"]))
        await failed(changed(lab.port(NAMES, "example.test."), change), RecordRefused, "apex", "correct the record")


# ---------------------------------------------------------------- before it is sent


async def test_an_overtaken_change_is_never_sent() -> None:
    async with world() as lab:
        assert await lab.port().change(SWAP, ANSWER, lambda: False) is None
        assert not lab.aws.counts
        assert lab.holds() == [("A", (MAIN,), 60)]


async def test_validity_is_asked_once_in_the_worker_when_the_connection_stands() -> None:
    asked: list[str] = []
    connected, ended = threading.Event(), asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        got = await reader.read()
        asked.append(f"{len(got)} bytes")
        writer.close()
        ended.set()

    def still_valid() -> bool:
        assert connected.wait(ANSWER)
        asked.append(threading.current_thread().name)
        return False

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = port_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await port.change(SWAP, ANSWER, still_valid) is None
        await ended.wait()
    assert sorted(asked) == ["0 bytes", f"edge route53 {NAME}"]


async def test_a_reading_that_began_before_a_change_ends_before_it() -> None:
    async with world() as lab:
        port = lab.port()
        await port.read(ANSWER)
        lab.aws.faults = Faults(delay=0.3, only="ListResourceRecordSets")
        order: list[str] = []

        async def noted(name: str, attempt: Awaitable[object]) -> None:
            await attempt
            order.append(name)

        await asyncio.gather(noted("read", port.read(ANSWER)), noted("changed", changed(port)))
        assert order == ["read", "changed"]
        assert [call.action for call in lab.aws.calls][1:] == ["ListResourceRecordSets", "ChangeResourceRecordSets"]


# ---------------------------------------------------------------- afterwards


async def test_a_change_settles_when_it_is_in_sync() -> None:
    async with world(pace=Pace(insync=3600.0)) as lab:
        port = lab.port()
        number = await changed(port)
        assert number
        assert not await port.settled(number, ANSWER)
        lab.aws.faults = Faults(never_insync=True)
        assert not await port.settled(number, ANSWER)
    async with world() as lab:
        port = lab.port()
        assert await port.settled(await changed(port) or "", ANSWER)


async def test_a_change_that_route_53_has_forgotten_has_settled() -> None:
    async with world() as lab:
        port = lab.port()
        assert await port.settled("C0FORGOTTEN", ANSWER)
        assert await port.settled("", ANSWER)
        assert lab.aws.counts == {"GetChange": 1}


async def test_each_call_is_one_request() -> None:
    async with world() as lab:
        port = lab.port()
        await port.read(ANSWER)
        assert lab.aws.counts == {"ListResourceRecordSets": 1}
        number = await changed(port)
        assert lab.aws.counts == {"ListResourceRecordSets": 1, "ChangeResourceRecordSets": 1}
        await port.settled(number or "", ANSWER)
        assert lab.aws.counts == {"ListResourceRecordSets": 1, "ChangeResourceRecordSets": 1, "GetChange": 1}


async def test_a_closed_port_asks_nobody() -> None:
    async with world() as lab:
        port = lab.port()
        await port.read(ANSWER)
        await port.close()
        await failed(port.read(ANSWER), RecordUnreachable, "closed")
        assert lab.aws.counts == {"ListResourceRecordSets": 1}


# ---------------------------------------------------------------- how AWS tools are set


async def test_the_profile_that_the_file_names_is_the_one_that_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "aws-credentials").write_text(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = x\n"
        "[failover]\naws_access_key_id = AKIAFAILOVER\naws_secret_access_key = x\n"
    )
    async with world() as lab:
        lab.aws.faults = Faults(rejected={"AKIADEFAULT": "InvalidClientTokenId"})
        assert await lab.port(profile="failover").read(ANSWER) == RecordReading(a(MAIN))
        await failed(lab.port().read(ANSWER), RecordRefused, "InvalidClientTokenId")


async def test_requests_are_signed_for_the_region_where_route_53_lives() -> None:
    seen = []

    def take(request: Request) -> Reply:
        seen.append(request.headers["authorization"])
        return listing_xml()

    async with answering(take) as url:
        await port_to(url).read(ANSWER)
    assert f"Credential={KEY}/" in seen[0]
    assert "/us-east-1/route53/aws4_request" in seen[0]


async def test_an_http_proxy_of_the_environment_is_used_as_aws_tools_do(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def take(request: Request) -> Reply:
        seen.append((request.path, request.headers.get("proxy-authorization", "")))
        return listing_xml()

    async with answering(take) as url, world() as lab:
        monkeypatch.setenv("http_proxy", url.replace("//", "//somebody:hush@"))
        assert await lab.port().read(ANSWER) == RecordReading(None)
        assert not lab.aws.counts
        ((path, password),) = seen
        assert path == f"/2013-04-01/hostedzone/{ZONE}/rrset"
        assert password.startswith("Basic ")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await lab.port().read(ANSWER) == RecordReading(a(MAIN))


def test_nobody_loads_boto3_before_the_first_call() -> None:
    program = (
        "import sys; from failover.host import RealHost; from failover.records import record_port;"
        "from failover.model import Record, Route53Zone;"
        "record_port(Record('bp.example.test.', 'bp', {'main': '192.0.2.1'}, Route53Zone('Z1')), RealHost());"
        "print(sorted({'boto3', 'botocore', 'urllib3', 'requests', 'dns'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
