import base64
from pathlib import Path

import pytest

from pilotage.client.kubeconfig import load_kubeconfig
from pilotage.kit.errors import UsageError

CONFIG = f"""
apiVersion: v1
kind: Config
current-context: local
contexts: [{{name: local, context: {{cluster: c, user: u, namespace: shop}}}}]
clusters:
- name: c
  cluster: {{server: "https://127.0.0.1:6443/", certificate-authority-data: {base64.b64encode(b"CA").decode()}}}
users: [{{name: u, user: {{client-certificate: cert.pem, client-key: key.pem}}}}]
"""


def test_files_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "cert.pem").write_text("CERT")
    (tmp_path / "key.pem").write_text("KEY")
    connection = load_kubeconfig(tmp_path / "config")
    assert (connection.server, connection.ca_pem, connection.namespace) == ("https://127.0.0.1:6443", "CA", "shop")
    assert (connection.certificate_pem, connection.key_pem) == ("CERT", "KEY")
    assert "KEY" not in repr(connection)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("a: [", "is not YAML"),
        ("current-context: x", "contexts/x"),
        (CONFIG, "cannot read client-certificate"),
        (CONFIG.replace("client-certificate: cert.pem, client-key: key.pem", "exec: {command: aws}"), "not supported"),
    ],
    ids=["empty", "broken", "no context", "missing file", "exec plugin"],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint) as caught:
        load_kubeconfig(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read kubeconfig"):
        load_kubeconfig(tmp_path / "none")
