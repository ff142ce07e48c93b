"""``failover ping`` as a person and as a script sees it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from failover.cli.ping import command
from failover.model import Tip
from failover.ouroboros.server import Server

MAGIC = 764824073
TIP = Tip(17, "ab" * 32, 7)
RUN = [sys.executable, "-c", "from failover.cli.ping import command; command()"]
CNCLI_OK = [
    "status",
    "host",
    "port",
    "networkProtocolVersion",
    "dnsDurationMs",
    "connectDurationMs",
    "handshakeDurationMs",
    "durationMs",
]


class Answering(asyncio.Protocol):
    """A node of the main network."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server = Server(MAGIC)

    def data_received(self, data: bytes) -> None:
        for event in self.server.receive(data):
            self.transport.write(self.server.answer(event, TIP, 0))


class Silent(asyncio.Protocol):
    """Something that accepts connections and says nothing."""


@contextmanager
def listening(kind: type[asyncio.Protocol], host: str = "127.0.0.1") -> Iterator[int]:
    """A server in a loop and a thread of its own; its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncio.Server:
        return await loop.create_server(kind, host, 0)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:

        async def stop() -> None:
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def node() -> Iterator[int]:
    with listening(Answering) as port:
        yield port


@pytest.fixture
def dead(node: int) -> Iterator[int]:
    """A port on which nothing listens."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def run(*args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args])


def said(result: Result) -> Any:
    return json.loads(result.stdout)


def test_one_target_prints_one_object_with_cnclis_keys_first(node: int) -> None:
    result = run(f"127.0.0.1:{node}", "-t", 20)
    assert result.exit_code == 0
    shown = said(result)
    assert list(shown) == [*CNCLI_OK, "address", "keepAliveMs", "tip"]
    assert (shown["status"], shown["host"], shown["port"]) == ("ok", "127.0.0.1", node)
    assert shown["networkProtocolVersion"] == 15
    assert shown["tip"] == {"slot": 17, "hash": "ab" * 32, "blockNo": 7}
    assert all(type(shown[key]) is int for key in CNCLI_OK if key.endswith("Ms"))
    assert shown["address"] == f"127.0.0.1:{node}"


def test_a_failure_prints_what_and_at_which_stage_and_exits_1(dead: int) -> None:
    result = run(f"127.0.0.1:{dead}", "-t", 20)
    assert result.exit_code == 1
    shown = said(result)
    assert list(shown) == ["status", "host", "port", "errorMessage", "stage", "durationMs"]
    assert (shown["status"], shown["stage"]) == ("error", "connect")
    assert "connection refused; nothing listens there" in shown["errorMessage"]


def test_cnclis_flags_and_keys_exactly(node: int, dead: int) -> None:
    result = run("--host", "127.0.0.1", "--port", node, "--network-magic", MAGIC, "--timeout-seconds", 20, "--cncli")
    assert result.exit_code == 0
    assert list(said(result)) == CNCLI_OK
    result = run("-h", "127.0.0.1", "-p", dead, "-t", 20, "--cncli")
    assert result.exit_code == 0
    assert list(said(result)) == ["status", "host", "port", "errorMessage"]


def test_cnclis_flags_without_the_switch_fail_with_status_1(node: int) -> None:
    result = run("-h", "127.0.0.1", "-p", node, "--network-magic", 1, "-t", 20)
    assert result.exit_code == 1
    assert "version data mismatch" in said(result)["errorMessage"]


def test_several_targets_print_a_list_in_their_order(node: int, dead: int) -> None:
    result = run(f"127.0.0.1:{dead}", f"127.0.0.1:{node}", "-h", f"localhost:{node}", "-t", 20)
    assert result.exit_code == 1
    shown = said(result)
    assert [(entry["host"], entry["status"]) for entry in shown] == [
        ("localhost", "ok"),
        ("127.0.0.1", "error"),
        ("127.0.0.1", "ok"),
    ]


def test_many_targets_are_pinged_side_by_side(node: int) -> None:
    result = run(*[f"127.0.0.1:{node}"] * 200, "-t", 20)
    assert result.exit_code == 0
    assert len(said(result)) == 200


def test_rounds_print_one_document_a_line(node: int) -> None:
    result = run(f"127.0.0.1:{node}", "--count", 3, "--interval", "10ms", "-t", 20)
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["ok"] * 3


def test_ipv6_in_brackets_or_bare() -> None:
    with listening(Answering, "::1") as port:
        for target in ([f"[::1]:{port}"], ["::1", "-p", port], ["[::1]", "-p", port], ["-h", "::1", "-p", port]):
            result = run(*target, "-t", 20)
            assert result.exit_code == 0, result.output
            assert (said(result)["host"], said(result)["address"]) == ("::1", f"[::1]:{port}")


def test_one_deadline_covers_a_silent_peer() -> None:
    with listening(Silent) as port:
        result = run(f"127.0.0.1:{port}", "-t", "300ms")
    assert result.exit_code == 1
    assert said(result)["stage"] == "handshake"


def test_networks_have_names(node: int) -> None:
    assert run(f"127.0.0.1:{node}", "--network", "mainnet", "-t", 20).exit_code == 0
    assert run(f"127.0.0.1:{node}", "--network", "preprod", "-t", 20).exit_code == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "no host to ping: write failover ping HOST[:PORT]"),
        (["x:0"], "'x:0': the port '0' is not a number from 1 to 65535"),
        (["x:70000"], "the port '70000' is not a number"),
        (["x:abc"], "the port 'abc' is not a number"),
        (["x:"], "the port '' is not a number"),
        (["x:٣"], "the port '٣' is not a number"),
        ([":3001"], "names no host"),
        (["[::1"], "brackets"),
        (["[]:1"], "brackets"),
        (["[::1]x"], "brackets"),
        (["[name]:1"], "brackets"),
        (["a:b:c"], "names no host"),
        ([""], "empty, or with blanks or control characters"),
        (["a b"], "control characters"),
        (["a\x1b[31m"], r"'a\x1b[31m': empty, or with blanks or control characters"),
        (["a\nb:1"], "control characters"),
        (["x" * 300], "names no host"),
        (["-h", "", "-p", "1"], "empty"),
        (["-p", "0", "x"], "0 is not in the range 1<=x<=65535"),
        (["-p", "70000", "x"], "70000 is not in the range"),
        (["-p", "abc", "x"], "'abc' is not a valid integer"),
        (["-t", "-1", "x"], "'-1' is not a number of seconds above 0"),
        (["-t", "0", "x"], "above 0 and at most 3600"),
        (["-t", "nan", "x"], "'nan' is not a number of seconds"),
        (["-t", "inf", "x"], "'inf' is not a number of seconds"),
        (["-t", "1e9", "x"], "'1e9' is not a number of seconds"),
        (["-t", "", "x"], "is not a number of seconds"),
        (["--interval", "0", "x"], "--interval"),
        (["--count", "0", "x"], "0 is not in the range"),
        (["--network", "mainet", "x"], "'mainet' is not one of 'mainnet', 'preprod'"),
        (["--network", "preprod", "--network-magic", "2", "x"], "give one of them"),
        (["--network-magic", "-1", "x"], "is not in the range"),
        (["--network-magic", "4294967296", "x"], "is not in the range"),
    ],
)
def test_bad_input_is_a_usage_error_that_names_the_value(args: list[str], words: str) -> None:
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr
    assert "\x1b" not in result.stderr


def test_help_is_only_the_long_flag() -> None:
    assert run("--help").exit_code == 0
    assert run("-h").exit_code == 2


def test_a_terminal_gets_lines_and_a_pipe_gets_json(node: int, dead: int) -> None:
    def on_a_terminal(*args: str, **environ: str) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen([*RUN, *args], stdout=theirs, env={**os.environ, **environ})
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:
            pass  # Linux ends a terminal whose last writer has gone with EIO
        finally:
            os.close(ours)
            process.wait(20)
        return shown.decode()

    lines = on_a_terminal(f"127.0.0.1:{node}", f"127.0.0.1:{dead}", "-t", "20").splitlines()
    assert "\x1b[32mok\x1b[0m" in lines[0]
    assert "version 15  tip slot 17, block 7, abababababababab…" in lines[0]
    assert "connection refused" in lines[1]
    assert "\x1b" not in on_a_terminal(f"127.0.0.1:{node}", "-t", "20", NO_COLOR="1")
    assert json.loads(on_a_terminal(f"127.0.0.1:{node}", "-t", "20", "--json"))["status"] == "ok"
    piped = subprocess.run([*RUN, f"127.0.0.1:{node}", "-t", "20"], stdout=subprocess.PIPE, timeout=60, check=True)
    assert json.loads(piped.stdout)["status"] == "ok"


def test_an_interrupt_ends_quietly_with_130(node: int) -> None:
    process = subprocess.Popen(
        [*RUN, f"127.0.0.1:{node}", "--count", "1000", "--interval", "60", "-t", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert json.loads(first)["status"] == "ok"
    assert process.returncode == 130
    assert errors == b""


def test_little_is_imported(node: int) -> None:
    script = (
        "import sys; from failover.cli.ping import command\n"
        "before = set(sys.modules)\n"
        "try: command(['127.0.0.1:%d', '-t', '20'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'pydantic', 'requests', 'rich', 'starlette', 'ruamel', 'uvicorn', 'prometheus_client'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not {'asyncio', 'cbor2'} & before, 'a usage error or --help needs neither'\n"
    )
    subprocess.run([sys.executable, "-c", script % node], stdout=subprocess.DEVNULL, timeout=60, check=True)
