"""The ping over real sockets on loopback: every way in which a peer can fail, and that nothing hangs or stays open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest

from failover.errors import PingError
from failover.host import RealHost
from failover.model import Address, Tip
from failover.ouroboros import chainsync, handshake, keepalive
from failover.ouroboros.errors import ProtocolError
from failover.ouroboros.handshake import Accept, Refuse, RefuseVersions, VersionData
from failover.ouroboros.mux import CHAIN_SYNC, HANDSHAKE, KEEP_ALIVE, Mode, frame
from failover.ouroboros.ping import PingResult, Resolver, Session, SocketAddress, ping
from failover.ouroboros.server import Event, Finished, KeepAliveAsked, Proposed, Server, TipAsked

MAGIC = 42
TIP = Tip(17, "ab" * 32, 7)
PATIENCE = 20.0  # seconds, for what must come through on any machine
SHORT = 0.3  # seconds, for what must time out

Say = Callable[[asyncio.StreamWriter, Server, Event], Awaitable[None]]


async def politely(writer: asyncio.StreamWriter, server: Server, event: Event) -> None:
    writer.write(server.answer(event, TIP, 0))


class Node:
    """A server on loopback that answers as it is told, and notes how its connections end."""

    def __init__(self, say: Say = politely, magic: int = MAGIC) -> None:
        self.say = say
        self.magic = magic
        self.opened = 0
        self.asked = asyncio.Event()
        self.ends: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()  # FIN or reset; both mini-protocols done

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        server, end = Server(self.magic), "FIN"
        try:
            while data := await reader.read(4096):
                for event in server.receive(data):
                    self.asked.set()
                    await self.say(writer, server, event)
        except ProtocolError as error:
            end = str(error)
        except ConnectionError:
            end = "reset"
        finally:
            self.ends.put_nowait((end, server.finished))
            writer.close()

    async def ended(self) -> tuple[str, bool]:
        async with RealHost().timeout(PATIENCE):
            return await self.ends.get()


@asynccontextmanager
async def running(node: Node, host: str = "127.0.0.1") -> AsyncIterator[Address]:
    server = await asyncio.start_server(node.serve, host, 0)
    async with server:
        yield Address(host, server.sockets[0].getsockname()[1])


async def pinged(address: Address, timeout: float = PATIENCE, magic: int = MAGIC) -> PingResult:
    return await ping(RealHost(), address, magic, timeout)


async def failure(say: Say, timeout: float = PATIENCE) -> PingError:
    """What a ping of a node that answers so ends with; the connection is seen to end as well."""
    node = Node(say)
    async with running(node) as address:
        with pytest.raises(PingError) as raised:
            await pinged(address, timeout)
        await node.ended()
    assert str(raised.value).isprintable()
    assert str(address) in str(raised.value)
    return raised.value


def at(kind: type[Event], words: bytes) -> Say:
    """Answers politely until an event of ``kind``, which it answers with ``words``."""

    async def say(writer: asyncio.StreamWriter, server: Server, event: Event) -> None:
        if isinstance(event, kind):
            writer.write(words)
        else:
            await politely(writer, server, event)

    return say


def reply(protocol: int, payload: bytes) -> bytes:
    return frame(protocol, payload, 0, Mode.RESPONDER)


# ---------------------------------------------------------------- what comes through


async def test_a_ping_tells_version_tip_and_times_and_ends_politely() -> None:
    node = Node()
    async with running(node) as address:
        result = await pinged(address)
        assert await node.ended() == ("FIN", True)
    assert (result.address, result.version, result.tip) == (str(address), 15, TIP)
    parts = (result.connect_ms, result.handshake_ms, result.keep_alive_ms)
    assert all(part > 0 for part in parts)
    assert sum(parts) < result.duration_ms
    assert result.dns_ms >= 0


async def test_a_ping_waits_for_the_peer_to_end_first_when_it_is_told_to_linger() -> None:
    async def leave(writer: asyncio.StreamWriter, server: Server, event: Event) -> None:
        await politely(writer, server, event)
        if isinstance(event, Finished) and server.finished:
            writer.close()

    node = Node(leave)
    async with running(node) as address:
        result = await ping(RealHost(), address, MAGIC, PATIENCE, linger=PATIENCE)
        assert result.tip == TIP
    node = Node()
    async with running(node) as address:
        assert (await ping(RealHost(), address, MAGIC, PATIENCE, linger=0.05)).tip == TIP
        assert await node.ended() == ("FIN", True)


async def test_ipv6_is_shown_in_brackets() -> None:
    node = Node()
    async with running(node, "::1") as address:
        assert (await pinged(address)).address == f"[::1]:{address.port}"


async def test_a_node_that_sends_one_byte_at_a_time_is_pinged_all_the_same() -> None:
    async def dribble(writer: asyncio.StreamWriter, server: Server, event: Event) -> None:
        for byte in server.answer(event, TIP, 0):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)  # noqa: TID251  gives each byte its own packet

    async with running(Node(dribble)) as address:
        assert (await pinged(address)).tip == TIP


async def test_a_genesis_tip_is_a_tip() -> None:
    told = reply(CHAIN_SYNC, chainsync.encode(chainsync.IntersectNotFound(chainsync.GENESIS)))
    async with running(Node(at(TipAsked, told))) as address:
        assert (await pinged(address)).tip == Tip(0, "", 0)


# ---------------------------------------------------------------- what does not


async def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PingError, match=f"^127.0.0.1:{port}: connection refused") as raised:
        await pinged(Address("127.0.0.1", port))
    assert raised.value.stage == "connect"
    assert "port" in raised.value.mend


async def test_no_route() -> None:
    with pytest.raises(PingError, match=r"no route to the network") as raised:
        await pinged(Address("127.255.255.255", 9))  # the broadcast address: nothing leaves the machine
    assert raised.value.stage == "connect"


@pytest.mark.parametrize("port", [0, -1, 65536])
async def test_a_port_out_of_range_is_named(port: int) -> None:
    with pytest.raises(PingError, match=f"port {port} is not within 1 to 65535"):
        await pinged(Address("127.0.0.1", port))


async def test_a_black_hole_times_out_at_connect() -> None:
    with (
        black_hole() as hole,
        pytest.raises(PingError, match=r"no answer to the connection attempt within 0\.3") as raised,
    ):
        await pinged(Address("127.0.0.1", hole), SHORT)
    assert raised.value.stage == "connect"


@pytest.mark.parametrize(
    ("kind", "stage", "words"),
    [
        (Proposed, "handshake", "connected, but the handshake was not answered within 0.3 s"),
        (KeepAliveAsked, "keep-alive", "no answer to the keep-alive within 0.3 s"),
        (TipAsked, "tip", "no answer to the question for the tip within 0.3 s"),
    ],
)
async def test_silence_is_told_with_its_stage(kind: type[Event], stage: str, words: str) -> None:
    error = await failure(at(kind, b""), SHORT)
    assert error.stage == stage
    assert words in str(error)


async def test_a_dribble_that_takes_too_long_times_out() -> None:
    accepted = reply(HANDSHAKE, handshake.encode(Accept(15, VersionData(MAGIC))))
    error = await failure(at(Proposed, accepted[:-1]), SHORT)
    assert error.stage == "handshake"
    assert f"({len(accepted) - 1} bytes of an answer came)" in str(error)


@pytest.mark.parametrize(
    ("kind", "stage"), [(Proposed, "handshake"), (KeepAliveAsked, "keep-alive"), (TipAsked, "tip")]
)
@pytest.mark.parametrize("reset", [True, False])
async def test_a_connection_that_ends_is_told_with_its_stage(kind: type[Event], stage: str, reset: bool) -> None:
    async def hang_up(writer: asyncio.StreamWriter, server: Server, event: Event) -> None:
        if not isinstance(event, kind):
            await politely(writer, server, event)
        elif reset:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            writer.transport.abort()
        else:
            writer.close()

    error = await failure(hang_up)
    assert error.stage == stage
    assert f"connection {'reset' if reset else 'closed'} by the peer during the {stage}" in str(error)
    assert (error.mend == "wrong network magic or version?") is (stage == "handshake")


ACCEPTED = handshake.encode(Accept(15, VersionData(MAGIC)))
TOLD = chainsync.encode(chainsync.IntersectNotFound(TIP))


@pytest.mark.parametrize(
    ("kind", "words", "stage", "told"),
    [
        (Proposed, reply(0, handshake.encode(RefuseVersions((7, 16)))), "handshake", "the peer offers 7, 16"),
        (Proposed, reply(0, handshake.encode(Refuse(15, "go\x1b[1m\naway" * 90))), "handshake", r"version 15: go \[1m"),
        (Proposed, reply(0, handshake.encode(Accept(14, VersionData(1)))), "handshake", "accepted for network magic 1"),
        (Proposed, reply(0, ACCEPTED + b"\x00"), "handshake", "1 bytes behind the end"),
        (Proposed, reply(0, ACCEPTED[:-1]), "handshake", "cut short"),
        (Proposed, reply(0, b"\xff\xff\xff\xff"), "handshake", "break outside"),
        (Proposed, reply(0, b"\x81" * 900), "handshake", "levels deep"),
        (Proposed, b"\x00\x00\x00\x00\x80\x00\xff\xff", "handshake", "65535 bytes where"),
        (Proposed, b"HTTP/1.1 400 Bad Request\r\n\r\n", "handshake", "mini-protocol"),
        (Proposed, b"SSH-2.0-OpenSSH_9.2\r\n", "handshake", "mini-protocol"),
        (KeepAliveAsked, reply(8, b"\x82\x01\x19\xff\xff\x00"), "keep-alive", "cookie|behind the answer"),
        (KeepAliveAsked, reply(8, b"\x82\x01\xf5"), "keep-alive", "a boolean where a whole number belongs"),
        (KeepAliveAsked, reply(2, TOLD), "keep-alive", "nobody asked for"),
        (TipAsked, reply(2, TOLD + b"\x00"), "tip", "behind the answer"),
        (TipAsked, reply(2, TOLD[:-1] + b"\xf4"), "tip", "block number: a boolean"),
        (TipAsked, reply(2, b"\x9f" * 400), "tip", "indefinite"),
        (TipAsked, reply(2, b"\x99\x0f\xff" + b"\x00" * 4000) * 2, "tip", "behind|at most|levels|belongs|4096"),
    ],
)
async def test_wrong_bytes_are_told_with_their_stage(kind: type[Event], words: bytes, stage: str, told: str) -> None:
    error = await failure(at(kind, words))
    assert error.stage == stage
    assert len(str(error)) < 400
    with pytest.raises(PingError, match=told):
        raise error


async def test_a_wrong_cookie_is_told() -> None:
    async def swap(writer: asyncio.StreamWriter, server: Server, event: Event) -> None:
        if isinstance(event, KeepAliveAsked):
            writer.write(reply(KEEP_ALIVE, keepalive.encode(keepalive.Response(event.cookie ^ 1))))
        else:
            await politely(writer, server, event)

    error = await failure(swap)
    assert error.stage == "keep-alive"
    assert "came back where" in str(error)


async def test_another_network_is_told_in_the_peers_words() -> None:
    node = Node(magic=1)
    async with running(node) as address:
        with pytest.raises(PingError, match="version data mismatch: network magic 42, ours is 1") as raised:
            await pinged(address)
    assert "network magic" in raised.value.mend


@pytest.mark.parametrize("kind", [Proposed, KeepAliveAsked, TipAsked])
async def test_a_flood_ends_at_once(kind: type[Event]) -> None:
    async def pour(writer: asyncio.StreamWriter, server: Server, event: Event) -> None:
        if not isinstance(event, kind):
            await politely(writer, server, event)
            return
        while True:
            writer.write(reply(KEEP_ALIVE, b"\x82\x01\x00") * 5000)
            await writer.drain()

    error = await failure(pour)
    assert (
        "nobody asked" in str(error)
        or "before" in str(error)
        or "behind the answer" in str(error)
        or "cookie" in str(error)
    )


async def test_a_cancelled_ping_closes_its_connection() -> None:
    node = Node(at(KeepAliveAsked, b""))
    async with running(node) as address:
        task = asyncio.create_task(pinged(address))
        async with RealHost().timeout(PATIENCE):
            await node.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await node.ended())[0] in ("FIN", "reset")


# ---------------------------------------------------------------- names


def resolving(*found: SocketAddress) -> Callable[[str, int, float], Awaitable[Sequence[SocketAddress]]]:
    async def resolve(name: str, port: int, timeout: float) -> Sequence[SocketAddress]:
        return found

    return resolve


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue of connections is full: Linux drops further attempts, as a firewall would."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


async def test_a_black_hole_leaves_the_other_addresses_of_a_name_their_share() -> None:
    async with running(Node()) as address:
        with black_hole() as hole:
            resolver = resolving(
                SocketAddress(socket.AF_INET, ("127.0.0.1", hole)),
                SocketAddress(socket.AF_INET, ("127.0.0.1", address.port)),
            )
            result = await ping(RealHost(), Address("node.test", 3001), MAGIC, 2.0, resolver=resolver)
    assert result.address == str(address)
    assert result.tip == TIP


async def test_when_every_address_fails_the_one_that_came_furthest_is_told() -> None:
    async with running(Node(at(KeepAliveAsked, reply(8, b"\x82\x01\xf5")))) as address:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            dead = free.getsockname()[1]
        resolver = resolving(
            SocketAddress(socket.AF_INET, ("127.0.0.1", dead)),
            SocketAddress(socket.AF_INET, ("127.0.0.1", address.port)),
            SocketAddress(socket.AF_INET, ("127.0.0.1", dead)),
        )
        with pytest.raises(PingError, match=r"boolean.*\(and 2 more of its addresses failed\)") as raised:
            await ping(RealHost(), Address("node.test", 3001), MAGIC, PATIENCE, resolver=resolver)
    assert raised.value.stage == "keep-alive"
    assert f"node.test:3001 ({address})" in str(raised.value)


async def test_a_name_without_addresses_and_a_resolver_that_hangs_are_told_as_dns() -> None:
    with pytest.raises(PingError, match=r"node\.test: the name has no address") as raised:
        await ping(RealHost(), Address("node.test", 3001), MAGIC, PATIENCE, resolver=resolving())
    assert raised.value.stage == "dns"

    async def hang(name: str, port: int, timeout: float) -> Sequence[SocketAddress]:
        await asyncio.Event().wait()
        return ()

    with pytest.raises(PingError, match=r"no answer from the name servers within 0\.3 s") as raised:
        await ping(RealHost(), Address("node.test", 3001), MAGIC, SHORT, resolver=hang)
    assert raised.value.stage == "dns"


async def test_the_systems_resolver_runs_in_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(name: str, port: int, *args: object, **options: object) -> list[tuple[object, ...]]:
        asked.append(name)
        if name == "missing.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name == "busy.test":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if name == "..":
            raise UnicodeError("label empty or too long")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with running(Node()) as address:
        assert (await pinged(Address("node.test", address.port))).address == str(address)
        for name, words in (
            ("missing.test", "the name is not found"),
            ("busy.test", "the name servers do not answer"),
            ("..", "not a name that can be looked up"),
        ):
            with pytest.raises(PingError, match=words) as raised:
                await pinged(Address(name, address.port))
            assert raised.value.stage == "dns"
    assert asked[:2] == ["node.test", "missing.test"]


async def test_a_lookup_that_hangs_costs_one_thread_and_later_ones_fail_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threading

    release = threading.Event()

    def hang(*args: object, **options: object) -> list[tuple[object, ...]]:
        release.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    host = RealHost()
    resolver = Resolver(host)
    try:
        with pytest.raises(PingError, match=r"within 0\.3 s"):
            await ping(host, Address("slow.test", 3001), MAGIC, SHORT, resolver=resolver)
        with pytest.raises(PingError, match="an earlier lookup of the name still runs"):
            await ping(host, Address("slow.test", 3001), MAGIC, PATIENCE, resolver=resolver)
    finally:
        release.set()
        resolver.close()


# ---------------------------------------------------------------- a session that is kept open


async def test_a_session_is_probed_again_and_again_on_one_connection() -> None:
    node = Node()
    async with running(node) as address:
        session = await Session.open(RealHost(), address, MAGIC, PATIENCE)
        assert (session.address, session.version) == (str(address), 15)
        for _ in range(5):
            probe = await session.probe(PATIENCE)
            assert probe.tip == TIP
        await session.close()
        await session.close()
        assert await node.ended() == ("FIN", True)
        assert node.opened == 1
        with pytest.raises(PingError, match="the session is closed"):
            await session.probe(PATIENCE)


async def test_a_session_whose_peer_leaves_says_so_at_the_next_probe_and_closes() -> None:
    node = Node()
    async with running(node) as address:
        session = await Session.open(RealHost(), address, MAGIC, PATIENCE)
        node.say = at(TipAsked, b"")
        with pytest.raises(PingError, match=r"question for the tip within 0\.3 s"):
            await session.probe(SHORT)
        await node.ended()
        with pytest.raises(PingError, match="the session is closed"):
            await session.probe(PATIENCE)

    async def push(writer: asyncio.StreamWriter, server: Server, event: Event) -> None:
        await politely(writer, server, event)
        if isinstance(event, TipAsked):
            writer.write(reply(CHAIN_SYNC, TOLD))

    node = Node()
    async with running(node) as address:
        session = await Session.open(RealHost(), address, MAGIC, PATIENCE)
        node.say = push

        async def probes() -> None:
            for _ in range(2):
                await session.probe(PATIENCE)

        with pytest.raises(PingError, match=r"nobody asked|behind the answer"):
            await probes()
