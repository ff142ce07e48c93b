"""Which tips a producer is judged against, and what it does to patience when nobody knows how far the chain is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_world import instant, make_pool

from failover import health
from failover.board import Board
from failover.health import STANDSTILL, Sync
from failover.model import Address, Ping, Pool, Tip

FIRST, SECOND = Address("127.0.0.91", 3001), Address("127.0.0.92", 3001)
POOL = replace(make_pool(), references=(FIRST, SECOND))
MOST = POOL.health.max_lag
TURN = 10.0


def seen(turns: int = 6, *, pool: Pool = POOL, **behind: int | None) -> Board:
    """A board after so many turns, in which each producer and reference lies so many slots behind; None: silent."""
    board = Board(pool, instant(0))
    sources = {"first": str(FIRST), "second": str(SECOND)} | {p.name: p.name for p in pool.producers}
    for number in range(turns):
        now = instant(number * TURN)
        for name, source in sources.items():
            lag = behind.get(name, 0)
            tip = None if lag is None else Tip(100_000 + int(now.mono) - lag, "ab" * 32, 1)
            ping = Ping(now, now, tip is not None, tip, stage=None if tip else "connect")
            if source in board.tracks:
                board.post_ping(source, ping, board.yardstick(source, now))
            else:
                board.post_reference(source, ping)
    return board


def trouble(board: Board, producer: str) -> float:
    """Seconds that count for patience."""
    return health.trouble_within(board.tracks[producer], board.tracks[producer].last.at, 600.0)  # type: ignore[union-attr]


def test_a_producer_that_falls_behind_the_other_lags_and_is_in_trouble() -> None:
    board = seen(main=400)
    assert (board.tracks["main"].sync, board.tracks["backup"].sync) == (Sync.LAGGING, Sync.OK)
    assert trouble(board, "main") > 0


def test_references_that_lie_together_put_nobody_in_trouble() -> None:
    board = seen(first=-5000, second=-5000)
    for track in board.tracks.values():
        assert (track.sync, track.fit_since, track.unfit_since) == (Sync.STANDSTILL, None, None)
    assert [trouble(board, name) for name in POOL.names] == [0, 0]


def test_producers_that_are_cut_off_together_are_not_known_to_lag_and_it_is_shown_how_far() -> None:
    board = seen(main=400, backup=400 + MOST // 2)
    assert {track.sync for track in board.tracks.values()} == {Sync.STANDSTILL}
    assert board.tracks["main"].lag == 400


@pytest.mark.parametrize("backup", [0, 401 + MOST, 5000])
def test_producers_that_are_apart_are_judged_by_the_references(backup: int) -> None:
    assert seen(main=400, backup=backup).tracks["main"].sync is Sync.LAGGING


def test_one_producer_alone_is_judged_by_two_references_and_not_by_one() -> None:
    assert seen(main=400, backup=None).tracks["main"].sync is Sync.LAGGING
    assert seen(main=400, backup=None, second=None).tracks["main"].sync is Sync.STANDSTILL


def test_one_reference_ahead_of_everybody_is_not_believed() -> None:
    assert seen(first=-5000).tracks["main"].sync is Sync.STANDSTILL


def test_one_of_three_that_keeps_up_with_the_references_shows_that_the_others_lag() -> None:
    pool = replace(make_pool(producers=("main", "backup", "spare")), references=(FIRST, SECOND))
    board = seen(pool=pool, main=400, backup=400)
    assert [track.sync for track in board.tracks.values()] == [Sync.LAGGING, Sync.LAGGING, Sync.OK]


def test_as_soon_as_one_of_two_catches_up_the_other_lags() -> None:
    tips = {"main": Tip(1000, "", 1), "backup": Tip(1000, "", 1), "a": Tip(2000, "", 1), "b": Tip(2000, "", 1)}
    assert health.yardstick(tips, "main", POOL.names, MOST, standing_for=0).standstill
    tips["backup"] = Tip(1990, "", 1)
    assert not health.yardstick(tips, "main", POOL.names, MOST, standing_for=0).standstill
    assert health.yardstick(tips, "main", POOL.names, MOST, standing_for=STANDSTILL + 1).standstill
