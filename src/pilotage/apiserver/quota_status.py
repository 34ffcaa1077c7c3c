"""The status of ResourceQuotas: what the ledger counts, written where people look.

Stands apart from admission, which never writes. It lives in the server rather than among the controllers because the
sums are here already, exact and kept up by every change; a controller would have to watch every countable kind to
arrive at the same numbers later. Writes of one namespace are gathered for a moment, so a Deployment of a hundred pods
costs a handful of status updates. Started by `server`.
"""

from __future__ import annotations

import asyncio

from pilotage.api.status import ApiError
from pilotage.apiserver.admission import QuotaLedger
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.subresources import builtin
from pilotage.kit.clock import Clock
from pilotage.storage import StorageError
from pilotage.telemetry import get_logger

log = get_logger()

GATHER_S = 0.05
# After a failed write, and in case a change was missed.
RESYNC_S = 60.0


async def publish_quotas(registry: Registry, ledger: QuotaLedger, clock: Clock) -> None:
    """Keep every quota's status true until cancelled."""
    resource = builtin("", "v1", "resourcequotas")
    woken = asyncio.Event()
    ledger.on_change = woken.set
    ledger.changed |= {record.namespace for record in registry.cache(resource).scan("")}
    while True:
        namespaces, ledger.changed = ledger.changed, set()
        for namespace in namespaces:
            for name, status in ledger.statuses(namespace).items():
                call = Call(
                    resource=resource,
                    namespace=namespace,
                    name=name,
                    subresource="status",
                    user=LOOPBACK,
                    now=clock.wall(),
                )
                await _publish(registry, call, status)
        try:
            async with asyncio.timeout(RESYNC_S):
                await woken.wait()
        except TimeoutError:
            ledger.changed |= {record.namespace for record in registry.cache(resource).scan("")}
        woken.clear()
        await asyncio.sleep(GATHER_S)


async def _publish(registry: Registry, call: Call, status: Document) -> None:
    record = registry.cache(call.resource).get(call.key)
    if record is None or record.document.get("status") == status:
        return
    try:
        await registry.amend(call, lambda quota: {**quota, "status": status})
    except (ApiError, StorageError) as error:
        log.warning("quota status not written", quota=call.key, error=str(error))
