"""What the world is told of a record, from real name servers, and from a scripted one for what those never do."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from dns_peer import Asked, DnsPeer, Elsewhere, Raw, Said, Script, always, reply, silence
from dns_world import ALGORITHM, NAME, SERVERS, ZONE, Bind, DnsServer, bind, free_address, knot, require_dns, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from failover.errors import RecordUnreachable
from failover.host import RealHost
from failover.lab.names import NameServer, ServerFaults
from failover.lab.zone import LiveZone, Zone
from failover.lab.zone import record as lab_record
from failover.model import Address, DnsAnswer, Fault, Record, RecordType, Rfc2136Zone, RRset
from failover.records import verify_port
from failover.records.question import MOST_READ
from failover.records.verify import MOST_SERVERS, Verifier, system_resolvers

MAIN, BACKUP = "192.0.2.10", "192.0.2.20"
HELD = f"{NAME} 60 IN A {MAIN}"
POINTS_TO_MAIN = RRset(RecordType.A, (MAIN,), 60)
ANSWER = 20.0  # seconds, for those who answer
SHARED = 3.0  # seconds: all of it is waited for, and in it somebody else has to answer
SILENCE = 0.3  # seconds in which nobody has to


class Clock:
    """The real machine, on which any time can pass at once."""

    def __init__(self) -> None:
        real = RealHost()
        self.leapt = 0.0
        self.host = RealHost(boottime=lambda: real.now().mono + self.leapt)

    def leap(self, seconds: float) -> None:
        self.leapt += seconds


def record(
    *targets: str, servers: Sequence[Address] = (), resolvers: Sequence[Address] = (), name: str = NAME
) -> Record:
    two = targets or (MAIN, BACKUP)
    provider = Rfc2136Zone(Address("127.0.0.1", 53), ZONE, "failover.", "c2VjcmV0")
    return Record(
        name, name, dict(zip(("main", "backup"), two, strict=True)), provider, 60, tuple(resolvers), tuple(servers)
    )


def verifier(what: Record, *, resolver: Sequence[Address] = (), port: int = 53, clock: Clock | None = None) -> Verifier:
    return Verifier(what, clock.host if clock else RealHost(), resolver=tuple(resolver), port=port)


async def look(what: Record, seconds: float = ANSWER) -> tuple[DnsAnswer, ...]:
    """One look at the servers or resolvers of ``what``."""
    port = verifier(what)
    try:
        return await port.look(seconds)
    finally:
        await port.close()


async def told(script: Script, *targets: str, seconds: float = ANSWER, resolver: bool = False) -> DnsAnswer:
    """What one scripted server is reported to say."""
    async with DnsPeer(script) as peer:
        at = [peer.address]
        what = record(*targets, resolvers=at) if resolver else record(*targets, servers=at)
        (answer,) = await look(what, seconds)
    return answer


def stop(server: DnsServer) -> None:
    """Let it hang, and wait until all its threads do: a signal does not reach them at once."""
    server.pause()
    threads = Path(f"/proc/{server.pid}/task")
    assert until(lambda: all(") T " in (each / "stat").read_text() for each in threads.iterdir()))


def faults(answers: Sequence[DnsAnswer]) -> list[Fault | None]:
    return [answer.fault for answer in answers]


def sets(answers: Sequence[DnsAnswer]) -> list[RRset | None]:
    return [answer.rrset for answer in answers]


# ---------------------------------------------------------------- the servers that the file names


async def test_servers_of_a_zone_that_agree_are_reported_in_the_order_of_the_file(tmp_path: Path) -> None:
    with knot(tmp_path) as one, bind(tmp_path, secondary_of=one) as two:
        answers = await look(record(servers=[two.address, one.address]))
    assert answers == (
        DnsAnswer(str(two.address), True, POINTS_TO_MAIN),
        DnsAnswer(str(one.address), True, POINTS_TO_MAIN),
    )


async def test_servers_that_disagree_are_each_reported_with_what_they_say(tmp_path: Path) -> None:
    with bind(tmp_path) as one, bind(tmp_path, secondary_of=one) as two:
        what = record(servers=[one.address, two.address])
        one.set(NAME, "A", BACKUP, ttl=300)
        assert sets(await look(what)) == [RRset(RecordType.A, (BACKUP,), 300), POINTS_TO_MAIN]
        two.catch_up()
        assert sets(await look(what)) == [RRset(RecordType.A, (BACKUP,), 300)] * 2


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_name_that_holds_nothing_is_told_with_how_long_that_may_be_kept(tmp_path: Path, kind: str) -> None:
    with SERVERS[kind](tmp_path, records=("ns1 60 A 127.0.0.1", "bp 60 AAAA 2001:db8::1")) as server:
        (nodata,) = await look(record(servers=[server.address]))
        server.delete(NAME)
        (gone,) = await look(record(servers=[server.address]))
    assert nodata == gone == DnsAnswer(str(server.address), True, negative_ttl=60)


async def test_a_server_that_does_not_serve_the_zone_is_lame_and_costs_the_others_nothing(tmp_path: Path) -> None:
    with bind(tmp_path) as good, bind(tmp_path, zone="other.test.") as other:
        lame, right = await look(record(servers=[other.address, good.address]))
    assert (lame.fault, lame.rrset, right.rrset) == (Fault.LAME, None, POINTS_TO_MAIN)
    assert lame.error is not None
    assert "REFUSED" in lame.error


async def test_a_stopped_server_is_silent_and_the_others_answer_within_the_same_deadline(tmp_path: Path) -> None:
    with bind(tmp_path) as good, knot(tmp_path) as stopped:
        stop(stopped)
        silent, right = await look(record(servers=[stopped.address, good.address]), SHARED)
        stopped.resume()
        again, _ = await look(record(servers=[stopped.address, good.address]))
    assert (silent.fault, silent.rrset, right.rrset) == (Fault.SILENT, None, POINTS_TO_MAIN)
    assert silent.error is not None
    assert "no answer within" in silent.error
    assert again.rrset == POINTS_TO_MAIN


async def test_sixteen_silent_servers_cost_one_deadline_and_not_sixteen() -> None:
    async with DnsPeer(silence) as mute, DnsPeer(always(HELD)) as good:
        host = RealHost()
        start = host.now()
        answers = await look(record(servers=[*[mute.address] * (MOST_SERVERS - 1), good.address]), SHARED)
        took = host.now().since(start)
    assert faults(answers) == [*[Fault.SILENT] * (MOST_SERVERS - 1), None]
    assert SHARED * 0.9 < took < SHARED * 5


async def test_more_servers_than_the_bound_are_not_asked() -> None:
    async with DnsPeer(always(HELD)) as peer:
        assert len(await look(record(servers=[peer.address] * (MOST_SERVERS + 4)))) == MOST_SERVERS
        assert len(peer.asked) == MOST_SERVERS


async def test_an_authoritative_server_is_asked_without_recursion_and_a_resolver_with_it() -> None:
    async with DnsPeer(always(HELD)) as peer:
        (authoritative,) = await look(record(servers=[peer.address]))
        (recursive,) = await look(record(resolvers=[peer.address]))
    first, second = peer.asked
    assert (first.message.flags, second.message.flags) == (0, dns.flags.RD)
    assert (authoritative.authoritative, recursive.authoritative) == (True, False)
    assert first.message.edns == second.message.edns == -1


async def test_ids_and_ports_of_questions_are_not_repeated() -> None:
    async with DnsPeer(always(HELD)) as peer:
        await look(record(servers=[peer.address] * MOST_SERVERS))
    assert len({(asked.message.id, asked.source) for asked in peer.asked}) == MOST_SERVERS
    assert len({asked.message.id for asked in peer.asked}) > MOST_SERVERS / 2


# ---------------------------------------------------------------- lame


@pytest.mark.parametrize("rcode", [dns.rcode.REFUSED, dns.rcode.SERVFAIL, dns.rcode.NOTAUTH, dns.rcode.FORMERR])
async def test_a_refusal_is_lame_of_an_authoritative_server_and_silence_of_a_resolver(rcode: dns.rcode.Rcode) -> None:
    answer = await told(always(rcode=rcode))
    assert (answer.fault, answer.error) == (Fault.LAME, f"answers {rcode.name}")
    answer = await told(always(rcode=rcode), resolver=True)
    assert (answer.fault, answer.error) == (Fault.SILENT, f"answers {rcode.name}")


async def test_an_answer_without_authority_is_lame_and_its_values_are_not_reported() -> None:
    answer = await told(always(HELD, aa=False))
    assert answer == DnsAnswer(answer.server, True, fault=Fault.LAME, error="answers without authority")


async def test_a_referral_is_lame_of_an_authoritative_server_and_silence_of_a_resolver() -> None:
    def referral(asked: Asked) -> list[Said]:
        return [reply(asked, aa=False, authority=[f"{ZONE} 60 IN NS ns1.{ZONE}"])]

    answer = await told(referral)
    assert (answer.fault, answer.error) == (Fault.LAME, "answers without authority, and refers to other servers")
    answer = await told(referral, resolver=True)
    assert (answer.fault, answer.error) == (Fault.SILENT, "refers to other servers instead of asking them")


# ---------------------------------------------------------------- resolvers


class Recursive(Bind):
    """A real resolver: a BIND that passes what it does not know yet on to one server, and serves stale answers."""

    STALE_TTL = 7  # seconds

    def __init__(self, folder: Path, onward: Address) -> None:
        self.onward = onward
        super().__init__(
            folder, free_address(), zone=ZONE, records=(), algorithm=ALGORITHM, notify=(), secondary_of=None
        )

    def _prepare(self) -> None:
        (self.folder / "named.conf").write_text(
            f"""
options {{
    directory "{self.folder}"; pid-file none; lock-file none;
    listen-on port {self.address.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    query-source address 127.0.0.1; query-source-v6 address ::1;
    recursion yes; dnssec-validation no; empty-zones-enable no; max-cache-size 2m;
    forward only; forwarders {{ {self.onward.host} port {self.onward.port}; }};
    stale-cache-enable yes; stale-answer-enable yes; stale-answer-ttl {self.STALE_TTL}; stale-answer-client-timeout 0;
}};
controls {{ }};
""",
            encoding="utf-8",
        )

    def serial(self) -> int | None:
        """Something, as soon as it answers."""
        with suppress(OSError, EOFError, dns.exception.DNSException):
            return self.ask(".", "NS", timeout=1.0).rcode()
        return None


@contextmanager
def recursive(folder: Path, onward: DnsServer) -> Iterator[DnsServer]:
    """A resolver that knows what ``onward`` knows."""
    require_dns()
    server = Recursive(Path(tempfile.mkdtemp(dir=folder)), onward.address)
    try:
        server.start()
        yield server
    finally:
        server.kill()


async def test_a_resolver_is_believed_without_authority_and_its_remaining_ttl_is_reported(tmp_path: Path) -> None:
    with bind(tmp_path) as zone, recursive(tmp_path, zone) as resolver:
        (answer,) = await look(record(resolvers=[resolver.address]))
        zone.set(NAME, "A", BACKUP)
        (kept,) = await look(record(resolvers=[resolver.address]))
    assert (answer.server, answer.authoritative, answer.fault) == (str(resolver.address), False, None)
    for each in (answer, kept):
        assert each.rrset is not None
        assert each.rrset.values == (MAIN,)
        assert each.rrset.ttl <= 60


async def test_a_resolver_that_serves_stale_is_reported_as_it_is(tmp_path: Path) -> None:
    records = ("ns1 60 A 127.0.0.1", f"bp 1 A {MAIN}")
    with bind(tmp_path, records=records) as zone, recursive(tmp_path, zone) as resolver:
        port = verifier(record(resolvers=[resolver.address]))
        await port.look(ANSWER)
        stop(zone)
        for _ in range(200):
            (answer,) = await port.look(ANSWER)
            if answer.rrset is not None and answer.rrset.ttl == Recursive.STALE_TTL:
                break
            await RealHost().sleep(0.05)
        await port.close()
    assert answer == DnsAnswer(str(resolver.address), False, RRset(RecordType.A, (MAIN,), Recursive.STALE_TTL))


async def test_a_resolver_that_cannot_reach_the_zone_is_silent_with_its_words(tmp_path: Path) -> None:
    with bind(tmp_path) as zone, recursive(tmp_path, zone) as resolver:
        zone.stop()
        (answer,) = await look(record(resolvers=[resolver.address]))
    assert (answer.fault, answer.rrset, answer.error) == (Fault.SILENT, None, "answers SERVFAIL")


async def test_a_resolver_that_lies_is_reported_as_it_is() -> None:
    answer = await told(always(f"{NAME} 5 IN A 203.0.113.66", aa=False), resolver=True)
    assert (answer.rrset, answer.fault) == (RRset(RecordType.A, ("203.0.113.66",), 5), None)


# ---------------------------------------------------------------- the zone's servers, found through DNS


def at_one_port(*hosts: str) -> list[Address]:
    """Addresses of these hosts with the same port, free on the first of them (and on loopback as good as surely)."""
    port = free_address(hosts[0]).port
    return [Address(host, port) for host in hosts]


DELEGATED = (
    "ns1 60 A 127.0.0.1",
    "@ 60 NS ns2",
    "ns2 60 A 127.0.0.2",
    "ns2 60 AAAA ::1",
    f"bp 60 A {MAIN}",
)


async def test_every_address_of_every_server_of_the_zone_is_found_through_a_resolver(tmp_path: Path) -> None:
    one, two, six = at_one_port("127.0.0.1", "127.0.0.2", "::1")
    with (
        bind(tmp_path, records=DELEGATED, address=one) as first,
        knot(tmp_path, records=DELEGATED, address=two),
        bind(tmp_path, records=DELEGATED, address=six),
        recursive(tmp_path, first) as resolver,
    ):
        port = verifier(record(), resolver=[resolver.address], port=one.port)
        answers = await port.look(ANSWER)
        await port.close()
    assert answers == (
        DnsAnswer(f"ns1.{ZONE} ({one})", True, POINTS_TO_MAIN),
        DnsAnswer(f"ns2.{ZONE} ({two})", True, POINTS_TO_MAIN),
        DnsAnswer(f"ns2.{ZONE} ({six})", True, POINTS_TO_MAIN),
    )


async def test_a_lame_delegation_and_a_stopped_server_are_told_apart_under_their_names(tmp_path: Path) -> None:
    one, two, six = at_one_port("127.0.0.1", "127.0.0.2", "::1")
    with (
        bind(tmp_path, records=DELEGATED, address=one),
        knot(tmp_path, zone="other.test.", address=two),
        knot(tmp_path, records=DELEGATED, address=six) as stopped,
    ):
        port = verifier(record(), resolver=[one], port=one.port)
        stop(stopped)
        answers = await port.look(SHARED)
        await port.close()
    assert [(answer.server, answer.fault) for answer in answers] == [
        (f"ns1.{ZONE} ({one})", None),
        (f"ns2.{ZONE} ({two})", Fault.LAME),
        (f"ns2.{ZONE} ({six})", Fault.SILENT),
    ]


async def test_a_name_server_without_an_address_is_reported_as_silent(tmp_path: Path) -> None:
    one = free_address()
    records = ("ns1 60 A 127.0.0.1", "@ 60 NS nowhere", "@ 60 NS text", 'text 60 TXT "x"', f"bp 60 A {MAIN}")
    with knot(tmp_path, records=records, address=one):
        port = verifier(record(), resolver=[one], port=one.port)
        nowhere, right, text = await port.look(ANSWER)
        await port.close()
    lost = "its address cannot be found: "
    assert nowhere == DnsAnswer(f"nowhere.{ZONE}", True, fault=Fault.SILENT, error=f"{lost}answers NXDOMAIN")
    assert right.rrset == POINTS_TO_MAIN
    assert text == DnsAnswer(f"text.{ZONE}", True, fault=Fault.SILENT, error=f"{lost}it has none")


async def test_records_of_another_class_are_no_addresses() -> None:
    def script(asked: Asked) -> list[Said]:
        name, kind = asked.what
        if (name, kind) == (ZONE, "NS"):
            return [reply(asked, f"{ZONE} 60 IN NS ns1.{ZONE}")]
        if kind == "NS":
            return [reply(asked)]
        return [reply(asked, f"{name} 60 CLASS99 {kind} \\# 4 7f000009")]

    async with DnsPeer(script) as peer:
        with pytest.raises(RecordUnreachable, match="it has none"):
            await verifier(record(), resolver=[peer.address]).look(ANSWER)
        (answer,) = await look(record(servers=[peer.address]))
    assert answer == DnsAnswer(str(peer.address), True)


async def test_the_servers_of_the_lab_with_their_faults_are_told_apart() -> None:
    live = LiveZone(Zone.new(ZONE, "Z1", [lab_record(NAME, MAIN, ttl=60)]))
    of_the_lab = [
        ServerFaults(),
        ServerFaults(refuse=True),
        ServerFaults(no_authority=True),
        ServerFaults(truncate=True),
        ServerFaults(spoof="192.0.2.66"),
    ]
    async with AsyncExitStack() as stack:
        at = []
        for each in of_the_lab:
            server = await stack.enter_async_context(NameServer([live]))
            server.faults = each
            at.append(server.address)
        live.put(NAME, BACKUP)
        answers = await look(record(servers=at))
    moved = RRset(RecordType.A, (BACKUP,), 60)
    assert faults(answers) == [None, Fault.LAME, Fault.LAME, None, None]
    assert sets(answers) == [moved, None, None, moved, moved]


class Directory:
    """What a scripted resolver knows: a zone, its servers' addresses; and it answers for the record, too."""

    def __init__(self, **servers: Sequence[str]) -> None:
        self.servers = servers
        self.zone = ZONE
        self.broken: dict[str, dns.rcode.Rcode] = {}
        self.silent = False
        self.questions: list[tuple[str, str]] = []

    def __call__(self, asked: Asked) -> list[Said]:
        name, kind = asked.what
        self.questions.append((name, kind))
        if self.silent:
            return []
        if name in self.broken:
            return [reply(asked, rcode=self.broken[name])]
        lines = []
        if (name, kind) == (self.zone, "NS"):
            lines = [f"{self.zone} 60 IN NS {server.upper()}.{self.zone}" for server in self.servers]
        elif name == NAME and kind == "A":
            lines = [HELD]
        for host in self.servers.get(name.split(".")[0], ()):
            if kind == ("AAAA" if ":" in host else "A"):
                lines.append(f"{name} 60 IN {kind} {host}")
        return [reply(asked, *lines)]


async def test_the_zone_is_found_however_far_above_the_name_it_is() -> None:
    directory = Directory(ns1=["127.0.0.1"])
    async with DnsPeer(directory) as peer:
        deep = "a.b.c.d.example.test."
        port = verifier(record(name=deep), resolver=[peer.address], port=peer.address.port)
        (answer,) = await port.look(ANSWER)
        assert (answer.server, answer.fault) == (f"ns1.{ZONE} ({peer.address})", None)
        directory.zone = deep
        (answer,) = await verifier(record(name=deep), resolver=[peer.address], port=peer.address.port).look(ANSWER)
        assert answer.server == f"ns1.{deep} ({peer.address})"


async def test_at_most_sixteen_servers_are_asked_and_every_family_of_addresses_has_its_turn_in_a_steady_order() -> None:
    directory = Directory(**{f"ns{i}": [f"127.0.0.{i}", "::1"] for i in range(1, 10)})
    async with DnsPeer(directory) as peer:
        port = verifier(record(), resolver=[peer.address], port=peer.address.port)
        labels = [answer.server for answer in await port.look(SHARED)]
    assert len(labels) == MOST_SERVERS
    assert labels == sorted(labels)
    assert {label.split()[0] for label in labels} == {f"ns{i}.{ZONE}" for i in range(1, 10)}


async def test_what_was_found_is_kept_for_an_hour() -> None:
    directory, clock = Directory(ns1=["127.0.0.1"]), Clock()
    async with DnsPeer(directory) as peer:
        port = verifier(record(), resolver=[peer.address], port=peer.address.port, clock=clock)
        await port.look(ANSWER)
        directory.servers = {"ns2": ["127.0.0.1"]}
        directory.questions.clear()
        clock.leap(3590)
        (answer,) = await port.look(ANSWER)
        assert answer.server == f"ns1.{ZONE} ({peer.address})"
        assert directory.questions == [(NAME, "A")]
        clock.leap(20)
        (answer,) = await port.look(ANSWER)
        assert answer.server == f"ns2.{ZONE} ({peer.address})"


async def test_a_server_that_could_not_be_found_is_looked_for_again_after_a_minute() -> None:
    directory, clock = Directory(ns1=["127.0.0.1"], ns2=[]), Clock()
    async with DnsPeer(directory) as peer:
        port = verifier(record(), resolver=[peer.address], port=peer.address.port, clock=clock)
        assert faults(await port.look(ANSWER)) == [None, Fault.SILENT]
        directory.servers = {"ns1": ["127.0.0.1"], "ns2": ["127.0.0.1"]}
        clock.leap(50)
        assert faults(await port.look(ANSWER)) == [None, Fault.SILENT]
        clock.leap(20)
        assert faults(await port.look(ANSWER)) == [None, None]


async def test_when_every_server_fails_they_are_looked_for_again() -> None:
    one, two = at_one_port("127.0.0.1", "127.0.0.2")
    directory = Directory(ns1=["127.0.0.2"])
    async with DnsPeer(directory, one):
        async with DnsPeer(always(HELD), two):
            port = verifier(record(), resolver=[one], port=one.port)
            assert sets(await port.look(ANSWER)) == [POINTS_TO_MAIN]
        directory.servers = {"ns1": ["127.0.0.1"]}
        assert faults(await port.look(SILENCE)) == [Fault.SILENT]
        assert sets(await port.look(ANSWER)) == [POINTS_TO_MAIN]


async def test_servers_found_earlier_stay_in_use_while_the_resolver_fails() -> None:
    one, two = at_one_port("127.0.0.1", "127.0.0.2")
    directory, clock = Directory(ns1=["127.0.0.2"]), Clock()
    async with DnsPeer(directory, one), DnsPeer(always(HELD), two):
        port = verifier(record(), resolver=[one], port=one.port, clock=clock)
        await port.look(ANSWER)
        directory.silent = True
        clock.leap(4000)
        assert sets(await port.look(SHARED)) == [POINTS_TO_MAIN]
        directory.questions.clear()
        assert sets(await port.look(ANSWER)) == [POINTS_TO_MAIN]
        assert directory.questions == []  # not at every look: that would cost half of it
        directory.silent = False
        clock.leap(70)
        await port.look(ANSWER)
        assert (ZONE, "NS") in directory.questions


async def test_a_silent_resolver_costs_its_share_and_the_next_one_is_asked() -> None:
    directory = Directory(ns1=["127.0.0.1"])
    async with DnsPeer(silence) as mute, DnsPeer(directory) as peer:
        port = verifier(record(), resolver=[mute.address, peer.address], port=peer.address.port)
        assert sets(await port.look(SHARED * 2)) == [POINTS_TO_MAIN]


async def test_a_resolver_that_fails_at_the_name_itself_is_asked_about_the_zone_above_it() -> None:
    directory = Directory(ns1=["127.0.0.1"])
    directory.broken[NAME] = dns.rcode.SERVFAIL  # as for a CNAME that leads nowhere
    async with DnsPeer(directory) as peer, DnsPeer(always(HELD), Address("127.0.0.4", peer.address.port)):
        directory.servers = {"ns1": ["127.0.0.4"]}
        port = verifier(record(), resolver=[peer.address], port=peer.address.port)
        assert sets(await port.look(ANSWER)) == [POINTS_TO_MAIN]


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        (Directory(), r"{at}: knows no zone that bp\.example\.test\. is in"),
        (Directory(ns1=[]), r"{at}: ns1\.example\.test\.: its address cannot be found: it has none"),
    ],
)
async def test_a_zone_whose_servers_cannot_be_found_is_an_error_with_its_mend(directory: Directory, words: str) -> None:
    async with DnsPeer(directory) as peer:
        with pytest.raises(RecordUnreachable, match=words.format(at=peer.address)) as raised:
            await verifier(record(), resolver=[peer.address]).look(ANSWER)
    assert str(raised.value).startswith(f"{NAME}: ")
    assert "verify.servers" in raised.value.mend
    assert "verify.resolvers" in raised.value.mend


async def test_a_resolver_that_refuses_or_is_silent_is_an_error_that_says_so() -> None:
    directory = Directory(ns1=["127.0.0.1"])
    directory.broken = {NAME: dns.rcode.SERVFAIL, ZONE: dns.rcode.SERVFAIL}
    async with DnsPeer(directory) as peer, DnsPeer(silence) as mute:
        words = rf"{peer.address}: answers SERVFAIL .* of example\.test\.; {mute.address}: no answer within"
        with pytest.raises(RecordUnreachable, match=words):
            await verifier(record(), resolver=[peer.address, mute.address]).look(SHARED)


def test_the_resolvers_of_the_system_are_read_as_libc_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# nameserver 192.0.2.9\nsearch example.test\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # here\n"
        "nameserver nonsense\nnameserver\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
    )
    expected = ("192.0.2.1", "2001:db8::1", "192.0.2.2")
    assert system_resolvers(file) == tuple(Address(host, 53) for host in expected)
    file.write_text("")
    assert system_resolvers(file) == system_resolvers(tmp_path / "missing") == (Address("127.0.0.1", 53),)


# ---------------------------------------------------------------- what an answer says


async def test_values_are_canonical_and_of_the_queried_name_alone() -> None:
    answer = await told(
        always(
            f"{NAME.upper()} 60 IN AAAA 2001:0DB8:0::0:2",
            f"{NAME} 60 IN AAAA 2001:db8::1",
            f"other.{ZONE} 60 IN AAAA 2001:db8::3",
            f"{NAME} 60 IN A {MAIN}",
        ),
        "2001:db8::1",
        "2001:db8::2",
    )
    assert answer.rrset == RRset(RecordType.AAAA, ("2001:db8::1", "2001:db8::2"), 60)


async def test_a_cname_record_is_reported_with_its_absolute_lower_case_target(tmp_path: Path) -> None:
    records = ("ns1 60 A 127.0.0.1", "bp 60 CNAME Home.Example.NET.")
    with bind(tmp_path, records=records) as server:
        (answer,) = await look(record("home.example.net.", "cloud.example.net.", servers=[server.address]))
    assert answer.rrset == RRset(RecordType.CNAME, ("home.example.net.",), 60)


async def test_a_cname_where_an_address_was_asked_for_is_reported_as_a_cname(tmp_path: Path) -> None:
    records = ("ns1 60 A 127.0.0.1", "bp 60 CNAME home", f"home 60 A {MAIN}")
    with bind(tmp_path, records=records) as server, recursive(tmp_path, server) as resolver:
        (answer,) = await look(record(servers=[server.address]))
        (of_resolver,) = await look(record(resolvers=[resolver.address]))
    assert answer.rrset == of_resolver.rrset == RRset(RecordType.CNAME, (f"home.{ZONE}",), 60)


async def test_a_cname_that_leads_to_no_name_is_still_what_the_name_holds(tmp_path: Path) -> None:
    with bind(tmp_path, records=("ns1 60 A 127.0.0.1", "bp 60 CNAME nowhere")) as server:
        assert server.ask(NAME, "A").rcode() == dns.rcode.NXDOMAIN
        (answer,) = await look(record(servers=[server.address]))
    assert (answer.rrset, answer.fault) == (RRset(RecordType.CNAME, (f"nowhere.{ZONE}",), 60), None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"bp 60 A {MAIN}", POINTS_TO_MAIN),
        ("bp 60 CNAME cloud.example.net.", RRset(RecordType.CNAME, ("cloud.example.net.",), 60)),
        ('bp 60 TXT "neither"', None),
    ],
)
async def test_of_a_record_with_an_address_here_and_a_name_there_the_type_that_is_held_is_reported(
    tmp_path: Path, line: str, expected: RRset | None
) -> None:
    with bind(tmp_path, records=("ns1 60 A 127.0.0.1", line)) as server:
        (answer,) = await look(record(MAIN, "cloud.example.net.", servers=[server.address]))
    assert answer == DnsAnswer(str(server.address), True, expected, negative_ttl=None if expected else 60)


async def test_both_families_at_once_are_nobodys(tmp_path: Path) -> None:
    records = ("ns1 60 A 127.0.0.1", f"bp 60 A {MAIN}", "bp 50 AAAA 2001:db8::1")
    with bind(tmp_path, records=records) as server:
        what = record(MAIN, "2001:db8::1", servers=[server.address])
        (answer,) = await look(what)
    assert answer.rrset == RRset(RecordType.A, (MAIN, "2001:db8::1"), 50)
    assert what.points_to(answer.rrset) is None
    assert (answer.fault, answer.error) == (None, "holds A and AAAA at once")


async def test_one_type_refused_is_a_fault_of_the_whole_answer() -> None:
    def script(asked: Asked) -> list[Said]:
        refused = asked.what[1] == "AAAA"
        return [reply(asked, rcode=dns.rcode.REFUSED) if refused else reply(asked, HELD)]

    answer = await told(script, MAIN, "2001:db8::1")
    assert (answer.fault, answer.rrset) == (Fault.LAME, None)


@pytest.mark.parametrize(("ttl", "reported"), [(0, 0), (1, 1), (2**31 - 1, 2**31 - 1), (2**31, 0)])
async def test_a_ttl_is_reported_as_it_is_and_one_out_of_range_as_none(ttl: int, reported: int) -> None:
    answer = await told(always(f"{NAME} {ttl} IN A {MAIN}"))
    assert answer.rrset == RRset(RecordType.A, (MAIN,), reported)


async def test_a_ttl_of_zero_at_a_real_server_is_reported(tmp_path: Path) -> None:
    with bind(tmp_path, records=("ns1 60 A 127.0.0.1", f"bp 0 A {MAIN}")) as server:
        assert sets(await look(record(servers=[server.address]))) == [RRset(RecordType.A, (MAIN,), 0)]


@pytest.mark.parametrize(("ttl", "minimum", "kept"), [(900, 60, 60), (30, 60, 30), (0, 60, 0)])
async def test_nothing_there_may_be_kept_for_the_lesser_of_the_soa_ttl_and_its_minimum(
    ttl: int, minimum: int, kept: int
) -> None:
    soa = f"{ZONE} {ttl} IN SOA ns1.{ZONE} hostmaster.{ZONE} 1 3600 600 86400 {minimum}"
    for rcode in (dns.rcode.NXDOMAIN, dns.rcode.NOERROR):

        def script(asked: Asked, rcode: dns.rcode.Rcode = rcode) -> list[Said]:
            return [reply(asked, rcode=rcode, authority=[soa])]

        answer = await told(script)
        assert answer == DnsAnswer(answer.server, True, negative_ttl=kept)


async def test_nothing_there_without_an_soa_of_the_zone_is_told_without_a_time() -> None:
    other = "other.test. 60 IN SOA ns1.other.test. hostmaster.other.test. 1 3600 600 86400 60"
    answer = await told(lambda asked: [reply(asked, rcode=dns.rcode.NXDOMAIN, authority=[other])])
    assert answer == DnsAnswer(answer.server, True)


@pytest.mark.parametrize(("count", "ttl"), [(99, 60), (100, None), (3000, None)])
async def test_an_answer_with_too_many_records_is_not_read(count: int, ttl: int | None) -> None:
    lines = [f"{NAME} 60 IN A 198.18.{i // 250}.{i % 250}" for i in range(count)]
    answer = await told(lambda asked: [reply(asked, tc=True) if asked.way == "udp" else reply(asked, *lines)])
    if ttl is not None:
        assert answer.rrset is not None
        assert len(answer.rrset.values) == count
    else:
        assert (answer.fault, answer.rrset) == (Fault.SILENT, None)
        assert answer.error is not None
        assert "too many records" in answer.error or "too long" in answer.error


# ---------------------------------------------------------------- cut short: TCP


@pytest.mark.parametrize("kind", SERVERS)
async def test_an_answer_that_is_too_long_for_udp_is_fetched_over_tcp(tmp_path: Path, kind: str) -> None:
    addresses = [f"198.18.0.{i}" for i in range(60)]
    with SERVERS[kind](tmp_path, records=("ns1 60 A 127.0.0.1", *(f"bp 60 A {each}" for each in addresses))) as server:
        (answer,) = await look(record(servers=[server.address]))
    assert answer.rrset == RRset(RecordType.A, tuple(sorted(addresses)), 60)


async def test_a_question_goes_over_udp_first_and_over_tcp_only_when_that_was_cut_short() -> None:
    async with DnsPeer(always(HELD)) as peer:
        await look(record(servers=[peer.address]))
        peer.script = lambda asked: [reply(asked, HELD, tc=asked.way == "udp")]
        (answer,) = await look(record(servers=[peer.address]))
    assert [asked.way for asked in peer.asked] == ["udp", "udp", "tcp"]
    assert answer.rrset == POINTS_TO_MAIN


def cut_short(*over_tcp: Said) -> Script:
    """A script that cuts every answer by UDP short, and says this over TCP."""
    return lambda asked: [reply(asked, tc=True)] if asked.way == "udp" else list(over_tcp)


CUT_SHORT = "by UDP an answer that was cut short, by TCP "


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((), "an answer that ends early"),
        ((Raw(b"\x00"),), "an answer that ends early"),
        ((Raw(b"\x00\x40half of it"),), "an answer that ends early"),
        ((Raw(b"\x00\x00"),), "an answer to another question"),
        ((b"nonsense",), "an answer to another question"),
        ((b"\xff" * 4096,), "an answer to another question"),
        ((b"\xff" * 65535,), "an answer of 65535 bytes, which is too long"),
        ((Raw(b"", hang=True),), "no answer within"),
        ((Raw(b"\x00\x40half of it", hang=True),), "no answer within"),
    ],
)
async def test_what_cannot_be_read_over_tcp_is_silence_in_time(said: tuple[Said, ...], words: str) -> None:
    hangs = bool(said) and isinstance(said[0], Raw) and said[0].hang
    answer = await told(cut_short(*said), seconds=SHARED if hangs else ANSWER)
    assert answer.fault is Fault.SILENT
    assert answer.error is not None
    assert answer.error.startswith(CUT_SHORT + words)


async def test_over_tcp_another_id_or_question_is_not_taken_for_the_answer() -> None:
    for change in (other_id, other_question):

        def script(asked: Asked, change: Callable[[dns.message.Message], None] = change) -> list[Said]:
            return [reply(asked, tc=True) if asked.way == "udp" else reply(asked, HELD, change=change)]

        answer = await told(script)
        assert (answer.fault, answer.rrset) == (Fault.SILENT, None)


async def test_a_server_without_tcp_that_cuts_answers_short_is_silent(tmp_path: Path) -> None:
    async with DnsPeer(cut_short()) as peer:
        peer._listener.close()
        (answer,) = await look(record(servers=[peer.address]))
    assert answer.fault is Fault.SILENT
    assert answer.error == f"{CUT_SHORT}Connection refused"


# ---------------------------------------------------------------- spoofed, lost, garbled


def other_id(message: dns.message.Message) -> None:
    message.id ^= 1


def other_question(message: dns.message.Message) -> None:
    message.question = [dns.rrset.RRset(dns.name.from_text(f"other.{ZONE}"), dns.rdataclass.IN, dns.rdatatype.A)]


def not_a_response(message: dns.message.Message) -> None:
    message.flags &= ~dns.flags.QR


LIE = f"{NAME} 60 IN A 203.0.113.66"

SPOOFS: dict[str, Callable[[Asked], Said]] = {
    "another port": lambda asked: Elsewhere(reply(asked, LIE)),
    "another address": lambda asked: Elsewhere(reply(asked, LIE), "127.0.0.66", same_port=True),
    "another address, cut short": lambda asked: Elsewhere(reply(asked, tc=True), "127.0.0.66", same_port=True),
    "another id": lambda asked: reply(asked, LIE, change=other_id),
    "another id, cut short": lambda asked: reply(asked, tc=True, change=other_id),
    "another id, a refusal": lambda asked: reply(asked, rcode=dns.rcode.REFUSED, change=other_id),
    "another question": lambda asked: reply(asked, LIE, change=other_question),
    "another question, cut short": lambda asked: reply(asked, tc=True, change=other_question),
    "a question": lambda asked: reply(asked, LIE, change=not_a_response),
    "nothing": lambda asked: b"",
    "garbage": lambda asked: os.urandom(40),
    "a giant": lambda asked: asked.message.id.to_bytes(2) + b"\xff" * 60000,
    "too many records": lambda asked: reply(asked, *(f"{NAME} 60 IN A 198.18.0.{i}" for i in range(200))),
    "half an answer": lambda asked: reply(asked, LIE)[:-3],
}


@pytest.mark.parametrize("spoof", SPOOFS)
async def test_an_answer_that_does_not_fit_is_dropped_and_the_right_one_awaited(spoof: str) -> None:
    answer = await told(lambda asked: [SPOOFS[spoof](asked), reply(asked, HELD)])
    assert answer == DnsAnswer(answer.server, True, POINTS_TO_MAIN)


async def test_answers_that_do_not_fit_alone_are_silence() -> None:
    answer = await told(lambda asked: [spoof(asked) for spoof in SPOOFS.values()], seconds=SILENCE)
    assert (answer.fault, answer.rrset) == (Fault.SILENT, None)
    answer = await told(lambda asked: [SPOOFS["another id"](asked)], seconds=SILENCE)
    assert (answer.fault, answer.error) == (Fault.SILENT, "no answer within 0.3 s")


async def test_a_server_that_sends_nothing_but_what_does_not_fit_is_given_up_on() -> None:
    answer = await told(lambda asked: [SPOOFS["another question"](asked)] * MOST_READ)
    assert (answer.fault, answer.error) == (Fault.SILENT, "8 answers, and none that fits the question")


async def test_a_flood_of_wrong_answers_neither_hides_the_right_one_nor_holds_up_another_server() -> None:
    def script(asked: Asked) -> list[Said]:
        return [*[reply(asked, LIE, change=other_id)] * 50, reply(asked, HELD)]

    async with DnsPeer(script) as flood, DnsPeer(always(HELD)) as good:
        assert sets(await look(record(servers=[flood.address, good.address]))) == [POINTS_TO_MAIN] * 2


async def test_a_question_that_got_lost_is_sent_again_from_the_same_port_with_the_same_id() -> None:
    async with DnsPeer(silence) as peer:
        peer.script = lambda asked: [reply(asked, HELD)] if len(peer.asked) > 1 else []
        (answer,) = await look(record(servers=[peer.address]), SHARED)
    assert answer.rrset == POINTS_TO_MAIN
    first, second = peer.asked
    assert (first.source, first.message.id) == (second.source, second.message.id)


def mutated(asked: Asked, changes: list[tuple[int, int]], length: int) -> bytes:
    """A right answer with some of its bytes behind the id replaced, cut or padded to ``length`` of 100."""
    soa = f"{ZONE} 60 IN SOA ns1.{ZONE} hostmaster.{ZONE} 1 3600 600 86400 60"
    wire = bytearray(
        reply(asked, HELD, f"{NAME} 60 IN CNAME home.{ZONE}", authority=[soa, f"{ZONE} 60 IN NS ns1.{ZONE}"])
    )
    for at, value in changes:
        wire[2 + at % (len(wire) - 2)] = value
    size = len(wire) * length // 100
    return bytes(wire[:size]) + b"\x00" * (size - len(wire))


changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)
lengths = st.sampled_from([100, 100, 100, 90, 50, 10, 130])
unhurried = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@unhurried
@given(
    st.binary(max_size=600), changes, lengths, st.sampled_from([False, True]), st.sampled_from([(), ("2001:db8::1",)])
)
async def test_no_datagram_makes_a_look_raise(
    noise: bytes, changes: list[tuple[int, int]], length: int, resolver: bool, more: tuple[str, ...]
) -> None:
    def script(asked: Asked) -> list[Said]:
        wire = asked.message.id.to_bytes(2)
        if asked.way == "tcp":
            return [mutated(asked, changes, length)]
        return [noise, wire + noise, mutated(asked, changes, length), reply(asked, HELD)]

    answer = await told(script, MAIN, *(more or (BACKUP,)), resolver=resolver)
    assert answer.fault is None or answer.error
    assert answer.fault is None or answer.rrset is None


@unhurried
@given(st.binary(max_size=600), changes, lengths, st.booleans())
async def test_no_stream_makes_a_look_raise(
    noise: bytes, changes: list[tuple[int, int]], length: int, raw: bool
) -> None:
    def script(asked: Asked) -> list[Said]:
        if asked.way == "udp":
            return [reply(asked, tc=True)]
        return [Raw(noise)] if raw else [mutated(asked, changes, length)]

    answer = await told(script)
    assert answer.fault is None or answer.error


# ---------------------------------------------------------------- the machine


async def test_a_server_of_a_family_that_the_machine_lacks_is_silent_with_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    make = loop.create_datagram_endpoint

    async def without_ipv6(*arguments: Any, **options: Any) -> Any:
        if ":" in options.get("remote_addr", ("",))[0]:
            raise OSError(errno.EAFNOSUPPORT, "...")  # as socket(2) on such a machine
        return await make(*arguments, **options)

    monkeypatch.setattr(loop, "create_datagram_endpoint", without_ipv6)
    async with DnsPeer(always(HELD)) as peer:
        silent, right = await look(record(servers=[Address("::1", peer.address.port), peer.address]))
    assert silent.error == "no route to it from here (Address family not supported by protocol)"
    assert (silent.server, silent.fault) == (f"[::1]:{peer.address.port}", Fault.SILENT)
    assert right.rrset == POINTS_TO_MAIN


async def test_a_port_where_nobody_listens_is_known_at_once() -> None:
    nobody = free_address()
    (answer,) = await look(record(servers=[nobody]))
    assert answer == DnsAnswer(str(nobody), True, fault=Fault.SILENT, error="Connection refused")


async def test_a_server_that_the_kernel_does_not_let_us_send_to_is_silent_at_once() -> None:
    (answer,) = await look(record(servers=[Address("127.255.255.255", 53)]))  # a broadcast address: EACCES
    assert answer == DnsAnswer("127.255.255.255", True, fault=Fault.SILENT, error="Permission denied")


async def test_a_look_that_is_cancelled_leaves_no_socket_behind() -> None:
    gc.collect()  # what earlier tests have left must not be taken for ours
    async with DnsPeer(cut_short(Raw(b"\x01", hang=True))) as hangs, DnsPeer(silence) as mute:
        before = len(os.listdir("/proc/self/fd"))
        task = asyncio.create_task(look(record(servers=[hangs.address, mute.address])))
        while len(hangs.asked) < 2 or not mute.asked:
            await RealHost().sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) > before
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(500):
            if len(os.listdir("/proc/self/fd")) <= before:
                break
            await RealHost().sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before


def test_the_package_of_records_loads_no_dns_library_until_a_record_is_verified() -> None:
    script = "import sys, failover.records; print('dns' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


async def test_the_port_of_a_record_is_this_one() -> None:
    async with DnsPeer(always(HELD)) as peer:
        port = verify_port(record(servers=[peer.address]), RealHost())
        assert sets(await port.look(ANSWER)) == [POINTS_TO_MAIN]
        await port.close()
