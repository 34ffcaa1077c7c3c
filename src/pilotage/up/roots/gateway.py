"""The gateway and its Envoy at the fabric's own address, and the relay from the host's loopback to it.

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
    address = launch.plan.address
    config = Config(
        run_dir=launch.layout.scratch / "gateway",
        address=address,
        listen_http=(address, _HTTP_PORT),
        listen_https=(address, _HTTPS_PORT),
        public_https_port=launch.sockets["https"].getsockname()[1],
        access_log="-",
    )
    forwards = (
        Forward(listener=launch.sockets["http"], target=(address, _HTTP_PORT)),
        Forward(listener=launch.sockets["https"], target=(address, _HTTPS_PORT)),
    )
    async with Client.from_kubeconfig(launch.kubeconfig("gateway"), user_agent="pilotage-gateway") as client:
        async with task_set() as tasks:
            tasks.start(forward(forwards), name="forward")
            await run(config, client, on_ready=launch.on_ready)
