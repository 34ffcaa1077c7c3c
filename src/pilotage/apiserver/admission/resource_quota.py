"""ResourceQuotas: what a namespace holds, and what it may still get; exact also when many ask at once.

For every quota the ledger keeps the sum over the namespace's objects, brought up to date by each stored change, so that
judging a write costs a few additions however many objects there are. A write that was let through is reserved until the
cache shows it: two creates on their way at the same instant see each other. Called by admission after validation,
because only a write that will go through should count; `quota_status` publishes the sums.

Left out: several API servers on one store see each other's writes only once stored; limited resources by configuration.

Specification: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from pilotage.api import quantity
from pilotage.api.quotas import Usage, counted_by, in_scope, missing_from_containers, usage
from pilotage.apiserver.admission.operation import Document, Operation, Undo
from pilotage.apiserver.documents import Documents

Observer = Callable[[str, str, Document | None, Document | None], None]
Watch = Callable[[str, str | None, Observer], None]

_ZERO = Decimal(0)
_QUOTAS = ("", "resourcequotas")
# Kinds of which an update can cost more than before; all others count one, always.
_GROWING = frozenset({("", "pods"), ("", "services"), ("", "persistentvolumeclaims")})
# A client that left while its write was under way: by then the write has happened or never will.
ABANDONED_S = 30.0


@dataclass(slots=True, kw_only=True)
class Account:
    """One quota and what counts under it."""

    name: str
    spec: Document
    covers: frozenset[tuple[str, str]]  # (group, plural) of everything its names count
    used: Usage = field(default_factory=dict)

    @property
    def hard(self) -> Document:
        """Resource name → the most there may be."""
        hard: Document = self.spec.get("hard") or {}
        return hard

    def cost(self, group: str, plural: str, document: Document | None) -> Usage:
        """What an object costs here: only names this quota limits."""
        if document is None or not in_scope(self.spec, group, plural, document):
            return {}
        return {name: amount for name, amount in usage(group, plural, document).items() if name in self.hard}

    def change(self, group: str, plural: str, previous: Document | None, current: Document | None) -> bool:
        """Count a stored change; return whether it made a difference."""
        before, after = self.cost(group, plural, previous), self.cost(group, plural, current)
        if before == after:
            return False
        for name in before | after:
            self.used[name] = self.used.get(name, _ZERO) + after.get(name, _ZERO) - before.get(name, _ZERO)
        return True


@dataclass(slots=True, kw_only=True, eq=False)
class _Reservation:
    group: str
    plural: str
    namespace: str
    document: Document
    since: float  # monotonic


class QuotaLedger:
    """The quotas of one server. `watch` subscribes to stored changes; None: count anew each time."""

    def __init__(self, documents: Documents, watch: Watch | None = None) -> None:
        self._documents = documents
        self._watch = watch
        self._watched: set[tuple[str, str]] = set()
        self._accounts: dict[str, dict[str, Account]] = {}  # namespace → uid of the quota → account
        self._reservations: list[_Reservation] = []
        self.changed: set[str] = set()  # namespaces whose published sums may be out of date
        self.on_change: Callable[[], None] = lambda: None
        if watch is not None:
            self._subscribe([_QUOTAS])

    # Judging

    def reserve(self, operation: Operation) -> Undo | None:
        """Raises ApiError Forbidden for a write that exceeds a quota; else hold its cost until the result is called."""
        kind = (operation.resource.group, operation.resource.plural)
        if operation.verb == "delete" or not operation.namespace or operation.document is None:
            return None
        if operation.verb == "update" and (kind not in _GROWING or operation.subresource not in ("", "resize")):
            return None
        accounts = self.accounts(operation.namespace)
        if not accounts:
            return None
        grew = [self._judge(operation, account) for account in accounts if kind in account.covers]
        if not any(grew):
            return None
        reservation = _Reservation(
            group=kind[0],
            plural=kind[1],
            namespace=operation.namespace,
            document=operation.document,
            since=time.monotonic(),
        )
        self._reservations.append(reservation)
        return lambda: self._reservations.remove(reservation) if reservation in self._reservations else None

    def _judge(self, operation: Operation, account: Account) -> bool:
        """Whether the write takes something of the quota."""
        document, (group, plural) = operation.document, (operation.resource.group, operation.resource.plural)
        assert document is not None
        if not in_scope(account.spec, group, plural, document):
            return False
        if (group, plural) == ("", "pods") and operation.verb == "create":
            missing = missing_from_containers(account.hard, document)
            if missing:
                listed = "; ".join(f"{name} for: {','.join(without)}" for name, without in missing.items())
                raise operation.forbidden(f"failed quota: {account.name}: must specify {listed}")
        before, after = account.cost(group, plural, operation.old), account.cost(group, plural, document)
        asked = {name: amount - before.get(name, _ZERO) for name, amount in after.items()}
        asked = {name: amount for name, amount in asked.items() if amount > 0}
        if not asked:
            return False
        pending = self._pending(account, operation)
        used = {name: account.used.get(name, _ZERO) + pending.get(name, _ZERO) for name in asked}
        exceeded = sorted(n for n, amount in asked.items() if used[n] + amount > quantity.parse(account.hard[n]))
        if exceeded:
            raise operation.forbidden(
                f"exceeded quota: {account.name}, requested: {_listed(account, exceeded, asked)}, "
                f"used: {_listed(account, exceeded, used)}, "
                f"limited: {','.join(f'{name}={account.hard[name]}' for name in exceeded)}"
            )
        return True

    def _pending(self, account: Account, operation: Operation) -> Usage:
        """What others have reserved under the quota and the cache does not show yet."""
        total: Usage = {}
        oldest = time.monotonic() - ABANDONED_S
        self._reservations = [item for item in self._reservations if item.since > oldest]
        for item in self._reservations:
            if item.namespace != operation.namespace or item.document is operation.document:
                continue
            metadata = item.document["metadata"]
            stored = self._documents.get(item.group, item.plural, item.namespace, metadata["name"])
            if stored is not None and stored["metadata"].get("uid") != metadata.get("uid"):
                stored = None
            shown = account.cost(item.group, item.plural, stored)
            for name, amount in account.cost(item.group, item.plural, item.document).items():
                total[name] = total.get(name, _ZERO) + max(amount - shown.get(name, _ZERO), _ZERO)
        return total

    # Counting

    def accounts(self, namespace: str) -> list[Account]:
        """The quotas of a namespace, counted."""
        known = self._accounts.get(namespace, {})
        found: dict[str, Account] = {}
        for quota in self._documents.list(*_QUOTAS, namespace):
            uid, spec = quota["metadata"].get("uid", ""), quota.get("spec") or {}
            account = known.get(uid)
            if account is None or account.spec != spec or self._watch is None:
                account = self._opened(namespace, quota["metadata"]["name"], spec)
            found[uid] = account
        if found:
            self._accounts[namespace] = found
        else:
            self._accounts.pop(namespace, None)
        return list(found.values())

    def _opened(self, namespace: str, name: str, spec: Document) -> Account:
        covers = frozenset(filter(None, map(counted_by, spec.get("hard") or ())))
        account = Account(name=name, spec=spec, covers=covers)
        self._subscribe(covers)
        for group, plural in covers:
            for document in self._documents.list(group, plural, namespace):
                account.change(group, plural, None, document)
        return account

    def _subscribe(self, resources: Iterable[tuple[str, str]]) -> None:
        if self._watch is None:
            return
        for group, plural in resources:
            if (group, plural) not in self._watched:
                self._watched.add((group, plural))
                self._watch(group, plural, self.observe)

    def observe(self, group: str, plural: str, previous: Document | None, current: Document | None) -> None:
        """An object of a counted kind was stored or removed."""
        document = current or previous
        assert document is not None
        namespace = document["metadata"].get("namespace", "")
        differs = (group, plural) == _QUOTAS
        for account in self._counting(namespace, group, plural):
            differs = account.change(group, plural, previous, current) or differs
        if differs:
            self.changed.add(namespace)
            self.on_change()

    def _counting(self, namespace: str, group: str, plural: str) -> Iterator[Account]:
        for account in self._accounts.get(namespace, {}).values():
            if (group, plural) in account.covers:
                yield account

    def statuses(self, namespace: str) -> dict[str, Document]:
        """Name of the quota → the status it should have."""
        return {
            account.name: {
                "hard": dict(account.hard),
                "used": {name: _shown(account, name, account.used.get(name, _ZERO)) for name in account.hard},
            }
            for account in self.accounts(namespace)
        }


def _shown(account: Account, name: str, amount: Decimal) -> str:
    """In the notation of the limit: `1Gi` beside `4Gi`, `500m` beside `2`."""
    return quantity.render(amount, binary=str(account.hard[name]).endswith("i"))


def _listed(account: Account, names: list[str], amounts: Usage) -> str:
    return ",".join(f"{name}={_shown(account, name, amounts.get(name, _ZERO))}" for name in names)
