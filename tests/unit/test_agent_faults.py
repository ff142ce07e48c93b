"""What an agent must not be led to by a kill at a bad moment, damaged files, a hung one beside it, or a lying node."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import subprocess
import sys
import threading
import time  # noqa: TID251 - these are real processes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_host import AgentHost, agent_host, free_port, key_set, until

from failover import agent, agent_answers

PERIOD = 129_600  # slots


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path) as made:
        yield made


@pytest.fixture
def fused(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path, fuse={"after": 3.0}) as made:
        yield made


def hear(host: AgentHost) -> None:
    assert host.ask("status", lease=60, generation=1, term=1)["ok"]


def request(verb: str, number: int = 1, within: float = 8.0) -> bytes:
    order = {"gate": "forging", "generation": number, "term": 1} if verb in ("open", "close") else {}
    return json.dumps({"v": 1, "verb": verb, "pool": "EXMPL", "within": within, **order}).encode() + b"\n"


@contextlib.contextmanager
def telling(host: AgentHost, said: Callable[[], str]) -> Iterator[None]:
    """The node's metrics are these from now on."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = said().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    host.document["node"]["metrics"] = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    host.write_config()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def killed(host: AgentHost, patch: str, line: bytes) -> None:
    """An agent that is killed in the middle of a request, where ``patch`` says so."""
    code = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(agent.__file__).parents[1])!r})
from failover import agent
{patch}
agent.answer_line(Path({str(host.config)!r}), {line!r})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 9


# ---------------------------------------------------------------- the fuse


def test_a_fuse_that_blows_during_a_start_keeps_the_opened_producer_from_forging_after_it(fused: AgentHost) -> None:
    del fused.document["node"]["metrics"]
    fused.write_config()
    hear(fused)
    fused.order("close")
    fused.replay.touch()
    fused.run_node(by_agent=True, wait=False)
    until(lambda: "started idle" in fused.said(), "the node replays")
    hear(fused)
    fused.order("open", 2, within=1)
    with subprocess.Popen(fused.agent("fuse"), stdout=subprocess.PIPE) as fuse:
        try:
            until(lambda: fused.ask("status")["fuse"]["left"] == 0, "no lease was heard for too long")
            until(lambda: json.loads((fused.state / "agent.json").read_text())["forging"]["want"] == "closed", "blown")
            fused.replay.unlink()
            until(lambda: "listens" in fused.said() and fused.live == [], "the node is up, without its files")
        finally:
            fuse.kill()
    assert all(line == "sighup None" for line in fused.forging_since() if line.startswith("sighup"))


def test_a_fuse_closes_although_what_was_remembered_is_damaged(fused: AgentHost) -> None:
    fused.run_node()
    hear(fused)
    fused.order("open", 2)
    (fused.state / "agent.json").write_text("{")
    until(lambda: (fused.cli("fuse", "--once"), fused.live == [])[1], "it closed")


def test_a_fuse_does_not_wait_for_an_agent_that_hangs_with_the_lock(fused: AgentHost) -> None:
    fused.run_node()
    hear(fused)
    assert fused.order("open")["gate"]["open"] is True
    with (fused.state / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        until(lambda: (fused.cli("fuse", "--once"), fused.live == [])[1], "it took the files away")
        until(lambda: fused.forging_since()[-1] == "sighup None", "the node was told")


# ---------------------------------------------------------------- killed, and asked again


def test_an_open_after_a_close_that_was_killed_right_after_sighup_is_told_to_the_node(host: AgentHost) -> None:
    host.run_node()
    assert host.order("open")["gate"]["certain"]
    patch = "send = agent.send_sighup\nagent.send_sighup = lambda process: (send(process), os._exit(9))"
    killed(host, patch, request("close", 2))
    assert agent.answer_line(host.config, request("open", 3))["gate"]["certain"]
    assert host.forging_since()[-1] != "sighup None"


def test_new_keys_whose_installing_was_killed_are_told_to_the_node_by_the_next_open(host: AgentHost) -> None:
    host.run_node()
    host.order("open")
    host.write_keys(host.staging, key_set(8))
    install = {"v": 1, "verb": "install-credentials", "pool": "EXMPL", "within": 5, "generation": 2, "term": 1}
    killed(host, "agent.Forging.enable = lambda *_, **__: os._exit(9)", json.dumps(install).encode())
    before = host.forging_since()[-1]
    assert host.order("open", 3)["gate"]["certain"]
    assert host.forging_since()[-1] != before


def test_the_watcher_of_a_start_that_failed_takes_nothing_from_the_next_one(host: AgentHost) -> None:
    text = host.program.read_text()
    host.program.write_text(
        text.replace("    options = words()\n    here", "    time.sleep(1)\n    options = words()\n    here")
    )
    assert host.program.read_text() != text
    host.order("close")
    first = host.run_node(by_agent=True, wait=False)
    state = host.state / "agent.json"
    until(lambda: json.loads(state.read_text())["forging"].get("doing") == "start", "the start has begun")
    first.kill()
    first.wait()
    second = host.run_node(by_agent=True)
    until(lambda: host.gate()["certain"] and host.live == [], "up, and closed")
    assert second.poll() is None
    assert "died of missing files" not in host.said()


# ---------------------------------------------------------------- what a node says


def test_a_count_that_took_long_to_come_is_as_old_as_its_question(host: AgentHost) -> None:
    host.document["node"]["slot"] = 0.5
    host.write_config()
    host.run_node("--deaf")
    began, delays = time.monotonic(), [0.0]

    def said() -> str:
        number = int((time.monotonic() - began) / 0.5)  # it forges on, whatever it is told
        time.sleep(delays.pop(0) if delays else 0)
        return f"Forge_about_to_lead_counter {number}\nslotNum_int 5\n"

    with telling(host, said):
        agent.answer_line(host.config, request("close", 2, within=0.1))
        time.sleep(
            0.5 - (time.monotonic() - began) % 0.5 + 0.02
        )  # two looks within one slot, the second delivered late
        delays[:] = [0.0, 2.6]
        agent.answer_line(host.config, request("status"))
        gate = agent.answer_line(host.config, request("status"))["gates"]["forging"]
    assert not gate["certain"], gate


def test_an_open_gate_is_certain_only_as_long_as_its_counter_is_seen_to_rise(host: AgentHost) -> None:
    host.run_node()
    assert host.order("open")["gate"]["certain"]
    host.document["node"]["metrics"] = f"http://127.0.0.1:{free_port()}/metrics"
    host.write_config()
    until(lambda: not host.gate()["certain"], "nothing is known of its counter any more")


@pytest.mark.parametrize(
    "said",
    ["\n".join(f"forge_{n}_{'x' * 2000} 1" for n in range(64)), "forge_x 1e300\nslotNum_int 5", f"forge_{'x' * 300} 1"],
    ids=["long names", "a huge value", "one long name"],
)
def test_what_a_nodes_metrics_say_cannot_make_the_hosts_answer_nonsense(host: AgentHost, said: str) -> None:
    host.run_node()
    with telling(host, lambda: said):
        (answer,) = host.raw(request("status"))
    assert answer["ok"]
    agent_answers.status(agent_answers.answer(json.dumps(answer).encode()))


def test_a_kes_period_that_stood_still_while_closed_does_not_hold_up_a_new_key(host: AgentHost) -> None:
    host.run_node()
    host.order("close")
    with telling(
        host, lambda: f"currentKESPeriod_int 100\nslotNum_int {PERIOD * 106}\nForge_about_to_lead_counter 5\n"
    ):
        host.write_keys(host.staging, key_set(8, period=105))
        assert host.ask("install-credentials", generation=2, term=1)["ok"]
        assert host.gate()["kes_left"] == 61


def test_an_expired_certificate_is_noticed_by_the_slot_where_the_node_tells_no_kes_period(host: AgentHost) -> None:
    host.run_node()
    host.order("close")
    with telling(host, lambda: f"slotNum_int {PERIOD * 160}\nForge_about_to_lead_counter 5\n"):
        assert host.gate()["kes_left"] == -8
        answer = host.order("open", 2)
    assert "expired in period 152; now is 160" in answer["error"]


# ---------------------------------------------------------------- damaged files, and nudges


def test_a_damaged_counter_file_keeps_no_gate_from_being_closed(host: AgentHost) -> None:
    host.run_node()
    host.order("open")
    file = host.state / "counter.json"
    for damaged in (file.read_bytes().replace(b'"last"', b'"lbst"'), b'{"rose": 1}', b"[]"):
        file.write_bytes(damaged)
        assert host.ask("status")["ok"]
        file.write_bytes(damaged)
        assert host.order("close", 2)["gate"]["open"] is False


def test_a_nudge_does_not_make_a_closed_standby_read_key_files_that_are_back(tmp_path: Path) -> None:
    with agent_host(tmp_path, nudge="sighup") as host:
        del host.document["node"]["metrics"]
        host.write_config()
        host.run_node()
        host.order("close")
        host.write_keys(host.keys, key_set(7))
        answer = host.ask("kick", peers=["127.0.0.9:3001"], generation=1, term=1, nudge="sighup")
        assert (answer["ok"], answer["nudged"]) == (True, False)
        assert host.forging_since()[-1] == "sighup None"


@pytest.mark.parametrize("allowed", ["never", "sighup"])
def test_a_nudge_that_this_hosts_own_configuration_does_not_allow_is_refused(tmp_path: Path, allowed: str) -> None:
    with agent_host(tmp_path, nudge=allowed, gates=[]) as host:
        answer = host.ask("kick", peers=["127.0.0.9:3001"], generation=1, term=1, nudge="restart")
        assert answer["ok"] is False
        assert f'"nudge" is {allowed}' in answer["error"]
        assert "restart" in answer["mend"]


def test_a_firewall_that_cannot_be_put_back_at_a_reboot_does_not_keep_the_forging_gate_from_being_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent_host(tmp_path, gates=["forging", "firewall"], firewall={"user": "4711"}, fuse={"after": 3.0}) as host:
        made = agent.Agent(
            agent.read_config(host.config), lambda args, *_, **__: agent.Ran(args, 1, "", "nft is missing")
        )
        made.firewall()._store(closed=True)
        monkeypatch.setattr(agent, "Agent", lambda config: made)
        with pytest.raises(agent.Unable):
            agent.boot(host.config)
        assert host.live == []
