"""The sandbox of one pod: what its containers share before the first of them starts.

Namespaces and what holds them, the addresses and host ports, resolv.conf and its neighbours, shared memory. Stands
apart from the worker because it carries out what `core.lifecycle` decided and tells the worker what became of it.
Whether a sandbox of an earlier agent is still whole is found out here too. Leaves out volumes' contents and containers.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Protocol

from pilotage.agent.container_setup import PodContext, holder_id, write_pod_files
from pilotage.agent.core import resolver
from pilotage.agent.core.state import Event, PodState, SandboxFailed, SandboxReady, SandboxRemoved
from pilotage.agent.runtime import RuntimeFailure
from pilotage.agent.services import NodeServices
from pilotage.api.core_v1 import Pod
from pilotage.kit.errors import PilotageError


class Owner(Protocol):
    """What a pod's sandbox needs of its worker."""

    @property
    def uid(self) -> str: ...

    @property
    def pod(self) -> Pod: ...

    @property
    def allocated(self) -> Pod: ...

    @property
    def directory(self) -> Path: ...

    def now(self) -> float: ...

    def post(self, event: Event) -> None: ...

    def tell(self, type_: str, reason: str, message: str) -> None: ...


class Sandbox:
    """Of one pod."""

    def __init__(self, owner: Owner, node: NodeServices) -> None:
        self._owner = owner
        self._node = node
        self._shared_memory = node.run_dir / "shm" / owner.uid

    def context(self, pod_ips: tuple[str, ...]) -> PodContext:
        """What a container of the pod is made with. Raises `RuntimeFailure`."""
        own_network = not self._owner.pod.spec.host_network
        users = self._node.users.find(self._owner.uid)
        if users is None and not self._owner.pod.spec.host_users:
            raise RuntimeFailure("the user namespace of the pod is gone")  # never run it as the node's users instead
        return PodContext(
            pod=self._owner.allocated,
            pod_ips=pod_ips,
            network_namespace=str(self._node.network.path(self._owner.uid)) if own_network else "",
            sandbox_namespaces=self._node.runtime.sandbox_namespaces(self._owner.uid),
            directory=self._owner.directory,
            shared_memory=self._shared_memory,
            users=users,
        )

    def stands(self) -> bool:
        """Whether containers can be started in it: somebody may have killed what holds its namespaces."""
        if not self._owner.pod.spec.host_users and self._node.users.find(self._owner.uid) is None:
            return False
        return bool(self._node.runtime.sandbox_namespaces(self._owner.uid))

    def restore(self, state: PodState) -> bool:
        """Take up what an earlier agent left. False if that is lost; true also if there should be nothing."""
        if state.sandbox != "ready":
            return True
        if not self.stands():
            return False
        pod = self._owner.pod
        if pod.spec.host_network:
            return True
        if not state.pod_ips or not self._node.network.restore(self._owner.uid, *state.pod_ips):
            return False
        self._node.host_ports.publish(pod, state.pod_ips)
        return True

    async def create(self) -> None:
        """Posts `SandboxReady` or `SandboxFailed`."""
        owner, node, pod = self._owner, self._node, self._owner.pod
        try:
            name = resolver.kernel_hostname(pod, node.cluster_domain)
            node.open_groups(owner.allocated)
            users = None if pod.spec.host_users else await node.users.make(owner.uid)
            namespace = users.namespace if users is not None else None
            holder = node.setup.process_holder(owner.uid, users) if pod.spec.share_process_namespace else None
            await node.runtime.open_sandbox(owner.uid, name, holder=holder, users=namespace)
            if not pod.spec.host_network:
                await node.network.attach(owner.uid, users=namespace)
            ips = node.node_ips if pod.spec.host_network else node.network.addresses(owner.uid)
            node.host_ports.publish(pod, ips)
            wanted = resolver.wanted(
                pod,
                cluster_dns=node.cluster_dns,
                cluster_domain=node.cluster_domain,
                node=node.node_resolver(),
            )
            resolv_conf = resolver.bounded(wanted)
            for message in resolver.omissions(wanted, resolv_conf):
                owner.tell("Warning", "DNSConfigForming", message)
            write_pod_files(
                self.context(ips), node.mounts, resolv_conf=resolv_conf.render(), cluster_domain=node.cluster_domain
            )
        except (PilotageError, OSError) as error:
            message = f"Failed to create pod sandbox: {error}"
            owner.tell("Warning", "FailedCreatePodSandBox", message)
            owner.post(SandboxFailed(message=message, at=owner.now()))
        else:
            owner.post(SandboxReady(pod_ips=ips))

    async def remove(self) -> None:
        """Once no container is left in it; its volumes go with it. Posts `SandboxRemoved`."""
        node, uid = self._node, self._owner.uid
        node.host_ports.withdraw(self._owner.pod)
        if not self._owner.pod.spec.host_network:
            await node.network.detach(uid)
        await asyncio.to_thread(node.volumes.unmount, uid)
        node.mounts.detach(self._shared_memory)
        with contextlib.suppress(OSError):
            self._shared_memory.rmdir()
        await node.runtime.close_sandbox(uid)
        node.roots.remove(holder_id(uid))
        node.users.release(uid)
        node.references.release(uid)
        self._owner.post(SandboxRemoved())
