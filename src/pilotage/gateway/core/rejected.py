"""What Envoy refused → whose object it came from.

Stands apart because it reverses the names that `translate` gave. Called by the shell, which turns it into an Event; a
refusal is a defect of ours or of our checks, as objects are validated before they get this far.
"""

from pilotage.api.core_v1 import ObjectReference, Secret, Service
from pilotage.gateway.core.ingress_class import CLASS_NAME
from pilotage.gateway.core.problem import Problem
from pilotage.xds.core.resource import ResourceType
from pilotage.xds.core.stream import Rejected


def describe(rejected: Rejected) -> Problem:
    """The message quotes Envoy."""
    message = f"Envoy refuses {rejected.type.name} {rejected.name} and keeps what it had: {rejected.message}"
    return Problem(about=_owner(rejected), reason="RejectedByEnvoy", message=message)


def _owner(rejected: Rejected) -> ObjectReference:
    parts = rejected.name.split("/")
    match rejected.type, parts:
        case ((ResourceType.CLUSTER | ResourceType.ENDPOINT), [namespace, name, _]):
            return ObjectReference(api_version=Service.api_version, kind=Service.kind, namespace=namespace, name=name)
        case ResourceType.SECRET, [namespace, name]:
            return ObjectReference(api_version=Secret.api_version, kind=Secret.kind, namespace=namespace, name=name)
    # A listener or the table of all routes belongs to no single object.
    return ObjectReference(api_version="networking.k8s.io/v1", kind="IngressClass", name=CLASS_NAME)
