"""The accounts a namespace lacks. Pure; fed by `reconciler.py`."""

from collections.abc import Iterable

from pilotage.api.core_v1 import Namespace, ServiceAccount

NAMES = ("default",)


def missing(namespace: Namespace | None, accounts: Iterable[ServiceAccount]) -> tuple[str, ...]:
    """Names to create; none in a namespace that is gone or going."""
    if namespace is None or namespace.metadata.is_deleting or namespace.status.phase == "Terminating":
        return ()
    existing = {account.metadata.name for account in accounts}
    return tuple(name for name in NAMES if name not in existing)
