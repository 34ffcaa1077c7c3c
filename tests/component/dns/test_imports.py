"""ServiceImports of a real API server, in which the kind appears while DNS serves."""

from __future__ import annotations

import json
from typing import Any

import dns.asyncquery
import dns.message
import dns.rcode
import pytest
from msgspec.structs import replace

from pilotage.api.meta_v1 import ObjectMeta
from pilotage.dns import Config, Server, imports
from pilotage.dns.core.cluster_set import IMPORTED_LABEL, SOURCE_LABEL, ServiceImport, ServiceImportSpec
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server
from pilotage.testing.dns import endpoint, part

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "serviceimports.multicluster.x-k8s.io",
        "annotations": {
            "api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster"
        },
    },
    "spec": {
        "group": "multicluster.x-k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "serviceimports", "singular": "serviceimport", "kind": "ServiceImport"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


async def test_imported_names_are_served_once_the_kind_is_known(until: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "LOOK_EVERY_S", 0.05)
    async with api_server() as api, task_set() as tasks:
        server = Server(Config(listen=("127.0.0.1:0",), node="n1"))
        tasks.start(server.run(api.client, lambda: None))

        async def ask(name: str) -> tuple[str, list[str]]:
            query = dns.message.make_query(f"{name}.default.svc.clusterset.local.", "A")
            address = server.addresses[0]
            response = await dns.asyncquery.udp(query, address.host, timeout=10, port=address.port)
            return dns.rcode.to_text(response.rcode()), [str(r) for rrset in response.answer for r in rrset]

        async def becomes(name: str, expected: tuple[str, list[str]]) -> None:
            async def same() -> bool:
                return await ask(name) == expected

            await until(same, deadline_s=30)

        await becomes("db", ("REFUSED", []))  # nobody's, without upstreams
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await api.client.request("POST", path, body=json.dumps(DEFINITION).encode())
        await becomes("db", ("NXDOMAIN", []))
        spec = ServiceImportSpec(type="Headless")
        await api.client.create(ServiceImport(metadata=ObjectMeta(name="db", namespace="default"), spec=spec))
        made = part("db", endpoint("10.1.0.1", "db-0"), name="db-east")
        labels = {IMPORTED_LABEL: "db", SOURCE_LABEL: "east"}
        await api.client.create(replace(made, metadata=replace(made.metadata, labels=labels)))
        await becomes("db", ("NOERROR", ["10.1.0.1"]))
        await becomes("db-0.east.db", ("NOERROR", ["10.1.0.1"]))
        await api.client.delete(ServiceImport, "db", namespace="default")
        await becomes("db", ("NXDOMAIN", []))
        tasks.cancel_all()
