"""The gateway and its Envoy at the fabric's own addresses, and the relay from the host's loopback to it.

Envoy listens where the world outside the cluster lives; the user's browser is on the host, so the two published
sockets, opened before the fabric, are relayed in this process.
"""

from pilotage.client import Client
from pilotage.gateway import Config, Forward, forward, run
from pilotage.kit.tasks import task_set
from pilotage.up.launch import Launch

_HTTP_PORT, _HTTPS_PORT = 80, 443


async def serve(launch: Launch) -> None:
    """Run gateway and relay until cancelled; ready when Envoy has acknowledged its first snapshot."""
    addresses = launch.plan.addresses
    http = tuple((address, _HTTP_PORT) for address in addresses)
    https = tuple((address, _HTTPS_PORT) for address in addresses)
    config = Config(
        run_dir=launch.layout.scratch / "gateway",
        addresses=addresses,
        listen_http=http,
        listen_https=https,
        public_https_port=launch.sockets["https"].getsockname()[1],
        access_log="-",
    )
    forwards = (
        Forward(listener=launch.sockets["http"], target=http[0]),
        Forward(listener=launch.sockets["https"], target=https[0]),
    )
    async with Client.from_kubeconfig(launch.kubeconfig("gateway"), user_agent="pilotage-gateway") as client:
        async with task_set() as tasks:
            tasks.start(forward(forwards), name="forward")
            await run(config, client, on_ready=launch.on_ready)
