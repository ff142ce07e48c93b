"""What a version of cardano-node knows, what its metrics are called, and where they lie. Pure.

Source: facts of cardano-node by version: PR #4024, issues #5418, #5751, #6113; developer-portal, metrics-migration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from failover.lab.haproxy import LabError
from failover.probes.metrics import PREFIX, version_numbers

OLD_FLAG, NEW_FLAG = "--non-producing-node", "--start-as-non-producing-node"
OLDEST = (8, 2, 0)


class Tells(StrEnum):
    """What ``forging_enabled`` says."""

    NOTHING = "nothing"  # the metric is not there
    ONE_AT_START = "one at start"  # whenever it was given credentials; the truth from the first SIGHUP on
    ZERO_FOR_GOOD = "zero for good"  # when it was started with the flag; the truth otherwise
    TRUTH = "truth"


@dataclass(frozen=True, slots=True)
class Version:
    """One version's ways. ``flags`` are those that it knows; ``early_sighup_kills``: a SIGHUP during the replay."""

    text: str
    flags: tuple[str, ...]
    forging_enabled: Tells
    new_tracing: bool
    early_sighup_kills: bool
    config_key: bool  # StartAsNonProducingNode in the configuration file
    one_way_roots: bool  # diffusionMode of a local root (ouroboros-network #5020); passed over by older ones

    @staticmethod
    def of(text: str) -> Version:
        """The ways of ``8.2.0-pre`` or ``10.5.1``. Raises LabError."""
        numbers = version_numbers(text)
        if numbers is None or numbers < OLDEST:
            raise LabError(
                f"{text!r} is no version of cardano-node that the lab knows", "give 8.2.0-pre or a later one"
            )
        return Version(
            text,
            flags=_flags(numbers),
            forging_enabled=_tells(numbers),
            new_tracing=numbers >= (10, 6, 2),
            early_sighup_kills=numbers == OLDEST,
            config_key=_new(numbers),
            one_way_roots=numbers >= (10, 2),
        )


def _new(numbers: tuple[int, ...]) -> bool:
    return numbers >= (10, 5, 1)


def _flags(numbers: tuple[int, ...]) -> tuple[str, ...]:
    if _new(numbers):
        return (OLD_FLAG, NEW_FLAG)
    return (OLD_FLAG,) if numbers == OLDEST or numbers >= (8, 7, 2) else ()


def _tells(numbers: tuple[int, ...]) -> Tells:
    if numbers < (9,):
        return Tells.NOTHING
    if numbers < (10, 2):
        return Tells.ONE_AT_START
    return Tells.ZERO_FOR_GOOD if numbers < (10, 3) else Tells.TRUTH


# ---------------------------------------------------------------- metrics


class Naming(StrEnum):
    """Which of a metric's names are used."""

    LEGACY = "legacy"
    NEW = "new"
    NO_SUFFIX = "nosuffix"


_NAMES: Mapping[str, tuple[str, str]] = {  # legacy and new; without a legacy name it is new
    "slot": ("slotNum_int", "slotNum_int"),
    "block": ("blockNum_int", "blockNum_int"),
    "forging": ("forging_enabled", "forging_enabled_int"),
    "about_to_lead": ("Forge_forge_about_to_lead_int", "Forge_about_to_lead_counter"),
    "leader": ("Forge_node_is_leader_int", "Forge_node_is_leader_counter"),
    "not_leader": ("Forge_node_not_leader_int", "Forge_node_not_leader_counter"),
    "cannot": ("", "nodeCannotForge_int"),
    "forged": ("Forge_forged_int", "Forge_forged_counter"),
    "adopted": ("Forge_adopted_int", "Forge_adopted_counter"),
    "missed": ("slotsMissedNum_int", "slotsMissed_int"),
    "kes_period": ("currentKESPeriod_int", "currentKESPeriod_int"),
    "kes_remaining": ("remainingKESPeriods_int", "remainingKESPeriods_int"),
    "certificate_start": ("operationalCertificateStartKESPeriod_int", "operationalCertificateStartKESPeriod_int"),
    "certificate_expiry": ("operationalCertificateExpiryKESPeriod_int", "operationalCertificateExpiryKESPeriod_int"),
    "hot": ("peerSelection_hot", "peerSelection_Hot_int"),
    "started": ("nodeStartTime_int", "node_start_time_int"),
    "starting": ("", "blockReplayProgress_real"),
}
_SUFFIXES = ("_int", "_counter", "_real")

# A real node has so many more names that whoever keeps only some of them must choose well. Nearly these:
_KINDS = ("BigLedgerPeers", "BootstrapPeers", "LocalRootPeers", "NonRootPeers", "Peers")
_FORMS = ("Active{}", "Active{}Demotions", "Cold{}Promotions", "Established{}", "Known{}")
_WARM = ("Warm{}", "Warm{}Demotions", "Warm{}Promotions")
_CHURN = (
    "DecreasedActive",
    "DecreasedEstablished",
    "DecreasedKnown",
    "IncreasedActive",
    "IncreasedEstablished",
    "IncreasedKnown",
)
_PEERS = (
    *(form.format(kind) for form in (*_FORMS, *_WARM) for kind in _KINDS),
    *(f"churn_{churn}{kind}" for churn in _CHURN for kind in (_KINDS[0], _KINDS[-1])),
)
_RUNTIME = ("Mem_resident", "RTS_gcHeapBytes", "RTS_gcLiveBytes", "RTS_gcMajorNum", "RTS_gcMinorNum", "Stat_cputicks")


def naming(version: Version, config: Mapping[str, Any]) -> Naming:
    """Which names a node of this version uses with this configuration file."""
    switched = config.get("UseTraceDispatcher", version.new_tracing)
    if switched is not True:
        return Naming.LEGACY
    options = config.get("TraceOptions")
    root = options.get("") if isinstance(options, dict) else None
    backends = root.get("backends") if isinstance(root, dict) else None
    words = [str(entry).split() for entry in backends] if isinstance(backends, list) else []
    return Naming.NO_SUFFIX if any("nosuffix" in entry for entry in words) else Naming.NEW


def prometheus(told: Mapping[str, float], version: Version, names: Naming) -> str:
    """The text that the node's Prometheus endpoint serves."""
    lines = []
    for field, number in told.items():
        name = _named(field, names)
        if name:
            lines += [f"# TYPE {PREFIX}{name} gauge", f"{PREFIX}{name} {number}"]
    peers = [f"peerSelection_{name}" + ("_int" if names is Naming.NEW else "") for name in _PEERS]
    runtime = [f"{name}_int" if names is not Naming.NO_SUFFIX else name for name in _RUNTIME]
    lines += [f"{PREFIX}{name} 0" for name in peers + runtime]
    if names is not Naming.LEGACY:
        labels = f'arch="x86_64",compiler_name="ghc",os="linux",version="{version.text}"'
        lines += [f"# TYPE {PREFIX}cardano_build_info gauge", f"{PREFIX}cardano_build_info{{{labels}}} 1"]
    return "\n".join(lines) + "\n"


def _named(field: str, names: Naming) -> str:
    legacy, new = _NAMES[field]
    if names is Naming.LEGACY:
        return legacy
    ending = next((suffix for suffix in _SUFFIXES if new.endswith(suffix)), "")
    return new if names is Naming.NEW else new.removesuffix(ending)
