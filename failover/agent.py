#!/usr/bin/python3 -I
"""The agent on the hosts of producers and relays: it shuts and opens this host's gates, and says what is so.

One file, the standard library, Python 3.9 and later. `serve` is run by sshd as a forced command: one JSON request a
line in, one JSON answer a line out (see "The protocol" below). Everything else is for the host's own start-up and for
people. It never prints, copies or sends a key: credentials are only ever renamed, within one file system.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import fcntl
import hashlib
import http.client
import io
import ipaddress
import itertools
import json
import math
import os
import pwd
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time  # noqa: TID251 - the agent is a program of its own: it has no Host
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

VERSION = "0.1.0"
PROTOCOL = 1


# ---------------------------------------------------------------- errors


class AgentError(Exception):
    """Anything that the agent answers with ``ok: false``. ``mend`` says what to do about it, or is empty."""

    kind = "unable"

    def __init__(self, error: str, mend: str = "") -> None:
        super().__init__(error)
        self.mend = mend


class Unable(AgentError):
    """The host could not do it: a tool is missing, a disk is full, a process did not answer."""

    kind = "unable"


class Refused(AgentError):
    """It was not tried, because it would have been wrong: nothing was touched."""

    kind = "refused"


class Stale(AgentError):
    """A newer generation or term was heard for this gate."""

    kind = "stale"


class Busy(AgentError):
    """Another agent process holds the lock."""

    kind = "busy"


class BadRequest(AgentError):
    """The request is not one that this agent understands."""

    kind = "bad-request"


class OtherVersion(AgentError):
    """The request is of another version of the protocol."""

    kind = "version"


# ---------------------------------------------------------------- running commands

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_BOUND = 4 * 1024 * 1024  # bytes of a command's output; more is an error


class Ran(NamedTuple):
    """How a command ended; the output as text, undecodable bytes replaced."""

    args: Sequence[str]
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]  # run(args, timeout, input=None)


def run(args: Sequence[str], timeout: float, input: str | None = None, user: str | None = None) -> Ran:  # noqa: A002
    """Run a command without a shell, with a fixed environment, a deadline and a bound on what it may say.

    Raises Unable when it is not there, does not end in time or says too much.
    """
    name = args[0]
    program = name if "/" in name else shutil.which(name, path=PATH)
    if program is None:
        raise Unable(f"{name} is not installed on this host", f"install {name}, or take what needs it out of the file")
    who: dict[str, Any] = {}
    if user is not None and os.geteuid() == 0:
        account = account_of(user)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    deadline = Deadline(timeout)
    try:
        process = subprocess.Popen(
            [program, *args[1:]],
            stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PATH, "LC_ALL": "C", "LANG": "C"},
            cwd="/",
            start_new_session=True,
            **who,
        )
    except OSError as error:
        raise Unable(f"{name} could not be started: {error.strerror}", f"see that {program} can be run") from None
    try:
        output = _talk(process, (input or "").encode(), deadline)
        if output is None:
            what = f"{' '.join(args[:2])} did not end within {timeout:.1f} s, or said too much"
            raise Unable(what, f"run {name} by hand")
        return Ran(list(args), process.returncode, *(part.decode("utf-8", "replace") for part in output))
    finally:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _talk(process: subprocess.Popen[bytes], left: bytes, deadline: Deadline) -> tuple[bytes, bytes] | None:
    """Feed and read a process to its end; None: not within the deadline, or more than the bound."""
    outputs = (process.stdout, process.stderr)
    read: dict[int, bytearray] = {pipe.fileno(): bytearray() for pipe in outputs if pipe is not None}
    order, waiting = list(read), list(read)
    writing = [process.stdin.fileno()] if process.stdin is not None else []
    while waiting or writing:
        if deadline.over:
            return None
        ready, writable, _ = select.select(waiting, writing, [], deadline.left)
        for number in writable:
            try:
                left = left[os.write(number, left[:4096]) :]
            except BrokenPipeError:
                left = b""
            if not left and process.stdin is not None:
                writing = []
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        for number in ready:
            data = os.read(number, 65536)
            if not data:
                waiting.remove(number)
            read[number] += data
        if sum(map(len, read.values())) > OUTPUT_BOUND:
            return None
    try:
        process.wait(deadline.left)
    except subprocess.TimeoutExpired:
        return None
    return bytes(read[order[0]]), bytes(read[order[1]])


def account_of(user: str) -> pwd.struct_passwd:
    """The account of a name or number. Raises Refused."""
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise Refused(f"there is no user {user} on this host", "mend node.owner in the agent's configuration") from None


# ---------------------------------------------------------------- time


class Deadline:
    """So many seconds from now, on a clock that does not stop while the host is suspended."""

    def __init__(self, seconds: float) -> None:
        self.end = now() + seconds

    @property
    def left(self) -> float:
        """Seconds, never below 0."""
        return max(0.0, self.end - now())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.left <= 0

    def pause(self, seconds: float) -> None:
        """Wait, but not past the end."""
        time.sleep(min(seconds, self.left))


def now() -> float:
    """Seconds since the host started, suspension included; processes' starts are told by the same clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Tells one boot of the host from the next."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# ---------------------------------------------------------------- the host's configuration

CONFIG = "/etc/failover-agent.json"
CONFIG_BOUND = 64 * 1024
GATES = ("forging", "firewall")
NUDGES = ("never", "sighup", "restart")  # each allows those before it
RUNTIMES = ("systemd", "docker", "podman", "pidfile")
TRIPLE = ("certificate", "kes", "vrf")  # in the order in which they leave; a missing one disables
KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("pool", "pool_id", "state", "staging", "put_aside", "node", "gates", "firewall", "fuse", "nudge"),
    "node": ("runtime", "socket", "port", "metrics", "topology", "credentials", "owner", "kes_agent", "slot"),
    "node.runtime": RUNTIMES,
    "node.credentials": (*TRIPLE, "bulk"),
    "firewall": ("user", "pingers", "sync"),
    "fuse": ("after",),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._:\\-]{0,199}")


class Config(NamedTuple):
    """The host's configuration, checked."""

    path: Path
    pool: str
    pool_id: str | None  # hex
    state: Path
    staging: Path
    put_aside: Path
    runtime: tuple[str, str]  # its kind, and its name or path
    port: int
    socket: str | None
    metrics: str | None
    topology: Path | None
    credentials: Mapping[str, Path]  # in the order in which they leave; empty: none
    owner: str | None
    kes_agent: str | None
    slot: float  # seconds
    gates: tuple[str, ...]
    firewall: Mapping[str, Any]
    fuse: float | None
    nudge: str  # what a controller may do to the node of a relay that does not let go, beside ending its sessions

    @property
    def window(self) -> float:
        """For how long the counter must stand still to count as flat, in seconds: at least three slots."""
        return 3 * self.slot


def wrong(where: str, what: str, mend: str) -> Refused:
    """An error of the configuration."""
    return Refused(f"{where}: {what}", mend)


def read_config(path: Path) -> Config:
    """The configuration. Raises Refused, with the key and its mend."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC | os.O_NONBLOCK)) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise wrong(str(path), "is not a file", "write the configuration there")
            if about.st_uid not in (0, os.geteuid()):
                raise wrong(str(path), f"belongs to user {about.st_uid}", f"chown root {path}")
            if about.st_mode & 0o022:
                raise wrong(str(path), f"others can write it (mode {about.st_mode & 0o7777:o})", f"chmod 644 {path}")
            text = file.read(CONFIG_BOUND + 1)
    except OSError as error:
        raise wrong(str(path), str(error.strerror), "write it, or name another with --config") from None
    if len(text) > CONFIG_BOUND:
        raise wrong(str(path), f"is larger than {CONFIG_BOUND} bytes", "write a shorter one")
    try:
        document = parse_json(text)
    except ValueError as error:
        raise wrong(str(path), f"is not JSON: {error}", "mend it; `python3 -m json.tool` shows where") from None
    return _checked(path, document)


def parse_json(text: bytes) -> Any:
    """Strict JSON: no doubled keys, no NaN. Raises ValueError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is there twice")
        return found

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=constant)
    except RecursionError:
        raise ValueError("it is too deeply nested") from None


def _checked(path: Path, document: Any) -> Config:
    top = _section(document, "")
    node = _section(top.get("node"), "node")
    runtimes = _section(node.get("runtime"), "node.runtime")
    if len(runtimes) != 1:
        raise wrong("node.runtime", "must have one key", f"one of {', '.join(RUNTIMES)}")
    ((kind, name),) = runtimes.items()
    if kind == "pidfile":
        _path(name, "node.runtime.pidfile")
    elif not isinstance(name, str) or not NAME.fullmatch(name):
        raise wrong(f"node.runtime.{kind}", f"{name!r} is no name", "write the name of the unit or container")
    state = _path(top.get("state"), "state")
    gates = top.get("gates", [])
    if not isinstance(gates, list) or any(gate not in GATES for gate in gates) or len(gates) != len(set(gates)):
        raise wrong("gates", f"{gates!r}", f"a list of {' and '.join(GATES)}, each once at most")
    credentials = _credentials(node, "forging" in gates)
    fuse = _section(top["fuse"], "fuse") if "fuse" in top else {}
    if fuse and not gates:
        raise wrong("fuse", "there is no gate that it could close", 'add "gates": ["forging"]')
    nudge = top.get("nudge", NUDGES[0])
    if nudge not in NUDGES:
        raise wrong("nudge", f"{nudge!r}", f"one of {', '.join(NUDGES)}")
    if nudge == "restart" and gates:
        raise wrong("nudge", "this host has a producer, which is not restarted for its sessions", "never or sighup")
    if nudge == "restart" and kind == "pidfile":
        raise wrong("nudge", "nobody is known who could start a node with a pidfile anew", "never or sighup")
    return Config(
        path=path,
        pool=_text(top.get("pool"), "pool", 64),
        pool_id=_pool_id(top["pool_id"]) if "pool_id" in top else None,
        state=state,
        staging=_path(top.get("staging", str(state / "staging")), "staging"),
        put_aside=_path(top.get("put_aside", str(state / "put-aside")), "put_aside"),
        runtime=(kind, name),
        port=int(_number(node.get("port"), "node.port", 1, 65535, whole=True)),
        socket=str(_path(node["socket"], "node.socket")) if "socket" in node else None,
        metrics=_url(node["metrics"]) if "metrics" in node else None,
        topology=_path(node["topology"], "node.topology") if "topology" in node else None,
        credentials=credentials,
        owner=_text(node["owner"], "node.owner", 64) if "owner" in node else None,
        kes_agent=str(_path(node["kes_agent"], "node.kes_agent")) if "kes_agent" in node else None,
        slot=_number(node.get("slot", 1.0), "node.slot", 0.05, 60.0),
        gates=tuple(gates),
        firewall=_section(top["firewall"], "firewall") if "firewall" in top else {},
        fuse=_number(fuse.get("after"), "fuse.after", 1.0, 86_400.0) if "fuse" in top else None,
        nudge=nudge,
    )


def _section(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(where or "the file", "is missing, or no object", f"an object with {', '.join(KEYS[where])}")
    for key in value:
        if key not in KEYS[where]:
            raise wrong(f"{where}.{key}" if where else key, "is not known here", meant(key, KEYS[where]))
    return value


def meant(word: str, known: Sequence[str]) -> str:
    """The mend for a word that is not known."""
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _credentials(node: Mapping[str, Any], wanted: bool) -> dict[str, Path]:
    if "credentials" not in node:
        if wanted and "kes_agent" not in node:
            mend = "name kes, vrf and certificate, or bulk"
            raise wrong("node.credentials", "is missing, and gates has forging", mend)
        return {}
    given = _section(node["credentials"], "node.credentials")
    roles = ("bulk",) if "bulk" in given else TRIPLE
    if sorted(given) != sorted(roles):
        mend = "name kes, vrf and certificate, or bulk alone"
        raise wrong("node.credentials", f"has {', '.join(sorted(given))}", mend)
    found = {role: _path(given[role], f"node.credentials.{role}") for role in roles}
    if len(set(found.values())) != len(found):
        raise wrong("node.credentials", "names one file twice", "each has a file of its own")
    return found


def _text(value: Any, where: str, most: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise wrong(where, f"{value!r}"[:100], f"printable text of at most {most} characters")
    return value


def _path(value: Any, where: str) -> Path:
    text = _text(value, where, 1000)
    if not text.startswith("/") or os.path.normpath(text) != text or text == "/":
        raise wrong(where, f"{text} is no plain absolute path", "write it from / on, without .. and //")
    return Path(text)


def _number(value: Any, where: str, least: float, most: float, *, whole: bool = False) -> float:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        raise wrong(where, f"{value!r}"[:100], f"a number from {least:g} to {most:g}")
    return value


def _url(value: Any) -> str:
    text = _text(value, "node.metrics", 500)
    mend = "http://127.0.0.1:12798/metrics, with an address literal"
    try:
        parts = urllib.parse.urlsplit(text)
        if parts.hostname != "localhost":
            ipaddress.ip_address(parts.hostname or "")
        port = parts.port
    except ValueError:
        raise wrong("node.metrics", text, mend) from None
    if parts.scheme != "http" or parts.username or parts.fragment or " " in text or port == 0 or not text.isascii():
        raise wrong("node.metrics", text, mend)
    return text


BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def _pool_id(value: Any) -> str:
    text = _text(value, "pool_id", 100)
    if re.fullmatch("[0-9a-f]{56}", text):
        return text
    mend = "56 hexadecimal digits, or pool1...; `cardano-cli stake-pool id` prints both"
    prefix, _, data = text.rpartition("1")
    if prefix != "pool" or any(letter not in BECH32 for letter in data):
        raise wrong("pool_id", f"{text} is no pool id", mend)
    values = [BECH32.index(letter) for letter in data]
    check = 1
    for number in (*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *values):
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ number
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    bits = "".join(f"{number:05b}" for number in values[:-6])
    if check != 1 or len(bits) < 224:
        raise wrong("pool_id", f"{text} has a typing error", mend)
    return f"{int(bits[:224], 2):056x}"


# ---------------------------------------------------------------- the state folder

STATE_BOUND = 64 * 1024
MOST = 2**53  # of generations and terms
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def disk_error(what: str, error: OSError) -> AgentError:
    """What the file system said, with its mend."""
    if error.errno in NO_ROOM:
        return Unable(f"{what}: the disk is full", "make room on that file system, then ask again; no file was lost")
    if error.errno == errno.EXDEV:
        return Refused(
            f"{what}: they are on two file systems",
            "set put_aside and staging to folders on the file system of the credentials: keys are never copied",
        )
    return Unable(f"{what}: {error.strerror}", "see that the agent runs as root, on a file system that can be written")


def sync_folder(folder: Path) -> None:
    """Make names durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner enters, with those above it, durably."""
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write durably: whoever reads sees the old content or the new one. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            left = data
            while left:
                left = left[os.write(number, left) :]
            os.fsync(number)
        finally:
            os.close(number)
    except OSError:
        with contextlib.suppress(OSError):  # what was begun would take the room that is lacking
            os.unlink(fresh)
        raise
    os.rename(fresh, path)
    sync_folder(path.parent)


def write_in_place(path: Path, document: Mapping[str, Any]) -> None:
    """Write a small document over the last one: that needs no room on a full disk. One that fails is not told.

    It is less than a sector, so that a reader sees all of one or all of the other; who reads checks it all the same.
    """
    line = json.dumps(document, separators=(",", ":")).ljust(IN_PLACE - 1).encode() + b"\n"
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(number, line, 0)
        finally:
            os.close(number)


IN_PLACE = 512  # bytes


class State:
    """What the agent remembers: one small JSON file, a lock, and the last lease that was heard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "agent.json"
        self.ballast = folder / "ballast"
        self.troubles: list[dict[str, str]] = []  # findings of this call
        try:
            make_folder(folder)
        except OSError as error:
            raise disk_error(f"the state folder {folder} could not be made", error) from None

    @contextlib.contextmanager
    def lock(self, deadline: Deadline) -> Iterator[None]:
        """One agent process at a time. Raises Busy."""
        number = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if deadline.over:
                        raise self._busy(number) from None
                    deadline.pause(0.05)
            with contextlib.suppress(OSError):
                os.pwrite(number, f"{os.getpid():>10} {now():>20.3f}\n".encode(), 0)
            yield
        finally:
            os.close(number)

    def _busy(self, number: int) -> Busy:
        words = os.pread(number, 64, 0).decode("ascii", "replace").split()
        who = words[0] if words and words[0].isdigit() else "unknown"
        with contextlib.suppress(ValueError, IndexError):
            who += f", for {max(0.0, now() - float(words[1])):.1f} s"
        return Busy(f"another agent process holds the lock (process {who})", "ask again; it gives up by itself")

    def load(self) -> dict[str, Any]:
        """What is remembered. Raises Unable when it is damaged."""
        try:
            with open(self.file, "rb") as file:
                text = file.read(STATE_BOUND + 1)
        except FileNotFoundError:
            return self.fresh()
        except OSError as error:
            raise disk_error(f"{self.file} could not be read", error) from None
        try:
            memory = parse_json(text)
            if memory["v"] != 1 or not isinstance(memory["forging"], dict) or not isinstance(memory["gates"], dict):
                raise ValueError("other content")
        except (ValueError, KeyError, TypeError) as error:
            mend = f"move {self.file} away and run `agent.py forget --yes`; then close the gates again"
            raise Unable(f"{self.file} is damaged: {error}", mend) from None
        if memory.get("boot") != boot_id():  # process numbers of another boot mean nothing in this one
            memory["boot"] = boot_id()
            for key in ("told", "opened", "opened_at", "run", "start", "since"):
                memory["forging"].pop(key, None)
        return dict(memory)

    @staticmethod
    def fresh() -> dict[str, Any]:
        """Nothing is remembered."""
        return {"v": 1, "boot": boot_id(), "gates": {}, "forging": {}}

    def save(self, memory: Mapping[str, Any]) -> None:
        """Write it durably; a ballast gives the room on a full disk. Raises Unable."""
        data = json.dumps(memory, sort_keys=True).encode()
        try:
            try:
                write_file(self.file, data)
            except OSError as error:
                if error.errno not in NO_ROOM or not self.ballast.exists():
                    raise
                self.ballast.unlink()
                write_file(self.file, data)
            else:
                self._fill_ballast()
        except OSError as error:
            raise disk_error(f"{self.file} could not be written", error) from None

    def _fill_ballast(self) -> None:
        if not self.ballast.exists():
            with contextlib.suppress(OSError):
                write_file(self.ballast, os.urandom(16 * 1024))

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Write it, or go on without: closing is worth more than remembering."""
        try:
            self.save(memory)
        except Unable as error:
            self.troubles.append({"what": str(error), "mend": error.mend})

    # The lease is heard every few seconds: one small file written in place, which needs no room on a full disk.

    def hear(self, lease: float) -> None:
        """A valid lease was heard now."""
        write_in_place(self.folder / "heard", {"boot": boot_id(), "at": now(), "lease": lease})

    def heard(self) -> float | None:
        """When a valid lease was last heard in this boot."""
        try:
            with open(self.folder / "heard", "rb") as file:
                said = parse_json(file.read(IN_PLACE))
            return float(said["at"]) if said["boot"] == boot_id() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


# ---------------------------------------------------------------- the node's process

FLAGS = ("--start-as-non-producing-node", "--non-producing-node")
PROCESSES_BOUND = 65_536


class Process(NamedTuple):
    """One run of a process: its number and its start in clock ticks since boot, which no other run shares."""

    pid: int
    ticks: int

    def __str__(self) -> str:
        return f"{self.pid}.{self.ticks}"

    @property
    def began(self) -> float:
        """Seconds since boot."""
        return self.ticks / os.sysconf("SC_CLK_TCK")


def _status_words(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def process_of(pid: int) -> Process | None:
    """The process with this number, when it runs."""
    words = _status_words(pid) if pid > 0 else None
    return Process(pid, int(words[19])) if words and len(words) > 19 and words[0] not in "ZX" else None


def process_named(identity: Any) -> Process | None:
    """The process of such an identity ("PID.TICKS"), when it is still that one."""
    words = str(identity).split(".")
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    found = process_of(int(words[0]))
    return found if found is not None and str(found) == identity else None


def with_children(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in list(os.scandir("/proc"))[:PROCESSES_BOUND]:
        if entry.name.isdigit() and (words := _status_words(int(entry.name))):
            parents.setdefault(int(words[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:  # grows while it is read
        found += [child for child in sorted(parents.get(parent, [])) if child not in found]
    return found


def listening_sockets(pid: int, port: int, path: str | None, *, inside: bool) -> set[str]:
    """The inodes of sockets that listen on the port or the path, in the network of this process.

    ``inside``: the process has other paths than the host has, so only the path's last word is compared.
    """
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{table}") as lines:
            for line in itertools.islice(lines, 1, PROCESSES_BOUND):
                words = line.split()
                if len(words) > 9 and words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    found.add(words[9])
    if path is None:
        return found
    with contextlib.suppress(OSError), open(f"/proc/{pid}/net/unix", errors="replace") as lines:
        for line in itertools.islice(lines, 1, PROCESSES_BOUND):
            words = line.split(None, 7)
            if len(words) == 8 and int(words[3], 16) & 0x10000:
                name = words[7].rstrip("\n")
                if name == path or (inside and os.path.basename(name) == os.path.basename(path)):
                    found.add(words[6])
    return found


def holds(pid: int, inodes: set[str]) -> bool:
    """Whether one of the sockets is open in this process."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        entries = list(os.scandir(f"/proc/{pid}/fd"))[:PROCESSES_BOUND]
    except OSError:
        return False
    for entry in entries:
        with contextlib.suppress(OSError):
            if os.readlink(entry.path) in wanted:
                return True
    return False


def flag_of(pid: int) -> str | None:
    """With which of the non-producing flags the process was started."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()[: 1024 * 1024].decode(errors="replace").split("\0")
    except OSError:
        return None
    return next((flag for flag in FLAGS if flag in words), None)


def catches_sighup(pid: int) -> bool:
    """Whether SIGHUP is handled there; otherwise it would end the process."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) & 1 << (signal.SIGHUP - 1))
    return False


def send_sighup(process: Process) -> bool:
    """Send SIGHUP to exactly this run of the process; False: it is gone."""
    try:
        number = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):  # an old kernel
        if process_of(process.pid) != process:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGHUP)
            return True
        return False
    try:
        if process_of(process.pid) != process:  # the number was given to another one before the handle was opened
            return False
        signal.pidfd_send_signal(number, signal.SIGHUP)
        return True
    except ProcessLookupError:
        return False
    except PermissionError:
        raise Unable(f"SIGHUP to process {process.pid} is not permitted", "run the agent as root (sudo)") from None
    finally:
        os.close(number)


class Found(NamedTuple):
    """What the runtime says of the node. ``unsure``: why its process cannot be told; then ``process`` means nothing."""

    process: Process | None = None
    listens: bool = False
    unsure: str | None = None
    mend: str = ""
    mounts: Sequence[Mapping[str, Any]] | None = None  # of a container


class Node:
    """The node on this host: its process, found by what runs it and by what listens, never by name."""

    def __init__(self, config: Config, run: Run) -> None:
        self.config = config
        self.run = run
        self.kind, self.name = config.runtime

    @property
    def runtime(self) -> str:
        """In words."""
        return f"{self.kind} {self.name}"

    def find(self, deadline: Deadline) -> Found:
        """Its process now."""
        try:
            mounts = None
            if self.kind == "systemd":
                pid = self._unit(deadline)
            elif self.kind == "pidfile":
                pid = self._pidfile()
            else:
                pid, mounts = self._container(deadline)
        except AgentError as error:
            return Found(unsure=str(error), mend=error.mend)
        found = self._among(pid)._replace(mounts=mounts)
        if found.process is None and found.unsure is None and self._listeners(os.getpid()):
            what = f"something listens on the node's port {self.config.port} or socket, but {self.runtime} does not run"
            mend = f"find it with `ss -lntp sport = :{self.config.port}`, and let {self.kind} run the node"
            return found._replace(unsure=what, mend=mend)
        return found

    def _listeners(self, pid: int) -> set[str]:
        inside = self.kind in ("docker", "podman")
        return listening_sockets(pid, self.config.port, self.config.socket, inside=inside)

    def _among(self, pid: int) -> Found:
        main = process_of(pid)
        if main is None:
            return Found()
        sockets = self._listeners(pid)
        if sockets and holds(pid, sockets):
            return Found(main, listens=True)
        family = with_children(pid)[:1000]
        for child in family[1:]:
            if sockets and holds(child, sockets) and (process := process_of(child)) is not None:
                return Found(process, listens=True)
        if len(family) == 1:
            if self.kind == "pidfile" and not self._wrote_pidfile(main):
                return Found(
                    unsure=f"{self.name} names process {pid}, which began after the file was written",
                    mend="remove the stale file, and let the node's start write it",
                )
            return Found(main)
        leaves = [child for child in family if catches_sighup(child) and flag_of(child)]
        if len(leaves) == 1 and (process := process_of(leaves[0])) is not None:
            return Found(process)
        return Found(
            unsure=f"{len(family)} processes run under {self.runtime}, and none listens on port {self.config.port} yet",
            mend="wait until the node listens; see node.port and node.socket in the agent's configuration",
        )

    def _wrote_pidfile(self, process: Process) -> bool:
        age = time.time() - os.stat(self.name).st_mtime
        return now() - process.began >= age - 2.0

    def _unit(self, deadline: Deadline) -> int:
        args = ["systemctl", "show", "-p", "LoadState,MainPID", "--", self.name]
        shown = self.run(args, min(5.0, deadline.left))
        values = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
        if shown.returncode != 0 or not values.get("MainPID", "").isdigit():
            what = f"systemctl show {self.name} failed: {shown.stderr.strip()[:100]}"
            raise Unable(what, "see that systemd runs here")
        if values.get("LoadState") != "loaded":
            mend = "mend node.runtime.systemd in the agent's configuration"
            raise Unable(f"there is no unit {self.name} (it is {values.get('LoadState')})", mend)
        return int(values["MainPID"])

    def _pidfile(self) -> int:
        try:
            number = os.open(self.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                text = os.read(number, 32).strip()
            finally:
                os.close(number)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise Unable(f"{self.name} could not be read: {error.strerror}", "see node.runtime.pidfile") from None
        if not re.fullmatch(b"[1-9][0-9]{0,9}", text):
            raise Unable(f"{self.name} holds no process number", "let the node's start write it")
        return int(text)

    def _container(self, deadline: Deadline) -> tuple[int, Sequence[Mapping[str, Any]]]:
        args = [self.kind, "inspect", "--type", "container", self.name]
        ran = self.run(args, min(8.0, deadline.left))
        if ran.returncode != 0:
            missing = re.search("no such (container|object)", ran.stderr + ran.stdout, re.IGNORECASE)
            if missing:
                return 0, ()
            what = f"{self.kind} inspect {self.name} failed: {ran.stderr.strip()[:100]}"
            raise Unable(what, f"see that {self.kind} runs")
        try:
            (found,) = parse_json(ran.stdout.encode())
            pid, mounts = found["State"]["Pid"], found.get("Mounts") or []
            if not isinstance(pid, int) or not all(isinstance(mount, dict) for mount in mounts):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise Unable(f"{self.kind} inspect {self.name} answered something else", "run it by hand") from None
        return pid, mounts

    def restart(self, deadline: Deadline) -> None:
        """Start the node anew."""
        if self.kind == "pidfile":
            raise Refused("a node that is known by a pidfile cannot be restarted", "name its systemd unit or container")
        args = [self.kind, "restart", self.name]
        if self.kind == "systemd":
            args = ["systemctl", "--no-block", "restart", "--", self.name]
        ran = self.run(args, deadline.left)
        if ran.returncode != 0:
            raise Unable(f"{' '.join(args[:2])} failed: {ran.stderr.strip()[:100]}", "restart the node by hand")


# ---------------------------------------------------------------- the node's metrics

METRICS_BOUND = 2 * 1024 * 1024
SHOWN_METRICS = 64
LONGEST_NAME = 100  # characters; what is longer or larger the controller takes for nonsense, and the answer with it
PREFIX = "cardano_node_metrics_"
SERIES = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(\{.*\})?\s+(\S+)(?:\s+-?\d+)?")
LEADING = re.compile(f"(?:{PREFIX})?Forge_(?:forge_)?about_to_lead(?:_int|_counter|_total)?")
KES_PERIOD = re.compile(f"(?:{PREFIX})?currentKESPeriod(?:_int)?")
SLOT = re.compile(f"(?:{PREFIX})?(?:slotNum|blockNum)(?:_int)?")
SLOT_NUMBER = re.compile(f"(?:{PREFIX})?slotNum(?:_int)?")
NODE_SERIES = re.compile(
    f"{PREFIX}.*|(?:Forge_|forg|slot|block|density|epoch|current|remaining|operational|peerSel|connectionM|inboundC|"
    "outboundC|GSM_|nodeStart|node_start|cardano_build_info).*"
)
FIRST_SERIES = re.compile(
    f"(?:{PREFIX})?(?:Forge_|forg|slot|block|density|current|remaining|operational|GSM_|nodeStart|node_start).*"
)


class Metrics(NamedTuple):
    """What the node counts, without labels, and the version that it tells."""

    values: Mapping[str, float]
    version: str | None = None

    def first(self, pattern: re.Pattern[str]) -> float | None:
        """The series of such a name."""
        return next((value for name, value in self.values.items() if pattern.fullmatch(name)), None)


def read_metrics(url: str, seconds: float) -> Metrics:
    """One bounded GET: one deadline for all of it, no proxy, no redirect. Raises Unable."""
    mend = "see node.metrics in the agent's configuration, and the node's own for where it serves Prometheus"
    try:
        status, body = _get(url, Deadline(seconds))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unable(f"{url} did not answer: {type(error).__name__} {error}"[:200], mend) from None
    if status != 200:
        raise Unable(f"{url} answered {status}", mend)
    values: dict[str, float] = {}
    version = None
    for line in body.decode("utf-8", "replace").splitlines():
        found = SERIES.fullmatch(line.strip())
        if found is None or not NODE_SERIES.fullmatch(found[1]):
            continue
        with contextlib.suppress(ValueError):
            number = float(found[3])
            if math.isfinite(number):
                values[found[1]] = max(number, values.get(found[1], number))
        label = re.search(r'version="([0-9][0-9A-Za-z.+-]{0,40})"', found[2] or "")
        if label is not None and "build_info" in found[1]:
            version = label[1]
    if not values:
        raise Unable(f"{url} answered, but not with a node's metrics", mend)
    return Metrics(values, version)


class _Read(io.BytesIO):
    def makefile(self, *_: Any) -> io.BytesIO:
        return self


def _get(url: str, deadline: Deadline) -> tuple[int, bytes]:
    parts = urllib.parse.urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\nConnection: close\r\nAccept: text/plain\r\n\r\n"
    raw = bytearray()
    address = (parts.hostname or "", parts.port or 80)
    with socket.create_connection(address, max(0.01, deadline.left)) as connection:
        connection.sendall(request.encode("ascii"))
        while not _complete(raw):
            if deadline.over:
                raise TimeoutError("not within the time")
            connection.settimeout(max(0.01, deadline.left))
            data = connection.recv(65536)
            if not data:
                break
            raw += data
            if len(raw) > METRICS_BOUND:
                raise ValueError(f"more than {METRICS_BOUND} bytes")
    answer = http.client.HTTPResponse(_Read(bytes(raw)))  # type: ignore[arg-type]
    answer.begin()
    return answer.status, answer.read()


def _complete(raw: bytearray) -> bool:
    """Whether an answer is there to its end although the connection stays open."""
    head, found, body = raw[:65536].partition(b"\r\n\r\n")
    if not found:
        return False
    length = re.search(rb"(?im)^content-length:\s*(\d{1,9})\s*$", head)
    if length is not None:
        return len(raw) - len(head) - 4 >= int(length[1])
    return b"chunked" in head.lower() and body.endswith(b"0\r\n\r\n") and len(raw) <= 65536


def shown_metrics(metrics: Metrics) -> dict[str, float]:
    """The series that are told to the controller, those that it reads first."""
    fine = [name for name, value in metrics.values.items() if len(name) <= LONGEST_NAME and abs(value) <= MOST]
    names = sorted(fine, key=lambda name: (not FIRST_SERIES.fullmatch(name), name))
    chosen = names[:SHOWN_METRICS]
    return {name: int(value) if (value := metrics.values[name]).is_integer() else value for name in chosen}


# ---------------------------------------------------------------- firewall

# States in which a session can still carry something. What lingers without a process is stopped by the rules alone.
LIVE = ("ESTAB", "SYN-SENT", "SYN-RECV", "CLOSE-WAIT")
KILLED_AT_ONCE = 64  # sessions by one call of ss
ROUNDS = 5  # of cutting; once the rules are in place nothing new begins, so the second finds nothing
RECORD = 512  # bytes: one sector, written in place, so that a full disk does not keep the gate from being closed

Place = tuple[str, int]  # a literal address and a port


class Session(NamedTuple):
    """One TCP socket as ss shows it. IPv4 addresses in IPv6 form are shown as IPv4; ``cookie`` is the socket's own."""

    state: str
    here: Place
    there: Place
    uid: int
    pids: tuple[int, ...]
    cookie: str

    @property
    def within_host(self) -> bool:
        """Whether both ends are on this host."""
        return self.here[0] == self.there[0] or ipaddress.ip_address(self.here[0]).is_loopback


def place_of(text: str) -> Place:
    """What ss shows as an address and port: ``10.0.0.1:80``, ``[fe80::1]%eth0:80``, ``*:80``. Raises ValueError."""
    head, _, port = text.rpartition(":")
    head = re.sub(r"%[^\]:]*", "", head).strip("[]")
    if head in ("*", ""):
        return "*", int(port) if port.isdigit() else 0
    address = ipaddress.ip_address(head)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port) if port.isdigit() else 0


def written(place: Place) -> str:
    """As people and ss's filters write it."""
    return f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}"


def tcp_sockets(run: Run, deadline: Deadline, *, processes: bool = False) -> list[Session]:
    """All TCP sockets in this network, listening ones too. Raises Unable."""
    ran = run(["ss", "-HOtnape" if processes else "-HOtnae"], deadline.left)
    if ran.returncode != 0:
        raise Unable(f"ss could not list sessions: {ran.stderr.strip()[:200]}", "run `ss -tna` by hand as root")
    found = []
    for line in ran.stdout.splitlines():
        words = line.split()
        with contextlib.suppress(ValueError, IndexError):
            here, there, rest = place_of(words[3]), place_of(words[4]), " ".join(words[5:])
            uid, cookie = re.search(r"\buid:(\d+)", rest), re.search(r"\bsk:(\w+)", rest)
            pids = tuple(int(pid) for pid in re.findall(r"\bpid=(\d+)", rest))
            found.append(Session(words[0], here, there, int(uid[1]) if uid else 0, pids, cookie[1] if cookie else ""))
    return found


def end_sessions(run: Run, sessions: Sequence[Session], deadline: Deadline) -> None:
    """Reset exactly these; both ends are told. Whether it worked is only seen by looking again. Raises Unable."""
    for at in range(0, len(sessions), KILLED_AT_ONCE):
        ends = [(written(one.here), written(one.there)) for one in sessions[at : at + KILLED_AT_ONCE]]
        wanted = " or ".join(f"( src = {here} and dst = {there} )" for here, there in ends)
        ran = run(["ss", "-K", "-Htn", "state", "connected", wanted], deadline.left)
        if ran.returncode != 0:
            raise Unable(f"ss -K failed: {ran.stderr.strip()[:200]}", NO_KILL)


NO_KILL = "run the agent as root (CAP_NET_ADMIN), on a kernel with CONFIG_INET_DIAG_DESTROY and iproute2 4.5 or later"
NO_NFT = "run the agent as root (CAP_NET_ADMIN), on a kernel with nf_tables; see `nft list tables`"


class Firewall:
    """The firewall gate: one nftables table of our own, there while closed; nothing else is touched.

    Closed: nobody reaches the node's port but ``pingers``; nothing leaves from that port but answers to them; and the
    node's user begins no TCP connection to other hosts but to ``sync``. Sessions there were before are reset.
    What stays possible: everything within the host (its proxies too), UDP (so DNS, but not DNS by TCP), other users'
    traffic, and answers of the user's other services, such as metrics.
    A node that can serve blocks on a connection dials from its own listening port (ouroboros-network issue 5020): that
    is refused even to ``sync``, whose local roots must be InitiatorOnly, which dial from other ports.
    A pinger can fetch blocks as anyone can who is let in, so it must not be a relay's host.
    ``pid``: the node's process, 0 when it does not run, None when that is not known. Rules do not reach another network
    namespace: a node there is refused, and one that may be there is not believed to be closed.
    """

    def __init__(
        self, config: Mapping[str, Any], node_port: int, state: Path, run: Run, pid: int | None = None
    ) -> None:
        self.port = node_port
        self.run = run
        self.pid = pid
        self.file = state / "firewall"
        self.table = str(config.get("table", "failover"))
        if not re.fullmatch("[a-z][a-z0-9_]{0,30}", self.table):
            raise wrong("firewall.table", f"{self.table!r} is no table's name", "use small letters, digits and _")
        self.uid = _uid_of(config.get("user"))
        self.pingers = [_network(pinger) for pinger in _list_of(config, "pingers")]
        self.sync = [_endpoint(peer) for peer in _list_of(config, "sync")]
        self._troubles: list[dict[str, str]] = []

    # -------- the rules

    def rules(self) -> str:
        """The text that closing loads, as one transaction: it replaces our table, and no other."""
        name, port, begins = self.table, self.port, "tcp flags & (syn | ack) == syn"
        sets = "\n".join(self._sets())
        return f"""\
# What closes this producer's firewall gate. Opening removes the table; no other table is touched.
add table inet {name}
delete table inet {name}
table inet {name} {{
{sets}
    chain input {{
        type filter hook input priority -10; policy accept;
        # What stays within this host passes: the node's own command line, metrics, a proxy here.
        iifname "lo" accept comment "in-loopback"
        # Nobody else reaches the node, in new connections or in old ones.
        tcp dport {port} ip saddr @pingers4 accept comment "in-pingers4"
        tcp dport {port} ip6 saddr @pingers6 accept comment "in-pingers6"
        tcp dport {port} reject with tcp reset comment "in-refused"
    }}
    chain output {{
        type filter hook output priority -10; policy accept;
        oifname "lo" accept comment "out-loopback"
        # Resets carry no data; by them the other end hears at once that it is over.
        tcp flags & rst == rst accept comment "out-resets"
        # From the node's own port: answers to pingers, and no connection that begins here, not even to them.
        tcp sport {port} {begins} reject with tcp reset comment "out-duplex"
        tcp sport {port} ip daddr @pingers4 accept comment "out-pingers4"
        tcp sport {port} ip6 daddr @pingers6 accept comment "out-pingers6"
        tcp sport {port} reject with tcp reset comment "out-port"
        # From other ports the node's user ({self.uid}) begins connections to sync peers only. UDP passes.
        meta skuid {self.uid} {begins} ip daddr . tcp dport @sync4 accept comment "out-sync4"
        meta skuid {self.uid} {begins} ip6 daddr . tcp dport @sync6 accept comment "out-sync6"
        meta skuid {self.uid} {begins} reject with tcp reset comment "out-user"
    }}
}}
"""

    def _sets(self) -> Iterator[str]:
        for version in (4, 6):
            elements = ", ".join(str(network) for network in self._pingers(version))
            yield f"    set pingers{version} {{ type ipv{version}_addr; flags interval; {_elements(elements)}}}"
            peers = dict.fromkeys(f"{host} . {port}" for host, port in self.sync if (":" in host) == (version == 6))
            yield f"    set sync{version} {{ type ipv{version}_addr . inet_service; {_elements(', '.join(peers))}}}"

    def _pingers(self, version: int) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Those of one family; nft takes no intervals that overlap."""
        if version == 4:
            yield from ipaddress.collapse_addresses(one for one in self.pingers if one.version == 4)
        else:
            yield from ipaddress.collapse_addresses(one for one in self.pingers if one.version == 6)

    # -------- what it does

    def read(self, within: float = 10.0) -> dict[str, Any]:
        """How it stands, as the protocol's gate. Raises Unable; Refused where the rules do not reach the node."""
        deadline = Deadline(within)
        self._reaches()
        loaded, stored = self._loaded(deadline), self._stored()
        gate: dict[str, Any] = {"open": True, "certain": True, "shown": [], "lacks": [], "process": boot_id()}
        gate["findings"] = list(self._troubles)
        if loaded is None:
            gate["shown"].append(f"there is no table inet {self.table}")
            if stored.get("closed"):
                what = f"the gate was closed, but its table inet {self.table} is gone: another hand removed it"
                mend = "close it again; let `agent.py boot` run at the host's start, after other firewall rules"
                gate["findings"].append({"what": what, "mend": mend})
            return gate
        sockets = tcp_sockets(self.run, deadline)
        left = self._unwanted(sockets)
        gate["lacks"] = [*self._differs(loaded, stored), *self._stranger(sockets)]
        if left:
            named = ", ".join(f"{written(one.here)} to {written(one.there)}" for one in left[:3])
            gate["lacks"].append(f"{len(left)} sessions are not cut: {named}")
        gate["open"], gate["certain"] = (None, False) if gate["lacks"] else (False, True)
        if not gate["lacks"]:
            gate["shown"] = [
                f"the table inet {self.table} is as it was loaded",
                f"nobody but {len(self.pingers)} pingers reaches port {self.port}",
                f"user {self.uid} begins no connection but to {len(self.sync)} sync peers, declared one-way",
                "no other session is left",
            ]
        gate["findings"] += self._advice(sockets)
        return gate

    def close(self, within: float = 10.0) -> dict[str, Any]:
        """Rules first, then what was connected before is reset: so nothing slips in between. Gives what ``read`` gives.

        Idempotent: a close that was killed half-way is finished by the next. Raises Unable, Refused.
        """
        deadline = Deadline(within)
        self._reaches()
        loaded, stored = self._loaded(deadline), self._stored()
        if loaded is None or not stored.get("closed") or self._differs(loaded, stored):
            self._store(closed=True)  # before the rules: whatever happens now, the host comes back closed
            self._load(deadline)
        self._cut(deadline)
        return self.read(deadline.left)

    def open(self, within: float = 10.0) -> dict[str, Any]:
        """Remove our table, and see that it is gone. Gives what ``read`` gives. Raises Unable, Refused."""
        deadline = Deadline(within)
        self._reaches()
        if self._loaded(deadline) is not None:
            self._nft(["-f", "-"], deadline, f"add table inet {self.table}\ndelete table inet {self.table}\n")
            if self._loaded(deadline) is not None:
                what = f"the table inet {self.table} is there again after it was deleted"
                raise Unable(what, "find what else loads it: `nft monitor`")
        self._store(closed=False)
        return self.read(deadline.left)

    def boot(self, within: float = 10.0) -> None:
        """At the host's start, before the node's: what was closed is closed. A damaged record means closed."""
        stored = self._stored()
        if stored.get("closed"):
            self.close(within)
        elif not stored:
            self._store(closed=False)  # so that the record is there before the disk is full

    # -------- nftables

    def _nft(self, args: Sequence[str], deadline: Deadline, text: str | None = None) -> str:
        ran = self.run(["nft", *args], deadline.left, input=text)
        if ran.returncode != 0:
            said = " ".join(ran.stderr.split())[:200]
            raise Unable(f"nft {' '.join(args)} failed: {said}", NO_NFT)
        return ran.stdout

    def _loaded(self, deadline: Deadline) -> list[Any] | None:
        """Our table as the kernel holds it, without what changes by itself; None: there is none."""
        tables = _nft_objects(self._nft(["-j", "list", "tables", "inet"], deadline))
        if not any(entry.get("table", {}).get("name") == self.table for entry in tables):
            return None
        listed = _nft_objects(self._nft(["-n", "-j", "list", "table", "inet", self.table], deadline))
        return [_without_handles(entry) for entry in listed if "metainfo" not in entry]

    def _load(self, deadline: Deadline) -> None:
        text = self.rules()
        self._nft(["-f", "-"], deadline, text)
        loaded = self._loaded(deadline)
        if loaded is None or _rule_names(loaded) != re.findall(r'comment "([a-z0-9-]+)"', text):
            what = f"the table inet {self.table} is not what was loaded just now: another hand changed it"
            raise Unable(what, "find what else changes it: `nft monitor`; then close again")
        self._store(closed=True, loaded=_digest(loaded))

    def _differs(self, loaded: list[Any], stored: Mapping[str, Any]) -> list[str]:
        if stored.get("loaded") != _digest(loaded):
            return [f"the table inet {self.table} is not as the agent loaded it: close it again"]
        if stored.get("rules") != _digest(self.rules()):
            return [f"the table inet {self.table} was loaded from another configuration: close it again"]
        return []

    # -------- sessions

    def _cut(self, deadline: Deadline) -> None:
        left = self._unwanted(tcp_sockets(self.run, deadline))
        for _ in range(ROUNDS):
            if not left:
                return
            end_sessions(self.run, left, deadline)
            left = self._unwanted(tcp_sockets(self.run, deadline))
        if left:
            raise Unable(f"ss -K did not end {len(left)} sessions, the first {written(left[0].there)}", NO_KILL)

    def _unwanted(self, sockets: Sequence[Session]) -> list[Session]:
        """The sessions that may carry blocks: through the node's port, and those that its user began."""
        serving = {one.here[1] for one in sockets if one.state == "LISTEN" and one.uid == self.uid}
        found = []
        for one in sockets:
            if one.state not in LIVE or one.within_host:
                continue
            if one.here[1] == self.port:
                address = ipaddress.ip_address(one.there[0])
                if not any(address in network for network in self.pingers):
                    found.append(one)
            elif one.uid == self.uid and one.here[1] not in serving and one.there not in self.sync:
                found.append(one)
        return found

    # -------- what the rules rest on

    def _reaches(self) -> None:
        """Raises Refused when the node's process is in another network namespace than the agent."""
        if not self.pid:
            return
        with contextlib.suppress(OSError):  # a node that has just ended
            if os.stat(f"/proc/{self.pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino:
                what = f"the node (process {self.pid}) is in another network namespace: rules here do not reach it"
                raise Refused(what, "run its container with --network=host, or gate it by forging or power")

    def _stranger(self, sockets: Sequence[Session]) -> list[str]:
        found = {one.uid for one in sockets if one.state == "LISTEN" and one.here[1] == self.port}
        if not found and self.pid is None:
            return [
                f"nobody listens on port {self.port} in the agent's network: if the node runs in a network of its own, "
                "the rules do not reach it; a container needs --network=host"
            ]
        uids = sorted(found - {self.uid})
        return [
            f"user {uid} listens on port {self.port}, not user {self.uid}: its outbound connections are not stopped; "
            "mend firewall.user in the agent's configuration"
            for uid in uids[:3]
        ]

    def _advice(self, sockets: Sequence[Session]) -> list[dict[str, str]]:
        found = []
        for host, _ in self.sync:
            if any(ipaddress.ip_address(host) in network for network in self.pingers):
                what = f"{host} is a sync peer and a pinger: its relay can fetch blocks from the closed producer"
                found.append({"what": what, "mend": "ping from another address, or do not sync from this one"})
        inside = [one for one in sockets if one.state == "ESTAB" and one.within_host and one.here[1] == self.port]
        if inside:
            what = f"{len(inside)} sessions with port {self.port} stay within this host, and are not cut"
            found.append({"what": what, "mend": "let no relay and no proxy run beside the producer"})
        return found[:8]

    # -------- what is remembered

    def _stored(self) -> dict[str, Any]:
        try:
            with open(self.file, "rb") as file:
                record = parse_json(file.read(RECORD))
            if not isinstance(record, dict) or not isinstance(record.get("closed"), bool):
                raise ValueError("other content")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            return {"closed": True}
        return record

    def _store(self, *, closed: bool, loaded: str = "") -> None:
        """In place, which needs no room once the file is there; closing goes on without, and says so."""
        record = {"closed": closed, "loaded": loaded, "rules": _digest(self.rules())}
        try:
            make_folder(self.file.parent)
            number = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.pwrite(number, json.dumps(record).ljust(RECORD - 1).encode() + b"\n", 0)
                os.fsync(number)
            finally:
                os.close(number)
        except OSError as error:
            trouble = disk_error(f"{self.file} could not be written", error)
            self._troubles.append({"what": f"{trouble}; a restart of the host forgets it", "mend": trouble.mend})


def _uid_of(user: Any) -> int:
    mend = "set firewall.user to the account that the node runs as"
    if isinstance(user, bool) or not isinstance(user, (str, int)) or user == "":
        raise wrong("firewall.user", f"{user!r} is no user's name", mend)
    if isinstance(user, str) and not user.isdigit():
        try:
            uid = pwd.getpwnam(user).pw_uid
        except KeyError:
            raise wrong("firewall.user", f"there is no user {user} on this host", mend) from None
    else:
        uid = int(user)
    if not 0 < uid < 2**32 - 1:
        raise wrong("firewall.user", f"{user} cannot be gated apart from the host", "let the node run as its own user")
    return uid


def _list_of(config: Mapping[str, Any], key: str) -> list[str]:
    value = config.get(key, [])
    if not isinstance(value, list) or len(value) > 64 or not all(isinstance(entry, str) for entry in value):
        raise wrong(f"firewall.{key}", "must be a list of at most 64 addresses", "give literal addresses in quotes")
    return value


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        mend = "give a literal address such as 10.0.3.5, or a network such as 10.0.3.0/28"
        raise wrong("firewall.pingers", f"{text!r} is no address", mend) from None


def _endpoint(text: str) -> Place:
    with contextlib.suppress(ValueError):
        host, port = place_of(text)
        if 0 < port < 65536 and host != "*" and "%" not in text and (":" not in host) == ("[" not in text):
            return host, port
    raise wrong("firewall.sync", f"{text!r} is no address with a port", "write 10.0.2.1:3001 or [fd00::1]:3001")


def _elements(elements: str) -> str:
    return f"elements = {{ {elements} }}; " if elements else ""


def _nft_objects(text: str) -> list[dict[str, Any]]:
    try:
        objects = json.loads(text)["nftables"]
        if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise Unable("nft -j answered something else than JSON", "install nftables 0.9.3 or later") from None
    return objects


def _without_handles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_handles(inner) for key, inner in value.items() if key != "handle"}
    return [_without_handles(inner) for inner in value] if isinstance(value, list) else value


def _rule_names(loaded: Sequence[Any]) -> list[str]:
    return [str(entry["rule"].get("comment")) for entry in loaded if "rule" in entry]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


# ---------------------------------------------------------------- sessions

SHOWN_SESSIONS = 256


class Sessions:
    """The node's TCP sessions: those through its port, and those of the process that listens on it."""

    def __init__(self, node_port: int, run: Run) -> None:
        self.port = node_port
        self.run = run

    def look(self, peers: Sequence[str], within: float = 10.0) -> dict[str, Any]:
        """Established sessions with these peers, and how many others there are. Raises Unable, BadRequest.

        A peer with a port means what the node dialled there, and what came in from that address from any port.
        ``inbound`` is told by ports: one from the node's own port to exactly the port named counts as outbound.
        """
        wanted = [_peer(peer) for peer in peers]
        ours, others = self._with(wanted, Deadline(within))
        shown = [
            {
                "peer": written(one.there),
                "local": written(one.here),
                "inbound": one.here[1] == self.port and one.there not in wanted,
            }
            for one in sorted(ours, key=lambda one: (one.there, one.here))
        ]
        return {"sessions": shown[:SHOWN_SESSIONS], "others": others, "truncated": len(shown) > SHOWN_SESSIONS}

    def kick(self, peers: Sequence[str], within: float = 10.0) -> int:
        """End exactly those, see that they ended, and give how many. Raises Unable, BadRequest.

        A peer may be back at once, even from the same port: that is another session, and stays.
        """
        deadline = Deadline(within)
        wanted = [_peer(peer) for peer in peers]
        first, _ = self._with(wanted, deadline)
        left = first
        for _ in range(ROUNDS):
            if not left:
                break
            end_sessions(self.run, left, deadline)
            now_there, _ = self._with(wanted, deadline)
            cookies = {one.cookie for one in now_there}
            left = [one for one in left if one.cookie in cookies]
        if left:
            raise Unable(f"ss -K did not end {len(left)} sessions, the first {written(left[0].there)}", NO_KILL)
        return len(first)

    def _with(self, wanted: Sequence[Place], deadline: Deadline) -> tuple[list[Session], int]:
        sockets = tcp_sockets(self.run, deadline, processes=True)
        listening = [one for one in sockets if one.state == "LISTEN"]
        node = {pid for one in listening if one.here[1] == self.port for pid in one.pids}
        serving = {one.here[1] for one in listening} - {self.port}  # its metrics and the like
        ours, others = [], 0
        for one in sockets:
            through = one.here[1] == self.port
            if one.state != "ESTAB" or one.here[1] in serving or not (through or node.intersection(one.pids)):
                continue
            if any(one.there[0] == host and (through or port in (0, one.there[1])) for host, port in wanted):
                ours.append(one)
            else:
                others += 1
        return ours, others


def _peer(text: str) -> Place:
    """A literal address, with a port or with 0 for any."""
    try:
        with contextlib.suppress(ValueError):
            return place_of(f"[{ipaddress.ip_address(text)}]:0")
        host, port = place_of(text)
        if host == "*" or not 0 < port < 65536:
            raise ValueError
    except ValueError:
        raise BadRequest(f"{text[:60]!r} is no peer", "give literal addresses, with or without a port") from None
    return host, port


# ---------------------------------------------------------------- forging

CREDENTIAL_BOUND = 64 * 1024
BULK_BOUND = 1024 * 1024
EVOLUTIONS = 62  # KES periods for which a certificate is good; mainnet's value, and that of the public testnets
KES_BYTES = 608  # of a KES signing key of depth 6, as on every Cardano network
KES_SLOTS = 129_600  # slots of a KES period; likewise
RESEND = 2.0  # seconds after which SIGHUP is sent again, at least: it has no effect while the node replays
REMIND = 60  # slots after which an open producer whose counter stands still is told of its files again
FRESH = 5.0  # seconds for which a sample of the counter says something of now
POLL = 1.0  # seconds between two looks at the counter, at most
SECRETS = ("kes", "vrf", "bulk")
TYPES: Mapping[str, str] = {"certificate": "NodeOperationalCertificate", "kes": "KesSigningKey", "vrf": "VrfSigningKey"}


class Certificate(NamedTuple):
    """An operational certificate: what can be said of it without the chain."""

    hot: bytes
    counter: int
    period: int  # the KES period in which it begins
    pool_id: str  # hex


def read_cbor(data: bytes) -> Any:
    """The little CBOR that a credential has: numbers, bytes, short arrays of known length. Raises ValueError."""
    value, end = _cbor(data, 0, 0)
    if end != len(data):
        raise ValueError("bytes are left over")
    return value


def _cbor(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data) or depth > 4:
        raise ValueError("it is cut short")
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(info, 0)
    if info > 27 or at + size > len(data):
        raise ValueError("it is no such CBOR")
    number = int.from_bytes(data[at : at + size], "big") if size else info
    at += size
    if major == 0:
        return number, at
    if major == 2:
        if at + number > len(data):
            raise ValueError("it is cut short")
        return data[at : at + number], at + number
    if major != 4 or number > 16:
        raise ValueError("it is no such CBOR")
    values = []
    for _ in range(number):
        value, at = _cbor(data, at, depth + 1)
        values.append(value)
    return values, at


def read_envelope(envelope: Any, role: str) -> Any:
    """What a text envelope holds. Raises ValueError; its words never have a part of the content."""
    if not isinstance(envelope, dict) or not isinstance(envelope.get("cborHex"), str):
        raise ValueError("it is no text envelope")
    if not str(envelope.get("type")).lower().startswith(TYPES[role].lower()):
        raise ValueError(f"it is no {TYPES[role]}")
    try:
        data = bytes.fromhex(envelope["cborHex"])
    except ValueError:
        raise ValueError("its cborHex is not hexadecimal") from None
    return read_cbor(data)


def read_certificate(envelope: Any) -> Certificate:
    """Raises ValueError."""
    content = read_envelope(envelope, "certificate")
    try:
        (hot, counter, period, signature), cold = content
        sizes = len(hot), len(signature), len(cold)
    except (TypeError, ValueError):
        raise ValueError("it is no operational certificate") from None
    if sizes != (32, 64, 32) or not isinstance(counter, int) or not isinstance(period, int):
        raise ValueError("it is no operational certificate")
    return Certificate(hot, counter, period, hashlib.blake2b(cold, digest_size=28).hexdigest())


def kes_public(key: bytes) -> bytes:
    """The public half of a KES signing key: it ends with both halves of the tree's top, whose hash that is.

    Source: cardano-base, Cardano/Crypto/KES/Sum.hs (rawSerialiseSignKeyKES, hashPairOfVKeys with Blake2b_256).
    """
    return hashlib.blake2b(key[-64:], digest_size=32).digest()


def kes_period(metrics: Metrics | None) -> float | None:
    """The present KES period, by the slot and by the node's own word, whichever is later; None: neither is told.

    Only a node that forges counts its own on: another one's is old, or missing (ouroboros-consensus,
    forgeStateInfoTracer).
    """
    said = metrics.first(KES_PERIOD) if metrics is not None else None
    slot = metrics.first(SLOT_NUMBER) if metrics is not None else None
    return None if said is None and slot is None else max(said or 0.0, (slot or 0.0) // KES_SLOTS)


class Forging:
    """The node has its credentials, or it has none: a missing file disables forging once the node got SIGHUP.

    Files are renamed between where the node reads them and the put-aside folder. The certificate leaves first and
    comes back last, and a node without one does not forge, so that a partial set never enables anything.
    Source: cardano-node Run.hs updateBlockForging; only a missing file disables, a damaged one changes nothing.
    """

    def __init__(self, config: Config, state: State, node: Node) -> None:
        self.config = config
        self.state = state
        self.node = node
        self.live = config.credentials
        self.aside = config.put_aside / "current"
        self.counted: dict[str, Any] = {}  # the last samples of the counter

    # -------- files

    def put(self, role: str) -> Path:
        """Where a file lies while the gate is closed."""
        return self.aside / role

    def present(self, role: str) -> bool:
        """Whether there is anything at the place where the node reads the file."""
        return os.path.lexists(self.live[role])

    @property
    def all_present(self) -> bool:
        """Whether the node could read every file."""
        return all(self.present(role) for role in self.live)

    @property
    def any_present(self) -> bool:
        """Whether any file is where the node reads it."""
        return any(self.present(role) for role in self.live)

    def move(self, source: Path, target: Path, role: str) -> None:
        """Rename durably; the folders are held open, so that neither can be changed for another in between."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            here = os.open(source.parent, flags)
            try:
                there = os.open(target.parent, flags)
                try:
                    os.rename(source.name, target.name, src_dir_fd=here, dst_dir_fd=there)
                    os.fsync(there)
                finally:
                    os.close(there)
                os.fsync(here)
            finally:
                os.close(here)
        except OSError as error:
            raise disk_error(f"{role}: {source} could not be renamed to {target}", error) from None

    def take_away(self) -> None:
        """Every file out of the node's reach, whatever was left half done before. Nothing is overwritten."""
        try:
            make_folder(self.aside)
        except OSError as error:
            raise disk_error(f"the put-aside folder {self.aside} could not be made", error) from None
        troubles: list[AgentError] = []
        for role, path in self.live.items():
            if not self.present(role):
                continue
            target = self.put(role)
            if os.path.lexists(target) and not self.identical(path, target):
                target = self._reappeared(role)
            try:
                self.move(path, target, role)
            except AgentError as error:  # one that stays is no reason to leave the others
                troubles.append(error)
        if troubles:
            raise troubles[0]

    def give_back(self) -> None:
        """Every file to where the node reads it; the certificate last."""
        for role, path in reversed(list(self.live.items())):
            if os.path.lexists(self.put(role)):
                self.move(self.put(role), path, role)

    def _reappeared(self, role: str) -> Path:
        for number in range(1, 100):
            folder = self.config.put_aside / "reappeared" / str(number)
            if not os.path.lexists(folder / role):
                try:
                    make_folder(folder)
                except OSError as error:
                    raise disk_error(f"{folder} could not be made", error) from None
                return folder / role
        mend = "remove the old ones once you know where they came from"
        raise Unable(f"{self.config.put_aside}/reappeared holds 99 sets of files already", mend)

    @staticmethod
    def identical(one: Path, other: Path) -> bool:
        """Whether two files hold the same."""
        try:
            return _content(one, BULK_BOUND) == _content(other, BULK_BOUND)
        except (OSError, ValueError):
            return False

    # -------- what must be so before a set may be used

    def inspect(
        self, places: Mapping[str, Path], memory: Mapping[str, Any], metrics: Metrics | None
    ) -> list[Certificate]:
        """Whether these files may be given to the node; its certificates. Touches nothing; raises Refused."""
        contents: dict[str, Any] = {}
        for role, path in places.items():
            self._inspect_file(role, path)
            try:
                contents[role] = parse_json(_content(path, BULK_BOUND if role == "bulk" else CREDENTIAL_BOUND))
            except (OSError, ValueError):
                mend = "restore it from where you keep it"
                raise Refused(f"{role} ({path}) could not be read as JSON", mend) from None
        certificates, keys = [], []
        for role, envelope in _envelopes(contents):
            try:
                if role != "certificate":
                    content = read_envelope(envelope, role)
                    keys += [content] if role == "kes" else []
                    continue
                certificate = read_certificate(envelope)
            except ValueError as error:
                where = places.get(role, places.get("bulk"))
                raise Refused(f"{role} ({where}): {error}", "restore the right file") from None
            self._inspect_certificate(certificate, memory, metrics)
            certificates.append(certificate)
        if not certificates:
            raise Refused("bulk: there is no certificate in it", "restore the right file")
        for certificate, key in zip(certificates, keys):  # noqa: B905 - strict= came with Python 3.10
            if isinstance(key, bytes) and len(key) == KES_BYTES and kes_public(key) != certificate.hot:
                mend = "put the key there for which the certificate was issued (cardano-cli node issue-op-cert)"
                raise Refused("the KES key and the certificate do not belong together", mend)
        return certificates

    def _inspect_file(self, role: str, path: Path) -> None:
        try:
            about = os.lstat(path)
        except FileNotFoundError:
            raise Refused(f"{role} is missing: {path} is not there", "restore it from where you keep it") from None
        except OSError as error:
            raise disk_error(f"{role} ({path}) could not be looked at", error) from None
        if not stat.S_ISREG(about.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(about.st_mode) else "no regular file"
            raise Refused(f"{role} ({path}) is {kind}", "put the file itself there: a link cannot be put aside safely")
        if self.config.owner is not None:
            account = account_of(self.config.owner)
            if about.st_uid != account.pw_uid:
                mend = f"chown {self.config.owner} {path}"
                raise Refused(f"{role} ({path}) belongs to user {about.st_uid}, not {self.config.owner}", mend)
        wide = {"vrf": 0o077, "certificate": 0o022}.get(role, 0o027)  # the node itself refuses such a VRF key
        if about.st_mode & wide:
            mend = f"chmod {about.st_mode & 0o700 & ~wide:o} {path}"
            raise Refused(f"{role} ({path}) is open to others (mode {about.st_mode & 0o7777:o})", mend)

    def _inspect_certificate(
        self, certificate: Certificate, memory: Mapping[str, Any], metrics: Metrics | None
    ) -> None:
        if self.config.pool_id is not None and certificate.pool_id != self.config.pool_id:
            mend = "restore this pool's certificate, or mend pool_id in the agent's configuration"
            raise Refused(f"the certificate is of another pool ({certificate.pool_id})", mend)
        highest = memory["forging"].get("highest", {}).get(certificate.pool_id, 0)
        if certificate.counter < highest:
            mend = "use the newest certificate: the chain refuses blocks of an older one"
            raise Refused(f"the certificate's counter is {certificate.counter}, and {highest} was live here", mend)
        current = kes_period(metrics)
        if current is None:
            return
        if metrics is not None and metrics.first(KES_PERIOD) is not None and certificate.period > current:
            mend = "wait for that period, or issue a certificate for the current one"
            raise Refused(f"the certificate begins in KES period {certificate.period}; now is {current:.0f}", mend)
        if current >= certificate.period + EVOLUTIONS:
            mend = "issue a new KES key and certificate, leave them in staging, and run install-credentials"
            end = certificate.period + EVOLUTIONS
            raise Refused(f"the KES key expired in period {end}; now is {current:.0f}", mend)

    def kes_left(self, metrics: Metrics | None) -> int | None:
        """The KES periods for which what is held here, live or put aside, can sign, 0 or less: none; None: unknown."""
        current, ends = kes_period(metrics), []
        with contextlib.suppress(AgentError, OSError, ValueError):
            found = {role: path for role, path in self.places().items() if role in ("certificate", "bulk")}
            contents = {role: parse_json(_content(path, BULK_BOUND)) for role, path in found.items()}
            envelopes = [envelope for role, envelope in _envelopes(contents) if role == "certificate"]
            ends = [read_certificate(envelope).period + EVOLUTIONS for envelope in envelopes]
        return None if current is None or not ends else max(-MOST, min(MOST, max(ends) - int(current)))

    def guard(self, found: Found) -> None:
        """Ways of running the node for which this gate does not work. Raises Refused."""
        if self.config.kes_agent is not None:
            raise Refused(
                f"the node takes its KES key from an agent's socket ({self.config.kes_agent}), which is not supported",
                "use key files, or gate this producer by its firewall or power",
            )
        sources = [mount.get("Source") for mount in found.mounts or ()]
        for role, path in self.live.items():
            if str(path) in sources:
                mend = f"mount the folder {path.parent} instead of the file, and start the container anew"
                raise Refused(f"{role} ({path}) is a bind mount of a single file: renames do not reach it", mend)

    # -------- the counter

    def count(self, found: Found, metrics: Metrics | None, asked: float) -> dict[str, Any]:
        """Take a sample of the about-to-lead counter; what is known of this process's by now.

        value; since: when it was first seen at this value; last: when it was last seen; rose: between which two looks.
        """
        file = self.state.folder / "counter.json"
        known = self.counted
        if not known:
            with contextlib.suppress(OSError, ValueError):
                known = parse_json(file.read_bytes()[:4096])
        ours = isinstance(known, dict) and known.get("boot") == boot_id() and known.get("process") == str(found.process)
        if not ours or not _is_counter(known):
            known = {"boot": boot_id(), "process": str(found.process)}
        if metrics is None or found.process is None:
            return known
        value = metrics.first(LEADING)
        if value is None and flag_of(found.process.pid) and metrics.first(SLOT) is not None:
            value = 0.0  # started as non-producing, it never checked a slot: the series appears with the first check
        if value is None:
            return known
        at = now()
        if "value" in known and value == known["value"]:
            known["last"] = asked  # the value may have been taken as early as that
        else:
            if "value" in known and value > known["value"]:
                known["rose"] = [known["last"], at]
            known.update(value=value, since=at, last=asked)
        write_in_place(file, known)
        self.counted = known
        return known

    def sample(self, found: Found, deadline: Deadline) -> tuple[Metrics | None, str | None, dict[str, Any]]:
        """The metrics, or why there are none, and the counter."""
        metrics, trouble, asked = None, None, now()
        if self.config.metrics is None:
            trouble = "no metrics are configured"
        elif found.process is None:
            trouble = "the node does not run"
        else:
            try:
                metrics = read_metrics(self.config.metrics, max(0.05, min(3.0, deadline.left)))
            except Unable as error:
                trouble = str(error)
        return metrics, trouble, self.count(found, metrics, asked)

    # -------- how it stands

    def view(
        self, memory: Mapping[str, Any], found: Found, counter: Mapping[str, Any], trouble: str | None
    ) -> dict[str, Any]:
        """The gate, in the words of the protocol."""
        own = memory["forging"]
        seen = View(self, own, found, counter, trouble)
        if self.config.kes_agent is not None or not self.live:
            seen.lacks.append("the node takes its KES key from an agent's socket: what it does cannot be told")
        elif not self.all_present:
            seen.closed()
        elif own.get("want") == "closed":
            seen.reappeared()
        else:
            seen.opened()
        seen.find_findings(self.state)
        return {
            "open": seen.open,
            "certain": seen.certain,
            "shown": seen.shown,
            "lacks": seen.lacks,
            "process": str(found.process) if found.process is not None else None,
            "findings": seen.findings,
            "starting": seen.starting,
        }

    # -------- SIGHUP

    def tell(self, memory: dict[str, Any], found: Found, key: str) -> str | None:
        """Send SIGHUP and remember to which process ("told": files gone; "opened": files there); why not, otherwise."""
        if found.unsure is not None:
            return found.unsure
        process = found.process
        if process is None:
            return None
        if not catches_sighup(process.pid):
            return f"process {process.pid} does not take SIGHUP yet (it would end it)"
        if key == "opened":  # remembered before: from now on it may have its keys
            memory["forging"].update(opened=str(process), opened_at=now())
            memory["forging"].pop("told", None)
            self.state.save(memory)
        if not send_sighup(process):
            return f"process {process.pid} ended before it got SIGHUP"
        # A node that listens, or ever checked a slot, is past its replay, in which SIGHUP has no effect.
        led = self.counted.get("process") == str(process) and self.counted.get("value", 0.0) > 0
        effective = found.listens or led
        if key == "told":
            before = memory["forging"].get("told", {})
            if before.get("process") != str(process) or not before.get("effective"):
                # Sent again, the first time counts on: else a node that forges all the same had a moment's grace.
                memory["forging"]["told"] = {"process": str(process), "at": now(), "effective": effective}
                self.state.remember(memory)
        elif not effective:
            return f"the node does not listen on port {self.config.port} yet: SIGHUP has no effect before"
        return None

    # -------- closing

    def starting(self, memory: Mapping[str, Any]) -> bool:
        """Whether the node is being started with its files in place, and somebody watches over that."""
        own = memory["forging"]
        return own.get("doing") == "start" and process_named(own.get("start", {}).get("watcher")) is not None

    def close(self, memory: dict[str, Any], deadline: Deadline, reason: str, *, wait: bool = True) -> dict[str, Any]:
        """Shut it, tell the node, and see by the counter that it stands still, or that the time is over."""
        found = self.node.find(deadline)
        self.guard(found)
        own = memory["forging"]
        before = dict(own)
        if own.get("want") != "closed":
            own["since"] = now()
        own.update(want="closed", reason=reason[:200])
        if self.starting(memory):  # the node would die of missing files; it has the flag, and the watcher closes
            self.state.save(memory)
            _, trouble, counter = self.sample(found, deadline)
            return self.view(memory, found, counter, trouble)
        staged = self.staged() if own.get("doing") == "install" else {}
        own.update({"installing": "put-aside"} if staged else {"doing": "close"})
        if self.any_present:  # it may have read them since it was told that they are gone
            own.pop("told", None)
        self.state.remember(memory)
        try:
            self.take_away()
        except AgentError as error:
            if isinstance(error, Refused) and self.all_present:  # nothing was touched, nor will be
                memory["forging"] = before
                self.state.remember(memory)
            if self.all_present:
                raise
            self.state.troubles.append({"what": str(error), "mend": error.mend})  # one that is missing disables
        if staged:  # an installing was interrupted: the new set is made whole, out of the node's reach
            self.exchange(staged, live=False)
            own["doing"] = "close"
        return self.finish(memory, deadline, found, wait=wait)

    def finish(self, memory: dict[str, Any], deadline: Deadline, found: Found, *, wait: bool = True) -> dict[str, Any]:
        """The rest of a closing: SIGHUP until it took effect, and the counter."""
        own = memory["forging"]
        # With each closing once, although it was told before: another hand may have told it in between.
        problem = self.tell(memory, found, "told")
        sent = now()
        while True:
            metrics, trouble, counter = self.sample(found, deadline)
            gate = self.view(memory, found, counter, trouble)
            if gate["open"] is False:
                own["doing"] = None
            if problem is not None and not gate["certain"]:
                gate["lacks"] = [*gate["lacks"], problem]
            if gate["certain"] or deadline.over or not wait or (gate["open"] is False and metrics is None):
                break
            deadline.pause(min(POLL, self.config.slot))
            found = self.node.find(deadline)
            told = own.get("told", {})
            unheard = found.listens and not told.get("effective")
            late = gate["open"] is not False and now() - sent >= max(RESEND, 2 * self.config.slot)
            if unheard or late or told.get("process") != str(found.process):
                problem, sent = self.tell(memory, found, "told"), now()
        self.state.remember(memory)
        return gate

    def recover(self, memory: dict[str, Any], deadline: Deadline, *, opening: bool = False) -> None:
        """Finish what was interrupted. An opening only with ``opening``, and then by closing: nobody waits for it."""
        own = memory["forging"]
        self.recover_install(memory)
        doing = own.get("doing")
        told = own.get("told", {})
        if doing not in ("close", "start") and not (doing == "open" and opening):
            return
        lately = doing == "close" and not self.any_present and now() - told.get("at", 0.0) < RESEND
        if lately or self.starting(memory):
            return
        if doing in ("start", "open"):
            own.update(want="closed", doing="close", since=own.get("since", now()))
        if self.any_present:
            own.pop("told", None)
        self.state.remember(memory)
        self.take_away()
        self.finish(memory, deadline, self.node.find(deadline), wait=False)

    # -------- opening

    def places(self) -> dict[str, Path]:
        """Where each file of the set is now: put aside, or live. Raises Refused when both are there and differ."""
        found = {}
        for role, path in self.live.items():
            aside = self.put(role)
            both = os.path.lexists(aside) and self.present(role)
            if both and not self.identical(aside, path):
                mend = "close the gate first: that moves what reappeared away; then look which one is right"
                raise Refused(f"{role}: {path} and the one put aside are both there, and differ", mend)
            found[role] = aside if os.path.lexists(aside) else path
        return found

    def open(self, memory: dict[str, Any], deadline: Deadline, reason: str) -> dict[str, Any]:
        """Give the files back when they are good, tell the node, and see the counter rise, or the time be over."""
        found = self.node.find(deadline)
        self.guard(found)
        own = memory["forging"]
        interrupted = own.get("doing") is not None  # what the node was told meanwhile may not be remembered
        self.recover_install(memory)
        metrics, trouble, counter = self.sample(found, deadline)
        certificates = self.inspect(self.places(), memory, metrics)
        if own.get("want") != "open":
            own["since"] = now()
        own.update(want="open", reason=reason[:200])
        highest = own.setdefault("highest", {})
        for certificate in certificates:
            highest[certificate.pool_id] = max(certificate.counter, highest.get(certificate.pool_id, 0))
        for old in list(highest)[:-16]:
            del highest[old]
        if self.starting(memory):  # the watcher tells the node once it listens
            self.state.save(memory)
            return self.view(memory, found, counter, trouble)
        own["doing"] = "open"
        self.state.save(memory)
        self.give_back()
        return self.enable(memory, deadline, found, again=interrupted)

    def enable(
        self, memory: dict[str, Any], deadline: Deadline, found: Found, *, again: bool = False
    ) -> dict[str, Any]:
        """The rest of an opening: SIGHUP until it took effect, and the counter.

        A node that forges by these files already is not told anew, but ``again``, or when a closing told it in between:
        its counter may have risen a moment ago all the same.
        """
        own = memory["forging"]
        metrics, trouble, counter = self.sample(found, deadline)
        forging = own.get("opened") == str(found.process) and "told" not in own and self.leads(own, found, counter)
        problem = None if forging and not again else self.tell(memory, found, "opened")
        sent = now()
        while True:
            if self.leads(own, found, counter):
                problem = None
            own["doing"] = None if problem is None else "open"
            gate = self.view(memory, found, counter, trouble)
            if problem is not None:
                gate["lacks"] = [*gate["lacks"], problem]
            done = problem is None and (metrics is None or self.leads(own, found, counter))
            if done or deadline.over or found.process is None:
                break
            deadline.pause(min(POLL, self.config.slot))
            found = self.node.find(deadline)
            metrics, trouble, counter = self.sample(found, deadline)
            silent = now() - sent >= max(RESEND, 3 * self.config.slot) and not self.leads(own, found, counter)
            if problem is not None or silent:
                problem, sent = self.tell(memory, found, "opened"), now()
        self.state.remember(memory)
        return gate

    def forgot(self, own: Mapping[str, Any], found: Found, counter: Mapping[str, Any]) -> bool:
        """Whether an open producer's node was told of its files long ago, and all the same its counter stands still.

        It may have been told by another hand in the moment in which they were moved.
        """
        if own.get("want") != "open" or own.get("doing") is not None or not self.all_present:
            return False
        if not found.listens or own.get("opened") != str(found.process) or "told" in own:
            return False
        still_since = max(float(counter.get("since", math.inf)), float(own.get("opened_at", 0.0)))
        return float(counter.get("last", 0.0)) - still_since >= REMIND * self.config.slot

    def leads(self, own: Mapping[str, Any], found: Found, counter: Mapping[str, Any]) -> bool:
        """Whether the counter rises, by a look of now, since this process was last told of its files, there or gone."""
        process, told, after = str(found.process), own.get("told", {}), 0.0
        if own.get("opened") == process:
            after = float(own.get("opened_at", 0.0))
        if told.get("process") == process:
            after = max(after, float(told["at"]))
        fresh = now() - counter.get("last", -math.inf) < FRESH
        return fresh and rises(counter, self.config.window, after)

    # -------- installing

    def staged(self) -> dict[str, Path]:
        """What the operator left in staging, under the names of the live files."""
        named = {role: self.config.staging / path.name for role, path in self.live.items()}
        return {role: path for role, path in named.items() if os.path.lexists(path)}

    def recover_install(self, memory: dict[str, Any]) -> bool:
        """Finish an installing that was interrupted; its files were found good before the first was moved."""
        own = memory["forging"]
        if own.get("doing") != "install":
            return False
        self.exchange(self.staged(), live=own.get("installing") == "live")
        own["doing"] = "open" if own.pop("installing", None) == "live" else "close"
        self.state.save(memory)
        return True

    def install(self, memory: dict[str, Any], deadline: Deadline) -> tuple[dict[str, Any], int, str]:
        """Take a new set from staging to where the node reads it, or aside; the gate, the counter, and where it is."""
        found = self.node.find(deadline)
        self.guard(found)
        if self.starting(memory):
            raise Refused("the node is being started with its present files", "ask again once it runs")
        metrics, _, _ = self.sample(found, deadline)
        own = memory["forging"]
        if self.recover_install(memory):
            certificates = self.inspect(self.places(), memory, metrics)
            closed = own["doing"] == "close"
        else:
            closed = own.get("want") == "closed" or not self.all_present
            fresh = self.staged()
            for role, path in self.live.items():
                if role not in fresh and role != "vrf":  # the VRF key stays when a KES key is changed
                    mend = f"leave it there as {path.name}, with the owner and mode of the old one"
                    raise Refused(f"{self.config.staging} has no {role}", mend)
            if closed:
                self.take_away()
            base = self.places()
            certificates = self.inspect({**base, **fresh}, memory, metrics)
            self._not_older(base, certificates)
            own.update(doing="install", installing="put-aside" if closed else "live")
            self.state.save(memory)
            self.recover_install(memory)
        counter = max(certificate.counter for certificate in certificates)
        if closed:
            own["want"] = "closed"
            return self.finish(memory, deadline, found, wait=False), counter, "put-aside"
        highest = own.setdefault("highest", {})
        for certificate in certificates:
            highest[certificate.pool_id] = max(certificate.counter, highest.get(certificate.pool_id, 0))
        own["want"] = "open"
        return self.enable(memory, deadline, found, again=True), counter, "live"

    def _not_older(self, base: Mapping[str, Path], certificates: Sequence[Certificate]) -> None:
        present: dict[str, Any] = {}
        for role in ("certificate", "bulk"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                present[role] = parse_json(_content(base[role], BULK_BOUND))
        counters = []
        with contextlib.suppress(ValueError, Refused):
            counters = [read_certificate(one).counter for role, one in _envelopes(present) if role == "certificate"]
        if counters and max(counters) > max(certificate.counter for certificate in certificates):
            mend = "issue a newer one: the chain refuses blocks of an older certificate"
            raise Refused(f"the new certificate's counter is lower than the present one's ({max(counters)})", mend)

    def exchange(self, fresh: Mapping[str, Path], *, live: bool) -> None:
        """The old ones to ``previous``, the new ones into their places; the certificate leaves first, comes last.

        A role whose file is still in staging has its old one in place, or none: so it can be gone on with.
        """
        previous = self.config.put_aside / "previous"
        try:
            make_folder(previous)
            make_folder(self.aside)
        except OSError as error:
            raise disk_error(f"{previous} could not be made", error) from None
        places = {role: self.live[role] if live else self.put(role) for role in fresh}
        for role, place in places.items():
            if os.path.lexists(place):
                self.move(place, previous / role, role)
        for role in reversed(list(fresh)):
            self.move(fresh[role], places[role], role)


def _is_counter(known: Mapping[str, Any]) -> bool:
    """Whether what was read has the shape of what ``count`` writes: a damaged file must keep no gate open."""
    numbers = [known[key] for key in ("value", "since", "last") if key in known]
    rose = known.get("rose", [0.0, 0.0])
    whole = len(numbers) in (0, 3) and isinstance(rose, list) and len(rose) == 2
    return whole and all(type(number) in (int, float) for number in (*numbers, *rose))


def rises(counter: Mapping[str, Any], window: float, after: float = 0.0) -> bool:
    """Whether the counter rose lately, between two looks that were both taken after this time."""
    rose = counter.get("rose")
    return rose is not None and rose[0] >= after and counter["last"] - rose[1] < window


def _content(path: Path, bound: int) -> bytes:
    """A file's content. Raises OSError, and ValueError when it is larger or not a regular file."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(bound + 1)
    if len(data) > bound:
        raise ValueError(f"it is larger than {bound} bytes")
    return data


def _envelopes(contents: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every credential with its role; a bulk file is a list of [certificate, VRF key, KES key]."""
    if "bulk" not in contents:
        return list(contents.items())
    bulk = contents["bulk"]
    if not isinstance(bulk, list) or not 0 < len(bulk) <= 64:
        raise Refused("bulk: it is no list of credentials", "restore the right file")
    found = []
    for entry in bulk:
        if not isinstance(entry, list) or len(entry) != 3:
            raise Refused("bulk: an entry is not [certificate, VRF key, KES key]", "restore the right file")
        found += [("certificate", entry[0]), ("vrf", entry[1]), ("kes", entry[2])]
    return found


class View:
    """How the gate stands, worked out from what is remembered and what was seen."""

    def __init__(
        self, forging: Forging, own: Mapping[str, Any], found: Found, counter: Mapping[str, Any], trouble: str | None
    ) -> None:
        self.forging = forging
        self.config = forging.config
        self.own = own
        self.found = found
        self.counter = counter
        self.trouble = trouble
        self.open: bool | None = None
        self.certain = False
        self.shown: list[str] = []
        self.lacks: list[str] = []
        self.findings: list[dict[str, str]] = []
        self.starting = False  # with the flag, by us: its files are in place, and it does not forge by them
        process = found.process
        self.flag = flag_of(process.pid) if process is not None else None
        told = own.get("told", {})
        self.told = process is not None and told.get("process") == str(process)
        self.effective = self.told and bool(told.get("effective"))
        self.told_at = float(told.get("at", 0.0)) if self.told else 0.0
        self.given = process is not None and own.get("opened") == str(process)  # it got SIGHUP with its files there
        self.missing = [role for role in forging.live if not forging.present(role)]
        self.there = [role for role in forging.live if forging.present(role)]

    def closed(self) -> None:
        """A file is missing, so that nothing can enable forging; what is left is what the process holds already."""
        if self.there:
            self.lacks.append(f"a part of the files is where the node reads them: {', '.join(self.there)}")
        else:
            self.shown.append("files gone")
        if self.found.unsure is not None:
            self.lacks.append(self.found.unsure)
            self.findings.append({"what": self.found.unsure, "mend": self.found.mend})
            return
        if self.found.process is None:
            self.shown.append("the node does not run")
            self.open, self.certain = (None, False) if self.there else (False, True)
            return
        unable = self.flag is not None and not self.given  # it began without them, and never was told to read them
        if self.flag is not None:
            self.shown.append(f"started with {self.flag}")
        if self.told:
            self.shown.append("SIGHUP delivered")
        if rises(self.counter, self.config.window, self.told_at):
            again = "still forging: the about-to-lead counter rises" + (" after SIGHUP" if self.told else "")
            self.lacks.append(again)
            self.open = None if self.effective else True
            return
        if not self.effective and not unable:
            self.lacks.append(
                f"SIGHUP was sent before the node listened on port {self.config.port}, where it has no effect"
                if self.told
                else "the node was not told that they are gone (SIGHUP)"
            )
            return
        flat = self.counter.get("last", 0.0) - max(self.counter.get("since", math.inf), self.told_at)
        fresh = now() - self.counter.get("last", -math.inf) < FRESH
        if self.trouble is not None:
            self.lacks.append(f"the about-to-lead counter: {self.trouble}")
        elif "last" not in self.counter:
            self.lacks.append("the about-to-lead counter is not among the node's metrics")
        elif fresh and flat >= self.config.window:
            self.shown.append(f"about-to-lead counter flat for {flat:.1f} s")
        else:
            self.lacks.append(f"about-to-lead counter not seen flat for {self.config.window:g} s yet")
            if not unable:  # that will be seen in a moment: until then it may forge
                self.open = None
                return
        self.open = None if self.there else False
        self.certain = self.open is False and not self.lacks

    def reappeared(self) -> None:
        """It should be closed, and every file is where the node reads it."""
        self.shown.append("files in place")
        if self.own.get("doing") == "start" and self.forging.starting({"forging": self.own}):
            self.lacks.append("the node is being started: its files are in place until it answers")
            self.starting = True
            return
        self.lacks.append("key files are back at their places although this gate was closed")
        if rises(self.counter, self.config.window, self.told_at):
            self.lacks.append("the about-to-lead counter rises")
        self.open = True  # the next SIGHUP of whoever it may be makes it forge

    def opened(self) -> None:
        """Every file is where the node reads it."""
        self.shown.append("files in place")
        self.open = True
        if self.found.unsure is not None:
            self.lacks.append(self.found.unsure)
        elif self.found.process is None:
            self.lacks.append("the node does not run")
        elif self.forging.leads(self.own, self.found, self.counter):
            self.shown.append("about-to-lead counter rises")
        else:
            self.lacks.append(f"the about-to-lead counter: {self.trouble or 'not seen rising yet'}")
            if self.flag is not None and not self.given:
                self.lacks.append(f"started with {self.flag}, and not told to read its files since (SIGHUP)")
                self.open = None
        if self.own.get("doing") in ("open", "install"):
            self.lacks.append("an opening was interrupted: the node may not know of its files yet")
            self.open = None
        self.certain = self.open is True and not self.lacks

    def find_findings(self, state: State) -> None:
        """What an operator should mend."""
        start = f"let {self.forging.node.runtime} run `agent.py start -- COMMAND` in place of COMMAND"
        process = self.found.process
        plain = self.flag is None and not self.given and self.own.get("want") == "closed"
        if process is not None and plain and process.began > self.own.get("since", 0.0):
            what = "the node was started without a non-producing flag while this gate was closed"
            self.findings.append({"what": what, "mend": start})
        run = self.own.get("run", {}).get("process")
        if process is not None and not self.findings and self.config.runtime[0] not in ("docker", "podman"):
            starter = process_named(run)
            if starter != process and (starter is None or process.pid not in with_children(starter.pid)):
                what = "the node was not started by this agent: a restart while closed fails, or forges"
                self.findings.append({"what": what, "mend": start})
        try:
            self.forging.guard(self.found)
        except Refused as error:
            self.findings.append({"what": str(error), "mend": error.mend})
        if (self.config.put_aside / "reappeared").is_dir():
            what = f"{self.config.put_aside}/reappeared holds key files that came back while this gate was closed"
            self.findings.append({"what": what, "mend": "find out who put them back, then remove them there"})
        if self.own.get("problem"):
            self.findings.append({"what": str(self.own["problem"]), "mend": "see the mend there, and close the gate"})
        self.findings += state.troubles


# ---------------------------------------------------------------- the protocol

LINE_BOUND = 4096  # bytes of a request, the end of the line included
ANSWER_BOUND = 65_536
TOPOLOGY_BOUND = 32 * 1024
IDLE = 120.0  # seconds without a request
WITHIN = 30.0
PEERS = 64
NO_FUSE = {"what": "a fuse is configured, and does not run", "mend": "systemctl enable --now failover-fuse.service"}
COMMON = ("v", "verb", "pool", "within")
ORDER = ("generation", "term")
VERBS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # what a request must have, and may have
    "status": ((), ("lease", "generation", "term", "topology")),
    "open": (("gate", *ORDER), ("reason",)),
    "close": (("gate", *ORDER), ("reason",)),
    "sessions": (("peers",), ()),
    "kick": (("peers", *ORDER), ("nudge",)),
    "install-credentials": (ORDER, ()),
}


def check_request(line: bytes) -> dict[str, Any]:
    """A request, checked key by key. Raises BadRequest, OtherVersion."""
    try:
        request = parse_json(line)
    except ValueError as error:
        raise BadRequest(f"the request is not JSON: {error}"[:200], "send one JSON object a line") from None
    if not isinstance(request, dict):
        raise BadRequest("the request is no JSON object", "send one JSON object a line")
    if type(request.get("v")) is not int or request["v"] != PROTOCOL:
        mend = f"install the agent and the controller of one version; this agent is {VERSION}"
        raise OtherVersion(f"the request is of version {request.get('v')!r}"[:100] + f", not {PROTOCOL}", mend)
    verb = request.get("verb")
    if not isinstance(verb, str) or verb not in VERBS:
        raise BadRequest(f"verb: {verb!r}"[:100] + " is not known", meant(str(verb)[:40], list(VERBS)))
    required, optional = VERBS[verb]
    known = (*COMMON, *required, *optional)
    for key in request:
        if key not in known:
            raise BadRequest(f"{verb}: {key!r}"[:100] + " is not known", meant(key[:40], known))
    for key in ("verb", "pool", *required):
        if key not in request:
            raise BadRequest(f"{verb}: {key} is missing", f"send {', '.join(required) or 'pool'}")
    if verb == "status" and "lease" in request and not all(key in request for key in ORDER):
        raise BadRequest("status: a lease came without generation and term", "send them with it")
    for key, value in request.items():
        if not ACCEPTED[key](value):
            raise BadRequest(f"{verb}: {key} is {value!r}"[:120], f"{key}: {MEANT[key]}")
    return request


def _is_text(most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= most and value.isprintable()


def _is_number(least: float, most: float, *, whole: bool = False) -> Callable[[Any], bool]:
    kinds = (int,) if whole else (int, float)
    return lambda value: type(value) in kinds and least <= value <= most


def _is_peer(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > 60:
        return False
    address, port = value, "1"
    if value.startswith("["):
        address, found, port = value[1:].partition("]:")
        if not found:
            return False
    elif value.count(":") == 1:
        address, _, port = value.partition(":")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return re.fullmatch("[1-9][0-9]{0,4}", port) is not None and int(port) < 65536 and "%" not in address


ACCEPTED: Mapping[str, Callable[[Any], bool]] = {
    "v": lambda value: value == PROTOCOL,
    "verb": _is_text(40),
    "pool": _is_text(64),
    "within": _is_number(0.1, WITHIN),
    "lease": _is_number(0, 3600),
    "topology": lambda value: isinstance(value, bool),
    "gate": lambda value: value in GATES if isinstance(value, str) else False,
    "generation": _is_number(0, MOST, whole=True),
    "term": _is_number(0, MOST, whole=True),
    "reason": _is_text(200),
    "nudge": lambda value: value in ("never", "sighup", "restart") if isinstance(value, str) else False,
    "peers": lambda value: isinstance(value, list) and len(value) <= PEERS and all(map(_is_peer, value)),
}
MEANT: Mapping[str, str] = {
    "v": "1",
    "verb": ", ".join(VERBS),
    "pool": "the pool's name",
    "within": f"seconds from 0.1 to {WITHIN:g}",
    "lease": "seconds from 0 to 3600",
    "topology": "true or false",
    "gate": " or ".join(GATES),
    "generation": f"a whole number from 0 to {MOST}",
    "term": f"a whole number from 0 to {MOST}",
    "reason": "printable text of at most 200 characters",
    "nudge": "never, sighup or restart",
    "peers": f"at most {PEERS} literal addresses, each with or without a port",
}


LOOK = 2.0  # seconds for finding the node's process on the way to something else


class Agent:
    """This host's gates, sessions and node, by its configuration."""

    def __init__(self, config: Config, run: Run = run) -> None:
        self.config = config
        self.state = State(config.state)
        self.node = Node(config, run)
        self.run = run
        self.forging = Forging(config, self.state, self.node) if "forging" in config.gates else None

    def firewall(self) -> Firewall:
        """The firewall gate. Raises Refused when this host has none."""
        if "firewall" not in self.config.gates:
            raise Refused("this host has no firewall gate", 'add "firewall" to gates in the agent\'s configuration')
        found = self.node.find(Deadline(LOOK))
        pid = None if found.unsure is not None else 0 if found.process is None else found.process.pid
        return Firewall(self.config.firewall, self.config.port, self.config.state, self.run, pid)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one checked request. Raises AgentError."""
        if request["pool"] != self.config.pool:
            mend = "see the controller's `agents` and this host's agent configuration"
            raise Refused(f"this host's pool is {self.config.pool}, not {request['pool']}", mend)
        within = float(request.get("within", WITHIN))
        deadline = Deadline(within - min(1.0, within * 0.15))
        verb = str(request["verb"])
        if verb == "status":
            return self.status(request, deadline)
        if verb in ("open", "close"):
            return {"gate": self.order(verb, request, deadline)}
        if verb == "sessions":
            found = self.node.find(deadline)
            seen = Sessions(self.config.port, self.run).look(request["peers"], deadline.left)
            process = str(found.process) if found.process is not None else None
            return {"running": found.process is not None, "process": process, **seen}
        if verb == "kick":
            return self.kick(request, deadline)
        return self.install(request, deadline)

    # -------- status

    def status(self, request: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Everything that this host can say of itself."""
        memory = self.state.load()
        if "lease" in request and request["lease"] > 0:
            self.hear(memory, request, deadline)
        if self.forging is not None and memory["forging"].get("doing") in ("close", "start", "install"):
            with contextlib.suppress(AgentError), self.state.lock(Deadline(min(0.2, deadline.left))):
                memory = self.state.load()
                self.forging.recover(memory, Deadline(min(2.0, deadline.left)))
        found = self.node.find(deadline)
        if self.forging is not None:
            metrics, trouble, counter = self.forging.sample(found, deadline)
            if self.forging.forgot(memory["forging"], found, counter):
                with contextlib.suppress(AgentError), self.state.lock(Deadline(min(0.2, deadline.left))):
                    memory = self.state.load()
                    if self.forging.forgot(memory["forging"], found, counter):
                        self.forging.tell(memory, found, "opened")
        else:
            metrics, trouble, counter = Forging(self.config, self.state, self.node).sample(found, deadline)
        answer = {
            "agent": VERSION,
            "boot": boot_id(),
            "pool": self.config.pool,
            "node": self.about_node(memory, found, metrics),
            "gates": self.gates(memory, found, metrics, counter, trouble, deadline),
            "metrics": shown_metrics(metrics) if metrics is not None else {},
            "metrics_error": trouble,
            "fuse": self.about_fuse(),
            "nudge": self.config.nudge,
            "topology": None,
        }
        if request.get("topology"):
            answer.update(self.topology())
        return answer

    def hear(self, memory: dict[str, Any], request: Mapping[str, Any], deadline: Deadline) -> None:
        """The fuse hears a lease, unless it is an old decider's; the highest numbers are kept to tell that."""
        try:
            self._check_order(memory, "lease", request)
        except Stale as error:
            self.state.troubles.append({"what": f"the lease was not heard: {error}", "mend": error.mend})
            return
        self.state.hear(float(request["lease"]))
        known = memory["gates"].get("lease", {})
        if all(known.get(key) == request[key] for key in ORDER):
            return
        with contextlib.suppress(AgentError), self.state.lock(Deadline(min(0.2, deadline.left))):  # or the next one
            fresh = self.state.load()
            self._heard(fresh, "lease", request)
            self.state.remember(fresh)

    def about_node(self, memory: Mapping[str, Any], found: Found, metrics: Metrics | None) -> dict[str, Any]:
        """The node, in the words of the protocol."""
        process = found.process
        begun = memory["forging"].get("run", {})
        version = begun.get("version") if process is not None and begun.get("process") == str(process) else None
        return {
            "running": process is not None,
            "pid": process.pid if process is not None else None,
            "started": round(time.time() - now() + process.began, 1) if process is not None else None,
            "runtime": self.node.runtime,
            "flag": flag_of(process.pid) if process is not None else None,
            "version": version or (metrics.version if metrics is not None else None),
        }

    def gates(
        self,
        memory: Mapping[str, Any],
        found: Found,
        metrics: Metrics | None,
        counter: Mapping[str, Any],
        trouble: str | None,
        deadline: Deadline,
    ) -> dict[str, Any]:
        """Every gate that this host has."""
        gates = {}
        for kind in self.config.gates:
            if kind == "forging" and self.forging is not None:
                gate = {
                    **self.forging.view(memory, found, counter, trouble),
                    "kes_left": self.forging.kes_left(metrics),
                }
                if self.config.fuse is not None and not self.fuse_runs():
                    gate["findings"].append(dict(NO_FUSE))
            else:
                try:
                    gate = self.firewall().read(min(5.0, deadline.left))
                except AgentError as error:
                    gate = {"open": None, "certain": False, "shown": [], "lacks": [str(error)], "process": None}
                    gate["findings"] = [{"what": str(error), "mend": error.mend}]
            gates[kind] = self.bounded(gate, memory, kind)
        return gates

    @staticmethod
    def bounded(gate: Mapping[str, Any], memory: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """A gate with its numbers, and no more words than an answer takes."""
        heard = memory["gates"].get(kind, {})
        return {
            **gate,
            "shown": [str(word)[:200] for word in gate["shown"][:16]],
            "lacks": [str(word)[:300] for word in gate["lacks"][:16]],
            "findings": [{key: str(text)[:300] for key, text in one.items()} for one in gate["findings"][:16]],
            "generation": heard.get("generation", 0),
            "term": heard.get("term", 0),
        }

    def topology(self) -> dict[str, Any]:
        """The node's topology file as text."""
        path = self.config.topology
        if path is None:
            return {"topology_error": "no topology file is configured"}
        try:
            text = _content(path, TOPOLOGY_BOUND).decode("utf-8")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else f"it is no text of at most {TOPOLOGY_BOUND} bytes"
            return {"topology_error": f"{path}: {why}"}
        if "cborHex" in text:  # a path that was mistyped must not send a key
            return {"topology_error": f"{path} is no topology: it looks like a key or a certificate"}
        return {"topology": {"path": str(path), "text": text}}

    # -------- orders

    def _check_order(self, memory: Mapping[str, Any], gate: str, request: Mapping[str, Any]) -> None:
        heard = memory["gates"].get(gate, {})
        for key in ORDER:
            if request[key] < heard.get(key, 0):
                mend = "the assignment moved on; after a lost one: `agent.py forget --yes` on this host"
                raise Stale(f"{gate}: {key} {request[key]} is lower than {heard[key]}, which was heard before", mend)

    def _heard(self, memory: dict[str, Any], gate: str, request: Mapping[str, Any]) -> None:
        self._check_order(memory, gate, request)
        memory["gates"][gate] = {key: request[key] for key in ORDER}

    def order(
        self, verb: str, request: Mapping[str, Any], deadline: Deadline, *, by_hand: bool = False
    ) -> dict[str, Any]:
        """Open or close a gate; the gate as it is then. ``by_hand``: by whoever is on the host, who has no lease."""
        kind = str(request["gate"])
        if kind not in self.config.gates:
            raise Refused(f"this host has no {kind} gate", f'add "{kind}" to gates in the agent\'s configuration')
        reason = str(request.get("reason", ""))
        with self.state.lock(deadline):
            memory = self.load_for(verb)
            if not by_hand:
                self._heard(memory, kind, request)
                if verb == "open":
                    self._check_lease()
            if kind == "forging" and self.forging is not None:
                act = self.forging.open if verb == "open" else self.forging.close
                return self.bounded(act(memory, deadline, reason), memory, kind)
            firewall = self.firewall()
            if verb == "open":
                self.state.save(memory)
                gate = firewall.open(deadline.left)
            else:
                self.state.remember(memory)
                gate = firewall.close(deadline.left)
            gate["findings"] = [*gate["findings"], *self.state.troubles]
            return self.bounded(gate, memory, kind)

    def load_for(self, verb: str) -> dict[str, Any]:
        """What is remembered; a damaged file does not keep a gate from being closed."""
        try:
            return self.state.load()
        except Unable as error:
            if verb != "close":
                raise
            self.state.troubles.append({"what": str(error), "mend": error.mend})
            return self.state.fresh()

    def _check_lease(self) -> None:
        fuse = self.about_fuse()
        if fuse is not None and fuse["left"] <= 0:
            mend = "send status with the lease first"
            raise Refused("no valid lease was heard lately, and the fuse would close at once what is opened", mend)

    def kick(self, request: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """End the node's sessions with these peers, and nudge it when that was asked."""
        nudge = request.get("nudge", NUDGES[0])
        allowed = NUDGES.index(nudge) <= NUDGES.index(self.config.nudge)
        with self.state.lock(deadline):
            memory = self.state.load()
            self._heard(memory, "kick", request)
            self.state.remember(memory)
            ended = Sessions(self.config.port, self.run).kick(request["peers"], deadline.left)
            if not allowed:
                mend = (
                    f'set "nudge": "{nudge}" in {self.config.path}, or no `restart: {nudge}` in the controller\'s file'
                )
                raise Refused(f'{ended} sessions were ended; "nudge" is {self.config.nudge} on this host', mend)
            nudged = False
            if nudge == "restart":
                self.node.restart(deadline)
                nudged = True
            elif nudge == "sighup":
                own = memory["forging"]
                shut = self.forging is not None and (own.get("want") == "closed" or own.get("doing") is not None)
                process = None if shut else self.node.find(deadline).process  # files may be in place
                nudged = process is not None and catches_sighup(process.pid) and send_sighup(process)
        return {"ended": ended, "nudged": nudged}

    def install(self, request: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Take the credentials that the operator left in staging."""
        if self.forging is None:
            raise Refused("this host has no forging gate", 'add "forging" to gates in the agent\'s configuration')
        with self.state.lock(deadline):
            memory = self.state.load()
            self._heard(memory, "forging", request)
            gate, counter, where = self.forging.install(memory, deadline)
            return {"gate": self.bounded(gate, memory, "forging"), "counter": counter, "installed": where}

    # -------- the fuse

    def about_fuse(self) -> dict[str, float] | None:
        """How long until the fuse closes, unless a lease is heard."""
        if self.config.fuse is None:
            return None
        heard = self.state.heard()
        left = 0.0 if heard is None else self.config.fuse - (now() - heard)
        return {"after": self.config.fuse, "left": round(max(0.0, left), 1)}

    def fuse_runs(self) -> bool:
        """Whether a fuse process watches: it holds a lock of its own."""
        try:
            number = os.open(self.state.folder / "fuse.lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(number)


def serve(path: Path, idle: float = IDLE) -> int:
    """Answer requests from standard input until its end; one JSON line each."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    left, skipping = b"", False
    while True:
        ready, _, _ = select.select([0], [], [], idle)
        data = os.read(0, 65536) if ready else b""
        if not data:
            return 0
        *lines, left = (left + data).split(b"\n")
        for line in lines:
            if skipping:
                skipping = False
            elif not _say(_too_long() if len(line) >= LINE_BOUND else answer_line(path, line)):
                return 0
        if len(left) >= LINE_BOUND:
            if not skipping and not _say(_too_long()):
                return 0
            left, skipping = b"", True


def _too_long() -> dict[str, Any]:
    mend = f"send one JSON object a line, of at most {LINE_BOUND} bytes"
    return refusal(BadRequest(f"the request is longer than {LINE_BOUND} bytes", mend))


def answer_line(path: Path, line: bytes) -> dict[str, Any]:
    """The answer to one line, whatever it is."""
    try:
        request = check_request(line)
        answer = Agent(read_config(path)).answer(request)
    except AgentError as error:
        return refusal(error)
    except OSError as error:
        return refusal(disk_error(str(error.filename or "the host"), error))
    except Exception as error:  # noqa: BLE001 - one line a request, also for a fault of ours; its words may hold content
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        line_number = at.tb_lineno if at is not None else 0
        what = f"a fault of the agent {VERSION}: {type(error).__name__} at line {line_number}"
        return refusal(Unable(what, "report it; close the gates by hand if they must be"))
    return {"v": PROTOCOL, "ok": True, **answer}


def refusal(error: AgentError) -> dict[str, Any]:
    """An error in the words of the protocol."""
    texts = {"error": str(error), "mend": error.mend}
    lines = {key: " ".join(text.split())[:500] for key, text in texts.items()}
    return {"v": PROTOCOL, "ok": False, "kind": error.kind, **lines}


def _say(answer: dict[str, Any]) -> bool:
    """One line to standard output; False: nobody reads it any more."""
    data = json.dumps(answer, separators=(",", ":")).encode("ascii") + b"\n"
    if len(data) > ANSWER_BOUND and answer.get("topology"):
        error = f"{answer['topology']['path']}: too large for an answer"
        data = json.dumps({**answer, "topology": None, "topology_error": error}).encode("ascii") + b"\n"
    if len(data) > ANSWER_BOUND:
        what = Unable(f"the answer is longer than {ANSWER_BOUND} bytes", "ask for less")
        data = json.dumps(refusal(what)).encode("ascii") + b"\n"
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        return False
    return True


# ---------------------------------------------------------------- the node's start

START_BOUND = 600.0  # seconds after which the files leave although the node did not answer
FIRST_FLAG, RENAMED_FLAG = (8, 7, 2), (10, 5, 1)
STARTED_WITH = {"umask": 0o022}  # what the node gets back


def flag_for(version: str) -> str:
    """The flag with which a node of this version starts without forging. Raises Refused."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", version)
    if found is None:
        raise Refused(f"{version!r} is no version of a node", "say it with --node-version")
    numbers = tuple(int(part or 0) for part in found.groups())
    if numbers < FIRST_FLAG:
        mend = "update the node, or gate this producer by its firewall or power"
        raise Refused(f"cardano-node {version} cannot start without forging", mend)
    return FLAGS[0] if numbers >= RENAMED_FLAG else FLAGS[1]


def version_of(command: Sequence[str], agent: Agent) -> str:
    """What `CMD --version` says. Raises Refused, Unable."""
    ran = agent.run([command[0], "--version"], 20.0, user=agent.config.owner)
    found = re.search(r"cardano-node (\d+\.\d+(?:\.\d+)?)", ran.stdout)
    if found is None:
        mend = "name cardano-node itself as COMMAND, or say its version with --node-version"
        raise Refused(f"{command[0]} --version names no version of cardano-node", mend)
    return found[1]


def start(path: Path, command: Sequence[str], version: str | None, bound: float) -> int:
    """Become the node; while the gate is closed, with its files in place only until it answers, and without forging."""
    agent = Agent(read_config(path))
    if not command:
        raise Refused(
            "there is no command", "/usr/local/lib/failover/agent.py start -- /usr/local/bin/cardano-node run ..."
        )
    words = list(command)
    if agent.forging is not None:
        deadline = Deadline(WITHIN)
        with agent.state.lock(deadline):
            memory = agent.state.load()
            words = prepare(agent, memory, deadline, words, version, bound)
    return become(words, agent.config.owner)


def prepare(
    agent: Agent, memory: dict[str, Any], deadline: Deadline, words: list[str], version: str | None, bound: float
) -> list[str]:
    """The command with which to go on; the files are in place, and when the gate is closed somebody watches them."""
    forging = agent.forging
    assert forging is not None  # noqa: S101 - asked for by the caller
    own = memory["forging"]
    fuse = agent.about_fuse()
    if fuse is not None and fuse["left"] <= 0:
        own.update(want="closed", since=own.get("since", now()))
    forging.recover(memory, deadline, opening=True)
    closed = own.get("want") == "closed" or not forging.all_present
    me = process_of(os.getpid())
    if not closed:
        own.update(run={"process": str(me), "version": version})
        if not any(flag in words for flag in FLAGS):
            own.update(opened=str(me), opened_at=now())
        own.pop("told", None)
        agent.state.remember(memory)
        return words
    version = version or version_of(words, agent)
    flag = flag_for(version)
    forging.take_away()
    for role in forging.live:
        if not os.path.lexists(forging.put(role)):
            mend = f"restore it to {forging.put(role)}, or by install-credentials: the node dies of a missing file"
            raise Refused(f"{role} is missing, put aside and in its place", mend)
    watcher = watch(agent, bound)
    own.update(want="closed", doing="start", since=own.get("since", now()))
    own.update(start={"watcher": watcher, "process": str(me)}, run={"process": str(me), "version": version})
    for key in ("told", "opened", "opened_at", "problem"):
        own.pop(key, None)
    agent.state.save(memory)
    forging.give_back()
    return words if any(one in words for one in FLAGS) else [*words, flag]


def watch(agent: Agent, bound: float) -> str:
    """Fork a process that takes the files away again; its identity. It waits for the lock that we hold."""
    me = process_of(os.getpid())
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            if os.fork() == 0:
                os.write(there, str(process_of(os.getpid())).encode())
                _let_go()
                _watch(agent, me, bound)
                status = 0
            else:
                status = 0
        finally:
            os._exit(status)
    os.close(there)
    os.waitpid(child, 0)
    with open(here, "rb") as pipe:
        identity = pipe.read(64).decode()
    if not identity:
        raise Unable("the watcher of the start could not be started", "see that the host has memory and processes left")
    return identity


def _let_go() -> None:
    """Give up everything that was inherited: the lock above all, which ends with the last one that has it open."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.closerange(3, max(4096, null + 1))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _watch(agent: Agent, node: Process | None, bound: float) -> None:
    """Until the node listens or answers, or ended, or the bound is over; then the files go, unless it was opened."""
    deadline = Deadline(bound)
    _locked(agent, lambda memory: None)  # whoever started us lets go of the lock when it becomes the node
    while not deadline.over and not _answers(agent, node):
        if agent.state.load()["forging"].get("doing") != "start":
            return  # somebody else finished it
        deadline.pause(min(0.25, agent.config.slot))
    _locked(agent, lambda memory: _started(agent, memory))


def _locked(agent: Agent, act: Callable[[dict[str, Any]], None]) -> None:
    """Do it under the lock, however often others come first; without it after ten minutes somebody else will."""
    for _ in range(20):
        try:
            with agent.state.lock(Deadline(WITHIN)):
                act(agent.state.load())
                return
        except Busy:
            continue


def _answers(agent: Agent, node: Process | None) -> bool:
    """Whether the node has read its files, because it speaks already, or will not, because it ended."""
    if node is not None and process_of(node.pid) != node:
        return True
    found = agent.node.find(Deadline(10.0))
    if found.listens:
        return True
    if found.process is None or agent.config.metrics is None:
        return False
    try:
        read_metrics(agent.config.metrics, 2.0)
    except Unable:
        return False
    return True


def _started(agent: Agent, memory: dict[str, Any]) -> None:
    """The end of a start: closed, or opened when that was ordered meanwhile."""
    own, forging = memory["forging"], agent.forging
    if forging is None or own.get("doing") != "start":
        return
    if own.get("start", {}).get("watcher") != str(process_of(os.getpid())):
        return  # another start began meanwhile, and has a watcher of its own
    found = agent.node.find(Deadline(10.0))
    fuse = agent.about_fuse()
    if own.get("want") == "open" and (fuse is None or fuse["left"] > 0):
        own["doing"] = "open"
        forging.enable(memory, Deadline(10.0), found, again=True)
        return
    own.update(want="closed", doing="close")
    agent.state.remember(memory)
    try:
        forging.take_away()
    except AgentError as error:
        own["problem"] = str(error)
    forging.finish(memory, Deadline(10.0), found, wait=False)


def become(words: Sequence[str], owner: str | None) -> int:
    """Replace this process by the node, as its owner."""
    environment = dict(os.environ)
    os.umask(STARTED_WITH["umask"])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if owner is not None and os.geteuid() == 0:
        account = account_of(owner)
        if account.pw_uid != 0:
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            environment.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
    try:
        os.execvpe(words[0], list(words), environment)  # noqa: S606 - the node's own command, without a shell
    except OSError as error:
        raise Unable(f"{words[0]} could not be started: {error.strerror}", "mend the command after --") from None


# ---------------------------------------------------------------- boot and fuse


def boot(path: Path) -> int:
    """At the host's start, before the node's: what was closed stays closed; with a fuse everything starts closed."""
    agent = Agent(read_config(path))
    left = agent.about_fuse()
    lapsed = left is not None and left["left"] <= 0
    forging = agent.forging
    trouble: AgentError | None = None
    if "firewall" in agent.config.gates:  # each is put as it was, whatever is wrong with the other
        try:
            firewall = agent.firewall()
            firewall.boot()
            if lapsed and forging is None:
                firewall.close()
            print(f"firewall: {'closed' if firewall.read()['open'] is False else 'open'}")
        except AgentError as error:
            trouble = error
    if forging is not None:
        deadline = Deadline(WITHIN)
        with agent.state.lock(deadline):
            memory = agent.state.load()
            forging.recover(memory, deadline, opening=True)
            if lapsed or memory["forging"].get("want") == "closed":
                forging.close(memory, deadline, "the host started", wait=False)
            agent.state.remember(memory)
        print(f"forging: {'open' if forging.all_present else 'closed'}")
    if trouble is not None:
        raise trouble
    return 0


def fuse(path: Path, once: bool) -> int:
    """Close this producer's gates whenever no valid lease was heard for too long."""
    agent = Agent(read_config(path))
    after = agent.config.fuse
    if after is None:
        raise Refused("no fuse is configured", 'add "fuse": {"after": 150.0} to the agent\'s configuration')
    number = os.open(agent.state.folder / "fuse.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy("another fuse runs on this host already", "stop one of them") from None
    began = now()
    while True:
        heard = agent.state.heard()
        if now() - (heard if heard is not None else began) >= after:
            try:
                blow(agent, f"no valid lease was heard for {after:g} s")
            except AgentError as error:
                print(f"fuse: {error}; {error.mend}", file=sys.stderr, flush=True)
        if once:
            return 0
        time.sleep(min(1.0, after / 10))


FUSE_WAITS = 3.0  # seconds for the lock; the closing is reckoned with ten


def blow(agent: Agent, reason: str) -> None:
    """Close, unless it is closed."""
    deadline = Deadline(10.0)
    forging = agent.forging
    if forging is None:
        firewall = agent.firewall()
        if firewall.read()["open"] is not False:
            firewall.close()
            print(f"fuse: firewall closed: {reason}", flush=True)
        return
    agent.state.troubles.clear()  # told with each turn
    memory = agent.load_for("close")
    own = memory["forging"]
    settled = own.get("want") == "closed" and own.get("doing") is None and not forging.any_present
    if settled or (own.get("want") == "closed" and forging.starting(memory)):
        return
    try:
        with agent.state.lock(Deadline(FUSE_WAITS)):
            gate = forging.close(agent.load_for("close"), deadline, reason)
    except Busy as error:  # whoever holds it may hang: what it does later is undone by the next turn
        forging.take_away()
        process = agent.node.find(deadline).process
        told = process is not None and catches_sighup(process.pid) and send_sighup(process)
        print(f"fuse: files taken away{' and SIGHUP sent' if told else ''}: {reason}; {error}", flush=True)
        return
    said = {False: "closed", True: "still open", None: "not closed for certain"}[gate["open"]]
    print(f"fuse: forging {said}: {reason}; {'; '.join(gate['shown'] + gate['lacks'])}", flush=True)


# ---------------------------------------------------------------- for people

GATE_WORDS = {True: "open", False: "closed", None: "neither open nor closed"}


def status(path: Path, as_json: bool) -> int:
    """How this host stands; 0 when every gate is surely as it should be."""
    agent = Agent(read_config(path))
    answer = agent.status({"topology": False}, Deadline(10.0))
    if as_json:
        print(json.dumps(answer, indent=1))
        return 0
    node = answer["node"]
    runs = f"runs (process {node['pid']}, {node['flag'] or 'no flag'})" if node["running"] else "does not run"
    print(f"pool {answer['pool']}, agent {VERSION}\nnode: {node['runtime']} {runs}")
    for kind, gate in answer["gates"].items():
        print(f"{kind}: {GATE_WORDS[gate['open']]}{'' if gate['certain'] else ', not certain'}", end="")
        print(f" (generation {gate['generation']}, term {gate['term']})")
        for label, words in (("shown", gate["shown"]), ("lacks", gate["lacks"])):
            for text in words:
                print(f"  {label}: {text}")
        for finding in gate["findings"]:
            print(f"  finding: {finding['what']}\n    mend: {finding['mend']}")
    if answer["fuse"] is not None:
        print(f"fuse: closes in {answer['fuse']['left']:g} s unless a lease is heard")
    if answer["metrics_error"] is not None:
        print(f"metrics: {answer['metrics_error']}")
    for name, value in answer["metrics"].items():
        print(f"metrics: {name} {value}")
    return 0


def footprint(config: Config) -> list[dict[str, str]]:
    """Every socket, file, permission and rule that the agent uses on this host."""
    me = os.path.realpath(__file__)
    used = [
        ("file", f"{me} (root, 0755)", "this program"),
        ("file", f"{config.path} (root, not writable by others)", "its configuration, read with each request"),
        ("folder", f"{config.state} (root, 0700)", "generation, term, what was ordered, the counter, a lock"),
        ("sshd", f'authorized_keys: restrict,command="sudo -n {me} serve"', "all that the controller may run"),
        ("sudo", f"failover ALL=(root) NOPASSWD: {me} serve", "the only rule of the controller's user"),
        ("run as", "root", "signals and renames of another user's node and files"),
        ("read", "/proc", "the node's process, its sockets, its flag"),
        ("port", f"{config.port} (looked at, never opened)", "tells which process is the node"),
    ]
    kind, name = config.runtime
    tool = {"systemd": "systemctl show", "pidfile": "reads"}.get(kind, f"{kind} inspect")
    used.append(("run", f"{tool} {name}", "finds the node's process"))
    if config.socket is not None:
        used.append(("socket", f"{config.socket} (looked at, never opened)", "tells which process is the node"))
    if config.metrics is not None:
        used.append(("connect", config.metrics, "the about-to-lead counter, and what the controller shows"))
    if config.topology is not None:
        used.append(("read", str(config.topology), "`failover check` names leaks in it"))
    for role, path in config.credentials.items():
        used.append(("read", str(path), "whether it is whole, and fits the others; nothing of a key is told"))
        used.append(("rename", f"{path} <-> {config.put_aside}/current/{role}", f"the {role}, out of the node's reach"))
    if config.credentials:
        used.append(("folder", f"{config.put_aside} (root, 0700)", "sets put aside, previous and reappeared"))
        used.append(("folder", f"{config.staging} (root, 0700)", "where the operator leaves new credentials"))
        used.append(("signal", "SIGHUP to the node's process", "makes it read its credentials again"))
    if "firewall" in config.gates:
        used.append(("nftables", "a table of its own", "drops the node's traffic in both directions"))
        used.append(("run", "nft, ss -K", "loads that table; ends connections"))
    elif not config.gates:
        used.append(("run", "ss, ss -K", "looks at the relay's sessions and ends them"))
    if config.nudge != "never":
        used.append(("signal", "SIGHUP to the node's process", "a relay that does not let go reads its file again"))
    if config.nudge == "restart" and kind != "pidfile":
        again = f"{'systemctl' if kind == 'systemd' else kind} restart {name}"
        used.append(("run", again, "a relay that does not let go is started anew"))
    if config.fuse is not None:
        used.append(("process", "failover-agent fuse", f"closes when no lease was heard for {config.fuse:g} s"))
    return [{"kind": kind, "what": what, "why": why} for kind, what, why in used]


def check(path: Path) -> list[dict[str, str]]:
    """Each thing on this host that is wrong, with its mend; read-only."""
    try:
        agent = Agent(read_config(path))
    except AgentError as error:
        return [{"what": str(error), "mend": error.mend}]
    bad: list[dict[str, str]] = []

    def note(act: Callable[[], object]) -> None:
        try:
            act()
        except AgentError as error:
            bad.append({"what": str(error), "mend": error.mend})
        except OSError as error:
            bad.append({"what": str(error), "mend": "run it as root"})

    config = agent.config
    mode = os.stat(config.state).st_mode & 0o777
    if mode & 0o077:
        bad.append({"what": f"{config.state} is open to others (mode {mode:o})", "mend": f"chmod 700 {config.state}"})
    note(lambda: account_of(config.owner) if config.owner is not None else None)
    deadline = Deadline(15.0)
    found = agent.node.find(deadline)
    if found.unsure is not None:
        bad.append({"what": found.unsure, "mend": found.mend})
    elif found.process is None:
        bad.append({"what": f"{agent.node.runtime} does not run", "mend": "start the node"})
    metrics = None
    if config.metrics is not None and found.process is not None:
        try:
            metrics = read_metrics(config.metrics, 5.0)
        except Unable as error:
            bad.append({"what": str(error), "mend": error.mend})
    if agent.forging is not None:
        note(lambda: _check_forging(agent, found, metrics, bad))
    if "firewall" in config.gates:
        note(lambda: bad.extend(agent.firewall().read()["findings"]))
    if config.topology is not None and "topology_error" in (told := agent.topology()):
        bad.append({"what": told["topology_error"], "mend": "see node.topology in the agent's configuration"})
    if config.fuse is not None and not agent.fuse_runs():
        bad.append(dict(NO_FUSE))
    return bad


def _check_forging(agent: Agent, found: Found, metrics: Metrics | None, bad: list[dict[str, str]]) -> None:
    forging = agent.forging
    assert forging is not None  # noqa: S101 - asked for by the caller
    memory = agent.state.load()
    for role, path in forging.live.items():
        for folder in (path.parent, agent.config.put_aside, agent.config.staging):
            near = next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))
            if os.stat(near).st_dev != os.stat(next(p for p in path.parents if p.is_dir())).st_dev:
                mend = "set put_aside and staging to folders on the file system of the credentials"
                bad.append({"what": f"{role}: {folder} is on another file system than {path}", "mend": mend})
    gate = forging.view(memory, found, {}, None)
    bad += [finding for finding in gate["findings"] if finding not in bad]
    forging.inspect(forging.places(), memory, metrics)


def forget(path: Path, yes: bool) -> int:
    """Drop the remembered generation and term of every gate."""
    if not yes:
        mend = "if the assignment was lost on purpose, say so: `agent.py forget --yes`"
        raise Refused("old orders would be obeyed again afterwards", mend)
    agent = Agent(read_config(path))
    with agent.state.lock(Deadline(WITHIN)):
        memory = agent.state.load() if agent.state.file.exists() else agent.state.fresh()
        memory["gates"] = {}
        agent.state.save(memory)
    print("forgotten: generation and term of every gate")
    return 0


def by_hand(path: Path, verb: str, kind: str) -> int:
    """Open or close a gate for whoever is on the host. A controller that steers undoes it at its next reading."""
    agent = Agent(read_config(path))
    gate = agent.order(verb, {"gate": kind, "reason": "by hand"}, Deadline(WITHIN), by_hand=True)
    print(f"{kind}: {GATE_WORDS[gate['open']]}{'' if gate['certain'] else ', not certain'}")
    for label in ("shown", "lacks"):
        for text in gate[label]:
            print(f"  {label}: {text}")
    if verb == "open" and agent.config.fuse is not None:
        print('  the fuse closes it again: stop failover-fuse, and take "fuse" out of the configuration')
    return 0 if gate["open"] is (verb == "open") else 1


def install_credentials(path: Path) -> int:
    """Take the credentials in staging, as the controller's request does, but by the hand of whoever is on the host."""
    agent = Agent(read_config(path))
    if agent.forging is None:
        raise Refused("this host has no forging gate", 'add "forging" to gates in the agent\'s configuration')
    deadline = Deadline(WITHIN)
    with agent.state.lock(deadline):
        gate, counter, where = agent.forging.install(agent.state.load(), deadline)
    print(f"installed ({where}), certificate counter {counter}")
    for text in gate["lacks"]:
        print(f"  lacks: {text}")
    return 0


# ---------------------------------------------------------------- the command


EXAMPLES = """\
in the node's unit, where [Service] has User=cardano and the configuration "owner": "cardano":
  ExecStart=+/usr/local/lib/failover/agent.py start -- /usr/local/bin/cardano-node run --topology ...
in authorized_keys of the user that the controller comes as:
  restrict,command="sudo -n /usr/local/lib/failover/agent.py serve" ssh-ed25519 AAAA...
first of all: agent.py check; agent.py footprint
exit status: 0 done, 1 failed or something was found, 2 usage
"""


def parser() -> argparse.ArgumentParser:
    """The command's words."""
    plain = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="failover-agent", description=__doc__, epilog=EXAMPLES, formatter_class=plain, allow_abbrev=False
    )
    top.add_argument("--config", type=Path, default=Path(CONFIG), metavar="FILE", help=f"default: {CONFIG}")
    top.add_argument("--version", action="version", version=f"failover-agent {VERSION}")
    verbs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)

    add("serve", "answer the controller's requests on standard input (sshd's forced command)")
    node = add("start", "become the node: put it before the node's command (ExecStart=+), so that closed stays closed")
    node.add_argument("--node-version", metavar="X.Y.Z", help="of the node, when COMMAND --version does not tell it")
    node.add_argument("--bound", type=float, default=START_BOUND, metavar="SECONDS", help="files leave then anyway")
    node.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="the node's own command")
    add("boot", "at the host's start, before the node: put the gates as they were (with a fuse: closed)")
    watcher = add("fuse", "close this producer whenever no valid lease was heard for fuse.after seconds")
    watcher.add_argument("--once", action="store_true", help="look once, and end")
    for name in ("open", "close"):
        text = f"{name} a gate by hand, when the controller is dead; one that steers undoes it"
        add(name, text).add_argument("gate", choices=GATES)
    add("install-credentials", "take the new KES key and certificate that lie in staging")
    for name, text in (
        ("status", "how this host's gates and node stand"),
        ("footprint", "every file, socket, permission and sudo rule that the agent uses here, and why"),
        ("check", "read the configuration and the host; name each bad thing and its mend"),
    ):
        add(name, text).add_argument("--json", action="store_true", help="as JSON")
    drop = add("forget", "drop the remembered generation and term, when the controller's assignment was lost")
    drop.add_argument("--yes", action="store_true", help="do it: old orders would be obeyed again")
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 1 failed, 2 usage."""
    options = parser().parse_args(words)
    STARTED_WITH["umask"] = os.umask(0o077)
    path: Path = options.config
    try:
        if options.command == "serve":
            return serve(path)
        if options.command == "start":
            command = options.words[1:] if options.words[:1] == ["--"] else options.words
            return start(path, command, options.node_version, options.bound)
        if options.command == "fuse":
            return fuse(path, options.once)
        if options.command == "footprint":
            return _list(footprint(read_config(path)), options.json, "{kind:9} {what}  - {why}", 0)
        if options.command == "check":
            bad = check(path)
            return _list(bad, options.json, "{what}\n  mend: {mend}", 1 if bad else 0)
        if options.command == "status":
            return status(path, options.json)
        if options.command in ("open", "close"):
            return by_hand(path, options.command, options.gate)
        if options.command == "forget":
            return forget(path, options.yes)
        return {"boot": boot, "install-credentials": install_credentials}[options.command](path)
    except AgentError as error:
        print(f"failover-agent: {error}\n  {error.mend}", file=sys.stderr)
    except OSError as error:
        trouble = disk_error(str(error.filename or "the host"), error)
        print(f"failover-agent: {trouble}\n  {trouble.mend}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _list(entries: Sequence[Mapping[str, str]], as_json: bool, form: str, result: int) -> int:
    if as_json:
        print(json.dumps(list(entries), indent=1))
    else:
        for entry in entries:
            print(form.format(**entry))
    return result


if __name__ == "__main__":
    sys.exit(main())
