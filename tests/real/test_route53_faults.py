"""What is said, and what is done next, when Route 53 says no, says something else, or does not say anything in time."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from route53_world import (
    ANSWER,
    BACKUP,
    KEY,
    MAIN,
    NAME,
    SECRET,
    SWAP,
    TOKEN,
    ZONE,
    World,
    a,
    answering,
    changed,
    close_all,
    error_xml,
    failed,
    isolated,
    listing_xml,
    port_to,
    record_of,
    world,
    xml,
)

from failover.errors import (
    RecordConflict,
    RecordError,
    RecordRefused,
    RecordThrottled,
    RecordTimeout,
    RecordUnreachable,
)
from failover.host import RealHost
from failover.lab.haproxy import installed
from failover.lab.httpport import Delivery, Reply, Request
from failover.lab.route53 import Faults
from failover.model import RecordReading, Route53Zone
from failover.records import route53, route53_transport
from failover.records.route53 import Route53Port
from failover.records.route53_call import Call, GivenUp

SHORT = 2.0  # seconds; for what never answers
HOST = RealHost()


@pytest.fixture(autouse=True)
async def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[None]:
    isolated(monkeypatch, tmp_path)
    yield
    await close_all()


@pytest.fixture(autouse=True)
def nothing_logged(caplog: pytest.LogCaptureFixture) -> Any:
    """No log line tells a secret, at any level."""
    caplog.set_level(logging.DEBUG)
    yield
    for secret in (KEY, SECRET, TOKEN, "Signature="):
        assert secret not in caplog.text


def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)


async def all_refused(world: World, kind: type[RecordError], *words: str) -> None:
    """Every kind of call fails so, nothing is changed, and all work again once the fault is gone."""
    port = world.port()
    before = world.live.zone
    for attempt in (port.read(ANSWER), changed(port), port.settled("C1", ANSWER)):
        await failed(attempt, kind, *words)
    assert world.live.zone == before
    await works_again(world, port)


async def works_again(world: World, port: Route53Port) -> None:
    world.aws.faults = Faults()
    world.aws.throttle(0.0)
    reading = await port.read(ANSWER)
    assert reading.rrset in (a(MAIN), a(BACKUP))
    if reading.rrset == a(MAIN):
        assert await changed(port)
    assert (await port.read(ANSWER)).rrset == a(BACKUP)


# ---------------------------------------------------------------- it answers, and the answer is no


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("AccessDenied", RecordRefused, ["not authorized to perform: route53:", "failover render iam"]),
        ("InvalidClientTokenId", RecordRefused, ["access key is not known", "aws_access_key_id"]),
        ("SignatureDoesNotMatch", RecordRefused, ["secret key does not belong", "aws_secret_access_key"]),
        ("ExpiredToken", RecordRefused, ["session token has expired", "renew"]),
        ("RequestExpired", RecordRefused, ["clock", "chrony"]),
        ("MissingAuthenticationToken", RecordRefused, ["signature", "HTTP proxy"]),
        ("NoSuchHostedZone", RecordRefused, [f"no hosted zone {ZONE}", "route53.zone", "list-hosted-zones"]),
        ("InvalidInput", RecordRefused, ["refuses it: InvalidInput", "API reference"]),
        ("Unheard.Of", RecordRefused, ["refuses it: Unheard.Of"]),
        ("Throttling", RecordThrottled, ["Rate exceeded", "asked again later"]),
        ("ThrottlingException", RecordThrottled, ["Rate exceeded"]),
        ("PriorRequestNotComplete", RecordThrottled, ["still processing a prior request"]),
        ("SlowDown", RecordThrottled, ["asked later"]),
    ],
)
async def test_a_refusal_is_told_with_its_mend_and_has_no_effect(
    code: str, kind: type[RecordError], words: list[str]
) -> None:
    async with world() as made:
        made.aws.faults = Faults(refuse=code)
        await all_refused(made, kind, *words)


async def test_a_refused_call_is_not_repeated() -> None:
    async with world() as made:
        port = made.port()
        made.aws.throttle(3600.0)
        await failed(port.read(ANSWER), RecordThrottled)
        await failed(changed(port), RecordThrottled)
        made.aws.throttle(0.0)
        made.aws.busy(3600.0)
        await failed(changed(port), RecordThrottled, "PriorRequestNotComplete")
        assert made.aws.counts == {"ListResourceRecordSets": 1, "ChangeResourceRecordSets": 2}


async def test_a_right_to_read_alone_reads_and_is_refused_the_change() -> None:
    async with world() as made:
        made.aws.faults = Faults(read_only=True)
        port = made.port()
        assert await port.read(ANSWER) == RecordReading(a(MAIN))
        await failed(changed(port), RecordRefused, "route53:ChangeResourceRecordSets", "failover render iam")


async def test_the_wrong_zone_is_named() -> None:
    async with world() as made:
        zone = Route53Zone("Z0OTHER", None, made.aws.url)
        port = Route53Port(record_of({"main": MAIN}), zone, HOST)
        await failed(port.read(ANSWER), RecordRefused, "Z0OTHER", "route53.zone")
        await failed(changed(port), RecordRefused, "Z0OTHER")


@pytest.mark.parametrize(("skew", "words"), [(600.0, "s behind theirs"), (-600.0, "s ahead of theirs")])
async def test_a_clock_that_is_off_is_told_with_the_difference(skew: float, words: str) -> None:
    async with world() as made:
        made.aws.faults = Faults(skew=skew)
        error = await failed(made.port().read(ANSWER), RecordRefused, words, "SignatureDoesNotMatch", "chrony")
        difference = float(str(error).split(" clock is ")[1].split(" s ")[0])
        assert abs(difference - 600) < ANSWER


@pytest.mark.parametrize("date", [None, "yesterday", "Tue, 99 Jan 2026 00:00:00 GMT"])
async def test_a_clock_that_is_off_is_told_also_where_theirs_cannot_be_read(date: str | None) -> None:
    said = error_xml("RequestTimeTooSkewed", "Signature expired: x", 403, **({"Date": date} if date else {}))
    async with answering(lambda request: said) as url:
        await failed(port_to(url).read(ANSWER), RecordRefused, "more than 5 minutes", "chrony")


async def test_other_statuses_are_told_too() -> None:
    for reply, kind, words in (
        (Reply(429), RecordThrottled, "later"),
        (error_xml("SlowDown", "Please reduce your request rate.", 503), RecordThrottled, "reduce"),
        (Reply(403, b"<html>no</html>"), RecordRefused, "denies it: 403"),
        (Reply(302, b"", {"Location": "http://127.0.0.1:9/"}), RecordRefused, "redirects are not followed"),
        (Reply(407, b""), RecordRefused, "HTTPS_PROXY"),
        (xml("InvalidChangeBatch", "<Messages><Message>one</Message></Messages>", 400), RecordConflict, "one"),
    ):
        async with answering(lambda request, reply=reply: reply) as url:  # type: ignore[misc]
            port = port_to(url)
            await failed(changed(port), kind, words)


# ---------------------------------------------------------------- it answers something else, or half of it


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, b""),
        Reply(502, b"<html><body>Bad Gateway</body></html>"),
        error_xml("ServiceUnavailable", "Please try again shortly.", 503),
        Reply(200, b""),
        Reply(200, b"<html><body>Welcome</body></html>"),
        Reply(200, b"no <xml"),
        Reply(200, b"\x00\xff\xfe"),
        xml("ListResourceRecordSetsResponse", "<ResourceRecordSets/>"),
        xml("ChangeResourceRecordSetsResponse", "<ChangeInfo/>"),
        xml(
            "GetChangeResponse", "<ChangeInfo><Id>1</Id><Status>LATER</Status><SubmittedAt>x</SubmittedAt></ChangeInfo>"
        ),
        listing_xml(f"<Name>{NAME}</Name><Type>A</Type><TTL>soon</TTL>"),
        Reply(200, b"x" * 100, delivery=Delivery.HALF),
        Reply(200, b"", delivery=Delivery.CUT),
    ],
    ids=[
        *("500", "502", "503", "empty", "html", "no xml", "no text", "no end", "no id", "no status", "no number"),
        *("half", "cut"),
    ],
)
async def test_an_answer_that_says_nothing_leaves_a_change_unknown_and_a_reading_without_effect(reply: Reply) -> None:
    async with answering(lambda request: reply) as url:
        port = port_to(url)
        await failed(port.read(ANSWER), RecordUnreachable)
        await failed(port.settled("C1", ANSWER), RecordUnreachable)
        await failed(changed(port), RecordTimeout, "unknown")


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async with answering(lambda request: Reply(200, b" " * (route53_transport.MOST_ANSWER + 1))) as url:
        port = port_to(url)
        await failed(port.read(ANSWER), RecordUnreachable, "more than 2048 KiB")
        await failed(changed(port), RecordTimeout, "more than 2048 KiB", "unknown")


@pytest.mark.parametrize("fault", ["cut", "half"])
async def test_a_reply_lost_after_the_change_is_unknown_and_the_next_reading_shows_it(fault: str) -> None:
    async with world() as made:
        port = made.port()
        made.aws.faults = Faults(cut=fault == "cut", half=fault == "half", only="ChangeResourceRecordSets")
        await failed(changed(port), RecordTimeout, "unknown")
        assert made.aws.counts == {"ChangeResourceRecordSets": 1}
        assert made.aws.applied == 1
        assert await port.read(ANSWER) == RecordReading(a(BACKUP))
        assert await changed(port, SWAP.__class__(a(BACKUP), a(BACKUP))) == ""


# ---------------------------------------------------------------- it does not answer


async def ends_in_time(attempt: Any, kind: type[RecordError], *words: str) -> None:
    """It fails so, within its time and not much later."""
    started = HOST.now()
    await failed(attempt, kind, *words)
    assert HOST.now().since(started) < SHORT + 10


@pytest.mark.parametrize("faults", [Faults(hang=True), Faults(dribble=0.05)], ids=["hangs", "dribbles"])
async def test_an_endpoint_that_does_not_end_an_answer_holds_up_no_later_call(faults: Faults) -> None:
    async with world() as made:
        port = made.port()
        await port.read(ANSWER)
        made.aws.faults = faults
        await ends_in_time(port.read(SHORT), RecordUnreachable, "did not answer within 2 s")
        made.aws.faults = Faults()
        assert await port.read(ANSWER) == RecordReading(a(MAIN))
        made.aws.faults = faults
        await ends_in_time(changed(port, timeout=SHORT), RecordTimeout, "did not answer within 2 s")
        await works_again(made, port)


async def frees_its_threads(made: World, port: Route53Port) -> None:
    """Calls may go on ending in vain, for as long as an answer dribbles."""
    assert await port.read(ANSWER) == RecordReading(a(MAIN))
    made.aws.faults = Faults(dribble=0.05)
    for _ in range(route53.MOST_HANGING + 2):
        await failed(port.read(0.5), RecordUnreachable, "within 0.5 s")
    await works_again(made, port)


async def test_threads_are_freed_however_long_an_endpoint_dribbles() -> None:
    async with world() as made:
        await frees_its_threads(made, made.port())


async def test_a_change_that_takes_effect_late_is_unknown_and_seen_later() -> None:
    async with world() as made:
        port = made.port()
        await port.read(ANSWER)
        made.aws.faults = Faults(delay=SHORT + 1, only="ChangeResourceRecordSets")
        await ends_in_time(changed(port, timeout=SHORT), RecordTimeout)
        while (await port.read(ANSWER)).rrset != a(BACKUP):
            await HOST.sleep(0.1)


async def test_a_cancelled_call_holds_up_no_later_one() -> None:
    async with world() as made:
        port = made.port()
        await port.read(ANSWER)
        made.aws.faults = Faults(hang=True)
        task = asyncio.create_task(port.read(ANSWER))
        while made.aws.counts["ListResourceRecordSets"] < 2:
            await HOST.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        made.aws.faults = Faults()
        assert await port.read(ANSWER) == RecordReading(a(MAIN))


def test_a_call_that_was_given_up_on_goes_no_further() -> None:
    call = Call(ANSWER, lambda: True)
    call.begin()
    call.give_up()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(GivenUp):
            call.connected(ours)
        assert ours.fileno() == -1
        with pytest.raises(GivenUp):
            call.sending()
    assert call.hangs
    assert isinstance(call.lost("x"), RecordUnreachable)
    call.end()
    assert not call.hangs


# ---------------------------------------------------------------- there is no way to it


def free() -> str:
    """Where nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_a_refused_connection_sends_nothing() -> None:
    port = port_to(f"http://{free()}")
    for attempt in (port.read(ANSWER), changed(port), port.settled("C1", ANSWER)):
        await failed(attempt, RecordUnreachable, "Connection refused", "endpoint_url")


async def test_a_connection_that_is_not_taken_sends_nothing() -> None:
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        port = port_to(f"http://127.0.0.1:{address[1]}")
        await ends_in_time(changed(port, timeout=SHORT), RecordUnreachable, "took no connection", "nothing was changed")
        for one in waiting:
            one.close()


def certificate(folder: Path) -> None:
    """One for 127.0.0.1, its own authority: ca.pem and key.pem."""
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out ca.pem -days 2 -subj /CN=lab"
    command = ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)


@asynccontextmanager
async def tls_before(made: World, folder: Path) -> AsyncIterator[str]:
    """The URL of the endpoint behind TLS; its certificate is folder/ca.pem."""
    if (missing := installed("openssl")) is not None:
        pytest.skip(missing)
    certificate(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
        writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = made.aws.address
        behind = await asyncio.open_connection(address.host, address.port)
        await asyncio.gather(pass_on(reader, behind[1]), pass_on(behind[0], writer))

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_tls_needs_an_authority_that_the_aws_configuration_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with world() as made, tls_before(made, tmp_path) as url:
        await failed(changed(port_to(url)), RecordUnreachable, "TLS failed", "nothing was changed", "AWS_CA_BUNDLE")
        assert not made.aws.counts
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        port = port_to(url)
        assert await port.read(ANSWER) == RecordReading(a(MAIN))
        assert await changed(port)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nosuch.pem"))
        await failed(port_to(url).read(ANSWER), RecordError, "AWS_CA_BUNDLE")


async def test_threads_are_freed_behind_tls_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with world() as made, tls_before(made, tmp_path) as url:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        await frees_its_threads(made, port_to(url))


async def test_an_endpoint_that_speaks_no_tls_is_unreachable() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = port_to(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await failed(changed(port), RecordUnreachable, "TLS failed", "nothing was changed")


async def test_a_handshake_that_hangs_sends_nothing_and_holds_no_thread() -> None:
    async with Silence() as silence:
        port = port_to(f"https://{silence.address}")
        for _ in range(route53.MOST_HANGING + 1):
            await failed(changed(port, timeout=SHORT), RecordUnreachable, "took no connection", "nothing was changed")


class Resolving:
    """Name resolution that says what it is told to, or hangs until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, to: str | None) -> None:
        self.hold = threading.Event()
        self.asked = threading.Event()
        real = socket.getaddrinfo

        def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "route53.test":
                return real(host, *args, **kwargs)
            self.asked.set()
            self.hold.wait(ANSWER)
            if to is None:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real(to, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)


async def test_a_name_without_address_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolving(monkeypatch, None).hold.set()
    port = port_to("http://route53.test:80")
    await failed(changed(port), RecordUnreachable, "no address", "resolver")


async def test_a_change_that_was_given_up_on_while_its_name_was_looked_up_is_never_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as made:
        resolving = Resolving(monkeypatch, "127.0.0.1")
        name = "hung.example.test."
        port = port_to(f"http://route53.test:{made.aws.address.port}", name=name)
        await ends_in_time(changed(port, timeout=SHORT), RecordUnreachable, "took no connection", "nothing was changed")
        assert resolving.asked.is_set()
        left_behind = [thread for thread in threading.enumerate() if name in thread.name]
        assert left_behind
        resolving.hold.set()
        while any(thread.is_alive() for thread in left_behind):
            await HOST.sleep(0.01)
        assert not made.aws.counts
        assert made.live.zone.at(NAME)[0].values == (MAIN,)


# ---------------------------------------------------------------- credentials


async def test_without_credentials_nothing_is_sent_and_later_ones_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_keys(monkeypatch)
    async with world() as made:
        port = made.port()
        for attempt in (port.read(ANSWER), changed(port)):
            await failed(attempt, RecordRefused, "no AWS credentials", "aws configure", "route53.profile")
        assert not made.aws.counts
        (tmp_path / "aws-credentials").write_text(
            f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        )
        await works_again(made, port)


async def test_renewed_credentials_are_taken_up_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_keys(monkeypatch)
    file = tmp_path / "aws-credentials"
    file.write_text(f"[default]\naws_access_key_id = OLDKEY\naws_secret_access_key = {SECRET}\n")
    async with world() as made:
        made.aws.faults = Faults(rejected={"OLDKEY": "InvalidClientTokenId"})
        port = made.port()
        await failed(port.read(ANSWER), RecordRefused, "InvalidClientTokenId")
        file.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
        assert await port.read(ANSWER) == RecordReading(a(MAIN))


async def test_half_of_the_credentials_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with world() as made:
        await failed(made.port().read(ANSWER), RecordRefused, "AWS_SECRET_ACCESS_KEY", "aws_secret_access_key")


async def test_a_profile_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as made:
        await failed(made.port(profile="nosuch").read(ANSWER), RecordRefused, "no profile nosuch", "route53.profile")
        monkeypatch.setenv("AWS_PROFILE", "nosuch2")
        await failed(made.port().read(ANSWER), RecordRefused, "no profile nosuch2", "AWS_PROFILE")


async def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "aws-config").write_text(f"aws_secret_access_key = {SECRET}\n[[")
    async with world() as made:
        await failed(made.port().read(ANSWER), RecordRefused, str(tmp_path / "aws-config"))


async def test_what_a_credential_process_prints_is_not_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_keys(monkeypatch)
    (tmp_path / "process.py").write_text(f"import sys; print('{SECRET}', file=sys.stderr); sys.exit(1)")
    (tmp_path / "aws-config").write_text(f"[default]\ncredential_process = {sys.executable} {tmp_path}/process.py\n")
    async with world() as made:
        await failed(made.port().read(ANSWER), RecordRefused, "could not be fetched (from custom-process)", "by hand")


async def test_a_role_that_may_not_be_taken_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_keys(monkeypatch)
    (tmp_path / "aws-config").write_text(
        "[profile failover]\nrole_arn = arn:aws:iam::123456789012:role/failover\nsource_profile = base\n"
        f"[profile base]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    async with answering(lambda request: error_xml("AccessDenied", f"not with {SECRET}", 403)) as sts, world() as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts)
        port = made.port(profile="failover")
        await failed(port.read(ANSWER), RecordRefused, "AssumeRole: AccessDenied")
        assert not made.aws.counts


class Silence:
    """An address that takes connections and says nothing."""

    def __init__(self) -> None:
        self.taken: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Silence:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Refuse connections, and reset those that are there."""
        self._server.close()
        for writer in self.taken:
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken.append(writer)


def metadata_at(monkeypatch: pytest.MonkeyPatch, address: str, seconds: str) -> None:
    """Let credentials be looked for in instance metadata at this loopback address."""
    without_keys(monkeypatch)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{address}")
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", seconds)


async def test_instance_metadata_that_hangs_ends_within_the_calls_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Silence() as silence, world() as made:
        metadata_at(monkeypatch, silence.address, "3600")
        words = "no AWS credentials came within 2 s", "AWS_EC2_METADATA_DISABLED=true"
        await ends_in_time(changed(made.port(), timeout=SHORT), RecordUnreachable, *words)
        metadata_at_once = made.port()
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "1")
        await failed(metadata_at_once.read(ANSWER), RecordRefused, "there are no AWS credentials")
        assert not made.aws.counts


async def test_threads_that_hang_are_few_and_the_port_works_again_when_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Silence() as silence, world() as made:
        metadata_at(monkeypatch, silence.address, "3600")
        port = made.port()
        for number in range(route53.MOST_HANGING):
            while len(silence.taken) <= number:  # however slow the machine is, each one hangs in the metadata
                await failed(port.read(1.0), RecordUnreachable, "within 1 s")
                assert len(silence.taken) <= number + 1
        started = HOST.now()
        await failed(port.read(ANSWER), RecordUnreachable, "4 earlier calls still hang (credentials)", "metadata")
        assert HOST.now().since(started) < ANSWER / 2
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        silence.end()
        while True:
            try:
                assert await port.read(ANSWER) == RecordReading(a(MAIN))
                break
            except RecordUnreachable:
                await HOST.sleep(0.01)


# ---------------------------------------------------------------- what is never told


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "AccessDenied", "InvalidInput", "InvalidChangeBatch", "New"])
async def test_an_answer_that_repeats_the_request_tells_no_secret(code: str) -> None:
    def echo(request: Request) -> Reply:
        names = ("x-amz-security-token", "authorization")
        return error_xml(code, "\n".join(f"{name}:{request.headers[name]}" for name in names), 403)

    async with answering(echo) as url:
        port = port_to(url)
        await failed(port.read(ANSWER), RecordError, code)
        await failed(changed(port), RecordConflict if code == "InvalidChangeBatch" else RecordRefused)


@pytest.mark.parametrize("secret", [KEY, SECRET, TOKEN])
async def test_a_secret_in_amazons_words_is_blotted_out(secret: str) -> None:
    said = error_xml("InvalidInput", f"you are {secret}, are you?")
    async with answering(lambda request: said) as url:
        await failed(port_to(url).read(ANSWER), RecordRefused, "you are ***, are you?")


async def test_amazons_words_are_kept_to_one_line_of_bounded_length() -> None:
    said = error_xml("InvalidInput", "a\n  b " + "x" * 5000)
    async with answering(lambda request: said) as url:
        error = await failed(port_to(url).read(ANSWER), RecordRefused, "a b xxx")
        assert len(str(error)) < 500


async def test_boto3s_own_log_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as made:
        port = made.port()
        await port.read(ANSWER)
        await changed(port)
    assert not [line for line in caplog.records if line.name.startswith(("boto3", "botocore"))]
