"""What the controller's key can do on an agent's host: the line of ``failover render agent``, at a real sshd."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import Sshd

from failover import agent as program
from failover.cli import installation

STATUS = '{"v":1,"verb":"status","pool":"EXMPL"}\n'
WAIT = 30.0  # seconds; an upper bound for one login
ANY_KEY = "ssh-ed25519 AAAA"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """An sshd with that line for its key; sudo is left out, and the agent has a configuration of its own."""
    config = tmp_path / "agent.json"
    runtime = {"runtime": {"pidfile": str(tmp_path / "node.pid")}, "port": 6000}
    config.write_text(json.dumps({"pool": "EXMPL", "state": str(tmp_path / "state"), "node": runtime}))
    here = shlex.join([sys.executable, "-S", str(program.__file__), "--config", str(config), "serve"])
    line = installation.authorized(ANY_KEY)
    assert installation.SERVE in line
    before = line.replace(installation.SERVE, here).partition(ANY_KEY)[0]
    settings = ("SetEnv SHLVL=1", "AllowTcpForwarding yes", "PermitTTY yes")  # it is the line that forbids
    with Sshd(tmp_path / "sshd", command=["unused"], authorized=before, settings=settings) as made:
        yield made


def ssh(sshd: Sshd, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    listed = [word for option in options for word in ("-o", option)]
    call = ["ssh", "-F", "none", "-p", str(sshd.port), "-i", str(sshd.client_key), *listed]
    *flags, command = words
    call += [*flags, f"{sshd.user}@{sshd.listen}", *([command] if command else [])]
    return subprocess.run(call, input=said, text=True, capture_output=True, timeout=WAIT, check=False)


@pytest.mark.parametrize("command", ["serve", "id", "/bin/sh -c 'echo hello'", "scp -t /tmp", "", "forget --yes"])
def test_whatever_is_asked_for_the_agent_answers_requests_and_nothing_else_runs(sshd: Sshd, command: str) -> None:
    done = ssh(sshd, "-T", command, said=STATUS + "id\n")
    answer, refusal = (json.loads(line) for line in done.stdout.splitlines())
    assert (answer["ok"], answer["pool"]) == (True, "EXMPL"), done
    assert (refusal["ok"], refusal["kind"]) == (False, "bad-request")


def test_there_is_no_terminal(sshd: Sshd) -> None:
    done = ssh(sshd, "-tt", "id", said=STATUS)
    assert "PTY allocation request failed" in done.stderr
    assert "uid=" not in done.stdout


def test_nothing_is_forwarded_in_either_direction(sshd: Sshd) -> None:
    out = ssh(sshd, "-W", f"127.0.0.1:{sshd.port}", "")
    assert (out.returncode, out.stdout) == (255, "")
    assert "administratively prohibited" in out.stderr
    back = ssh(sshd, "-N", "-o", "ExitOnForwardFailure=yes", "-R", f"0:127.0.0.1:{sshd.port}", "")
    assert back.returncode == 255
    assert "remote port forwarding failed" in back.stderr
