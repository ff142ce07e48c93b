"""``failover render topology`` and ``failover check --topology``: what is printed and written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import asyncssh
import pytest
from click.testing import CliRunner, Result
from topology_world import root, text

from failover.cli import main

HEAD = """
pool: EXMPL
network: preview
state: {state}
producers:
  - {{name: main, address: "10.0.1.10:6000"{main}}}
  - {{name: backup, address: "10.0.1.20:6000"{backup}}}
relays:
  - {{name: relay-1, address: "10.0.2.1:3001"}}
  - {{name: relay-2, address: "relay2.example.com:3001"}}
references: ["192.0.2.1:3001", "192.0.2.2:3001"]
"""
PROXIES = """
proxies:
  - {{name: proxy-1, socket: /run/haproxy/admin.sock, backend: producers, watch: watch, hard_stop_after: 5s}}
  - {{name: proxy-2, socket: "127.0.0.1:9001", backend: producers, watch: watch, hard_stop_after: 5s}}
"""
RECORD = """
records:
  - name: bp.example.com.
    addresses: {{main: 203.0.113.10, backup: 203.0.113.20}}
    route53: {{zone: Z0123456789ABC}}
"""
GATELESS = "fence: {{require: none}}\n"
AGENTS = """
agents:
  - {{name: main-host, address: "10.0.1.10:22", key_file: {key}, host_key: {host_key}}}
  - {{name: backup-host, address: "10.0.1.20:22", key_file: {key}, host_key: {host_key}}}
"""
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBixTOVlh3PJVI3XzwcvIn0mhz7FJZtqbNbGNGFk9jXt"
KINDS = {
    "proxies": PROXIES,
    "a record": RECORD + GATELESS,
    "forging": AGENTS,
    "forging and proxies": AGENTS + PROXIES,
}
VIA = ("--via", "10.0.3.1:6000", "--via", "10.0.3.2:6000")


def pool_file(folder: Path, kind: str, more: str = "") -> Path:
    key = folder / "key"
    key.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    key.chmod(0o600)
    hosts = ["", ""]
    if kind.startswith("forging"):
        hosts = [f", agent: {name}-host, gates: [forging]" for name in ("main", "backup")]
    path = folder / "failover.yaml"
    written = (HEAD + KINDS[kind] + more).format(
        state=json.dumps(str(folder / "state")),
        main=hosts[0],
        backup=hosts[1],
        key=json.dumps(str(key)),
        host_key=json.dumps(HOST_KEY),
    )
    path.write_text(written)
    return path


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["-c", str(file), *arguments])


def findings(file: Path, *arguments: str) -> tuple[int, list[tuple[str, str, str]]]:
    done = run(file, "check", "--offline", "--json", *arguments)
    rows = json.loads(done.stdout)["findings"]
    return done.exit_code, [
        (row["severity"], row["part"], row["what"]) for row in rows if row["part"].startswith("topology")
    ]


# ---------------------------------------------------------------- render


def test_one_nodes_file_is_printed_and_remarks_go_to_stderr(tmp_path: Path) -> None:
    done = run(pool_file(tmp_path, "proxies"), "render", "topology", "--for", "relay-1", *VIA)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["localRoots"][0]["accessPoints"] == [
        {"address": "10.0.3.1", "port": 6000},
        {"address": "10.0.3.2", "port": 6000},
    ]
    assert done.stdout.startswith('{\n  "bootstrapPeers": null,\n')
    assert done.stdout.endswith("}\n")
    assert "# relay-1: no bootstrap peers" in done.stderr


def test_bootstrap_peers_and_the_ledgers_slot_are_the_operators(tmp_path: Path) -> None:
    choice = ("--bootstrap", "boot.example.org:3001", "--ledger-after", "128908821")
    done = run(pool_file(tmp_path, "proxies"), "render", "topology", "--for", "relay-1", *VIA, *choice)
    document = json.loads(done.stdout)
    assert document["bootstrapPeers"] == [{"address": "boot.example.org", "port": 3001}]
    assert document["useLedgerAfterSlot"] == 128908821
    assert done.stderr == ""


def test_for_an_old_node_it_is_said_on_stderr_what_is_missing(tmp_path: Path) -> None:
    done = run(pool_file(tmp_path, "proxies"), "render", "topology", "--for", "main", "--node-version", "10.1.4")
    assert done.exit_code == 0
    assert "diffusionMode" not in done.stdout
    assert "# main: node 10.1.4 cannot make one-way connections" in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_everybodys_files_are_written_and_have_no_leak(kind: str, tmp_path: Path) -> None:
    file, folder = pool_file(tmp_path, kind), tmp_path / "files"
    via = VIA if "proxies" in kind else ()
    done = run(file, "render", "topology", "--all", "--output", str(folder), *via)
    assert done.exit_code == 0, done.output
    names = ["main", "backup", "relay-1", "relay-2"]
    assert done.stdout.split() == [str(folder / f"{name}.json") for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.json" for name in names)
    options = [word for name in names for word in ("--topology", f"{name}={folder / name}.json")]
    status, said = findings(file, "--node-version", "10.5.1", *options)
    assert said == [("ok", f"topology {name}", "no leak") for name in names]
    assert status == 0
    again = run(file, "render", "topology", "--for", "main", *via)
    assert again.stdout == (folder / "main.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say for whom: --for NAME (a producer or a relay), or --all --output FOLDER"),
        (["--for", "main", "--all"], "say for whom"),
        (["--all"], "--all needs --output FOLDER"),
        (["--for", "main", "--output", "x"], "--output goes with --all"),
        (["--for", "mian"], "no producer or relay 'mian' in the file. Did you mean 'main'?"),
        (["--for", "relay-1"], "as in --via 10.0.2.5:6000 --via 10.0.2.6:6000"),
        (["--for", "relay-1", "--via", "10.0.3.1"], "'10.0.3.1' has no port: write \"HOST:PORT\""),
        (["--for", "relay-1", *VIA, "--bootstrap", "x:y"], "has a port that is not between 1 and 65535"),
        (["--for", "main", "--node-version", "new"], "'new' is no version of cardano-node: write it as in 10.5.1"),
        (["--for", "main", "--ledger-after", "-1"], "-1 is not in the range"),
    ],
)
def test_what_cannot_be_rendered_is_a_usage_error(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = run(pool_file(tmp_path, "proxies"), "render", "topology", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_via_without_proxies_is_refused(tmp_path: Path) -> None:
    done = run(pool_file(tmp_path, "forging"), "render", "topology", "--for", "relay-1", *VIA)
    assert done.exit_code == 2
    assert "--via: the file has no proxies" in done.stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    done = run(pool_file(tmp_path, "forging"), "render", "topology", "--all", "--output", str(tmp_path / "a" / "b"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "cannot be written: No such file or directory" in done.stderr
    assert not (tmp_path / "a").exists()


def test_help_needs_no_file() -> None:
    done = CliRunner().invoke(main, ["render", "topology", "--help"])
    assert done.exit_code == 0
    assert "--node-version VERSION" in done.stdout


# ---------------------------------------------------------------- check


def test_a_leak_in_a_given_file_is_an_error_with_its_mend(tmp_path: Path) -> None:
    file, leaky = pool_file(tmp_path, "proxies"), tmp_path / "relay.json"
    leaky.write_text(text(root("10.0.3.1:6000"), root("10.0.1.20:6000")))
    done = run(file, "check", "--offline", "--topology", f"relay-1={leaky}")
    assert done.exit_code == 1
    assert "topology relay-1  it lists backup, a standby, at 10.0.1.20:6000" in done.stdout
    assert "remove that access point, and leave the proxies alone" in done.stdout
    assert "1 to mend" in done.stdout


def test_the_version_of_the_node_counts(tmp_path: Path) -> None:
    file, good = pool_file(tmp_path, "proxies"), tmp_path / "main.json"
    good.write_text(text(root("10.0.2.1:3001", one_way=True)))
    given = ("--topology", f"main={good}")
    status, said = findings(file, *given)
    assert (status, said[0][0]) == (0, "ok")
    status, said = findings(file, *given, "--node-version", "10.1.4")
    assert (status, said[0][0]) == (1, "error")


def test_proxies_called_the_only_path_are_contradicted(tmp_path: Path) -> None:
    file = pool_file(tmp_path, "proxies", "fence: {{require: confirmed, proxies_are_only_path: true}}\n")
    leaky = tmp_path / "main.json"
    leaky.write_text(text(root("10.0.2.1:3001")))
    done = run(file, "check", "--offline", "--topology", f"main={leaky}")
    assert done.exit_code == 1
    assert "fence.proxies_are_only_path is true, and another path is open: topology main" in done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"\xff\xfe{", "is not text"),
        (b"", "it is empty"),
        (b"{" + b" " * 300_000 + b"}", "it is larger than 256 KiB"),
        (b'{"Producers": []}', "old format from before P2P"),
        (b'{"localRoots": [],}', "damaged JSON at line 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_finding_and_not_a_crash(
    content: bytes | None, words: str, tmp_path: Path
) -> None:
    file, given = pool_file(tmp_path, "proxies"), tmp_path / "given.json"
    if content is not None:
        given.write_bytes(content)
    status, said = findings(file, "--topology", f"main={given}")
    assert status == 1
    assert [(severity, part) for severity, part, _ in said] == [("error", "topology main")]
    assert words in said[0][2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["main"], "'main' is not NAME=FILE, as in main=/etc/cardano/topology.json"),
        (["=x"], "is not NAME=FILE"),
        (["nosuch=x"], "'nosuch' is no producer and no relay of the file; it has main, backup, relay-1, relay-2"),
        (["main=x", "main=y"], "main is given twice"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_asked(options: list[str], words: str, tmp_path: Path) -> None:
    given = [word for option in options for word in ("--topology", option)]
    done = run(pool_file(tmp_path, "proxies"), "check", *given)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_wrong_version_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    done = run(pool_file(tmp_path, "proxies"), "check", "--topology", "main=x", "--node-version", "ten")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "'ten' is no version of cardano-node" in done.stderr
