"""The agent against kill -9 at each system call that changes something: no key is lost, and no half set forges."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_host import FILES, AgentHost, agent_host, key_set, until

REQUIRED = frozenset(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split())
CHANGING = "write,pwrite64,fsync,rename,renameat,renameat2,unlink,mkdir,pidfd_send_signal,kill,flock,ftruncate"
OLD, NEW = key_set(7), key_set(8)


@pytest.fixture(scope="module")
def strace() -> str:
    found = shutil.which("strace")
    tried = subprocess.run([str(found), "-f", "true"], capture_output=True, check=False) if found else None
    if found is None or tried is None or tried.returncode != 0:
        if REQUIRED & {"strace", "all"}:
            pytest.fail("FAILOVER_REQUIRE demands strace, and it is not installed or may not trace here")
        pytest.skip("strace is not installed (Debian package strace), or may not trace here")
    return found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path) as made:
        del made.document["node"]["metrics"]  # no polling: the same calls each time
        made.write_config()
        yield made


def request(verb: str, number: int) -> bytes:
    words: dict[str, Any] = {"v": 1, "verb": verb, "pool": "EXMPL", "within": 5, "generation": number, "term": 1}
    if verb != "install-credentials":
        words["gate"] = "forging"
    return json.dumps(words).encode() + b"\n"


def reset(host: AgentHost, verb: str, node: int, *, closed: bool) -> None:
    """The host as before the call; the node forges by the old set, or is closed."""
    for folder in (host.state, host.staging):
        shutil.rmtree(folder, ignore_errors=True)
    host.staging.mkdir(mode=0o700)
    host.write_keys(host.keys, OLD)
    hang_up(host, node)
    if closed:
        assert host.order("close", 1)["gate"]["open"] is False
    if verb == "install-credentials":
        host.write_keys(host.staging, {role: text for role, text in NEW.items() if role != "vrf"})


def hang_up(host: AgentHost, node: int) -> str:
    """What another hand's SIGHUP makes of the node just now."""
    before = len(host.forging_since())
    os.kill(node, signal.SIGHUP)
    until(lambda: len(host.forging_since()) > before, "the node noted SIGHUP")
    return host.forging_since()[before]


def contents(host: AgentHost) -> Counter[str]:
    """Every credential that is anywhere on the host."""
    folders = (host.keys, host.staging, host.state)
    names = {*FILES.values(), *FILES}
    return Counter(path.read_text() for top in folders for path in top.rglob("*") if path.name in names)


def counted(strace: str, host: AgentHost, verb: str) -> Counter[str]:
    """How often the call makes each changing system call."""
    log = host.folder / "strace.log"
    (answer,) = host.raw(request(verb, 5), strace, "-f", "-qq", "-e", f"trace={CHANGING}", "-o", str(log))
    assert answer["ok"], answer
    return Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))


def kill_at(strace: str, host: AgentHost, verb: str, name: str, number: int) -> None:
    inject = f"inject={name}:signal=SIGKILL:when={number}"
    ran = subprocess.run(
        [strace, "-f", "--seccomp-bpf", "-qq", "-e", inject, "-o", "/dev/null", *host.agent("serve")],
        input=request(verb, 5),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, f"{inject}: ended with {ran.returncode}: {ran.stderr.decode()}"


CASES = [("close", False), ("open", True), ("install-credentials", False), ("install-credentials", True)]


@pytest.mark.parametrize(("verb", "closed"), CASES, ids=["close", "open", "install on an open one", "on a closed one"])
def test_a_kill_at_any_system_call_loses_no_key_enables_no_half_set_and_the_next_call_recovers(
    strace: str, host: AgentHost, verb: str, closed: bool
) -> None:
    node = host.run_node().pid
    old = host.forging_since()[0].removeprefix("started ")
    reset(host, verb, node, closed=closed)
    calls = counted(strace, host, verb)
    assert calls["rename"] + calls["renameat"] >= 5
    assert calls["fsync"] >= 8
    new = hang_up(host, node).removeprefix("sighup ")
    killed = 0
    for name, count in sorted(calls.items()):
        for number in range(1, count + 1):
            reset(host, verb, node, closed=closed)
            before, noted = contents(host), len(host.forging_since())
            kill_at(strace, host, verb, name, number)
            here = f"killed at {name} {number}"
            assert contents(host) >= before, here
            whole = {"sighup None", f"sighup {old}"} | ({f"sighup {new}"} if verb != "close" else set())
            assert {hang_up(host, node), *host.forging_since()[noted:]} <= whole, here
            recover(host, verb, closed, number, here)
            assert contents(host) >= before, here
            killed += 1
    assert killed == sum(calls.values())


def recover(host: AgentHost, verb: str, closed: bool, number: int, here: str) -> None:
    """The next call makes it whole: the same one, or one that closes, or for a closing the next look alone."""
    order = f"{verb} then {'the same' if number % 2 else 'close'}, {here}"
    if verb == "close" and number % 2:
        gate = host.gate()
        if host.live:  # it was killed before it wrote down what it was about: nothing had begun
            assert (gate["open"], host.live) == (True, sorted(FILES.values())), order
        else:
            assert (gate["open"], host.aside) == (False, sorted(FILES)), order
    elif number % 2:
        (answer,) = host.raw(request(verb, 6))
        if answer["ok"]:
            assert answer["gate"]["open"] is (verb == "open" or not closed), order
        else:  # the killed call had installed everything already
            assert "staging has no" in answer["error"], (order, answer)
    else:
        (answer,) = host.raw(request("close", 6))
        assert answer["ok"], (order, answer)
        assert answer["gate"]["open"] is False, (order, answer)
        assert (host.live, host.aside) == ([], sorted(FILES)), order
        assert host.forging_since()[-1] == "sighup None", order
    left = sorted(FILES.values()) if host.live else sorted(FILES)
    assert (host.live or host.aside) == left, order


def test_a_set_that_was_installed_by_half_is_made_whole_by_an_opening(strace: str, host: AgentHost) -> None:
    node = host.run_node().pid
    reset(host, "install-credentials", node, closed=True)
    kill_at(strace, host, "install-credentials", "renameat", 3)  # both old files are away, no new one is there
    assert host.order("open", 6)["gate"]["open"] is True
    whole = {**OLD, "kes": NEW["kes"], "certificate": NEW["certificate"]}
    assert {role: (host.keys / name).read_text() for role, name in FILES.items()} == whole
    assert hang_up(host, node).startswith("sighup ")


def test_a_start_that_is_killed_at_any_system_call_leaves_no_files_in_place(strace: str, host: AgentHost) -> None:
    start = host.agent("start", "--node-version", "10.5.1", "--", "/bin/false")
    tracing = [strace, "--seccomp-bpf", "-f", "-qq"]  # the watcher is traced too, and killed at its own calls
    assert host.order("close", 1)["gate"]["open"] is False
    log = host.folder / "strace.log"
    words = [*tracing, "-e", f"trace={CHANGING}", "-o", str(log), *start]
    assert subprocess.run(words, timeout=60, check=False).returncode == 1
    calls = Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))
    assert calls["rename"] + calls["renameat"] >= 8
    for name, count in sorted(calls.items()):
        for number in range(1, count + 1):
            here = f"killed at {name} {number}"
            inject = f"inject={name}:signal=SIGKILL:when={number}"
            words = [*tracing, "-e", inject, "-o", "/dev/null", *start]
            subprocess.run(words, stderr=subprocess.DEVNULL, timeout=60, check=False)
            until(lambda: host.gate()["open"] is False and host.live == [], f"closed again after being {here}")
            assert host.aside == sorted(FILES), here
            assert {role: (host.state / "put-aside" / "current" / role).read_text() for role in FILES} == OLD, here
