"""The Python clients people use, each in its own words: create, read, patch, apply, page, watch, fail, delete."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import kr8s
import kubernetes
import kubernetes_asyncio
import pytest
from kr8s.asyncio.objects import ConfigMap as Kr8sConfigMap
from kr8s.asyncio.objects import Deployment as Kr8sDeployment
from kubernetes.dynamic import DynamicClient
from kubernetes.watch import Watch
from kubernetes_asyncio.watch import Watch as AsyncWatch
from lightkube import ALL_NS, AsyncClient, Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Event, Node
from lightkube.types import CascadeType, PatchType

from .cluster import Cluster

PAGES = 7
# Several of these clients leave connections to the garbage collector, which is no mistake of ours.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Kubernetes version .* is not supported")


@pytest.fixture(autouse=True)
def forgotten_connections() -> Iterator[None]:
    """Collects what a client left behind while that is still being overlooked."""
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


def make_deployment(name: str, replicas: int = 0) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "main", "image": "localhost/host", "command": ["sleep", "1h"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        },
    }


class TestKubernetes:
    """PyPI `kubernetes`, generated from the published OpenAPI document."""

    @pytest.fixture
    def api(self, cluster: Cluster) -> kubernetes.client.ApiClient:
        return kubernetes.config.new_client_from_config(str(cluster.kubeconfig))

    def test_objects_live_and_die(self, api: kubernetes.client.ApiClient, cluster: Cluster) -> None:
        cluster.make_namespace("kubernetes-life")
        core = kubernetes.client.CoreV1Api(api)
        body = kubernetes.client.V1ConfigMap(
            metadata=kubernetes.client.V1ObjectMeta(generate_name="made-"), data={"a": "1"}
        )
        made = core.create_namespaced_config_map("kubernetes-life", body)
        name = made.metadata.name
        assert name.startswith("made-") and made.metadata.creation_timestamp.tzinfo is not None
        patched = core.patch_namespaced_config_map(name, "kubernetes-life", {"data": {"b": "2"}})
        assert patched.data == {"a": "1", "b": "2"}
        operations = [{"op": "remove", "path": "/data/a"}]
        assert core.patch_namespaced_config_map(name, "kubernetes-life", operations).data == {"b": "2"}
        with pytest.raises(kubernetes.client.ApiException) as stale:
            core.replace_namespaced_config_map(name, "kubernetes-life", made)
        assert (stale.value.status, stale.value.reason) == (409, "Conflict")
        patched.metadata.resource_version = None
        patched.data = {"c": "3"}
        assert core.replace_namespaced_config_map(name, "kubernetes-life", patched).data == {"c": "3"}
        gone = core.delete_namespaced_config_map(name, "kubernetes-life", propagation_policy="Background")
        assert gone["status"] == "Success"
        with pytest.raises(kubernetes.client.ApiException) as absent:
            core.read_namespaced_config_map(name, "kubernetes-life")
        assert absent.value.status == 404 and f'configmaps \\"{name}\\" not found' in absent.value.body

    def test_workloads_scale_and_become_ready(self, api: kubernetes.client.ApiClient, cluster: Cluster) -> None:
        cluster.make_namespace("kubernetes-workload")
        apps = kubernetes.client.AppsV1Api(api)
        kubernetes.utils.create_from_dict(api, make_deployment("web"), namespace="kubernetes-workload")
        scale = apps.patch_namespaced_deployment_scale("web", "kubernetes-workload", {"spec": {"replicas": 1}})
        assert scale.spec.replicas == 1
        selector = "metadata.name=web"
        stream = Watch().stream(
            apps.list_namespaced_deployment, "kubernetes-workload", field_selector=selector, timeout_seconds=50
        )
        ready = next(event["object"] for event in stream if event["object"].status.ready_replicas == 1)
        assert ready.status.conditions
        pods = kubernetes.client.CoreV1Api(api).list_namespaced_pod(
            "kubernetes-workload", label_selector="app in (web)"
        )
        assert [pod.status.phase for pod in pods.items] == ["Running"]

    def test_every_group_deserializes(self, api: kubernetes.client.ApiClient) -> None:
        assert kubernetes.client.VersionApi(api).get_code().git_version.startswith("v1.36")
        assert {group.name for group in kubernetes.client.ApisApi(api).get_api_versions().groups} > {"apps", "batch"}
        assert kubernetes.client.CoreV1Api(api).list_node().items
        assert kubernetes.client.DiscoveryV1Api(api).list_endpoint_slice_for_all_namespaces().items
        assert kubernetes.client.RbacAuthorizationV1Api(api).list_cluster_role().items
        assert kubernetes.client.CoordinationV1Api(api).list_lease_for_all_namespaces().items
        assert kubernetes.client.NetworkingV1Api(api).list_ingress_class().items
        assert kubernetes.client.SchedulingV1Api(api).list_priority_class().items
        review = kubernetes.client.V1SelfSubjectAccessReview(
            spec={"resourceAttributes": {"verb": "create", "resource": "pods"}}
        )
        answer = kubernetes.client.AuthorizationV1Api(api).create_self_subject_access_review(review)
        assert answer.status.allowed

    def test_the_dynamic_client_discovers_applies_and_pages(
        self, api: kubernetes.client.ApiClient, cluster: Cluster
    ) -> None:
        cluster.make_namespace("kubernetes-dynamic")
        resource = DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
        for number in range(PAGES):
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"n{number}", "labels": {"page": "x"}},
            }
            resource.server_side_apply(body=body, namespace="kubernetes-dynamic", field_manager="dynamic")
        names: list[str] = []
        token = None
        while token != "":
            page = resource.get(namespace="kubernetes-dynamic", limit=3, _continue=token, label_selector="page=x")
            names += [item.metadata.name for item in page.items]
            token = page.metadata.get("continue") or ""
        assert names == [f"n{number}" for number in range(PAGES)]
        events = resource.watch(namespace="kubernetes-dynamic", label_selector="page=x", timeout=1)
        assert [event["object"].metadata.name for event in events] == names


class TestKubernetesAsyncio:
    """PyPI `kubernetes-asyncio`."""

    @pytest.fixture
    async def api(self, cluster: Cluster) -> AsyncIterator[kubernetes_asyncio.client.ApiClient]:
        configuration = kubernetes_asyncio.client.Configuration()
        await kubernetes_asyncio.config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
        async with kubernetes_asyncio.client.ApiClient(configuration) as api:
            yield api

    async def test_a_watch_sees_what_is_written(
        self, api: kubernetes_asyncio.client.ApiClient, cluster: Cluster
    ) -> None:
        cluster.make_namespace("asyncio-watch")
        core = kubernetes_asyncio.client.CoreV1Api(api)
        listed = await core.list_namespaced_config_map("asyncio-watch", label_selector="mine")

        async def seen() -> list[tuple[str, str]]:
            found: list[tuple[str, str]] = []
            async with AsyncWatch().stream(
                core.list_namespaced_config_map,
                "asyncio-watch",
                label_selector="mine",
                resource_version=listed.metadata.resource_version,
                timeout_seconds=30,
            ) as stream:
                async for event in stream:
                    found.append((event["type"], event["object"].metadata.name))
                    if event["type"] == "DELETED":
                        break
            return found

        async def write() -> None:
            metadata = kubernetes_asyncio.client.V1ObjectMeta(name="a", labels={"mine": "yes"})
            body = kubernetes_asyncio.client.V1ConfigMap(metadata=metadata)
            await core.create_namespaced_config_map("asyncio-watch", body)
            await core.patch_namespaced_config_map("a", "asyncio-watch", {"data": {"k": "v"}})
            await core.delete_namespaced_config_map("a", "asyncio-watch")

        found, _ = await asyncio.gather(seen(), write())
        assert found == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]

    async def test_an_old_version_is_gone(self, api: kubernetes_asyncio.client.ApiClient, cluster: Cluster) -> None:
        core = kubernetes_asyncio.client.CoreV1Api(api)
        with pytest.raises(kubernetes_asyncio.client.ApiException) as refused:
            await core.list_namespaced_config_map("default", resource_version="1", resource_version_match="Exact")
        assert (refused.value.status, refused.value.reason) in ((410, "Gone"), (410, "Expired"))

    async def test_mistakes_become_exceptions(self, api: kubernetes_asyncio.client.ApiClient, cluster: Cluster) -> None:
        core = kubernetes_asyncio.client.CoreV1Api(api)
        with pytest.raises(kubernetes_asyncio.client.ApiException) as absent:
            await core.read_namespaced_pod("none", "default")
        assert absent.value.status == 404
        metadata = kubernetes_asyncio.client.V1ObjectMeta(name="Bad_Name")
        with pytest.raises(kubernetes_asyncio.client.ApiException) as invalid:
            await core.create_namespaced_config_map("default", kubernetes_asyncio.client.V1ConfigMap(metadata=metadata))
        assert invalid.value.status == 422 and "metadata.name" in invalid.value.body


class TestLightkube:
    """PyPI `lightkube`: dataclasses, and no retries to hide behind."""

    @pytest.fixture
    def client(self, cluster: Cluster) -> Client:
        return Client(KubeConfig.from_file(cluster.kubeconfig), field_manager="lightkube")

    def test_objects_live_and_die(self, client: Client, cluster: Cluster) -> None:
        cluster.make_namespace("lightkube-life")
        made = client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="lightkube-life"), data={"k": "v"}))
        assert made.metadata is not None and made.metadata.creationTimestamp is not None
        assert client.get(ConfigMap, "a", namespace="lightkube-life").data == {"k": "v"}
        for patch_type, patch in (
            (PatchType.STRATEGIC, {"data": {"strategic": "1"}}),
            (PatchType.MERGE, {"data": {"merge": "1"}}),
            (PatchType.JSON, [{"op": "remove", "path": "/data/k"}]),
        ):
            client.patch(ConfigMap, "a", patch, namespace="lightkube-life", patch_type=patch_type)
        assert client.get(ConfigMap, "a", namespace="lightkube-life").data == {"strategic": "1", "merge": "1"}
        with pytest.raises(ApiError) as stale:
            client.replace(made)
        assert (stale.value.status.code, stale.value.status.reason) == (409, "Conflict")
        client.delete(ConfigMap, "a", namespace="lightkube-life", cascade=CascadeType.BACKGROUND)
        with pytest.raises(ApiError) as absent:
            client.get(ConfigMap, "a", namespace="lightkube-life")
        assert absent.value.status.reason == "NotFound"

    def test_apply_owns_fields_and_reports_conflicts(self, client: Client, cluster: Cluster) -> None:
        cluster.make_namespace("lightkube-apply")
        wanted = ConfigMap(metadata=ObjectMeta(name="a", namespace="lightkube-apply"), data={"k": "v"})
        client.apply(wanted)
        other = ConfigMap(metadata=ObjectMeta(name="a", namespace="lightkube-apply"), data={"k": "w"})
        with pytest.raises(ApiError, match=r"conflict with \"lightkube\": \.data\.k"):
            client.apply(other, field_manager="other")
        assert client.apply(other, field_manager="other", force=True).data == {"k": "w"}
        with pytest.raises(ApiError) as invalid:
            client.apply(ConfigMap(metadata=ObjectMeta(name="B", namespace="lightkube-apply")))
        assert invalid.value.status.code == 422

    def test_lists_come_in_chunks(self, client: Client, cluster: Cluster) -> None:
        cluster.make_namespace("lightkube-pages")
        for number in range(PAGES):
            client.create(ConfigMap(metadata=ObjectMeta(name=f"n{number}", namespace="lightkube-pages")))
        listed = client.list(ConfigMap, namespace="lightkube-pages", chunk_size=2, fields={"metadata.name!": "n0"})
        names = [item.metadata.name for item in listed if item.metadata is not None]
        assert [name for name in names if name and name[0] == "n"] == [f"n{number}" for number in range(1, PAGES)]
        assert listed.resourceVersion
        assert list(client.list(Event, namespace=ALL_NS)) is not None

    def test_pods_become_ready(self, client: Client, cluster: Cluster) -> None:
        cluster.make_namespace("lightkube-wait")
        labels = {"app": "web"}
        container = Container(name="main", image="localhost/host", command=["sleep", "1h"])
        template = PodTemplateSpec(
            metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=[container], terminationGracePeriodSeconds=0)
        )
        spec = DeploymentSpec(selector=LabelSelector(matchLabels=labels), template=template, replicas=0)
        client.create(Deployment(metadata=ObjectMeta(name="web", namespace="lightkube-wait"), spec=spec))
        scale = Deployment.Scale(
            metadata=ObjectMeta(name="web", namespace="lightkube-wait"), spec=ScaleSpec(replicas=1)
        )
        assert client.replace(scale, "web").spec == ScaleSpec(replicas=1)
        for kind, found in client.watch(Deployment, namespace="lightkube-wait", server_timeout=40):
            assert kind in ("ADDED", "MODIFIED")
            if found.status is not None and found.status.readyReplicas == 1:
                break
        client.wait(Deployment, "web", namespace="lightkube-wait", for_conditions=["Available"])
        assert {node.metadata.name for node in client.list(Node) if node.metadata} == {"n1", "n2", "n3"}

    async def test_the_async_client_watches(self, cluster: Cluster) -> None:
        cluster.make_namespace("lightkube-async")
        client = AsyncClient(KubeConfig.from_file(cluster.kubeconfig))
        try:
            for name, labels in (("a", {}), ("b", {"x": "y"})):
                metadata = ObjectMeta(name=name, namespace="lightkube-async", labels=labels)
                await client.create(ConfigMap(metadata=metadata))
            async for kind, found in client.watch(ConfigMap, namespace="lightkube-async", labels={"x": "y"}):
                assert kind == "ADDED" and found.metadata is not None and found.metadata.name == "b"
                break
            else:
                pytest.fail("the watch ended")
        finally:
            await client.close()


class TestKr8s:
    """PyPI `kr8s`: kubectl's verbs as methods."""

    @pytest.fixture
    async def api(self, cluster: Cluster) -> Any:
        return await kr8s.asyncio.api(kubeconfig=str(cluster.kubeconfig))

    async def test_objects_live_and_die(self, api: Any, cluster: Cluster) -> None:
        cluster.make_namespace("kr8s-life")
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "a", "namespace": "kr8s-life"},
            "data": {"k": "v"},
        }
        config = await Kr8sConfigMap(document, api=api)
        await config.create()
        assert await config.exists()
        await config.patch({"data": {"l": "w"}})
        assert config.data == {"k": "v", "l": "w"}
        await config.patch([{"op": "remove", "path": "/data/k"}], type="json")
        assert config.data == {"l": "w"}
        await config.label({"a": "b"})
        await config.annotate({"c": "d"})
        assert (config.labels, config.annotations) == ({"a": "b"}, {"c": "d"})
        found = [item.name async for item in api.get("configmaps", namespace="kr8s-life", label_selector={"a": "b"})]
        assert found == ["a"]
        await config.delete()
        await config.wait("delete", timeout=20)
        assert not await config.exists()
        with pytest.raises(kr8s.NotFoundError):
            await config.refresh()
        with pytest.raises(kr8s.ServerError) as forbidden:
            await Kr8sConfigMap({**document, "metadata": {"name": "A", "namespace": "kr8s-life"}}, api=api).create()
        assert forbidden.value.response is not None and forbidden.value.response.status_code == 422

    async def test_a_deployment_scales(self, api: Any, cluster: Cluster) -> None:
        cluster.make_namespace("kr8s-scale")
        document = make_deployment("web")
        document["metadata"]["namespace"] = "kr8s-scale"
        deployment = await Kr8sDeployment(document, api=api)
        await deployment.create()
        await deployment.scale(1)
        await deployment.wait("condition=Available", timeout=40)
        # Without replicas it was available, too: its pod may be still to come, and its status follows the pod's.
        async with asyncio.timeout(40):
            while not (pods := await deployment.pods()):
                await asyncio.sleep(0.05)
        (pod,) = pods
        await pod.wait("condition=Ready", timeout=40)
        async with asyncio.timeout(40):
            while not await deployment.ready():
                await asyncio.sleep(0.05)

    async def test_the_server_describes_itself(self, api: Any, cluster: Cluster) -> None:
        assert (await api.version())["minor"] == "36"
        assert {"configmaps", "deployments"} <= {item["name"] for item in await api.api_resources()}
        assert "apps/v1" in [version async for version in api.api_versions()]
        assert await api.whoami() == "kubernetes-admin"
        assert [node.name async for node in api.get("nodes")] == ["n1", "n2", "n3"]
