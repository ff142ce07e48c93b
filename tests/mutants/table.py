"""The mutants: each takes one guard out of the product, by replacing one piece of source that is there exactly once.

Nothing here imports the product: the hook comes first. ``hunts`` are plans (plans.py), and profiles of the
campaign's; ``within`` is the number of seeds of each in which the simulator finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

INVARIANTS = ("tests/unit/test_invariants.py", "tests/unit/test_stories.py")
GATES = ("tests/unit/test_host_gates.py",)
OVERTAKEN = ("tests/sim/test_host_guards.py",)
SIGNPOSTS = ("tests/unit/test_signposts.py", "tests/unit/test_record_stories.py", "tests/sim/test_records.py")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One guard taken out. ``hunts``: plans by which the simulator finds it; ``judges``: tests that fail without it."""

    name: str
    module: str
    anchor: str
    replacement: str
    hunts: tuple[str, ...] = ()
    within: int = 2
    judges: tuple[str, ...] = ()


def _m(
    name: str,
    module: str,
    anchor: str,
    replacement: str,
    *hunts: str,
    within: int = 2,
    judges: tuple[str, ...] = (),
) -> Mutant:
    return Mutant(name, f"failover.{module}", anchor, replacement, hunts, within, judges)


SPLITS = (
    _m(
        "a gate that is open beside is not found",
        "splits",
        "    found = _gates(s, known)\n",
        "    found: list[Split] = []\n",
        "split-while-paused",
    ),
    _m(
        "a split brain is told to nobody",
        "incidents",
        "    events.extend(_tell(told, rows, counted, incident, grown and open_before is not None, now))\n",
        "    told = {} if grown else told\n",
        "split-while-paused",
    ),
)

FENCE = (
    _m(
        "closed is believed while sessions run",
        "fence",
        '    if server.sessions:\n        return f"{gate} still carries',
        '    if False:\n        return f"{gate} still carries',
        "sessions-linger",
        within=6,
    ),
    _m(
        "fencing removed",
        "fence",
        "    return tuple(lack for producer in s.pool.others(target) for lack in _open_ways(s, producer, care))\n",
        "    return ()\n",
        "switchover",
        judges=INVARIANTS,
    ),
    _m(
        "no re-read after a phase began",
        "fence",
        "    return a.since.boot != s.now.boot or track.read_at.mono > a.since.mono\n",
        "    return True\n",
        "closed-while-paused",
    ),
    _m(
        "open is taken for closed",
        "fence",
        '    if server.admin is not Admin.MAINT:\n        return f"{gate} is open',
        '    if False:\n        return f"{gate} is open',
        "opened-again",
        within=12,
    ),
    _m(
        "a silent gate counts as closed",
        "fence",
        "    if last_seen_shut(s, gate, care) or _accepted(s, gate, care):\n",
        "    if True:\n",
        "proxy-silent",
    ),
    _m(
        "a silent gate is passed over in a voluntary handover",
        "fence",
        "    if care is Care.VOLUNTARY:\n        return silence\n",
        "",
        "proxy-silent-reachable",
    ),
    _m(
        "confirmed is satisfied with what can be reached",
        "situation",
        '        return self.pool.fence.require == "confirmed"\n',
        "        return False\n",
        "split-sites",
    ),
    _m(
        "a gate is passed over without patience",
        "fence",
        "    left = s.silent_left(gate)\n",
        "    left = 0.0\n",
        "split-later",
    ),
    _m(
        "a silent gate that was open counts as seen shut",
        "fence",
        "        return server is not None and server.admin is Admin.MAINT and server.sessions == 0\n",
        "        return server is not None\n",
        "opened-then-silent",
        within=8,
    ),
    _m(
        "an empty set of gates serves",
        "handover",
        "    if serving and (not waiting or spent >= SERVE_BUDGET):\n",
        "    if not waiting or spent >= SERVE_BUDGET:\n",
        "unservable",
    ),
    _m(
        "a fence that cannot complete is begun",
        "policy",
        "    return unservable if unservable is not None else fence.unfenceable(s, target, care)\n",
        "    return unservable\n",
        "proxy-gone-lagging",
    ),
    _m(
        "a producer is opened in promoting without asking the fence",
        "handover",
        '    if lacks:\n        return Progress(None, f"promoting',
        '    if False:\n        return Progress(None, f"promoting',
        "crossed-promotion",
        within=8,
    ),
    _m(
        "the active one is opened again without asking the fence",
        "policy",
        "    opening = () if lacks else wanted\n",
        "    opening = wanted\n",
        "crossed-hands",
        within=8,
    ),
    _m(
        "a fence that does not complete is never given up",
        "handover",
        "    elif old is not None and old != target and s.up(old):\n",
        "    elif False and old is not None:\n",
        "proxy-lost",
    ),
    _m(
        "a timed-out opening counts as failed",
        "gate_edges",
        "        if command.kind is StepKind.OPEN:\n            self._board.post_unanswered",
        "        if False:\n            self._board.post_unanswered",
        "late-opening",
        within=8,
    ),
    _m(
        "a late opening is forgotten",
        "tick",
        "        if track.read_at.since(answered) >= pool.lease.action_timeout:\n",
        "        if True:\n",
        "late-opening",
        within=8,
        judges=INVARIANTS,
    ),
    _m(
        "taint does not hold up a fence",
        "fence",
        '    if s.tainted(gate):\n        return f"{gate} may yet',
        '    if False:\n        return f"{gate} may yet',
        "late-opening",
        within=8,
    ),
    _m(
        "the predecessor's unfinished steps are forgotten",
        "controller",
        " and gate is not None and gate.kind is GateKind.HAPROXY:\n            self._board.post_unanswered",
        " and False:\n            self._board.post_unanswered",
        "killed-at-opening",
        within=8,
    ),
    _m(
        "a reload is not noticed",
        "board",
        "    elif _reloaded(before, reading):\n        hiding",
        "    elif False:\n        hiding",
        "reload-hides",
    ),
    _m(
        "sessions that a reload hides are not waited for",
        "fence",
        "    left = _hidden_for(s, track, proxy)\n    if left <= 0:\n",
        "    left = _hidden_for(s, track, proxy)\n    if True:\n",
        "reload-hides",
    ),
    _m(
        "hard_stop_after is ignored",
        "fence",
        "    return max(0.0, bound - s.now.since(track.reloaded_at))\n",
        "    return 0.0\n",
        "reload-hides",
    ),
    _m(
        "a reload without a known end satisfies confirmed",
        "fence",
        '        return float("inf") if s.strict else 0.0\n',
        "        return 0.0\n",
        "reload-unbounded",
    ),
)

PATIENCE = (
    _m(
        "patience removed",
        "health",
        "    return max(0.0, min(whole, summed))\n",
        "    return 0.0\n",
        "main-blinks",
        judges=INVARIANTS,
    ),
    _m(
        "patience adds up all day",
        "health",
        "    summed = patience - trouble_within(track, now, 2 * patience)\n",
        "    summed = patience - 3 * trouble_within(track, now, 2 * patience)\n",
        "main-blinks",
    ),
    _m(
        "one failed ping is an outage",
        "health",
        "    elif not ping.ok and health is not Health.DOWN and fails >= settings.fall:\n",
        "    elif not ping.ok and health is not Health.DOWN:\n",
        "backup-blinks",
    ),
    _m(
        "a producer that has just answered is left",
        "policy",
        '    if last is not None and last.ok:\n        return f"{active} counts as down still',
        '    if False:\n        return f"{active} counts as down still',
        "back-in-time",
        within=8,
    ),
    _m(
        "timers are not reset after a gap",
        "health",
        "    if track.last is not None and _gap(track.last.at, ping.at) > settings.max_gap:\n",
        "    if False and track.last is not None:\n",
        "suspended",
    ),
    _m(
        "no majority asked",
        "situation",
        "        return 2 * self.agree > self.counted\n",
        "        return True\n",
        "unseen-by-us",
        judges=INVARIANTS,
    ),
    _m(
        "failback at once",
        "policy",
        "    left = wait - s.well_for(preferred)\n",
        "    left = 0.0\n",
        "main-dies",
        judges=INVARIANTS,
    ),
    _m(
        "damping removed",
        "policy",
        "    return wait if s.a is None else wait * handover.damping(s.a, s.now)\n",
        "    return wait\n",
        "two-outages",
    ),
    _m(
        "failback although it is to be done by hand",
        "policy",
        '    if s.pool.policy.fail_back != "auto":\n',
        "    if False:\n",
        "by-hand-only",
    ),
    _m(
        "laggards are fit",
        "health",
        "    if readings >= 2:\n",
        "    if False:\n",
        "preferred-lags",
        judges=INVARIANTS,
    ),
    _m(
        "a laggard is left at once",
        "policy",
        "    left = s.pool.policy.fail_over_after - max(",
        "    left = 0.0 - max(",
        "main-lags",
    ),
    _m(
        "a producer that is barred is chosen again",
        "situation",
        '            if not good or self.held(name, "barred") or self.held(name, "cordoned"):\n',
        '            if not good or self.held(name, "cordoned"):\n',
        "unservable",
    ),
    _m(
        "a producer that is cordoned is chosen",
        "situation",
        '        able = [n for n in candidates if not self.held(n, "cordoned") and',
        "        able = [n for n in candidates if",
        "cordoned",
    ),
    _m(
        "the role is handed back again and again",
        "policy",
        "        if producer in a.handed_back:\n",
        "        if False:\n",
        "partition-twice",
    ),
)

BLINDNESS = (
    _m(
        "isolation ignored",
        "policy",
        "    if s.view.isolated:\n",
        "    if False:\n",
        judges=INVARIANTS,
    ),
    _m(
        "isolation never noticed",
        "board",
        "            return all(r.misses >= fall for r in self.references.values())\n",
        "            return False\n",
        "isolated",
    ),
    _m(
        "paused ignored",
        "policy",
        "    if s.a is None or s.a.paused is None:\n",
        "    if True:\n",
        "paused",
    ),
    _m(
        "released ignored",
        "policy",
        "    if s.a is not None and s.a.released and not any(",
        "    if s.a is None and not any(",
        "released",
    ),
    _m(
        "a request is carried out although it has expired",
        "tick",
        "        if request.expires.reached(now):\n",
        "        if False:\n",
        "asked-too-late",
    ),
    _m(
        "the lease is believed although its time is over",
        "keeper",
        "        return lease if lease.expires.mono - now.mono > settings.action_timeout + settings.margin else None\n",
        "        return lease\n",
        "suspended-in-step",
    ),
    _m(
        "a step of an older generation is sent",
        "controller",
        "        if step.term != lease.term or step.generation != a.generation:\n",
        "        if step.term != lease.term:\n",
        "slow-repair",
        within=8,
    ),
    _m(
        "the assignment is not asked before a step is sent",
        "controller",
        "        lease, a = self._keeper.fresh(self._host.now()), self._assignment\n"
        "        if lease is None or a is None or a.released or self._board.isolated:\n"
        "            return False\n"
        "        if step.term",
        "        return True\n"
        "        lease, a = self._keeper.fresh(self._host.now()), self._assignment\n"
        "        if step.term",
        "suspended-in-step",
        "slow-repair",
    ),
    _m(
        "steps are sent before they are written",
        "controller",
        "        if not await self._commit(before, last, outcomes, events, bool(orders or points or ends), now):\n",
        "        parts.hand_out(orders, (), (), refresh=False)\n"
        "        if not await self._commit(before, last, outcomes, events, bool(orders or points or ends), now):\n",
        "slow-disk",
    ),
    _m(
        "a commit that failed is taken for done",
        "controller",
        "        if not await self._write(commit, reserve=begins or due):\n            return False\n",
        "        await self._write(commit, reserve=begins or due)\n",
        "disk-breaks",
    ),
    _m(
        "a conflict in the store is ignored",
        "controller",
        "        if written in (Written.OVERTAKEN, Written.UNKNOWN):",
        "        if False:",
        "answers-lost",
    ),
)

REPAIR = (
    _m(
        "the only live producer may be closed",
        "policy",
        '    if not s.somebody_sees_up(active):\n        return Verdict("unseen"',
        '    if False:\n        return Verdict("unseen"',
        "opened-after-death",
        judges=INVARIANTS,
    ),
    _m(
        "drift is not repaired",
        "policy",
        "    closing = tuple(step for step in handover.close_steps(s, active) if _may_close(s, active, step))\n",
        "    closing = ()\n",
        "opened-by-hand",
    ),
    _m(
        "nobody else's switch is adopted",
        "policy",
        '    if active is None or not s.down(active):\n        return f"{active} is not down by majority"\n',
        '    if True:\n        return f"{active} is not down by majority"\n',
        "opened-after-death",
    ),
    _m(
        "nothing is adopted at the first start",
        "policy",
        "    serving = [p for p in s.pool.names if s.up(p) and s.present(p)]\n",
        "    serving: list[str] = []\n",
        "first-start",
    ),
    _m(
        "a laggard is adopted",
        "policy",
        "    chosen = next((p for p in others if s.fit(p) is True), None)\n",
        "    chosen = others[0]\n",
        "laggard-opened",
    ),
    _m(
        "another hand is fought for ever",
        "situation",
        "        until = self.view.proxies[proxy].contested_until\n        if until is None",
        "        until = self.view.proxies[proxy].contested_until\n        if True or until is None",
        "another-hand",
    ),
    _m(
        "another hand is not recognised",
        "board",
        "        if contested is not None or len(reversals) >= REVERSALS:\n",
        "        if False:\n",
        "another-hand",
    ),
    _m(
        "a switchover is not pinned",
        "policy",
        "    moved = replace(moved, pinned=pin, barred=",
        "    moved = replace(moved, barred=",
        "switchover",
    ),
    _m(
        "a pin is no reason to stay",
        "policy",
        "    if a.active is not None and s.pinned(a.active):\n",
        "    if False:\n",
        "switchover",
    ),
)

NAMES = (
    _m(
        "another hand is fought without end",
        "signposts",
        "    if contested is not None or len(reversals) >= REVERSALS:\n",
        "    if False:\n",
        "name-disputed",
        judges=SIGNPOSTS,
    ),
    _m(
        "an overtaken plan is sent",
        "controller",
        "        current = pointing.term == lease.term and pointing.generation == a.generation\n        return",
        "        return True\n        return",
        judges=SIGNPOSTS,
    ),
    _m(
        "a record moves before the fence",
        "handover",
        '    return Progress(None, f"fencing everyone but {target}: {lacks[0]}", steps=steps, alert=alert)',
        "    return Progress(None, lacks[0], steps=steps, pointings=pointings(s, target), alert=alert)",
        judges=SIGNPOSTS,
    ),
    _m(
        "a name that is not ours is changed",
        "situation",
        "        if track.reading is not None and track.reading.unownable is not None:\n",
        "        if False:\n",
        judges=SIGNPOSTS,
    ),
    _m(
        "without a gate the role goes back by itself",
        "policy",
        "        unmanaged = kicks.unmanaged(s)\n        if unmanaged is not None:\n",
        "        unmanaged = kicks.unmanaged(s)\n        if False:\n",
        "names-only",
        judges=SIGNPOSTS,
    ),
    _m(
        "without a gate no reference is asked",
        "policy",
        '    if not s.pool.proxies and s.deaf():\n        return f"{active} does not answer, but',
        '    if False:\n        return f"{active} does not answer, but',
        "names-deaf",
        judges=SIGNPOSTS,
    ),
    _m(
        "a lost answer is taken for another hand",
        "signposts",
        "    ours = any(sent.rrset == reading.rrset for sent in track.sent)\n",
        "    ours = False\n",
        judges=SIGNPOSTS,
    ),
    _m(
        "relays that may stay are forgotten",
        "tick",
        "    return not (gone or kicks.let_go(s, producer)) or s.reached(producer)\n",
        "    return False\n",
        judges=SIGNPOSTS,
    ),
)

HOSTS = (
    _m(
        "a forging gate that is not closed yet counts as closed",
        "fence",
        "    if track.reading.open is not False:\n",
        "    if track.reading.open is True:\n",
        judges=GATES,
    ),
    _m(
        "an open gate of a producer's own counts as closed",
        "fence",
        "    if track.reading.open is not False:\n",
        "    if False:\n",
        "keys-agent-lost",
        "keys-switchover",
        within=4,
        judges=GATES,
    ),
    _m(
        "what a gate could not show satisfies confirmed",
        "fence",
        "    if certainly and not track.reading.certain:\n",
        "    if False:\n",
        judges=GATES,
    ),
    _m(
        "a silent host counts as shut",
        "fence",
        "        return s.silence(gate) if certainly else _silent(s, gate, care)\n",
        "        return s.silence(gate) if certainly else None\n",
        "keys-cut-later",
        judges=GATES,
    ),
    _m(
        "a silent host fences for sure",
        "fence",
        "        return s.silence(gate) if certainly else _silent(s, gate, care)\n",
        "        return _silent(s, gate, care)\n",
        judges=GATES,
    ),
    _m(
        "a machine that answers is switched off",
        "fence",
        "    if left and min(left) > 0:\n",
        "    if False:\n",
        "keys-slow-power",
        judges=GATES,
    ),
    _m(
        "a target whose own gate cannot be opened is chosen",
        "situation",
        "        if shut is not None or not self.pool.proxies:\n            return shut\n",
        "        if not self.pool.proxies:\n            return None\n",
        judges=GATES,
    ),
    _m(
        "a producer that forges beside the active is not found",
        "splits",
        "        found.extend(_forging(s))\n",
        "        found.extend(())\n",
        judges=GATES,
    ),
    _m(
        "credentials that expired are fit",
        "situation",
        "                if node.expired_since is not None and self._fit[name] is not None:\n",
        "                if False:\n",
        judges=GATES,
    ),
    _m(
        "every relay is made to let go at once",
        "kicks",
        "    if since_last < PAUSE:\n",
        "    if False:\n",
        "letting-go",
        judges=GATES,
    ),
    _m(
        "relays of others are made to let go",
        "kicks",
        "for relay in s.pool.relays if relay.managed for loser",
        "for relay in s.pool.relays for loser",
        "not-all-managed",
        judges=GATES,
    ),
    _m(
        "a relay is made to let go for ever",
        "kicks",
        "        if kicked is not None and kicked.times >= TRIES:\n            continue\n",
        "",
        judges=GATES,
    ),
    _m(
        "without a gate the role goes back although a relay is not managed",
        "kicks",
        "        if not relay.managed:\n            return",
        "        if False:\n            return",
        "not-all-managed",
        judges=GATES,
    ),
    _m(
        "a machine is switched off when the fence is over",
        "controller",
        "        if step.gate.kind is GateKind.POWER and a.phase is not Phase.FENCING:\n",
        "        if False:\n",
        "power-late",
        within=8,
    ),
    _m(
        "a relay is made to let go without asking the assignment",
        "controller",
        "        return kick.term == lease.term and kick.generation == a.generation and kick.producer != a.active\n",
        "        return True\n",
        judges=OVERTAKEN,
    ),
    _m(
        "a relay is made to let go in the middle of a handover",
        "controller",
        "self._board.isolated or a.phase is not Phase.STEADY:\n            return False\n        return kick.term",
        "self._board.isolated:\n            return False\n        return kick.term",
        judges=OVERTAKEN,
    ),
    _m(
        "a step for a producer's own gate is sent although it is overtaken",
        "gate_edges",
        "        return await self.port.set(command, self._step_timeout, lambda: self._valid(command))\n",
        "        return await self.port.set(command, self._step_timeout, lambda: True)\n",
        judges=OVERTAKEN,
    ),
    _m(
        "an observer tells fuses of its lease",
        "controller",
        '        if lease is None or self.pool.mode != "act":\n',
        "        if lease is None:\n",
        judges=OVERTAKEN,
    ),
    _m(
        "nobody's own gate holds up a fence",
        "fence",
        "[not_shut(s, gate, care) for gate in s.ways(producer)]",
        "[not_shut(s, gate, care) for gate in s.ways(producer) if gate.place in s.view.proxies]",
        "keys-agent-lost",
        judges=GATES,
    ),
    _m(
        "gates on producers' hosts are not repaired",
        "handover",
        "            if s.gate_answers(gate) and s.view.gates[gate].is_open is not False\n",
        "            if False\n",
        "keys-back",
        judges=GATES,
    ),
    _m(
        "an open gate on a standby's host is no split brain",
        "splits",
        "        elif host.is_open is not False:\n",
        "        elif False:\n",
        "keys-back-while-paused",
        judges=GATES,
    ),
)

MUTANTS: tuple[Mutant, ...] = (*SPLITS, *FENCE, *PATIENCE, *BLINDNESS, *REPAIR, *NAMES, *HOSTS)


def named(name: str) -> Mutant:
    """The mutant of this name. Raises KeyError."""
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise KeyError(f"there is no mutant {name!r}")
