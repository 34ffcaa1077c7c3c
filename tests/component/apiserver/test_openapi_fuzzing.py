"""The served OpenAPI documents, taken at their word: what they allow to be sent never ends in an internal error.

Complements `test_fuzzing`, which knows the kinds: here every path, parameter and body comes from the documents alone.
Generating is slow for large schemas, so each run takes some groups, bounded in examples.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from pilotage.testing.cluster import api_server
from pilotage.testing.wire import Http, connected

# All but those whose documents hold the schema of a pod, which takes minutes to generate from: core, apps, batch, and
# the schema of schemas. `test_fuzzing` has them.
GROUPS = (
    "admissionregistration.k8s.io/v1",
    "apiregistration.k8s.io/v1",
    "authentication.k8s.io/v1",
    "authorization.k8s.io/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "certificates.k8s.io/v1",
    "coordination.k8s.io/v1",
    "discovery.k8s.io/v1",
    "events.k8s.io/v1",
    "flowcontrol.apiserver.k8s.io/v1",
    "networking.k8s.io/v1",
    "node.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "scheduling.k8s.io/v1",
    "storage.k8s.io/v1",
)
EXAMPLES = 2
OPERATION_S_MAX = 30.0


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with api_server() as server, connected(server) as client:
        yield client


@pytest.mark.parametrize("group", GROUPS)
async def test_whatever_the_documents_allow(http: Http, group: str) -> None:
    document = (await http("GET", f"/openapi/v3/apis/{group}")).body
    schema = schemathesis.openapi.from_dict(document)
    loop = asyncio.get_running_loop()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            if "namespace" in case.path_parameters:
                case.path_parameters["namespace"] = "default"  # any other is only not found
            body = case.body if isinstance(case.body, dict | list) else {}
            path = case.formatted_path
            media = "application/json" if case.method != "PATCH" else "application/merge-patch+json"
            asked = http(case.method, path, None if case.method == "GET" else body, Content_Type=media)
            answer = asyncio.run_coroutine_threadsafe(asked, loop).result(OPERATION_S_MAX)
            assert answer.status < 500, (case.method, path, body, answer.body)

        await asyncio.to_thread(send)
