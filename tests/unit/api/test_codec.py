from collections.abc import Iterator
from typing import get_args, get_type_hints

import pytest

from pilotage.api import apps_v1, batch_v1, coordination_v1, core_v1, discovery_v1, networking_v1, policy_v1
from pilotage.api.catalogue import by_api_version
from pilotage.api.codec import Value, decode, dump_yaml, encode, load_yaml, to_wire, wire_name
from pilotage.api.core_v1 import Pod, PodIP, PodStatus
from pilotage.api.discovery_v1 import EndpointPort, EndpointSlice
from pilotage.api.meta_v1 import Object, ObjectMeta
from pilotage.api.schema import Schema, schema_of


@pytest.mark.parametrize(
    ("python", "wire"),
    [
        ("name", "name"),
        ("cluster_ips", "clusterIPs"),
        ("pod_cidr", "podCIDR"),
        ("external_traffic_policy", "externalTrafficPolicy"),
        ("host_pid", "hostPID"),
        ("provider_id", "providerID"),
        ("set_hostname_as_fqdn", "setHostnameAsFQDN"),
        ("ip_mode", "ipMode"),
        ("client_ip", "clientIP"),
        ("preferred_during_scheduling_ignored_during_execution", "preferredDuringSchedulingIgnoredDuringExecution"),
    ],
)
def test_names_cross_the_wire(python: str, wire: str) -> None:
    assert wire_name(python) == wire


def test_an_object_states_its_kind_and_leaves_empty_values_out() -> None:
    pod = Pod(metadata=ObjectMeta(name="a"))
    assert to_wire(pod) == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}


def test_a_default_that_says_something_is_written() -> None:
    wire = to_wire(EndpointSlice(ports=(EndpointPort(name="http", port=80),)))
    assert (wire["addressType"], wire["ports"]) == ("IPv4", ({"name": "http", "port": 80, "protocol": "TCP"},))


def test_a_round_trip_keeps_everything() -> None:
    pod = Pod(
        metadata=ObjectMeta(name="a", namespace="b", labels={"k": "v"}),
        status=PodStatus(pod_ips=(PodIP(ip="10.0.0.1"),), phase="Running"),
    )
    assert decode(Pod, encode(pod)) == pod


def test_null_collections_of_go_programs_are_read_as_empty() -> None:
    data = b'{"kind":"EndpointSlice","endpoints":null,"ports":null,"metadata":{"name":"a","labels":null}}'
    assert decode(EndpointSlice, data) == EndpointSlice(metadata=ObjectMeta(name="a"))


def test_yaml_times_stay_text_as_in_json() -> None:
    [document] = load_yaml("at: 2026-01-01T00:00:00Z\n---\n")
    assert document == {"at": "2026-01-01T00:00:00Z"}


def test_yaml_round_trips_several_documents() -> None:
    documents = [{"b": 1, "a": [2]}, {"c": None}]
    assert load_yaml(dump_yaml(documents)) == documents


MODULES = (apps_v1, batch_v1, coordination_v1, core_v1, discovery_v1, networking_v1, policy_v1)
TYPES = sorted(
    {
        member
        for module in MODULES
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Value) and member.__module__ == module.__name__
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if issubclass(kind, Object)], ids=lambda kind: kind.__name__)
def test_every_typed_field_exists_in_the_official_schema(kind: type[Object]) -> None:
    resource = by_api_version(kind.api_version, kind.kind)
    assert resource is not None
    assert (resource.plural, resource.namespaced) == (kind.plural, kind.namespaced)
    assert list(unknown_fields(kind, schema_of(resource.schema), kind.__name__, set())) == []


def unknown_fields(kind: type[Value], schema: Schema, path: str, seen: set[type[Value]]) -> Iterator[str]:
    seen.add(kind)
    hints = get_type_hints(kind)
    for name, wire in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        child = schema.properties.get(wire)
        if child is None:
            yield f"{path}.{wire}"
            continue
        child = child.items or child
        for part in value_types(hints[name]):
            if part not in seen and child.kind == "object":
                yield from unknown_fields(part, child, f"{path}.{wire}", seen)


def value_types(hint: object) -> Iterator[type[Value]]:
    if isinstance(hint, type) and issubclass(hint, Value):
        yield hint
    for argument in get_args(hint):
        yield from value_types(argument)
