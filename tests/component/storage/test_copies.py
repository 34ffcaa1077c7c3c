"""Backups of a store in use, and what a restored store promises."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from pilotage.storage import CorruptError, SqliteBackend, UnavailableError, backup, restore


async def filled(path: Path, count: int) -> SqliteBackend:
    backend = await SqliteBackend.open(path)
    await asyncio.gather(*(backend.create(f"/{number}", os.urandom(200)) for number in range(count)))
    return backend


async def contents(path: Path) -> dict[str, bytes]:
    backend = await SqliteBackend.open(path)
    listing = await backend.list("/")
    await backend.close()
    return {item.key: item.value for item in listing.items}


async def test_a_backup_under_writes_is_one_state_of_the_store(tmp_path: Path) -> None:
    backend = await filled(tmp_path / "state.db", 500)

    async def write() -> None:
        for number in range(500):
            await backend.create(f"/more/{number:03}", b"x")

    copied, _ = await asyncio.gather(asyncio.to_thread(backup, tmp_path / "state.db", tmp_path / "copy.db"), write())
    await backend.close()
    found = await contents(tmp_path / "copy.db")
    assert copied.objects == copied.revision == len(found)
    # Writes one after another: what was copied of them is the first so many.
    assert sorted(key for key in found if key.startswith("/more/")) == [
        f"/more/{n:03}" for n in range(len(found) - 500)
    ]
    assert {entry.name for entry in tmp_path.iterdir() if entry.name.startswith("copy")} >= {"copy.db"}
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


async def test_a_restored_store_has_the_copys_objects_and_no_revision_twice(tmp_path: Path) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    backend = await filled(path, 20)
    backup(path, copy)
    highest = await backend.create("/after", b"x")
    with pytest.raises(UnavailableError, match="in use"):
        restore(copy, path)
    await backend.close()
    assert restore(copy, path).objects == 20
    assert (await contents(tmp_path / "state.db.replaced")).keys() >= {"/after"}
    backend = await SqliteBackend.open(path)
    assert len((await backend.list("/")).items) == 20
    assert await backend.create("/again", b"x") > highest
    await backend.close()


async def test_a_lost_store_is_restored_into_nothing(tmp_path: Path) -> None:
    backend = await filled(tmp_path / "state.db", 20)
    await backend.close()
    backup(tmp_path / "state.db", tmp_path / "copy.db")
    restore(tmp_path / "copy.db", tmp_path / "elsewhere" / "state.db")
    assert len(await contents(tmp_path / "elsewhere" / "state.db")) == 20


async def test_a_damaged_copy_is_refused_and_the_store_left_alone(tmp_path: Path) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    backend = await filled(path, 300)
    await backend.close()
    backup(path, copy)
    with copy.open("r+b") as file:
        file.seek(copy.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(CorruptError):
        restore(copy, path)
    assert len(await contents(path)) == 300
    assert {entry.name for entry in tmp_path.iterdir()} == {"state.db", "state.db-lock", "copy.db"}


async def test_a_backup_never_overwrites(tmp_path: Path) -> None:
    backend = await filled(tmp_path / "state.db", 1)
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(UnavailableError, match="exists"):
        backup(tmp_path / "state.db", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"
    await backend.close()


async def test_somebody_elses_database_is_neither_copied_nor_put_back(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "theirs.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(CorruptError):
        backup(tmp_path / "theirs.db", tmp_path / "copy.db")
    with pytest.raises(CorruptError):
        restore(tmp_path / "theirs.db", tmp_path / "state.db")
    assert {entry.name for entry in tmp_path.iterdir()} == {"theirs.db"}
