"""How a story is played: its pool is built, its scenes are played one after the other, and everything is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from failover.errors import FailoverError
from failover.host import RealHost
from failover.lab import scenes_names, scenes_proxies
from failover.lab.acts import Play, Story
from failover.lab.name_witness import NameWitness
from failover.lab.pool import RECORD, LabPool
from failover.lab.story import SYSTEM, Audience, Broken, Daemon, Scene, Stage, shortened, with_lease
from failover.lab.verdict import Verdict
from failover.lab.witness import Witness

STORIES: tuple[Story, ...] = (scenes_proxies.STORY, scenes_names.STORY)

Document = dict[str, Any]


class Playing:
    """One playing of a story in ``folder``. ``stage`` is there once the pool runs."""

    def __init__(self, story: Story, folder: Path, scale: float, audience: Audience) -> None:
        self.story = story
        self.folder = folder
        self.scale = scale
        self.stage: Stage | None = None
        self.scenes: list[Scene] = []
        self._audience = audience
        self._host = RealHost()

    async def play(self) -> Document:
        """Build the pool, play, end everything; what was found. Raises LabError when the pool does not come up."""
        began = self._host.now().mono
        lab = LabPool(self.folder, self.story.plan(self.scale))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(lab)
            with_lease(lab.file)
            hosts = {producer: lab.addresses[producer].host for producer in lab.plan.producers}
            witness, names = Witness(lab.proxies, lab.plan.producers), NameWitness(RECORD, lab.servers, hosts)
            looking = [asyncio.create_task(one.run()) for one in (witness, names)]
            for task in looking:
                stack.callback(task.cancel)
            daemon = Daemon(lab.file, self.folder / "controller.log", lab.environment)
            stack.push_async_callback(daemon.stop)
            stage = self.stage = Stage(lab, witness, names, daemon, self._audience)
            stage.say(f"The pool runs after {self._host.now().mono - began:.1f} s: {self.story.cast}.")
            for number, (title, act) in enumerate(self.story.scenes, 1):
                if not await self._scene(stage, Scene(number, title), act):
                    break
            await stage.wait(2 * lab.times.interval)  # what the relays have yet to write down
            for task in looking:
                if task.done():
                    task.result()  # a witness that fell asleep has seen nothing
            verdict = self.story.judge(stage)
        return self._document(verdict, self._host.now().mono - began)

    async def _scene(self, stage: Stage, scene: Scene, act: Play) -> bool:
        """Play one; whether the story can go on."""
        stage.scene = scene
        self.scenes.append(scene)
        self._audience.scene(scene)
        began = stage.now()
        try:
            await act(stage)
        except Broken:
            return False
        except (FailoverError, OSError) as error:
            stage.claim(False, "everything in the lab does as it is told", SYSTEM, str(error))
            return False
        finally:
            scene.took = stage.now() - began
        return True

    def _document(self, verdict: Verdict, seconds: float) -> Document:
        unplayed = [title for title, _ in self.story.scenes[len(self.scenes) :]]
        return {
            "name": self.story.name,
            "title": self.story.title,
            "ok": all(scene.ok for scene in self.scenes) and not unplayed and not verdict.false,
            "seconds": round(seconds, 1),
            "scenes": [_scene_document(scene) for scene in self.scenes],
            "not_played": unplayed,
            "false": list(verdict.false),
            "conclusion": list(verdict.sentences),
            **verdict.numbers,
            "folder": str(self.folder),
        }


def _scene_document(scene: Scene) -> Mapping[str, Any]:
    return {
        "number": scene.number,
        "title": scene.title,
        "ok": scene.ok,
        "result": scene.result,
        "seconds": round(scene.took, 1),
        "measured": scene.seconds,
        "claims": [{"ok": c.ok, "text": c.text, "where": c.where, "measured": c.measured} for c in scene.claims],
    }


def together(stories: Sequence[Document], scale: float) -> Document:
    """One document of the stories that were played."""
    return {
        "ok": bool(stories) and all(story["ok"] for story in stories),
        "seconds": round(sum(story["seconds"] for story in stories), 1),
        "scale": scale,
        "times": {name: {"life": life, "here": here} for name, life, here in shortened(scale)},
        "stories": list(stories),
    }
