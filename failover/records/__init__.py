"""DNS records that point at the active producer: their providers, and what the world is told of them.

route53.py     Amazon Route 53 (boto3)
rfc2136.py     dynamic updates with TSIG (dnspython): BIND, Knot, PowerDNS
verify.py      what authoritative servers or named resolvers answer, question.py one question to one of them
iam.py         the least policy for Route 53

Heavy libraries are imported only for a provider that the file names.
"""

from __future__ import annotations

from failover.model import Record, Route53Zone
from failover.ports import Host, RecordPort, VerifyPort

__all__ = ["record_port", "verify_port"]


def record_port(record: Record, host: Host) -> RecordPort:
    """The port to the record's provider."""
    if isinstance(record.provider, Route53Zone):
        from failover.records.route53 import Route53Port

        return Route53Port(record, record.provider, host)
    from failover.records.rfc2136 import Rfc2136Port

    return Rfc2136Port(record, record.provider, host)


def verify_port(record: Record, host: Host) -> VerifyPort:
    """The port to the servers at which the record is verified."""
    from failover.records.verify import Verifier

    return Verifier(record, host)
