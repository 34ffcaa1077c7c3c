"""Regular expressions in RE2's syntax: the one Kubernetes means, matched in linear time.

Stands apart because schemas and CEL's functions share it, and because the library must not write to stderr when a
client sends a pattern that is none. Patterns come from those who may define resources, subjects from everybody.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# Memory one compiled pattern may take; Go has no such limit, ours is RE2's own default.
MEMORY_BYTES_MAX = 8 << 20


class PatternError(Exception):
    """The text is no pattern."""


@lru_cache(maxsize=1024)
def pattern(text: str) -> Any:
    """The compiled pattern, with `search`. Raises PatternError."""
    import re2  # loaded by the first server that needs it, not by every process of a cluster

    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY_BYTES_MAX
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise PatternError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None
