"""Short constructors of pods and nodes, from the wire's own words."""

from collections.abc import Callable
from typing import Any

import pytest

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.labels import Selector
from pilotage.scheduler.core.model import Cluster, PodInfo


def make_pod(
    name: str = "p",
    *,
    cpu: str = "",
    memory: str = "",
    labels: dict[str, str] | None = None,
    namespace: str = "default",
    owner: Selector | None = None,
    deleting: bool = False,
    started: str = "",
    **spec: Any,
) -> PodInfo:
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    container = {"name": "main", "resources": {"requests": requests}}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": f"{namespace}/{name}",
        "labels": labels or {},
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    document = {
        "metadata": metadata,
        "spec": {"containers": [container], **spec},
        "status": {"startTime": started} if started else {},
    }
    return PodInfo.of(convert(Pod, document), owner_selector=owner)


def make_node(
    name: str,
    *,
    cpu: str = "4",
    memory: str = "8Gi",
    pods: str = "110",
    labels: Any = None,
    zone: str = "",
    **spec: Any,
) -> Node:
    merged = {
        "kubernetes.io/hostname": name,
        **({"topology.kubernetes.io/zone": zone} if zone else {}),
        **(labels or {}),
    }
    allocatable = {"cpu": cpu, "memory": memory, "pods": pods}
    document = {"metadata": {"name": name, "labels": merged}, "spec": spec, "status": {"allocatable": allocatable}}
    return convert(Node, document)


def make_cluster(*nodes: Node, **placed: list[PodInfo]) -> Cluster:
    cluster = Cluster()
    for node in nodes:
        cluster.set_node(node)
    for node_name, pods in placed.items():
        for pod in pods:
            cluster.place(pod, node_name)
    return cluster


@pytest.fixture
def pod() -> Callable[..., PodInfo]:
    return make_pod


@pytest.fixture
def node() -> Callable[..., Node]:
    return make_node


@pytest.fixture
def cluster() -> Callable[..., Cluster]:
    return make_cluster
