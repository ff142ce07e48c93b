"""The demo's scenes in their order, and how they are played: each does something, then checks it from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from failover.controller import READS_PER_PING
from failover.errors import FailoverError
from failover.host import RealHost
from failover.lab.pool import LabPool
from failover.lab.sessions import TOLERANCE
from failover.lab.story import (
    ACTION_TIMEOUT,
    ANSWERED,
    HAPROXY,
    PINGED,
    RELAYS,
    SAMPLE_EVERY,
    SLACK,
    SYSTEM,
    Answer,
    Audience,
    Broken,
    Daemon,
    Sample,
    Scene,
    Stage,
    Verdict,
    Window,
    Witness,
    judge,
    plan,
    shortened,
    spans,
    with_lease,
)
from failover.model import Request, Verb
from failover.store.sqlite import SqliteStore

MAIN, BACKUP, SECOND = "main", "backup", "proxy-2"
CALM = 2.0  # seconds in which nothing may move
HANDOVER = 4 * ACTION_TIMEOUT  # seconds; a fence, an opening, and the relays' redial
LAG = 100  # slots; the file allows 60

Play = Callable[[Stage], Awaitable[None]]


async def steady(stage: Stage) -> None:
    """The controller starts, and adopts what it finds."""
    began = stage.now()
    pid = stage.daemon.start()
    stage.say(f"The controller starts as a process of its own (pid {pid}). Nobody tells it who is active.")
    said = await _steady_status(stage)
    stage.took("adopted", stage.now() - began)
    stage.need(said.status == 0, "it finds out by itself, and `failover status` exits 0", ANSWERED, said.first)
    there = await stage.until(lambda: stage.all_with(MAIN), HANDOVER)
    stage.need(there, "every relay has its sessions with main, through both proxies", RELAYS, _reached(stage))
    stage.claim(stage.admits_only(MAIN), "both proxies let in main alone", HAPROXY, _admitted(stage))
    well = [producer for producer in stage.lab.plan.producers if await stage.slot_of(producer) is not None]
    stage.claim(well == [MAIN, BACKUP], "backup is well, too: it is shut out, not dead", PINGED, " and ".join(well))
    await _calm(stage, CALM)
    stage.scene.result = "main is active, nothing moves"


async def _steady_status(stage: Stage) -> Answer:
    """What ``failover status`` says once the pool is steady, or at last."""
    said = Answer(-1, "")
    for _ in range(30):
        said = await stage.daemon.ask("status")
        if said.status == 0:
            break
        await stage.wait(0.5)
    return said


async def hang(stage: Stage) -> None:
    """main's process is stopped; backup takes over after its patience."""
    patience = stage.times.fail_over_after
    began = stage.now()
    stage.stop(MAIN)
    stage.say(f"main hangs: its process is stopped (SIGSTOP). backup may take over after {patience:g} s, not sooner.")
    connects, answers = await stage.connects(MAIN), await stage.slot_of(MAIN) is not None
    stage.claim(connects and not answers, "main still takes TCP connections, and answers nothing", PINGED)
    moved = await stage.until(lambda: stage.all_with(BACKUP), patience + HANDOVER)
    stage.need(moved, "every relay has its sessions with backup, through both proxies", RELAYS, _reached(stage))
    opened = _since(began, stage.witness.first(BACKUP, began))
    served = _since(began, stage.first_session(BACKUP, began))
    stage.took("opened", opened)
    stage.took("served", served)
    early = patience - stage.times.interval  # on a busy machine the ping before may have failed already
    stage.claim(opened >= early, f"not before its patience of {patience:g} s", HAPROXY, f"let in after {opened:.2f} s")
    stage.claim(stage.admits_only(BACKUP), "main is shut out in both, though it hangs", HAPROXY, _admitted(stage))
    stage.scene.result = f"backup serves {served:.1f} s after the hang (patience {patience:g} s)"


async def failback(stage: Stage) -> None:
    """main goes on; the role returns after main has been well for long enough."""
    wait = stage.times.fail_back_after
    began = stage.now()
    stage.go_on(MAIN)
    stage.say(f"main goes on (SIGCONT). It must stay well for {wait:g} s before it gets the role back.")
    back = await stage.until(lambda: stage.all_with(MAIN), wait + HANDOVER)
    stage.need(back, "every relay is back with main", RELAYS, _reached(stage))
    opened = stage.took("opened", _since(began, stage.witness.first(MAIN, began)))
    gap = stage.took("gap", stage.gap(BACKUP, MAIN, began))
    stage.claim(opened >= wait, f"not before its wait of {wait:g} s", HAPROXY, f"let in after {opened:.2f} s")
    stage.claim(gap > -TOLERANCE, "backup's last session ended before main's first began", RELAYS, f"{gap:.2f} s apart")
    stage.scene.result = f"back after {opened:.1f} s (wait {wait:g} s), relays without for {gap:.2f} s"


async def split(stage: Stage) -> None:
    """Somebody lets backup in by hand at one proxy: two producers are reachable until the controller repairs it."""
    observing = stage.times.interval / READS_PER_PING
    stage.say(f"Somebody lets in backup instead of main in {SECOND}, by hand and behind the controller's back.")
    backend = stage.lab.proxies[SECOND].config.backend
    hand = [
        f"set server {backend}/{BACKUP} state ready",
        f"set server {backend}/{MAIN} state maint",
        f"shutdown sessions server {backend}/{MAIN}",
        "show stat",
    ]
    began = stage.now()
    seen = await stage.witness.told(SECOND, "; ".join(hand))
    other = stage.witness.now()["proxy-1"]
    split_now = seen is not None and seen.admitted == {BACKUP} and other is not None and other.admitted == {MAIN}
    stage.need(split_now, f"split brain: {SECOND} lets in backup while proxy-1 lets in main", HAPROXY)
    shut, restored = await _repaired(stage, "the hand", began, MAIN)
    seconds = stage.took("shut", shut - began)
    stage.took("restored", restored - began)
    limit = observing + stage.times.timeout + ACTION_TIMEOUT
    stage.claim(
        seconds <= limit + SLACK, f"backup is shut out again (it looks every {observing:.2g} s)", HAPROXY, _s(seconds)
    )
    back = await stage.until(lambda: stage.all_with(MAIN), HANDOVER)
    stage.need(back, "every relay is with main again", RELAYS, _reached(stage))
    stage.scene.result = f"repaired {seconds:.2f} s after the hand (it looks every {observing:.2g} s)"


async def forgetful(stage: Stage) -> None:
    """A proxy comes back with the states of its file, which are the wrong ones while backup is active."""
    observing = stage.times.interval / READS_PER_PING
    hidden = stage.lab.proxies[SECOND].config.hard_stop_after or 0.0
    stage.say("By its file a proxy starts with main let in. To make that wrong, the role goes to backup first.")
    await _switchover(stage, BACKUP)
    stage.say(f"Now {SECOND} is restarted without its state.")
    began = stage.now()
    await stage.lab.restart_proxy(SECOND)
    shut, restored = await _repaired(stage, f"{SECOND}'s restart", began, BACKUP)
    seconds, until = stage.took("shut", shut - began), stage.took("restored", restored - began)
    limit = observing + stage.times.timeout + ACTION_TIMEOUT
    stage.claim(seconds <= limit + SLACK, "main is shut out there again, the restart included", HAPROXY, _s(seconds))
    stage.claim(
        until <= limit + hidden + SLACK,
        "backup is let in again: main was out before the restart, so no old session of it can hide",
        HAPROXY,
        _s(until),
    )
    there = await stage.until(lambda: stage.all_with(BACKUP), HANDOVER)
    stage.need(there, "every relay is with backup again", RELAYS, _reached(stage))
    stage.scene.result = f"main shut out after {seconds:.2f} s, backup back in after {until:.1f} s"


async def killed(stage: Stage) -> None:
    """The controller is killed where it hurts most: the old producer is shut out, the new one not yet let in."""
    proxy = stage.lab.proxies[SECOND]
    hidden = proxy.config.hard_stop_after or 0.0
    stage.say(
        f"{SECOND} is reloaded, then a switchover to main is asked for. For {hidden:g} s the proxy's old process may "
        "keep sessions where nobody sees them, and fencing has to wait for it. In this wait kill -9 comes."
    )
    await proxy.process.dump()
    await proxy.process.reload()
    asked = stage.now()
    _ask_for_switchover(stage, MAIN)
    shut = await stage.until(lambda: stage.witness.nobody(asked), HANDOVER)
    began = stage.now()
    await stage.daemon.kill()
    stage.need(shut, "killed with -9 when backup was out and main not yet in", HAPROXY, _admitted(stage))
    await stage.wait(4 * SAMPLE_EVERY)
    still = stage.witness.nobody(began)
    stage.claim(still and stage.daemon.pid is None, "it is dead, and nobody is let in", HAPROXY, _admitted(stage))
    stage.say("It is started again.")
    stage.daemon.start()
    done = await stage.until(lambda: stage.all_with(MAIN), ACTION_TIMEOUT + HANDOVER)
    stage.need(done, "the new one finishes: every relay is with main", RELAYS, _reached(stage))
    finished = stage.took("finished", _since(began, stage.witness.first(MAIN, began)))
    gap = stage.took("gap", stage.gap(BACKUP, MAIN, asked))
    stage.claim(gap > -TOLERANCE, "main comes in after the last hidden session with backup", RELAYS, _s(gap))
    stage.scene.result = f"the next one has finished {finished:.1f} s after the kill"


async def by_hand(stage: Stage) -> None:
    """A switchover pins its target; unpin lets failback come."""
    stage.say("An operator moves the role to backup. main has been well all along: only the pin keeps it there.")
    await _switchover(stage, BACKUP)
    await _calm(stage, CALM)
    began = stage.now()
    answer = await stage.told("unpin")
    stage.need(answer.status == 0, "unpin is done", ANSWERED, answer.last)
    back = await stage.until(lambda: stage.all_with(MAIN), stage.times.fail_back_after + HANDOVER)
    stage.need(back, "without the pin main gets the role back", RELAYS, _reached(stage))
    seconds = stage.took("returned", _since(began, stage.witness.first(MAIN, began)))
    stage.scene.result = f"moved in {stage.scene.seconds['moved']:.1f} s, pinned, back {seconds:.1f} s after unpin"


async def lagging(stage: Stage) -> None:
    """A switchover to a producer that lags is refused, with the reason."""
    await stage.lab.tell(BACKUP, "lag", str(LAG))
    stage.say(f"backup falls {LAG} slots behind. An operator wants to move the role there all the same.")
    behind = await _behind(stage)
    stage.claim(behind > 60, "backup's tip is behind main's", PINGED, f"{behind} slots")
    await _seen_unfit(stage)
    since = stage.now()
    answer = await stage.told("switchover", "--to", BACKUP, "--yes")
    stage.need(answer.status == 1, "the switchover is refused", ANSWERED, f"exit status {answer.status}")
    stage.claim("slots behind" in answer.text, "and it says why", ANSWERED, answer.last)
    await _calm(stage, CALM / 2, since)
    stage.claim(stage.all_with(MAIN), "main has kept the role", RELAYS, _reached(stage))
    await stage.lab.tell(BACKUP, "heal")
    stage.scene.result = "refused, with the reason"


async def pause(stage: Stage) -> None:
    """Paused, nothing moves even when the active producer hangs; resumed, it does."""
    patience = stage.times.fail_over_after
    long = 1.5 * patience
    answer = await stage.told("pause", "--reason", "maintenance")
    stage.need(answer.status == 0, "pause is done", ANSWERED, answer.last)
    began = stage.now()
    stage.stop(MAIN)
    stage.say(f"main hangs again, for {long:g} s this time: longer than the patience of {patience:g} s.")
    await stage.wait(long)
    opened = stage.witness.first(BACKUP, began)
    stage.claim(opened is None, f"paused: for {long:g} s nobody else is let in", HAPROXY, _admitted(stage))
    resumed = stage.now()
    answer = await stage.told("resume")
    stage.need(answer.status == 0, "resume is done", ANSWERED, answer.last)
    moved = await stage.until(lambda: stage.all_with(BACKUP), HANDOVER)
    stage.need(moved, "backup takes over at once: main was down for long enough", RELAYS, _reached(stage))
    seconds = stage.took("served", _since(resumed, stage.first_session(BACKUP, resumed)))
    stage.go_on(MAIN)
    stage.scene.result = f"nothing for {long:g} s; backup serves {seconds:.1f} s after resume"


SCENES: tuple[tuple[str, Play], ...] = (
    ("steady", steady),
    ("main hangs", hang),
    ("main is back", failback),
    ("split brain by hand", split),
    ("proxy-2 forgets its state", forgetful),
    ("controller killed midway", killed),
    ("switchover and unpin", by_hand),
    ("backup lags", lagging),
    ("pause", pause),
)

# ---------------------------------------------------------------- what scenes share


async def _switchover(stage: Stage, to: str) -> None:
    began = stage.now()
    answer = await stage.told("switchover", "--to", to, "--yes", "--reason", "demo")
    stage.need(answer.status == 0, f"the switchover to {to} is done", ANSWERED, answer.last)
    there = await stage.until(lambda: stage.all_with(to), HANDOVER)
    stage.took("moved", stage.now() - began)
    stage.need(there, f"every relay is with {to}", RELAYS, _reached(stage))


async def _calm(stage: Stage, seconds: float, since: float | None = None) -> None:
    start = stage.now() if since is None else since
    await stage.wait(seconds)
    changes = stage.changes(start)
    over = stage.now() - start
    stage.claim(not changes, "no session begins or ends", RELAYS, f"{changes} in {over:.1f} s")


async def _repaired(stage: Stage, what: str, began: float, rightful: str) -> tuple[float, float]:
    """When the second proxy had nobody but ``rightful`` reachable, and when it let ``rightful`` in; NaN for never.

    Until the first of the two there were two producers on purpose.
    """
    others = [producer for producer in stage.lab.plan.producers if producer != rightful]

    def looks() -> list[Sample]:
        return [sample for name, sample in stage.witness.after(began) if name == SECOND]

    def shut() -> float | None:
        return next((s.received for s in looks() if not any(s.reachable(p) for p in others)), None)

    def restored() -> float | None:
        alone = [s for s in looks() if not any(s.reachable(p) for p in others)]
        return next((s.received for s in alone if s.admitted == {rightful}), None)

    await stage.until(lambda: restored() is not None, HANDOVER)
    end = shut()
    stage.windows.append(Window(what, began, stage.now() if end is None else end))
    return (_since(0.0, end), _since(0.0, restored()))


def _ask_for_switchover(stage: Stage, to: str) -> None:
    """Ask as ``failover switchover --no-wait`` does, but without the time that a command takes to start."""
    host = RealHost()
    now = host.now()
    store = SqliteStore(stage.lab.folder / "state", pool="LAB", boot=now.boot, clock=host.now, check=False)
    try:
        store.submit(Request(host.new_id(), Verb.SWITCHOVER, now, now.after(60.0), "demo", to, "demo"))
    finally:
        store.close()


async def _behind(stage: Stage) -> int:
    best, slot = await stage.slot_of(MAIN), await stage.slot_of(BACKUP)
    return 0 if best is None or slot is None else best - slot


async def _seen_unfit(stage: Stage) -> None:
    """Wait until the controller has read the lag, twice in a row as it should, for else it would rightly agree."""
    for _ in range(40):
        answer = await stage.daemon.ask("status")
        if "slots behind" in answer.text:
            return
        await stage.wait(stage.times.interval)


def _since(began: float, moment: float | None) -> float:
    return float("nan") if moment is None else moment - began


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _reached(stage: Stage) -> str:
    reached = stage.lab.reached()
    numbers = {p: sum(found == p for found in reached.values()) for p in stage.lab.plan.producers}
    told = [f"{number} with {producer}" for producer, number in numbers.items() if number]
    return f"{' and '.join(told)}, of {len(stage.pairs)}" if told else "no session"


def _admitted(stage: Stage) -> str:
    found = {}
    for name, sample in stage.witness.now().items():
        found[name] = "silent" if sample is None else " and ".join(sorted(sample.admitted)) or "nobody"
    return ", ".join(f"{name}: {who}" for name, who in found.items())


# ---------------------------------------------------------------- playing them

Document = dict[str, Any]


class Story:
    """One playing of the scenes in ``folder``. ``stage`` is there once the pool runs."""

    def __init__(self, folder: Path, scale: float, audience: Audience, acts: Sequence[tuple[str, Play]]) -> None:
        self.folder = folder
        self.scale = scale
        self.stage: Stage | None = None
        self.scenes: list[Scene] = []
        self.verdict: Verdict | None = None
        self.acts = acts
        self._audience = audience
        self._host = RealHost()

    async def play(self) -> Document:
        """Build the pool, play, end everything; what was found. Raises LabError when the pool does not come up."""
        began = self._host.now().mono
        lab = LabPool(self.folder, plan(self.scale))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(lab)
            with_lease(lab.file)
            witness = Witness(lab.proxies, lab.plan.producers)
            looking = asyncio.create_task(witness.run())
            stack.callback(looking.cancel)
            daemon = Daemon(lab.file, self.folder / "controller.log")
            stack.push_async_callback(daemon.stop)
            stage = self.stage = Stage(lab, witness, daemon, self._audience)
            ready = self._host.now().mono - began
            stage.say(f"The pool runs after {ready:.1f} s: two producers, two references, two relays, two HAProxies.")
            for number, (title, act) in enumerate(self.acts, 1):
                if not await self._scene(stage, Scene(number, title), act):
                    break
            await stage.wait(2 * lab.times.interval)  # what the relays have yet to write down
            if looking.done():
                looking.result()  # a witness that fell asleep has seen nothing
            self.verdict = self._judge(stage)
        return self._document(stage, self._host.now().mono - began)

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

    def _judge(self, stage: Stage) -> Verdict:
        looked = spans(stage.witness.samples, stage.lab.plan.producers)
        names = {str(proxy.relays): name for name, proxy in stage.lab.proxies.items()}
        sessions = [replace(i, target=names[i.target]) for i in stage.lab.sessions()]
        return judge(sessions, looked, stage.windows, tolerance=TOLERANCE)

    def _document(self, stage: Stage, seconds: float) -> Document:
        verdict = self.verdict
        assert verdict is not None  # noqa: S101 - play sets it
        unplayed = [title for title, _ in self.acts[len(self.scenes) :]]
        return {
            "ok": all(scene.ok for scene in self.scenes) and not unplayed and not verdict.outside,
            "seconds": round(seconds, 1),
            "scale": self.scale,
            "times": {name: {"life": life, "here": here} for name, life, here in shortened(self.scale)},
            "scenes": [_scene_document(scene) for scene in self.scenes],
            "not_played": unplayed,
            "overlaps": len(verdict.outside),
            "overlapping": list(verdict.outside),
            "forced": {"overlaps": verdict.forced, "longest": round(verdict.forced_seconds, 3)},
            "windows": [{"what": w.what, "seconds": round(w.end - w.start, 3)} for w in stage.windows],
            "witness": {
                "sessions": len(stage.lab.sessions()),
                "looks": stage.witness.count(),
                "longest_gap": round(stage.witness.longest_gap(), 3),
            },
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
