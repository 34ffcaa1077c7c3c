"""What a node may do besides its roles: read its pods and the Secrets and ConfigMaps they name, act for their accounts.

Keeps an index of which node uses what, fed with every change of a pod. Called by the `authorizer`.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.documents import Document, Documents

Reference = tuple[str, str, str]  # plural, namespace, name

_REFERENCED = frozenset({"secrets", "configmaps", "persistentvolumeclaims", "resourceclaims"})
_READ = frozenset({"get", "list", "watch"})


class NodeGraph:
    """Which objects the pods of each node refer to."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._uses: dict[str, Counter[Reference]] = {}
        self._pods: dict[tuple[str, str], str] = {}
        for pod in documents.list("", "pods"):
            self.observe(None, pod)

    def observe(self, previous: Document | None, current: Document | None) -> None:
        """A pod was added, changed or removed."""
        before = "" if previous is None else previous["spec"].get("nodeName", "")
        after = "" if current is None else current["spec"].get("nodeName", "")
        if before and after and _uid(previous) == _uid(current):
            return  # Bound pods do not change what they refer to.
        if previous is not None and before:
            uses = self._uses.get(before, Counter())
            uses.subtract(references(previous))
            for key in [key for key, count in uses.items() if count <= 0]:
                del uses[key]
            if not uses:
                self._uses.pop(before, None)
        if current is not None and after:
            self._uses.setdefault(after, Counter()).update(references(current))

    def uses(self, node: str, reference: Reference) -> bool:
        """Whether a pod of the node refers to an object."""
        return reference in self._uses.get(node, ())

    def allows(self, node: str, asked: Route) -> bool:
        """Whether the node may do this because of its pods, or because it is about itself."""
        if not asked.resource_request:
            return False
        if asked.group == "" and asked.plural in _REFERENCED:
            named = bool(asked.name) and asked.verb in _READ and not asked.subresource
            return named and self.uses(node, (asked.plural, asked.namespace, asked.name))
        if asked.group == "" and asked.plural == "pods" and not asked.subresource:
            return self._reads_own_pods(node, asked)
        if asked.group == "" and asked.plural == "serviceaccounts":
            wanted = asked.verb == "create" and asked.subresource == "token"
            return wanted and self.uses(node, ("serviceaccounts", asked.namespace, asked.name))
        if asked.group == "coordination.k8s.io" and asked.plural == "leases":
            own = asked.namespace == "kube-node-lease" and asked.name in ("", node)
            return own and asked.verb in ("get", "create", "update", "patch", "delete")
        return False

    def _reads_own_pods(self, node: str, asked: Route) -> bool:
        """A collection must be narrowed to the node's pods (KEP-4601); one pod must be among them."""
        if asked.verb in ("list", "watch"):
            return ("spec.nodeName", node) in asked.fields
        if asked.verb != "get":
            return False
        pod = self._documents.get("", "pods", asked.namespace, asked.name)
        return pod is not None and pod["spec"].get("nodeName") == node


def _uid(pod: Document | None) -> str:
    uid: str = "" if pod is None else pod["metadata"]["uid"]
    return uid


def references(pod: Document) -> Iterator[Reference]:
    """Everything a pod's spec names that its node must read."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    yield "serviceaccounts", namespace, spec.get("serviceAccountName") or "default"
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", namespace, secret.get("name", "")
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield from _container_references(container, namespace)
    for volume in spec.get("volumes") or ():
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            secret, config = source.get("secret"), source.get("configMap")
            if secret is not None:
                yield "secrets", namespace, secret.get("secretName") or secret.get("name", "")
            if config is not None:
                yield "configmaps", namespace, config.get("name", "")
        if "persistentVolumeClaim" in volume:
            yield "persistentvolumeclaims", namespace, volume["persistentVolumeClaim"].get("claimName", "")


def _container_references(container: Document, namespace: str) -> Iterator[Reference]:
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if "secretKeyRef" in source:
            yield "secrets", namespace, source["secretKeyRef"].get("name", "")
        if "configMapKeyRef" in source:
            yield "configmaps", namespace, source["configMapKeyRef"].get("name", "")
    for source in container.get("envFrom") or ():
        if "secretRef" in source:
            yield "secrets", namespace, source["secretRef"].get("name", "")
        if "configMapRef" in source:
            yield "configmaps", namespace, source["configMapRef"].get("name", "")
