"""A node's own metrics: Prometheus text, or the numbers that an agent hands on, to a NodeReading; and how to get them.

Names differ by tracing system and by the suffixes that the operator chose; ``NAMES`` has them in order of preference.
A name may come bare or with the prefix ``cardano_node_metrics_``. Sources: developer-portal,
new-tracing-system/metrics-migration.md; cardano-node, Tracers/BlockReplayProgress.hs (only the new tracing tells it).

Nothing of an answer is believed blindly: not its size, not its pace (``http_line``), not its form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from failover.errors import FailoverError, ProbeError, WorkerBusy
from failover.http_line import Line, session
from failover.journal import plain
from failover.model import NodeReading
from failover.ports import Host

if TYPE_CHECKING:
    import requests

MAX_ANSWER = 4 * 1024 * 1024  # bytes
MOST_LINE = 8192  # characters; longer lines are passed over
MOST_WORDS = 200  # characters of somebody else's that are passed on
FREEING = 0.1  # seconds; more than a thread needs to end after its socket was cut
PREFIX = "cardano_node_metrics_"
SUFFIXES = ("_counter", "_int", "_real", "")  # the new tracing's own first; `nosuffix` drops them

NAMES: Mapping[str, tuple[str, ...]] = {  # the new name, then the legacy one, without prefix and suffix
    "slot": ("slotNum",),
    "block": ("blockNum",),
    "forging": ("forging_enabled",),
    "about_to_lead": ("Forge_about_to_lead", "Forge_forge_about_to_lead"),
    "leader": ("Forge_node_is_leader",),
    "forged": ("Forge_forged",),
    "adopted": ("Forge_adopted",),
    "missed": ("slotsMissed", "slotsMissedNum"),
    "kes_period": ("currentKESPeriod",),
    "kes_remaining": ("remainingKESPeriods",),
    "certificate_expiry": ("operationalCertificateExpiryKESPeriod",),
    "starting": ("blockReplayProgress",),
    "started": ("node_start_time", "nodeStartTime"),
    "major": ("cardano_version_major",),
    "minor": ("cardano_version_minor",),
    "patch": ("cardano_version_patch",),
}

_WANTED = frozenset(base + suffix for bases in NAMES.values() for base in bases for suffix in SUFFIXES)
_LINE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]{0,199})(?:\{([^\n]{0,4000})\})?[ \t]+(\S{1,64})(?:[ \t]+-?\d{1,20})?\s*")
_VERSION_LABEL = re.compile(r'(?:^|,)\s*version="([0-9A-Za-z.+-]{1,40})"')
_VERSION = re.compile(r"\d{1,6}(?:\.\d{1,9}){1,3}")
_MOST = 2**63


# ---------------------------------------------------------------- what was told


def parse(source: str | Mapping[str, float]) -> NodeReading:
    """What Prometheus text, or a mapping of names to numbers, says of the node; fields that it does not say are None.

    Where new and legacy names are both there, the new ones win. Labels are passed over; a name that comes with two
    different values is nobody's, and counts as not told. Numbers that cannot be (NaN, infinite, negative, of a wrong
    form) count as not told either. Never raises.
    """
    numbers, version = _of_text(source) if isinstance(source, str) else (_of_mapping(source), None)
    told = {field: _first(numbers, bases) for field, bases in NAMES.items()}
    forging, remaining = told["forging"], told["kes_remaining"]
    slot, block, about_to_lead = (_whole(told[field]) for field in ("slot", "block", "about_to_lead"))
    return NodeReading(
        slot=slot,
        block=block,
        forging=bool(forging) if forging in (0.0, 1.0) else None,
        about_to_lead=about_to_lead,
        leader=_whole(told["leader"]),
        forged=_whole(told["forged"]),
        adopted=_whole(told["adopted"]),
        missed=_whole(told["missed"]),
        kes_period=_whole(told["kes_period"]),
        kes_remaining=_whole(remaining, least=-_MOST),
        certificate_expiry=_whole(told["certificate_expiry"]),
        starting=_share(told["starting"], runs=bool(slot or block or about_to_lead)),
        started=_unix(told["started"]),
        version=version or _version(told["major"], told["minor"], told["patch"]),
    )


def _of_text(text: str) -> tuple[dict[str, float], str | None]:
    """The numbers that are wanted, by their names without prefix; and the version of the build."""
    numbers: dict[str, float] = {}
    doubtful: set[str] = set()
    version: str | None = None
    for line in text.split("\n"):
        found = _LINE.fullmatch(line) if len(line) <= MOST_LINE else None
        if found is None:
            continue
        name = found[1].removeprefix(PREFIX)
        if name == "cardano_build_info":
            label = _VERSION_LABEL.search(found[2] or "")
            version = version or (label[1] if label else None)
            continue
        if name not in _WANTED or (value := _number(found[3])) is None:
            continue
        if numbers.setdefault(name, value) != value:
            doubtful.add(name)
    return {name: value for name, value in numbers.items() if name not in doubtful}, version


def _of_mapping(told: Mapping[str, float]) -> dict[str, float]:
    numbers = {}
    for name, value in told.items():
        bare = name.removeprefix(PREFIX) if isinstance(name, str) else ""
        number = _number(value)
        if bare in _WANTED and number is not None:
            numbers[bare] = number
    return numbers


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _first(numbers: Mapping[str, float], bases: tuple[str, ...]) -> float | None:
    for base in bases:
        for suffix in SUFFIXES:
            if base + suffix in numbers:
                return numbers[base + suffix]
    return None


def _whole(number: float | None, least: int = 0) -> int | None:
    if number is None or not number.is_integer() or not least <= number < _MOST:
        return None
    return int(number)


def _share(percent: float | None, *, runs: bool) -> float | None:
    """The share of a replay that is still going on.

    The gauge stays as it was when the replay has ended (99.998 was seen on a node that forged for weeks). What shows
    the end is that the node has a chain, and so a slot and a block; until then it tells neither.
    """
    if percent is None or not 0.0 <= percent < 100.0 or runs:
        return None
    return percent


def _unix(seconds: float | None) -> float | None:
    return seconds if seconds is not None and 0.0 < seconds < 2.0**40 else None


def _version(*parts: float | None) -> str | None:
    numbers = [_whole(part) for part in parts]
    return None if None in numbers else ".".join(map(str, numbers))


# ---------------------------------------------------------------- what of it is true


def version_numbers(version: str | None) -> tuple[int, ...] | None:
    """``10.5.1`` or ``10.5.1-pre`` as numbers, three at least; None for what is no version."""
    found = _VERSION.match(version or "")
    if found is None:
        return None
    numbers = tuple(int(part) for part in found[0].split("."))
    return numbers + (0,) * (3 - len(numbers))


def forging_trust(version: str | None, reading: NodeReading) -> str | None:
    """Why ``reading.forging`` cannot be relied on in this version of the node; None when it can.

    The about-to-lead counter over several slots tells in every version. Sources: cardano-node #5751, #6113, #6576;
    commit 5836173.
    """
    numbers = version_numbers(version)
    if numbers is None:
        return "the node's version is not known, and in some versions forging_enabled lies"
    if numbers < (9,):
        return f"{version} has no forging_enabled (#5751), and keeps telling old numbers after it was disabled"
    if reading.forging is None:
        return f"{version} did not tell forging_enabled"
    if numbers < (10, 2) and reading.forging:
        return f"{version} says 1 from its start on, also when it was started as non-producing (#6113)"
    if (10, 2) <= numbers < (10, 3) and not reading.forging:
        return f"{version} goes on saying 0 when it was started as non-producing and SIGHUP has enabled it"
    if numbers[:3] == (11, 0, 1) and reading.forging:
        return f"{version} was seen saying 1 although it was started as non-producing (#6576)"
    return None


# ---------------------------------------------------------------- over HTTP


class HttpNodePort:
    """NodePort over HTTP: the node's Prometheus endpoint at ``url``. One thread, and a new connection each time."""

    def __init__(self, url: str, host: Host) -> None:
        self._url = url
        self._where = _shown(url)
        self._host = host
        self._worker = host.worker(f"metrics {self._where}")

    async def read(self, timeout: float) -> NodeReading:
        """See NodePort. ``timeout`` is for the whole of it, whatever the pace of the answer."""
        line = Line()
        try:
            return await self._work(line, timeout)
        except WorkerBusy as error:
            raise ProbeError(
                f"{self._where}: an earlier reading still hangs",
                "see whether its name is looked up, and whether it hangs",
            ) from error
        except TimeoutError as error:
            what = "did not answer in full" if line.connected else "took no connection"
            raise ProbeError(
                f"{self._where} {what} within {timeout:g} s", "see whether the node hangs, and whether it is reached"
            ) from error
        finally:
            line.cut()

    async def close(self) -> None:
        """See NodePort."""
        self._worker.close()

    async def _work(self, line: Line, timeout: float) -> NodeReading:
        try:
            return await self._worker.call(lambda: self._fetch(line, timeout), timeout)
        except WorkerBusy:
            if timeout <= FREEING:
                raise
            await self._host.sleep(FREEING)
            return await self._worker.call(lambda: self._fetch(line, timeout), timeout - FREEING)

    # ------------------------------------------------------------ in the worker's thread

    def _fetch(self, line: Line, timeout: float) -> NodeReading:
        import requests

        try:
            # One number: what is there for a connection is there for the answer as well, and the cut ends both.
            with (
                session(line, "text/plain") as http,
                http.get(self._url, timeout=timeout, stream=True, allow_redirects=False) as response,
            ):
                if response.status_code != 200:
                    raise _refused(self._where, response.status_code)
                return _understood(self._where, self._body(response))
        except requests.RequestException as error:
            raise self._failed(line, error, timeout) from None  # what it came from holds the whole URL
        except OSError as error:
            raise ProbeError(f"{self._where}: the connection ended: {error.strerror or 'given up'}", _RUNS) from None

    def _body(self, response: requests.Response) -> str:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            # Not unpacked: a small answer must not become a large one here.
            raise ProbeError(f"{self._where} sent its answer packed ({plain(encoding)[:40]!r})", _OWN_PAGE)
        body = bytearray()
        for piece in response.iter_content(65536):
            body += piece
            if len(body) > MAX_ANSWER:
                raise ProbeError(f"{self._where} sent more than {MAX_ANSWER // (1024 * 1024)} MiB", _OWN_PAGE)
        return body.decode("utf-8", "replace")

    def _failed(self, line: Line, error: requests.RequestException, timeout: float) -> ProbeError:
        import requests

        if isinstance(error, requests.exceptions.SSLError):
            return ProbeError(
                f"{self._where}: TLS failed", "a node's own metrics are plain http; else check the certificate"
            )
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema | ValueError):
            return ProbeError(f"{self._where} is no address of metrics", f"write for example {_EXAMPLE}")
        if line.connected:
            if isinstance(error, requests.Timeout):
                return ProbeError(f"{self._where} did not answer within {timeout:g} s", "see whether the node hangs")
            return ProbeError(f"{self._where} broke off without a whole answer to HTTP", _OWN_PAGE)
        return ProbeError(f"{self._where} took no connection: {_cause(error)}", _RUNS)


_EXAMPLE = "http://127.0.0.1:12798/metrics"
_RUNS = "check that the node runs, and that it tells metrics there (hasPrometheus, or PrometheusSimple, in its config)"
_OWN_PAGE = f"let `metrics` name the node's own Prometheus endpoint, such as {_EXAMPLE} (12788 is EKG's page)"


def _understood(where: str, text: str) -> NodeReading:
    """The reading, when these are a node's metrics. Raises ProbeError that says what came instead."""
    start = text[:4096].lstrip().lower()
    if not start:
        raise ProbeError(f"{where} answered with nothing", _RUNS)
    if start.startswith("<"):
        raise ProbeError(f"{where} answered with an HTML page", _OWN_PAGE)
    if start.startswith(("{", "[")):
        raise ProbeError(f"{where} answered with JSON", _OWN_PAGE)
    reading = parse(text)
    if reading == NodeReading() and not re.search(rf"^{PREFIX}", text, re.MULTILINE):
        line = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
        raise ProbeError(f"{where} answered with no metric of a node, but {plain(line)[:80]!r}", _OWN_PAGE)
    return reading


def _refused(where: str, status: int) -> ProbeError:
    mends = {
        401: "a node's own metrics ask for no password: let `metrics` name the node, not what stands in front of it",
        403: "let what stands in front of the node allow this host",
        404: f"let `metrics` have the path, too, as in {_EXAMPLE}",
    }
    mend = mends.get(status, _OWN_PAGE)
    if 300 <= status < 400:
        mend = "redirects are not followed: let `metrics` name the page itself (http or https, and its path)"
    return ProbeError(f"{where} answered {status}", mend)


def _shown(url: str) -> str:
    """The URL without a name or password, and without what follows its path."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address of the metrics"
    shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return plain(shown)[:MOST_WORDS] or "the address of the metrics"


def _cause(error: Exception) -> str:
    text = str(error)
    for words in ("Connection refused", "Name or service not known", "No route to host", "Network is unreachable"):
        if words in text:
            return words
    return "its name was not found" if "resolve" in text.lower() else "the attempt failed"


# ---------------------------------------------------------------- through the agent


class NodeStatus(Protocol):
    """What an agent says of the node's process."""

    @property
    def version(self) -> str | None:
        """Its version."""

    @property
    def started(self) -> float | None:
        """Unix time at which it began."""


class Status(Protocol):
    """What of an agent's answer is needed here."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Numbers by their metrics' names."""

    @property
    def metrics_error(self) -> str | None:
        """Why there are none."""

    @property
    def node(self) -> NodeStatus:
        """The process."""


class Link(Protocol):
    """A way to an agent. Whoever made it closes it."""

    async def status(self, timeout: float, **fields: Any) -> Status:
        """Its host's state. Raises FailoverError."""


class AgentNodePort:
    """NodePort through the agent on the node's host, which reads the endpoint there."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def read(self, timeout: float) -> NodeReading:
        """See NodePort. What the agent says of the process is nearer to it than what the process tells."""
        try:
            status = await self._link.status(timeout)
        except ProbeError:
            raise
        except FailoverError as error:
            raise ProbeError(str(error), error.mend) from error
        except TimeoutError as error:
            raise ProbeError(f"the agent did not answer within {timeout:g} s", "see whether its host hangs") from error
        if status.metrics_error is not None:
            raise ProbeError(
                f"the agent read no metrics: {plain(status.metrics_error)[:MOST_WORDS]}",
                "check node.metrics in the agent's configuration, and that the node runs",
            )
        if not status.metrics:
            raise ProbeError("the agent told no metrics", f"set node.metrics there, for example to {_EXAMPLE}")
        reading = parse(status.metrics)
        version, started = status.node.version, status.node.started
        return replace(
            reading,
            version=reading.version if version is None else plain(version)[:40],
            started=reading.started if started is None else started,
        )

    async def close(self) -> None:
        """See NodePort. The link stays: it is not ours."""
