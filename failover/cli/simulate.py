"""``failover simulate``: the operator's own pool, or a built-in one, in a simulated world where things go wrong.

One of its modes at a time: scenarios, many seeds, one seed, or the operator's own history.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from failover.cli import INTERRUPTED
from failover.cli.file import loaded
from failover.errors import ConfigError

if TYPE_CHECKING:
    from failover.model import Pool
    from failover.simulator.campaign import Plan, Summary
    from failover.simulator.run import Run
    from failover.simulator.scenario import Cast, Scenario

MOST_SEEDS = 10_000_000
MOST_SEED = 2**63 - 1
EXPLAINED = 3  # broken seeds that are made smaller and told; the others are named
TELL_EVERY = 10.0  # seconds between lines of progress where there is no terminal
SINCE = "90d"
ASSUMED = (
    "Assumed: proxies and DNS providers obey at once, proxies agree with the history, references answer, no tip is "
    "looked at, nobody asks for anything by hand, and a handover takes no time."
)

MODES = {
    "scenarios": "--scenario",
    "all_": "--all",
    "list_": "--list",
    "seeds": "--seeds",
    "seed": "--seed",
    "replay": "--replay",
}
BELONGS = {  # options that mean something in some modes only
    "start": ("--from", ("seeds",)),
    "faults": ("--faults", ("seed",)),
    "profile": ("--profile", ("seeds", "seed")),
    "jobs": ("--jobs", ("seeds",)),
    "within": ("--within", ("seeds",)),
    "minutes": ("--minutes", ("scenarios", "all_", "seed")),
    "since": ("--since", ("replay",)),
    "query": ("--query", ("replay",)),
    "labels": ("--label", ("replay",)),
    "username": ("--username", ("replay",)),
    "password_file": ("--password-file", ("replay",)),
    "token_file": ("--token-file", ("replay",)),
    "ca_file": ("--ca-file", ("replay",)),
    "verbose": ("--verbose", ("scenarios", "all_", "seeds", "seed")),
    "built_in": ("--built-in", ("scenarios", "all_", "seeds", "seed")),
}


class Numbers(click.ParamType[tuple[int, ...]]):
    """Numbers from 1 on, with commas between them."""

    name = "numbers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """``value`` as numbers, each once, in order."""
        words = str(value).split(",")
        if len(words) > 10_000 or not all(word.strip().isdecimal() and len(word) < 8 for word in words):
            self.fail(f"{str(value)[:40]!r} is no list of numbers: write for example 1,4,9", param, ctx)
        found = tuple(sorted({int(word) for word in words}))
        if found[0] < 1:
            self.fail("faults are numbered from 1 on", param, ctx)
        return found


@click.command("simulate")
@click.option(
    "--scenario", "scenarios", multiple=True, metavar="NAME|FILE", help="Play it: one of --list, or a file's path."
)
@click.option("--all", "all_", is_flag=True, help="Play the whole library, a line each; in full with --verbose.")
@click.option("--list", "list_", is_flag=True, help="Name the scenarios of the library.")
@click.option(
    "--seeds", type=click.IntRange(1, MOST_SEEDS), metavar="N", help="Play N runs whose faults are drawn by chance."
)
@click.option(
    "--from", "start", type=click.IntRange(0, MOST_SEED), metavar="SEED", help="The first of them. Default: 0."
)
@click.option("--seed", type=click.IntRange(0, MOST_SEED), metavar="SEED", help="Play one of them again, and tell it.")
@click.option("--faults", type=Numbers(), metavar="1,4,9", help="With only these of its faults.")
@click.option("--profile", metavar="NAME", help="Which mix of faults is drawn from. Default: all, in turn.")
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Processes. Default: one for each core.")
@click.option(
    "--within", type=click.FloatRange(1, 7 * 86_400), metavar="SECONDS", help="Leave it at what was played by then."
)
@click.option(
    "--minutes", type=click.FloatRange(1, 7 * 1440), metavar="M", help="Play so long, instead of to the usual end."
)
@click.option("--replay", metavar="URL", help="Play what this Prometheus saw of the producers through the policy.")
@click.option("--since", metavar="WHEN", help=f"From then on: a duration back from now, or a time. Default: {SINCE}.")
@click.option("--query", metavar="PROMQL", help="Ask this instead of our own metric: 1 for up, 0 for down.")
@click.option(
    "--label", "labels", multiple=True, metavar="VALUE=NAME", help="A label's value stands for this producer."
)
@click.option("--username", metavar="NAME", help="For the Prometheus, with --password-file.")
@click.option("--password-file", type=click.Path(path_type=Path), help="A file with the password alone.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with a bearer token alone.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Certificates that the Prometheus' must chain to.")
@click.option("--built-in", is_flag=True, help="Leave any file aside: the built-in pool, or drawn ones.")
@click.option("--verbose", "-v", is_flag=True, help="Tell each step as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Play this file's pool through failures on a simulated clock, and print what would happen.

    The controller is the real one; nodes, proxies, DNS, network and clocks are simulated, and nothing is contacted.
    Without a file a built-in pool is played: two producers behind two proxies. --replay asks a Prometheus.

    Exit status: 0; 1 an invariant was broken, or it could not be played; 2 usage or a file; 130 interrupted.
    """
    mode = _mode(ctx, options)
    asked = Asked(ctx, as_json, **options)
    sys.exit(_RUNS[mode](asked))


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line, checked."""

    ctx: click.Context
    as_json: bool
    scenarios: tuple[str, ...] = ()
    all_: bool = False
    list_: bool = False
    seeds: int | None = None
    start: int | None = None
    seed: int | None = None
    faults: tuple[int, ...] | None = None
    profile: str | None = None
    jobs: int | None = None
    within: float | None = None
    minutes: float | None = None
    replay: str | None = None
    since: str | None = None
    query: str | None = None
    labels: tuple[str, ...] = ()
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    built_in: bool = False
    verbose: bool = False

    @property
    def drawn(self) -> bool:
        """Whether faults are drawn by chance, and without a file the pool as well."""
        return self.seeds is not None or self.seed is not None


def _given(value: object) -> bool:
    return value not in (None, (), False)


def _mode(ctx: click.Context, options: Mapping[str, Any]) -> str:
    """Which of the modes is asked for. Raises UsageError unless it is exactly one, with options that belong to it."""
    asked = [name for name in MODES if _given(options[name])]
    if not asked:
        raise click.UsageError(
            "say what to play: --scenario NAME (--list names them), --all, --seeds N, --seed SEED or --replay URL", ctx
        )
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(MODES[name] for name in asked)}: one of them at a time", ctx)
    for name, (option, modes) in BELONGS.items():
        if _given(options[name]) and asked[0] not in modes:
            words = " or ".join(MODES[mode] for mode in modes)
            raise click.UsageError(f"{option} belongs to {words}, not to {MODES[asked[0]]}", ctx)
    return asked[0]


def _pool(asked: Asked) -> Pool | None:
    """The operator's own pool; None, said on stderr, where there is no file or the built-in one is wanted."""
    from failover import config

    given = asked.ctx.obj.get("config") if isinstance(asked.ctx.obj, dict) else None
    if asked.built_in:
        return None
    if not given and not os.environ.get(config.VARIABLE):
        try:
            config.find(None, os.environ, Path.cwd())
        except ConfigError:
            played_instead = "pools are drawn as well" if asked.drawn else "a built-in pool is played"
            click.echo(f"note: no configuration file, so {played_instead}; name yours with -c FILE", err=True)
            return None
    from failover.simulator import pools

    return pools.load(config.find(given, os.environ, Path.cwd()))


def _say(style: str, text: str) -> None:
    """A line on stdout, with the colour of its style where there are colours."""
    from failover.simulator.telling import styles

    shown = styles().get(style)
    if shown and sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        text = click.style(text, **shown)
    click.echo(text)


# ---------------------------------------------------------------- scenarios


def _list(asked: Asked) -> int:
    from failover.simulator import scenario

    found = scenario.library()
    if asked.as_json:
        rows = [{"name": s.name, "about": s.about, "seconds": s.seconds, "needs": list(s.needs)} for s in found]
        click.echo(json.dumps({"scenarios": rows}, indent=2))
        return 0
    width = max(len(each.name) for each in found)
    for each in found:
        click.echo(f"{each.name:<{width}}  {each.about}")
    return 0


def _play(asked: Asked) -> int:
    """Play each of the scenarios that are named, and tell it in full."""
    from failover.simulator import scenario

    found = [scenario.find(name) for name in asked.scenarios]
    pool = _pool(asked)
    cast = [_shortened(scenario.cast(each, pool), asked.minutes) for each in found]
    documents, good = [], True
    for number, each in enumerate(cast):
        run = played(each)
        good &= not run.violations
        if asked.as_json:
            documents.append(_document(each, run))
            continue
        if number:
            click.echo("")
        tell(each, run, steps=asked.verbose)
    if asked.as_json:
        click.echo(json.dumps({"scenarios": documents}, indent=2))
    return 0 if good else 1


def _all(asked: Asked) -> int:
    """Play the library: a line for each, or all of it."""
    from failover.simulator import scenario, telling

    pool, found = _pool(asked), scenario.library()
    width = max(len(each.name) for each in found)
    documents: list[dict[str, Any]] = []
    count = broken = 0
    interrupted = False
    try:
        for each in found:
            try:
                cast = _shortened(scenario.cast(each, pool), asked.minutes)
            except scenario.Unplayable as error:
                documents.append({"name": each.name, "about": each.about, "left_out": str(error)})
                if not asked.as_json:
                    click.echo(f"{each.name:<{width}}  left out: {error}")
                continue
            run = played(cast)
            count, broken = count + 1, broken + bool(run.violations)
            documents.append(_document(cast, run))
            if asked.as_json:
                continue
            if asked.verbose:
                tell(cast, run, steps=True)
                click.echo("")
            else:
                about = f" (about a pool with {cast.premise})" if cast.premise else ""
                _say("broken" if run.violations else "", f"{each.name:<{width}}  {telling.in_short(run)}{about}")
    except KeyboardInterrupt:
        interrupted = True
    if asked.as_json:
        click.echo(json.dumps({"scenarios": documents, "interrupted": interrupted}, indent=2))
    else:
        if interrupted:
            click.echo(f"interrupted: {len(documents)} of {len(found)} scenarios")
        words = f"an invariant was broken in {broken} of them" if broken else "every invariant held"
        click.echo(f"{count} scenarios; {words}")
    if interrupted:
        return INTERRUPTED
    return 1 if broken else 0


def _shortened(cast: Cast, minutes: float | None) -> Cast:
    if minutes is None:
        return cast
    return replace(cast, scenario=replace(cast.scenario, seconds=minutes * 60.0))


def played(cast: Cast) -> Run:
    """A scenario's run, with seed 0: the same each time."""
    from failover.simulator.run import play

    return play(cast.pool, cast.faults, cast.scenario.seconds, setup=cast.setup)


def tell(cast: Cast, run: Run, *, steps: bool = False) -> None:
    """Print a scenario's run."""
    from failover.simulator.telling import told

    for style, line in told(heading(cast), run, steps=steps):
        _say(style, line)


def heading(cast: Cast) -> Iterator[str]:
    """What is played, and in which pool."""
    from textwrap import wrap

    from failover.simulator.faults import span
    from failover.simulator.telling import WIDTH, people

    scenario: Scenario = cast.scenario
    for note in cast.notes:
        yield from wrap(f"note: {note}", WIDTH, subsequent_indent="  ")
    about = f"{scenario.name}: {scenario.about}" if scenario.about else scenario.name
    yield from wrap(about, WIDTH, subsequent_indent="  ")
    yield f"  pool {cast.pool.name}, {span(scenario.seconds)}: {people(cast.pool)}"


def _document(cast: Cast, run: Run) -> dict[str, Any]:
    from failover.simulator.telling import document

    scenario = cast.scenario
    return {"name": scenario.name, "about": scenario.about, "notes": list(cast.notes), **document(run)}


# ---------------------------------------------------------------- seeds


def _profile(asked: Asked) -> str | None:
    from failover.cli import did_you_mean
    from failover.simulator.campaign import PROFILES

    if asked.profile is not None and asked.profile not in PROFILES:
        near = did_you_mean(asked.profile[:80], list(PROFILES)) or f" There is {', '.join(PROFILES)}."
        raise click.UsageError(f"no profile {asked.profile[:80]!r}.{near}", asked.ctx)
    return asked.profile


def _seeds(asked: Asked) -> int:
    """Play many seeds on all cores; tell what broke, made smaller."""
    from failover.host import RealHost
    from failover.simulator.campaign import Summary, campaign

    profile, pool = _profile(asked), _pool(asked)
    first = asked.start or 0
    seeds = range(first, first + (asked.seeds or 0))
    jobs = asked.jobs or len(os.sched_getaffinity(0))
    summary, interrupted = Summary(), False
    now = RealHost().now
    begun = now()
    end = None if asked.within is None else begun.after(asked.within)
    with _progress("simulating", len(seeds)) as progress:
        try:
            campaign(
                seeds,
                pool=pool,
                profile=profile,
                jobs=jobs,
                progress=progress.runs,
                summary=summary,
                enough=lambda: end is not None and end.reached(now()),
            )
        except KeyboardInterrupt:
            interrupted = True
    summary.results.sort(key=lambda result: result.seed)
    if not summary.runs:
        click.echo("interrupted before the first run had ended", err=True)
        return INTERRUPTED
    click.echo(_pace(summary, now().since(begun), jobs), err=True)
    explained = [] if interrupted else _explained(asked, summary, pool, profile)
    if asked.as_json:
        documents = [broken.document() for broken in explained]
        click.echo(json.dumps({**summary.document(), "interrupted": interrupted, "minimised": documents}, indent=2))
    else:
        if interrupted:
            click.echo(f"interrupted: {summary.runs} of {len(seeds)} runs")
        for sentence in summary.sentences():
            click.echo(sentence)
        for broken in explained:
            click.echo("")
            broken.tell(steps=asked.verbose)
        _others(asked, summary, len(explained))
    if interrupted:
        return INTERRUPTED
    return 1 if summary.violations else 0


def _pace(summary: Summary, seconds: float, jobs: int) -> str:
    """How long it took; not a part of the summary, which is alike everywhere."""
    from failover.simulator.faults import span

    each = jobs * seconds / max(1e-9, sum(result.hours for result in summary.results))
    return f"took {span(seconds)}, jobs: {jobs}; a simulated hour takes one of them {each:.1f} s"


@dataclass(frozen=True, slots=True)
class Broken:
    """A seed that broke an invariant, with as few faults as still do."""

    planned: Plan
    run: Run
    again: str  # the command that plays it again

    def head(self) -> Iterator[str]:
        """Which seed it is, and what it takes to see it."""
        from failover.simulator.telling import broken, people

        first = self.run.violations[0]
        yield f"seed {self.planned.seed} ({self.planned.profile}): {broken(first)}"
        yield f"  pool {self.planned.pool.name}: {people(self.planned.pool)}; {_surroundings(self.planned)}"
        yield f"  again: {self.again}"

    def tell(self, *, steps: bool) -> None:
        """Print its timeline up to a little after it broke."""
        from failover.simulator.telling import told

        for style, line in told(self.head(), self.run, steps=steps):
            _say(style, line)

    def document(self) -> dict[str, Any]:
        """The same for scripts."""
        from failover.simulator.telling import document

        faults = [str(fault) for fault in self.planned.faults]
        return {"again": self.again, "faults": faults, **document(self.run)}


def _explained(asked: Asked, summary: Summary, pool: Pool | None, profile: str | None) -> list[Broken]:
    from failover.simulator.campaign import minimise, plan

    found = []
    for seed, violation in summary.violations[:EXPLAINED]:
        click.echo(f"looking for the fewest faults with which seed {seed} still breaks {violation.name}", err=True)
        whole = plan(seed, pool=pool, profile=profile)
        try:
            small = minimise(whole, violation)
        except KeyboardInterrupt:
            small = whole
        run = small.run()
        if not run.violations:  # it broke among other faults only
            small, run = whole, whole.run()
        found.append(Broken(small, run, again(asked, whole, small, profile)))
    return found


def again(asked: Asked, whole: Plan, small: Plan, profile: str | None) -> str:
    """The command that plays a seed again with the faults that are left of it."""
    import shlex

    given = asked.ctx.obj.get("config") if isinstance(asked.ctx.obj, dict) else None
    words = [
        "failover",
        *(("-c", given) if given and not asked.built_in else ()),
        "simulate",
        "--seed",
        str(whole.seed),
    ]
    if asked.built_in:
        words.append("--built-in")
    if profile is not None:
        words += ["--profile", profile]
    if small.faults != whole.faults:
        words += ["--faults", ",".join(map(str, _numbers(whole, small)))]
    return shlex.join(words)


def _numbers(whole: Plan, small: Plan) -> list[int]:
    """Which of the faults are left, from 1 on; they keep their order."""
    left, found = list(small.faults), []
    for number, fault in enumerate(whole.faults, 1):
        if left and fault == left[0]:
            left.pop(0)
            found.append(number)
    return found


def _others(asked: Asked, summary: Summary, told: int) -> None:
    rest = summary.violations[told:]
    if rest:
        click.echo("")
        click.echo("others that broke an invariant; each is told by: failover simulate --seed SEED")
        for seed, violation in rest:
            click.echo(f"  {seed}  {violation.name}")


def _seed(asked: Asked) -> int:
    """Play one seed, and tell it."""
    from failover.simulator.campaign import plan
    from failover.simulator.telling import people

    profile = _profile(asked)
    whole = plan(asked.seed or 0, pool=_pool(asked), profile=profile)
    planned = whole
    if asked.faults is not None:
        if asked.faults[-1] > len(whole.faults):
            raise click.UsageError(f"--faults: seed {whole.seed} has {len(whole.faults)} faults", asked.ctx)
        planned = replace(whole, faults=tuple(whole.faults[number - 1] for number in asked.faults))
    if asked.minutes is not None:
        planned = replace(planned, seconds=asked.minutes * 60.0)
    run = planned.run()
    if asked.as_json:
        from failover.simulator.telling import document

        faults = [str(fault) for fault in planned.faults]
        click.echo(json.dumps({"profile": planned.profile, "faults": faults, **document(run)}, indent=2))
        return 1 if run.violations else 0
    head = [
        f"seed {planned.seed} ({planned.profile}), {len(planned.faults)} faults",
        f"  pool {planned.pool.name}: {people(planned.pool)}; {_surroundings(planned)}",
    ]
    from failover.simulator.telling import told

    for style, line in told(head, run, steps=asked.verbose):
        _say(style, line)
    return 1 if run.violations else 0


def _surroundings(planned: Plan) -> str:
    setup, fence = planned.setup, planned.pool.fence.require
    words = [f"fence {fence}", f"checks {setup.checks}", f"relays {setup.relays}"]
    if setup.direct:
        words.append(f"relays dial {', '.join(setup.direct)} directly")
    if setup.duplex:
        words.append(f"two-way connections of {', '.join(setup.duplex)}")
    return ", ".join(words)


# ---------------------------------------------------------------- history


def _replay(asked: Asked) -> int:
    """Play the operator's own history through the policy."""
    import asyncio

    from failover import journal
    from failover.config import secret
    from failover.host import RealHost
    from failover.simulator import prometheus, replay

    if asked.username is not None and asked.password_file is None:
        raise click.UsageError("--username needs --password-file", asked.ctx)
    if not _is_address(asked.replay or ""):
        words = "--replay: this is no http or https address: write for example http://127.0.0.1:9090"
        raise click.UsageError(words, asked.ctx)
    pool, host = loaded(asked.ctx).pool, RealHost()
    labels = _labels(asked, pool)
    now = host.now().utc
    try:
        start = journal.since(asked.since or SINCE, now)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}", asked.ctx) from None
    if start >= now:
        raise click.UsageError("--since: lies in the future", asked.ctx)
    source = prometheus.Source(
        asked.replay or "",
        query=asked.query,
        labels=labels,
        username=asked.username,
        password=None if asked.password_file is None else secret.from_file(asked.password_file),
        token=None if asked.token_file is None else secret.from_file(asked.token_file),
        ca_file=asked.ca_file,
    )
    click.echo(f"asking {pool.name}'s Prometheus", err=True)
    history = asyncio.run(prometheus.read(pool, source, start, now, host))
    with _progress("replaying", 100) as progress:
        found = replay.replay(pool, history, progress=progress.share)
    if asked.as_json:
        click.echo(json.dumps(replay.document(found), indent=2))
    else:
        for sentence in replay.sentences(found):
            click.echo(sentence)
        click.echo(ASSUMED)
    return 0


def _is_address(url: str) -> bool:
    """Whether it begins as an address of a Prometheus does; the rest of it is looked at where it is asked."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _labels(asked: Asked, pool: Pool) -> dict[str, str]:
    """Which producer a label's value stands for. Raises UsageError for what is none."""
    from failover.cli import did_you_mean

    found = {}
    for text in asked.labels:
        value, sign, name = text.rpartition("=")
        if not sign or not value or not name:
            words = f"--label: {text[:80]!r} is not VALUE=NAME: write for example 10.0.1.10:12798=main"
            raise click.UsageError(words, asked.ctx)
        if name not in pool.names:
            near = did_you_mean(name[:80], list(pool.names)) or f" There is {', '.join(pool.names)}."
            raise click.UsageError(f"--label: {name[:80]!r} is no producer of pool {pool.name}.{near}", asked.ctx)
        found[value] = name
    return found


_RUNS: Mapping[str, Callable[[Asked], int]] = {
    "scenarios": _play,
    "all_": _all,
    "list_": _list,
    "seeds": _seeds,
    "seed": _seed,
    "replay": _replay,
}


# ---------------------------------------------------------------- progress


@dataclass(slots=True)
class Progress:
    """Says on stderr how far it is: by a bar on a terminal, else in a line from time to time."""

    what: str
    total: int
    show: Callable[[int, str], None]
    done: int = field(default=0)

    def runs(self, done: int, broken: int) -> None:
        """So many runs are done, so many of them broke an invariant."""
        self.show(done, f"{broken} broken" if broken else "none broken")

    def share(self, share: float) -> None:
        """This share is done."""
        self.show(round(share * self.total), "")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Progress]:
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True, no_color="NO_COLOR" in os.environ)
        columns: Iterable[Any] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
        )
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, words="")
            yield Progress(what, total, lambda done, words: bar.update(task, completed=done, words=words))
        return
    from failover.host import RealHost

    host = RealHost()
    said = [host.now()]

    def line(done: int, words: str) -> None:
        now = host.now()
        if now.since(said[0]) >= TELL_EVERY:
            said[0] = now
            click.echo(f"{what}: {done} of {total}{', ' + words if words else ''}", err=True)

    yield Progress(what, total, line)
