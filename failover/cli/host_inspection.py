"""What ``failover check`` looks at on the hosts of producers and relays, read-only: agents, gates, metrics, sessions.

Each agent is asked once for its status, and relays' agents for their sessions; each power gate for its status, never
to switch. Nothing is moved, and no fuse is told of a lease. Hosts are asked at the same time, each within its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from failover._version import __version__
from failover.agent_answers import Status
from failover.agent_link import AgentLink
from failover.cli.inspection import Found, Severity
from failover.errors import ConfigError, FailoverError, StoreUnusable
from failover.gates.hostgate import links
from failover.gates.power import PowerPort
from failover.model import Agent, Gate, GateKind, GateReading, NodeReading, Nudge, Pool, Producer, Relay, RelayReading
from failover.nodes import ends_soon, expired, periods_left
from failover.ports import Host, NodePort
from failover.probes.metrics import AgentNodePort, HttpNodePort, forging_trust
from failover.relay_port import AgentRelayPort
from failover.store.sqlite import FILE, SqliteStore
from failover.topology.paths import Version, twin, version

FUSE_CLOSES = 10.0  # seconds that a fuse may need to close once it has blown
SHOWN = 8  # characters of a boot's id, and words that one finding lists
OPEN: Mapping[bool | None, str] = {True: "open", False: "closed", None: "neither open nor closed"}


@dataclass(frozen=True, slots=True)
class Told:
    """What the hosts told: findings; topology files' texts, and nodes' versions, by producer or relay."""

    found: Sequence[Found] = ()
    topologies: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, Version] = field(default_factory=dict)


async def hosts(pool: Pool, host: Host) -> Told:
    """Ask every agent, every power gate and every endpoint of metrics; never raises for one that fails."""
    ways = links(pool, host)
    try:
        async with asyncio.TaskGroup() as group:
            agents = {a.name: group.create_task(_status(pool, a, ways[a.name])) for a in pool.agents}
            powers = [group.create_task(_power(pool, p, host)) for p in pool.producers if p.power is not None]
            told = {p.name: group.create_task(_pages(pool, p, host)) for p in pool.producers if p.metrics is not None}
        answers = {name: task.result() for name, task in agents.items()}
        async with asyncio.TaskGroup() as group:
            relays = [
                group.create_task(_sessions(pool, relay, ways[relay.agent], host))
                for relay in pool.relays
                if relay.agent is not None and isinstance(answers[relay.agent], Status)
            ]
    finally:
        for way in ways.values():
            await way.close()
    active = _active(pool)
    found = [finding for agent in pool.agents for finding in _agent(pool, agent, answers[agent.name])]
    for producer in pool.producers:
        answer = answers.get(producer.agent or "")
        status = answer if isinstance(answer, Status) else None
        found += _gates(producer, status)
        reading = told[producer.name].result() if producer.name in told else await _agents_metrics(status)
        found += _node(producer, status, reading)
    found += [finding for task in powers for finding in task.result()]
    found += _forging(pool, answers)
    for relay, seen in (task.result() for task in relays):
        found += _relay(pool, relay, seen, active)
    return _with_topologies(pool, answers, found)


# ---------------------------------------------------------------- agents


async def _status(pool: Pool, agent: Agent, link: AgentLink) -> Status | FailoverError:
    try:
        return await link.status(pool.lease.action_timeout, topology=True)
    except FailoverError as error:
        return error


def _agent(pool: Pool, agent: Agent, answer: Status | FailoverError) -> Iterator[Found]:
    part = f"agent {agent.name}"
    if isinstance(answer, FailoverError):
        words = str(answer).removeprefix(f"{part}:").removeprefix(part).strip()
        yield Found(Severity.ERROR, part, words, answer.mend)
        return
    runs = answer.agent_version
    words = f"answers at {agent.address} by its pinned host key, version {runs}, pool {pool.name}"
    yield Found(Severity.OK, part, f"{words}, boot {answer.boot[:SHOWN]}")
    if runs != __version__:
        words = f"is version {runs}, and this is {__version__}"
        mend = "install the agent of this release there (failover render agent --program)"
        yield Found(Severity.NOTE, part, words, mend)
    if not answer.node.running:
        mend = f"start it, or correct node.runtime there (it says {answer.node.runtime or 'nothing'})"
        yield Found(Severity.WARNING, part, "its node does not run", mend)
    yield from _fuse(pool, part, answer)
    ranks = [nudge.value for nudge in Nudge]  # each allows those before it
    for relay in pool.relays:
        wanted = relay.agent == agent.name and answer.nudge in ranks and ranks.index(relay.restart.value)
        if wanted and wanted > ranks.index(answer.nudge):
            words = f"{relay.name} has restart: {relay.restart.value}, and this host allows no more than {answer.nudge}"
            mend = f'set "nudge": "{relay.restart.value}" in /etc/failover-agent.json there, or change restart'
            yield Found(Severity.WARNING, part, words, mend)


def _fuse(pool: Pool, part: str, answer: Status) -> Iterator[Found]:
    """A fuse must close before another producer is let in, and must outlast a change of decider."""
    after = answer.fuse_after
    if after is None:
        return
    least, most = fuse_between(pool)
    room = f"set fuse.after there between {least:g} and {most:g}, exclusive"
    if least >= most:
        room = f"raise policy.fail_over_after above {least + FUSE_CLOSES:g} s, or shorten the lease; then {room}"
    if after >= most:
        words = (
            f"its fuse closes too late: after {after:g} s, and up to {FUSE_CLOSES:g} s more, without a lease; another "
            f"producer may be let in after {pool.policy.fail_over_after:g} s (policy.fail_over_after)"
        )
        yield Found(Severity.ERROR, part, words, room)
    elif after <= least:
        words = (
            f"its fuse closes too soon: after {after:g} s without a lease; when the decider changes, none may be heard "
            f"for {least:g} s (lease.duration + action_timeout + margin)"
        )
        yield Found(Severity.ERROR, part, words, room)
    else:
        words = f"its fuse closes after {after:g} s without a lease, before another is let in at {most + FUSE_CLOSES:g}"
        yield Found(Severity.OK, part, f"{words} s; {answer.fuse_left or 0.0:g} s are left")
    if answer.fuse_left == 0.0:
        mend = "let the daemon run: a closed producer with a fuse is opened by it"
        yield Found(Severity.NOTE, part, "its fuse has heard no lease lately, so it keeps the gate closed", mend)


def fuse_between(pool: Pool) -> tuple[float, float]:
    """Between which seconds, exclusive, a fuse fits the file; none do where the first is not below the second."""
    lease = pool.lease
    return lease.duration + lease.action_timeout + lease.margin, pool.policy.fail_over_after - FUSE_CLOSES


# ---------------------------------------------------------------- gates


def _gates(producer: Producer, status: Status | None) -> Iterator[Found]:
    """Every gate of the file on this host, and those that the file does not know."""
    if status is None:
        return
    wanted = [kind for kind in producer.gates if kind is not GateKind.POWER]
    for kind in wanted:
        part = f"gate {Gate(kind.value, producer.name)}"
        if kind.value not in status.gates:
            mend = f'add "{kind.value}" to gates in /etc/failover-agent.json there, or remove it from the file here'
            yield Found(Severity.ERROR, part, f"its agent {producer.agent} has no {kind.value} gate", mend)
            continue
        yield from _reading(part, status.gates[kind.value].reading)
    for name in status.gates:
        if name not in [kind.value for kind in wanted]:
            words = f"its agent {producer.agent} has a {name} gate, and the file names none: nobody would open it"
            mend = f"add {name} to the producer's gates here, or remove it from gates in /etc/failover-agent.json there"
            yield Found(Severity.WARNING, f"producer {producer.name}", words, mend)


def _reading(part: str, reading: GateReading) -> Iterator[Found]:
    shown, lacks = "; ".join(reading.shown[:SHOWN]), "; ".join(reading.lacks[:SHOWN])
    words = OPEN[reading.open] + (f": {shown}" if shown else "")
    if reading.open is None or (reading.open is False and not reading.certain):
        lacking = f"{OPEN[reading.open]}, and cannot show more: {lacks or 'it does not say why'}"
        mend = "let the daemon run: it closes or opens it again; or see `failover-agent check` on its host"
        yield Found(Severity.WARNING, part, lacking, mend)
    else:
        more = f"; not shown: {lacks}" if lacks else ""
        yield Found(Severity.OK, part, f"{words}{', certain' if reading.certain else ''}{more}")
    for finding in reading.findings:
        yield Found(Severity.WARNING, part, finding, "see `failover-agent check` on its host")


def _forging(pool: Pool, answers: Mapping[str, Status | FailoverError]) -> Iterator[Found]:
    """Who holds credentials: more than one producer is what this program is there to prevent."""
    open_ones = [
        producer.name
        for producer in pool.producers
        if isinstance(status := answers.get(producer.agent or ""), Status)
        and (gate := status.gates.get(GateKind.FORGING.value)) is not None
        and gate.reading.open is True
    ]
    if len(open_ones) > 1:
        words = f"more than one producer has its credentials in place: {', '.join(open_ones)}"
        mend = "let the daemon run, or close one of them by hand (failover explain --commands)"
        yield Found(Severity.WARNING, "gates", words, mend)


async def _power(pool: Pool, producer: Producer, host: Host) -> list[Found]:
    """The command ``status`` alone: neither ``off`` nor ``on`` is ever run here."""
    part = f"gate {Gate(GateKind.POWER.value, producer.name)}"
    assert producer.power is not None  # noqa: S101 - asked for by the caller
    port = PowerPort(producer.name, producer.power, host)
    try:
        reading = await port.read(pool.lease.action_timeout)
    except FailoverError as error:
        return [Found(Severity.ERROR, part, str(error).removeprefix(f"{producer.name}: "), error.mend)]
    finally:
        await port.close()
    found = [Found(Severity.OK, part, f"{'on' if reading.open else 'off'}: {'; '.join(reading.shown)}")]
    if not reading.open:
        words = "the machine is off: it cannot take over"
        mend = "let the daemon switch it on, or do it by hand" if producer.power.on else "switch it on by hand"
        found.append(Found(Severity.WARNING, part, words, mend))
    return found


# ---------------------------------------------------------------- nodes' metrics


class _Known:
    """A link that has asked already."""

    def __init__(self, status: Status) -> None:
        self._status = status

    async def status(self, timeout: float, **fields: Any) -> Status:
        return self._status


async def _pages(pool: Pool, producer: Producer, host: Host) -> NodeReading | FailoverError:
    assert producer.metrics is not None  # noqa: S101 - asked for by the caller
    return await _read(HttpNodePort(producer.metrics, host), pool.health.timeout)


async def _agents_metrics(status: Status | None) -> NodeReading | FailoverError | None:
    return None if status is None else await _read(AgentNodePort(_Known(status)), 0.0)


async def _read(port: NodePort, timeout: float) -> NodeReading | FailoverError:
    try:
        return await port.read(timeout)
    except FailoverError as error:
        return error
    finally:
        await port.close()


def _node(producer: Producer, status: Status | None, reading: NodeReading | FailoverError | None) -> Iterator[Found]:
    part = f"metrics {producer.name}"
    if reading is None:
        return
    if isinstance(reading, FailoverError):
        yield Found(Severity.WARNING, part, str(reading), reading.mend)
        return
    runs = reading.version or (status.node.version if status is not None else None)
    told = [name for name in NodeReading.__dataclass_fields__ if getattr(reading, name) is not None]
    node = f"cardano-node {runs}" if runs else "a node of unknown version"
    yield Found(Severity.OK, part, f"{node} tells {', '.join(told) or 'nothing of use'}")
    if reading.starting is not None:
        yield Found(Severity.NOTE, part, f"it is starting: {reading.starting:.0f} % of its replay is done")
    doubt = forging_trust(runs, reading)
    if doubt is not None:
        yield Found(Severity.NOTE, part, f"forging_enabled is not relied on: {doubt}; the counter tells")
    gate = status.gates.get(GateKind.FORGING.value) if status is not None else None
    closed = gate is not None and gate.reading.open is False and gate.reading.certain  # it never led since its start
    if GateKind.FORGING in producer.gates and reading.about_to_lead is None and reading.starting is None and not closed:
        words = (
            "it does not tell how often it was about to lead, so a closed gate cannot show that the node has stopped"
        )
        yield Found(Severity.WARNING, part, words, "let the node's configuration trace forging, and serve it there")
    yield from _credentials(part, reading, None if gate is None else gate.reading)


def _credentials(part: str, reading: NodeReading, gate: GateReading | None) -> Iterator[Found]:
    """How long its KES key and its operational certificate still sign, in KES periods."""
    mend = "rotate the KES key and certificate now: a producer that cannot sign is not made active"
    if expired(reading, gate):
        certificate = reading.certificate_expiry is not None and (reading.kes_period or 0) >= reading.certificate_expiry
        what = (
            f"its certificate ended in KES period {reading.certificate_expiry}" if certificate else "its KES key ended"
        )
        now = f" (now {reading.kes_period})" if reading.kes_period is not None else ""
        yield Found(Severity.ERROR, part, f"{what}{now}: it can sign no block", mend)
        return
    left = ends_soon(reading, gate)
    if left is not None:
        words = f"its KES key ends in {left} periods (of 36 h on mainnet)"
        yield Found(Severity.WARNING, part, words, "rotate the KES key and certificate before")
    elif (lasts := periods_left(reading, gate)) is not None:
        yield Found(Severity.OK, part, f"its KES key lasts for another {lasts} periods")


# ---------------------------------------------------------------- relays


async def _sessions(
    pool: Pool, relay: Relay, link: AgentLink, host: Host
) -> tuple[Relay, RelayReading | FailoverError]:
    port = AgentRelayPort(relay, pool, link, host)
    try:
        return relay, await port.read(pool.lease.action_timeout)
    except FailoverError as error:
        return relay, error
    finally:
        await port.close()


def _relay(pool: Pool, relay: Relay, seen: RelayReading | FailoverError, active: str | None) -> Iterator[Found]:
    part = f"relay {relay.name}"
    if isinstance(seen, FailoverError):
        words = str(seen).removeprefix(f"{relay.name}: ")
        yield Found(Severity.WARNING, part, words, seen.mend)
        return
    by = {name: sum(s.producer == name for s in seen.sessions) for name in pool.names}
    listed = ", ".join(f"{name} ({count})" for name, count in by.items() if count) or "no producer"
    yield Found(Severity.OK, part, f"its sessions: {listed}, {seen.others} with others")
    if pool.proxies:
        past = sorted({s.producer for s in seen.sessions if not s.inbound}, key=pool.names.index)
        if past:
            words = f"it is connected to {', '.join(past)} past the proxies"
            mend = "take the producers out of its topology, and list the proxies (failover render topology)"
            yield Found(Severity.WARNING, part, words, mend)
        return
    itself = next((p.name for p in pool.producers if twin(pool, p) is relay), None)
    if not seen.running or (active is not None and active == itself):
        return
    mend = "see its topology (failover render topology), and whether it reaches the producer"
    if active is None and not any(by.values()):
        yield Found(Severity.WARNING, part, "it has no session with any producer", mend)
    elif active is not None and not by[active]:
        yield Found(Severity.WARNING, part, f"it has no session with {active}, which is active", mend)


def _active(pool: Pool) -> str | None:
    """Who is active by the state folder, where that can be read; None: nobody knows."""
    if not (pool.state / FILE).exists():
        return None
    try:
        store = SqliteStore.read(pool.state, pool.name)
        try:
            assignment = store.load().assignment
        finally:
            store.close()
    except (StoreUnusable, OSError):
        return None  # told where the state folder is looked at
    known = assignment is not None and assignment.active in pool.names
    return assignment.active if assignment is not None and known else None


# ---------------------------------------------------------------- topologies


def _with_topologies(pool: Pool, answers: Mapping[str, Status | FailoverError], found: list[Found]) -> Told:
    """The topology files that came, by the producer or relay whose they are; a node that is both has one."""
    texts: dict[str, str] = {}
    versions: dict[str, Version] = {}
    seen: set[str] = set()
    nodes: tuple[Producer | Relay, ...] = (*pool.producers, *pool.relays)
    for node in nodes:
        answer = answers.get(node.agent or "")
        if not isinstance(answer, Status) or node.agent in seen:
            continue
        seen.add(node.agent or "")
        if answer.topology_text is None:
            mend = "set node.topology there to the path of its topology file; or give it: --topology NAME=FILE"
            words = f"its agent shows no topology file ({answer.topology_error or 'no reason told'}): no leak is found"
            found.append(Found(Severity.NOTE, f"topology {node.name}", words, mend))
            continue
        texts[node.name] = answer.topology_text
        try:
            versions[node.name] = version(answer.node.version or "")
        except ConfigError:
            continue  # not known: then it is taken for one that knows all keys
    return Told(tuple(found), texts, versions)
