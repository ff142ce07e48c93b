"""A night of the whole core on virtual time, and the hash of its trace: ``core_program.py SEED FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from core_world import Core

from failover.model import Admin, Verb


async def night(core: Core) -> None:
    """Main dies and returns, somebody opens a server, an operator switches, the controller is killed and restarted."""
    core.start(name="one")
    await core.until(lambda: core.steady("main"))
    core.truth.nodes["main"].up = False
    await core.until(lambda: core.steady("backup"))
    core.truth.nodes["main"].up = True
    core.truth.move("p2", "main", Admin.READY, by_hand=True)
    await core.host.sleep(100)
    await core.kill()
    core.start(name="two")
    await core.until(lambda: core.controller.report().held)
    await core.ask(Verb.SWITCHOVER, "main")
    await core.until(lambda: core.steady("main"))
    await core.leave()


def main() -> None:
    """Print the hash."""
    core = Core(Path(sys.argv[2]), seed=int(sys.argv[1]))
    core.loop.run(night(core))
    print(core.loop.trace_hash())


if __name__ == "__main__":
    main()
