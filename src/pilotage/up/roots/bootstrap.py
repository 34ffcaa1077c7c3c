"""Makes the objects every cluster has, waits until its nodes are Ready, and ends.

Apart from the API server's own bootstrap because these objects are this cluster's choice, made as an ordinary client.
Its end is what `up` reports as ready.
"""

import asyncio
from typing import Any

from pilotage.api.core_v1 import Node
from pilotage.client import Client, ConnectionFailed, Informer
from pilotage.dns import record_definition
from pilotage.kit import Backoff
from pilotage.kit.tasks import task_set
from pilotage.up.core.plan import Plan
from pilotage.up.launch import Launch

_MANAGER = "pilotage-up"
_RETRY = Backoff(initial_s=0.05, max_s=1.0)
INGRESS_CONTROLLER = "pilotage.dev/gateway"


async def serve(launch: Launch) -> None:
    """Apply the objects, wait for the nodes, report, return."""
    async with Client.from_kubeconfig(launch.kubeconfig("admin"), user_agent=_MANAGER) as client:
        for document in cluster_objects(launch.plan):
            await _apply(client, document)
        launch.progress("API ready")
        await _wait_nodes_ready(client, launch)
    launch.on_ready()


def cluster_objects(plan: Plan) -> tuple[dict[str, Any], ...]:
    """The documents to apply: cluster DNS (answered on each node by the process there), Ingress class, DNSRecord."""
    dns = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": plan.dns_service,
            "clusterIPs": list(plan.dns_services),
            "ipFamilyPolicy": "RequireDualStack" if plan.second else "SingleStack",
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    }
    ingress_class = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "pilotage", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": INGRESS_CONTROLLER},
    }
    return dns, ingress_class, record_definition()


async def _apply(client: Client, document: dict[str, Any]) -> None:
    """Apply, as often as the API is away; the supervisor bounds how long that may take."""
    failures = 0
    while True:
        try:
            await client.apply(document, field_manager=_MANAGER)
            return
        except ConnectionFailed:
            failures += 1
            await asyncio.sleep(_RETRY.delay_s(failures))


async def _wait_nodes_ready(client: Client, launch: Launch) -> None:
    """Until every node of the plan says it is Ready; reports each the first time."""
    missing = {node.name for node in launch.plan.nodes}
    done = asyncio.Event()

    def on_change(_old: Node | None, new: Node | None) -> None:
        if new is not None and new.metadata.name in missing and _is_ready(new):
            missing.discard(new.metadata.name)
            launch.progress(f"node {new.metadata.name} Ready")
            if not missing:
                done.set()

    nodes = Informer(client, Node)
    nodes.add_handler(on_change)
    async with task_set() as tasks:
        tasks.start(nodes.run(), name="nodes")
        await done.wait()


def _is_ready(node: Node) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)
