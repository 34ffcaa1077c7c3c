"""CertificateSigningRequests: who asks is who is logged in, and only who may approve or sign for a signer does.

Joins four plugins of Kubernetes that concern this one kind: the requestor stamped on creation, CertificateApproval,
CertificateSigning and CertificateSubjectRestriction.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

import json

from pilotage.api.schema_problems import Problems
from pilotage.api.status import invalid
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.authorization import Authorizer
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.core.signing import CLIENT, MASTERS, SigningRequestError, organizations, parse

GROUP = "certificates.k8s.io"
_DECISIONS = ("Approved", "Denied")


def certificate_requests(operation: Operation, authorizer: Authorizer) -> None:
    """Complete a new request; raises ApiError Forbidden or Invalid."""
    document = operation.document
    if document is None or operation.kind != (GROUP, "CertificateSigningRequest"):
        return
    if operation.verb == "create":
        _stamp(operation, document)
        return
    assert operation.old is not None
    signer = (operation.old.get("spec") or {}).get("signerName", "")
    before, after = operation.old.get("status") or {}, document.get("status") or {}
    if operation.subresource == "approval":
        _require(operation, authorizer, "approve", signer)
        _check_decisions(operation, before, after)
    elif operation.subresource == "status":
        if before.get("certificate") != after.get("certificate"):
            _require(operation, authorizer, "sign", signer)
        # Who may write the status may not thereby decide.
        kept = [item for item in before.get("conditions") or () if item.get("type") in _DECISIONS]
        others = [item for item in after.get("conditions") or () if item.get("type") not in _DECISIONS]
        if kept or others:
            document["status"] = {**after, "conditions": [*kept, *others]}


def _stamp(operation: Operation, document: Document) -> None:
    spec = document.setdefault("spec", {})
    for field in ("username", "uid", "groups", "extra"):
        spec.pop(field, None)
    wire = operation.user.to_wire()
    spec |= {field: wire[field] for field in ("username", "uid", "groups", "extra") if wire.get(field)}
    problems = Problems()
    try:
        parsed = parse(spec.get("request") or "")
    except SigningRequestError as error:
        problems.invalid("spec.request", "", str(error))
        raise invalid("CertificateSigningRequest", operation.name, problems.errors, GROUP) from None
    if spec.get("signerName") == CLIENT and MASTERS in organizations(parsed):
        raise operation.forbidden(f"use of {CLIENT} signer with {MASTERS} group is not allowed")


def _require(operation: Operation, authorizer: Authorizer, verb: str, signer: str) -> None:
    domain = signer.partition("/")[0]
    for name in (signer, f"{domain}/*"):
        asked = Route(
            path="", verb=verb, resource_request=True, group=GROUP, version="*", plural="signers", name=name
        )  # fmt: skip
        if authorizer.allows(operation.user, asked):
            return
    raise operation.forbidden(f"user not permitted to {verb} requests with signerName {json.dumps(signer)}")


def _check_decisions(operation: Operation, before: Document, after: Document) -> None:
    problems = Problems()
    kinds = [item.get("type") for item in after.get("conditions") or ()]
    if "Approved" in kinds and "Denied" in kinds:
        problems.invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive")
    for item in before.get("conditions") or ():
        if item.get("type") in (*_DECISIONS, "Failed") and item.get("type") not in kinds:
            problems.forbidden("status.conditions", f"updates may not remove a condition of type {item['type']!r}")
    if problems.errors:
        raise invalid("CertificateSigningRequest", operation.name, problems.errors, GROUP)
