"""Webhooks and policies behind the one seam the write pipeline knows.

Stands apart to decide quickly: what is configured is read once after every change, and most writes concern nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pilotage.api.catalogue import Resource
from pilotage.apiserver.admission.dynamic.bound import GROUP, Bound
from pilotage.apiserver.admission.dynamic.mutating_policies import Course, MutatingPolicies
from pilotage.apiserver.admission.dynamic.policies import ValidatingPolicies
from pilotage.apiserver.admission.dynamic.webhooks import Webhook, Webhooks
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.authentication.user import UserInfo, service_account_groups, split_service_account
from pilotage.apiserver.authorization import Authorizer
from pilotage.apiserver.cel import Asker
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.documents import Documents

# Never asked about themselves: a configuration must not be able to prevent its own repair.
_EXEMPT = frozenset(
    (
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    )
)


class DynamicAdmission:
    """The `Hooks` of one server."""

    def __init__(
        self,
        documents: Documents,
        authorizer: Authorizer,
        equivalents: Callable[[Resource], Sequence[Resource]],
        by_kind: Callable[[str, str, str], Resource | None],
    ) -> None:
        self._authorizer = authorizer
        self._webhooks = Webhooks(documents, equivalents)
        self._policies = ValidatingPolicies(documents, equivalents, by_kind)
        self._mutating_policies = MutatingPolicies(documents, equivalents, by_kind)
        self._stale = True
        self._mutating: list[Webhook] = []
        self._validating: list[Webhook] = []
        self._bound: list[Bound] = []
        self._mutating_bound: list[Bound] = []

    async def close(self) -> None:
        """Close connections to webhooks."""
        await self._webhooks.close()

    def observe(self, group: str, plural: str, previous: Document | None, current: Document | None) -> None:
        """A configuration has changed."""
        self._stale = True

    def _refresh(self) -> None:
        if self._stale:
            self._mutating = self._webhooks.configured(mutating=True)
            self._validating = self._webhooks.configured(mutating=False)
            self._bound = self._policies.bound()
            self._mutating_bound = self._mutating_policies.bound()
            self._stale = False

    def concern(self, operation: Operation) -> bool:
        """Whether anybody has a say in this operation."""
        self._refresh()
        configured = self._mutating or self._validating or self._bound or self._mutating_bound
        if not configured or operation.user is LOOPBACK:
            return False
        if operation.resource.group == GROUP and operation.resource.kind in _EXEMPT:
            return False
        return any(
            self._webhooks.matching(operation, webhook) is not None for webhook in (*self._mutating, *self._validating)
        ) or any(
            # Both sorts match alike.
            self._policies.matching(operation, *bound) is not None
            for bound in (*self._mutating_bound, *self._bound)
        )

    async def mutate(self, operation: Operation) -> Document | None:
        """The document as policies, then webhooks want it, None when it stays. Raises ApiError when one refuses."""
        if not self._mutating and not self._mutating_bound:
            return None
        asker = self._asker(operation)
        if operation.document is None:  # a deletion, which policies do not change
            return await self._webhooks.mutate(operation, self._mutating, asker)
        course = Course(self._mutating_policies, self._mutating_bound, asker)
        current = replace(operation, document=course.first(operation))
        current = _with(current, await self._webhooks.mutate(current, self._mutating, asker))
        last = course.again(current)
        if last != current.document:
            current = replace(current, document=last)
            current = _with(current, await self._webhooks.mutate_again(current, self._mutating, asker))
        return current.document if current.document is not operation.document else None

    async def judge(self, operation: Operation) -> None:
        """Ask policies, then validating webhooks, about the final document. Raises ApiError when one refuses."""
        asker = self._asker(operation)
        if self._bound:
            self._policies.judge(operation, self._bound, asker)
        if self._validating:
            await self._webhooks.judge(operation, self._validating, asker)

    def _asker(self, operation: Operation) -> Asker:
        """What `authorizer` asks in expressions."""

        def ask(question: Document, verb: str) -> str | None:
            user = operation.user
            account = split_service_account(question.get("user", ""))
            if account is not None:
                user = UserInfo(name=question["user"], groups=service_account_groups(account[0]))
            if "path" in question:
                asked = Route(path=question["path"], verb=verb)
            else:
                asked = Route(
                    path="",
                    verb=verb,
                    resource_request=True,
                    group=question.get("group", ""),
                    version="*",
                    plural=question.get("resource", ""),
                    subresource=question.get("subresource", ""),
                    namespace=question.get("namespace", ""),
                    name=question.get("name", ""),
                )
            return None if self._authorizer.allows(user, asked) else "no rule allows it"

        return ask


def _with(operation: Operation, document: Document | None) -> Operation:
    """The operation on a changed document; None: it has not changed."""
    return operation if document is None else replace(operation, document=document)
