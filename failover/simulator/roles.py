"""What a scenario may call the parts of a pool: by their own names, or by roles that every pool has.

``main`` is the preferred producer and ``backup`` the second, whatever the file calls them, unless it gives these names
itself: then they are its own. The same scenario so plays in every pool that has enough parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from failover.model import HOST_KINDS, GateKind, Pool

CONTROLLER, DNS = "controller", "dns"
ALIASES = {"producer": ("main", "backup"), "record": ("record",)}
GROUPS = {
    "producer": "producers",
    "proxy": "proxies",
    "relay": "relays",
    "reference": "references",
    "record": "records",
    "place": "places",
}
OF_PLACE = ("controller", "producer", "proxy", "relay", "reference", "dns")


@dataclass(frozen=True, slots=True)
class Roles:
    """The parts of one pool, and of the world around it, by the names that faults have for them.

    References and relays, which a file does not name, are ``reference-1`` and ``relay-1``, and so on.
    """

    parts: Mapping[str, tuple[str, ...]]  # by kind: producer, proxy, relay, reference, record, controller, dns
    also: Mapping[str, tuple[str, ...]]  # other names of the same parts, as the file has them
    has: Mapping[str, int] = field(default_factory=dict)  # by what a scenario may need besides: how many there are

    @classmethod
    def of(cls, pool: Pool, relays: int) -> Roles:
        """The parts of this pool with so many relays."""
        parts = {
            "producer": pool.names,
            "proxy": tuple(proxy.name for proxy in pool.proxies),
            "relay": relay_names(pool, relays),
            "reference": tuple(f"reference-{i}" for i in range(1, len(pool.references) + 1)),
            "record": tuple(record.label for record in pool.records),
            "controller": (CONTROLLER,),
            "dns": (DNS,) if pool.records else (),
        }
        has = {kind.value: sum(kind in p.gates for p in pool.producers) for kind in GateKind}
        has["managed-relay"] = sum(relay.managed for relay in pool.relays)
        return cls(parts, {"reference": tuple(str(address) for address in pool.references)}, has)

    def places(self) -> tuple[str, ...]:
        """Every machine or service between which there is a network."""
        return tuple(name for kind in OF_PLACE for name in self.parts[kind])

    def known(self, *kinds: str) -> dict[str, tuple[str, ...]]:
        """Every word for parts of these kinds, and whom it means; the pool's own names count before roles."""
        wanted = [each for kind in kinds for each in (OF_PLACE if kind == "place" else (kind,))]
        found: dict[str, tuple[str, ...]] = {}
        for kind in wanted:
            own = self.parts[kind]
            found.update((name, (name,)) for name in own)
            found.update((name, (own[i],)) for i, name in enumerate(self.also.get(kind, ())) if name not in found)
        for kind in wanted:
            for word, names in self._roles(kind):
                found.setdefault(word, names)
        if "place" in kinds:
            found.setdefault(GROUPS["place"], self.places())
        return found

    def _roles(self, kind: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        own = self.parts[kind]
        for word, name in zip(ALIASES.get(kind, ()), own, strict=False):
            yield word, (name,)
        if kind in GROUPS:
            for number, name in enumerate(own, 1):
                yield f"{kind}-{number}", (name,)
            if own:
                yield GROUPS[kind], own


def relay_names(pool: Pool, count: int) -> tuple[str, ...]:
    """The relays of the world around a pool: those of its file, or so many that it does not name."""
    return tuple(relay.name for relay in pool.relays) or tuple(f"relay-{i + 1}" for i in range(count))


NEEDS: Mapping[str, tuple[str, int]] = {
    "proxy": ("proxy", 1),
    "second-proxy": ("proxy", 2),
    "third-proxy": ("proxy", 3),
    "third-producer": ("producer", 3),
    "record": ("record", 1),
    "second-record": ("record", 2),
    "reference": ("reference", 1),
    "second-reference": ("reference", 2),
    "forging": ("forging", 2),
    "firewall": ("firewall", 2),
    "power": ("power", 2),
    "managed-relay": ("managed-relay", 1),
}
_COUNTED = {1: "a", 2: "two", 3: "three"}


def lacks(need: str, roles: Roles) -> str | None:
    """What is missing for a need, in words; None when it is there. ``no-proxy`` is met by a pool without any."""
    if need == "no-proxy":
        return "a pool without any proxy" if roles.parts["proxy"] else None
    kind, least = NEEDS[need]
    if (len(roles.parts[kind]) if kind in roles.parts else roles.has.get(kind, 0)) >= least:
        return None
    what = {"record": "DNS record", "managed-relay": "relay that is managed"}.get(kind, kind)
    several = {"proxy": "proxies", "record": "DNS records"}.get(kind, f"{kind}s")
    if kind in HOST_KINDS:
        several = f"producers with {kind} gates"
    return f"{_COUNTED[least]} {what if least == 1 else several}"
