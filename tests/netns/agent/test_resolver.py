"""What a pod's resolver reads, policy by policy, from inside."""

from pathlib import Path
from typing import Any

import pytest

from .conftest import NodeUnderTest, eventually
from .test_pods import events_of, has_phase, printed

SEARCHES = [f"{letter * 50}.example.test" for letter in "abcdefgh"]  # more than 6, more than 256 characters


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            {},
            ["search default.svc.cluster.local svc.cluster.local cluster.local", "nameserver 10.96.0.10",
             "options ndots:5"],
            id="ClusterFirst",
        ),
        pytest.param({"hostNetwork": True}, None, id="ClusterFirst on the node's network"),
        pytest.param({"dnsPolicy": "Default"}, None, id="Default"),
        pytest.param(
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            ["nameserver 10.96.0.10", "options ndots:5"],
            id="ClusterFirstWithHostNet",
        ),
        pytest.param(
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "searches": SEARCHES,
                                                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}},
            ["search " + " ".join(SEARCHES), "nameserver 192.0.2.1", "options ndots:2 edns0"],
            id="None",
        ),
    ],
)  # fmt: skip
async def test_resolv_conf(node: NodeUnderTest, spec: dict[str, Any], expected: list[str] | None) -> None:
    container = {"name": "c", "command": ["sh", "-c", "cat /etc/resolv.conf; echo done"]}
    await node.create("asks", {"containers": [container], "restartPolicy": "Never", **spec})
    pod = await node.wait("asks", has_phase("Succeeded"))
    log = await printed(node, pod, "done")
    lines = [line.split(" F ", 1)[1] for line in log.splitlines()][:-1]
    if expected is None:
        own = Path("/etc/resolv.conf").read_text().split("\n")
        assert [line for line in lines if line.startswith("nameserver")] == [
            line.strip() for line in own if line.startswith("nameserver")
        ][:3]
        assert "nameserver 10.96.0.10" not in lines
    else:
        if expected[0].startswith("search"):
            assert f"{lines[0]} ".startswith(f"{expected[0]} ")  # the node's own domains may follow
        assert [line for line in lines if not line.startswith("search")] == [
            line for line in expected if not line.startswith("search")
        ]


async def test_what_a_resolver_cannot_read_is_left_out_and_told(node: NodeUnderTest) -> None:
    container = {"name": "c", "command": ["true"]}
    config = {"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]}
    await node.create("asks", {"containers": [container], "restartPolicy": "Never", "dnsConfig": config})
    pod = await node.wait("asks", has_phase("Succeeded"))

    async def told() -> bool:
        message = (await events_of(node, pod)).get("DNSConfigForming", "")
        return message.endswith("the applied nameserver line is: 10.96.0.10 192.0.2.1 192.0.2.2")

    await eventually(told)
