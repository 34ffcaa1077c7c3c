"""Short constructors from the wire's own words, and one fixed moment."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pilotage.api import timestamp
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def ago(seconds: float) -> str:
    return timestamp.render(NOW - timedelta(seconds=seconds))


def make_pod(
    name: str = "p",
    *,
    ready_for_s: float | None = None,
    phase: str = "Running",
    node: str = "",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    finalizers: tuple[str, ...] = (),
    deleting: bool = False,
    ip: str = "",
    age_s: float = 1000,
    restarts: int = 0,
    owner: str = "",
    **spec: Any,
) -> Pod:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "labels": labels or {},
        "annotations": annotations or {},
        "finalizers": list(finalizers),
        "creationTimestamp": ago(age_s),
    }
    if deleting:
        metadata["deletionTimestamp"] = ago(0)
    if owner:
        reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": f"uid-{owner}"}
        metadata["ownerReferences"] = [{**reference, "controller": True}]
    status: dict[str, Any] = {"phase": phase, "containerStatuses": [{"name": "main", "restartCount": restarts}]}
    if ready_for_s is not None:
        status["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": ago(ready_for_s)}]
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    body = {"containers": [{"name": "main"}], **({"nodeName": node} if node else {}), **spec}
    return convert(Pod, {"metadata": metadata, "spec": body, "status": status})


@pytest.fixture
def pod() -> Callable[..., Pod]:
    return make_pod


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def before() -> Callable[[float], str]:
    """RFC 3339 of that many seconds before now."""
    return ago
