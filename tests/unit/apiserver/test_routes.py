"""Paths and methods to what they ask for."""

import pytest

from pilotage.apiserver.core.routes import Route, route


def asked(verb: str, group: str, plural: str, namespace: str = "", name: str = "", subresource: str = "") -> Route:
    version = "v1"
    return Route(
        path="",
        verb=verb,
        resource_request=True,
        group=group,
        version=version,
        plural=plural,
        namespace=namespace,
        name=name,
        subresource=subresource,
    )


@pytest.mark.parametrize(
    ("method", "path", "watch", "expected"),
    [
        ("GET", "/api/v1/pods", False, asked("list", "", "pods")),
        ("GET", "/api/v1/pods", True, asked("watch", "", "pods")),
        ("GET", "/api/v1/namespaces/a/pods", False, asked("list", "", "pods", "a")),
        ("GET", "/api/v1/namespaces/a/pods/", False, asked("list", "", "pods", "a")),
        ("GET", "/api/v1/namespaces/a/pods/p", False, asked("get", "", "pods", "a", "p")),
        ("HEAD", "/api/v1/namespaces/a/pods/p", False, asked("get", "", "pods", "a", "p")),
        ("POST", "/api/v1/namespaces/a/pods", False, asked("create", "", "pods", "a")),
        ("PUT", "/api/v1/namespaces/a/pods/p", False, asked("update", "", "pods", "a", "p")),
        ("PATCH", "/api/v1/namespaces/a/pods/p/status", False, asked("patch", "", "pods", "a", "p", "status")),
        ("DELETE", "/api/v1/namespaces/a/pods/p", False, asked("delete", "", "pods", "a", "p")),
        ("DELETE", "/api/v1/namespaces/a/pods", False, asked("deletecollection", "", "pods", "a")),
        ("POST", "/api/v1/namespaces/a/pods/p/exec", False, asked("create", "", "pods", "a", "p", "exec")),
        ("GET", "/apis/apps/v1/deployments", False, asked("list", "apps", "deployments")),
        (
            "GET",
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            False,
            asked("get", "apps", "deployments", "a", "d", "scale"),
        ),
        ("GET", "/api/v1/namespaces", False, asked("list", "", "namespaces")),
        ("GET", "/api/v1/namespaces/a", False, asked("get", "", "namespaces", "a", "a")),
        ("PUT", "/api/v1/namespaces/a/status", False, asked("update", "", "namespaces", "a", "a", "status")),
        ("PUT", "/api/v1/namespaces/a/finalize", False, asked("update", "", "namespaces", "a", "a", "finalize")),
        ("GET", "/api/v1/watch/namespaces/a/pods", False, asked("watch", "", "pods", "a")),
        ("GET", "/api/v1/nodes/n1", False, asked("get", "", "nodes", "", "n1")),
        ("TRACE", "/api/v1/nodes", False, asked("", "", "nodes")),
    ],
)
def test_resource_paths(method: str, path: str, watch: bool, expected: Route) -> None:
    found = route(method, path, watch=watch)
    fields = ("verb", "resource_request", "group", "version", "plural", "namespace", "name", "subresource")
    assert {f: getattr(found, f) for f in fields} == {f: getattr(expected, f) for f in fields}


@pytest.mark.parametrize("path", ["/", "", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version", "//"])
def test_paths_that_are_no_resource(path: str) -> None:
    found = route("GET", path)
    assert (found.resource_request, found.verb, found.path) == (False, "get", path)
