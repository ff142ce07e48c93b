"""The handover by hand, as lines to paste into a shell: for when the controller is dead. Reads the file, sends nothing.

The order is the controller's: close every gate of the old producer, see them closed and without a session, then open
those of the new one; then the records. Where there is no gate, the old producer's node is stopped by hand first.
Passwords and keys are read from where the file says by the shell, never printed.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failover.config.document import read
from failover.gates.power import ENVIRONMENT
from failover.model import (
    Agent,
    GateKind,
    Pool,
    Power,
    Producer,
    Proxy,
    Record,
    RecordType,
    Rfc2136Zone,
    Route53Zone,
    RRset,
)

AGENT = "/usr/local/lib/failover/agent.py"
WITHIN = 25  # seconds that an agent may take: a closed node shows that it stopped over several slots
FORGING_OR_FIREWALL = (GateKind.FORGING, GateKind.FIREWALL)


@dataclass(frozen=True, slots=True)
class Signing:
    """How nsupdate gets a TSIG key: a file that it reads itself, or a shell word that becomes the secret."""

    file: str | None = None
    secret: str = ""


def secrets(path: Path) -> Mapping[str, str]:
    """How a shell gets each proxy's password, by the proxy's name; from what the file names, not from its value."""
    root, _ = read(path.read_text(encoding="utf-8-sig"), str(path))
    found = {}
    for proxy in root.plain().get("proxies") or []:
        if "password_file" in proxy:
            found[proxy["name"]] = f'"$(cat {shlex.quote(str(proxy["password_file"]))})"'
        elif "password_env" in proxy:
            found[proxy["name"]] = f'"${proxy["password_env"]}"'
    return found


def keys(path: Path) -> Sequence[Signing | None]:
    """How nsupdate gets the key of each record, in the file's order; None where none is named."""
    root, _ = read(path.read_text(encoding="utf-8-sig"), str(path))
    return [_signing(record.get("rfc2136") or {}) for record in root.plain().get("records") or []]


_FROM_CLAUSE = """sed -n 's/.*secret[[:space:]]*"\\{0,1\\}\\([^";]*\\).*/\\1/p'"""


def _signing(part: Mapping[str, Any]) -> Signing | None:
    """A file with a key clause goes to nsupdate as it is; of a file with the secret alone the shell makes a line."""
    if "key_file" in part:
        file = shlex.quote(str(part["key_file"]))
        if "{" in Path(part["key_file"]).read_text(encoding="utf-8"):
            return Signing(file=file)
        return Signing(secret=f'"$(cat {file})"')
    if "key_env" in part:
        name = part["key_env"]
        if "{" in os.environ.get(name, ""):
            return Signing(secret=f'"$(printf \'%s\\n\' "${name}" | {_FROM_CLAUSE})"')
        return Signing(secret=f'"${name}"')
    return None


def commands(
    pool: Pool,
    to: str,
    passwords: Mapping[str, str],
    signing: Sequence[Signing | None] = (),
    held: Mapping[str, RRset | None] | None = None,
) -> list[str]:
    """The whole handover to ``to``, with a comment above each part.

    ``signing`` is for each record in order; ``held`` is what providers last held, by the record's label, as far as
    that is known.
    """
    others = pool.others(to)
    lines = [
        f"# {pool.name}: hand the role to {to}. Run on the host where the controller runs, with its rights.",
        "# Does the daemon still run? Then it would undo this: use failover switchover, or first: failover release",
    ]
    lines += _stop(pool, others) if pool.gateless else _through_gates(pool, to, passwords)
    if pool.records:
        lines += _pointing(pool, to, signing, held or {}, 2 if pool.gateless else 5)
    lines += [
        "",
        f"# When the controller is back, and {' and '.join(others)} is down: it sees what was done, and follows.",
        f"# While the one that it takes for active is up, it moves the role back: failover switchover --to {to}",
    ]
    return lines


# ---------------------------------------------------------------- nodes


def _stop(pool: Pool, others: Sequence[str]) -> list[str]:
    """Where nothing else shuts a producer out."""
    lines = [
        "",
        f"# 1. Stop the node of {' and '.join(others)} on its own host, and keep it stopped (systemctl stop",
        "#    cardano-node): there is no gate, so nothing else shuts it out, and relays that are connected to it stay",
        "#    there. Where that host cannot be reached, go on only if you know that it is dead.",
        "#    Look: every line must say that the connection is refused.",
    ]
    addresses = [p.address for p in pool.producers if p.name in others]
    lines += [f"failover ping --network-magic {pool.magic} {shlex.quote(str(address))}" for address in addresses]
    return lines


# ---------------------------------------------------------------- gates


def _through_gates(pool: Pool, to: str, passwords: Mapping[str, str]) -> list[str]:
    """Close all, look at all, open all, look: proxies and the gates on producers' own hosts alike."""
    old = [producer for producer in pool.producers if producer.name != to]
    new = next(producer for producer in pool.producers if producer.name == to)
    names = ", ".join(producer.name for producer in old)
    hosted = [p for p in pool.producers if _moved(p)]
    lines = [*_asking(pool, hosted), ""] if hosted else [""]
    lines.append(f"# 1. Close {names} {_where(pool, old)}, and end the sessions there.")
    for proxy in pool.proxies:
        lines.append(f"# {proxy.name}")
        lines.extend(_close(proxy, producer.name, passwords.get(proxy.name)) for producer in old)
    for producer in old:
        lines.extend(f"order {_ask_name(pool, producer)} close {kind.value}" for kind in reversed(_moved(producer)))
    lines += ["", *_look_closed(pool, old)]
    for proxy in pool.proxies:
        lines.extend(_look(proxy, producer.name, passwords.get(proxy.name)) for producer in old)
    lines.extend(_look_at(pool, producer) for producer in old if _moved(producer))
    for producer in old:
        lines += _off(producer)
    lines += ["", f"# 3. Open {to} {_where(pool, [new])}."]
    if new.power is not None:
        lines += _on(new, new.power)
    lines.extend(f"order {_ask_name(pool, new)} open {kind.value}" for kind in _moved(new))
    for proxy in pool.proxies:
        lines += [f"# {proxy.name}", _open(proxy, to, passwords.get(proxy.name))]
    comes = "become UP, and sessions come when the relays redial" if pool.proxies else "say open: true"
    lines += ["", f"# 4. Look: {to} must {comes}."]
    lines.extend(_look(proxy, to, passwords.get(proxy.name)) for proxy in pool.proxies)
    if _moved(new):
        lines.append(_look_at(pool, new))
    if hosted and not pool.proxies:
        lines.append(f"failover ping --network-magic {pool.magic} {shlex.quote(str(new.address))}")
    return lines


def _where(pool: Pool, producers: Sequence[Producer]) -> str:
    """In words: which gates are meant."""
    own = any(producer.gates for producer in producers)
    if pool.proxies:
        return "on every proxy" + (", and on its own host" if own else "")
    return "on its own host"


def _look_closed(pool: Pool, old: Sequence[Producer]) -> list[str]:
    if not any(_moved(producer) for producer in old):
        return [
            "# 2. Look: every line must say MAINT and 0 sessions. Do not go on before; a proxy that does not",
            "#    answer may still carry traffic: stop it, or shut its traffic out otherwise.",
        ]
    lines = ["# 2. Look: do not go on before."]
    if pool.proxies:
        lines += ["#    Every line of a proxy must say MAINT and 0 sessions; one that does not answer may still carry"]
        lines += ["#    traffic: stop it, or shut its traffic out otherwise."]
    lines += [
        "#    Every gate of an agent must say open: false, certain: true; `shown` is why, `lacks` what it misses.",
        "#    Else give the order again, and at last stop the node on its host (systemctl stop cardano-node).",
    ]
    if not any(producer.power for producer in old):
        lines.append("#    Where the host cannot be reached, go on only if you know that it is dead.")
    return lines


def _moved(producer: Producer) -> tuple[GateKind, ...]:
    """The gates that its agent opens and closes, in the order of opening."""
    return tuple(kind for kind in FORGING_OR_FIREWALL if kind in producer.gates)


# ---------------------------------------------------------------- agents

# Each order carries the numbers that the agent has heard last: so it is neither refused as an old one, nor newer than
# the controller's next. No single quotes in the programs: the shell has them.
_FUNCTIONS = """\
status='{"v":1,"verb":"status","pool":$POOL,"within":$WITHIN}'
order() {  # AGENT open|close GATE
  said=$(echo "$status" | "$1") && line=$(python3 -c '
import json, sys
verb, kind, said = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if not said["ok"]:
    sys.exit(said["error"] + "; " + said["mend"])
numbers = {key: said["gates"][kind][key] for key in ("generation", "term")}
order = {"v": 1, "verb": verb, "pool": said["pool"], "within": $WITHIN, "gate": kind, "reason": "by hand"}
print(json.dumps({**order, **numbers}))' "$2" "$3" "$said") && echo "$line" | "$1" | tell
}
tell() { python3 -c '
import json, sys
said = json.load(sys.stdin)
if not said["ok"]:
    sys.exit(said["error"] + "; " + said["mend"])
for name, gate in said["gates"].items() if "gates" in said else [("now", said["gate"])]:
    print(name, "open:", json.dumps(gate["open"]), "certain:", json.dumps(gate["certain"]))
    print("  shown:", "; ".join(gate["shown"]) or "nothing", "\\n  lacks:", "; ".join(gate["lacks"]) or "nothing")'
}"""


def _asking(pool: Pool, hosted: Sequence[Producer]) -> Iterator[str]:
    """Shell functions by which agents are asked, over SSH with the controller's key, as the controller asks them."""
    agents = {agent.name: agent for agent in pool.agents}
    yield ""
    yield "# 0. How agents are asked. Where SSH does not reach a host, go there, and type instead"
    yield f"#    sudo {AGENT} close {_moved(hosted[0])[0].value}   # or open; or status alone"
    yield "#    A host with a fuse refuses to open without a controller's lease, and would close again: first stop"
    yield '#    failover-fuse there, and take "fuse" out of /etc/failover-agent.json; put both back afterwards.'
    for producer in hosted:
        yield f"{_ask_name(pool, producer)}() {{ {_ssh(agents[producer.agent or ''])}; }}"
    yield _FUNCTIONS.replace("$POOL", json.dumps(pool.name)).replace("$WITHIN", str(WITHIN))


def _ask_name(pool: Pool, producer: Producer) -> str:
    """Its function's name: letters, digits and _ alone, and no other producer's."""
    names = ["".join(c if c.isascii() and c.isalnum() else "_" for c in name) for name in pool.names]
    index = pool.names.index(producer.name)
    return f"agent_{names[index]}" + (f"_{index + 1}" if names.count(names[index]) > 1 else "")


def _look_at(pool: Pool, producer: Producer) -> str:
    return f'echo "$status" | {_ask_name(pool, producer)} | tell'


def _ssh(agent: Agent) -> str:
    """The controller's own way: its key alone, the pinned host key alone, no terminal; the forced command answers."""
    options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10"]
    options += ["GlobalKnownHostsFile=/dev/null"]
    if agent.host_key is not None:
        alias = f"failover-{agent.name}"
        options += ["UserKnownHostsFile=/dev/null", f"HostKeyAlias={alias}"]
        options.append(f"KnownHostsCommand=/bin/echo {alias} {agent.host_key}")
    else:
        options.append(f"UserKnownHostsFile={agent.known_hosts}")
    words = ["ssh", "-T", "-F", "none", "-p", str(agent.address.port), "-i", str(agent.key_file)]
    words += [word for option in options for word in ("-o", option)]
    return shlex.join([*words, f"{agent.user}@{agent.address.host}", "serve"])


# ---------------------------------------------------------------- power


def _off(producer: Producer) -> list[str]:
    """The last resort, when nothing else could show that it is shut out."""
    if producer.power is None:
        return []
    return [
        f"# Could nothing show that {producer.name} is shut out? Then switch its machine off (take the # away);",
        "# the second line must say off as its last word, whatever the first one said.",
        f"# {_command(producer.power.off)}",
        _command(producer.power.status),
    ]


def _on(producer: Producer, power: Power) -> list[str]:
    lines = [f"# The machine of {producer.name} must be on", _command(power.status)]
    if power.on is not None:
        return [
            *lines[:1],
            *lines[1:],
            f"# {_command(power.on)}      (take the # away when it is off, then look again)",
        ]
    return [*lines, "# when it is off, switch it on by hand."]


def _command(words: Sequence[str]) -> str:
    """As the controller runs it: in / and with nothing of the environment."""
    environment = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    return f"(cd / && env -i {environment} {shlex.join(words)} < /dev/null)"


# ---------------------------------------------------------------- proxies


def _close(proxy: Proxy, producer: str, password: str | None) -> str:
    server = f"{proxy.backend}/{proxy.servers[producer]}"
    if proxy.socket is not None:
        return _socat(proxy, f"set server {server} state maint; shutdown sessions server {server}")
    return "\n".join(_post(proxy, producer, action, password) for action in ("maint", "shutdown"))


def _open(proxy: Proxy, producer: str, password: str | None) -> str:
    if proxy.socket is not None:
        return _socat(proxy, f"set server {proxy.backend}/{proxy.servers[producer]} state ready")
    return _post(proxy, producer, "ready", password)


def _look(proxy: Proxy, producer: str, password: str | None) -> str:
    """One line with the proxy, the producer, the status (column 18) and the sessions (column 5)."""
    if proxy.socket is not None:
        source = _socat(proxy, "show stat")
    else:
        source = _curl(proxy, password, shlex.quote(f"{proxy.stats};csv"))
    condition = f'$1=="{proxy.backend}" && $2=="{proxy.servers[producer]}"'
    script = f'{condition} {{print "{proxy.name} {producer}:", $18, $5, "sessions"}}'
    return f"{source} | awk -F, {shlex.quote(script)}"


def _socat(proxy: Proxy, command: str) -> str:
    where = f"TCP:{proxy.socket}" if not isinstance(proxy.socket, Path) else str(proxy.socket)
    return f"echo {shlex.quote(command)} | socat -t 5 - {shlex.quote(where)}"


def _post(proxy: Proxy, producer: str, action: str, password: str | None) -> str:
    """The answer is a redirection whose address must end in st=DONE."""
    form = f"s={proxy.servers[producer]}&action={action}&b={proxy.backend}"
    rest = f"-o /dev/null -w '{proxy.name} {producer} {action}: %{{redirect_url}}\\n' -d {shlex.quote(form)}"
    return _curl(proxy, password, f"{rest} {shlex.quote(str(proxy.stats))}")


def _curl(proxy: Proxy, password: str | None, rest: str) -> str:
    """printf is the shell's own, so the password shows in no process list."""
    options: list[Any] = ["-sS", "--noproxy", "'*'", "-m", "10"]
    for option, value in (("--cacert", proxy.ca_file), ("--cert", proxy.cert_file), ("--key", proxy.key_file)):
        if value is not None:
            options += [option, shlex.quote(str(value))]
    if proxy.username is None or password is None:
        return f"curl {' '.join(options)} {rest}"
    user = shlex.quote(proxy.username)
    return f"printf 'user = \"%s:%s\"\\n' {user} {password} | curl -K - {' '.join(options)} {rest}"


# ---------------------------------------------------------------- records


def _pointing(
    pool: Pool, to: str, signing: Sequence[Signing | None], held: Mapping[str, RRset | None], number: int
) -> Iterator[str]:
    """Each record swapped at its provider, then what the world is told of it."""
    yield from (
        "",
        f"# {number}. Point the records to {to}. Look at each first: where another value stands, correct what is",
    )
    yield "#    deleted or required below, for a change is made only if the old value is what stands there."
    if any(isinstance(record.provider, Route53Zone) for record in pool.records):
        yield "export AWS_PAGER="
    for index, record in enumerate(pool.records):
        wanted = record.wanted(to)
        usual = record.wanted(pool.others(to)[0])
        before = held.get(record.label, usual)
        yield f"# {record.label}: {_expectation(before, wanted, known=record.label in held)}"
        before = usual if before == wanted else before
        if isinstance(record.provider, Route53Zone):
            yield from _route53(record, record.provider, before, wanted)
        else:
            yield from _nsupdate(
                record, record.provider, signing[index] if index < len(signing) else None, before, wanted
            )
    yield from (
        "",
        f"# {number + 1}. Look: every server must say {to}'s value, the zone's own with the flag aa. Relays look",
    )
    yield "#    the name up again when their answer is as old as its TTL, and 60 to 900 s after that."
    for record in pool.records:
        yield from _dig(record, record.wanted(to))


def _expectation(before: RRset | None, wanted: RRset, *, known: bool) -> str:
    if before == wanted:
        return f"it held {wanted} already when it was last seen; go on only if it does not"
    return f"{'it last held' if known else 'it should hold'} {before or 'nothing'}"


def _route53(record: Record, zone: Route53Zone, before: RRset | None, wanted: RRset) -> Iterator[str]:
    options = "".join(
        f" {option} {shlex.quote(value)}"
        for option, value in (("--profile", zone.profile), ("--endpoint-url", zone.endpoint_url))
        if value is not None
    )
    call = f"aws --region us-east-1{options} route53"
    listed = shlex.quote(f"ResourceRecordSets[?Name=='{record.name}']")
    start = f"--start-record-name {shlex.quote(record.name)} --max-items 20"
    yield f"{call} list-resource-record-sets --hosted-zone-id {zone.zone} {start} --query {listed}"
    batch = shlex.quote(json.dumps({"Comment": "failover by hand", "Changes": list(_changes(record, before, wanted))}))
    change = f"change-resource-record-sets --hosted-zone-id {zone.zone} --change-batch {batch}"
    yield f"CHANGE=$({call} {change} --query ChangeInfo.Id --output text) &&"
    yield f'  {call} wait resource-record-sets-changed --id "$CHANGE" && echo everywhere'


def _changes(record: Record, before: RRset | None, wanted: RRset) -> Iterator[dict[str, Any]]:
    for action, rrset in (("DELETE", before), ("CREATE", wanted)):
        if rrset is not None:
            values = [{"Value": value} for value in rrset.values]
            held = {"Name": record.name, "Type": rrset.type.value, "TTL": rrset.ttl, "ResourceRecords": values}
            yield {"Action": action, "ResourceRecordSet": held}


_BESIDE = ("A", "AAAA", "MX", "TXT", "SRV", "CAA")


def _nsupdate(
    record: Record, zone: Rfc2136Zone, signing: Signing | None, before: RRset | None, wanted: RRset
) -> Iterator[str]:
    name, server = record.name, zone.server
    for kind in sorted(record.types):
        yield _ask(server.host, server.port, name, kind.value, "+norecurse ")
    if signing is not None and signing.file is not None:
        yield f"nsupdate -v -t 10 -k {signing.file} <<'END'"
    else:
        secret = "" if signing is None else signing.secret
        line = f"printf 'key %s:%s %s\\n' {zone.algorithm} {shlex.quote(zone.key_name)} {secret}"
        yield f"{{ {line}; cat <<'END'; }} | nsupdate -v -t 10"
    yield from (f"server {server.host} {server.port}", f"zone {zone.zone}")
    if before is None:
        yield from (f"prereq nxrrset {name} {kind.value}" for kind in sorted({*record.types, RecordType.CNAME}))
    else:
        yield from (f"prereq yxrrset {name} {before.type.value} {value}" for value in before.values)
    if wanted.type is RecordType.CNAME:  # where it cannot stand it would be left out, and the old value deleted
        beside = [kind for kind in _BESIDE if before is None or kind != before.type.value]
        yield from (f"prereq nxrrset {name} {kind}" for kind in beside)
    if before is not None:
        yield f"update delete {name} {before.type.value}"
    yield from (f"update add {name} {wanted.ttl} {wanted.type.value} {value}" for value in wanted.values)
    yield from ("send", "END")


def _dig(record: Record, wanted: RRset) -> Iterator[str]:
    """What each server says: those that the file names, else all of the zone's."""
    named = record.resolvers or record.servers
    how = "" if record.resolvers else "+norecurse "
    if named:
        yield from (_ask(each.host, each.port, record.name, wanted.type.value, how) for each in named)
        return
    if isinstance(record.provider, Rfc2136Zone):
        zone = shlex.quote(record.provider.zone)
    else:  # a CNAME would lead to another zone; it never stands at a zone's own name
        inside = record.name.partition(".")[2] if RecordType.CNAME in record.types else record.name
        zone = f"$(dig +noall +answer +authority {shlex.quote(inside)} SOA | awk '$4 == \"SOA\" {{print $1; exit}}')"
    loop = f'dig @"$server" {how}+noall +comments +answer {shlex.quote(record.name)} {wanted.type.value}'
    yield f'for server in $(dig +short NS {zone}); do echo "$server"; {loop}; done'


def _ask(host: str, port: int, name: str, kind: str, how: str) -> str:
    return f"dig @{shlex.quote(host)} -p {port} {how}+noall +comments +answer {shlex.quote(name)} {kind}"
