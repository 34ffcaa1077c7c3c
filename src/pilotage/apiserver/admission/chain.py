"""The plugins in their order, and the one object the write pipeline talks to.

`review` runs before validation and may complete the document; `reserve` and `allocate` run after it, just before the
write, and return how to undo what they took. The server tells `observe` about every changed Service and ServiceCIDR.
"""

from __future__ import annotations

from collections.abc import Callable

from pilotage.api.catalogue import Resource
from pilotage.apiserver.admission.account_secrets import AccountSecrets
from pilotage.apiserver.admission.certificate_requests import certificate_requests
from pilotage.apiserver.admission.default_classes import default_classes
from pilotage.apiserver.admission.default_tolerations import default_tolerations
from pilotage.apiserver.admission.limit_ranger import limit_ranger
from pilotage.apiserver.admission.namespace_lifecycle import namespace_lifecycle
from pilotage.apiserver.admission.node_restriction import node_restriction
from pilotage.apiserver.admission.operation import Document, Operation, Undo
from pilotage.apiserver.admission.pod_security import pod_security
from pilotage.apiserver.admission.pod_topology import pod_topology, topology_labels
from pilotage.apiserver.admission.priority import priority
from pilotage.apiserver.admission.resource_quota import QuotaLedger
from pilotage.apiserver.admission.service_account import service_account
from pilotage.apiserver.admission.service_addresses import ServiceAddresses
from pilotage.apiserver.admission.unheeded import unheeded
from pilotage.apiserver.authentication import UserInfo
from pilotage.apiserver.authorization import Authorizer, check_escalation
from pilotage.apiserver.authorization.rbac import GROUP as RBAC_GROUP
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.documents import Documents

Plugin = Callable[[Operation, Documents], None]

# Restrictions first, then what completes the document, then what judges the completed one. Quotas are not among them:
# they come after validation, because only a request that will go through should count.
PLUGINS: tuple[Plugin, ...] = (
    namespace_lifecycle,
    node_restriction,
    service_account,
    default_tolerations,
    priority,
    default_classes,
    pod_topology,
    limit_ranger,
    pod_security,
    unheeded,
)


class Admission:
    """Admission of one server."""

    def __init__(
        self,
        documents: Documents,
        authorizer: Authorizer,
        addresses: ServiceAddresses,
        quotas: QuotaLedger,
        secrets: AccountSecrets | None = None,  # None: Secrets of accounts stay as they are
    ) -> None:
        self._documents = documents
        self._authorizer = authorizer
        self._addresses = addresses
        self._quotas = quotas
        self._secrets = secrets

    def review(self, operation: Operation) -> None:
        """Complete the operation's document in place, or raise ApiError."""
        for plugin in PLUGINS:
            plugin(operation, self._documents)
        if self._secrets is not None:
            self._secrets.fill(operation, self._documents)
        certificate_requests(operation, self._authorizer)
        self._prevent_escalation(operation)

    def authorize_create(self, user: UserInfo, resource: Resource, namespace: str, name: str) -> None:
        """An apply that finds nothing to change creates, which leave to patch does not cover. Raises Forbidden."""
        asked = Route(
            path="",
            verb="create",
            resource_request=True,
            group=resource.group,
            version=resource.version,
            plural=resource.plural,
            namespace=namespace,
            name=name,
        )
        self._authorizer.authorize(user, asked)

    def bind(self, node: str) -> dict[str, str]:
        """The labels a pod gets with its node."""
        return topology_labels(self._documents.get("", "nodes", "", node))

    def reserve(self, operation: Operation) -> Undo | None:
        """What a valid write takes of its namespace's quotas, until the result is called. Raises ApiError Forbidden."""
        return self._quotas.reserve(operation)

    def allocate(self, operation: Operation) -> Undo | None:
        """Addresses and node ports of a valid Service; call the result if the object is not written after all."""
        if operation.kind != ("", "Service") or operation.subresource or operation.document is None:
            return None
        return self._addresses.allocate(operation.old, operation.document)

    def observe(self, group: str, plural: str, previous: Document | None, current: Document | None) -> None:
        """A stored object has changed."""
        if plural == "services" and not group:
            self._addresses.observe(previous, current)
        elif plural == "servicecidrs":
            self._addresses.observe_range(previous, current)

    def _prevent_escalation(self, operation: Operation) -> None:
        if operation.resource.group != RBAC_GROUP or operation.document is None:
            return
        unchanged = operation.old is not None and all(
            operation.old.get(field) == operation.document.get(field)
            for field in ("rules", "aggregationRule", "roleRef", "subjects")
        )
        if not unchanged:
            check_escalation(self._authorizer, operation.user, operation.resource.plural, operation.document)
