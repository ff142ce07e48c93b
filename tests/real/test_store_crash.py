"""The store against kill -9 at each write, power cuts, full disks, read-only mounts and dead daemons: real ones."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from failover.errors import StoreFull, StoreUnusable
from failover.model import Assignment, Cause, Commit, Event, EventKind, Instant, Phase
from failover.store.sqlite import FILE, SqliteStore

T0 = Instant("boot-1", 1_000.0, 1_790_000_000.0)
REQUIRED = frozenset(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split())
CHANGING = "write,pwrite64,fsync,fdatasync,ftruncate,fallocate,rename,unlink,mkdir"
COMMITS = 2

# A daemon's life in small. Each thing that the store acknowledged is reported on standard output.
LIFE = f"""
import os, sys
from pathlib import Path
from failover.model import Answer, Assignment, Cause, Commit, Event, EventKind, Instant, Phase, Request
from failover.model import RequestState, Verb
from failover.store.sqlite import SqliteStore

T0 = Instant("boot-1", 1000.0, 1790000000.0)
store = SqliteStore(Path(sys.argv[1]), pool="EXMPL", boot=T0.boot, clock=lambda: T0)
lease = store.acquire("first", T0, 60.0, 10.0)
first = (store.load().assignment or Assignment(0, 0, Phase.STEADY, None, None, Cause.ADOPTED, T0, "")).revision + 1
store.reserve()
for n in range(first, first + {COMMITS}):
    store.submit(Request(str(n), Verb.PAUSE, T0, T0, "alice"))
    os.write(1, b"submitted %d\\n" % n)
    store.commit(Commit(
        lease.term, Assignment(n, n, Phase.STEADY, "main", None, Cause.ADOPTED, T0, ""), n - 1,
        (Event(EventKind.DECISION, T0, "x" * 3000, n), Event(EventKind.ALERT, T0, "y" * 3000, n)),
        (Answer(str(n), RequestState.DONE, "done"),), {{"n": n}}, {{"n": n}},
    ))
    os.write(1, b"committed %d\\n" % n)
"""


def connect(folder: Path) -> SqliteStore:
    return SqliteStore(folder, pool="EXMPL", boot=T0.boot, clock=lambda: T0)


def missing(what: str, reason: str) -> None:
    """Skip for want of something, unless it was demanded."""
    if REQUIRED & {what, "all"}:
        pytest.fail(f"FAILOVER_REQUIRE demands {what}: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        missing("strace", "strace is not installed (Debian package strace)")
    tried = subprocess.run([str(found), "-f", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        missing("strace", f"strace may not trace here: {tried.stderr.strip()[-200:]}")
    return str(found)


def life(*before: str, folder: Path) -> tuple[int, list[str]]:
    """Live the small life behind the words ``before``; the exit status, and what was acknowledged."""
    command = [*before, sys.executable, "-B", "-c", LIFE, str(folder)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60, check=False)
    return ran.returncode, ran.stdout.splitlines()


def agree(folder: Path, acknowledged: list[str], base: int = 0) -> None:
    """No acknowledged write is lost, none is seen by half, and the next daemon can go on."""
    store = connect(folder)
    try:
        stored = store.load()
        revision = stored.assignment.revision if stored.assignment else 0
        committed = [int(line.split()[1]) for line in acknowledged if line.startswith("committed")]
        submitted = [line.split()[1] for line in acknowledged if line.startswith("submitted")]
        least = max(committed, default=base)
        assert least <= revision <= least + 1, f"{least} was acknowledged, {revision} is stored"
        assert stored.timers == ({"n": revision} if revision else {})
        snapshot = store.snapshot()
        assert snapshot is None if revision == 0 else snapshot == ({"n": revision}, T0)
        seen = [entry.event.generation for entry in store.history()]
        assert seen == [n for n in range(1, revision + 1) for _ in range(2)]
        for number in submitted:
            answer = store.answer(number)
            assert answer is not None
            assert (answer.state == "done") == (int(number) <= revision)
        store.reserve()
        lease = store.acquire("next", T0.after(1_000), 60.0, 10.0)
        assert lease is not None
        store.commit(Commit(lease.term, timers={"n": "next"}))
    finally:
        store.close()


# ---------------------------------------------------------------- kill -9


def calls(log: Path) -> Counter[str]:
    return Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))


@pytest.mark.parametrize("fresh", [True, False], ids=["first start", "second start"])
def test_a_kill_at_any_write_loses_nothing_acknowledged_and_leaves_no_half_commit(
    strace: str, tmp_path: Path, fresh: bool
) -> None:
    base = tmp_path / "base"
    if not fresh:
        assert life(folder=base)[0] == 0
        shutil.rmtree(tmp_path / "counted", ignore_errors=True)
        shutil.copytree(base, tmp_path / "counted")
    log = tmp_path / "log"
    tracing = (strace, "-f", "-qq", "-e", f"trace={CHANGING}", "-o", str(log))
    status, reports = life(*tracing, folder=tmp_path / "counted")
    assert (status, len(reports)) == (0, 2 * COMMITS)
    counted = calls(log)
    assert counted["fdatasync"] + counted["fsync"] >= 2 * COMMITS
    assert counted["pwrite64"] > COMMITS
    killed = 0
    for name, count in sorted(counted.items()):
        for number in range(1, count + 1):
            folder = tmp_path / f"{name}-{number}"
            if not fresh:
                shutil.copytree(base, folder)
            inject = f"inject={name}:signal=SIGKILL:when={number}"
            status, reports = life(strace, "-f", "--seccomp-bpf", "-qq", "-e", inject, "-o", "/dev/null", folder=folder)
            assert status == -signal.SIGKILL, f"{inject}: ended with {status}"
            agree(folder, reports, 0 if fresh else COMMITS)
            shutil.rmtree(folder)
            killed += 1
    assert killed == sum(counted.values())


# ---------------------------------------------------------------- a power cut


@dataclass
class Disk:
    """What a disk may hold after a power cut: what was synced, and of the rest any part, in any order.

    When nothing unsynced arrives, neither do the names of new files whose folder was not synced.
    Built from the system calls of a whole life.
    """

    synced: dict[str, bytearray] = field(default_factory=dict)
    pending: list[tuple[str, int, bytes | None]] = field(default_factory=list)  # path, offset, bytes; None: cut here
    names: set[str] = field(default_factory=set)  # durable ones

    def sync(self, path: str) -> None:
        for name, offset, data in self.pending:
            if name == path:
                apply(self.synced.setdefault(path, bytearray()), offset, data)
        self.pending = [entry for entry in self.pending if entry[0] != path]

    def cut(self, folder: Path, keep: int) -> None:
        """Write to ``folder`` what is left; bit n of ``keep`` says that the n-th unsynced write arrived anyway."""
        left = {name: bytearray(content) for name, content in self.synced.items()}
        for number, (name, offset, data) in enumerate(self.pending):
            if keep >> (number % 64) & 1:
                apply(left.setdefault(name, bytearray()), offset, data)
        folder.mkdir(mode=0o700)
        for name in left.keys() & self.names if keep == 0 else left:
            (folder / name).write_bytes(left[name])


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


CALL = re.compile(r"^\d+ +(\w+)\((\d+)<([^>]*)>(?:, (.*))?\) += (\d+)$")


def replay(log: Path, folder: Path, start: dict[str, bytes]) -> Iterator[tuple[Disk, list[str]]]:
    """The disk after each system call of the life, and what was acknowledged by then."""
    disk = Disk({name: bytearray(content) for name, content in start.items()}, names=set(start))
    reports: list[str] = []
    for line in log.read_text().splitlines():
        found = CALL.match(line)
        if found is None:
            continue
        call, descriptor, path, arguments = found[1], int(found[2]), unhex(found[3]).decode(), found[4] or ""
        name = Path(path).name
        if call == "write" and descriptor == 1:
            reports.append(unhex(arguments.split('"')[1]).decode().strip())
        elif path == str(folder):
            disk.names |= {entry[0] for entry in disk.pending} | disk.synced.keys()
        elif Path(path).parent != folder:
            continue
        elif call == "pwrite64":
            disk.pending.append((name, int(arguments.rsplit(", ", 1)[1]), unhex(arguments.split('"')[1])))
        elif call == "ftruncate":
            disk.pending.append((name, int(arguments), None))
        elif call in ("fsync", "fdatasync"):
            disk.sync(name)
        yield disk, reports


def unhex(text: str) -> bytes:
    """What strace -xx wrote as \\x41\\x42."""
    return bytes.fromhex(text.replace("\\x", ""))


def test_a_power_cut_at_any_moment_loses_nothing_acknowledged_and_leaves_no_half_commit(
    strace: str, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    assert life(folder=folder)[0] == 0
    (folder / f"{FILE}-journal").unlink()  # so that its making is part of what is cut
    start = {path.name: path.read_bytes() for path in folder.iterdir()}
    log = tmp_path / "log"
    tracing = (strace, "-f", "-qq", "-y", "-xx", "-s", "2000000", "-o", str(log))
    status, reports = life(*tracing, "-e", "trace=write,pwrite64,fsync,fdatasync,ftruncate", folder=folder)
    assert (status, len(reports)) == (0, 2 * COMMITS)
    reports = [report for report in reports if report]
    cuts = 0
    for step, (disk, told) in enumerate(replay(log, folder, start)):
        patterns = {0, -1, 0x5555555555555555, 0x3333333333333333 << (step % 2)} if disk.pending else {0}
        for keep in patterns:
            rest = tmp_path / f"cut-{cuts}"
            disk.cut(rest, keep)
            agree(rest, told, COMMITS)
            shutil.rmtree(rest)
            cuts += 1
    assert told == reports
    assert cuts > 70


# ---------------------------------------------------------------- dead daemons

HOLD = """
import sys
from pathlib import Path
from failover.model import Instant
from failover.store.sqlite import SqliteStore

T0 = Instant("boot-1", 1000.0, 1790000000.0)
store = SqliteStore(Path(sys.argv[1]), pool="EXMPL", boot=T0.boot, clock=lambda: T0)
print(store.acquire("first", T0, 60.0, 10.0).term, flush=True)
for line in sys.stdin:
    lease = store.acquire("first", T0.after(float(line)), 60.0, 10.0)
    print(lease.term if lease else None, flush=True)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease of tmp_path/state; it renews at T0 + each number that it is told."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "state")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert said(process) == "1"
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 30)
    assert ready, "the other daemon says nothing"
    return process.stdout.readline().strip()


def renew(process: subprocess.Popen[str], seconds: float) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return said(process)


def test_a_killed_holder_is_followed_one_wait_after_it_was_noticed(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    store = connect(tmp_path / "state")
    assert store.acquire("second", T0.after(1), 60.0, 10.0) is None
    assert store.acquire("second", T0.after(15), 60.0, 10.0) is None
    holder.kill()
    holder.wait(30)
    assert store.acquire("second", T0.after(16), 60.0, 10.0) is None
    assert store.acquire("second", T0.after(25.9), 60.0, 10.0) is None
    lease = store.acquire("second", T0.after(26), 60.0, 10.0)
    assert lease is not None
    assert lease.term == 2
    store.close()


def test_a_live_holder_in_another_process_keeps_the_lease(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    store = connect(tmp_path / "state")
    for seconds in range(0, 200, 20):
        assert renew(holder, seconds) == "1"
        assert store.acquire("second", T0.after(seconds + 15), 60.0, 10.0) is None
    store.close()


def test_a_stopped_holder_is_overtaken_and_finds_out_when_it_goes_on(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    store = connect(tmp_path / "state")
    holder.send_signal(signal.SIGSTOP)
    try:
        assert store.acquire("second", T0.after(69), 60.0, 10.0) is None
        lease = store.acquire("second", T0.after(70), 60.0, 10.0)
        assert lease is not None
        assert lease.term == 2
    finally:
        holder.send_signal(signal.SIGCONT)
    assert renew(holder, 71) == "None"
    assert renew(holder, 100) == "None"
    assert store.acquire("second", T0.after(101), 60.0, 10.0) == store.load().lease
    store.close()


# ---------------------------------------------------------------- small and read-only file systems


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        missing("root", f"no file system can be mounted here: {tried.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # also when a failed test left a file open


def fill(path: Path) -> None:
    """Take all the room that is left, to the last page."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError:
        os.close(descriptor)


def handover(store: SqliteStore, start: int, commits: int) -> int:
    """Write so many commits; the revision of the last one that was acknowledged."""
    done = start
    for revision in range(start + 1, start + commits + 1):
        value = Assignment(revision, revision, Phase.STEADY, "main", None, Cause.FORCED, T0, "")
        events = tuple(Event(EventKind.STEP_STARTED, T0, "x" * 300, revision, "main", {"step": f"{n}"}) for n in "ab")
        try:
            store.commit(Commit(1, value, done, events, (), {"n": revision}, {"n": revision}))
        except StoreFull:
            return done
        done = revision
    return done


def test_a_handover_that_was_reserved_is_written_on_a_full_disk_and_the_next_one_is_refused(small_disk: Path) -> None:
    folder = small_disk / "state"
    store = connect(folder)
    assert store.acquire("one", T0, 60.0, 10.0) is not None
    store.reserve()
    fill(small_disk / "filler")
    assert handover(store, 0, 40) == 40
    assert not (folder / "ballast").exists()
    with pytest.raises(StoreFull, match="no room") as refusal:
        store.reserve()
    assert refusal.value.mend
    fill(small_disk / "filler")

    done = handover(store, 40, 10_000)
    assert 40 <= done < 10_000
    stored = store.load()
    assert stored.assignment is not None
    assert stored.assignment.revision == done == stored.timers["n"] == store.history(limit=10_000)[-1].event.generation
    with pytest.raises(StoreFull):
        store.reserve()

    (small_disk / "filler").unlink()
    store.reserve()
    assert (folder / "ballast").exists()
    assert handover(store, done, 5) == done + 5
    store.close()


def test_a_lease_is_renewed_on_a_full_disk(small_disk: Path) -> None:
    store = connect(small_disk / "state")
    assert store.acquire("one", T0, 60.0, 10.0) is not None
    fill(small_disk / "filler")
    for seconds in range(20, 2_000, 20):
        assert store.acquire("one", T0.after(seconds), 60.0, 10.0) is not None
    store.close()


def test_a_first_start_on_a_full_disk_is_refused_and_goes_well_once_there_is_room(small_disk: Path) -> None:
    (small_disk / "state").mkdir(mode=0o700)
    fill(small_disk / "filler")
    with pytest.raises((StoreFull, StoreUnusable), match=r"room|written") as refusal:
        connect(small_disk / "state")
    assert refusal.value.mend
    (small_disk / "filler").unlink()
    connect(small_disk / "state").close()


def test_a_read_only_file_system_is_refused_for_writing_and_good_for_reading(small_disk: Path) -> None:
    folder = small_disk / "state"
    connect(folder).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnusable, match="not writable") as refusal:
        connect(folder)
    assert refusal.value.mend
    reader = SqliteStore.read(folder, "EXMPL")
    assert reader.load().assignment is None
    reader.close()


STRANGER = """
import os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from failover.errors import StoreUnusable
from failover.model import Instant
from failover.store.sqlite import SqliteStore

folder = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for open_it in (
    lambda: SqliteStore(folder, pool="EXMPL", boot="b", clock=lambda: Instant("b", 0.0, 0.0)),
    lambda: SqliteStore.read(folder, "EXMPL"),
):
    try:
        open_it()
        print("opened")
    except StoreUnusable as error:
        print("refused:", error, "| mend:", error.mend)
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_somebody_elses_state_folder_is_refused_with_a_mend(open_place: Path, mode: int) -> None:
    if os.geteuid() != 0:
        missing("root", "only root can become somebody else")
    folder = open_place / "state"
    connect(folder).close()
    folder.chmod(mode)
    ran = subprocess.run(
        [sys.executable, "-c", STRANGER, str(folder), *sys.path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    told = ran.stdout.splitlines()
    assert len(told) == 2
    for line in told:
        assert re.fullmatch(r"refused: .*(not writable|denied|cannot be read).* \| mend: .+", line), line
