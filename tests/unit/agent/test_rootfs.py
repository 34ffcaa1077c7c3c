"""Which directories of the host a container on its file system is given beside the overlay, and who finds its root."""

from pathlib import Path

import pytest

from pilotage.agent.image_uses import ImageUses
from pilotage.agent.images import host_image
from pilotage.agent.mounts import FakeMounts
from pilotage.agent.rootfs import RootFSMaker, program_mounts
from pilotage.agent.user_namespaces import PodUsers
from pilotage.network import NetworkError


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        pytest.param(["/opt/pilotage/.venv", "/usr"], [], id="a shared directory shows the program already"),
        pytest.param(["/tmp/clone/src", "/usr"], ["/tmp/clone/src"], id="a clone in a fresh directory is bound in"),
        pytest.param(
            ["/tmp/c/.venv", "/tmp/c/.venv/lib/python3.11/site-packages"], ["/tmp/c/.venv"], id="once, from the top"
        ),
        pytest.param(["/mnt/a", "/mnt/ab"], ["/mnt/a", "/mnt/ab"], id="a like-named neighbour is another directory"),
    ],
)
def test_the_program_is_in_the_container_wherever_it_is_installed(paths: list[str], expected: list[str]) -> None:
    mounts = program_mounts(paths)
    assert [mount.destination for mount in mounts] == expected
    assert all("ro" in mount.options and mount.source == mount.destination for mount in mounts)


def test_a_way_that_users_of_a_pod_cannot_pass_is_named(tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    maker = RootFSMaker(
        scratch=tmp_path / "scratch",
        passable=shut / "roots",
        hidden=(),
        privileged=True,
        mounts=FakeMounts(),
        uses=ImageUses(tmp_path / "images"),
    )
    with pytest.raises(NetworkError, match=f"{shut} lets only the node's own users pass: it needs mode 0711"):
        maker.make(host_image(), "c1", users=PodUsers(namespace=tmp_path / "namespace", host_id=65_536))
