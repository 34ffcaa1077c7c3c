"""What only a store on disk must do: survive, refuse what is damaged, and share fsyncs."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pilotage.storage import CorruptError, SqliteBackend, UnavailableError, open_backend

WRITER = """
import asyncio, sys
from pathlib import Path
from pilotage.storage import SqliteBackend

async def main():
    backend = await SqliteBackend.open(Path(sys.argv[1]))
    async def write(lane):
        number = 0
        while True:
            revision = await backend.create(f"/{lane}/{backend.revision}-{number}", b"x" * 200)
            number += 1
            print(revision, flush=True)  # acknowledged: this must be there afterwards
    await asyncio.gather(*(write(lane) for lane in range(8)))

asyncio.run(main())
"""


def acknowledged_before_kill(path: Path, count: int) -> list[int]:
    """Write until `count` revisions have been acknowledged, then kill -9 in the middle of the next."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    revisions = [int(process.stdout.readline()) for _ in range(count)]
    process.send_signal(signal.SIGKILL)
    revisions += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.stdout.close()
    process.wait()
    return revisions


async def test_what_was_acknowledged_survives_kill_9_and_revisions_go_on(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    highest = 0
    for _ in range(3):
        revisions = acknowledged_before_kill(path, 200)
        assert min(revisions) > highest, "a revision was used twice"
        highest = max(revisions)
        backend = await SqliteBackend.open(path)
        assert backend.revision >= highest
        kept = {item.mod_revision for item in (await backend.list("/")).items}
        assert set(revisions) <= kept
        highest = backend.revision
        await backend.close()


async def test_deleting_the_newest_key_does_not_bring_its_revision_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    backend = await SqliteBackend.open(path)
    await backend.create("/a", b"")
    await backend.delete("/a")
    await backend.close()
    backend = await SqliteBackend.open(path)
    assert await backend.create("/a", b"") == 3
    await backend.close()


async def test_many_writers_share_commits(tmp_path: Path) -> None:
    backend = await SqliteBackend.open(tmp_path / "state.db")
    watch = await backend.watch("/", 0)
    await asyncio.gather(*(backend.create(f"/{index}", b"") for index in range(500)))
    batches = 0
    seen = 0
    async for batch in watch:
        batches += 1
        seen += len(batch.events)
        if seen == 500:
            break
    assert batches < 50, "writes were committed one by one"
    await watch.close()
    await backend.close()


async def test_a_cancelled_writer_does_not_undo_what_was_accepted(tmp_path: Path) -> None:
    backend = await SqliteBackend.open(tmp_path / "state.db")
    task = asyncio.get_running_loop().create_task(backend.create("/a", b"1"))
    await asyncio.sleep(0)
    task.cancel()
    assert await backend.create("/b", b"2") == 2
    found = await backend.get("/a")
    assert found is not None and found.mod_revision == 1
    await backend.close()


async def test_the_file_is_private(tmp_path: Path) -> None:
    backend = await SqliteBackend.open(tmp_path / "state.db")
    await backend.create("/a", b"")
    modes = {entry.name: oct(entry.stat().st_mode & 0o777) for entry in tmp_path.iterdir()}
    await backend.close()
    assert set(modes.values()) == {"0o600"}, modes


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    backend = await SqliteBackend.open(path)
    with pytest.raises(UnavailableError, match="in use"):
        await SqliteBackend.open(path)
    await backend.close()


async def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.execute("PRAGMA application_id = 77")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CorruptError, match="another program"):
        await SqliteBackend.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", ["head", "middle"])
async def test_a_damaged_file_is_refused(tmp_path: Path, where: str) -> None:
    path = tmp_path / "state.db"
    backend = await SqliteBackend.open(path)
    for index in range(300):
        await backend.create(f"/{index}", os.urandom(300))
    await backend.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(0 if where == "head" else size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(CorruptError):
        await SqliteBackend.open(path)


async def test_after_a_failed_commit_the_store_goes_on_from_what_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    backend = await SqliteBackend.open(path)
    await backend.create("/a", b"1")
    assert backend.failure is None
    backend._connection.execute("PRAGMA query_only = ON")  # the disk has become read-only
    with pytest.raises(UnavailableError):
        await backend.create("/b", b"2")
    with pytest.raises(UnavailableError):
        await backend.create("/c", b"3")
    assert backend.failure is not None and backend.revision == 1
    monkeypatch.setattr("pilotage.storage.sqlite.RECOVERY_INTERVAL_S", 0.0)
    backend._connection.execute("PRAGMA query_only = OFF")
    revision = await backend.create("/b", b"4")
    assert revision > 2 and backend.failure is None, "a revision that was handed out once came back"
    assert await backend.update("/a", b"5", 1) == revision + 1
    await backend.close()
    backend = await SqliteBackend.open(path)
    assert [(item.key, item.value) for item in (await backend.list("/")).items] == [("/a", b"5"), ("/b", b"4")]
    await backend.close()


@pytest.mark.parametrize("location", ["", "sqlite", "sqlite:", "memory:x", "postgres://x"])
async def test_unknown_locations_are_refused(location: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        await open_backend(location)
