"""One DNS question to one server, and the answer that fits it.

By UDP, and by TCP when that answer was cut short. An answer fits when it comes from where the question went (the
kernel sees to that: the socket is connected) and has its id and its question; port and id are random. Anything else is
dropped, and the right answer is waited for until the deadline. Whatever a peer sends ends in NoAnswer at worst.

Questions go without EDNS on purpose: every server understands them, and a right answer by UDP has 512 bytes at most.
"""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress

import dns.exception
import dns.message

from failover.model import Address
from failover.ports import Host

SENDS = 3  # of one question by UDP, spread over the deadline: datagrams get lost
MOST_READ = 8  # answers by UDP that are read although none before them fitted

# Of one answer. dnspython takes up to 3 ms for a record whose names have many labels, and meanwhile nothing else runs.
MOST_BYTES = 4096
MOST_RECORDS = 100  # all sections together

_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class NoAnswer(Exception):
    """A question was not answered; str() says how that showed."""


async def ask(host: Host, query: dns.message.Message, address: Address, seconds: float) -> dns.message.Message:
    """The answer to ``query`` of the server at ``address`` (a literal one), within ``seconds``. Raises NoAnswer."""
    way = ""
    try:
        async with host.timeout(seconds):
            try:
                return await _by_udp(host, query, address, seconds / SENDS)
            except dns.message.Truncated:
                way = "by UDP an answer that was cut short, by TCP "
                return await _by_tcp(query, address)
    except TimeoutError as error:
        raise NoAnswer(f"{way}no answer within {seconds:.2g} s") from error
    except (OSError, EOFError, ValueError, dns.exception.DNSException) as error:
        raise NoAnswer(f"{way}{_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "an answer that ends early"
    if isinstance(error, dns.exception.DNSException):
        return "an answer that cannot be read"
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    words = os.strerror(error.errno)
    return f"no route to it from here ({words})" if error.errno in _NO_ROUTE else words


async def _by_udp(host: Host, query: dns.message.Message, address: Address, patience: float) -> dns.message.Message:
    """The question is sent again, from the same port, every ``patience`` seconds. Raises Truncated, among others."""
    loop = asyncio.get_running_loop()
    at = (address.host, address.port)
    transport, ear = await loop.create_datagram_endpoint(lambda: _Ear(query), remote_addr=at)
    try:
        for _ in range(SENDS):
            transport.sendto(query.to_wire())
            with suppress(TimeoutError):
                async with host.timeout(patience):
                    await ear.heard.wait()
                return ear.outcome()
    finally:
        transport.abort()
    raise TimeoutError


class _Ear(asyncio.DatagramProtocol):
    """Hears what comes in until it is the answer, or an error."""

    def __init__(self, query: dns.message.Message) -> None:
        self.heard = asyncio.Event()
        self._query = query
        self._unread = MOST_READ
        self._outcome: dns.message.Message | Exception | None = None

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Keep an answer; drop what is none."""
        if self.heard.is_set() or not _worth_reading(data, self._query):
            return
        self._unread -= 1
        try:
            self._end(_read(data, self._query))
        except dns.message.Truncated as error:
            self._end(error)
        except (ValueError, dns.exception.DNSException):
            if not self._unread:
                self._end(ValueError(f"{MOST_READ} answers, and none that fits the question"))

    def error_received(self, exc: Exception) -> None:
        """The kernel says that it cannot be sent, or that nobody listens there."""
        self._end(exc)

    def outcome(self) -> dns.message.Message:
        """What was heard. Raises what went wrong."""
        if isinstance(self._outcome, dns.message.Message):
            return self._outcome
        raise self._outcome or EOFError

    def _end(self, outcome: dns.message.Message | Exception) -> None:
        if not self.heard.is_set():
            self._outcome = outcome
            self.heard.set()


async def _by_tcp(query: dns.message.Message, address: Address) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(query.to_wire(prepend_length=True))
        size = int.from_bytes(await reader.readexactly(2))
        if size > MOST_BYTES:
            raise ValueError(f"an answer of {size} bytes, which is too long")
        wire = await reader.readexactly(size)
    finally:
        writer.transport.abort()
    if not _worth_reading(wire, query):
        raise ValueError("an answer to another question, or one with too many records")
    return _read(wire, query)


def _worth_reading(wire: bytes, query: dns.message.Message) -> bool:
    """Whether it has the query's id, and few enough bytes and records to be parsed."""
    counts = (int.from_bytes(wire[at : at + 2]) for at in range(4, 12, 2))
    return 12 <= len(wire) <= MOST_BYTES and int.from_bytes(wire[:2]) == query.id and sum(counts) <= MOST_RECORDS


def _read(wire: bytes, query: dns.message.Message) -> dns.message.Message:
    """The answer. Raises Truncated when it was cut short, ValueError or DNSException when it is none."""
    try:
        response = dns.message.from_wire(wire, raise_on_truncation=True)
    except dns.message.Truncated as error:
        if query.is_response(error.message()):  # type: ignore[no-untyped-call]
            raise
        raise ValueError("an answer to another question") from error
    if not query.is_response(response):
        raise ValueError("an answer to another question")
    return response
