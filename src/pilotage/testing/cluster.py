"""A real API server in the same process, for component tests.

Stands apart because every component's tests start from it. It listens on a free port of the loopback address, keeps its
data in memory (or wherever the test says) and is gone, task and socket, when the block ends. Controllers, agents and
the rest are started by the test that needs them, as ordinary clients.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pilotage.api.core_v1 import ServiceAccount
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError, is_already_exists
from pilotage.apiserver import Config, run
from pilotage.apiserver.certificates import Authority, write_kubeconfig
from pilotage.client import Client
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import task_set


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """A running API server."""

    client: Client  # the administrator
    kubeconfig_path: Path  # the administrator's
    data_dir: Path
    url: str

    def kubeconfig_of(self, user: str, *groups: str) -> Path:
        """A kubeconfig of somebody else, by certificate: with no more rights than that user has."""
        authority = Authority.load_or_create(self.data_dir / "pki")
        pair = authority.issue_client(user, groups)
        path = self.data_dir / f"{user.replace(':', '-')}.kubeconfig"
        write_kubeconfig(
            path,
            server=self.url,
            ca_pem=authority.certificate_pem,
            certificate_pem=pair.certificate_pem,
            key_pem=pair.key_pem,
        )
        return path


@asynccontextmanager
async def api_server(
    *,
    storage: str = "memory:",
    data_dir: Path | None = None,
    clock: Clock = SYSTEM_CLOCK,
    service_cidr: str = "10.96.0.0/16",
) -> AsyncIterator[ApiServer]:
    """Start the server and an administrator's client; stop both at the end.

    With `data_dir` its keys (and a `sqlite:` store inside it) survive the block, so that a test can restart it.
    """
    with tempfile.TemporaryDirectory(prefix="pilotage-api-") as scratch:
        directory = data_dir or Path(scratch)
        config = Config(
            data_dir=directory, storage=storage, listen=("127.0.0.1", 0), clock=clock, service_cidr=service_cidr
        )
        async with task_set() as tasks:
            ready = asyncio.Event()
            tasks.start(run(config, on_ready=ready.set), name="apiserver")
            async with asyncio.timeout(30):
                await ready.wait()
            kubeconfig = directory / "admin.kubeconfig"
            async with Client.from_kubeconfig(kubeconfig, user_agent="pilotage-test") as client:
                for namespace in ("default", "kube-system"):
                    await make_service_account(client, namespace)
                yield ApiServer(
                    client=client, kubeconfig_path=kubeconfig, data_dir=directory, url=client.connection.server
                )


async def make_service_account(client: Client, namespace: str) -> None:
    """What the ServiceAccount controller does for every namespace; without it no pod is admitted there."""
    try:
        await client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace=namespace)))
    except ApiError as error:
        if not is_already_exists(error):
            raise
