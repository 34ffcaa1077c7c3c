"""The whole component: objects in a real API server, requests through a real Envoy."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from pilotage.api.coordination_v1 import Lease
from pilotage.api.core_v1 import Event, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.networking_v1 import Ingress
from pilotage.api.status import ApiError, is_not_found
from pilotage.client import Client
from pilotage.client.watermark import read_watermark
from pilotage.gateway import Config, run
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server

DEADLINE_S = 20.0


async def until(look: Callable[[], Any]) -> Any:
    """The first true result of `look`, asked every few milliseconds."""
    async with asyncio.timeout(DEADLINE_S):
        while not (result := await look()):
            await asyncio.sleep(0.01)
    return result


@asynccontextmanager
async def gateway(client: Client, run_dir: Path) -> AsyncIterator[list[str]]:
    """A running gateway; yields where its HTTP listener is, on each loopback."""
    config = Config(
        run_dir=run_dir,
        addresses=("192.0.2.1", "2001:db8::1"),
        listen_http=(("127.0.0.1", 0), ("::1", 0)),
        listen_https=(("127.0.0.1", 0),),
        node="here",
        concurrency=1,
    )
    ready = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(run(config, client, on_ready=ready.set))
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        connector = aiohttp.UnixConnector(str(run_dir / "admin.sock"))
        async with aiohttp.ClientSession(connector=connector) as admin:

            async def places() -> list[str]:
                async with admin.get("http://envoy/listeners") as response:
                    lines = (await response.text()).splitlines()
                return [line.removeprefix("http::") for line in lines if line.startswith("http::")]

            yield await until(places)


async def apply(client: Client, *manifests: str) -> None:
    for manifest in manifests:
        for text in manifest.split("\n---\n"):
            document = json.loads(text)
            document["metadata"].setdefault("namespace", "default")
            document.setdefault("apiVersion", "v1")
            await client.apply(document, field_manager="test")


async def test_from_objects_to_answers(tmp_path: Path, http_backend: Any, service: Any, ingress: Any) -> None:
    ingress_class = json.dumps(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": "pilotage"},
            "spec": {"controller": "pilotage.dev/gateway"},
        }
    )
    run_dir = tmp_path / "gateway"
    async with api_server() as api, http_backend("a") as port_a, http_backend("b") as port_b:
        async with (
            aiohttp.ClientSession() as http,
            Client.from_kubeconfig(api.kubeconfig_of("system:pilotage:gateway")) as own,
            gateway(own, run_dir) as places,
        ):
            assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
            for socket in ("xds.sock", "admin.sock"):
                assert stat.S_IMODE((run_dir / socket).stat().st_mode) == 0o600

            async def ask(path: str = "/", place: int = 0) -> str:
                async with http.get(f"http://{places[place]}{path}", headers={"Host": "shop.test"}) as response:
                    return (await response.json())["backend"] if response.status == 200 else str(response.status)

            async def answers(expected: str, path: str = "/") -> bool:
                return await ask(path) == expected

            assert await ask() == "404"
            await apply(api.client, ingress_class, ingress("shop", {"shop.test/": "web"}))
            await until(lambda: answers("503"))  # its Service does not exist yet
            assert await until(lambda: _events(api.client, "ServiceNotFound")) == ["shop"]
            await apply(api.client, service("web", port_a))
            await until(lambda: answers("a"))
            assert places[1].startswith("[::1]:")
            assert await ask(place=1) == "a"

            async def addresses() -> list[str]:
                entries = (await api.client.get(Ingress, "shop", namespace="default")).status.load_balancer.ingress
                return [entry.ip for entry in entries]

            assert await until(addresses) == ["192.0.2.1", "2001:db8::1"]

            await apply(api.client, service("web", port_a, port_b))
            await until(lambda: answers("b"))
            changed = await _newest(api.client)

            async def has_passed() -> bool:
                return await _watermark(api.client) >= changed

            await until(has_passed)

            await api.client.patch(Ingress, "shop", {"spec": {"ingressClassName": "other"}}, namespace="default")
            await until(lambda: answers("404"))

            async def addresses_are_gone() -> bool:
                return not await addresses()

            await until(addresses_are_gone)
        assert list(run_dir.glob("*.sock")) == []


async def test_envoy_serves_on_while_the_api_is_away(
    tmp_path: Path, http_backend: Any, service: Any, ingress: Any
) -> None:
    async with http_backend("a") as backend, aiohttp.ClientSession() as http, task_set() as tasks:
        served, stop, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        places: list[str] = []

        async def with_api() -> None:
            async with api_server(data_dir=tmp_path / "api") as api:
                client = Client.from_kubeconfig(api.kubeconfig_path)
                tasks.start(serve(client))
                document = (
                    ingress("shop", {"/": "web"})
                    .replace('"annotations": {}', '"annotations": {"kubernetes.io/ingress.class": "pilotage"}')
                    .replace('"ingressClassName": "pilotage", ', "")
                )
                await apply(api.client, service("web", backend), document)
                await stop.wait()
            stopped.set()

        async def serve(client: Client) -> None:
            async with client, gateway(client, tmp_path / "gateway") as found:
                places.extend(found)
                served.set()
                await asyncio.Event().wait()

        async def answer() -> bool:
            async with http.get(f"http://{places[0]}/") as response:
                return response.status == 200

        tasks.start(with_api())
        await served.wait()
        await until(answer)
        stop.set()
        await stopped.wait()
        for _ in range(20):
            assert await answer()


def test_import_is_light() -> None:
    """A process that only knows the gateway's surface pays neither for gRPC nor for Envoy's protobufs."""
    code = (
        "import sys, pilotage.gateway; print([m for m in ('grpc', 'envoy', 'cryptography.x509') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.strip() == "[]"


async def _events(client: Client, reason: str) -> list[str]:
    events = await client.list(Event, namespace="default")
    return [event.involved_object.name for event in events.items if event.reason == reason]


async def _newest(client: Client) -> int:
    services, slices = await client.list(Service), await client.list(EndpointSlice)
    return max(item.metadata.version_number for item in (*services.items, *slices.items))


async def _watermark(client: Client) -> int:
    try:
        return read_watermark(await client.get(Lease, "watermark-gateway-here", namespace="kube-system"))
    except ApiError as error:
        if is_not_found(error):
            return 0
        raise
