"""``failover render haproxy``: what is printed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from failover.cli.render import command
from failover.errors import ConfigError
from failover.gates import haproxy_config
from failover.model import Address, Pool, Producer, Proxy

FILE = """
pool: EXMPL
network: preprod
state: {state}
producers:
  - {{name: main, address: "127.0.0.1:6000"}}
  - {{name: backup, address: "127.0.0.2:6000"}}
proxies:
  - {{name: proxy-1, socket: /run/haproxy/admin.sock, backend: producers, watch: watch, hard_stop_after: 5s}}
  - name: proxy-2
    stats: http://127.0.0.1:8404/stats
    username: failover
    password_file: {password}
    backend: producers
    servers: {{main: bp1, backup: bp2}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    password = tmp_path / "password"
    password.write_text("do-not-print-me\n")
    password.chmod(0o600)
    path = tmp_path / "failover.yaml"
    path.write_text(FILE.format(state=json.dumps(str(tmp_path)), password=json.dumps(str(password))))
    return path


def render(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), obj={"config": str(file)})


def test_a_proxy_is_rendered_from_the_pools_file(file: Path) -> None:
    result = render(file, "haproxy", "--proxy", "proxy-1")
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "stats socket /run/haproxy/admin.sock mode 660 group haproxy level admin" in text
    assert "server main 127.0.0.1:6000 track watch/main\n" in text
    assert "server backup 127.0.0.2:6000 track watch/backup disabled\n" in text
    assert "hard-stop-after 5s" in text
    assert "bind *:6000" in text
    assert "stats enable" not in text
    assert "send-binary 000000000000000f8200a20e8401f500f40f8401f500f4 " in text


def test_the_password_is_not_printed_and_haproxy_does_not_start_without_it(file: Path) -> None:
    text = render(file, "haproxy", "--proxy", "proxy-2", "--listen", "127.0.0.5:7000").stdout
    assert "do-not-print-me" not in text
    assert 'stats auth "failover:${FAILOVER_STATS_PASSWORD}"' in text
    assert ".alert" in text
    assert "bind 127.0.0.5:7000" in text
    assert "server bp2 127.0.0.2:6000 track watch/bp2 disabled" in text


def test_the_units_dump_the_proxys_own_socket(file: Path) -> None:
    text = render(file, "haproxy", "--proxy", "proxy-1", "--unit").stdout
    assert "# /etc/systemd/system/haproxy-state.service" in text
    assert "# /etc/systemd/system/haproxy-state.timer" in text
    assert "UNIX-CONNECT:/run/haproxy/admin.sock > /var/lib/haproxy/server-state.new" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["haproxy"], "--proxy is needed: the file has proxy-1, proxy-2"),
        (["haproxy", "--proxy", "nosuch"], "no proxy 'nosuch' in the file; it has proxy-1, proxy-2"),
        (["haproxy", "--proxy", "proxy-1", "--listen", "a b"], "'a b' is no address"),
        (["haproxy", "--proxy", "proxy-1", "--listen", ""], "'' is no address"),
        (["prometheus"], "render prometheus: not supported by this version"),
        (["systemd"], "render systemd: not supported by this version"),
        (["nosuch"], "nosuch"),
    ],
)
def test_what_cannot_be_rendered_is_a_usage_error(file: Path, arguments: list[str], words: str) -> None:
    result = render(file, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_help_needs_no_file() -> None:
    assert CliRunner().invoke(command, ["haproxy", "--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("magic", "proposal"),
    [
        (764824073, "00000000000000178200a20e841a2d964a09f500f40f841a2d964a09f500f4"),
        (1, "000000000000000f8200a20e8401f500f40f8401f500f4"),
        (2, "000000000000000f8200a20e8402f500f40f8402f500f4"),
        (42, "00000000000000118200a20e84182af500f40f84182af500f4"),
    ],
)
def test_the_check_proposes_the_network_of_the_pool(magic: int, proposal: str) -> None:
    assert haproxy_config.proposal(magic) == proposal


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"watch": "producers"}, "is also its backend"),
        ({"stats": "http://127.0.0.1:1/stats", "socket": None, "username": 'a"b'}, "cannot stand in HAProxy"),
    ],
)
def test_what_haproxy_cannot_be_told_is_refused(change: dict[str, object], words: str) -> None:
    fields: dict[str, object] = {"socket": Path("/x"), "servers": {"main": "main"}, **change}
    pool = Pool("P", "lab", 42, (Producer("main", Address("127.0.0.1", 1)),), ())
    with pytest.raises(ConfigError, match=words):
        haproxy_config.configuration(
            pool,
            Proxy("proxy-1", "producers", **fields),  # type: ignore[arg-type]
            haproxy_config.Place(listen="*:1"),
        )
