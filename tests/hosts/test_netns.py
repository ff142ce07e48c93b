"""The network that tests build their hosts on: what a cut cuts, what a reboot takes, and that nothing is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from netns import Hosts, eventually
from tcp_world import Dialled, attempt, listen

PORT = 6000


def test_a_cut_is_silence_for_both_and_is_healed_with_what_was_connected() -> None:
    with Hosts() as hosts:
        a, b, c = (hosts.add(name, f"10.77.{number}.1") for number, name in enumerate("abc"))
        for host in (a, b, c):
            listen(host, PORT)
        session = Dialled(a, b.address, PORT)
        hosts.cut("a", "b")
        assert attempt(a, b.address, PORT) == "silent"
        assert attempt(b, a.address6, PORT) == "silent"
        assert attempt(a, c.address, PORT) == "ok"
        assert attempt(c, b.address6, PORT) == "ok"
        hosts.heal("b", "a")
        assert attempt(a, b.address, PORT) == "ok"
        assert session.works
        hosts.isolate("c")
        assert attempt(c, a.address, PORT) == "silent"
        assert attempt(a, b.address, PORT) == "ok"
        hosts.heal()
        assert attempt(c, a.address, PORT) == "ok"


def test_a_cut_of_one_way_leaves_the_other() -> None:
    with Hosts() as hosts:
        a, b = hosts.add("a", "10.77.0.1"), hosts.add("b", "10.77.0.2")
        heard = b.popen(["timeout", "20", "cat"], stdin=subprocess.PIPE)
        assert heard.poll() is None
        hosts.cut_one_way("a", "b")
        code = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'!', ('{}', 9))"
        for sender, receiver, passes in ((a, b, False), (b, a, True)):
            script = code.format(receiver.address)
            before = _received(receiver.namespace)
            sender.run(["python3", "-S", "-c", script])
            if passes:
                eventually(lambda at=receiver, was=before: _received(at.namespace) > was, "it arrives")  # type: ignore[misc]
            else:
                assert _received(receiver.namespace) == before


def _received(namespace: str) -> int:
    """UDP datagrams that reached a host, to whatever port."""
    shown = subprocess.run(
        ["nsenter", f"--net=/run/netns/{namespace}", "cat", "/proc/net/snmp"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (_, values) = (line.split()[1:] for line in shown.splitlines() if line.startswith("Udp:"))
    return int(values[0]) + int(values[1])


def test_a_reboot_takes_programs_and_rules_and_keeps_addresses() -> None:
    with Hosts() as hosts:
        a, b = hosts.add("a", "10.77.0.1"), hosts.add("b", "10.77.0.2")
        listen(a, PORT)
        listen(b, PORT)
        a.run(["nft", "add table inet x"])
        a.run(["sh", "-c", "sleep 100 >/dev/null 2>&1 &"])
        a.reboot()
        assert a.pids() == []
        assert a.run(["nft", "list", "ruleset"]).stdout == ""
        assert attempt(b, a.address, PORT) == "refused"
        assert attempt(a, b.address, PORT) == "ok"


def test_nothing_is_left_also_after_a_failure() -> None:
    def fail() -> None:
        with Hosts() as hosts:
            names.extend([hosts.switch, hosts.add("a", "10.77.0.1").namespace])
            running.append(hosts["a"].popen(["sleep", "100"]))
            raise LookupError

    names: list[str] = []
    running: list[subprocess.Popen[str]] = []
    with pytest.raises(LookupError):
        fail()
    assert running[0].returncode is not None
    assert not any(Path("/run/netns", name).exists() for name in names)


def test_a_command_that_fails_says_which_host_and_what_it_said() -> None:
    with Hosts() as hosts:
        host = hosts.add("a", "10.77.0.1")
        with pytest.raises(AssertionError, match=r"a: ls /nowhere ended with 2: .*No such file"):
            host.run(["ls", "/nowhere"])
        assert host.run(["id", "-u"], user=4711).stdout == "4711\n"
