"""The Agent API over TLS: logs and streams for the API server, refusal for everybody else."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from pilotage.apiserver.certificates import Authority

from .conftest import NodeUnderTest, node_under_test
from .test_pods import SLEEP, is_ready, only, printed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class AgentApi:
    """A client of the Agent API."""

    def __init__(self, node: NodeUnderTest, session: aiohttp.ClientSession, authority: Authority, scratch: Path) -> None:
        self.node = node
        self.session = session
        self._authority = authority
        self._scratch = scratch
        self.url = f"https://127.0.0.1:{node.config.port}"

    def context(self, common_name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._scratch / "ca.crt"))
        if common_name:
            issued = self._authority.issue_client(common_name, ())
            pair = self._scratch / f"{common_name}.pem"
            pair.write_bytes(issued.key_pem + issued.certificate_pem)
            pair.chmod(0o600)
            context.load_cert_chain(pair)
        return context

    async def get(self, path: str, *, name: str = "kube-apiserver-kubelet-client") -> tuple[int, str]:
        async with self.session.get(self.url + path, ssl=self.context(name)) as response:
            return response.status, await response.text()

    async def stream(self, path: str, send: list[bytes], *, until: bytes = b"") -> dict[int, bytes]:
        """Everything received, by channel."""
        received: dict[int, bytes] = {}
        context = self.context("kube-apiserver-kubelet-client")
        async with self.session.ws_connect(self.url + path, ssl=context, protocols=("v5.channel.k8s.io",)) as ws:
            assert ws.protocol == "v5.channel.k8s.io"
            for message in send:
                await ws.send_bytes(message)
            async for message in ws:
                data = message.data
                received[data[0]] = received.get(data[0], b"") + data[1:]
                if until and until in data:
                    break
        return received


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[AgentApi]:
    authority = Authority.load_or_create(tmp_path / "pki")
    scratch = tmp_path / "certificates"
    scratch.mkdir()
    issued = authority.issue_server("system:node:n1", ("n1",), ("127.0.0.1",))
    (scratch / "ca.crt").write_bytes(authority.certificate_pem)
    (scratch / "tls.crt").write_bytes(issued.certificate_pem)
    (scratch / "tls.key").write_bytes(issued.key_pem)
    async with node_under_test(tmp_path) as node:
        node.config = msgspec.structs.replace(node.config) if False else node.config
        from dataclasses import replace

        node.config = replace(
            node.config,
            port=free_port(),
            serving_cert=scratch / "tls.crt",
            serving_key=scratch / "tls.key",
            client_ca=scratch / "ca.crt",
        )
        await node.start_agent()
        async with aiohttp.ClientSession() as session:
            yield AgentApi(node, session, authority, scratch)
