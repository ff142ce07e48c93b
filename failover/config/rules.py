"""What must hold between the values of the file, and what is allowed but deserves a warning.

Pure. A rule whose values are not all right by themselves says nothing: those have been named already.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from failover.config import hosts, records, scalars
from failover.config.document import Location
from failover.config.hosts import endpoint
from failover.config.parts import NOT_SUPPORTED, Parts, Problem
from failover.config.shape import MOST_AGENTS, MOST_RELAYS, FencePart, HealthPart, LeasePart, PolicyPart, ProxyPart
from failover.model import HOST_KINDS, Address, LeaseSettings

_UNGATED = "add records, write fence: {require: none}, and see what `failover check` says of such a pool"
MARGIN = LeaseSettings().margin
MOST_PRODUCERS, MOST_PROXIES, MOST_REFERENCES = 16, 64, 32
_EPSILON = 1e-9  # seconds; 3 x 0.1 s is not more than 0.3 s


def problems(parts: Parts) -> Iterator[Problem]:
    """Everything that does not hold."""
    values = parts.values
    yield from _counts(values)
    for rule, sections in (
        (_health, ("health",)),
        (_policy, ("health", "policy")),
        (_lease, ("lease",)),
        (_fence, ("fence", "proxies", "producers")),
        (_gates, ("fence", "proxies", "records", "producers")),
        (_bounded, ("fence", "proxies", "producers")),
    ):
        present: list[Any] = [values.get(key) for key in sections]
        if None not in present:
            yield from rule(*present)
    producers = values.get("producers", [])
    proxies = values.get("proxies", [])
    references = values.get("references", [])
    agents, relays = values.get("agents", []), values.get("relays", [])
    yield from _doubled(producers, "producers", "name", lambda p: p.name)
    yield from _doubled(producers, "producers", "address", lambda p: endpoint(p.address))
    yield from _doubled(proxies, "proxies", "name", lambda p: p.name)
    yield from _doubled(proxies, "proxies", "socket", lambda p: _way_in(p) if p.socket else None)
    yield from _doubled(proxies, "proxies", "stats", lambda p: _way_in(p) if p.stats else None)
    yield from _doubled(producers, "producers", "metrics", lambda p: p.metrics)
    yield from _doubled(references, "references", "", endpoint)
    yield from _doubled(agents, "agents", "name", lambda a: a.name)
    yield from _doubled(agents, "agents", "address", lambda a: (endpoint(a.address), a.user))
    yield from _doubled(relays, "relays", "name", lambda r: r.name)
    yield from _doubled(relays, "relays", "address", lambda r: endpoint(r.address))
    yield from _own_references(producers, references)
    yield from hosts.problems(parts)
    yield from records.problems(parts)
    for index, proxy in enumerate(proxies):
        if proxy is not None:
            yield from _proxy(proxy, ("proxies", index))
            if producers and None not in producers:
                yield from _servers(proxy, [p.name for p in producers], ("proxies", index, "servers"))


def _counts(values: Any) -> Iterator[Problem]:
    producers = values.get("producers")
    if producers is not None and len(producers) < 2:
        number = "there is none" if not producers else "there is only one"
        yield Problem((("producers",),), f"{number}, and a pool needs at least two", "add a producer to fail over to")
    if producers is not None and len(producers) > MOST_PRODUCERS:
        problem = f"there are {len(producers)}, and at most {MOST_PRODUCERS} are allowed"
        yield Problem((("producers",),), problem, "keep those that hold the pool's keys")
    for key, most in (
        ("proxies", MOST_PROXIES),
        ("references", MOST_REFERENCES),
        ("agents", MOST_AGENTS),
        ("relays", MOST_RELAYS),
    ):
        if len(values.get(key) or ()) > most:
            problem = f"there are {len(values[key])}, and at most {most} are allowed"
            yield Problem(((key,),), problem, "remove some")


def _health(health: HealthPart) -> Iterator[Problem]:
    interval, timeout, gap = ("health", "interval"), ("health", "timeout"), ("health", "max_gap")
    if health.timeout > health.interval + _EPSILON:
        problem = f"timeout {_s(health.timeout)} is longer than interval {_s(health.interval)}"
        yield Problem(
            (timeout, interval), problem, "a ping ends before the next begins: lower timeout or raise interval"
        )
    if health.interval + health.timeout > health.max_gap + _EPSILON:
        total = health.interval + health.timeout
        problem = f"interval + timeout is {_s(total)}, more than max_gap {_s(health.max_gap)}"
        mend = f"one slow ping would restart the timers: raise max_gap to at least {_s(total)}"
        yield Problem((gap, interval, timeout), problem, mend)


def _policy(health: HealthPart, policy: PolicyPart) -> Iterator[Problem]:
    for key, after, number, word in (
        ("fail_over_after", policy.fail_over_after, health.fall, "fall"),
        ("fail_back_after", policy.fail_back_after, health.rise, "rise"),
    ):
        least = health.interval * number
        if after < least - _EPSILON:
            problem = f"{key} {_s(after)} is shorter than interval x {word}, {_s(least)}"
            places: tuple[Location, ...] = (("policy", key), ("health", "interval"), ("health", word))
            yield Problem(places, problem, f"raise {key} to at least {_s(least)}, or ping more often")


def _lease(lease: LeasePart) -> Iterator[Problem]:
    total = lease.renew + lease.action_timeout + MARGIN
    if total >= lease.duration - _EPSILON:
        problem = (
            f"renew {_s(lease.renew)} + action_timeout {_s(lease.action_timeout)} + margin {_s(MARGIN)}"
            f" is {_s(total)}, not less than duration {_s(lease.duration)}"
        )
        places: tuple[Location, ...] = (("lease", "duration"), ("lease", "renew"), ("lease", "action_timeout"))
        yield Problem(places, problem, f"raise duration above {_s(total)}, or lower the others")


def _fence(fence: FencePart, proxies: Sequence[Any], producers: Sequence[Any]) -> Iterator[Problem]:
    """With ``confirmed``, each producer has a kind of gate that truly fences."""
    if fence.require != "confirmed" or fence.proxies_are_only_path or not proxies or None in producers:
        return
    bare = hosts.unconfirmed(producers)
    mend = "set proxies_are_only_path: true if relays reach producers through proxies only, or require: reachable"
    if bare and len(bare) == len(producers):
        problem = "no gate could ever confirm: proxies do so only where proxies_are_only_path is true"
        yield Problem((("fence", "require"),), problem, f"give each producer gates: [forging] and an agent; or {mend}")
    elif bare:
        problem = (
            f"nothing could ever confirm for {', '.join(bare)}: it has no gate on its own host, and proxies do so"
            " only where proxies_are_only_path is true"
        )
        yield Problem((("fence", "require"),), problem, f"add gates: [forging] and an agent there; or {mend}")


def _gates(
    fence: FencePart, proxies: Sequence[Any], records: Sequence[Any], producers: Sequence[Any]
) -> Iterator[Problem]:
    """A pool has proxies, or gates on its hosts; or it says in so many words that it has no gate, and has records."""
    require: Location = ("fence", "require")
    reconsider = "remove it, or write reachable or confirmed; none is for pools without any gate"
    shut = [producer.name for producer in producers if producer is not None and hosts.kinds(producer)]
    if fence.require != "none":
        if not proxies and not shut and None not in producers:
            problem = "there is no proxy: nothing could shut a producer out"
            hosted = "or give each producer gates: [forging] and an agent"
            yield Problem((("proxies",),), problem, f"add proxies, at least one; {hosted}; or {_UNGATED}")
        elif not proxies and None not in producers:
            yield from hosts.without_proxies(producers)
    elif proxies:
        yield Problem((require,), "there are proxies, and they are gates", reconsider)
    elif shut:
        yield Problem((require,), f"{shut[0]} has gates on its own host", reconsider)
    elif not records:
        problem = "there is neither a proxy nor a record: nothing could be moved"
        yield Problem((require,), problem, "add records; or proxies, which can also shut producers out")
    if not proxies and fence.proxies_are_only_path and (shut or (fence.require == "none" and records)):
        yield Problem((("fence", "proxies_are_only_path"),), "there is no proxy, and so no such path", "remove it")


def _bounded(fence: FencePart, proxies: Sequence[Any], producers: Sequence[Any]) -> Iterator[Problem]:
    """What a reload hides is waited for; without a bound for ever, and until then nobody could be admitted.

    Only where a producer has nothing else that confirms.
    """
    relied_on = fence.require == "confirmed" and fence.proxies_are_only_path
    if not relied_on or None in producers or not hosts.unconfirmed(producers):
        return
    for index, proxy in enumerate(proxies):
        if proxy is not None and proxy.hard_stop_after is None:
            problem = "has no hard_stop_after: after a reload nothing could be confirmed any more, and nobody be let in"
            mend = "set hard-stop-after in HAProxy (global), and write the same here; or require: reachable"
            yield Problem((("proxies", index), ("fence", "require")), problem, mend)


def _doubled(items: Sequence[Any], section: str, key: str, of: Callable[[Any], Hashable]) -> Iterator[Problem]:
    """The same value in two items of a list; ``of`` gives what must differ, or None."""
    first: dict[Hashable, int] = {}
    for index, item in enumerate(items):
        value = of(item) if item is not None else None
        if value is None:
            continue
        earlier = first.setdefault(value, index)
        if earlier != index:
            place: Location = (section, index, key) if key else (section, index)
            what = f"the same {key or 'address'} as {section}[{earlier}]"
            yield Problem((place,), what, "give each its own, or remove one of the two")


def _own_references(producers: Sequence[Any], references: Sequence[Any]) -> Iterator[Problem]:
    ours = {endpoint(producer.address): producer.name for producer in producers if producer is not None}
    for index, reference in enumerate(references):
        if reference is not None and endpoint(reference) in ours:
            problem = f"is the address of our producer {ours[endpoint(reference)]}"
            yield Problem((("references", index),), problem, "name a peer that is not ours")


def _proxy(proxy: ProxyPart, place: Location) -> Iterator[Problem]:
    if proxy.name in HOST_KINDS:
        problem = "is the name of a kind of gate on a producer's own host, and gates are told apart by it"
        yield Problem(((*place, "name"),), problem, "call the proxy otherwise, as in proxy-1")
    if proxy.socket is None and proxy.stats is None:
        mend = "add socket: /run/haproxy/admin.sock, or stats: https://HOST:PORT/stats"
        yield Problem((place,), "has neither socket nor stats", mend)
    if proxy.socket is not None and proxy.stats is not None:
        yield Problem(((*place, "stats"),), "has both socket and stats", "keep one way in; socket is the better one")
    if proxy.watch is not None and proxy.watch == proxy.backend:
        mend = "name the unrouted backend whose servers are always checked, or leave watch out"
        yield Problem(((*place, "watch"),), "is the same as backend", mend)
    yield from _credentials(proxy, place)


def _credentials(proxy: ProxyPart, place: Location) -> Iterator[Problem]:
    passwords = [key for key in ("password_file", "password_env") if getattr(proxy, key) is not None]
    if len(passwords) == 2:
        yield Problem(((*place, "password_env"),), "has both password_file and password_env", "keep one of them")
    if passwords and proxy.username is None:
        yield Problem(((*place, passwords[0]),), "has a password without a username", "add username")
    if proxy.username is not None and not passwords:
        yield Problem(((*place, "username"),), "has a username without a password", "add password_file")
    for one, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(proxy, one) is not None and getattr(proxy, other) is None:
            yield Problem(((*place, one),), f"has {one} without {other}", f"add {other}")
    tls = [key for key in ("ca_file", "cert_file", "key_file") if getattr(proxy, key) is not None]
    if proxy.socket is not None and proxy.stats is None:
        for key in [k for k in ("username", *passwords, *tls) if getattr(proxy, k) is not None]:
            mend = "remove it, or reach the proxy by its stats page"
            yield Problem(((*place, key),), f"{key} goes with stats; with socket it is {NOT_SUPPORTED}", mend)
    elif proxy.stats is not None and proxy.stats.startswith("http://"):
        for key in tls:
            yield Problem(
                ((*place, key),), f"{key} has no effect with http://", "write https:// in stats, or remove it"
            )


def _servers(proxy: ProxyPart, names: Sequence[str], place: Location) -> Iterator[Problem]:
    if proxy.servers is None:
        return
    for name in proxy.servers:
        if name not in names:
            problem = "is not a producer of this pool"
            yield Problem(((*place, name),), problem, f"the producers are {', '.join(names[:MOST_PRODUCERS])}")
    missing = [name for name in names if name not in proxy.servers]
    if missing:
        yield Problem(
            (place,), f"has no server for {', '.join(missing[:MOST_PRODUCERS])}", "add PRODUCER: SERVER for each"
        )


# ---------------------------------------------------------------- warnings


def warnings(parts: Parts) -> Iterator[Problem]:
    """What works, but not as well as it could. Only for files without problems."""
    gateless = parts.values["fence"].require == "none"
    if gateless:
        yield from _gateless_warnings(parts.values["policy"], hosts.let_go(parts.values["relays"]))
    yield from _reference_warnings(parts.values["references"], gateless)
    yield from hosts.warnings(parts)
    yield from records.warnings(parts)
    for index, proxy in enumerate(parts.values["proxies"]):
        place: Location = ("proxies", index)
        if proxy.watch is None:
            problem = "has no watch: a producer in maintenance is not checked by this proxy"
            yield Problem(
                (place,), problem, "add the unrouted backend of the reference configuration, and name it here"
            )
        if proxy.hard_stop_after is None:
            yield Problem(
                (place,),
                "has no hard_stop_after: after a reload, old sessions may go on unseen without an end",
                "set hard-stop-after in HAProxy, and write the same here",
            )
        budget = 2 * parts.values["lease"].action_timeout
        if proxy.hard_stop_after is not None and proxy.hard_stop_after > budget:
            yield Problem(
                ((*place, "hard_stop_after"),),
                f"a handover is given up after {budget:g} s (2 action timeouts), before a reload's doubt ends",
                "set hard-stop-after in HAProxy to a few seconds, and write the same here",
            )
        if proxy.stats is not None and _exposed(proxy):
            problem = "the password crosses the network in the clear"
            yield Problem(((*place, "stats"),), problem, "use https://, with ca_file")
        if isinstance(proxy.socket, Address) and not scalars.on_loopback(proxy.socket.host):
            problem = "commands cross the network in the clear, and who reaches this port may give them too"
            yield Problem(((*place, "socket"),), problem, "use the stats page over https://, or a firewall")


def _exposed(proxy: ProxyPart) -> bool:
    parts = urlsplit(proxy.stats or "")
    return parts.scheme == "http" and proxy.username is not None and not scalars.on_loopback(parts.hostname or "")


def _gateless_warnings(policy: PolicyPart, let_go: bool) -> Iterator[Problem]:
    """What a pool that has DNS records alone cannot promise. ``let_go``: every relay is managed."""
    require: Location = ("fence", "require")
    gate = (
        "give each producer gates: [forging] and an agent, or put a HAProxy in front of the producers and name it under"
        " proxies, without require: none"
    )
    yield Problem(
        (require,),
        "nothing can shut a producer out: DNS only points, and both producers may forge at the same time",
        f"{gate} (`failover render haproxy` writes its configuration)",
    )
    alone = "it fails over when every vantage point says down, and that is this controller alone"
    if let_go:
        yield Problem((require,), alone, gate)
        return
    yield Problem(
        (require,),
        "relays that are connected to the old producer stay with it after a handover, and also when it is back",
        f"name every relay under relays with an agent; or restart those that stay (`failover status` tells whom they"
        f" may still hold); or {gate}",
    )
    back = "go back with `failover switchover --to NAME`; or name every relay under relays with an agent"
    yield Problem((require,), f"{alone}; it goes back only by hand", f"{back}; or {gate}: proxies' checks have a say")
    if "fail_back" in policy.model_fields_set and policy.fail_back == "auto":
        problem = "has no effect: a pool without a gate goes back only by hand, unless all its relays are managed"
        yield Problem((("policy", "fail_back"),), problem, f"write manual, or remove it; or {gate}")


def _reference_warnings(references: Sequence[Address], gateless: bool) -> Iterator[Problem]:
    mend = "name two peers that are not ours, at different sites"
    place: Location = ("references",)
    if not references:
        problem = "there are no references: whether a fault is the controller's own, and lag, cannot be told well"
        if gateless:
            problem = (
                "there are no references: this pool fails over by the controller's own pings alone, so that a fault"
                " between it and a producer that works makes two forge"
            )
        yield Problem((place,), problem, mend)
    elif len(references) == 1:
        problem = "there is one reference only: when it fails, the controller takes itself for isolated"
        if gateless:
            problem += ", and with no gate it is all that tells a fault of the controller's own network"
        yield Problem((place,), problem, mend)
    elif len({scalars.same_host(reference.host) for reference in references}) == 1:
        problem = "all references are at the same host, so that they fail together"
        yield Problem((place,), problem, mend)


# ---------------------------------------------------------------- sameness


def _way_in(proxy: ProxyPart) -> Hashable:
    """What must differ between two proxies."""
    if isinstance(proxy.socket, Path):
        return str(Path(*proxy.socket.parts))
    if proxy.socket is not None:
        return endpoint(proxy.socket)
    url = urlsplit(proxy.stats or "")
    port = url.port or (443 if url.scheme == "https" else 80)
    return scalars.same_host(url.hostname or ""), port, url.path.rstrip("/")


def _s(seconds: float) -> str:
    return f"{seconds:.10g} s"
