"""How a request that botocore has signed gets to Route 53: one connection for each, nothing twice, nothing unbounded.

botocore would send by itself, and reads on for as long as bytes dribble; it cannot be told to ask once more after the
connection was made, nor be stopped. It offers the event ``before-send`` for a transport of one's own. What it knows of
proxies and authorities is taken from it. Loaded in the worker's thread, at the first call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import urllib3
from botocore.awsrequest import AWSResponse
from botocore.httpsession import ProxyConfiguration, get_cert_path
from botocore.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from failover.errors import RecordTimeout, RecordUnreachable
from failover.records.route53_call import Call, Stage

MOST_ANSWER = 2 * 1024 * 1024  # bytes
_REASONS = ("Connection refused", "No route to host", "Network is unreachable", "Permission denied")


class _TooLong(Exception):
    """The answer has more bytes than any that is meant."""


class _Body:
    """A whole body, as botocore wants to read it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


def send(call: Call, where: str, request: Any, ca_file: str | None) -> Any:
    """Send a botocore.awsrequest.AWSPreparedRequest within the call and return the AWSResponse, its body read.

    ``ca_file`` has the authorities that the AWS configuration names; None: those that botocore takes.
    Raises RecordTimeout and RecordUnreachable (by what may have happened), Overtaken, GivenUp.
    """
    problem: RecordTimeout | RecordUnreachable
    try:
        return _sent(call, request, ca_file)
    except _TooLong:
        problem = call.lost(f"{where} sent more than {MOST_ANSWER // 1024} KiB", "let endpoint_url name Route 53")
    except (HTTPError, OSError) as error:
        problem = _lost(call, where, error)
    raise problem  # not from within: what it came from holds the request, and that a signature


def _sent(call: Call, request: Any, ca_file: str | None) -> Any:
    proxies = ProxyConfiguration(get_environ_proxies(request.url))
    proxy = proxies.proxy_url_for(request.url)
    authorities = get_cert_path(ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or True)
    tls = {"cert_reqs": "CERT_REQUIRED", "ca_certs": authorities}
    manager: urllib3.PoolManager
    if proxy:
        manager = urllib3.ProxyManager(proxy, proxy_headers=proxies.proxy_headers_for(proxy), **tls)
    else:
        manager = urllib3.PoolManager(**tls)
    manager.pool_classes_by_scheme = _pools(call)
    url = urlsplit(request.url)
    forwarded = bool(proxy) and url.scheme == "http"
    try:
        response = manager.connection_from_url(request.url).urlopen(
            request.method,
            request.url if forwarded else f"{url.path}?{url.query}" if url.query else url.path,
            body=request.body,
            headers=dict(request.headers.items()),
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            # Half of the time for the connection, so that one to nowhere ends by itself before the call does.
            timeout=urllib3.Timeout(connect=call.timeout / 2, read=call.timeout),
        )
        with closing(response):
            return AWSResponse(request.url, response.status, response.headers, _Body(_whole(response)))
    finally:
        manager.clear()


def _whole(response: Any) -> bytes:
    body = bytearray()
    for piece in response.stream(65536):
        body += piece
        if len(body) > MOST_ANSWER:
            raise _TooLong
    return bytes(body)


def _pools(call: Call) -> dict[str, type[HTTPConnectionPool]]:
    """Kinds of connections that tell ``call`` when they are made, and ask it when all that is left is to send."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> Any:
            line = super()._new_conn()
            call.connected(line)
            return line

        def connect(self) -> None:
            super().connect()
            call.sending()

    class Tls(HTTPSConnection):
        def _new_conn(self) -> Any:
            line = super()._new_conn()
            call.connected(line)
            return line

        def connect(self) -> None:
            super().connect()
            call.sending()

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}


def _lost(call: Call, where: str, error: Exception) -> RecordTimeout | RecordUnreachable:
    """What a failed exchange means. The texts of urllib3 are not passed on: they may hold a proxy's password."""
    if isinstance(error, ProxyError):
        return call.lost(f"{where}: the HTTP proxy did not let it through", "check HTTPS_PROXY and NO_PROXY")
    if isinstance(error, SSLError):
        return call.lost(f"{where}: TLS failed", "check endpoint_url; and AWS_CA_BUNDLE, where one is set")
    if isinstance(error, NameResolutionError):
        return call.lost(f"{where}: its name has no address here", "check endpoint_url and this machine's resolver")
    if isinstance(error, ConnectTimeoutError | NewConnectionError) or call.stage is not Stage.SENT:
        reason = next((words for words in _REASONS if words in str(error)), "no answer")
        return call.lost(f"{where} took no connection: {reason}", "check endpoint_url, and this machine's network")
    if isinstance(error, ReadTimeoutError):
        return call.lost(f"{where} did not answer within {call.timeout:g} s", "see whether Route 53 is disturbed")
    return call.lost(f"{where} ended the connection without a whole answer", "see whether Route 53 is disturbed")
