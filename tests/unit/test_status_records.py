"""What users see of records: the document, its table and notes, explain's sentences, and the words on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from policy_world import World, instant, make_gateless_pool, make_pool
from rich.console import Console
from status_world import report

from failover import status
from failover.cli import explain, switchover
from failover.cli.request import progress
from failover.model import Event, EventKind, Fault, Phase, RecordReading, RecordType, RRset, Verb
from failover.tick import tick

NAME = "bp.example.com."
MAIN, BACKUP = "203.0.113.10", "203.0.113.20"
RECORD = {
    *("name", "readable", "points_to", "provider_value", "ttl", "wanted", "in_sync", "error", "pending_since"),
    *(
        "pending_seconds",
        "accepted_at",
        "insync_at",
        "verified_at",
        "verify_error",
        "failure",
        "contested_until",
        "answers",
    ),
    "believed",
}
ANSWER = {"server", "authoritative", "points_to", "value", "ttl", "agrees", "fault", "error"}
BELIEF = {
    *("points_to", "value", "ttl", "told_by", "replaced_at", "gone_at", "settled", "usually_until"),
    "at_worst_until",
}


def beside(turns: float = 60, **changes: object) -> World:
    """A world with proxies and one record."""
    return World(make_pool(records=(NAME,), **changes)).run(turns)  # type: ignore[arg-type]


def alone(turns: float = 60) -> World:
    """A world with one record and no gate."""
    return World(make_gateless_pool()).run(turns)


def document(world: World) -> dict[str, Any]:
    made = status.document(report(world), last_tick=instant(world.t))
    back: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    assert back == made
    return back


def record(world: World) -> dict[str, Any]:
    (found,) = document(world)["records"]
    assert set(found) == RECORD
    assert all(set(answer) == ANSWER for answer in found["answers"])
    assert all(set(belief) == BELIEF for belief in found["believed"])
    return dict(found)


def row(world: World) -> tuple[str, ...]:
    (found,) = status.record_rows(document(world))
    return found


def sentences(world: World) -> str:
    return "\n".join(explain.sentences(document(world)))


def moved(world: World, *frozen: str) -> World:
    """The role went to backup just now; ``frozen`` servers go on saying what they said."""
    world.signs[NAME].frozen.update(frozen)
    world.ask(Verb.SWITCHOVER, "backup")
    return world.run(world.t + 40)


# ---------------------------------------------------------------- the document


def test_before_the_first_reading_nothing_is_claimed() -> None:
    found = record(World(make_pool(records=(NAME,)), assigned=False))
    assert (found["readable"], found["points_to"], found["in_sync"], found["wanted"]) == (None, None, None, [])
    assert row(World(make_pool(records=(NAME,)))) == (NAME, "-", "-", "-", "-", "not read yet")


def test_a_record_in_order_is_in_sync_and_verified() -> None:
    found = record(beside())
    assert (found["points_to"], found["provider_value"], found["ttl"]) == ("main", [MAIN], 60)
    assert (found["in_sync"], found["wanted"], found["believed"]) == (True, [MAIN], [])
    assert found["verified_at"] == "2023-11-14T22:13:20.000Z"
    assert [a["agrees"] for a in found["answers"]] == [True, True]
    assert status.problems(document(beside())) == []


def test_a_change_is_pending_from_its_sending_until_it_is_everywhere() -> None:
    world = moved(beside())
    board, now = world.board, instant(world.t)
    accepted = board.records[NAME]
    board.records[NAME] = replace(accepted, change_id="C1", accepted_at=now.after(-12), insync_at=None)
    found = record(world)
    assert (found["in_sync"], found["pending_seconds"], found["insync_at"]) == (False, 12.0, None)
    assert row(world)[-1] == "pending for 12 s"
    board.post_settled(NAME, now)
    found = record(world)
    assert (found["in_sync"], found["pending_since"], found["accepted_at"]) == (True, None, "2023-11-14T22:14:48.000Z")
    board.records[NAME] = accepted
    board.post_record(NAME, RecordReading(world.pool.records[0].wanted("main")), now)
    board.post_pointed(NAME, world.pool.records[0].wanted("backup"), now.after(-3))
    assert (record(world)["in_sync"], record(world)["pending_seconds"]) == (False, 3.0)


def test_a_record_stays_with_the_old_producer_until_everyone_else_is_fenced() -> None:
    world = beside()
    world.put(phase=Phase.FENCING, target="backup")
    assert (record(world)["wanted"], record(world)["in_sync"]) == ([MAIN], True)
    world.put(phase=Phase.PROMOTING)
    assert (record(world)["wanted"], record(world)["in_sync"]) == ([BACKUP], False)


def test_an_old_answer_is_counted_from_now_while_a_server_still_gives_it() -> None:
    world = moved(beside(), "ns2")
    (belief,) = record(world)["believed"]
    assert (belief["points_to"], belief["told_by"], belief["settled"], belief["gone_at"]) == (
        *("main", ["ns2"], False),
        None,
    )
    assert belief["usually_until"] == "2023-11-14T22:17:00.000Z"  # now, 60 s, 60 s
    assert belief["at_worst_until"] == "2023-11-14T22:31:00.000Z"
    assert (
        "relays may still believe main (203.0.113.10): usually until 22:17:00Z, at worst until 22:31:00Z "
        "(ns2 still says so; counted from now)"
    ) in status.notes(document(world))
    assert row(world)[-2:] == ("1/2", "in sync")


def test_an_old_answer_ends_at_a_fixed_time_once_no_server_gives_it() -> None:
    world = moved(beside())
    before = record(world)["believed"]
    world.run(world.t + 40)
    assert record(world)["believed"] == before
    assert before[0]["settled"] is True
    line = "relays may still believe main (203.0.113.10): usually until 22:16:50Z, at worst until 22:30:50Z"
    assert line in status.notes(document(world))
    world.run(world.t + 1000)
    assert record(world)["believed"] == []
    assert not any("believe" in note for note in status.notes(document(world)))


def test_that_there_is_no_such_name_is_believed_too_and_a_silent_server_does_not_say_it() -> None:
    world = beside()
    held(world, None)
    (one, two), now = world.board.records[NAME].said, instant(world.t)
    world.board.post_record(NAME, RecordReading(world.pool.records[0].wanted("main")), now)
    lost = replace(two, server="ns3", rrset=None, fault=Fault.SILENT)
    world.board.post_answers(NAME, (one, replace(two, rrset=None), lost), now)
    (belief,) = record(world)["believed"]
    assert (belief["points_to"], belief["value"], belief["told_by"]) == (None, [], ["ns2"])
    assert any(
        "may still believe that there is no such name: usually" in note for note in status.notes(document(world))
    )


def test_what_holds_again_is_not_told_as_something_old() -> None:
    world = moved(beside())
    world.ask(Verb.SWITCHOVER, "main")
    world.run(world.t + 40)
    assert [b["points_to"] for b in record(world)["believed"]] == ["backup"]


def test_times_of_another_day_carry_their_date() -> None:
    world = beside()
    held(world, RRset(RecordType.A, ("198.51.100.7",), 86400))
    world.board.post_record(NAME, RecordReading(world.pool.records[0].wanted("main")), instant(world.t))
    (note,) = (note for note in status.notes(document(world)) if "believe" in note)
    assert "believe 198.51.100.7: usually until 2023-11-15 22:15:20Z, at worst until 2023-11-15 22:29:20Z" in note
    assert note.endswith("(no look at the servers since; counted from now)")


def held(world: World, rrset: RRset | None) -> None:
    """The provider was just seen to hold this, and nobody has repaired it yet."""
    track = world.board.records[NAME]
    world.board.records[NAME] = replace(track, reading=RecordReading(rrset), accepted_at=None, insync_at=None)


@pytest.mark.parametrize(
    ("rrset", "whom", "value", "words"),
    [
        (None, "-", "-", "holds nothing, and relays that ask are told that there is no such name"),
        (RRset(RecordType.A, (MAIN, BACKUP), 60), "nobody", f"{MAIN}, {BACKUP}", "and should be A 203.0.113.10"),
        (RRset(RecordType.A, (MAIN,), 0), "main", MAIN, "has TTL 0, and should have 60"),
        (RRset(RecordType.A, ("198.51.100.7",), 60), "nobody", "198.51.100.7", "which is nobody's"),
        (RRset(RecordType.A, (BACKUP,), 60), "backup", BACKUP, "points to backup"),
    ],
)
def test_each_thing_that_is_not_as_it_should_be_is_told(rrset: RRset | None, whom: str, value: str, words: str) -> None:
    world = beside()
    held(world, rrset)
    world.outcomes.append(tick(world.pool, world.board.view(), world.assignment, (), world.memory, instant(world.t)))
    made = document(world)
    assert made["records"][0]["in_sync"] is False
    assert status.record_rows(made)[0][1:3] == (whom, value)
    assert any(line.startswith(f"record {NAME}: ") and words in line for line in status.problems(made))


def test_a_silent_provider_leaves_what_it_last_said_and_claims_no_more() -> None:
    world = beside()
    world.signs[NAME].answers = False
    world.run(world.t + 20)
    found = record(world)
    assert (found["readable"], found["points_to"], found["in_sync"], found["error"]) == (
        *(False, "main", None),
        "no answer",
    )
    assert row(world)[-1] == "silent; shown is what it last said"
    assert f"{NAME} cannot be read (no answer); the last that is known is {MAIN}." in sentences(world)


def test_a_name_that_is_not_ours_to_change_says_why() -> None:
    world = beside()
    world.signs[NAME].unownable, world.signs[NAME].rrset = "is an alias (to elb.example.net.)", None
    world.run(world.t + 20)
    found = record(world)
    assert (found["readable"], found["in_sync"], found["error"]) == (True, False, "is an alias (to elb.example.net.)")
    assert row(world)[-1] == "not ours to change: is an alias (to elb.example.net.)"
    assert f"{NAME} is not ours to change: is an alias" in sentences(world)


def test_servers_that_fail_are_told_apart_from_those_that_differ() -> None:
    world = beside()
    one, two = world.board.records[NAME].said
    lost = replace(two, rrset=None, fault=Fault.SILENT, error="no answer within 5 s")
    lame = replace(two, server="ns3", rrset=None, fault=Fault.LAME, error="answers REFUSED")
    world.board.post_answers(NAME, (one, lost, lame, replace(two, server="ns4", rrset=None)), instant(world.t))
    found = record(world)
    assert [a["agrees"] for a in found["answers"]] == [True, None, None, False]
    assert [a["fault"] for a in found["answers"]] == [None, "silent", "lame", None]
    assert row(world)[-2] == "1/4"
    text = sentences(world)
    assert "1 of 4 servers agree with that." in text
    assert "ns2 is silent: no answer within 5 s; it is not waited for." in text
    assert "Waited for: ns4, which says that there is no such name, TTL -." in text


def test_a_look_that_failed_says_why() -> None:
    world = beside()
    world.board.post_unseen(NAME, instant(world.t), "no resolver answers")
    assert record(world)["verify_error"] == "no resolver answers"
    assert row(world)[-2] == "-"
    assert "What the world is told cannot be seen: no resolver answers." in sentences(world)


def test_another_hand_is_named_with_the_time_until_which_it_is_left_alone() -> None:
    world = beside(100)
    for t in (100, 200):
        world.hold("backup")
        world.run(t + 90)
    until = record(world)["contested_until"]
    assert until is not None
    assert row(world)[-1] == f"another hand; left alone until {until[11:19]}Z"
    assert f"until {until} only a handover changes it" in sentences(world)
    assert any("another hand changed it again" in line for line in status.problems(document(world)))


# ---------------------------------------------------------------- the table, the notes, the picture


def test_a_pool_without_records_reads_as_ever() -> None:
    made = document(World(make_pool()).run(60))
    text = status.text(made)
    assert not any(word in text for word in ("RECORD", "POINTED", "relays", "no gate"))
    assert made["records"] == made["exposed"] == []


def test_the_table_of_records_stands_behind_the_proxies() -> None:
    lines = status.text(document(beside())).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("RECORD "))
    assert at > next(i for i, line in enumerate(lines) if line.startswith("PROXY "))
    assert lines[at].split() == ["RECORD", "POINTS", "TO", "VALUE", "TTL", "SERVERS", "STATE"]
    assert lines[at + 1].split() == [NAME, "main", MAIN, "60", "2/2", "in", "sync"]


def test_the_picture_has_the_same_table_and_no_control_characters() -> None:
    world = beside()
    world.signs[NAME].unownable = "is \x1b[31mred[bold]"
    world.run(world.t + 20)
    stream = StringIO()
    Console(file=stream, width=200, no_color=True, highlight=False).print(status.picture(document(world)))
    drawn = stream.getvalue()
    assert "POINTS TO" in drawn
    assert "red[bold]" in drawn
    assert "\x1b[31m" not in drawn
    assert all(c.isprintable() or c == "\n" for c in status.text(document(world)))


def test_with_several_records_each_note_says_which() -> None:
    world = World(make_pool(records=("a.example.com.", "b.example.com."))).run(60)
    world.ask(Verb.SWITCHOVER, "backup")
    world.run(100)
    notes = [note for note in status.notes(document(world)) if "believe" in note]
    assert [note.partition(":")[0] for note in notes] == ["a.example.com.", "b.example.com."]


# ---------------------------------------------------------------- without any gate


def test_without_any_gate_nobody_is_called_admitted() -> None:
    made = document(alone())
    assert (made["fence"], made["gates"], made["proxies"]) == ("none", [], [])
    assert [p["admitted"] for p in made["producers"]] == [None, None]
    text = status.text(made)
    assert "POINTED TO" in text
    assert "ADMITTED" not in text
    assert "nothing shuts a producer out" in text
    assert status.problems(made) == []


def test_whom_relays_may_have_stayed_with_is_told_until_it_is_over() -> None:
    world = moved(alone())
    made = document(world)
    assert made["exposed"] == [{"producer": "main", "since": "2023-11-14T22:14:20.000Z"}]
    assert [r[4] for r in status.producer_rows(made)] == ["no, exposed", "yes"]
    (line,) = (line for line in status.problems(made) if line.startswith("exposed: main is up"))
    assert "nothing shuts it out" in line
    assert "Exposed since 2023-11-14T22:14:20.000Z: main." in sentences(world)
    world.run(world.t + 1000)
    world.nodes["main"].up = False
    world.run(world.t + 30)
    assert document(world)["exposed"] == []
    assert [r[4] for r in status.producer_rows(document(world))] == ["no", "yes"]


def test_records_that_point_to_different_producers_are_counted() -> None:
    pool = make_gateless_pool()
    world = World(replace(pool, records=(*pool.records, *make_pool(records=("b.example.com.",)).records))).run(60)
    world.hold("backup", "b.example.com.")
    world.observe()
    assert [r[4] for r in status.producer_rows(document(world))] == ["1 of 2", "1 of 2"]


def test_a_picture_of_an_earlier_version_is_still_shown() -> None:
    made = document(World(make_pool()).run(60))
    del made["fence"]
    assert status.text(made)
    assert "ADMITTED" in status.text(made)


# ---------------------------------------------------------------- explain


def test_explain_says_how_the_time_is_made_up_and_that_nobody_waits() -> None:
    text = sentences(moved(beside()))
    assert f"{NAME} points to backup ({BACKUP}), TTL 60, as it should; its provider accepted it at" in text
    assert "2 of 2 servers agree with that, since 2023-11-14T22:14:50.000Z." in text
    assert f"A relay may still hold main ({MAIN}): until 22:16:50Z as a rule, until 22:30:50Z at worst." in text
    assert "no server says so any more since 22:14:50Z, 20 s after the change" in text
    assert "a resolver may keep it for 60 s" in text
    assert "60 s as a rule, 900 s where its resolver answered with no time left" in text
    assert "No handover waits for any of this" in text


def test_explain_names_what_is_waited_for() -> None:
    world = moved(beside(), "ns2")
    track = world.board.records[NAME]
    world.board.records[NAME] = replace(track, change_id="C1", accepted_at=instant(world.t - 12), insync_at=None)
    text = sentences(world)
    assert "the change, under way for 12 s, to be on every server of its provider (INSYNC)" in text
    assert f"ns2, which says main ({MAIN}), TTL 60" in text
    assert "counted from now on, for ns2 still says so" in text


def test_explain_without_any_gate_promises_nothing() -> None:
    text = sentences(moved(alone()))
    assert "A handover is over once the provider has accepted the change" in text
    assert "nothing shuts the other producer out" in text


def test_explain_without_records_says_nothing_of_them() -> None:
    text = sentences(World(make_pool()).run(60))
    assert "relay" not in text


# ---------------------------------------------------------------- a switchover


def test_the_rehearsal_beside_proxies_points_the_record_and_waits_for_nobody() -> None:
    lines = switchover.plan(beside().pool, document(beside()), "backup")
    (line,) = (line for line in lines if NAME in line)
    assert line == f"4. at the same time, point {NAME} to backup ({BACKUP}); nobody waits for it"
    assert lines[2].startswith("3. promoting: open backup@p1")


def test_the_rehearsal_without_any_gate_says_what_is_left_to_do_by_hand() -> None:
    world = alone()
    lines = switchover.plan(world.pool, document(world), "backup")
    assert "there is no gate, and main may go on reaching relays" in lines[0]
    assert lines[1] == f"2. promoting: point {NAME} to backup ({BACKUP})"
    assert "restart main's node once no relay looks it up any more (16 min after" in lines[-1]
    assert not any("close" in line for line in lines)


@pytest.mark.parametrize("force", [False, True])
def test_without_any_gate_a_record_that_cannot_be_moved_is_a_refusal(force: bool) -> None:
    world = alone()
    assert switchover.refusals(document(world), "backup", force=force) == []
    world.signs[NAME].answers = False
    world.run(world.t + 20)
    assert switchover.refusals(document(world), "backup", force=force) == [f"{NAME}: no answer"]
    asked = world.ask(Verb.SWITCHOVER, "backup", force=force)
    world.run(world.t + 20)
    assert world.answers[asked][0] == "refused"


def test_beside_proxies_a_record_that_cannot_be_moved_refuses_nothing() -> None:
    world = beside()
    world.signs[NAME].answers = False
    world.run(world.t + 20)
    assert switchover.refusals(document(world), "backup", force=False) == []


def test_the_steps_on_the_way_are_told_in_words() -> None:
    detail = {"kind": "point", "record": NAME, "result": "sent"}
    done = Event(EventKind.STEP_DONE, instant(0), "accepted", 2, "backup", detail)
    assert progress(done) == f"  pointed {NAME} to backup: its provider has accepted it"
    failed = replace(done, kind=EventKind.STEP_FAILED, reason="it holds B", detail={**detail, "result": "conflict"})
    assert progress(failed) == f"  point {NAME}: conflict: it holds B"
    closed = replace(done, detail={"kind": "close", "gate": "main@p1", "result": "sent"})
    assert progress(closed) == "  closed main@p1"
    kicked = replace(done, producer="main", detail={"kind": "kick", "relay": "relay-1", "result": "sent"})
    assert progress(kicked) == "  ended sessions of relay-1 with main"
