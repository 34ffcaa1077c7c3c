"""Requests through the IR in memory: what a user of Ingress may rely on."""

from typing import Any

import pytest

from pilotage.gateway.core import ir
from pilotage.gateway.core.ingress import Ports, Translation, translate_ingresses
from pilotage.gateway.core.matcher import find_certificate, find_route

CLASS = "{kind: IngressClass, metadata: {name: pilotage}, spec: {controller: pilotage.dev/gateway}}"


def services(*names: str) -> str:
    return "\n---\n".join(
        f"{{kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{name: http, port: 80}}]}}}}" for name in names
    )


def ingress(name: str, *rules: str, spec: str = "", created: str = "2026-01-01T00:00:00Z", **annotations: str) -> str:
    """A rule reads "host Type:/path service"; the host "*" is no host."""
    text = f"""
kind: Ingress
metadata: {{name: {name}, creationTimestamp: "{created}", annotations: {annotations}}}
spec:
  ingressClassName: pilotage
  {spec}
  rules:
"""
    for rule in rules:
        host, path, service = rule.split()
        kind, _, path = path.partition(":")
        backend = f"{{service: {{name: {service}, port: {{number: 80}}}}}}"
        host_field = "" if host == "*" else f"host: '{host}', "
        text += f"  - {{{host_field}http: {{paths: [{{path: '{path}', pathType: {kind}, backend: {backend}}}]}}}}\n"
    return text if rules else text.replace("  rules:\n", "")


def answer(result: Translation, host: str, path: str, *, listener: str = "http") -> str:
    """The Service that gets the request, or the status that is answered."""
    found = next(item for item in result.ir.listeners if item.name == listener)
    route = find_route(found, host, path)
    if route is None:
        return "404"
    match route.action:
        case ir.Forward(cluster=cluster):
            return cluster.split("/")[1]
        case ir.Respond(status=status):
            return str(status)
        case ir.RedirectToHttps(port=port):
            return f"308:{port}"


PATHS = (
    "h Exact:/foo exact-foo",
    "h Prefix:/foo prefix-foo",
    "h Prefix:/foo/ never",  # the same prefix: the first one has it
    "h Prefix:/foo/bar prefix-foo-bar",
    "h Exact:/foo/bar/ exact-foo-bar-slash",
    "h Prefix:/aaa/bbb/ prefix-aaa-bbb",
    "h ImplementationSpecific:/impl impl",
    "h Prefix:/ root",
)


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/foo", "exact-foo"),
        ("/foo/", "prefix-foo"),
        ("/foo/x", "prefix-foo"),
        ("/foobar", "root"),
        ("/FOO", "root"),
        ("/foo/bar", "prefix-foo-bar"),
        ("/foo/bar/", "exact-foo-bar-slash"),
        ("/foo/bar/baz", "prefix-foo-bar"),
        ("/foo/barbaz", "prefix-foo"),
        ("/aaa/bbb", "prefix-aaa-bbb"),
        ("/aaa/bbb/ccc", "prefix-aaa-bbb"),
        ("/aaa/bbbxyz", "root"),
        ("/impl/x", "impl"),
        ("/", "root"),
    ],
)
def test_longest_path_wins_and_exact_before_prefix(read_inputs: Any, path: str, service: str) -> None:
    names = {rule.split()[2] for rule in PATHS}
    inputs = read_inputs(CLASS, services(*names), ingress("paths", *PATHS))
    assert answer(translate_ingresses(inputs, Ports()), "h", path) == service


@pytest.mark.parametrize(
    ("host", "path", "service"),
    [
        ("foo.bar.com", "/", "exact"),
        ("FOO.bar.com:8080", "/", "exact"),
        ("foo.bar.com.", "/", "exact"),
        ("foo.bar.com", "/any", "404"),  # its host was found, so rules without host are not asked
        ("baz.bar.com", "/", "wildcard"),
        ("baz.bar.com", "/any", "404"),
        ("bar.com", "/", "404"),
        ("bar.com", "/any", "anywhere"),
        ("x.baz.bar.com", "/any", "anywhere"),  # a wildcard covers one label
        ("x.deep.bar.com", "/", "deep"),
        ("x.y.deep.bar.com", "/any", "anywhere"),
        ("other.org", "/any", "anywhere"),
    ],
)
def test_exact_host_before_wildcard_before_any(read_inputs: Any, host: str, path: str, service: str) -> None:
    inputs = read_inputs(
        CLASS,
        services("exact", "wildcard", "deep", "anywhere"),
        ingress(
            "hosts",
            "foo.bar.com Exact:/ exact",
            "*.bar.com Exact:/ wildcard",
            "*.deep.bar.com Exact:/ deep",
            "* Prefix:/any anywhere",
        ),
    )
    assert answer(translate_ingresses(inputs, Ports()), host, path) == service


def test_default_backend_takes_what_nobody_else_does(read_inputs: Any) -> None:
    def default(service: str) -> str:
        return f"defaultBackend: {{service: {{name: {service}, port: {{name: http}}}}}}"

    inputs = read_inputs(
        CLASS,
        services("a", "b", "old", "young"),
        ingress("young", "b Prefix:/b b", spec=default("young"), created="2026-02-02T00:00:00Z"),
        ingress("old", spec=default("old"), created="2026-01-01T00:00:00Z"),
        ingress("plain", "a Prefix:/a a", "*.w Prefix:/a a", created="2025-01-01T00:00:00Z"),
    )
    result = translate_ingresses(inputs, Ports())
    assert answer(result, "b", "/b") == "b"
    assert answer(result, "b", "/x") == "young"
    assert answer(result, "a", "/x") == "old"
    assert answer(result, "x.w", "/x") == "old"
    assert answer(result, "elsewhere", "/") == "old"


def test_older_ingress_keeps_a_path_and_the_younger_hears_of_it(read_inputs: Any) -> None:
    inputs = read_inputs(
        CLASS,
        services("a", "b"),
        ingress("young", "h Prefix:/x a", "h Prefix:/y a", created="2026-01-02T00:00:00Z"),
        ingress("old", "h Prefix:/x/ b", created="2026-01-01T00:00:00Z"),
    )
    result = translate_ingresses(inputs, Ports())
    assert answer(result, "h", "/x") == "b"
    assert answer(result, "h", "/y") == "a"
    assert [(item.about.name, item.reason) for item in result.problems] == [("young", "PathConflict")]


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("{service: {name: gone, port: {number: 80}}}", "ServiceNotFound"),
        ("{service: {name: a, port: {number: 81}}}", "ServicePortNotFound"),
        ("{service: {name: a, port: {name: grpc}}}", "ServicePortNotFound"),
        ("{service: {name: alias, port: {number: 80}}}", "UnsupportedBackend"),
        ("{resource: {kind: Bucket, name: b, apiGroup: storage.test}}", "UnsupportedBackend"),
    ],
)
def test_backend_that_cannot_be_reached_is_503_and_reported(read_inputs: Any, backend: str, reason: str) -> None:
    alias = "{kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: x.test}}"
    inputs = read_inputs(CLASS, services("a"), alias, ingress("i", spec=f"defaultBackend: {backend}"))
    result = translate_ingresses(inputs, Ports())
    assert answer(result, "any", "/") == "503"
    assert [(item.about.name, item.reason) for item in result.problems] == [("i", reason)]


@pytest.mark.parametrize("path", ["no-slash", "/a?b=c", "/a#b"])
def test_path_that_no_request_can_have_is_left_out(read_inputs: Any, path: str) -> None:
    inputs = read_inputs(CLASS, services("a"), ingress("i", f"h ImplementationSpecific:{path} a", "h Prefix:/ok a"))
    result = translate_ingresses(inputs, Ports())
    assert [item.reason for item in result.problems] == ["InvalidPath"]
    assert answer(result, "h", "/ok") == "a"


# ── whose ───────────────────────────────────────────────────────────────────────────────────────────────────────────

OTHER = "{kind: IngressClass, metadata: {name: other}, spec: {controller: example.com/other}}"
OUR_DEFAULT = """
kind: IngressClass
metadata:
  name: ours
  creationTimestamp: "2026-01-02T00:00:00Z"
  annotations: {ingressclass.kubernetes.io/is-default-class: "true"}
spec: {controller: pilotage.dev/gateway}
"""
OTHER_DEFAULT = OUR_DEFAULT.replace("ours", "theirs").replace("pilotage.dev/gateway", "example.com/other")


@pytest.mark.parametrize(
    ("classes", "class_name", "annotation", "ours"),
    [
        pytest.param([CLASS], "pilotage", "", True, id="named class of our controller"),
        pytest.param([CLASS, OTHER], "other", "", False, id="named class of another controller"),
        pytest.param([], "pilotage", "", False, id="named class that does not exist"),
        pytest.param([CLASS], "", "", False, id="no class and no default"),
        pytest.param([OUR_DEFAULT], "", "", True, id="no class and ours is the default"),
        pytest.param([OTHER_DEFAULT], "", "", False, id="no class and another is the default"),
        pytest.param(
            [OUR_DEFAULT, OTHER_DEFAULT.replace("01-02", "01-01")], "", "", True, id="of two defaults ours is newer"
        ),
        pytest.param(
            [OUR_DEFAULT, OTHER_DEFAULT.replace("01-02", "01-03")], "", "", False, id="of two defaults ours is older"
        ),
        pytest.param([CLASS], "", "pilotage", True, id="legacy annotation names our class"),
        pytest.param([], "", "pilotage", True, id="legacy annotation names us, no class exists"),
        pytest.param([OUR_DEFAULT], "", "other", False, id="legacy annotation of another beats our default"),
        pytest.param([CLASS, OTHER], "other", "pilotage", False, id="the field beats the annotation"),
    ],
)
def test_which_ingresses_are_ours(
    read_inputs: Any, classes: list[str], class_name: str, annotation: str, ours: bool
) -> None:
    annotations = {"kubernetes.io/ingress.class": annotation} if annotation else {}
    text = ingress("i", "h Prefix:/ a", **annotations)
    text = text.replace("ingressClassName: pilotage", f"ingressClassName: '{class_name}'")
    result = translate_ingresses(read_inputs(*classes, services("a"), text), Ports())
    assert bool(result.ours) is ours
    assert answer(result, "h", "/") == ("a" if ours else "404")


# ── endpoints ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_ready_endpoints_of_the_named_port_are_used_and_each_once(read_inputs: Any) -> None:
    slices = """
kind: EndpointSlice
metadata: {name: a-1, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: other, port: 9090}, {name: http, port: 8080, protocol: UDP}]
endpoints:
- {addresses: [10.0.0.2], conditions: {ready: true}, zone: z2}
- {addresses: [10.0.0.1]}
- {addresses: [10.0.0.3], conditions: {ready: false}}
- {addresses: [10.0.0.4], conditions: {ready: true, terminating: true}}
- {addresses: [10.0.0.5], conditions: {ready: false, serving: true, terminating: true}}
---
kind: EndpointSlice
metadata: {name: a-2, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8081}]
endpoints: [{addresses: [10.0.0.9]}]
---
kind: EndpointSlice
metadata: {name: a-3, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
---
kind: EndpointSlice
metadata: {name: elsewhere, namespace: other, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.66]}]
"""
    result = translate_ingresses(read_inputs(CLASS, services("a"), slices, ingress("i", "h Prefix:/ a")), Ports())
    (cluster,) = result.ir.clusters
    found = [(item.address, item.port, item.zone) for item in cluster.endpoints]
    assert found == [("10.0.0.1", 8080, ""), ("10.0.0.2", 8080, "z2"), ("10.0.0.9", 8081, "")]


@pytest.mark.parametrize(
    ("families", "ready", "expected"),
    [
        pytest.param("[IPv4, IPv6]", ("true", "true"), ["10.0.0.1"], id="the first of two"),
        pytest.param("[IPv6, IPv4]", ("true", "true"), ["fd00::1"], id="the first of two is IPv6"),
        pytest.param("[IPv4, IPv6]", ("false", "true"), ["fd00::1"], id="the first has none"),
        pytest.param("[IPv6]", ("true", "true"), ["fd00::1"], id="the one there is"),
        pytest.param("[IPv4]", ("false", "false"), [], id="none at all"),
    ],
)
def test_a_pod_with_two_addresses_is_one_endpoint(
    read_inputs: Any, families: str, ready: tuple[str, str], expected: list[str]
) -> None:
    service = f"""
kind: Service
metadata: {{name: a}}
spec: {{ipFamilies: {families}, ports: [{{name: http, port: 80}}]}}
"""
    slices = [
        f"""
kind: EndpointSlice
metadata: {{name: a-{family}, labels: {{kubernetes.io/service-name: a}}}}
addressType: {family}
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: ["{address}"], conditions: {{ready: {condition}}}}}]
"""
        for family, address, condition in zip(("IPv4", "IPv6"), ("10.0.0.1", "fd00::1"), ready, strict=True)
    ]
    result = translate_ingresses(read_inputs(CLASS, service, *slices, ingress("i", "h Prefix:/ a")), Ports())
    (cluster,) = result.ir.clusters
    assert [item.address for item in cluster.endpoints] == expected


@pytest.mark.parametrize(
    ("app_protocol", "protocol"),
    [
        ("kubernetes.io/h2c", ir.Protocol.H2C),
        ("grpc", ir.Protocol.H2C),
        ("http", ir.Protocol.HTTP1),
        ("", ir.Protocol.HTTP1),
    ],
)
def test_app_protocol_chooses_what_is_spoken_to_endpoints(
    read_inputs: Any, app_protocol: str, protocol: ir.Protocol
) -> None:
    service = services("a").replace("port: 80", f"port: 80, appProtocol: '{app_protocol}'")
    result = translate_ingresses(read_inputs(CLASS, service, ingress("i", "h Prefix:/ a")), Ports())
    assert [cluster.protocol for cluster in result.ir.clusters] == [protocol]


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_certificate_by_server_name(read_inputs: Any, tls_secret: Any) -> None:
    spec = "tls: [{secretName: one, hosts: [one.test]}, {secretName: wild, hosts: ['*.test']}]"
    fallback = ingress("fallback", "h Prefix:/ a", spec="tls: [{secretName: rest}]")
    inputs = read_inputs(
        CLASS,
        services("a"),
        ingress("i", "one.test Prefix:/ a", spec=spec),
        *(tls_secret(name) for name in ("one", "wild", "rest")),
    )
    https = translate_ingresses(inputs, Ports()).ir.listeners[1]
    assert find_certificate(https, "one.test") == "default/one"
    assert find_certificate(https, "two.test") == "default/wild"
    assert find_certificate(https, "elsewhere") is None
    inputs = read_inputs(CLASS, services("a"), fallback, ingress("i", spec=spec), *map(tls_secret, ("one", "rest")))
    https = translate_ingresses(inputs, Ports()).ir.listeners[1]
    assert find_certificate(https, "one.test") == "default/one"
    assert find_certificate(https, "two.test") == "default/rest"
    assert find_certificate(https, "") == "default/rest"


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"type": "Opaque"}, "TLSSecretNotFound", "none of type"),
        ({"data": {}}, "TLSSecretInvalid", "tls.crt is missing"),
        ({"tls.key": "eA=="}, "TLSSecretInvalid", "no unencrypted PEM private key"),
        ({"tls.crt": "eA=="}, "TLSSecretInvalid", "no PEM certificate"),
        ({"tls.crt": "!"}, "TLSSecretInvalid", "not base64"),
        ({"tls.key": "another"}, "TLSSecretInvalid", "does not belong"),
    ],
)
def test_bad_secret_is_reported_and_the_others_work(
    read_inputs: Any, tls_secret: Any, change: dict[str, Any], reason: str, message: str
) -> None:
    spec = "tls: [{secretName: good, hosts: [good]}, {secretName: bad, hosts: [bad]}]"
    inputs = read_inputs(
        CLASS, services("a"), ingress("i", "bad Prefix:/ a", spec=spec), tls_secret("good"), tls_secret("bad", **change)
    )
    result = translate_ingresses(inputs, Ports())
    assert [problem.reason for problem in result.problems] == [reason]
    assert message in result.problems[0].message
    https = result.ir.listeners[1]
    assert find_certificate(https, "good") == "default/good"
    assert find_certificate(https, "bad") is None
    assert answer(result, "bad", "/") == "a"


def test_redirect_only_where_asked_for_and_covered_by_tls(read_inputs: Any, tls_secret: Any) -> None:
    asks = {"pilotage.dev/ssl-redirect": "true"}
    inputs = read_inputs(
        CLASS,
        services("a"),
        ingress("asks", "tls Prefix:/ a", "plain Prefix:/ a", spec="tls: [{secretName: s, hosts: [tls]}]", **asks),
        ingress("does-not", "both Prefix:/ a", spec="tls: [{secretName: s, hosts: [both]}]"),
        tls_secret("s"),
    )
    result = translate_ingresses(inputs, Ports(redirect=8443))
    assert answer(result, "tls", "/") == "308:8443"
    assert answer(result, "tls", "/", listener="https") == "a"
    assert answer(result, "plain", "/") == "a"
    assert answer(result, "both", "/") == "a"


def test_tls_host_belongs_to_the_older_ingress(read_inputs: Any, tls_secret: Any) -> None:
    inputs = read_inputs(
        CLASS,
        ingress("young", spec="tls: [{secretName: y, hosts: [h]}]", created="2026-01-02T00:00:00Z"),
        ingress("old", spec="tls: [{secretName: o, hosts: [h]}]", created="2026-01-01T00:00:00Z"),
        tls_secret("y"),
        tls_secret("o"),
    )
    result = translate_ingresses(inputs, Ports())
    assert find_certificate(result.ir.listeners[1], "h") == "default/o"
    assert [(item.about.name, item.reason) for item in result.problems] == [("young", "TLSHostConflict")]
    assert [item.name for item in result.ir.certificates] == ["default/o"]


def test_no_key_in_any_text(read_inputs: Any, tls_secret: Any) -> None:
    from pilotage.gateway.core.translate import Options, translate

    inputs = read_inputs(CLASS, ingress("i", spec="tls: [{secretName: s}]"), tls_secret("s"))
    result = translate_ingresses(inputs, Ports())
    text = repr(result.ir) + repr(translate(result.ir, Options()))
    assert "default/s" in text
    assert "PRIVATE" not in text
    assert len(text) < 5000


def test_order_of_objects_does_not_matter(read_inputs: Any) -> None:
    documents = [
        CLASS,
        services("a", "b"),
        ingress("one", "h Prefix:/x a", "*.h Exact:/x a"),
        ingress("two", "h Prefix:/x b", "g Prefix:/ b"),
    ]
    forwards = translate_ingresses(read_inputs(*documents), Ports())
    backwards = translate_ingresses(read_inputs(*reversed(documents)), Ports())
    assert forwards == backwards
