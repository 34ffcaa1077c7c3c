"""The older Endpoints object: one a Service, cut at a thousand addresses, ready ones first."""

from typing import Any

import pytest
from tests.unit.controllers.conftest import make_pod

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Endpoints, Pod, Service
from pilotage.controllers.endpoints.core import (
    ADDRESSES_MAX,
    OVER_CAPACITY,
    correction,
    document,
    is_ours,
    only_adds,
    subsets,
)

TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
THEN, NOW = "2026-03-01T12:00:00.000000Z", "2026-03-01T12:00:01.000000Z"


def service(**spec: Any) -> Service:
    body = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec}
    return convert(
        Service, {"metadata": {"name": "web", "namespace": "default", "labels": {"team": "shop"}}, "spec": body}
    )


def a(number: int, *, ready: bool = True, **wish: Any) -> Pod:
    ip = f"10.244.{number // 250}.{number % 250 + 1}"
    return make_pod(f"p{number:04}", ip=ip, ready_for_s=1 if ready else None, node="n1", **wish)


def shown(svc: Service, pods: list[Pod]) -> list[tuple[list[str], list[str]]]:
    """Ready and waiting addresses, subset by subset."""
    found, _ = subsets(svc, pods)
    return [([item.ip for item in s.addresses], [item.ip for item in s.not_ready_addresses]) for s in found]


def stored(svc: Service, pods: list[Pod], trigger: str = THEN) -> Endpoints:
    return convert(Endpoints, document(svc, *subsets(svc, pods), trigger))


CASES = [
    pytest.param({}, [a(0), a(1, ready=False)], [(["10.244.0.1"], ["10.244.0.2"])], id="ready and waiting"),
    pytest.param({}, [a(0), a(1, deleting=True)], [(["10.244.0.1"], [])], id="none that is on its way out"),
    pytest.param(
        {"publishNotReadyAddresses": True},
        [a(0, ready=False), a(1, deleting=True)],
        [(["10.244.0.1", "10.244.0.2"], [])],
        id="all of them, if not ready ones are published",
    ),
    pytest.param({}, [a(0, phase="Failed")], [], id="none that has ended"),
    pytest.param({"ports": [{"port": 80, "targetPort": "web"}]}, [a(0)], [], id="none that lacks the named port"),
    pytest.param({"ipFamilies": ["IPv6", "IPv4"]}, [a(0)], [], id="the primary family alone"),
]


@pytest.mark.parametrize(("spec", "pods", "expected"), CASES)
def test_addresses(spec: dict[str, Any], pods: list[Pod], expected: Any) -> None:
    assert shown(service(**spec), pods) == expected


def test_a_thousand_addresses_and_no_more_ready_ones_first_and_it_says_so() -> None:
    pods = [a(number, ready=number >= 100) for number in range(1050)]
    ((ready, waiting),) = shown(service(), pods)
    assert (len(ready), len(waiting)) == (950, 50)
    ((ready, waiting),) = shown(service(), [a(number) for number in range(1050)])
    assert (len(ready), len(waiting)) == (ADDRESSES_MAX, 0)
    crowded = stored(service(), pods)
    assert crowded.metadata.annotations[OVER_CAPACITY] == "truncated"
    fewer = correction(service(), crowded, *subsets(service(), pods[:ADDRESSES_MAX]), NOW)
    assert fewer["metadata"]["annotations"][OVER_CAPACITY] is None


def test_the_trigger_time_is_that_of_the_last_change_of_addresses() -> None:
    before = stored(service(), [a(0)])
    assert before.metadata.annotations == {TRIGGER_TIME: THEN}
    assert correction(service(), before, *subsets(service(), [a(0)]), NOW) == {}
    changed = correction(service(), before, *subsets(service(), [a(0), a(1)]), NOW)
    assert changed["metadata"]["annotations"][TRIGGER_TIME] == NOW
    headless = correction(service(clusterIP="None"), before, *subsets(service(), [a(0)]), NOW)
    assert headless["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert TRIGGER_TIME not in headless["metadata"]["annotations"]


def test_only_what_it_made_goes_with_the_service() -> None:
    assert is_ours(stored(service(), []))
    assert not is_ours(convert(Endpoints, {"metadata": {"name": "web", "labels": {"team": "shop"}}}))


WAITS = [
    pytest.param([a(0), a(1), a(2)], True, id="one more"),
    pytest.param([a(0), a(1, ready=False)], False, id="one not ready any more"),
    pytest.param([a(0)], False, id="one gone"),
]


@pytest.mark.parametrize(("pods", "expected"), WAITS)
def test_what_only_adds_may_wait(pods: list[Pod], expected: bool) -> None:
    assert only_adds(stored(service(), [a(0), a(1)]), subsets(service(), pods)[0]) is expected
    other = service(ports=[{"name": "http", "port": 80, "targetPort": 9090}])
    assert not only_adds(stored(service(), [a(0), a(1)]), subsets(other, pods)[0])
