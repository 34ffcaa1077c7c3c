"""JSON Merge Patch: the patch looks like the document, null removes.

Called by the API server's PATCH handler for `application/merge-patch+json`. Neither argument is modified; the result
shares unchanged parts with the document.

Specification: RFC 7396 section 2.
"""

from __future__ import annotations

from typing import Any


def merge_patch(document: Any, patch: Any) -> Any:
    """The document with the patch merged in; lists are replaced whole."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = merge_patch(merged.get(key), value)
        else:
            merged[key] = value
    return merged
