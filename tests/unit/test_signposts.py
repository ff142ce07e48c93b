"""What is folded of one record: values that may still be believed, other hands, servers that differ, restarts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from policy_world import instant, make_record

from failover import signposts
from failover.model import DnsAnswer, Fault, RecordReading, RecordType, RRset
from failover.signposts import RecordTrack
from failover.tracks import fold_silence

RECORD = make_record("bp.example.com.")
MAIN, BACKUP = RECORD.wanted("main"), RECORD.wanted("backup")
FOREIGN = RRset(RecordType.A, ("198.51.100.7",), 300)


def read(track: RecordTrack, rrset: RRset | None, at: float) -> RecordTrack:
    return signposts.fold_reading(track, RecordReading(rrset), instant(at))


def say(track: RecordTrack, at: float, *rrsets: RRset | None, authoritative: bool = True) -> RecordTrack:
    answers = tuple(DnsAnswer(f"ns{i}", authoritative, rrset) for i, rrset in enumerate(rrsets))
    return signposts.fold_answers(track, answers, instant(at))


def known(at: float = 0.0) -> RecordTrack:
    return say(read(RecordTrack(), MAIN, at), at, MAIN, MAIN)


def moved(at: float = 100.0) -> RecordTrack:
    """Our change to backup was accepted."""
    track = signposts.fold_sent(known(), BACKUP, instant(at))
    return signposts.fold_accepted(track, BACKUP, "C1", instant(at))


def mended(track: RecordTrack, at: float) -> RecordTrack:
    """We have put main's value back."""
    return signposts.fold_accepted(signposts.fold_sent(track, MAIN, instant(at)), MAIN, "", instant(at))


def kinds(track: RecordTrack, at: float, active: str = "main") -> list[str]:
    return [sign.kind for sign in signposts.drift(RECORD, track, active, instant(at))]


def test_an_old_value_is_believed_for_its_ttl_and_the_nodes_own_delay_once_no_server_says_it() -> None:
    track = say(moved(), 105, MAIN, BACKUP)
    (belief,) = track.believed
    assert belief.gone_at is None
    assert belief.at_worst_until(instant(200)) == instant(200 + 60 + 900)  # counted from now: a server still says it
    assert say(track, 130, BACKUP, BACKUP).believed[0].gone_at is None  # not INSYNC: others may still say it
    track = say(signposts.fold_settled(track, instant(130)), 130, BACKUP, BACKUP)
    (belief,) = track.believed
    assert belief.usually_until(instant(500)) == instant(130 + 60 + 60)
    assert belief.at_worst_until(instant(500)) == instant(130 + 60 + 900)
    assert signposts.believed(track, instant(1089)) == (belief,)
    assert signposts.believed(track, instant(1090)) == ()


def test_a_server_that_falls_back_to_the_old_value_prolongs_the_belief() -> None:
    track = signposts.fold_settled(moved(), instant(120))
    track = say(say(track, 130, BACKUP, BACKUP), 200, BACKUP, MAIN)
    assert track.believed[0].gone_at is None
    assert track.right_at is None
    assert say(track, 260, BACKUP, BACKUP).believed[0].gone_at == instant(260)


def test_a_long_ttl_that_another_hand_set_is_believed_as_long() -> None:
    track = read(known(), FOREIGN, 50)
    track = signposts.fold_accepted(signposts.fold_sent(track, MAIN, instant(60)), MAIN, "", instant(60))
    track = say(track, 70, MAIN, MAIN)
    foreign = next(b for b in track.believed if b.rrset == FOREIGN)
    assert foreign.usually_until(instant(70)) == instant(70 + 300 + 60)


def test_that_there_was_no_such_name_is_believed_for_its_negative_ttl() -> None:
    track = say(read(known(), None, 50), 50, None, None)
    track = signposts.fold_accepted(track, MAIN, "", instant(60))
    answers = (DnsAnswer("ns0", True, None, negative_ttl=300), DnsAnswer("ns1", True, MAIN))
    track = signposts.fold_answers(track, answers, instant(65))
    nothing = next(b for b in track.believed if b.rrset is None)
    assert nothing.gone_at is None
    track = say(track, 90, MAIN, MAIN)
    nothing = next(b for b in track.believed if b.rrset is None)
    assert (nothing.ttl, nothing.gone_at) == (300.0, instant(90))


def test_a_value_that_is_true_again_is_no_belief_and_keeps_nobody_looking() -> None:
    track = say(moved(), 130, BACKUP, BACKUP)
    track = signposts.fold_accepted(signposts.fold_sent(track, MAIN, instant(200)), MAIN, "", instant(200))
    track = say(track, 230, MAIN, MAIN)
    assert [b.rrset for b in signposts.believed(track, instant(230))] == [BACKUP]
    assert signposts.settled(track)


def test_a_long_ttl_of_the_same_value_counts_until_it_has_run_down() -> None:
    long = replace(MAIN, ttl=86400)
    for at, ttl in ((1000.0, 86400.0), (90000.0, 60.0)):
        track = read(read(known(), long, 10), MAIN, 100)  # repaired
        track = say(track, 110, MAIN, MAIN)
        assert signposts.believed(track, instant(110)) == ()
        track = signposts.fold_accepted(signposts.fold_sent(track, BACKUP, instant(at)), BACKUP, "", instant(at))
        assert [b.ttl for b in signposts.believed(track, instant(at))] == [ttl]


def test_nodes_that_were_told_of_no_name_or_of_a_ttl_of_nothing_wait_longest() -> None:
    for rrset in (None, replace(FOREIGN, ttl=0)):
        belief = signposts.Belief(rrset, 0.0, instant(0), instant(10))
        assert belief.usually_until(instant(20)) == belief.at_worst_until(instant(20)) == instant(910)


def test_beliefs_are_bounded_and_forgotten() -> None:
    track = known()
    for number in range(30):
        track = read(track, RRset(RecordType.A, (f"198.51.100.{number}",), 60), 10.0 * number + 10)
    assert len(track.believed) == signposts.BELIEFS
    last = track.rrset
    assert last is not None
    assert say(say(track, 400, last, last), 2000, last, last).believed == ()


def test_a_value_that_we_sent_is_no_other_hand_even_when_its_answer_was_lost() -> None:
    track = signposts.fold_sent(known(), BACKUP, instant(100))
    track = read(track, BACKUP, 110)
    assert track.reversals == ()
    assert read(known(), BACKUP, 110).reversals == (instant(110),)


def test_a_change_that_was_refused_leaves_the_value_to_other_hands() -> None:
    track = signposts.fold_unsent(signposts.fold_sent(known(), BACKUP, instant(100)), BACKUP)
    assert read(track, BACKUP, 110).reversals == (instant(110),)


def test_a_late_change_of_ours_is_no_other_hand_although_its_repetition_was_refused() -> None:
    track = signposts.fold_sent(known(), BACKUP, instant(100))  # no answer
    track = signposts.fold_unsent(signposts.fold_sent(track, BACKUP, instant(120)), BACKUP)  # a conflict
    assert read(track, BACKUP, 121).reversals == ()


def test_another_hand_right_after_an_accepted_change_is_drift_at_once() -> None:
    track = read(moved(100), FOREIGN, 105)
    assert track.reversals == (instant(105),)
    assert kinds(track, 106, "backup") == ["record-elsewhere"]


def test_the_second_reversal_within_an_hour_is_contested_for_a_quarter_of_one() -> None:
    track = read(mended(read(known(), FOREIGN, 100), 160), FOREIGN, 3000)
    assert signposts.contested(track, instant(3001))
    assert not signposts.contested(track, instant(3900))
    again = read(mended(track, 3910), FOREIGN, 4000)
    assert signposts.contested(again, instant(4001))
    once = mended(read(known(), FOREIGN, 100), 160)
    assert not signposts.contested(read(once, FOREIGN, 5000), instant(5000))
    unmended = read(read(known(), FOREIGN, 100), BACKUP, 160)
    assert not signposts.contested(unmended, instant(161))


def test_who_does_not_steer_holds_nothing_against_those_who_do() -> None:
    track = known()
    for at, rrset in ((100, BACKUP), (200, MAIN), (300, BACKUP)):
        track = signposts.fold_reading(track, RecordReading(rrset), instant(at), steering=False)
    assert (track.reversals, track.contested_until) == ((), None)


def test_a_value_is_gone_only_when_every_server_that_said_it_has_said_otherwise() -> None:
    track = say(known(), 90, MAIN, MAIN)
    track = signposts.fold_accepted(signposts.fold_sent(track, BACKUP, instant(100)), BACKUP, "", instant(100))
    silent = (DnsAnswer("ns0", True, BACKUP), DnsAnswer("ns1", True, None, Fault.SILENT, "no answer"))
    track = signposts.fold_answers(track, silent, instant(130))
    assert track.believed[0].gone_at is None
    assert track.believed[0].told_by == {"ns1"}
    assert say(track, 140, BACKUP, BACKUP).believed[0].gone_at == instant(140)
    assert signposts.fold_answers(track, silent, instant(3701)).believed[0].gone_at == instant(3701)


def test_a_server_that_is_heard_saying_something_old_makes_it_believed_again() -> None:
    track = say(known(), 10, MAIN, BACKUP)
    (belief,) = signposts.believed(track, instant(10))
    assert belief.rrset == BACKUP
    assert belief.told_by == {"ns1"}


def test_where_no_server_can_be_asked_the_providers_word_ends_a_belief() -> None:
    track = signposts.fold_settled(read(RecordTrack(), MAIN, 0), instant(0))
    track = signposts.fold_accepted(signposts.fold_sent(track, BACKUP, instant(100)), BACKUP, "C1", instant(100))
    track = signposts.fold_unseen(signposts.fold_settled(track, instant(130)), instant(200), "no servers found")
    assert track.believed[0].gone_at == instant(190)


def test_answers_from_before_a_change_that_is_under_way_prove_nothing() -> None:
    track = moved()
    track = signposts.fold_accepted(signposts.fold_sent(track, MAIN, instant(105)), MAIN, "C2", instant(105))
    track = say(track, 106, MAIN, MAIN)
    assert track.right_at is None
    assert track.believed[-1].gone_at is None
    assert say(signposts.fold_settled(track, instant(120)), 121, MAIN, MAIN).right_at == instant(121)


def test_a_server_that_is_wrong_every_second_time_is_told() -> None:
    track = known()
    for number in range(8):
        track = say(track, 30.0 * number, MAIN, BACKUP if number % 2 else MAIN)
    assert kinds(track, 220) == ["servers-disagree"]


def test_a_resolver_may_hold_the_old_value_for_its_ttl_and_no_longer() -> None:
    record = replace(RECORD, ttl=300)
    track = read(RecordTrack(), record.wanted("main"), 0)
    track = signposts.fold_accepted(track, record.wanted("backup"), "", instant(100))
    for at in (110, 300, 500):
        track = say(track, at, replace(MAIN, ttl=100), authoritative=False)
        signs = [s.kind for s in signposts.drift(record, track, "backup", instant(at))]
        assert signs == ([] if at < 460 else ["servers-disagree"])


def test_a_change_that_keeps_failing_is_shown_with_its_reason_and_alerted_after_a_minute() -> None:
    track = signposts.fold_failed(known(), "bp.example.com.: denied", instant(100))
    track = signposts.fold_failed(track, "bp.example.com.: denied still", instant(130))
    assert [(s.kind, s.what, s.alert) for s in signposts.drift(RECORD, track, None, instant(140))] == [
        ("record-stuck", "cannot be changed: denied still", False)
    ]
    assert signposts.drift(RECORD, track, None, instant(160))[0].alert
    assert signposts.drift(RECORD, signposts.fold_accepted(track, BACKUP, "", instant(170)), None, instant(171)) == ()


def test_what_changed_while_nobody_watched_is_not_held_against_anybody() -> None:
    restored = signposts.restore(json.loads(json.dumps(signposts.dump(known()))))
    assert not restored.tried
    assert read(restored, BACKUP, 500).reversals == ()


def test_everything_that_must_survive_a_restart_does() -> None:
    track = say(read(read(moved(), FOREIGN, 300), BACKUP, 360), 370, BACKUP, None)
    back = signposts.restore(json.loads(json.dumps(signposts.dump(track))))
    for name in ("reading", "sent", "change_id", "accepted_at", "insync_at", "believed", "reversals", "foreign"):
        assert getattr(back, name) == getattr(track, name), name
    assert signposts.restore(json.loads(json.dumps(signposts.dump(RecordTrack())))) == RecordTrack()


def test_a_change_just_sent_is_not_yet_drift() -> None:
    track = signposts.fold_sent(known(), BACKUP, instant(100))
    assert kinds(track, 110, "backup") == []
    assert kinds(track, 121, "backup") == ["record-elsewhere"]


def test_servers_may_differ_for_a_minute_and_no_longer() -> None:
    track = signposts.fold_settled(say(moved(), 110, BACKUP, MAIN), instant(115))
    assert kinds(track, 120, "backup") == []
    assert kinds(track, 171, "backup") == ["servers-disagree"]


def test_a_change_that_never_arrives_everywhere_is_told_after_ten_minutes() -> None:
    assert kinds(say(moved(), 110, BACKUP, MAIN), 600, "backup") == []
    assert kinds(say(moved(), 110, BACKUP, MAIN), 701, "backup") == ["record-pending"]


@pytest.mark.parametrize(("ttl", "right"), [(60, True), (12, True), (61, False)])
def test_a_resolvers_ttl_may_have_run_down_and_not_up(ttl: int, right: bool) -> None:
    answer = DnsAnswer("10.0.0.2", False, replace(MAIN, ttl=ttl))
    assert signposts.agrees(answer, MAIN) is right


def test_an_authoritative_servers_ttl_must_be_the_providers() -> None:
    assert not signposts.agrees(DnsAnswer("ns0", True, replace(MAIN, ttl=59)), MAIN)


def test_lame_servers_are_named_and_silent_ones_only_when_none_answers() -> None:
    lame = DnsAnswer("ns0", True, None, Fault.LAME, "answered REFUSED")
    silent = DnsAnswer("ns1", True, None, Fault.SILENT, "no answer")
    well = DnsAnswer("ns2", True, MAIN)
    track = signposts.fold_answers(known(), (lame, silent, well), instant(10))
    assert kinds(track, 10) == ["server-lame"]
    assert kinds(signposts.fold_answers(known(), (silent, silent), instant(10)), 10) == ["record-unverified"]
    assert kinds(signposts.fold_unseen(known(), instant(10), "no servers found"), 10) == ["record-unverified"]


def test_silence_of_the_provider_counts_from_its_first_failure_and_is_alerted_after_ten_minutes() -> None:
    track = known()
    for at in range(60, 720, 60):
        track = fold_silence(track, instant(at), "no answer")
    assert track.silent_since == instant(60)
    signs = signposts.drift(RECORD, track, "main", instant(659))
    assert [(s.kind, s.alert) for s in signs] == [("record-unreadable", False)]
    assert signposts.drift(RECORD, track, "main", instant(660))[0].alert
    assert read(track, MAIN, 720).silent_since is None
