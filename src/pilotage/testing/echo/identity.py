"""Who answers: the pod, as the downward API told it.

Apart from the servers because all four put it in their answers. Fed by environment variables (POD_NAME, POD_IP,
NODE_NAME, NODE_ZONE, set from fieldRefs in the manifests); outside a pod only the host name is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Json = dict[str, object]
"""A JSON object as this program builds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The answering server."""

    pod: str
    """The pod's name, or the host's name outside a pod."""
    node: str = ""
    zone: str = ""
    """The node's zone; the kubelet knows it as a label of the pod (KEP-4742). Empty when nobody said."""
    ip: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, hostname: str) -> Identity:
        return cls(
            pod=environment.get("POD_NAME") or hostname,
            node=environment.get("NODE_NAME", ""),
            zone=environment.get("NODE_ZONE", ""),
            ip=environment.get("POD_IP", ""),
        )

    def as_json(self) -> Json:
        """The fields that are known, always with `pod`."""
        known = {"node": self.node, "zone": self.zone, "ip": self.ip}
        return {"pod": self.pod, **{name: value for name, value in known.items() if value}}
