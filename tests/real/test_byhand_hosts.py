"""The handover by hand over real sshds: what ``explain --commands`` prints for gates on hosts, pasted into a shell."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

from agent_world import agent_world

from failover.cli import byhand
from failover.model import Address, GateKind, Pool, Producer

WAIT = 60.0  # seconds; an upper bound for one shell
QUICK = ("SetEnv SHLVL=1",)  # bash then passes over what root's own .bashrc does on this machine


def paste(pool: Pool, to: str) -> subprocess.CompletedProcess[str]:
    text = "\n".join(line for line in byhand.commands(pool, to, {}) if not line.startswith("failover ping"))
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        ["bash"], input=text, text=True, capture_output=True, timeout=WAIT, check=False, env=environment
    )


async def test_pasted_lines_close_the_old_producer_and_open_the_new_with_the_numbers_heard_last(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    (tmp_path / "backup").mkdir()
    async with (
        agent_world(tmp_path / "main", settings=QUICK) as main,
        agent_world(tmp_path / "backup", settings=QUICK) as backup,
    ):
        numbers = {
            "certain": True,
            "shown": [],
            "lacks": [],
            "process": None,
            "generation": 7,
            "term": 3,
            "findings": [],
        }
        for world, state in ((main, True), (backup, False)):
            gates = {"forging": {"open": state, **numbers}}
            (world.folder / "gates.json").write_text(json.dumps(gates))
        producers = tuple(
            Producer(name, Address("127.0.0.1", 6000), agent=name, gates=(GateKind.FORGING,))
            for name in ("main", "backup")
        )
        agents = (main.sshd.agent("main"), backup.sshd.agent("backup"))
        pool = Pool("EXMPL", "preview", 2, producers, (), agents=agents)
        done = await asyncio.to_thread(paste, pool, "backup")  # noqa: TID251 - a shell, which is waited for
        assert done.returncode == 0, done.stderr
        assert (main.verbs, backup.verbs) == (["status", "close", "status"], ["status", "open", "status"])
        for world in (main, backup):
            order = world.requests[1]
            assert (order["gate"], order["generation"], order["term"]) == ("forging", 7, 3)
        said = [line for line in done.stdout.splitlines() if "open:" in line]
        assert said == [
            "now open: false certain: true",
            "forging open: false certain: true",
            "now open: true certain: false",
            "forging open: true certain: false",
        ]

        strange = (replace(agents[0], host_key=agents[1].host_key), agents[1])
        asked = len(main.requests)
        refused = await asyncio.to_thread(paste, replace(pool, agents=strange), "backup")  # noqa: TID251
        assert "Host key verification failed" in refused.stderr
        assert len(main.requests) == asked
