"""Which directories of the host a container on its file system is given beside the overlay."""

import pytest

from pilotage.agent.rootfs import program_mounts


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
