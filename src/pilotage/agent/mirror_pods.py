"""Keeps one object in the API for each static pod of this node, so that users see what runs.

Stands apart from the pods themselves, which run with or without it. An object that somebody deletes or that shows an
earlier file is replaced; one whose pod is gone is deleted. What is in the API comes from the agent's own informer.
"""

import asyncio
from collections.abc import Callable, Iterable

from pilotage.agent.core import static_pod
from pilotage.agent.core.static_pod import StaticPod
from pilotage.api.codec import encode
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.status import ApiError, is_already_exists, is_conflict, is_not_found
from pilotage.client import Client, ConnectionFailed
from pilotage.kit.backoff import Backoff
from pilotage.telemetry import get_logger

_RETRY = Backoff(initial_s=0.1, max_s=10.0)
_log = get_logger()


class MirrorPods:
    """`wanted` are the static pods that run or end here, `shown` all pods of the API on this node."""

    def __init__(
        self,
        client: Client,
        node: str,
        *,
        wanted: Callable[[], Iterable[StaticPod]],
        shown: Callable[[], Iterable[Pod]],
    ) -> None:
        self._client = client
        self._node = node
        self._wanted = wanted
        self._shown = shown
        self._wake = asyncio.Event()

    def look(self) -> None:
        """Something changed on either side."""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile after every `look`, until cancelled."""
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._reconcile()
                failures = 0
            except (ApiError, ConnectionFailed) as error:
                failures += 1
                _log.warning("cannot mirror static pods", error=str(error)[:300])
                await asyncio.sleep(_RETRY.delay_s(failures))
                self._wake.set()

    async def _reconcile(self) -> None:
        wanted = {one.pod.metadata.uid: one for one in self._wanted()}
        good: set[str] = set()
        for pod in self._shown():
            of = static_pod.mirrored(pod)
            if not of:
                continue
            if of in wanted and not pod.metadata.is_deleting and of not in good:
                good.add(of)
            else:
                await self._delete(pod)
        for uid, one in wanted.items():
            if uid not in good:
                await self._create(one)

    async def _delete(self, pod: Pod) -> None:
        try:
            await self._client.delete(
                Pod, pod.metadata.name, namespace=pod.metadata.namespace, grace_period_s=0, uid=pod.metadata.uid
            )
        except ApiError as error:
            if not (is_not_found(error) or is_conflict(error)):
                raise

    async def _create(self, one: StaticPod) -> None:
        node = await self._client.get(Node, self._node)
        document = static_pod.mirror(one, node=self._node, node_uid=node.metadata.uid)
        path = f"/api/v1/namespaces/{one.pod.metadata.namespace}/pods"
        try:
            await self._client.request("POST", path, body=encode(document))
        except ApiError as error:
            if not is_already_exists(error):
                raise
            # The watch has not told of it yet, or an ordinary pod has the name: then it cannot be shown.
