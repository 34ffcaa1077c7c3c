"""dns.pilotage.dev/v1: DNSRecord, a name of the user's own.

A kind of this component alone, which is why it does not stand in `pilotage.api`. Its definition for the API server is
`manifests/dnsrecords.yaml` beside this file.
"""

from importlib import resources
from typing import Any, ClassVar

import yaml

from pilotage.api.codec import Value
from pilotage.api.meta_v1 import Object, ObservedCondition


class RecordValue(Value):
    """One record."""

    type: str
    value: str
    weight: int = 1  # share of answers among records of the same type
    zone: str = ""  # topology zone whose pods get it; empty: any


class DNSRecordSpec(Value):
    name: str = ""
    ttl: int = 30
    records: tuple[RecordValue, ...] = ()


class DNSRecordStatus(Value):
    conditions: tuple[ObservedCondition, ...] = ()


class DNSRecord(Object):
    """Records of one name."""

    api_version: ClassVar[str] = "dns.pilotage.dev/v1"
    kind: ClassVar[str] = "DNSRecord"
    plural: ClassVar[str] = "dnsrecords"

    spec: DNSRecordSpec = DNSRecordSpec()
    status: DNSRecordStatus = DNSRecordStatus()


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition, for whoever sets up a cluster."""
    text = resources.files("pilotage.dns").joinpath("manifests/dnsrecords.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document
