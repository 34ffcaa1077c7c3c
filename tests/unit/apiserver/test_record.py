"""The stored form: spliced, never confused by what users write."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pilotage.apiserver.core.record import Record, encode, with_revision

text = st.text(max_size=30) | st.sampled_from(['"metadata":{"resourceVersion":"', '","resourceVersion":""', "\\", '"'])
documents = st.fixed_dictionaries(
    {
        "spec": st.dictionaries(text, text, max_size=3),
        "kind": st.just("ConfigMap"),
        "metadata": st.fixed_dictionaries(
            {"name": text, "labels": st.dictionaries(text, text, max_size=3)}, optional={"resourceVersion": text}
        ),
        "apiVersion": st.just("v1"),
    }
)


@given(documents, st.integers(min_value=1, max_value=2**62))
def test_the_revision_goes_into_the_object_and_nowhere_else(document: dict, revision: int) -> None:  # type: ignore[type-arg]
    data = with_revision(encode(document), revision)
    decoded = msgspec.json.decode(data)
    assert decoded["metadata"].pop("resourceVersion") == str(revision)
    expected = {**document, "metadata": {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}}
    assert decoded == expected


def test_keys_split_into_namespace_and_name() -> None:
    stored = encode({"apiVersion": "v1", "kind": "X", "metadata": {"name": "n", "labels": {"a": "b"}}})
    record = Record.from_stored("ns/n", stored, 4)
    assert (record.namespace, record.name, record.labels) == ("ns", "n", {"a": "b"})
    assert Record.from_stored("n", stored, 4).namespace == ""


def test_a_deleted_object_keeps_its_state_at_a_new_revision() -> None:
    stored = encode({"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": {"a": 1}})
    record = Record.from_stored("n", stored, 4)
    gone = record.at(9)
    assert gone.document == {**record.document, "metadata": {"name": "n", "resourceVersion": "9"}}
    assert record.document["metadata"]["resourceVersion"] == "4"


def test_a_copy_is_private() -> None:
    record = Record.from_stored("n", encode({"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}}), 1)
    copy = record.copy()
    copy["metadata"]["name"] = "changed"
    assert record.document["metadata"]["name"] == "n"
