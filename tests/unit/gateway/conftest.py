"""Manifests in, IR out."""

import base64
import datetime
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pilotage.api.codec import convert, load_yaml
from pilotage.api.core_v1 import Secret, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.networking_v1 import Ingress, IngressClass
from pilotage.gateway.core.ingress import Inputs

FIELDS: dict[str, tuple[type, str]] = {
    "Ingress": (Ingress, "ingresses"),
    "IngressClass": (IngressClass, "ingress_classes"),
    "Service": (Service, "services"),
    "EndpointSlice": (EndpointSlice, "endpoint_slices"),
    "Secret": (Secret, "secrets"),
}


@pytest.fixture
def read_inputs() -> Any:
    """`read_inputs(yaml, …)`: every document of every text, in namespace default unless it says otherwise."""

    def read(*texts: str) -> Inputs:
        found: dict[str, list[Any]] = {field: [] for _, field in FIELDS.values()}
        for text in texts:
            for document in load_yaml(text):
                kind, field = FIELDS[document["kind"]]
                document["metadata"].setdefault("namespace", "default")
                found[field].append(convert(kind, document))
        return Inputs(**{field: tuple(objects) for field, objects in found.items()})

    return read


_KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]


def _certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    start = datetime.datetime(2020, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start.replace(year=2099))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def tls_secret() -> Any:
    """`tls_secret(name, …)`: a good one; `type=`, `data=` or an entry (`"another"`: another key) spoils it."""
    good = {"tls.crt": _certificate(_KEYS[0]), "tls.key": _key(_KEYS[0])}

    def make(name: str, *, type: str = "kubernetes.io/tls", data: dict[str, str] | None = None, **entries: str) -> str:
        if data is None:
            data = {entry: base64.b64encode(value).decode() for entry, value in good.items()}
        if entries.get("tls.key") == "another":
            entries["tls.key"] = base64.b64encode(_key(_KEYS[1])).decode()
        return json.dumps({"kind": "Secret", "metadata": {"name": name}, "type": type, "data": data | entries})

    return make
