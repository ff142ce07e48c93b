"""A history read from a real Prometheus, whose database promtool fills, and played through the policy."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from policy_world import make_pool

from failover.errors import FailoverError
from failover.host import RealHost
from failover.simulator import prometheus
from failover.simulator.prometheus import History, Source
from failover.simulator.replay import document, replay

MINUTE, HOUR, DAY = 60, 3600, 86400
STEP = 30
LENGTH = 6 * DAY  # more than one answer holds
LATEST = 20_000  # seconds ago that the history ends: its blocks are then far from the head
OUTAGE = (DAY, DAY + 20 * MINUTE)
BLIP = (2 * DAY, 2 * DAY + 4 * MINUTE)
GAP = (3 * DAY, 3 * DAY + HOUR)  # nothing was scraped
LOOKBACK = 5 * MINUTE  # Prometheus repeats a sample for so long
PATIENCE = 60.0  # seconds in which it has to start


@dataclass(frozen=True)
class Peer:
    """A running Prometheus, and from when on its history goes (Unix seconds)."""

    url: str
    start: int

    def read(self, end: int = LENGTH, query: str | None = None, labels: Mapping[str, str] | None = None) -> History:
        source = Source(self.url, query, labels or {})
        return asyncio.run(prometheus.read(make_pool(), source, self.start, self.start + end, RealHost()))


def within(at: int, times: tuple[int, int]) -> bool:
    return times[0] <= at < times[1]


def openmetrics(start: int) -> Iterator[str]:
    """Our own metric and `up`, a sample each STEP."""
    kept = [at for at in range(0, LENGTH + STEP, STEP) if not within(at, GAP)]
    down = {at for at in kept if within(at, OUTAGE) or within(at, BLIP)}
    own: Mapping[str, set[int]] = {"main": down, "backup": set()}
    yield f"# TYPE {prometheus.METRIC} gauge"
    for name, outages in own.items():
        for at in kept:
            yield f'{prometheus.METRIC}{{pool="TEST",producer="{name}"}} {int(at not in outages)} {start + at}'
    yield "# TYPE up gauge"
    for address, outages in (("10.0.1.10:12798", down), ("10.0.2.10:12798", set())):
        for at in kept:
            yield f'up{{instance="{address}",job="node"}} {int(at not in outages)} {start + at}'
    yield "# EOF"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    now = int(RealHost().now().utc)
    start = (now - LATEST - LENGTH) // STEP * STEP
    (folder / "history.om").write_text("\n".join([*openmetrics(start), ""]))
    data = folder / "data"
    backfill = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", "history.om", str(data)]
    subprocess.run(backfill, cwd=folder, check=True, capture_output=True, timeout=300)
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    port = free_port()
    with Serving(folder, data, port):
        yield Peer(f"http://127.0.0.1:{port}", start)


class Serving:
    """A Prometheus process on loopback with a folder of its own, ended with the block."""

    def __init__(self, folder: Path, data: Path, port: int) -> None:
        self._command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=365d",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._ready = threading.Event()
        self._said: list[str] = []

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        if not self._ready.wait(PATIENCE):
            self.__exit__()
            raise AssertionError("prometheus did not start: " + "".join(self._said[-20:]))

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = [*self._said[-50:], line]
            if "Server is ready to receive web requests" in line:
                self._ready.set()

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
        self._reader.join(10)
        assert self._process.stderr is not None
        self._process.stderr.close()


def test_the_history_of_our_own_metric_is_read_whole_and_played(peer: Peer) -> None:
    found = peer.read()
    assert len(found.series["main"]) == len(found.series["backup"]) > prometheus.MOST_POINTS
    result = replay(make_pool(), found)
    moves = [(move.at - peer.start, move.what, move.target) for move in result.moves]
    assert moves == [
        (OUTAGE[0] + 5 * MINUTE, "failover", "backup"),
        (OUTAGE[1] + 30 * MINUTE + 10, "failback", "main"),
    ]
    assert [(each.producer, each.count, each.total) for each in result.outages] == [
        ("main", 2, 24.0 * MINUTE),
        ("backup", 0, 0.0),
    ]
    assert (result.false_alarms, result.single_samples, result.gained) == (0, 2, 15.0 * MINUTE)
    assert document(result)["failovers"] == 1


def test_a_gap_stays_a_gap_but_for_the_time_that_prometheus_repeats_a_sample(peer: Peer) -> None:
    result = replay(make_pool(), peer.read())
    assert result.unknown == pytest.approx(GAP[1] - GAP[0] - LOOKBACK, abs=2 * STEP)


def test_a_query_of_ones_own_gives_the_same_as_our_metric(peer: Peer) -> None:
    labels = {"10.0.1.10:12798": "main", "10.0.2.10:12798": "backup"}
    assert peer.read(query='up{job="node"}', labels=labels).series == peer.read().series


def test_series_that_nobody_was_named_for_are_told(peer: Peer) -> None:
    with pytest.raises(FailoverError, match=r'instance="10\.0\.1\.10:12798"'):
        peer.read(HOUR, query="up")


def test_what_prometheus_says_of_a_wrong_query_is_passed_on(peer: Peer) -> None:
    with pytest.raises(FailoverError, match=r"answered 400, bad_data: .*parse error"):
        peer.read(HOUR, query="up{")


def test_a_time_of_which_it_holds_nothing_is_told(peer: Peer) -> None:
    earlier = Peer(peer.url, peer.start - 30 * DAY)
    with pytest.raises(FailoverError, match=r"holds nothing from .*cardano_failover_producer_up"):
        earlier.read(DAY)
