"""Prometheus metrics: gauges read off the present report, counters and histograms fed by what happens.

An ``Observer`` of the controller and a collector of prometheus-client, in a registry of its own. Names and labels are
the public face (INTERFACE, Metrics). Every series carries ``pool``; the values of all other labels come from the
configuration or from fixed sets in the code. What is unknown has no series: absent, not zero.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from . import record_status, splits, status
from .controller import Report
from .model import KICK, POINT, Cause, Event, EventKind, Instant, Phase, Ping, Pool, StepKind
from .tick import Outcome

PREFIX = "cardano_failover"
STAGES = ("dns", "connect", "handshake", "keep-alive", "tip")
RESULTS = ("sent", "overtaken", "unknown", "unreachable", "refused")
POINT_RESULTS = (*RESULTS, "conflict", "throttled")
DRIFTS = (
    *splits.KINDS,
    *("proxy-silent", "another-hand", "reloaded", "tainted", "not-serving", "passed-over", "exposed"),
    *(
        "gate-silent",
        "powered-off",
        "host",
        "credentials",
        "not-forging",
        "relay-silent",
        "relay-astray",
        "relay-alone",
    ),
    *("record-unreadable", "record-unownable", "record-missing", "record-several", "record-ttl", "record-elsewhere"),
    *("record-another-hand", "record-stuck", "record-pending", "record-unverified", "servers-disagree", "server-lame"),
)
SERVERS = ("agreeing", "differing", "silent", "lame")
PING_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
HANDOVER_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
TICK_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)

Values = Mapping[Any, float]  # a tuple of label values to the series' value


class Metrics(Collector):
    """All metrics of one pool. ``report`` gives the present state; ``exposition`` is what is scraped."""

    def __init__(self, pool: Pool, now: Callable[[], Instant], report: Callable[[], Report], version: str) -> None:
        self._pool = pool
        self._now = now
        self._report = report
        self._version = version
        self._last_tick: Instant | None = None
        self._handover_since: Instant | None = None
        self.registry = CollectorRegistry(auto_describe=False)
        self._pings = self._histogram(
            "ping_seconds", "Duration of whole node-to-node pings that succeeded.", PING_BUCKETS, "producer"
        )
        self._ping_failures = self._counter(
            "ping_failures", "Pings that failed, by the stage at which they did.", "producer", "stage"
        )
        self._handovers = self._counter(
            "handovers", "Handovers that ended, by who became active and why.", "to", "cause"
        )
        self._handover_seconds = self._histogram(
            "handover_seconds", "From the first fencing to the end of a handover.", HANDOVER_BUCKETS
        )
        self._steps = self._counter("steps", "Commands to gates and providers, by their result.", "kind", "result")
        self._ticks = self._histogram("tick_seconds", "Duration of one decision.", TICK_BUCKETS)
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asked for
        self._begin(pool)
        self.registry.register(self)

    def exposition(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self.registry)

    def follow(self, pool: Pool) -> None:
        """Go over to a file that was read again: series of producers that are gone end."""
        for name in set(self._pool.names) - set(pool.names):
            self._pings.remove(self._pool.name, name)
            for stage in STAGES:
                self._ping_failures.remove(self._pool.name, name, stage)
            for cause in Cause:
                self._handovers.remove(self._pool.name, name, cause.value)
        self._pool = pool
        self._begin(pool)

    # ------------------------------------------------------------ as an Observer

    def event(self, event: Event) -> None:
        """Count what the journal says."""
        name, detail = self._pool.name, event.detail
        if event.kind in (EventKind.STEP_DONE, EventKind.STEP_FAILED):
            self._steps.labels(name, str(detail.get("kind")), str(detail.get("result"))).inc()
        elif event.kind is EventKind.PHASE_CHANGED:
            self._phase_changed(event)

    def ping(self, producer: str, ping: Ping) -> None:
        """Count one ping."""
        if producer not in self._pool.names:
            return
        if ping.ok and ping.seconds is not None:
            self._pings.labels(self._pool.name, producer).observe(ping.seconds)
        elif not ping.ok:
            stage = ping.stage if ping.stage in STAGES else STAGES[0]
            self._ping_failures.labels(self._pool.name, producer, stage).inc()

    def ticked(self, seconds: float, outcome: Outcome) -> None:
        """Count one tick."""
        self._last_tick = self._now()
        self._ticks.labels(self._pool.name).observe(seconds)

    def _phase_changed(self, event: Event) -> None:
        phase = event.detail.get("phase")
        if phase == Phase.FENCING.value:
            self._handover_since = self._handover_since or event.at
        elif phase == Phase.STEADY.value and self._handover_since is not None:
            to, cause = str(event.detail.get("active")), str(event.detail.get("cause"))
            self._handovers.labels(self._pool.name, to, cause).inc()
            self._handover_seconds.labels(self._pool.name).observe(event.at.since(self._handover_since))
            self._handover_since = None

    # ------------------------------------------------------------ as a collector

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is collected at registration."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The gauges of the present report, and the counters of split brains."""
        report = self._report()
        document = status.document(report, last_tick=self._last_tick)
        yield from self._assignment_gauges(document)
        yield from self._observed_gauges(report, document)
        yield from self._host_gauges(document)
        yield from self._record_gauges(document)
        yield from self._record_times(report)
        yield from self._own_gauges(report)
        yield from self._incidents(report)

    def _incidents(self, report: Report) -> Iterator[CounterMetricFamily]:
        """Counted over the life of the store, so that a restart in the middle loses none and counts none twice."""
        if report.outcome is None:
            return
        ledger = report.outcome.memory.ledger
        seconds = ledger.seconds_at(report.now)
        yield self._total("split_brains", "Times that two producers were reachable at once.", ledger.number)
        yield self._total("split_brain_seconds", "Time in which two producers were reachable at once.", seconds)

    def _assignment_gauges(self, doc: status.Document) -> Iterator[GaugeMetricFamily]:
        names = self._pool.names
        pinned = doc["pinned"]["producer"] if doc["pinned"] else None
        active = {(n,): float(n == doc["active"]) for n in names}
        phases = {(p.value,): float(p.value == doc["phase"]) for p in Phase}
        drift = {(kind,): float(sum(d["kind"] == kind for d in doc["drift"])) for kind in DRIFTS}
        nearest: dict[tuple[str, ...], float] = {}
        for action in doc["next"]:
            nearest.setdefault((action["action"],), float(action["in_seconds"]))
        yield self._gauge("active", "Whether the assignment names the producer.", active, "producer")
        yield self._gauge("generation", "The number of the last handover.", {(): float(doc["generation"])})
        yield self._gauge("phase", "1 for the phase that the assignment is in.", phases, "phase")
        yield self._gauge("paused", "Whether automatic steps are paused.", {(): float(doc["paused"] is not None)})
        pins = {(n,): float(n == pinned) for n in names}
        yield self._gauge("pinned", "Whether the role is pinned to the producer.", pins, "producer")
        yield self._gauge("split_brain", "Whether two producers are reachable.", {(): float(doc["split_brain"])})
        yield self._gauge("drift", "Observations that differ from the assignment, by kind.", drift, "kind")
        yield self._gauge("next_action_seconds", "Until the automatic step, should nothing change.", nearest, "action")
        yield self._gauge("isolated", "Whether nothing outside answers.", {(): float(doc["isolated"])})

    def _observed_gauges(self, report: Report, doc: status.Document) -> Iterator[GaugeMetricFamily]:
        known = {p["name"]: p for p in doc["producers"]}
        admitted = {(n,): float(p["admitted"]) for n, p in known.items() if p["admitted"] is not None}
        exposed = {(n,): float(any(e["producer"] == n for e in doc["exposed"])) for n in known}
        up = {(n,): float(p["health"] == "up") for n, p in known.items() if p["health"] != "unknown"}
        fit = {(n,): float(p["fit"]) for n, p in known.items() if p["fit"] is not None}
        tips = {(n,): float(p["tip_slot"]) for n, p in known.items() if p["tip_slot"] is not None}
        reachable = {(p["name"],): float(p["reachable"]) for p in doc["proxies"]}
        proxies = [g for g in doc["gates"] if g["proxy"] is not None]
        doors = {(g["proxy"], g["producer"]): float(g["open"]) for g in proxies if g["open"] is not None}
        sessions = {
            (p["name"], name): float(server["sessions"])
            for p in doc["proxies"]
            if p["reachable"]
            for name, server in p["servers"].items()
        }
        yield self._gauge("admitted", "Whether any gate of the producer was last seen open.", admitted, "producer")
        yield self._gauge("exposed", "Whether relays may be with it that the role has left.", exposed, "producer")
        yield self._gauge("producer_up", "Whether the producer answers pings.", up, "producer")
        yield self._gauge("producer_fit", "Whether the producer is worth making active.", fit, "producer")
        yield self._gauge("tip_slot", "Slot of the producer's tip at its last ping.", tips, "producer")
        yield self._gauge("proxy_reachable", "Whether the proxy's management answers.", reachable, "proxy")
        yield self._gauge(
            "proxy_server_open", "Whether the producer's server is open in the proxy.", doors, "proxy", "producer"
        )
        yield self._gauge(
            "proxy_sessions", "Sessions of the producer through the proxy.", sessions, "proxy", "producer"
        )

    def _host_gauges(self, doc: status.Document) -> Iterator[GaugeMetricFamily]:
        gates = [g for g in doc["gates"] if g["proxy"] is None]
        opened = {(g["kind"], g["producer"]): float(g["open"]) for g in gates if g["open"] is not None}
        answers = {(g["kind"], g["producer"]): float(g["reachable"]) for g in gates}
        nodes = {(p["name"],): p["node"] for p in doc["producers"] if p["node"] is not None}
        forges = {n: float(node["forges"]) for n, node in nodes.items() if node["forges"] is not None}
        left = {n: float(node["kes_periods_left"]) for n, node in nodes.items() if node["kes_periods_left"] is not None}
        relays = [r for r in doc["relays"] if r["reachable"] is not None]
        reachable = {(r["name"],): float(r["reachable"]) for r in relays}
        sessions = {
            (r["name"], name): float(sum(c["producer"] == name for c in r["connected"]))
            for r in relays
            if r["reachable"] and r["connected"] is not None
            for name in self._pool.names
        }
        yield self._gauge("gate_open", "Whether the gate on the producer's host is open.", opened, "kind", "producer")
        yield self._gauge("gate_reachable", "Whether that gate answers.", answers, "kind", "producer")
        yield self._gauge("producer_forging", "Whether its about-to-lead counter rises.", forges, "producer")
        yield self._gauge("kes_periods_left", "KES periods until its key ends.", left, "producer")
        yield self._gauge("relay_reachable", "Whether the relay's agent answers.", reachable, "relay")
        yield self._gauge("relay_sessions", "Sessions of the relay with the producer.", sessions, "relay", "producer")

    def _record_gauges(self, doc: status.Document) -> Iterator[GaugeMetricFamily]:
        records = {r["name"]: r for r in doc["records"]}
        read = {(n,): float(r["readable"]) for n, r in records.items() if r["readable"] is not None}
        in_sync = {(n,): float(r["in_sync"]) for n, r in records.items() if r["in_sync"] is not None}
        points = {
            (n, producer): float(r["points_to"] == producer)
            for n, r in records.items()
            if r["readable"] and (r["points_to"] is not None or not r["error"])
            for producer in self._pool.names
        }
        servers: dict[tuple[str, ...], float] = {}
        verified: dict[tuple[str, ...], float] = {}
        for name, record in records.items():
            states = [_server_state(answer) for answer in record["answers"]]
            if states and None not in states:
                servers |= {(name, state): float(states.count(state)) for state in SERVERS}
            if "agreeing" in states or "differing" in states:
                verified[name,] = float("differing" not in states)
        yield self._gauge("record_readable", "Whether the record's provider answers.", read, "record")
        yield self._gauge("dns_in_sync", "Whether the provider has everywhere what it should.", in_sync, "record")
        yield self._gauge(
            "dns_points_to", "Whether the provider's value is the producer's.", points, "record", "producer"
        )
        yield self._gauge(
            "dns_verified", "Whether all servers that answer agree with the provider.", verified, "record"
        )
        yield self._gauge("dns_servers", "Servers of the record, by what they say.", servers, "record", "state")

    def _record_times(self, report: Report) -> Iterator[GaugeMetricFamily]:
        records = [(record, report.view.records[record.label]) for record in report.pool.records]
        accepted = {(r.label,): t.accepted_at.utc for r, t in records if t.accepted_at is not None}
        insync = {(r.label,): t.insync_at.utc for r, t in records if t.insync_at is not None}
        untils = {
            (r.label, producer): record_status.believed_until(r, t, producer, report.now)
            for r, t in records
            for producer in report.pool.names
        }
        believed = {key: until.utc for key, until in untils.items() if until is not None}
        yield self._gauge(
            "dns_accepted_timestamp_seconds", "When the provider accepted our last change.", accepted, "record"
        )
        yield self._gauge(
            "dns_insync_timestamp_seconds", "When the provider had our last change everywhere.", insync, "record"
        )
        yield self._gauge(
            "dns_believed_until_timestamp_seconds",
            "Until when, at worst, a relay may look up the producer that the record has left.",
            believed,
            *("record", "producer"),
        )

    def _own_gauges(self, report: Report) -> Iterator[GaugeMetricFamily]:
        lease, now = report.lease, report.now
        left = max(0.0, lease.expires.mono - now.mono) if lease is not None and report.held else 0.0
        yield self._gauge("is_decider", "Whether this controller holds the lease.", {(): float(report.held)})
        yield self._gauge("lease_seconds_left", "Until our lease would run out, were it not renewed.", {(): left})
        if self._last_tick is not None:
            at = {(): self._last_tick.utc}
            yield self._gauge("last_tick_timestamp_seconds", "When it was last decided, in Unix time.", at)
        yield self._gauge("alerts_pending", "Alerts that are not delivered yet.", {(): 0.0})
        build = {(self._version, platform.python_version()): 1.0}
        yield self._gauge("build_info", "The versions that run.", build, "version", "python")

    # ------------------------------------------------------------ how they are made

    def _begin(self, pool: Pool) -> None:
        """Let counters be there from the start, at zero: otherwise their first increase cannot be seen."""
        self._ticks.labels(pool.name)
        self._handover_seconds.labels(pool.name)
        for kind, result in product(StepKind, RESULTS):
            self._steps.labels(pool.name, kind.value, result)
        for result in RESULTS if any(relay.managed for relay in pool.relays) else ():
            self._steps.labels(pool.name, KICK, result)
        for result in POINT_RESULTS if pool.records else ():
            self._steps.labels(pool.name, POINT, result)
        for name, cause in product(pool.names, Cause):
            self._handovers.labels(pool.name, name, cause.value)
        for name in pool.names:
            self._pings.labels(pool.name, name)
            for stage in STAGES:
                self._ping_failures.labels(pool.name, name, stage)

    def _gauge(self, name: str, help_: str, values: Values, *labels: str) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"{PREFIX}_{name}", help_, labels=("pool", *labels))
        for key, value in values.items():
            family.add_metric((self._pool.name, *key), value)
        return family

    def _total(self, name: str, help_: str, value: float) -> CounterMetricFamily:
        family = CounterMetricFamily(f"{PREFIX}_{name}", help_, labels=("pool",))
        family.add_metric((self._pool.name,), value)
        return family

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", help_, ("pool", *labels), registry=self.registry)

    def _histogram(self, name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", help_, ("pool", *labels), registry=self.registry, buckets=buckets)


def _server_state(answer: Mapping[str, Any]) -> str | None:
    """One of SERVERS; None where there is nothing to compare the answer with."""
    if answer["fault"] is not None:
        return str(answer["fault"])
    return {True: "agreeing", False: "differing", None: None}[answer["agrees"]]
