"""Reading other objects while judging a request: the one question authentication, authorisation and admission ask.

Stands apart so that they see neither the cache nor records, and so that tests answer from a dictionary. The documents
are shared with every reader and must not be changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from pilotage.apiserver.cache import Cache

Document = dict[str, Any]


class Documents(Protocol):
    """The objects of the cluster as of now."""

    def get(self, group: str, plural: str, namespace: str, name: str) -> Document | None:
        """One object; `namespace` is "" for cluster-scoped resources."""
        ...

    def list(self, group: str, plural: str, namespace: str = "") -> Iterator[Document]:
        """The objects of a namespace, or of all when it is ""."""
        ...


class CachedDocuments:
    """The real thing: the watch cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def get(self, group: str, plural: str, namespace: str, name: str) -> Document | None:
        record = self._cache.resource(group, plural).get(f"{namespace}/{name}" if namespace else name)
        return None if record is None else record.document

    def list(self, group: str, plural: str, namespace: str = "") -> Iterator[Document]:
        for record in self._cache.resource(group, plural).scan(namespace):
            yield record.document


class DictDocuments:
    """A stateful fake: the documents it was given, by group and plural."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], dict[tuple[str, str], Document]] = {}

    def put(self, group: str, plural: str, document: Document) -> Document:
        """Add or replace an object."""
        metadata = document["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        self._documents.setdefault((group, plural), {})[key] = document
        return document

    def remove(self, group: str, plural: str, namespace: str, name: str) -> None:
        """Forget an object."""
        self._documents.get((group, plural), {}).pop((namespace, name), None)

    def get(self, group: str, plural: str, namespace: str, name: str) -> Document | None:
        return self._documents.get((group, plural), {}).get((namespace, name))

    def list(self, group: str, plural: str, namespace: str = "") -> Iterator[Document]:
        for (where, _), document in list(self._documents.get((group, plural), {}).items()):
            if namespace in ("", where):
                yield document
