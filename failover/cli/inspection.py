"""What ``failover check`` looks at, read-only: producers, references, proxies, records, the state folder, the clock.

Everything is asked at the same time, each part within its own deadline. Nothing is changed anywhere.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from failover.errors import FailoverError, GateError, PingError, StoreUnusable
from failover.gates.haproxy import proxy_port
from failover.model import (
    Address,
    Admin,
    Check,
    DnsAnswer,
    Fault,
    GateKind,
    Pool,
    Producer,
    Proxy,
    ProxyReading,
    Record,
    RecordReading,
    RRset,
    ServerView,
    Tip,
)
from failover.ouroboros.ping import Resolver, ping
from failover.ports import Host, RecordPort, VerifyPort
from failover.records import record_port, verify_port
from failover.signposts import agrees
from failover.store import folder as state_folder
from failover.store.sqlite import FILE, SqliteStore

MOST_ANSWER = 4 << 20
GRACE = 1.0  # seconds beyond its timeout after which a record's port is given up on
ROOM = 64 << 20  # bytes that the state folder should have free
# Unix time = slot + offset, since Shelley; facts of the networks' genesis files.
OFFSETS = {764824073: 1591566291, 1: 1655683200, 2: 1666656000}
AHEAD, BEHIND = 60.0, 600.0  # seconds that the best tip may be ahead of the clock, or behind
UNSYNCHRONISED = 5  # adjtimex(2): TIME_ERROR


class Severity(StrEnum):
    """How bad a finding is. Errors and warnings make ``check`` fail; a note only says what could not be told."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Found:
    """One finding about one part, with what to do about it."""

    severity: Severity
    part: str
    what: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class _Pinged:
    """What came of one ping, and the tip if it succeeded."""

    found: Found
    tip: Tip | None


async def everything(pool: Pool, host: Host) -> list[Found]:
    """All findings, by part."""
    timeout = pool.health.timeout
    resolver = Resolver(host)
    try:
        async with asyncio.TaskGroup() as group:
            producers = [
                group.create_task(_ping(host, pool, f"producer {p.name}", p.address, timeout, resolver))
                for p in pool.producers
            ]
            references = [
                group.create_task(_ping(host, pool, f"reference {a}", a, timeout, resolver)) for a in pool.references
            ]
            proxies = [group.create_task(_proxy(host, pool, proxy, timeout, resolver)) for proxy in pool.proxies]
            signposts = group.create_task(records(pool, host))
    finally:
        resolver.close()
    pinged = [task.result() for task in (*producers, *references)]
    read = [task.result() for task in proxies]
    return [
        *(p.found for p in pinged),
        *_tips(pool, [task.result() for task in producers]),
        *(found for findings, _ in read for found in findings),
        *_open(pool, [(proxy, reading) for proxy, (_, reading) in zip(pool.proxies, read, strict=True)]),
        *signposts.result(),
        *state(pool),
        *clock(pool, [p.tip for p in pinged if p.tip is not None], host.now().utc),
    ]


# ---------------------------------------------------------------- nodes


async def _ping(host: Host, pool: Pool, part: str, address: Address, timeout: float, resolver: Resolver) -> _Pinged:
    try:
        result = await ping(host, address, pool.magic, timeout, resolver=resolver)
    except PingError as error:
        severity = Severity.ERROR if part.startswith("producer") else Severity.WARNING
        return _Pinged(Found(severity, part, str(error), error.mend), None)
    words = f"{address} answers in {result.duration_ms:.0f} ms, tip at slot {result.tip.slot}"
    return _Pinged(Found(Severity.OK, part, words), result.tip)


def _tips(pool: Pool, producers: Sequence[_Pinged]) -> list[Found]:
    """A producer that lags is not fit; a reference may be anyone's, so producers are compared with each other."""
    slots = [p.tip.slot for p in producers if p.tip is not None]
    return [
        Found(
            Severity.WARNING,
            f"producer {producer.name}",
            f"its tip is {max(slots) - pinged.tip.slot} slots behind another producer's",
            "let it catch up: a producer that lags is not made active",
        )
        for producer, pinged in zip(pool.producers, producers, strict=True)
        if pinged.tip is not None and max(slots) - pinged.tip.slot > pool.health.max_lag
    ]


# ---------------------------------------------------------------- proxies


async def _proxy(
    host: Host, pool: Pool, proxy: Proxy, timeout: float, resolver: Resolver
) -> tuple[list[Found], ProxyReading | None]:
    part = f"proxy {proxy.name}"
    try:
        port = proxy_port(proxy, host)
        try:
            reading = await port.read(timeout)
        finally:
            await port.close()
    except (GateError, FailoverError) as error:
        return [Found(Severity.ERROR, part, str(error), error.mend)], None
    servers = ", ".join(f"{name} {s.admin.value} {s.status}" for name, s in reading.servers.items())
    version = f" (HAProxy {reading.version})" if reading.version else ""
    findings = [Found(Severity.OK, part, f"answers{version}; {proxy.backend}: {servers}")]
    for producer in pool.producers:
        findings.extend(await _server(proxy, producer, reading.servers[producer.name], resolver, timeout))
    findings.append(await _rights(host, proxy, timeout))
    return findings, reading


async def _server(
    proxy: Proxy, producer: Producer, server: ServerView, resolver: Resolver, timeout: float
) -> list[Found]:
    part = f"proxy {proxy.name}"
    name = f"server {proxy.servers[producer.name]}"
    found = []
    if server.address is None:
        mend = "let HAProxy show addresses (`stats show-legends`), or compare its configuration with the file"
        found.append(Found(Severity.WARNING, part, f"{name}: whether it is {producer.name} cannot be told", mend))
    elif not await _leads_to(server.address, producer.address, resolver, timeout):
        words = f"{name} leads to {server.address}, and {producer.name} is at {producer.address}"
        found.append(Found(Severity.ERROR, part, words, "correct the file (`servers`), or HAProxy's configuration"))
    if server.check is Check.PASSED_L4:
        words = f"{name}: its check only connects, so a producer that hangs looks alive"
        mend = "use the check of the reference configuration (failover render haproxy)"
        found.append(Found(Severity.WARNING, part, words, mend))
    elif server.check is Check.FAILED and server.admin is Admin.MAINT and GateKind.FIREWALL in producer.gates:
        words = f"{name}: HAProxy's check of {producer.name} fails, as it does while its firewall gate is closed"
        found.append(Found(Severity.NOTE, part, words))
    elif server.check is Check.FAILED:
        words = f"{name}: HAProxy's check of {producer.name} fails"
        found.append(Found(Severity.WARNING, part, words, "see whether the proxy's host reaches the producer"))
    return found


async def _leads_to(shown: str, address: Address, resolver: Resolver, timeout: float) -> bool:
    """Whether HAProxy's word for where a server is means the producer's address, names looked up."""
    if shown in (str(address), f"{address.host}:{address.port}"):
        return True
    try:
        found = await resolver(address.host, address.port, timeout)
    except (PingError, TimeoutError):
        return False
    return shown in {str(each) for each in found}


async def _rights(host: Host, proxy: Proxy, timeout: float) -> Found:
    part = f"proxy {proxy.name}"
    try:
        async with host.timeout(timeout):
            level = await (_level(proxy.socket) if proxy.socket is not None else _page(host, proxy, timeout))
    except (OSError, EOFError, ValueError, FailoverError) as error:
        words = f"whether servers may be moved there cannot be told ({error or 'no answer in time'})"
        return Found(Severity.NOTE, part, words)
    if level == "admin":
        return Found(Severity.OK, part, "servers may be moved there")
    if proxy.socket is not None:
        mend = "add `level admin` to the `stats socket` line that proxies.socket names"
        return Found(Severity.ERROR, part, f"servers may not be moved there: the socket has level {level!r}", mend)
    mend = "add `stats admin if TRUE` (or a narrower rule) where `stats enable` stands"
    return Found(Severity.ERROR, part, "servers may not be moved there: the stats page is read-only", mend)


async def _level(socket: Path | Address) -> str:
    """The socket's level: user, operator or admin (``show cli level`` changes nothing)."""
    if isinstance(socket, Path):
        reader, writer = await asyncio.open_unix_connection(socket)
    else:
        reader, writer = await asyncio.open_connection(socket.host, socket.port)
    try:
        writer.write(b"show cli level\n")
        answer = await reader.read(1000)
    finally:
        writer.transport.abort()
    level = answer.decode("ascii", "replace").strip()
    if level not in ("user", "operator", "admin"):
        raise ValueError(f"`show cli level` was answered {level[:40]!r}")
    return level


async def _page(host: Host, proxy: Proxy, timeout: float) -> str:
    """``admin`` when the stats page offers its form to change servers."""
    import requests

    def get() -> str:
        with requests.Session() as session:
            session.trust_env = False
            if proxy.username is not None:
                session.auth = (proxy.username, proxy.password or "")
            session.verify = str(proxy.ca_file) if proxy.ca_file is not None else True
            if proxy.cert_file is not None:
                session.cert = (str(proxy.cert_file), str(proxy.key_file or proxy.cert_file))
            with session.get(str(proxy.stats), timeout=timeout, stream=True, allow_redirects=False) as response:
                return response.raw.read(MOST_ANSWER, decode_content=True).decode("utf-8", "replace")

    worker = host.worker(f"{proxy.name} page")
    try:
        page = await worker.call(get, timeout)
    finally:
        worker.close()
    return "admin" if re.search(r"""name=["']?action["']?""", page) else "read-only"


def _open(pool: Pool, read: Sequence[tuple[Proxy, ProxyReading | None]]) -> list[Found]:
    """Who is open where: more than one producer is what this program is there to prevent."""
    doors = {
        name: [proxy.name for proxy, reading in read if reading is not None and reading.servers[name].serves]
        for name in pool.names
    }
    present = [name for name, where in doors.items() if where]
    if len(present) > 1:
        words = "; ".join(f"{name} in {', '.join(doors[name])}" for name in present)
        mend = "let the daemon run, or close one of them by hand (failover explain --commands)"
        return [Found(Severity.WARNING, "proxies", f"more than one producer is open: {words}", mend)]
    if read and not present and any(reading is not None for _, reading in read):
        return [Found(Severity.WARNING, "proxies", "no producer is open and up in any proxy that answers", "")]
    return []


# ---------------------------------------------------------------- records


async def records(
    pool: Pool,
    host: Host,
    provider: Callable[[Record, Host], RecordPort] = record_port,
    verifier: Callable[[Record, Host], VerifyPort] = verify_port,
) -> list[Found]:
    """What each record's provider holds, and what servers tell the world; all of it at the same time."""
    timeout = pool.lease.action_timeout
    async with asyncio.TaskGroup() as group:
        read = [group.create_task(_held(record, provider, host, timeout)) for record in pool.records]
        told = [group.create_task(_told(record, verifier, host, timeout)) for record in pool.records]
    found: list[Found] = []
    pointed: dict[str, str] = {}
    for record, held, answers in zip(pool.records, (t.result() for t in read), (t.result() for t in told), strict=True):
        found.extend([held] if isinstance(held, Found) else _reading(record, held))
        known = held if isinstance(held, RecordReading) and held.unownable is None else None
        found.extend([answers] if isinstance(answers, Found) else _answers(record, answers, known))
        whose = None if known is None else record.points_to(known.rrset)
        if whose is not None:
            pointed[record.label] = whose
    if len(set(pointed.values())) > 1:
        words = ", ".join(f"{label} to {whose}" for label, whose in pointed.items())
        mend = "let the daemon run: it points all of them to the active producer"
        found.append(Found(Severity.WARNING, "records", f"they point to different producers: {words}", mend))
    return found


async def _held(
    record: Record, provider: Callable[[Record, Host], RecordPort], host: Host, timeout: float
) -> RecordReading | Found:
    try:
        port = provider(record, host)
        try:
            async with host.timeout(timeout + GRACE):
                return await port.read(timeout)
        finally:
            await port.close()
    except (FailoverError, TimeoutError) as error:
        return _failed(Severity.ERROR, record, error, f"its provider did not answer within {timeout:g} s")


async def _told(
    record: Record, verifier: Callable[[Record, Host], VerifyPort], host: Host, timeout: float
) -> tuple[DnsAnswer, ...] | Found:
    try:
        port = verifier(record, host)
        try:
            async with host.timeout(timeout + GRACE):
                return await port.look(timeout)
        finally:
            await port.close()
    except (FailoverError, TimeoutError) as error:
        return _failed(Severity.WARNING, record, error, f"its servers did not answer within {timeout:g} s")


def _failed(severity: Severity, record: Record, error: Exception, late: str) -> Found:
    words = str(error).removeprefix(f"{record.label}: ") or late
    mend = getattr(error, "mend", "") or "see whether this machine reaches it, and whether it answers others"
    return Found(severity, f"record {record.label}", words, mend)


def _reading(record: Record, reading: RecordReading) -> list[Found]:
    """What its provider holds: one producer's address with the TTL of the file, or what is wrong with it."""
    part, rrset, whose = f"record {record.label}", reading.rrset, record.points_to(reading.rrset)
    if reading.unownable is not None:
        mend = "make it a plain record with one producer's address by hand, or give the pool another name"
        return [Found(Severity.ERROR, part, f"it cannot be moved: it {reading.unownable}", mend)]
    if rrset is None:
        first = next(iter(record.targets))
        mend = f"make it by hand, as it is to be for the active producer (for {first}: {record.wanted(first)})"
        words = "its provider holds nothing: relays are told that there is no such name, and ask again after 900 s"
        return [Found(Severity.ERROR, part, words, mend)]
    if len(rrset.values) > 1:
        mend = "leave one by hand, or let the daemon do it"
        words = f"its provider holds several values, of which relays take any: {rrset}"
        return [Found(Severity.WARNING, part, words, mend)]
    if whose is None:
        mend = "correct `addresses`, or the record by hand; the daemon points it to the active producer"
        return [Found(Severity.WARNING, part, f"it points to no producer of the file: {rrset}", mend)]
    if rrset.ttl != record.ttl:
        known = ", which cardano-node takes for 900 s" if rrset.ttl == 0 else ""
        words = f"it points to {whose} with TTL {rrset.ttl}{known}, and the file says {record.ttl}"
        return [Found(Severity.WARNING, part, words, "let the daemon set it, or correct it by hand")]
    return [Found(Severity.OK, part, f"it points to {whose}: {rrset}")]


def _answers(record: Record, answers: Sequence[DnsAnswer], held: RecordReading | None) -> list[Found]:
    """What each server says, against what the provider holds; by itself where that is not known."""
    part = f"record {record.label}"
    right = [a.server for a in answers if a.fault is None and held is not None and agrees(a, held.rrset)]
    found = [Found(Severity.OK, part, f"as its provider says: {', '.join(right)}")] if right else []
    for answer in answers:
        if answer.fault is not None:
            found.append(_faulty(part, answer))
        elif held is None:
            whose = record.points_to(answer.rrset)
            words = f"{answer.server} says {_said(answer)}" + (f", which is {whose}'s" if whose else "")
            found.append(Found(Severity.NOTE, part, f"{words}; whether its provider says so too cannot be told"))
        elif answer.server not in right:
            found.append(_differing(part, answer, held.rrset))
    return found


def _faulty(part: str, answer: DnsAnswer) -> Found:
    if answer.fault is Fault.LAME:
        mend = f"take {answer.server} out of the zone's NS records, or let it serve the zone"
        words = f"{answer.server} is lame: it should have authority, and {answer.error or 'has none'}"
        return Found(Severity.WARNING, part, words, mend)
    mend = "see whether it runs, and whether this machine reaches it (port 53, UDP and TCP); or name others (`verify`)"
    return Found(Severity.WARNING, part, f"{answer.server} gives no answer: {answer.error or 'silence'}", mend)


def _differing(part: str, answer: DnsAnswer, rrset: RRset | None) -> Found:
    said = answer.rrset
    if said is not None and rrset is not None and (said.type, said.values) == (rrset.type, rrset.values):
        words = f"{answer.server} has TTL {said.ttl}, and its provider {rrset.ttl}"
    else:
        words = f"{answer.server} says {_said(answer)}, and its provider holds {rrset or 'nothing'}"
    mend = "wait a minute for a change that has just been made; else see whether the server gets the zone's changes"
    if not answer.authoritative:
        mend = "wait until its time to live is over; else the resolver has its own idea of this name"
    return Found(Severity.WARNING, part, words, mend)


def _said(answer: DnsAnswer) -> str:
    return str(answer.rrset) if answer.rrset is not None else "that there is no such name"


# ---------------------------------------------------------------- the state folder


def state(pool: Pool) -> list[Found]:
    """Whether the folder can hold the state: a folder, local, writable for whoever asks, with room, undamaged."""
    part, folder = "state", pool.state
    if not folder.exists():
        above = next(each for each in folder.parents if each.exists())
        if os.access(above, os.W_OK | os.X_OK):
            return [Found(Severity.OK, part, f"{folder} is made when the daemon starts"), *_room(above)]
        mend = f"make it, and let the daemon's user own it (install -d -m 700 -o USER {folder})"
        return [Found(Severity.ERROR, part, f"{folder} does not exist, and {above} is not writable", mend)]
    if not folder.is_dir():
        return [Found(Severity.ERROR, part, f"{folder} is not a folder", "name another one under `state:`")]
    found = _room(folder)
    if kind := state_folder.network_file_system(folder):
        found.append(
            Found(Severity.ERROR, part, f"{folder} is on a network file system ({kind})", "use a folder on a disk")
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        mend = "run check as the daemon's user; if it is that user, let it own the folder"
        found.append(Found(Severity.WARNING, part, f"{folder} is not writable for user id {os.geteuid()}", mend))
    elif (folder / FILE).exists():
        found.extend(_store(pool))
    return found or [Found(Severity.OK, part, f"{folder} is writable and has room")]


def _store(pool: Pool) -> list[Found]:
    try:
        store = SqliteStore.read(pool.state, pool.name)
        try:
            assignment = store.load().assignment
        finally:
            store.close()
    except StoreUnusable as error:
        return [Found(Severity.ERROR, "state", str(error), error.mend)]
    words = "no assignment yet" if assignment is None else f"{assignment.active} is assigned, {assignment.phase.value}"
    return [Found(Severity.OK, "state", f"{pool.state}: {words}")]


def _room(folder: Path) -> list[Found]:
    free = shutil.disk_usage(folder).free
    if free >= ROOM:
        return []
    words = f"only {free / (1 << 20):.1f} MiB are free on the file system of {folder}"
    return [Found(Severity.WARNING, "state", words, "make room: no handover begins when its journal finds none")]


# ---------------------------------------------------------------- the clock


def clock(
    pool: Pool, tips: Sequence[Tip], utc: float, adjtimex: Callable[[], int | None] = lambda: _adjtimex()
) -> list[Found]:
    """Whether UTC is about right, by the best tip where slots have known times, and by the kernel's word."""
    part, offset = "clock", OFFSETS.get(pool.magic)
    if offset is not None and tips:
        late = utc - (max(tip.slot for tip in tips) + offset)
        if late < -AHEAD:
            words = f"this machine's clock is at least {-late:.0f} s behind: the best tip lies in its future"
            return [Found(Severity.ERROR, part, words, "synchronise it (timedatectl set-ntp true)")]
        if late > BEHIND:
            words = f"the best tip is {late:.0f} s old: this machine's clock is ahead, or no node here is in sync"
            return [Found(Severity.WARNING, part, words, "see timedatectl, and the nodes")]
    if adjtimex() == UNSYNCHRONISED:
        words = "the kernel does not know of a time server; the times in the journal may be off"
        return [Found(Severity.NOTE, part, words, "see timedatectl (in a container: on its host)")]
    return [Found(Severity.OK, part, "about right")]


def _adjtimex() -> int | None:
    """The kernel's opinion of its clock (adjtimex(2), which with modes 0 only reads), or None where it has none."""
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    except (OSError, AttributeError):
        return None
