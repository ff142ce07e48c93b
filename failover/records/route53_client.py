"""boto3's client for Route 53, kept to one request per question, and its errors put into our words.

Loaded in the worker's thread, at the first call: boto3 takes a quarter of a second and 20 MB. No error of boto3's gets
out, nor anything that holds one: they carry requests with their signatures, and what credential processes print.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import boto3.session
import botocore.session
from botocore import exceptions as aws
from botocore.config import Config

from failover.errors import RecordError, RecordRefused, RecordUnreachable
from failover.model import Route53Zone
from failover.records import route53_errors, route53_transport
from failover.records.route53_call import Call, GivenUp, Overtaken, Stage

REGION = "us-east-1"  # where Route 53's API lives
SUPPLY = "give the daemon's user AWS credentials (`aws configure`, or a role), or name a profile in route53.profile"

_SINGLE_SIGN_ON = (
    aws.SSOError,
    aws.TokenRetrievalError,
    aws.NoAuthTokenError,
)


class Client:
    """Route 53's API for one zone. One call at a time."""

    def __init__(self, zone: Route53Zone, where: str, now: Callable[[], float], call: Call) -> None:
        """Find credentials and make the client. ``now`` is Unix time. Raises as ``ask``."""
        # botocore logs requests with their headers, and what credential processes print. Its errors reach us anyway.
        for name in ("boto3", "botocore"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._zone = zone
        self._where = where
        self._now = now
        self._secrets: tuple[str, ...] = ()
        self._within(call, lambda: self._make(call))

    def ask(self, call: Call, operation: str, answered: Iterable[str], **parameters: Any) -> dict[str, Any]:
        """The answer of one request, which has all of ``answered``.

        Raises RecordRefused, RecordThrottled, RecordConflict, RecordTimeout, RecordUnreachable; Overtaken, GivenUp.
        """

        def talk() -> dict[str, Any]:
            call.reach(Stage.CREDENTIALS)  # those that expire are renewed here
            keys = self._credentials.get_frozen_credentials()
            self._secrets = tuple(filter(None, (keys.access_key, keys.secret_key, keys.token)))
            call.reach(Stage.CONNECTING)
            found: dict[str, Any] = getattr(self._client, operation)(**parameters)
            return found

        answer: dict[str, Any] = self._within(call, talk)
        if any(answer.get(key) is None for key in answered):
            raise self._unreadable(call)
        return answer

    def _make(self, call: Call) -> None:
        call.reach(Stage.CREDENTIALS)
        core = botocore.session.Session(profile=self._zone.profile)
        if core.get_config_variable("region") is None:  # whoever gives out roles needs one, too
            core.set_config_variable("region", REGION)
        session = boto3.session.Session(botocore_session=core)
        self._credentials = session.get_credentials()
        if self._credentials is None:
            raise aws.NoCredentialsError
        call.reach(Stage.LOADING)
        self._ca_file = core.get_config_variable("ca_bundle")
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},  # a change that is sent twice conflicts with itself
            connect_timeout=call.timeout,
            read_timeout=call.timeout,
        )
        self._client = session.client("route53", endpoint_url=self._zone.endpoint_url, config=config)
        self._client.meta.events.register("before-send.route-53", self._send)

    def _send(self, request: Any, **_: Any) -> Any:
        return route53_transport.send(self._call, self._where, request, self._ca_file)

    def _within(self, call: Call, talk: Callable[[], Any]) -> Any:
        """What ``talk`` returns; its errors in our words, and without the ones that they came from."""
        self._call = call
        problem: Exception
        try:
            return talk()
        except (RecordError, GivenUp, Overtaken) as error:
            problem = error
        except aws.ClientError as error:
            problem = self._answered(call, error)
        except Exception as error:  # noqa: BLE001  whatever it is, it may hold a signature
            problem = self._failed(call, error)
        raise problem  # not from within: what it came from holds a request, and that a signature

    # ------------------------------------------------------------ errors

    def _answered(self, call: Call, error: Any) -> RecordError:
        response = error.response
        meta = response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode", 0))
        code, message = _code_and_message(response, status)
        if call.stage is not Stage.SENT:  # somebody else answered: who gives out roles and tokens
            if code in route53_errors.THROTTLING or status >= 500:
                return RecordUnreachable(
                    f"{self._where}: AWS gave no credentials: {code}", "nothing: asked again later"
                )
            return RecordRefused(f"{self._where}: AWS gave no credentials: {error.operation_name}: {code}", SUPPLY)
        if status >= 500 and code not in route53_errors.THROTTLING:
            return call.lost(f"{self._where} answered {status} {code}", "see whether Route 53 is disturbed")
        ahead = route53_errors.seconds_ahead(meta.get("HTTPHeaders", {}).get("date"), self._now())
        answer = route53_errors.Answer(code, status, message, ahead)
        return route53_errors.refusal(self._where, self._zone.zone, answer, call.change, self._secrets)

    def _failed(self, call: Call, error: Exception) -> RecordError:
        if call.stage is Stage.SENT:
            return self._unreadable(call)
        told = self._no_credentials(error)
        if told is not None:
            return told
        kind = type(error).__name__
        if call.stage is Stage.CREDENTIALS:
            if isinstance(error, aws.ConnectionError | aws.HTTPClientError | aws.MetadataRetrievalError):
                return RecordUnreachable(f"{self._where}: AWS credentials could not be fetched ({kind})", SUPPLY)
            return RecordRefused(f"{self._where}: AWS credentials could not be had ({kind})", SUPPLY)
        mend = "check endpoint_url, and the region and other settings of the AWS configuration"
        return RecordRefused(f"{self._where}: boto3 cannot ask it ({kind})", mend)

    def _no_credentials(self, error: Exception) -> RecordRefused | None:
        """What is wrong with the credentials that were found; only what is no secret is told."""
        said: dict[str, Any] = getattr(error, "kwargs", {})
        profile = self._zone.profile or "default"
        match error:
            case aws.NoCredentialsError():
                words, mend = "there are no AWS credentials", SUPPLY
            case aws.PartialCredentialsError():
                words = f"AWS credentials lack {said.get('cred_var', 'a part')} (from {said.get('provider', '?')})"
                mend = "give both aws_access_key_id and aws_secret_access_key"
            case aws.ProfileNotFound():
                words = f"the AWS configuration has no profile {said.get('profile', profile)}"
                mend = "correct route53.profile, or AWS_PROFILE; the daemon's user reads its own ~/.aws"
            case aws.CredentialRetrievalError():
                words = f"AWS credentials could not be fetched (from {said.get('provider', '?')})"
                mend = "run what fetches them (credential_process, web identity) by hand as the daemon's user"
            case aws.ConfigParseError():
                words, mend = f"{said.get('path', 'the AWS configuration')} cannot be read", "correct that file"
            case _ if isinstance(error, _SINGLE_SIGN_ON):
                words, mend = "the AWS single sign-on has ended", f"run `aws sso login --profile {profile}`"
            case _:
                return None
        return RecordRefused(f"{self._where}: {words}", mend)

    def _unreadable(self, call: Call) -> RecordError:
        return call.lost(f"{self._where} sent an answer that cannot be read", "let endpoint_url name Route 53 itself")


def _code_and_message(response: dict[str, Any], status: int) -> tuple[str, str]:
    """Code and message of an error; Route 53 also has a shape of its own for batches, without a code."""
    error = response.get("Error", {})
    code, message = str(error.get("Code") or ""), str(error.get("Message") or "")
    if not code and "Messages" in response:
        found = response["Messages"]
        told = found.get("Message", "") if isinstance(found, dict) else found
        return "InvalidChangeBatch", ", ".join(told) if isinstance(told, list) else str(told)
    return route53_errors.plain(code) or str(status), message
