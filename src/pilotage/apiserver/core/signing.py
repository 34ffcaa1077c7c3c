"""CertificateSigningRequests: what each of Kubernetes' own signers accepts, and what it puts into a certificate.

Stands apart from the authority, which signs whatever it is told, and from the task that watches for approvals. Pure
over parsed requests. Called by admission (is this a request at all) and by the signer.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilotage.kit.errors import PilotageError

_Object = Mapping[str, Any]

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
SIGNERS = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY)

MASTERS = "system:masters"
_NODES = "system:nodes"
_NODE_PREFIX = "system:node:"
# kube-controller-manager's --cluster-signing-duration, the most anybody gets.
LIFETIME_MAX = timedelta(days=365)
REQUEST_BYTES_MAX = 64 * 1024

KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "data encipherment": "data_encipherment",
    "key agreement": "key_agreement",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
EXTENDED_USAGES = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ipsec end system": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
    "ipsec tunnel": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
    "ipsec user": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "microsoft sgc": x509.ObjectIdentifier("1.3.6.1.4.1.311.10.3.3"),
    "netscape sgc": x509.ObjectIdentifier("2.16.840.1.113730.4.1"),
}


class SigningRequestError(PilotageError):
    """The request cannot be read, or asks for what its signer does not give; the message says what."""


def parse(request: str) -> x509.CertificateSigningRequest:
    """From `spec.request`: base64 of one PEM block. Raises SigningRequestError."""
    try:
        pem = base64.b64decode(request, validate=True)
        if len(pem) > REQUEST_BYTES_MAX:
            raise SigningRequestError(f"more than {REQUEST_BYTES_MAX} bytes")
        if not pem.lstrip().startswith(b"-----BEGIN CERTIFICATE REQUEST-----"):
            raise SigningRequestError("PEM block type must be CERTIFICATE REQUEST")
        parsed = x509.load_pem_x509_csr(pem)
        if not parsed.is_signature_valid:
            raise SigningRequestError("the signature of the request is not valid")
    except (ValueError, binascii.Error, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise SigningRequestError(str(error)[:200] or "not a certificate request") from error
    return parsed


def organizations(parsed: x509.CertificateSigningRequest) -> list[str]:
    """The groups the certificate would give."""
    return [str(item.value) for item in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


def common_name(parsed: x509.CertificateSigningRequest) -> str:
    """The user the certificate would make."""
    names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def alternative_names(parsed: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    """The further names asked for."""
    try:
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(found)


def lifetime(spec: _Object) -> timedelta:
    """As asked, but never longer than the signer gives."""
    asked = spec.get("expirationSeconds")
    return min(timedelta(seconds=asked), LIFETIME_MAX) if asked else LIFETIME_MAX


def refusal(spec: _Object, parsed: x509.CertificateSigningRequest) -> str | None:
    """Why the signer does not sign this, None when it does."""
    usages = set(spec.get("usages") or ())
    match spec.get("signerName"):
        case "kubernetes.io/kube-apiserver-client":
            if MASTERS in organizations(parsed):
                return f"subject organization {MASTERS} is not allowed"
            return _usages(usages, {"client auth"})
        case "kubernetes.io/kube-apiserver-client-kubelet":
            if alternative_names(parsed):
                return "subjectAltNames are not allowed"
            return _node_subject(parsed) or _usages(usages, {"client auth", "digital signature"}, exact=True)
        case "kubernetes.io/kubelet-serving":
            names = alternative_names(parsed)
            if any(not isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
                return "only DNS and IP subjectAltNames are allowed"
            if not names:
                return "at least one DNS or IP subjectAltName is required"
            if common_name(parsed) != spec.get("username"):
                return "the common name must be the name of the requesting node"
            return _node_subject(parsed) or _usages(usages, {"server auth", "digital signature"}, exact=True)
    return None


def _node_subject(parsed: x509.CertificateSigningRequest) -> str | None:
    if organizations(parsed) != [_NODES]:
        return f"subject organization is not {_NODES}"
    if not common_name(parsed).startswith(_NODE_PREFIX) or common_name(parsed) == _NODE_PREFIX:
        return f"subject common name does not begin with {_NODE_PREFIX}"
    return None


def _usages(given: set[str], required: set[str], *, exact: bool = False) -> str | None:
    optional = {"key encipherment"} if exact else {"digital signature", "key encipherment"}
    given = {"digital signature" if usage == "signing" else usage for usage in given}
    if required <= given <= required | optional:
        return None
    return f"usages must be {', '.join(sorted(required))}, and may be {', '.join(sorted(optional))}"


# Conditions


def condition(document: _Object, kind: str) -> _Object | None:
    """The condition of a type, such as Approved, if the request has it."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    return next((item for item in conditions if item.get("type") == kind), None)


def is_due(document: _Object) -> bool:
    """Whether one of our signers is to sign it now."""
    return (
        (document.get("spec") or {}).get("signerName") in SIGNERS
        and condition(document, "Approved") is not None
        and condition(document, "Denied") is None
        and condition(document, "Failed") is None
        and not (document.get("status") or {}).get("certificate")
    )


def approvable_as(document: _Object) -> str:
    """The subresource a requestor must be allowed to create for an approval without a human: "" for none.

    A node that renews its own certificate (`selfnodeclient`), or a bootstrapper that asks for one (`nodeclient`).
    """
    spec = document.get("spec") or {}
    if spec.get("signerName") != KUBELET_CLIENT or (document.get("status") or {}).get("conditions"):
        return ""
    try:
        parsed = parse(spec.get("request", ""))
    except SigningRequestError:
        return ""
    if refusal(spec, parsed) is not None:
        return ""
    return "selfnodeclient" if common_name(parsed) == spec.get("username") else "nodeclient"
