"""The errors that cross module borders, as a tree.

FailoverError                 anything this program raises on purpose; str() is one line for a person
├── ConfigError               the file is wrong: nothing was touched (exit status 2)
├── PingError                 a node-to-node ping failed, at a stage (ouroboros/errors.py has the kinds)
├── GateError                 a gate's management answered no, or not at all
│   ├── GateUnreachable       no connection, or none that answered: nothing was sent, so nothing can happen later
│   ├── GateTimeout           a command was sent and no answer came: it may still take effect later
│   └── GateRefused           an answer came, and it was no (wrong password, not admin, unknown server)
├── StoreError                the state folder
│   ├── StoreConflict         somebody else wrote first: read again
│   ├── StoreFull             no room: no new handover starts
│   └── StoreUnusable         damaged, newer, not writable, on a network file system
└── WorkerBusy                an edge's worker still runs a call that was given up on
"""

from __future__ import annotations


class FailoverError(Exception):
    """Anything that this program raises on purpose. ``mend`` says what to do about it, or is empty."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.mend = mend


class ConfigError(FailoverError):
    """The configuration file is wrong; nothing was touched."""


class PingError(FailoverError):
    """A node-to-node ping failed. ``stage`` is one of dns, connect, handshake, keep-alive, tip."""

    def __init__(self, message: str, stage: str, mend: str = "") -> None:
        super().__init__(message, mend)
        self.stage = stage


class GateError(FailoverError):
    """A gate could not be read or moved."""


class GateUnreachable(GateError):
    """No connection to the gate's management: nothing was sent, so nothing can take effect later."""


class GateTimeout(GateError):
    """A request was sent and not answered in time: it may still take effect later."""


class GateRefused(GateError):
    """The gate's management answered, and the answer was no."""


class StoreError(FailoverError):
    """The state folder could not be used."""


class StoreConflict(StoreError):
    """Another writer was first: the caller's revision or term is overtaken."""


class StoreFull(StoreError):
    """The file system has no room; what was asked was not written."""


class StoreUnusable(StoreError):
    """The state folder is damaged, of a newer version, not writable, or on a network file system."""


class WorkerBusy(FailoverError):
    """The worker of an edge still runs a call that was given up on."""
