"""Static pods: from a file's text to a pod of this node, and the mirror that shows it in the API.

Stands apart because such a pod has no object to begin with: its name, its uid and what it tolerates follow from the
file and the node alone, so that every agent of the node finds the same pod again. Source: "Create static Pods" in the
Kubernetes documentation. Leaves out watching the directory (`static_pods`) and writing the mirrors (`mirror_pods`).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from pilotage.api import schema_conform, schema_defaults, schema_validation
from pilotage.api.catalogue import by_kind
from pilotage.api.codec import convert, load_yaml
from pilotage.api.core_v1 import Pod
from pilotage.api.status import ApiError
from pilotage.kit.errors import PilotageError

HASH = "kubernetes.io/config.hash"
MIRROR = "kubernetes.io/config.mirror"
SEEN = "kubernetes.io/config.seen"
SOURCE = "kubernetes.io/config.source"
# What names another object of the API: the node must be able to run the pod when there is none.
_REFERENCES = frozenset({"configMap", "configMapRef", "configMapKeyRef", "secret", "secretRef", "secretKeyRef",
                         "serviceAccountName", "serviceAccount", "imagePullSecrets", "persistentVolumeClaim",
                         "resourceClaims"})  # fmt: skip


class StaticPodError(PilotageError):
    """The file does not hold a pod that this node could run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticPod:
    """One file's pod: as the agent reads it, and whole, as the API will show it."""

    pod: Pod
    document: dict[str, Any]


def read(data: bytes, *, path: str, node: str, seen: str) -> StaticPod:
    """The pod in a file, YAML or JSON; `seen` is when it was read. Raises `StaticPodError`."""
    resource = by_kind("", "v1", "Pod")
    assert resource is not None
    try:
        documents = [one for one in load_yaml(data) if one is not None]
    except (yaml.YAMLError, ValueError) as error:
        raise StaticPodError(f"cannot be parsed: {error}") from error
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise StaticPodError(f"must hold one object, holds {len(documents)}")
    given = documents[0]
    if (given.get("apiVersion"), given.get("kind")) != ("v1", "Pod"):
        raise StaticPodError(f"must be a v1 Pod, is {given.get('apiVersion')} {given.get('kind')}")
    try:
        document = schema_conform.conform(resource, given).document
    except ApiError as error:
        raise StaticPodError(str(error)) from error
    document.pop("status", None)
    _belong_to_node(document, path=path, node=node, seen=seen)
    schema_defaults.default(resource, document)
    problems = schema_validation.validate(resource, document)
    if problems:
        raise StaticPodError("; ".join(f"{one.field}: {one.message}" for one in problems[:5]))
    found = next(_references(document["spec"], "spec"), None)
    if found is not None:
        raise StaticPodError(f"{found}: a static pod may not refer to other objects of the API")
    return StaticPod(pod=convert(Pod, document), document=document)


def _belong_to_node(document: dict[str, Any], *, path: str, node: str, seen: str) -> None:
    metadata, spec = document.setdefault("metadata", {}), document.setdefault("spec", {})
    text = json.dumps(document, sort_keys=True)
    uid = hashlib.md5(f"host:{node}\nfile:{path}\n{text}".encode(), usedforsecurity=False).hexdigest()
    name = metadata.get("name")
    if not name:
        raise StaticPodError("metadata.name: a static pod needs a name")
    kept = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
    annotations = dict(kept.get("annotations", {})) | {HASH: uid, SEEN: seen, SOURCE: "file"}
    annotations.pop(MIRROR, None)
    namespace = metadata.get("namespace") or "default"
    document["metadata"] = kept | {
        "name": f"{name}-{node}", "namespace": namespace, "uid": uid, "generation": 1, "annotations": annotations
    }  # fmt: skip
    spec["nodeName"] = node
    everything = {"operator": "Exists", "effect": "NoExecute"}
    tolerations = spec.get("tolerations") or []
    spec["tolerations"] = [*tolerations, *([] if everything in tolerations else [everything])]


def _references(value: Any, path: str) -> Iterator[str]:
    """The paths of fields that name other objects."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _REFERENCES and inner:
                yield f"{path}.{key}"
            else:
                yield from _references(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _references(inner, f"{path}[{index}]")


def mirror(static: StaticPod, *, node: str, node_uid: str) -> dict[str, Any]:
    """The object that shows a static pod. It belongs to the node and goes with it."""
    metadata = {key: value for key, value in static.document["metadata"].items() if key not in ("uid", "generation")}
    metadata["annotations"] = metadata["annotations"] | {MIRROR: static.pod.metadata.uid}
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": True}
    metadata["ownerReferences"] = [owner]
    return static.document | {"metadata": metadata}


def mirrored(pod: Pod) -> str:
    """The uid of the static pod that an object of the API shows; empty for an ordinary pod."""
    return pod.metadata.annotations.get(MIRROR, "")
