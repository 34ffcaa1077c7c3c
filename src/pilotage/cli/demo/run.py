"""The order of things: a cluster, the manifests, the checks, the drawing, nothing left.

Called by the `demo` command. Prints through the callbacks given, so that it can be tested and shown as plain lines or
with colour. Nothing of it is special: every step is a command that is printed and could be typed.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Node, Pod, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import Object
from pilotage.api.networking_v1 import Ingress
from pilotage.cli.demo.checks import CHECKS
from pilotage.cli.demo.world import CheckError, World, run, script
from pilotage.kit.clock import SYSTEM_CLOCK
from pilotage.kit.errors import UsageError
from pilotage.observe import Snapshot, Topology, Traffic, build_topology
from pilotage.observe.core.svg import draw_svg
from pilotage.observe.core.text import draw_text

K = TypeVar("K", bound=Object)

FABRIC_ADDRESS = "10.89.0.1"  # where the world outside the cluster lives; the cluster's DNS forwards to it
CERTIFICATE_HOSTS = ("shop.example.test", "orders.example.test")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the user chose."""

    manifests: Path
    svg: Path
    name: str = "demo"
    nodes: int = 2
    keep: bool = False  # leave the cluster running


async def run_demo(
    options: DemoOptions, say: Callable[[str], None], line: Callable[[bool, str, str, str], None]
) -> int:
    """0 when every check passed, 1 otherwise.

    `say` prints progress; `line(passed, title, asked, answered)` prints one check.
    """
    if not options.manifests.is_dir():
        raise UsageError(
            f"no manifests in {options.manifests}; give --manifests DIR (examples/topology of the sources)"
        )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pilotage-demo-") as scratch:
        async with _cluster(options, Path(scratch), say) as world:
            async with _outside(world):
                await _apply(world, options, say)
                failed = await _check(world, line)
                topology = await _topology(world)
        say("")
        say(draw_text(topology))
        options.svg.write_text(draw_svg(topology, title=f"{options.name}: what answered whom"))
        say("")
        say(f"drawn in {options.svg}")
    total = len(CHECKS)
    verdict = f"all {total} checks passed" if not failed else f"{failed} of {total} checks failed"
    say(f"{verdict} in {time.monotonic() - started:.1f} s")
    return 1 if failed else 0


@asynccontextmanager
async def _cluster(options: DemoOptions, scratch: Path, say: Callable[[str], None]) -> AsyncIterator[World]:
    """A cluster of its own, whose files live in a scratch folder unless it is to be kept."""
    environment = dict(os.environ)
    if not options.keep:
        environment["PILOTAGE_HOME"] = str(scratch / "home")
    pilotage = script("pilotage")
    words = ("up", "--name", options.name, "--nodes", str(options.nodes), "--detach")
    say(f"$ pilotage {' '.join(words)}")
    started = time.monotonic()
    try:
        await run(pilotage, *words, env=environment)
        say(f"  API answering, {options.nodes} nodes Ready after {time.monotonic() - started:.1f} s")
        kubeconfig = Path((await run(pilotage, "kubeconfig", "--name", options.name, env=environment)).strip())
        status = json.loads(await run(pilotage, "status", "--name", options.name, "-o", "json", env=environment))
        ports: Mapping[str, int] = status["ports"]
        yield World(
            name=options.name,
            kubeconfig=kubeconfig,
            http=f"127.0.0.1:{ports['http']}",
            https=f"127.0.0.1:{ports['https']}",
            certificate=scratch / "shop.crt",
            environment=environment,
        )
    finally:
        if not options.keep:
            await run(pilotage, "down", "--name", options.name, env=environment, accept=(0, 1))


@asynccontextmanager
async def _outside(world: World) -> AsyncIterator[None]:
    """The legacy server and the DNS that knows it, in the fabric."""
    process = await asyncio.create_subprocess_exec(
        *(script("pilotage"), "shell", "--name", world.name, "--"),
        *(sys.executable, "-m", "pilotage.cli.demo.outside", FABRIC_ADDRESS),
        stdout=asyncio.subprocess.PIPE,
        env=dict(world.environment),
    )
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise CheckError("the world outside the cluster did not start")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _apply(world: World, options: DemoOptions, say: Callable[[str], None]) -> None:
    """The manifests by plain kubectl, then wait until everything in them is rolled out."""
    _make_certificate(world.certificate)
    say(f"$ kubectl apply -f {options.manifests}")
    started = time.monotonic()
    await world.kubectl("apply", "--filename", str(options.manifests / "00-namespace.yaml"))
    key, certificate = world.certificate.with_suffix(".key"), world.certificate
    await world.kubectl("create", "secret", "tls", "shop-tls", f"--cert={certificate}", f"--key={key}")
    await world.kubectl("apply", "--filename", str(options.manifests))
    workloads = (await world.kubectl("get", "deployments,statefulsets", "--output", "name")).split()
    for workload in workloads:
        await world.kubectl("rollout", "status", workload, "--timeout=60s")
    await world.kubectl("wait", "ingress/edge", "--for=jsonpath={.status.loadBalancer.ingress}", "--timeout=30s")
    await world.kubectl("wait", "service/public", "--for=jsonpath={.status.loadBalancer.ingress}", "--timeout=30s")
    services = (await world.objects("services"))["items"]
    world.traffic.services = frozenset(service["metadata"]["name"] for service in services)
    say(f"  {len(workloads)} workloads rolled out after {time.monotonic() - started:.1f} s")


async def _check(world: World, line: Callable[[bool, str, str, str], None]) -> int:
    failed = 0
    for check in CHECKS:
        try:
            asked, answered = await check.run(world)
        except CheckError as error:
            failed += 1
            line(False, check.title, "", str(error))
        except (LookupError, TypeError, ValueError) as error:  # an answer of another shape than the check reads
            failed += 1
            line(False, check.title, "", f"not the answer expected: {type(error).__name__} {error}")
        else:
            line(True, check.title, asked, answered)
    return failed


async def _topology(world: World) -> Topology:
    objects = await world.objects("ingresses,services,endpointslices,pods,nodes")

    def of(kind: type[K]) -> tuple[K, ...]:
        return tuple(convert(kind, item) for item in objects["items"] if item["kind"] == kind.kind)

    snapshot = Snapshot(
        ingresses=of(Ingress), services=of(Service), slices=of(EndpointSlice), pods=of(Pod), nodes=of(Node)
    )
    traffic: Traffic = world.traffic
    return build_topology(snapshot, traffic)


def _make_certificate(path: Path) -> None:
    """A self-signed certificate for the demo's hosts; the key beside it, readable by its owner only."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, CERTIFICATE_HOSTS[0])])
    now = SYSTEM_CLOCK.wall()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in CERTIFICATE_HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with open(os.open(path.with_suffix(".key"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
