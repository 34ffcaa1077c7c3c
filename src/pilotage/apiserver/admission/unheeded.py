"""What is kept and not acted upon says so: whoever writes it would otherwise wait for its effect.

Kinds that every client may list, because Kubernetes serves them, and whose meaning lies in kube-apiserver itself: the
classes of API priority and fairness (every request is of one class here, bounded in number).
"""

from __future__ import annotations

from pilotage.apiserver.admission.operation import Operation
from pilotage.apiserver.documents import Documents

_KINDS = frozenset(
    (
        ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
    )
)


def unheeded(operation: Operation, documents: Documents) -> None:
    """Warn whoever creates or changes one."""
    if operation.kind in _KINDS and operation.verb != "delete" and not operation.subresource:
        operation.warnings.append(f"{operation.resource.group_resource} are kept, but this server does not act on them")
