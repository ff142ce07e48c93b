"""The file's agents, the gates on producers' own hosts, and relays: what must hold, what deserves a warning, building.

Only ``files`` reads anything: what agents name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from failover.config import scalars, secret, ssh
from failover.config.document import Location
from failover.config.parts import Parts, Problem
from failover.config.regular import Unreadable
from failover.config.shape import AgentPart, PowerPart, ProducerPart, RelayPart
from failover.model import Address, Agent, GateKind, Nudge, Power, Producer, Relay

_LISTED = 16  # names that a mend lists
_STOPPING = "gates: [forging] and its agent"


def kinds(producer: ProducerPart) -> tuple[GateKind, ...]:
    """The gates on the producer's own host, always in the same order, power last."""
    listed = producer.gates or ()
    power = (GateKind.POWER,) if producer.power is not None else ()
    return (*(kind for kind in GateKind if kind in listed), *power)


# ---------------------------------------------------------------- problems


def problems(parts: Parts) -> Iterator[Problem]:
    """Everything that does not hold within and between agents, producers' gates and relays."""
    agents: Sequence[AgentPart | None] = parts.values.get("agents", [None])
    producers: Sequence[ProducerPart | None] = parts.values.get("producers", [])
    relays: Sequence[RelayPart | None] = parts.values.get("relays", [])
    for index, agent in enumerate(agents):
        if agent is not None:
            yield from _known_by(agent, ("agents", index))
    for index, producer in enumerate(producers):
        if producer is not None:
            yield from _gates(producer, ("producers", index))
    for index, relay in enumerate(relays):
        if relay is not None:
            yield from _managed(relay, ("relays", index))
            yield from _doubles(relay, producers, ("relays", index))
            if None not in producers:
                yield from _reached(relay, [p for p in producers if p is not None], ("relays", index, "producers"))
    names = None if None in agents else [agent.name for agent in agents if agent is not None]
    yield from _served(producers, "producers", names)
    yield from _served(relays, "relays", names)


def _known_by(agent: AgentPart, place: Location) -> Iterator[Problem]:
    if agent.host_key is None and agent.known_hosts is None:
        problem = "has neither host_key nor known_hosts: whoever answers there would be believed"
        mend = "add host_key, the type and base64 of the host's /etc/ssh/ssh_host_ed25519_key.pub"
        yield Problem((place,), problem, mend)
    if agent.host_key is not None and agent.known_hosts is not None:
        problem, mend = "has both host_key and known_hosts", "keep one of them; host_key is the narrower one"
        yield Problem(((*place, "known_hosts"),), problem, mend)


def _gates(producer: ProducerPart, place: Location) -> Iterator[Problem]:
    at: Location = (*place, "gates")
    if producer.gates is not None and not producer.gates:
        yield Problem((at,), "is empty", "write [forging], or leave the key out")
    if producer.gates and producer.agent is None:
        problem = "needs an agent: it is the agent that opens and closes them"
        yield Problem((at,), problem, "add agent, the name of one of agents")
    for index, gate in enumerate(producer.gates or ()):
        if gate in (producer.gates or ())[:index]:
            yield Problem(((*at, index),), "is written twice", "remove one of the two")
    if producer.power is not None:
        yield from _power(producer.power, (*place, "power"))


def _power(power: PowerPart, place: Location) -> Iterator[Problem]:
    for key, other in (("status", "off"), ("on", "off"), ("on", "status")):
        command = getattr(power, key)
        if command is not None and command == getattr(power, other):
            yield Problem(((*place, key),), f"is the same command as {other}", "write a command for each")


def _served(
    parts: Sequence[ProducerPart | RelayPart | None], section: str, names: list[str] | None
) -> Iterator[Problem]:
    """An agent is there, and serves one producer, one relay, or a node that is both. ``names``: None: not known."""
    first: dict[str, int] = {}
    for index, part in enumerate(parts):
        if part is None or part.agent is None:
            continue
        place: Location = (section, index, "agent")
        if names is not None and part.agent not in names:
            known = f"the agents are {', '.join(names[:_LISTED])}" if names else "there are none"
            yield Problem((place,), "is not one of agents", f"{known}: correct the name, or add it to agents")
        earlier = first.setdefault(part.agent, index)
        if earlier != index:
            problem = f"the same agent as {section}[{earlier}], and an agent has one node on its host"
            yield Problem((place,), problem, "give each its own host and agent")


def _managed(relay: RelayPart, place: Location) -> Iterator[Problem]:
    if relay.managed and relay.agent is None:
        mend = "add agent, the name of one of agents; or write managed: false, then it is only watched"
        yield Problem(((*place, "managed"),), "has no agent, and it is the agent that ends sessions", mend)
    if relay.restart != Nudge.NEVER and not _is_managed(relay):
        mend = "remove it; or add agent, and leave managed: true"
        yield Problem(((*place, "restart"),), "has no effect on a relay that is not managed", mend)


def _is_managed(relay: RelayPart) -> bool:
    return relay.agent is not None if relay.managed is None else relay.managed


def _doubles(relay: RelayPart, producers: Sequence[ProducerPart | None], place: Location) -> Iterator[Problem]:
    """A relay at a producer's address is that producer's node, which is on one host with one agent."""
    for producer in producers:
        if producer is None or endpoint(producer.address) != endpoint(relay.address) or producer.agent == relay.agent:
            continue
        mend = "a relay that doubles as a producer has the same address and agent as that: write the same in both"
        problem = f"is where producer {producer.name} listens, and its agent is another"
        yield Problem(((*place, "address"),), problem, mend)
    for producer in producers:
        if producer is None or producer.name != relay.name:
            continue
        if endpoint(producer.address) != endpoint(relay.address):
            problem = f"is also the name of a producer, which is another node ({producer.address})"
            yield Problem(((*place, "name"),), problem, "give each node a name of its own")


def _reached(relay: RelayPart, producers: Sequence[ProducerPart], place: Location) -> Iterator[Problem]:
    """By its address a relay's session is known as one with this producer, and no other."""
    own = relay.producers or {}
    names = [producer.name for producer in producers]
    for name in own:
        if producers and name not in names:
            listed = f"the producers are {', '.join(names[:_LISTED])}"
            yield Problem(((*place, name),), "is not a producer of this pool", listed)
    first: dict[tuple[str, int], str] = {}
    for producer in sorted(producers, key=lambda p: p.name in own):
        address = endpoint(own.get(producer.name, producer.address))
        earlier = first.setdefault(address, producer.name)
        if earlier != producer.name and producer.name in own:
            problem = f"the same address as that of {earlier}: whom the relay is connected to could not be told"
            yield Problem(((*place, producer.name),), problem, "give each producer its own address")


def without_proxies(producers: Sequence[ProducerPart]) -> Iterator[Problem]:
    """Where no proxy stands before them, each producer is shut out on its own host, by the same kinds as the others."""
    found = {producer.name: _reopening(producer) for producer in producers}
    pattern, like = next(((name, each) for name, each in found.items() if each), ("", ()))
    for index, producer in enumerate(producers):
        place: Location = ("producers", index)
        if kinds(producer) == (GateKind.POWER,):
            problem = (
                "its only gate is power, and there is no proxy: while it is off it cannot be pinged, nor follow the"
                " chain, nor take over"
            )
            yield Problem(((*place, "power"),), problem, f"add {_STOPPING}; or add proxies")
        elif not kinds(producer):
            problem = "has no gate, and there is no proxy: it could never be shut out"
            yield Problem((place,), problem, f"add {_STOPPING}; or add proxies")
        elif found[producer.name] != like:
            problem = f"has other gates than {pattern} ({', '.join(like)}), and there is no proxy"
            yield Problem(((*place, "gates"),), problem, "write the same gates for every producer; or add proxies")


def _reopening(producer: ProducerPart) -> tuple[GateKind, ...]:
    """The gates behind which a node runs on, and is ready."""
    return tuple(kind for kind in kinds(producer) if kind is not GateKind.POWER)


def unconfirmed(producers: Sequence[ProducerPart]) -> tuple[str, ...]:
    """Producers for which no gate on their own host could confirm: the proxies are all that they have."""
    return tuple(producer.name for producer in producers if not kinds(producer))


def endpoint(address: Address) -> tuple[str, int]:
    """What is equal for addresses that are the same by their writing."""
    return scalars.same_host(address.host), address.port


# ---------------------------------------------------------------- warnings


def warnings(parts: Parts) -> Iterator[Problem]:
    """What works, but not as well as it could. Only for files without problems."""
    agents: Sequence[AgentPart] = parts.values["agents"]
    producers: Sequence[ProducerPart] = parts.values["producers"]
    relays: Sequence[RelayPart] = parts.values["relays"]
    used = {producer.agent for producer in producers} | {relay.agent for relay in relays}
    for index, agent in enumerate(agents):
        if agent.name not in used:
            mend = "write agent: NAME below the producer or relay on that host, or remove it"
            yield Problem((("agents", index),), "no producer and no relay has this agent, so it is never asked", mend)
    stopped = [producer.name for producer in producers if GateKind.FORGING in kinds(producer)]
    for index, producer in enumerate(producers):
        if stopped and producer.name not in stopped:
            problem = f"has no forging gate, and {stopped[0]} has one: it cannot be made to stop, only shut out"
            yield Problem((("producers", index),), problem, f"add {_STOPPING}")
    ours = {endpoint(relay.address): relay.name for relay in relays}
    for index, reference in enumerate(parts.values["references"]):
        if endpoint(reference) in ours:
            problem = f"is the address of our relay {ours[endpoint(reference)]}, which may fail together with us"
            yield Problem((("references", index),), problem, "name a peer that is not ours")


def let_go(relays: Sequence[RelayPart]) -> bool:
    """Whether every relay that there is can be made to leave a producer."""
    return bool(relays) and all(_is_managed(relay) for relay in relays)


# ---------------------------------------------------------------- reading, building


def files(agents: Sequence[AgentPart | None]) -> Iterator[Problem]:
    """Read what agents name. A file that several name is told once, at the first of them."""
    tried: set[tuple[str, Path]] = set()
    for index, agent in enumerate(agents):
        for key, path, check in () if agent is None else _named(agent):
            if (key, path) in tried:
                continue
            tried.add((key, path))
            try:
                check(path)
            except Unreadable as error:
                yield Problem((("agents", index, key),), str(error), error.mend)


def _named(agent: AgentPart) -> Iterator[tuple[str, Path, Callable[[Path], None]]]:
    yield "key_file", agent.key_file, _private_key
    if agent.known_hosts is not None:
        yield "known_hosts", agent.known_hosts, _known_hosts


def _private_key(path: Path) -> None:
    ssh.private_key(secret.text(path, ssh.MEND, most=ssh.MOST_BYTES))


def _known_hosts(path: Path) -> None:
    ssh.known_hosts(secret.text(path, "remove what is not needed", most=ssh.MOST_KNOWN, private=False))


def agents(parts: Sequence[AgentPart]) -> tuple[Agent, ...]:
    """The agents, in the file's order."""
    return tuple(
        Agent(
            name=part.name,
            address=part.address,
            key_file=part.key_file,
            user=part.user,
            host_key=part.host_key,
            known_hosts=part.known_hosts,
        )
        for part in parts
    )


def producers(parts: Sequence[ProducerPart]) -> tuple[Producer, ...]:
    """The producers, in order of preference."""
    return tuple(
        Producer(
            name=part.name,
            address=part.address,
            site=part.site,
            agent=part.agent,
            gates=kinds(part),
            power=None if part.power is None else Power(part.power.off, part.power.status, part.power.on),
            metrics=part.metrics,
        )
        for part in parts
    )


def relays(parts: Sequence[RelayPart], names: Sequence[str]) -> tuple[Relay, ...]:
    """The relays, in the file's order; their producers in order of preference."""
    return tuple(_relay(part, part.producers or {}, names) for part in parts)


def _relay(part: RelayPart, reached: Mapping[str, Address], names: Sequence[str]) -> Relay:
    return Relay(
        name=part.name,
        address=part.address,
        agent=part.agent,
        managed=_is_managed(part),
        producers={name: reached[name] for name in names if name in reached},
        restart=Nudge(part.restart),
    )
