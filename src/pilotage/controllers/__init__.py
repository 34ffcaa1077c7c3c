"""The control loops of the cluster, one folder each.

Purpose: make what the API says come true, one kind at a time: workloads, endpoints, namespaces, ownership, node health.
Inputs → outputs: objects of the API in; objects created, changed and deleted out.
Invariants: controllers do not know each other, they meet in objects; a request is a name; decisions are pure (`core`),
writes are repeatable, and nobody decides on a cache older than its own writes.
Reading order: `replicaset` (the simplest whole one), `deployment`, `endpointslice`, `garbagecollector`, then any.
Specifications: Kubernetes 1.36 documentation of each kind; each folder names its own.

This module also joins them: it is the only one that knows them all, so that the folders stay independent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pilotage.api.apps_v1 import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from pilotage.api.batch_v1 import Job
from pilotage.api.core_v1 import (
    Endpoints,
    Namespace,
    Node,
    PersistentVolumeClaim,
    Pod,
    ReplicationController,
    Service,
    ServiceAccount,
)
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import Object
from pilotage.api.policy_v1 import PodDisruptionBudget
from pilotage.client import Client, Informer
from pilotage.controllers.clusterrole.reconciler import ClusterRoleReconciler
from pilotage.controllers.daemonset.reconciler import DaemonSetReconciler
from pilotage.controllers.deployment.reconciler import DeploymentReconciler
from pilotage.controllers.disruption.reconciler import DisruptionReconciler
from pilotage.controllers.endpoints.reconciler import EndpointsReconciler
from pilotage.controllers.endpointslice.reconciler import EndpointSliceReconciler
from pilotage.controllers.endpointslicemirroring.reconciler import EndpointSliceMirroringReconciler
from pilotage.controllers.garbagecollector.reconciler import GarbageCollector
from pilotage.controllers.job.reconciler import JobReconciler
from pilotage.controllers.namespace.reconciler import NamespaceReconciler
from pilotage.controllers.nodeipam.reconciler import NodeIpamReconciler
from pilotage.controllers.nodelifecycle.reconciler import NodeLifecycleReconciler
from pilotage.controllers.podgc.reconciler import PodGcReconciler
from pilotage.controllers.replicaset.reconciler import ReplicaSetReconciler
from pilotage.controllers.rootca.reconciler import RootCaReconciler
from pilotage.controllers.serviceaccount.reconciler import ServiceAccountReconciler
from pilotage.controllers.statefulset.reconciler import StatefulSetReconciler
from pilotage.controllers.tainteviction.reconciler import TaintEvictionReconciler
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import task_set
from pilotage.reconcile import Manager

__all__ = ["Config", "run"]

NODE_GRACE_S = 40.0

# Kinds that the controllers below hold in full; the garbage collector reads them there instead of watching again.
_SHARED: tuple[type[Object], ...] = (
    ControllerRevision,
    DaemonSet,
    Deployment,
    EndpointSlice,
    Endpoints,
    Job,
    Namespace,
    Node,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    Service,
    ServiceAccount,
    StatefulSet,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How the control loops of one cluster behave."""

    root_ca: str = ""  # PEM published in every namespace; empty: no ConfigMap is published
    node_grace_s: float = NODE_GRACE_S  # silence after which a node counts as lost
    cluster_cidrs: tuple[str, ...] = ()  # pod ranges to share out among nodes; empty: nodes bring their own
    clock: Clock = field(default=SYSTEM_CLOCK, repr=False)


async def run(config: Config, client: Client, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Run every control loop until cancelled; `on_ready` is called once all caches are filled."""
    manager = Manager(client, component="controllers")
    for controller in _reconcilers(config, manager):
        manager.add(controller.controller())
    shared: dict[tuple[str, str], Informer[Any]] = {
        (kind.api_version, kind.kind): manager.informer(kind) for kind in _SHARED
    }
    collector = GarbageCollector(client, shared)
    manager.add(collector.controller())
    async with task_set() as tasks:
        tasks.start(manager.run(), name="manager")
        tasks.start(collector.run(), name="garbagecollector")
        await manager.wait_synced()
        on_ready()
        await tasks.wait()


_Reconciler = (
    ClusterRoleReconciler
    | DaemonSetReconciler
    | DeploymentReconciler
    | DisruptionReconciler
    | EndpointSliceMirroringReconciler
    | EndpointSliceReconciler
    | EndpointsReconciler
    | JobReconciler
    | NamespaceReconciler
    | NodeIpamReconciler
    | NodeLifecycleReconciler
    | PodGcReconciler
    | ReplicaSetReconciler
    | RootCaReconciler
    | ServiceAccountReconciler
    | StatefulSetReconciler
    | TaintEvictionReconciler
)


def _reconcilers(config: Config, manager: Manager) -> list[_Reconciler]:
    clock = config.clock
    found: list[_Reconciler] = [
        NamespaceReconciler(manager, clock),
        ServiceAccountReconciler(manager),
        DeploymentReconciler(manager, clock),
        ReplicaSetReconciler(manager, clock),
        ReplicaSetReconciler(manager, clock, ReplicationController),
        StatefulSetReconciler(manager, clock),
        DaemonSetReconciler(manager, clock),
        JobReconciler(manager, clock),
        DisruptionReconciler(manager, clock),
        EndpointSliceReconciler(manager, clock),
        EndpointSliceMirroringReconciler(manager),
        EndpointsReconciler(manager, clock),
        NodeLifecycleReconciler(manager, clock, grace_s=config.node_grace_s),
        TaintEvictionReconciler(manager, clock),
        PodGcReconciler(manager, clock),
        ClusterRoleReconciler(manager),
    ]
    if config.root_ca:
        found.append(RootCaReconciler(manager, config.root_ca))
    if config.cluster_cidrs:
        found.append(NodeIpamReconciler(manager, config.cluster_cidrs))
    return found
