"""Hosts made of network namespaces, on a network of their own: for stories with real programs and real cables.

    with Hosts() as hosts:
        main = hosts.add("main", "10.77.1.1")
        relay = hosts.add("relay", "10.77.2.1")
        node = main.popen([sys.executable, "node.py"], user=1000)
        relay.run(["ping", "-c1", main.address])
        hosts.cut("main", "relay")             # nothing passes, and nobody is told: like a dead cable far away
        hosts.cut_one_way("relay", "main")     # what relay sends does not reach main
        hosts.heal("main", "relay")            # or heal(): everything
        main.reboot()                          # its programs die; addresses come back, firewall rules do not

Every host has a namespace; a bridge in one more joins them, so the machine's own network is never touched, and runs at
the same time cannot collide: names carry the pid, and the same addresses may be used by all. A host has an IPv4
address in 10.0.0.0/8 and the IPv6 address `fd77::` that ends alike. Files and process ids are shared by all hosts and
the machine. Programs that a host started, also those that went to the background, are killed at the end.
Needs root, and skips without it (with FAILOVER_REQUIRE=root or all it fails).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time  # noqa: TID251 - real programs, real time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest

WAIT = 10.0  # seconds, an upper bound for everything that needs no time in truth
_RUNS = itertools.count(1)

# Resolution of neighbours always works, so that a cut is silence and not "no route to host" after three seconds.
_CUTS = """
table bridge cuts {
    set lost { type ether_addr . ether_addr; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ether type arp accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ether saddr . ether daddr @lost drop
    }
}
"""


def require_root() -> None:
    """Skip without root; fail there when it was asked for (FAILOVER_REQUIRE=root or all)."""
    if os.geteuid() == 0:
        return
    reason = "network namespaces need root"
    if {"root", "all"} & set(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split()):
        pytest.fail(f"FAILOVER_REQUIRE asks for root: {reason}")
    pytest.skip(reason)


def eventually(true: Callable[[], bool], what: str, within: float = WAIT) -> None:
    """Poll until it is so; raises AssertionError with ``what`` after ``within`` seconds."""
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.01)


class Host:
    """One host: programs run inside its namespace, as root or as the user (a number, it need not exist) named."""

    def __init__(self, hosts: Hosts, name: str, number: int, address: str) -> None:
        self.name = name
        self.address = str(IPv4Address(address))
        self.address6 = str(IPv6Address((0xFD77 << 112) + int(IPv4Address(address))))
        self.mac = f"02:77:00:00:{number >> 8:02x}:{number & 255:02x}"
        self.namespace = f"{hosts.prefix}-{number}"
        self.port = f"p{number}"  # of the bridge
        self._hosts = hosts
        self._started: list[subprocess.Popen[str]] = []

    def __repr__(self) -> str:
        return f"Host({self.name!r}, {self.address!r})"

    def command(self, args: Sequence[str], user: int | None = None) -> list[str]:
        """The command that runs ``args`` here, for those who start programs by other means than ``popen``."""
        drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user is not None else []
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *drop, *args]

    def run(
        self,
        args: Sequence[str],
        *,
        timeout: float = WAIT,  # seconds
        input: str | None = None,  # noqa: A002 - as subprocess calls it
        check: bool = True,
        user: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end. Raises AssertionError with what it said if it failed and ``check`` is set."""
        done = subprocess.run(
            self.command(args, user), capture_output=True, text=True, timeout=timeout, input=input, check=False
        )
        said = f"{done.stdout}{done.stderr}"[-2000:]
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(args)} ended with {done.returncode}: {said}"
        return done

    def popen(
        self,
        args: Sequence[str],
        *,
        user: int | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.DEVNULL,
        stderr: int | IO[Any] | None = subprocess.DEVNULL,
        **more: Any,
    ) -> subprocess.Popen[str]:
        """Start a program, in a session of its own. It is killed at the end, or at ``reboot``."""
        args = self.command(args, user)
        started = subprocess.Popen(
            args, text=True, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True, **more
        )
        self._started.append(started)
        return started

    def pids(self) -> list[int]:
        """Every process that runs here."""
        return [int(pid) for pid in _said(["ip", "netns", "pids", self.namespace]).split()]

    def listens(self, port: int) -> bool:
        """Whether somebody listens on a TCP port here."""
        return bool(self.run(["ss", "-Hltn", f"sport = :{port}"]).stdout.strip())

    def until_listening(self, port: int, within: float = WAIT) -> None:
        """Wait for a listener. Raises AssertionError after ``within`` seconds."""
        eventually(lambda: self.listens(port), f"{self.name} listens on port {port}", within)

    def reboot(self) -> None:
        """Kill everything that runs here, and give the host a new, empty network with the same addresses."""
        self.stop()
        _said(["ip", "-n", self._hosts.switch, "link", "del", self.port])
        _said(["ip", "netns", "del", self.namespace])
        self.start()

    def start(self) -> None:
        """Make the namespace and plug it in. Called by ``Hosts.add`` and ``reboot``."""
        _said(["ip", "netns", "add", self.namespace])
        self._hosts.batch(
            self._hosts.switch,
            f"link add {self.port} type veth peer name eth0 netns {self.namespace} address {self.mac}",
            f"link set {self.port} master bridge up",
        )
        self._hosts.batch(
            self.namespace,
            "link set lo up",
            "link set eth0 up",
            f"addr add {self.address}/8 dev eth0",
            f"addr add {self.address6}/64 dev eth0 nodad",
        )

    def stop(self) -> None:
        """Kill everything that runs here, and reap what was started from here."""
        end = time.monotonic() + WAIT
        while pids := self.pids():
            for pid in pids:
                _kill(pid)
            for started in self._started:
                started.poll()
            assert time.monotonic() < end, f"{self.name}: still running after SIGKILL: {pids}"
            time.sleep(0.002)
        for started in self._started:
            _kill_unless_ended(started)
        self._started.clear()


class Hosts:
    """A network of hosts; as a context manager it removes everything at the end, also after a failure."""

    def __init__(self) -> None:
        self.prefix = f"fo{os.getpid()}-{next(_RUNS)}"
        self.switch = f"{self.prefix}-switch"
        self._hosts: dict[str, Host] = {}
        self._lost: dict[tuple[str, str], None] = {}

    def __enter__(self) -> Self:
        require_root()
        try:
            _said(["ip", "netns", "add", self.switch])
            self.batch(
                self.switch, "link add bridge type bridge forward_delay 0 mcast_snooping 0", "link set bridge up"
            )
            self._nft(_CUTS)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def add(self, name: str, address: str) -> Host:
        """One more host; ``address`` is its IPv4 address in 10.0.0.0/8."""
        assert name not in self._hosts, f"there is a host {name} already"
        assert IPv4Address(address) not in {IPv4Address(host.address) for host in self}, f"{address} is taken"
        host = self._hosts[name] = Host(self, name, len(self._hosts) + 1, address)
        host.start()
        return host

    def cut(self, one: str, other: str) -> None:
        """Nothing passes between the two, in silence; what was under way stays under way."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """What ``sender`` sends does not reach ``receiver``; the other direction works."""
        pair = (sender, receiver)
        if pair not in self._lost:
            self._nft(f"add element bridge cuts lost {{ {self._macs(pair)} }}")
            self._lost[pair] = None

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """Undo the cuts between the two in both directions, those of one host, or all."""
        wanted = {name for name in (one, other) if name is not None}
        for pair in [pair for pair in self._lost if wanted <= set(pair)]:
            self._nft(f"delete element bridge cuts lost {{ {self._macs(pair)} }}")
            del self._lost[pair]

    def isolate(self, name: str) -> None:
        """Cut one host off from all others that there are now."""
        for host in self:
            if host.name != name:
                self.cut(name, host.name)

    def batch(self, namespace: str, *lines: str) -> None:
        """Several `ip` commands in one namespace by one process."""
        _said(["ip", "-n", namespace, "-batch", "-"], "\n".join(lines))

    def _macs(self, pair: tuple[str, str]) -> str:
        return " . ".join(self._hosts[name].mac for name in pair)

    def _nft(self, text: str) -> None:
        _said(["nsenter", f"--net=/run/netns/{self.switch}", "--", "nft", "-f", "-"], text)

    def _remove(self) -> None:
        """Everything goes, whatever fails on the way; what failed first is raised at the end."""
        failed: list[BaseException] = []
        for host in self:
            if Path("/run/netns", host.namespace).exists():
                try:
                    host.stop()
                except (AssertionError, OSError, subprocess.SubprocessError) as error:
                    failed.append(error)
        for namespace in (*(host.namespace for host in self), self.switch):
            if Path("/run/netns", namespace).exists():
                try:
                    _said(["ip", "netns", "del", namespace])
                except (AssertionError, OSError, subprocess.SubprocessError) as error:
                    failed.append(error)
        self._hosts.clear()
        self._lost.clear()
        if failed:
            raise failed[0]


def _said(args: Sequence[str], text: str | None = None) -> str:
    """What a command printed. Raises AssertionError if it failed."""
    done = subprocess.run(args, input=text, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, f"{' '.join(args)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"
    return done.stdout


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_unless_ended(started: subprocess.Popen[str]) -> None:
    """One that was started from here and may not have entered the namespace yet; its pipes are closed."""
    if started.poll() is None:
        started.kill()
    started.wait(WAIT)
    for pipe in (started.stdin, started.stdout, started.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
