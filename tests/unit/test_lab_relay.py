"""A simulated relay sticks to its sessions, redials as a real one does, and writes down whom it reached."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from failover.host import RealHost
from failover.lab.chain import Chain
from failover.lab.dnsport import Asked, DnsPort
from failover.lab.haproxy import free_ports
from failover.lab.node import Node
from failover.lab.relay import ALIVE_EVERY, Relay, RelaySettings, main
from failover.lab.resolution import Promote
from failover.lab.sessions import Interval, hot, intervals, overlaps
from failover.model import Address

STILL = Chain(RealHost().now().mono - 1000.5 * 3600, 3600.0)
WAIT = 10.0  # seconds, an upper bound for what takes some ms


class Hasty(RealHost):
    """A host that sleeps for some ms only, and remembers for how long it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds != ALIVE_EVERY:
            self.slept.append(seconds)
        await super().sleep(0.002)


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[Relay]:
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with RealHost().timeout(WAIT):
        while not true():
            await RealHost().sleep(0.005)


def node(name: str, port: int = 0) -> Node:
    return Node(name, Address("127.0.0.1", port), 42, STILL)


def relay(folder: Path, host: Hasty, *targets: Node, scale: float = 1.0) -> Relay:
    settings = RelaySettings("relay-1", tuple(n.address for n in targets), folder / "log.jsonl", scale=scale, seed=3)
    return Relay(settings, host)


def logged(folder: Path) -> list[Interval]:
    return intervals(folder / "log.jsonl")


async def test_it_holds_a_session_with_each_target_and_tells_which_producer_each_one_reached(tmp_path: Path) -> None:
    async with node("main") as main, node("backup") as backup, running(relay(tmp_path, Hasty(), main, backup)):
        await until(lambda: len(logged(tmp_path)) == 2)
        assert {i.producer: i.target for i in logged(tmp_path)} == {
            "main": str(main.address),
            "backup": str(backup.address),
        }
    assert {(i.why, i.end is None) for i in logged(tmp_path)} == {("the relay ended", False)}


async def test_it_asks_again_and_again_on_the_one_session(tmp_path: Path) -> None:
    async with node("main") as main, running(relay(tmp_path, Hasty(), main, scale=1000.0)):
        records: list[dict[str, object]] = []
        async with RealHost().timeout(WAIT):
            while not records or int(str(records[0]["asked"])) < 8:
                records = (await main.tell("sessions"))["open"]
                await RealHost().sleep(0.005)
        assert len(records) == 1
        assert len(logged(tmp_path)) == 1


async def test_it_redials_with_growing_waits_and_begins_anew_after_a_session(tmp_path: Path) -> None:
    host = Hasty()
    async with node("main") as main:
        await main.tell("refuse")
        async with running(relay(tmp_path, host, main)):
            await until(lambda: len(host.slept) >= 7)
            refused = host.slept[:7]
            await main.tell("heal")
            await until(lambda: len(logged(tmp_path)) == 1)
            before = len(host.slept)
            await main.tell("drop")
            await until(lambda: len(logged(tmp_path)) == 2)
    wanted = [5, 10, 20, 40, 80, 160, 160]
    assert refused == [pytest.approx(seconds, abs=2.0) for seconds in wanted]
    assert len({wait - base for wait, base in zip(refused, wanted, strict=True)}) > 1  # the jitter
    assert host.slept[before:] == [pytest.approx(5, abs=2.0)]
    assert "closed" in logged(tmp_path)[0].why or "reset" in logged(tmp_path)[0].why


async def test_the_same_seed_waits_the_same(tmp_path: Path) -> None:
    waits = []
    for name in ("one", "two"):
        host = Hasty()
        (tmp_path / name).mkdir()
        nobody = Address("127.0.0.1", 1)
        async with running(Relay(RelaySettings("relay-1", (nobody,), tmp_path / name / "log.jsonl", seed=9), host)):
            await until(lambda slept=host.slept: len(slept) >= 3)  # type: ignore[misc]
        waits.append(host.slept[:3])
    assert waits[0] == waits[1]


async def test_it_gives_up_a_session_whose_keep_alive_goes_unanswered(tmp_path: Path) -> None:
    async with node("main") as main, running(relay(tmp_path, Hasty(), main, scale=100.0)):
        await until(lambda: len(logged(tmp_path)) == 1)
        await main.tell("hang")
        await until(lambda: logged(tmp_path)[0].end is not None)
        assert "no answer within 1 s" in logged(tmp_path)[0].why


async def test_a_node_of_another_network_is_no_session(tmp_path: Path) -> None:
    host = Hasty()
    async with node("main") as main:
        await main.tell("magic", "7")
        async with running(relay(tmp_path, host, main)):
            await until(lambda: len(host.slept) >= 2)
    assert logged(tmp_path) == []
    assert "magic" in (tmp_path / "log.jsonl").read_text(encoding="utf-8")


# ---------------------------------------------------------------- names

NAME = "bp.lab.test."
BACKUP_HOST = "127.0.0.2"


class Resolver:
    """A DNS server that says what it is told to: ``answers`` are A and AAAA records, ``rcode`` stands for itself."""

    def __init__(self) -> None:
        self.answers: tuple[str, ...] = ()
        self.ttl = 60
        self.rcode = dns.rcode.NOERROR
        self.over: list[str] = []
        self.port = DnsPort("resolver", Address("127.0.0.1", 0), self._answer)

    async def _answer(self, asked: Asked) -> bytes:
        self.over.append("udp" if asked.udp else "tcp")
        response = dns.message.make_response(asked.message)
        response.set_rcode(self.rcode)
        (question,) = asked.message.question
        wanted = [a for a in self.answers if (":" in a) == (question.rdtype == dns.rdatatype.AAAA)]
        if wanted:
            response.answer = [dns.rrset.from_text_list(question.name, self.ttl, "IN", question.rdtype, wanted)]
        return asked.wire(response)


@asynccontextmanager
async def resolving(*answers: str) -> AsyncIterator[Resolver]:
    resolver = Resolver()
    resolver.answers = answers
    await resolver.port.listen()
    try:
        yield resolver
    finally:
        await resolver.port.close()


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Node, Node]]:
    """Main and backup, at different addresses with the same port."""
    (port,) = free_ports(1, BACKUP_HOST)
    backup = Node("backup", Address(BACKUP_HOST, port), 42, STILL)
    async with node("main", port) as one, backup as other:
        yield one, other


def by_name(
    folder: Path,
    resolver: Resolver,
    port: int,
    promote: Promote = Promote.NAMED,
    scale: float = 1.0,
    source: str | None = None,
) -> Relay:
    settings = RelaySettings(
        "relay-1",
        (),
        folder / "log.jsonl",
        scale=scale,
        source=source,
        names=(Address(NAME, port),),
        resolver=resolver.port.address,
        promote=promote,
    )
    return Relay(settings, Hasty())


def events(folder: Path, event: str) -> list[dict[str, Any]]:
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]


def heat(folder: Path) -> dict[str, bool]:
    """The producers that it is connected to, and whether they are hot."""
    return {i.producer: i.is_hot for i in logged(folder) if i.end is None}


async def test_a_name_is_resolved_and_what_it_resolves_to_is_dialled(tmp_path: Path) -> None:
    async with (
        node("main") as one,
        resolving("127.0.0.1") as resolver,
        running(by_name(tmp_path, resolver, one.address.port)),
    ):
        await until(lambda: heat(tmp_path) == {"main": True})
    first = events(tmp_path, "resolved")[0]
    assert (first["name"], first["answers"], first["ttl"], first["next_in"]) == (NAME, ["127.0.0.1"], 60, 60.0)
    assert "why" not in first


async def test_a_producer_at_an_ipv6_address_is_reached_by_its_aaaa_record(tmp_path: Path) -> None:
    async with (
        Node("main", Address("::1", 0), 42, STILL) as one,
        resolving("::1") as resolver,
        running(by_name(tmp_path, resolver, one.address.port, source="127.0.0.1")),
    ):
        await until(lambda: heat(tmp_path) == {"main": True})


async def test_an_answer_too_long_for_udp_is_asked_for_over_tcp(tmp_path: Path) -> None:
    many = tuple(f"127.0.9.{number}" for number in range(1, 61))
    async with resolving("127.0.0.1", *many) as resolver, running(by_name(tmp_path, resolver, free_ports(1)[0])):
        await until(lambda: events(tmp_path, "resolved") != [])
    assert len(events(tmp_path, "resolved")[0]["answers"]) == 61
    assert {"udp", "tcp"} == set(resolver.over)


async def test_when_the_name_moves_the_new_address_is_dialled_and_the_old_session_is_demoted_and_not_closed(
    tmp_path: Path,
) -> None:
    async with (
        two() as (one, other),
        resolving("127.0.0.1") as resolver,
        running(by_name(tmp_path, resolver, one.address.port, scale=1000.0)),
    ):
        await until(lambda: heat(tmp_path) == {"main": True})
        resolver.answers = (BACKUP_HOST,)
        await until(lambda: heat(tmp_path) == {"main": False, "backup": True})
        asked = (await one.tell("sessions"))["open"][0]["asked"]
        async with RealHost().timeout(WAIT):
            while (await one.tell("sessions"))["open"][0]["asked"] < asked + 4:
                await RealHost().sleep(0.005)
        assert (await other.tell("state"))["sessions"] == 1
        assert overlaps(logged(tmp_path), 0.0) != []
        assert overlaps(hot(logged(tmp_path)), 0.0) == []


async def test_a_demoted_session_that_ends_is_not_dialled_again(tmp_path: Path) -> None:
    async with (
        two() as (one, _),
        resolving("127.0.0.1") as resolver,
        running(by_name(tmp_path, resolver, one.address.port)),
    ):
        await until(lambda: heat(tmp_path) == {"main": True})
        resolver.answers = (BACKUP_HOST,)
        await until(lambda: heat(tmp_path) == {"main": False, "backup": True})
        await one.tell("drop")
        await until(lambda: heat(tmp_path) == {"backup": True})
        seen = len(events(tmp_path, "resolved"))
        await until(lambda: len(events(tmp_path, "resolved")) > seen + 20)
        assert heat(tmp_path) == {"backup": True}
        assert events(tmp_path, "failed") == []


async def test_a_session_whose_address_left_while_it_was_dialled_begins_warm(tmp_path: Path) -> None:
    async with two() as (one, _), resolving("127.0.0.1") as resolver:
        await one.tell("slow", "0.2")
        async with running(by_name(tmp_path, resolver, one.address.port)):
            await until(lambda: bool(events(tmp_path, "resolved")))
            resolver.answers = (BACKUP_HOST,)
            await until(lambda: heat(tmp_path) == {"main": False, "backup": True})
    order = [(line["event"], line["producer"]) for event in ("opened", "demoted") for line in events(tmp_path, event)]
    assert order == [("opened", "backup"), ("opened", "main"), ("demoted", "main")]


async def test_a_demoted_peer_that_is_named_again_is_promoted_on_its_old_connection(tmp_path: Path) -> None:
    async with (
        two() as (one, _),
        resolving("127.0.0.1") as resolver,
        running(by_name(tmp_path, resolver, one.address.port)),
    ):
        await until(lambda: heat(tmp_path) == {"main": True})
        resolver.answers = (BACKUP_HOST,)
        await until(lambda: heat(tmp_path) == {"main": False, "backup": True})
        resolver.answers = ("127.0.0.1",)
        await until(lambda: heat(tmp_path) == {"main": True, "backup": False})
        assert len((await one.tell("sessions"))["open"]) == 1
    assert [line["producer"] for line in events(tmp_path, "promoted")] == ["main"]


async def test_a_warm_peer_is_promoted_when_the_last_hot_one_is_lost_where_that_was_chosen(tmp_path: Path) -> None:
    async with (
        two() as (one, other),
        resolving("127.0.0.1") as resolver,
        running(by_name(tmp_path, resolver, one.address.port, Promote.LONELY)),
    ):
        await until(lambda: heat(tmp_path) == {"main": True})
        resolver.answers = (BACKUP_HOST,)
        await until(lambda: heat(tmp_path) == {"main": False, "backup": True})
        await other.tell("refuse")
        await other.tell("drop")
        await until(lambda: heat(tmp_path) == {"main": True})


@pytest.mark.parametrize(
    ("rcode", "answers", "why", "next_in"),
    [
        (dns.rcode.NXDOMAIN, (), "no such name", 900),
        (dns.rcode.SERVFAIL, (), "SERVFAIL", 125),
        (dns.rcode.NOERROR, (), None, 900),
    ],
    ids=["no such name", "failure", "empty"],
)
async def test_what_a_failed_lookup_and_an_empty_answer_do_to_a_session(
    tmp_path: Path, rcode: dns.rcode.Rcode, answers: tuple[str, ...], why: str | None, next_in: float
) -> None:
    async with (
        node("main") as one,
        resolving("127.0.0.1") as resolver,
        running(by_name(tmp_path, resolver, one.address.port)),
    ):
        await until(lambda: heat(tmp_path) == {"main": True})
        resolver.rcode, resolver.answers = rcode, answers
        await until(lambda: events(tmp_path, "resolved")[-1]["answers"] == [])
        (failed, *_) = [line for line in events(tmp_path, "resolved") if not line["answers"]]
        assert (failed.get("why"), failed["ttl"], failed["next_in"]) == (why, None, next_in)
        await until(lambda: heat(tmp_path) == {"main": why is not None})


async def test_a_resolver_that_does_not_answer_is_a_failed_lookup(tmp_path: Path) -> None:
    silent = Resolver()
    silent.port = DnsPort("resolver", Address("127.0.0.1", free_ports(1)[0]), silent._answer)
    async with running(by_name(tmp_path, silent, 1, scale=1000.0)):
        await until(lambda: events(tmp_path, "resolved") != [])
    assert events(tmp_path, "resolved")[0]["answers"] == []
    assert events(tmp_path, "resolved")[0]["why"]


async def test_an_address_that_is_not_on_this_machine_is_not_dialled(tmp_path: Path) -> None:
    async with resolving("192.0.2.66") as resolver, running(by_name(tmp_path, resolver, 3001)):
        await until(lambda: events(tmp_path, "failed") != [])
    assert events(tmp_path, "failed")[0]["why"] == "not on this machine, which nothing of the lab leaves"


async def test_a_relay_may_have_addresses_and_names_and_neither_touches_the_other(tmp_path: Path) -> None:
    async with two() as (one, _), resolving("127.0.0.1") as resolver:
        settings = RelaySettings(
            "relay-1",
            (one.address,),
            tmp_path / "log.jsonl",
            names=(Address(NAME, one.address.port),),
            resolver=resolver.port.address,
        )
        async with running(Relay(settings, Hasty())):
            await until(lambda: heat(tmp_path) == {"main": True})
            resolver.answers = (BACKUP_HOST,)
            await until(lambda: heat(tmp_path) == {"main": True, "backup": True})
            assert len((await one.tell("sessions"))["open"]) == 1
            assert events(tmp_path, "demoted") == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nobody to dial: give --target or --name-target"),
        (["--name-target", f"{NAME}:1"], "--name-target: give a --resolver too"),
    ],
)
def test_a_relay_with_nobody_to_dial_or_to_ask_is_refused(
    tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--name", "relay-1", "--log", str(tmp_path / "log"), *words])
    assert says in capsys.readouterr().err
