"""``failover run`` as a process, in front of real HAProxies and simulated nodes, and every command that talks to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from haproxy_world import Node, Relay, require_haproxy
from prometheus_client.parser import text_string_to_metric_families

from failover.lab.haproxy import LabConfig, LabProxy, WayIn, free_ports
from failover.model import Address
from failover.store.sqlite import SqliteStore

WAIT = 30.0  # seconds: a bound for what the daemon does by itself
KEYS = (
    "pool mode phase active target generation revision cordoned barred released since reason paused pinned isolated "
    "split_brain drift next decider producers gates proxies records relays daemon"
)
MORE = {"decision", "cause", "requested_by", "store_error", "fence", "exposed", "read_from", "age"}


@dataclass
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass
class Pool:
    """Nodes and proxies that run in a loop of their own thread, the file, and the daemons that a test started."""

    folder: Path
    file: Path
    listen: Address
    text: str
    main: Node
    backup: Node
    lab: LabProxy
    call: Callable[[Any], Any]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def daemon(
        self, *words: str, log: str = "daemon.log", environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "failover", "-c", str(self.file), "run", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**_environment(), **(environment or {})},
            )
        self.daemons.append(child)
        return child

    def log(self, name: str = "daemon.log") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def run(self, *words: str, file: Path | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "failover", "-c", str(file or self.file), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * WAIT,
            env=_environment(),
        )
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def status(self) -> dict[str, Any]:
        done = self.run("status", "--json")
        document: dict[str, Any] = json.loads(done.out) if done.out else {}
        return document

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.listen.host, self.listen.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def until(self, true: Callable[[], bool], what: str) -> None:
        pause = threading.Event()
        for _ in range(int(WAIT / 0.1)):
            try:
                if true():
                    return
            except (OSError, KeyError, ValueError):
                pass
            pause.wait(0.1)
        log = (self.folder / "daemon.log").read_text()[-3000:] if (self.folder / "daemon.log").exists() else ""
        pytest.fail(f"not within {WAIT:g} s: {what}\n{log}")

    def admins(self) -> dict[str, str]:
        document = json.loads(self.get("/status")[1])
        return {name: server["admin"] for name, server in document["proxies"][0]["servers"].items()}

    def gates(self) -> dict[str, str]:
        """What HAProxy itself says: bit 1 of its admin state is a forced maint."""
        state = self.call(self.lab.process.ask("show servers state producers"))
        rows = [line.split() for line in state.splitlines()[2:] if line.strip()]
        return {row[3]: "closed" if int(row[6]) & 1 else "open" for row in rows}

    def steady(self, active: str = "main") -> bool:
        document = json.loads(self.get("/status")[1])
        return bool(document["phase"] == "steady" and document["active"] == active)

    def adopted(self) -> subprocess.Popen[bytes]:
        """A daemon that has adopted main by hand."""
        child = self.daemon()
        self.until(lambda: self.get("/status")[0] == 200, "the daemon answers")
        done = self.run("adopt", "main", "--yes", "--timeout", "20s")
        assert (done.code, done.out.splitlines()[-1]) == (0, "main is the active producer"), done
        self.until(self.steady, "steady")
        return child

    def end(self) -> None:
        for child in self.daemons:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(WAIT)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "FAILOVER_CONFIG")}


def _file(folder: Path, listen: Address, main: Node, backup: Node, lab: LabProxy) -> str:
    return f"""
pool: TEST
network: {{magic: {main.magic}}}
state: {folder}/state
listen: "{listen}"
producers:
  - {{name: main, address: "{main.address}"}}
  - {{name: backup, address: "{backup.address}"}}
proxies:
  - {{name: p1, socket: {lab.socket}, backend: producers, watch: watch, hard_stop_after: 2s}}
health: {{interval: 200ms, timeout: 200ms, max_gap: 2s}}
policy: {{fail_over_after: 3s, fail_back_after: 60s}}
lease: {{duration: 10s, renew: 1s, action_timeout: 1s}}
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    require_haproxy()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="nodes and proxy")
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(WAIT)

    world = _world(tmp_path)
    made: Pool | None = None
    try:
        main, backup, lab = call(anext(world))
        listen = Address("127.0.0.1", free_ports(1)[0])
        text = _file(tmp_path, listen, main, backup, lab)
        file = tmp_path / "failover.yaml"
        file.write_text(text)
        made = Pool(tmp_path, file, listen, text, main, backup, lab, call)
        yield made
    finally:
        if made is not None:
            made.end()
        call(world.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT)
        loop.close()


async def _world(folder: Path) -> AsyncGenerator[tuple[Node, Node, LabProxy], None]:
    async with Node() as main, Node() as backup:
        config = LabConfig("p1", {"main": main.address, "backup": backup.address}, main.magic)
        async with LabProxy(folder, config) as lab:
            yield main, backup, lab


def test_a_pool_with_sessions_is_adopted_and_its_status_has_the_keys_of_the_interface(pool: Pool) -> None:
    relay = pool.call(Relay.connect(pool.lab.relays))
    child = pool.daemon()
    pool.until(pool.steady, "adoption")
    done = pool.run("status", "--json")
    document = json.loads(done.out)
    assert done.code == 0
    assert set(document) == set(KEYS.split()) | MORE
    assert (document["read_from"], document["age"]) == ("daemon", None)
    assert document["daemon"]["pid"] == child.pid
    assert document["decider"]["this_daemon"] is True
    text = pool.run("status")
    assert (text.code, text.err) == (0, "")
    assert text.out.startswith("TEST: main is active")
    assert "\x1b" not in text.out
    pool.call(relay.end())


def test_a_switchover_there_and_back_with_its_steps_and_its_pin(pool: Pool) -> None:
    pool.adopted()
    unsure = pool.run("switchover", "--to", "backup")
    assert unsure.code == 2
    assert "--yes" in unsure.err
    dry = pool.run("switchover", "--to", "backup", "--dry-run")
    assert dry.code == 0
    assert "close main@p1" in dry.out
    assert pool.status()["generation"] == 1
    done = pool.run("switchover", "--to", "backup", "--yes", "--reason", "a drill")
    assert done.code == 0, done
    told = done.out.splitlines()
    order = ["fencing everyone but backup", "closed main@p1", "promoting backup", "opened backup@p1", "steady: backup"]
    places = [next(n for n, line in enumerate(told) if words in line) for words in order]
    assert places == sorted(places)
    assert pool.admins() == {"main": "maint", "backup": "ready"}
    document = pool.status()
    assert (document["pinned"]["producer"], document["pinned"]["reason"]) == ("backup", "a drill")
    assert pool.run("switchover", "--to", "main", "--yes").code == 0
    assert pool.status()["pinned"] is None
    assert pool.run("switchover", "--to", "main", "--yes").out.splitlines()[-1].endswith("already")


def test_a_switchover_to_a_producer_that_is_down_is_refused_with_the_reason(pool: Pool) -> None:
    pool.adopted()
    pool.call(pool.backup.end())
    pool.until(lambda: pool.status()["producers"][1]["health"] == "down", "backup down")
    for words in ((), ("--force",), ("--dry-run",)):
        done = pool.run("switchover", "--to", "backup", "--yes", *words)
        assert done.code == 1
        assert "down" in done.out + done.err
    assert pool.admins() == {"main": "ready", "backup": "maint"}


def test_pause_pin_and_cordon_hold_and_end(pool: Pool) -> None:
    pool.adopted()
    assert pool.run("pause", "--for", "1h", "--reason", "work").code == 0
    assert pool.run("pin", "main").code == 0
    assert pool.run("cordon", "backup", "--for", "5m").code == 0
    document = pool.status()
    assert document["paused"]["reason"] == "work"
    assert document["paused"]["by"]
    assert document["pinned"]["producer"] == "main"
    assert [held["producer"] for held in document["cordoned"]] == ["backup"]
    assert "is cordoned" in pool.run("switchover", "--to", "backup", "--yes").err
    for words in (("resume",), ("unpin",), ("uncordon", "backup")):
        assert pool.run(*words).code == 0
    document = pool.status()
    assert (document["paused"], document["pinned"], document["cordoned"]) == (None, None, [])


def test_a_released_pool_is_left_as_it_stands_until_resume(pool: Pool) -> None:
    pool.adopted()
    assert pool.run("release", "--yes").code == 0
    pool.call(pool.lab.process.ask("set server producers/main state maint"))
    pool.until(lambda: pool.admins()["main"] == "maint", "seen")
    assert pool.status()["released"] is True
    assert pool.run("resume").code == 0
    pool.until(lambda: pool.admins()["main"] == "ready", "steered again")


def test_history_is_one_object_a_line_and_explain_says_which_rule_decides(pool: Pool) -> None:
    pool.adopted()
    rows = [json.loads(line) for line in pool.run("history", "--json").out.splitlines()]
    assert all(set(row) == {"at", "generation", "event", "producer", "reason", "detail"} for row in rows)
    assert "phase-changed" in {row["event"] for row in rows}
    last = pool.run("history", "--limit", "2").out.splitlines()
    assert len(last) == 2
    assert pool.run("history", "--since", "1h").out.splitlines()[-1] == last[-1]
    explained = pool.run("explain")
    assert explained.code == 0
    assert "by rule 13" in explained.out
    assert "12. main, the preferred one, is active" in explained.out
    document = json.loads(pool.run("explain", "--json").out)
    assert document["decision"]["rule"] == 13


def test_the_metrics_parse_and_tell_the_same_story(pool: Pool) -> None:
    pool.adopted()
    code, text = pool.get("/metrics")
    samples = {
        (s.name, s.labels.get("producer")): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }
    assert code == 200
    assert samples["cardano_failover_active", "main"] == 1
    assert samples["cardano_failover_proxy_server_open", "backup"] == 0
    assert samples["cardano_failover_ping_seconds_count", "main"] > 0
    assert pool.get("/healthz") == (200, "ok\n")


def test_the_file_is_read_again_on_sighup_and_a_bad_one_is_refused(pool: Pool) -> None:
    child = pool.adopted()

    def refusals() -> list[str]:
        return [row["reason"] for row in pool.log() if "stays in force" in row["reason"]]

    pool.file.write_text(pool.text.replace("fail_over_after", "fail_over_aftre"))
    child.send_signal(signal.SIGHUP)
    pool.until(lambda: len(refusals()) == 1, "the wrong file is refused")
    assert "fail_over_aftre" in refusals()[0]
    pool.file.write_text(pool.text.replace("name: main,", "name: first,"))
    child.send_signal(signal.SIGHUP)
    pool.until(lambda: len(refusals()) == 2, "renaming the active is refused")
    assert "'main' is active" in refusals()[1]
    pool.file.write_text(pool.text.replace("mode: act", "").replace("pool: TEST", "pool: TEST\nmode: observe"))
    child.send_signal(signal.SIGHUP)
    pool.until(lambda: pool.status().get("mode") == "observe", "the good file is taken over")
    assert child.poll() is None
    refused = pool.run("switchover", "--to", "backup", "--yes")
    assert refused.code == 1
    assert "observe" in refused.err


def test_sigterm_ends_it_with_0_and_the_gates_stay_as_they_are(pool: Pool) -> None:
    child = pool.adopted()
    child.send_signal(signal.SIGTERM)
    assert child.wait(WAIT) == 0
    assert pool.gates() == {"main": "open", "backup": "closed"}
    stale = pool.run("status", "--json")
    document = json.loads(stale.out)
    assert stale.code == 3
    assert document["read_from"] == "state folder"
    assert document["age"] < WAIT
    assert (document["active"], document["phase"]) == ("main", "steady")
    assert "the daemon does not run" in stale.err
    refused = pool.run("switchover", "--to", "backup", "--yes")
    assert refused.code == 3
    assert "nothing was asked for" in refused.err
    assert pool.run("explain").code == 0
    assert pool.run("history").code == 0


def test_a_request_while_the_daemon_restarts_is_carried_out_by_the_next_one(pool: Pool) -> None:
    child = pool.adopted()
    child.kill()
    child.wait()
    asked = pool.run("cordon", "backup", "--no-wait")  # the dead one's lease still stands
    assert asked.code == 0
    pool.daemon()
    pool.until(lambda: bool(pool.status()["cordoned"]), "carried out")


def test_a_second_daemon_on_the_same_folder_observes_and_takes_over_when_the_first_goes(pool: Pool) -> None:
    first = pool.adopted()
    second = pool.daemon(log="second.log")
    pool.until(lambda: any("in use" in row["reason"] for row in pool.log("second.log")), "it warns")
    pool.until(lambda: any("observing" in row["reason"] for row in pool.log("second.log")), "it observes")
    first.send_signal(signal.SIGTERM)
    assert first.wait(WAIT) == 0
    pool.until(lambda: any("this controller decides" in row["reason"] for row in pool.log("second.log")), "takes over")
    pool.until(lambda: json.loads(pool.get("/status")[1])["daemon"]["pid"] == second.pid, "serves the status")


def test_a_dry_run_beside_a_daemon_changes_nothing_and_once_prints_the_status(pool: Pool) -> None:
    pool.adopted()
    before = pool.status()["revision"]
    done = pool.run("run", "--dry-run", "--once", "--json")
    document = json.loads(done.out)
    assert (done.code, document["mode"], document["active"]) == (0, "observe", "main")
    assert pool.status()["revision"] == before
    assert pool.status()["decider"]["this_daemon"] is True


def test_once_acts_once_and_leaves(pool: Pool) -> None:
    child = pool.adopted()
    child.send_signal(signal.SIGTERM)
    assert child.wait(WAIT) == 0
    pool.call(pool.lab.process.ask("set server producers/backup state ready"))
    once = pool.daemon("--once", log="once.log")
    assert once.wait(WAIT) == 0
    assert once.stdout is not None
    assert once.stdout.read().decode().startswith("TEST: main is active")
    assert pool.gates() == {"main": "open", "backup": "closed"}


def test_check_finds_nothing_wrong_and_then_what_is(pool: Pool) -> None:
    two = '["127.0.0.1:9", "127.0.0.2:9"]'
    good = pool.folder / "good.yaml"
    good.write_text(pool.text + f"references: {two}\n")
    found = json.loads(pool.run("check", "--json", file=good).out)["findings"]
    wrong = [f for f in found if f["severity"] in ("error", "warning")]
    assert {f["part"] for f in wrong} <= {"reference 127.0.0.1:9", "reference 127.0.0.2:9", "state"}
    assert any("servers may be moved there" in f["what"] for f in found)
    elsewhere, user = pool.folder / "elsewhere.yaml", pool.folder / "user.yaml"
    elsewhere.write_text(pool.text.replace(str(pool.main.address), "127.0.0.77:1"))
    done = pool.run("check", file=elsewhere)
    assert done.code == 1
    assert f"leads to {pool.main.address}, and main is at 127.0.0.77:1" in done.out
    user.write_text(pool.text.replace(f"socket: {pool.lab.socket}", f'socket: "{pool.lab.user_runtime}"'))
    done = pool.run("check", file=user)
    assert done.code == 1
    assert "the socket has level 'user'" in done.out


def test_check_tells_a_stats_page_with_rights(pool: Pool) -> None:
    password = pool.folder / "password"
    password.touch(0o600)
    password.write_text(LabProxy.PASSWORD)
    stats = pool.lab.proxy(WayIn.STATS).stats
    way = f"stats: {stats}, username: failover, password_file: {password}"
    file = pool.folder / "stats.yaml"
    file.write_text(pool.text.replace(f"socket: {pool.lab.socket}", way))
    done = pool.run("check", file=file)
    assert "servers may be moved there" in done.out
    assert LabProxy.PASSWORD not in done.out.replace("failover", "")


def test_the_commands_by_hand_really_hand_over(pool: Pool) -> None:
    child = pool.adopted()
    child.kill()
    child.wait()
    lines = pool.run("explain", "--commands").out
    done = subprocess.run(["bash"], input=lines, text=True, capture_output=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    assert "p1 main: MAINT 0 sessions" in done.stdout
    assert "p1 backup: UP" in done.stdout


def test_ctrl_c_while_waiting_says_that_the_request_stands(pool: Pool) -> None:
    child = pool.adopted()
    child.send_signal(signal.SIGSTOP)
    try:
        asking = subprocess.Popen(
            [sys.executable, "-m", "failover", "-c", str(pool.file), "pause"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        store = SqliteStore.read(pool.folder / "state", "TEST")
        pool.until(lambda: bool(store.pending()), "asked")
        store.close()
        asking.send_signal(signal.SIGINT)
        _, err = asking.communicate(timeout=WAIT)
    finally:
        child.send_signal(signal.SIGCONT)
    assert asking.returncode == 130
    assert "stands until" in err


def test_systemd_is_told_that_it_is_ready_that_it_lives_and_that_it_stops(pool: Pool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(pool.folder / "notify"))
        line.settimeout(WAIT)
        told: list[str] = []

        def hear(word: str) -> None:
            while not any(word in message for message in told):
                told.append(line.recv(4096).decode())

        more = {"NOTIFY_SOCKET": str(pool.folder / "notify"), "WATCHDOG_USEC": "2000000"}
        child = pool.daemon(environment=more)
        hear("READY=1")
        assert told == ["READY=1"]
        hear("WATCHDOG=1")
        told.clear()
        hear("WATCHDOG=1")
        child.send_signal(signal.SIGHUP)
        hear("RELOADING=1\nMONOTONIC_USEC=")
        hear("READY=1")
        child.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert child.wait(WAIT) == 0
