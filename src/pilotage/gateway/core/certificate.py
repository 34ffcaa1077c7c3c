"""A TLS Secret → a certificate that Envoy will take, or the reason why not.

Stands apart because every front end refers to Secrets. Checked here rather than by Envoy, because a listener whose
secret is refused keeps waiting for a better one, and its other hosts with it. Leaves out expiry: an expired certificate
is served, as the client can tell and this core has no clock.
"""

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pilotage.api.core_v1 import Secret
from pilotage.gateway.core.ir import Certificate

TLS_SECRET_TYPE = "kubernetes.io/tls"  # noqa: S105 - the type's name


class BadCertificateError(ValueError):
    """The Secret cannot be served; the text names no part of the key."""


def read_certificate(secret: Secret) -> Certificate:
    """`tls.crt` and `tls.key` of a Secret of any type; raises `BadCertificateError` with one sentence."""
    chain_pem = _decode(secret, "tls.crt")
    key_pem = _decode(secret, "tls.key")
    try:
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
    except ValueError:
        raise BadCertificateError("tls.crt holds no PEM certificate") from None
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadCertificateError("tls.key holds no unencrypted PEM private key") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise BadCertificateError("tls.key does not belong to the first certificate of tls.crt")
    return Certificate(name=secret.metadata.key, chain_pem=chain_pem, key_pem=key_pem)


def _decode(secret: Secret, entry: str) -> bytes:
    text = secret.data.get(entry)
    if not text:
        raise BadCertificateError(f"entry {entry} is missing")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadCertificateError(f"entry {entry} is not base64") from None
