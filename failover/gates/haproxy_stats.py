"""HAProxy's stats page with ``stats admin``: CSV in, POST out, over HTTP or HTTPS.

One Session and one worker thread per proxy, and no connection that outlives a call: a stale one would leave a POST
in doubt. Nothing here retries. ``requests`` counts its timeouts per read, so a peer that dribbles would hold the
thread for hours; the deadline is kept from outside instead: when it passes, the socket is cut under the thread.

The codes behind ``;st=`` and everything else about the page are measured: see haproxy/README.md.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from failover.errors import GateRefused, GateTimeout, GateUnreachable, WorkerBusy
from failover.gates import haproxy_answers as answers
from failover.gates.haproxy_runtime import same_process
from failover.model import Proxy, ProxyReading, StepKind
from failover.ports import Host

R = TypeVar("R")

MAX_ANSWER = 2 * 1024 * 1024  # bytes
FREEING = 0.1  # seconds; more than a thread needs to end after its socket was cut
HEADING = ";scope=nosuchproxy"  # keeps the page to its heading, with pid and uptime; letters and digits only

_REFUSALS = {
    "NONE": ("nothing was done", "check that the page belongs to this HAProxy"),
    "ERRP": ("no such backend, server or action", "correct `backend` or `servers` of the proxy in the file"),
    "PART": ("only a part was done", "correct `servers` of the proxy in the file"),
    "DENY": ("this page is read-only", "add `stats admin if TRUE` (or a narrower rule) where `stats enable` stands"),
    "EXCD": ("the request was too large", "raise tune.bufsize in HAProxy"),
    "UNKN": ("HAProxy does not know what happened", "look into HAProxy's log"),
}


class _GivenUp(Exception):
    """Nobody waits any more: nothing more may be sent."""


class _Overtaken(Exception):
    """still_valid said no after a connection had to be made anew."""


class _Moved(Exception):
    """The connection that showed who answers was closed before the command."""


class _Call:
    """One call, seen from two threads: the worker that talks, and the loop that may give it up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._given_up = False
        self.connected = False
        self.sent = False  # a POST has left, or is about to
        self.on_reconnect: Callable[[], None] | None = None

    def made(self, connection: socket.socket) -> None:
        """A connection was made. Raises _GivenUp, and what ``on_reconnect`` raises."""
        with self._lock:
            self._socket = connection
            self.connected = True
            if self._given_up:
                raise _GivenUp
        if self.on_reconnect is not None:
            self.on_reconnect()

    def sending(self) -> None:
        """A POST leaves now. Raises _GivenUp: then it must not."""
        with self._lock:
            if self._given_up:
                raise _GivenUp
            self.sent = True

    def give_up(self) -> None:
        """Nothing is sent after this returns, except what ``sent`` already admits to; the thread is freed."""
        with self._lock:
            self._given_up = True
            if self._socket is not None:
                with suppress(OSError):
                    # Not SSLSocket.shutdown: that would pull the TLS state from under the reading thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Tells the present call of each connection that is made; retries nothing."""

    call = _Call()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        adapter = self

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                adapter.call.made(self.sock)

        class Tls(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                adapter.call.made(self.sock)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}


class StatsPort:
    """ProxyPort over the stats page."""

    def __init__(self, proxy: Proxy, host: Host) -> None:
        assert proxy.stats is not None  # noqa: S101 - proxy_port picked this class for it
        self._proxy = proxy
        self._url = _with_path(proxy.stats)
        self._where = f"{proxy.name}: {_shown(self._url)}"
        self._adapter = _Adapter(pool_connections=1, pool_maxsize=1, max_retries=0)
        self._session = _session(proxy, self._adapter)
        self._host = host
        self._worker = host.worker(f"{proxy.name} stats")
        self._process: str | None = None  # of the last reading
        self._forced: dict[str, str | None] = {}  # server -> the process that acknowledged its maint

    async def read(self, timeout: float) -> ProxyReading:
        """See ProxyPort. A drained server that is down reads as ready: the page does not show it."""

        def look(call: _Call) -> tuple[str, answers.Identity]:
            # The rows first: should a reload come between, old rows under a new process do no harm.
            text = self._get(";csv", timeout)
            return text, self._identity(timeout)

        text, identity = await self._within(timeout, look, change=False)
        self._process = identity.process
        rows = answers.table(self._proxy, _table_text(self._where, text))
        forced = [server for server, process in self._forced.items() if process == identity.process]
        return answers.reading(self._proxy, rows, identity, None, forced)

    async def set(self, kind: StepKind, producer: str, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See ProxyPort. False also when overtaken between maint and the end of the sessions: maint stays."""
        server = self._proxy.servers[producer]

        def move(call: _Call) -> tuple[bool, str | None]:
            identity = self._identity(timeout)
            if kind is StepKind.OPEN:
                same_process(self._proxy, self._process, identity)
            actions = ["ready"] if kind is StepKind.OPEN else ["maint", "shutdown"]
            call.on_reconnect = _no_reconnect if kind is StepKind.OPEN else _asking(still_valid)
            for action in actions:
                if not still_valid():
                    return False, identity.process
                call.sending()
                self._post(server, action, timeout)
            return True, identity.process

        self._forced.pop(server, None)
        try:
            done, process = await self._within(timeout, move, change=True)
        except _Overtaken:
            return False
        if done and kind is StepKind.CLOSE:
            self._forced[server] = process
        return done

    async def close(self) -> None:
        """See ProxyPort."""
        self._worker.close()
        self._session.close()

    async def _within(self, timeout: float, talk: Callable[[_Call], R], *, change: bool) -> R:
        """Run ``talk`` in the worker under one deadline, and say what went wrong by how far it came."""
        call = _Call()

        def work() -> R:
            self._adapter.call = call
            try:
                return talk(call)
            finally:
                self._session.close()  # the pool only: the next call connects anew

        try:
            return await self._work(work, timeout)
        except WorkerBusy as error:
            raise GateUnreachable(
                f"{self._where}: an earlier call still hangs; nothing was sent", "see whether HAProxy hangs"
            ) from error
        except TimeoutError as error:
            call.give_up()
            raise self._late(call, timeout, change) from error
        except _Moved as error:
            raise GateUnreachable(
                f"{self._where} closed the connection before the command; nothing was sent",
                "nothing, if HAProxy was just reloaded; else allow keep-alive there (no `option httpclose`)",
            ) from error
        except requests.RequestException as error:
            raise self._failed(call, timeout, change, error) from error
        except OSError as error:
            raise GateUnreachable(
                f"{self._where}: {error}", "check ca_file, cert_file and key_file, and that this user may read them"
            ) from error
        finally:
            call.give_up()

    async def _work(self, work: Callable[[], R], timeout: float) -> R:
        try:
            return await self._worker.call(work, timeout)
        except WorkerBusy:
            if timeout <= FREEING:
                raise
            await self._host.sleep(FREEING)
            return await self._worker.call(work, timeout - FREEING)

    def _late(self, call: _Call, timeout: float, change: bool) -> GateTimeout | GateUnreachable:
        if call.sent or (call.connected and not change):
            return GateTimeout(f"{self._where} did not answer within {timeout:g} s", "see whether HAProxy hangs")
        what = "did not answer" if call.connected else "took no connection"
        return GateUnreachable(
            f"{self._where} {what} within {timeout:g} s; no command was sent", "see whether HAProxy runs and is reached"
        )

    def _failed(
        self, call: _Call, timeout: float, change: bool, error: requests.RequestException
    ) -> GateTimeout | GateUnreachable:
        """What an error of requests means: only one from making a connection says that nothing was sent."""
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        connecting = isinstance(reason, NewConnectionError | ConnectTimeoutError)
        if call.sent and not connecting:
            return GateTimeout(f"{self._where}: no answer to the command: its effect is unknown", "look into its log")
        if isinstance(error, requests.exceptions.SSLError):
            return GateUnreachable(
                f"{self._where}: TLS failed: {_tls_words(error)}",
                "check ca_file against its certificate; if it asks for a client certificate, cert_file and key_file",
            )
        if isinstance(error, requests.Timeout):
            return self._late(call, timeout, change)
        if connecting or not call.connected:
            return GateUnreachable(
                f"{self._where} took no connection: {_cause(error)}", "check the address, and that HAProxy runs"
            )
        return GateUnreachable(f"{self._where} broke the connection off without a whole answer", "look into its log")

    # ------------------------------------------------------------ in the worker's thread

    def _identity(self, timeout: float) -> answers.Identity:
        return answers.identity_of_page(self._get(HEADING, timeout))

    def _get(self, suffix: str, timeout: float) -> str:
        with self._session.get(self._url + suffix, timeout=timeout, stream=True, allow_redirects=False) as response:
            if response.status_code != 200:
                raise _refused(self._where, response.status_code)
            return self._body(response)

    def _body(self, response: requests.Response) -> str:
        body = bytearray()
        for piece in response.iter_content(65536):
            body += piece
            if len(body) > MAX_ANSWER:
                raise GateRefused(
                    f"{self._where} sent more than {MAX_ANSWER // 1024} KiB",
                    "check that `stats` is HAProxy's stats page",
                )
        return body.decode("utf-8", "replace")

    def _post(self, server: str, action: str, timeout: float) -> None:
        form = {"s": server, "action": action, "b": self._proxy.backend}
        with self._session.post(self._url, data=form, timeout=timeout, stream=True, allow_redirects=False) as response:
            status = response.status_code
            location = response.headers.get("Location", "")
            self._body(response)  # empty; read, the connection can be used again
        found = re.search(r";st=(\w+)", location)
        code = found.group(1) if status == 303 and found else ""
        if code == "DONE":
            return
        what = f"{self._where}: {action} {self._proxy.backend}/{server}"
        if code:
            words, mend = _REFUSALS.get(code, ("an answer that this version does not know", "look into HAProxy's log"))
            raise GateRefused(f"{what} was answered {code}: {words}", mend)
        if status >= 500:
            # Somebody in between may have passed the command on before losing the answer.
            raise requests.ConnectionError(f"{what} was answered {status}")
        raise _refused(what, status)


def _no_reconnect() -> None:
    raise _Moved


def _asking(still_valid: Callable[[], bool]) -> Callable[[], None]:
    def ask() -> None:
        if not still_valid():
            raise _Overtaken

    return ask


def _session(proxy: Proxy, adapter: _Adapter) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy of the environment, no .netrc
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "failover"})
    if proxy.username is not None:
        session.auth = HTTPBasicAuth(proxy.username.encode(), (proxy.password or "").encode())
    session.verify = str(proxy.ca_file) if proxy.ca_file is not None else True
    if proxy.cert_file is not None:
        pair = (str(proxy.cert_file), str(proxy.key_file))
        session.cert = pair if proxy.key_file is not None else pair[0]
    return session


def _table_text(where: str, text: str) -> str:
    """The text, when it is the table. Raises GateRefused that says what came instead."""
    if text.startswith(answers.TABLE_MARK):
        return text
    start = text[:4096].lower()
    if "statistics report" in start or "haproxy version" in start:
        what = "HAProxy's page instead of its CSV"
        mend = "let `stats` end exactly as `stats uri` in HAProxy does"
    elif "password" in start or "login" in start or "sign in" in start:
        what = "a login page"
        mend = "let `stats` name HAProxy's own stats page, not what stands in front of it"
    elif "<html" in start or "<!doctype" in start:
        what = "another HTML page"
        mend = "let `stats` name HAProxy's stats page (its `stats uri`)"
    else:
        line = text.strip().splitlines()[0][:80] if text.strip() else ""
        what = f"{line!r} instead of CSV" if line else "nothing"
        mend = "let `stats` name HAProxy's stats page (its `stats uri`)"
    raise GateRefused(f"{where} answered {what}", mend)


def _refused(where: str, status: int) -> GateRefused:
    mends = {
        401: "check username and password_file",
        403: "let HAProxy's rules (`http-request deny`) allow this host",
        404: "let the path in `stats` be HAProxy's `stats uri`",
        503: "this looks like a routed frontend: let `stats` name the one with `stats enable`",
    }
    mend = mends.get(status, "let `stats` name HAProxy's stats page (its `stats uri`)")
    if 300 <= status < 400:
        mend = "redirects are not followed: let `stats` name the page itself (http or https, and its path)"
    return GateRefused(f"{where} answered {status}", mend)


def _with_path(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts if parts.path else parts._replace(path="/"))


def _shown(url: str) -> str:
    """The URL without a name or password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _tls_words(error: Exception) -> str:
    found = re.search(r"(certificate verify failed: [^(\"']*|[A-Z0-9_]{8,}|[Hh]ostname mismatch[^\"']*)", str(error))
    return found.group(1).strip() if found else "the handshake did not succeed"


def _cause(error: Exception) -> str:
    text = str(error)
    for words in ("Connection refused", "Name or service not known", "No route to host", "Network is unreachable"):
        if words in text:
            return words
    return "Temporary failure in name resolution" if "resolve" in text.lower() else "the attempt failed"
