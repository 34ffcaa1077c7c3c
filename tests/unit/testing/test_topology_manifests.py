"""The demo's manifests: valid for the official schema, and consistent with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "examples" / "topology"
OBJECTS: list[dict[str, Any]] = [
    document for path in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]
SERVICES = {o["metadata"]["name"]: o for o in OBJECTS if o["kind"] == "Service"}
WORKLOADS = [o for o in OBJECTS if o["kind"] in ("Deployment", "StatefulSet")]


@pytest.mark.parametrize("manifest", OBJECTS, ids=lambda o: f"{o['kind']} {o['metadata']['name']}")
def test_manifest_is_valid_for_the_official_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.36", strict=True)


def test_the_case_is_complete() -> None:
    kinds = {name: service["spec"].get("type", "ClusterIP") for name, service in SERVICES.items()}
    assert kinds == {
        "web": "ClusterIP",
        "api": "ClusterIP",
        "orders": "ClusterIP",
        "db": "ClusterIP",
        "legacy": "ExternalName",
        "metrics": "NodePort",
        "public": "LoadBalancer",
    }
    assert SERVICES["db"]["spec"]["clusterIP"] == "None"
    assert {o["metadata"]["name"]: o["spec"]["replicas"] for o in WORKLOADS} == {
        "web": 2,
        "api": 3,
        "orders": 2,
        "db": 2,
        "metrics": 1,
    }


@pytest.mark.parametrize(
    "service", [s for s in SERVICES.values() if "selector" in s["spec"]], ids=lambda s: s["metadata"]["name"]
)
def test_every_service_selects_pods_that_have_its_ports(service: dict[str, Any]) -> None:
    selector = service["spec"]["selector"].items()
    templates = [
        w["spec"]["template"] for w in WORKLOADS if selector <= w["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert len(templates) == 1
    ports = {(port["name"], port.get("protocol", "TCP")) for port in templates[0]["spec"]["containers"][0]["ports"]}
    assert {(port["targetPort"], port.get("protocol", "TCP")) for port in service["spec"]["ports"]} <= ports


def test_the_edge_leads_to_ports_that_exist() -> None:
    (ingress,) = (o for o in OBJECTS if o["kind"] == "Ingress")
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            ports = SERVICES[backend["name"]]["spec"]["ports"]
            assert any(backend["port"] in ({"name": p["name"]}, {"number": p["port"]}) for p in ports)
    assert set(ingress["spec"]["tls"][0]["hosts"]) == {rule["host"] for rule in ingress["spec"]["rules"]}
