"""A record in a zone whose primary server takes dynamic updates (RFC 2136) signed with TSIG (RFC 8945).

Talks to the primary server alone, over TCP, one connection per call. The rules that it keeps:

- Everything is signed with the same key, readings too: a server with views may pick the view by the key, and what is
  read must be what will be changed.
- An update leaves only over a connection on which the name was just read. Hence a hung server gets no update that it
  could carry out later, except when it hangs in the instant between; key, clock and authority are known to be right;
  and what is then refused is the change, not the key (Knot answers both with BADKEY).
- An update is one message, and atomic: prerequisites that make it a compare-and-swap, then the old set deleted and
  the new one added. The name is never left empty.
- ``still_valid`` is asked last, when all that is left is to send. Nothing is ever sent twice.

What BIND 9.18, Knot 3.2 and PowerDNS 4.7 answer is measured; tests/real/test_rfc2136*.py hold it.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TSIG
import dns.rrset
import dns.tsig
import dns.update

from failover.dial import Dial
from failover.errors import (
    RecordConflict,
    RecordError,
    RecordRefused,
    RecordTimeout,
    RecordUnreachable,
)
from failover.model import Change, Instant, Record, RecordReading, RecordType, Rfc2136Zone, RRset
from failover.ports import Host

R = TypeVar("R")

FUDGE = 300  # seconds that clocks may differ; what RFC 8945 recommends

_ALGORITHMS = {
    "hmac-sha224": dns.tsig.HMAC_SHA224,
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}

# A CNAME stands alone at its name: BIND and Knot answer NOERROR to an update that adds one beside other records, and
# leave it out. The deletion in the same update is carried out, so the name would be empty. No prerequisite says
# "nothing else", so what may well stand beside an address is asked for, and required to be absent, one by one.
_BESIDE = tuple(map(dns.rdatatype.from_text, ["NS", "MX", "TXT", "SRV", "CAA", "HTTPS", "SVCB", "SSHFP", "TLSA"]))

# What a server may say without a signature: it did not get as far as to look for the key, or did not find it.
_UNSIGNED_READ = frozenset({dns.rcode.NOTAUTH, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR})
# On a connection that has signed already, only these are left: Knot's denial, and servers without updates.
_UNSIGNED_CHANGE = frozenset({dns.rcode.NOTAUTH, dns.rcode.NOTIMP})

# What an update is answered that had no effect; anything else leaves it unknown.
_CONFLICTS = frozenset({dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN})
_REFUSALS = frozenset({dns.rcode.REFUSED, dns.rcode.NOTAUTH, dns.rcode.NOTZONE, dns.rcode.NOTIMP, dns.rcode.FORMERR})


@dataclass(slots=True)
class _Progress:
    """How far a call has come; decides what an error means."""

    connected: bool = False
    sent: bool = False  # the update


@dataclass(frozen=True, slots=True)
class _Question:
    """A signed message, and what its answer is checked against."""

    message: dns.message.Message
    mac: bytes
    wire: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that belongs to its question. Without ``signed`` it may come from anybody.

    ``error`` is TSIG's own (BADKEY and the like); ``ahead`` is by how many seconds the server's clock is before ours,
    where it told its time.
    """

    message: dns.message.Message
    rcode: dns.rcode.Rcode
    signed: bool
    error: dns.rcode.Rcode = dns.rcode.NOERROR
    ahead: float | None = None


class _Unreadable(Exception):
    """An answer came that cannot be one, or that is not the server's; the text says in what way."""


class _Line:
    """One connection: a signed question, its checked answer, the next."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: dns.tsig.Key, now: Callable[[], Instant]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._key = key
        self._now = now

    def signed(self, message: dns.message.Message) -> _Question:
        """The message with its signature, at the host's time: dnspython itself would ask the system's clock."""
        template = dns.rdtypes.ANY.TSIG.TSIG(  # type: ignore[no-untyped-call]
            dns.rdataclass.ANY, dns.rdatatype.TSIG, self._key.algorithm, 0, FUDGE, b"", message.id, 0, b""
        )
        bare, now = message.to_wire(), int(self._now().utc)
        rdata, _ = dns.tsig.sign(bare, self._key, template, now)  # type: ignore[no-untyped-call]
        message.tsig = dns.rrset.from_rdata(self._key.name, 0, rdata)
        return _Question(message, rdata.mac, message.to_wire())

    async def ask(self, question: _Question, unsigned: frozenset[dns.rcode.Rcode]) -> _Answer:
        """Send the question and take its answer; ``unsigned`` is what is believed without a signature.

        Raises OSError and EOFError of the connection, and _Unreadable.
        """
        self._writer.write(len(question.wire).to_bytes(2) + question.wire)
        size = int.from_bytes(await self._reader.readexactly(2))
        answer = self._checked(question, await self._reader.readexactly(size))
        if not answer.signed and answer.rcode not in unsigned:
            raise _Unreadable(f"answered {_text(answer.rcode)} without a signature")
        return answer

    def _checked(self, question: _Question, wire: bytes) -> _Answer:
        try:
            message = dns.message.from_wire(wire, keyring=False)
            belongs = question.message.is_response(message)
        except (dns.exception.DNSException, ValueError) as error:
            raise _Unreadable("answered what is no DNS message") from error
        if not belongs:
            raise _Unreadable("answered another question")
        rcode = message.rcode()
        if message.tsig is None:
            return _Answer(message, rcode, signed=False)
        tsig = message.tsig[0]
        if not isinstance(tsig, dns.rdtypes.ANY.TSIG.TSIG):
            raise _Unreadable("answered what is no DNS message")
        if tsig.error:
            ahead = int.from_bytes(tsig.other) - self._now().utc if len(tsig.other) == 6 else None
            return _Answer(message, rcode, signed=False, error=dns.rcode.Rcode.make(tsig.error), ahead=ahead)
        try:
            dns.message.from_wire(wire, keyring=self._key, request_mac=question.mac)
        except dns.tsig.BadTime:
            pass  # looked at after the signature, which covers our question: so it is no old answer
        except (dns.exception.DNSException, ValueError) as error:
            raise _Unreadable(f"answered {_text(rcode)} with a wrong signature") from error
        return _Answer(message, rcode, signed=True)


class Rfc2136Port:
    """RecordPort over dynamic updates."""

    def __init__(self, record: Record, zone: Rfc2136Zone, host: Host) -> None:
        self._record = record
        self._provider = zone
        self._host = host
        self._where = f"{record.label}: {zone.server}"
        self._name = dns.name.from_text(record.name)
        self._zone = dns.name.from_text(zone.zone)
        self._types = {dns.rdatatype.from_text(kind.value): kind for kind in sorted(record.types)}
        self._cname = dns.rdatatype.CNAME in self._types
        # A question for any of them finds a CNAME as well.
        addresses = (dns.rdatatype.A, dns.rdatatype.AAAA)
        self._asked = (*addresses, *_BESIDE) if self._cname else tuple(self._types)
        self._dial = Dial(record.label, host)

    async def read(self, timeout: float) -> RecordReading:
        """See RecordPort."""

        async def look(progress: _Progress) -> RecordReading:
            async with self._connected(progress, timeout) as line:
                return await self._look(line)

        return await self._within(timeout, look)

    async def change(self, change: Change, timeout: float, still_valid: Callable[[], bool]) -> str | None:
        """See RecordPort; always settled.

        Prerequisites of RFC 2136 do not compare TTLs: a TTL that differs is a conflict if it is there when the name is
        read right before, and swapped as well if it is set between that and the change.
        """
        if change.expected == change.wanted:
            return ""
        if not change.wanted.values or change.wanted.ttl < 1:
            raise ValueError(f"{self._record.label}: the name would be left empty, or without a TTL: {change.wanted}")

        async def swap(progress: _Progress) -> str | None:
            async with self._connected(progress, timeout) as line:
                self._require(change.expected, await self._look(line))
                question = line.signed(self._update(change))
                if not still_valid():
                    return None
                progress.sent = True
                self._require_done(change, await line.ask(question, _UNSIGNED_CHANGE))
                return ""

        return await self._within(timeout, swap)

    async def settled(self, change_id: str, timeout: float) -> bool:
        """See RecordPort: an update is done when it is answered; secondaries are what verification looks at."""
        return True

    async def close(self) -> None:
        """See RecordPort."""
        self._dial.close()

    # ------------------------------------------------------------ what is asked and told

    async def _look(self, line: _Line) -> RecordReading:
        """What the name holds. One question a type, so a change in between may show two types or none: ask again then.

        Not by asking for ANY: Knot answers that with one type of its choice.
        """
        reading = await self._look_once(line)
        if len(self._asked) > 1 and (reading.rrset is None or reading.unownable is not None):
            reading = await self._look_once(line)
        return reading

    async def _look_once(self, line: _Line) -> RecordReading:
        found: dict[dns.rdatatype.RdataType, dns.rrset.RRset] = {}
        for kind in self._asked:
            query = dns.message.make_query(self._name, kind, flags=0)
            answer = await line.ask(line.signed(query), _UNSIGNED_READ)
            found |= self._held(answer)
            if dns.rdatatype.CNAME in found or answer.rcode == dns.rcode.NXDOMAIN:
                break  # there can be nothing else
        return self._reading(found)

    def _held(self, answer: _Answer) -> dict[dns.rdatatype.RdataType, dns.rrset.RRset]:
        """What one answer says of the name. Raises RecordRefused, and _Unreadable for a part of an answer."""
        if answer.rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise self._refused_reading(answer)
        if answer.message.flags & dns.flags.TC:
            raise _Unreadable("answered only a part (TC), over TCP")
        if not answer.message.flags & dns.flags.AA:
            raise self._no_authority(answer)
        return {
            rrset.rdtype: rrset
            for rrset in answer.message.answer
            if rrset.name == self._name and rrset.rdclass == dns.rdataclass.IN
        }

    def _reading(self, found: dict[dns.rdatatype.RdataType, dns.rrset.RRset]) -> RecordReading:
        ours = [_rrset(self._types[kind], rrset) for kind, rrset in found.items() if kind in self._types]
        beside = [dns.rdatatype.to_text(kind) for kind in found if kind not in self._types]
        only = ours[0] if len(ours) == 1 else None
        if len(ours) > 1:
            kinds = " and ".join(rrset.type.value for rrset in ours)
            return RecordReading(None, f"holds {kinds} at once, of which this record may have one at a time")
        if dns.rdatatype.CNAME in found and not self._cname:
            target = _rrset(RecordType.CNAME, found[dns.rdatatype.CNAME]).values[0]
            return RecordReading(None, f"holds a CNAME ({target}), and this record has addresses only")
        if self._cname and beside:
            words = f"holds {', '.join(beside)}, beside which a CNAME cannot stand, and this record has a CNAME"
            return RecordReading(only, words)
        return RecordReading(only)

    def _require(self, expected: RRset | None, reading: RecordReading) -> None:
        """Raises RecordConflict when the name no longer holds what is expected; nothing was sent."""
        held = reading.rrset
        if reading.unownable is not None:
            raise RecordConflict(
                f"{self._where}: {self._record.name} was changed by another hand: it {reading.unownable}",
                "remove what another hand has put there",
            )
        ttl_apart = held is not None and expected is not None and held.ttl != expected.ttl
        if _content(held) != _content(expected) or ttl_apart:  # prerequisites do not compare TTLs
            raise RecordConflict(
                f"{self._where}: {self._record.name} was changed by another hand: it holds {held or 'nothing'}, "
                f"and not {expected or 'nothing'}",
                "nothing: it is read again first",
            )

    def _update(self, change: Change) -> dns.update.UpdateMessage:
        update = dns.update.UpdateMessage(self._zone)
        absent = {*self._asked, dns.rdatatype.CNAME}
        if change.expected is not None:
            expected = dns.rdatatype.from_text(change.expected.type.value)
            update.present(self._name, expected, *change.expected.values)
            update.delete(self._name, expected)
            absent.discard(expected)
        for kind in sorted(absent):
            update.absent(self._name, kind)
        # After the deletion: otherwise a CNAME would be left out as long as the address stands (RFC 2136, 3.4.2.2).
        update.add(self._name, change.wanted.ttl, change.wanted.type.value, *change.wanted.values)
        return update

    # ------------------------------------------------------------ what an answer means

    def _require_done(self, change: Change, answer: _Answer) -> None:
        """Raises what anything but yes means. SERVFAIL may follow the change, where updates are forwarded."""
        if answer.rcode == dns.rcode.NOERROR:
            return
        told = f"{self._where} answered the update {_told(answer)}"
        if answer.rcode in _CONFLICTS:
            expected = f"just held {change.expected}" if change.expected else "was just free"
            raise RecordConflict(
                f"{told}: {self._record.name} {expected}, and no longer does, or holds something beside",
                "nothing: it is read again first; if it goes on, look for a wildcard that answers for the name, and "
                "with PowerDNS for a record that was written past DNS (an IPv6 address not in its shortest form)",
            )
        if answer.rcode in _REFUSALS:
            raise self._refused_change(change, answer, told)
        raise RecordTimeout(f"{told}: its effect is unknown", "look into its log")

    def _refused_change(self, change: Change, answer: _Answer, told: str) -> RecordRefused:
        kinds = sorted({rrset.type.value for rrset in (change.expected, change.wanted) if rrset is not None})
        key = self._provider.key_name
        what = f"the key {key} may not change {' and '.join(kinds)} of {self._record.name}"
        if answer.error in (dns.rcode.BADTIME, dns.rcode.BADSIG):
            return self._refused_key(answer, told)
        if answer.error == dns.rcode.BADKEY:
            return RecordRefused(
                f"{told}, though it took the key for the reading before: {what}",
                "allow it there (Knot: an acl of the zone with this key, `action: update`, these types and this name)",
            )
        if answer.rcode == dns.rcode.REFUSED:
            return RecordRefused(
                f"{told}: {what}",
                f"allow it there (BIND: `grant {key} name {self._record.name} {' '.join(kinds)}` in update-policy; "
                "PowerDNS: dnsupdate=yes, TSIG-ALLOW-DNSUPDATE, allow-dnsupdate-from), and name the primary server",
            )
        words, mend = {
            dns.rcode.NOTAUTH: (f"it is no primary server of {self._provider.zone}", "correct `server` or `zone`"),
            dns.rcode.NOTZONE: (f"{self._record.name} is not in {self._provider.zone} there", "correct `zone`"),
            dns.rcode.NOTIMP: ("it takes no dynamic updates", "name a server that does, or allow them there"),
            dns.rcode.FORMERR: ("it could not read the update", "look into its log"),
        }[answer.rcode]
        return RecordRefused(f"{told}: {words}", mend)

    def _refused_reading(self, answer: _Answer) -> RecordRefused:
        told = f"{self._where} answered {_told(answer)}"
        if answer.rcode == dns.rcode.NOTAUTH:
            return self._refused_key(answer, told)
        zone = self._provider.zone
        words, mend = {
            dns.rcode.REFUSED: (
                f"it has no zone {zone}, or does not let us ask",
                "correct `server` or `zone`, or allow queries from here",
            ),
            dns.rcode.SERVFAIL: (f"it cannot answer for {zone} now", "see in its log whether the zone is loaded"),
            dns.rcode.NOTIMP: ("it does not know signed questions", "name a server with TSIG"),
            dns.rcode.FORMERR: ("it could not read a signed question", "name a server with TSIG"),
        }.get(answer.rcode, ("that is no", "look into its log"))
        return RecordRefused(f"{told}: {words}", mend)

    def _refused_key(self, answer: _Answer, told: str) -> RecordRefused:
        """NOTAUTH to a question, or a kind of it that is about the key alone."""
        key, algorithm = self._provider.key_name, self._provider.algorithm
        if answer.error == dns.rcode.BADTIME:
            by = "" if answer.ahead is None else f", by {abs(answer.ahead):.0f} s"
            side = "differs from ours" if answer.ahead is None else "is ahead" if answer.ahead > 0 else "is behind"
            return RecordRefused(f"{told}: its clock {side}{by}", "set both clocks (NTP)")
        if answer.error == dns.rcode.BADSIG:
            return RecordRefused(f"{told}: the key {key} has another secret there", "correct `key_file`")
        if answer.error == dns.rcode.BADKEY:
            return RecordRefused(
                f"{told}: it has no key {key} for {algorithm}, or no use for it in this zone",
                "correct `key_name` or `algorithm`, or add the key there (Knot: also to an acl of the zone)",
            )
        if answer.error or answer.signed:
            return RecordRefused(f"{told}: it does not take the key {key}", "look into its log")
        return RecordRefused(
            f"{told} without a reason: it does not take the key {key}",
            "compare `key_name`, the secret in `key_file`, `algorithm`, and both clocks (PowerDNS does not say which)",
        )

    def _no_authority(self, answer: _Answer) -> RecordRefused:
        for rrset in answer.message.authority:
            if rrset.rdtype == dns.rdatatype.NS and rrset.name != self._zone and rrset.name.is_subdomain(self._zone):
                return RecordRefused(
                    f"{self._where} is not authoritative for the zone of {self._record.name}: "
                    f"{rrset.name} is delegated to other servers",
                    f"name {rrset.name} as `zone`, and its primary server as `server`",
                )
        return RecordRefused(
            f"{self._where} is not authoritative for the zone {self._provider.zone}",
            "name the zone's primary server as `server`",
        )

    # ------------------------------------------------------------ the connection

    async def _within(self, timeout: float, call: Callable[[_Progress], Awaitable[R]]) -> R:
        """Run ``call`` under one deadline, and say what went wrong by how far it came."""
        if not self._name.is_subdomain(self._zone):
            raise RecordRefused(
                f"{self._where}: {self._record.name} is not in the zone {self._provider.zone}", "correct `zone`"
            )
        progress = _Progress()
        try:
            async with self._host.timeout(timeout):
                return await call(progress)
        except TimeoutError as error:
            what = "did not answer" if progress.connected else "took no connection"
            raise self._broken(progress, f"{what} within {timeout:g} s") from error
        except _Unreadable as error:
            raise self._broken(progress, str(error)) from error
        except EOFError as error:
            raise self._broken(progress, "closed the connection without a whole answer") from error
        except OSError as error:
            what = f"broke off: {_reason(error)}" if progress.connected else f"took no connection: {_reason(error)}"
            raise self._broken(progress, what) from error

    def _broken(self, progress: _Progress, what: str) -> RecordError:
        if progress.sent:
            return RecordTimeout(
                f"{self._where} {what}, after the update was sent: its effect is unknown",
                "nothing: the name is read again first; if it goes on, see whether the server hangs",
            )
        if progress.connected:
            return RecordUnreachable(
                f"{self._where} {what}; nothing was changed", "see whether it is the name server, and hangs"
            )
        return RecordUnreachable(
            f"{self._where} {what}", "check `server`, that it listens on TCP, routing and firewalls"
        )

    @asynccontextmanager
    async def _connected(self, progress: _Progress, timeout: float) -> AsyncIterator[_Line]:
        key = _key(self._provider, self._where)
        reader, writer = await self._dial.open(self._provider.server, timeout)
        try:
            progress.connected = True
            yield _Line(reader, writer, key, self._host.now)
        finally:
            writer.transport.abort()  # close() would wait for a peer that hangs


def _key(zone: Rfc2136Zone, where: str) -> dns.tsig.Key:
    """The key, made for one call. It must not get into an error: its repr shows the secret. Raises RecordRefused."""
    algorithm = _ALGORITHMS.get(zone.algorithm.lower())
    if algorithm is None:
        raise RecordRefused(
            f"{where}: the TSIG algorithm {zone.algorithm!r} is not known", f"use one of {', '.join(_ALGORITHMS)}"
        )
    try:
        secret = base64.b64decode(zone.key, validate=True)
    except ValueError:
        secret = b""
    if not secret:
        raise RecordRefused(f"{where}: the secret of the key {zone.key_name} is no base64", "correct `key_file`")
    return dns.tsig.Key(dns.name.from_text(zone.key_name), secret, algorithm)


def _rrset(kind: RecordType, rrset: dns.rrset.RRset) -> RRset:
    """Values in canonical text, sorted."""
    texts = (rdata.to_text() for rdata in rrset)
    if kind is RecordType.CNAME:
        return RRset(kind, tuple(sorted(text.lower() for text in texts)), rrset.ttl)
    return RRset(kind, tuple(sorted(str(ipaddress.ip_address(text)) for text in texts)), rrset.ttl)


def _content(rrset: RRset | None) -> tuple[RecordType, tuple[str, ...]] | None:
    """What is compared of a set: all but its TTL."""
    return None if rrset is None else (rrset.type, rrset.values)


def _told(answer: _Answer) -> str:
    rcode = _text(answer.rcode)
    return f"{rcode} ({dns.rcode.to_text(answer.error, tsig=True)})" if answer.error else rcode


def _text(rcode: dns.rcode.Rcode) -> str:
    return str(dns.rcode.to_text(rcode))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
