"""An agent that speaks the protocol and misbehaves on demand; started by sshd: ``fake_agent.py FOLDER``.

FOLDER/mode says how: ``WAY`` for every verb, or ``WAY VERB`` for that one alone. FOLDER/requests has what came in, a
line each; FOLDER/pid the process that took the last one. FOLDER/gates.json is what it guards; it outlives the process.
"""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path
from typing import Any

GATE = {"certain": False, "shown": [], "lacks": [], "process": "7.1", "generation": 0, "term": 0, "findings": []}


class Host:
    """What the folder says, and what is written to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def way(self, verb: str) -> str:
        """How to misbehave at this verb; ``well`` when nothing is said."""
        try:
            words = (self.folder / "mode").read_text("utf-8").split()
        except OSError:
            return "well"
        return words[0] if words and (len(words) == 1 or words[1] == verb) else "well"

    def gates(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / "gates.json").read_text("utf-8"))
        except OSError:
            found = {"forging": {"open": True, **GATE}, "firewall": {"open": True, **GATE}}
        return found

    def keep(self, gates: dict[str, Any]) -> None:
        new = self.folder / f"gates.{os.getpid()}"
        new.write_text(json.dumps(gates), "utf-8")
        new.replace(self.folder / "gates.json")

    def note(self, line: bytes) -> None:
        (self.folder / "pid").write_text(str(os.getpid()), "utf-8")
        with (self.folder / "requests").open("ab") as file:
            file.write(line)

    def besides(self, verb: str) -> dict[str, Any]:
        """What a test wants to be said besides: FOLDER/VERB.json."""
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{verb}.json").read_text("utf-8"))
        except OSError:
            found = {}
        return found


def refused(kind: str, error: str) -> dict[str, Any]:
    return {"v": 1, "ok": False, "kind": kind, "error": error, "mend": f"mend of {kind}"}


def answer(host: Host, asked: dict[str, Any]) -> dict[str, Any]:
    """What a right agent says."""
    verb = asked["verb"]
    if verb == "status":
        said: dict[str, Any] = {
            "agent": "0.2.0",
            "boot": "boot-1",
            "pool": asked["pool"],
            "node": {
                "running": True,
                "pid": 7,
                "started": 1.5,
                "runtime": "pidfile",
                "flag": None,
                "version": "10.5.1",
            },
            "gates": host.gates(),
            "metrics": {"cardano_node_metrics_slotNum_int": 4711},
            "metrics_error": None,
            "fuse": {"after": 150.0, "left": 90.5},
            "topology": {"path": "/t.json", "text": "{}\n"} if asked.get("topology") else None,
        }
    elif verb in ("open", "close"):
        gates = host.gates()
        gate = gates[asked["gate"]]
        if (asked["generation"], asked["term"]) < (gate["generation"], gate["term"]):
            return refused("stale", f"generation {gate['generation']} was heard")
        closed = verb == "close"
        gate |= {"open": not closed, "certain": closed, "shown": ["files gone"] if closed else []}
        gate |= {"generation": asked["generation"], "term": asked["term"]}
        host.keep(gates)
        said = {"gate": gate}
    elif verb == "sessions":
        one = {"peer": "10.0.1.10:6000", "local": "10.0.2.1:41234", "inbound": False}
        said = {"running": True, "process": "7.1", "sessions": [one], "others": 2, "truncated": False}
    elif verb == "kick":
        said = {"ended": len(asked["peers"]), "nudged": asked["nudge"] != "never"}
    else:
        return refused("bad-request", f"no verb {verb}")
    return {"v": 1, "ok": True, **said, **host.besides(verb)}


def say(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def misbehave(host: Host, way: str, asked: dict[str, Any]) -> None:
    """Answer in one of many ways."""
    while way == "wait":  # as long as it is told to, and somebody is there
        if select.select([sys.stdin], [], [], 0.02)[0]:
            os._exit(0)
        way = host.way(asked["verb"])
    right = json.dumps(answer(host, asked)).encode() + b"\n" if way not in ("hang", "die") else b""
    if way == "hang":
        while sys.stdin.buffer.read(1):  # until nobody is there any more
            pass
    elif way == "die":
        say(b'{"v":1,"ok":tr')
        os._exit(3)
    elif way == "done-and-die":
        os._exit(3)
    elif way == "html":
        say(b"<!DOCTYPE html><title>\x1b[31mhello</title>\n")
    elif way == "huge":
        say(b'{"v":1,"ok":true,"x":"' + b"x" * 200_000 + b'"}\n')
    elif way == "endless":
        while True:
            say(b"x" * 65_536)
    elif way == "dribble":
        for byte in right:
            say(bytes([byte]))
            select.select([], [], [], 0.2)
    elif way == "version":
        say(right.replace(b'"v": 1', b'"v": 2'))
    elif way == "twice":
        say(right + right)
    elif way in ("stale", "busy", "unable"):
        say(json.dumps(refused(way, f"{way}: pid 12\u202e held it\x07")).encode() + b"\n")
    elif way.startswith("{"):
        say(way.encode() + b"\n")
    else:
        say(right)


def main() -> None:
    host = Host(Path(sys.argv[1]))
    while line := sys.stdin.buffer.readline(4097):
        host.note(line)
        asked = json.loads(line)
        misbehave(host, host.way(asked["verb"]), asked)


if __name__ == "__main__":
    main()
