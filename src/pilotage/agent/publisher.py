"""Tells the API how one pod is: the latest status, one write at a time, intermediate ones skipped.

Stands apart from the worker because the API may be away while the pod goes on. Fed by the worker after every step;
what a status says is `core.status`'s.
"""

import asyncio
from collections.abc import Callable

import msgspec

from pilotage.agent import metrics
from pilotage.agent.core import status
from pilotage.agent.core.state import PodState
from pilotage.agent.services import NodeServices
from pilotage.api.core_v1 import Pod, PodStatus
from pilotage.api.status import ApiError, is_conflict, is_not_found
from pilotage.client import ConnectionFailed, PatchType
from pilotage.kit.backoff import Backoff
from pilotage.telemetry import get_logger

_RETRY = Backoff(initial_s=0.1, max_s=5.0)
_log = get_logger()


class StatusPublisher:
    """The status of one pod. `is_wanted` says False once the object is gone from the API."""

    def __init__(self, node: NodeServices, *, is_wanted: Callable[[], bool]) -> None:
        self._node = node
        self._is_wanted = is_wanted
        self._publish = asyncio.Event()
        self._pod: Pod | None = None  # as it was when the status was computed
        self._written: PodStatus | None = None  # the latest the API acknowledged
        self.status: PodStatus | None = None  # the latest computed

    def report(self, pod: Pod, state: PodState) -> None:
        """Compute the status; wake `run` if it differs from what was computed last."""
        self._pod = pod
        # Transition times are taken from our own latest computation: the API's copy may lag behind it.
        if self.status is not None:
            own = {one.type: one for one in self.status.conditions}
            others = tuple(one for one in pod.status.conditions if one.type not in own)
            shown = msgspec.structs.replace(pod.status, conditions=(*others, *own.values()))
            pod = msgspec.structs.replace(pod, status=shown)
        now = self._node.clock.wall().timestamp()
        found = status.report(pod, state, host_ips=self._node.node_ips, now=now)
        if found != self.status:
            self.status = found
            self._publish.set()

    def repeat(self, pod: Pod) -> None:
        """Another object shows the pod from now on, and knows nothing yet."""
        self._pod = pod
        self._written = None
        self._publish.set()

    async def run(self) -> None:
        """Write what `report` found, until cancelled."""
        failures = 0
        while True:
            await self._publish.wait()
            self._publish.clear()
            try:
                await self.write()
                failures = 0
            except (ApiError, ConnectionFailed) as error:
                if isinstance(error, ApiError) and (is_not_found(error) or is_conflict(error)):
                    continue  # the watch will tell that the pod is gone, or another one
                failures += 1
                key = self._pod.metadata.key if self._pod is not None else ""
                _log.warning("cannot write pod status", pod=key, error=str(error)[:300])
                await asyncio.sleep(_RETRY.delay_s(failures))
                self._publish.set()

    async def write(self) -> None:
        """Write the latest status unless the API has it; raises `ApiError`, `ConnectionFailed`."""
        wanted, pod = self.status, self._pod
        if wanted is None or pod is None or wanted == self._written or not self._is_wanted():
            return
        await self._node.client.patch(
            Pod,
            pod.metadata.name,
            status.patch(pod, wanted),
            namespace=pod.metadata.namespace,
            subresource="status",
            patch_type=PatchType.STRATEGIC,
        )
        self._written = wanted
        metrics.STATUS_WRITES.inc()
