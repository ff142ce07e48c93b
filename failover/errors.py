"""The errors that cross module borders, as a tree.

FailoverError                 anything this program raises on purpose; str() is one line for a person
├── ConfigError               the file is wrong: nothing was touched (exit status 2)
├── PingError                 a node-to-node ping failed, at a stage (ouroboros/errors.py has the kinds)
├── GateError                 a gate's management answered no, or not at all
│   ├── GateUnreachable       no connection, or none that answered: nothing was sent, so nothing can happen later
│   ├── GateTimeout           a command was sent and no answer came: it may still take effect later
│   └── GateRefused           an answer came, and it was no (wrong password, not admin, unknown server)
├── ProbeError                a node's metrics could not be read, or were not metrics
├── RecordError               a DNS record's provider answered no, or not at all
│   ├── RecordUnreachable     no connection, or no answer to a reading: nothing was changed, nothing can happen later
│   ├── RecordTimeout         a change was sent and no answer came: it may still take effect later
│   ├── RecordRefused         an answer came, and it was no: permission, credentials, clock, an unknown zone
│   ├── RecordThrottled       not now: asked too often, or an earlier change of the zone is not finished
│   └── RecordConflict        somebody else changed it since it was read: read again
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
    """A node-to-node ping failed. ``stage`` is one of dns, connect, handshake, keep-alive, tip.

    ``refused``: every address refused the connection, so no process listens there.
    """

    def __init__(self, message: str, stage: str, mend: str = "", *, refused: bool = False) -> None:
        super().__init__(message, mend)
        self.stage = stage
        self.refused = refused


class GateError(FailoverError):
    """A gate could not be read or moved."""


class GateUnreachable(GateError):
    """No connection to the gate's management: nothing was sent, so nothing can take effect later."""


class GateTimeout(GateError):
    """A request was sent and not answered in time: it may still take effect later."""


class GateRefused(GateError):
    """The gate's management answered, and the answer was no."""


class ProbeError(FailoverError):
    """A node's metrics could not be read, or what answered were no metrics."""


class RecordError(FailoverError):
    """A DNS record could not be read or changed at its provider."""


class RecordUnreachable(RecordError):
    """The provider could not be asked; nothing was changed and nothing can change later."""


class RecordTimeout(RecordError):
    """A change was sent and not answered in time: it may still take effect."""


class RecordRefused(RecordError):
    """The provider answered, and the answer was no."""


class RecordThrottled(RecordError):
    """The provider wants to be asked later; nothing was changed."""


class RecordConflict(RecordError):
    """The name no longer holds what was expected; nothing was changed."""


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
