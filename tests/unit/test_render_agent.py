"""``failover render agent``: what an agent's host needs, ready to paste, or as files; systemd judges the units."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import asyncssh
import pytest
from click.testing import CliRunner, Result

from failover import agent as program
from failover.cli import installation, main
from failover.cli.installation import PROGRAM

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBixTOVlh3PJVI3XzwcvIn0mhz7FJZtqbNbGNGFk9jXt"
POOL = """
pool: EXMPL
network: preview
state: {folder}/state
agents:
  - {{name: bp1, address: "10.0.1.10:2222", key_file: {folder}/key, host_key: "{host_key}"}}
  - {{name: bp2, address: "10.0.2.10:22", key_file: {folder}/key, host_key: "{host_key}", user: keeper}}
  - {{name: r1, address: "10.0.3.10:22", key_file: {folder}/key, host_key: "{host_key}"}}
producers:
  - {{name: main, address: "10.0.1.10:6000", agent: bp1, gates: [forging, firewall]}}
  - {{name: backup, address: "10.0.2.10:6001", agent: bp2, gates: [forging, firewall]}}
relays:
  - {{name: relay-1, address: "10.0.3.10:3001", agent: r1}}
  - {{name: relay-2, address: "relay2.example.com:3001"}}
"""
PLACEHOLDER = re.compile(r"/path/to/[\w.]+|ADDRESS-OF-[A-Z-]+")


@pytest.fixture
def key(tmp_path: Path) -> asyncssh.SSHKey:
    made = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "key").write_bytes(made.export_private_key())
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "failover.yaml").write_text(POOL.format(folder=tmp_path, host_key=HOST_KEY))
    return made


def rendered(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["-c", str(folder / "failover.yaml"), "render", "agent", *words])


def printed(folder: Path, *words: str) -> str:
    result = rendered(folder, *words)
    assert result.exit_code == 0, result.output
    checked = subprocess.run(["sh", "-n"], input=result.stdout, text=True, capture_output=True, timeout=30, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    return result.stdout


def file_of(text: str, path: str) -> str:
    """A file as the printed script writes it."""
    found = re.search(rf"cat > {re.escape(path)} <<'END'\n(.*?)^END$", text, re.DOTALL | re.MULTILINE)
    assert found is not None, path
    return found[1]


# ---------------------------------------------------------------- who may do what


def test_the_controller_s_key_gets_one_command_and_nothing_else(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    line = file_of(printed(tmp_path, "--for", "main"), "/var/lib/failover-login/.ssh/authorized_keys")
    public = key.export_public_key("openssh").decode().strip()
    assert line == f'restrict,command="sudo -n {PROGRAM} serve" {public} failover-controller\n'
    (entry,) = asyncssh.import_authorized_keys(line)._user_entries
    assert entry.options["command"] == f"sudo -n {PROGRAM} serve"


def test_the_key_s_own_file_is_read_for_its_public_half_or_another_is_given(
    tmp_path: Path, key: asyncssh.SSHKey
) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    (tmp_path / "other.pub").write_text(other)
    assert other.split()[1] in printed(tmp_path, "--for", "main", "--public-key", str(tmp_path / "other.pub"))
    refused = rendered(tmp_path, "--for", "main", "--public-key", str(tmp_path / "key"))
    assert refused.exit_code == 2
    assert "is a private key" in refused.output
    (tmp_path / "other.pub").write_text("good morning")
    assert "no public key" in rendered(tmp_path, "--for", "main", "--public-key", str(tmp_path / "other.pub")).output


def test_no_private_key_is_ever_printed(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    rendered(tmp_path, "--for", "main", "--output", str(tmp_path / "out"))
    made = "".join(file.read_text() for file in (tmp_path / "out").iterdir()) + printed(tmp_path, "--for", "main")
    lines = (tmp_path / "key").read_text().splitlines()[1:-1]
    assert not [line for line in lines if line in made]


@pytest.mark.parametrize(("name", "user"), [("main", "failover"), ("backup", "keeper")])
def test_sudo_has_one_rule_with_fixed_words_and_keeps_nothing_of_the_environment(
    tmp_path: Path, key: asyncssh.SSHKey, name: str, user: str
) -> None:
    text = printed(tmp_path, "--for", name)
    lines = file_of(text, "/etc/sudoers.d/failover-agent").splitlines()
    assert lines == [
        f"Defaults:{user} env_reset, !setenv, !env_keep, !env_check",
        f"{user} ALL=(root) NOPASSWD: {PROGRAM} serve",
    ]
    assert "chmod 0440 /etc/sudoers.d/failover-agent" in text
    assert f"--password '*' {user}\n" in text


# ---------------------------------------------------------------- the agent's configuration


def test_the_agent_takes_its_configuration_and_refuses_what_is_not_filled_in(
    tmp_path: Path, key: asyncssh.SSHKey
) -> None:
    text = file_of(printed(tmp_path, "--for", "main", "--fuse", "2m"), "/etc/failover-agent.json")
    made = json.loads(text)
    made["state"] = str(tmp_path / "agent-state")
    made["node"] |= {"runtime": {"pidfile": str(tmp_path / "pid")}, "owner": pwd.getpwuid(os.getuid()).pw_name}
    made["firewall"]["user"] = "nobody"
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(made))
    config = program.read_config(path)
    assert (config.pool, config.port, config.gates, config.fuse) == ("EXMPL", 6000, ("forging", "firewall"), 120.0)
    words = [sys.executable, "-S", str(program.__file__), "--config", str(path), "check", "--json"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1, ran.stderr
    bad = "\n".join(found["what"] for found in json.loads(ran.stdout))
    for placeholder in ("/path/to/node.cert", "/path/to/topology.json", "ADDRESS-OF-THE-CONTROLLER"):
        assert placeholder in bad


def test_a_relay_s_host_gets_neither_gates_nor_credentials_nor_units(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    text = printed(tmp_path, "--for", "relay-1")
    made = json.loads(file_of(text, "/etc/failover-agent.json"))
    assert "gates" not in made
    assert "credentials" not in made["node"]
    assert made["node"]["port"] == 3001
    assert "systemctl" not in text


def test_relays_of_the_file_are_those_that_a_closed_firewall_syncs_from(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    made = json.loads(file_of(printed(tmp_path, "--for", "backup"), "/etc/failover-agent.json"))
    assert made["firewall"]["sync"] == ["10.0.3.10:3001", "relay2.example.com:3001"]
    with pytest.raises(program.Refused):  # the agent wants addresses, and says so
        program._endpoint(made["firewall"]["sync"][1])


def test_a_node_that_is_producer_and_relay_has_one_host_under_both_names(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    text = POOL.replace(
        '{{name: relay-2, address: "relay2.example.com:3001"}}',
        '{{name: second, address: "10.0.2.10:6001", agent: bp2}}',
    )
    (tmp_path / "failover.yaml").write_text(text.format(folder=tmp_path, host_key=HOST_KEY))
    assert printed(tmp_path, "--for", "second") == printed(tmp_path, "--for", "backup")


# ---------------------------------------------------------------- units


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt-get install systemd")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    text = printed(tmp_path, "--for", "main", "--fuse", "120")
    units = tmp_path / "units"
    (units / "cardano-node.service.d").mkdir(parents=True)
    (units / "cardano-node.service").write_text("[Service]\nExecStart=/bin/true\nUser=root\n")
    names = ["failover-agent-boot.service", "failover-fuse.service", "cardano-node.service.d/failover.conf"]
    for name in names:
        content = file_of(text, f"/etc/systemd/system/{name}")
        assert PROGRAM in content
        (units / name).write_text(content.replace(PROGRAM, "/bin/true"))  # it is not installed here
    verified = [str(units / name) for name in [*names[:2], "cardano-node.service"]]
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *verified],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_node_is_started_by_the_agent_and_no_fuse_is_there_unless_it_is_asked_for(
    tmp_path: Path, key: asyncssh.SSHKey
) -> None:
    text = printed(tmp_path, "--for", "main")
    drop_in = file_of(text, "/etc/systemd/system/cardano-node.service.d/failover.conf")
    assert f"ExecStart=\nExecStart=+{PROGRAM} start -- /path/to/cardano-node run " in drop_in
    assert "failover-fuse" not in text
    assert '"fuse"' not in text
    assert PLACEHOLDER.search(text)


def test_every_command_in_units_and_files_is_one_that_the_agent_has(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    text = printed(tmp_path, "--for", "main", "--fuse", "120")
    commands = set(re.findall(rf"{re.escape(PROGRAM)} ([a-z-]+)", text))
    assert commands == {"serve", "start", "boot", "fuse", "check"}
    for command in commands:
        parsed = program.parser().parse_args([command])
        assert parsed.command == command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--for", "main", "--fuse", "75"], "above 75 s"),
        (["--for", "main", "--fuse", "290"], "below 290 s"),
        (["--for", "relay-1", "--fuse", "2m"], "has no gate that a fuse could close"),
        (["--for", "relay-2"], "relay-2 has no agent in the file"),
        (["--for", "nobody"], "those with an agent are main, backup, relay-1"),
        ([], "say for whom"),
        (["--program", "--for", "main"], "--program stands alone"),
    ],
)
def test_what_cannot_be_is_refused_with_its_mend(
    tmp_path: Path, key: asyncssh.SSHKey, words: list[str], said: str
) -> None:
    result = rendered(tmp_path, *words)
    assert result.exit_code == 2
    assert said in result.output


# ---------------------------------------------------------------- a folder


def test_a_folder_has_every_file_in_its_mode_with_the_program_and_a_script(
    tmp_path: Path, key: asyncssh.SSHKey
) -> None:
    out = tmp_path / "out"
    result = rendered(tmp_path, "--for", "main", "--fuse", "2m", "--output", str(out))
    assert result.exit_code == 0, result.output
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in out.iterdir()}
    assert modes == {
        "agent.py": 0o755,
        "authorized_keys": 0o644,
        "failover-agent": 0o440,
        "failover-agent-boot.service": 0o644,
        "failover-agent.json": 0o644,
        "failover-fuse.service": 0o644,
        "failover.conf": 0o644,
        "install.sh": 0o755,
    }
    assert sorted(result.stdout.split()) == sorted(str(out / name) for name in modes)
    assert (out / "agent.py").read_bytes() == Path(program.__file__).read_bytes()
    script = (out / "install.sh").read_text()
    assert subprocess.run(["sh", "-n", str(out / "install.sh")], timeout=30, check=False).returncode == 0
    for name in modes.keys() - {"install.sh"}:
        assert re.search(rf" {re.escape(name)} /", script), name
    again = rendered(tmp_path, "--for", "main", "--output", str(out))
    assert again.exit_code == 0, again.output


def test_a_configuration_that_was_filled_in_is_not_replaced(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    rendered(tmp_path, "--for", "main", "--output", str(tmp_path / "out"))
    script = (tmp_path / "out" / "install.sh").read_text()
    kept = [line for line in script.splitlines() if line.startswith("[ -e ")]
    assert [line.split()[2] for line in kept] == [
        installation.CONFIGURATION,
        "/etc/systemd/system/cardano-node.service.d/failover.conf",
    ]


def test_what_was_filled_in_stays_when_the_printed_commands_are_pasted_again(
    tmp_path: Path, key: asyncssh.SSHKey
) -> None:
    target = tmp_path / "agent.json"
    lines = printed(tmp_path, "--for", "main").splitlines()
    begin = next(n for n, line in enumerate(lines) if f"cat > {installation.CONFIGURATION}" in line)
    part = "\n".join(lines[begin : lines.index("END", begin) + 1]).replace(installation.CONFIGURATION, str(target))
    for _ in range(2):
        subprocess.run(["sh", "-eu"], input=part, text=True, timeout=30, check=True)
        if not target.read_text().startswith("mine"):
            assert json.loads(target.read_text())["pool"] == "EXMPL"
            target.write_text("mine")
    assert target.read_text() == "mine"


def test_the_controller_gets_no_account_of_its_own_that_is_root(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    file = tmp_path / "failover.yaml"
    file.write_text(file.read_text().replace("user: keeper", "user: root"))
    result = rendered(tmp_path, "--for", "backup")
    assert result.exit_code == 2
    assert "the controller is not to log in as root" in result.output


def test_the_program_is_printed_as_it_is() -> None:
    result = CliRunner().invoke(main, ["render", "agent", "--program"])
    assert result.exit_code == 0
    assert result.stdout == Path(program.__file__).read_text()
