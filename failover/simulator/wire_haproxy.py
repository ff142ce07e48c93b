"""A simulated HAProxy that speaks the runtime API, and the product's own client in front of it.

The answers' text is what HAProxy 2.6.12 says (facts/haproxy.md, section 3, and measured anew for the errors); what
they say is the truth of ``HAProxy`` and nothing else. A kept connection stays with its worker over a reload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from failover.gates.haproxy_runtime import MAX_ANSWER, RuntimePort
from failover.model import Address, Admin, Check, ProxyReading, ServerView
from failover.simulator.edges import BACKLOG, Exit
from failover.simulator.host import UTC0
from failover.simulator.proxies import HAProxy
from failover.simulator.streams import Take, open_stream

VERSION = "2.6.12-1+deb12u4"
MOST_COMMAND = 16384  # bytes of one line: HAProxy's buffer
WATCH = "watch"  # the backend that is always checked, where the pool's file does not name it

# What `show stat` is headed with (its counters of HTTP/1 and HTTP/2 left out); most columns are empty here.
HEADER = (
    "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,"
    "bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,"
    "check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,"
    "req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,"
    "rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,"
    "agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,"
    "wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,"
    "idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,agg_server_check_status,"
    "agg_check_status,-,ssl_sess,ssl_reused_sess,ssl_failed_handshake"
)
COLUMNS = HEADER.split(",")
STATE_COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
    "srv_agent_addr srv_agent_port"
)
STATES = "'set server <srv> state' expects 'ready', 'drain' and 'maint'."
UNKNOWN = (
    "Unknown command, but maybe one of the following ones is a better match:\n"
    "  help [<command>]                        : list matching or all commands\n"
    "  prompt                                  : toggle interactive mode with prompt\n"
    "  quit                                    : disconnect\n"
)
BITS = {Admin.READY: 0, Admin.DRAIN: 8, Admin.MAINT: 1}
IN_FILE = 4  # srv_admin_state: the file says `disabled`; it stays after `ready`
CHECKS = {Check.PASSED_L7: ("UP", "L7OK"), Check.PASSED_L4: ("UP", "L4OK"), Check.FAILED: ("DOWN", "L4TOUT")}


class WireProxyPort(RuntimePort):
    """The product's port on the runtime API, with a simulated HAProxy behind it."""

    def __init__(self, haproxy: HAProxy, way_out: Exit) -> None:
        proxy = replace(haproxy.config, socket=Address(haproxy.name, 9999), stats=None)
        super().__init__(proxy, way_out.host)
        self._haproxy = haproxy
        self._exit = way_out

    async def _open(self, timeout: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        asked = ""  # the crash point of the command under way

        def leaving(data: bytes) -> None:
            nonlocal asked
            asked = moment_of(data.decode())
            if asked:
                self._exit.survives(f"{asked}: before")

        def came(data: bytes) -> None:
            nonlocal asked
            if asked and data.endswith(b"> "):
                self._exit.survives(f"{asked}: reply")
                asked = ""

        def listen(reply: Take) -> Take | None:
            return RuntimeSession(self._haproxy, reply, self._exit).take if self._haproxy.running else None

        return await open_stream(self._exit, self._haproxy.name, listen, MAX_ANSWER, leaving=leaving, came=came)


def moment_of(command: str) -> str:
    """The crash point that a command belongs to; empty for questions of which nothing depends."""
    if command.startswith("show stat"):
        return "proxy read"
    if command.startswith("shutdown sessions server "):
        return "proxy set close"
    if command.startswith("set server "):
        return "proxy set open" if command.rstrip().endswith(" ready") else "proxy set close"
    return ""


class RuntimeSession:
    """One connection to the runtime API, from HAProxy's end: lines in, answers out."""

    def __init__(self, haproxy: HAProxy, reply: Take, way_out: Exit) -> None:
        self._haproxy = haproxy
        self._reply = reply
        self._exit = way_out
        self._rest = b""
        self._prompts = False
        self._ended = False
        self._pid = haproxy.pid
        self._started = haproxy.started
        self._last = haproxy.reading()  # what an old worker goes on saying

    def take(self, data: bytes | None) -> None:
        """What has arrived: carried out at once, or when a process that hangs goes on."""
        haproxy = self._haproxy
        if self._ended:
            return
        if haproxy.hung:
            if len(haproxy.waiting) < BACKLOG:
                haproxy.waiting.append(lambda: self.take(data))
            return
        if not haproxy.running:
            self._end(None)
            return
        self._rest += data or b""
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            if not self._ended:
                self._line(line.decode("utf-8", "replace").strip())
        if not data or len(self._rest) > MOST_COMMAND:
            self._end(b"")

    def _line(self, command: str) -> None:
        if command == "quit":
            self._end(b"")
            return
        if command == "prompt":
            self._prompts = not self._prompts
            answer = ""
        else:
            answer = self._answer(command)
        if moment := moment_of(command):
            self._exit.survives(f"{moment}: effect")
        self._reply(f"{answer}\n{'> ' if self._prompts else ''}".encode())
        if not self._prompts and command != "prompt":
            self._end(b"")

    def _end(self, how: bytes | None) -> None:
        self._ended = True
        self._reply(how)

    # ------------------------------------------------------------ commands

    @property
    def _stopping(self) -> bool:
        """Whether this worker is an old one: another has taken its place."""
        return self._pid != self._haproxy.pid

    def _answer(self, command: str) -> str:
        """What it says; empty for yes, else with a line's end."""
        if not self._stopping:
            self._last = self._haproxy.reading()
        words = command.split()
        match words:
            case ["show", "info"]:
                return self._info()
            case ["show", "stat"]:
                return table(self._haproxy, self._last)
            case ["show", "servers", "state", backend]:
                if backend != self._haproxy.config.backend:
                    return "Can't find backend.\n"
                return states(self._haproxy, self._last)
            case ["set", "server", server, "state", state]:
                return self._on_server(server, lambda producer: self._set(producer, state))
            case ["set", "server", *_]:
                return "Require 'backend/server'.\n"
            case ["shutdown", "sessions", "server", server]:
                return self._on_server(server, self._shut)
        return UNKNOWN

    def _on_server(self, server: str, act: Callable[[str], str]) -> str:
        config = self._haproxy.config
        backend, slash, row = server.partition("/")
        if not slash:
            return "Require 'backend/server'.\n"
        if backend != config.backend:
            return "No such backend.\n"
        producer = next((name for name, its in config.servers.items() if its == row), None)
        if producer is None:
            return "No such server.\n"
        return "Proxy is disabled.\n" if self._stopping else act(producer)

    def _set(self, producer: str, state: str) -> str:
        match state:
            case "maint":
                self._haproxy.close(producer)
            case "ready":
                self._haproxy.open(producer)
            case "drain":
                self._haproxy.hand(producer, Admin.DRAIN)
            case _:
                return f"{STATES}\n"
        return ""

    def _shut(self, producer: str) -> str:
        self._haproxy.shutdown(producer)
        return ""

    def _info(self) -> str:
        uptime = int(self._exit.nature.now() - self._started)
        rows = {
            "Name": "HAProxy",
            "Version": VERSION,
            "Nbthread": 2,
            "Process_num": 1,
            "Pid": self._pid,
            "Uptime": f"{uptime // 86400}d {uptime // 3600 % 24}h{uptime // 60 % 60:02}m{uptime % 60:02}s",
            "Uptime_sec": uptime,
            "node": self._haproxy.name,
            "Stopping": int(self._stopping),
            "Build info": VERSION,
            "Start_time_sec": int(UTC0 + self._started),
            "Tainted": 0,
        }
        return "".join(f"{key}: {value}\n" for key, value in rows.items())


# ---------------------------------------------------------------- tables


def table(haproxy: HAProxy, reading: ProxyReading) -> str:
    """The answer to `show stat`, and to `;csv` on the stats page."""
    config = haproxy.config
    watch = config.watch or (WATCH if haproxy.checks == "l7" else None)
    rows = [{"pxname": "relays", "svname": "FRONTEND", "status": "OPEN", "scur": _sum(reading)}]
    if watch is not None:
        for producer, server in config.servers.items():
            rows.append({"pxname": watch, "svname": server, **_watched(reading.servers[producer])})
        rows.append({"pxname": watch, "svname": "BACKEND", "status": "UP", "scur": "0", "stot": "0"})
    for producer, server in config.servers.items():
        view = reading.servers[producer]
        row = {"pxname": config.backend, "svname": server, **_routed(view)}
        if watch is not None:
            row |= {"tracked": f"{watch}/{server}", "check_status": ""}
        rows.append(row)
    up = any(view.serves for view in reading.servers.values())
    status = "UP" if up else "DOWN"
    total = str(reading.total)
    rows.append({"pxname": config.backend, "svname": "BACKEND", "status": status, "scur": _sum(reading), "stot": total})
    lines = [",".join(row.get(column, "") for column in COLUMNS) + ",\n" for row in rows]
    return f"# {HEADER},\n{''.join(lines)}"


def _sum(reading: ProxyReading) -> str:
    return str(sum(view.sessions for view in reading.servers.values()))


def _watched(view: ServerView) -> dict[str, str]:
    status, check = CHECKS.get(view.check, ("no check", ""))
    return {
        "status": status,
        "check_status": check,
        "scur": "0",
        "stot": "0",
        "weight": "1",
        "addr": view.address or "",
    }


def _routed(view: ServerView) -> dict[str, str]:
    _, check = CHECKS.get(view.check, ("", ""))
    return {
        "status": view.status,
        "check_status": check,
        "scur": str(view.sessions),
        "stot": str(view.sessions),
        "weight": "1",
        "addr": view.address or "",
    }


def states(haproxy: HAProxy, reading: ProxyReading) -> str:
    """The answer to `show servers state BACKEND`."""
    lines = ["1", f"# {STATE_COLUMNS}"]
    for number, (producer, server) in enumerate(haproxy.config.servers.items(), 1):
        view = reading.servers[producer]
        bits = BITS[view.admin] | (IN_FILE if haproxy.file[producer] is Admin.MAINT else 0)
        host, _, port = (view.address or "-:0").rpartition(":")
        up = 2 if view.serves else 0
        lines.append(
            f"4 {haproxy.config.backend} {number} {server} {host} {up} {bits} 1 1 0 1 0 0 0 0 0 0 - {port} - 0 0 - - 0"
        )
    return "\n".join(lines) + "\n"
