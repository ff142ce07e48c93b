"""What the file may say of agents, gates on producers' own hosts, and relays; what is refused, what is warned of."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import asyncssh
import config_files
import pytest
from config_files import GATELESS, PROXIED, accepted, refused
from config_files import HOST_KEY as HOST

from failover.config import InvalidConfig
from failover.model import Address, Agent, Gate, GateKind, Nudge, Power, Relay

ARMOUR = "-----{} OPENSSH PRIVATE KEY-----".format("BEGIN")  # the first line of a private key
HOSTED = config_files.HOSTED.replace("HOST_KEY", HOST)
AN_AGENT = f'  - {{name: a0, address: "a0:22", key_file: AGENT_KEY, host_key: "{HOST}"}}\n'
RELAYS = (
    HOSTED.replace("producers:\n", AN_AGENT.replace("a0", "r1") + "producers:\n")
    + """\
relays:
  - {name: relay-1, address: "10.0.3.1:3001", agent: r1}
"""
)
PROXY = "proxies: [{name: p, socket: /run/p.sock, backend: b}]\n"
POWER = 'power: {off: [/bin/ipmi, "off"], status: [/bin/ipmi, status]}'
MAIN = "gates: [forging]}\n  - {name: backup"  # what stands at the end of main's line
BACKUP = "agent: bp2, gates: [forging]"
BOTH = "gates: [forging]"


@pytest.fixture(scope="module", name="key")
def agents_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key as ssh-keygen writes it."""
    return config_files.agent_key(tmp_path_factory.mktemp("keys"))


def main(text: str) -> str:
    """The file in which main has this instead of its agent and gate."""
    return HOSTED.replace("agent: bp1, gates: [forging]", text)


# ---------------------------------------------------------------- what is accepted


def test_a_pool_whose_only_gate_is_forging_needs_no_proxy(key: Path) -> None:
    pool = accepted(HOSTED, key).pool
    assert pool.proxies == ()
    assert not pool.gateless
    assert pool.host_gates == (Gate("forging", "main"), Gate("forging", "backup"))
    assert pool.agents[0] == Agent("bp1", Address("10.0.1.10", 22), key, "failover", HOST, None)
    assert [producer.agent for producer in pool.producers] == ["bp1", "bp2"]


def test_gates_are_kept_in_one_order_and_power_is_the_last(key: Path) -> None:
    power = (
        "power: {off: [/bin/p, 'off'], status: [/bin/p], on: [/bin/p, 'on']}, metrics: 'http://10.0.1.10:12798/metrics'"
    )
    text = HOSTED.replace(BOTH, f"gates: [firewall, forging], {power}", 1).replace(
        BACKUP, "agent: bp2, gates: [forging, firewall]"
    )
    producer, backup = accepted(text, key).pool.producers
    assert producer.gates == (GateKind.FORGING, GateKind.FIREWALL, GateKind.POWER)
    assert backup.gates == (GateKind.FORGING, GateKind.FIREWALL)
    assert producer.power == Power(("/bin/p", "off"), ("/bin/p",), ("/bin/p", "on"))
    assert (producer.metrics, backup.metrics) == ("http://10.0.1.10:12798/metrics", None)


def test_gates_on_hosts_stand_beside_proxies_and_on_one_producer_alone(key: Path) -> None:
    pool = accepted(HOSTED.replace(f", {BACKUP}", f", {POWER}") + PROXY, key).pool
    assert pool.host_gates == (Gate("forging", "main"), Gate("power", "backup"))
    assert [proxy.name for proxy in pool.proxies] == ["p"]


def test_a_relay_is_managed_where_it_has_an_agent_and_nobody_says_otherwise(key: Path) -> None:
    reached = "managed: true, restart: sighup, producers: {backup: '203.0.113.20:6000', main: 'main.example:6000'}"
    text = RELAYS.replace("agent: r1}", f"agent: r1, {reached}}}") + '  - {name: relay-2, address: "10.0.3.2:3001"}\n'
    first, second = accepted(text, key).pool.relays
    producers = {"main": Address("main.example", 6000), "backup": Address("203.0.113.20", 6000)}
    assert first == Relay("relay-1", Address("10.0.3.1", 3001), "r1", True, producers, Nudge.SIGHUP)
    assert list(first.producers) == ["main", "backup"]
    assert second == Relay("relay-2", Address("10.0.3.2", 3001))
    assert accepted(RELAYS, key).pool.relays[0].managed
    assert not accepted(RELAYS.replace("agent: r1}", "agent: r1, managed: false}"), key).pool.relays[0].managed


def test_a_relay_may_double_as_the_standby(key: Path) -> None:
    text = HOSTED + 'relays: [{name: relay-2, address: "10.0.2.10:6000", agent: bp2}]\n'
    assert accepted(text, key).pool.relays[0].agent == "bp2"


def test_a_host_is_known_by_known_hosts_instead(key: Path, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"# ours\n\n[10.0.1.10]:2222 {HOST} bp1\n")
    text = HOSTED.replace(f'host_key: "{HOST}"', f"known_hosts: {known}", 1)
    agent = accepted(text, key).pool.agents[0]
    assert (agent.known_hosts, agent.host_key) == (known, None)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-rsa"])
def test_keys_of_each_kind_are_read_as_ssh_keygen_writes_them(kind: str, key: Path, tmp_path: Path) -> None:
    made = asyncssh.generate_private_key(kind, comment="root@bp1")
    private = tmp_path / "key"
    private.write_bytes(made.export_private_key("openssh"))
    private.chmod(0o600)
    public = made.export_public_key("openssh").decode().strip()
    assert len(public.split()) == 3
    agent = accepted(HOSTED.replace(HOST, public), private).pool.agents[0]
    assert agent.host_key == " ".join(public.split()[:2])
    if kind == "ssh-rsa":
        modern = HOSTED.replace(HOST, public.replace("ssh-rsa", "rsa-sha2-512"))
        assert accepted(modern, private).pool.agents[0].host_key == agent.host_key


@pytest.mark.parametrize(
    "text",
    [
        HOSTED + "fence: {require: confirmed}\n",
        HOSTED + PROXY + "fence: {require: confirmed}\n",
        HOSTED + PROXY + "fence: {require: confirmed, proxies_are_only_path: true}\n",
        HOSTED.replace(f", {BACKUP}", f", {POWER}") + PROXY + "fence: {require: confirmed}\n",
        HOSTED.replace(f", {BACKUP}", "")
        + PROXY.replace("backend: b", "backend: b, hard_stop_after: 5s")
        + "fence: {require: confirmed, proxies_are_only_path: true}\n",
    ],
    ids=[
        "forging alone",
        "beside proxies without a bound",
        "beside the only path without a bound",
        "power",
        "proxies for one",
    ],
)
def test_confirmed_takes_for_each_producer_one_kind_that_truly_fences(text: str, key: Path) -> None:
    assert accepted(text, key).pool.fence.require == "confirmed"


# ---------------------------------------------------------------- values that are wrong by themselves

CUT = HOST[:-8]
RELAY = 'relays: [{name: relay-1, address: "10.0.3.1:3001", X}]\n'


def host_key(text: str) -> str:
    return HOSTED.replace(f'"{HOST}"', text, 1)


def command(text: str) -> str:
    return main(f"agent: bp1, gates: [forging], power: {{off: {text}, status: [/bin/p]}}")


VALUES: dict[str, tuple[str, str]] = {
    "agents is a mapping": ("agents: {}\n" + PROXIED, "agents: is a mapping, not a list. Mend: write one line with -"),
    "agent without a key": (
        HOSTED.replace("key_file: AGENT_KEY, ", "", 1),
        'agents[0].key_file: is missing. Mend: add it, for example key_file: "/etc/failover/agent.key".',
    ),
    "agent without a port": (
        HOSTED.replace("10.0.1.10:22", "10.0.1.10"),
        "agents[0].address: '10.0.1.10': has no port",
    ),
    "user": (
        HOSTED.replace("{name: bp1,", "{name: bp1, user: fail over,"),
        "agents[0].user: 'fail over': cannot be the",
    ),
    "user empty": (
        HOSTED.replace("{name: bp1,", "{name: bp1, user: '',"),
        "agents[0].user: is empty, not a user's name",
    ),
    "key file relative": (HOSTED.replace("AGENT_KEY", "agent.key", 1), "agents[0].key_file: is not an absolute path"),
    "unknown key of an agent": (
        HOSTED.replace("{name: bp1,", "{name: bp1, keyfile: x,"),
        "the key is unknown. Mend: did you mean key_file?",
    ),
    "host key without a type": (
        host_key(HOST.split()[1]),
        "agents[0].host_key: is not a host's key: its type is none of ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-",
    ),
    "host key of ssh-keyscan": (
        host_key(f'"10.0.1.10 {HOST}"'),
        "its type is not the first word; a host's name stands",
    ),
    "host key without base64": (host_key("ssh-ed25519"), "is not a host's key: the base64 is missing"),
    "host key is a fingerprint": (host_key("'SHA256:abc x'"), "is not a host's key: it is a fingerprint"),
    "host key of an old type": (host_key("ssh-dss AAAAB3NzaC1kc3M="), "its type is none of ssh-ed25519"),
    "host key cut": (host_key(f'"{CUT}"'), "agents[0].host_key: is damaged: "),
    "host key not base64": (host_key('"ssh-ed25519 !!!"'), "is damaged: its second word is no key in base64"),
    "host key of another type": (
        host_key(f'"ssh-rsa {HOST.split()[1]}"'),
        "is damaged: it is called ssh-rsa, and is something else inside",
    ),
    "host key too long": (host_key('"ssh-rsa ' + "A" * 4100 + '"'), "is longer than 4096 characters"),
    "host key is a number": (host_key("1"), "agents[0].host_key: is a number, not a host's key"),
    "host key is private": (host_key(f"'{ARMOUR} x'"), "is a private key, which is never"),
    "known_hosts empty": (HOSTED.replace(f'host_key: "{HOST}"', "known_hosts: ", 1), "agents[0].known_hosts: is empty"),
    "gate unknown": (main("agent: bp1, gates: [forge]"), "producers[0].gates[0]: 'forge': must be forging or firewall"),
    "gate power": (
        main("agent: bp1, gates: [power]"),
        "producers[0].gates[0]: 'power': is a gate by its commands, and the agent has none. Mend: remove it here, and "
        "write power: below the producer",
    ),
    "gate haproxy": (main("agent: bp1, gates: [haproxy]"), "must be forging or firewall"),
    "gates is a word": (main("agent: bp1, gates: forging"), "producers[0].gates: 'forging': is text, not a list"),
    "gates without value": (main("agent: bp1, gates: "), "producers[0].gates: is empty. Mend: write a value, or leave"),
    "gate is a list": (main("agent: bp1, gates: [[forging]]"), "producers[0].gates[0]: is a list, not a word"),
    "power is text": (main("power: 'off'"), "producers[0].power: 'off': is text, not a mapping of keys to values"),
    "power without status": (
        main("agent: bp1, gates: [forging], power: {off: [/bin/p]}"),
        'producers[0].power.status: is missing. Mend: add it, for example status: [/usr/bin/ipmitool, -H, "10.0.9.1"',
    ),
    "power with on alone": (
        command("[/bin/q], on: "),
        "producers[0].power.on: is empty. Mend: write a value, or leave",
    ),
    "power unknown key": (command("[/bin/q], reset: [/bin/r]"), "producers[0].power.reset: the key is unknown"),
    "command is text": (
        command("'/bin/ipmi off'"),
        "producers[0].power.off: is text, not a list of words. Mend: write",
    ),
    "command empty": (command("[]"), "producers[0].power.off: is empty, not a list of words"),
    "command relative": (command("[ipmitool]"), "producers[0].power.off: does not begin with an absolute path"),
    "command with a number": (command("[/bin/q, -p, 623]"), "has a number at [2], not a word. Mend: put it in quotes"),
    "command with a list": (command("[/bin/q, [a]]"), "has a list at [1], not a word"),
    "command with lines": (command('[/bin/q, "a\\nb"]'), "has something else than a word at [1]"),
    "command with an empty word": (command('[/bin/q, ""]'), "has something else than a word at [1]"),
    "command with a long word": (command(f"[/bin/q, {'a' * 257}]"), "has something else than a word at [1]"),
    "command with many words": (command(f"[/bin/q{', a' * 32}]"), "has 33 words, and at most 32 are allowed"),
    "metrics without scheme": (
        main("metrics: '10.0.1.10:12798'"),
        "producers[0].metrics: '10.0.1.10:12798': must be http",
    ),
    "metrics with a query": (main("metrics: 'http://h/m?x=1'"), "producers[0].metrics: has a query or fragment"),
    "metrics with a blank": (main("metrics: 'http://h/a b'"), "has signs in its path that do not belong there"),
    "relay without an address": (HOSTED + "relays: [{name: r}]\n", "relays[0].address: is missing"),
    "managed is a word": (
        HOSTED + RELAY.replace("X", "managed: yes"),
        "relays[0].managed: 'yes': is text, not true or",
    ),
    "managed without value": (HOSTED + RELAY.replace("X", "managed: "), "relays[0].managed: is empty"),
    "restart": (HOSTED + RELAY.replace("X", "restart: always"), "'always': must be never, sighup or restart"),
    "relay's producers": (
        HOSTED + RELAY.replace("X", "producers: main"),
        "relays[0].producers: 'main': is text, not a m",
    ),
    "relay's producer": (
        HOSTED + RELAY.replace("X", "producers: {main: x}"),
        "relays[0].producers.main: 'x': has no port",
    ),
    "relay's producer empty": (
        HOSTED + RELAY.replace("X", "producers: {main: }"),
        "relays[0].producers.main: is empty",
    ),
    "metrics at the top": (HOSTED + "metrics: 'http://h/'\n", "metrics: not supported by this version"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_is_wrong_by_itself_is_refused_in_its_own_words(case: str, key: Path) -> None:
    text, words = VALUES[case]
    message = refused(text, key)
    assert words in message
    assert message.count("\n") == 0, "one mistake makes one finding"
    assert "Input should" not in message
    assert "Mend: " in message


# ---------------------------------------------------------------- values that do not go together

CONFIRMED = "fence: {require: confirmed}\n"
RULES: dict[str, tuple[str, str]] = {
    "same agent name": (
        HOSTED.replace("name: bp2", "name: bp1").replace("agent: bp2, ", "agent: bp1, "),
        "agents[1].name",
    ),
    "same agent": (
        HOSTED.replace("10.0.2.10:22", "10.0.1.10:22"),
        "agents[1].address: '10.0.1.10:22': the same address as agents[0]. Mend: give each its own",
    ),
    "neither host key": (
        HOSTED.replace(f', host_key: "{HOST}"', "", 1),
        "agents[0]: has neither host_key nor known_hosts: whoever answers there would be believed",
    ),
    "both host keys": (
        HOSTED.replace("key_file: AGENT_KEY", "key_file: AGENT_KEY, known_hosts: KNOWN", 1),
        "has both host_key and known_hosts. Mend: keep one of them",
    ),
    "eighty-one agents": (
        RELAYS.replace("agents:\n", "agents:\n" + "".join(AN_AGENT.replace("a0", f"a{i}") for i in range(78))),
        "agents: there are 81, and at most 80 are allowed",
    ),
    "sixty-five relays": (
        HOSTED + "relays:\n" + "".join(f'  - {{name: r{i}, address: "r{i}:3001"}}\n' for i in range(65)),
        "relays: there are 65, and at most 64 are allowed",
    ),
    "agent unknown": (
        main("agent: bp9, gates: [forging]"),
        "producers[0].agent: 'bp9': is not one of agents. Mend: the agents are bp1, bp2: correct the name, or add it",
    ),
    "relay called like a producer": (
        HOSTED + 'relays: [{name: main, address: "198.51.100.20:3001"}]\n',
        "relays[0].name: 'main': is also the name of a producer, which is another node (10.0.1.10:6000)",
    ),
    "relay's agent unknown": (HOSTED + RELAY.replace("X", "agent: r9"), "relays[0].agent: 'r9': is not one of agents"),
    "no agents at all": (PROXIED.replace('00"}', '00", agent: bp1}', 1), "is not one of agents. Mend: there are none"),
    "producers share an agent": (
        HOSTED.replace("agent: bp2", "agent: bp1"),
        "producers[1].agent: 'bp1': the same agent as producers[0], and an agent has one node on its host",
    ),
    "relays share an agent": (
        RELAYS + '  - {name: relay-2, address: "10.0.3.2:3001", agent: r1}\n',
        "relays[1].agent: 'r1': the same agent as relays[0]",
    ),
    "gates without an agent": (
        main("gates: [forging]"),
        "producers[0].gates: needs an agent: it is the agent that opens and closes them. Mend: add agent",
    ),
    "no gates": (
        HOSTED.replace(BOTH, "gates: []", 1) + PROXY,
        "producers[0].gates: is empty. Mend: write [forging], or",
    ),
    "a gate twice": (
        HOSTED.replace(BOTH, "gates: [forging, forging]", 1),
        "producers[0].gates[1]: 'forging': is written twice",
    ),
    "off by asking": (
        command("[/bin/p]"),
        "producers[0].power.status: is the same command as off. Mend: write a command",
    ),
    "on by asking": (command("[/bin/q], on: [/bin/p]"), "producers[0].power.on: is the same command as status"),
    "same metrics": (
        HOSTED.replace(BOTH, f"{BOTH}, metrics: 'http://h:1/m'"),
        "producers[1].metrics: 'http://h:1/m': the same metrics as producers[0]",
    ),
    "proxy forging": (
        PROXIED.replace("proxy-1", "forging"),
        "proxies[0].name: 'forging': is the name of a kind of gate",
    ),
    "proxy firewall": (
        PROXIED.replace("proxy-1", "firewall"),
        "proxies[0].name: 'firewall': is the name of a kind of gate",
    ),
    "proxy power": (
        PROXIED.replace("proxy-1", "power"),
        "proxies[0].name: 'power': is the name of a kind of gate on a",
    ),
    "no gate on one": (
        HOSTED.replace(BACKUP, "agent: bp2"),
        "producers[1]: has no gate, and there is no proxy: it could never be shut out. Mend: add gates: [forging] and",
    ),
    "power alone": (
        HOSTED.replace(f", {BACKUP}", f", {POWER}"),
        "producers[1].power: its only gate is power, and there is no proxy: while it is off it cannot be pinged, nor "
        "follow the chain, nor take over. Mend: add gates: [forging] and its agent; or add proxies.",
    ),
    "other gates": (
        HOSTED.replace(BACKUP, "agent: bp2, gates: [firewall]"),
        "producers[1].gates: has other gates than main (forging), and there is no proxy. Mend: write the same gates",
    ),
    "more gates": (
        HOSTED.replace(BACKUP, "agent: bp2, gates: [forging, firewall]"),
        "has other gates than main (forging)",
    ),
    "agents and no gate": (
        HOSTED.replace(f", {BOTH}", ""),
        "proxies: there is no proxy: nothing could shut a producer out. Mend: add proxies, at least one; or give each "
        "producer gates: [forging] and an agent; or add records",
    ),
    "none with a gate on a host": (
        HOSTED + "fence: {require: none}\n",
        "fence.require: 'none': main has gates on its own host. Mend: remove it, or write reachable or confirmed",
    ),
    "none with power": (
        GATELESS.replace('00"}', f'00", {POWER}}}', 1),
        "fence.require: 'none': main has gates on its own",
    ),
    "no such path": (
        HOSTED + "fence: {proxies_are_only_path: true}\n",
        "fence.proxies_are_only_path: true: there is no proxy, and so no such path. Mend: remove it.",
    ),
    "confirmed by nothing": (
        PROXIED + CONFIRMED,
        "fence.require: 'confirmed': no gate could ever confirm: proxies do so only where proxies_are_only_path is "
        "true. Mend: give each producer gates: [forging] and an agent; or set proxies_are_only_path: true if",
    ),
    "confirmed for one": (
        HOSTED.replace(f", {BACKUP}", "") + PROXY + CONFIRMED,
        "fence.require: 'confirmed': nothing could ever confirm for backup: it has no gate on its own host, and",
    ),
    "confirmed for one without a bound": (
        HOSTED.replace(f", {BACKUP}", "") + PROXY + "fence: {require: confirmed, proxies_are_only_path: true}\n",
        "proxies[0]: has no hard_stop_after: after a reload nothing could be confirmed any more",
    ),
    "managed without an agent": (
        HOSTED + RELAY.replace("X", "managed: true"),
        "relays[0].managed: true: has no agent, and it is the agent that ends sessions. Mend: add agent, the name",
    ),
    "restart without an agent": (
        HOSTED + RELAY.replace("X", "restart: restart"),
        "relays[0].restart: 'restart': has no effect on a relay that is not managed",
    ),
    "restart of a relay that is watched": (
        RELAYS.replace("agent: r1}", "agent: r1, managed: false, restart: sighup}"),
        "relays[0].restart: 'sighup': has no effect on a relay that is not managed. Mend: remove it; or add agent",
    ),
    "same relay name": (
        RELAYS + '  - {name: relay-1, address: "r:1"}\n',
        "relays[1].name: 'relay-1': the same name as",
    ),
    "same relay address": (
        RELAYS + '  - {name: r, address: "10.0.3.1:3001"}\n',
        "relays[1].address: '10.0.3.1:3001': the same",
    ),
    "relay at a producer with another agent": (
        RELAYS.replace("10.0.3.1:3001", "10.0.2.10:6000"),
        "relays[0].address: '10.0.2.10:6000': is where producer backup listens, and its agent is another. Mend: a "
        "relay that doubles as a producer has the same address and agent",
    ),
    "relay's producer unknown": (
        HOSTED + RELAY.replace("X", 'producers: {third: "203.0.113.1:1"}'),
        "relays[0].producers.third: '203.0.113.1:1': is not a producer of this pool. Mend: the producers are main",
    ),
    "relay's producers the same": (
        HOSTED + RELAY.replace("X", 'producers: {main: "203.0.113.1:1", backup: "203.0.113.1:1"}'),
        "relays[0].producers.backup: '203.0.113.1:1': the same address as that of main: whom the relay is connected to",
    ),
    "relay's producers exchanged": (
        HOSTED + RELAY.replace("X", 'producers: {main: "10.0.2.10:6000"}'),
        "relays[0].producers.main: '10.0.2.10:6000': the same address as that of backup",
    ),
    "record exchanged": (
        HOSTED
        + "records: [{name: bp.example.com, addresses: {main: 10.0.2.10, backup: 1.2.3.4}, route53: {zone: Z1}}]\n",
        "records[0].addresses.main: '10.0.2.10': is where backup listens. Mend: write the address of main; are the two",
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_values_that_do_not_go_together_are_refused_in_their_own_words(case: str, key: Path, tmp_path: Path) -> None:
    (known := tmp_path / "known_hosts").write_text(f"* {HOST}\n")
    text, words = RULES[case]
    message = refused(text.replace("KNOWN", str(known)), key)
    assert words in message
    assert len(message.splitlines()) == (2 if case == "same agent name" else 1), message


def test_a_wrong_agent_hides_nothing_of_the_rest(key: Path) -> None:
    text = RELAYS.replace("10.0.1.10:22", "10.0.1.10").replace("agent: r1", "agent: r1, restart: go") + "mode: x\n"
    places = [line.split(": ")[1] for line in refused(text, key).splitlines()]
    assert places == ["agents[0].address", "relays[0].restart", "mode"]


# ---------------------------------------------------------------- keys


def private(kind: str = "ssh-ed25519", form: str = "openssh") -> str:
    made: bytes = asyncssh.generate_private_key(kind).export_private_key(form)
    return made.decode()


def edited(before: bytes, after: bytes) -> str:
    """A private key in which the first occurrence of some bytes is replaced."""
    lines = private().splitlines()
    blob = base64.b64decode("".join(lines[1:-1]))
    assert before in blob
    return "\n".join((lines[0], base64.b64encode(blob.replace(before, after, 1)).decode(), lines[-1]))


def unequal() -> str:
    """A private key whose two check numbers, which follow the public key and a length, differ."""
    lines = private().splitlines()
    blob = bytearray(base64.b64decode("".join(lines[1:-1])))
    at = blob.index(b"\0\0\0\x33\0\0\0\x0bssh-ed25519") + 4 + 0x33 + 4
    assert blob[at : at + 4] == blob[at + 4 : at + 8]
    blob[at] ^= 1
    return "\n".join((lines[0], base64.b64encode(blob).decode(), lines[-1]))


KEYS: dict[str, tuple[Callable[[], str], str]] = {
    "unequal": (unequal, "the private key is damaged"),
    "empty": (lambda: "", "the file is empty. Mend: make one for this alone: ssh-keygen -t ed25519 -N '' -f FILE."),
    "blank": (lambda: " \n\n", "the file is empty"),
    "protected": (
        lambda: edited(b"\0\0\0\4none", b"\0\0\0\x0aaes256-ctr"),
        "the key is protected by a passphrase, and nobody is there to type it. Mend: make one for this alone",
    ),
    "public": (lambda: HOST, "is a public key. Mend: give the path of the private one, without .pub."),
    "PEM": (
        lambda: private("ecdsa-sha2-nistp256", "pkcs8-pem"),
        "is a private key in another format than OpenSSH's. Mend: convert it: ssh-keygen -p -N '' -f FILE",
    ),
    "another": (lambda: "hunter2\n", "is not a private key of OpenSSH"),
    "cut": (lambda: "\n".join(private().splitlines()[:-2]), "the private key is damaged"),
    "a line less": (lambda: "\n".join(line for i, line in enumerate(private().splitlines()) if i != 2), "is damaged"),
    "not base64": (lambda: private().replace("b3Bl", "b3B!"), "the private key is damaged"),
    "another number": (lambda: edited(b"\0\0\0\1\0\0\0\x33", b"\0\0\0\2\0\0\0\x33"), "the private key is damaged"),
    "of a token": (
        lambda: edited(b"\0\0\0\x33\0\0\0\x0bssh-ed25519", b"\0\0\0\x33\0\0\0\x0bsk-ssh-ed25"),
        "the key is of a kind that cannot be used here",
    ),
    "large": (lambda: private() + "\n" * 20_000, "the file is larger than 16384 bytes"),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_private_key_that_cannot_be_used_is_refused_once_and_not_shown(case: str, tmp_path: Path) -> None:
    make, words = KEYS[case]
    text, file = make(), tmp_path / "agent.key"
    file.write_text(text)
    file.chmod(0o600)
    message = refused(HOSTED, file)
    assert f"agents[0].key_file: '{file}': " in message
    assert words in message
    assert message.count("\n") == 0, "both agents name it"
    assert not any(len(line) > 20 and line in message for line in text.splitlines() if "-----" not in line)
    assert "hunter2" not in message


def test_a_private_key_is_its_owners_alone_and_there(tmp_path: Path) -> None:
    file = tmp_path / "agent.key"
    assert "agents[0].key_file: " in (missing := refused(HOSTED, file))
    assert "there is no such file" in missing
    file.write_text(private())
    file.chmod(0o640)
    assert f"others can read the file (mode 0640). Mend: chmod 600 {file}." in refused(HOSTED, file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "",
            "there is no host's key in it. Mend: write the host's line into it: ssh-keyscan -t ed25519 HOST prints it",
        ),
        ("# bp1\n@revoked * ssh-ed25519 AAAA\n", "there is no host's key in it"),
        ("bp1 ssh-ed25519\n", "there is no host's key in it"),
        ("bp1 ssh-ed25519 !!!!\n", "there is no host's key in it"),
        (None, "there is no such file"),
    ],
)
def test_known_hosts_without_a_key_is_refused(text: str | None, words: str, key: Path, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    if text is not None:
        known.write_text(text)
    message = refused(HOSTED.replace(f'host_key: "{HOST}"', f"known_hosts: {known}", 1), key)
    assert f"agents[0].known_hosts: '{known}': " in message
    assert words in message


@pytest.mark.parametrize("start", ["", "|1|c2FsdA==|aGFzaA== ", "@cert-authority "])
def test_known_hosts_may_be_hashed_or_name_an_authority(start: str, key: Path, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"{start}{'' if '|' in start else '*.example '}{HOST}\n")
    assert accepted(HOSTED.replace(f'host_key: "{HOST}"', f"known_hosts: {known}", 1), key).pool.agents[0].known_hosts


# ---------------------------------------------------------------- what is never shown

BLOCK = f"|\n      {ARMOUR}\n      hunter2hunter2\n"
SECRETS = [
    command("[/usr/bin/ipmitool, -U, admin, -P, hunter2, power, 'off']"),
    command("[/usr/bin/sudo, /usr/bin/ipmitool, -Phunter2, power, 'off']"),
    command("[/usr/sbin/ipmipower, -p, hunter2, --off]"),
    command("[/usr/bin/fence_ipmilan, --password, hunter2]"),
    command("[/usr/bin/fence_ipmilan, --password=hunter2]"),
    command("[/usr/bin/curl, 'https://admin:hunter2@bmc/off']"),
    command("[/usr/bin/curl, -H, 'Authorization: Bearer hunter2']"),
    command("[/usr/bin/curl, 'token=hunter2']"),
    command("[hunter2]"),
    command("hunter2"),
    command("[/bin/q, [hunter2]]"),
    command('[/bin/q, "hunter2\\n"]'),
    command("[/bin/q], password: hunter2"),
    HOSTED.replace("key_file: AGENT_KEY", "private_key: hunter2", 1),
    HOSTED.replace("key_file: AGENT_KEY", "passphrase: hunter2, key_file: AGENT_KEY", 1),
    HOSTED.replace("key_file: AGENT_KEY", "key: hunter2", 1),
    HOSTED.replace("key_file: AGENT_KEY", "key_file: hunter2", 1),
    HOSTED.replace("key_file: AGENT_KEY", 'key_file: "hunter2\\nhunter2"', 1),
    HOSTED.replace("{name: bp1,", "{name: bp1, user: 'failover:hunter2',"),
    host_key("hunter2"),
    host_key(f'"{ARMOUR}\\nhunter2"'),
    host_key("'ssh-ed25519 hunter2'"),
    main("metrics: 'http://u:hunter2@h/metrics'"),
    main("metrics: 'http://h/metrics?token=hunter2'"),
    "agents:\n  - name: bp1\n    key_file: " + BLOCK + HOSTED[HOSTED.index("producers:") :],
    "agents:\n  - name: " + BLOCK + HOSTED[HOSTED.index("producers:") :],
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_in_the_file_is_refused_and_not_shown(text: str, key: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        accepted(text, key)
    assert "hunter2" not in f"{caught.value} {caught.value.findings} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    "words",
    [
        "[/usr/bin/ipmitool, -f, /etc/failover/ipmi.password, power, 'off']",
        "[/usr/bin/fence_ipmilan, --password-script=/etc/failover/password]",
        "[/usr/bin/curl, --netrc-file, /etc/failover/secret, 'https://bmc/off']",
        "[/opt/failover/token/off]",
        "[/usr/bin/ssh, -P, hypervisor]",
        "[/usr/bin/ipmitool, -p, '623', power, 'off']",
    ],
)
def test_a_file_with_a_password_may_be_named_in_a_command(words: str, key: Path) -> None:
    assert accepted(command(words), key).pool.producers[0].power is not None


def test_a_password_in_a_command_is_sent_to_where_it_belongs(key: Path) -> None:
    message = refused(SECRETS[0], key)
    assert "producers[0].power.off: has a password among its words, which everybody on this machine can see" in message
    assert "Mend: give a password by a file that the command reads, as in ipmitool -f FILE." in message
    assert "as in ipmitool -f FILE" in refused(command("[/bin/q], password: x"), key)
    assert "give the path of a private key without a passphrase (key_file)" in refused(
        HOSTED.replace("key_file: AGENT_KEY", "private_key: x, key_file: AGENT_KEY", 1), key
    )


# ---------------------------------------------------------------- warnings


def warned(text: str, key: Path) -> list[str]:
    return [f"{w.key}: {w.problem}. Mend: {w.mend}" for w in accepted(text, key).warnings]


RECORD = "records: [{name: bp.example.com, addresses: {main: 10.0.1.10, backup: 10.0.2.10}, route53: {zone: Z1}}]\n"
MANAGED = f"""\
agents: [{{name: r1, address: "10.0.3.1:22", key_file: AGENT_KEY, host_key: "{HOST}"}}]
relays: [{{name: relay-1, address: "10.0.3.1:3001", agent: r1}}]
"""
WARNINGS: dict[str, tuple[str, str, str]] = {
    "an agent of nobody": (
        RELAYS.replace(", agent: r1}", "}"),
        RELAYS,
        "agents[2]: no producer and no relay has this agent, so it is never asked. Mend: write agent: NAME below",
    ),
    "no forging on one": (
        HOSTED.replace(f", {BACKUP}", "").replace("  - {name: bp2", "  # {name: bp2") + PROXY,
        HOSTED + PROXY,
        "producers[1]: has no forging gate, and main has one: it cannot be made to stop, only shut out. Mend: add",
    ),
    "no forging on any": (
        HOSTED.replace(BACKUP, "agent: bp2, gates: [firewall]") + PROXY,
        HOSTED.replace(BOTH, "gates: [firewall]") + PROXY,
        "has no forging gate",
    ),
    "a relay as reference": (
        RELAYS + "references: ['10.0.3.1:3001', 'b:1']\n",
        RELAYS + "references: ['a:1', 'b:1']\n",
        "references[0]: is the address of our relay relay-1, which may fail together with us",
    ),
    "around the proxies": (
        PROXIED + RECORD,
        HOSTED + PROXY + RECORD,
        "relays that use this name go around the proxies, and no gate shuts anyone out there",
    ),
    "direct": (PROXIED + RECORD, HOSTED + RECORD, "go around the proxies"),
    "by hand": (GATELESS, GATELESS + MANAGED, "it goes back only by hand. Mend: go back with `failover switchover"),
    "stays": (GATELESS, GATELESS + MANAGED, "relays that are connected to the old producer stay with it"),
    "no effect": (
        GATELESS + "policy: {fail_back: auto}\n",
        GATELESS + MANAGED + "policy: {fail_back: auto}\n",
        "policy.fail_back: has no effect: a pool without a gate goes back only by hand, unless all its relays are",
    ),
    "a relay that is only watched": (
        GATELESS + MANAGED.replace("agent: r1}", "agent: r1, managed: false}"),
        GATELESS + MANAGED,
        "it goes back only by hand",
    ),
    "not by gates on hosts": (GATELESS, HOSTED, "nothing can shut a producer out"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_a_warning_is_given_where_it_is_due_and_only_there(case: str, key: Path) -> None:
    due, without, words = WARNINGS[case]
    assert any(words in warning for warning in warned(due, key)), warned(due, key)
    assert not any(words in warning for warning in warned(without, key))


def test_the_largest_pool_fits_into_the_bounds_of_the_text(key: Path) -> None:
    words = "[/bin/" + "a" * 250 + ", " + ", ".join(f"w{i}" for i in range(31)) + "]"
    power = f"power: {{off: {words}, status: {words[:-1].replace('w0', 'x0')}], on: {words[:-1].replace('w0', 'y0')}]}}"
    names = [f"p{i}" for i in range(16)]
    at = {name: f"203.0.113.{i}" for i, name in enumerate(names)}
    reached = ", ".join(f'{name}: "{address}:6000"' for name, address in at.items())
    metrics = 'metrics: "http://10.0.0.1:12798/metrics"'
    agent = f'user: failover, key_file: AGENT_KEY, host_key: "{HOST}"'
    text = "pool: EXMPL\nnetwork: mainnet\nagents:\n"
    text += "".join(f'  - {{name: a{i}, address: "10.0.{i}.1:22", {agent}}}\n' for i in range(80))
    text += "producers:\n" + "".join(
        f'  - {{name: p{i}, address: "10.0.{i}.1:6000", site: s, agent: a{i}, gates: [forging, firewall], {power}, '
        f"{metrics.replace('0.1:', f'{i}.1:')}}}\n"
        for i in range(16)
    )
    text += "relays:\n" + "".join(
        f'  - {{name: r{i}, address: "10.1.{i}.1:3001", agent: a{16 + i}, managed: true, restart: never, '
        f"producers: {{{reached}}}}}\n"
        for i in range(64)
    )
    servers = ", ".join(f"{name}: {name}" for name in names)
    text += "proxies:\n" + "".join(
        f"  - {{name: x{i}, stats: 'http://10.2.{i}.1/stats', backend: b, watch: w, hard_stop_after: 5s, "
        f"servers: {{{servers}}}}}\n"
        for i in range(64)
    )
    targets = ", ".join(f"{name}: {address}" for name, address in at.items())
    text += "records:\n" + "".join(
        f"  - {{name: r{i}.example.com, addresses: {{{targets}}}, ttl: 60, route53: {{zone: Z1, profile: p}}, "
        f"verify: {{servers: [{', '.join(f'10.0.0.{j}' for j in range(1, 17))}]}}}}\n"
        for i in range(16)
    )
    pool = accepted(text, key).pool
    assert (len(pool.agents), len(pool.relays), len(pool.host_gates)) == (80, 64, 48)
