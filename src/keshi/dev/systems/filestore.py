"""A store of a reference system in one SQLite file, crash-safe. What a write has returned from survives a kill -9."""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from keshi.dev.systems.calls import Row


class InUseError(Exception):
    """Another process works with this data directory."""


class GoneError(Exception):
    """There is no such record (any more)."""


class ConflictError(Exception):
    """The record is not in a state that allows this; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class FileStore:
    """One connection, safe to share between threads.

    Args:
        data: directory of the file and of its lock; made if missing.
        file: its name.
        schema: statements that make the tables where they are missing.
        name: of the system, for people.

    Raises:
        InUseError: a second process (or store) was opened on the same directory.
    """

    def __init__(self, data: Path, file: str, schema: str, name: str) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self._owner = (data / "lock").open("w")
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._owner.close()
            raise InUseError(f"another {name} runs on {data}; stop it or name another directory") from None
        self._lock = Lock()
        self._db = sqlite3.connect(data / file, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not only unlinked
        self._db.executescript(schema)

    def close(self) -> None:
        """Puts the log into the file and lets go of the directory."""
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.close()
            self._owner.close()

    def rows(self, query: str, values: Sequence[object] | dict[str, object] = ()) -> list[Row]:
        """What a query finds."""
        with self._lock:
            return [dict(row) for row in self._db.execute(query, values)]

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction; what raises within it undoes it."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
