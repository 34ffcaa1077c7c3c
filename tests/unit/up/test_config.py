"""What may be written in a cluster config, and what a mistake is answered with."""

from pathlib import Path

import pytest

from pilotage.kit import UsageError
from pilotage.up import ClusterConfig, load_config
from pilotage.up.configuration import check_config
from pilotage.up.core.config import IPv6Networks, NodeConfig, node_configs


def load(tmp_path: Path, text: str) -> ClusterConfig:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return load_config(path)


def test_an_empty_file_is_the_default_cluster(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing yet\n") == ClusterConfig()


def test_nodes_may_be_a_count_or_a_list(tmp_path: Path) -> None:
    assert load(tmp_path, "nodes: 3\n").nodes == 3
    config = load(tmp_path, "nodes:\n- zone: east\n- {name: big, labels: {disk: ssd}}\n")
    first, second = node_configs(config)
    assert (first.name, first.zone) == ("n1", "east")
    assert (second.name, second.zone, second.labels) == ("big", "zone-b", {"disk": "ssd"})


def test_a_second_family_has_ranges_of_its_own(tmp_path: Path) -> None:
    assert load(tmp_path, "networks: {ipv6: {}}\n").networks.ipv6 == IPv6Networks()
    assert load(tmp_path, "networks: {ipv6: {services: 'fd00:7::/108'}}\n").networks.ipv6 == IPv6Networks(
        services="fd00:7::/108"
    )


def test_zones_alternate_when_not_given() -> None:
    assert [node.zone for node in node_configs(ClusterConfig(nodes=3))] == ["zone-a", "zone-b", "zone-a"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("name: dev\nnode: 2\n", ":2: unknown key `node`", id="an unknown key names its line"),
        pytest.param(
            "name: dev\nnodes:\n- zone: a\n- zone: b\n  colour: red\n",
            ":5: unknown key `colour`",
            id="an unknown key deep inside names its line",
        ),
        pytest.param("name: dev\nports:\n  api: high\n", ":3: Expected `int`", id="a wrong type names its line"),
        pytest.param("name: Dev\n", ":1: name 'Dev' must be", id="a bad name"),
        pytest.param("name: dev\n\nnodes: 0\n", ":3: 0 nodes", id="too few nodes"),
        pytest.param("nodes:\n- name: a\n- name: a\n", ":3: node name 'a' is used twice", id="a name used twice"),
        pytest.param("ports:\n  http: 70000\n", ":2: port 70000", id="a port that does not exist"),
        pytest.param("networks:\n  pods: 10.89.0.0/16\n", ":2: pods 10.89.0.0/16 overlaps", id="ranges that overlap"),
        pytest.param("networks:\n  pods: 10.244.0.0/33\n", ":2: pods: ", id="a range that is none"),
        pytest.param(
            "networks:\n  loadBalancers: 10.90.0.0/24\n", ":2: loadBalancers 10.90.0.0/24 must lie", id="a foreign pool"
        ),
        pytest.param(
            "networks:\n  ipv6:\n    pods: fd00::/64\n", ":3: pods fd00::/64 is too small", id="too few pods of IPv6"
        ),
        pytest.param(
            "networks:\n  ipv6:\n    underlay: 10.0.0.0/8\n", ":3: underlay: ", id="an IPv4 range where IPv6 is meant"
        ),
        pytest.param(
            "networks:\n  ipv6: {loadBalancers: fd00:1::/112}\n",
            ":2: loadBalancers fd00:1::/112 must lie",
            id="IPv6 pool",
        ),
        pytest.param("a: [1\nb: 2\n", ":2: not YAML", id="text that is not YAML"),
        pytest.param("- a\n", ":1: Expected `mapping`", id="a list instead of a mapping"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/cluster.yaml{complaint}"), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml: cannot read config: No such file"):
        load_config(tmp_path / "absent.yaml")


def test_a_config_from_flags_is_checked_too() -> None:
    with pytest.raises(UsageError, match="between 1 and 100"):
        check_config(ClusterConfig(nodes=tuple(NodeConfig() for _ in range(101))))
