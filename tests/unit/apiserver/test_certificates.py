"""The authority: what it issues is accepted by TLS, kept on disk safely, and reissued when needed."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from pilotage.apiserver.certificates import (
    RENEW_BEFORE,
    Authority,
    CertificateError,
    KeyPair,
    load_or_create_signing_key,
    write_kubeconfig,
)
from pilotage.kit.clock import ManualClock


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def handshake(folder: Path, server: KeyPair, client: KeyPair, authority: bytes, host: str) -> bytes | None:
    """Carry out a mutual TLS handshake in memory; returns the client's certificate as the server sees it."""

    def context(protocol: int, pair: KeyPair, name: str) -> ssl.SSLContext:
        result = ssl.SSLContext(protocol)
        result.verify_flags |= ssl.VERIFY_X509_STRICT
        result.load_verify_locations(cadata=authority.decode())
        result.verify_mode = ssl.CERT_REQUIRED
        file = folder / f"{name}.pem"
        file.write_bytes(pair.certificate_pem + pair.key_pem)
        result.load_cert_chain(file)
        return result

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = context(ssl.PROTOCOL_TLS_SERVER, server, "server").wrap_bio(to_server, to_client, server_side=True)
    client_side = context(ssl.PROTOCOL_TLS_CLIENT, client, "client").wrap_bio(
        to_client, to_server, server_hostname=host
    )
    for _ in range(4):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return server_side.getpeercert(binary_form=True)


def test_what_it_issues_passes_a_strict_mutual_handshake(tmp_path: Path) -> None:
    authority = Authority.create()
    server = authority.issue_server("kube-apiserver", ["kubernetes.default"], ["10.96.0.1"])
    client = authority.issue_client("alice", ["dev", "ops"])
    seen = handshake(tmp_path, server, client, authority.certificate_pem, "10.96.0.1")
    assert seen is not None
    subject = x509.load_der_x509_certificate(seen).subject
    assert [str(item.value) for item in subject] == ["dev", "ops", "alice"]


def test_a_stranger_is_turned_away(tmp_path: Path) -> None:
    authority, stranger = Authority.create(), Authority.create()
    server = authority.issue_server("s", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(
            tmp_path, server, stranger.issue_client("root", ["system:masters"]), authority.certificate_pem, "localhost"
        )


def test_the_authority_is_made_once_and_kept_private(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    first = Authority.load_or_create(directory)
    assert Authority.load_or_create(directory).certificate_pem == first.certificate_pem
    assert mode(directory) == 0o700
    assert {file.name: mode(file) for file in directory.iterdir()} == {"ca.crt": 0o600, "ca.key": 0o600}


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path)
    (tmp_path / "ca.crt").write_bytes(Authority.create().certificate_pem)
    with pytest.raises(CertificateError, match="do not belong together"):
        Authority.load_or_create(tmp_path)


def test_the_serving_certificate_is_kept_until_names_change_or_it_expires_soon(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    authority = Authority.load_or_create(tmp_path, clock=clock)

    def serving(*addresses: str) -> bytes:
        return authority.load_or_issue_server(tmp_path, "apiserver", ["localhost"], addresses).certificate_pem

    first = serving("127.0.0.1")
    assert serving("127.0.0.1") == first
    second = serving("127.0.0.1", "10.96.0.1")
    assert second != first
    assert serving("127.0.0.1") == second, "it covers more than is asked"
    clock.advance((timedelta(days=366) - RENEW_BEFORE).total_seconds())
    assert serving("127.0.0.1") != second


def test_the_token_key_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "sa.key"
    first = load_or_create_signing_key(file)
    assert load_or_create_signing_key(file).public_key() == first.public_key()
    assert mode(file) == 0o600


def test_a_kubeconfig_is_private_and_complete(tmp_path: Path) -> None:
    authority = Authority.create()
    pair = authority.issue_client("admin", ["system:masters"])
    file = tmp_path / "config"
    write_kubeconfig(
        file,
        server="https://127.0.0.1:6443",
        ca_pem=authority.certificate_pem,
        certificate_pem=pair.certificate_pem,
        key_pem=pair.key_pem,
    )
    assert mode(file) == 0o600
    document = yaml.safe_load(file.read_text())
    assert document["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert set(document["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    assert "PRIVATE" not in repr(pair)
