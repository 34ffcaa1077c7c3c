"""Which Ingresses are ours.

Stands apart because the answer needs only classes and is wanted by the shell too (whose status may it write?).
Source: Ingress documentation, "Ingress class" and "Default IngressClass".
"""

from collections.abc import Iterable

from pilotage.api.networking_v1 import Ingress, IngressClass

CONTROLLER_NAME = "pilotage.dev/gateway"
CLASS_NAME = "pilotage"  # honoured in the legacy annotation even when no IngressClass object exists
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"


def select_ours(ingresses: Iterable[Ingress], classes: Iterable[IngressClass]) -> tuple[Ingress, ...]:
    """Ours, oldest first (then by namespace and name): the order in which conflicts are decided."""
    known = {item.metadata.name: item for item in classes}
    ours = {name for name, item in known.items() if item.spec.controller == CONTROLLER_NAME}
    defaults = [item for item in known.values() if item.metadata.annotations.get(DEFAULT_ANNOTATION) == "true"]
    # Should several be marked, the newest counts, as in the API server's DefaultIngressClass admission.
    newest = max(defaults, key=lambda item: (item.metadata.creation_timestamp, item.metadata.name), default=None)
    default_is_ours = newest is not None and newest.metadata.name in ours

    def is_ours(ingress: Ingress) -> bool:
        if ingress.spec.ingress_class_name:
            return ingress.spec.ingress_class_name in ours
        legacy = ingress.metadata.annotations.get(CLASS_ANNOTATION)
        if legacy is not None:
            return legacy in ours or (legacy == CLASS_NAME and legacy not in known)
        return default_is_ours

    return tuple(
        sorted(
            (ingress for ingress in ingresses if is_ours(ingress)),
            key=lambda item: (item.metadata.creation_timestamp, item.metadata.namespace, item.metadata.name),
        )
    )
