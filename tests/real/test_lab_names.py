"""The lab's DNS servers and its caching resolver, asked by dnspython as anybody would ask them."""

from __future__ import annotations

import asyncio
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
import pytest

from failover.host import RealHost
from failover.lab import control, names, resolver
from failover.lab.haproxy import LabError, free_ports
from failover.lab.names import NameServer, ServerFaults
from failover.lab.resolver import Resolver, ResolverFaults
from failover.lab.zone import LiveZone, Zone, record
from failover.model import Address

HOST = RealHost()
LONG = 20.0  # seconds, an upper bound for what takes a moment
SHORT = 0.3  # seconds, where no answer is expected
NAME = "bp.example.test."


class Clock:
    """CLOCK_BOOTTIME of the parts under test: it stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.host = RealHost(boottime=lambda: self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> LiveZone:
    sets = [record(NAME, "192.0.2.1"), record("c.example.test.", NAME), record("far.example.test.", "bp.other.test.")]
    return LiveZone(Zone.new("example.test.", "Z1", sets), clock.host)


@pytest.fixture
async def server(live: LiveZone, clock: Clock) -> AsyncIterator[NameServer]:
    async with NameServer([live], host=clock.host) as made:
        yield made


@pytest.fixture
async def cache(server: NameServer, clock: Clock) -> AsyncIterator[Resolver]:
    async with Resolver([server.address], host=clock.host) as made:
        yield made


async def asked(
    at: NameServer | Resolver,
    name: str = NAME,
    type_: str = "A",
    *,
    tcp: bool = False,
    timeout: float = LONG,
    **more: Any,
) -> dns.message.Message:
    ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await ask(dns.message.make_query(name, type_, **more), at.address.host, timeout, at.address.port)


def lines(message: dns.message.Message) -> list[str]:
    return [line for rrset in message.answer for line in str(rrset).splitlines()]


def values(message: dns.message.Message) -> list[str]:
    return [line.split()[-1] for line in lines(message)]


# ---------------------------------------------------------------- authoritative servers


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_it_answers_with_authority_over_udp_and_tcp_on_one_port(server: NameServer, tcp: bool) -> None:
    told = await asked(server, "BP.Example.TEST", tcp=tcp)
    assert (lines(told), bool(told.flags & dns.flags.AA)) == (["BP.Example.TEST. 60 IN A 192.0.2.1"], True)
    assert [str(q.name) for q in told.question] == ["BP.Example.TEST."]  # as it was asked
    assert server.counts == {"all": 1, "tcp" if tcp else "udp": 1}


async def test_it_tells_soa_and_servers_and_what_there_is_not_with_how_long_that_holds(server: NameServer) -> None:
    assert [r.rdtype for r in (await asked(server, "example.test.", "SOA")).answer] == [dns.rdatatype.SOA]
    assert len(values(await asked(server, "example.test.", "NS"))) == 4
    for name, type_, rcode in ((NAME, "AAAA", dns.rcode.NOERROR), ("no.example.test.", "A", dns.rcode.NXDOMAIN)):
        told = await asked(server, name, type_)
        assert (told.rcode(), told.answer, told.authority[0].ttl) == (rcode, [], 900)
    assert lines(await asked(server, "c.example.test."))[1] == f"{NAME} 60 IN A 192.0.2.1"


async def test_outside_its_zones_it_refuses_and_what_is_no_question_it_does_not_do(server: NameServer) -> None:
    assert (await asked(server, "bp.other.test.")).rcode() == dns.rcode.REFUSED
    assert (await asked(server, rdclass="CH")).rcode() == dns.rcode.NOTIMP


async def test_dnspythons_own_resolver_takes_it(server: NameServer) -> None:
    stub = dns.asyncresolver.Resolver(configure=False)
    stub.nameservers, stub.port, stub.lifetime = [server.address.host], server.address.port, LONG
    answer = await stub.resolve("c.example.test.", "A")
    assert (answer.rrset is not None and answer.rrset.ttl, [str(r) for r in answer]) == (60, ["192.0.2.1"])
    with pytest.raises(dns.resolver.NXDOMAIN):
        await stub.resolve("no.example.test.", "A")
    with pytest.raises(dns.resolver.NoAnswer):
        await stub.resolve(NAME, "AAAA")


async def test_what_does_not_fit_a_packet_is_truncated_and_whole_over_tcp(server: NameServer, live: LiveZone) -> None:
    live.put(NAME, *(f"192.0.2.{n}" for n in range(1, 100)))
    plain = await asked(server)
    assert (bool(plain.flags & dns.flags.TC), len(values(plain)) < 99) == (True, True)
    query = dns.message.make_query(NAME, "A", use_edns=0, payload=1232)
    told, by_tcp = await dns.asyncquery.udp_with_fallback(query, server.address.host, LONG, server.address.port)
    assert (by_tcp, len(values(told))) == (True, 99)


async def test_each_server_learns_of_a_change_in_its_own_time(live: LiveZone, clock: Clock) -> None:
    async with (
        NameServer([live], lag=30.0, host=clock.host) as near,
        NameServer([live], lag=90.0, host=clock.host) as far,
    ):
        live.put(NAME, "192.0.2.2", ttl=120)
        assert [values(await asked(s)) for s in (near, far)] == [["192.0.2.1"], ["192.0.2.1"]]
        clock.now += 31
        near.lag = 1000.0  # what it knows it does not forget
        assert [values(await asked(s)) for s in (near, far)] == [["192.0.2.2"], ["192.0.2.1"]]
        clock.now += 60
        assert lines(await asked(far)) == [f"{NAME} 120 IN A 192.0.2.2"]


async def test_frozen_it_stays_with_what_it_knew_until_it_is_healed(server: NameServer, live: LiveZone) -> None:
    live.put(NAME, "192.0.2.2")
    server.faults = ServerFaults(freeze=True)
    live.put(NAME, "192.0.2.3")
    assert values(await asked(server)) == ["192.0.2.2"]
    server.faults = ServerFaults()
    assert values(await asked(server)) == ["192.0.2.3"]


async def test_lame_it_refuses_or_answers_without_authority(server: NameServer) -> None:
    server.faults = ServerFaults(refuse=True)
    assert (await asked(server)).rcode() == dns.rcode.REFUSED
    server.faults = ServerFaults(no_authority=True)
    told = await asked(server)
    assert (bool(told.flags & dns.flags.AA), values(told)) == (False, ["192.0.2.1"])


async def test_silent_it_answers_nothing(server: NameServer) -> None:
    server.faults = ServerFaults(silent=True)
    for tcp in (False, True):
        with pytest.raises(dns.exception.Timeout):
            await asked(server, tcp=tcp, timeout=SHORT)


async def test_truncating_it_tells_the_truth_over_tcp_alone(server: NameServer) -> None:
    server.faults = ServerFaults(truncate=True)
    told = await asked(server)
    assert (bool(told.flags & dns.flags.TC), told.answer) == (True, [])
    assert values(await asked(server, tcp=True)) == ["192.0.2.1"]


async def test_lying_about_ttls_it_says_the_one_that_it_is_told(server: NameServer) -> None:
    server.faults = ServerFaults(ttl=0)
    assert lines(await asked(server)) == [f"{NAME} 0 IN A 192.0.2.1"]


async def test_garbling_it_sends_what_nobody_can_read(server: NameServer) -> None:
    server.faults = ServerFaults(garble=True)
    with pytest.raises(dns.exception.DNSException):
        await asked(server, timeout=LONG)


async def test_spoofed_a_lie_comes_first_and_from_another_port(server: NameServer) -> None:
    server.faults = ServerFaults(spoof="192.0.2.66")
    with pytest.raises(dns.query.UnexpectedSource):
        await asked(server)
    query = dns.message.make_query(NAME, "A")
    told = await dns.asyncquery.udp(query, server.address.host, LONG, server.address.port, ignore_unexpected=True)
    assert values(told) == ["192.0.2.1"]


async def test_one_server_may_have_several_zones_and_the_longest_name_wins(live: LiveZone, clock: Clock) -> None:
    inner = LiveZone(Zone.new("in.example.test.", "Z2", [record("bp.in.example.test.", "192.0.2.7")]), clock.host)
    async with NameServer([live, inner], host=clock.host) as server:
        assert values(await asked(server, "bp.in.example.test.")) == ["192.0.2.7"]
        assert values(await asked(server)) == ["192.0.2.1"]
        assert server.knows("Z2") is inner.zone


async def test_bytes_that_are_no_question_are_not_answered_and_do_no_harm(server: NameServer) -> None:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    reply = dns.message.make_response(dns.message.make_query(NAME, "A")).to_wire()
    question = dns.message.make_query(NAME, "A").to_wire()
    for data in (b"nonsense", reply, question):
        writer.write(struct.pack("!H", len(data)) + data)
    async with HOST.timeout(LONG):
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        told = dns.message.from_wire(await reader.readexactly(size))
    assert values(told) == ["192.0.2.1"]
    writer.transport.abort()


async def test_many_questions_at_once_are_all_answered(server: NameServer) -> None:
    told = await asyncio.gather(*(asked(server, tcp=bool(n % 2)) for n in range(100)))
    assert {tuple(values(message)) for message in told} == {("192.0.2.1",)}


# ---------------------------------------------------------------- the resolver


async def test_it_keeps_an_answer_for_its_ttl_and_tells_what_remains_of_it(
    cache: Resolver, clock: Clock, live: LiveZone
) -> None:
    assert lines(await asked(cache)) == [f"{NAME} 60 IN A 192.0.2.1"]
    live.put(NAME, "192.0.2.2")
    clock.now += 59
    told = await asked(cache)
    assert (lines(told), bool(told.flags & dns.flags.RA)) == ([f"{NAME} 1 IN A 192.0.2.1"], True)
    clock.now += 1  # nothing remains
    assert lines(await asked(cache)) == [f"{NAME} 60 IN A 192.0.2.2"]
    assert cache.counts == {"questions": 3, "hits": 1, "upstream": 2}


async def test_told_zero_it_serves_an_answer_with_ttl_0_in_its_last_second(
    cache: Resolver, clock: Clock, live: LiveZone
) -> None:
    await asked(cache)
    live.put(NAME, "192.0.2.2")
    await cache.tell("zero")
    clock.now += 60
    assert lines(await asked(cache)) == [f"{NAME} 0 IN A 192.0.2.1"]
    clock.now += 1
    assert lines(await asked(cache)) == [f"{NAME} 60 IN A 192.0.2.2"]


async def test_what_came_with_ttl_0_is_told_so_and_asked_for_each_time(cache: Resolver, live: LiveZone) -> None:
    live.put(NAME, "192.0.2.1", ttl=0)
    assert lines(await asked(cache)) == [f"{NAME} 0 IN A 192.0.2.1"]
    live.put(NAME, "192.0.2.2", ttl=0)
    assert lines(await asked(cache)) == [f"{NAME} 0 IN A 192.0.2.2"]


async def test_it_counts_down_in_whole_seconds_of_its_own_scale(server: NameServer, clock: Clock) -> None:
    async with Resolver([server.address], scale=20.0, host=clock.host) as cache:
        await asked(cache)
        clock.now += 1.09
        assert lines(await asked(cache)) == [f"{NAME} 39 IN A 192.0.2.1"]


async def test_it_keeps_that_there_is_none_as_long_as_the_zone_says(
    cache: Resolver, server: NameServer, clock: Clock, live: LiveZone
) -> None:
    for name, type_ in (("new.example.test.", "A"), (NAME, "AAAA")):
        assert (await asked(cache, name, type_)).authority[0].ttl == 900
    live.put("new.example.test.", "192.0.2.5")
    clock.now += 899
    told = await asked(cache, "new.example.test.")
    assert (told.rcode(), told.authority[0].ttl, server.counts["all"]) == (dns.rcode.NXDOMAIN, 1, 2)
    clock.now += 1
    assert values(await asked(cache, "new.example.test.")) == ["192.0.2.5"]


async def test_a_chain_is_followed_and_its_shortest_ttl_holds_for_all(
    server: NameServer, cache: Resolver, clock: Clock, live: LiveZone
) -> None:
    live.put(NAME, "192.0.2.1", ttl=20)
    assert lines(await asked(cache, "c.example.test.")) == [
        f"c.example.test. 60 IN CNAME {NAME}",
        f"{NAME} 20 IN A 192.0.2.1",
    ]
    clock.now += 15
    assert [line.split()[1] for line in lines(await asked(cache, "c.example.test."))] == ["45", "5"]
    clock.now += 6
    await asked(cache, "c.example.test.")
    assert server.counts["all"] == 2


async def test_a_chain_may_lead_to_another_server(server: NameServer, clock: Clock) -> None:
    other = LiveZone(Zone.new("other.test.", "Z2", [record("bp.other.test.", "192.0.2.7")]), clock.host)
    async with (
        NameServer([other], host=clock.host) as elsewhere,
        Resolver([server.address, elsewhere.address], host=clock.host) as cache,
    ):
        assert values(await asked(cache, "far.example.test.")) == ["bp.other.test.", "192.0.2.7"]


@pytest.mark.parametrize(
    "faults", [ServerFaults(refuse=True), ServerFaults(no_authority=True), ServerFaults(garble=True)]
)
async def test_what_a_server_cannot_answer_for_it_asks_the_next_or_fails(
    live: LiveZone, server: NameServer, clock: Clock, faults: ServerFaults
) -> None:
    server.faults = faults
    async with (
        NameServer([live], host=clock.host) as second,
        Resolver([server.address, second.address], host=clock.host) as cache,
        Resolver([server.address], host=clock.host) as alone,
    ):
        assert values(await asked(cache)) == ["192.0.2.1"]
        assert (await asked(alone)).rcode() == dns.rcode.SERVFAIL
        server.faults = ServerFaults()
        assert values(await asked(alone)) == ["192.0.2.1"]  # a failure is not kept


async def test_it_asks_again_over_tcp_what_was_truncated(server: NameServer, cache: Resolver) -> None:
    server.faults = ServerFaults(truncate=True)
    assert values(await asked(cache)) == ["192.0.2.1"]
    assert server.counts == {"all": 2, "udp": 1, "tcp": 1}


async def test_stale_it_serves_what_has_run_out_and_lets_it_go_when_healed(
    cache: Resolver, clock: Clock, live: LiveZone
) -> None:
    await asked(cache)
    live.put(NAME, "192.0.2.2")
    cache.faults = ResolverFaults(stale=True)
    clock.now += 10_000
    assert lines(await asked(cache)) == [f"{NAME} 30 IN A 192.0.2.1"]
    cache.faults = ResolverFaults()
    assert values(await asked(cache)) == ["192.0.2.2"]


async def test_lying_it_says_one_address_to_everybody_and_flushed_it_forgets(cache: Resolver, live: LiveZone) -> None:
    await cache.tell("lie", "192.0.2.66")
    assert values(await asked(cache)) == ["192.0.2.66"]
    assert (await asked(cache, type_="AAAA")).answer == []
    await cache.tell("heal")
    assert values(await asked(cache)) == ["192.0.2.1"]
    live.put(NAME, "192.0.2.2")
    await cache.tell("flush")
    assert values(await asked(cache, tcp=True)) == ["192.0.2.2"]


async def test_silent_it_answers_nobody(cache: Resolver) -> None:
    cache.faults = ResolverFaults(silent=True)
    with pytest.raises(dns.exception.Timeout):
        await asked(cache, timeout=SHORT)


# ---------------------------------------------------------------- what they can be told


async def test_a_server_told_by_word_does_the_same(server: NameServer) -> None:
    for word, value in (("refuse", None), ("ttl", "3600"), ("spoof", "192.0.2.66"), ("lag", "2.5")):
        await server.tell(word, value)
    assert (server.faults, server.lag) == (ServerFaults(refuse=True, ttl=3600, spoof="192.0.2.66"), 2.5)
    state = await server.tell("heal")
    assert (server.faults, server.lag, state["address"]) == (ServerFaults(), 2.5, str(server.address))
    assert state["zones"]["Z1"][-1] == "far.example.test. CNAME 60 bp.other.test."


async def test_a_resolver_tells_what_it_keeps(cache: Resolver, clock: Clock) -> None:
    await asked(cache)
    clock.now += 20
    state = await cache.tell("stale")
    kept, counts = {f"{NAME} A": 40}, {"questions": 1, "upstream": 1}
    assert (state["kept"], state["stale"], state["counts"]) == (kept, True, counts)


@pytest.mark.parametrize("part", ["server", "cache"])
async def test_what_they_cannot_be_told_is_refused_with_a_mend(part: str, server: NameServer, cache: Resolver) -> None:
    told = server if part == "server" else cache
    address = "spoof" if part == "server" else "lie"
    for word, value in (("dance", None), ("silent", "3"), (address, None), (address, "192.0.2.300")):
        with pytest.raises(LabError) as caught:
            await told.tell(word, value)
        assert caught.value.mend
    assert all(known.meaning for known in (*names.COMMANDS.values(), *resolver.COMMANDS.values()))


async def test_a_taken_port_is_named(server: NameServer, live: LiveZone) -> None:
    with pytest.raises(LabError, match=rf"ns2: cannot listen at {server.address}"):
        async with NameServer([live], server.address, name="ns2"):
            pass


async def test_as_a_process_the_resolver_says_ready_answers_is_told_things_and_ends_when_asked(
    server: NameServer, tmp_path: Path
) -> None:
    address, path = Address("127.0.0.1", free_ports(1)[0]), tmp_path / "r.sock"
    words = ["--listen", str(address), "--upstream", str(server.address), "--scale", "20", "--control", str(path)]
    command = [sys.executable, "-m", "failover.lab.resolver", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220 - it returns at once
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        query = dns.message.make_query(NAME, "A")
        told = await dns.asyncquery.udp(query, address.host, LONG, address.port)
        assert values(told) == ["192.0.2.1"]
        state: dict[str, Any] = await control.ask(path, {"command": "lie", "value": "192.0.2.66"})
        assert (state["lie"], f"{NAME} A" in state["kept"]) == ("192.0.2.66", True)
        assert values(await dns.asyncquery.udp(query, address.host, LONG, address.port)) == ["192.0.2.66"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 0
    finally:
        process.kill()
        process.wait(LONG)
        process.stdout.close()
