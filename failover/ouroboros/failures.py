"""What ended a ping, in words. Pure, and without the protocol, so that a simulated ping fails in the same words."""

from __future__ import annotations

import errno
import socket

from failover.errors import PingError
from failover.ouroboros.errors import ProtocolError, plain

_SILENCE = {
    "dns": ("{}: no answer from the name servers within {:.3g} s", "check the name servers of this machine"),
    "connect": (
        "{}: no answer to the connection attempt within {:.3g} s",
        "the host is down, or a firewall drops the packets",
    ),
    "handshake": (
        "{}: connected, but the handshake was not answered within {:.3g} s",
        "the process is stopped or overloaded, or it is no Cardano node",
    ),
    "keep-alive": ("{}: no answer to the keep-alive within {:.3g} s", "the process is stopped or overloaded"),
    "tip": ("{}: no answer to the question for the tip within {:.3g} s", "the process is stopped or overloaded"),
}

_CONNECT_ERRORS = {
    errno.ECONNREFUSED: ("connection refused", "nothing listens there: check the port; a node that replays is not up"),
    errno.EHOSTUNREACH: ("no route to the host", "check the address and the network between"),
    errno.ENETUNREACH: ("no route to the network", "check the address and the network between"),
    errno.ETIMEDOUT: ("no answer to the connection attempt", "the host is down, or a firewall drops the packets"),
    errno.EACCES: ("this machine forbids the connection", "check its own firewall"),
    errno.EPERM: ("this machine forbids the connection", "check its own firewall"),
    errno.EMFILE: ("too many open files here", "raise the limit of open files, or ping fewer at once"),
    errno.ENFILE: ("too many open files here", "raise the limit of open files, or ping fewer at once"),
    errno.EADDRNOTAVAIL: ("no free local port or address for it", "ping fewer at once"),
}

_DNS_ERRORS = {
    socket.EAI_NONAME: ("the name is not found", "check the name"),
    socket.EAI_NODATA: ("the name has no address", "check the name"),
    socket.EAI_AGAIN: ("the name servers do not answer", "check the name servers of this machine"),
}


def explain(error: Exception, stage: str, label: str, timeout: float, pending: int = 0) -> PingError:
    """One clear sentence for what ended a ping at ``stage``."""
    if isinstance(error, ProtocolError):
        return PingError(f"{label}: {error}", stage, error.mend)
    if isinstance(error, socket.gaierror):
        words, mend = _DNS_ERRORS.get(error.errno or 0, (f"cannot be looked up: {error.strerror}", "check the name"))
        return PingError(f"{plain(label)}: {words}", stage, mend)
    if isinstance(error, TimeoutError) and error.errno is None:
        sentence, mend = _SILENCE[stage]
        part = f" ({pending} bytes of an answer came)" if pending else ""
        return PingError(sentence.format(plain(label), timeout) + part, stage, mend)
    if stage == "connect" and isinstance(error, OSError):
        words, mend = _CONNECT_ERRORS.get(error.errno or 0, (f"cannot connect: {error.strerror}", ""))
        return PingError(f"{label}: {words}", stage, mend, refused=error.errno == errno.ECONNREFUSED)
    hint = "wrong network magic or version?" if stage == "handshake" else "the node restarts, or ended the connection"
    if isinstance(error, EOFError):
        return PingError(f"{label}: connection closed by the peer during the {stage}", stage, hint)
    if isinstance(error, ConnectionError):
        return PingError(f"{label}: connection reset by the peer during the {stage}", stage, hint)
    return PingError(f"{label}: the connection broke during the {stage}: {error}", stage)
