"""The query of a log request: checked as kube-apiserver checks PodLogOptions, passed on as the agent reads it."""

from __future__ import annotations

from collections.abc import Mapping

from pilotage.api.schema_problems import Problems
from pilotage.api.status import ApiError, invalid

_PASSED = ("follow", "previous", "timestamps", "sinceTime")
# name → the least value it may have
_NUMBERS = {"sinceSeconds": 1, "tailLines": 0, "limitBytes": 1}
_DIGITS_MAX = 18


def log_query(pod: str, query: Mapping[str, str]) -> dict[str, str]:
    """What the agent is asked. Raises ApiError BadRequest or Invalid."""
    asked = {name: query[name] for name in _PASSED if query.get(name)}
    problems = Problems()
    for name, least in _NUMBERS.items():
        text = query.get(name)
        if not text:
            continue
        if not text.removeprefix("-").isdigit() or len(text) > _DIGITS_MAX:
            raise ApiError("BadRequest", f"{name}: {text[:40]!r} is not a number")
        if int(text) < least:
            problems.invalid(name, int(text), f"must be greater than {'or equal to 0' if least == 0 else '0'}")
        asked[name] = text
    if "sinceTime" in asked and "sinceSeconds" in asked:
        problems.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified")
    if problems.errors:
        raise invalid("PodLogOptions", pod, problems.errors)
    return asked
