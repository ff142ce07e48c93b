"""What the demo judges by, and how it tells it, without a pool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from failover.cli import demo, main
from failover.lab import story
from failover.lab.haproxy import LabError
from failover.lab.sessions import Interval
from failover.lab.story import Claim, Sample, Span, Window

PRODUCERS = ("main", "backup")


def sample(at: float, *admitted: str, **sessions: int) -> Sample:
    return Sample(at, at + 0.01, frozenset(admitted), sessions)


def session(producer: str, start: float, end: float | None, relay: str = "relay-1") -> Interval:
    return Interval(relay, "127.0.0.1:1", producer, start, end, end or start)


# ---------------------------------------------------------------- looking


def test_a_sample_is_whom_haproxy_lets_in_and_their_sessions() -> None:
    text = (
        "# pxname,svname,scur,status\n"
        "watch,main,7,UP\nproducers,main,2,DOWN\nproducers,backup,1,MAINT\nproducers,BACKEND,3,UP\n"
    )
    seen = story.read_sample(text, "producers", PRODUCERS, 1.0, 2.0)
    assert (sorted(seen.admitted), dict(seen.sessions)) == (["main"], {"main": 2, "backup": 1})
    assert seen.reachable("backup"), "a session that lingers reaches it"
    with pytest.raises(KeyError):
        story.read_sample("No such command.\n", "producers", PRODUCERS, 1.0, 2.0)


def test_a_run_of_looks_proves_reachability_from_its_first_answer_to_its_last_question() -> None:
    looks = [sample(1, "main"), sample(2, "main"), None, sample(4, "main"), sample(5), sample(6, main=1)]
    assert story.spans({"proxy-1": looks}, PRODUCERS) == [Span("proxy-1", "main", 1.01, 2)]


def test_two_producers_in_two_proxies_at_the_same_time_are_an_overlap_and_one_after_the_other_are_none() -> None:
    main_, backup = Span("proxy-1", "main", 0.0, 5.0), Span("proxy-2", "backup", 4.0, 9.0)
    assert story.gate_overlaps([main_, backup]) == [(4.0, 5.0, "main in proxy-1 and backup in proxy-2 for 1.00 s")]
    assert story.gate_overlaps([main_, Span("proxy-2", "backup", 5.0, 9.0)]) == []
    assert story.gate_overlaps([main_, Span("proxy-2", "main", 4.0, 9.0)]) == []


# ---------------------------------------------------------------- judging

TWO = [session("main", 0.0, 5.0), session("backup", 4.0, 9.0, "relay-2")]
GATES = [Span("proxy-1", "main", 0.0, 5.0), Span("proxy-2", "backup", 4.0, 9.0)]


def test_two_producers_at_once_are_told_whoever_saw_them() -> None:
    by_relays = story.judge(TWO, [], [], tolerance=0.25)
    assert by_relays.outside == (
        "for 1.00 s relay-1 had main through 127.0.0.1:1 while relay-2 had backup through 127.0.0.1:1",
    )
    by_proxies = story.judge([], GATES, [], tolerance=0.25)
    assert by_proxies.outside == ("main in proxy-1 and backup in proxy-2 for 1.00 s",)


def test_only_what_begins_and_ends_within_a_forced_window_is_counted_apart() -> None:
    within = story.judge(TWO, GATES, [Window("the hand", 3.9, 4.5)], tolerance=0.25)
    assert (within.outside, within.forced, within.forced_seconds) == ((), 1, 1.0)
    for window in (Window("over too early", 2.0, 3.5), Window("begun too late", 4.1, 6.0)):
        assert len(story.judge(TWO, GATES, [window], tolerance=0.25).outside) == 2


# ---------------------------------------------------------------- times


@pytest.mark.parametrize("scale", [5, 20, 40])
def test_the_times_say_by_how_much_they_are_shorter(scale: float) -> None:
    told = {name: (life, here) for name, life, here in story.shortened(scale)}
    assert told["a ping every"] == (10.0, 10.0 / scale)
    assert all(here < life for life, here in told.values())
    assert f"({scale:g} times shorter)" in demo.times_table(scale, story.shortened(scale))[1]


def test_another_scale_is_refused() -> None:
    with pytest.raises(LabError, match="4 is not within 5 to 40"):
        story.times(4)
    assert CliRunner().invoke(main, ["demo", "--scale", "4"]).exit_code == 2


def test_a_file_without_a_lease_is_not_the_lab_s(tmp_path: Path) -> None:
    file = tmp_path / "failover.yaml"
    file.write_text("pool: LAB\n", encoding="utf-8")
    with pytest.raises(LabError, match="0 lines begin with lease"):
        story.with_lease(file)


# ---------------------------------------------------------------- telling


def found(**changed: Any) -> dict[str, Any]:
    good = {"number": 1, "title": "steady", "ok": True, "result": "nothing moves", "claims": [{"ok": True, "text": ""}]}
    document = {
        "ok": True,
        "seconds": 60.0,
        "scenes": [good],
        "not_played": [],
        "overlaps": 0,
        "overlapping": [],
        "forced": {"overlaps": 0, "longest": 0.0},
        "windows": [],
        "witness": {"sessions": 4, "looks": 100, "longest_gap": 0.06},
    }
    return {**document, **changed}


def test_a_claim_says_what_was_measured_and_where_within_the_width() -> None:
    assert demo.claim_lines(Claim(True, "it moved", "relays", "4 sessions"), 100) == [
        "   ok     it moved: 4 sessions [relays]"
    ]
    long = demo.claim_lines(Claim(False, "word " * 60, "HAProxy"), 100)
    assert long[0].startswith("   FALSE  ")
    assert all(len(line) <= 100 for line in long)


def test_the_last_line_names_what_was_false() -> None:
    bad = {"number": 2, "title": "hang", "ok": False, "result": "", "claims": [{"ok": False, "text": "it moved"}]}
    wrong = found(ok=False, overlaps=1, not_played=["pause"], scenes=[*found()["scenes"], bad])
    assert demo.verdict(wrong) == "FALSE: scene 2; two producers at once; 1 not played. 60 s."
    assert demo.plain_table(wrong)[1:] == [
        "ok     1. steady  nothing moves    1/1",
        "FALSE  2. hang    false: it moved  0/1",
        "FALSE  pause      not played",
    ]
    assert demo.verdict(found()) == "All 1 scenes went as told, in 60 s."


def test_the_number_of_two_producers_at_once_is_always_told() -> None:
    assert demo.conclusion(found())[0].startswith(
        "Two producers reachable at once, outside what was forced: 0 times (4 sessions"
    )
    told = demo.conclusion(found(overlaps=1, overlapping=["for 1 s"], windows=[{"what": "the hand", "seconds": 0.1}]))
    assert told[1:] == [
        "   for 1 s",
        "Forced: 0.10 s after the hand; relays had 0 pairs of sessions with two producers in there.",
    ]


def test_without_haproxy_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path / "demo")])
    assert result.exit_code == 1
    assert "apt-get install haproxy" in result.output
    assert not (tmp_path / "demo").exists()


def test_its_help_loads_nothing_of_the_lab() -> None:
    code = "import sys; from failover.cli.demo import command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    assert not {"asyncio", "rich", "failover.model", "failover.lab"} & set(loaded.split())
