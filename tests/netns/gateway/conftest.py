"""A real Envoy, driven through the translator and the ADS server, with small real backends.

In a network namespace because the API refuses endpoints on the loopback, so the backends need an address.
"""

import asyncio
import base64
import datetime
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.netns.conftest import own_address

from pilotage.api.codec import convert, load_yaml
from pilotage.api.core_v1 import Secret, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.networking_v1 import Ingress, IngressClass
from pilotage.gateway.core.ingress import Inputs, Ports, Translation, translate_ingresses
from pilotage.gateway.core.translate import Options, translate
from pilotage.gateway.envoy import EnvoyConfig, run_envoy
from pilotage.kit.tasks import task_set
from pilotage.xds import AdsServer, NodeState, Resource, Snapshot

DEADLINE_S = 30.0
BACKEND_ADDRESS = "10.244.1.5"

INGRESS_CLASS = """
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: pilotage}
spec: {controller: pilotage.dev/gateway}
"""


class Authority:
    """A certificate authority for one test."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(
            "test authority", self.key, None, x509.BasicConstraints(ca=True, path_length=None)
        )

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.pem)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def secret(self, name: str, *hosts: str) -> str:
        """A TLS Secret's manifest for a new key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        leaf = self._sign(hosts[0], key, names, x509.BasicConstraints(ca=False, path_length=None))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        data = {"tls.crt": leaf.public_bytes(serialization.Encoding.PEM), "tls.key": pem}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"namespace": "default", "name": name},
                "type": "kubernetes.io/tls",
                "data": {entry: base64.b64encode(value).decode() for entry, value in data.items()},
            }
        )

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        names: x509.SubjectAlternativeName | None,
        constraints: x509.BasicConstraints,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
        start = datetime.datetime(2020, 1, 1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start.replace(year=2099))
            .add_extension(constraints, critical=True)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Harness:
    """Envoy, the server it is configured by, and the objects it is configured from."""

    def __init__(self, envoy: EnvoyConfig, server: AdsServer, changed: asyncio.Condition) -> None:
        self.envoy = envoy
        self.server = server
        self.authority = Authority()
        self.version = 0
        self.pids: list[int] = []
        self.admin: aiohttp.ClientSession
        self.client: aiohttp.ClientSession
        self._changed = changed

    async def apply(self, *manifests: str) -> Translation:
        """Bring Envoy to these objects (and an IngressClass) and wait for its acknowledgement."""
        result = self.translate(*manifests)
        await self.publish(*translate(result.ir, Options(access_log=str(self.envoy.run_dir / "access.log"))))
        return result

    def translate(self, *manifests: str) -> Translation:
        ports = Ports(http=(("127.0.0.1", 0),), https=(("127.0.0.1", 0),), redirect=8443)
        return translate_ingresses(read_inputs(INGRESS_CLASS, *manifests), ports)

    async def publish(self, *resources: Resource) -> NodeState:
        self.version += 1
        self.server.publish(Snapshot.of(self.version, resources))
        return await self.wait_state(lambda state: state.applied >= self.version)

    async def wait_state(self, condition: Callable[[NodeState], bool]) -> NodeState:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            while True:
                for state in self.server.states():
                    if condition(state):
                        return state
                await self._changed.wait()

    async def port(self, listener: str) -> int:
        """Where Envoy listens; it warms listeners after it acknowledged them."""

        async def look() -> int | None:
            async with self.admin.get("http://envoy/listeners?format=json") as response:
                statuses = (await response.json(content_type=None)).get("listener_statuses", [])
            for status in statuses:
                if status["name"] == listener:
                    port: int = status["local_address"]["socket_address"]["port_value"]
                    return port
            return None

        return await eventually(look)

    async def stat(self, name: str) -> int:
        async with self.admin.get("http://envoy/stats", params={"filter": f"^{name}$"}) as response:
            text = await response.text()
        return int(text.rpartition(":")[2]) if text.strip() else 0

    async def get(self, host: str, path: str, **headers: str) -> tuple[int, Any]:
        """A clear-text request for `host`; status and decoded answer (text when it is not JSON)."""
        port = await self.port("http")
        async with self.client.get(
            f"http://127.0.0.1:{port}{path}", headers={"Host": host, **headers}, allow_redirects=False
        ) as response:
            text = await response.text()
            if response.content_type == "application/json":
                return response.status, json.loads(text)
            return response.status, response.headers.get("Location", text)


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    """The first result that is not None."""
    async with asyncio.timeout(DEADLINE_S):
        while (result := await look()) is None:
            await asyncio.sleep(0.01)
    return result


def read_inputs(*manifests: str) -> Inputs:
    fields: dict[str, tuple[type, str]] = {
        "Ingress": (Ingress, "ingresses"),
        "IngressClass": (IngressClass, "ingress_classes"),
        "Service": (Service, "services"),
        "EndpointSlice": (EndpointSlice, "endpoint_slices"),
        "Secret": (Secret, "secrets"),
    }
    found: dict[str, list[Any]] = {field: [] for _, field in fields.values()}
    for manifest in manifests:
        for document in load_yaml(manifest):
            kind, field = fields[document["kind"]]
            document["metadata"].setdefault("namespace", "default")
            found[field].append(convert(kind, document))
    return Inputs(**{field: tuple(objects) for field, objects in found.items()})


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    changed = asyncio.Condition()

    async def notify() -> None:
        async with changed:
            changed.notify_all()

    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(task_set())
        server = AdsServer(path=tmp_path / "xds.sock", on_change=lambda: tasks.start(notify()))
        config = EnvoyConfig(run_dir=tmp_path, xds_path=tmp_path / "xds.sock", node_id="test", concurrency=1)
        listening = asyncio.Event()
        tasks.start(server.run(on_ready=listening.set))
        await listening.wait()
        result = Harness(config, server, changed)
        tasks.start(run_envoy(config, on_start=result.pids.append))
        connector = aiohttp.UnixConnector(str(config.admin_path))
        result.admin = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        result.client = await stack.enter_async_context(aiohttp.ClientSession())
        yield result


@pytest.fixture(scope="module")
def backend_address() -> Iterator[str]:
    """An address of this namespace for backends to listen on."""
    with own_address(BACKEND_ADDRESS):
        yield BACKEND_ADDRESS


@pytest.fixture
def http_backend(backend_address: str) -> Callable[[str], Any]:
    """`async with http_backend(name) as port`: answers every request with its name and what it saw."""

    @asynccontextmanager
    async def start(name: str) -> AsyncIterator[int]:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Upgrade") == "websocket":
                socket = web.WebSocketResponse()
                await socket.prepare(request)
                async for message in socket:
                    await socket.send_str(f"{name}: {message.data}")
                return socket
            headers = {key.lower(): value for key, value in request.headers.items()}
            return web.json_response({"backend": name, "path": request.path_qs, "headers": headers})

        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, backend_address, 0).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    return start


@pytest.fixture
def service(backend_address: str) -> Callable[..., str]:
    """`service(name, port, …)`: a Service and one EndpointSlice for each endpoint port of the backends' address."""

    def make(name: str, *ports: int, app_protocol: str = "", zone: str = "") -> str:
        port = {"name": "main", "port": 80} | ({"appProtocol": app_protocol} if app_protocol else {})
        documents: list[dict[str, Any]] = [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [port]}}
        ]
        documents += [
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": f"{name}-{number}", "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [
                    {"addresses": [backend_address], "conditions": {"ready": True}} | ({"zone": zone} if zone else {})
                ],
                "ports": [{"name": "main", "port": number, "protocol": "TCP"}],
            }
            for number in ports
        ]
        return "\n---\n".join(json.dumps(document) for document in documents)

    return make


@pytest.fixture
def ingress() -> Callable[..., str]:
    """`ingress(name, {"host/path": service}, …)`: all paths are prefixes."""

    def make(
        name: str, routes: dict[str, str], *, tls: dict[str, list[str]] | None = None, redirect: bool = False
    ) -> str:
        rules = []
        for place, backend in routes.items():
            host, _, path = place.partition("/")
            entry = {
                "path": f"/{path}",
                "pathType": "Prefix",
                "backend": {"service": {"name": backend, "port": {"name": "main"}}},
            }
            rules.append(({"host": host} if host else {}) | {"http": {"paths": [entry]}})
        annotations = {"pilotage.dev/ssl-redirect": "true"} if redirect else {}
        return json.dumps(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": {"name": name, "annotations": annotations},
                "spec": {
                    "ingressClassName": "pilotage",
                    "rules": rules,
                    "tls": [{"secretName": secret, "hosts": hosts} for secret, hosts in (tls or {}).items()],
                },
            }
        )

    return make
