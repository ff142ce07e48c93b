"""``failover check --footprint``: what the controller and agents use, host by host, from the file alone."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from click.testing import CliRunner

from failover import agent as program
from failover.cli import footprint, installation, main
from failover.config import load_text
from failover.model import Pool

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBixTOVlh3PJVI3XzwcvIn0mhz7FJZtqbNbGNGFk9jXt"
POOL = """
pool: EXMPL
network: preview
state: {folder}/state
agents:
  - {{name: bp1, address: "10.0.1.10:2222", key_file: {folder}/key, host_key: "{host_key}", user: keeper}}
  - {{name: bp2, address: "10.0.2.10:22", key_file: {folder}/key, host_key: "{host_key}"}}
  - {{name: r1, address: "10.0.3.10:22", key_file: {folder}/key, host_key: "{host_key}"}}
producers:
  - name: main
    address: "10.0.1.10:6000"
    agent: bp1
    gates: [forging, firewall]
    power: {{off: [/bin/ipmi, "off"], status: [/bin/ipmi, status]}}
  - {{name: backup, address: "10.0.2.10:6000", agent: bp2, gates: [forging], metrics: "http://10.0.2.10:12798/metrics"}}
relays:
  - {{name: relay-1, address: "10.0.3.10:3001", agent: r1}}
proxies:
  - {{name: proxy-1, socket: /run/haproxy/admin.sock, backend: producers, watch: watch, hard_stop_after: 5s}}
  - name: proxy-2
    stats: https://10.0.4.5:8404/stats
    username: failover
    password_file: {folder}/password
    backend: producers
    watch: watch
    hard_stop_after: 5s
records:
  - name: bp.example.com.
    addresses: {{main: 203.0.113.10, backup: 203.0.113.20}}
    route53: {{zone: Z0123456789ABC}}
  - name: bp.example.org.
    addresses: {{main: 203.0.113.10, backup: 203.0.113.20}}
    rfc2136: {{server: 192.0.2.53, zone: example.org., key_name: bp-key., key_file: {folder}/tsig}}
references: ["192.0.2.1:3001", "192.0.2.2:3001"]
"""
PASSWORD, TSIG = "the-password-itself", "c2VjcmV0IHNlY3JldCBzZWNyZXQ="


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "key").write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "tsig").write_text(TSIG)
    for name in ("key", "password", "tsig"):
        (tmp_path / name).chmod(0o600)
    file = tmp_path / "failover.yaml"
    file.write_text(POOL.format(folder=tmp_path, host_key=HOST_KEY))
    return file


def pool_of(path: Path) -> Pool:
    return load_text(path.read_text(), str(path)).pool


def document(path: Path) -> dict[str, list[tuple[str, str]]]:
    """What is used, by host, as kind and what."""
    result = CliRunner().invoke(main, ["-c", str(path), "check", "--footprint", "--json"])
    assert result.exit_code == 0, result.output
    said: dict[str, Any] = json.loads(result.stdout)
    assert said["pool"] == "EXMPL"
    assert all(use["why"] for host in said["hosts"] for use in host["uses"])
    return {host["host"]: [(use["kind"], use["what"]) for use in host["uses"]] for host in said["hosts"]}


def test_every_host_of_the_file_is_there(path: Path) -> None:
    assert list(document(path)) == [
        "this host, the controller",
        "host of main (agent bp1, 10.0.1.10:2222)",
        "host of backup (agent bp2, 10.0.2.10:22)",
        "host of relay-1 (agent r1, 10.0.3.10:22)",
        "host of proxy proxy-1",
        "host of proxy proxy-2",
        "Route 53",
        "name server 192.0.2.53:53",
        "reference 192.0.2.1:3001",
        "reference 192.0.2.2:3001",
    ]


def test_every_address_of_the_file_is_one_that_the_controller_connects_to(path: Path) -> None:
    uses = document(path)["this host, the controller"]
    connected = " ".join(what for kind, what in uses if kind == "connect")
    pool = pool_of(path)
    wanted = [agent.address for agent in pool.agents] + [p.address for p in pool.producers] + list(pool.references)
    others = ["10.0.2.10:12798", "/run/haproxy/admin.sock", "10.0.4.5:8404", "192.0.2.53:53"]
    for address in [*map(str, wanted), *others]:
        assert address in connected
    assert ("listen", f"TCP {pool.listen}") in uses
    assert [what for kind, what in uses if kind == "run"] == ["/bin/ipmi status", "/bin/ipmi off"]


def test_files_with_secrets_are_named_and_never_shown(path: Path) -> None:
    uses = document(path)["this host, the controller"]
    read = [what for kind, what in uses if kind == "read"]
    for name in ("key", "password", "tsig"):
        assert f"{path.parent / name} (0600)" in read
    plain = CliRunner().invoke(main, ["-c", str(path), "check", "--footprint"]).output
    said = plain + json.dumps(document(path))
    assert PASSWORD not in said
    assert TSIG not in said


@pytest.mark.parametrize("name", ["main", "backup", "relay-1"])
def test_an_agent_s_host_has_what_the_agent_itself_says(path: Path, tmp_path: Path, name: str) -> None:
    pool = pool_of(path)
    place = installation.place(pool, name)
    config = tmp_path / "agent.json"
    config.write_text(json.dumps(installation.configuration(pool, place)))
    words = [sys.executable, "-S", str(program.__file__), "--config", str(config), "footprint", "--json"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    here = {str(Path(program.__file__).resolve()): installation.PROGRAM, str(config): installation.CONFIGURATION}
    said = ran.stdout
    for ours, installed in here.items():
        said = said.replace(ours, installed)
    said = said.replace("failover ALL=", f"{place.agent.user} ALL=")
    wanted = [(row["kind"], row["what"]) for row in json.loads(said)]
    (shown,) = [uses for host, uses in document(path).items() if host.startswith(f"host of {name} ")]
    assert [use for use in wanted if use not in shown] == []
    assert len(wanted) > 8


def test_what_is_rendered_for_a_host_is_what_its_footprint_says(path: Path) -> None:
    pool = pool_of(path)
    place = installation.place(pool, "main")
    shown = document(path)["host of main (agent bp1, 10.0.1.10:2222)"]
    rule = installation.sudoers(place.agent.user).splitlines()[-1]
    assert [what for kind, what in shown if kind == "sudo"] == [rule]
    (forced,) = [what for kind, what in shown if kind == "sshd"]
    line = installation.authorized(HOST_KEY)
    assert forced.partition(": ")[2] == line.partition(" ssh-ed25519")[0]
    for file in installation.files(pool, place, HOST_KEY):
        assert any(what.startswith(file.path) for kind, what in shown if kind == "file"), file.path


def test_permissions_at_providers_are_the_least(path: Path) -> None:
    found = document(path)
    actions = [what.split()[0] for _, what in found["Route 53"]]
    assert actions == ["route53:ListResourceRecordSets", "route53:ChangeResourceRecordSets", "route53:GetChange"]
    assert found["name server 192.0.2.53:53"] == [
        ("permission", "update-policy { grant bp-key. name bp.example.org. A; };")
    ]
    assert ("permission", "`level admin` of that socket: HAProxy has no narrower one") in found["host of proxy proxy-1"]


def test_nothing_is_asked_of_anybody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert document(path)
    assert not (path.parent / "state").exists()


def test_it_goes_with_json_alone(path: Path) -> None:
    for words in (["--offline"], ["--topology", "main=x"], ["--node-version", "10.5.1"]):
        result = CliRunner().invoke(main, ["-c", str(path), "check", "--footprint", *words])
        assert result.exit_code == 2
        assert "--footprint goes with --json alone" in result.output


def test_a_command_line_s_help_does_not_load_the_agent() -> None:
    words = "import sys; from failover.cli import main; main(['check', '--help'], standalone_mode=False); "
    words += "print([name for name in ('failover.agent', 'asyncssh', 'failover.cli.footprint') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_one_line_is_one_use(path: Path) -> None:
    pool = pool_of(path)
    text = footprint.text(pool, path)
    assert text.startswith("this host, the controller\n  run as ")
    assert all(line.isprintable() for line in text.splitlines())
