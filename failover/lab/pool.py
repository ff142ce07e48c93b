"""A whole pool on loopback: producers, references, relays, real HAProxies, and the controller's file for it.

With a record, also Route 53 with its DNS servers, caching resolvers, and relays that dial the record's name; a
gateless pool has these alone. Such relays know one port, so there the producers all listen on the same one, at
addresses of their own.

Everything is started by ``async with LabPool(folder)`` and ended there, by process id, whatever happened in between;
should the lab itself be killed, the kernel ends its children (process.py). Nothing but loopback is used.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

from failover.gates import haproxy_config
from failover.host import RealHost
from failover.lab import control, process, sessions
from failover.lab.chain import NAME, Chain
from failover.lab.haproxy import HaproxyProcess, LabConfig, LabError, LabProxy, Style, WayIn, free_ports, installed
from failover.lab.names import COMMANDS as SERVER_COMMANDS
from failover.lab.node import COMMANDS as NODE_COMMANDS
from failover.lab.process import Child
from failover.lab.resolution import Promote
from failover.lab.resolver import COMMANDS as RESOLVER_COMMANDS
from failover.lab.route53 import COMMANDS as ROUTE53_COMMANDS
from failover.model import Address

MARK = ".failover-lab"  # in a folder that is the lab's, and may be cleared by it; locked while one runs there
CONTROL = "lab.sock"
REFERENCE = "reference-"
MOST = {"references": 8, "relays": 20, "proxies": 8, "servers": 4, "resolvers": 8}
NODE_WITHIN = 3.0  # seconds that a node may take to answer what it is told
CHAIN_AGE = 1000  # slots that the chain has when the lab starts
MOST_SCALE = 100.0
ZONE, ZONE_ID, RECORD, TTL = "lab.test.", "Z0LAB", "bp.lab.test.", 60
ROUTE53 = "route53"
PORT_ATTEMPTS = 50
# Route 53's client must find credentials, and must find them here: anywhere else it would ask the network.
ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "AWS_ACCESS_KEY_ID": "the-lab",
        "AWS_SECRET_ACCESS_KEY": "of-the-lab-only",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
)


@dataclass(frozen=True, slots=True)
class Times:
    """The controller's times in the lab, in seconds; ``Times.faster`` derives them from those in life."""

    interval: float
    timeout: float
    max_gap: float
    fail_over_after: float
    fail_back_after: float
    slot: float

    @classmethod
    def faster(cls, scale: float) -> Times:
        """The defaults, ``scale`` times faster, but none so short that a busy machine looks like a failure."""
        interval = max(0.5, 10 / scale)
        return cls(
            interval=interval,
            timeout=max(0.5, 5 / scale),
            max_gap=max(2.0, 30 / scale),
            fail_over_after=max(3 * interval, 300 / scale),
            fail_back_after=max(3 * interval, 1800 / scale),
            slot=max(0.1, 1 / scale),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a lab consists of. ``scale`` is how many times faster than in life everything happens.

    ``ways`` are the ways in to the proxies, in turn; ``times`` overrides what follows from the scale.

    With ``record`` a name points at the active producer, beside the proxies, and ``named`` further relays dial that
    name. A ``gateless`` pool has that record and no proxy; all its ``relays`` dial the name. ``servers`` are the
    zone's DNS servers. ``resolvers`` are used by these relays in turn; ``promote`` is about their warm peers.

    ``style`` is how every proxy is configured. ``within`` are words before the command of a part, by its name (as for
    process.Child); with such words a proxy listens at an address of its own.
    """

    producers: tuple[str, ...] = ("main", "backup")
    references: int = 2
    relays: int = 2
    proxies: int = 2
    magic: int = 42
    scale: float = 20.0
    ways: tuple[WayIn, ...] = (WayIn.SOCKET,)
    times: Times | None = None
    seed: int = 0
    record: bool = False
    gateless: bool = False
    named: int = 0
    servers: int = 2
    resolvers: int = 1
    promote: Promote = Promote.NAMED
    style: Style = Style.REFERENCE
    within: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def has_record(self) -> bool:
        """Whether a name points at the active producer."""
        return self.record or self.gateless

    @property
    def relay_names(self) -> tuple[str, ...]:
        """Every relay's name; those that dial the record's name come last."""
        return tuple(f"relay-{number + 1}" for number in range(self.relays + self.named))

    @property
    def by_name(self) -> tuple[str, ...]:
        """The relays that dial the record's name."""
        return self.relay_names[0 if self.gateless else self.relays :]

    def __post_init__(self) -> None:
        for what, most in MOST.items():
            number = getattr(self, what)
            if not 1 <= number <= most:
                raise LabError(f"{what}: {number} is not within 1 to {most}", f"give 1 to {most} {what}")
        if not 0 <= self.named <= MOST["relays"] or (self.named and not self.has_record):
            raise LabError(
                f"named: {self.named} relays by name need a record, and are at most {MOST['relays']}",
                "give a record, or no relays by name",
            )
        if not 0.1 <= self.scale <= MOST_SCALE:
            raise LabError(f"scale: {self.scale:g} is not within 0.1 to {MOST_SCALE:g}", "20 is a good one")
        for name in self.producers:
            if not NAME.fullmatch(name) or name.startswith(REFERENCE) or len(set(self.producers)) < len(self.producers):
                raise LabError(f"producers: {name!r}: names differ, and have a-z, 0-9 and -, at most 16", "rename it")


class Tellable(Protocol):
    """What is known of a command that a part understands."""

    @property
    def meaning(self) -> str:
        """What it does."""
        ...

    @property
    def argument(self) -> str:
        """What its value is; empty where it takes none."""
        ...


_Act = Callable[[str | None], Awaitable[Mapping[str, Any] | None]]
"""Carries out one command with its value; what it returns is told."""


def _free_port(hosts: Sequence[str], *, udp: bool = False) -> int:
    """A port that is free at each of these addresses, with ``udp`` for UDP as well. Raises LabError."""
    for _ in range(PORT_ATTEMPTS):
        (port,) = free_ports(1, hosts[0])
        kinds = [socket.SOCK_STREAM, *([socket.SOCK_DGRAM] if udp else [])]
        if all(_is_free(host, port, kind) for host in hosts for kind in kinds):
            return port
    raise LabError(f"no port is free at all of {', '.join(hosts)}", "end what listens there")


def _is_free(host: str, port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(type=kind) as tried:
        try:
            tried.bind((host, port))
        except OSError:
            return False
    return True


class LabPool:
    """A pool on loopback in ``folder``. ``file`` is the controller's configuration; ``say`` hears of progress.

    ``nodes`` (producers and references), ``relays`` and ``dns`` (Route 53 with its DNS servers, and resolvers) are
    processes, ``proxies`` real HAProxies, by name. ``environment`` is what whoever starts the controller adds to its
    own; it is also in ``environment_file``, for a shell. ``servers`` are the zone's DNS servers, by name.
    """

    def __init__(self, folder: Path, plan: Plan = Plan(), say: Callable[[str], None] = lambda _: None) -> None:
        self.folder = folder.absolute()
        self.plan = plan
        self.times = plan.times or Times.faster(plan.scale)
        self.file = self.folder / "failover.yaml"
        self.chain = Chain(RealHost().now().mono - CHAIN_AGE * self.times.slot, self.times.slot)
        self.addresses: dict[str, Address] = {}
        self.nodes: dict[str, Child] = {}
        self.relays: dict[str, Child] = {}
        self.proxies: dict[str, LabProxy] = {}
        self.dns: dict[str, Child] = {}
        self.servers: dict[str, Address] = {}
        self.environment: Mapping[str, str] = ENVIRONMENT if plan.has_record else {}
        self.environment_file = self.folder / "environment.sh"
        self._say = say
        self._ways: dict[str, WayIn] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say("ending everything")
        await self._stack.aclose()

    # ------------------------------------------------ starting

    async def _start(self) -> None:
        missing = None if self.plan.gateless else installed()
        if missing is not None:
            raise LabError(missing, "apt-get install haproxy")
        self._take_folder()
        self._place_nodes()
        await self._start_children(self.nodes)
        if self.plan.has_record:
            await self._start_dns()
        for number in range(1, 1 if self.plan.gateless else self.plan.proxies + 1):
            await self._start_proxy(number, self.plan.ways[(number - 1) % len(self.plan.ways)])
        for number, name in enumerate(self.plan.relay_names, 1):
            self.relays[name] = self._relay(name, f"127.0.1.{number}")
        await self._start_children(self.relays)
        self._write_file()
        listener = await control.serve(self.folder / CONTROL, self._handle)
        self._stack.callback(listener.close)

    def _take_folder(self) -> None:
        control.fitting(self.folder / f"proxy-{self.plan.proxies}" / "admin.sock")
        mark = self.folder / MARK
        try:
            if self.folder.exists() and any(self.folder.iterdir()) and not mark.exists():
                raise LabError(f"{self.folder}: not empty, and not a lab's folder", "choose another with --folder")
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.folder.stat().st_uid != os.getuid():
                raise LabError(f"{self.folder}: belongs to somebody else", "choose another with --folder")
            lock = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LabError(f"{self.folder}: {error.strerror}", "choose another with --folder") from None
        self._stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"{self.folder}: another lab runs here", "end it, or choose another --folder") from None
        for old in self.folder.iterdir():
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            elif old != mark:
                old.unlink()

    def _place_nodes(self) -> None:
        """Choose an address for each node. Relays that dial a name know one port for all producers."""
        hosts = {name: f"127.0.0.{number}" for number, name in enumerate(self.plan.producers, 11)}
        shared = _free_port(tuple(hosts.values())) if self.plan.has_record else None
        for number in range(1, self.plan.references + 1):
            hosts[f"{REFERENCE}{number}"] = f"127.0.0.{10 + len(self.plan.producers) + number}"
        for name, host in hosts.items():
            port = shared if shared is not None and name in self.plan.producers else free_ports(1, host)[0]
            self.addresses[name] = Address(host, port)
            self.nodes[name] = self._node(name)

    def _node(self, name: str) -> Child:
        words = ["--name", name, "--listen", str(self.addresses[name]), "--magic", str(self.plan.magic)]
        words += ["--chain-epoch", repr(self.chain.epoch), "--slot-seconds", repr(self.chain.slot_seconds)]
        words += ["--scale", str(self.plan.scale), "--control", str(control.fitting(self.folder / f"{name}.sock"))]
        return Child(name, "failover.lab.node", words, self.folder, self._within(name))

    def _relay(self, name: str, source: str) -> Child:
        words = ["--name", name, "--magic", str(self.plan.magic), "--log", str(self.log(name)), "--source", source]
        words += ["--scale", str(self.plan.scale), "--seed", str(self.plan.seed)]
        if name in self.plan.by_name:
            words += ["--name-target", f"{RECORD}:{self.addresses[self.plan.producers[0]].port}"]
            words += ["--resolver", str(self.resolver(name)), "--promote", self.plan.promote.value]
        else:
            for proxy in self.proxies.values():
                words += ["--target", str(proxy.relays)]
        return Child(name, "failover.lab.relay", words, self.folder, self._within(name))

    def _within(self, name: str) -> Sequence[str]:
        return self.plan.within.get(name, ())

    async def _start_dns(self) -> None:
        """Route 53 with its DNS servers, then the resolvers that ask these."""
        endpoint = self.addresses[ROUTE53] = Address("127.0.2.1", free_ports(1, "127.0.2.1")[0])
        for number in range(1, self.plan.servers + 1):
            host = f"127.0.2.{10 + number}"
            self.servers[f"ns{number}"] = Address(host, _free_port((host,), udp=True))
        first = self.addresses[self.plan.producers[0]].host
        words = ["--listen", str(endpoint), "--zone", ZONE, "--id", ZONE_ID, "--record", f"{RECORD} {TTL} {first}"]
        for address in self.servers.values():
            words += ["--dns", str(address)]
        self.dns[ROUTE53] = self._dns_child(ROUTE53, "failover.lab.route53", words)
        for number in range(1, self.plan.resolvers + 1):
            name, host = f"resolver-{number}", f"127.0.3.{number}"
            self.addresses[name] = Address(host, _free_port((host,), udp=True))
            words = ["--listen", str(self.addresses[name])]
            for address in self.servers.values():
                words += ["--upstream", str(address)]
            self.dns[name] = self._dns_child(name, "failover.lab.resolver", words)
        await self._start_children(self.dns)
        exports = [f"export {name}={value}\n" for name, value in self.environment.items()]
        self.environment_file.write_text("".join(exports), encoding="utf-8")

    def _dns_child(self, name: str, module: str, words: Sequence[str]) -> Child:
        shared = ["--scale", str(self.plan.scale), "--control", str(control.fitting(self.folder / f"{name}.sock"))]
        return Child(name, module, [*words, *shared], self.folder, self._within(name))

    async def _start_children(self, children: Mapping[str, Child]) -> None:
        for child in children.values():
            self._stack.push_async_callback(child.stop)
        await asyncio.gather(*(child.start() for child in children.values()))
        for name in children:
            self._say(f"{name} runs" + (f" at {self.addresses[name]}" if name in self.addresses else ""))

    async def _start_proxy(self, number: int, way: WayIn) -> None:
        name = f"proxy-{number}"
        folder, within = self.folder / name, self._within(name)
        folder.mkdir()
        producers = {p: self.addresses[p] for p in self.plan.producers}
        host = f"127.0.4.{number}" if within else "127.0.0.1"
        proxy = LabProxy(folder, LabConfig(name, producers, self.plan.magic, self.plan.style, host=host))
        proxy.process = HaproxyProcess(
            folder,
            proxy.text(),
            proxy.socket,
            state_file=proxy.state_file,
            environment={haproxy_config.PASSWORD_VARIABLE: LabProxy.PASSWORD},
            binary=process.haproxy_that_ends_with_us(folder, within),
        )
        self._stack.push_async_callback(proxy.process.stop)
        await proxy.process.start()
        self.proxies[name], self._ways[name] = proxy, way
        self._say(f"{name} runs, relays connect to {proxy.relays}")

    def _write_file(self) -> None:
        t = self.times
        references = [f'"{address}"' for name, address in self.addresses.items() if name.startswith(REFERENCE)]
        lines = ["pool: LAB", f"network: {{magic: {self.plan.magic}}}", f'state: "{self.folder / "state"}"']
        lines += [f'listen: "127.0.0.1:{free_ports(1)[0]}"', "producers:"]
        lines += [f'  - {{name: {name}, address: "{self.addresses[name]}"}}' for name in self.plan.producers]
        lines += [*self._proxy_lines(), *(self._record_lines() if self.plan.has_record else [])]
        back = ", fail_back: manual" if self.plan.gateless else ""
        lines += [
            f"references: [{', '.join(references)}]",
            f"health: {{interval: {t.interval:g}, timeout: {t.timeout:g}, max_gap: {t.max_gap:g}}}",
            f"policy: {{fail_over_after: {t.fail_over_after:g}, fail_back_after: {t.fail_back_after:g}{back}}}",
            "lease: {duration: 15s, renew: 3s, action_timeout: 3s}",
        ]
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._say(f"{self.file} is written")

    def _proxy_lines(self) -> list[str]:
        if self.plan.gateless:
            return ["fence: {require: none}"]
        password = self.folder / "stats.password"
        password.touch(0o600)
        password.write_text(LabProxy.PASSWORD + "\n", encoding="utf-8")
        lines = ["proxies:"]
        for name, lab in self.proxies.items():
            lines.append(f"  - name: {name}")
            lines += [f"    {key}: {value}" for key, value in self._way_in(lab, self._ways[name], password).items()]
        return lines

    def _record_lines(self) -> list[str]:
        targets = ", ".join(f"{name}: {self.addresses[name].host}" for name in self.plan.producers)
        servers = ", ".join(f'"{address}"' for address in self.servers.values())
        return [
            "records:",
            f"  - name: {RECORD}",
            f"    addresses: {{{targets}}}",
            f"    ttl: {TTL}",
            f'    route53: {{zone: {ZONE_ID}, endpoint_url: "http://{self.addresses[ROUTE53]}"}}',
            f"    verify: {{servers: [{servers}]}}",
        ]

    @staticmethod
    def _way_in(lab: LabProxy, way: WayIn, password: Path) -> dict[str, str]:
        proxy = lab.proxy(way)
        keys = {"backend": proxy.backend, "hard_stop_after": f"{proxy.hard_stop_after:g}s"}
        if proxy.watch is not None:
            keys["watch"] = proxy.watch
        if way is WayIn.STATS:
            return {
                "stats": str(proxy.stats),
                "username": str(proxy.username),
                "password_file": f'"{password}"',
                **keys,
            }
        return {"socket": f'"{proxy.socket}"', **keys}

    # ------------------------------------------------ what can be done to it

    @property
    def children(self) -> dict[str, Child]:
        """Every part that is a process of ours, by name."""
        return self.nodes | self.relays | self.dns

    def log(self, relay: str) -> Path:
        """Where a relay writes its sessions; see sessions.py."""
        return self.folder / f"{relay}.jsonl"

    def sessions(self) -> list[sessions.Interval]:
        """Every session of every relay so far, by start."""
        found = [interval for relay in self.relays for interval in sessions.intervals(self.log(relay))]
        return sorted(found, key=lambda interval: interval.start)

    def through(self, target: str) -> str:
        """What led a relay to this address: a proxy, or the record."""
        names = {str(proxy.relays): name for name, proxy in self.proxies.items()}
        return names.get(target, RECORD)

    def resolver(self, relay: str) -> Address:
        """Where a relay that dials the record's name asks for it."""
        number = self.plan.by_name.index(relay) % self.plan.resolvers
        return self.addresses[f"resolver-{number + 1}"]

    def reached(self) -> dict[tuple[str, str], str]:
        """The producer that each relay has a hot session with now, by relay and proxy, or record.

        Where a name leads a relay to two producers at once, it is the later one; ``sessions`` has both.
        """
        return {(i.relay, self.through(i.target)): i.producer for i in self.sessions() if i.end is None and i.is_hot}

    def lingering(self) -> set[tuple[str, str]]:
        """The relays and producers that are still connected although the name no longer says so."""
        return {(i.relay, i.producer) for i in self.sessions() if i.end is None and not i.is_hot}

    def suspend(self, name: str) -> None:
        """SIGSTOP a part that is a process: the truest hang. Raises LabError when it does not run."""
        self._child(name).signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT it."""
        self._child(name).signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        """SIGKILL it; ``restart`` starts it again."""
        self._child(name).signal(signal.SIGKILL)

    async def restart(self, name: str) -> None:
        """End a part if it runs, and start it, free of any fault; Route 53 with the zone that it began with."""
        child = self._child(name)
        await child.stop()
        await child.start()

    async def restart_proxy(self, name: str, *, keep_state: bool = False) -> None:
        """End a proxy and start it again; without its state it opens the preferred producer, and no other."""
        await self._proxy(name).process.restart(keep_state=keep_state)

    async def open_by_hand(self, proxy: str, producer: str) -> None:
        """Make a producer's server ready, behind the controller's back."""
        await self._by_hand(proxy, producer, "set server {} state ready")

    async def close_by_hand(self, proxy: str, producer: str) -> None:
        """Put a producer's server to maint and end its sessions, behind the controller's back."""
        await self._by_hand(proxy, producer, "set server {} state maint")
        await self._by_hand(proxy, producer, "shutdown sessions server {}")

    def commands(self, name: str) -> dict[str, str]:
        """What can be told to a part, and what it means. Raises LabError for an unknown part."""
        return {command: meaning for command, (meaning, _) in self._acts(name).items()}

    async def tell(self, name: str, command: str, value: str | None = None) -> Mapping[str, Any]:
        """Tell a part one of its commands, or ``help``. Raises LabError with what exists."""
        acts = self._acts(name)
        if command == "help":
            return self.commands(name)
        if command not in acts:
            raise LabError(f"{name} knows no command {command!r}", "it can be told: help, " + ", ".join(acts))
        return await acts[command][1](value) or {}

    def _acts(self, name: str) -> dict[str, tuple[str, _Act]]:
        if name in self.proxies:
            return self._proxy_acts(name)
        if name in self.servers:
            return self._told(name, ROUTE53, SERVER_COMMANDS)
        if name == ROUTE53:
            return {**self._process_acts(name), **self._told(name, name, ROUTE53_COMMANDS)}
        if name in self.dns:
            return {**self._process_acts(name), **self._told(name, name, RESOLVER_COMMANDS)}
        if name in self.relays:
            return {**self._process_acts(name), "reached": ("tell whom it has sessions with", partial(self._met, name))}
        return {**self._process_acts(name), **self._told(name, name, NODE_COMMANDS)}

    def _process_acts(self, name: str) -> dict[str, tuple[str, _Act]]:
        self._child(name)

        async def signalled(act: Callable[[str], None]) -> None:
            act(name)

        return {
            "stop": ("SIGSTOP: connections are taken, nothing is answered", lambda _: signalled(self.suspend)),
            "continue": ("SIGCONT", lambda _: signalled(self.resume)),
            "kill": ("SIGKILL", lambda _: signalled(self.kill)),
            "restart": ("end it, and start it free of any fault", lambda _: self.restart(name)),
        }

    def _told(self, part: str, holder: str, known: Mapping[str, Tellable]) -> dict[str, tuple[str, _Act]]:
        """The commands of ``part``, which the process ``holder`` has a socket for."""

        async def asked(word: str, value: str | None) -> Mapping[str, Any]:
            self._child(holder).running()
            question = {"to": part, "command": word, "value": value}
            return await control.ask(self.folder / f"{holder}.sock", question, NODE_WITHIN)

        return {w: (f"{c.argument} {c.meaning}".strip(), partial(asked, w)) for w, c in known.items()}

    async def _met(self, relay: str, _: str | None) -> Mapping[str, Any]:
        hot = {where: producer for (name, where), producer in self.reached().items() if name == relay}
        warm = sorted(producer for name, producer in self.lingering() if name == relay)
        return {**hot, **({"lingering": warm} if warm else {})}

    def _proxy_acts(self, name: str) -> dict[str, tuple[str, _Act]]:
        process = self.proxies[name].process

        async def called(act: Callable[[], None]) -> None:
            act()

        return {
            "stop": ("SIGSTOP: connections are taken, nothing is answered", lambda _: called(process.suspend)),
            "continue": ("SIGCONT", lambda _: called(process.resume)),
            "restart": ("end it, and start it without its state", lambda _: self.restart_proxy(name)),
            "open": ("PRODUCER make its server ready, by hand", lambda v: self.open_by_hand(name, v or "")),
            "close": ("PRODUCER maint, and end its sessions", lambda v: self.close_by_hand(name, v or "")),
        }

    async def _handle(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        value = question.get("value")
        return await self.tell(str(question.get("to")), question["command"], None if value is None else str(value))

    async def _by_hand(self, proxy: str, producer: str, command: str) -> None:
        if producer not in self.plan.producers:
            raise LabError(f"{producer!r} is no producer", "there are " + ", ".join(self.plan.producers))
        lab = self._proxy(proxy)
        answer = (await lab.process.ask(command.format(f"{lab.config.backend}/{producer}"))).strip()
        if answer:
            raise LabError(f"{proxy}: {answer}")

    def _child(self, name: str) -> Child:
        child = self.children.get(name)
        if child is None:
            raise self._no_part(name, "node or relay")
        return child

    def _proxy(self, name: str) -> LabProxy:
        if name not in self.proxies:
            raise self._no_part(name, "proxy")
        return self.proxies[name]

    def _no_part(self, name: str, kind: str) -> LabError:
        parts = (*self.children, *self.servers, *self.proxies)
        return LabError(f"no {kind} {name!r}", "there are " + ", ".join(parts))
