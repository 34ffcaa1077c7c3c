"""The API server on the host's loopback and on the fabric's addresses, and everybody's credentials.

Credentials are issued here, before serving, because this is the process that holds the authority; the supervisor starts
the other processes as soon as they exist.
"""

import socket

from pilotage.apiserver import Config, run
from pilotage.apiserver.certificates import Authority, write_kubeconfig, write_private
from pilotage.up.core.plan import API_PORT
from pilotage.up.core.processes import ADMIN, identities
from pilotage.up.launch import Launch

_BACKLOG = 1024


async def serve(launch: Launch) -> None:
    """Issue credentials, then serve until cancelled."""
    layout, plan = launch.layout, launch.plan
    inside = [
        socket.create_server(
            (address, API_PORT), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=_BACKLOG
        )
        for address in plan.addresses
    ]
    authority = Authority.load_or_create(layout.data / "pki")
    issue_credentials(launch, authority)
    launch.on_issued()
    config = Config(
        data_dir=layout.data,
        storage=f"sqlite:{layout.data / 'state.db'}",
        advertise=(plan.address, API_PORT),
        service_cidr=",".join(plan.service_cidrs),
        cluster_domain=plan.domain,
    )
    await run(config, sockets=[launch.sockets["api"], *inside], on_ready=launch.on_ready)


def issue_credentials(launch: Launch, authority: Authority) -> None:
    """A kubeconfig for each identity inside the fabric, one for the administrator outside, a serving certificate for
    each agent. Overwrites what is there: they live as long as the cluster runs.
    """
    layout = launch.layout
    for identity in identities(launch.plan):
        pair = authority.issue_client(identity.common_name, identity.organizations)
        places = [(layout.credential(identity.file), launch.plan.api_url)]
        if identity is ADMIN:
            places.append((layout.kubeconfig, f"https://127.0.0.1:{launch.sockets['api'].getsockname()[1]}"))
        for file, server in places:
            write_kubeconfig(
                file,
                server=server,
                ca_pem=authority.certificate_pem,
                certificate_pem=pair.certificate_pem,
                key_pem=pair.key_pem,
                cluster=layout.name,
                user=identity.common_name,
            )
    write_private(layout.credentials / "ca.crt", authority.certificate_pem)
    for node in launch.plan.nodes:
        serving = authority.issue_server(f"system:node:{node.name}", (node.name,), (*node.addresses, "127.0.0.1"))
        write_private(layout.credentials / f"agent-{node.name}.crt", serving.certificate_pem)
        write_private(layout.credentials / f"agent-{node.name}.key", serving.key_pem)
