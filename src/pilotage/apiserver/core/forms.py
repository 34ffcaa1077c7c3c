"""Objects, lists and watch events as bytes, in each form a client may ask for.

Stands apart because three callers (get, list, watch) produce the same three forms (object, partial, table), and because
this is where encoding is avoided: whole objects are stored bytes, lists are joins.
Fed with records; `columns` gives the cells of tables. Called by the HTTP front and the watch streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from pilotage.api.catalogue import Resource
from pilotage.apiserver.core.columns import columns_of
from pilotage.apiserver.core.negotiation import Form, Representation
from pilotage.apiserver.core.record import Document, Record
from pilotage.apiserver.core.stored_form import shown

_encode = msgspec.json.Encoder().encode


# Small enough to stay in the processor's cache from joining to encryption, which halves the cost of a large list.
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """An encoded list, made piece by piece: ten thousand objects are never copied into one block of memory."""

    size: int  # bytes in all
    chunks: Iterator[bytes]  # to be consumed once

    def whole(self) -> bytes:
        """All of it at once."""
        return b"".join(self.chunks)


def _joined(head: bytes, items: Sequence[bytes]) -> Iterator[bytes]:
    pending, size, separator = [head], len(head), b""
    for item in items:
        pending += (separator, item)
        separator = b","
        size += len(item)
        if size >= CHUNK_BYTES:
            yield b"".join(pending)
            pending, size = [], 0
    pending.append(b"]}")
    yield b"".join(pending)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one request wants objects of one resource; equal views share encoded events."""

    resource: Resource
    representation: Representation
    include_object: str = "Metadata"  # Table rows only: None, Metadata or Object

    def __hash__(self) -> int:
        # Every watcher of a change looks up its encoding by its view; hashing all of a resource takes longer.
        return hash((self.resource.schema, self.resource.kind, self.representation.form, self.include_object))

    def object(self, record: Record, now: datetime) -> bytes:
        """One object."""
        match self.representation.form:
            case Form.TABLE:
                return _encode(self._table((record,), str(record.revision), now))
            case Form.PARTIAL:
                return _encode(self._partial(record))
            case _:
                return shown(self.resource, record).data

    def collection(
        self, records: Sequence[Record], revision: int, now: datetime, continue_token: str, remaining: int | None
    ) -> Collection:
        """A list as of `revision`."""
        metadata: Document = {"resourceVersion": str(revision)}
        if continue_token:
            metadata["continue"] = continue_token
            if remaining is not None:
                metadata["remainingItemCount"] = remaining
        match self.representation.form:
            case Form.TABLE:
                table = self._table(records, str(revision), now)
                table["metadata"] = metadata
                data = _encode(table)
                return Collection(size=len(data), chunks=iter((data,)))
            case Form.PARTIAL:
                kind = "PartialObjectMetadataList"
                api_version = f"meta.k8s.io/{self.representation.version}"
                items = [_encode(self._partial(record)) for record in records]
            case _:
                kind, api_version = self.resource.list_kind, self.resource.api_version
                items = [shown(self.resource, record).data for record in records]
        head = _encode({"kind": kind, "apiVersion": api_version, "metadata": metadata})[:-1] + b',"items":['
        size = len(head) + sum(map(len, items)) + max(len(items) - 1, 0) + 2
        return Collection(size=size, chunks=_joined(head, items))

    def event(self, type_: str, record: Record, now: datetime) -> bytes:
        """One line of a watch stream."""
        return b'{"type":"%b","object":%b}\n' % (type_.encode(), self.object(record, now))

    def bookmark(self, revision: int, *, initial_events_end: bool = False) -> bytes:
        """A line that only says how far the watcher has come (KEP-956, KEP-3157)."""
        metadata: Document = {"resourceVersion": str(revision)}
        if initial_events_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        match self.representation.form:
            case Form.TABLE:
                table = self._table((), str(revision), datetime.min)
                if initial_events_end:
                    # A table has no place for annotations of its own: the row's object carries them.
                    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
                    table["rows"] = [{"cells": [], "object": partial}]
                body = table
            case Form.PARTIAL:
                version = f"meta.k8s.io/{self.representation.version}"
                body = {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": metadata}
            case _:
                body = {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": metadata}
        return b'{"type":"BOOKMARK","object":%b}\n' % _encode(body)

    def _partial(self, record: Record, version: str = "") -> Document:
        return {
            "kind": "PartialObjectMetadata",
            "apiVersion": f"meta.k8s.io/{version or self.representation.version}",
            "metadata": record.document["metadata"],
        }

    def _table(self, records: Iterable[Record], revision: str, now: datetime) -> Document:
        columns = columns_of(self.resource)
        version = self.representation.version
        rows = []
        for record in records:
            row: Document = {"cells": [column.cell(record.document, now) for column in columns]}
            if self.include_object == "Object":
                row["object"] = msgspec.Raw(shown(self.resource, record).data)
            elif self.include_object != "None":
                row["object"] = self._partial(record, version)
            rows.append(row)
        return {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": {"resourceVersion": revision},
            "columnDefinitions": [column.definition() for column in columns],
            "rows": rows,
        }
