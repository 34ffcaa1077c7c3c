"""One real cluster for every client here; stories are begun together and share nothing else."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from .cluster import PILOTAGE, Cluster
from .story import Teller, parse

# More at once only wait for each other on two cores.
STORIES_AT_ONCE = 6


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("clients")
    environment = {**os.environ, "PILOTAGE_HOME": str(home)}

    def pilotage(*arguments: str) -> str:
        done = subprocess.run(
            [PILOTAGE, *arguments], env=environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        pilotage("up", "--detach", "--name", "clients", "--nodes", "3")
        yield Cluster(home=home, name="clients", kubeconfig=Path(pilotage("kubeconfig", "--name", "clients").strip()))
    finally:
        pilotage("down", "--all")


@pytest.fixture(scope="session")
def telling(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, Path], "Future[None]"]]:
    """Every story that was asked for, begun at once: they share the cluster and nothing else.

    Keyed by kubectl and file; a test waits for its own.
    """
    root = tmp_path_factory.mktemp("stories")
    futures: dict[tuple[str, Path], Future[None]] = {}
    numbers = count(1)
    # Drained and tainted by one kubectl each; the first node takes what they evict.
    nodes: dict[str, str] = {}
    with ThreadPoolExecutor(STORIES_AT_ONCE) as pool:
        for item in request.session.items:
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            if "story" not in parameters:
                continue
            kubectl, path = parameters["kubectl"], parameters["story"]
            node = nodes.setdefault(kubectl, f"n{len(nodes) + 2}")
            number = next(numbers)
            (root / node).mkdir(exist_ok=True)
            teller = Teller(
                cluster=cluster,
                kubectl=kubectl,
                directory=root / node / path.stem,
                words={"namespace": f"{path.stem}-{number}", "node": node, "home": str(root / node / path.stem)},
            )
            futures[kubectl, path] = pool.submit(teller.tell, parse(path.read_text()))
        yield futures
        for future in futures.values():
            future.cancel()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own, named after it."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40]
    cluster.make_namespace(name)
    return name
