"""Whole stories on several hosts: cables are cut, hosts die and reboot, agents hang, and never do two make blocks.

Real are the daemon, sshd, the agents, HAProxy, BIND, nftables and the network between them. Stories run side by side;
each is judged by what nodes and relays noted (host_stage.py), not by what the controller says.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time  # noqa: TID251 - real programs, real time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from host_stage import ACTION_TIMEOUT, INTERVAL, WITHIN, Machine, Plan, Stage, Status, inside, stage, together

AT_ONCE = 5  # stories
KEYS = ("kes.skey", "vrf.skey", "node.cert")

Story = Callable[[Path], None]
STORIES: dict[str, Story] = {}


def story(play: Story) -> Callable[[dict[str, Future[None]]], None]:
    """A test whose story is played together with the others that were asked for."""
    name = play.__name__
    STORIES[name] = play

    def test(played: dict[str, Future[None]]) -> None:
        played[name].result()

    test.__doc__ = play.__doc__
    return test


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """What came of each story that was asked for, by name."""
    asked = {item.name for item in request.session.items if item.path == request.path}
    with ThreadPoolExecutor(AT_ONCE) as stages:
        yield {name: stages.submit(_play, told) for name, told in STORIES.items() if name in asked}


def _play(told: Story) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fo-"))
    try:
        told(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- words


def gate_of(status: Status, name: str) -> dict[str, object]:
    """A gate as the status has it."""
    return next(dict(gate) for gate in status["gates"] if gate["name"] == name)


def health_of(status: Status, producer: str) -> str:
    """A producer's, as the status has it."""
    return next(str(row["health"]) for row in status["producers"] if row["name"] == producer)


def is_closed(name: str) -> Callable[[Status], bool]:
    """The gate says so, and could show it."""
    return lambda s: gate_of(s, name)["open"] is False and bool(gate_of(s, name)["certain"])


def with_main(status: Status) -> bool:
    """The role stays where it is."""
    return status["phase"] in (None, "steady") and status["active"] in (None, "main") and not status["split_brain"]


def alerts(pool: Stage) -> list[str]:
    """Every alert so far."""
    return [row["reason"] for row in pool.history() if row["event"] == "alert"]


def in_the_middle(pool: Stage, machine: Machine) -> subprocess.Popen[str]:
    """Begin a switchover to the backup, and come back when the close is under way: the first key file has left."""
    words = ["-m", "failover", "-c", str(pool.file), "switchover", "--to", "backup", "--yes", "--no-wait"]
    asked = pool.hosts["controller"].popen([sys.executable, *words])
    certificate, end = machine.keys / "node.cert", time.monotonic() + WITHIN
    while certificate.exists():
        assert time.monotonic() < end, f"it was never closed\n{pool.told(pool.status())}"
        time.sleep(0.002)
    return asked


# ---------------------------------------------------------------- those that take longest


@story
def test_a_board_that_lies_or_hangs_lets_nobody_in_and_what_is_waited_for_is_said(folder: Path) -> None:
    with stage(folder, Plan(power=True, require="confirmed")) as pool:
        pool.until(pool.steady("main"), "main has the role")
        pool.board("lies")
        for name in ("controller", "backup"):
            pool.hosts.cut("main", name)
        pool.await_(lambda: pool.board_was_asked("off"), "it is told to switch main off")
        pool.hold(lambda s: s["phase"] == "fencing", 2 * ACTION_TIMEOUT, "nobody is let in")
        pool.board("hangs")
        pool.until(lambda s: not gate_of(s, "main@power")["reachable"], "the board is silent")
        pool.await_(lambda: any("main@power has been silent" in words for words in alerts(pool)), "a person is told")
        pool.hold(lambda s: s["phase"] == "fencing", ACTION_TIMEOUT, "nobody is let in")
        assert pool.forges("main")
        assert pool.forged("backup") == []
        pool.board("honest")
        pool.until(lambda s: s["phase"] == "steady" and s["active"] == "backup", "backup has the role")


@story
def test_relays_that_stick_to_a_loser_of_a_dns_record_are_made_to_let_go_one_at_a_time(folder: Path) -> None:
    plan = Plan(gates=(), relays=2, managed=True, names=True, require="none")
    relays = ("relay-1", "relay-2")

    def connected(status: Status, producer: str) -> bool:
        rows = [row["connected"] or [] for row in status["relays"]]
        return len(rows) == 2 and all([s["producer"] for s in sessions] == [producer] for sessions in rows)

    with stage(folder, plan, judged=False) as pool:  # nothing shuts the loser out: both could make blocks all the time
        pool.until(lambda s: pool.steady("main")(s) and connected(s, "main"), "relays are with main")
        # Whoever is made to let go before its resolver has heard of the change dials the loser once more.
        for relay in relays:
            pool.hosts.cut("controller", relay)
        pool.switchover("backup")
        pool.await_(
            lambda: all(any(t.producer == "backup" for t in pool.reached(relay)) for relay in relays),
            "relays look the name up again",
        )
        pool.hosts.heal()
        pool.until(lambda s: s["active"] == "backup" and connected(s, "backup"), "relays are with backup")
        pool.until(lambda s: "relay-astray" not in [found["kind"] for found in s["drift"]], "nothing is left to do")
        gone = {relay: max(t.end for t in pool.connected(relay) if t.producer == "main") for relay in relays}
        assert abs(gone["relay-1"] - gone["relay-2"]) > 15.0, "they were made to let go at the same time"
        for relay in relays:
            came = min(t.start for t in pool.reached(relay) if t.producer == "backup")
            assert came < gone[relay] + 10.0, f"{relay} was alone for long"
            (until,) = [t.end for t in pool.reached(relay) if t.producer == "main"]
            assert abs(came - until) < 10.0, f"{relay} took blocks of both for long"
    assert pool.all_forged()


@story
def test_an_isolated_main_closes_itself_by_its_fuse_before_backup_is_let_in(folder: Path) -> None:
    plan = Plan(fuse=8.0, fail_over_after=20.0)
    with stage(folder, plan) as pool:
        for machine in (pool.main, pool.backup):
            machine.host.popen(machine.agent("fuse"))
        pool.until(
            lambda s: s["decision"] is not None and s["decision"]["rule"] == 5, "it waits for somebody to say who"
        )
        pool.failover("adopt", "main", "--yes")
        pool.until(pool.steady("main"), "main has the role")
        pool.await_(lambda: pool.forges("main"), "main forges")
        for name in ("controller", "backup"):
            pool.hosts.cut("main", name)
        pool.until(lambda s: s["phase"] == "steady" and s["active"] == "backup", "backup has the role")
        pool.await_(lambda: pool.forges("backup"), "backup forges")
        assert not pool.forges("main")
        assert {t.producer for t in pool.reached("relay-1")} == {"main", "backup"}, "relays could reach it all the time"
        pool.hosts.heal()
        pool.until(lambda s: any(pool.steady(name)(s) for name in ("main", "backup")), "it is settled")


# ---------------------------------------------------------------- forging gates alone


@story
def test_a_standby_that_another_hand_opens_is_closed_again_and_does_not_escape_the_judgement(folder: Path) -> None:
    with stage(folder, Plan(), judged=False) as pool:
        pool.until(pool.steady("main"), "main has the role")
        pool.judge()
        heard = pool.backup.ask("status")["gates"]["forging"]
        said = pool.backup.ask("open", gate="forging", generation=heard["generation"], term=heard["term"])
        assert said["ok"], said
        pool.await_(lambda: pool.forged("backup"), "backup forges")
        pool.await_(lambda: any(row["event"] == "split-brain" for row in pool.history()), "a person is told")
        pool.until(pool.steady("main"), "backup is closed again")
        with pytest.raises(AssertionError, match="two nodes could make blocks at the same time"):
            pool.judge()


@story
def test_the_role_is_moved_by_hand_and_back_and_main_never_forges_beside_backup(folder: Path) -> None:
    with stage(folder, Plan()) as pool:
        pool.until(pool.steady("main"), "main has the role")
        for loser, winner in (("main", "backup"), ("backup", "main")):
            pool.switchover(winner)
            status = pool.until(pool.steady(winner), f"{winner} has the role")
            (shut,) = (p["fenced_by"] for p in status["producers"] if p["name"] == loser)
            assert shut == "forging"
            pool.await_(lambda name=winner: pool.forges(name), f"{winner} forges")  # type: ignore[misc]
            assert not pool.forges(loser)
        assert not any(status["split_brain"] for status in pool.seen)
        assert [t.producer for t in sorted(pool.all_forged(), key=lambda t: t.start)] == ["main", "backup", "main"]


@story
def test_a_host_that_died_is_replaced_after_patience_and_closed_at_once_when_it_comes_back_open(folder: Path) -> None:
    plan = Plan(fail_back_after=12.0, rise=3)  # its agent answers long before it counts as up
    with stage(folder, plan, judged=False) as pool:
        pool.until(pool.steady("main"), "main has the role")
        died = time.time()
        pool.die("main")
        pool.until(lambda s: s["phase"] == "steady" and s["active"] == "backup", "backup has the role")
        pool.await_(lambda: pool.forges("backup"), "backup forges")
        (taken,) = pool.forged("backup")
        assert taken.start - died > plan.fail_over_after - 0.5, "it did not wait for as long as patience asks"
        assert any("main@forging" in words and "passed over" in words for words in alerts(pool))
        assert together(pool.all_forged()) == []
        came = time.time()
        pool.come_back("main")
        pool.until(is_closed("main@forging"), "main is closed")
        pool.until(pool.steady("main"), "main got the role back")
        pool.await_(lambda: pool.forges("main"), "main forges")
        both = together(pool.all_forged())
        assert all(one.start >= came or other.start >= came for one, other in both)
        (opened, *later) = [t for t in pool.forged("main") if t.start > came]
        assert later, "it was never closed"
        assert opened.end - opened.start < 20.0, "it was not closed at once"
        assert together([*pool.forged("backup"), *later]) == []
        assert later[0].start - opened.end > plan.fail_back_after - INTERVAL, "it got the role back too early"


@story
def test_orders_that_get_through_and_answers_that_do_not_let_nobody_in_where_confirmation_is_asked(
    folder: Path,
) -> None:
    def cut_off(pool: Stage, active: str, sender: str, receiver: str) -> None:
        pool.hosts.cut_one_way(sender, receiver)
        pool.until(lambda s: health_of(s, active) == "down", "the active looks dead")
        pool.hold(lambda s: s["active"] == active, pool.plan.fail_over_after + 2, "it keeps the role")
        assert pool.forges(active)
        assert any(f"{active}@forging has been silent" in words for words in alerts(pool))
        pool.hosts.heal()  # its gate may be found before its node is: then it is still down, and is closed

    def settled(pool: Stage) -> str:
        return str(pool.until(lambda s: any(pool.steady(name)(s) for name in ("main", "backup")), "settled")["active"])

    with stage(folder, Plan(require="confirmed")) as pool:
        pool.until(pool.steady("main"), "main has the role")
        cut_off(pool, "main", "main", "controller")
        active = settled(pool)
        cut_off(pool, active, "controller", active)
        active = settled(pool)
        pool.await_(lambda: pool.forges(active), "somebody forges")


@story
def test_an_agent_that_hangs_in_the_middle_of_a_close_lets_nobody_in_beside_it(folder: Path) -> None:
    with stage(folder, Plan(require="confirmed")) as pool:
        pool.until(pool.steady("main"), "main has the role")
        in_the_middle(pool, pool.main)
        stopped = pool.main.serving()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        assert stopped
        pool.until(lambda s: s["phase"] == "steady", "it was confirmed otherwise, or taken back", 3 * WITHIN)
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        status = pool.until(lambda s: any(pool.steady(name)(s) for name in ("main", "backup")), "it is settled")
        pool.await_(lambda: pool.forges(str(status["active"])), "whoever has the role forges")


@story
def test_an_agent_that_is_killed_in_the_middle_of_a_close_is_followed_by_one_that_finishes_it(folder: Path) -> None:
    with stage(folder, Plan()) as pool:
        pool.until(pool.steady("main"), "main has the role")
        in_the_middle(pool, pool.main)
        for pid in pool.main.serving():
            os.kill(pid, signal.SIGKILL)
        pool.until(pool.steady("backup"), "backup has the role")
        assert not any((pool.main.keys / name).exists() for name in KEYS)
        pool.switchover("main")
        pool.until(pool.steady("main"), "nothing was lost")


@story
def test_a_controller_that_is_killed_in_the_middle_of_a_handover_goes_on_with_it(folder: Path) -> None:
    with stage(folder, Plan()) as pool:
        pool.until(pool.steady("main"), "main has the role")
        in_the_middle(pool, pool.main)
        pool.kill_daemon()
        pool.run()
        pool.until(pool.steady("backup"), "backup has the role")
        pool.await_(lambda: pool.forges("backup"), "backup forges")
        assert len(pool.forged("main")) == 1, "it was opened again on the way"


@story
def test_a_host_that_asks_for_a_password_or_has_another_key_is_silent_and_keeps_the_role(folder: Path) -> None:
    with stage(folder, Plan()) as pool:
        sshd = pool.main.sshd
        assert sshd is not None
        settings = sshd.settings
        keys = {name: (sshd.folder / name).read_bytes() for name in ("host", "host.pub")}

        def anew() -> None:
            sshd.kill()
            with inside(pool.main.host):
                sshd.start()

        def silent(words: str) -> None:
            status = pool.until(lambda s: words in str(gate_of(s, "main@forging")["error"]), f"it says: {words}")
            assert not gate_of(status, "main@forging")["reachable"]
            said = pool.failover("status", check=False)
            assert words in " ".join(said.stdout.split()), said.stdout
            pool.hold(with_main, pool.plan.fail_over_after + 1, "main keeps the role")
            assert pool.forges("main")

        pool.until(pool.steady("main"), "main has the role")
        sshd.settings = [*settings, "PubkeyAuthentication no", "PasswordAuthentication yes"]
        anew()
        silent("asks for a password")
        sshd.settings = settings
        sshd.renew_host_key()
        anew()
        silent("host key")
        for name, text in keys.items():
            (sshd.folder / name).write_bytes(text)
        anew()
        pool.until(pool.steady("main"), "all is well again")
        assert len(pool.forged("main")) == 1
        assert pool.forged("backup") == []


@story
def test_a_producer_whose_disk_is_full_can_still_be_closed_and_loses_no_key(folder: Path) -> None:
    with stage(folder, Plan(small=True)) as pool:
        pool.until(pool.steady("main"), "main has the role")
        live, disk = pool.main.keys, pool.main.folder / "disk"
        before = {name: (live / name).read_bytes() for name in KEYS}
        with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            for _ in range(1 << 21):
                filler.write(b"x" * 512)
        assert shutil.disk_usage(disk).free == 0
        pool.switchover("backup")
        pool.until(lambda s: s["active"] == "backup" and gate_of(s, "main@forging")["open"] is False, "main is closed")
        assert sorted(path.read_bytes() for path in pool.main.aside.iterdir()) == sorted(before.values())
        (disk / "filler").unlink()
        pool.switchover("main")
        pool.until(pool.steady("main"), "main has the role again")
        assert {name: (live / name).read_bytes() for name in KEYS} == before


@story
def test_a_node_that_restarts_by_itself_while_it_is_closed_comes_back_closed(folder: Path) -> None:
    with stage(folder, Plan()) as pool:
        pool.until(pool.steady("main"), "main has the role")
        node = pool.backup.node
        assert node is not None
        for _ in range(2):
            old = node.pid
            node.kill()
            pool.await_(lambda old=old: node.pid not in (None, old), "it was started again")  # type: ignore[misc]
            pool.await_(lambda: pool.backup.truth().get("replay", 0) is None, "it listens")
            pool.await_(lambda: not any(pool.backup.keys.iterdir()), "its files are gone again")
        pool.until(pool.steady("main"), "all is well")
        assert pool.backup.truth()["flag"] == "--start-as-non-producing-node"
        assert pool.forged("backup") == []
        pool.switchover("backup")
        pool.until(pool.steady("backup"), "it can take over all the same")


@story
def test_a_key_that_is_changed_on_the_closed_standby_is_the_one_it_takes_over_with(folder: Path) -> None:
    with stage(folder, Plan()) as pool:
        pool.until(pool.steady("main"), "main has the role")
        pool.new_keys(pool.backup.staging, counter=8)
        said = pool.backup.host.run(pool.backup.agent("install-credentials"), timeout=WITHIN).stdout
        assert "put-aside" in said
        assert "counter 8" in said
        assert not any(pool.backup.keys.iterdir())
        assert not any(pool.backup.staging.iterdir())
        pool.until(pool.steady("main"), "nothing moved")
        assert pool.forged("backup") == []
        pool.switchover("backup")
        pool.await_(lambda: pool.forges("backup"), "backup forges")
        assert pool.backup.truth("forging")["holds"]["counter"] == 8


# ---------------------------------------------------------------- with other gates


@story
def test_a_cable_cut_between_the_controller_and_main_moves_nothing_while_proxies_see_main(folder: Path) -> None:
    with stage(folder, Plan(proxy=True)) as pool:
        pool.until(pool.steady("main"), "main has the role")
        pool.hosts.cut("controller", "main")
        pool.until(lambda s: not gate_of(s, "main@forging")["reachable"], "its agent is silent")
        pool.hold(with_main, pool.plan.fail_over_after + 2 * INTERVAL, "main keeps the role")
        assert pool.forges("main")
        pool.hosts.heal()
        pool.until(pool.steady("main"), "all is well again")
        assert pool.forged("backup") == []
        assert len(pool.forged("main")) == 1
        assert len([t for t in pool.reached("relay-1") if t.producer == "main"]) == 1, "the relay lost its session"


@story
def test_a_standby_behind_its_firewall_syncs_and_answers_and_is_shut_again_after_a_reboot(folder: Path) -> None:
    with stage(folder, Plan(gates=("firewall",), duplex=True, relays=2)) as pool:

        def dialled(machine: Machine) -> list[tuple[str, bool]]:
            rows = machine.truth("sessions").get("outbound", [])
            return sorted(
                (str(row["peer"]).split(".")[1] + str(row["peer"]).split(".")[2], row["one_way"]) for row in rows
            )

        one_way, both = [("773", True)], [("773", True), ("774", False)]
        pool.until(pool.steady("main"), "main has the role")
        pool.await_(lambda: dialled(pool.main) == both, "main dials as it likes")
        pool.await_(lambda: dialled(pool.backup) == one_way, "backup dials one way alone")
        pool.switchover("backup")
        status = pool.until(pool.steady("backup"), "backup has the role")
        assert [p["health"] for p in status["producers"]] == ["up", "up"], "a closed one answers pings"
        pool.await_(lambda: dialled(pool.main) == one_way, "main dials one way alone")
        pool.await_(lambda: dialled(pool.backup) == both, "backup dials as it likes")
        pool.come_back("main")
        pool.until(is_closed("main@firewall"), "main is closed")
        pool.await_(lambda: dialled(pool.main) == one_way, "main syncs")
        pool.until(pool.steady("backup"), "nothing moved")


@story
def test_a_dead_main_is_switched_off_before_backup_is_let_in(folder: Path) -> None:
    with stage(folder, Plan(power=True, require="confirmed")) as pool:
        pool.until(pool.steady("main"), "main has the role")
        for name in ("controller", "backup"):  # it is as good as dead for us, and forges on for relays
            pool.hosts.cut("main", name)
        pool.until(lambda s: s["phase"] == "steady" and s["active"] == "backup", "backup has the role")
        assert pool.board_was_asked("off")
        pool.await_(lambda: pool.forges("backup"), "backup forges")
        assert pool.main.host.pids() == []
