"""A history of ups and downs played through the policy, and how the history is read from Prometheus over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from policy_world import make_gateless_pool, make_pool

from failover.errors import FailoverError
from failover.host import RealHost
from failover.simulator import prometheus
from failover.simulator.host import draw
from failover.simulator.prometheus import History, Sample, Source
from failover.simulator.replay import MOST_ROWS, Move, Replay, document, replay, sentences

START = 1_700_000_010.0  # a multiple of the step
STEP = 30.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
Times = list[tuple[float, float]]


def samples(length: float, down: Times, gaps: Times) -> tuple[Sample, ...]:
    """A sample each STEP; ``down`` and ``gaps`` are (from, to) in seconds from START."""
    states: list[bool | None] = [True] * int(length // STEP)
    for times, state in ((down, False), (gaps, None)):
        for begin, end in times:
            for number in range(int(begin // STEP), min(int(end // STEP), len(states))):
                states[number] = state
    return tuple(Sample(START + n * STEP, up) for n, up in enumerate(states) if up is not None)


def history(length: float, gaps: Times | None = None, **down: Times) -> History:
    names = ("main", "backup")
    series = {name: samples(length, down.get(name, []), gaps or []) for name in names}
    return History(START, START + length, STEP, series)


def told(result: Replay) -> list[tuple[float, str, str | None]]:
    """When (seconds from START), what, to whom."""
    return [(move.at - START, move.what, move.target) for move in result.moves]


# ---------------------------------------------------------------- playing


def test_an_outage_of_four_minutes_moves_nothing() -> None:
    result = replay(make_pool(), history(DAY, main=[(HOUR, HOUR + 4 * MINUTE)]))
    assert result.moves == ()
    assert (result.alone.total, result.controlled.total, result.gained) == (240, 240, 0)
    assert result.single_samples == 1


def test_an_outage_of_twenty_minutes_is_a_failover_and_half_an_hour_after_it_a_failback() -> None:
    result = replay(make_pool(), history(DAY, main=[(HOUR, HOUR + 20 * MINUTE)]))
    assert told(result) == [
        (HOUR + 5 * MINUTE, "failover", "backup"),
        (HOUR + 50 * MINUTE + 10, "failback", "main"),  # two good pings make it up
    ]
    assert [move.cause for move in result.moves] == ["forced", "voluntary"]
    assert "main is down for 300 s (3 of 3 agree): backup takes over" in result.moves[0].reason
    assert (result.alone.total, result.controlled.total, result.gained) == (1200, 300, 900)
    assert (result.alone.longest, result.controlled.longest) == (1200, 300)
    assert result.false_alarms == 0


def test_a_producer_that_is_back_right_after_the_failover_makes_it_a_false_alarm() -> None:
    result = replay(make_pool(), history(DAY, main=[(HOUR, HOUR + 7 * MINUTE)]))
    assert result.moves[0].up_again == 120
    assert (result.failovers, result.failbacks, result.false_alarms) == (1, 1, 1)
    patient = replay(make_pool(), history(DAY, main=[(HOUR, HOUR + 7 * MINUTE)]), alarm_within=60.0)
    assert patient.false_alarms == 0


def test_back_exactly_at_the_limit_is_still_a_false_alarm_and_a_step_later_is_none() -> None:
    for outage, alarms in ((10 * MINUTE, 1), (10 * MINUTE + STEP, 0)):
        assert replay(make_pool(), history(DAY, main=[(HOUR, HOUR + outage)])).false_alarms == alarms


def test_repeated_outages_make_each_failback_wait_longer() -> None:
    outages = [(HOUR * n, HOUR * n + 10 * MINUTE) for n in (1, 3, 6)]
    result = replay(make_pool(), history(DAY, main=outages))
    backs = [move.at - START for move in result.moves if move.what == "failback"]
    waits = [back - end for back, (_, end) in zip(backs, outages, strict=True)]
    assert waits == [1810.0, 3610.0, 7210.0]


def test_a_failover_of_yesterday_is_forgotten_while_a_failback_waits() -> None:
    outages = [(HOUR, HOUR + 10 * MINUTE), (24 * HOUR + 40 * MINUTE, 24 * HOUR + 50 * MINUTE)]
    x = history(26 * HOUR, main=outages)
    result = replay(make_pool(), x)
    assert result.moves == replay(make_pool(), x, every_ping=True).moves
    # The second would wait an hour; 24 hours after the first failover it is half an hour again, and that is over.
    assert told(result)[-1] == (24 * HOUR + 80 * MINUTE + 10, "failback", "main")


def test_in_a_gap_of_an_hour_nothing_is_moved_and_nothing_is_counted() -> None:
    result = replay(make_pool(), history(DAY, gaps=[(HOUR, 2 * HOUR)]))
    assert result.moves == ()
    # The sample before the gap still speaks for its own step.
    assert (result.unknown, result.alone.total) == (HOUR, 0)


def test_an_outage_that_a_gap_interrupts_waits_anew_behind_it() -> None:
    down = [(HOUR, 3 * HOUR)]
    gaps = [(HOUR + 4 * MINUTE, 2 * HOUR)]
    result = replay(make_pool(), history(DAY, gaps=gaps, main=down))
    assert told(result)[0] == (2 * HOUR + 5 * MINUTE, "failover", "backup")
    assert result.outages[0].count == 2


def test_two_samples_that_are_missing_are_no_gap() -> None:
    whole = history(DAY, main=[(HOUR, HOUR + 20 * MINUTE)])
    holes = [(HOUR + MINUTE, HOUR + 2 * MINUTE), (4 * HOUR, 4 * HOUR + MINUTE)]
    pierced = history(DAY, gaps=holes, main=[(HOUR, HOUR + 20 * MINUTE)])
    assert replay(make_pool(), pierced).moves == replay(make_pool(), whole).moves
    assert replay(make_pool(), pierced).unknown == 0


def test_when_both_are_down_nobody_takes_over_until_one_is_up() -> None:
    result = replay(make_pool(), history(DAY, main=[(HOUR, 4 * HOUR)], backup=[(HOUR, 2 * HOUR)]))
    assert told(result)[0] == (2 * HOUR + 10, "failover", "backup")
    assert result.nobody_up == HOUR
    assert result.alone.total == 3 * HOUR
    assert result.controlled.total == HOUR + 10


def test_a_history_that_begins_with_the_preferred_one_down_begins_on_another() -> None:
    result = replay(make_pool(), history(DAY, main=[(0, HOUR)]))
    assert told(result) == [(HOUR + 30 * MINUTE + 10, "failback", "main")]


def test_a_producer_without_a_history_takes_nothing_over() -> None:
    alone = History(START, START + DAY, STEP, {"main": samples(DAY, [(HOUR, 2 * HOUR)], [])})
    result = replay(make_pool(), alone)
    assert result.moves == ()
    assert result.single_samples == 0
    assert "backup: the history tells nothing of it" in list(sentences(result))


def test_a_third_producer_without_a_history_does_not_hinder_the_others() -> None:
    pool = make_pool(producers=("main", "backup", "spare"))
    result = replay(pool, history(DAY, main=[(HOUR, 2 * HOUR)]))
    assert told(result)[0] == (HOUR + 5 * MINUTE, "failover", "backup")


def test_a_pool_that_only_observes_is_told_what_would_have_been_done() -> None:
    x = history(DAY, main=[(HOUR, HOUR + 20 * MINUTE)])
    assert replay(make_pool(mode="observe"), x).moves == replay(make_pool(), x).moves


def test_without_any_gate_the_records_are_moved_and_stay() -> None:
    result = replay(make_gateless_pool(), history(DAY, main=[(HOUR, HOUR + 20 * MINUTE)]))
    assert told(result) == [(HOUR + 5 * MINUTE, "failover", "backup")]
    assert result.gained == 900
    assert "What would have been done (by moving the records alone):" in list(sentences(result))


def test_beside_proxies_records_are_left_out() -> None:
    x = history(DAY, main=[(HOUR, HOUR + 20 * MINUTE)])
    assert replay(make_pool(records=("bp.example.com.",)), x).moves == replay(make_pool(), x).moves


def test_failing_back_by_hand_only_stays_where_it_is() -> None:
    result = replay(make_pool(fail_back="manual"), history(DAY, main=[(HOUR, HOUR + 20 * MINUTE)]))
    assert (result.failovers, result.failbacks) == (1, 0)


def test_a_history_of_a_producer_that_the_file_does_not_know_is_refused() -> None:
    strange = History(START, START + DAY, STEP, {"main": samples(DAY, [], []), "old-bp": samples(DAY, [], [])})
    with pytest.raises(FailoverError, match=r"tells of 'old-bp'.*there are main, backup"):
        replay(make_pool(), strange)


def test_a_history_that_tells_nothing_is_refused() -> None:
    with pytest.raises(FailoverError, match="tells nothing"):
        replay(make_pool(), History(START, START + DAY, STEP, {"main": ()}))


def test_flapping_at_each_sample_moves_seldom_where_a_script_would_move_each_time() -> None:
    flaps = [(HOUR + n * 90, HOUR + n * 90 + 60) for n in range(160)]
    result = replay(make_pool(), history(12 * HOUR, main=flaps))
    assert result.single_samples == 160
    assert (result.failovers, result.failbacks) == (1, 1)


def drawn(seed: int) -> History:
    """Outages and gaps of all lengths, over a day and a bit."""
    length = 26 * HOUR

    def times(name: str, most: int, lengths: tuple[int, ...]) -> Times:
        found = []
        for number in range(draw(seed, name) % (most + 1)):
            begin = draw(seed, name, number, "at") % int(length)
            found.append((float(begin), begin + float(lengths[draw(seed, name, number, "for") % len(lengths)])))
        return found

    series = {}
    together = times("all gone", 2, (60, 600, 3600))
    for name in ("main", "backup"):
        down = times(f"{name} down", 9, (30, 60, 270, 300, 330, 420, 1200, 5400, 30000))
        flaps = [(at + n * 120, at + n * 120 + 60) for at, _ in times(f"{name} flaps", 1, (0,)) for n in range(20)]
        series[name] = samples(length, down + flaps, together + times(f"{name} gone", 2, (30, 120, 900)))
    return History(START, START + length, STEP, series)


@pytest.mark.parametrize("seed", range(10))
def test_leaving_out_quiet_pings_changes_nothing(seed: int) -> None:
    pool = make_gateless_pool() if seed in (2, 5, 8) else make_pool(references=seed != 1)
    x = drawn(seed)
    quick, whole = replay(pool, x), replay(pool, x, every_ping=True)
    assert replace(quick, turns=0) == replace(whole, turns=0)
    assert quick.turns < whole.turns


def test_the_drawn_histories_are_worth_playing() -> None:
    results = [replay(make_pool(), drawn(seed)) for seed in range(10)]
    assert sum(result.failovers for result in results) > 20
    assert sum(result.failbacks for result in results) > 8
    assert sum(result.false_alarms for result in results) > 3


def test_ninety_quiet_days_are_played_in_a_handful_of_turns() -> None:
    shares: list[float] = []
    length = 90 * DAY
    result = replay(make_pool(), history(length, main=[(DAY, DAY + 20 * MINUTE)]), progress=shares.append)
    assert result.turns < 100
    assert shares[-1] == 1.0
    assert all(a < b for a, b in pairwise(shares))


def test_progress_is_told_in_bounds_however_long_it_takes() -> None:
    shares: list[float] = []
    replay(make_pool(), history(DAY), progress=shares.append, every_ping=True)
    assert len(shares) == 200
    assert shares[-1] == 1.0


# ---------------------------------------------------------------- telling


def test_the_report_reads_from_the_outages_to_what_was_gained() -> None:
    lines = list(sentences(replay(make_pool(), history(DAY, main=[(HOUR, HOUR + 7 * MINUTE)]))))
    assert lines == [
        "TEST: 2023-11-14T22:13:30.000Z to 2023-11-15T22:13:30.000Z (1 d), a sample each 30 s",
        "main: down once, at most 7 min, 7 min in all",
        "backup: never down",
        "",
        "What would have been done:",
        "2023-11-14T23:18:30.000Z  failover  main -> backup (forced): main is down for 300 s (3 of 3 agree): "
        "backup takes over; FALSE ALARM: main was up again 2 min later",
        "2023-11-14T23:50:40.000Z  failback  backup -> main (voluntary): main has been fit for 1800 s: main takes over",
        "",
        "Failovers: 1; failbacks: 1; false alarms: 1 (up again within 5 min).",
        "A script that moves at the first failed sample would have left main once.",
        "Without a producer, with main alone: 7 min, at most 7 min at a stretch.",
        "Without a producer, with the controller: 5 min, at most 5 min at a stretch.",
        "Gained: 2 min.",
    ]


def test_of_very_many_moves_the_report_tells_the_first_and_counts_the_rest() -> None:
    result = replay(make_pool(), history(DAY))
    many = replace(result, moves=tuple(Move(START, "failover", "main", "backup", "forced", "why") for _ in range(250)))
    lines = list(sentences(many))
    assert sum("main -> backup" in line for line in lines) == MOST_ROWS
    assert "and 50 more" in lines
    assert len(document(many)["moves"]) == 250


def test_the_document_is_json_with_times_in_utc_and_seconds() -> None:
    found = document(replay(make_pool(), history(DAY, main=[(HOUR, HOUR + 20 * MINUTE)])))
    assert json.loads(json.dumps(found)) == found
    assert found["moves"][0] == {
        "at": "2023-11-14T23:18:30.000Z",
        "what": "failover",
        "from": "main",
        "to": "backup",
        "cause": "forced",
        "reason": "main is down for 300 s (3 of 3 agree): backup takes over",
        "false_alarm": False,
        "up_again_seconds": None,
    }
    assert (found["failovers"], found["failbacks"], found["gained_seconds"]) == (1, 1, 900.0)
    assert found["without_producer"]["controlled_seconds"] == 300.0


# ---------------------------------------------------------------- reading


class Server:
    """An HTTP server on loopback; ``say`` writes the answer, ``asked`` has the questions' parameters and headers."""

    def __init__(self, say: Callable[[BaseHTTPRequestHandler, dict[str, str]], None]) -> None:
        self.asked: list[tuple[str, dict[str, str], Mapping[str, str]]] = []
        self.done = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                params = {key: values[0] for key, values in parse_qs(parts.query).items()}
                server.asked.append((parts.path, params, dict(self.headers)))
                with suppress(ConnectionError):
                    say(self, params)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@contextmanager
def serving(say: Callable[[BaseHTTPRequestHandler, dict[str, str]], None]) -> Iterator[Server]:
    server = Server(say)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.done.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join(10)


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", headers.pop("length", str(len(body))))
    for key, value in headers.items():
        handler.send_header(key, value)
    handler.end_headers()
    handler.wfile.write(body)


def answer(*series: tuple[dict[str, str], list[list[Any]]]) -> bytes:
    result = [{"metric": metric, "values": values} for metric, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


def asked_for(params: Mapping[str, str]) -> Iterator[float]:
    at, end, step = float(params["start"]), float(params["end"]), float(params["step"])
    while at <= end:
        yield at
        at += step


def read(
    url: str, length: float = HOUR, *, deadline: float = 20.0, step: float | None = None, **source: Any
) -> History:
    asking = prometheus.read(
        make_pool(), Source(url, **source), START, START + length, RealHost(), step=step, deadline=deadline
    )
    return asyncio.run(asking)


def refusal(say: Callable[[BaseHTTPRequestHandler, dict[str, str]], None], **asked: Any) -> FailoverError:
    """What reading from such a server raises, after a look that it names the address and a mend."""
    with serving(say) as server, pytest.raises(FailoverError) as caught:
        read(server.url, **asked)
    assert server.url in str(caught.value)
    assert caught.value.mend
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return caught.value


def always(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler, dict[str, str]], None]:
    return lambda handler, params: send(handler, body, status, **headers)


def healthy(handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
    rows = [[at, "0" if n == 3 else "1"] for n, at in enumerate(asked_for(params))]
    send(handler, answer(({"producer": "main"}, rows), ({"producer": "backup"}, [[at, "1"] for at, _ in rows])))


def test_our_own_metric_is_asked_for_by_pool_and_producers() -> None:
    with serving(healthy) as server:
        found = read(f"{server.url}/prometheus/")
    path, params, headers = server.asked[0]
    assert path == "/prometheus/api/v1/query_range"
    assert params["query"] == ('max by (producer) (cardano_failover_producer_up{pool="TEST",producer=~"main|backup"})')
    assert float(params["step"]) == 30.0
    assert "Authorization" not in headers
    assert len(found.series["main"]) == len(found.series["backup"]) == 121
    assert [s.at for s in found.series["main"] if not s.up] == [START + 90]


def test_a_long_time_is_asked_for_in_pieces_that_prometheus_accepts() -> None:
    with serving(healthy) as server:
        found = read(server.url, 25_000.0, step=1.0)
    spans = [(float(p["start"]), float(p["end"])) for _, p, _ in server.asked]
    assert [end - start + 1 for start, end in spans] == [11_000, 11_000, 3_001]
    assert all(later == earlier + 1 for (_, earlier), (later, _) in pairwise(spans))
    assert [s.at for s in found.series["backup"]] == [START + n for n in range(25_001)]


def test_the_step_is_never_finer_than_half_a_minute_or_the_pings() -> None:
    slow = replace(make_pool(), health=replace(make_pool().health, interval=60.0))
    assert (prometheus.usual_step(make_pool()), prometheus.usual_step(slow)) == (30.0, 60.0)


def test_samples_that_are_missing_stay_missing() -> None:
    def with_gap(handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
        rows = [[at, "1"] for at in asked_for(params) if not START + 600 <= at < START + 1200]
        rows[5][1] = "NaN"
        send(handler, answer(({"producer": "main"}, rows)))

    with serving(with_gap) as server:
        found = read(server.url)
    assert len(found.series["main"]) == 121 - 20 - 1
    assert found.series["backup"] == ()


def test_a_query_of_ones_own_is_mapped_by_the_values_of_labels() -> None:
    def instances(handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
        rows = [[at, "1"] for at in asked_for(params)]
        one = ({"__name__": "up", "instance": "10.0.1.10:12798", "job": "node"}, rows[:60])
        moved = ({"__name__": "up", "instance": "10.0.1.10:12798", "job": "node2"}, rows[60:])
        send(handler, answer(one, moved, ({"instance": "10.0.2.10:12798"}, rows)))

    labels = {"10.0.1.10:12798": "main", "10.0.2.10:12798": "backup"}
    with serving(instances) as server:
        found = read(server.url, query="up", labels=labels)
    assert server.asked[0][1]["query"] == "up"
    assert [len(found.series[name]) for name in ("main", "backup")] == [121, 121]


def test_a_series_that_is_nobodys_is_named() -> None:
    rows = [[START, "1"]]
    body = answer(({"instance": "10.0.9.9:1"}, rows), ({"producer": "old-bp"}, rows))
    error = refusal(always(body), query="up")
    assert '{instance="10.0.9.9:1"}, {producer="old-bp"}' in str(error)
    assert "The producers are main, backup" in str(error)


def test_labels_that_stand_for_nobody_are_refused_before_anything_is_asked() -> None:
    with serving(healthy) as server, pytest.raises(FailoverError, match="'old-bp' is no producer of this pool"):
        read(server.url, labels={"10.0.1.10:12798": "old-bp"})
    assert server.asked == []


def test_two_series_that_differ_on_one_producer_are_refused() -> None:
    series = [({"producer": "main", "job": job}, [[START, value]]) for job, value in (("a", "1"), ("b", "0"))]
    assert "two series differ on main" in str(refusal(always(answer(*series)), query="up"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!doctype html><title>Login</title>", "an HTML page"),
        (b"", "answered with nothing"),
        (b'{"status":"success","data":{"resultType":"mat', "no whole JSON"),
        (b"[" * 100_000, "no whole JSON"),
        (b"\xff\xfe", "no whole JSON"),
        (b"[]", "as Prometheus would not"),
        (b'{"status":"success","data":{"resultType":"vector","result":[]}}', "a result of type 'vector'"),
        (b'{"status":"success","data":{"resultType":"matrix","result":[7]}}', "a series without labels"),
        (b'{"status":"success","data":{"resultType":"matrix","result":[]}}', "holds nothing from 2023-11-14T22:13:30"),
        (b'{"status":"error","errorType":"bad_data","error":"parse\\nerror"}', "bad_data: parse error"),
        (answer(({"producer": "main"}, [[START, "0.5"]])), "is 0.5 at 2023-11-14T22:13:30.000Z, neither 0 nor 1"),
        (answer(({"producer": "main"}, [[START - 999, "1"]])), "which was not asked for"),
        (answer(({"producer": "main"}, [[START]])), "a sample '[1700000010.0]'"),
        (answer(({"producer": "main"}, [[True, "1"]])), "a sample \"[True, '1']\""),
        (
            b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[]}]}}',
            "whose series",
        ),
    ],
)
def test_an_answer_that_is_no_history_is_told_by_what_it_is(body: bytes, words: str) -> None:
    assert words in str(refusal(always(body)))


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            400,
            b'{"status":"error","errorType":"bad_data","error":"unknown function"}',
            "400, bad_data: unknown function",
        ),
        (422, b'{"status":"error","errorType":"execution","error":"' + b"x" * 9000 + b'"}', "422, execution: xxx"),
        (401, b"Unauthorized", "answered 401"),
        (403, b"no", "answered 403"),
        (404, b"404 page not found", "answered 404"),
        (503, b"Service Unavailable", "answered 503"),
        (500, b"<html>", "answered 500"),
    ],
)
def test_a_refusal_is_told_with_the_words_of_prometheus_where_it_has_any(status: int, body: bytes, words: str) -> None:
    assert words in str(refusal(always(body, status)))


def test_a_redirect_is_not_followed() -> None:
    with serving(healthy) as other:
        error = refusal(always(b"", 302, Location=f"http://user:secret@{other.url.removeprefix('http://')}/login"))
    assert other.asked == []
    assert f"302, a redirect to {other.url}/login" in str(error)
    assert "secret" not in str(error)


def test_an_answer_that_is_cut_off_is_not_taken_for_a_short_one() -> None:
    whole = answer(({"producer": "main"}, [[START, "1"]]))
    assert "without a whole answer" in str(refusal(always(whole, length=str(len(whole) + 100))))


def test_an_answer_without_end_is_left_at_its_bound() -> None:
    def flood(handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" " * (1 << 20))

    assert "sent more than 16 MiB" in str(refusal(flood))


def test_answers_that_are_large_together_are_left_at_their_bound() -> None:
    padding = b" " * (15 << 20)

    def large(handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
        send(handler, padding + answer(({"producer": "main"}, [[float(params["start"]), "1"]])))

    assert "sent more than 64 MiB" in str(refusal(large, length=60_000.0, step=1.0))


@pytest.mark.parametrize("headers", [True, False])
def test_a_server_that_dribbles_is_left_at_the_deadline(headers: bool) -> None:
    gone = threading.Event()

    def dribble(handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n")
            handler.wfile.write(b"\r\n" if headers else b"X-Slow: ")
            while not gone.wait(0.05):
                handler.wfile.write(b" ")
        except ConnectionError:
            gone.set()

    error = refusal(dribble, deadline=0.5)
    assert "did not answer in full within 0.5 s" in str(error)
    assert gone.wait(10)  # the connection was cut, not only given up on


def test_nobody_there_is_told_as_such() -> None:
    with serving(healthy) as server:
        url = server.url
    with pytest.raises(FailoverError, match="took no connection: Connection refused") as caught:
        read(url)
    assert caught.value.mend


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://127.0.0.1:9090", "no http or https address"),
        ("127.0.0.1:9090", "no http or https address"),
        ("http://", "no http or https address"),
        ("http://127.0.0.1:99999", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("http://user:secret@127.0.0.1:9090", "holds a user or a password"),
        ("http://127.0.0.1:9090/graph?g0.expr=up", "holds more than a path"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_and_a_password_in_it_not_repeated(url: str, words: str) -> None:
    with pytest.raises(FailoverError, match=words) as caught:
        read(url)
    assert caught.value.mend
    assert "secret" not in str(caught.value)


def test_a_user_and_password_or_a_token_are_sent_and_never_shown() -> None:
    with serving(healthy) as server:
        read(server.url, username="ops", password="s3cret")
        read(server.url, token="t0ken")
    assert [headers["Authorization"] for _, _, headers in server.asked] == ["Basic b3BzOnMzY3JldA==", "Bearer t0ken"]
    shown = repr(Source(server.url, username="ops", password="s3cret", token="t0ken"))
    assert "s3cret" not in shown
    assert "t0ken" not in shown
    error = refusal(always(b"Unauthorized", 401), token="t0ken")
    assert "t0ken" not in str(error) + error.mend


@pytest.mark.parametrize("source", [{"token": "a\nb"}, {"username": "a", "password": "se\ncret"}, {"token": "sé"}])
def test_a_secret_that_cannot_be_one_is_refused_without_showing_it(source: dict[str, Any]) -> None:
    with serving(healthy) as server, pytest.raises(FailoverError) as caught:
        read(server.url, **source)
    assert server.asked == []
    assert "cret" not in str(caught.value)


def test_the_environment_says_nothing_about_how_to_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(healthy) as server:
        read(server.url)
    assert "Authorization" not in server.asked[0][2]


def test_too_many_samples_are_refused_before_anything_is_asked() -> None:
    with serving(healthy) as server, pytest.raises(FailoverError, match="are more than 11000000"):
        read(server.url, 1e9, step=1.0)
    assert server.asked == []


def test_what_was_read_is_what_is_played() -> None:
    def outage(handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
        rows = [[at, "0" if START + HOUR <= at < START + HOUR + 1200 else "1"] for at in asked_for(params)]
        send(handler, answer(({"producer": "main"}, rows), ({"producer": "backup"}, [[at, "1"] for at, _ in rows])))

    with serving(outage) as server:
        result = replay(make_pool(), read(server.url, DAY))
    expected = replay(make_pool(), history(DAY, main=[(HOUR, HOUR + 1200)]))
    assert result.moves == expected.moves
    assert len(result.moves) == 2
