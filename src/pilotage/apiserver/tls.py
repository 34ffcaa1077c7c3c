"""TLS of the server: its own certificate, and the one it shows to agents.

Stands apart because the ssl module wants files and everything else wants values. Client certificates are asked for but
not demanded: whoever has none may still present a token (the authenticator decides). TLS 1.2 is the floor, as
kube-apiserver's. Called once at start.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from pilotage.apiserver.certificates import Authority, write_private

SERVING_NAME = "apiserver"
# The name agents demand before they open a shell in a container.
AGENT_CLIENT_NAME = "kube-apiserver-kubelet-client"
_SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")


def server_context(
    authority: Authority, directory: Path, cluster_domain: str, addresses: Iterable[str], names: Iterable[str]
) -> ssl.SSLContext:
    """For the listening sockets; the certificate names the `kubernetes` Service and every address given."""
    dns = ["localhost", *_SERVICE_NAMES, f"kubernetes.default.svc.{cluster_domain}", *names]
    authority.load_or_issue_server(directory, SERVING_NAME, dns, sorted({"127.0.0.1", "::1", *addresses}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(directory / f"{SERVING_NAME}.crt", directory / f"{SERVING_NAME}.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=authority.certificate_pem.decode())
    # HTTP/2 is not spoken: Go's client must be told, or it waits for a preface.
    context.set_alpn_protocols(["http/1.1"])
    return context


def agent_context(authority: Authority, directory: Path) -> ssl.SSLContext:
    """For connections to agents; issued anew at every start."""
    pair = authority.issue_client(AGENT_CLIENT_NAME)
    file = directory / f"{AGENT_CLIENT_NAME}.pem"
    write_private(file, pair.certificate_pem + pair.key_pem)
    context = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    context.load_cert_chain(file)
    return context
