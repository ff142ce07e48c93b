"""The forging gate on one host: what is closed is shown to be closed, and what opens is good before it is touched."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time  # noqa: TID251 - these are real processes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from agent_host import FILES, AgentHost, agent_host, envelope, key_set, until, words_of

from failover import agent

REQUIRED = frozenset(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split())
LIVE = sorted(FILES.values())
ASIDE = sorted(FILES)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path) as made:
        yield made


def leads(host: AgentHost) -> float:
    url = f"http://127.0.0.1:{host.metrics}/metrics"  # also where the agent was not told of it
    return agent.read_metrics(url, 5.0).first(agent.LEADING) or 0.0


def rises(host: AgentHost) -> bool:
    """Whether the node forges now: its counter moves within many slots."""
    first = leads(host)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        if leads(host) > first:
            return True
        time.sleep(0.05)
    return False


# ---------------------------------------------------------------- closing


@pytest.mark.parametrize("names", ["old", "new"])
def test_a_close_puts_the_files_aside_tells_the_node_and_sees_its_counter_stand_still(
    host: AgentHost, names: str
) -> None:
    host.run_node("--names", names)
    assert rises(host)
    gate = host.order("close")["gate"]
    assert (gate["open"], gate["certain"], gate["lacks"]) == (False, True, [])
    assert gate["shown"][:2] == ["files gone", "SIGHUP delivered"]
    assert "flat" in gate["shown"][2]
    assert (host.live, host.aside) == ([], ASIDE)
    assert host.forging_since()[-1] == "sighup None"
    assert not rises(host)
    assert host.gate()["certain"] is True


def test_a_close_and_an_open_are_idempotent(host: AgentHost) -> None:
    host.run_node()
    for number in (1, 1, 2):
        assert host.order("close", number)["gate"]["open"] is False
    assert host.aside == ASIDE
    for number in (3, 3, 4):
        gate = host.order("open", number)["gate"]
        assert (gate["open"], gate["certain"]) == (True, True)
    assert (host.live, host.aside) == (LIVE, [])
    assert rises(host)


def test_an_open_right_after_a_close_is_told_to_the_node_although_its_counter_rose_a_moment_ago(
    host: AgentHost,
) -> None:
    host.run_node()
    assert host.order("open")["gate"]["certain"] is True
    orders = [
        {"v": 1, "verb": verb, "pool": "EXMPL", "gate": "forging", "generation": number, "term": 1, "within": within}
        for verb, number, within in (("close", 2, 0.1), ("open", 3, 10))
    ]
    closed, opened = host.raw("".join(json.dumps(order) + "\n" for order in orders).encode())
    assert (closed["gate"]["certain"], opened["gate"]["certain"]) == (False, True)
    assert rises(host)


def test_an_open_producer_that_was_told_while_its_files_were_elsewhere_is_told_again(host: AgentHost) -> None:
    node = host.run_node()
    assert host.order("open")["gate"]["certain"] is True
    os.rename(host.keys, host.keys.with_name("elsewhere"))
    os.kill(node.pid, signal.SIGHUP)
    until(lambda: host.forging_since()[-1] == "sighup None", "the node looked for its files")
    os.rename(host.keys.with_name("elsewhere"), host.keys)
    assert not rises(host)
    until(lambda: not host.gate()["certain"], "what it did before is over")
    until(lambda: host.gate()["certain"], "the node knows of its files again")
    assert rises(host)


def test_a_node_that_does_not_run_is_closed_for_certain(host: AgentHost) -> None:
    gate = host.order("close")["gate"]
    assert (gate["open"], gate["certain"]) == (False, True)
    assert "the node does not run" in gate["shown"]


def test_a_node_that_forges_on_is_said_to_and_told_again(host: AgentHost) -> None:
    host.run_node("--deaf")
    gate = host.order("close", within=5)["gate"]
    assert (gate["open"], gate["certain"]) == (None, False)
    assert any("still forging" in word for word in gate["lacks"]), gate
    assert host.forging_since().count("sighup None") >= 2
    assert host.live == []


def test_without_metrics_a_close_is_not_certain_and_says_why(host: AgentHost) -> None:
    host.document["node"]["metrics"] = "http://127.0.0.1:1/metrics"
    host.write_config()
    host.run_node()
    gate = host.order("close")["gate"]
    assert (gate["open"], gate["certain"]) == (False, False)
    assert any("did not answer" in word for word in gate["lacks"])
    assert not rises(host)


def test_a_counter_that_was_not_watched_for_three_slots_is_not_flat_yet(host: AgentHost) -> None:
    host.document["node"]["slot"] = 20.0
    host.write_config()
    host.run_node()
    gate = host.order("close", within=1)["gate"]
    assert (gate["open"], gate["certain"]) == (None, False)
    assert gate["lacks"] == ["about-to-lead counter not seen flat for 60 s yet"]


def test_a_counter_that_is_not_there_shows_nothing(host: AgentHost) -> None:
    host.run_node("--names", "none")
    gate = host.order("close", within=1)["gate"]
    assert (gate["open"], gate["certain"]) == (False, False)
    assert gate["lacks"] == ["the about-to-lead counter is not among the node's metrics"]


def test_what_a_later_process_looks_at_counts_too(host: AgentHost) -> None:
    host.run_node()
    host.document["node"]["slot"] = 0.5
    host.write_config()
    assert host.order("close", within=0.2)["gate"]["certain"] is False
    assert until(lambda: host.gate()["certain"], "looks by several processes, over three slots")


def test_sighup_during_the_replay_has_no_effect_so_nothing_is_closed_until_it_was_sent_again(host: AgentHost) -> None:
    host.replay.touch()
    host.run_node(wait=False)
    until(lambda: "started" in host.said() and catches(host), "the node handles SIGHUP")
    gate = host.order("close", within=3)["gate"]
    assert (gate["open"], gate["certain"]) == (None, False)
    assert any("before the node listened on port" in word for word in gate["lacks"])
    host.replay.unlink()
    until(lambda: "listens" in host.said(), "the node listens")
    until(lambda: host.gate()["certain"], "a later look finishes the closing")
    assert host.forging_since()[-1] == "sighup None"
    assert not rises(host)


def catches(host: AgentHost) -> bool:
    return agent.catches_sighup(host.started[-1].pid)


def test_a_process_that_does_not_handle_sighup_is_not_ended_by_it(host: AgentHost) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host.pidfile.write_text(str(process.pid))
    gate = host.order("close", within=1)["gate"]
    assert (gate["open"], gate["certain"]) == (None, False)
    assert any("does not take SIGHUP" in word for word in gate["lacks"])
    assert process.poll() is None
    process.communicate(b"\n")
    assert process.returncode == 0


def test_sighup_goes_to_one_run_of_a_process_and_to_no_other_with_its_number() -> None:
    me = agent.process_of(os.getpid())
    assert me is not None
    got: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: got.append(number))
    try:
        assert agent.send_sighup(me._replace(ticks=me.ticks - 1)) is False
        assert got == []
        assert agent.send_sighup(me) is True
        assert got == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stale_pidfile_is_told_from_the_nodes(host: AgentHost) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host.pidfile.write_text(str(process.pid))
    os.utime(host.pidfile, (1_000_000_000, 1_000_000_000))
    gate = host.gate()
    process.communicate(b"\n")
    assert "began after the file was written" in words_of(gate["findings"]) + " ".join(gate["lacks"])


def test_a_node_beside_its_runtime_is_noticed_by_its_port_and_keeps_the_gate_from_being_closed(
    host: AgentHost,
) -> None:
    host.run_node()
    host.pidfile.unlink()
    gate = host.order("close", within=1)["gate"]
    assert (gate["open"], gate["certain"]) == (None, False)
    assert any("something listens" in word for word in gate["lacks"])


def test_the_node_is_found_behind_a_shell_by_who_listens(host: AgentHost) -> None:
    words = " ".join(host.command())
    process = subprocess.Popen(["/bin/sh", "-c", f"{words} & echo $! >{host.folder}/child; wait"])
    host.pidfile.write_text(str(process.pid))
    until(lambda: "listens" in host.said(), "the node listens")
    child = int((host.folder / "child").read_text())
    answer = host.ask("status")
    assert answer["node"]["pid"] == child
    assert host.order("close")["gate"]["certain"] is True
    assert process.poll() is None
    os.kill(child, signal.SIGKILL)
    process.wait(30)


# ---------------------------------------------------------------- opening


def spoil(name: str) -> Callable[[Path], None]:
    """One way in which a set that was put aside is no longer good."""

    def rewrite(**changes: Any) -> Callable[[Path], None]:
        def act(folder: Path) -> None:
            for role, text in key_set(**{"counter": 7, **changes}).items():
                (folder / role).write_text(text)

        return act

    return {
        "missing": lambda folder: (folder / "kes").unlink(),
        "mode": lambda folder: (folder / "vrf").chmod(0o640),
        "link": lambda folder: (
            (folder / "kes").rename(folder.parent / "elsewhere"),
            (folder / "kes").symlink_to(folder.parent / "elsewhere"),
            None,
        )[-1],
        "not json": lambda folder: (folder / "certificate").write_text("{") and None,
        "another type": lambda folder: (folder / "vrf").write_text((folder / "kes").read_text()) and None,
        "cut short": lambda folder: (
            (folder / "certificate").write_text(envelope("NodeOperationalCertificate", [[b"x" * 32, 7], b""])) and None
        ),
        "another key": lambda folder: (folder / "kes").write_text(key_set(8)["kes"]) and None,
        "another pool": rewrite(cold=b"another cold key, 32 bytes long."),
        "an old counter": rewrite(counter=6),
        "expired": rewrite(period=100 - 62),
        "of the future": rewrite(period=101),
    }[name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "kes is missing"),
        ("mode", "chmod 600"),
        ("link", "symbolic link"),
        ("not json", "as JSON"),
        ("another type", "no VrfSigningKey"),
        ("cut short", "no operational certificate"),
        ("another key", "the KES key and the certificate do not belong together"),
        ("another pool", "of another pool"),
        ("an old counter", "counter is 6, and 7 was live"),
        ("expired", "expired in period 100; now is 100"),
        ("of the future", "begins in KES period 101; now is 100"),
    ],
)
def test_an_open_refuses_what_is_not_good_with_a_mend_and_touches_nothing(
    host: AgentHost, name: str, words: str
) -> None:
    host.run_node()
    host.order("close", 1)
    host.order("open", 2)
    host.order("close", 3)
    spoil(name)(host.state / "put-aside" / "current")
    before, said = host.aside, host.said()
    answer = host.order("open", 4)
    assert (answer["ok"], answer["kind"]) == (False, "refused"), answer
    assert words in f"{answer['error']} | {answer['mend']}", answer
    assert answer["mend"]
    assert (host.live, host.aside, host.said()) == ([], before, said)
    assert host.gate()["open"] is False
    for text in key_set(7).values():
        assert json.loads(text)["cborHex"][:60] not in json.dumps(answer)


def test_an_open_on_a_host_that_was_never_ordered_anything_keeps_it_open(host: AgentHost) -> None:
    host.run_node()
    assert host.gate()["open"] is True
    gate = host.order("open")["gate"]
    assert (gate["open"], gate["certain"]) == (True, True)


def test_a_bulk_file_is_one_file_and_is_checked_inside(host: AgentHost) -> None:
    texts = {role: json.loads(text) for role, text in key_set(7).items()}
    bulk = host.keys / "bulk.json"
    bulk.write_text(json.dumps([[texts["certificate"], texts["vrf"], texts["kes"]]]))
    bulk.chmod(0o600)
    host.document["node"]["credentials"] = {"bulk": str(bulk)}
    host.write_config()
    assert host.order("close", 1)["gate"]["certain"] is True
    assert host.aside == ["bulk"]
    assert host.order("open", 2)["gate"]["open"] is True
    assert host.order("close", 3)["ok"]
    (host.state / "put-aside" / "current" / "bulk").write_text("[[1,2]]")
    assert "[certificate, VRF key, KES key]" in host.order("open", 4)["error"]


# ---------------------------------------------------------------- files that come back


def test_files_that_reappear_on_a_closed_producer_are_drift_and_are_moved_beside_the_others(host: AgentHost) -> None:
    host.run_node()
    host.order("close", 1)
    host.write_keys(host.keys, key_set(9))
    gate = host.gate()
    assert (gate["open"], gate["certain"]) == (True, False)
    assert any("back at their places" in word for word in gate["lacks"])
    assert "both there" in host.order("open", 1)["error"]
    gate = host.order("close", 1)["gate"]
    assert (gate["open"], gate["certain"]) == (False, True)
    assert "reappeared" in words_of(gate["findings"])
    put_aside = host.state / "put-aside"
    assert {role: (put_aside / "current" / role).read_text() for role in FILES} == key_set(7)
    assert (put_aside / "reappeared" / "1" / "kes").read_text() == key_set(9)["kes"]
    assert host.live == []


def test_files_that_reappear_and_are_the_same_are_put_aside_once(host: AgentHost) -> None:
    host.run_node()
    host.order("close", 1)
    host.write_keys(host.keys, key_set(7))
    os.kill(host.started[0].pid, signal.SIGHUP)
    assert rises(host)
    assert host.gate()["open"] in (True, None)
    assert host.order("close", 1)["gate"]["certain"] is True
    assert host.aside == ASIDE
    assert not (host.state / "put-aside" / "reappeared").exists()


# ---------------------------------------------------------------- the node's start


@pytest.mark.parametrize(
    ("version", "flag"),
    [
        ("8.7.2", "--non-producing-node"),
        ("10.4.1", "--non-producing-node"),
        ("10.5.1", "--start-as-non-producing-node"),
        ("11.0.1", "--start-as-non-producing-node"),
    ],
)
def test_a_closed_producer_starts_with_its_versions_flag_and_comes_up_closed(
    host: AgentHost, version: str, flag: str
) -> None:
    host.order("close")
    host.program.write_text(host.program.read_text().replace("'10.5.1')} - linux", f"'{version}')}} - linux"))
    host.run_node(by_agent=True)
    until(lambda: host.live == [], "the files leave")
    until(lambda: host.gate()["certain"], "closed for certain")
    answer = host.ask("status")
    assert (answer["node"]["flag"], answer["node"]["version"]) == (flag, version)
    assert answer["gates"]["forging"]["open"] is False
    assert f"started with {flag}" in answer["gates"]["forging"]["shown"]
    assert answer["gates"]["forging"]["findings"] == []
    assert "started idle" in host.said()
    assert not rises(host)
    gate = host.order("open", 2)["gate"]
    assert (gate["open"], gate["certain"]) == (True, True)


def test_a_node_that_is_too_old_for_the_flag_is_not_started_while_closed(host: AgentHost) -> None:
    host.order("close")
    host.program.write_text(host.program.read_text().replace("'10.5.1')} - linux", "'8.1.2')} - linux"))
    process = host.run_node(by_agent=True, wait=False)
    assert process.wait(30) == 1
    assert process.stderr is not None
    assert b"8.1.2 cannot start without forging" in process.stderr.read()
    assert host.live == []


def test_while_it_starts_it_is_neither_open_nor_closed_and_a_close_does_not_kill_it(host: AgentHost) -> None:
    del host.document["node"]["metrics"]  # else its first answer would end the start
    host.write_config()
    host.order("close")
    host.replay.touch()
    process = host.run_node(by_agent=True, wait=False)
    until(lambda: "started idle" in host.said(), "the node started")
    assert host.live == LIVE
    for gate in (host.gate(), host.order("close", 2, within=1)["gate"]):
        assert (gate["open"], gate["certain"]) == (None, False)
        assert any("being started" in word for word in gate["lacks"])
    assert host.live == LIVE
    assert process.poll() is None
    host.replay.unlink()
    until(lambda: host.live == [], "the files leave once it listens")
    assert until(lambda: host.gate()["open"] is False, "closed")


def test_a_replaying_node_whose_metrics_answer_has_read_its_files_so_they_leave(host: AgentHost) -> None:
    host.order("close")
    host.replay.touch()
    host.run_node(by_agent=True, wait=False)
    until(lambda: "started idle" in host.said() and host.live == [], "the files leave")
    assert until(lambda: host.gate()["open"] is False, "closed")


def test_an_opening_during_the_start_takes_effect_once_the_node_listens(host: AgentHost) -> None:
    del host.document["node"]["metrics"]
    host.write_config()
    host.order("close")
    host.replay.touch()
    host.run_node(by_agent=True, wait=False)
    until(lambda: "started idle" in host.said(), "the node started")
    gate = host.order("open", 2, within=1)["gate"]
    assert gate["open"] is not False
    host.replay.unlink()
    until(lambda: any(line.startswith("sighup ") for line in host.forging_since()), "SIGHUP")
    assert host.forging_since()[-1] != "sighup None"
    assert host.live == LIVE
    assert rises(host)


def test_the_node_gets_back_what_the_agent_changed_for_itself(host: AgentHost) -> None:
    host.order("close")
    code = "import os; print(oct(os.umask(0)), os.environ['LEFT'])"
    words = host.agent("start", "--node-version", "10.5.1", "--", sys.executable, "-c", code)
    ran = subprocess.run(
        words, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "LEFT": "alone"}, umask=0o027
    )
    assert ran.stdout.split() == ["0o27", "alone"]
    until(lambda: host.live == [], "the files leave")


def test_a_node_that_dies_at_its_start_leaves_no_files_behind(host: AgentHost) -> None:
    host.order("close")
    process = subprocess.Popen(host.agent("start", "--node-version", "10.5.1", "--", "/bin/false"))
    assert process.wait(30) == 1
    until(lambda: host.live == [], "the files leave")
    assert (host.aside, host.gate()["open"]) == (ASIDE, False)


def test_when_the_watcher_of_a_start_is_killed_the_next_look_closes(host: AgentHost) -> None:
    del host.document["node"]["metrics"]
    host.write_config()
    host.order("close")
    host.replay.touch()
    host.run_node(by_agent=True, wait=False)
    until(lambda: "started idle" in host.said(), "the node started")
    watcher = json.loads((host.state / "agent.json").read_text())["forging"]["start"]["watcher"]
    os.kill(int(watcher.split(".")[0]), signal.SIGKILL)
    until(lambda: host.ask("status")["ok"] and host.live == [], "the files leave")
    assert host.aside == ASIDE


def test_an_open_producer_starts_forging_and_a_restart_while_closed_stays_closed(host: AgentHost) -> None:
    first = host.run_node(by_agent=True)
    assert rises(host)
    assert host.gate()["findings"] == []
    host.order("close")
    host.stop(first)
    host.run_node(by_agent=True)
    until(lambda: host.gate()["certain"], "closed for certain")
    assert not rises(host)


def test_a_plain_start_while_closed_is_recognised_and_told_how_to_change(host: AgentHost) -> None:
    host.order("close")
    host.write_keys(host.keys, key_set(7))  # as such starts do: it would die of missing files
    host.run_node()
    gate = host.gate()
    assert gate["open"] is True
    assert "without a non-producing flag" in words_of(gate["findings"])
    assert "agent.py start -- COMMAND" in words_of(gate["findings"])
    gate = host.order("close", 2)["gate"]
    assert (gate["open"], gate["certain"]) == (False, True)
    assert "without a non-producing flag" in words_of(gate["findings"])


# ---------------------------------------------------------------- new credentials


def stage(host: AgentHost, counter: int, **changes: Any) -> None:
    texts = key_set(counter, **changes)
    host.write_keys(host.staging, {role: texts[role] for role in ("kes", "certificate")})


def install(host: AgentHost, number: int = 5) -> dict[str, Any]:
    return host.ask("install-credentials", generation=number, term=1)


def test_new_credentials_on_a_closed_producer_stay_put_aside_and_open_with_it(host: AgentHost) -> None:
    host.run_node()
    host.order("close")
    stage(host, 8)
    answer = install(host)
    assert (answer["ok"], answer["counter"], answer["installed"]) == (True, 8, "put-aside"), answer
    assert answer["gate"]["open"] is False
    assert (host.live, host.names(host.staging)) == ([], [])
    previous = host.state / "put-aside" / "previous"
    assert (previous / "kes").read_text() == key_set(7)["kes"]
    assert host.order("open", 6)["gate"]["open"] is True
    assert (host.keys / "kes.skey").read_text() == key_set(8)["kes"]


def test_new_credentials_on_an_open_producer_are_live_at_once(host: AgentHost) -> None:
    host.run_node()
    stage(host, 8)
    answer = install(host)
    assert (answer["ok"], answer["installed"], answer["gate"]["open"]) == (True, "live", True), answer
    assert host.forging_since()[-1] not in (host.forging_since()[0].replace("started", "sighup"), "sighup None")
    assert rises(host)
    stage(host, 7)
    answer = install(host)
    assert "7, and 8 was live" in answer["error"]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda host: None, "has no certificate"),
        (lambda host: host.write_keys(host.staging, {"kes": key_set(8)["kes"]}), "has no certificate"),
        (lambda host: host.write_keys(host.staging, {"certificate": key_set(8)["certificate"]}), "has no kes"),
        (lambda host: stage(host, 6), "lower than the present one's (7)"),
        (lambda host: stage(host, 8, period=101), "begins in KES period 101"),
        (lambda host: host.write_keys(host.staging, key_set(8), mode=0o644), "open to others"),
    ],
)
def test_bad_new_credentials_are_refused_and_stay_in_staging(
    host: AgentHost, act: Callable[[AgentHost], None], words: str
) -> None:
    host.run_node()
    act(host)
    before = host.names(host.staging)
    answer = install(host)
    assert (answer["ok"], answer["kind"]) == (False, "refused"), answer
    assert words in answer["error"], answer
    assert (host.names(host.staging), host.live) == (before, LIVE)
    assert rises(host)


def test_credentials_can_be_installed_by_hand_too(host: AgentHost) -> None:
    host.order("close")
    stage(host, 8)
    assert "put-aside" in host.cli("install-credentials")


# ---------------------------------------------------------------- the fuse


@pytest.fixture
def fused(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path, fuse={"after": 3.0}) as made:
        yield made


def lease(host: AgentHost) -> dict[str, Any]:
    return host.ask("status", lease=60, generation=1, term=1)


def test_the_fuse_closes_when_no_lease_was_heard_and_not_before(fused: AgentHost) -> None:
    fused.run_node()
    answer = lease(fused)
    assert answer["fuse"] == {"after": 3.0, "left": pytest.approx(3.0, abs=1.0)}
    assert "does not run" in words_of(answer["gates"]["forging"]["findings"])
    process = subprocess.Popen(fused.agent("fuse"), stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: "fuse" not in words_of(lease(fused)["gates"]["forging"]["findings"]), "the fuse runs")
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert lease(fused)["gates"]["forging"]["open"] is True
        assert "another fuse" in fused.cli("fuse", status=1)
        until(lambda: fused.gate()["open"] is False, "the fuse closed")
        assert not rises(fused)
        assert "no valid lease was heard" in fused.order("open", 2)["error"]
        lease(fused)
        assert fused.order("open", 2)["gate"]["open"] is True
    finally:
        process.kill()
        process.communicate()


def test_an_older_lease_is_not_heard(fused: AgentHost) -> None:
    assert fused.ask("status", lease=60, generation=5, term=5)["ok"] is True
    left = fused.ask("status")["fuse"]["left"]
    answer = lease(fused)
    assert answer["fuse"]["left"] <= left
    assert "the lease was not heard" in words_of(answer["gates"]["forging"]["findings"])


def test_with_a_fuse_a_host_starts_closed_until_a_lease_and_an_open_came(fused: AgentHost) -> None:
    assert "forging: closed" in fused.cli("boot")
    fused.run_node(by_agent=True)
    until(lambda: fused.live == [], "the files leave")
    assert not rises(fused)
    lease(fused)
    assert fused.order("open", 2)["gate"]["open"] is True
    assert rises(fused)


def test_an_opening_during_the_replay_is_not_done_until_sighup_has_an_effect(host: AgentHost) -> None:
    host.order("close")
    host.replay.touch()
    host.run_node(by_agent=True, wait=False)
    until(lambda: "started idle" in host.said() and host.live == [], "the files leave")
    gate = host.order("open", 2, within=3)["gate"]
    assert gate["open"] is None
    assert any("SIGHUP has no effect before" in word for word in gate["lacks"])
    assert host.gate()["open"] is None
    host.replay.unlink()
    until(lambda: "listens" in host.said(), "the node listens")
    gate = host.order("open", 2)["gate"]
    assert (gate["open"], gate["certain"]) == (True, True)


def test_a_start_with_a_fuse_and_no_lease_is_closed_also_without_boot(fused: AgentHost) -> None:
    fused.run_node(by_agent=True)
    until(lambda: fused.live == [], "the files leave")
    assert "started idle" in fused.said()


# ---------------------------------------------------------------- ways of running a node


def agent_with(host: AgentHost, answer: Callable[[Sequence[str]], str]) -> agent.Agent:
    """An agent whose commands are answered by a function."""

    def run(args: Sequence[str], timeout: float, **_: Any) -> agent.Ran:
        return agent.Ran(args, 0, answer(args), "")

    host.write_config()
    return agent.Agent(agent.read_config(host.config), run)


def closing(number: int = 1) -> dict[str, Any]:
    return {"verb": "close", "pool": "EXMPL", "gate": "forging", "generation": number, "term": 1, "within": 10}


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_a_container_is_found_by_inspect_and_a_mount_of_a_single_file_is_refused(host: AgentHost, runtime: str) -> None:
    pid = host.run_node().pid
    host.document["node"]["runtime"] = {runtime: "node"}
    mounts = [{"Type": "bind", "Source": str(host.keys), "Destination": "/keys"}]
    asked: list[Sequence[str]] = []

    def inspect(args: Sequence[str]) -> str:
        asked.append(args)
        return json.dumps([{"State": {"Pid": pid}, "Mounts": mounts}])

    made = agent_with(host, inspect)
    mounts.append({"Type": "bind", "Source": str(host.keys / "kes.skey"), "Destination": "/kes.skey"})
    with pytest.raises(agent.Refused, match="bind mount of a single file") as refusal:
        made.answer(closing())
    assert "mount the folder" in refusal.value.mend
    assert host.live == LIVE
    mounts.pop()
    assert made.answer(closing())["gate"]["certain"] is True
    assert asked[0] == [runtime, "inspect", "--type", "container", "node"]


def test_a_unit_is_found_by_its_main_process(host: AgentHost) -> None:
    pid = host.run_node().pid
    host.document["node"]["runtime"] = {"systemd": "cardano-node.service"}
    shown = f"LoadState=loaded\nMainPID={pid}\n"
    made = agent_with(host, lambda _: shown)
    assert made.answer({"verb": "status", "pool": "EXMPL"})["node"]["pid"] == pid
    assert made.answer(closing())["gate"]["certain"] is True
    made = agent_with(host, lambda _: "LoadState=not-found\nMainPID=0\n")
    gate = made.answer({**closing(2), "within": 1})["gate"]
    assert gate["open"] is None
    assert "there is no unit cardano-node.service" in words_of(gate["findings"])


def test_a_kes_agents_socket_is_refused_by_name(host: AgentHost) -> None:
    host.document["node"]["kes_agent"] = "/run/kes-agent.sock"
    host.write_config()
    answer = host.order("close")
    assert (answer["kind"], "/run/kes-agent.sock" in answer["error"]) == ("refused", True)
    assert "firewall" in answer["mend"]
    gate = host.gate()
    assert (gate["open"], gate["certain"]) == (None, False)
    assert "kes-agent.sock" in words_of(gate["findings"])
    assert host.live == LIVE


# ---------------------------------------------------------------- file systems


def test_a_put_aside_folder_on_another_file_system_is_refused_and_nothing_is_copied(host: AgentHost) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        assert os.stat(other).st_dev != os.stat(host.keys).st_dev
        host.document["put_aside"] = other
        host.write_config()
        answer = host.order("close")
        assert (answer["kind"], "two file systems" in answer["error"]) == ("refused", True), answer
        assert "put_aside" in answer["mend"]
        assert host.live == LIVE
        assert [path for path in Path(other).rglob("*") if path.is_file()] == []
        assert "another file system" in host.cli("check", status=1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own that is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(folder)]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        if REQUIRED & {"root", "all"}:
            pytest.fail(f"FAILOVER_REQUIRE demands root: no file system can be mounted here: {tried.stderr}")
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_on_a_full_disk_it_closes_and_loses_no_key_and_opens_only_once_there_is_room(small_disk: Path) -> None:
    with agent_host(small_disk) as host:
        host.log = small_disk.parent / "node.log"
        host.run_node()
        fill(small_disk / "filler")
        gate = host.order("close", 1)["gate"]
        assert (gate["open"], gate["certain"]) == (False, True)
        assert "disk is full" in words_of(gate["findings"])
        assert host.aside == ASIDE
        assert "started" in host.said()
        assert not rises(host)
        answer = host.order("open", 2)
        assert (answer["ok"], answer["kind"], "disk is full" in answer["error"]) == (False, "unable", True), answer
        assert "make room" in answer["mend"]
        assert (host.live, host.aside) == ([], ASIDE)
        (small_disk / "filler").unlink()
        assert host.order("open", 3)["gate"]["open"] is True
        assert {role: (host.keys / name).read_text() for role, name in FILES.items()} == key_set(7)
        assert (host.state / "ballast").exists()
        fill(small_disk / "filler")
        gate = host.order("close", 4)["gate"]  # the ballast makes the room for one record
        assert gate["open"] is False
        assert json.loads((host.state / "agent.json").read_text())["gates"]["forging"]["generation"] == 4


# ---------------------------------------------------------------- metrics


@pytest.fixture
def endpoint() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """A server on loopback that answers one connection by a function."""
    with contextlib.ExitStack() as stack:

        def make(answer: Callable[[socket.socket], None]) -> str:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def work() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(4096)
                        answer(connection)

            threading.Thread(target=work, daemon=True).start()
            return f"http://127.0.0.1:{server.getsockname()[1]}/metrics"

        yield make


def dribble(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"#")
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"#" * 65536)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda c: c.sendall(b"HTTP/1.1 200 OK\r\n\r\n<html>hello 1</html>"), "not with a node's metrics"),
        (lambda c: c.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"), "answered 302"),
        (lambda c: c.sendall(b"SSH-2.0-OpenSSH\r\n"), "did not answer"),
        (lambda c: None, "did not answer"),
        (dribble, "did not answer: TimeoutError"),
        (flood, "more than"),
    ],
)
def test_an_endpoint_that_is_none_is_named_within_the_time(
    endpoint: Callable[[Callable[[socket.socket], None]], str], answer: Callable[[socket.socket], None], words: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(agent.Unable, match=words) as refusal:
        agent.read_metrics(endpoint(answer), 3.0)
    assert refusal.value.mend
    assert time.monotonic() - begun < 20


def test_labels_timestamps_and_chunks_are_tolerated_and_an_open_connection_is_not_waited_for(
    endpoint: Callable[[Callable[[socket.socket], None]], str],
) -> None:
    body = (
        b'cardano_node_metrics_Forge_about_to_lead_counter{a="b c"} 12 1700000000000\n'
        b"cardano_node_metrics_slotNum_int 5\ncardano_node_metrics_density_real NaN\ngo_threads 7\n"
        b'cardano_node_metrics_cardano_build_info{version="10.5.1"} 1\n'
    )
    done = threading.Event()

    def chunked(connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        done.wait(30)

    metrics = agent.read_metrics(endpoint(chunked), 20.0)
    done.set()
    assert metrics.first(agent.LEADING) == 12
    assert metrics.version == "10.5.1"
    assert set(metrics.values) == {
        f"cardano_node_metrics_{name}" for name in ("Forge_about_to_lead_counter", "slotNum_int", "cardano_build_info")
    }


def test_no_more_than_sixty_four_series_are_told_and_the_ones_that_matter_are_among_them() -> None:
    values = {f"cardano_node_metrics_a{n}": 1.0 for n in range(200)} | {"cardano_node_metrics_slotNum_int": 5.5}
    shown = agent.shown_metrics(agent.Metrics(values))
    assert len(shown) == 64
    assert shown["cardano_node_metrics_slotNum_int"] == 5.5
