"""Users of their own for pods: what the document says, who has which ids."""

import itertools
from pathlib import Path

import pytest

from pilotage.agent import users
from pilotage.agent.core import oci
from pilotage.agent.errors import StartRefused
from pilotage.agent.user_namespaces import IDS, UserNamespaces
from pilotage.network import NetworkError
from pilotage.up.roots.agent import user_ranges

from .builders import make_pod
from .test_container_document import document


def test_the_document_joins_the_namespace_and_says_whose_ids_are_whose() -> None:
    plain = document(make_pod("a"))
    found = oci.with_users(plain, "/users/u1/namespace", host_id=3 * IDS, size=IDS)
    assert found["linux"]["namespaces"][:-1] == plain["linux"]["namespaces"]
    assert found["linux"]["namespaces"][-1] == {"type": "user", "path": "/users/u1/namespace"}
    mapping = [{"containerID": 0, "hostID": 3 * IDS, "size": IDS}]
    assert (found["linux"]["uidMappings"], found["linux"]["gidMappings"]) == (mapping, mapping)
    assert "uidMappings" not in plain["linux"]


def test_users_that_a_pod_has_not_are_refused() -> None:
    users.check_own(oci.User(uid=IDS - 1, gid=IDS - 1), IDS)
    for far in (oci.User(uid=IDS), oci.User(gid=IDS), oci.User(additional_gids=(1, IDS))):
        with pytest.raises(StartRefused, match=f"{IDS} does not exist in a pod with hostUsers: false"):
            users.check_own(far, IDS)


async def test_an_ordinary_user_has_no_ids_to_give(tmp_path: Path) -> None:
    mine = UserNamespaces(tmp_path, first=1, last=2, privileged=False)
    with pytest.raises(NetworkError, match="needs a node that runs as root"):
        await mine.make("u1")
    assert mine.find("u1") is None
    mine.release("u1")


def test_ids_outlive_the_agent_but_a_namespace_that_is_gone_does_not_stand(tmp_path: Path) -> None:
    (tmp_path / "u1").mkdir()
    (tmp_path / "u1" / "range").write_text("7")
    mine = UserNamespaces(tmp_path, first=1, last=9, privileged=True)
    mine.open()
    assert mine.find("u1") is None
    assert list(mine.given()) == [7]
    mine.release("u1")
    assert list(mine.given()) == []
    assert not (tmp_path / "u1").exists()


@pytest.mark.parametrize("cluster", ["pilotage", "dev", "x"])
def test_no_two_nodes_of_a_cluster_give_the_same_ids(cluster: str) -> None:
    ranges = sorted(user_ranges(cluster, position) for position in range(100))
    assert all(1 <= first <= last < 65_535 for first, last in ranges)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
    assert user_ranges("a", 0) != user_ranges("b", 0)
