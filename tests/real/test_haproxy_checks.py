"""What HAProxy's own checks say of a producer, and what of it is believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from haproxy_world import ANSWER, WAYS, World, close, open_, world

from failover.lab.haproxy import Style, WayIn
from failover.model import Admin, Check, ServerView


async def main_is(pool: World, way: WayIn, status: str, check: Check, admin: Admin = Admin.READY) -> ServerView:
    reading = await pool.sees(
        pool.port(way),
        lambda r: (
            (r.servers["main"].status, r.servers["main"].check, r.servers["main"].admin) == (status, check, admin)
        ),
    )
    return reading.servers["main"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_producer_that_hangs_fails_the_watch_check_and_takes_its_routed_row_down(
    tmp_path: Path, way: WayIn
) -> None:
    async with world(tmp_path) as pool:
        await main_is(pool, way, "UP", Check.PASSED_L7)
        pool.main.hang = True
        assert not (await main_is(pool, way, "DOWN", Check.FAILED)).serves
        pool.main.hang = False
        assert (await main_is(pool, way, "UP", Check.PASSED_L7)).serves


@pytest.mark.parametrize("way", WAYS)
async def test_a_closed_producer_is_still_checked(tmp_path: Path, way: WayIn) -> None:
    async with world(tmp_path) as pool:
        await main_is(pool, way, "UP", Check.PASSED_L7)
        port = pool.port(way)
        await port.read(ANSWER)
        await close(port, "main")
        await main_is(pool, way, "MAINT", Check.PASSED_L7, Admin.MAINT)
        pool.main.hang = True
        await main_is(pool, way, "MAINT", Check.FAILED, Admin.MAINT)
        await open_(port, "main")
        assert not (await main_is(pool, way, "DOWN", Check.FAILED)).serves, "opened while dead, it admits nobody"
        pool.main.hang = False
        assert (await main_is(pool, way, "UP", Check.PASSED_L7)).serves


@pytest.mark.parametrize("way", WAYS)
async def test_a_producer_of_another_network_fails_the_check(tmp_path: Path, way: WayIn) -> None:
    async with world(tmp_path) as pool:
        await main_is(pool, way, "UP", Check.PASSED_L7)
        pool.main.magic = 1
        await main_is(pool, way, "DOWN", Check.FAILED)


@pytest.mark.parametrize("way", WAYS)
async def test_a_plain_check_passes_at_layer_4_even_when_the_producer_hangs(tmp_path: Path, way: WayIn) -> None:
    async with world(tmp_path, Style.PLAIN) as pool:
        pool.main.hang = True
        await main_is(pool, way, "UP", Check.PASSED_L4)
        await pool.main.end()
        await main_is(pool, way, "DOWN", Check.FAILED)
        port = pool.port(way)
        await close(port, "main")
        await main_is(pool, way, "MAINT", Check.NONE, Admin.MAINT)


@pytest.mark.parametrize("way", WAYS)
async def test_a_routed_row_that_tracks_is_read_at_the_row_that_it_tracks(tmp_path: Path, way: WayIn) -> None:
    async with world(tmp_path) as pool:
        port = pool.port(way, watch=None)
        await pool.sees(port, lambda r: r.servers["main"].check is Check.PASSED_L7)


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_without_a_check_serves_and_says_nothing(tmp_path: Path, way: WayIn) -> None:
    async with world(tmp_path, Style.UNCHECKED) as pool:
        assert (await main_is(pool, way, "no check", Check.NONE)).serves
        await pool.lab.process.ask("set server producers/main weight 0")
        assert not (await main_is(pool, way, "no check", Check.NONE, Admin.DRAIN)).serves


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_that_is_forced_down_is_not_serving(tmp_path: Path, way: WayIn) -> None:
    async with world(tmp_path, Style.PLAIN, interval="60s") as pool:
        await main_is(pool, way, "UP", Check.PASSED_L4)
        await pool.lab.process.ask("set server producers/main health down")
        assert not (await main_is(pool, way, "DOWN", Check.FAILED)).serves


@pytest.mark.parametrize("way", WAYS)
async def test_with_the_backup_keyword_the_proxy_fails_over_by_itself(tmp_path: Path, way: WayIn) -> None:
    """Why the reference keeps the standby closed: here HAProxy admits the standby without being told."""
    async with world(tmp_path, Style.BACKUP) as pool:
        await main_is(pool, way, "UP", Check.PASSED_L4)
        await pool.main.end()
        await main_is(pool, way, "DOWN", Check.FAILED)
        await pool.relay()
        reading = await pool.sees(pool.port(way), lambda r: r.servers["backup"].sessions == 1)
        assert reading.servers["backup"].serves


async def test_drain_under_down_is_seen_by_the_runtime_api_and_hidden_by_the_page(tmp_path: Path) -> None:
    async with world(tmp_path) as pool:
        await pool.lab.process.ask("set server producers/main state drain")
        for way in WAYS:
            await main_is(pool, way, "DRAIN", Check.PASSED_L7, Admin.DRAIN)
        pool.main.hang = True
        await main_is(pool, WayIn.SOCKET, "DOWN", Check.FAILED, Admin.DRAIN)
        await main_is(pool, WayIn.STATS, "DOWN", Check.FAILED, Admin.READY)


@pytest.mark.parametrize("way", WAYS)
async def test_a_drained_producer_is_closed_and_opened_like_any_other(tmp_path: Path, way: WayIn) -> None:
    async with world(tmp_path) as pool:
        port = pool.port(way)
        await port.read(ANSWER)
        await pool.lab.process.ask("set server producers/main state drain")
        await close(port, "main")
        await main_is(pool, way, "MAINT", Check.PASSED_L7, Admin.MAINT)
        await open_(port, "main")
        await main_is(pool, way, "UP", Check.PASSED_L7)
