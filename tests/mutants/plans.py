"""The plans with which mutants are hunted: short runs, each aimed at a few guards, of which a seed draws the rest.

Import this only once the hook is installed: it imports the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from failover.model import GateKind, PolicySettings, Pool
from failover.simulator.campaign import PROFILES, Plan, default_pool, plan
from failover.simulator.faults import Fault, Value
from failover.simulator.run import Setup

BRISK = PolicySettings(60.0, 300.0)
CONTROLLER = ("controller",)


def plan_of(aim: str, seed: int) -> Plan:
    """The plan of this name, with the chances of this seed; a profile of the campaign's is a plan, too."""
    return plan(seed, profile=aim) if aim in PROFILES else PLANS[aim](seed)


def _aimed(
    aim: str, seed: int, seconds: float, *faults: Fault, pool: Pool | None = None, setup: Setup | None = None
) -> Plan:
    return Plan(seed, aim, pool or default_pool(policy=BRISK), setup or Setup(relays=3), faults, seconds)


def _ask(at: float, verb: str, producer: str = "", **more: Value) -> Fault:
    return Fault(at, "ask", (), None, {"verb": verb, **({"producer": producer} if producer else {}), **more})


def _open(at: float, producer: str, *proxies: str) -> Fault:
    return Fault(at, "hand-open", proxies or ("proxy-1", "proxy-2"), None, {"producer": producer})


def _close(at: float, producer: str, *proxies: str) -> Fault:
    return Fault(at, "hand-close", proxies or ("proxy-1", "proxy-2"), None, {"producer": producer})


def _cut(at: float, here: tuple[str, ...], there: tuple[str, ...], lasts: float | None = None) -> Fault:
    return Fault(at, "cut", here, lasts, {"from": there})


def _slow(at: float, proxy: str, seconds: float, lasts: float, on: str | None = None) -> Fault:
    return Fault(at, "slow-path", CONTROLLER, lasts, {"from": (proxy,), "seconds": seconds}, on)


# ---------------------------------------------------------------- producers fail


def switchover(seed: int) -> Plan:
    """Somebody asks for a switchover."""
    slow = _slow(40.0, "proxy-2", 0.5, 600.0)
    return _aimed("switchover", seed, 700.0, slow, _ask(100.0, "switchover", "backup"))


def opened_again(seed: int) -> Plan:
    """No relay is connected, the way to a proxy is slow, and there somebody opens again what was just closed."""
    relays = ("relay-1", "relay-2", "relay-3")
    faults = (
        _cut(30.0, relays, ("proxy-1", "proxy-2")),
        _slow(150.0, "proxy-2", 2.3, 100.0),
        _ask(180.0, "switchover", "backup"),
        _open(192.2, "main", "proxy-2"),
    )
    return _aimed("opened-again", seed, 250.0, *faults)


def main_dies(seed: int) -> Plan:
    """The active one dies, and comes back after a while."""
    return _aimed("main-dies", seed, 700.0, Fault(60.0, "stop", ("main",), 150.0))


def two_outages(seed: int) -> Plan:
    """It dies twice in a day."""
    stops = (Fault(60.0, "stop", ("main",), 90.0), Fault(640.0, "stop", ("main",), 90.0))
    return _aimed("two-outages", seed, 1450.0, *stops)


def main_blinks(seed: int) -> Plan:
    """It is away for less than patience asks; the standby for one ping while it is active."""
    return _aimed("main-blinks", seed, 200.0, Fault(60.0, "stop", ("main",), 45.0))


def backup_blinks(seed: int) -> Plan:
    """One ping of an active that is not the preferred one fails."""
    pool = default_pool(policy=BRISK)
    setup = Setup(relays=3, active="backup")
    return _aimed("backup-blinks", seed, 250.0, Fault(60.0, "stop", ("backup",), 14.0), pool=pool, setup=setup)


def back_in_time(seed: int) -> Plan:
    """It answers again, once, when a pause ends in which patience ran out."""
    faults = (Fault(60.0, "stop", ("main",), 57.0), _ask(65.0, "pause", seconds=58.0))
    pool, setup = default_pool(policy=PolicySettings(55.0, 300.0)), Setup(checks="none", relays=3)
    return _aimed("back-in-time", seed, 200.0, *faults, pool=pool, setup=setup)


def unseen_by_us(seed: int) -> Plan:
    """We alone do not reach it."""
    return _aimed("unseen-by-us", seed, 250.0, _cut(60.0, CONTROLLER, ("main",)))


def isolated(seed: int) -> Plan:
    """Our own network fails, but for the way to the proxies, which do not check."""
    faults = _cut(60.0, CONTROLLER, ("main", "reference-1"))
    return _aimed("isolated", seed, 300.0, faults, setup=Setup(checks="none", relays=3))


def main_lags(seed: int) -> Plan:
    """The active one lags behind, and later the standby too."""
    return _aimed("main-lags", seed, 400.0, Fault(60.0, "lag", ("main",), None, {"slots": 400.0}))


def preferred_lags(seed: int) -> Plan:
    """The preferred one comes back, and lags."""
    lag = Fault(100.0, "lag", ("main",), None, {"slots": 400.0})
    return _aimed("preferred-lags", seed, 800.0, Fault(60.0, "stop", ("main",), 100.0), lag)


def suspended(seed: int) -> Plan:
    """Nobody looks for a while, just after it died."""
    freeze = Fault(88.0, "kill", CONTROLLER, 45.0)
    return _aimed("suspended", seed, 250.0, Fault(60.0, "stop", ("main",)), freeze)


def unservable(seed: int) -> Plan:
    """The active lags; the standby is fit, but while it gets the role every proxy loses it."""
    lag = Fault(60.0, "lag", ("main",), None, {"slots": 400.0})
    cut = replace(_cut(50.0, ("proxy-1", "proxy-2"), ("backup",), 90.0), on="fencing")
    slow = Fault(50.0, "slow-path", CONTROLLER, None, {"from": ("proxy-1", "proxy-2"), "seconds": 1.6})
    return _aimed("unservable", seed, 500.0, lag, slow, cut, setup=Setup(relays=3))


# ---------------------------------------------------------------- gates


def proxy_lost(seed: int) -> Plan:
    """A handover is under way when a proxy is lost."""
    cut = Fault(95.0, "cut", CONTROLLER, 150.0, {"from": ("proxy-1",)}, "fencing")
    return _aimed("proxy-lost", seed, 350.0, _ask(100.0, "switchover", "backup"), cut)


def proxy_silent(seed: int) -> Plan:
    """A proxy cannot be reached when a switchover is asked for, and goes on serving."""
    pool = default_pool(policy=BRISK, require="confirmed")
    cut = _cut(60.0, CONTROLLER, ("proxy-1",))
    return _aimed("proxy-silent", seed, 250.0, cut, _ask(100.0, "switchover", "backup"), pool=pool)


def proxy_silent_reachable(seed: int) -> Plan:
    """The active one is dead, and a proxy silent for long, when somebody asks for a switchover."""
    cut, stop = _cut(30.0, CONTROLLER, ("proxy-1",)), Fault(60.0, "stop", ("main",))
    return _aimed("proxy-silent-reachable", seed, 300.0, cut, stop, _ask(108.0, "switchover", "backup"))


def proxy_gone_lagging(seed: int) -> Plan:
    """The active one lags while a proxy cannot be reached: a handover would wait for that."""
    cut = _cut(40.0, CONTROLLER, ("proxy-1",))
    lag = Fault(60.0, "lag", ("main",), None, {"slots": 400.0})
    return _aimed("proxy-gone-lagging", seed, 400.0, cut, lag)


def split_sites(seed: int) -> Plan:
    """The active one and one proxy are cut off together, in a pool that has to confirm."""
    pool = default_pool(policy=BRISK, require="confirmed")
    cut = _cut(60.0, ("main", "proxy-1"), ("controller", "backup", "proxy-2", "reference-1"))
    return _aimed("split-sites", seed, 350.0, cut, pool=pool)


def split_later(seed: int) -> Plan:
    """The active one is cut off, and some time later a proxy that still reaches it."""
    first = _cut(60.0, ("main",), ("controller", "proxy-2"))
    second = _cut(100.0, ("proxy-1",), CONTROLLER)
    block = _cut(60.0, ("main",), ("proxy-3",))
    pool = default_pool(policy=BRISK, proxies=3)
    return _aimed("split-later", seed, 300.0, first, block, second, pool=pool)


def partition_twice(seed: int) -> Plan:
    """The active one and its proxy are cut off, and the producer alone comes back; and once more."""
    far = ("controller", "backup", "proxy-2", "proxy-3")
    faults = [_cut(60.0, ("proxy-1",), CONTROLLER), *(_cut(at, ("main",), far, 180.0) for at in (60.0, 400.0))]
    pool = default_pool(policy=PolicySettings(60.0, 900.0), proxies=3)
    return _aimed("partition-twice", seed, 800.0, *faults, pool=pool)


def closed_while_paused(seed: int) -> Plan:
    """Somebody pauses, and closes everything; a switchover then finds nothing to close, and so reads nothing back."""
    faults = (_ask(50.0, "pause"), _close(60.0, "main"), _ask(100.0, "switchover", "backup"))
    return _aimed("closed-while-paused", seed, 250.0, *faults)


def another_hand(seed: int) -> Plan:
    """Somebody keeps closing what we open."""
    return _aimed("another-hand", seed, 400.0, *(_close(60.0 + 12.0 * n, "main", "proxy-1") for n in range(14)))


def opened_by_hand(seed: int) -> Plan:
    """Somebody opens the standby."""
    return _aimed("opened-by-hand", seed, 200.0, _open(60.0, "backup"))


def opened_after_death(seed: int) -> Plan:
    """The active one dies, and somebody opens the standby at once."""
    faults = (Fault(60.0, "stop", ("main",), 400.0), _open(77.0, "backup"), _close(77.0, "main"))
    pool = default_pool(policy=PolicySettings(300.0, 1800.0))
    return _aimed("opened-after-death", seed, 500.0, *faults, pool=pool)


def laggard_opened(seed: int) -> Plan:
    """The active one dies, and somebody opens a standby that lags."""
    lag = Fault(20.0, "lag", ("backup",), None, {"slots": 400.0})
    faults = (lag, Fault(60.0, "stop", ("main",), 200.0), _open(75.0, "backup"))
    pool = default_pool(policy=PolicySettings(300.0, 1800.0))
    return _aimed("laggard-opened", seed, 300.0, *faults, pool=pool)


def first_start(seed: int) -> Plan:
    """Nothing is assigned yet."""
    return _aimed("first-start", seed, 100.0, setup=Setup(relays=3, assigned=False))


def crossed_hands(seed: int) -> Plan:
    """Somebody opens the standby where the way is slow, and closes the active one where it is not."""
    slow = _slow(40.0, "proxy-2", 2.3, 100.0)
    return _aimed("crossed-hands", seed, 200.0, slow, _open(60.0, "backup", "proxy-2"), _close(67.0, "main", "proxy-1"))


def crossed_promotion(seed: int) -> Plan:
    """The standby is promoted; the proxy that does not get to it is slow to reach, and somebody opens the old one."""
    faults = (
        replace(_cut(50.0, ("proxy-2",), ("backup",)), on="fencing"),
        _ask(100.0, "switchover", "backup"),
        _slow(95.0, "proxy-2", 2.3, 60.0, "promoting"),
        _open(106.0, "main", "proxy-2"),
        _close(115.5, "backup", "proxy-1"),
    )
    return _aimed("crossed-promotion", seed, 250.0, *faults, setup=Setup(relays=3))


def opened_then_silent(seed: int) -> Plan:
    """Somebody opens the standby in a proxy that falls silent before it is closed there."""
    faults = (
        _slow(40.0, "proxy-1", 2.0, 27.0),
        _open(60.0, "backup", "proxy-1"),
        _cut(67.0, CONTROLLER, ("proxy-1",)),
        _close(80.0, "main", "proxy-2"),
    )
    return _aimed("opened-then-silent", seed, 200.0, *faults)


def reload_hides(seed: int) -> Plan:
    """A proxy is reloaded shortly before a switchover; its old worker lives on for a while."""
    pool = default_pool(policy=BRISK, hard_stop_after=20.0)
    reload = Fault(100.0, "reload", ("proxy-1",))
    return _aimed("reload-hides", seed, 250.0, reload, _ask(106.0, "switchover", "backup"), pool=pool)


def reload_unbounded(seed: int) -> Plan:
    """The same where nobody knows how long the old worker lives, in a pool that has to confirm."""
    pool = default_pool(policy=BRISK, require="confirmed", hard_stop_after=None)
    reload = Fault(100.0, "reload", ("proxy-1",))
    return _aimed("reload-unbounded", seed, 250.0, reload, _ask(110.0, "switchover", "backup"), pool=pool)


def late_opening(seed: int) -> Plan:
    """An opening is under way for long, and meanwhile the role is taken back by force."""
    faults = (
        _slow(40.0, "proxy-1", 0.2, 61.0),
        _ask(100.0, "switchover", "backup"),
        _slow(101.05, "proxy-1", 14.0, 6.0, "step"),
        _ask(112.6, "switchover", "main", force=True),
    )
    return _aimed("late-opening", seed, 250.0, *faults, setup=Setup(relays=8))


def killed_at_opening(seed: int) -> Plan:
    """The same, and the controller is killed meanwhile: the next one knows it from the journal alone."""
    faults = (
        _slow(40.0, "proxy-1", 0.2, 61.0),
        _ask(100.0, "switchover", "backup"),
        _slow(101.05, "proxy-1", 14.6, 4.0, "step"),
        Fault(102.5, "kill", CONTROLLER, 0.5),
        _ask(106.0, "switchover", "main", force=True),
    )
    return _aimed("killed-at-opening", seed, 250.0, *faults, setup=Setup(relays=8))


def slow_repair(seed: int) -> Plan:
    """A switchover begins while a repair is on its way."""
    pool = default_pool(policy=BRISK, producers=3)
    faults = (
        _slow(40.0, "proxy-1", 1.5, 100.0),
        _open(80.0, "spare", "proxy-1"),
        _ask(86.0, "switchover", "backup"),
    )
    return _aimed("slow-repair", seed, 250.0, *faults, pool=pool)


# ---------------------------------------------------------------- the controller, its store, its people


def slow_disk(seed: int) -> Plan:
    """Writing takes long."""
    slow = Fault(80.0, "slow-ticks", CONTROLLER, 100.0, {"seconds": 1.0})
    return _aimed("slow-disk", seed, 250.0, slow, _open(100.0, "backup"))


def disk_breaks(seed: int) -> Plan:
    """Nothing can be written when a handover is due."""
    broken = Fault(105.0, "disk-broken", CONTROLLER, 25.0)
    return _aimed("disk-breaks", seed, 250.0, Fault(60.0, "stop", ("main",)), broken)


def answers_lost(seed: int) -> Plan:
    """What was written is reported as an error, and somebody else is first."""
    faults = (
        _ask(100.0, "switchover", "backup"),
        Fault(99.0, "lose-acks", CONTROLLER, None, {"count": 3.0}),
    )
    return _aimed("answers-lost", seed, 300.0, *faults)


def suspended_in_step(seed: int) -> Plan:
    """The machine stands still in the middle of a handover, for longer than a lease lasts."""
    sleep = Fault(95.0, "suspend", CONTROLLER, 100.0, {}, "fencing")
    return _aimed("suspended-in-step", seed, 400.0, _ask(100.0, "switchover", "backup"), sleep)


def paused(seed: int) -> Plan:
    """Somebody pauses, and opens the standby."""
    return _aimed("paused", seed, 200.0, _ask(60.0, "pause"), _open(80.0, "backup"))


def released(seed: int) -> Plan:
    """Somebody releases the pool; then the active one dies."""
    return _aimed("released", seed, 250.0, _ask(50.0, "release"), Fault(60.0, "stop", ("main",), 150.0))


def asked_too_late(seed: int) -> Plan:
    """A request is written while nobody is there, and expires."""
    return _aimed(
        "asked-too-late", seed, 250.0, Fault(60.0, "kill", CONTROLLER, 120.0), _ask(62.0, "switchover", "backup")
    )


def cordoned(seed: int) -> Plan:
    """The active one dies, and the first in the order is cordoned."""
    pool = default_pool(policy=BRISK, producers=3)
    faults = (_ask(30.0, "cordon", "backup"), Fault(60.0, "stop", ("main",), 200.0))
    return _aimed("cordoned", seed, 300.0, *faults, pool=pool)


def by_hand_only(seed: int) -> Plan:
    """The preferred one is to come back by hand only."""
    pool = default_pool(policy=PolicySettings(60.0, 300.0, "manual"))
    return _aimed("by-hand-only", seed, 700.0, Fault(60.0, "stop", ("main",), 100.0), pool=pool)


# ---------------------------------------------------------------- names


def names_only(seed: int) -> Plan:
    """A pool without any gate: the active one dies, and comes back."""
    pool = default_pool(policy=BRISK, proxies=0, records=1, require="none")
    return _aimed("names-only", seed, 700.0, Fault(60.0, "stop", ("main",), 150.0), pool=pool)


def names_deaf(seed: int) -> Plan:
    """A pool without any gate: the active one is out of reach, and soon nothing else answers either."""
    pool = default_pool(policy=BRISK, proxies=0, records=1, require="none")
    faults = (_cut(60.0, CONTROLLER, ("main",), 200.0), _cut(106.0, CONTROLLER, ("reference-1",), 100.0))
    return _aimed("names-deaf", seed, 300.0, *faults, pool=pool)


def name_disputed(seed: int) -> Plan:
    """Somebody keeps pointing the name elsewhere."""
    pool = default_pool(policy=BRISK, records=1)
    hands = (
        Fault(60.0 + 90.0 * n, "hand-point", (pool.records[0].label,), None, {"producer": "backup"}) for n in range(12)
    )
    return _aimed("name-disputed", seed, 1200.0, *hands, pool=pool)


def sessions_linger(seed: int) -> Plan:
    """Maintenance does not end sessions by itself, and the controller is killed between the two commands."""
    crash = Fault(95.0, "crash", CONTROLLER, 60.0, {"call": float(4 + seed), "point": "reply"}, "fencing")
    faults = (_ask(100.0, "switchover", "backup"), _slow(40.0, "proxy-1", 1.0, 90.0), crash)
    return _aimed("sessions-linger", seed, 250.0, *faults, setup=Setup(relays=3, marked_down=False))


def split_while_paused(seed: int) -> Plan:
    """Somebody pauses, opens the other producer, too, and restarts the proxies: relays are divided, and it is told."""
    proxies = ("proxy-1", "proxy-2")
    opened = Fault(60.0, "hand-open", proxies, None, {"producer": "backup"})
    again = Fault(70.0, "restart", proxies, None, {"state": "current"})
    return _aimed("split-while-paused", seed, 250.0, _ask(50.0, "pause"), opened, again, setup=Setup(relays=3))


# ---------------------------------------------------------------- gates on producers' hosts, and relays

FORGING, FIREWALL, POWER = GateKind.FORGING, GateKind.FIREWALL, GateKind.POWER


def own(*gates: GateKind, **fields: Any) -> Pool:
    """A pool whose producers have these gates of their own, and no proxy unless that is said."""
    return default_pool(**{"policy": BRISK, "proxies": 0, "gates": gates, **fields})


def keys_switchover(seed: int) -> Plan:
    """A switchover by forging gates; the agent of the old one is slow, so that it stays in between for a while."""
    slow = Fault(90.0, "agent-slow", ("main",), 60.0, {"seconds": 2.0})
    kill = Fault(95.0, "agent-kill", ("main",), None, {"seconds": 2.2 + 0.3 * seed}, "step")
    return _aimed("keys-switchover", seed, 250.0, slow, kill, _ask(100.0, "switchover", "backup"), pool=own(FORGING))


def keys_cut_later(seed: int) -> Plan:
    """The active one hangs, and in the middle of the handover its agent falls silent."""
    faults = (Fault(60.0, "hang", ("main",)), Fault(100.0, "agent-down", ("main",), None, {}, "fencing"))
    return _aimed("keys-cut-later", seed, 250.0, *faults, pool=own(FORGING))


def keys_agent_lost(seed: int) -> Plan:
    """A switchover is under way when the agent of the old one is lost."""
    down = Fault(95.0, "agent-down", ("main",), 150.0, {}, "fencing")
    return _aimed("keys-agent-lost", seed, 250.0, _ask(100.0, "switchover", "backup"), down, pool=own(FORGING))


def keys_and_power(seed: int) -> Plan:
    """A switchover from one that hangs, so that its counter cannot be read; machines could be switched off."""
    mute = Fault(60.0, "hang", ("main",), 400.0)
    pool = own(FORGING, POWER, require="confirmed")
    return _aimed("keys-and-power", seed, 160.0, mute, _ask(100.0, "switchover", "backup"), pool=pool)


def keys_slow_power(seed: int) -> Plan:
    """The active one answers too late; its agent does not. Machines could be switched off."""
    late = Fault(60.0, "slow", ("main",), None, {"seconds": 6.0})
    return _aimed("keys-slow-power", seed, 250.0, late, pool=own(FORGING, POWER, require="confirmed"))


def keys_back(seed: int) -> Plan:
    """Somebody puts the keys back on the standby."""
    return _aimed("keys-back", seed, 250.0, Fault(70.0, "credentials-by-hand", ("backup",)), pool=own(FORGING))


def keys_back_while_paused(seed: int) -> Plan:
    """Somebody pauses, and puts the keys back on the standby: two forge, and somebody is told by their counters."""
    faults = (_ask(50.0, "pause"), Fault(70.0, "credentials-by-hand", ("backup",)))
    return _aimed("keys-back-while-paused", seed, 250.0, *faults, pool=own(FORGING))


def power_late(seed: int) -> Plan:
    """The power command is slow to say how it stands; meanwhile the agent of the old one answers again."""
    faults = (
        Fault(60.0, "stop", ("main",)),
        Fault(60.0, "agent-down", ("main",), 86.0 + 0.5 * seed),
        Fault(141.0, "power-hang", ("main",), 20.0),
    )
    return _aimed("power-late", seed, 250.0, *faults, pool=own(FORGING, POWER))


def letting_go(seed: int) -> Plan:
    """A record and managed relays: a switchover."""
    pool = own(records=1, require="none", relays=3)
    return _aimed("letting-go", seed, 250.0, _ask(100.0, "switchover", "backup"), pool=pool)


def not_all_managed(seed: int) -> Plan:
    """The same where one relay is somebody else's; and the active one dies and comes back."""
    pool = own(records=1, require="none", relays=3)
    pool = replace(pool, relays=(*pool.relays[:2], replace(pool.relays[2], managed=False)))
    faults = (Fault(60.0, "stop", ("main",), 100.0), _ask(600.0, "switchover", "main"))
    return _aimed("not-all-managed", seed, 900.0, *faults, pool=pool)


def kick_overtaken(seed: int) -> Plan:
    """A kick waits for its machine, which is suspended, until the lease is over."""
    pool = own(records=1, require="none", relays=3)
    sleep = Fault(101.0, "suspend", CONTROLLER, 100.0, {}, "step")
    return _aimed("kick-overtaken", seed, 400.0, _ask(100.0, "switchover", "backup"), sleep, pool=pool)


PLANS: Mapping[str, Callable[[int], Plan]] = {
    make.__name__.replace("_", "-"): make
    for make in (
        switchover,
        opened_again,
        main_dies,
        two_outages,
        main_blinks,
        backup_blinks,
        back_in_time,
        unseen_by_us,
        isolated,
        main_lags,
        preferred_lags,
        suspended,
        unservable,
        proxy_lost,
        proxy_silent,
        proxy_silent_reachable,
        proxy_gone_lagging,
        split_sites,
        split_later,
        partition_twice,
        closed_while_paused,
        another_hand,
        opened_by_hand,
        opened_after_death,
        laggard_opened,
        first_start,
        crossed_hands,
        crossed_promotion,
        opened_then_silent,
        reload_hides,
        reload_unbounded,
        late_opening,
        killed_at_opening,
        slow_repair,
        slow_disk,
        disk_breaks,
        answers_lost,
        suspended_in_step,
        paused,
        released,
        asked_too_late,
        cordoned,
        by_hand_only,
        names_only,
        names_deaf,
        name_disputed,
        sessions_linger,
        split_while_paused,
        keys_switchover,
        keys_cut_later,
        keys_agent_lost,
        keys_and_power,
        keys_slow_power,
        keys_back,
        keys_back_while_paused,
        power_late,
        letting_go,
        not_all_managed,
        kick_overtaken,
    )
}
