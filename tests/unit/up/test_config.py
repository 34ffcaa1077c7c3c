"""What may be written in a cluster config, and what a mistake is answered with."""

from dataclasses import fields
from pathlib import Path

import pytest

from pilotage.agent import Config
from pilotage.agent.core.eviction import ALLOCATABLE_MEMORY, Threshold
from pilotage.agent.core.eviction import SIGNALS as AGENT_SIGNALS
from pilotage.kit import UsageError
from pilotage.up import ClusterConfig, load_config
from pilotage.up.configuration import check_config
from pilotage.up.core.agent_config import SIGNALS, AgentConfig
from pilotage.up.core.config import IPv6Networks, NodeConfig, node_configs
from pilotage.up.roots.agent import LEFT_MIN, settings


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


def test_agents_are_set_for_all_nodes_and_for_one(tmp_path: Path) -> None:
    agent = "agent: {maxPods: 20, staticPodPath: /pods, evictionHard: {memory.available: 1Gi}}\n"
    first, second = node_configs(
        load(tmp_path, f"{agent}nodes:\n- zone: a\n- agent: {{maxPods: 5, evictionHard: {{}}}}\n")
    )
    assert settings(first.agent)["pods_max"] == 20
    assert settings(first.agent)["eviction"].hard == {"memory.available": "1Gi"}
    assert settings(second.agent)["pods_max"] == 5
    assert settings(second.agent)["static_pods_dir"] == Path("/pods")
    assert settings(second.agent)["eviction"].hard == {}


def test_what_is_not_said_about_agents_keeps_their_defaults() -> None:
    made = Config(node="n", node_ip="", pod_cidr="", data_dir=Path("/"), run_dir=Path("/"), **settings(AgentConfig()))
    plain = Config(node="n", node_ip="", pod_cidr="", data_dir=Path("/"), run_dir=Path("/"))
    changed = {field.name for field in fields(Config) if getattr(made, field.name) != getattr(plain, field.name)}
    assert changed == {"eviction", "image_gc"}
    assert (made.eviction.hard, made.image_gc.high_percent) == (LEFT_MIN, 100)


def test_everything_said_about_agents_reaches_them(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
agent:
  crashBackoffMaxSeconds: 30
  imageBackoffMaxSeconds: 60
  shutdownGraceSeconds: 20
  shutdownGraceCriticalSeconds: 5
  kubeReserved: {cpu: 100m}
  systemReserved: {memory: 1Gi}
  evictionSoft: {memory.available: 10%}
  evictionSoftGraceSeconds: {memory.available: 60}
  evictionMinimumReclaim: {nodefs.available: 500Mi}
  evictionPressureTransitionSeconds: 30
  evictionMaxPodGraceSeconds: 10
  imageGcHighPercent: 90
  imageGcLowPercent: 70
  containerLogMaxSize: 5Mi
  containerLogMaxFiles: 3
""",
    )
    made = Config(node="n", node_ip="", pod_cidr="", data_dir=Path("/"), run_dir=Path("/"), **settings(config.agent))
    assert (made.crash_backoff_max_s, made.image_backoff_max_s) == (30, 60)
    assert [(one.priority, one.grace_s) for one in made.shutdown] == [(0, 15), (2_000_000_000, 5)]
    assert (made.kube_reserved, made.system_reserved) == ({"cpu": "100m"}, {"memory": "1Gi"})
    soft = Threshold(signal="memory.available", amount="10%", grace_s=60)
    assert soft in made.eviction.thresholds()
    assert made.eviction.minimum_reclaim == {"nodefs.available": "500Mi"}
    assert (made.eviction.pressure_transition_s, made.eviction.pod_grace_s_max) == (30, 10)
    assert (made.image_gc.high_percent, made.image_gc.low_percent) == (90, 70)
    assert (made.log_bytes_max, made.log_files_max) == (5 << 20, 3)
    by_priority = "agent: {shutdownByPriority: [{priority: 0, seconds: 4}, {priority: 10, seconds: 3}]}\n"
    config = load(tmp_path, by_priority)
    assert settings(config.agent)["shutdown_by_priority"] == ((0, 4), (10, 3))
    assert config.agent.shutdown_s == 7


def test_signals_are_those_that_the_agent_knows() -> None:
    assert set(SIGNALS) == set(AGENT_SIGNALS) - {ALLOCATABLE_MEMORY}


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
        pytest.param("agent:\n  maxPods: 0\n", ":2: maxPods 0 must be at least 1", id="no pods at all"),
        pytest.param("agent:\n  podsMax: 5\n", ":2: unknown key `podsMax`", id="an unknown key of the agents"),
        pytest.param(
            "agent:\n  staticPodPath: pods\n", ":2: staticPodPath 'pods' must be an absolute path", id="relative path"
        ),
        pytest.param(
            "agent:\n  maxPods: 9\n  crashBackoffMaxSeconds: 301\n",
            ":3: crashBackoffMaxSeconds 301 must be between 1 and 300",
            id="a ceiling that is too high",
        ),
        pytest.param(
            "agent:\n  evictionHard:\n    memory.available: 1Gi\n    nodefs.available: much\n",
            ":4: evictionHard: nodefs.available 'much' is no quantity and no share",
            id="a threshold that is none names its line",
        ),
        pytest.param(
            "agent:\n  evictionHard:\n    disk: 1Gi\n",
            ":3: evictionHard: 'disk' must be one of",
            id="a signal nobody sends",
        ),
        pytest.param(
            "agent:\n  evictionSoft:\n    pid.available: 10%\n",
            ":3: evictionSoft: pid.available needs more than 0 of evictionSoftGraceSeconds",
            id="a soft threshold without grace",
        ),
        pytest.param(
            "agent:\n  kubeReserved: {cpu: 1, disk: 1Gi}\n", ":2: Expected `str`", id="a quantity that is a number"
        ),
        pytest.param(
            "agent:\n  kubeReserved: {cpu: '1', disk: 1Gi}\n", ":2: kubeReserved: 'disk' must be", id="an odd resource"
        ),
        pytest.param(
            "agent:\n  systemReserved: {cpu: '-1'}\n",
            ":2: systemReserved: cpu '-1' is no quantity",
            id="less than nothing",
        ),
        pytest.param(
            "agent:\n  shutdownGraceSeconds: 5\n  shutdownGraceCriticalSeconds: 9\n",
            ":3: shutdownGraceCriticalSeconds 9 must be at most shutdownGraceSeconds 5",
            id="a part that is more than the whole",
        ),
        pytest.param(
            "agent:\n  shutdownByPriority:\n  - {priority: 0, seconds: 5}\n  - {priority: 9, seconds: -5}\n",
            ":4: seconds -5 must be at least 0",
            id="a negative time",
        ),
        pytest.param("agent:\n  containerLogMaxSize: 0\n", ":2: Expected `str | null`", id="a size that is a number"),
        pytest.param(
            "agent:\n  imageGcHighPercent: 70\n  imageGcLowPercent: 80\n",
            ":3: imageGcLowPercent 80 must be less than imageGcHighPercent 70",
            id="less than low is high",
        ),
        pytest.param(
            "agent: {shutdownGraceSeconds: 5}\nnodes:\n- zone: a\n- agent:\n    shutdownGraceCriticalSeconds: 6\n",
            ":5: n2: shutdownGraceCriticalSeconds 6 must be at most shutdownGraceSeconds 5",
            id="a node that does not go with its cluster",
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
