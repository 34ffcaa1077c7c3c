"""Where the proxy subresources lead, and what of a request goes along."""

from typing import Any

import pytest

from pilotage.api.status import ApiError
from pilotage.apiserver.core.log_options import log_query
from pilotage.apiserver.core.targets import (
    Named,
    Target,
    forwarded_headers,
    is_proxyable,
    node_target,
    parse_response_head,
    pod_target,
    relocated,
    returned_headers,
    service_targets,
    split_name,
)

WEB = Named(scheme="", name="web", port="")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", ("", "web", "")),
        ("web:80", ("", "web", "80")),
        ("web:http", ("", "web", "http")),
        ("https:web:443", ("https", "web", "443")),
        ("https:web:", ("https", "web", "")),
        (":web:80", ("", "web", "80")),
    ],
)
def test_names_are_taken_apart(text: str, expected: tuple[str, str, str]) -> None:
    named = split_name("service", text)
    assert (named.scheme, named.name, named.port) == expected


@pytest.mark.parametrize("text", ["ftp:web:21", "a:b:c:d", ":80", "https::443"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(ApiError, match="invalid service request") as caught:
        split_name("service", text)
    assert caught.value.code == 400


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "0.0.0.0",
        "224.0.0.1",
        "::ffff:127.0.0.1",
        "x",
        "",
    ],
)
def test_the_servers_own_machine_and_link_are_out_of_reach(address: str) -> None:
    assert not is_proxyable(address)
    with pytest.raises(ApiError, match="address not allowed"):
        pod_target({"spec": {}, "status": {"podIP": address}}, WEB)
    with pytest.raises(ApiError, match="address not allowed"):
        node_target(address, 10250, WEB)


def test_a_pods_port_is_the_asked_one_or_the_first_declared_or_the_schemes() -> None:
    pod: dict[str, Any] = {
        "status": {"podIP": "10.244.1.5"},
        "spec": {"containers": [{"name": "a"}, {"ports": [{"containerPort": 8080}]}]},
    }
    assert pod_target(pod, WEB) == Target(scheme="http", host="10.244.1.5", port=8080)
    assert pod_target(pod, split_name("pod", "https:web:9")) == Target(scheme="https", host="10.244.1.5", port=9)
    pod["spec"] = {"containers": [{"name": "a"}]}
    assert (pod_target(pod, WEB).port, pod_target(pod, split_name("pod", "https:web:")).port) == (80, 443)
    for port in ("0", "65536", "http", "-1"):
        with pytest.raises(ApiError, match="invalid port"):
            pod_target(pod, Named(scheme="", name="web", port=port))


def test_a_nodes_agent_is_spoken_to_in_tls_whatever_is_asked() -> None:
    assert node_target("10.89.0.11", 10250, WEB) == (Target(scheme="https", host="10.89.0.11", port=10250), True)
    agent = Named(scheme="http", name="n1", port="10250")
    assert node_target("10.89.0.11", 10250, agent) == (Target(scheme="https", host="10.89.0.11", port=10250), True)
    other = Named(scheme="", name="n1", port="9100")
    assert node_target("10.89.0.11", 10250, other) == (Target(scheme="http", host="10.89.0.11", port=9100), False)


def endpoint(address: str, pod: str, *, ready: bool | None = None) -> dict[str, Any]:
    conditions = {} if ready is None else {"ready": ready}
    return {"addresses": [address], "targetRef": {"kind": "Pod", "name": pod}, "conditions": conditions}


PODS = {name: {"status": {"podIPs": [{"ip": ip}]}} for name, ip in (("a", "10.1.0.1"), ("b", "10.1.0.2"))}
SERVICE = {"spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]}}


def slice_of(*endpoints: dict[str, Any]) -> dict[str, Any]:
    ports = [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "admin", "port": 8081, "protocol": "TCP"}]
    return {"ports": ports, "endpoints": list(endpoints)}


@pytest.mark.parametrize(("port", "expected"), [("80", 8080), ("web", 8080), ("81", 8081), ("admin", 8081)])
def test_a_services_port_is_named_or_numbered(port: str, expected: int) -> None:
    found = service_targets(
        SERVICE, [slice_of(endpoint("10.1.0.1", "a"))], PODS, Named(scheme="", name="web", port=port)
    )
    assert found == [Target(scheme="http", host="10.1.0.1", port=expected)]


def test_only_ready_endpoints_that_are_pods_with_that_address_count() -> None:
    slices = [
        slice_of(
            endpoint("10.1.0.1", "a", ready=False),
            endpoint("10.1.0.2", "a"),  # another pod's address
            endpoint("10.1.0.9", "gone"),
            {"addresses": ["10.0.0.1"]},  # written by hand: no pod at all
            endpoint("10.1.0.2", "b", ready=True),
        )
    ]
    found = service_targets(SERVICE, slices, PODS, Named(scheme="https", name="web", port="web"))
    assert found == [Target(scheme="https", host="10.1.0.2", port=8080)]


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("99", 'no service port 99 found for service "web"'),
        ("other", 'no endpoints available for service "web"'),
        ("", 'no endpoints available for service "web"'),
    ],
)
def test_a_service_that_leads_nowhere_is_unavailable(port: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        service_targets(SERVICE, [slice_of(endpoint("10.1.0.1", "a"))], PODS, Named(scheme="", name="web", port=port))
    assert caught.value.code == 503


def test_credentials_and_the_hops_own_headers_stay_here() -> None:
    given = [
        ("Host", "api"), ("Authorization", "Bearer secret"), ("Impersonate-User", "x"), ("X-Remote-User", "y"),
        ("Connection", "keep-alive, X-Mine"), ("X-Mine", "1"), ("X-Forwarded-For", "forged"), ("TE", "trailers"),
        ("Accept", "text/html"), ("Cookie", "a=b"),
    ]  # fmt: skip
    found = forwarded_headers(given, host="api:6443", prefix="/api/v1/nodes/n1/proxy", client="10.0.0.7")
    assert found == [
        ("Accept", "text/html"), ("Cookie", "a=b"), ("X-Forwarded-For", "10.0.0.7"), ("X-Forwarded-Host", "api:6443"),
        ("X-Forwarded-Proto", "https"), ("X-Forwarded-Uri", "/api/v1/nodes/n1/proxy"),
    ]  # fmt: skip


TARGET = Target(scheme="http", host="10.1.0.1", port=8080)
PREFIX = "/api/v1/namespaces/default/pods/web:8080/proxy"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/login?next=/a#top", f"{PREFIX}/login?next=/a#top"),
        ("http://10.1.0.1:8080/login", f"{PREFIX}/login"),
        ("http://10.1.0.1:8080", f"{PREFIX}/"),
        ("http://example.test/elsewhere", "http://example.test/elsewhere"),
        ("relative/page", "relative/page"),
    ],
)
def test_redirects_stay_inside_the_proxy(location: str, expected: str) -> None:
    assert relocated(location, TARGET, PREFIX) == expected


def test_answers_lose_their_hops_headers_and_cross_origin_leave() -> None:
    given = [("Transfer-Encoding", "chunked"), ("Access-Control-Allow-Origin", "*"), ("Location", "/x"), ("ETag", "1")]
    found = returned_headers(given, target=TARGET, prefix=PREFIX)
    assert found == [("Location", f"{PREFIX}/x"), ("ETag", "1")]


def test_heads_of_answers_are_read_and_nonsense_is_not() -> None:
    status, headers = parse_response_head(b"HTTP/1.1 101 Switching\r\nUpgrade: SPDY/3.1\r\nA: b : c\r\n\r\n")
    assert (status, headers) == (101, [("Upgrade", "SPDY/3.1"), ("A", "b : c")])
    for head in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"\r\n\r\n"):
        with pytest.raises(ValueError, match=r"not an HTTP|malformed"):
            parse_response_head(head)


def test_what_is_asked_of_a_log_is_checked() -> None:
    asked = {
        "follow": "true",
        "tailLines": "0",
        "sinceSeconds": "5",
        "container": "c",
        "pretty": "true",
        "previous": "",
    }
    assert log_query("a", asked) == {"follow": "true", "tailLines": "0", "sinceSeconds": "5"}


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        (
            {"tailLines": "-1"},
            422,
            'PodLogOptions "a" is invalid: tailLines: Invalid value: -1: must be greater than or',
        ),
        ({"limitBytes": "0"}, 422, "limitBytes: Invalid value: 0: must be greater than 0"),
        ({"sinceSeconds": "0"}, 422, "sinceSeconds"),
        ({"sinceSeconds": "1", "sinceTime": "2026-01-01T00:00:00Z"}, 422, "at most one of"),
        ({"tailLines": "many"}, 400, "not a number"),
        ({"tailLines": "9" * 30}, 400, "not a number"),
    ],
)
def test_log_options_that_cannot_be(query: dict[str, str], code: int, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        log_query("a", query)
    assert caught.value.code == code and words in str(caught.value)
