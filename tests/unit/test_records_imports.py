"""What heavy libraries of DNS records cost, only those pay who have such a record: looked at in fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from failover.cli import COMMANDS

LONGEST = 60.0  # seconds, an upper bound for what takes a few
HEAVY = ("boto3", "botocore", "s3transfer", "urllib3", "dns")
PROGRAM = f"""
import sys
from failover.cli import main
try:
    main(prog_name="failover")
except SystemExit as end:
    status = end.code
print("status", status, *(name for name in {HEAVY!r} if name in sys.modules))
"""
POOL = """
pool: EXMPL
network: preview
state: {folder}/state
listen: 127.0.0.1:1
producers:
  - {{name: main, address: "127.0.0.1:1"}}
  - {{name: backup, address: "127.0.0.2:1"}}
"""
PROXY = "proxies: [{{name: proxy-1, socket: {folder}/nobody.sock, backend: producers}}]\n"
RECORD = """
fence: {{require: none}}
records:
  - name: bp.example.test.
    addresses: {{main: 127.0.0.1, backup: 127.0.0.2}}
    verify: {{servers: ["127.0.0.1:1"]}}
    PROVIDER
"""
FILES = {
    "no record": POOL + PROXY,
    "rfc2136": POOL
    + RECORD.replace(
        "PROVIDER", 'rfc2136: {{server: "127.0.0.1:1", zone: example.test., key_name: k., key_file: {folder}/key}}'
    ),
    "route53": POOL + RECORD.replace("PROVIDER", 'route53: {{zone: Z0LAB, endpoint_url: "http://127.0.0.1:1"}}'),
}
KEY = 'key "k." { algorithm hmac-sha256; secret "c2VjcmV0IG9mIG5vYm9keSwgZm9yIGEgdGVzdA=="; };\n'
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "lab",
    "AWS_SECRET_ACCESS_KEY": "lab",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


def loaded(*words: str) -> tuple[int, set[str]]:
    """The exit status of a command, and which of the heavy libraries it has loaded at its end."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FAILOVER_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        env={**foreign, **CREDENTIALS, "NO_PROXY": "127.0.0.1"},
        check=True,
    )
    _, status, *found = done.stdout.splitlines()[-1].split()
    return int(status), set(found)


def file(folder: Path, kind: str) -> str:
    """The configuration of a pool with such a record, nothing of which listens."""
    key, path = folder / "key", folder / "failover.yaml"
    key.touch(0o600)
    key.write_text(KEY)
    path.write_text(FILES[kind].format(folder=folder))
    return str(path)


def test_help_of_no_command_loads_any() -> None:
    assert loaded("--help") == (0, set())
    names = "; ".join(f"main([{name!r}, '--help'], standalone_mode=False)" for name in COMMANDS)
    code = f"import sys; from failover.cli import main; {names}; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONGEST, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("kind", "libraries"),
    [("no record", set()), ("rfc2136", {"dns"}), ("route53", {"dns", "boto3", "botocore", "urllib3"})],
)
def test_the_daemon_loads_what_its_records_need_and_no_more(tmp_path: Path, kind: str, libraries: set[str]) -> None:
    status, found = loaded("-c", file(tmp_path, kind), "run", "--once", "--dry-run")
    assert status == 1, "nothing listens, so the pool is not steady"
    assert found - {"s3transfer"} == libraries


@pytest.mark.parametrize("command", ["status", "history", "explain", "pause", "schema", "version"])
def test_a_command_that_asks_no_provider_loads_none_though_the_file_has_a_record(tmp_path: Path, command: str) -> None:
    assert loaded("-c", file(tmp_path, "route53"), command)[1] == set()


def test_an_offline_check_loads_no_boto3(tmp_path: Path) -> None:
    assert "boto3" not in loaded("-c", file(tmp_path, "route53"), "check", "--offline")[1]
