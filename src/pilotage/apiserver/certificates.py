"""The cluster's own certificate authority, and the kubeconfigs that carry its certificates.

Apart from authentication because `up` and the tests issue certificates without a server, and the server only verifies
them. Elliptic-curve keys (P-256) throughout: a key and certificate take about a millisecond. Private keys are written
with mode 0600 in directories of mode 0700 and never logged. Called by the API server at start, by `up` for every
component, and by tests.

Left out: revocation and rotation of the authority itself; certificates of clients are reissued at every start.

Specification: RFC 5280; https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from __future__ import annotations

import base64
import fcntl
import ipaddress
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilotage.apiserver.core.signing import EXTENDED_USAGES, KEY_USAGES, alternative_names
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.errors import PilotageError

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
# Twenty times faster than the one in Python, which takes 10 ms for one kubeconfig; a start writes a dozen.
_YamlDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
# Certificates start to be valid in the past, so that a peer whose clock is behind accepts them.
BACKDATED = timedelta(hours=1)


class CertificateError(PilotageError):
    """A key or certificate on disk cannot be used; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key, both PEM. `repr` hides the key."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"KeyPair({len(self.certificate_pem)} bytes of certificate)"


class Authority:
    """An authority that signs certificates for clients and servers."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._certificate, self._key, self._clock = certificate, key, clock
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, *, common_name: str = "pilotage-ca", clock: Clock = SYSTEM_CLOCK) -> Authority:
        """A new authority, in memory only."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            _builder(name, name, key.public_key(), clock.wall(), AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key, clock)

    @classmethod
    def load_or_create(cls, directory: Path, *, clock: Clock = SYSTEM_CLOCK) -> Authority:
        """The authority kept as `ca.crt` and `ca.key` in a directory; made there at the first call."""
        with _locked(directory):
            certificate_file, key_file = directory / "ca.crt", directory / "ca.key"
            if not key_file.exists():
                authority = cls.create(clock=clock)
                write_private(certificate_file, authority.certificate_pem)
                write_private(key_file, _key_pem(authority._key))
                return authority
            try:
                certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
                key = load_signing_key(key_file)
            except (OSError, ValueError) as error:
                raise CertificateError(f"cannot use the authority in {directory}: {error}") from error
            if key.public_key() != certificate.public_key():
                raise CertificateError(f"{certificate_file} and {key_file} do not belong together")
            return cls(certificate, key, clock)

    def issue_client(self, common_name: str, organizations: Sequence[str] = ()) -> KeyPair:
        """A client certificate: the common name is the user, the organizations are its groups."""
        return self._issue(common_name, organizations, None, ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue_server(
        self, common_name: str, dns_names: Sequence[str] = (), ip_addresses: Sequence[str] = ()
    ) -> KeyPair:
        """A serving certificate for these names and addresses."""
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ip_addresses]
        return self._issue(common_name, (), x509.SubjectAlternativeName(names), ExtendedKeyUsageOID.SERVER_AUTH)

    def load_or_issue_server(
        self, directory: Path, name: str, dns_names: Sequence[str] = (), ip_addresses: Sequence[str] = ()
    ) -> KeyPair:
        """The serving certificate kept as NAME.crt and NAME.key, reissued when it no longer fits or soon expires."""
        with _locked(directory):
            certificate_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
            if certificate_file.exists() and key_file.exists():
                kept = KeyPair(certificate_pem=certificate_file.read_bytes(), key_pem=key_file.read_bytes())
                if self._still_good(kept, dns_names, ip_addresses):
                    return kept
            issued = self.issue_server(name, dns_names, ip_addresses)
            write_private(key_file, issued.key_pem)
            write_private(certificate_file, issued.certificate_pem)
            return issued

    def sign(
        self, request: x509.CertificateSigningRequest, usages: Sequence[str], lifetime: timedelta
    ) -> bytes:  # fmt: skip
        """A certificate, PEM, for a request whose signer has accepted it; its subject and names are the request's."""
        issuer, now = self._certificate.subject, self._clock.wall()
        # Not longer than the authority itself.
        lifetime = min(lifetime, self._certificate.not_valid_after_utc - now)
        named = {KEY_USAGES[usage] for usage in usages if usage in KEY_USAGES}
        extended = dict.fromkeys(EXTENDED_USAGES[usage] for usage in usages if usage in EXTENDED_USAGES)
        builder = (
            _builder(request.subject, issuer, request.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )  # fmt: skip
        if named:
            flags = {flag: flag in named and flag not in ("key_cert_sign", "crl_sign") for flag in KEY_USAGES.values()}
            flags |= {flag: flags[flag] and flags["key_agreement"] for flag in ("encipher_only", "decipher_only")}
            builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(extended)), critical=False)
        names = alternative_names(request)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _still_good(self, kept: KeyPair, dns_names: Sequence[str], ip_addresses: Sequence[str]) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(kept.certificate_pem)
            key = serialization.load_pem_private_key(kept.key_pem, None)
            certificate.verify_directly_issued_by(self._certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # Whatever is wrong with the files, a new certificate is the answer.
            return False
        return (
            key.public_key() == certificate.public_key()
            and certificate.not_valid_after_utc - self._clock.wall() > RENEW_BEFORE
            and set(dns_names) <= set(names.get_values_for_type(x509.DNSName))
            and {ipaddress.ip_address(item) for item in ip_addresses} <= set(names.get_values_for_type(x509.IPAddress))
        )

    def _issue(
        self,
        common_name: str,
        organizations: Sequence[str],
        names: x509.SubjectAlternativeName | None,
        usage: x509.ObjectIdentifier,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, item) for item in organizations]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer, now = self._certificate.subject, self._clock.wall()
        builder = (
            _builder(subject, issuer, key.public_key(), now, LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )  # fmt: skip
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(
            certificate_pem=certificate.public_bytes(serialization.Encoding.PEM), key_pem=_key_pem(key)
        )  # fmt: skip


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_signing_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """A P-256 private key from a PEM file."""
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{file} does not hold an elliptic-curve key")
    return key


def load_or_create_signing_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """The key that signs ServiceAccount tokens, made at the first call."""
    with _locked(file.parent):
        if file.exists():
            try:
                return load_signing_key(file)
            except ValueError as error:
                raise CertificateError(f"cannot use the key {file}: {error}") from error
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(file, _key_pem(key))
        return key


def write_private(file: Path, content: bytes) -> None:
    """Replace a file atomically by one that only its owner can read."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a directory of mode 0700 for ourselves: two processes must not both make an authority."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_kubeconfig(
    file: Path,
    *,
    server: str,
    ca_pem: bytes,
    certificate_pem: bytes = b"",
    key_pem: bytes = b"",
    token: str = "",
    cluster: str = "pilotage",
    user: str = "admin",
    namespace: str = "",
) -> None:
    """A self-contained kubeconfig with one cluster, user and context."""
    credentials: dict[str, str] = {}
    if certificate_pem:
        credentials["client-certificate-data"] = base64.b64encode(certificate_pem).decode()
        credentials["client-key-data"] = base64.b64encode(key_pem).decode()
    if token:
        credentials["token"] = token
    context = {"cluster": cluster, "user": user}
    if namespace:
        context["namespace"] = namespace
    data = base64.b64encode(ca_pem).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": data}}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": cluster, "context": context}],
        "current-context": cluster,
    }
    write_private(file, yaml.dump(document, Dumper=_YamlDumper, sort_keys=False).encode())
