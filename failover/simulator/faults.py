"""What can go wrong in a simulated world, and what people do in it: a table of kinds, each with its words.

A run's faults are drawn, or read from a scenario, before the run begins: what is left out changes nothing of the
rest, so that a run that broke something can be made smaller, and a person can read what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens, ``at`` seconds after the beginning, to ``targets``.

    ``lasts`` (seconds): it is undone after that; None: it stays until something else ends it. ``on``: it waits, from
    ``at`` on, for the first such moment: ``fencing``, ``promoting`` (a phase begins), ``step`` (a step is sent).
    """

    at: float
    kind: str
    targets: tuple[str, ...] = ()
    lasts: float | None = None
    args: Mapping[str, Value] = field(default_factory=dict)
    on: str | None = None

    def __str__(self) -> str:
        kind = KINDS[self.kind]
        args = _plain({**kind.defaults, **self.args})
        words = kind.words.format(who=_listed(self.targets), **args).rstrip()
        if self.kind == "ask" and self.args.get("force"):
            words += " --force"
        if self.on is not None:
            words += f", when {self.on} begins" if self.on != "step" else ", when a step is sent"
        lasts = self.args.get("seconds") if self.kind == "ask" else self.lasts
        if isinstance(lasts, float):
            words += f", for {span(lasts)}"
        reason = self.args.get("reason") if self.kind == "ask" else None
        return f"{words} ({reason})" if reason else words

    def end(self) -> str:
        """What is so when it is over, in words."""
        kind = KINDS[self.kind]
        return kind.ends.format(who=_listed(self.targets), **_plain({**kind.defaults, **self.args}))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: its words (with ``{who}`` and its arguments), what it may hit, and its arguments' defaults.

    ``hits`` are kinds of targets: producer, proxy, reference, relay, record, controller, place (any machine).
    ``many``: whether it may have several targets. ``undoes``: whether it can last for a while. ``ends``: the words for
    its end, where the world says that.
    """

    words: str
    hits: tuple[str, ...]
    defaults: Mapping[str, Value] = field(default_factory=dict)
    many: bool = False
    undoes: bool = True
    ends: str = ""


def _kinds() -> dict[str, Kind]:
    p, x, r, n, c = "producer", "proxy", "reference", "record", "controller"
    return {
        # machines and processes
        "stop": Kind(
            "{who} down: the process ends", (p, x, r), many=True, ends="{who} up again: the process is started"
        ),
        "start": Kind("start of {who}", (p, x, r), {"state": "current"}, many=True, undoes=False),
        "hang": Kind(
            "{who} hung: connections are taken, nothing is answered",
            (p, x),
            many=True,
            ends="{who} going on: connections are answered again",
        ),
        "resume": Kind("{who} going on", (p, x), many=True, undoes=False),
        "power-off": Kind("power cut at {who}", (p, x, r, c), many=True, ends="power is back at {who}"),
        "power-on": Kind("power is back at {who}", (p, x, r, c), many=True, undoes=False),
        # nodes
        "replay": Kind("{who} restarts and replays its ledger", (p,), ends="{who} has replayed its ledger"),
        "crash-loop": Kind(
            "{who} crashes again and again: {down} s down, {up} s up",
            (p,),
            {"down": 70.0, "up": 50.0},
            ends="{who} crashes no more",
        ),
        "slow": Kind(
            "{who} takes {seconds} s longer to answer", (p,), {"seconds": 3.0}, ends="{who} answers as fast as before"
        ),
        "lag": Kind("{who} lags {slots} slots behind", (p,), {"slots": 400.0}, ends="{who} lags no more"),
        "stick": Kind(
            "{who} sticks: it answers, but its tip stands still", (p,), ends="{who} sticks no more: its tip moves again"
        ),
        "fork": Kind("{who} is on a fork of its own", (p,), ends="{who} has left its fork"),
        "lie": Kind(
            "{who} claims a tip {slots} slots ahead", (r,), {"slots": 5000.0}, ends="{who} tells its true tip again"
        ),
        # proxies
        "reload": Kind("reload of {who} (state file: {state})", (x,), {"state": "current"}, many=True, undoes=False),
        "restart": Kind("restart of {who} (state file: {state})", (x,), {"state": "current"}, many=True, undoes=False),
        "hand-open": Kind("somebody opens {producer} in {who}", (x,), {"producer": ""}, many=True, undoes=False),
        "hand-close": Kind("somebody closes {producer} in {who}", (x,), {"producer": ""}, many=True, undoes=False),
        "swap": Kind(
            "the servers of {who} lead to each other's producers",
            (x,),
            ends="the servers of {who} lead to their own producers again",
        ),
        # hosts of producers and relays
        "agent-down": Kind(
            "the agent of {who} is down", (p, "relay"), many=True, ends="the agent of {who} is up again"
        ),
        "agent-hang": Kind(
            "the agent of {who} hangs: orders are taken, nothing is answered",
            (p,),
            many=True,
            ends="the agent of {who} goes on",
        ),
        "agent-slow": Kind(
            "the agent of {who} takes {seconds} s longer for each deed",
            (p,),
            {"seconds": 3.0},
            many=True,
            ends="the agent of {who} is as fast as before",
        ),
        "agent-kill": Kind(
            "the agent of {who} is killed in the middle of what it does", (p,), {"seconds": 0.25}, undoes=False
        ),
        "credentials-by-hand": Kind(
            "somebody moves the keys of {who} {keys}, its node {node}",
            (p,),
            {"keys": "back", "node": "told"},
            undoes=False,
        ),
        "node-restart": Kind("the node of {who} is restarted", (p,), {"seconds": 15.0}, undoes=False),
        "host-reboot": Kind("the machine of {who} is rebooted", (p,), {"seconds": 60.0}, undoes=False),
        "metrics-silent": Kind(
            "the metrics of {who} cannot be read", (p,), ends="the metrics of {who} can be read again"
        ),
        "kes-expire": Kind("the KES key of {who} expires", (p,), ends="{who} has a new KES key"),
        "firewall-flush": Kind("somebody flushes the firewall of {who}", (p,), undoes=False),
        "power-hang": Kind(
            "the power command for {who} does not end", (p,), ends="the power command for {who} ends again"
        ),
        "power-lies": Kind(
            "the power command for {who} lies about the {about}",
            (p,),
            {"about": "order"},
            ends="the power command for {who} tells the truth again",
        ),
        "power-lose-reply": Kind(
            "the power command for {who} switches, and does not end",
            (p,),
            ends="the power command for {who} ends again, having switched",
        ),
        # the network
        "cut": Kind(
            "network cut between {who} / {from}",
            ("place",),
            {"from": ()},
            many=True,
            ends="network mended between {who} / {from}",
        ),
        "cut-one-way": Kind(
            "nothing gets from {who} / to {from}",
            ("place",),
            {"from": ()},
            many=True,
            ends="things get from {who} / to {from} again",
        ),
        "slow-path": Kind(
            "the way between {who} and {from} takes {seconds} s more",
            ("place",),
            {"from": (), "seconds": 3.0},
            many=True,
            ends="the way between {who} and {from} is as fast as before",
        ),
        "lossy": Kind(
            "the way between {who} and {from} loses {share} of its packets",
            ("place",),
            {"from": (), "share": 0.3},
            many=True,
            ends="the way between {who} and {from} loses no more packets",
        ),
        # DNS
        "throttle": Kind("the provider of {who} throttles", (n,), ends="the provider of {who} throttles no more"),
        "hang-dns": Kind("the provider of {who} does not answer", (n,), ends="the provider of {who} answers again"),
        "refuse-dns": Kind(
            "the provider of {who} refuses changes", (n,), ends="the provider of {who} takes changes again"
        ),
        "pending": Kind("changes of {who} stay PENDING", (n,), ends="changes of {who} stay PENDING no more"),
        "lose-dns-replies": Kind(
            "changes of {who} are made, their answers are lost",
            (n,),
            ends="answers to changes of {who} are lost no more",
        ),
        "late-dns": Kind(
            "changes of {who} arrive {seconds} s late",
            (n,),
            {"seconds": 30.0},
            ends="changes of {who} arrive in time again",
        ),
        "hand-point": Kind("somebody points {who} to {producer}", (n,), {"producer": ""}, undoes=False),
        "empty-record": Kind("somebody removes {who}", (n,), undoes=False),
        "freeze-server": Kind(
            "a server of {who} goes on saying what it says",
            (n,),
            ends="every server of {who} says what it is told again",
        ),
        # the state folder
        "disk-full": Kind("the state folder is full", (c,), ends="the state folder has room again"),
        "disk-broken": Kind("the state folder cannot be used", (c,), ends="the state folder can be used again"),
        "lose-acks": Kind(
            "the state folder writes, and reports an error, {count} times", (c,), {"count": 2.0}, undoes=False
        ),
        "conflict": Kind("the state folder is overtaken {count} times", (c,), {"count": 2.0}, undoes=False),
        "roll-back": Kind("the state folder of {seconds} s ago is put back", (c,), {"seconds": 600.0}, undoes=False),
        "delete-state": Kind("the state folder is deleted", (c,), undoes=False),
        # the controller's machine
        "kill": Kind("the controller is killed", (c,), ends="the controller is started again"),
        "stop-controller": Kind(
            "the controller is stopped in good order", (c,), ends="the controller is started again"
        ),
        "start-controller": Kind("the controller is started", (c,), undoes=False),
        "crash": Kind("the controller is killed at its {call}th call from now", (c,), {"call": 1.0, "point": "before"}),
        "suspend": Kind("the controller's machine is suspended", (c,)),
        "freeze": Kind("the controller's machine stands still, its clocks too", (c,)),
        "step-clock": Kind("the controller's clock is set by {seconds} s", (c,), {"seconds": -3600.0}, undoes=False),
        "drift": Kind(
            "the controller's clock runs {ppm} ppm fast",
            (c,),
            {"ppm": 500.0},
            ends="the controller's clock runs true again",
        ),
        "slow-ticks": Kind(
            "the controller's disk takes {seconds} s for everything",
            (c,),
            {"seconds": 2.0},
            ends="the controller's disk is as fast as before",
        ),
        "reload-file": Kind("the controller reads its file again", (c,), undoes=False),
        "second": Kind(
            "a second controller is started on the same machine", (c,), ends="the second controller is gone"
        ),
        # people
        "ask": Kind("the operator: {verb} {producer}", (), {"verb": "", "producer": ""}, undoes=False),
    }


KINDS: Mapping[str, Kind] = _kinds()


def span(seconds: float) -> str:
    """So many seconds as people write them: 90 s, 15 min, 1 h 30 min."""
    whole = round(seconds)
    if whole < 120 or whole % 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    if hours and minutes:
        return f"{hours} h {minutes} min"
    return f"{hours} h" if hours else f"{minutes} min"


def _listed(names: tuple[str, ...]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _plain(args: Mapping[str, Value]) -> dict[str, str]:
    words = {}
    for name, value in args.items():
        if isinstance(value, tuple):
            words[name] = _listed(value)
        else:
            words[name] = f"{value:g}" if isinstance(value, float) else str(value)
    return words
