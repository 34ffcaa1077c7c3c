"""Views by namespace as pods live them: real pods of two namespaces ask one name and hear two answers."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.netns.agent.conftest import NodeUnderTest, eventually, node_under_test

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Namespace, Pod
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.dns import Config, Server
from pilotage.testing.cluster import make_service_account

NAME = "api.example"
CHAIN = f"""
chain:
  - view:
      namespaces: [team-a]
      names: [{NAME}]
      chain:
        - local: {{zone: {NAME}, records: ["@ 30 A 192.0.2.20"]}}
  - local: {{zone: {NAME}, records: ["@ 30 A 192.0.2.10"]}}
"""
OUTER, INNER = "192.0.2.10", "192.0.2.20"
ASK = f"""
import socket, time
while True:
    try:
        print(socket.gethostbyname("{NAME}"), flush=True)
    except OSError as error:
        print("nothing", flush=True)
    time.sleep(0.02)
"""

pytestmark = pytest.mark.skipif(shutil.which("runc") is None, reason="no runc: `make dev` installs it")


async def create_asker(node: NodeUnderTest, namespace: str, name: str) -> Pod:
    document = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": node.config.node,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["10.244.1.1"], "options": [{"name": "attempts", "value": "5"}]},
            "containers": [{"name": "c", "image": "localhost/host", "command": ["python3", "-c", ASK]}],
        },
    }
    return await node.client.create(convert(Pod, document))


def heard(node: NodeUnderTest, pod: Pod) -> list[str]:
    whole, _, _ = node.log(pod, "c").rpartition("\n")  # the last line may be half written
    return [line.split()[-1] for line in whole.splitlines()]


async def hears(node: NodeUnderTest, pod: Pod, answer: str, times: int = 10) -> None:
    """From some moment on nothing else; before, only what everybody hears."""

    async def look() -> bool:
        return heard(node, pod)[-times:] == [answer] * times

    await eventually(look)
    answers = heard(node, pod)
    first = answers.index(answer)
    assert set(answers[first:]) == {answer}
    assert set(answers[:first]) <= {OUTER}


@pytest.mark.parametrize("through", ["start", "reload"])
async def test_pods_of_two_namespaces_hear_two_answers(tmp_path: Path, through: str) -> None:
    chain = tmp_path / "dns.yaml"
    chain.write_text(CHAIN if through == "start" else f'chain: [local: {{zone: {NAME}, records: ["@ A {OUTER}"]}}]')
    async with node_under_test(tmp_path) as node:
        await node.client.create(Namespace(metadata=ObjectMeta(name="team-a")))
        await make_service_account(node.client, "team-a")
        await node.start_agent()  # makes the bridge whose address the server takes
        server = Server(Config(listen=("10.244.1.1:53",), node="n1", config_file=str(chain)))
        ready = asyncio.Event()
        node.tasks.start(server.run(node.client, ready.set), key="dns")
        async with asyncio.timeout(20):
            await ready.wait()
        try:
            other = await create_asker(node, "default", "other")
            await hears(node, other, OUTER)
            first = await create_asker(node, "team-a", "first")
            chain.write_text(CHAIN)
            await hears(node, first, INNER)
            # A pod that appears while the server serves is known by the address that its status shows.
            second = await create_asker(node, "team-a", "second")
            await hears(node, second, INNER)
            await node.client.delete(Pod, "first", namespace="team-a")
            so_far = len(heard(node, second))

            async def asked_on() -> bool:
                return len(heard(node, second)) > so_far + 20

            await eventually(asked_on)
            await hears(node, second, INNER)
            assert set(heard(node, other)) == {OUTER}
        finally:
            await node.clear()
            node.tasks.cancel("dns")
