"""What clients accept and send."""

import pytest

from pilotage.apiserver.core.negotiation import BodyType, Form, Representation, body_type, representation

KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param("", Representation(Form.OBJECT), id="nothing said"),
        pytest.param("*/*", Representation(Form.OBJECT), id="anything"),
        pytest.param("application/json", Representation(Form.OBJECT), id="JSON"),
        pytest.param("application/json; charset=utf-8", Representation(Form.OBJECT), id="JSON with a parameter"),
        pytest.param(KUBECTL, Representation(Form.TABLE, "v1"), id="kubectl get"),
        pytest.param(
            "application/vnd.kubernetes.protobuf,application/json",
            Representation(Form.OBJECT),
            id="protobuf, else JSON",
        ),
        pytest.param("application/vnd.kubernetes.protobuf", None, id="protobuf only"),
        pytest.param(
            "application/json;as=Thing;v=v1;g=meta.k8s.io,application/json",
            Representation(Form.OBJECT),
            id="an unknown form, else plain",
        ),
        pytest.param("application/json;as=Thing;v=v1;g=meta.k8s.io", None, id="an unknown form only"),
        pytest.param(
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            Representation(Form.PARTIAL, "v1"),
            id="partial",
        ),
        pytest.param(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Representation(Form.DISCOVERY, "v2"),
            id="aggregated discovery",
        ),
        pytest.param("text/html", None, id="a page"),
    ],
)
def test_accept(accept: str, expected: Representation | None) -> None:
    assert representation(accept) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", BodyType.JSON),
        ("application/json", BodyType.JSON),
        ("Application/JSON; charset=utf-8", BodyType.JSON),
        ("application/yaml", BodyType.YAML),
        ("application/apply-patch+yaml", BodyType.APPLY),
        ("application/merge-patch+json", BodyType.MERGE_PATCH),
        ("text/csv", None),
    ],
)
def test_content_type(header: str, expected: BodyType | None) -> None:
    assert body_type(header) == expected
