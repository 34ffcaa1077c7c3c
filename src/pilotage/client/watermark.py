"""Watermarks: "on this node this consumer has applied everything up to resourceVersion N".

One Lease per consumer and node, one number each, written at most every 100 ms and only when it grew; proof of readiness
and proof of drain compare it with the version of the change they wait for. Since Kubernetes 1.35 resourceVersions are
comparable integers (KEP-5504).
"""

import asyncio

from pilotage.api import timestamp
from pilotage.api.coordination_v1 import Lease, LeaseSpec
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError, is_already_exists, is_not_found
from pilotage.client.client import Client
from pilotage.client.errors import ConnectionFailed
from pilotage.kit.backoff import Backoff
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.telemetry import get_logger

NAMESPACE = "kube-system"
ANNOTATION = "pilotage.dev/watermark"
CONSUMER_LABEL = "pilotage.dev/consumer"
NODE_LABEL = "pilotage.dev/node"
INTERVAL_S = 0.1  # bounds the write rate to ten a second per consumer, however fast endpoints churn

_RETRY = Backoff(initial_s=0.2, max_s=5.0)
_log = get_logger()


class WatermarkPublisher:
    """Publishes the highest number given to `advance`."""

    def __init__(self, client: Client, consumer: str, node: str = "", *, clock: Clock = SYSTEM_CLOCK) -> None:
        """`node` is empty for a consumer that serves the whole cluster."""
        self.consumer, self.node = consumer, node
        self.value = 0  # applied here
        self.published = 0  # acknowledged by the API
        self._client = client
        self._clock = clock
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        """The Lease's name."""
        return f"watermark-{self.consumer}-{self.node}" if self.node else f"watermark-{self.consumer}"

    def advance(self, resource_version: int) -> None:
        """Everything up to here is applied; smaller numbers than before are ignored."""
        if resource_version > self.value:
            self.value = resource_version
            self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled; keeps trying while the API is away."""
        failures = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            value = self.value
            try:
                await self._publish(value)
                self.published, failures = value, 0
                await asyncio.sleep(INTERVAL_S)
            except (ApiError, ConnectionFailed) as error:
                failures += 1
                if failures == 3:
                    _log.warning("watermark not published", lease=self.name, error=str(error)[:300])
                self._changed.set()
                await asyncio.sleep(_RETRY.delay_s(failures))

    async def _publish(self, value: int) -> None:
        now = timestamp.render_micro(self._clock.wall())
        body = {"metadata": {"annotations": {ANNOTATION: str(value)}}, "spec": {"renewTime": now}}
        try:
            await self._client.patch(Lease, self.name, body, namespace=NAMESPACE)
        except ApiError as error:
            if not is_not_found(error):
                raise
            labels = {CONSUMER_LABEL: self.consumer} | ({NODE_LABEL: self.node} if self.node else {})
            meta = ObjectMeta(name=self.name, namespace=NAMESPACE, labels=labels, annotations={ANNOTATION: str(value)})
            try:
                await self._client.create(
                    Lease(metadata=meta, spec=LeaseSpec(holder_identity=self.node or self.consumer, renew_time=now))
                )
            except ApiError as race:
                if not is_already_exists(race):
                    raise
                await self._client.patch(Lease, self.name, body, namespace=NAMESPACE)


def read_watermark(lease: Lease) -> int:
    """The number a Lease states; 0 when it states none."""
    text = lease.metadata.annotations.get(ANNOTATION, "")
    return int(text) if text.isdigit() else 0
