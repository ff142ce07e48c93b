"""An agent's answers are read strictly: what is right becomes values, everything else is ``Nonsense``."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover import agent_answers as answers
from failover.agent_answers import Nonsense, OtherVersion

GATE: dict[str, Any] = {
    "open": False,
    "certain": True,
    "shown": ["files gone"],
    "lacks": [],
    "process": "7.1",
    "generation": 4,
    "term": 2,
    "findings": [{"what": "kes.skey is readable by others", "mend": "chmod 400 it"}],
}
STATUS: dict[str, Any] = {
    "v": 1,
    "ok": True,
    "agent": "0.2.0",
    "boot": "b",
    "pool": "EXMPL",
    "node": {"running": True, "pid": 7, "started": 1.5, "runtime": "pidfile", "flag": None, "version": "10.5.1"},
    "gates": {"forging": GATE},
    "metrics": {"cardano_node_metrics_slotNum_int": 4711, "cardano_node_metrics_density_real": 0.05},
    "metrics_error": None,
    "fuse": {"after": 150.0, "left": 90.5},
    "topology": {"path": "/t.json", "text": "{\n}\n"},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)


def line(said: Any) -> bytes:
    return json.dumps(said).encode("ascii")


def changed(path: str, value: Any) -> dict[str, Any]:
    """STATUS with one value replaced; ``path`` has dots."""
    said = copy.deepcopy(STATUS)
    *above, last = path.split(".")
    part = said
    for key in above:
        part = part[key]
    part[last] = value
    return said


def test_a_right_status_is_read() -> None:
    status = answers.status(answers.answer(line(STATUS)))
    gate = status.gates["forging"]
    assert (gate.reading.open, gate.reading.certain, gate.generation, gate.term) == (False, True, 4, 2)
    assert gate.reading.findings == ("kes.skey is readable by others: chmod 400 it",)
    assert (status.node.pid, status.node.started, status.node.flag) == (7, 1.5, None)
    assert status.metrics["cardano_node_metrics_density_real"] == 0.05
    assert (status.fuse_after, status.fuse_left) == (150.0, 90.5)
    assert status.topology_text == "{\n}\n"


def test_a_host_without_gates_fuse_and_topology_is_read() -> None:
    said = {**STATUS, "gates": {}, "fuse": None, "topology": None, "metrics": {}, "metrics_error": "refused"}
    status = answers.status(answers.answer(line(said)))
    assert (dict(status.gates), status.fuse_after, status.topology_path) == ({}, None, None)
    assert status.metrics_error == "refused"


def test_what_is_not_known_is_passed_over() -> None:
    assert answers.status(answers.answer(line({**STATUS, "later": {"more": [1]}}))).boot == "b"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"<html>",
        b'{"v":1}',
        b'{"v":1,"ok":1}',
        b'{"v":true,"ok":true}',
        b'{"v":"1","ok":true}',
        b'{"ok":true}',
        b'{"v":1,"ok":true,"ok":true}',
        b'{"v":1,"ok":true,"x":NaN}',
        b'{"v":1,"ok":true,"x":-Infinity}',
        b'{"v":1,"ok":true} x',
        b'{"v":1,"ok":true,"x":' + b"9" * 5000 + b"}",
        b'{"v":1,"ok":true,"x":"\xc3\xa9"}',
        b'{"v":1,"ok":true,"x":' + b"[" * 60_000,
        b'{"v":1,"ok":true,"x":"' + b"x" * 65_536 + b'"}',
        b"\xff\xfe\x00",
    ],
)
def test_a_line_that_is_no_answer(raw: bytes) -> None:
    with pytest.raises(Nonsense) as caught:
        answers.answer(raw)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_another_version_is_told_from_nonsense() -> None:
    with pytest.raises(OtherVersion, match="version 2 of the protocol, and this is 1"):
        answers.answer(b'{"v":2,"ok":true}')


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("boot", 1),
        ("agent", None),
        ("node", None),
        ("node.running", "yes"),
        ("node.pid", -1),
        ("node.pid", 1.5),
        ("node.pid", True),
        ("node.started", 1e400),
        ("node.started", "yesterday"),
        ("gates", []),
        ("gates.forging", True),
        ("gates.forging.open", "no"),
        ("gates.forging.open", 0),
        ("gates.forging.certain", None),
        ("gates.forging.shown", "files"),
        ("gates.forging.lacks", [1]),
        ("gates.forging.process", 7),
        ("gates.forging.generation", -1),
        ("gates.forging.generation", 2**63),
        ("gates.forging.term", False),
        ("gates.forging.findings", ["x"]),
        ("gates.forging.findings", [{"mend": "x"}]),
        ("metrics", [1]),
        ("metrics", {"cardano_node_metrics_x": "1"}),
        ("metrics", {"cardano_node_metrics_x": True}),
        ("metrics", {"cardano node": 1}),
        ("metrics", {f"cardano_node_metrics_{n}": n for n in range(65)}),
        ("fuse", {"after": 1.0}),
        ("fuse", {"after": 1.0, "left": -1.0}),
        ("topology", {"path": "/t"}),
    ],
)
def test_a_field_of_the_wrong_type_or_range(path: str, value: Any) -> None:
    raw = json.dumps(changed(path, value)).replace("Infinity", "1e400").encode("ascii")
    with pytest.raises(Nonsense):
        answers.status(answers.answer(raw))


def test_words_are_bounded_and_printable() -> None:
    said = changed("gates.forging.shown", ["\x1b[31m\u202ered\n" + "x" * 1000] + ["more"] * 100)
    shown = answers.status(answers.answer(line(said))).gates["forging"].reading.shown
    assert len(shown) == answers.MOST_WORDS
    assert shown[0].startswith("?[31m?red?x")
    assert shown[0].endswith("…")
    assert max(len(word) for word in shown) == answers.LONGEST


def test_a_refusal_has_kind_error_and_mend() -> None:
    said = answers.answer(b'{"v":1,"ok":false,"kind":"busy","error":"pid 12\\u0007","mend":null}')
    assert answers.refusal(said) == ("busy", "pid 12?", "")
    with pytest.raises(Nonsense):
        answers.refusal(answers.answer(b'{"v":1,"ok":false,"kind":"busy"}'))


READERS: list[Callable[[Any], object]] = [
    answers.status,
    answers.gate,
    answers.sessions,
    answers.kicked,
    answers.refusal,
]


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_nonsense(raw: bytes) -> None:
    with contextlib.suppress(Nonsense):
        answers.answer(raw)


@given(st.dictionaries(st.sampled_from(sorted({*STATUS, *GATE, "sessions", "others", "kind", "error"})), JSON))
def test_any_json_is_values_or_nonsense(said: dict[str, Any]) -> None:
    for read in READERS:
        with contextlib.suppress(Nonsense):
            read(said)
