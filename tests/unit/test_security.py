"""docs/security.md says what is so: the tests that it names are there, and the protocol has no way to a key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_host import AgentHost, agent_host, key_set

from failover import agent
from failover.agent_link import CHANGING

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
FIELDS = {"v", "verb", "pool", "within", "lease", "generation", "term", "topology", "gate", "reason", "peers", "nudge"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path) as made:
        yield made


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 8
    assert [name for name in sorted(named) if not re.search(rf"def {name}\(", sources)] == []


def test_no_request_takes_a_path_or_a_command() -> None:
    listed = re.search(r"no request for it: (.*?) are all", PAGE, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`([a-z-]+)`", listed[1])) == set(agent.VERBS)
    assert set(CHANGING) < set(agent.VERBS)
    taken = set(agent.COMMON).union(*(set(needed) | set(more) for needed, more in agent.VERBS.values()))
    assert taken == FIELDS
    for field in taken - {"verb", "pool", "reason"}:  # words: two are compared with what is known, one is noted
        assert not agent.ACCEPTED[field]("/etc/cardano/kes.skey"), field


def test_no_answer_of_the_agent_has_any_of_a_key(host: AgentHost) -> None:
    host.run_node()
    host.write_keys(host.staging, key_set(8))
    order = {"generation": 1, "term": 1}
    answers = [
        host.ask("status", topology=True),
        host.order("close"),
        host.ask("sessions", peers=["127.0.0.1"]),
        host.ask("install-credentials", **order),
        host.order("open"),
        host.ask("status"),
    ]
    assert [answer["ok"] for answer in answers] == [True] * len(answers), answers
    (host.keys / "kes.skey").write_text("{damaged: 5820" + "ab" * 32)
    answers += [host.order("close", 2), host.order("open", 2)]
    assert answers[-1]["ok"] is False
    said = json.dumps(answers) + host.cli("status") + host.cli("check", status=1) + host.cli("footprint")
    for contents in (key_set(7), key_set(8)):
        for role in ("kes", "vrf"):
            secret = json.loads(contents[role])["cborHex"]
            assert not any(secret[at : at + 16] in said for at in range(0, len(secret) - 16, 8)), role
    assert "abababab" not in said
