"""A file that is wrong, through every command that reads it: status 2, where and how to mend, and nothing touched."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
from click.testing import CliRunner, Result

from failover.cli import main

GOOD = """\
pool: EXMPL
network: mainnet
state: FOLDER/state
listen: "127.93.0.1:PORT"
producers:
  - {name: main, address: "127.93.0.1:PORT"}
  - {name: backup, address: "127.93.0.2:PORT"}
proxies:
  - {name: proxy-1, socket: "127.93.0.1:PORT", backend: producers}
"""
STATS = GOOD.replace('socket: "127.93.0.1:PORT"', 'stats: "http://127.93.0.1:PORT/stats", username: u, PASSWORD')
GATELESS = (
    GOOD[: GOOD.index("proxies")]
    + """\
fence: {require: none}
records:
  - name: bp.example.com.
    addresses: {main: 203.0.113.10, backup: 203.0.113.20}
    ttl: 60
    rfc2136: {server: "127.93.0.1:PORT", zone: example.com, key_name: bp, key_file: FOLDER/key}
    verify: {servers: ["127.93.0.1:PORT"]}
health: {timeout: 1s}
lease: {action_timeout: 1s}
"""
)
AGENT = (
    'agents: [{name: bp1, address: "127.93.0.1:PORT", key_file: FOLDER/ssh, '
    'host_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDlgoeIxgbm5yQhp1SvZ7yrNEOi1ZOmJ3o3YLuRVPjVC"}]\n'
)
COMMANDS = (
    ("check",),
    ("check", "--offline"),
    ("run",),
    ("run", "--once"),
    ("run", "--dry-run", "--once"),
    ("status",),
    ("explain",),
    ("explain", "--commands"),
    ("history",),
    ("switchover", "--to", "backup", "--yes"),
    ("pause",),
    ("resume",),
    ("pin", "main"),
    ("unpin",),
    ("cordon", "main"),
    ("uncordon", "main"),
    ("adopt", "main", "--yes"),
    ("release", "--yes"),
    ("render", "haproxy"),
)
BOMB = "a0: &a0 [lol, lol]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
SECOND = '  - {name: backup, address: "127.93.0.2:PORT"}\n'

CASES: dict[str, tuple[str, int, str]] = {  # the file, the line, and what is said of it
    "syntax": (GOOD + "health: [\n", 11, "is not YAML"),
    "alias bomb": (BOMB, 1, "an anchor (&)"),
    "deep nesting": ("pool: " + "[" * 100_000 + "\n", 1, "nested more than 10 levels"),
    "unknown key": (GOOD + "helth: {}\n", 10, "did you mean health?"),
    "doubled key": (GOOD + "pool: OTHER\n", 10, "written twice, first on line 1"),
    "wrong type": (GOOD.replace("EXMPL", "[EXMPL]"), 1, "pool: is a list"),
    "bad duration": (GOOD + "policy: {fail_over_after: soon}\n", 10, "'soon': is not a duration"),
    "fail_over_after too short": (GOOD + "policy: {fail_over_after: 29s}\n", 10, "shorter than interval x fall, 30 s"),
    "lease too short": (GOOD + "lease: {duration: 35s}\n", 10, "not less than duration 35 s"),
    "the same name": (GOOD.replace("name: backup", "name: main"), 7, "the same name as producers[0]"),
    "the same address": (GOOD.replace("127.93.0.2:PORT", "127.93.0.1:PORT"), 7, "the same address as producers[0]"),
    "control in a name": (GOOD.replace("main,", '"ma\\e[2Jin",'), 6, "has control characters"),
    "raw control": (GOOD.replace("main,", "ma\x1b[2Jin,"), 6, "has the control character U+001B"),
    "control in a proxy": (GOOD.replace("proxy-1", '"p\\u009b2J"'), 9, "has control characters"),
    "control in a backend": (GOOD.replace("producers}", '"p\\ndisable server x"}'), 9, "has control characters"),
    "missing port": (GOOD.replace('"127.93.0.2:PORT"', '"127.93.0.2"'), 7, "has no port"),
    "unknown network": (GOOD.replace("mainnet", "testnet"), 2, "not a network that is known"),
    "one producer only": (GOOD.replace(SECOND, ""), 5, "a pool needs at least two"),
    "missing secret": (STATS.replace("PASSWORD", "password_file: FOLDER/nosuch"), 9, "there is no such file"),
    "readable secret": (STATS.replace("PASSWORD", "password_file: FOLDER/open"), 9, "others can read the file"),
    "inline secret": (STATS.replace("PASSWORD", "password: hunter2"), 9, "a secret is never written in this file"),
    "secret in the URL": (
        STATS.replace("http://", "http://u:hunter2@").replace("PASSWORD", "password_file: FOLDER/shut"),
        9,
        "has a user or password inside",
    ),
    "no fence and a gate": (GOOD + "fence: {require: none}\n", 10, "there are proxies, and they are gates"),
    "no fence and no record": (GATELESS[: GATELESS.index("records")], 8, "there is neither a proxy nor a record"),
    "a gate on a host and none": (
        GATELESS.replace('PORT"}\n', 'PORT", agent: bp1, gates: [forging]}\n', 1) + AGENT,
        8,
        "fence.require: 'none': main has gates on its own host",
    ),
    "a gate without its agent": (
        GOOD.replace('PORT"}\n', 'PORT", agent: bp9, gates: [forging]}\n', 1) + AGENT,
        6,
        "producers[0].agent: 'bp9': is not one of agents",
    ),
    "missing SSH key": (GOOD + AGENT.replace("ssh", "nosuch", 1), 10, "there is no such file"),
    "readable SSH key": (GOOD + AGENT.replace("ssh", "open", 1), 10, "others can read the file (mode 0644)"),
    "wrong SSH key": (GOOD + AGENT.replace("ssh", "shut", 1), 10, "is not a private key of OpenSSH"),
    "inline SSH key": (
        GOOD + AGENT.replace("key_file", "private_key: hunter2, key_file"),
        10,
        "a secret is never written in this file",
    ),
    "wrong host key": (GOOD + AGENT.replace("AAAAC3", "BBBBC3"), 10, "agents[0].host_key: is damaged"),
    "no host key": (GOOD + AGENT[: AGENT.index(", host_key")] + "}]\n", 10, "has neither host_key nor known_hosts"),
    "known hosts of nobody": (
        GOOD + AGENT[: AGENT.index("host_key")] + "known_hosts: FOLDER/open}]\n",
        10,
        "there is no host's key in it",
    ),
    "password in a command": (
        GOOD.replace('PORT"}\n', 'PORT", power: {off: [/bin/p, --password, hunter2], status: [/bin/p]}}\n', 1),
        6,
        "producers[0].power.off: has a password among its words",
    ),
    "relay managed by nobody": (
        GOOD + 'relays: [{name: relay-1, address: "127.93.0.1:PORT", managed: true}]\n',
        10,
        "relays[0].managed: true: has no agent",
    ),
    "proxy with a gate's name": (GOOD.replace("proxy-1", "power"), 9, "is the name of a kind of gate on a producer's"),
    "no gate and not said": (GATELESS.replace("fence: {require: none}\n", ""), 1, "there is no proxy: nothing could"),
    "TTL 0": (
        GATELESS.replace("ttl: 60", "ttl: 0"),
        12,
        "records[0].ttl: 0: is 0 s, which cardano-node takes for 900 s",
    ),
    "TTL below 60": (GATELESS.replace("ttl: 60", "ttl: 30"), 12, "records[0].ttl: 30: is shorter than 60 s"),
    "address family mismatch": (
        GATELESS.replace("203.0.113.20", '"2001:db8::1"'),
        11,
        "records[0].addresses.backup: '2001:db8::1': address family mismatch: IPv6 here, and IPv4 for main",
    ),
    "name outside the zone": (
        GATELESS.replace("example.com.\n", "example.org.\n"),
        10,
        "records[0].name: 'bp.example.org.': is outside the zone 'example.com.'",
    ),
    "wildcard": (
        GATELESS.replace("bp.example.com.", "'*.example.com.'"),
        10,
        "records[0].name: '*.example.com.': is a w",
    ),
    "no address": (GATELESS.replace("203.0.113.20", "0.0.0.0"), 11, "'0.0.0.0': is nobody's address"),
    "control in a record": (
        GATELESS.replace("bp.example.com.", '"bp\\e[2J.example.com"'),
        10,
        "has control characters",
    ),
    "two providers": (
        GATELESS.replace("    verify", "    route53: {zone: Z1}\n    verify"),
        13,
        "records[0].rfc2136: has both route53 and rfc2136",
    ),
    "weak key": (GATELESS.replace("zone: ex", "algorithm: hmac-md5, zone: ex"), 13, "'hmac-md5': is too weak"),
    "missing key": (GATELESS.replace("FOLDER/key", "FOLDER/nosuch"), 13, "there is no such file"),
    "readable key": (GATELESS.replace("FOLDER/key", "FOLDER/open"), 13, "others can read the file"),
    "no key": (GATELESS.replace("FOLDER/key", "FOLDER/wrong"), 13, "the secret is not base64"),
    "inline key": (
        GATELESS.replace("zone: ex", "secret: hunter2, zone: ex"),
        13,
        "a secret is never written in this file",
    ),
    "server in the clear": (
        GATELESS.replace("rfc2136: {", "route53: {endpoint_url: 'http://h/', zone: Z1}\n    # {"),
        13,
        "would send changes over the network in the clear",
    ),
}


@dataclass
class Desk:
    """A folder with secrets, and a port on which everything of the pool would be found; it counts who comes."""

    folder: Path
    port: int
    listener: socket.socket

    def file(self, text: str) -> Path:
        path = self.folder / "failover.yaml"
        path.write_text(text.replace("FOLDER", str(self.folder)).replace("PORT", str(self.port)))
        return path

    def visited(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    for name, mode, text in (
        ("open", 0o644, "hunter2"),
        ("shut", 0o600, "hunter2"),
        ("wrong", 0o600, "hunter2!"),
        ("key", 0o600, "aHVudGVyMg=="),
    ):
        (tmp_path / name).write_text(f"{text}\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "ssh").write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
    (tmp_path / "ssh").chmod(0o600)
    # On an address that no other test knows: somebody may still dial a port of 127.0.0.1 that was free a moment ago.
    with socket.create_server(("127.93.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Desk(tmp_path, listener.getsockname()[1], listener)


def run(file: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["-c", str(file), *words], prog_name="failover")


@pytest.mark.parametrize("text", [GOOD, GATELESS])
def test_the_good_file_is_accepted_and_its_port_is_seen_to_be_visited(desk: Desk, text: str) -> None:
    file = desk.file(text)
    assert run(file, "check", "--offline").exit_code == 1  # warnings alone
    assert not desk.visited()
    run(file, "check")
    assert desk.visited()


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_file_is_status_2_for_every_command_with_its_line_and_mend_and_touches_nothing(
    desk: Desk, case: str
) -> None:
    text, line, words = CASES[case]
    file = desk.file(text)
    before = file.read_bytes()
    for command in COMMANDS:
        done = run(file, *command)
        told = done.stderr.rstrip("\n")
        assert done.exit_code == 2, (command, done.output)
        assert done.stdout == ""
        assert told.startswith(f"error: {file}:{line}: "), command
        assert words in told
        assert "Mend: " in told
        assert "\n" not in told
        assert told.isprintable()
        assert "hunter2" not in told
    assert not (desk.folder / "state").exists()
    assert not desk.visited()
    assert file.read_bytes() == before


TIMES = {
    "health": ("interval", "timeout", "max_gap"),
    "policy": ("fail_over_after", "fail_back_after"),
    "lease": ("duration", "renew", "action_timeout"),
}


@pytest.mark.parametrize("value", ["0", "0s", "0.0", "-1", "-5m", "-0.001", '"-5m"'])
@pytest.mark.parametrize(("section", "key"), [(section, key) for section, keys in TIMES.items() for key in keys])
def test_no_time_of_the_file_may_be_zero_or_negative(desk: Desk, section: str, key: str, value: str) -> None:
    done = run(desk.file(GOOD + f"{section}: {{{key}: {value}}}\n"), "check", "--offline")
    assert done.exit_code == 2
    assert re.search(rf":10: {section}\.{key}: .*(must be longer than nothing|is not a duration)\. Mend: ", done.stderr)


@pytest.mark.parametrize("value", ["0", "-5s"])
def test_a_proxys_time_may_not_be_zero_or_negative_either(desk: Desk, value: str) -> None:
    text = GOOD.replace("backend:", f"hard_stop_after: {value}, backend:")
    done = run(desk.file(text), "check", "--offline")
    assert done.exit_code == 2
    assert ":9: proxies[0].hard_stop_after: " in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_missing_or_none_is_status_2_for_every_command(tmp_path: Path, command: tuple[str, ...]) -> None:
    for path, words in ((tmp_path / "nosuch.yaml", "there is no such file"), (tmp_path, "is a directory")):
        done = run(path, *command)
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["metrics", "schedule", "store", "alerts", "dead_man", "quiet", "companions"])
def test_a_reserved_name_is_not_supported_by_this_version(desk: Desk, name: str) -> None:
    done = run(desk.file(GOOD + f"{name}: {{}}\n"), "check", "--offline")
    assert done.exit_code == 2
    assert f":10: {name}: not supported by this version. Mend: remove it" in done.stderr


@pytest.mark.parametrize("what", ["prometheus", "systemd"])
def test_another_render_is_not_supported_by_this_version(desk: Desk, what: str) -> None:
    done = run(desk.file(GOOD), "render", what)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"render {what}: not supported by this version" in done.stderr


def test_every_mistake_of_a_file_is_told_at_once_in_the_order_of_its_lines(desk: Desk) -> None:
    text = GOOD.replace("mainnet", "testnet").replace('"127.93.0.2:PORT"', '"127.93.0.2"') + "helth: {}\n"
    done = run(desk.file(text), "run")
    assert done.exit_code == 2
    assert [int(n) for n in re.findall(r"failover\.yaml:(\d+): ", done.stderr)] == [2, 7, 10]


AS_NOBODY = """
import os, sys
sys.path[:0] = sys.argv[3:]
import difflib, failover.cli.run, failover.config
from pathlib import Path
from failover.cli import main

if os.geteuid() == 0:
    failover.config.load(Path(sys.argv[1]))  # what it loads while it runs is not for everybody's eyes everywhere
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.argv[1:] = ["-c", sys.argv[1], sys.argv[2]]
main(prog_name="failover")
"""


@pytest.mark.parametrize("what", ["secret", "file"])
def test_what_the_user_may_not_read_is_named_with_a_mend(what: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        secret, file = folder / "secret", folder / "failover.yaml"
        secret.write_text("hunter2\n")
        text = STATS.replace("PASSWORD", f"password_file: {secret}")
        file.write_text(text.replace("FOLDER", made).replace("PORT", "9"))
        file.chmod(0o644)
        secret.chmod(0o600)
        unreadable = secret if what == "secret" else file
        unreadable.chmod(0o600 if os.geteuid() == 0 else 0o000)
        words = [sys.executable, "-c", AS_NOBODY, str(file), "run", *sys.path]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert re.search(rf"{re.escape(str(unreadable))}.*permission denied", done.stderr, re.IGNORECASE)
        assert "Mend: " in done.stderr
        assert "hunter2" not in done.stderr
        assert not (folder / "state").exists()
