"""Kubeconfig files → what a connection needs.

Understands what our own files and common real ones hold: certificate data or files, tokens or token files, a CA,
`insecure-skip-tls-verify`, the in-cluster service account. Exec plugins and auth providers are refused by name.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pilotage.kit.errors import UsageError

# Twenty times faster than the one in Python, which takes 8 ms for one kubeconfig.
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where an API server is and how to prove who we are. Secrets are kept out of `repr`."""

    server: str  # https://host:port[/prefix], no trailing slash
    ca_pem: str = ""  # empty: the system's authorities
    certificate_pem: str = field(default="", repr=False)
    key_pem: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None  # re-read: bound tokens rotate
    verify: bool = True
    server_name: str = ""  # overrides the name checked in the server's certificate
    namespace: str = "default"

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for plain http."""
        if not self.server.startswith("https:"):
            return None
        context = ssl.create_default_context(cadata=self.ca_pem or None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_pem:
            # The ssl module reads client keys from files only; this one is 0600 and gone before anybody could look.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
                pair.write(self.certificate_pem.rstrip() + "\n" + self.key_pem)
                pair.flush()
                context.load_cert_chain(pair.name)
        return context

    def bearer_token(self) -> str:
        """The current token; empty when the certificate is all we have."""
        return self.token_file.read_text().strip() if self.token_file else self.token


def load_kubeconfig(path: str | Path, *, context: str = "") -> Connection:
    """Read one context of a kubeconfig file; raises `UsageError` naming the file and what is wrong with it."""
    path = Path(path).expanduser()
    try:
        document = yaml.load(path.read_text(), Loader=_YamlLoader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise UsageError(f"cannot read kubeconfig {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"kubeconfig {path} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict):
        raise UsageError(f"kubeconfig {path} is empty")
    try:
        wanted = context or document["current-context"]
        chosen = _named(document, "contexts", wanted)["context"]
        cluster = _named(document, "clusters", chosen["cluster"])["cluster"]
        user = _named(document, "users", chosen["user"]).get("user") or {}
        if "exec" in user or "auth-provider" in user:
            raise UsageError(
                f"kubeconfig {path}: exec and auth-provider users are not supported; use a certificate or token"
            )
        token_file = user.get("tokenFile")
        return Connection(
            server=cluster["server"].rstrip("/"),
            ca_pem=_inline(cluster, "certificate-authority", path),
            certificate_pem=_inline(user, "client-certificate", path),
            key_pem=_inline(user, "client-key", path),
            token=user.get("token", ""),
            token_file=path.parent / token_file if token_file else None,
            verify=not cluster.get("insecure-skip-tls-verify", False),
            server_name=cluster.get("tls-server-name", ""),
            namespace=chosen.get("namespace", "default"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"kubeconfig {path}: missing or malformed {error}") from error


def in_cluster() -> Connection:
    """The service account of the pod we run in; raises `UsageError` outside a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (_SERVICE_ACCOUNT / "token").exists():
        raise UsageError("not inside a cluster: give --kubeconfig")
    return Connection(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca_pem=(_SERVICE_ACCOUNT / "ca.crt").read_text(),
        token_file=_SERVICE_ACCOUNT / "token",
        namespace=(_SERVICE_ACCOUNT / "namespace").read_text().strip(),
    )


def _named(document: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    for entry in document.get(section) or ():
        if entry.get("name") == name:
            return dict(entry)
    raise KeyError(f"{section}/{name}")


def _inline(section: Mapping[str, str], name: str, path: Path) -> str:
    """`name-data` (base64) wins over the file `name`, which is relative to the kubeconfig."""
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data).decode()
    if file := section.get(name):
        try:
            return (path.parent / file).read_text()
        except OSError as error:
            raise UsageError(f"kubeconfig {path}: cannot read {name} {file}: {error.strerror}") from error
    return ""
