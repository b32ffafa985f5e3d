"""The waiting fixes of a device, in memory or in a file that survives kills and power failures."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headcount.device.fix_buffer import MAX_FIXES, FixBuffer, WaitingFix
from headcount.errors import DeviceLibraryError

_log = logging.getLogger(__name__)

#: Each commit is on disk before it returns; the lock keeps a second process out.
_SETUP = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS fix (number INTEGER PRIMARY KEY, t REAL, is_counted INTEGER, payload BLOB);
CREATE TABLE IF NOT EXISTS saved (name TEXT PRIMARY KEY, value TEXT);
BEGIN IMMEDIATE;
COMMIT;
"""


class FixOutbox:
    """Fixes until they are acknowledged, and what else must survive a restart. Any thread may call it."""

    def __init__(self, path: Path | None = None, capacity: int = MAX_FIXES) -> None:
        """Open the file, which is created if it is missing; None = memory only.

        Raises:
            DeviceLibraryError: the file cannot be used, or another process uses it.
        """
        self._lock = threading.RLock()
        self._path = path
        self._database = None if path is None else _open(path)
        self._is_reported = False
        fixes: list[WaitingFix] = []
        self._saved: dict[str, str] = {}
        if self._database:
            rows = self._database.execute("SELECT number, t, is_counted, payload FROM fix ORDER BY number")
            fixes = [
                WaitingFix(number, t, bool(is_counted), payload) for number, t, is_counted, payload in rows
            ]
            self._saved = dict(self._database.execute("SELECT name, value FROM saved"))
        self._buffer = FixBuffer(capacity, fixes[-capacity:])
        self._next = fixes[-1].number + 1 if fixes else 1

    def add(self, t: float, payload: bytes, *, is_counted: bool, state: str = "") -> None:
        """Add the newest fix, and save the state after it in the same transaction."""
        with self._lock:
            fix = WaitingFix(self._next, t, is_counted, payload)
            self._next += 1
            dropped = self._buffer.append(fix)
            with self._transaction() as database:
                if database:
                    database.execute("INSERT INTO fix VALUES (?, ?, ?, ?)", fix)
                    if dropped:
                        database.execute("DELETE FROM fix WHERE number = ?", (dropped.number,))
                    _save(database, "state", state)
            self._saved["state"] = state

    def replace(self, fixes: Sequence[tuple[WaitingFix, bool]], state: str) -> None:
        """Retain only these fixes; each with whether it changes counts."""
        with self._lock:
            self._buffer.fixes = [fix._replace(is_counted=is_counted) for fix, is_counted in fixes]
            with self._transaction() as database:
                if database:
                    database.execute("DELETE FROM fix")
                    database.executemany("INSERT INTO fix VALUES (?, ?, ?, ?)", self._buffer.fixes)
                    _save(database, "state", state)
            self._saved["state"] = state

    def after(self, number: int, limit: int) -> list[WaitingFix]:
        """The oldest waiting fixes with higher numbers."""
        with self._lock:
            return [fix for fix in self._buffer.fixes if fix.number > number][:limit]

    def acknowledge(self, numbers: set[int]) -> None:
        """Remove fixes that the system has stored."""
        with self._lock:
            self._buffer.remove(numbers)
            with self._transaction() as database:
                if database:
                    database.executemany(
                        "DELETE FROM fix WHERE number = ?", [(number,) for number in numbers]
                    )

    def save(self, name: str, value: str) -> None:
        """Save a text under a name."""
        with self._lock:
            self._saved[name] = value
            with self._transaction() as database:
                if database:
                    _save(database, name, value)

    def saved(self, name: str) -> str:
        """A saved text, empty if there is none."""
        with self._lock:
            return self._saved.get(name, "")

    def __len__(self) -> int:
        """The number of waiting fixes."""
        return len(self._buffer.fixes)

    def close(self) -> None:
        """Close the file; waiting fixes stay in it."""
        with self._lock:
            if self._database:
                self._database.close()
                self._database = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection | None]:
        """All changes of the body or none; a full disk leaves the device running with the fixes in memory."""
        database = self._database
        try:
            if database:
                database.execute("BEGIN")
            yield database
            if database:
                database.execute("COMMIT")
        except sqlite3.Error as error:
            if database and database.in_transaction:
                database.execute("ROLLBACK")
            if not self._is_reported:
                _log.warning("%s: cannot write (%s); new fixes are in memory only", self._path, error)
            self._is_reported = True


def _save(database: sqlite3.Connection, name: str, value: str) -> None:
    database.execute("INSERT OR REPLACE INTO saved VALUES (?, ?)", (name, value))


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError as error:
        raise DeviceLibraryError(
            f"buffer {path}", f"cannot be opened: {error}", "Does another process use it?"
        ) from error
    except sqlite3.DatabaseError as error:
        damaged = path.with_name(f"{path.name}.damaged")
        _log.warning("%s: is damaged (%s); it is renamed to %s", path, error, damaged.name)
        path.replace(damaged)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # positions are personal data
    except OSError as error:
        raise DeviceLibraryError(
            f"buffer {path}", f"cannot be opened: {error.strerror}", "Choose another file"
        ) from error
    database = sqlite3.connect(path, timeout=2, isolation_level=None, check_same_thread=False)
    try:
        database.executescript(_SETUP)
        database.execute("SELECT count(payload) FROM fix").fetchall()  # reads all pages
    except sqlite3.Error:
        database.close()
        raise
    return database
