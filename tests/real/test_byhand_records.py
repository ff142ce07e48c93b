"""The handover by hand, pasted into a shell against real name servers: what ``explain --commands`` prints is true."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from dns_world import NAME, SERVERS, DnsServer, bind, free_address

MAIN, BACKUP, FOREIGN = "192.0.2.10", "192.0.2.20", "198.51.100.7"
WAIT = 60.0  # seconds; an upper bound for one shell
FILE = """\
pool: EXMPL
network: preview
state: {folder}/state
listen: "{listen}"
producers: [{{name: main, address: "{main}"}}, {{name: backup, address: "{backup}"}}]
records:
  - name: {name}
    addresses: {{main: {main_target}, backup: {backup_target}}}
    rfc2136: {{server: "{server}", zone: example.test., {key}}}
    {verify}
fence: {{require: none}}
"""


class Hand:
    """An operator with a file, a key and a shell."""

    def __init__(self, folder: Path, server: DnsServer, key: str = "bare file", **changes: str) -> None:
        self.server = server
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        clause = f'key "{server.key_name}" {{\n\talgorithm {server.algorithm};\n\tsecret "{server.key}";\n}};\n'
        text = clause if key.startswith("clause") else server.key
        (folder / "the key").write_text(text)
        (folder / "the key").chmod(0o600)
        self.environment["BP_KEY"] = text
        source = "key_env: BP_KEY" if key.endswith("variable") else f'key_file: "{folder}/the key"'
        fields = {
            "folder": str(folder),
            "name": NAME,
            "listen": str(free_address()),
            "main": str(free_address()),
            "backup": str(free_address()),
            "main_target": MAIN,
            "backup_target": BACKUP,
            "server": str(server.address),
            "key": source if key.startswith("clause") else f"key_name: {server.key_name}, {source}",
            "verify": f'verify: {{servers: ["{server.address}"]}}',
        }
        self.file = folder / "failover.yaml"
        self.file.write_text(FILE.format(**{**fields, **changes}))

    def commands(self) -> str:
        done = self._run([sys.executable, "-m", "failover", "-c", str(self.file), "explain", "--commands"])
        assert done.returncode == 0, done.stderr
        assert self.server.key not in done.stdout
        return done.stdout

    def paste(self, before: str = "") -> subprocess.CompletedProcess[str]:
        return self._run(["bash"], before + self.commands())

    def _run(self, words: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, input=text, text=True, capture_output=True, timeout=WAIT, env=self.environment, check=False
        )


@pytest.mark.parametrize("kind", SERVERS)
def test_the_commands_move_the_record_and_show_that_it_moved(tmp_path: Path, kind: str) -> None:
    with SERVERS[kind](tmp_path) as server:
        done = Hand(tmp_path, server).paste()
        assert server.holds(NAME, "A") == ((BACKUP,), 60), done.stderr
        assert done.stdout.index(MAIN) < done.stdout.rindex(BACKUP)
        assert "refused" in done.stdout  # main's node is seen gone


@pytest.mark.parametrize("key", ["clause file", "bare variable", "clause variable"])
def test_a_key_in_each_form_signs(tmp_path: Path, key: str) -> None:
    with bind(tmp_path) as server:
        done = Hand(tmp_path, server, key).paste()
        assert server.holds(NAME, "A") == ((BACKUP,), 60), done.stderr


@pytest.mark.parametrize("held", [[FOREIGN], [MAIN, FOREIGN], []])
def test_where_another_value_stands_nothing_is_changed(tmp_path: Path, held: list[str]) -> None:
    with bind(tmp_path) as server:
        server.delete(NAME, "A")
        if held:
            server.set(NAME, "A", *held)
        done = Hand(tmp_path, server).paste()
        assert server.holds(NAME, "A")[0] == tuple(sorted(held))
        assert "NXRRSET" in done.stderr


@pytest.mark.parametrize("kind", SERVERS)
def test_an_address_gives_way_to_a_name_unless_something_else_stands_beside_it(tmp_path: Path, kind: str) -> None:
    with SERVERS[kind](tmp_path) as server:
        hand = Hand(tmp_path, server, backup_target="bp2.example.net.")
        server.set(NAME, "TXT", '"somebody else"')
        done = hand.paste()
        assert server.holds(NAME, "A") == ((MAIN,), 60)
        assert "YXRRSET" in done.stderr
        server.delete(NAME, "TXT")
        done = hand.paste()
        assert server.holds(NAME, "CNAME") == (("bp2.example.net.",), 60), done.stderr


def test_where_no_server_is_named_all_of_the_zone_s_are_asked(tmp_path: Path) -> None:
    """Names are looked up at the one server that there is, for nothing here may ask the machine's own resolver."""
    with bind(tmp_path) as server:
        at = f"@{server.address.host} -p {server.address.port}"
        words = 'local w=(); for a in "$@"; do [[ $a == @* ]] || w+=("$a"); done'
        only = f'dig() {{ {words}; command dig {at} "${{w[@]}}"; }}'
        done = Hand(tmp_path, server, verify="").paste(only + "\n")
        asked = done.stdout.rindex("ns1.example.test.\n")
        assert BACKUP in done.stdout[asked:]
        assert " aa" in done.stdout[asked:]


def test_of_a_route_53_zone_the_name_is_found_at_its_servers(tmp_path: Path) -> None:
    with bind(tmp_path) as server:
        hand = Hand(tmp_path, server)
        text = hand.file.read_text()
        start, end = text.index("    rfc2136"), text.index("fence:")
        hand.file.write_text(f"{text[:start]}    route53: {{zone: Z0123456789ABC}}\n{text[end:]}")
        (line,) = (line for line in hand.commands().splitlines() if line.startswith("for server in"))
        at = shlex.quote(f"@{server.address.host}")
        only = f'dig() {{ command dig {at} -p {server.address.port} "${{@/@*/+norecurse}}"; }}\n'
        done = subprocess.run(["bash"], input=only + line, text=True, capture_output=True, timeout=WAIT, check=False)
        assert done.stdout.startswith("ns1.example.test.\n")
        assert MAIN in done.stdout
