"""What an error that Route 53 answers means for us: which of our errors it is, in which words, with which mend.

Amazon's own words are passed on only where they help, and never beside a signature: there they repeat the request's
headers, a session token among them. The texts of InvalidChangeBatch are the only thing that tells another hand's
change from a change that can never be made; they are as Route 53 sends them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from failover.errors import RecordConflict, RecordError, RecordRefused, RecordThrottled

MOST_WORDS = 300  # characters of Amazon's that are passed on
CLOCKS_APART = 240.0  # seconds; Amazon takes requests that are at most 300 s off

THROTTLING = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "SlowDown",
        "PriorRequestNotComplete",
        "429",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation", "403"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_UNKNOWN_KEY = frozenset({"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"})
_SIGNATURE = frozenset(
    {
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "RequestInTheFuture",
        "AuthFailure",
    }
)
_BARE = frozenset({"MissingAuthenticationToken", "IncompleteSignature", "MissingAuthenticationTokenException"})
_NEVER = re.compile(r"not permitted in zone|not permitted at apex|Invalid Resource Record|FATAL problem|invalid set of")
_TELLTALE = re.compile(
    r"credential=|signature=|security-token|canonical string|string-to-sign|authorization", re.IGNORECASE
)


class NoSuchChange(RecordRefused):
    """Route 53 does not know the change, or has forgotten it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An error that came as an answer. ``ahead`` is by how many seconds our clock is before theirs, where known."""

    code: str
    status: int
    message: str = ""
    ahead: float | None = None


def seconds_ahead(date: str | None, now: float) -> float | None:
    """By how much ``now`` (Unix time) is ahead of a Date header; None when that cannot be read."""
    try:
        return None if date is None else now - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def plain(text: str, secrets: Sequence[str] = ()) -> str:
    """Words from outside, on one line, of a bounded length, without secrets; empty when they may repeat a request."""
    if _TELLTALE.search(text):
        return ""
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    line = " ".join(text.split())
    line = line if line.isprintable() else ascii(line)
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]} ..."


def refusal(where: str, zone: str, answer: Answer, change: bool, secrets: Sequence[str] = ()) -> RecordError:
    """The error for an answer that says no (status 3xx or 4xx, or asked too often): nothing was changed.

    ``change`` says whether it was a change that was asked for.
    """
    code, words = answer.code, plain(answer.message, secrets)
    said = f"{code}: {words}" if words else code
    if code in THROTTLING or answer.status == 429:
        return RecordThrottled(f"{where} wants to be asked later: {said}", "nothing: it is asked again later")
    if code == "InvalidChangeBatch" and change:
        return _batch_refused(where, words)
    if code == "NoSuchChange":
        return NoSuchChange(f"{where} does not know the change: {said}")
    if code == "NoSuchHostedZone":
        return RecordRefused(
            f"{where}: there is no hosted zone {zone}",
            "correct route53.zone (see `aws route53 list-hosted-zones`), or use credentials of the account that has it",
        )
    if code in _DENIED:
        mend = "give the user or role the policy that `failover render iam` prints"
        return RecordRefused(f"{where} denies it: {said}", mend)
    if 300 <= answer.status < 400:
        mend = "redirects are not followed: let endpoint_url name the endpoint itself"
        return RecordRefused(f"{where} answered {answer.status}", mend)
    if code == "407":
        return RecordRefused(f"{where}: the HTTP proxy wants a password", "correct HTTPS_PROXY of the daemon")
    return _identity(where, answer) or RecordRefused(
        f"{where} refuses it: {said}", "look the code up in the Route 53 API reference"
    )


def _identity(where: str, answer: Answer) -> RecordRefused | None:
    """Why it was not believed who asks; nothing of Amazon's words is repeated."""
    code = answer.code
    if code in _SIGNATURE:
        return _signature(where, answer)
    if code in _EXPIRED:
        return RecordRefused(
            f"{where}: {code}: the session token has expired",
            "renew the temporary credentials, or give the daemon a role that renews them by itself",
        )
    if code in _UNKNOWN_KEY:
        return RecordRefused(
            f"{where}: {code}: the access key is not known, or not active",
            "check aws_access_key_id of the daemon's user or of route53.profile, and that the key is active in IAM",
        )
    if code in _BARE:
        return RecordRefused(
            f"{where}: {code}: the request came without a whole signature",
            "see whether an HTTP proxy on the way strips headers",
        )
    return None


def _signature(where: str, answer: Answer) -> RecordRefused:
    ahead, code = answer.ahead, answer.code
    late = code in ("RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture")
    dated = re.search(r"signature (expired|not yet current)", answer.message, re.IGNORECASE) is not None
    if ahead is not None and abs(ahead) >= CLOCKS_APART:
        side = "ahead of" if ahead > 0 else "behind"
        words = f"this machine's clock is {abs(ahead):.0f} s {side} theirs"
    elif late or dated:
        words = "this machine's clock and theirs differ by more than 5 minutes"
    else:
        return RecordRefused(
            f"{where}: {code}: the secret key does not belong to the access key",
            "check aws_secret_access_key; see also whether an HTTP proxy on the way changes requests",
        )
    return RecordRefused(f"{where}: {code}: {words}", "set this machine's clock (chrony or systemd-timesyncd)")


def _batch_refused(where: str, words: str) -> RecordError:
    words = words.strip("[]")
    if "not permitted in zone" in words:
        mend = "correct records.name or route53.zone: the name lies outside the zone"
        return RecordRefused(f"{where} refuses the change: {words}", mend)
    if _NEVER.search(words):
        return RecordRefused(f"{where} refuses the change: {words}", "correct the record in the file")
    # Also what is not known: reading again does no harm, and tells.
    said = f": {words}" if words else ""
    return RecordConflict(f"{where}: changed by another hand{said}", "nothing: it is read again first")
