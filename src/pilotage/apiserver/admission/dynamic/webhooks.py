"""Calling webhooks: mutating ones in turn, validating ones at once.

Stands apart as the only part of admission that leaves the process. A webhook is called by its URL, or by its Service:
then at a ready endpoint, because the server may run where no service proxy does; certificates are checked against the
name of the Service. Bodies and times are bounded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import aiohttp
import msgspec

from pilotage.api.catalogue import Resource
from pilotage.api.status import ApiError
from pilotage.apiserver.admission.dynamic.matching import ConditionError, conditions_hold, matched, selected
from pilotage.apiserver.admission.dynamic.review import (
    AnswerError,
    Verdict,
    denial,
    patched,
    request_of,
    shown_as,
    verdict,
)
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.cel import AUTHORIZER, Asker, Spending, asking
from pilotage.apiserver.documents import Documents
from pilotage.telemetry import get_logger

log = get_logger()

ANSWER_BYTES_MAX = 4 * 1024 * 1024
TIMEOUT_DEFAULT_S = 10
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One webhook of a configuration."""

    configuration: str
    source: Document
    mutating: bool

    @property
    def name(self) -> str:
        """As it is reported."""
        name: str = self.source.get("name", "")
        return name

    @property
    def ignores_failure(self) -> bool:
        """Whether the write goes on when the webhook cannot be called."""
        return self.source.get("failurePolicy") == "Ignore"


class CallError(Exception):
    """A webhook could not be asked, or gave no answer."""


class Webhooks:
    """The webhooks of one server."""

    def __init__(self, documents: Documents, equivalents: Callable[[Resource], Sequence[Resource]]) -> None:
        self._documents = documents
        self._equivalents = equivalents
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def configured(self, *, mutating: bool) -> list[Webhook]:
        """Every webhook, in the order they are called."""
        plural = f"{'mutating' if mutating else 'validating'}webhookconfigurations"
        found = sorted(
            self._documents.list("admissionregistration.k8s.io", plural), key=lambda each: str(each["metadata"]["name"])
        )
        return [
            Webhook(configuration=each["metadata"]["name"], source=source, mutating=mutating)
            for each in found
            for source in each.get("webhooks") or ()
        ]

    def matching(self, operation: Operation, webhook: Webhook) -> Resource | None:
        """The resource in the version a webhook wants, None when it is not concerned."""
        source = webhook.source
        exact = source.get("matchPolicy") == "Exact"
        found = matched(operation, self._equivalents(operation.resource), source.get("rules") or (), exact=exact)
        return found if found is not None and selected(operation, self._documents, source) else None

    async def mutate(self, operation: Operation, webhooks: Sequence[Webhook], asker: Asker) -> Document | None:
        """Ask mutating webhooks in turn; those that want it once more after a later one changed the object."""
        current = operation.document
        again: list[Webhook] = []
        for webhook in webhooks:
            changed = await self._mutate_once(replace(operation, document=current), webhook, asker)
            if changed is not None and changed != current:
                current = changed
                again = [*again, *(each for each in webhooks[: webhooks.index(webhook)] if each not in again)]
        last = await self.mutate_again(
            replace(operation, document=current), [each for each in webhooks if each in again], asker
        )
        current = last if last is not None else current
        return current if current is not operation.document else None

    async def mutate_again(self, operation: Operation, webhooks: Sequence[Webhook], asker: Asker) -> Document | None:
        """Ask those once more that want it when the object has changed since."""
        current = operation.document
        for webhook in webhooks:
            if webhook.source.get("reinvocationPolicy") == "IfNeeded":
                changed = await self._mutate_once(replace(operation, document=current), webhook, asker)
                current = changed if changed is not None else current
        return current if current is not operation.document else None

    async def _mutate_once(self, operation: Operation, webhook: Webhook, asker: Asker) -> Document | None:
        resource = self.matching(operation, webhook)
        if resource is None:
            return None
        answer = await self._ask(operation, webhook, resource, asker)
        if answer is None or answer.patch is None or operation.document is None:
            return None
        try:
            shown = shown_as(operation.document, operation.resource, resource)
            assert shown is not None
            changed = patched(shown, answer.patch)
        except AnswerError as error:
            self._failed(webhook, str(error))
            return None
        return shown_as(changed, resource, operation.resource)

    async def judge(self, operation: Operation, webhooks: Sequence[Webhook], asker: Asker) -> None:
        """Ask validating webhooks at once; the first refusal in their order counts."""
        asked = [(each, found) for each in webhooks if (found := self.matching(operation, each)) is not None]
        answers = await asyncio.gather(
            *(self._ask(operation, webhook, resource, asker) for webhook, resource in asked), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _ask(self, operation: Operation, webhook: Webhook, resource: Resource, asker: Asker) -> Verdict | None:
        """A webhook's consent; None when it is not concerned, or cannot be asked and that is ignored."""
        uid = str(uuid.uuid4())
        request = request_of(operation, resource, uid)
        conditions = webhook.source.get("matchConditions") or ()
        try:
            if conditions:
                values = {**request, "request": request, "authorizer": AUTHORIZER}
                chosen = {name: values.get(name) for name in ("object", "oldObject", "request", "authorizer")}
                with asking(asker):
                    if not conditions_hold(conditions, chosen, Spending()):
                        return None
            if operation.dry_run and webhook.source.get("sideEffects") not in ("None", "NoneOnDryRun"):
                raise ApiError("BadRequest", f'admission webhook "{webhook.name}" does not support dry run')
            answer = verdict(await self._call(webhook, request), uid, mutating=webhook.mutating)
        except (CallError, AnswerError, ConditionError) as error:
            self._failed(webhook, str(error))
            return None
        operation.warnings.extend(answer.warnings)
        if not answer.allowed:
            raise denial(webhook.name, answer)
        return answer

    def _failed(self, webhook: Webhook, why: str) -> None:
        """Raises ApiError unless failures are ignored."""
        if webhook.ignores_failure:
            log.warning("admission webhook failed open", webhook=webhook.name, error=why)
            return
        raise ApiError("InternalError", f'Internal error occurred: failed calling webhook "{webhook.name}": {why}')

    async def _call(self, webhook: Webhook, request: Document) -> bytes:
        config = webhook.source.get("clientConfig") or {}
        try:
            url, server_name = self._address(config)
        except LookupError as error:
            raise CallError(f"failed to call webhook: {error}") from None
        timeout_s = webhook.source.get("timeoutSeconds") or TIMEOUT_DEFAULT_S
        body = _encode({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
        shown = f"https://{server_name}" if server_name else url
        try:
            async with asyncio.timeout(timeout_s):
                async with self._open().post(
                    url,
                    params={"timeout": f"{timeout_s}s"},
                    data=body,
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                    ssl=_trust(config.get("caBundle") or ""),
                    server_hostname=server_name,
                    allow_redirects=False,
                ) as response:
                    data = await response.content.read(ANSWER_BYTES_MAX + 1)
                    while len(data) <= ANSWER_BYTES_MAX and (more := await response.content.read(ANSWER_BYTES_MAX)):
                        data += more
                    status = response.status
        except TimeoutError:
            raise CallError(f'failed to call webhook: Post "{shown}": context deadline exceeded') from None
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            raise CallError(f'failed to call webhook: Post "{shown}": {str(error)[:300]}') from None
        if len(data) > ANSWER_BYTES_MAX:
            raise CallError("failed to call webhook: the answer is too large")
        if status != 200:
            raise CallError(f"failed to call webhook: the server responded with the status code {status}")
        return data

    def _address(self, config: Mapping[str, Any]) -> tuple[str, str | None]:
        """Where to call, and which name the certificate must have (None: the URL's own)."""
        if config.get("url"):
            return config["url"], None
        reference = config.get("service") or {}
        namespace, name = reference.get("namespace", ""), reference.get("name", "")
        service = self._documents.get("", "services", namespace, name)
        if service is None:
            raise LookupError(f'service "{name}" not found')
        slices = [
            each
            for each in self._documents.list("discovery.k8s.io", "endpointslices", namespace)
            if (each["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == name
        ]
        host, port = service_address(service, slices, reference.get("port") or 443)
        path = "/" + (reference.get("path") or "").lstrip("/")
        return f"https://{f'[{host}]' if ':' in host else host}:{port}{path}", f"{name}.{namespace}.svc"

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=64, limit_per_host=16),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
            )
        return self._session


def service_address(service: Document, slices: Sequence[Document], port: int) -> tuple[str, int]:
    """A ready endpoint behind a port of a Service, its virtual address when none is known. Raises LookupError."""
    name = service["metadata"]["name"]
    declared = next((each for each in service["spec"].get("ports") or () if each.get("port") == port), None)
    if declared is None:
        raise LookupError(f'no service port {port} found for service "{name}"')
    wanted = declared.get("name") or ""
    for each in slices:
        number = next(
            (item.get("port") for item in each.get("ports") or () if (item.get("name") or "") == wanted), None
        )
        if number is None:
            continue
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("addresses"):
                return endpoint["addresses"][0], number
    cluster_ip = service["spec"].get("clusterIP")
    if slices or not cluster_ip or cluster_ip == "None":
        raise LookupError(f'no endpoints available for service "{name}"')
    return cluster_ip, port


@lru_cache(maxsize=64)
def _trust(bundle: str) -> ssl.SSLContext:
    """A context that trusts the bundle (base64 of PEM), or the system's authorities without one. Raises ValueError."""
    context = ssl.create_default_context()
    if bundle:
        try:
            text = base64.b64decode(bundle, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError(f"caBundle is not base64 of certificates: {error}") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=text)
    return context
