"""A certificate that signs itself, for servers on loopback in tests."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def write_certificate(directory: Path, common_name: str = "dns") -> dict[str, str]:
    """For `localhost`; the paths of `certificate` and `key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, start, start.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = {"certificate": directory / "tls.crt", "key": directory / "tls.key"}
    pem = serialization.Encoding.PEM
    files["certificate"].write_bytes(made.public_bytes(pem))
    plain = serialization.NoEncryption()
    files["key"].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return {field: str(path) for field, path in files.items()}
