"""coordination.k8s.io/v1: Lease, used for heartbeats, leader election and watermarks.

Source: Kubernetes 1.36 API reference; times are RFC 3339 with microseconds.
"""

from typing import ClassVar

from pilotage.api.codec import Value
from pilotage.api.meta_v1 import Object


class LeaseSpec(Value):
    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str = ""
    renew_time: str = ""
    lease_transitions: int = 0


class Lease(Object):
    api_version: ClassVar[str] = "coordination.k8s.io/v1"
    kind: ClassVar[str] = "Lease"
    plural: ClassVar[str] = "leases"

    spec: LeaseSpec = LeaseSpec()
