"""The rule book: which writes hold, and what they become."""

import pytest

from pilotage.storage import ConflictError, KeyValue, Operation
from pilotage.storage.ledger import Ledger


def put(key: str, expected: int | None) -> Operation:
    return Operation(key=key, value=b"v", expected=expected)


def delete(key: str, expected: int | None) -> Operation:
    return Operation(key=key, value=None, expected=expected)


def ledger() -> Ledger:
    """One key, "/a", at revision 5, in a store at revision 9."""
    return Ledger(9, [KeyValue(key="/a", value=b"", create_revision=3, mod_revision=5, version=2)])


@pytest.mark.parametrize(
    ("operation", "created", "version"),
    [
        pytest.param(put("/b", 0), 10, 1, id="creating an absent key"),
        pytest.param(put("/a", 5), 3, 3, id="updating at the expected revision"),
        pytest.param(put("/a", None), 3, 3, id="updating whatever is there"),
        pytest.param(put("/b", None), 10, 1, id="putting whatever is there, which is nothing"),
        pytest.param(delete("/a", 5), 3, 3, id="deleting at the expected revision"),
        pytest.param(delete("/a", None), 3, 3, id="deleting whatever is there"),
    ],
)
def test_writes_that_hold(operation: Operation, created: int, version: int) -> None:
    (event,) = ledger().accept([operation])
    assert (event.mod_revision, event.create_revision, event.version) == (10, created, version)


@pytest.mark.parametrize(
    ("operation", "actual"),
    [
        pytest.param(put("/a", 0), 5, id="creating a key that exists"),
        pytest.param(put("/a", 4), 5, id="updating an older state"),
        pytest.param(put("/b", 5), 0, id="updating an absent key"),
        pytest.param(delete("/a", 4), 5, id="deleting an older state"),
        pytest.param(delete("/b", None), 0, id="deleting an absent key"),
    ],
)
def test_writes_that_do_not_hold_change_nothing(operation: Operation, actual: int) -> None:
    book = ledger()
    with pytest.raises(ConflictError) as caught:
        book.accept([put("/z", 0), operation])
    assert caught.value.actual == actual
    assert book.revision == 9
    assert book.accept([put("/z", 0)])[0].mod_revision == 10
