"""The surface the command line relies on."""

import pilotage.up


def test_the_surface_is_what_it_says() -> None:
    assert pilotage.up.__all__ == [
        "ClusterConfig",
        "Layout",
        "Ports",
        "RunningCluster",
        "bring_down",
        "check_config",
        "cluster_names",
        "find_cluster",
        "load_config",
        "make_layout",
    ]
