"""What the demo judges by, and how it tells it, without a pool."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import dns.message
import pytest
from click.testing import CliRunner
from rich.console import Console

from failover.cli import demo, main
from failover.lab import play, story, verdict, witness
from failover.lab.haproxy import LabError
from failover.lab.name_witness import Look, NameWitness, read_answer
from failover.lab.sessions import Interval
from failover.lab.story import Claim, Picture, Provider, Scene
from failover.lab.verdict import Window
from failover.lab.witness import Sample, Span
from failover.model import Address

PRODUCERS = ("main", "backup")


def sample(at: float, *admitted: str, **sessions: int) -> Sample:
    return Sample(at, at + 0.01, frozenset(admitted), sessions)


def session(producer: str, start: float, end: float | None, relay: str = "relay-1", **more: Any) -> Interval:
    return Interval(relay, "127.0.0.1:1", producer, start, end, end or start, **more)


def names(**looks: list[Look | None]) -> NameWitness:
    """What two servers were seen to say."""
    servers = {"ns1": Address("127.0.2.11", 53), "ns2": Address("127.0.2.12", 53)}
    found = NameWitness("bp.lab.test.", servers, {"main": "127.0.0.11", "backup": "127.0.0.12"})
    found.looks.update(looks)
    return found


def look(at: float, *values: str, rcode: str = "NOERROR") -> Look:
    return Look(at, at + 0.01, 1e9 + at, values, rcode)


def to_main(at: float) -> Look:
    return look(at, "127.0.0.11")


def to_backup(at: float) -> Look:
    return look(at, "127.0.0.12")


# ---------------------------------------------------------------- looking


def test_a_sample_is_whom_haproxy_lets_in_and_their_sessions() -> None:
    text = (
        "# pxname,svname,scur,status\n"
        "watch,main,7,UP\nproducers,main,2,DOWN\nproducers,backup,1,MAINT\nproducers,BACKEND,3,UP\n"
    )
    seen = witness.read_sample(text, "producers", PRODUCERS, 1.0, 2.0)
    assert (sorted(seen.admitted), dict(seen.sessions)) == (["main"], {"main": 2, "backup": 1})
    assert seen.reachable("backup"), "a session that lingers reaches it"
    with pytest.raises(KeyError):
        witness.read_sample("No such command.\n", "producers", PRODUCERS, 1.0, 2.0)


def test_a_run_of_looks_proves_reachability_from_its_first_answer_to_its_last_question() -> None:
    looks = [sample(1, "main"), sample(2, "main"), None, sample(4, "main"), sample(5), sample(6, main=1)]
    assert witness.spans({"proxy-1": looks}, PRODUCERS) == [Span("proxy-1", "main", 1.01, 2)]


def test_two_producers_in_two_proxies_at_the_same_time_are_an_overlap_and_one_after_the_other_are_none() -> None:
    main_, backup = Span("proxy-1", "main", 0.0, 5.0), Span("proxy-2", "backup", 4.0, 9.0)
    assert witness.gate_overlaps([main_, backup]) == [(4.0, 5.0, "main in proxy-1 and backup in proxy-2 for 1.00 s")]
    assert witness.gate_overlaps([main_, Span("proxy-2", "backup", 5.0, 9.0)]) == []
    assert witness.gate_overlaps([main_, Span("proxy-2", "main", 4.0, 9.0)]) == []


def test_a_name_is_everywhere_when_the_last_server_has_said_so_and_gone_when_none_says_it() -> None:
    seen = names(ns1=[to_main(1), to_backup(2), to_backup(3)], ns2=[to_main(1), None, to_main(2.5), to_backup(3)])
    assert (seen.first("backup", 0), seen.everywhere("backup", 0)) == (2.01, 3.01)
    assert seen.all_say("backup")
    assert not seen.all_say("main")
    last = seen.last("main")
    assert last is not None
    assert last.utc == 1e9 + 2.5
    assert (seen.everywhere("main", 1.5), seen.first("main", 2.7)) == (None, None)


def test_a_server_that_is_silent_says_nobody() -> None:
    seen = names(ns1=[to_main(1)], ns2=[to_main(1), None])
    assert (seen.all_say("main"), seen.count(), seen.whom(None)) == (False, 2, "nothing")
    assert (names().all_say("main"), names().longest_gap()) == (False, 0.0)


def test_an_answer_is_its_addresses_whatever_stands_beside_them() -> None:
    lines = ("bp.lab.test. 60 IN CNAME x.lab.test.", "x.lab.test. 60 IN A 127.0.0.12", "x.lab.test. 60 IN A 127.0.0.11")
    told = dns.message.from_text("id 1\nflags QR AA\n;QUESTION\nbp.lab.test. IN A\n;ANSWER\n" + "\n".join(lines))
    assert read_answer(told) == (("127.0.0.11", "127.0.0.12"), "NOERROR")
    none = dns.message.from_text("id 1\nrcode NXDOMAIN\nflags QR AA\n;QUESTION\nbp.lab.test. IN A\n")
    assert read_answer(none) == ((), "NXDOMAIN")


def test_what_a_provider_was_asked_since_is_told_by_its_own_counts() -> None:
    calls = [{"at": 1.0, "action": story.CHANGE, "code": ""}, {"at": 2.0, "action": "GetChange", "code": ""}]
    before = story.read_provider({"calls": calls, "counts": {story.CHANGE: 1}, "refused": {}, "applied": 1})
    calls = [*calls, {"at": 3.0, "action": story.CHANGE, "code": "InvalidChangeBatch"}]
    calls = [*calls, {"at": 4.0, "action": story.CHANGE, "code": ""}]
    counted = {"counts": {story.CHANGE: 3}, "refused": {"InvalidChangeBatch": 1}, "applied": 2}
    since = story.read_provider({"calls": calls, **counted}).since(before)
    assert since == Provider(2, 1, 1, (4.0,))
    assert str(since) == "2 changes asked for, 1 made, 1 refused"


# ---------------------------------------------------------------- judging

TWO = [session("main", 0.0, 5.0), session("backup", 4.0, 9.0, "relay-2")]
GATES = [Span("proxy-1", "main", 0.0, 5.0), Span("proxy-2", "backup", 4.0, 9.0)]


def test_two_producers_at_once_are_told_whoever_saw_them() -> None:
    by_relays = verdict.judge(TWO, [], [], tolerance=0.25)
    assert by_relays.outside == (
        "for 1.00 s relay-1 had main through 127.0.0.1:1 while relay-2 had backup through 127.0.0.1:1",
    )
    by_proxies = verdict.judge([], GATES, [], tolerance=0.25)
    assert by_proxies.outside == ("main in proxy-1 and backup in proxy-2 for 1.00 s",)


def test_only_what_begins_and_ends_within_a_forced_window_is_counted_apart() -> None:
    within = verdict.judge(TWO, GATES, [Window("the hand", 3.9, 4.5)], tolerance=0.25)
    assert (within.outside, within.forced, within.forced_seconds) == ((), 1, 1.0)
    for window in (Window("over too early", 2.0, 3.5), Window("begun too late", 4.1, 6.0)):
        assert len(verdict.judge(TWO, GATES, [window], tolerance=0.25).outside) == 2


def test_two_producers_at_once_spoil_a_pool_with_proxies() -> None:
    seen = {"sessions": 4, "looks": 100, "longest_gap": 0.06}
    good = verdict.gated(verdict.Together((), 0, 0.0), [], seen)
    assert (good.false, good.numbers["overlaps"]) == ((), 0)
    assert good.sentences[0].startswith("Two producers reachable at once, outside what was forced: 0 times (4 sessions")
    told = verdict.gated(verdict.Together(("for 1 s",), 0, 0.0), [Window("the hand", 1.0, 1.1)], seen)
    assert told.false == ("two producers at once",)
    assert told.sentences[1:] == (
        "   for 1 s",
        "Forced: 0.10 s after the hand; relays had 0 pairs of sessions with two producers in there.",
    )


def test_without_any_gate_two_at_once_are_counted_hot_and_connected_and_spoil_nothing() -> None:
    demoted = session("main", 0.0, 30.0, turns=(5.0,))
    found = verdict.gateless([demoted, session("backup", 4.0, 30.0)])
    assert found.false == ()
    assert found.numbers["fetched"] == {"overlaps": 1, "longest": 1.0}
    assert found.numbers["connected"] == {"overlaps": 1, "longest": 26.0}
    assert "in 1 pair of sessions (the longest for 1.0 s)" in found.sentences[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (look(2, rcode="NXDOMAIN"), "ns2 said no address (NXDOMAIN)"),
        (look(2), "ns2 said no address (NOERROR)"),
        (look(2, "127.0.0.11", "127.0.0.12"), "ns2 said main and backup"),
    ],
)
def test_one_answer_without_exactly_one_address_spoils_every_story(wrong: Look, words: str) -> None:
    good = verdict.never_empty(names(ns1=[to_main(1), to_backup(2)], ns2=[to_main(1), None]))
    assert (good.false, good.numbers["answers"]["count"]) == ((), 3)
    bad = verdict.never_empty(names(ns1=[to_main(1)], ns2=[to_main(1), wrong]))
    assert bad.false == ("an answer without exactly one address",)
    assert bad.sentences[1].strip() == words


def test_a_name_that_nobody_answered_for_proves_nothing() -> None:
    assert verdict.never_empty(names(ns1=[None], ns2=[])).false == ("an answer without exactly one address",)


def test_the_controller_is_started_with_nothing_that_leads_elsewhere() -> None:
    given = {"PATH": "/bin", "AWS_PROFILE": "life", "https_proxy": "http://10.0.0.1", "HTTP_PROXY": "x", "HOME": "/h"}
    assert story.secluded(given) == {"PATH": "/bin", "HOME": "/h"}


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


def found(*stories: dict[str, Any]) -> dict[str, Any]:
    return {"ok": all(one["ok"] for one in stories), "seconds": 60.0 * len(stories), "stories": list(stories)}


def told(name: str = "names", **changed: Any) -> dict[str, Any]:
    good = {"number": 1, "title": "steady", "ok": True, "result": "nothing moves", "claims": [{"ok": True, "text": ""}]}
    document = {
        "name": name,
        "title": "no proxy, a DNS record alone",
        "ok": True,
        "seconds": 60.0,
        "scenes": [good],
        "not_played": [],
        "false": [],
        "conclusion": [],
    }
    return {**document, **changed}


def test_a_claim_says_what_was_measured_and_where_within_the_width() -> None:
    assert demo.claim_lines(Claim(True, "it moved", "relays", "4 sessions"), 100) == [
        "   ok     it moved: 4 sessions [relays]"
    ]
    long = demo.claim_lines(Claim(False, "word " * 60, "HAProxy"), 100)
    assert long[0].startswith("   FALSE  ")
    assert all(len(line) <= 100 for line in long)


def test_the_last_line_names_what_was_false_in_which_story() -> None:
    bad = {"number": 2, "title": "hang", "ok": False, "result": "", "claims": [{"ok": False, "text": "it moved"}]}
    wrong = told(ok=False, false=["two producers at once"], not_played=["pause"], scenes=[*told()["scenes"], bad])
    assert demo.verdict(found(wrong)) == "FALSE: names: scene 2; two producers at once; 1 not played. 60 s."
    assert demo.verdict(found(told("proxies"), told(ok=False, scenes=[bad]))) == "FALSE: names: scene 2. 120 s."
    assert demo.plain_table(wrong)[1:] == [
        "ok     1. steady  nothing moves    1/1",
        "FALSE  2. hang    false: it moved  0/1",
        "FALSE  pause      not played",
    ]
    assert demo.verdict(found(told())) == "All 1 scenes went as told, in 60 s."
    assert demo.verdict(found(told("proxies"), told())) == "All 2 scenes of 2 stories went as told, in 120 s."
    assert demo.headline(told()) == "No proxy, a DNS record alone (60 s)"


def test_the_picture_shows_whom_servers_name_and_who_clings_to_the_old_one() -> None:
    seen = Picture(
        PRODUCERS,
        ("relay-1",),
        {},
        {"ns1": "backup", "ns2": "main"},
        {("relay-1", "bp.lab.test."): "backup"},
        frozenset({("relay-1", "main")}),
        frozenset({"main"}),
        None,
    )
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(demo.drawing(seen, Scene(2, "main dies"), 8))
    text = console.export_text()
    assert re.search(r"DNS +ns2 \(down\) +ns1 +backup \(stays with main\)", text)
    assert "scene 2 of 8: main dies" in text
    assert "no controller runs" in text


@pytest.mark.parametrize("which", ["all", "proxies"])
def test_without_haproxy_it_says_how_to_get_it_and_what_can_be_played(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main, ["demo", "--story", which, "--folder", str(tmp_path / "demo")])
    assert result.exit_code == 1
    assert "apt-get install haproxy" in result.output
    assert "--story names" in result.output
    assert not (tmp_path / "demo").exists()


def test_the_stories_that_can_be_chosen_are_those_that_there_are() -> None:
    (choice,) = [o.type for o in demo.command.params if o.name == "name"]
    assert isinstance(choice, click.Choice)
    assert list(choice.choices) == ["all", *(one.name for one in play.STORIES)]
    assert [one.plan(20.0).gateless for one in play.STORIES] == [False, True]


def test_its_help_loads_nothing_of_the_lab() -> None:
    code = "import sys; from failover.cli.demo import command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    assert not {"asyncio", "rich", "failover.model", "failover.lab"} & set(loaded.split())
