"""Disks that are full, read-only or rotten under the API server's store."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.storage import SqliteBackend, UnavailableError
from pilotage.testing.cluster import api_server
from pilotage.testing.wire import CONFIG_MAPS, config_map, connected

DEADLINE_S = 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, in this process's mount namespace."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_a_full_disk_refuses_writes_and_is_used_again_when_there_is_room(disk: Path) -> None:
    async with api_server(storage=f"sqlite:{disk}/state.db") as server, connected(server) as http:
        await http("POST", CONFIG_MAPS, config_map("before", key="value"))
        async with http.watch(f"{CONFIG_MAPS}?watch=1&labelSelector=a") as stream:
            ballast = disk / "ballast"
            with pytest.raises(OSError, match="No space"):
                ballast.write_bytes(b"x" * 16 * 1024 * 1024)
            acknowledged: list[str] = []
            async with asyncio.timeout(DEADLINE_S):
                while True:  # the log may have some room left
                    name = f"m{len(acknowledged)}"
                    answer = await http("POST", CONFIG_MAPS, config_map(name, labels={"a": "b"}, data="x" * 50_000))
                    if answer.status != 201:
                        break
                    acknowledged.append(name)
            assert (answer.status, answer.reason) == (500, "InternalError")
            assert (await http("GET", f"{CONFIG_MAPS}/before")).body["data"] == {"key": "value"}
            assert (await http("GET", "/readyz")).status == 500
            ballast.unlink()
            async with asyncio.timeout(DEADLINE_S):
                while (await http("POST", CONFIG_MAPS, config_map("after", labels={"a": "b"}))).status != 201:
                    await asyncio.sleep(0.1)
            assert (await http("GET", "/readyz")).status == 200
            assert await stream.take(len(acknowledged) + 1) == [("ADDED", name) for name in (*acknowledged, "after")]
    backend = await SqliteBackend.open(disk / "state.db")
    kept = {item.key.rpartition("/")[2] for item in (await backend.list("/registry/core/configmaps/")).items}
    await backend.close()
    assert {"before", "after", *acknowledged} <= kept
    assert name not in kept, "a write that was refused is there"


async def test_a_read_only_disk_is_refused_at_the_start_and_unharmed(disk: Path) -> None:
    backend = await SqliteBackend.open(disk / "state.db")
    await backend.create("/a", b"1")
    await backend.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(UnavailableError, match="Read-only file system"):
        await SqliteBackend.open(disk / "state.db")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    backend = await SqliteBackend.open(disk / "state.db")
    assert (await backend.list("/")).items[0].value == b"1"
    await backend.close()


def test_a_rotten_page_ends_the_start_with_one_line_that_says_what_to_do(disk: Path) -> None:
    async def fill() -> None:
        backend = await SqliteBackend.open(disk / "state.db")
        await asyncio.gather(*(backend.create(f"/{number}", b"x" * 300) for number in range(500)))
        await backend.close()

    asyncio.run(fill())
    with (disk / "state.db").open("r+b") as file:
        file.seek((disk / "state.db").stat().st_size // 2 // 4_096 * 4_096)
        file.write(b"\xff" * 4_096)
    # A process of its own, as users start it: it configures logging for the whole process.
    command = [sys.executable, "-m", "pilotage.cli", "apiserver", "--data-dir", str(disk), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 1
    assert done.stderr.startswith("pilotage: ")
    assert "integrity check" in done.stderr
    assert "restore" in done.stderr
    assert done.stderr.count("\n") == 1
