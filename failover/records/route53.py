"""A record in a hosted zone of Amazon Route 53, through boto3.

The rules that it keeps:

- Reading is one request (one more for each further page), a change is one, and so is asking whether it has settled.
- A change is a compare-and-swap (route53_sets.py). It leaves once: after a lost reply the effect is unknown, and only
  the next reading tells. ``still_valid`` is asked when the connection stands and all that is left is to send.
- Whatever hangs (name resolution, instance metadata, a credential process) hangs a thread of its own, which is left
  behind with its client; the next call has fresh ones. A few may hang at a time, so that threads stay bounded.
- Calls of one port come one after the other, in one worker. So no reading that began before a change was accepted
  can come back after it.

boto3 is loaded at the first call, in the worker's thread; nobody else pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from failover.errors import RecordRefused, RecordTimeout, RecordUnreachable, WorkerBusy
from failover.model import Change, Record, RecordReading, Route53Zone
from failover.ports import Host, Worker
from failover.records import route53_sets
from failover.records.route53_call import Call, Overtaken, Stage
from failover.records.route53_errors import NoSuchChange
from failover.records.route53_sets import Held, Listed

if TYPE_CHECKING:
    from failover.records.route53_client import Client

R = TypeVar("R")

PAGE = 20  # sets in one answer
MOST_PAGES = 10
MOST_HANGING = 4  # calls that were given up on while their threads still hang


@dataclass(slots=True)
class _Hands:
    """One worker and, once it was needed, the client in its thread."""

    worker: Worker
    client: Client | None = None


class Route53Port:
    """RecordPort for Route 53."""

    def __init__(self, record: Record, zone: Route53Zone, host: Host) -> None:
        self._record = record
        self._zone = zone
        self._host = host
        self._where = f"{record.label}: Route 53" + (f" at {zone.endpoint_url}" if zone.endpoint_url else "")
        self._hands = self._fresh()
        self._hanging: list[Call] = []
        self._listed: Listed | None = None  # the record's set as it was last read
        self._calls: list[Call] = []  # that are under way

    async def read(self, timeout: float) -> RecordReading:
        """See RecordPort."""
        held = await self._within(Call(timeout), self._look)
        self._listed = held.listed
        return held.reading

    async def change(self, change: Change, timeout: float, still_valid: Callable[[], bool]) -> str | None:
        """See RecordPort. An id is Route 53's, without /change/."""
        if change.expected == change.wanted:
            return ""
        batch = route53_sets.batch(self._record.name, change.expected, change.wanted, self._listed)

        def swap(client: Client, call: Call) -> str:
            answer = client.ask(
                call,
                "change_resource_record_sets",
                ("ChangeInfo",),
                HostedZoneId=self._zone.zone,
                ChangeBatch=batch,
            )
            found = str(answer["ChangeInfo"].get("Id", "")).removeprefix("/change/")
            if not found:
                raise self._unreadable(call)
            return found

        try:
            return await self._within(Call(timeout, still_valid), swap)
        except Overtaken:
            return None

    async def settled(self, change_id: str, timeout: float) -> bool:
        """See RecordPort. A change that Route 53 has forgotten has settled long ago."""
        if not change_id:
            return True

        def look(client: Client, call: Call) -> bool:
            answer = client.ask(call, "get_change", ("ChangeInfo",), Id=change_id)
            status = answer["ChangeInfo"].get("Status")
            if status not in ("INSYNC", "PENDING"):
                raise self._unreadable(call)
            return bool(status == "INSYNC")

        try:
            return await self._within(Call(timeout), look)
        except NoSuchChange:
            return True

    async def close(self) -> None:
        """See RecordPort."""
        self._hands.worker.close()
        for call in self._calls:
            call.give_up()

    # ------------------------------------------------------------ in the loop

    async def _within(self, call: Call, talk: Callable[[Client, Call], R]) -> R:
        """Run ``talk`` in the worker under one deadline, and say what went wrong by how far it came."""
        self._hanging = [earlier for earlier in self._hanging if earlier.hangs]
        if len(self._hanging) >= MOST_HANGING:
            raise RecordUnreachable(
                f"{self._where}: {len(self._hanging)} earlier calls still hang ({self._hanging[-1].stage.value}); "
                "it was not asked",
                "see what hangs: name resolution, instance metadata or a credential_process",
            )
        hands = self._hands
        self._calls.append(call)
        try:
            return await hands.worker.call(lambda: self._work(hands, call, talk), call.timeout)
        except WorkerBusy as error:
            raise RecordUnreachable(f"{self._where}: {error}; it was not asked", "nothing: it asks again") from error
        except TimeoutError:
            call.give_up()
            raise self._late(call) from None
        finally:
            call.give_up()
            self._calls.remove(call)
            if call.hangs:
                self._leave(hands, call)

    def _leave(self, hands: _Hands, call: Call) -> None:
        """Leave a thread that hangs to itself, with its client, and go on with fresh ones."""
        self._hanging.append(call)
        if self._hands is hands:
            hands.worker.close()
            self._hands = self._fresh()

    def _fresh(self) -> _Hands:
        return _Hands(self._host.worker(f"route53 {self._record.label}"))

    def _late(self, call: Call) -> RecordTimeout | RecordUnreachable:
        within = f"within {call.timeout:g} s"
        match call.stage:
            case Stage.SENT:
                return call.lost(f"{self._where} did not answer {within}", "see whether Route 53 is disturbed")
            case Stage.CONNECTING:
                mend = "check endpoint_url, and this machine's network and resolver"
                return call.lost(f"{self._where} took no connection {within}", mend)
            case Stage.CREDENTIALS:
                mend = (
                    "see what gives the daemon's user its AWS credentials; where there is no instance metadata, set "
                    "AWS_EC2_METADATA_DISABLED=true and give it keys or a profile"
                )
                return call.lost(f"{self._where}: no AWS credentials came {within}", mend)
            case _:
                return call.lost(f"{self._where}: boto3 was not loaded {within}", "see what keeps this machine busy")

    def _unreadable(self, call: Call) -> RecordTimeout | RecordUnreachable:
        return call.lost(f"{self._where} sent an answer that cannot be read", "let endpoint_url name Route 53 itself")

    # ------------------------------------------------------------ in the worker's thread

    def _work(self, hands: _Hands, call: Call, talk: Callable[[Client, Call], R]) -> R:
        call.begin()
        try:
            if hands.client is None:
                from failover.records.route53_client import Client

                hands.client = Client(self._zone, self._where, lambda: self._host.now().utc, call)
            return talk(hands.client, call)
        except RecordRefused:
            hands.client = None  # other credentials may be there at the next call
            raise
        finally:
            call.end()

    def _look(self, client: Client, call: Call) -> Held:
        """Everything that stands at the record's name."""
        sets: list[Listed] = []
        # Without a type, the listing starts with the lowest one at the name.
        start: Mapping[str, Any] = {"StartRecordName": route53_sets.escaped(self._record.name)}
        for _ in range(MOST_PAGES):
            page = client.ask(
                call,
                "list_resource_record_sets",
                ("ResourceRecordSets", "IsTruncated"),
                HostedZoneId=self._zone.zone,
                MaxItems=str(PAGE),
                **start,
            )
            sets += [one for one in page["ResourceRecordSets"] if self._at_name(one.get("Name"))]
            if not (page["IsTruncated"] and self._at_name(page.get("NextRecordName"))):
                return route53_sets.held(self._record, sets)
            start = {
                f"Start{key}": page[f"Next{key}"]
                for key in ("RecordName", "RecordType", "RecordIdentifier")
                if page.get(f"Next{key}")
            }
        return Held(RecordReading(None, f"holds more than {len(sets)} sets"))

    def _at_name(self, listed: str | None) -> bool:
        return listed is not None and route53_sets.canonical_name(listed) == self._record.name
