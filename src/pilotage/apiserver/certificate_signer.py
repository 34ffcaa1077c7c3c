"""Signs approved CertificateSigningRequests with the cluster's authority, and tidies up old ones.

Stands apart because only the server has the authority's key, and nobody else should. Requests of nodes for their own
client certificate are approved here when RBAC lets the requestor ask for them; everything else waits for a human or a
controller. What a signer refuses gets the condition Failed, which says why. Started by `server`.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

import asyncio
import base64
from datetime import datetime, timedelta
from types import MappingProxyType

from pilotage.api.status import ApiError
from pilotage.api.timestamp import parse as parse_time
from pilotage.api.timestamp import render
from pilotage.apiserver.authentication import LOOPBACK, UserInfo
from pilotage.apiserver.authorization import Authorizer
from pilotage.apiserver.call import Call
from pilotage.apiserver.certificates import Authority
from pilotage.apiserver.core import signing
from pilotage.apiserver.core.record import Document, Record
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.subresources import builtin
from pilotage.kit.clock import Clock
from pilotage.storage import StorageError
from pilotage.telemetry import get_logger

log = get_logger()

RESOURCE = builtin("certificates.k8s.io", "v1", "certificatesigningrequests")
# kube-controller-manager's csrcleaner.
DECIDED_KEPT = timedelta(hours=1)
PENDING_KEPT = timedelta(hours=24)
SWEEP_S = 60.0


class CertificateSigner:
    """The signers of one cluster."""

    def __init__(self, registry: Registry, authorizer: Authorizer, authority: Authority, clock: Clock) -> None:
        self._registry = registry
        self._authorizer = authorizer
        self._authority = authority
        self._clock = clock
        self._woken = asyncio.Event()
        registry.store.cache.observe(RESOURCE.group, RESOURCE.plural, self._observe)

    def _observe(self, group: str, plural: str, previous: Document | None, current: Document | None) -> None:
        if current is not None:
            self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for record in tuple(self._registry.cache(RESOURCE).scan("")):
                try:
                    await self._handle(record)
                except (ApiError, StorageError) as error:
                    log.warning("certificate request not handled", request=record.name, error=str(error))
            try:
                async with asyncio.timeout(SWEEP_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    async def _handle(self, record: Record) -> None:
        document = record.document
        if outlived(document, self._clock.wall()):
            await self._registry.store.delete(RESOURCE, record)
            return
        how = signing.approvable_as(document)
        if how and self._allowed(document["spec"], how):
            message = "Auto approving kubelet client certificate after SubjectAccessReview."
            await self._amend(record, _condition("Approved", "AutoApproved", message))
        elif signing.is_due(document):
            await self._sign(record)

    def _allowed(self, spec: Document, how: str) -> bool:
        user = UserInfo(
            name=spec.get("username", ""),
            uid=spec.get("uid", ""),
            groups=tuple(spec.get("groups") or ()),
            extra=MappingProxyType({key: tuple(values) for key, values in (spec.get("extra") or {}).items()}),
        )
        asked = Route(
            path="",
            verb="create",
            resource_request=True,
            group=RESOURCE.group,
            version=RESOURCE.version,
            plural=RESOURCE.plural,
            subresource=how,
        )
        return self._authorizer.allows(user, asked)

    async def _sign(self, record: Record) -> None:
        spec = record.document["spec"]
        try:
            parsed = signing.parse(spec["request"])
            why = signing.refusal(spec, parsed)
        except signing.SigningRequestError as error:
            why = str(error)
        if why is not None:
            await self._amend(record, _condition("Failed", "SignerValidationFailure", why))
            return
        pem = self._authority.sign(parsed, spec.get("usages") or (), signing.lifetime(spec))
        await self._amend(record, {"certificate": base64.b64encode(pem).decode()})

    async def _amend(self, record: Record, change: Document) -> None:
        call = Call(
            resource=RESOURCE, namespace="", name=record.name, subresource="", user=LOOPBACK, now=self._clock.wall()
        )
        now = render(call.now)

        def amended(document: Document) -> Document:
            status = dict(document.get("status") or {})
            if "certificate" in change:
                status["certificate"] = change["certificate"]
            elif signing.condition(document, change["type"]) is None:
                made = {**change, "lastUpdateTime": now, "lastTransitionTime": now}
                status["conditions"] = [*(status.get("conditions") or ()), made]
            return {**document, "status": status}

        await self._registry.amend(call, amended)


def _condition(kind: str, reason: str, message: str) -> Document:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def outlived(document: Document, now: datetime) -> bool:
    """Whether a request has been of no use for long enough."""
    created = document["metadata"]["creationTimestamp"]
    decided = [
        parse_time(item.get("lastUpdateTime") or created)
        for item in (document.get("status") or {}).get("conditions") or ()
        if item.get("type") in ("Approved", "Denied", "Failed")
    ]
    return now - max(decided) > DECIDED_KEPT if decided else now - parse_time(created) > PENDING_KEPT
