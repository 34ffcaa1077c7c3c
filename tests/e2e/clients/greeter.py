"""An operator written with kopf, as its users write them: it keeps a ConfigMap with a greeting for every Greeting.

Run by `kopf run`; it is no part of the tests but what they watch at work.
"""

from typing import Any

import kopf
import kubernetes


@kopf.on.startup()
def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    kubernetes.config.load_kube_config()
    settings.watching.server_timeout = 5  # so that watches are resumed while the tests run


@kopf.on.create("greetings")
def create(name: str, namespace: str, spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> dict[str, str]:
    body: dict[str, Any] = {"metadata": {"name": f"{name}-letter"}, "data": {"text": f"Hello {spec['to']}"}}
    kopf.adopt(body)
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, body)
    patch.status["phase"] = "Sent"
    return {"letter": f"{name}-letter"}


@kopf.on.update("greetings", field="spec.to")
def rename(name: str, namespace: str, old: str, new: str, patch: kopf.Patch, body: kopf.Body, **_: Any) -> None:
    text = {"data": {"text": f"Hello {new}, formerly {old}"}}
    kubernetes.client.CoreV1Api().patch_namespaced_config_map(f"{name}-letter", namespace, text)
    patch.status["phase"] = "Renamed"
    kopf.info(body, reason="Renamed", message=f"from {old} to {new}")


@kopf.on.delete("greetings")
def delete(name: str, namespace: str, **_: Any) -> None:
    body = {"metadata": {"name": f"{name}-farewell"}}
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, body)


@kopf.timer("greetings", interval=0.3)
def tick(status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    if status.get("ticks", 0) < 3:
        patch.status["ticks"] = status.get("ticks", 0) + 1
