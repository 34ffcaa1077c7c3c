"""What a container finds: variables, resolver, hosts, fields of its pod, files of its volumes."""

import pytest

from pilotage.agent.core import fields, payload, resolver
from pilotage.agent.core.environment import expand, service_variables
from pilotage.agent.core.fields import FieldError, NodeFacts
from pilotage.agent.core.payload import File, PayloadError
from pilotage.agent.core.resolver import ResolvConf
from pilotage.api.codec import convert
from pilotage.api.core_v1 import ConfigMap, KeyToPath, ObjectFieldSelector, ResourceFieldSelector, Secret, Service

from .builders import make_pod

NODE = NodeFacts(name="n1", ip="10.89.0.11", allocatable={"cpu": "2", "memory": "4Gi"}, further_ips=("fd00:89::11",))


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x-$(A)-$(B)-y", "x-1-2-y"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("$$", "$"),
        ("$()", "$()"),
        ("$(A)$$(B)$(B)", "1$(B)2"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


def service(name: str, namespace: str, ip: str, *ports: dict[str, object]) -> Service:
    return convert(
        Service, {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": list(ports)}}
    )


def test_service_variables_have_both_families_of_names() -> None:
    web = service(
        "my-web", "ns", "10.96.1.1", {"port": 80, "name": "http"}, {"port": 53, "name": "dns", "protocol": "UDP"}
    )
    assert service_variables([web], "ns", links=True) == {
        "MY_WEB_SERVICE_HOST": "10.96.1.1",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP": "80",
        "MY_WEB_SERVICE_PORT_DNS": "53",
        "MY_WEB_PORT": "tcp://10.96.1.1:80",
        "MY_WEB_PORT_80_TCP": "tcp://10.96.1.1:80",
        "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80",
        "MY_WEB_PORT_80_TCP_ADDR": "10.96.1.1",
        "MY_WEB_PORT_53_UDP": "udp://10.96.1.1:53",
        "MY_WEB_PORT_53_UDP_PROTO": "udp",
        "MY_WEB_PORT_53_UDP_PORT": "53",
        "MY_WEB_PORT_53_UDP_ADDR": "10.96.1.1",
    }


def test_only_the_own_namespace_and_kubernetes_are_named_and_headless_never() -> None:
    port = {"port": 443}
    all_ = [
        service("kubernetes", "default", "10.96.0.1", port),
        service("mine", "ns", "10.96.0.2", port),
        service("theirs", "other", "10.96.0.3", port),
        service("headless", "ns", "None", port),
        service("pending", "ns", "", port),
    ]
    hosts = {key for key in service_variables(all_, "ns", links=True) if key.endswith("_SERVICE_HOST")}
    assert hosts == {"KUBERNETES_SERVICE_HOST", "MINE_SERVICE_HOST"}
    hosts = {key for key in service_variables(all_, "ns", links=False) if key.endswith("_SERVICE_HOST")}
    assert hosts == {"KUBERNETES_SERVICE_HOST"}


def resolve(**spec: object) -> str:
    node = ResolvConf(nameservers=("9.9.9.9",), searches=("corp.example",))
    pod = make_pod("a", **spec)
    return resolver.resolv_conf(pod, cluster_dns=("10.96.0.10",), cluster_domain="cluster.local", node=node).render()


def test_cluster_first_searches_the_cluster_then_the_nodes_domains() -> None:
    assert resolve() == (
        "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
        "nameserver 10.96.0.10\n"
        "options ndots:5\n"
    )


@pytest.mark.parametrize("spec", [{"dnsPolicy": "Default"}, {"hostNetwork": True}], ids=["Default", "host network"])
def test_default_is_the_nodes_own(spec: dict[str, object]) -> None:
    assert resolve(**spec) == "search corp.example\nnameserver 9.9.9.9\n"


def test_host_network_may_still_ask_for_the_cluster() -> None:
    assert "nameserver 10.96.0.10\n" in resolve(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")


def test_dns_config_is_merged_and_bounded() -> None:
    config = {
        "nameservers": ["1.1.1.1", "1.1.1.1", "2.2.2.2", "3.3.3.3"],
        "searches": [f"s{index}.example" for index in range(40)],
        "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}],
    }
    assert resolve(dnsPolicy="None", dnsConfig=config) == (
        "search " + " ".join(f"s{index}.example" for index in range(32)) + "\n"
        "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\n"
        "options ndots:1 edns0\n"
    )
    merged = resolve(dnsConfig={"options": [{"name": "ndots", "value": "2"}], "nameservers": ["1.1.1.1"]})
    assert "options ndots:2\n" in merged
    assert "nameserver 10.96.0.10\nnameserver 1.1.1.1\n" in merged
    long = resolve(dnsPolicy="None", dnsConfig={"searches": [f"{'x' * 200}.s{index}" for index in range(20)]})
    assert len(long.splitlines()[0].removeprefix("search ")) <= 2048


def test_what_is_cut_off_is_told() -> None:
    many = ResolvConf(nameservers=("1", "2", "3", "4"), searches=tuple(f"s{index}" for index in range(33)))
    applied = resolver.bounded(many)
    searches, nameservers = resolver.omissions(many, applied)
    assert searches == (
        "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
        + " ".join(f"s{index}" for index in range(32))
    )
    assert nameservers == (
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1 2 3"
    )
    assert resolver.omissions(applied, applied) == ()


def test_a_host_name_may_override_all_others_inside_the_pod() -> None:
    pod = make_pod("a", hostname="web", subdomain="db", hostnameOverride="db.example.test")
    assert resolver.kernel_hostname(pod, "cluster.local") == "db.example.test"
    assert "10.0.0.2\tdb.example.test\n" in resolver.hosts(pod, pod_ips=("10.0.0.2",), cluster_domain="cluster.local")


def test_resolv_conf_is_read_as_the_c_library_does() -> None:
    text = (
        "# c\ndomain a.example\nsearch b.example c.example\nnameserver 1.1.1.1 # x\n\n"
        "options ndots:2 rotate\n;nameserver 9\n"
    )
    assert resolver.parse_resolv_conf(text) == ResolvConf(
        nameservers=("1.1.1.1",), searches=("b.example", "c.example"), options=("ndots:2", "rotate")
    )


def test_hosts_names_the_pod_its_domain_and_its_aliases() -> None:
    pod = make_pod("a", hostname="db-0", subdomain="db", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["x", "y"]}])
    text = resolver.hosts(pod, pod_ips=("10.0.0.2",), cluster_domain="cluster.local")
    assert "10.0.0.2\tdb-0.db.ns.svc.cluster.local\tdb-0\n" in text
    assert text.endswith("1.2.3.4\tx\ty\n")
    assert resolver.kernel_hostname(pod, "cluster.local") == "db-0"
    fqdn = make_pod("a", hostname="db-0", subdomain="db", setHostnameAsFQDN=True)
    assert resolver.kernel_hostname(fqdn, "cluster.local") == "db-0.db.ns.svc.cluster.local"


def test_long_pod_names_are_cut_to_a_label() -> None:
    pod = make_pod("a", metadata={"name": "x" * 62 + "-" + "y" * 10})
    assert resolver.hostname(pod) == "x" * 62


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['a/b']", 'q"'),
        ("metadata.labels", 'app="web"\nz="2"'),
        ("metadata.annotations", 'a/b="q\\""'),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIPs", "10.89.0.11,fd00:89::11"),
        ("status.hostIP", "10.89.0.11"),
        ("status.podIP", "10.0.0.2"),
        ("status.podIPs", "10.0.0.2,fd00::2"),
    ],
)
def test_fields(path: str, value: str) -> None:
    pod = make_pod(
        "a",
        serviceAccountName="sa",
        metadata={"labels": {"z": "2", "app": "web"}, "annotations": {"a/b": 'q"'}},
    )
    selector = ObjectFieldSelector(field_path=path)
    assert fields.resolve(pod, selector, node=NODE, pod_ips=("10.0.0.2", "fd00::2")) == value


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(FieldError, match=r"spec\.hostname"):
        fields.resolve(make_pod("a"), ObjectFieldSelector(field_path="spec.hostname"), node=NODE, pod_ips=())


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", "", "1"),
        ("limits.cpu", "1m", "500"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", "1Mi", "64"),
        ("limits.memory", "", "67108864"),
        ("requests.memory", "1Mi", "64"),
        ("limits.ephemeral-storage", "", "0"),
    ],
)
def test_resources_are_divided_and_rounded_up(resource: str, divisor: str, value: str) -> None:
    resources = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}
    pod = make_pod({"name": "a", "resources": resources})
    selector = ResourceFieldSelector(resource=resource, divisor=divisor)
    assert fields.resolve_resource(pod, selector, container="a", node=NODE) == value


def test_a_missing_limit_is_what_the_node_allows() -> None:
    selector = ResourceFieldSelector(resource="limits.memory", divisor="1Gi")
    assert fields.resolve_resource(make_pod("a"), selector, container="a", node=NODE) == "4"


def test_payload_of_all_keys_or_chosen_ones() -> None:
    data = payload.config_map_data(
        convert(ConfigMap, {"metadata": {}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "/w=="}})
    )
    assert data == {"a": b"1", "b": b"2", "c": b"\xff"}
    everything = payload.from_keys(data, (), default_mode=0o644, optional=False, source="configmap")
    assert set(everything) == {"a", "b", "c"}
    items = (KeyToPath(key="a", path="x/y", mode=0o400), KeyToPath(key="b", path="z"))
    assert payload.from_keys(data, items, default_mode=0o644, optional=False, source="configmap") == {
        "x/y": File(content=b"1", mode=0o400),
        "z": File(content=b"2", mode=0o644),
    }
    missing = (KeyToPath(key="none", path="n"),)
    assert payload.from_keys(data, missing, default_mode=0o644, optional=True, source="configmap") == {}
    with pytest.raises(PayloadError, match="configmap references non-existent config key: none"):
        payload.from_keys(data, missing, default_mode=0o644, optional=False, source="configmap")
    secret = convert(Secret, {"metadata": {}, "data": {"k": "aHVzaA=="}})
    assert payload.secret_data(secret) == {"k": b"hush"}


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../x", "a/../../x", "..data"])
def test_paths_stay_inside_the_volume(path: str) -> None:
    with pytest.raises(PayloadError):
        payload.safe_path(path)
