"""A producer's credentials for the lab: text envelopes as cardano-cli writes them, with nothing real in them.

The bytes look random, follow from a seed, and open nothing: no signature here can be verified. That a key and a
certificate belong together is told as in life (``hot_key``). Sources of the forms: cardano-api, TextEnvelope and
OperationalCertificate.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2

from failover.ouroboros import cbor
from failover.ouroboros.errors import CodecError

KES_TYPE = "KesSigningKey_ed25519_kes_2^6"
VRF_TYPE = "VrfSigningKey_PraosVRF"
CERTIFICATE_TYPE = "NodeOperationalCertificate"
KES_BYTES, VRF_BYTES, KEY_BYTES, SIGNATURE_BYTES = 608, 64, 32, 64
MOST_ENVELOPE = 1 << 16  # bytes
MOST_POOLS = 64  # in a bulk file


class Missing(Exception):
    """A file is not there: the one thing that makes a node stop forging. ``path`` is its name."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class Unusable(Exception):
    """A file is there, and is of no use: damaged, of another kind, not to be read, not belonging to the others."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a producer's three files are."""

    kes: Path
    vrf: Path
    certificate: Path


@dataclass(frozen=True, slots=True)
class Held:
    """What a node keeps in memory of credentials: of which pool, and what their certificate says."""

    pool: str
    counter: int
    period: int


# ---------------------------------------------------------------- made


def write(folder: Path, *, counter: int, kes_period: int, pool_seed: str) -> Paths:
    """Write ``kes.skey``, ``vrf.skey`` and ``node.cert`` into ``folder``, for their owner's eyes only.

    The same arguments give the same bytes. Another ``counter`` or ``kes_period`` is a rotation: another KES key, the
    same pool and VRF key.
    """
    kes = _bytes(f"kes {pool_seed} {counter} {kes_period}", KES_BYTES)
    signature = _bytes(f"signature {pool_seed} {counter} {kes_period}", SIGNATURE_BYTES)
    certificate = [[hot_key(kes), counter, kes_period, signature], _cold_key(pool_seed)]
    paths = Paths(folder / "kes.skey", folder / "vrf.skey", folder / "node.cert")
    _put(paths.kes, KES_TYPE, "KES Signing Key", kes)
    _put(paths.vrf, VRF_TYPE, "VRF Signing Key", _bytes(f"vrf {pool_seed}", VRF_BYTES))
    _put(paths.certificate, CERTIFICATE_TYPE, "", certificate)
    return paths


def write_bulk(path: Path, *pools: Paths) -> Path:
    """Write a file for ``--bulk-credentials-file`` out of the pools' own files; its own path."""
    rows = [[json.loads(file.read_text()) for file in (p.certificate, p.vrf, p.kes)] for p in pools]
    return _write(path, rows)


def pool_id(pool_seed: str) -> str:
    """The pool's id (hexadecimal), as it follows from the cold key in its certificate: BLAKE2b-224."""
    return _pool(_cold_key(pool_seed))


def hot_key(kes: bytes) -> bytes:
    """The public part of a KES signing key, which ends with the two halves of which that is the hash.

    Source: cardano-base, Cardano/Crypto/KES/Sum.hs.
    """
    return hashlib.blake2b(kes[-2 * KEY_BYTES :], digest_size=KEY_BYTES).digest()


def _cold_key(pool_seed: str) -> bytes:
    return _bytes(f"cold {pool_seed}", KEY_BYTES)


def _pool(cold: bytes) -> str:
    return hashlib.blake2b(cold, digest_size=28).hexdigest()


def _bytes(seed: str, count: int) -> bytes:
    return hashlib.shake_256(f"cardano-failover lab, no real key: {seed}".encode()).digest(count)


def _put(path: Path, kind: str, description: str, value: object) -> None:
    _write(path, {"type": kind, "description": description, "cborHex": cbor2.dumps(value).hex()})


def _write(path: Path, document: object) -> Path:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(json.dumps(document, indent=4) + "\n", encoding="utf-8")
    return path


# ---------------------------------------------------------------- read, as a node does


def read(paths: Paths) -> Held:
    """What a node takes from the files. Raises Missing or Unusable for the first that is wrong.

    The order is the node's own: VRF key, certificate, KES key (Protocol/Shelley.hs, readLeaderCredentialsSingleton).
    So a damaged VRF key hides a missing certificate.
    """
    _key(paths.vrf, _json(paths.vrf), VRF_TYPE, VRF_BYTES)
    held, hot = _certificate(paths.certificate, _json(paths.certificate))
    kes = _key(paths.kes, _json(paths.kes), KES_TYPE, KES_BYTES)
    if hot_key(kes) != hot:
        raise Unusable(f"MismatchedKesKey {str(paths.kes)!r} {str(paths.certificate)!r}")
    return held


def read_bulk(path: Path) -> Held:
    """The first pool of a bulk file. Raises Unusable for what is damaged.

    Raises Missing also for a file that cannot be read (Run.hs, wasFileRemovedFromScope: CredentialsReadError).
    """
    rows = _json(path, unreadable_is_missing=True)
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_POOLS:
        raise Unusable(f"EnvelopeParseError {str(path)!r}: no list of credentials")
    found = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 3:
            raise Unusable(f"EnvelopeParseError {str(path)!r}: not a certificate, a VRF key and a KES key")
        held, hot = _certificate(path, row[0])
        _key(path, row[1], VRF_TYPE, VRF_BYTES)
        if hot_key(_key(path, row[2], KES_TYPE, KES_BYTES)) != hot:
            raise Unusable(f"MismatchedKesKey {str(path)!r} {str(path)!r}")
        found.append(held)
    return found[0]


def _json(path: Path, *, unreadable_is_missing: bool = False) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_ENVELOPE * MOST_POOLS)
    except FileNotFoundError:
        raise Missing(path) from None
    except OSError as error:
        if unreadable_is_missing:
            raise Missing(path) from None
        raise Unusable(f"FileIOError {str(path)!r} {error.strerror}") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable(f"FileError {str(path)!r} (TextEnvelopeAesonDecodeError)") from None


def _value(path: Path, envelope: Any, kind: str) -> object:
    if not isinstance(envelope, dict) or not isinstance(envelope.get("cborHex"), str):
        raise Unusable(f"FileError {str(path)!r} (TextEnvelopeAesonDecodeError)")
    if envelope.get("type") != kind:
        raise Unusable(f"FileError {str(path)!r} (TextEnvelopeTypeError {kind} {str(envelope.get('type'))[:80]})")
    try:
        return cbor.decode(bytes.fromhex(envelope["cborHex"]), MOST_ENVELOPE)
    except (ValueError, CodecError):
        raise Unusable(f"FileError {str(path)!r} (TextEnvelopeDecodeError)") from None


def _key(path: Path, envelope: Any, kind: str, size: int) -> bytes:
    value = _value(path, envelope, kind)
    if not isinstance(value, bytes) or len(value) != size:
        raise Unusable(f"FileError {str(path)!r} (TextEnvelopeDecodeError)")
    return value


def _certificate(path: Path, envelope: Any) -> tuple[Held, bytes]:
    """What a certificate says, and the hot key that it is for."""
    match _value(path, envelope, CERTIFICATE_TYPE):
        case [[bytes() as hot, int() as counter, int() as period, bytes()], bytes() as cold] if (
            len(hot) == len(cold) == KEY_BYTES and min(counter, period) >= 0
        ):
            return Held(_pool(cold), counter, period), hot
    raise Unusable(f"FileError {str(path)!r} (TextEnvelopeDecodeError)")
