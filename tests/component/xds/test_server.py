"""The gRPC shell, spoken to by a plain gRPC client over its socket."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import grpc.aio
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2

from pilotage.kit.tasks import task_set
from pilotage.xds import AdsServer, NodeState, Resource, ResourceType, Snapshot
from pilotage.xds.server import METHOD_NAME, METHOD_SERVICE

DEADLINE_S = 60


def open_stream(channel: grpc.aio.Channel) -> Any:
    method = channel.stream_stream(
        f"/{METHOD_SERVICE}/{METHOD_NAME}",
        request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
    )
    return method(timeout=DEADLINE_S)


def ask(node: str, **fields: Any) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(node={"id": node}, type_url=ResourceType.CLUSTER.value, **fields)


async def test_each_node_is_served_and_its_state_reported(tmp_path: Path) -> None:
    path = tmp_path / "xds.sock"
    path.write_bytes(b"left over from a crash")
    changed = asyncio.Event()
    server = AdsServer(path=path, on_change=changed.set)

    async def state_of(node: str, **expected: object) -> NodeState:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                changed.clear()
                for state in server.states():
                    if state.node_id == node and all(getattr(state, key) == value for key, value in expected.items()):
                        return state
                await changed.wait()

    def cluster(content: str) -> Snapshot:
        version = len(content)
        message = cluster_pb2.Cluster(name="c", alt_stat_name=content)
        return Snapshot.of(version, [Resource.of(ResourceType.CLUSTER, "c", message)])

    async with task_set() as tasks:
        listening = asyncio.Event()
        tasks.start(server.run(on_ready=listening.set))
        await listening.wait()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        server.publish(cluster("1"))
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            one, two = open_stream(channel), open_stream(channel)
            for node, stream in (("one", one), ("two", two)):
                await stream.write(ask(node))
                first = await stream.read()
                assert first.resources[0].name == "c"
                await stream.write(ask(node, response_nonce=first.nonce))
                await state_of(node, applied=1, connected=True)
            server.publish(cluster("22"))
            second = await one.read()
            await one.write(ask("one", response_nonce=second.nonce, error_detail={"code": 3, "message": "no good"}))
            state = await state_of("one", applied=2)
            assert [item.message for item in state.rejected] == ["no good"]
            second = await two.read()
            await two.write(ask("two", response_nonce=second.nonce))
            assert (await state_of("two", applied=2)).rejected == ()
            two.cancel()
            await state_of("two", connected=False)
            assert (await state_of("one")).connected
            await one.done_writing()
    assert not path.exists()


async def test_node_that_connects_again_before_its_old_stream_ends_counts_as_connected(tmp_path: Path) -> None:
    server = AdsServer(path=tmp_path / "xds.sock")
    async with task_set() as tasks:
        listening = asyncio.Event()
        tasks.start(server.run(on_ready=listening.set))
        await listening.wait()
        server.publish(Snapshot.of(1, []))
        async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'xds.sock'}") as channel:
            old, new = open_stream(channel), open_stream(channel)

            async def connected() -> bool:
                return [(state.node_id, state.connected, state.applied) for state in server.states()] == [
                    ("n", True, 1)
                ]

            for stream in (old, new):
                await stream.write(ask("n"))
                await stream.write(ask("n", response_nonce=(await stream.read()).nonce))
                async with asyncio.timeout(DEADLINE_S):
                    while not await connected():
                        await asyncio.sleep(0.005)
            old.cancel()
            await new.write(ask("n", resource_names_subscribe=["c"]))
            answer = await new.read()
            assert list(answer.removed_resources) == ["c"]
            assert await connected()
            await new.done_writing()
