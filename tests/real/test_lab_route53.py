"""boto3 takes the lab's endpoint for Route 53: every answer parses, every rule holds, every fault can be had.

Where moto does what Route 53 does, the same test runs against moto, and both must give the same parsed results.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import botocore.parsers
import botocore.validate
import moto
import pytest

from failover.host import RealHost
from failover.lab import control, route53_xml
from failover.lab.haproxy import LabError, free_ports
from failover.lab.route53 import COMMANDS, Faults, Pace, Route53
from failover.lab.zone import Alias, LiveZone, RecordSet, Zone, record

LONG = 20.0  # seconds, an upper bound for what takes a moment
NAME = "bp.example.test."
KEY = "LABKEY"
ERROR = botocore.exceptions.ClientError


class Clock:
    """CLOCK_BOOTTIME of the endpoint alone, which a test moves. The world's deadlines stay real."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._real = RealHost()
        self.host = RealHost(boottime=lambda: self._real.now().mono + self.ahead)


def a_set(value: str, name: str = NAME, ttl: int = 60, **more: Any) -> dict[str, Any]:
    return {"Name": name, "Type": "A", "TTL": ttl, "ResourceRecords": [{"Value": value}], **more}


class Client:
    """A boto3 client in a thread of its own. Each answer is held against botocore's model of the service."""

    def __init__(self, url: str | None = None, key: str = KEY, read_timeout: float = LONG) -> None:
        config = botocore.config.Config(
            retries={"total_max_attempts": 1}, connect_timeout=LONG, read_timeout=read_timeout
        )
        session = boto3.Session(key, "lab", region_name="us-east-1")
        self.boto = session.client("route53", endpoint_url=url, config=config)
        self.boto.meta.events.register("after-call.route-53", self._judge)
        self.judged = 0
        self._worker = RealHost().worker("boto3")

    async def __call__(self, call: str, **given: Any) -> dict[str, Any]:
        function: Callable[..., dict[str, Any]] = getattr(self.boto, call)
        answer = await self._worker.call(lambda: function(**given), LONG)
        answer.pop("ResponseMetadata")
        return answer

    async def change(self, *changes: tuple[str, dict[str, Any]], zone: str = "Z1") -> str:
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": one} for action, one in changes]}
        answer = await self("change_resource_record_sets", HostedZoneId=zone, ChangeBatch=batch)
        return str(answer["ChangeInfo"]["Id"])

    async def swap(self, old: str, new: str) -> str:
        return await self.change(("DELETE", a_set(old)), ("CREATE", a_set(new)))

    async def listed(self, zone: str = "Z1", **given: Any) -> list[dict[str, Any]]:
        answer = await self("list_resource_record_sets", HostedZoneId=zone, **given)
        return list(answer["ResourceRecordSets"])

    async def status(self, change: str) -> str:
        return str((await self("get_change", Id=change))["ChangeInfo"]["Status"])

    async def refused(self, call: str = "list_resource_record_sets", **given: Any) -> tuple[str, int, str]:
        with pytest.raises(ERROR) as caught:
            await self(call, **(given or {"HostedZoneId": "Z1"}))
        return refusal(caught.value)

    def _judge(self, http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        if http_response.status_code < 300:
            answer = {key: value for key, value in parsed.items() if key != "ResponseMetadata"}
            report = botocore.validate.ParamValidator().validate(answer, model.output_shape)
            assert not report.has_errors(), report.generate_report()
        else:
            assert parsed["Error"]["Code"]
        assert parsed["ResponseMetadata"]["RequestId"]
        self.judged += 1


def refusal(error: botocore.exceptions.ClientError) -> tuple[str, int, str]:
    """Code, status and message of an error as botocore gives it."""
    told = error.response
    return told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"], told["Error"]["Message"]


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> LiveZone:
    return LiveZone(Zone.new("example.test.", "Z1", [record(NAME, "192.0.2.1")]), clock.host)


@pytest.fixture
async def aws(live: LiveZone, clock: Clock) -> AsyncIterator[Route53]:
    async with Route53([live], host=clock.host) as made:
        yield made


@pytest.fixture
async def client(aws: Route53) -> Client:
    return Client(aws.url)


# ---------------------------------------------------------------- the same with moto


@pytest.fixture(params=["moto", "lab"])
async def either(request: pytest.FixtureRequest, aws: Route53) -> AsyncIterator[Client]:
    if request.param == "lab":
        yield Client(aws.url)
    else:
        with moto.mock_aws():
            yield Client()


async def test_a_zone_is_created_filled_listed_page_by_page_and_a_wrong_delete_is_an_error(either: Client) -> None:
    zone = await either("create_hosted_zone", Name="world.test", CallerReference="once")
    assert (zone["HostedZone"]["Name"], zone["HostedZone"]["CallerReference"]) == ("world.test.", "once")
    assert zone["HostedZone"]["Config"] == {"PrivateZone": False}
    assert zone["Location"].endswith("/2013-04-01" + zone["HostedZone"]["Id"])
    id_ = zone["HostedZone"]["Id"]
    for name, value in (("b.world.test", "192.0.2.1"), ("a.b.world.test.", "192.0.2.2"), ("a.world.test", "192.0.2.3")):
        await either.change(("UPSERT", a_set(value, name)), zone=id_)
    await either.change(("UPSERT", a_set("192.0.2.9", "b.world.test", ttl=300)), zone=id_)
    mine = [s for s in await either.listed(id_) if s["Type"] not in ("NS", "SOA")]
    assert mine == [
        a_set("192.0.2.3", "a.world.test."),
        a_set("192.0.2.9", "b.world.test.", ttl=300),
        a_set("192.0.2.2", "a.b.world.test."),
    ]
    with pytest.raises(ERROR) as caught:
        await either.change(("DELETE", a_set("192.0.2.77", "b.world.test")), zone=id_)
    assert refusal(caught.value)[1] == 400  # the code is InvalidChangeBatch at Amazon's and here; moto has another
    await either.change(("DELETE", a_set("192.0.2.9", "b.world.test", ttl=300)), zone=id_)
    kinds = [(s["Name"], s["Type"], s["TTL"]) for s in await either.listed(id_)]
    assert kinds == [
        ("world.test.", "NS", 172800),
        ("world.test.", "SOA", 900),
        ("a.world.test.", "A", 60),
        ("a.b.world.test.", "A", 60),
    ]
    first = await either("list_resource_record_sets", HostedZoneId=id_, MaxItems="2")
    assert (first["IsTruncated"], first["MaxItems"], len(first["ResourceRecordSets"])) == (True, "2", 2)
    assert (first["NextRecordName"], first["NextRecordType"]) == ("a.world.test.", "A")
    rest = await either.listed(id_, StartRecordName=first["NextRecordName"], StartRecordType=first["NextRecordType"])
    assert rest == [a_set("192.0.2.3", "a.world.test."), a_set("192.0.2.2", "a.b.world.test.")]
    told = await either("get_hosted_zone", Id=id_)
    assert (told["HostedZone"]["Id"], told["HostedZone"]["ResourceRecordSetCount"]) == (id_, 4)
    assert len(told["DelegationSet"]["NameServers"]) == 4


async def test_unknown_zones_names_outside_and_a_type_without_a_name_are_refused(either: Client) -> None:
    id_ = (await either("create_hosted_zone", Name="world.test", CallerReference="once"))["HostedZone"]["Id"]
    unknown = ("NoSuchHostedZone", 404, "No hosted zone found with ID: ZNONE")
    assert await either.refused(HostedZoneId="ZNONE") == unknown
    assert (await either.refused("get_hosted_zone", Id="ZNONE"))[:2] == unknown[:2]
    assert await either.refused(HostedZoneId=id_, StartRecordType="A") == (
        "InvalidInput",
        400,
        "The input is not valid",
    )
    with pytest.raises(ERROR) as caught:
        await either.change(("UPSERT", a_set("192.0.2.1", "bp.elsewhere.test.")), zone=id_)
    code, status, message = refusal(caught.value)
    assert (code, status) == ("InvalidChangeBatch", 400)
    assert message.strip("[]") == "RRSet with DNS name bp.elsewhere.test. is not permitted in zone world.test."


# ---------------------------------------------------------------- rules


async def test_a_swap_goes_through_once_and_is_refused_when_it_is_sent_again(client: Client, aws: Route53) -> None:
    await client.swap("192.0.2.1", "192.0.2.2")
    with pytest.raises(client.boto.exceptions.InvalidChangeBatch) as caught:
        await client.swap("192.0.2.1", "192.0.2.2")
    assert refusal(caught.value) == (
        "InvalidChangeBatch",
        400,
        "[Tried to delete resource record set [name='bp.example.test.', type='A'] but the values provided do not "
        "match the current values]",
    )
    assert (await client.listed())[-1] == a_set("192.0.2.2")
    assert (aws.applied, aws.counts["ChangeResourceRecordSets"], aws.refused) == (1, 2, {"InvalidChangeBatch": 1})
    assert client.judged == 3


async def test_all_complaints_about_a_batch_come_in_one_message_and_nothing_is_applied(
    client: Client, live: LiveZone
) -> None:
    before = live.zone
    with pytest.raises(ERROR) as caught:
        await client.change(
            ("CREATE", a_set("192.0.2.5", "new.example.test")),
            ("CREATE", a_set("192.0.2.2")),
            ("DELETE", a_set("192.0.2.1", "x.example.test")),
        )
    assert refusal(caught.value)[2] == (
        "[Tried to create resource record set [name='bp.example.test.', type='A'] but it already exists, "
        "Tried to delete resource record set [name='x.example.test.', type='A'] but it was not found]"
    )
    assert live.zone is before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"TTL": 2**31}, "Value '2147483648' at 'changeBatch.changes.1.member.resourceRecordSet.tTL' failed"),
        ({"Type": "HINFO"}, "Value 'HINFO' is not facet-valid"),
        ({"AliasTarget": {"HostedZoneId": "Z1", "DNSName": NAME, "EvaluateTargetHealth": False}}, "more than one"),
        ({"GeoLocation": {"CountryCode": "DE"}}, "knows no GeoLocation"),
    ],
)
async def test_input_that_the_model_of_the_service_lets_pass_and_route_53_does_not_is_refused(
    client: Client, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(client.boto.exceptions.InvalidInput) as caught:
        await client.change(("CREATE", a_set("192.0.2.5", "new.example.test.", **change)))
    assert says in refusal(caught.value)[2]


async def test_a_set_without_values_or_ttl_is_refused_in_amazon_s_words(client: Client) -> None:
    with pytest.raises(client.boto.exceptions.InvalidInput) as caught:
        await client.change(("DELETE", {"Name": NAME, "Type": "A"}))
    assert refusal(caught.value)[2] == (
        "Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and ResourceRecords], or "
        "TrafficPolicyInstanceId], but found none in Change with [Action=DELETE, Name=bp.example.test., Type=A, "
        "SetIdentifier=null]"
    )


SPECIAL = [
    RecordSet("alias.example.test.", "A", alias=Alias("Z1", NAME, evaluate=True)),
    *(RecordSet("w.example.test.", "A", 60, (f"192.0.2.{n}",), f"{n}", (("Weight", "10"),)) for n in (1, 2)),
    RecordSet("l.example.test.", "A", 60, ("192.0.2.1",), "eu", (("Region", "eu-west-1"), ("HealthCheckId", "h1"))),
    RecordSet("f.example.test.", "A", 60, ("192.0.2.1",), "one", (("Failover", "PRIMARY"),)),
    RecordSet("m.example.test.", "A", 60, ("192.0.2.1",), "one", (("MultiValueAnswer", "true"),)),
    RecordSet("*.odd.example.test.", "TXT", 60, ('"<&> \\"quoted\\""',)),
]


async def test_special_sets_are_listed_with_all_that_makes_them_special_over_pages_of_one(clock: Clock) -> None:
    live = LiveZone(Zone.new("example.test.", "Z1", SPECIAL), clock.host)
    async with Route53([live], host=clock.host) as aws:
        client = Client(aws.url)
        told = await client.listed()
        start: dict[str, Any] = {}
        paged = []
        for _ in range(len(told)):
            page = await client("list_resource_record_sets", HostedZoneId="Z1", MaxItems="1", **start)
            paged += page["ResourceRecordSets"]
            keys = {k: page[f"NextRecord{k}"] for k in ("Name", "Type", "Identifier") if f"NextRecord{k}" in page}
            start = {f"StartRecord{key}": value for key, value in keys.items()}
        assert (paged, start) == (told, {})
        assert told[2:] == [
            {
                "Name": "alias.example.test.",
                "Type": "A",
                "AliasTarget": {"HostedZoneId": "Z1", "DNSName": NAME, "EvaluateTargetHealth": True},
            },
            a_set("192.0.2.1", "f.example.test.", SetIdentifier="one", Failover="PRIMARY"),
            a_set("192.0.2.1", "l.example.test.", SetIdentifier="eu", Region="eu-west-1", HealthCheckId="h1"),
            a_set("192.0.2.1", "m.example.test.", SetIdentifier="one", MultiValueAnswer=True),
            a_set('"<&> \\"quoted\\""', "\\052.odd.example.test.", Type="TXT"),
            a_set("192.0.2.1", "w.example.test.", SetIdentifier="1", Weight=10),
            a_set("192.0.2.2", "w.example.test.", SetIdentifier="2", Weight=10),
        ]
        await client.change(*(("DELETE", one) for one in told[2:]))
        assert await client.listed() == told[:2]


async def test_a_page_has_three_hundred_sets_at_most(clock: Clock) -> None:
    many = [record(f"n{n:03}.example.test.", "192.0.2.1") for n in range(350)]
    async with Route53([LiveZone(Zone.new("example.test.", "Z1", many), clock.host)], host=clock.host) as aws:
        client = Client(aws.url)
        page = await client("list_resource_record_sets", HostedZoneId="Z1", MaxItems="1000")
        assert (len(page["ResourceRecordSets"]), page["IsTruncated"], page["MaxItems"]) == (300, True, "300")
        pages = (
            await RealHost()
            .worker("pages")
            .call(
                lambda: list(client.boto.get_paginator("list_resource_record_sets").paginate(HostedZoneId="Z1")), LONG
            )
        )
        assert [len(page["ResourceRecordSets"]) for page in pages] == [300, 52]
        assert (await client.refused(HostedZoneId="Z1", MaxItems="0"))[:2] == ("InvalidInput", 400)


async def test_a_change_is_pending_until_its_time_and_insync_then(
    client: Client, aws: Route53, clock: Clock, live: LiveZone
) -> None:
    change = await client.swap("192.0.2.1", "192.0.2.2")
    assert await client.status(change) == "PENDING"
    assert [s.values for s in live.zone.at(NAME)] == [("192.0.2.2",)]  # and yet it is listed
    clock.ahead += 60
    aws.faults = Faults(never_insync=True)
    assert await client.status(change) == "PENDING"
    aws.faults = Faults()
    assert await client.status(change) == "INSYNC"
    assert (await client.refused("get_change", Id="C0"))[:2] == ("NoSuchChange", 404)


async def test_a_zone_takes_one_change_at_a_time_and_each_zone_for_itself(clock: Clock, live: LiveZone) -> None:
    other = LiveZone(Zone.new("other.test.", "Z2"), clock.host)
    async with Route53([live, other], pace=Pace(processing=1000.0), host=clock.host) as aws:
        client = Client(aws.url)
        await client.swap("192.0.2.1", "192.0.2.2")
        with pytest.raises(client.boto.exceptions.PriorRequestNotComplete) as caught:
            await client.swap("192.0.2.2", "192.0.2.3")
        said = "The request was rejected because Route 53 was still processing a prior request."
        assert refusal(caught.value) == ("PriorRequestNotComplete", 400, said)
        await client.change(("CREATE", a_set("192.0.2.3", "bp.other.test.")), zone="Z2")
        clock.ahead += 1000
        await client.swap("192.0.2.2", "192.0.2.3")
        aws.busy(5000.0)
        with pytest.raises(client.boto.exceptions.PriorRequestNotComplete):
            await client.change(("DELETE", a_set("192.0.2.3", "bp.other.test.")), zone="Z2")
        assert (await client.listed())[-1] == a_set("192.0.2.3")  # reading goes on


async def test_more_requests_than_the_account_has_are_throttled_until_the_bucket_fills(
    clock: Clock, live: LiveZone
) -> None:
    async with Route53([live], pace=Pace(burst=3, rate=0.001), host=clock.host) as aws:
        client = Client(aws.url)
        for _ in range(3):
            await client.listed()
        assert await client.refused() == ("Throttling", 400, "Rate exceeded")
        clock.ahead += 1000
        await client.listed()
        assert (await client.refused())[0] == "Throttling"
        clock.ahead += 100_000
        for _ in range(3):
            await client.listed()
        assert aws.refused["Throttling"] == 2


async def test_everything_is_throttled_for_as_long_as_it_is_told(client: Client, aws: Route53, clock: Clock) -> None:
    aws.throttle(600)
    for call in ("list_resource_record_sets", "get_hosted_zone"):
        assert (await client.refused(call, **{"Id" if "get" in call else "HostedZoneId": "Z1"}))[0] == "Throttling"
    clock.ahead += 600
    assert await client.listed()


async def test_the_servers_of_a_zone_are_told(client: Client, live: LiveZone) -> None:
    told = await client("get_hosted_zone", Id="Z1")
    assert told["DelegationSet"]["NameServers"] == [name.rstrip(".") for name in live.zone.nameservers]


async def test_a_zone_is_created_once_for_a_reference_and_with_a_name_that_can_be_one(client: Client) -> None:
    await client("create_hosted_zone", Name="world.test", CallerReference="once")
    again = await client.refused("create_hosted_zone", Name="world.test", CallerReference="once")
    assert again[:2] == ("HostedZoneAlreadyExists", 409)
    no_name = await client.refused("create_hosted_zone", Name="world..test", CallerReference="twice")
    assert no_name[:2] == ("InvalidDomainName", 400)


# ---------------------------------------------------------------- another hand


async def test_another_hand_between_reading_and_writing_makes_the_swap_fail(
    client: Client, aws: Route53, live: LiveZone
) -> None:
    aws.interpose = lambda: live.put(NAME, "192.0.2.9")
    with pytest.raises(client.boto.exceptions.InvalidChangeBatch):
        await client.swap("192.0.2.1", "192.0.2.2")
    assert (await client.listed())[-1] == a_set("192.0.2.9")
    await client.swap("192.0.2.9", "192.0.2.2")
    await client.swap("192.0.2.2", "192.0.2.3")  # it happened once


# ---------------------------------------------------------------- credentials


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("InvalidClientTokenId", 403, "The security token included in the request is invalid."),
        ("SignatureDoesNotMatch", 403, "The request signature we calculated does not match"),
        ("ExpiredToken", 403, "The security token included in the request is expired"),
        ("RequestExpired", 400, "Request has expired."),
        (
            "AccessDenied",
            403,
            "User: arn:aws:iam::123456789012:user/lab is not authorized to perform: route53:ListResourceRecordSets on "
            "resource: arn:aws:route53:::hostedzone/Z1 because no identity-based policy allows the "
            "route53:ListResourceRecordSets action",
        ),
    ],
)
async def test_a_key_is_refused_as_it_is_told_and_others_are_not(
    client: Client, aws: Route53, code: str, status: int, says: str
) -> None:
    aws.faults = Faults(rejected={"WRONGKEY": code})
    told = await Client(aws.url, "WRONGKEY").refused()
    assert told[:2] == (code, status)
    assert told[2].startswith(says)
    assert await client.listed()


async def test_without_the_right_to_change_it_can_still_be_read(client: Client, aws: Route53, live: LiveZone) -> None:
    aws.faults = Faults(read_only=True)
    with pytest.raises(ERROR) as caught:
        await client.swap("192.0.2.1", "192.0.2.2")
    code, status, message = refusal(caught.value)
    assert (code, status) == ("AccessDenied", 403)
    assert (
        "not authorized to perform: route53:ChangeResourceRecordSets on resource: arn:aws:route53:::hostedzone/Z1"
        in message
    )
    assert (await client.listed())[-1] == a_set("192.0.2.1")


@pytest.mark.parametrize(
    ("skew", "says"), [(600, "Signature expired: "), (-600, "Signature not yet current: "), (200, ""), (-200, "")]
)
async def test_a_clock_more_than_five_minutes_off_breaks_the_signature(
    client: Client, aws: Route53, skew: float, says: str
) -> None:
    aws.faults = Faults(skew=skew)
    if not says:
        assert await client.listed()
        return
    code, status, message = await client.refused()
    assert (code, status) == ("SignatureDoesNotMatch", 403)
    assert message.startswith(says)
    assert message.endswith(f"{'-' if skew > 0 else '+'} 5 min.)")


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        (b"", b"MissingAuthenticationToken"),
        (b"Authorization: Basic bGFi\r\n", b"IncompleteSignature"),
        (b"Authorization: AWS4-HMAC-SHA256 Credential=LABKEY/20260101/us-east-1/route53/aws4_request, x\r\n", b"date"),
        (b"Content-Length: 99999999\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n", b""),
        (b"X: " + b"y" * 70_000 + b"\r\n", b""),
    ],
)
async def test_what_is_not_signed_or_no_proper_http_is_turned_away(aws: Route53, headers: bytes, says: bytes) -> None:
    words = b"GET /2013-04-01/hostedzone/Z1/rrset HTTP/1.1\r\nHost: lab\r\n" + headers + b"\r\n"
    reader, writer = await asyncio.open_connection(aws.address.host, aws.address.port)
    writer.write(words)
    async with RealHost().timeout(LONG):
        try:
            answer = await reader.readuntil(b"</ErrorResponse>") if says else await reader.read()
        except ConnectionError:
            answer = b""
    writer.transport.abort()
    assert (says in answer) if says else (answer == b"")


def batch(inner: str) -> str:
    root = "ChangeResourceRecordSetsRequest"
    return f'<{root} xmlns="{route53_xml.NAMESPACE}"><ChangeBatch><Changes>{inner}</Changes></ChangeBatch></{root}>'


A_SET = "<ResourceRecordSet><Name>x.example.test</Name><Type>A</Type><TTL>{}</TTL></ResourceRecordSet>"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<x/>", "MalformedInput"),
        ("not xml", "MalformedInput"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + batch("&b;"), "MalformedInput"),
        (batch(""), "InvalidInput"),
        (batch("<Change><Action>CREATE</Action></Change>"), "InvalidInput"),
        (batch("<Change><Action>MERGE</Action></Change>"), "InvalidInput"),
        (batch(f"<Change><Action>CREATE</Action>{A_SET.format(-1)}</Change>"), "InvalidInput"),
        (batch(f"<Change><Action>CREATE</Action>{A_SET.format('long')}</Change>"), "InvalidInput"),
    ],
)
async def test_a_body_that_is_not_the_document_it_should_be_is_refused(client: Client, body: str, code: str) -> None:
    def replace(model: Any, params: dict[str, Any], **_: Any) -> None:
        params["body"] = body.encode()

    client.boto.meta.events.register("before-call.route-53.ChangeResourceRecordSets", replace)
    with pytest.raises(ERROR) as caught:
        await client.swap("192.0.2.1", "192.0.2.2")
    assert refusal(caught.value)[:2] == (code, 400)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Faults(cut=True), botocore.exceptions.HTTPClientError),
        (Faults(half=True), botocore.parsers.ResponseParserError),  # botocore takes half a body for a whole one
    ],
    ids=["cut", "half"],
)
async def test_a_change_is_applied_although_its_reply_is_lost(
    client: Client, aws: Route53, live: LiveZone, fault: Faults, error: type[Exception]
) -> None:
    aws.faults = fault
    with pytest.raises(error):
        await client.swap("192.0.2.1", "192.0.2.2")
    assert (aws.applied, [s.values for s in live.zone.at(NAME)]) == (1, [("192.0.2.2",)])
    aws.faults = Faults()
    with pytest.raises(client.boto.exceptions.InvalidChangeBatch):
        await client.swap("192.0.2.1", "192.0.2.2")  # what a blind retry would see


async def test_hanging_it_changes_nothing_and_lets_go_when_it_is_healed(aws: Route53, live: LiveZone) -> None:
    aws.faults = Faults(hang=True, only="ChangeResourceRecordSets")
    impatient, patient = Client(aws.url, read_timeout=0.3), Client(aws.url)
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        await impatient.swap("192.0.2.1", "192.0.2.2")
    assert await patient.listed()
    waiting = asyncio.create_task(patient.swap("192.0.2.1", "192.0.2.2"))
    async with RealHost().timeout(LONG):
        while aws.counts["ChangeResourceRecordSets"] < 2:
            await RealHost().sleep(0.005)
    aws.faults = Faults()
    with pytest.raises(botocore.exceptions.HTTPClientError):
        await waiting
    assert (aws.applied, live.zone.version) == (0, 1)
    assert [call.code for call in aws.calls if call.action == "ChangeResourceRecordSets"] == ["hang", "hang"]


async def test_dribbling_it_sends_a_byte_now_and_then_and_lets_go_when_it_is_healed(
    client: Client, aws: Route53
) -> None:
    whole = await client.listed()
    aws.faults = Faults(dribble=0.0005)
    assert await client.listed() == whole
    aws.faults = Faults(dribble=1000.0)
    waiting = asyncio.create_task(client.listed())
    async with RealHost().timeout(LONG):
        while len(aws.calls) < 3:
            await RealHost().sleep(0.005)
    aws.faults = Faults()
    with pytest.raises(botocore.exceptions.HTTPClientError):
        await waiting


async def test_delayed_a_change_takes_effect_after_its_client_has_given_up(
    aws: Route53, live: LiveZone, clock: Clock
) -> None:
    aws.faults = Faults(delay=1000.0)
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        await Client(aws.url, read_timeout=0.2).swap("192.0.2.1", "192.0.2.2")
    assert live.zone.version == 1
    clock.ahead += 1000
    async with RealHost().timeout(LONG):
        while aws.applied == 0:
            await RealHost().sleep(0.01)
    assert [s.values for s in live.zone.at(NAME)] == [("192.0.2.2",)]


@pytest.mark.parametrize(("code", "status"), [("ServiceUnavailable", 503), ("InternalFailure", 500), ("Odd", 400)])
async def test_everything_is_refused_with_the_code_that_it_is_told(
    client: Client, aws: Route53, code: str, status: int
) -> None:
    aws.faults = Faults(refuse=code)
    assert (await client.refused())[:2] == (code, status)


# ---------------------------------------------------------------- what it can be told


async def test_told_by_word_it_does_the_same(client: Client, aws: Route53) -> None:
    for word, value in (
        ("cut", None),
        ("only", "GetChange"),
        ("delay", "0.01"),
        ("reject", "WRONGKEY ExpiredToken"),
        ("never-insync", None),
        ("insync", "5"),
        ("processing", "0.5"),
    ):
        await aws.tell(word, value)
    assert aws.faults == Faults(
        "GetChange", cut=True, delay=0.01, rejected={"WRONGKEY": "ExpiredToken"}, never_insync=True
    )
    assert aws.pace == Pace(5.0, 0.5)
    await aws.tell("throttle", "1000")
    assert (await client.refused())[0] == "Throttling"
    await aws.tell("heal")
    assert aws.faults == Faults()
    await aws.tell("put", "bp.example.test. 300 192.0.2.7 192.0.2.8")
    state = await aws.tell("state")
    assert state["zones"]["Z1"]["sets"][-1] == "bp.example.test. A 300 192.0.2.7 192.0.2.8"
    await aws.tell("interpose", "bp.example.test. 60 192.0.2.9")
    with pytest.raises(ERROR):
        await client.swap("192.0.2.7", "192.0.2.1")
    assert (await client.listed())[-1] == a_set("192.0.2.9")
    await aws.tell("remove", NAME)
    assert (await client.listed())[-1]["Type"] == "SOA"
    assert set(state) >= {"url", "counts", "refused", "applied", "calls", "insync", "burst", "hang", "skew"}


@pytest.mark.parametrize(
    ("word", "value", "says"),
    [
        ("dance", None, "dance: no such command"),
        ("hang", "3", "hang takes no value, '3' was given"),
        ("delay", "-1", "delay needs SECONDS, '-1' was given"),
        ("delay", None, "delay needs SECONDS, nothing was given"),
        ("only", "Everything", "only needs ACTION, 'Everything' was given"),
        ("put", "bp.example.test.", "put needs NAME TTL VALUE..., 'bp.example.test.' was given"),
        (
            "put",
            "bp.example.test. -1 192.0.2.1",
            "put needs NAME TTL VALUE..., 'bp.example.test. -1 192.0.2.1' was given",
        ),
        ("put", "bp.other.test. 60 192.0.2.1", "bp.other.test. is in no zone"),
        ("skew", "nan", "skew needs SECONDS, 'nan' was given"),
    ],
)
async def test_what_it_cannot_be_told_is_refused_with_a_mend(
    aws: Route53, word: str, value: str | None, says: str
) -> None:
    with pytest.raises(LabError) as caught:
        await aws.tell(word, value)
    assert str(caught.value) == says
    assert caught.value.mend
    assert all(known.meaning for known in COMMANDS.values())


async def test_a_taken_port_is_named(aws: Route53) -> None:
    with pytest.raises(LabError, match=rf"route53: cannot listen at {aws.address}"):
        async with Route53([], aws.address):
            pass


# ---------------------------------------------------------------- as a process


@pytest.fixture
def ports() -> list[int]:
    return free_ports(3)


@pytest.fixture
def started(tmp_path: Path, ports: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    words = [
        "--zone",
        "example.test.",
        "--id",
        "Z1",
        "--record",
        f"{NAME} 60 192.0.2.1",
        "--scale",
        "600",
        "--burst",
        "500",
    ]
    words += ["--listen", f"127.0.0.1:{ports[0]}", *(f"--dns=127.0.0.1:{port}" for port in ports[1:])]
    command = [sys.executable, "-m", "failover.lab.route53", *words, "--control", str(tmp_path / "r.sock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait(LONG)
        process.stdout.close()


async def test_as_a_process_it_says_ready_answers_is_told_things_and_ends_when_asked(
    started: subprocess.Popen[bytes], tmp_path: Path, ports: list[int]
) -> None:
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n"
    client, path = Client(f"http://127.0.0.1:{ports[0]}"), tmp_path / "r.sock"
    change = await client.swap("192.0.2.1", "192.0.2.2")
    async with RealHost().timeout(LONG):
        while await client.status(change) != "INSYNC":  # 60 s at scale 600
            await RealHost().sleep(0.05)
    state = await control.ask(path, {"command": "state"})
    assert (state["applied"], state["burst"], state["rate"]) == (1, 500.0, 6000.0)
    server = await control.ask(path, {"command": "freeze", "to": "ns2"})
    assert (server["address"], server["lag"], server["freeze"]) == (f"127.0.0.1:{ports[2]}", 0.05, True)
    assert "bp.example.test. A 60 192.0.2.2" in server["zones"]["Z1"]
    with pytest.raises(LabError, match="no part 'ns3'"):
        await control.ask(path, {"command": "state", "to": "ns3"})
    started.send_signal(signal.SIGTERM)
    assert started.wait(LONG) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--zone", "a.test.", "--zone", "b.test.", "--id", "Z1"], "each --zone needs an --id of its own"),
        (["--zone", "a.test.", "--id", "Z1", "--record", "bp.a.test."], "is no set"),
        (["--zone", "a.test.", "--id", "Z1", "--record", "bp.b.test. 60 ::1"], "bp.b.test. is in no zone"),
        (["--zone", "a.test.", "--id", "Z1", "--scale", "0"], "give a number above 0"),
    ],
)
def test_as_a_process_it_refuses_what_makes_no_sense(words: list[str], says: str) -> None:
    command = [sys.executable, "-m", "failover.lab.route53", "--listen", "127.0.0.1:0", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert ended.returncode
    assert says in ended.stderr
