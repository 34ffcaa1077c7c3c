"""The Agent API over TLS: logs and streams for the API server, refusal for everybody else."""

import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from pilotage.apiserver.certificates import Authority
from pilotage.testing.etcd import free_port

from .conftest import NodeUnderTest, node_under_test
from .test_pods import SLEEP, is_ready, only, printed


class AgentApi:
    """A client of the Agent API."""

    def __init__(
        self, node: NodeUnderTest, session: aiohttp.ClientSession, authority: Authority, scratch: Path
    ) -> None:
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
                if until and until in received[data[0]]:
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
            await node.clear()


async def test_only_the_api_servers_certificate_is_let_in(api: AgentApi) -> None:
    assert (await api.get("/healthz", name=""))[0] == 200
    path = "/containerLogs/default/web/c"
    assert (await api.get(path, name=""))[0] == 401
    assert (await api.get(path, name="system:node:n1"))[0] == 401
    assert (await api.get(path))[0] == 404  # let in, and there is no such pod


async def test_logs_are_cut_stamped_and_followed(api: AgentApi) -> None:
    script = (
        "for i in 1 2 3; do echo line $i; done; echo oops >&2; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo end"
    )
    spec = {"containers": [{"name": "c", "command": ["sh", "-c", script]}], "restartPolicy": "Never"}
    await api.node.create("talk", spec)
    pod = await api.node.wait("talk", is_ready)
    for line in ("line 3", "oops"):  # two pipes: either may be read first
        await printed(api.node, pod, line)
    status, text = await api.get("/containerLogs/default/talk/c")
    assert (status, sorted(text.splitlines())) == (200, ["line 1", "line 2", "line 3", "oops"])
    assert (await api.get("/containerLogs/default/talk/c?tailLines=0"))[1] == ""
    assert len((await api.get("/containerLogs/default/talk/c?tailLines=2"))[1].splitlines()) == 2
    assert (await api.get("/containerLogs/default/talk/c?limitBytes=4"))[1] == "line"
    stamped = (await api.get("/containerLogs/default/talk/c?timestamps=true&tailLines=1"))[1]
    assert stamped.startswith("20") and "T" in stamped.split(" ")[0]
    assert (await api.get("/containerLogs/default/talk/c?tailLines=x"))[0] == 400
    assert (await api.get("/containerLogs/default/talk/c?previous=true"))[0] == 400
    path = "/containerLogs/default/talk/c?follow=true&tailLines=1"
    followed = b""
    async with api.session.get(api.url + path, ssl=api.context("kube-apiserver-kubelet-client")) as response:
        async for chunk in response.content.iter_any():
            if not followed:
                container_id = only(pod).container_id.removeprefix("pilotage://")
                pid = (api.node.config.run_dir / "containers" / container_id / "pid").read_text()
                Path("/proc", pid, "root/tmp/go").touch()
            followed += chunk
    assert followed.endswith(b"end\n")


async def test_exec_carries_streams_exit_codes_and_terminals(api: AgentApi) -> None:
    await api.node.create("web", {"containers": [{"name": "c", "command": SLEEP}]})
    await api.node.wait("web", is_ready)
    base = "/exec/default/web/c"
    command = "&command=sh&command=-c&command="
    send = [b"\x00typed\n", b"\xff\x00"]
    script = quote("cat; echo err >&2; exit 7")
    got = await api.stream(f"{base}?stdin=true&stdout=true&stderr=true{command}{script}", send)
    assert (got[1], got[2]) == (b"typed\n", b"err\n")
    status = json.loads(got[3])
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert json.loads((await api.stream(f"{base}?stdout=true&command=true", []))[3])["status"] == "Success"
    size = b"\x04" + json.dumps({"Width": 90, "Height": 33}).encode()
    script = 'while [ "$(stty size)" != "33 90" ]; do sleep 0.02; done; stty size; tty'
    got = await api.stream(f"{base}?stdin=true&stdout=true&tty=true{command}{quote(script)}", [size])
    assert got[1].startswith(b"33 90\r\n/dev/pts/")
    got = await api.stream(f"{base}?stdout=true&stderr=true&command=/no/such", [])
    assert json.loads(got[3])["status"] == "Failure"


async def test_attach_reaches_the_first_process(api: AgentApi) -> None:
    await api.node.create("cat", {"containers": [{"name": "c", "command": ["cat"], "stdin": True}]})
    await api.node.wait("cat", is_ready)
    got = await api.stream("/attach/default/cat/c?stdin=true&stdout=true", [b"\x00echo me\n"], until=b"echo me\n")
    assert got[1] == b"echo me\n"


async def test_port_forward_reaches_the_pods_own_loopback(api: AgentApi) -> None:
    serve = (
        "mkdir -p /srv/w; echo inside > /srv/w/x; cd /srv/w; python3 -m http.server 8081 --bind ::1 & "
        "exec python3 -m http.server 8080 --bind 127.0.0.1"
    )
    check = "exec 3<>/dev/tcp/127.0.0.1/8080 4<>/dev/tcp/::1/8081 || exit 1"
    probe = {"exec": {"command": ["bash", "-c", check]}, "periodSeconds": 1}
    container = {"name": "c", "command": ["sh", "-c", serve], "readinessProbe": probe}
    await api.node.create("web", {"containers": [container]})
    await api.node.wait("web", is_ready)
    path = "/portForward/default/web?port=8080&port=1&port=8081"
    got = await api.stream(path, [bytes([channel]) + b"GET /x HTTP/1.0\r\n\r\n" for channel in (0, 4)])
    assert got[0].startswith((8080).to_bytes(2, "little") + b"HTTP/1.0 200 OK")
    assert got[0].endswith(b"inside\n")
    assert b"error forwarding port 1 to pod web: [Errno 111]" in got[3]
    assert got[4].endswith(b"inside\n")
