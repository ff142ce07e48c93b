"""The agent's protocol through its public door: lines in, lines out, whatever the lines are."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_host import AGENT, POOL_ID, AgentHost, agent_host

from failover import agent
from failover._version import __version__

STATUS = {"v": 1, "verb": "status", "pool": "EXMPL"}
OPEN = {"v": 1, "verb": "open", "pool": "EXMPL", "gate": "forging", "generation": 1, "term": 1}


def old_python() -> str | None:
    """A Python 3.9, the oldest that the agent runs on."""
    homes = sorted(Path("~/.pyenv/versions").expanduser().glob("3.9*/bin/python3.9"))
    return str(homes[-1]) if homes else shutil.which("python3.9")


PYTHONS = {"this Python": sys.executable, **({"Python 3.9": found} if (found := old_python()) else {})}


@pytest.fixture(params=PYTHONS)
def host(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AgentHost]:
    with agent_host(tmp_path) as made:
        made.python = PYTHONS[request.param]
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path) as made:
        yield made


def line(document: Any) -> bytes:
    return json.dumps(document).encode() + b"\n"


# ---------------------------------------------------------------- one file, Python 3.9


def test_the_agent_compiles_as_python_3_9_and_imports_the_standard_library_alone() -> None:
    tree = ast.parse(AGENT.read_text(), feature_version=(3, 9))
    names = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_agent_has_the_version_of_the_controller() -> None:
    assert __version__ == agent.VERSION


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS)
def test_help_names_every_command(python: str) -> None:
    ran = subprocess.run([python, "-B", str(AGENT), "--help"], capture_output=True, text=True, check=True)
    words = "serve start boot fuse open close install-credentials status footprint check forget"
    for command in words.split(" "):
        assert re.search(rf"^    {command}\b", ran.stdout, re.MULTILINE), command


# ---------------------------------------------------------------- answers


def test_status_has_every_part_of_the_protocol(host: AgentHost) -> None:
    host.run_node()
    answer = host.ask("status")
    assert answer["ok"] is True
    assert (answer["v"], answer["agent"], answer["pool"]) == (1, __version__, "EXMPL")
    assert answer["node"]["running"] is True
    assert answer["node"]["pid"] == host.started[0].pid
    assert (answer["node"]["flag"], answer["node"]["version"]) == (None, "10.5.1")
    assert abs(answer["node"]["started"] - host.log.stat().st_ctime) < 3600
    gate = answer["gates"]["forging"]
    assert set(gate) == {
        "open",
        "certain",
        "shown",
        "lacks",
        "process",
        "findings",
        "starting",
        "kes_left",
        "generation",
        "term",
    }
    assert gate["process"].startswith(f"{host.started[0].pid}.")
    assert answer["metrics"]["cardano_node_metrics_currentKESPeriod_int"] == 100
    assert (answer["metrics_error"], answer["fuse"], answer["topology"]) == (None, None, None)


def test_several_requests_on_one_connection_are_answered_in_their_order(host: AgentHost) -> None:
    answers = host.raw(line(STATUS) + b"{}\n" + line({**STATUS, "topology": True}))
    assert [answer["ok"] for answer in answers] == [True, False, True]


def test_a_stopped_node_is_told_as_such(host: AgentHost) -> None:
    answer = host.ask("status")
    assert answer["node"]["running"] is False
    assert answer["metrics_error"] == "the node does not run"


BAD: list[tuple[bytes, str, str]] = [
    (b"", "bad-request", "not JSON"),
    (b"[]", "bad-request", "no JSON object"),
    (b"[" * 4000, "bad-request", "not JSON"),
    (b'"\xff"', "bad-request", "not JSON"),
    (b'{"v":1,"v":1}', "bad-request", "twice"),
    (b'{"v":NaN}', "bad-request", "NaN"),
    (b"{}", "version", "not 1"),
    (b'{"v":2,"verb":"status","pool":"EXMPL"}', "version", "2"),
    (b'{"v":true,"verb":"status","pool":"EXMPL"}', "version", "True"),
    (b'{"v":1}', "bad-request", "verb"),
    (line({**STATUS, "verb": "statsu"}), "bad-request", "did you mean status?"),
    (line({**STATUS, "verb": ["status"]}), "bad-request", "not known"),
    (line({**STATUS, "withn": 3}), "bad-request", "did you mean within?"),
    (line({**STATUS, "within": 31}), "bad-request", "0.1 to 30"),
    (line({**STATUS, "within": "3"}), "bad-request", "0.1 to 30"),
    (line({**STATUS, "within": True}), "bad-request", "0.1 to 30"),
    (line({**STATUS, "pool": "OTHER"}), "refused", "EXMPL, not OTHER"),
    (line({**STATUS, "lease": 5}), "bad-request", "without generation and term"),
    (line({**STATUS, "lease": -1, "generation": 1, "term": 1}), "bad-request", "0 to 3600"),
    (line({**OPEN, "gate": "door"}), "bad-request", "forging or firewall"),
    (line({**OPEN, "gate": ["forging"]}), "bad-request", "forging or firewall"),
    (line({**OPEN, "gate": "firewall"}), "refused", "no firewall gate"),
    (line({**OPEN, "generation": -1}), "bad-request", "generation"),
    (line({**OPEN, "generation": 1.0}), "bad-request", "generation"),
    (line({**OPEN, "term": 2**60}), "bad-request", "term"),
    (line({**OPEN, "reason": "x" * 201}), "bad-request", "200 characters"),
    (line({**OPEN, "reason": "a\nb"}), "bad-request", "printable"),
    (line({key: value for key, value in OPEN.items() if key != "term"}), "bad-request", "term is missing"),
    (line({"v": 1, "verb": "sessions", "pool": "EXMPL", "peers": ["example.org"]}), "bad-request", "literal"),
    (line({"v": 1, "verb": "sessions", "pool": "EXMPL", "peers": ["10.0.0.1:0"]}), "bad-request", "literal"),
    (line({"v": 1, "verb": "sessions", "pool": "EXMPL", "peers": ["-f"]}), "bad-request", "literal"),
    (line({"v": 1, "verb": "sessions", "pool": "EXMPL", "peers": ["10.0.0.1"] * 65}), "bad-request", "64"),
    (
        line({"v": 1, "verb": "kick", "pool": "EXMPL", "peers": [], "generation": 1, "term": 1, "nudge": "kill"}),
        "bad-request",
        "sighup",
    ),
    (
        line({"v": 1, "verb": "kick", "pool": "EXMPL", "peers": [], "generation": 1, "term": 1, "nudge": "restart"}),
        "refused",
        '"nudge" is never on this host',
    ),
]


def test_each_bad_request_is_answered_by_its_kind_and_a_mend_and_touches_nothing(host: AgentHost) -> None:
    answers = host.raw(b"\n".join(data.rstrip(b"\n") for data, _, _ in BAD) + b"\n")
    assert len(answers) == len(BAD)
    for (data, kind, words), answer in zip(BAD, answers, strict=True):
        told = f"{data[:80]!r}: {answer}"
        assert (answer["v"], answer["ok"], answer["kind"]) == (1, False, kind), told
        assert words in f"{answer['error']} {answer['mend']}", told
        assert answer["mend"], told
        assert "\n" not in answer["error"] + answer["mend"], told
    assert host.live == ["kes.skey", "node.cert", "vrf.skey"]


def test_a_request_that_is_too_long_is_refused_once_and_the_next_one_is_answered(host: AgentHost) -> None:
    first, second = host.raw(b"x" * 300_000 + b"\n" + line(STATUS))
    assert (first["kind"], second["ok"]) == ("bad-request", True)
    assert "longer than 4096" in first["error"]


def test_peers_may_be_addresses_of_either_family_with_or_without_a_port() -> None:
    check = agent.ACCEPTED["peers"]
    assert check(["10.0.0.1", "10.0.0.1:6000", "2001:db8::1", "[2001:db8::1]:6000"])
    for bad in ("10.0.0.1:70000", "[2001:db8::1]", "fe80::1%eth0", "10.0.0.1:", "1:2", "", 7):
        assert not check([bad]), bad


def test_the_end_of_input_in_the_middle_of_a_line_ends_the_agent_without_an_answer(plain: AgentHost) -> None:
    assert plain.raw(b'{"v":1,') == []


def test_a_reader_that_went_away_ends_the_agent_quietly(plain: AgentHost) -> None:
    here, there = os.pipe()
    os.close(here)
    ran = subprocess.run(
        plain.agent("serve"), input=line(STATUS), stdout=there, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(there)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_topology_is_told_as_text_and_one_that_is_too_large_is_named(plain: AgentHost) -> None:
    topology = plain.folder / "topology.json"
    plain.document["node"]["topology"] = str(topology)
    plain.write_config()
    topology.write_text('{"localRoots": []}')
    answer = plain.ask("status", topology=True)
    assert answer["topology"] == {"path": str(topology), "text": '{"localRoots": []}'}
    assert plain.ask("status")["topology"] is None
    topology.write_text("\x01" * 20_000)  # fits, but not once it is escaped
    answer = plain.ask("status", topology=True)
    assert (answer["topology"], "too large" in answer["topology_error"]) == (None, True)
    topology.write_text(" " * 40_000)
    answer = plain.ask("status", topology=True)
    assert (answer["topology"], "32768 bytes" in answer["topology_error"]) == (None, True)
    topology.unlink()
    topology.symlink_to("/etc/hostname")
    assert plain.ask("status", topology=True)["topology"] is None


# ---------------------------------------------------------------- order and lock


def test_an_older_generation_or_term_is_stale_and_the_same_one_is_obeyed_again(host: AgentHost) -> None:
    assert host.ask("close", gate="forging", generation=5, term=3)["gate"]["open"] is False
    for generation, term in ((4, 3), (5, 2), (4, 9)):
        answer = host.ask("open", gate="forging", generation=generation, term=term)
        assert (answer["ok"], answer["kind"]) == (False, "stale")
        assert answer["mend"]
    assert host.gate()["open"] is False
    gate = host.ask("close", gate="forging", generation=5, term=3)["gate"]
    assert (gate["open"], gate["generation"], gate["term"]) == (False, 5, 3)


def test_forget_lets_a_lower_generation_in_but_only_with_yes(host: AgentHost) -> None:
    host.order("close", 9)
    assert "--yes" in host.cli("forget", status=1)
    assert host.order("close", 1)["kind"] == "stale"
    host.cli("forget", "--yes")
    assert host.order("close", 1)["gate"]["open"] is False


def test_a_held_lock_is_busy_after_within_and_names_the_holder(host: AgentHost) -> None:
    host.ask("status")
    with open(host.state / "lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid():>10} {0:>20.3f}\n")
        lock.flush()
        answer = host.order("close", within=0.5)
        assert (answer["kind"], f"process {os.getpid()}" in answer["error"]) == ("busy", True), answer
        assert re.search(r"for \d+\.\d s", answer["error"])
        assert host.ask("status")["ok"] is True
    assert host.order("close")["gate"]["open"] is False


def test_a_damaged_state_file_is_named_and_does_not_keep_the_gate_from_being_closed(host: AgentHost) -> None:
    host.order("close")
    host.order("open", 2)
    (host.state / "agent.json").write_text('{"v": 1')
    assert "damaged" in host.order("open", 3)["error"]
    gate = host.order("close", 4)["gate"]
    assert gate["open"] is False
    assert "damaged" in gate["findings"][0]["what"]


# ---------------------------------------------------------------- the configuration


def change(document: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split(".")
    for key in way:
        document = document[key]
    if value is None:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("pool", None, "pool"),
        ("pol", "EXMPL", "did you mean pool?"),
        ("node.sockt", "/run/x", "did you mean socket?"),
        ("node.runtime", {"systemd": "a", "docker": "b"}, "must have one key"),
        ("node.runtime", {"systemd": "-x"}, "is no name"),
        ("node.runtime", {"pidfile": "node.pid"}, "absolute path"),
        ("node.port", "6000", "1 to 65535"),
        ("node.port", True, "1 to 65535"),
        ("node.metrics", "http://example.org/metrics", "literal"),
        ("node.metrics", "file:///etc/passwd", "literal"),
        ("node.metrics", "http://127.0.0.1:99999/", "literal"),
        ("node.credentials", {"kes": "/a"}, "name kes, vrf and certificate"),
        ("node.credentials", {"kes": "/a", "vrf": "/a", "certificate": "/b"}, "twice"),
        ("node.credentials", {"bulk": "/a", "kes": "/b"}, "bulk alone"),
        ("node.credentials.kes", "/keys/../kes", "absolute path"),
        ("gates", ["forging", "forging"], "each once"),
        ("gates", ["moat"], "each once"),
        ("pool_id", "pool1xyz", "typing error"),
        ("pool_id", "12", "no pool id"),
        ("fuse", {"after": 0.1}, "1 to 86400"),
        ("nudge", "always", "one of never, sighup, restart"),
        ("nudge", "restart", "a producer, which is not restarted"),
        ("fuse", {"afer": 100}, "did you mean after?"),
        ("state", 7, "printable"),
    ],
)
def test_each_bad_value_of_the_configuration_is_named_with_its_mend(
    plain: AgentHost, path: str, value: Any, words: str
) -> None:
    change(plain.document, path, value)
    plain.write_config()
    answer = plain.ask("status")
    assert (answer["ok"], answer["kind"]) == (False, "refused"), answer
    assert words in f"{answer['error']} {answer['mend']}", answer
    assert words in plain.cli("check", status=1)


def test_a_configuration_that_others_can_write_or_that_is_no_file_is_refused(plain: AgentHost) -> None:
    plain.config.chmod(0o666)
    assert "chmod 644" in plain.ask("status")["mend"]
    plain.config.unlink()
    assert "--config" in plain.ask("status")["mend"]
    os.mkfifo(plain.config)
    assert plain.ask("status")["ok"] is False


def test_a_pool_id_is_taken_in_both_spellings() -> None:
    assert agent._pool_id(POOL_ID) == POOL_ID
    spelled = "pool1pu5jlj4q9w9jlxeu370a3c9myx47md5j5m2str0naunn2q3lkdy"
    assert agent._pool_id(spelled) == "0f292fcaa02b8b2f9b3c8f9fd8e0bb21abedb692a6d5058df3ef2735"


def test_footprint_and_status_speak_json_too(plain: AgentHost) -> None:
    used = json.loads(plain.cli("footprint", "--json"))
    assert all(set(entry) == {"kind", "what", "why"} and all(entry.values()) for entry in used)
    for path in (plain.config, plain.state, plain.staging, *plain.keys.iterdir()):
        assert any(str(path) in entry["what"] for entry in used), path
    assert json.loads(plain.cli("status", "--json"))["pool"] == "EXMPL"
    assert "forging: open" in plain.cli("status")


def test_a_relays_host_needs_no_gates_and_no_credentials(plain: AgentHost) -> None:
    for key in ("credentials", "owner"):
        del plain.document["node"][key]
    for key in ("gates", "pool_id", "staging"):
        del plain.document[key]
    plain.write_config()
    plain.run_node()
    answer = plain.ask("status")
    assert (answer["ok"], answer["gates"], answer["node"]["running"]) == (True, {}, True)
    assert plain.cli("check") == ""


# ---------------------------------------------------------------- by hand


def test_a_gate_is_closed_and_opened_by_hand_whatever_was_heard(plain: AgentHost) -> None:
    plain.run_node()
    plain.order("open", 7)
    said = plain.cli("close", "forging")
    assert said.startswith("forging: closed")
    assert plain.live == []
    assert plain.cli("open", "forging").startswith("forging: open")
    assert plain.gate()["generation"] == 7  # what was heard stays: an older order is refused as before


def test_a_topology_path_that_names_a_key_sends_none_of_it(plain: AgentHost) -> None:
    plain.document["node"]["topology"] = plain.document["node"]["credentials"]["certificate"]
    plain.write_config()
    answer = plain.ask("status", topology=True)
    assert answer["topology"] is None
    assert "looks like a key" in answer["topology_error"]
    assert "cborHex" not in json.dumps(answer)
