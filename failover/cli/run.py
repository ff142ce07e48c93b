"""``failover run``: the daemon. Builds the edges around the controller, and answers signals and systemd."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from failover import api, config, status
from failover._version import __version__
from failover.cli.file import loaded
from failover.controller import Controller, Report
from failover.errors import FailoverError, StoreUnusable
from failover.gates.haproxy import proxy_port
from failover.host import RealHost
from failover.log import Bridge, Log
from failover.metrics import Metrics
from failover.model import Admin, Commit, Event, EventKind, Gate, Pool, Record
from failover.parts import LeaseLeft
from failover.ports import Hosts, ProxyPort, RecordPort, VerifyPort
from failover.probes.ping import NodePing
from failover.records import record_port, verify_port
from failover.store.sqlite import SqliteStore

ONCE_SECONDS = 60.0  # that --once waits for the pool to settle
LOAD_SECONDS = 10.0  # that reading the file again may take


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asked for."""

    once: bool
    dry_run: bool
    verbose: bool
    as_json: bool


@click.command("run")
@click.option("--once", is_flag=True, help="Leave when everything was looked at and nothing is under way.")
@click.option("--dry-run", is_flag=True, help="Decide and say what would be done, but do nothing; see below.")
@click.option("--verbose", is_flag=True, help="Log every ping, too.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print the status as JSON.")
@click.pass_context
def command(ctx: click.Context, once: bool, dry_run: bool, verbose: bool, as_json: bool) -> None:
    """Run the daemon in the foreground: observe, decide and act until SIGTERM or SIGINT.

    SIGHUP reads the file again; a file that is wrong, or that a running pool cannot go over to, is refused with the
    reason in the log, and the old one stays in force. The log goes to stderr: lines on a terminal, JSON otherwise.

    --dry-run works beside a running daemon: it takes no lease, writes nothing into the state folder, and serves no
    HTTP. It starts from a copy of what is assigned; "would:" in its log is what a daemon would do.

    --once prints the status at the end. Exit status: 0; 1 the state folder cannot be used or, with --once, the pool is
    not steady; 2 the file is wrong.
    """
    if as_json and not once:
        raise click.UsageError("--json is for --once", ctx)
    found = loaded(ctx)
    wanted = Wanted(once, dry_run, verbose, as_json)
    host = RealHost()
    terminal = sys.stderr.isatty()
    log = Log(sys.stderr, host.now, for_people=terminal, colour="NO_COLOR" not in os.environ, verbose=verbose)
    bridge = Bridge(log)
    logging.getLogger().addHandler(bridge)
    try:
        with ExitStack() as spare:
            pool = found.pool
            if dry_run:
                folder = spare.enter_context(tempfile.TemporaryDirectory(prefix="failover-dry-run-"))
                pool = _rehearsed(pool, host, Path(folder))
            for warning in found.warnings:
                log.say(str(warning), "warning", "config")
            code = asyncio.run(Daemon(pool, found.path, wanted, host, log).run())
    finally:
        logging.getLogger().removeHandler(bridge)
        log.close()
    sys.exit(code)


def _rehearsed(pool: Pool, host: RealHost, folder: Path) -> Pool:
    """The pool as --dry-run has it: observing, with a copy of the assignment and timers in a folder of its own."""
    try:
        original = SqliteStore.read(pool.state, pool.name)
    except StoreUnusable:
        return replace(pool, mode="observe", state=folder)
    stored = original.load()
    original.close()
    now, holder = host.now(), host.new_id()
    copy = SqliteStore(folder, pool=pool.name, boot=now.boot, clock=host.now)
    lease = copy.acquire(holder, now, pool.lease.duration, 0.0)
    if lease is not None:
        copy.commit(Commit(lease.term, assignment=stored.assignment, timers=stored.timers))
    copy.resign(holder)
    copy.close()
    return replace(pool, mode="observe", state=folder)


class Notify:
    """What systemd is told over NOTIFY_SOCKET (sd_notify(3)); nothing where there is none."""

    def __init__(self, environ: Mapping[str, str], now: Callable[[], float]) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        wanted = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every = int(wanted) / 4e6 if wanted.isdecimal() and ours else None
        self._now = now
        self._last = 0.0
        self._ready = False

    def tell(self, *words: str) -> None:
        """Send it; nobody waits for an answer."""
        if not self._path:
            return
        where = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
            line.sendto("\n".join(words).encode(), where)

    def beat(self) -> None:
        """Called with every decision: ready with the first, and the watchdog well before it bites."""
        if not self._ready:
            self._ready = True
            self.tell("READY=1")
        if self._every is not None and self._now() - self._last >= self._every:
            self._last = self._now()
            self.tell("WATCHDOG=1")


class Daemon:
    """One run of the daemon: the controller, its edges, and what signals do to it."""

    def __init__(self, pool: Pool, path: Path, wanted: Wanted, host: RealHost, log: Log) -> None:
        self._path = path
        self._wanted = wanted
        self._host = host
        self._log = log
        self._notify = Notify(os.environ, lambda: host.now().mono)
        self._pulse = api.Pulse(host, self._notify.beat)
        self._metrics = Metrics(pool, host.now, lambda: self._controller.report(), __version__)
        self._ping = NodePing(host)
        self._store = SqliteStore(pool.state, pool=pool.name, boot=host.now().boot, clock=host.now)
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._controller = Controller(
            pool,
            host,
            self._store,
            self._ping,
            self._ports,
            records=self._record_ports,
            hosts=self._hosts,
            observers=(log, self._metrics, self._pulse),
            snapshot=self._document,
        )

    async def run(self) -> int:
        """Until a signal, or with --once until settled; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        beside = [asyncio.create_task(self._reloading(), name="reload")]
        if not self._wanted.dry_run:
            beside.append(asyncio.create_task(self._supervised("http", self._serving), name="http"))
        settling = asyncio.create_task(self._settling(), name="once") if self._wanted.once else None
        try:
            await self._controller.run(self._stop)
        finally:
            self._notify.tell("STOPPING=1")
            for task in (*beside, *([settling] if settling else ())):
                task.cancel()
            ended = await asyncio.gather(*beside, *([settling] if settling else ()), return_exceptions=True)
            self._ping.close()
            self._store.close()
        return int(ended[-1]) if settling and isinstance(ended[-1], int) else int(self._wanted.once)

    def _ports(self, pool: Pool) -> Mapping[str, ProxyPort]:
        return {proxy.name: proxy_port(proxy, self._host) for proxy in pool.proxies}

    def _record_ports(self, record: Record) -> tuple[RecordPort, VerifyPort]:
        return record_port(record, self._host), verify_port(record, self._host)

    def _hosts(self, pool: Pool, lease: LeaseLeft) -> Hosts:
        from failover.hosts import RealHosts  # pools without agents need none of it

        return RealHosts(pool, self._host, lease)

    def _document(self, report: Report) -> dict[str, Any]:
        return status.document(report, pid=os.getpid(), version=__version__, last_tick=self._pulse.last)

    # ------------------------------------------------------------ beside the controller

    async def _serving(self) -> None:
        app = api.application(
            lambda: self._document(self._controller.report()),
            self._metrics.exposition,
            lambda: self._pulse.trouble(self._controller.pool.health.interval) or self._controller.report().store_error,
        )
        await api.serve(app, self._controller.pool.listen, self._host, lambda words: self._log.say(words, "warning"))

    async def _supervised(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A bug beside the controller is said aloud, and never ends it."""
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - any bug there: said, and tried again
                self._log.say(f"{name}: unexpected {type(error).__name__}: {error}", "error")
            await self._host.sleep(api.RETRY)

    async def _settling(self) -> int:
        """Wait until the pool is settled, at most ONCE_SECONDS; print the status and stop."""
        began = self._host.now()
        while not self._controller.settled and self._host.now().since(began) < ONCE_SECONDS:
            await self._host.sleep(0.1)
        document = self._document(self._controller.report())
        click.echo(json.dumps(document, indent=2) if self._wanted.as_json else status.text(document), nl=False)
        if self._wanted.as_json:
            click.echo()
        self._stop.set()
        return 1 if status.problems(document) else 0

    async def _reloading(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._notify.tell("RELOADING=1", f"MONOTONIC_USEC={int(loop.time() * 1e6)}")
            await self._read_again()
            self._notify.tell("READY=1")

    async def _read_again(self) -> None:
        """Go over to the file as it is now, or say why not."""
        worker = self._host.worker("file")
        try:
            found = await worker.call(lambda: config.load(self._path), LOAD_SECONDS)
        except FailoverError as error:
            self._refused(str(error))
            return
        except TimeoutError:
            self._refused(f"{self._path}: could not be read within {LOAD_SECONDS:g} s")
            return
        finally:
            worker.close()
        old, new = self._controller.pool, found.pool
        if self._wanted.dry_run:
            new = replace(new, mode="observe", state=old.state)
        report = self._controller.report()
        a = report.assignment
        reasons = config.compare(
            old,
            new,
            active=None if a is None else a.active,
            target=None if a is None else a.target,
            empty_proxies=_removable(report),
            shut_gates=_shut(report),
            phase_steady=a is None or a.target is None,
        )
        if reasons:
            self._refused(" ".join(reasons))
            return
        for warning in found.warnings:
            self._log.say(str(warning), "warning", "config")
        self._controller.reload(new)
        self._metrics.follow(new)

    def _refused(self, why: str) -> None:
        words = f"{self._path}: not taken over, the old one stays in force: {why}"
        self._controller.say(Event(EventKind.ALERT, self._host.now(), words, detail={"alert": "config"}))


def _removable(report: Report) -> frozenset[str]:
    """Proxies that a new file may leave out.

    They answer and every producer is closed there, without a session; or they were passed over and are silent still:
    otherwise one dead proxy would block its own removal.
    """
    removable = set()
    for name, track in report.view.proxies.items():
        servers = () if track.reading is None or not track.answers else tuple(track.reading.servers.values())
        if servers and all(server.admin is Admin.MAINT and server.sessions == 0 for server in servers):
            removable.add(name)
    passed = () if report.assignment is None else report.assignment.passed_over
    return frozenset(removable | {over.gate.place for over in passed})


def _shut(report: Report) -> frozenset[Gate]:
    """Gates on producers' own hosts that a new file may leave out: confirmed closed, or passed over."""
    shut = {gate for gate, track in report.view.gates.items() if track.answers and track.is_open is False}
    passed = () if report.assignment is None else report.assignment.passed_over
    return frozenset(shut | {over.gate for over in passed})
