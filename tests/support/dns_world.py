"""Real name servers on loopback: BIND, Knot and PowerDNS, each with one zone, three keys and a policy.

``with bind(folder) as server:`` starts one; ``knot`` and ``powerdns`` alike. Each has a folder and a port of its own,
speaks to loopback alone, and is ended by its process id. ``Between`` is a TCP proxy that may lose or change what
passes between a client and a server.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time  # noqa: TID251 - real servers, real time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rrset
import pytest

from failover.model import Address, Record, Rfc2136Zone

ZONE = "example.test."
NAME = "bp.example.test."  # what the key ``failover.`` may change
RECORDS = ("ns1 60 A 127.0.0.1", "bp 60 A 192.0.2.10")
ALGORITHM = "hmac-sha256"
START = 15.0  # seconds; an upper bound for starting, ending, and for a transfer
POLL = 0.01  # seconds

KEY_NAME = "failover."  # may change NAME (of PowerDNS: anything in the zone)
ADMIN = "admin."  # another hand: may change anything in the zone
STRANGER = "stranger."  # known to the server, and allowed to change nothing
SECRETS = {name: base64.b64encode((name * 64)[:64].encode()).decode() for name in (KEY_NAME, ADMIN, STRANGER)}

_PROGRAMS = ("named", "nsupdate", "knotd", "pdns_server", "pdnsutil")
_SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")


def require_dns() -> None:
    """Skip where a server is missing; fail there when they were asked for (FAILOVER_REQUIRE=dns or all)."""
    missing = [name for name in _PROGRAMS if _program(name) is None]
    if not _SCHEMA.exists():
        missing.append("pdns-backend-sqlite3")
    if not missing:
        return
    reason = f"{', '.join(missing)}: not installed (apt-get install bind9 bind9-dnsutils knot pdns-server ...-sqlite3)"
    if {"dns", "all"} & set(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split()):
        pytest.fail(f"FAILOVER_REQUIRE asks for name servers: {reason}")
    pytest.skip(reason)


def free_address(host: str = "127.0.0.1") -> Address:
    """An address whose port is free for TCP and UDP at the moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            port = tcp.getsockname()[1]
            with suppress(OSError):
                udp.bind((host, port))
                return Address(host, port)


class DnsServer:
    """One real server. ``key_name``, ``key`` and ``algorithm`` sign changes of ``NAME``."""

    kind = ""

    def __init__(
        self,
        folder: Path,
        address: Address,
        *,
        zone: str,
        records: Sequence[str],
        algorithm: str,
        notify: Sequence[Address],
        secondary_of: DnsServer | None,
    ) -> None:
        self.folder = folder
        self.address = address
        self.zone = zone
        self.key_name = KEY_NAME
        self.key = SECRETS[KEY_NAME]
        self.algorithm = algorithm
        self.secondary_of = secondary_of
        self._notify = tuple(notify)
        self._log = folder / "log"
        self._child: subprocess.Popen[bytes] | None = None
        (folder / "zone").write_text(zone_text(zone, records), encoding="utf-8")
        self._prepare()

    # ------------------------------------------------------------ the process

    @property
    def pid(self) -> int:
        assert self._child is not None, "it does not run"
        return self._child.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it on its address, and wait until it answers with authority. Raises RuntimeError with its log."""
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if not until(lambda: self._child is None or self._child.poll() is not None or self.serial() is not None):
            raise RuntimeError(f"{self.kind} on {self.address} does not answer:\n{self.log[-4000:]}")
        if self._child.poll() is not None:
            self._child = None
            raise RuntimeError(f"{self.kind} on {self.address} ended:\n{self.log[-4000:]}")

    def stop(self) -> None:
        """End it in order, so that a later ``start`` finds what was changed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: the kernel takes connections, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(how)
        child.send_signal(signal.SIGCONT)
        try:
            child.wait(START)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(START)

    def _prepare(self) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    # ------------------------------------------------------------ another hand

    def set(self, name: str, type: str, *values: str, ttl: int = 60) -> None:  # noqa: A002 - its name in DNS
        """Make ``name`` hold just these values of the type; other types stay."""
        adds = [f"update add {name} {ttl} {type} {value}" for value in values]
        self.update(f"update delete {name} {type}", *adds)

    def delete(self, name: str, type: str = "") -> None:  # noqa: A002
        """Delete what ``name`` holds of the type, or all of it."""
        self.update(f"update delete {name} {type}".strip())

    def update(self, *lines: str) -> None:
        """Send one update of nsupdate's lines, signed with the key that may do anything. Raises AssertionError."""
        text = f"server {self.address.host} {self.address.port}\nzone {self.zone}\n" + "\n".join(lines) + "\nsend\n"
        sent = subprocess.run(
            ["nsupdate", "-v", "-t", "10", "-y", f"{self.algorithm}:{ADMIN}:{SECRETS[ADMIN]}"],
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=START,
            check=False,
        )
        assert sent.returncode == 0, f"nsupdate at {self.kind}: {sent.stdout.decode()}"

    def ask(self, name: str, type: str, timeout: float = 5.0) -> dns.message.Message:  # noqa: A002
        """Its plain answer, over TCP."""
        question = dns.message.make_query(name, type, flags=0)
        return dns.query.tcp(question, self.address.host, timeout, self.address.port)

    def holds(self, name: str, type: str) -> tuple[tuple[str, ...], int | None]:  # noqa: A002
        """The values of the type that it answers for the name, as written there and sorted; and their TTL."""
        for rrset in self.ask(name, type).answer:
            if rrset.name == dns.name.from_text(name) and rrset.rdtype == dns.rdatatype.from_text(type):
                return tuple(sorted(str(rdata) for rdata in rrset)), rrset.ttl
        return (), None

    def serial(self) -> int | None:
        """The zone's serial number, or None while it does not answer for the zone."""
        try:
            reply = self.ask(self.zone, "SOA", timeout=1.0)
        except (OSError, EOFError, dns.exception.DNSException):
            return None
        if not reply.flags & dns.flags.AA or not reply.answer:
            return None
        soa = reply.answer[0][0]
        assert isinstance(soa, dns.rdtypes.ANY.SOA.SOA)
        return soa.serial

    def catch_up(self) -> None:
        """Tell a secondary of its primary's changes (NOTIFY), and wait until it has them."""
        primary = self.secondary_of
        assert primary is not None, "it is no secondary"
        notify = dns.message.make_query(self.zone, "SOA", flags=0)
        notify.set_opcode(dns.opcode.NOTIFY)
        notify.flags |= dns.flags.AA
        dns.query.tcp(notify, self.address.host, 5.0, self.address.port)
        assert until(lambda: self.serial() == primary.serial()), self.log[-4000:]


class Bind(DnsServer):
    """named of BIND 9. As a secondary it takes the zone from its primary by AXFR."""

    kind = "bind"

    def _prepare(self) -> None:
        listen, nowhere = f"port {self.address.port} {{ {self.address.host}; }}", "{ none; }"
        six = ":" in self.address.host
        notify = "".join(f"{each.host} port {each.port}; " for each in self._notify)
        keys = "".join(
            f'key "{name}" {{ algorithm {self.algorithm}; secret "{secret}"; }};\n' for name, secret in SECRETS.items()
        )
        (self.folder / "named.conf").write_text(
            f"""
options {{
    directory "{self.folder}"; pid-file none; lock-file none;
    listen-on {nowhere if six else listen}; listen-on-v6 {listen if six else nowhere};
    query-source address 127.0.0.1; query-source-v6 address ::1;
    recursion no; dnssec-validation no; empty-zones-enable no; max-cache-size 2m;
    notify {"explicit" if notify else "no"}; also-notify {{ {notify}}}; notify-delay 0;
    allow-transfer {{ any; }};
}};
controls {{ }};
{keys}
zone "{self.zone}" {{
{self._zone_lines()}
}};
""",
            encoding="utf-8",
        )

    def _zone_lines(self) -> str:
        if self.secondary_of is not None:
            primary = self.secondary_of.address
            return (
                f'    type secondary; file "secondary"; primaries {{ {primary.host} port {primary.port}; }};\n'
                "    allow-notify { any; }; request-ixfr no;"
            )
        return (
            '    type primary; file "zone";\n'
            f"    update-policy {{ grant {KEY_NAME} name bp.{self.zone} A AAAA CNAME; grant {ADMIN} zonesub ANY; }};"
        )

    def _command(self) -> list[str]:
        return [_found("named"), "-g", "-n", "1", "-c", str(self.folder / "named.conf")]


class Knot(DnsServer):
    """knotd of Knot DNS."""

    kind = "knot"

    def _prepare(self) -> None:
        assert self.secondary_of is None, "only BIND is a secondary here"
        keys = "".join(
            f"  - id: {name}\n    algorithm: {self.algorithm}\n    secret: {secret}\n"
            for name, secret in SECRETS.items()
        )
        remotes = "".join(f"  - id: r{i}\n    address: {_at(each)}\n" for i, each in enumerate(self._notify))
        names = ", ".join(f"r{i}" for i in range(len(self._notify)))
        (self.folder / "knot.conf").write_text(
            f"""
server:
    rundir: "{self.folder}"
    listen: {_at(self.address)}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    automatic-acl: off
log:
  - target: stderr
    any: info
database:
    storage: "{self.folder}"
    journal-db-max-size: 16M
    kasp-db-max-size: 5M
    timer-db-max-size: 1M
key:
{keys}
{"remote:" if remotes else ""}
{remotes}
acl:
  - id: producer
    key: {KEY_NAME}
    action: update
    update-type: [A, AAAA, CNAME]
    update-owner: name
    update-owner-match: equal
    update-owner-name: bp.{self.zone}
  - id: hand
    key: {ADMIN}
    action: update
  - id: others
    address: [127.0.0.0/8, ::1]
    action: transfer
zone:
  - domain: {self.zone}
    file: "{self.folder}/zone"
    acl: [producer, hand, others]
{f"    notify: [{names}]" if names else ""}
""",
            encoding="utf-8",
        )

    def _command(self) -> list[str]:
        return [_found("knotd"), "-c", str(self.folder / "knot.conf")]


class PowerDns(DnsServer):
    """pdns_server of PowerDNS with the SQLite backend. It knows no policy per name: a key may change the whole zone."""

    kind = "powerdns"

    def _prepare(self) -> None:
        assert self.secondary_of is None, "only BIND is a secondary here"
        notify = ",".join(_at(each, ":") for each in self._notify)
        (self.folder / "pdns.conf").write_text(
            f"""
launch=gsqlite3
gsqlite3-database={self.folder}/database
gsqlite3-pragma-synchronous=0
local-address={self.address.host}
local-port={self.address.port}
socket-dir={self.folder}
query-local-address=127.0.0.1 ::1
security-poll-suffix=
dnsupdate=yes
webserver=no
daemon=no
guardian=no
disable-syslog=yes
loglevel=6
primary={"yes" if notify else "no"}
only-notify=
also-notify={notify}
""",
            encoding="utf-8",
        )
        database = sqlite3.connect(self.folder / "database")
        try:
            database.execute("PRAGMA synchronous=OFF")
            database.executescript(_SCHEMA.read_text("utf-8"))
        finally:
            database.close()
        self.tool("load-zone", self.zone, str(self.folder / "zone"))
        if notify:
            self.tool("set-kind", self.zone, "primary")
        for name, secret in SECRETS.items():
            self.tool("import-tsig-key", name, self.algorithm, secret)
        self.tool("set-meta", self.zone, "TSIG-ALLOW-DNSUPDATE", KEY_NAME, ADMIN)

    def tool(self, *words: str) -> None:
        """Run pdnsutil: it writes into the database, past the server."""
        command = [_found("pdnsutil"), f"--config-dir={self.folder}", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=START, check=False)
        assert done.returncode == 0, f"pdnsutil {words[0]}: {done.stdout.decode()}"

    def _command(self) -> list[str]:
        return [_found("pdns_server"), f"--config-dir={self.folder}"]


S = TypeVar("S", bound=DnsServer)


@contextmanager
def _running(
    server: type[S],
    folder: Path,
    *,
    records: Sequence[str] = RECORDS,
    zone: str = ZONE,
    algorithm: str = ALGORITHM,
    address: Address | None = None,
    host: str = "127.0.0.1",
    notify: Sequence[Address] = (),
    secondary_of: DnsServer | None = None,
) -> Iterator[S]:
    """Start a server and end it. ``records`` are lines of the zone file, names relative to ``zone``; SOA and NS (ns1)
    are there already.

    ``address`` (or ``host`` with a free port) is where it listens; ``notify`` are secondaries that it tells of changes
    at once. With ``secondary_of`` (BIND only) it takes the zone from that server and ignores ``records``.
    """
    require_dns()
    with ExitStack() as stack:
        for attempt in range(3):
            home = Path(tempfile.mkdtemp(prefix=f"{server.kind}-", dir=folder))
            made = server(
                home,
                address or free_address(host),
                zone=zone,
                records=records,
                algorithm=algorithm,
                notify=notify,
                secondary_of=secondary_of,
            )
            stack.callback(made.kill)
            try:
                made.start()
                break
            except RuntimeError:  # somebody else took the port meanwhile
                if attempt == 2 or address is not None:
                    raise
        yield made


bind = partial(_running, Bind)
knot = partial(_running, Knot)
powerdns = partial(_running, PowerDns)
SERVERS: dict[str, Callable[..., AbstractContextManager[DnsServer]]] = {
    "bind": bind,
    "knot": knot,
    "powerdns": powerdns,
}


def zone_text(zone: str, records: Sequence[str]) -> str:
    """A zone file: SOA with a minimum of 60 s, NS, and these lines."""
    head = [f"$ORIGIN {zone}", "$TTL 60", "@ 60 SOA ns1 hostmaster 1 3600 600 86400 60", "@ 60 NS ns1"]
    return "\n".join([*head, *records]) + "\n"


def until(condition: Callable[[], bool], seconds: float = START) -> bool:
    """Whether the condition came to hold in time."""
    for _ in range(int(seconds / POLL)):
        if condition():
            return True
        time.sleep(POLL)
    return False


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def _found(name: str) -> str:
    path = _program(name)
    assert path is not None, f"{name} is not installed"
    return path


def _at(address: Address, separator: str = "@") -> str:
    host = f"[{address.host}]" if ":" in address.host and separator == ":" else address.host
    return f"{host}{separator}{address.port}"


def record_at(server: DnsServer, /, main: str, backup: str, name: str = NAME, **changes: Any) -> Record:
    """A record of two producers in the server's zone; ``changes`` are of its provider (another key, another server)."""
    zone = Rfc2136Zone(server.address, server.zone, server.key_name, server.key, server.algorithm)
    return Record(name, name, {"main": main, "backup": backup}, replace(zone, **changes))


# ---------------------------------------------------------------- what may happen on the way

CUT = b"cut"
"""What ``Between.ask`` and ``Between.answer`` return to end the client's connection."""

Tamper = Callable[[bytes], bytes | None]
"""Takes one DNS message; returns what is passed on instead, None to lose it (the client waits on), or CUT."""


class Between:
    """A TCP proxy before a name server, that may lose or change messages: all of them, or updates alone.

    ``ask`` sees what goes to the server, ``answer`` what comes back. ``updates`` counts the updates that clients sent.
    """

    def __init__(
        self, server: Address, *, ask: Tamper | None = None, answer: Tamper | None = None, updates_only: bool = True
    ) -> None:
        self.server = server
        self.ask = ask
        self.answer = answer
        self.updates_only = updates_only
        self.updates = 0
        self.questions = 0
        self.address = Address("127.0.0.1", 0)
        self._listener: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def idle(self) -> None:
        """Wait until every client has gone."""
        await asyncio.gather(*self._clients)

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await asyncio.open_connection(self.server.host, self.server.port)
            while await self._pass_one(reader, writer, back, onward):
                pass
        except (OSError, EOFError):
            pass
        except asyncio.CancelledError:  # the test is over; asyncio would log it as an error
            pass
        finally:
            self._clients.discard(task)
            writer.transport.abort()
            if onward is not None:
                onward.transport.abort()

    async def _pass_one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        onward: asyncio.StreamWriter,
    ) -> bool:
        """Pass one question on and its answer back; False when the connection is to be cut."""
        question = await _message(reader)
        update = is_update(question)
        self.updates += update
        self.questions += not update
        tampered = update or not self.updates_only
        asked = self.ask(question) if self.ask is not None and tampered else question
        if asked is None or asked is CUT:
            return asked is None
        _write(onward, asked)
        answer = await _message(back)
        told = self.answer(answer) if self.answer is not None and tampered else answer
        if told is CUT:
            return False
        if told is not None:
            _write(writer, told)
        return True


def is_update(wire: bytes) -> bool:
    """Whether a DNS message is an update, or the answer to one."""
    return len(wire) > 2 and (wire[2] >> 3) & 0xF == dns.opcode.UPDATE


async def _message(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(2))
    return await reader.readexactly(size)


def _write(writer: asyncio.StreamWriter, wire: bytes) -> None:
    writer.write(len(wire).to_bytes(2) + wire)
