"""``failover simulate`` as a person meets it: one mode at a time, what is printed, and with which exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from failover.cli import main, simulate
from failover.model import Pool
from failover.simulator import campaign, prometheus, scenario
from failover.simulator.judge import Violation
from failover.simulator.prometheus import History, Sample, Source
from failover.simulator.run import Run, play
from failover.simulator.telling import clock, rows
from failover.simulator.world import Line

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference.md"
QUIET_NIGHT = "about: Nothing happens.\nfor: 2m\nevents: []\n"
OTHER = """\
pool: OTHER
network: preview
producers: [{name: bp-a, address: "10.1.0.1:6000"}, {name: bp-b, address: "10.1.0.2:6000"}]
proxies: [{name: front, socket: /run/haproxy/admin.sock, backend: producers}]
policy: {fail_over_after: 1m}
"""
BROKEN = Violation("one-active", 61.0, "main and backup are both reachable")
LATE = replace(BROKEN, at=7000.0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is found by chance."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAILOVER_CONFIG", raising=False)
    monkeypatch.setattr("failover.config.SYSTEM", tmp_path / "nowhere.yaml")


@pytest.fixture
def night(tmp_path: Path) -> Path:
    path = tmp_path / "night.yaml"
    path.write_text("about: The active one stops.\nfor: 4m\nevents:\n  - {at: 1m, stop: main}\n")
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(OTHER)
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="failover")


def simulated(*words: str | Path) -> Result:
    return run("simulate", *words)


# ---------------------------------------------------------------- modes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "say what to play: --scenario NAME"),
        ("--all --seeds 5", "--all and --seeds: one of them at a time"),
        ("--scenario main-dies --list", "--scenario and --list: one of them at a time"),
        ("--seeds 5 --faults 1", "--faults belongs to --seed, not to --seeds"),
        ("--scenario main-dies --jobs 2", "--jobs belongs to --seeds, not to --scenario"),
        ("--all --since 90d", "--since belongs to --replay, not to --all"),
        ("--list --verbose", "--verbose belongs to"),
        ("--seed 1 --faults 0", "faults are numbered from 1 on"),
        ("--seed 1 --faults a,b", "is no list of numbers: write for example 1,4,9"),
        ("--seed 1 --faults 9999", "--faults: seed 1 has "),
        ("--seeds 0", "0 is not in the range"),
        ("--seeds 2 --profile noddes", "no profile 'noddes'. Did you mean 'nodes'"),
        ("--scenario main-dies --minutes 0", "is not in the range"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(words: str, said: str) -> None:
    done = simulated(*words.split())
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_the_built_in_pool_is_played_although_a_file_is_named(mine: Path, night: Path) -> None:
    done = run("-c", mine, "simulate", "--built-in", "--scenario", night)
    assert done.exit_code == 0
    assert "pool EXMPL" in done.stdout


def test_help_of_the_program_and_completion_load_no_simulator() -> None:
    code = (
        "import sys\nfrom failover.cli import main\n"
        "try: main(['simulate', '--help'], prog_name='failover')\nexcept SystemExit: pass\n"
        "print([n for n in sys.modules if n.startswith('failover.simulator') or n in ('asyncio', 'rich')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


# ---------------------------------------------------------------- scenarios


def test_the_list_names_every_scenario_with_a_sentence() -> None:
    done = simulated("--list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(scenario.names())
    listed = json.loads(simulated("--list", "--json").stdout)["scenarios"]
    assert [each["name"] for each in listed] == list(scenario.names())
    assert set(listed[0]) == {"name", "about", "seconds", "needs"}


def test_a_timeline_tells_what_happens_apart_from_what_the_controller_does(night: Path) -> None:
    done = simulated("--scenario", night)
    assert done.exit_code == 0
    assert "built-in pool is played" in done.stderr
    assert "     1:00  world       main down: the process ends\n" in done.stdout
    assert "     1:20  controller  main is down: 10.0.1.10:6000: connection refused\n" in done.stdout
    assert "           (nothing for 2 min)\n" in done.stdout
    assert "  handovers      0\n  invariants     all held\n" in done.stdout
    assert "close main@proxy-1" not in done.stdout


def test_verbose_tells_each_step() -> None:
    shown = simulated("--scenario", "cordon-the-active", "--verbose").stdout
    assert "step        close main@proxy-1: main is not to be reachable" in shown
    assert "step        close main@proxy-1" not in simulated("--scenario", "cordon-the-active").stdout


def test_the_same_is_told_each_time(night: Path) -> None:
    assert simulated("--scenario", night).stdout == simulated("--scenario", night).stdout


def test_the_operators_own_pool_is_played_with_its_own_times(night: Path, mine: Path) -> None:
    done = run("-c", mine, "simulate", "--scenario", night)
    assert done.exit_code == 0
    assert done.stderr == ""
    assert "pool OTHER, 4 min: producers bp-a, bp-b; proxies front" in done.stdout
    assert "     2:00  ALERT       fencing: bp-a is down for 60 s" in done.stdout


def test_a_file_that_lies_here_is_played_unless_the_built_in_pool_is_asked_for(night: Path, mine: Path) -> None:
    (mine.parent / "failover.yaml").write_text(OTHER)
    assert "pool OTHER" in simulated("--scenario", night).stdout
    done = simulated("--scenario", night, "--built-in")
    assert "pool EXMPL" in done.stdout
    assert done.stderr == ""


def test_a_scenario_about_another_pool_than_the_operators_says_so_first(mine: Path) -> None:
    done = run("-c", mine, "simulate", "--scenario", "observe", "--minutes", "1")
    first, second, heading = done.stdout.splitlines()[:3]
    assert f"{first} {second.strip()}" == (
        "note: this scenario is about a pool with mode: observe; yours has act, "
        "so what follows is not what its heading says"
    )
    assert heading.startswith("observe: The controller only observes")


def test_several_scenarios_are_told_one_after_the_other_or_as_one_document(night: Path, tmp_path: Path) -> None:
    (tmp_path / "quiet.yaml").write_text(QUIET_NIGHT)
    words = ("--scenario", night, "--scenario", "./quiet.yaml")
    shown = simulated(*words).stdout
    assert shown.index("night: The active one stops.") < shown.index("quiet: Nothing happens.")
    found = json.loads(simulated(*words, "--json").stdout)["scenarios"]
    assert [each["name"] for each in found] == ["night", "quiet"]
    assert found[0]["handovers"] == 0
    assert found[0]["lost"] > 170
    assert {line["who"] for line in found[0]["timeline"]} == {"world", "controller"}
    assert len(found[0]["trace_hash"]) == 32


def test_every_key_of_the_document_has_a_row_in_the_reference(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = play
    monkeypatch.setattr(
        "failover.simulator.run.play", lambda *args, **words: replace(broken(*args, **words), violations=(BROKEN,))
    )
    (found,) = json.loads(simulated("--scenario", night, "--json").stdout)["scenarios"]
    keys = {f"scenarios[].{key}" for key in found} | {"scenarios"}
    keys |= {f"scenarios[].{rows}[].{key}" for rows in ("violations", "timeline") for key in found[rows][0]}
    _, _, chapter = REFERENCE.read_text().partition("### `failover simulate --scenario NAME --json`\n")
    written = [line.split("`")[1] for line in chapter.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    assert set(written) == keys


def test_minutes_play_a_scenario_for_another_time() -> None:
    (found,) = json.loads(simulated("--scenario", "main-dies", "--minutes", "7", "--json").stdout)["scenarios"]
    assert found["seconds"] == 420
    assert found["lost"] == pytest.approx(120, abs=1)


def test_a_wrong_scenario_is_status_2_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(QUIET_NIGHT + "evnts: []\n")
    done = simulated("--scenario", "./bad.yaml")
    assert done.exit_code == 2
    assert "bad.yaml:4: evnts: the key is unknown. Mend: did you mean events?" in done.stderr
    done = simulated("--scenario", "main-dys")
    assert done.exit_code == 2
    assert "did you mean main-dies" in done.stderr


def test_a_scenario_about_what_the_pool_has_not_is_status_1_and_says_so(mine: Path) -> None:
    done = run("-c", mine, "simulate", "--scenario", "dns-throttled")
    assert done.exit_code == 1
    assert "error: dns-throttled needs a DNS record" in done.stderr
    command = "failover simulate --built-in --scenario dns-throttled"
    assert command in done.stderr
    assert run("-c", mine, *command.split()[1:], "--minutes", "1").exit_code == 0


def test_an_invariant_that_breaks_is_told_and_is_status_1(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(*args: Any, **kwargs: Any) -> Run:
        return replace(play(*args, **kwargs), violations=(BROKEN,), overlap={"hand": 130.0})

    monkeypatch.setattr("failover.simulator.run.play", breaking)
    done = simulated("--scenario", night)
    assert done.exit_code == 1
    assert "  BROKEN         one-active at 1:01: main and backup are both reachable\n" in done.stdout
    assert "  two reachable  130 s (2 min): let in by somebody else\n" in done.stdout
    assert "all held" not in done.stdout


def some(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(scenario, "library", lambda: tuple(scenario.find(name) for name in names))


def test_all_of_them_are_a_line_each_and_what_the_pool_has_not_is_left_out(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some(monkeypatch, "dns-throttled", "main-slow", "observe")
    done = run("-c", mine, "simulate", "--all", "--minutes", "6")
    assert done.exit_code == 0
    left_out, played, observed, last = done.stdout.splitlines()
    assert observed.endswith("(about a pool with mode: observe)")
    assert left_out.endswith("left out: dns-throttled needs a DNS record")
    assert played.split() == ["main-slow", "lost", "0", "s,", "two", "0", "s,", "0", "handovers"]
    assert last == "2 scenarios; every invariant held"
    document = json.loads(run("-c", mine, "simulate", "--all", "--minutes", "6", "--json").stdout)
    assert document["interrupted"] is False
    found = [("left_out" in each, each["name"]) for each in document["scenarios"]]
    assert found == [(True, "dns-throttled"), (False, "main-slow"), (False, "observe")]


def test_all_of_them_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    some(monkeypatch, "main-slow", "main-dies")
    real = simulate.played

    def interrupted(cast: scenario.Cast) -> Run:
        if cast.scenario.name == "main-dies":
            raise KeyboardInterrupt
        return real(cast)

    monkeypatch.setattr(simulate, "played", interrupted)
    done = simulated("--all", "--minutes", "6")
    assert done.exit_code == 130
    assert done.stdout.splitlines()[-2:] == ["interrupted: 1 of 2 scenarios", "1 scenarios; every invariant held"]
    done = simulated("--all", "--minutes", "6", "--json")
    assert done.exit_code == 130
    document = json.loads(done.stdout)
    assert document["interrupted"] is True
    assert [each["name"] for each in document["scenarios"]] == ["main-slow"]


# ---------------------------------------------------------------- timelines


def test_a_clock_shows_minutes_and_only_then_hours() -> None:
    assert [clock(each) for each in (0, 59.9, 61, 3599.5, 3600, 36061)] == [
        "0:00", "0:59", "1:01", "59:59", "1:00:00", "10:01:01",
    ]  # fmt: skip


def told(*lines: tuple[float, str, str], seconds: float = 10.0) -> Sequence[tuple[str, str]]:
    return [(row.who, row.words) for row in rows([Line(*each) for each in lines], seconds)]


def test_what_is_decided_journalled_and_alerted_in_one_moment_is_told_once() -> None:
    same = (1, "controller", "x takes over"), (1, "controller", "fencing: x takes over"), (1.2, "alert", "x takes over")
    assert told(*same) == [("alert", "fencing: x takes over")]
    assert len(told((1, "controller", "x is down"), (9, "controller", "x is down"))) == 2
    assert len(told((1, "world", "x is down"), (1, "controller", "x is down"))) == 2


def test_quiet_times_are_one_line_and_short_ones_none() -> None:
    assert told((0, "world", "a"), (119, "world", "b"), (500, "world", "c"), seconds=600) == [
        ("world", "a"), ("world", "b"), ("", "nothing for 6 min"), ("world", "c"),
    ]  # fmt: skip


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in str(told((0, "controller", "it said \x1b[2J")))


# ---------------------------------------------------------------- seeds


def breaking_seed(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Let a seed break an invariant as long as its second fault is there."""

    def play_short(pool: Pool, faults: Any, seconds: float, **words: Any) -> Run:
        made = play(pool, (), 5.0, **{**words, "settle": False})
        second = campaign.plan(seed).faults[1]
        broken = (LATE,) if words["seed"] == seed and second in faults else ()
        return replace(made, violations=broken, faults=tuple(faults))

    monkeypatch.setattr(campaign, "play", play_short)


def test_seeds_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    breaking_seed(monkeypatch, 10**6)
    done = simulated("--seeds", "3", "--jobs", "1", "--from", "5")
    assert done.exit_code == 0
    assert "so pools are drawn as well" in done.stderr
    assert "jobs: 1; a simulated hour takes one of them " in done.stderr
    assert done.stdout.startswith("3 runs, ")
    assert done.stdout.endswith("violations: none\n")


def test_a_seed_that_breaks_is_made_smaller_told_and_can_be_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    breaking_seed(monkeypatch, 1)
    done = simulated("--seeds", "2", "--jobs", "1")
    assert done.exit_code == 1
    assert "violations: 1\n" in done.stdout
    assert "  again: failover simulate --seed 1 --faults 2\n" in done.stdout
    assert "seed 1 (" in done.stdout
    assert "one-active" in done.stdout
    again = simulated("--seed", "1", "--faults", "2")
    assert again.exit_code == 1
    assert ", 1 faults\n" in again.stdout
    assert simulated("--seed", "1", "--faults", "1").exit_code == 0


def test_seeds_as_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    breaking_seed(monkeypatch, 1)
    found = json.loads(simulated("--seeds", "2", "--jobs", "1", "--json").stdout)
    assert found["runs"] == 2
    assert found["interrupted"] is False
    assert [each["again"].split()[:4] for each in found["minimised"]] == [["failover", "simulate", "--seed", "1"]]


def test_what_was_reached_is_printed_when_seeds_are_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    breaking_seed(monkeypatch, 10**6)
    real = campaign.result

    def result(seed: int, **words: Any) -> campaign.Result:
        if seed == 2:
            raise KeyboardInterrupt
        return real(seed, **words)

    monkeypatch.setattr(campaign, "result", result)
    done = simulated("--seeds", "5", "--jobs", "1")
    assert done.exit_code == 130
    assert "interrupted: 2 of 5 runs\n2 runs, " in done.stdout


def test_the_seeds_of_a_file_are_played_again_with_the_file(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def play_short(pool: Pool, faults: Any, seconds: float, **words: Any) -> Run:
        return replace(play(pool, (), 5.0, **{**words, "settle": False}), violations=(BROKEN,), faults=tuple(faults))

    monkeypatch.setattr(campaign, "play", play_short)
    done = run("-c", mine, "simulate", "--seeds", "1", "--jobs", "1", "--profile", "nodes")
    assert f"again: failover -c {mine} simulate --seed 0 --profile nodes" in " ".join(done.stdout.split())
    done = run("-c", mine, "simulate", "--built-in", "--seeds", "1", "--jobs", "1", "--profile", "nodes")
    assert "again: failover simulate --seed 0 --built-in --profile nodes" in " ".join(done.stdout.split())


# ---------------------------------------------------------------- history


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Source, float]]:
    """What was asked of a Prometheus that saw the preferred producer down for an hour of a day."""
    found: list[tuple[Source, float]] = []

    async def read(pool: Pool, source: Source, start: float, end: float, host: Any, **words: Any) -> History:
        found.append((source, end - start))
        begin = end - 86_400.0
        times = [begin + 60.0 * i for i in range(1440)]
        series = {
            "bp-a": tuple(Sample(at, not 36_000 <= at - begin < 39_600) for at in times),
            "bp-b": tuple(Sample(at, True) for at in times),
        }
        return History(begin, end, 60.0, series)

    monkeypatch.setattr(prometheus, "read", read)
    return found


def test_the_operators_own_history_is_played(mine: Path, asked: list[tuple[Source, float]]) -> None:
    words = ("--replay", "http://127.0.0.1:9090", "--since", "2h", "--query", "up", "--label", "a:1=bp-a")
    done = run("-c", mine, "simulate", *words)
    assert done.exit_code == 0, done.output
    assert "Failovers: 1; failbacks: 1; false alarms: 0" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Assumed: proxies and DNS providers obey at once")
    ((source, seconds),) = asked
    assert (source.url, source.query, source.labels) == ("http://127.0.0.1:9090", "up", {"a:1": "bp-a"})
    assert seconds == 7200
    assert json.loads(run("-c", mine, "simulate", *words, "--json").stdout)["pool"] == "OTHER"


def test_ninety_days_are_asked_for_by_default(mine: Path, asked: list[tuple[Source, float]]) -> None:
    run("-c", mine, "simulate", "--replay", "http://127.0.0.1:9090")
    assert asked[0][1] == 90 * 86400


def test_secrets_for_the_prometheus_come_from_files(
    mine: Path, asked: list[tuple[Source, float]], tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.touch(0o600)
    secret.write_text("s3cret\n")
    words = ("--replay", "http://127.0.0.1:9090", "--token-file", secret)
    assert run("-c", mine, "simulate", *words).exit_code == 0
    assert asked[0][0].token == "s3cret"
    secret.chmod(0o644)
    refused = run("-c", mine, "simulate", *words)
    assert refused.exit_code == 2
    assert "s3cret" not in refused.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--since yesterday", "--since: 'yesterday' is neither a duration"),
        ("--since 2999-01-01", "--since: lies in the future"),
        ("--label main", "--label: 'main' is not VALUE=NAME"),
        ("--username me", "--username needs --password-file"),
        ("--label a=nobody", "--label: 'nobody' is no producer of pool OTHER. There is bp-a, bp-b."),
        ("--replay ftp://127.0.0.1", "--replay: this is no http or https address: write for example http://"),
        ("--replay http://127.0.0.1:99999", "--replay: this is no http or https address"),
    ],
)
def test_a_wrong_question_to_the_history_is_a_usage_error(
    mine: Path, asked: list[tuple[Source, float]], words: str, said: str
) -> None:
    done = run("-c", mine, "simulate", "--replay", "http://127.0.0.1:9090", *words.split())
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert asked == []


def test_the_history_needs_the_pools_own_file() -> None:
    done = simulated("--replay", "http://127.0.0.1:9090")
    assert done.exit_code == 2
    assert "no configuration" in done.stderr


# ---------------------------------------------------------------- a process of its own


def test_ctrl_c_in_the_middle_of_many_seeds_ends_with_what_was_reached() -> None:
    words = [sys.executable, "-m", "failover", "simulate", "--seeds", "100000", "--jobs", "2"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    code = (
        "import os, signal, sys\nfrom failover.cli import main, simulate\nsimulate.TELL_EVERY = 0.0\n"
        "main(sys.argv[1:], prog_name='failover')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *words[3:]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("simulating: 4 "):  # by then every worker has come up
                break
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out.startswith("interrupted: ")
    assert "Traceback" not in err, err
