"""Manifests → everything that Envoy is told, as text; `PILOTAGE_GOLDEN=1` rewrites, the author reads the difference."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf import json_format

from pilotage.api.codec import load_yaml
from pilotage.gateway.core.ingress import Ports, translate_ingresses
from pilotage.gateway.core.translate import Options, translate
from pilotage.xds import Resource, ResourceType

CASES = sorted((Path(__file__).parent / "testdata").glob("*.in.yaml"))
MESSAGES: dict[ResourceType, Any] = {
    ResourceType.CLUSTER: cluster_pb2.Cluster,
    ResourceType.ENDPOINT: endpoint_pb2.ClusterLoadAssignment,
    ResourceType.LISTENER: listener_pb2.Listener,
    ResourceType.SECRET: secret_pb2.Secret,
    ResourceType.ROUTE: route_pb2.RouteConfiguration,
}


@pytest.mark.parametrize("case", CASES, ids=[case.name.removesuffix(".in.yaml") for case in CASES])
def test_golden(case: Path, read_inputs: Any, tls_secret: Any) -> None:
    documents = load_yaml(case.read_text())
    # A key does not belong in a repository: a TLS Secret without data gets a fresh one, and the output leaves it out.
    secrets = [
        tls_secret(document["metadata"]["name"])
        for document in documents
        if document["kind"] == "Secret" and "data" not in document
    ]
    rest = [document for document in documents if document["kind"] != "Secret" or "data" in document]
    result = translate_ingresses(read_inputs(yaml.safe_dump_all(rest), *secrets), Ports(redirect=8443))
    output: dict[str, Any] = {
        "ours": [ingress.metadata.key for ingress in result.ours],
        "problems": [f"{item.about.name}: {item.reason}: {item.message}" for item in result.problems],
    }
    for resource in translate(result.ir, Options(access_log="-")):
        output.setdefault(resource.type.name.lower(), []).append(_readable(resource))
    text = yaml.safe_dump(output, sort_keys=False, width=120, allow_unicode=True)
    golden = case.with_name(case.name.replace(".in.", ".out."))
    if os.environ.get("PILOTAGE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


def _readable(resource: Resource) -> Any:
    message = MESSAGES[resource.type].FromString(resource.body)
    return _without_keys(json_format.MessageToDict(message))


def _without_keys(value: Any) -> Any:
    if isinstance(value, dict):
        # protobuf yields map entries in an order that differs from process to process
        return {key: "…" if key == "inlineBytes" else _without_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_without_keys(item) for item in value]
    return value
