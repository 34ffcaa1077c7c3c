"""Copies of a SQLite store: taken while it is in use, checked, and put back.

Apart from the backend because this is an administrator's work on files, in a process of its own. WAL lets a reader copy
one consistent state while the owner goes on writing. A restored store goes on far above every revision it or its
predecessor ever gave out, as etcd's restore with a bumped revision does: clients that have seen more than the copy
holds must not take new revisions for old ones.
Called by `pilotage apiserver backup` and `restore`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pilotage.storage.errors import CorruptError, UnavailableError
from pilotage.storage.sqlite import check_header, newest_revision, owned

# More than a busy store hands out between a backup and its loss, where the lost store cannot be asked.
REVISIONS_SKIPPED = 1_000_000_000
_SIDE_FILES = ("-wal", "-shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy holds."""

    revision: int
    objects: int


def backup(store: Path, target: Path) -> Copied:
    """Copy a store, in use or not, to a file of its own (mode 0600), which must not exist. Blocks while it copies.

    Raises UnavailableError when one of the files cannot be used, CorruptError when the store or the copy is damaged.
    """
    if not store.is_file():
        raise UnavailableError(f"there is no store at {store}")
    if target.exists():
        raise UnavailableError(f"{target} exists and is left alone")
    with _replacement(target) as scratch:
        with _opened(store) as source, _opened(scratch) as copy:
            check_header(source, store)
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        return _checked(scratch)


def restore(source: Path, store: Path) -> Copied:
    """Put a copy in the place of a store that nobody uses; the former store stays beside it as `….replaced`.

    Raises UnavailableError when the store is in use or a file cannot be used, CorruptError when the copy is damaged.
    """
    if not source.is_file():
        raise UnavailableError(f"there is no backup at {source}")
    copied = _checked(source)
    store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with owned(store):
        highest = max(copied.revision, _highest(store))
        with _replacement(store) as scratch:
            with _opened(source) as original, _opened(scratch) as copy:
                original.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
                copy.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (highest + REVISIONS_SKIPPED,))
            _checked(scratch)
            for suffix in ("", *_SIDE_FILES):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{store}{suffix}", f"{store}.replaced{suffix}")
    return copied


@contextmanager
def _replacement(target: Path) -> Iterator[Path]:
    """A scratch file that takes the target's name, durably, if the block succeeds."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            os.close(os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            yield scratch
            _sync(scratch)
            os.replace(scratch, target)
            _sync(target.parent)
        except OSError as error:
            raise UnavailableError(f"cannot write {target}: {error.strerror}") from error
        except sqlite3.Error as error:
            raise UnavailableError(f"cannot copy to {target}: {error}") from error
    finally:
        for suffix in ("", "-journal", *_SIDE_FILES):
            with contextlib.suppress(OSError):
                os.unlink(f"{scratch}{suffix}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, timeout=10.0, isolation_level=None)) as connection:
        yield connection


def _checked(path: Path) -> Copied:
    """What the file holds, if all of it is sound."""
    try:
        with _opened(path) as connection:
            check_header(connection, path)
            if (verdict := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise CorruptError(f"{path} failed its integrity check: {verdict}")
            return Copied(
                revision=newest_revision(connection),
                objects=int(connection.execute("SELECT count(*) FROM kv").fetchone()[0]),
            )
    except sqlite3.DatabaseError as error:
        raise CorruptError(f"{path} is not a usable store: {error}") from error


def _highest(store: Path) -> int:
    """The highest revision of the store that is replaced; 0 when it does not exist or cannot say."""
    if not store.is_file():
        return 0
    try:
        with _opened(store) as connection:
            return newest_revision(connection)
    except sqlite3.Error:
        return 0
