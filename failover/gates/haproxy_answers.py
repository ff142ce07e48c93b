"""What HAProxy says about itself, as values: the statistics table, the admin bits, the process.

Pure: text in, values out, GateRefused when the text is not what it should be. Both ways in (the runtime API and
the stats page) read through here, so they agree. Columns are found by name: their number grows with each version.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from failover.errors import GateRefused
from failover.model import Admin, Check, Proxy, ProxyReading, ServerView

Row = Mapping[str, str]
Table = Mapping[tuple[str, str], Row]  # (backend, server) -> the row's columns by name

TABLE_MARK = "# pxname"

# srv_admin_state, as HAProxy numbers it. 4 says only that the file has `disabled`: it stays after `ready`.
# Inherited or unresolved maint (2, 32, 64) ends by itself, so it is no closed gate and not counted here.
FORCED_MAINT = 1
DRAIN = 8 | 16

# What a check's last result proves, while HAProxy still counts the server as up. L6OK is a TLS handshake: nodes do
# not speak TLS, so something in front of the node answered. PROCOK is an external program: nobody knows what it
# proved. A failing result under UP is HAProxy still counting to `fall`: its own word stands until DOWN.
_PASSED_L7 = re.compile(r"L7")
_PASSED_L4 = re.compile(r"L4|L6|PROC|SOCKERR")


@dataclass(frozen=True, slots=True)
class Identity:
    """Which HAProxy process answered. What the way in does not show is None; ``uptime`` is in seconds."""

    pid: int | None = None
    started: int | None = None  # Unix time, where shown
    uptime: float | None = None
    stopping: bool = False
    version: str | None = None

    @property
    def process(self) -> str | None:
        """A name that differs between two processes, as far as the way in can tell them apart."""
        if self.pid is None:
            return None
        return f"{self.pid}@{self.started}" if self.started is not None else str(self.pid)


def table(proxy: Proxy, text: str) -> Table:
    """The statistics as rows by backend and server. Raises GateRefused when the text is no such table."""
    if not text.startswith(TABLE_MARK):
        raise GateRefused(
            f"{proxy.name}: HAProxy answered {_first_line(text)} instead of its statistics",
            "check that the address is HAProxy's own management and nothing in front of it",
        )
    lines = text.splitlines()
    header = lines[0].removeprefix("# ").split(",")
    wanted = {"pxname", "svname", "scur", "stot", "status"}
    if missing := wanted - set(header):
        raise GateRefused(
            f"{proxy.name}: the statistics lack the columns {', '.join(sorted(missing))}",
            "HAProxy 2.4 or newer is needed; check that nothing rewrites its answers",
        )
    rows = (dict(zip(header, fields, strict=False)) for fields in csv.reader(lines[1:]) if fields)
    return {(row.get("pxname", ""), row.get("svname", "")): row for row in rows}


def admin_bits(text: str) -> Mapping[str, int]:
    """srv_admin_state by server's name, from ``show servers state BACKEND``; empty when the text holds none."""
    header: list[str] = []
    bits: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            header = line.removeprefix("# ").split()
        elif header and line.strip():
            row = dict(zip(header, line.split(), strict=False))
            bits[row.get("srv_name", "")] = _whole(row.get("srv_admin_state")) or 0
    return bits


def identity_of_info(proxy: Proxy, text: str) -> Identity:
    """The process behind ``show info``. Raises GateRefused when the text does not name one."""
    found = {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    if not found.get("Pid", "").isdigit():
        raise GateRefused(
            f"{proxy.name}: `show info` answered {_first_line(text)}",
            "check that proxies.socket is HAProxy's runtime API (stats socket)",
        )
    return Identity(
        pid=int(found["Pid"]),
        started=_whole(found.get("Start_time_sec")),
        uptime=_seconds(found.get("Uptime_sec")),
        stopping=found.get("Stopping", "0") != "0",
        version=found.get("Version") or None,
    )


_PAGE_PID = re.compile(r"Statistics Report for pid (\d+)")
_PAGE_UPTIME = re.compile(r"uptime = </b> *(\d+)d *(\d+)h(\d+)m(\d+)s")
_PAGE_VERSION = re.compile(r"HAProxy version ([^ ,<]+)")


def identity_of_page(html: str) -> Identity:
    """The process behind a stats page, from its heading: the CSV has neither pid nor uptime (measured, 2.6.12).

    All None when the heading is not there; a page does not show whether its process is stopping.
    """
    pid, uptime, version = (pattern.search(html) for pattern in (_PAGE_PID, _PAGE_UPTIME, _PAGE_VERSION))
    seconds = None
    if uptime is not None:
        days, hours, minutes, rest = (int(part) for part in uptime.groups())
        seconds = float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
    return Identity(
        pid=int(pid.group(1)) if pid else None,
        uptime=seconds,
        version=version.group(1) if version else None,
    )


def reading(
    proxy: Proxy, rows: Table, identity: Identity, bits: Mapping[str, int] | None, forced: Iterable[str] = ()
) -> ProxyReading:
    """One answer of a proxy, by producer's name.

    ``bits`` are the admin bits where the way in shows them. Where it does not (None), ``forced`` names the servers
    that this process acknowledged as closed: the table hides a forced maint behind an inherited or unresolved one.
    Raises GateRefused when the backend, a server or the watch backend is not there, and says what is.
    """
    servers = {
        producer: _view(rows, proxy, server, bits, server in set(forced)) for producer, server in proxy.servers.items()
    }
    backend = rows.get((proxy.backend, "BACKEND"), {})
    return ProxyReading(
        servers=servers,
        process=identity.process,
        uptime=identity.uptime,
        total=_whole(backend.get("stot")) or 0,
        stopping=identity.stopping,
        version=identity.version,
    )


def _view(rows: Table, proxy: Proxy, server: str, bits: Mapping[str, int] | None, forced: bool) -> ServerView:
    row = _row(rows, proxy, proxy.backend, server, "servers")
    return ServerView(
        admin=_admin(row, None if bits is None else bits.get(server, 0), forced),
        status=_word(row.get("status", "")),
        sessions=_whole(row.get("scur")) or 0,
        check=_check(_checked_row(rows, proxy, server, row)),
        address=row.get("addr") or None,
    )


def _row(rows: Table, proxy: Proxy, backend: str, server: str, key: str) -> Row:
    found = rows.get((backend, server))
    if found is not None:
        return found
    backends = sorted({name for name, row in rows if row == "BACKEND"})
    if backend not in backends:
        raise GateRefused(
            f"{proxy.name}: no backend {backend!r}; HAProxy has {_list(backends)}",
            "correct `backend` or `watch` of the proxy in the file, or HAProxy's configuration",
        )
    servers = sorted(row for name, row in rows if name == backend and row not in ("BACKEND", "FRONTEND"))
    raise GateRefused(
        f"{proxy.name}: no server {server!r} in backend {backend!r}; it has {_list(servers)}",
        f"correct `{key}` of the proxy in the file, or HAProxy's configuration",
    )


def _admin(row: Row, bits: int | None, forced: bool) -> Admin:
    """The state that somebody set. A maint that ends by itself is not one: such a gate would open by itself."""
    status = row.get("status", "")
    word = _word(status)
    if bits is None:
        if word == "MAINT" and (forced or "(" not in status):
            return Admin.MAINT
    elif bits & FORCED_MAINT:
        return Admin.MAINT
    elif bits & DRAIN:
        return Admin.DRAIN
    # Weight 0 admits nobody new and keeps who is there, which is what drain means.
    return Admin.DRAIN if word == "DRAIN" or row.get("weight") == "0" else Admin.READY


def _checked_row(rows: Table, proxy: Proxy, server: str, row: Row) -> Row:
    """The row that HAProxy checks for this server: the watch backend's, the one that it tracks, or itself."""
    if proxy.watch is not None:
        return _row(rows, proxy, proxy.watch, server, "servers")
    backend, _, tracked = row.get("tracked", "").partition("/")
    return rows.get((backend, tracked), row)


def _check(row: Row) -> Check:
    """What HAProxy's check of this row says; DOWN is believed even while single checks pass again (DOWN 1/2)."""
    status = row.get("status", "")
    code = row.get("check_status", "").removeprefix("* ")
    if _word(status) in ("MAINT", "no check"):
        return Check.NONE
    if _word(status) == "DOWN" and status != "DOWN (agent)":
        return Check.NONE if code in ("INI", "UNK") else Check.FAILED
    if status == "DOWN (agent)" and code and not code.endswith("OK"):
        return Check.FAILED
    if _PASSED_L7.match(code):
        return Check.PASSED_L7
    if _PASSED_L4.match(code):
        return Check.PASSED_L4
    return Check.NONE


def _word(status: str) -> str:
    return "no check" if status.startswith("no ") else (status.split() or [""])[0]


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _seconds(text: str | None) -> float | None:
    whole = _whole(text)
    return None if whole is None else float(whole)


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:12]) or "none"
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0][:80] if text.strip() else ""
    return repr(line) if line else "nothing"
