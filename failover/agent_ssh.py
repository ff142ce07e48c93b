"""The way to an agent: one SSH connection by asyncssh, one session on it. Imported only where a pool has agents.

What holds here, whatever an operator's own ssh is set up to do:

- The host shows exactly the key that is pinned, or nothing is said to it. Nothing is ever accepted for the first time.
- Our own key is offered and nothing else: no ssh-agent, no default keys, no password, no ~/.ssh/config, no forwarding.
- The channel asks for the command ``serve``. The forced command of authorized_keys runs in its place; should there be
  none, a shell looks for a program of that name and ends, and does not take requests for commands.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from .agent_answers import MOST_BYTES, words
from .errors import GateUnreachable
from .model import Agent

KEY_BYTES = 65_536  # of a private key's file, at most
KNOWN_BYTES = 4 * 1024 * 1024  # of a known_hosts file, at most
STDERR_BYTES = 2_048  # of what the agent complains of, at most; the rest is read and dropped
KEEPALIVE = 5.0  # seconds of silence after which the host is asked for a sign of life
UNANSWERED = 2  # signs of life that may be missing before the connection counts as dead
OTHERS = stat.S_IRWXG | stat.S_IRWXO
COMMAND = "serve"

# What a host may show. Those of the pinned keys come first; the others are there so that a mismatch can be named.
_SHOWN = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-256")

# Its debug lines would have every packet, its info lines every connection: what matters is in our errors.
logging.getLogger("asyncssh").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Our key, and the keys by which the host is known; ``authorities`` sign hosts' keys (known_hosts alone)."""

    key: asyncssh.SSHKey
    hosts: Sequence[asyncssh.SSHKey]
    authorities: Sequence[asyncssh.SSHKey] = ()
    revoked: Sequence[asyncssh.SSHKey] = ()


def credentials(agent: Agent) -> Credentials:
    """Read what the file names; blocks as files do. Raises GateUnreachable."""
    key = _private_key(agent)
    if agent.host_key is not None:
        try:
            return Credentials(key, (asyncssh.import_public_key(agent.host_key),))
        except ValueError:
            mend = f"write the line that {_scan(agent)} prints, once it is compared on the host"
            raise GateUnreachable(f"agent {agent.name}: host_key is no public key", mend) from None
    if agent.known_hosts is None:
        mend = "add host_key, or known_hosts"
        raise GateUnreachable(f"agent {agent.name}: it is not said by which key its host is known", mend)
    return _known(agent, agent.known_hosts, key)


class Channel(asyncssh.SSHClientSession[bytes]):
    """One ``serve`` process of the agent: lines in, lines out. Bounded; ``ended`` says why it is no more."""

    def __init__(self) -> None:
        self.ended: str | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._buffer = bytearray()
        self._complaint = bytearray()
        self._exit: str | None = None
        self._changed = asyncio.Event()

    @property
    def usable(self) -> bool:
        """Whether a request can be written: it runs, and has said nothing unasked."""
        return self.ended is None and not self._buffer

    @property
    def complaint(self) -> str:
        """The last line that it wrote to stderr, printable; empty when there is none."""
        lines = bytes(self._complaint).decode("utf-8", "replace").split("\n")
        return next((words(line.strip(), 200) for line in reversed(lines) if line.strip()), "")

    def send(self, line: bytes) -> None:
        """Write one request."""
        assert self._channel is not None  # noqa: S101 - begun before it is handed out
        self._channel.write(line)

    def abort(self) -> None:
        """End it at once, and with it the agent's process; the connection stays."""
        if self._channel is not None:
            self._channel.abort()

    async def line(self) -> bytes:
        """The next line, without its end; longer than ``MOST_BYTES`` when it has no end. Raises EOFError."""
        while True:
            end = self._buffer.find(b"\n")
            if end >= 0 or len(self._buffer) > MOST_BYTES:
                end = end if end >= 0 else len(self._buffer)
                found = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return found
            if self.ended is not None:
                raise EOFError(self.ended)
            self._changed.clear()
            await self._changed.wait()

    # what asyncssh calls

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype is not None:
            self._complaint += data[: STDERR_BYTES - len(self._complaint)]
            return
        if len(self._buffer) <= MOST_BYTES:  # a flood is cut off by whoever waits for the line
            self._buffer += data
        self._changed.set()

    def eof_received(self) -> bool:
        return False  # close it altogether; ``connection_lost`` follows when its exit status is known

    def exit_status_received(self, status: int) -> None:
        self._exit = f"exit status {status}"

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._exit = f"killed by SIG{words(signal, 20)}"

    def connection_lost(self, exc: Exception | None) -> None:
        if self.ended is None:
            self.ended = self._exit or (words(str(exc)) if exc else "it ended")
        self._changed.set()


class Connection:
    """One SSH connection to one agent's host. ``doubted`` is its user's: whether it has to show that it lives."""

    def __init__(self, agent: Agent, ssh: asyncssh.SSHClientConnection) -> None:
        self.doubted = False
        self._agent = agent
        self._ssh = ssh
        self._has_one = False  # channel, started on it

    @property
    def alive(self) -> bool:
        """Whether nobody has ended it, as far as is known."""
        return not self._ssh.is_closed()

    async def serve(self) -> Channel:
        """Start the agent. Raises GateUnreachable, OSError."""
        channel = Channel()
        # Whoever is cut off while sshd is asked would leave a session behind that nobody can end any more.
        starting = asyncio.ensure_future(
            self._ssh.create_session(lambda: channel, COMMAND, env=None, send_env=None, request_pty=False)
        )
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda done: _abandon(done, channel))
            raise
        except asyncssh.ChannelOpenError as error:
            raise self._not_started(words(str(error))) from None
        except asyncssh.DisconnectError as error:
            raise OSError(words(str(error))) from None
        self._has_one = True
        return channel

    def _not_started(self, why: str) -> GateUnreachable | OSError:
        if not self.alive:
            return OSError(why)
        what = f"agent {self._agent.name}: sshd would not start it"
        if self._has_one:
            return GateUnreachable(
                f"{what} a second time on one connection: {why}; MaxSessions of its sshd_config is too low",
                "set MaxSessions 10 there, as it is by default, and reload sshd: changes and readings have one each",
            )
        mend = "look into sshd's log there: MaxSessions (10 by default), the forced command, the user's shell"
        return GateUnreachable(f"{what}: {why}", mend)

    def abort(self) -> None:
        """End it at once, from anywhere; a second time does nothing."""
        self._ssh.abort()


async def connect(agent: Agent, own: Credentials, sock: socket.socket) -> Connection:
    """Log in over a connected socket, which is closed unless this succeeds. Raises GateUnreachable, OSError."""
    client = _Client()
    algorithms = [name.decode() for key in own.hosts for name in key.sig_algorithms]
    algorithms += [name for name in _SHOWN if name not in algorithms]
    try:
        ssh = await asyncssh.connect(
            sock=sock,
            config=None,
            client_factory=lambda: client,
            username=agent.user,
            client_keys=[own.key],
            known_hosts=(list(own.hosts), list(own.authorities), list(own.revoked)),
            host_key_alias=agent.address.host,
            server_host_key_algs=() if own.authorities else algorithms,
            x509_trusted_certs=None,
            x509_trusted_cert_paths=[],
            agent_path=None,
            agent_forwarding=False,
            pkcs11_provider=None,
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            host_based_auth=False,
            preferred_auth=("publickey", "keyboard-interactive", "password"),
            disable_trivial_auth=True,
            compression_algs=None,
            encoding=None,
            request_pty=False,
            env=None,
            send_env=None,
            login_timeout=0,
            keepalive_interval=KEEPALIVE,
            keepalive_count_max=UNANSWERED,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _other_host(agent, own, client.shown, str(error)) from None
    except asyncssh.PermissionDenied:
        raise _no_login(agent, own, client) from None
    except asyncssh.DisconnectError as error:
        raise OSError(words(error.reason)) from None
    except ValueError as error:  # a name, of the user or of ourselves, that cannot be one
        mend = "check the user in the file, and that this process has a user name"
        raise GateUnreachable(f"agent {agent.name}: no login is possible: {words(str(error))}", mend) from None
    finally:
        if not client.logged_in:
            sock.close()
    return Connection(agent, ssh)


def _abandon(starting: asyncio.Future[Any], channel: Channel) -> None:
    """End a channel whose start nobody waits for any more."""
    if not starting.cancelled() and starting.exception() is None:
        channel.abort()


class _Client(asyncssh.SSHClient):
    """Notes why a login fails. It accepts no key, and has no password to give."""

    def __init__(self) -> None:
        self.shown: asyncssh.SSHKey | None = None
        self.logged_in = False
        self.takes_keys = False  # it offered to, and ours was not taken
        self.asked_password = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key
        return False

    def public_key_auth_requested(self) -> None:
        self.takes_keys = True

    def password_auth_requested(self) -> None:
        self.asked_password = True

    def kbdint_auth_requested(self) -> None:
        self.asked_password = True

    def auth_completed(self) -> None:
        self.logged_in = True


# ---------------------------------------------------------------- errors in our words


def _other_host(agent: Agent, own: Credentials, shown: asyncssh.SSHKey | None, said: str) -> GateUnreachable:
    source = "host_key" if agent.host_key is not None else f"{agent.known_hosts} has"
    known = ", ".join(key.get_fingerprint() for key in own.hosts) or "an authority's signature"
    mend = (
        f"compare it on the host (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); if that is its key, "
        f"replace {'host_key' if agent.host_key is not None else 'the line in ' + str(agent.known_hosts)}; "
        "if not, somebody stands between"
    )
    if shown is None:
        return GateUnreachable(
            f"agent {agent.name}: {agent.address}: its host key is not accepted: {words(said)}", mend
        )
    what = f"{shown.get_algorithm()} {shown.get_fingerprint()}"
    return GateUnreachable(
        f"agent {agent.name}: {agent.address} showed another host key, {what}; {source} {known}", mend
    )


def _no_login(agent: Agent, own: Credentials, client: _Client) -> GateUnreachable:
    where = f"agent {agent.name}: {agent.address}"
    if client.asked_password and not client.takes_keys:
        return GateUnreachable(
            f"{where} asks for a password, and takes no keys from {agent.user}",
            "set PubkeyAuthentication yes in its sshd_config; passwords are never sent",
        )
    return GateUnreachable(
        f"{where} does not take the key {own.key.get_fingerprint()} ({agent.key_file}) from {agent.user}",
        f"put its public half, with the forced command, into {agent.user}'s authorized_keys there; "
        "see sshd's log for the reason (file modes, AllowUsers, a locked account)",
    )


def _scan(agent: Agent) -> str:
    return f"`ssh-keyscan -p {agent.address.port} {shlex.quote(agent.address.host)}`"


# ---------------------------------------------------------------- files


def _private_key(agent: Agent) -> asyncssh.SSHKey:
    path = agent.key_file
    where = f"agent {agent.name}: key_file {path}"
    text = _read(where, path, KEY_BYTES, private=True, missing="create one: ssh-keygen -t ed25519 -N '' -f PATH")
    try:
        return asyncssh.import_private_key(text)
    except Exception as error:  # noqa: BLE001 - a damaged file makes it raise even re.error
        if isinstance(error, asyncssh.KeyEncryptionError) or "assphrase" in str(error):
            raise _locked(where) from None
        raise GateUnreachable(f"{where}: it is no private key", "give the path of an OpenSSH private key") from None


def _locked(where: str) -> GateUnreachable:
    mend = "use a key without one, in a file that only the daemon's user can read (ssh-keygen -p -N '' -f PATH)"
    return GateUnreachable(f"{where} is protected by a passphrase, and nobody is there to type it", mend)


def _known(agent: Agent, path: Path, key: asyncssh.SSHKey) -> Credentials:
    where = f"agent {agent.name}: known_hosts {path}"
    add = f"add the line that {_scan(agent)} prints, once it is compared on the host"
    text = _read(where, path, KNOWN_BYTES, private=False, missing=add)
    try:
        listed = asyncssh.import_known_hosts(text.decode("utf-8"))
        port = None if agent.address.port == 22 else agent.address.port
        hosts, authorities, revoked, *_ = listed.match(agent.address.host, "", port)
    except Exception as error:  # noqa: BLE001 - as for keys
        raise GateUnreachable(f"{where} cannot be read: {words(str(error), 100)}", "correct it") from None
    if not hosts and not authorities:
        raise GateUnreachable(f"{where} has no line for {agent.address}", add)
    return Credentials(key, tuple(hosts), tuple(authorities), tuple(revoked))


def _read(where: str, path: Path, most: int, *, private: bool, missing: str) -> bytes:
    """A regular file's bytes; with ``private``, one that is its owner's alone. Raises GateUnreachable."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe must not hold us up
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise GateUnreachable(f"{where} is not a regular file", "give the path of a file")
            if private and mode & OTHERS:
                problem = f"{where} can be read by others (mode {stat.S_IMODE(mode):04o})"
                raise GateUnreachable(problem, f"chmod 600 {shlex.quote(str(path))}")
            with os.fdopen(handle, "rb", closefd=False) as file:
                content = file.read(most + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise GateUnreachable(f"{where}: there is no such file", missing) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "the path cannot be used"
        raise GateUnreachable(f"{where} cannot be read: {why.lower()}", "let the daemon's user read it") from None
    if len(content) > most:
        raise GateUnreachable(f"{where} is larger than {most // 1024} KiB", "give the path of the right file")
    return content
