"""Connecting to a host by address or by name, for the edges that speak over plain streams.

A name is looked up in a thread of its own, since a resolver may hang; the addresses are tried in turn.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from .errors import WorkerBusy
from .model import Address
from .ports import Host, Worker

LIMIT = 1 << 16  # bytes that a line may have, as in asyncio


class Dial:
    """Opens connections for one edge, by whose ``name`` its thread goes. ``close`` lets go of that."""

    def __init__(self, name: str, host: Host) -> None:
        self._name = name
        self._host = host
        self._names: Worker | None = None

    async def open(
        self, target: Address, timeout: float, limit: int = LIMIT
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection. ``timeout`` (seconds) is for the lookup; the caller bounds the whole.

        Raises OSError, TimeoutError.
        """
        last: OSError | None = None
        for host in await self._resolve(target, timeout):
            try:
                return await asyncio.open_connection(host, target.port, limit=limit)
            except OSError as error:
                last = error
        raise last or OSError(f"no address for {target.host}")

    def close(self) -> None:
        """Let go of the thread."""
        if self._names is not None:
            self._names.close()
            self._names = None

    async def _resolve(self, target: Address, timeout: float) -> list[str]:
        """Literal addresses as they are."""
        try:
            ipaddress.ip_address(target.host.partition("%")[0])
        except ValueError:
            pass
        else:
            return [target.host]
        if self._names is None:
            self._names = self._host.worker(f"{self._name} name")
        try:
            found = await self._names.call(
                lambda: socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM), timeout
            )
        except WorkerBusy as error:
            raise OSError(f"the resolver still hangs on {target.host}") from error
        return [str(address[0]) for *_, address in found]
