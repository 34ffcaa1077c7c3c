"""Query parameters as values: list, watch, write and delete options.

Stands apart because every verb reads some of them and all refuse nonsense alike. Fed by the HTTP front with a
multi-map; unknown parameters are ignored, as Kubernetes does. Defaults and limits are Kubernetes' own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from pilotage.api.schema_conform import FieldValidation
from pilotage.api.schema_problems import Problems
from pilotage.api.status import ApiError, invalid
from pilotage.apiserver.core.record import Document

_MATCH = "resourceVersionMatch"
_MATCHES = ("Exact", "NotOlderThan")
_POLICIES = frozenset(("Orphan", "Background", "Foreground"))
_VALIDATIONS = frozenset(("Ignore", "Warn", "Strict"))
_TRUE = frozenset(("true", "1", "True", "t", "T", "TRUE"))


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter; present without a value means true, as Go's client writes it."""
    value = query.get(name)
    return value is not None and (value in _TRUE or value == "")


def integer(query: Mapping[str, str], name: str) -> int | None:
    """A non-negative integer parameter, None when absent."""
    value = query.get(name, "")
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise ApiError("BadRequest", f"invalid value {value[:40]!r} for parameter {name}: must be a whole number")
    return int(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """Parameters of list, watch and deletecollection."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: int | None = None  # None: not given, meaning the most recent
    resource_version_match: str = ""
    limit: int = 0  # 0: no limit
    continue_token: str = ""
    timeout_s: int | None = None  # None: the server chooses
    bookmarks: bool = False
    send_initial_events: bool | None = None


def list_options(query: Mapping[str, str]) -> ListOptions:
    """Read and cross-check; raises ApiError BadRequest, or Invalid for parameters that do not go together."""
    match = query.get("resourceVersionMatch", "")
    initial = flag(query, "sendInitialEvents") if "sendInitialEvents" in query else None
    version = integer(query, "resourceVersion")
    continue_token = query.get("continue", "")
    problems = Problems()
    if flag(query, "watch"):
        _check_watch(match, initial, continue_token, problems)
    else:
        _check_list(match, initial, version, continue_token, problems)
    if problems.errors:
        raise invalid("ListOptions", "", problems.errors, "meta.k8s.io")
    if continue_token and version:
        raise ApiError("BadRequest", "specifying resource version is not allowed when using continue")
    return ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        resource_version=version,
        resource_version_match=match,
        limit=integer(query, "limit") or 0,
        continue_token=continue_token,
        timeout_s=integer(query, "timeoutSeconds"),
        bookmarks=flag(query, "allowWatchBookmarks"),
        send_initial_events=initial,
    )


def _check_watch(match: str, initial: bool | None, continue_token: str, problems: Problems) -> None:
    # KEP-3157: initial events are a list, and say so as a list would.
    if initial is not None and match != "NotOlderThan":
        problems.forbidden(_MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    if match:
        if initial is None:
            problems.forbidden(
                _MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        elif match != "NotOlderThan":
            problems.unsupported(_MATCH, match, ("NotOlderThan",))
        if continue_token:
            problems.forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided")


def _check_list(
    match: str, initial: bool | None, version: int | None, continue_token: str, problems: Problems
) -> None:  # fmt: skip
    if match:
        if version is None:
            problems.forbidden(_MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided")
        if continue_token:
            problems.forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided")
        if match not in _MATCHES:
            problems.unsupported(_MATCH, match, _MATCHES)
        if match == "Exact" and version == 0:
            problems.forbidden(_MATCH, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if initial is not None:
        problems.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")


class _Continue(msgspec.Struct, frozen=True):
    rv: int
    start: str


def encode_continue(revision: int, last_key: str) -> str:
    """A token that resumes a chunked list after `last_key`, as of `revision`; -1: as of whenever it is used."""
    data = msgspec.json.encode(_Continue(rv=revision, start=last_key))
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode_continue(token: str) -> tuple[int, str]:
    """The revision and the key to start after; raises ApiError BadRequest."""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        decoded = msgspec.json.decode(data, type=_Continue)
    except (ValueError, msgspec.MsgspecError) as error:
        raise ApiError("BadRequest", "continue key is not valid: it must be one this server returned") from error
    return decoded.rv, decoded.start


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """Parameters of create, update and patch."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: FieldValidation = "Warn"
    force: bool = False


def write_options(query: Mapping[str, str]) -> WriteOptions:
    """Read and check; raises ApiError BadRequest."""
    validation = query.get("fieldValidation") or "Warn"
    if validation not in _VALIDATIONS:
        raise ApiError("BadRequest", f"fieldValidation {validation[:40]!r} is none of Ignore, Warn, Strict")
    manager = query.get("fieldManager", "")
    if len(manager) > 128 or not manager.isprintable():
        raise ApiError("BadRequest", "fieldManager must be at most 128 printable characters")
    return WriteOptions(
        dry_run=dry_run(query.get("dryRun", "")),
        field_manager=manager,
        field_validation=cast(FieldValidation, validation),
        force=flag(query, "force"),
    )


def dry_run(value: str) -> bool:
    """Only `All` exists (API conventions, "dry-run")."""
    if value not in ("", "All"):
        raise ApiError("BadRequest", f"invalid dry run value {value[:40]!r}: only All is supported")
    return value == "All"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """How an object is to be deleted; from the body, else from the query."""

    grace_period_s: int | None = None  # None: the kind's default
    propagation: str = ""  # "": the kind's default
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


def delete_options(query: Mapping[str, str], body: Document | None) -> DeleteOptions:
    """Body wins over query; raises ApiError BadRequest or Invalid."""
    body = body or {}
    grace = body.get("gracePeriodSeconds")
    if grace is None:
        grace = integer(query, "gracePeriodSeconds")
    elif isinstance(grace, bool) or not isinstance(grace, int):
        raise ApiError("BadRequest", "gracePeriodSeconds must be a whole number")
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    if propagation and propagation not in _POLICIES:
        raise ApiError("BadRequest", f"propagationPolicy {str(propagation)[:40]!r} is none of {sorted(_POLICIES)}")
    orphan = body.get("orphanDependents")
    if orphan is not None and not propagation:
        propagation = "Orphan" if orphan else "Background"
    modes = body.get("dryRun") or [value for value in (query.get("dryRun", ""),) if value]
    preconditions = body.get("preconditions") or {}
    return DeleteOptions(
        grace_period_s=None if grace is None else max(grace, 0),
        propagation=propagation,
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        dry_run=any(dry_run(str(mode)) for mode in modes),
    )
