"""`pilotage dns --workers`: several processes on one port, each with its watermark; all end together."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import dns.asyncquery
import dns.message

from pilotage.api.coordination_v1 import Lease
from pilotage.testing.cluster import api_server
from pilotage.testing.dns import service
from pilotage.testing.etcd import free_port


async def test_workers_share_a_port_and_end_together(until: Any) -> None:
    port = free_port()
    async with api_server() as api:
        await api.client.create(service("web", "10.96.77.20"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pilotage.cli", "dns", "--kubeconfig", str(api.kubeconfig_path)),
            *("--listen", f"127.0.0.1:{port}", "--node", "n1", "--workers", "2", "--log-level", "error"),
        )
        try:

            async def both_state_a_watermark() -> bool:
                leases = await api.client.list(Lease, namespace="kube-system")
                found = {lease.metadata.name for lease in leases.items}
                return {"watermark-dns-1-n1", "watermark-dns-2-n1"} <= found

            await until(both_state_a_watermark, deadline_s=60)
            for _ in range(16):  # every one from a port of its own, so that both workers get some
                query = dns.message.make_query("web.default.svc.cluster.local.", "A")
                response = await dns.asyncquery.udp(query, "127.0.0.1", timeout=10, port=port)
                assert [str(r) for rrset in response.answer for r in rrset] == ["10.96.77.20"]
        finally:
            process.terminate()
            async with asyncio.timeout(30):
                assert await process.wait() == 0
        # Nobody holds the port any more.
        with_exclusive = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", port)
        )
        with_exclusive[0].close()
