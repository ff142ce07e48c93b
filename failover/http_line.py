"""HTTP over connections that can be cut: for reading from servers whose size, pace and form nobody vouches for.

``requests`` counts its timeouts per read, so a server that dribbles would hold a call for ever. The deadline is kept
from outside instead: when it passes, the socket is cut under the thread that reads.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests


class Line:
    """The latest socket of one reading, seen from two threads: the one that reads, and the one that gives up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False
        self.connected = False

    def made(self, connection: socket.socket) -> None:
        """From now on ``cut`` ends this one. Raises OSError when it was cut before."""
        with self._lock:
            self._socket = connection
            self.connected = True
            if self._cut:
                raise OSError("given up")

    def cut(self) -> None:
        """End what is being read, and whatever will be connected."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with suppress(OSError):
                    # Not SSLSocket.shutdown: that would pull the TLS state from under the reading thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def session(line: Line, accept: str) -> requests.Session:
    """A session that tells ``line`` of each connection, takes nothing from the environment, and tries once.

    Answers are not asked for compressed: a small one must not become a large one here.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnection):
        def _new_conn(self) -> Any:
            made = super()._new_conn()
            line.made(made)
            return made

    class Tls(HTTPSConnection):
        def _new_conn(self) -> Any:
            made = super()._new_conn()
            line.made(made)
            return made

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    made = requests.Session()
    made.trust_env = False  # no proxy of the environment, no .netrc
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
    adapter.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    made.headers.update({"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "failover"})
    return made
