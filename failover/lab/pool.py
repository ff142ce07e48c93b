"""A whole pool on loopback: producers, a reference, relays, real HAProxies, and the controller's file for it.

Everything is started by ``async with LabPool(folder)`` and ended there, by process id, whatever happened in between;
should the lab itself be killed, the kernel ends its children (process.py). Nothing but loopback is used.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from failover.gates import haproxy_config
from failover.host import RealHost
from failover.lab import control, process, sessions
from failover.lab.chain import NAME, Chain
from failover.lab.haproxy import HaproxyProcess, LabConfig, LabError, LabProxy, WayIn, free_ports, installed
from failover.lab.node import COMMANDS as NODE_COMMANDS
from failover.lab.process import Child
from failover.model import Address

MARK = ".failover-lab"  # in a folder that is the lab's, and may be cleared by it; locked while one runs there
CONTROL = "lab.sock"
REFERENCE = "reference-"
MOST = {"references": 8, "relays": 20, "proxies": 8}
NODE_WITHIN = 3.0  # seconds that a node may take to answer what it is told
CHAIN_AGE = 1000  # slots that the chain has when the lab starts
MOST_SCALE = 100.0


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

    def __post_init__(self) -> None:
        for what, most in MOST.items():
            number = getattr(self, what)
            if not 1 <= number <= most:
                raise LabError(f"{what}: {number} is not within 1 to {most}", f"give 1 to {most} {what}")
        if not 0.1 <= self.scale <= MOST_SCALE:
            raise LabError(f"scale: {self.scale:g} is not within 0.1 to {MOST_SCALE:g}", "20 is a good one")
        for name in self.producers:
            if not NAME.fullmatch(name) or name.startswith(REFERENCE) or len(set(self.producers)) < len(self.producers):
                raise LabError(f"producers: {name!r}: names differ, and have a-z, 0-9 and -, at most 16", "rename it")


_Act = Callable[[str | None], Awaitable[Mapping[str, Any] | None]]
"""Carries out one command with its value; what it returns is told."""


class LabPool:
    """A pool on loopback in ``folder``. ``file`` is the controller's configuration; ``say`` hears of progress.

    ``nodes`` (producers and the reference) and ``relays`` are processes, ``proxies`` real HAProxies, by name.
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
        missing = installed()
        if missing is not None:
            raise LabError(missing, "apt-get install haproxy")
        self._take_folder()
        references = [f"{REFERENCE}{number + 1}" for number in range(self.plan.references)]
        for number, name in enumerate((*self.plan.producers, *references), 11):
            host = f"127.0.0.{number}"
            self.addresses[name] = Address(host, free_ports(1, host)[0])
            self.nodes[name] = self._node(name)
        await self._start_children(self.nodes)
        for number in range(1, self.plan.proxies + 1):
            await self._start_proxy(f"proxy-{number}", self.plan.ways[(number - 1) % len(self.plan.ways)])
        for number in range(1, self.plan.relays + 1):
            self.relays[f"relay-{number}"] = self._relay(f"relay-{number}", f"127.0.1.{number}")
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

    def _node(self, name: str) -> Child:
        words = ["--name", name, "--listen", str(self.addresses[name]), "--magic", str(self.plan.magic)]
        words += ["--chain-epoch", repr(self.chain.epoch), "--slot-seconds", repr(self.chain.slot_seconds)]
        words += ["--scale", str(self.plan.scale), "--control", str(control.fitting(self.folder / f"{name}.sock"))]
        return Child(name, "failover.lab.node", words, self.folder)

    def _relay(self, name: str, source: str) -> Child:
        words = ["--name", name, "--magic", str(self.plan.magic), "--log", str(self.log(name)), "--source", source]
        words += ["--scale", str(self.plan.scale), "--seed", str(self.plan.seed)]
        for proxy in self.proxies.values():
            words += ["--target", str(proxy.relays)]
        return Child(name, "failover.lab.relay", words, self.folder)

    async def _start_children(self, children: Mapping[str, Child]) -> None:
        for child in children.values():
            self._stack.push_async_callback(child.stop)
        await asyncio.gather(*(child.start() for child in children.values()))
        for name in children:
            self._say(f"{name} runs" + (f" at {self.addresses[name]}" if name in self.addresses else ""))

    async def _start_proxy(self, name: str, way: WayIn) -> None:
        folder = self.folder / name
        folder.mkdir()
        producers = {p: self.addresses[p] for p in self.plan.producers}
        proxy = LabProxy(folder, LabConfig(name, producers, self.plan.magic))
        proxy.process = HaproxyProcess(
            folder,
            proxy.text(),
            proxy.socket,
            state_file=proxy.state_file,
            environment={haproxy_config.PASSWORD_VARIABLE: LabProxy.PASSWORD},
            binary=process.haproxy_that_ends_with_us(folder),
        )
        self._stack.push_async_callback(proxy.process.stop)
        await proxy.process.start()
        self.proxies[name], self._ways[name] = proxy, way
        self._say(f"{name} runs, relays connect to {proxy.relays}")

    def _write_file(self) -> None:
        password = self.folder / "stats.password"
        password.touch(0o600)
        password.write_text(LabProxy.PASSWORD + "\n", encoding="utf-8")
        t = self.times
        references = [f'"{address}"' for name, address in self.addresses.items() if name.startswith(REFERENCE)]
        lines = ["pool: LAB", f"network: {{magic: {self.plan.magic}}}", f'state: "{self.folder / "state"}"']
        lines += [f'listen: "127.0.0.1:{free_ports(1)[0]}"', "producers:"]
        lines += [f'  - {{name: {name}, address: "{self.addresses[name]}"}}' for name in self.plan.producers]
        lines.append("proxies:")
        for name, lab in self.proxies.items():
            lines.append(f"  - name: {name}")
            lines += [f"    {key}: {value}" for key, value in self._way_in(lab, self._ways[name], password).items()]
        lines += [
            f"references: [{', '.join(references)}]",
            f"health: {{interval: {t.interval:g}, timeout: {t.timeout:g}, max_gap: {t.max_gap:g}}}",
            f"policy: {{fail_over_after: {t.fail_over_after:g}, fail_back_after: {t.fail_back_after:g}}}",
            "lease: {duration: 15s, renew: 3s, action_timeout: 3s}",
        ]
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._say(f"{self.file} is written")

    @staticmethod
    def _way_in(lab: LabProxy, way: WayIn, password: Path) -> dict[str, str]:
        proxy = lab.proxy(way)
        keys = {"backend": proxy.backend, "watch": str(proxy.watch), "hard_stop_after": f"{proxy.hard_stop_after:g}s"}
        if way is WayIn.STATS:
            return {
                "stats": str(proxy.stats),
                "username": str(proxy.username),
                "password_file": f'"{password}"',
                **keys,
            }
        return {"socket": f'"{proxy.socket}"', **keys}

    # ------------------------------------------------ what can be done to it

    def log(self, relay: str) -> Path:
        """Where a relay writes its sessions; see sessions.py."""
        return self.folder / f"{relay}.jsonl"

    def sessions(self) -> list[sessions.Interval]:
        """Every session of every relay so far, by start."""
        found = [interval for relay in self.relays for interval in sessions.intervals(self.log(relay))]
        return sorted(found, key=lambda interval: interval.start)

    def reached(self) -> dict[tuple[str, str], str]:
        """The producer that each relay has a session with now, by relay and proxy."""
        names = {str(proxy.relays): name for name, proxy in self.proxies.items()}
        return {(i.relay, names[i.target]): i.producer for i in self.sessions() if i.end is None}

    def suspend(self, name: str) -> None:
        """SIGSTOP a node or a relay: the truest hang. Raises LabError when it does not run."""
        self._child(name).signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT it."""
        self._child(name).signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        """SIGKILL it; ``restart`` starts it again."""
        self._child(name).signal(signal.SIGKILL)

    async def restart(self, name: str) -> None:
        """End a node or a relay if it runs, and start it, free of any fault."""
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
        """Tell a node, a relay or a proxy one of its commands, or ``help``. Raises LabError with what exists."""
        acts = self._acts(name)
        if command == "help":
            return self.commands(name)
        if command not in acts:
            raise LabError(f"{name} knows no command {command!r}", "it can be told: help, " + ", ".join(acts))
        return await acts[command][1](value) or {}

    def _acts(self, name: str) -> dict[str, tuple[str, _Act]]:
        if name in self.proxies:
            return self._proxy_acts(name)

        async def signalled(act: Callable[[str], None]) -> None:
            act(name)

        async def asked(command: str, value: str | None) -> Mapping[str, Any]:
            self._child(name).running()
            return await control.ask(self.folder / f"{name}.sock", {"command": command, "value": value}, NODE_WITHIN)

        async def reached(_: str | None) -> Mapping[str, Any]:
            return {proxy: producer for (relay, proxy), producer in self.reached().items() if relay == name}

        self._child(name)
        acts: dict[str, tuple[str, _Act]] = {
            "stop": ("SIGSTOP: connections are taken, nothing is answered", lambda _: signalled(self.suspend)),
            "continue": ("SIGCONT", lambda _: signalled(self.resume)),
            "kill": ("SIGKILL", lambda _: signalled(self.kill)),
            "restart": ("end it, and start it free of any fault", lambda _: self.restart(name)),
        }
        if name in self.relays:
            return {**acts, "reached": ("tell whom it has sessions with", reached)}
        for word, known in NODE_COMMANDS.items():
            acts[word] = (f"{known.argument} {known.meaning}".strip(), partial(asked, word))
        return acts

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
        child = self.nodes.get(name) or self.relays.get(name)
        if child is None:
            raise self._no_part(name, "node or relay")
        return child

    def _proxy(self, name: str) -> LabProxy:
        if name not in self.proxies:
            raise self._no_part(name, "proxy")
        return self.proxies[name]

    def _no_part(self, name: str, kind: str) -> LabError:
        return LabError(f"no {kind} {name!r}", "there are " + ", ".join((*self.nodes, *self.relays, *self.proxies)))
