"""What is said, and what is left unchanged, when a name server says no, says something else, or does not answer."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - damage that a seed repeats
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.tsig
import pytest
from dns_world import (
    ADMIN,
    CUT,
    KEY_NAME,
    NAME,
    SECRETS,
    SERVERS,
    STRANGER,
    ZONE,
    Between,
    DnsServer,
    bind,
    free_address,
    is_update,
    record_at,
)

from failover.errors import RecordError, RecordRefused, RecordTimeout, RecordUnreachable
from failover.host import Deadline, RealHost
from failover.model import Address, Change, Instant, Record, RecordType, Rfc2136Zone, RRset
from failover.ports import Host
from failover.records.rfc2136 import Rfc2136Port

ANSWER = 20.0  # seconds that a call may take
MAIN, BACKUP = "192.0.2.10", "192.0.2.20"
SWAP = Change(RRset(RecordType.A, (MAIN,), 60), RRset(RecordType.A, (BACKUP,), 60))


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DnsServer]:
    with SERVERS[request.param](tmp_path) as made:
        yield made


@pytest.fixture
def one_server(tmp_path: Path) -> Iterator[DnsServer]:
    """A server where it does not matter which."""
    with bind(tmp_path) as made:
        yield made


class OtherClock(RealHost):
    """A host whose UTC is off by some seconds."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self._ahead = ahead

    def now(self) -> Instant:
        real = super().now()
        return replace(real, utc=real.utc + self._ahead)


class Bell(RealHost):
    """A host whose deadlines come when ``ring`` says so: at the moment that a test is about, on any machine."""

    def __init__(self) -> None:
        super().__init__()
        self._rings: list[Callable[[], None]] = []

    def timeout(self, seconds: float) -> Deadline:
        def arm(ring: Callable[[], None]) -> Callable[[], None]:
            self._rings.append(ring)
            return lambda: self._rings.remove(ring)

        return Deadline(arm)

    def ring(self) -> None:
        """Every deadline is now."""
        for ring in self._rings:
            ring()


@asynccontextmanager
async def port_of(record: Record, host: Host | None = None) -> AsyncIterator[Rfc2136Port]:
    assert isinstance(record.provider, Rfc2136Zone)
    port = Rfc2136Port(record, record.provider, host or RealHost())
    try:
        yield port
    finally:
        await port.close()


async def error_of(call: Awaitable[object]) -> RecordError:
    with pytest.raises(RecordError) as caught:
        await call
    assert caught.value.mend
    return caught.value


async def reading(record: Record, host: Host | None = None) -> RecordError:
    """The error that reading ends with."""
    async with port_of(record, host) as port:
        return await error_of(port.read(ANSWER))


async def changing(record: Record, host: Host | None = None) -> RecordError:
    """The error that a change ends with."""
    async with port_of(record, host) as port:
        return await error_of(port.change(SWAP, ANSWER, lambda: True))


def at(server: DnsServer, /, **changes: Any) -> Record:
    return record_at(server, MAIN, BACKUP, **changes)


def held(server: DnsServer) -> str | None:
    values, _ = server.holds(NAME, "A")
    return values[0] if len(values) == 1 else None


# ---------------------------------------------------------------- the key


@pytest.mark.parametrize("call", [reading, changing])
async def test_a_wrong_secret_is_told(server: DnsServer, call: Callable[[Record], Awaitable[RecordError]]) -> None:
    error = await call(at(server, key=SECRETS[ADMIN]))
    assert isinstance(error, RecordRefused)
    if server.kind == "powerdns":
        assert "answered NOTAUTH without a reason: it does not take the key failover." in str(error)
        assert "the secret in `key_file`" in error.mend
    else:
        assert "answered NOTAUTH (BADSIG): the key failover. has another secret there" in str(error)
        assert error.mend == "correct `key_file`"
    assert held(server) == MAIN


@pytest.mark.parametrize("changes", [{"key_name": "nobody."}, {"algorithm": "hmac-sha512"}])
@pytest.mark.parametrize("call", [reading, changing])
async def test_a_key_that_the_server_does_not_know_is_told(
    server: DnsServer, call: Callable[[Record], Awaitable[RecordError]], changes: dict[str, str]
) -> None:
    error = await call(at(server, **changes))
    assert isinstance(error, RecordRefused)
    if server.kind == "powerdns":
        assert "NOTAUTH without a reason" in str(error)
    else:
        assert "answered NOTAUTH (BADKEY): it has no key" in str(error)
    assert changes.get("key_name", KEY_NAME) in str(error)
    assert "key_name" in error.mend
    assert "algorithm" in error.mend
    assert held(server) == MAIN


@pytest.mark.parametrize(("ahead", "side"), [(1000.0, "is behind, by"), (-1000.0, "is ahead, by")])
@pytest.mark.parametrize("call", [reading, changing])
async def test_a_clock_that_is_off_is_told_with_the_difference(
    server: DnsServer, call: Callable[..., Awaitable[RecordError]], ahead: float, side: str
) -> None:
    error = await call(at(server), OtherClock(ahead))
    assert isinstance(error, RecordRefused)
    if server.kind == "powerdns":
        assert "NOTAUTH without a reason" in str(error)
        assert "both clocks" in error.mend
    else:
        told, _, seconds = str(error).partition(f"NOTAUTH (BADTIME): its clock {side} ")
        assert told, error
        assert 900 < float(seconds.removesuffix(" s")) < 1100
        assert error.mend == "set both clocks (NTP)"
    assert held(server) == MAIN


async def test_clocks_may_differ_by_minutes(server: DnsServer) -> None:
    async with port_of(at(server), OtherClock(200.0)) as port:
        assert await port.change(SWAP, ANSWER, lambda: True) == ""
    assert held(server) == BACKUP


@pytest.mark.parametrize("algorithm", ["hmac-md5", "hmac-sha1", "rsa"])
async def test_an_algorithm_that_is_not_offered_is_refused_before_anything_is_sent(
    one_server: DnsServer, algorithm: str
) -> None:
    async with Between(one_server.address) as between:
        error = await reading(at(one_server, server=between.address, algorithm=algorithm))
        assert (between.questions, between.updates) == (0, 0)
    assert isinstance(error, RecordRefused)
    assert algorithm in str(error)
    assert "hmac-sha256" in error.mend


@pytest.mark.parametrize("key", ["", "hush hush", "aHVzaA"])
async def test_a_secret_that_is_no_base64_is_refused_without_telling_it(one_server: DnsServer, key: str) -> None:
    error = await changing(at(one_server, key=key))
    assert isinstance(error, RecordRefused)
    assert "no base64" in str(error)
    assert not key or key not in str(error) + error.mend


async def test_no_error_tells_the_secret(server: DnsServer) -> None:
    wrong = SECRETS[ADMIN]
    record = at(server, key=wrong)
    errors = [await reading(record), await changing(record), await reading(record, OtherClock(1000.0))]
    shown = "".join("".join(traceback.format_exception(error)) + error.mend for error in errors)
    async with port_of(record) as port:
        shown += repr(record) + repr(port) + str(vars(port))
    assert wrong not in shown


# ---------------------------------------------------------------- what the server allows


async def test_a_name_that_the_policy_does_not_cover_is_refused(tmp_path: Path) -> None:
    for kind in ("bind", "knot"):
        with SERVERS[kind](tmp_path, records=("ns1 60 A 127.0.0.1", f"other 60 A {MAIN}")) as server:
            record = record_at(server, MAIN, BACKUP, "other.example.test.")
            error = await changing(record)
            assert isinstance(error, RecordRefused)
            assert "the key failover. may not change A of other.example.test." in str(error)
            if kind == "bind":
                assert "answered the update REFUSED" in str(error)
                assert "grant failover. name other.example.test. A" in error.mend
            else:
                assert "NOTAUTH (BADKEY), though it took the key for the reading" in str(error)
                assert "acl" in error.mend
            assert server.holds("other.example.test.", "A") == ((MAIN,), 60)


async def test_a_key_without_any_right_is_refused(server: DnsServer) -> None:
    error = await changing(at(server, key_name=STRANGER, key=SECRETS[STRANGER]))
    assert isinstance(error, RecordRefused)
    if server.kind == "knot":  # it does not even answer a question that is signed with it
        assert "NOTAUTH (BADKEY): it has no key stranger. for hmac-sha256, or no use for it in this zone" in str(error)
        assert "acl" in error.mend
    else:
        assert "answered the update REFUSED: the key stranger. may not change A of bp.example.test." in str(error)
        assert "update-policy" in error.mend
        assert "TSIG-ALLOW-DNSUPDATE" in error.mend
    assert held(server) == MAIN


async def test_a_secondary_refuses_changes(server: DnsServer, tmp_path: Path) -> None:
    with bind(tmp_path, secondary_of=server) as secondary:
        async with port_of(at(secondary)) as port:
            assert (await port.read(ANSWER)).rrset == SWAP.expected
        error = await changing(at(secondary))
    assert isinstance(error, RecordRefused)
    assert "name the primary server" in error.mend
    assert held(server) == MAIN


# ---------------------------------------------------------------- the zone


async def test_a_name_outside_the_zone_is_refused_before_anything_is_sent(one_server: DnsServer) -> None:
    async with Between(one_server.address) as between:
        record = record_at(one_server, MAIN, BACKUP, "bp.example.org.", server=between.address)
        for error in (await reading(record), await changing(record)):
            assert isinstance(error, RecordRefused)
            assert "bp.example.org. is not in the zone example.test." in str(error)
        assert (between.questions, between.updates) == (0, 0)


@pytest.mark.parametrize("call", [reading, changing])
async def test_a_zone_that_the_server_does_not_have_is_told(
    server: DnsServer, call: Callable[[Record], Awaitable[RecordError]]
) -> None:
    error = await call(record_at(server, MAIN, BACKUP, "bp.example.org.", zone="example.org."))
    assert isinstance(error, RecordRefused)
    assert "answered REFUSED: it has no zone example.org." in str(error)
    assert "`zone`" in error.mend


async def test_a_zone_above_the_one_that_the_server_has_is_told(server: DnsServer) -> None:
    error = await changing(at(server, zone="test."))
    assert isinstance(error, RecordRefused)
    assert "NOTAUTH" in str(error)
    assert "test." in str(error)
    assert "`zone`" in error.mend
    assert held(server) == MAIN


async def test_a_name_that_is_delegated_further_is_told(tmp_path: Path) -> None:
    records = ("ns1 60 A 127.0.0.1", "sub 60 NS ns.elsewhere.example.")
    for start in SERVERS.values():
        with start(tmp_path, records=records) as server:
            record = record_at(server, MAIN, BACKUP, "bp.sub.example.test.")
            for error in (await reading(record), await changing(record)):
                assert isinstance(error, RecordRefused)
                assert "is not authoritative for the zone of bp.sub.example.test." in str(error)
                assert "sub.example.test. is delegated" in str(error)
                assert "name sub.example.test. as `zone`" in error.mend


async def test_an_answer_without_authority_is_refused(one_server: DnsServer) -> None:
    forger = Forger(lambda reply: reply.answer.clear())
    async with Between(one_server.address, ask=forger.ask, answer=forger.answer, updates_only=False) as between:
        record = at(one_server, server=between.address)
        for error in (await reading(record), await changing(record)):
            assert isinstance(error, RecordRefused)
            assert f"{between.address} is not authoritative for the zone example.test." in str(error)
            assert "primary server" in error.mend


# ---------------------------------------------------------------- no answer


async def test_a_server_that_is_down_is_unreachable(server: DnsServer) -> None:
    server.stop()
    for error in (await reading(at(server)), await changing(at(server))):
        assert isinstance(error, RecordUnreachable)
        assert f"{server.address} took no connection" in str(error)
        assert "`server`" in error.mend
    server.start()
    async with port_of(at(server)) as port:
        assert (await port.read(ANSWER)).rrset == SWAP.expected


async def test_a_server_that_hangs_gets_no_change_that_it_could_carry_out_later(server: DnsServer) -> None:
    server.pause()
    bell = Bell()

    def ring(question: bytes) -> bytes:
        asyncio.get_running_loop().call_soon(bell.ring)
        return question

    async with Between(server.address, ask=ring, updates_only=False) as between:
        record = at(server, server=between.address)
        for error in (await reading(record, bell), await changing(record, bell)):
            assert isinstance(error, RecordUnreachable)
            assert f"{between.address} did not answer within 20 s; nothing was changed" in str(error)
        assert between.updates == 0
    server.resume()
    async with port_of(at(server)) as port:
        assert (await port.read(ANSWER)).rrset == SWAP.expected
        assert await port.change(SWAP, ANSWER, lambda: True) == ""
    assert held(server) == BACKUP


async def test_a_server_that_hangs_after_the_reading_leaves_the_effect_unknown(server: DnsServer) -> None:
    bell = Bell()

    def hang(update: bytes) -> bytes:
        server.pause()
        asyncio.get_running_loop().call_soon(bell.ring)
        return update

    async with Between(server.address, ask=hang) as between:
        error = await changing(at(server, server=between.address), bell)
        assert isinstance(error, RecordTimeout)
        assert "did not answer within 20 s, after the update was sent: its effect is unknown" in str(error)
        assert between.updates == 1
    server.resume()
    async with port_of(at(server)) as port:
        assert (await port.read(ANSWER)).rrset in (SWAP.expected, SWAP.wanted)


async def test_a_server_name_without_an_address_is_unreachable(one_server: DnsServer) -> None:
    error = await reading(at(one_server, server=Address("", one_server.address.port)))
    assert isinstance(error, RecordUnreachable)
    assert "took no connection" in str(error)


async def test_a_server_that_dribbles_is_held_to_the_whole_deadline(one_server: DnsServer) -> None:
    ended = asyncio.Event()

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"\x40")
                await writer.drain()
                await asyncio.sleep(0.05)  # noqa: TID251 - a real peer dribbles in real time
        except OSError:
            pass
        finally:
            writer.transport.abort()
            ended.set()

    listener = await asyncio.start_server(dribble, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with port_of(at(one_server, server=Address("127.0.0.1", port))) as slow:
        error = await error_of(slow.read(0.5))
    listener.close()
    assert isinstance(error, RecordUnreachable)
    assert "within 0.5 s" in str(error)
    async with RealHost().timeout(ANSWER):
        await ended.wait()


# ---------------------------------------------------------------- an answer that is lost, or is none


def losing(lost: bytes | None, bell: Bell) -> Callable[[bytes], bytes | None]:
    """Lose what passes; with it the patience of who waits for an answer."""

    def lose(message: bytes) -> bytes | None:
        asyncio.get_running_loop().call_soon(bell.ring)
        return lost

    return lose


@pytest.mark.parametrize(("lost", "words"), [(None, "did not answer within"), (CUT, "closed the connection")])
async def test_a_reply_that_is_lost_leaves_the_effect_unknown_and_is_seen_by_the_next_reading(
    server: DnsServer, lost: bytes | None, words: str
) -> None:
    bell = Bell() if lost is None else None
    async with Between(server.address, answer=losing(lost, bell or Bell())) as between:
        record = at(server, server=between.address)
        error = await changing(record, bell)
        assert isinstance(error, RecordTimeout)
        assert words in str(error)
        assert "its effect is unknown" in str(error)
        assert between.updates == 1
        async with port_of(record) as port:
            assert (await port.read(ANSWER)).rrset == SWAP.wanted


@pytest.mark.parametrize("lost", [None, CUT])
async def test_a_change_that_is_lost_is_not_sent_again(server: DnsServer, lost: bytes | None) -> None:
    bell = Bell()
    async with Between(server.address, ask=losing(lost, bell)) as between:
        error = await changing(at(server, server=between.address), bell)
        assert isinstance(error, RecordTimeout)
        assert between.updates == 1
    assert held(server) == MAIN


@pytest.mark.parametrize("lost", [None, CUT])
async def test_a_reading_that_is_lost_before_a_change_means_that_nothing_was_sent(
    server: DnsServer, lost: bytes | None
) -> None:
    bell = Bell()
    async with Between(server.address, answer=losing(lost, bell), updates_only=False) as between:
        for call in (reading, changing):
            error = await call(at(server, server=between.address), bell)
            assert isinstance(error, RecordUnreachable)
            assert "nothing was changed" in str(error)
        assert between.updates == 0


class Forger:
    """Answers instead of the server: ``forge`` alters an answer without authority, which is then signed as asked."""

    def __init__(
        self,
        forge: Callable[[dns.message.Message], object],
        key: str | None = KEY_NAME,
        secret: str | None = None,
    ) -> None:
        self._forge = forge
        self._key = None if key is None else dns.tsig.Key(key, secret or SECRETS[key])
        self._question = dns.message.Message()

    def ask(self, wire: bytes) -> bytes:
        key = dns.tsig.Key(KEY_NAME, SECRETS[KEY_NAME])
        self._question = dns.message.from_wire(wire, keyring=key)
        return wire

    def answer(self, wire: bytes) -> bytes:
        reply = dns.message.make_response(self._question)
        self._forge(reply)
        reply.tsig = None
        reply.want_tsig_sign = False
        if self._key is not None:
            reply.use_tsig(self._key)
            reply.request_mac = self._question.mac or b""
        return reply.to_wire()


def rcode(code: dns.rcode.Rcode) -> Callable[[dns.message.Message], object]:
    return lambda reply: reply.set_rcode(code)


def unsigned(code: dns.rcode.Rcode) -> Forger:
    return Forger(rcode(code), key=None)


def other_id(reply: dns.message.Message) -> None:
    reply.set_id(reply.id ^ 1)


STRANGE: dict[str, tuple[Callable[[], Forger], str]] = {
    "without a signature": (lambda: unsigned(dns.rcode.NOERROR), "answered NOERROR without a signature"),
    "signed with another secret": (
        lambda: Forger(rcode(dns.rcode.NOERROR), secret=SECRETS[ADMIN]),
        "answered NOERROR with a wrong signature",
    ),
    "signed with another key": (
        lambda: Forger(rcode(dns.rcode.NOERROR), key=ADMIN),
        "answered NOERROR with a wrong signature",
    ),
    "to another question": (lambda: Forger(other_id), "answered another question"),
    "a failure without a signature": (lambda: unsigned(dns.rcode.SERVFAIL), "answered SERVFAIL without a signature"),
}


@pytest.mark.parametrize("case", STRANGE)
async def test_an_answer_that_is_not_the_servers_is_not_believed(one_server: DnsServer, case: str) -> None:
    make, words = STRANGE[case]
    forger = make()
    async with Between(one_server.address, ask=forger.ask, answer=forger.answer) as between:
        error = await changing(at(one_server, server=between.address))
        assert isinstance(error, RecordTimeout)
        assert words in str(error)
        assert between.updates == 1
    assert held(one_server) == BACKUP
    async with Between(one_server.address, ask=forger.ask, answer=forger.answer, updates_only=False) as between:
        error = await reading(at(one_server, server=between.address))
        assert isinstance(error, RecordUnreachable)
        assert words in str(error)


@pytest.mark.parametrize("garbage", [b"", b"\0", b"HTTP/1.1 400 Bad Request", bytes(12), b"\xff" * 600])
async def test_garbage_is_no_answer(one_server: DnsServer, garbage: bytes) -> None:
    async with Between(one_server.address, answer=lambda reply: garbage) as between:
        error = await changing(at(one_server, server=between.address))
        assert isinstance(error, RecordTimeout)
        assert "its effect is unknown" in str(error)
    async with Between(one_server.address, answer=lambda reply: garbage, updates_only=False) as between:
        error = await reading(at(one_server, server=between.address))
        assert isinstance(error, RecordUnreachable)


async def test_a_damaged_answer_is_read_as_it_was_or_not_at_all(one_server: DnsServer) -> None:
    seeded = random.Random(2136)

    def damage(reply: bytes) -> bytes:
        spoilt = bytearray(reply)
        for _ in range(seeded.randint(1, 4)):
            spoilt[seeded.randrange(len(spoilt))] = seeded.randrange(256)
        return bytes(spoilt[: seeded.randint(1, 2 * len(spoilt))])

    async with Between(one_server.address, answer=damage, updates_only=False) as between:
        outcomes = set()
        for _ in range(400):
            async with port_of(at(one_server, server=between.address)) as port:
                try:
                    read = await port.read(ANSWER)
                except (RecordUnreachable, RecordRefused) as error:
                    outcomes.add(type(error).__name__)
                else:
                    assert read.rrset == SWAP.expected
    assert "RecordUnreachable" in outcomes


async def test_a_part_of_an_answer_is_no_answer(one_server: DnsServer) -> None:
    def cut_short(reply: dns.message.Message) -> None:
        reply.flags |= dns.flags.TC | dns.flags.AA

    forger = Forger(cut_short)
    async with Between(one_server.address, ask=forger.ask, answer=forger.answer, updates_only=False) as between:
        for error in (
            await reading(at(one_server, server=between.address)),
            await changing(at(one_server, server=between.address)),
        ):
            assert isinstance(error, RecordUnreachable)
            assert "only a part (TC)" in str(error)
        assert between.updates == 0


# ---------------------------------------------------------------- other answers


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (dns.rcode.SERVFAIL, RecordTimeout, "answered the update SERVFAIL: its effect is unknown"),
        (dns.rcode.NOTIMP, RecordRefused, "answered the update NOTIMP: it takes no dynamic updates"),
        (dns.rcode.FORMERR, RecordRefused, "answered the update FORMERR: it could not read the update"),
        (dns.rcode.NOTZONE, RecordRefused, f"answered the update NOTZONE: {NAME} is not in {ZONE} there"),
        (dns.rcode.NOTAUTH, RecordRefused, f"answered the update NOTAUTH: it is no primary server of {ZONE}"),
        (dns.rcode.Rcode.make(14), RecordTimeout, "answered the update 14: its effect is unknown"),
    ],
)
async def test_each_no_to_a_change_has_its_words(
    one_server: DnsServer, code: dns.rcode.Rcode, kind: type[RecordError], words: str
) -> None:
    forger = Forger(rcode(code))
    async with Between(one_server.address, ask=forger.ask, answer=forger.answer) as between:
        error = await changing(at(one_server, server=between.address))
        assert between.updates == 1
    assert isinstance(error, kind)
    assert words in str(error)


async def test_a_server_that_knows_no_updates_need_not_sign_its_no(one_server: DnsServer) -> None:
    forger = unsigned(dns.rcode.NOTIMP)
    async with Between(one_server.address, ask=forger.ask, answer=forger.answer) as between:
        error = await changing(at(one_server, server=between.address))
    assert isinstance(error, RecordRefused)
    assert "it takes no dynamic updates" in str(error)


async def test_a_refusal_of_a_change_that_is_not_signed_is_not_believed(one_server: DnsServer) -> None:
    forger = unsigned(dns.rcode.REFUSED)
    async with Between(one_server.address, ask=forger.ask, answer=forger.answer) as between:
        error = await changing(at(one_server, server=between.address))
    assert isinstance(error, RecordTimeout)
    assert "REFUSED without a signature" in str(error)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (dns.rcode.SERVFAIL, "answered SERVFAIL: it cannot answer for example.test. now"),
        (dns.rcode.NOTIMP, "answered NOTIMP: it does not know signed questions"),
        (dns.rcode.FORMERR, "answered FORMERR: it could not read a signed question"),
        (dns.rcode.YXDOMAIN, "answered YXDOMAIN: that is no"),
    ],
)
async def test_each_no_to_a_reading_has_its_words(one_server: DnsServer, code: dns.rcode.Rcode, words: str) -> None:
    forger = Forger(rcode(code))
    async with Between(one_server.address, ask=forger.ask, answer=forger.answer, updates_only=False) as between:
        error = await reading(at(one_server, server=between.address))
    assert isinstance(error, RecordRefused)
    assert words in str(error)


async def test_a_call_that_is_given_up_leaves_no_connection(one_server: DnsServer) -> None:
    asked = asyncio.Event()

    def lose(question: bytes) -> None:
        asked.set()

    async with Between(one_server.address, ask=lose, updates_only=False) as between:
        async with port_of(at(one_server, server=between.address)) as port:
            call = asyncio.create_task(port.read(ANSWER))
            async with RealHost().timeout(ANSWER):
                await asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        async with RealHost().timeout(ANSWER):
            await between.idle()


async def test_nobody_listening_is_told_with_the_address(tmp_path: Path) -> None:
    with bind(tmp_path) as server:
        nowhere = free_address()
        error = await reading(at(server, server=nowhere))
    assert str(error).startswith(f"{NAME}: {nowhere} took no connection: ")


def test_the_proxy_tells_updates_from_questions() -> None:
    assert not is_update(dns.message.make_query(NAME, "A").to_wire())
    assert dns.opcode.UPDATE == 5
