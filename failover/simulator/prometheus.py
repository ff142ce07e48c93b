"""The operator's own history: when their Prometheus saw each producer up, and when down.

One query over a range, in pieces that Prometheus accepts. Nothing of it is believed blindly: not its size, not its
pace (``http_line``), not its form.

Two things about such a history are worth knowing. Where Prometheus itself stood still, its last sample is repeated for
up to five minutes (``--query.lookback-delta``). And ``cardano_failover_producer_up`` speaks after ``fall`` failed
pings, so a replay of it counts them twice.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

from failover.errors import FailoverError
from failover.http_line import Line, session
from failover.journal import iso, plain
from failover.model import Pool
from failover.ports import Host

if TYPE_CHECKING:
    import requests

METRIC = "cardano_failover_producer_up"
MOST_POINTS = 11_000  # of one series in one answer (prometheus, web/api/v1/api.go: (end - start) / step > 11000 fails)
MOST_QUERIES = 1_000
MOST_ANSWER = 16 * 1024 * 1024  # bytes
MOST_IN_ALL = 64 * 1024 * 1024  # bytes
MOST_ERROR = 64 * 1024  # bytes that are read of an answer that is an error
MOST_WORDS = 300  # characters of somebody else's that are passed on
LEAST_STEP = 30.0  # seconds
CONNECT = 10.0  # seconds for a connection
_MATRIX = "give a query whose value is 1 for up and 0 for down, such as `up{job=...}` or `... > bool 0`"
_ADDRESS = "give the address at which Prometheus' own page opens, such as http://127.0.0.1:9090, with its path if any"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the history is, and who asks. Secrets are values: the caller read them from files or the environment.

    ``query`` (PromQL) is asked in place of our own metric. Its series carry a label ``producer``; or ``labels`` says
    which producer a label's value stands for: ``{"10.0.1.10:12798": "main"}``.
    """

    url: str
    query: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of a producer at one instant (Unix seconds)."""

    at: float
    up: bool


@dataclass(frozen=True, slots=True)
class History:
    """What is known of each producer from ``start_utc`` to ``end_utc`` (Unix seconds), samples oldest first.

    ``step`` (seconds) is the distance between samples. Where there are none, nothing is known.
    """

    start_utc: float
    end_utc: float
    step: float
    series: Mapping[str, tuple[Sample, ...]]


def usual_step(pool: Pool) -> float:
    """The distance between samples (seconds) that is asked for where nobody says otherwise."""
    return max(LEAST_STEP, pool.health.interval)


async def read(
    pool: Pool,
    source: Source,
    start_utc: float,
    end_utc: float,
    host: Host,
    *,
    step: float | None = None,
    deadline: float = 120.0,
) -> History:
    """The history of the pool's producers, of which at least one has samples.

    ``deadline`` (seconds) is for all of it. Raises FailoverError that names the address (without a password in it),
    what came, and the mend.
    """
    step = usual_step(pool) if step is None else step
    where = _checked(pool, source)
    pieces = _pieces(start_utc, end_utc, step)
    query = source.query or own_query(pool)
    line = Line()
    worker = host.worker("prometheus")
    try:
        found = await worker.call(
            lambda: _Reader(pool, source, where, query, line, deadline).everything(pieces, step), deadline
        )
    except TimeoutError as error:
        raise FailoverError(
            f"{where} did not answer in full within {deadline:g} s", "see whether it is overloaded; ask for less time"
        ) from error
    finally:
        line.cut()
        worker.close()
    if not any(found.values()):
        raise _nothing(where, query, start_utc, end_utc, own=source.query is None)
    series = {name: tuple(Sample(at, up) for at, up in sorted(found[name].items())) for name in pool.names}
    return History(start_utc, end_utc, step, series)


def own_query(pool: Pool) -> str:
    """Our own metric of this pool's producers. Where several controllers watch, one that sees it up is believed."""
    names = "|".join(re.escape(name) for name in pool.names)
    return f"max by (producer) ({METRIC}{{pool={json.dumps(pool.name)},producer=~{json.dumps(names)}}})"


# ---------------------------------------------------------------- what is asked for


def _checked(pool: Pool, source: Source) -> str:
    """The address as it may be shown. Raises FailoverError for what cannot or must not be asked."""
    shown, wrong = _shown(source.url)
    if wrong is not None:
        raise FailoverError(f"{shown}: {wrong[0]}", wrong[1])
    for secret, name in ((source.token, "the bearer token"), (source.password, "the password")):
        if secret is not None and not secret.isprintable():
            raise FailoverError(f"{shown}: {name} has a line break or control character", "look at where it comes from")
    if source.token is not None and (not source.token.isascii() or " " in source.token):
        raise FailoverError(f"{shown}: the bearer token has a character that no token has", "look at where it is from")
    if source.token is not None and source.username is not None:
        raise FailoverError(f"{shown}: both a user and a bearer token are given", "give one of them")
    unknown = [name for name in source.labels.values() if name not in pool.names]
    if unknown:
        raise FailoverError(
            f"{shown}: {plain(unknown[0])!r} is no producer of this pool; there are {', '.join(pool.names)}",
            "let each label's value stand for one of them",
        )
    if source.ca_file is not None and not source.ca_file.is_file():
        raise FailoverError(f"{shown}: {source.ca_file} is no file", "let ca_file name the authority's certificate")
    return shown


def _shown(url: str) -> tuple[str, tuple[str, str] | None]:
    """The address without a name or password; and if it is none, what is wrong with it, and the mend."""
    try:
        parts = urlsplit(url)
        port = parts.port  # looked at: that is where a wrong one is noticed
    except ValueError:
        return "the address of Prometheus", ("it cannot be read", _ADDRESS)
    host = parts.netloc.rpartition("@")[2]
    shown = plain(urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")))[:MOST_WORDS]
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return shown or "the address of Prometheus", ("this is no http or https address", _ADDRESS)
    if "@" in parts.netloc:
        mend = "take them out of it, and give them through a file or the environment"
        return shown, ("the address holds a user or a password", mend)
    if parts.query or parts.fragment:
        return shown, ("the address holds more than a path", _ADDRESS)
    return shown, None


def _pieces(start: float, end: float, step: float) -> tuple[tuple[float, float], ...]:
    """First and last instant of each query, together the multiples of ``step`` in the range."""
    if not all(math.isfinite(number) for number in (start, end, step)) or step <= 0 or end <= start:
        raise FailoverError(
            f"no history from {start:g} to {end:g} in steps of {step:g} s", "let it begin before it ends"
        )
    first, last = math.ceil(start / step), math.floor(end / step)
    count = math.ceil((last - first + 1) / MOST_POINTS)
    if count > MOST_QUERIES:
        raise FailoverError(
            f"{last - first + 1} samples of each producer are more than {MOST_POINTS * MOST_QUERIES}",
            "ask for less time, or for a longer step",
        )
    if count <= 0:
        raise FailoverError(f"{end - start:g} s are less than one step of {step:g} s", "ask for more time")
    begins = range(first, last + 1, MOST_POINTS)
    return tuple((begin * step, min(begin + MOST_POINTS - 1, last) * step) for begin in begins)


def _nothing(where: str, query: str, start: float, end: float, *, own: bool) -> FailoverError:
    words = f"{where} holds nothing from {iso(start)} to {iso(end)} of {plain(query)[:MOST_WORDS]}"
    if own:
        return FailoverError(
            words,
            "if it does not scrape failover, give a query of your own (its series with a label `producer`, or say "
            "which label's value stands for whom); else see whether it still keeps that time (as a rule, 15 days)",
        )
    return FailoverError(
        words, "try the query on its page, and see whether it still keeps that time (15 days, as a rule)"
    )


# ---------------------------------------------------------------- in the worker's thread


class _Reader:
    """Asks piece by piece and folds the answers into what each producer was when."""

    def __init__(self, pool: Pool, source: Source, where: str, query: str, line: Line, timeout: float) -> None:
        self._pool = pool
        self._source = source
        self._where = where
        self._query = query
        self._line = line
        self._timeout = timeout
        self._bytes = 0
        self._said: dict[str, dict[float, bool]] = {name: {} for name in pool.names}

    def everything(self, pieces: tuple[tuple[float, float], ...], step: float) -> dict[str, dict[float, bool]]:
        with _session(self._source, self._line) as http:
            for begin, end in pieces:
                body = self._get(http, {"query": self._query, "start": begin, "end": end, "step": step})
                self._fold(_result(self._where, body), begin, end)
        return self._said

    def _get(self, http: requests.Session, params: dict[str, Any]) -> bytes:
        import requests

        url = f"{self._source.url.rstrip('/')}/api/v1/query_range"
        timeout = (min(CONNECT, self._timeout), self._timeout)
        try:
            with http.get(url, params=params, timeout=timeout, stream=True, allow_redirects=False) as response:
                if response.status_code != 200:
                    _refused(self._where, response.status_code, response.headers, self._start(response))
                return self._whole(response)
        except requests.RequestException as error:
            problem = _failed(self._where, error, self._timeout)
        except OSError:
            problem = FailoverError(f"{self._where}: the call failed", "see that ca_file can be read by this user")
        raise problem  # not from within: what it came from holds the request, and that the password

    def _start(self, response: requests.Response) -> bytes:
        body = bytearray()
        for piece in response.iter_content(8192):
            body += piece
            if len(body) >= MOST_ERROR:
                break
        return bytes(body)

    def _whole(self, response: requests.Response) -> bytes:
        body = bytearray()
        for piece in response.iter_content(65536):
            body += piece
            self._bytes += len(piece)
            if len(body) > MOST_ANSWER or self._bytes > MOST_IN_ALL:
                most = MOST_ANSWER if len(body) > MOST_ANSWER else MOST_IN_ALL
                raise FailoverError(
                    f"{self._where} sent more than {most // (1024 * 1024)} MiB",
                    "let the query give one series for each producer, or ask for a longer step or less time",
                )
        return bytes(body)

    def _fold(self, result: list[Any], begin: float, end: float) -> None:
        strangers: list[str] = []
        for row in result:
            if not isinstance(row, dict) or not isinstance(row.get("metric"), dict):
                raise _malformed(self._where, "a series without labels")
            metric = {str(key): str(value) for key, value in row["metric"].items()}
            producer = self._producer(metric)
            if producer is None:
                strangers.append(_labels(metric))
                continue
            self._take(producer, metric, row.get("values"), begin, end)
        if strangers:
            more = f", and {len(strangers) - 5} more" if len(strangers) > 5 else ""
            raise FailoverError(
                f"{self._where}: whose series is {', '.join(strangers[:5])}{more}? "
                f"The producers are {', '.join(self._pool.names)}",
                "let the query give a label `producer`, say which label's value stands for whom, or narrow the query",
            )

    def _producer(self, metric: dict[str, str]) -> str | None:
        """Whose series this is, if that is certain."""
        found = {self._source.labels[value]: None for value in metric.values() if value in self._source.labels}
        if not found and metric.get("producer") in self._pool.names:
            return metric["producer"]
        return next(iter(found)) if len(found) == 1 else None

    def _take(self, producer: str, metric: dict[str, str], values: Any, begin: float, end: float) -> None:
        said = self._said[producer]
        for at, up in _points(self._where, _labels(metric), values):
            if not begin - 0.01 <= at <= end + 0.01:
                raise _malformed(self._where, f"a sample of {iso(at)}, which was not asked for")
            if said.setdefault(at, up) is not up:
                raise FailoverError(
                    f"{self._where}: two series differ on {producer} at {iso(at)}; one is {_labels(metric)}",
                    "let the query give one series for each producer, such as `max by (instance) (...)`",
                )


def _session(source: Source, line: Line) -> requests.Session:
    """A session for this source: who asks, and whose certificates are believed."""
    from requests.auth import HTTPBasicAuth

    made = session(line, "application/json")
    if source.username is not None:
        made.auth = HTTPBasicAuth(source.username.encode(), (source.password or "").encode())
    elif source.token is not None:
        made.headers["Authorization"] = f"Bearer {source.token}"
    made.verify = str(source.ca_file) if source.ca_file is not None else True
    return made


# ---------------------------------------------------------------- what came


def _result(where: str, body: bytes) -> list[Any]:
    """The series of an answer. Raises FailoverError for anything else."""
    document = _json(where, body)
    if isinstance(document, dict) and document.get("status") == "error":
        raise FailoverError(f"{where} answered {_own_words(document)}", "try the query on its own page")
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict) or document.get("status") != "success":
        raise _malformed(where, f"{_begin(body)!r}")
    kind, result = data.get("resultType"), data.get("result")
    if kind != "matrix" or not isinstance(result, list):
        raise _malformed(where, f"a result of type {plain(str(kind))[:40]!r}")
    return result


def _json(where: str, body: bytes) -> Any:
    if body.lstrip()[:1] == b"<":
        raise FailoverError(f"{where} answered with an HTML page", _ADDRESS)
    if not body.strip():
        raise FailoverError(f"{where} answered with nothing", _ADDRESS)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        at = f" from byte {error.pos} of {len(body)} on" if isinstance(error, json.JSONDecodeError) else ""
        raise FailoverError(
            f"{where} sent no whole JSON{at}: {_begin(body)!r}...",
            "see whether something in between cuts answers short, and that the address is Prometheus' own",
        ) from None


def _points(where: str, labels: str, values: Any) -> list[tuple[float, bool]]:
    if not isinstance(values, list):
        raise FailoverError(f"{where}: {labels} has no plain values (a histogram?)", _MATRIX)
    points = []
    for point in values:
        if not isinstance(point, list) or len(point) != 2 or not _is_number(point[0]) or not isinstance(point[1], str):
            raise _malformed(where, f"a sample {plain(str(point))[:80]!r}")
        at, text = float(point[0]), point[1]
        if text == "NaN":
            continue  # nothing is known then
        if text not in ("0", "1"):
            raise FailoverError(f"{where}: {labels} is {plain(text)[:40]} at {iso(at)}, neither 0 nor 1", _MATRIX)
        points.append((at, text == "1"))
    return points


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12


def _malformed(where: str, what: str) -> FailoverError:
    return FailoverError(f"{where} answered {what}, as Prometheus would not", _ADDRESS)


def _labels(metric: Mapping[str, str]) -> str:
    text = ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(metric.items()))
    return plain("{" + text + "}")[:200]


def _begin(body: bytes) -> str:
    return plain(body[:80].decode("utf-8", "replace"))


def _own_words(document: Mapping[str, Any]) -> str:
    return plain(f"{document.get('errorType', 'error')}: {document.get('error', '')}")[:MOST_WORDS]


def _refused(where: str, status: int, headers: Mapping[str, str], body: bytes) -> NoReturn:
    """Raise for an answer that is no 200, in Prometheus' own words where it has any."""
    if 300 <= status < 400:
        target, _ = _shown(headers.get("Location", ""))
        raise FailoverError(
            f"{where} answered {status}, a redirect to {target}", "redirects are not followed: give the address itself"
        )
    mends = {
        401: "give a user and password, or a token",
        403: "let this user, or this host, query it",
        404: _ADDRESS,
        422: "ask for less time or a longer step, or raise --query.max-samples there",
        503: "see whether it is still starting, or overloaded",
    }
    mend = mends.get(status, "try the query on its own page" if status == 400 else "look into its log")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and document.get("status") == "error":
        raise FailoverError(f"{where} answered {status}, {_own_words(document)}", mend)
    raise FailoverError(f"{where} answered {status}", mend)


def _failed(where: str, error: Exception, timeout: float) -> FailoverError:
    """What an error of requests means, in words of our own: its texts may hold what must not be shown."""
    import requests

    text = str(error)
    if isinstance(error, requests.exceptions.SSLError):
        found = re.search(r"(certificate verify failed: [^(\"']*|[Hh]ostname mismatch[^\"']*)", text)
        words = found.group(1).strip() if found else "the handshake did not succeed"
        return FailoverError(f"{where}: TLS failed: {words}", "check ca_file against its certificate, and the name")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return FailoverError(f"{where} took no connection within {min(CONNECT, timeout):g} s", "check the address")
    if isinstance(error, requests.Timeout):
        return FailoverError(f"{where} did not answer within {timeout:g} s", "ask for less time or a longer step")
    causes = {
        "Connection refused": "Connection refused",
        "resolve": "its name has no address here",
        "No route to host": "No route to host",
        "Network is unreachable": "Network is unreachable",
    }
    for mark, words in causes.items():
        if mark in text:
            return FailoverError(f"{where} took no connection: {words}", "check the address, and that Prometheus runs")
    return FailoverError(
        f"{where} ended the connection without a whole answer", "see whether that is Prometheus, and look into its log"
    )
