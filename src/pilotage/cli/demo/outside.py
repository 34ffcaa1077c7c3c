"""The world outside the cluster: a DNS server that knows one name, and the legacy server behind it.

Runs as a program of its own inside the fabric (`pilotage shell -- python -m pilotage.cli.demo.outside ADDRESS`), where
nothing else answers for names that are not the cluster's. Prints `ready` when both answer.
"""

import asyncio
import os
import sys
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from pilotage.cli.demo.world import script
from pilotage.up.process import die_with_parent

NAME = "legacy.example.test."
TTL_S = 30


def answer(query: bytes, address: str) -> bytes | None:
    """The reply to one question: an address for the one name, NODATA for its other types, NXDOMAIN for the rest."""
    try:
        question = dns.message.from_wire(query)
    except dns.exception.DNSException:
        return None
    response = dns.message.make_response(question)
    response.flags |= dns.flags.AA | dns.flags.RA
    if len(question.question) != 1:
        response.set_rcode(dns.rcode.FORMERR)
    elif question.question[0].name.to_text().lower() != NAME:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.question[0].rdtype == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(question.question[0].name, TTL_S, "IN", "A", address))
    return response.to_wire()


class _Dns(asyncio.DatagramProtocol):
    def __init__(self, address: str) -> None:
        self._address = address
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        reply = answer(data, self._address)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, peer)


async def serve(address: str) -> None:
    """Until the legacy server ends."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Dns(address), local_addr=(address, 53))
    words = (script("pilotage-echo"), "--http", "8088", "--listen", address, "--quiet")
    environment = {**os.environ, "POD_NAME": "legacy"}  # how the server names itself in its answers
    legacy = await asyncio.create_subprocess_exec(
        *words,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        preexec_fn=die_with_parent,  # this program is ended by a signal: nobody else would end the server
    )
    try:
        assert legacy.stdout is not None
        await legacy.stdout.readline()  # it prints what it listens on
        print("ready", flush=True)
        await legacy.wait()
    finally:
        if legacy.returncode is None:
            legacy.terminate()
            await legacy.wait()
        transport.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
