"""Whether a running controller may take over a file that was read again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from failover.model import Gate, Pool, Proxy, Record, Route53Zone

_RESTART = "needs a restart of the daemon"


def compare(
    old: Pool,
    new: Pool,
    *,
    active: str | None,
    target: str | None,
    empty_proxies: Collection[str],
    phase_steady: bool,
    shut_gates: Collection[Gate] = (),
) -> tuple[str, ...]:
    """Why the new file is refused, a sentence for each reason; empty when it is accepted.

    ``empty_proxies`` are those that are confirmed to carry no session, or that a handover passed over. A proxy that
    leads elsewhere under its old name counts as removed: what it guarded is no longer seen. ``shut_gates`` are the
    gates on producers' own hosts that are confirmed closed, or that a handover passed over.
    """
    roles = {"active": active, "target of the handover": target}
    return (
        *_identity(old, new),
        *_producers(old, new, roles, phase_steady),
        *_proxies(old, new, empty_proxies, phase_steady),
        *_host_gates(old, new, roles, shut_gates, phase_steady),
        *(() if phase_steady else (*_records(old, new, roles), *_relays(old, new))),
    )


def _identity(old: Pool, new: Pool) -> Iterator[str]:
    for key, before, after in (
        ("pool", old.name, new.name),
        ("network", f"{old.network} ({old.magic})", f"{new.network} ({new.magic})"),
        ("state", old.state, new.state),
        ("listen", old.listen, new.listen),
        ("fence.require", *_with_or_without_gates(old, new)),
    ):
        if before != after:
            yield f"{key}: changes from '{before}' to '{after}', which {_RESTART}. Mend: change it back, or restart."


def _with_or_without_gates(old: Pool, new: Pool) -> tuple[str, str]:
    """``fence.require`` of both, told apart only where one of them is ``none``: then all is decided otherwise."""
    return (old.fence.require, new.fence.require) if old.gateless != new.gateless else ("", "")


def _producers(old: Pool, new: Pool, roles: dict[str, str | None], steady: bool) -> Iterator[str]:
    present = {producer.name: producer for producer in new.producers}
    for producer in old.producers:
        role = next((word for word, name in roles.items() if name == producer.name), None)
        after = present.get(producer.name)
        if after is None and role is not None:
            renamed = next((p.name for p in new.producers if p.address == producer.address), None)
            what = f"renames it to '{renamed}'" if renamed else "removes it"
            mend = "switch over to another producer first, or keep it"
            yield f"producers: '{producer.name}' is {_the(role)}, and the new file {what}. Mend: {mend}."
        elif after is None and not steady:
            mend = "reload again when the pool is steady"
            yield f"producers: '{producer.name}' is removed while a handover runs. Mend: {mend}."
        elif after is not None and role is not None and after.address != producer.address:
            what = f"moves it from {producer.address} to {after.address}"
            mend = "switch over to another producer first"
            yield f"producers: '{producer.name}' is {_the(role)}, and the new file {what}. Mend: {mend}."


def _the(role: str) -> str:
    return f"the {role}" if role != "active" else "active"


def _proxies(old: Pool, new: Pool, empty: Collection[str], steady: bool) -> Iterator[str]:
    present = {proxy.name: proxy for proxy in new.proxies}
    kept = {producer.name for producer in new.producers}
    for proxy in old.proxies:
        after = present.get(proxy.name)
        if after is not None and _guards(proxy, kept) == _guards(after, set(proxy.servers) & kept):
            continue
        what = "is removed" if after is None else "leads to another HAProxy, backend or server than before"
        if proxy.name not in empty:
            mend = "`failover pause`, close its servers and sessions by hand, reload, `failover resume`; or restart"
            yield f"proxies: '{proxy.name}' {what}, and is not confirmed empty. Mend: {mend}."
        elif not steady:
            yield f"proxies: '{proxy.name}' {what} while a handover runs. Mend: reload again when the pool is steady."


def _guards(proxy: Proxy, producers: Collection[str]) -> tuple[object, ...]:
    """What the proxy's gates are: the way in, the backend, and the servers of these producers."""
    servers = {name: server for name, server in proxy.servers.items() if name in producers}
    return proxy.socket, proxy.stats, proxy.backend, servers


def _host_gates(
    old: Pool, new: Pool, roles: dict[str, str | None], shut: Collection[Gate], steady: bool
) -> Iterator[str]:
    """A gate that the file no longer has is no longer seen; and an agent that is none any more cannot shut it.

    Where an agent is, and by which keys, may change at any time: it is the same host's, and its operator's to say.
    """
    present = {producer.name: producer for producer in new.producers}
    first = "switch over to another producer first, or keep it"
    for producer in old.producers:
        role = next((word for word, name in roles.items() if name == producer.name), None)
        after = present.get(producer.name)
        if role is not None and after is None:
            continue  # refused as a whole already
        removed = [gate for gate in old.gates_of(producer.name) if gate not in new.gates_of(producer.name)]
        for gate in removed:
            if role is not None:
                yield f"producers: the gate {gate} is removed, and '{producer.name}' is {_the(role)}. Mend: {first}."
            elif gate not in shut:
                mend = "wait until it is seen closed, then reload; or restart"
                yield f"producers: the gate {gate} is removed, and is not confirmed closed. Mend: {mend}."
            elif not steady:
                mend = "reload again when the pool is steady"
                yield f"producers: the gate {gate} is removed while a handover runs. Mend: {mend}."
        if not removed and role is not None and after is not None and producer.agent and after.agent is None:
            what = f"the agent of '{producer.name}' is removed, and that is {_the(role)}"
            yield f"producers: {what}. Mend: {first}."


def _relays(old: Pool, new: Pool) -> Iterator[str]:
    """Whom a handover that runs is about to make let go must stay as it is. In steady everything may change."""
    present = {relay.name: relay for relay in new.relays}
    mend = "reload again when the pool is steady"
    for relay in old.relays:
        after = present.get(relay.name)
        if after is None:
            yield f"relays: '{relay.name}' is removed or renamed while a handover runs. Mend: {mend}."
        elif replace(after, restart=relay.restart) != relay:
            yield f"relays: '{relay.name}' is changed while a handover runs. Mend: {mend}."


def _records(old: Pool, new: Pool, roles: dict[str, str | None]) -> Iterator[str]:
    """What a handover that runs is about to move must stay.

    In steady everything may change: a record is a signpost, the next tick sets it right, and one that is gone stays
    as it points.
    """
    present = {record.label: record for record in new.records}
    mend = "reload again when the pool is steady"
    for record in old.records:
        after = present.get(record.label)
        if after is None:
            yield f"records: '{record.label}' is removed or renamed while a handover runs. Mend: {mend}."
            continue
        if _zone(record) != _zone(after):
            yield f"records: '{record.label}' moves to another zone or server while a handover runs. Mend: {mend}."
        for word, name in roles.items():
            before, then = record.targets.get(name or ""), after.targets.get(name or "")
            if before is not None and then is not None and before != then:
                what = f"points elsewhere for {name}, {_the(word)}, while a handover runs"
                yield f"records: '{record.label}' {what}. Mend: {mend}."


def _zone(record: Record) -> tuple[object, ...]:
    """Who holds the record; credentials may change."""
    if isinstance(record.provider, Route53Zone):
        return record.provider.zone, record.provider.endpoint_url
    return record.provider.zone, record.provider.server
