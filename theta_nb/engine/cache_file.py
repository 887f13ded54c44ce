"""A cache in an SQLite file that several processes share: whatever is wrong with it, it is an empty cache."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["CacheFile"]


class CacheFile:
    """Rows that can be computed again.

    A file that is torn, or no database at all, is removed and begun anew; one that is locked for long, read-only, or
    has no room is not used by this process. No error reaches the caller.

    Parameters
    ----------
    path
        The file; made on first use.
    table
        Name of its one table.
    columns
        Their definitions, in SQL.
    """

    def __init__(self, path: str, table: str, columns: str) -> None:
        self._path = path
        self._table = table
        self._columns = columns
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._usable = True

    def ask(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows that a query gives; none where the cache cannot be used."""
        with self._lock:
            connection = self._open()
            if connection is None:
                return []
            try:
                return connection.execute(query, arguments).fetchall()
            except sqlite3.Error as error:
                self._give_up(error)
                return []

    def remember(self, rows: Sequence[Sequence[Any]], *, most: int) -> None:
        """Add or replace rows in one transaction; of more than ``most``, those not seen for longest are dropped.

        A replaced row moves to the end, so the first ones are the oldest.
        """
        if not rows:
            return
        table, marks = self._table, ",".join("?" * len(rows[0]))  # the name is this package's own, never input
        with self._lock:
            connection = self._open()
            if connection is None:
                return
            try:
                with connection:
                    connection.executemany(f"REPLACE INTO {table} VALUES ({marks})", rows)  # noqa: S608
                    oldest = f"(SELECT max(rowid) FROM {table}) - ?"  # noqa: S608
                    connection.execute(f"DELETE FROM {table} WHERE rowid <= {oldest}", (most,))  # noqa: S608
            except sqlite3.Error as error:
                self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _give_up(self, error: sqlite3.Error) -> None:
        """Use the cache no more in this process; a torn one is removed, so that the next process begins anew."""
        self._usable = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if not isinstance(error, sqlite3.OperationalError):
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _open(self) -> sqlite3.Connection | None:
        if self._connection is None and self._usable:
            try:
                self._connection = self._connect()
            except sqlite3.OperationalError:
                self._usable = False  # locked for long, read-only, or no place for it
            except sqlite3.DatabaseError:
                # Not a database, or a torn one: begin anew; another process may be doing the same.
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
                try:
                    self._connection = self._connect()
                except (sqlite3.Error, OSError):
                    self._usable = False
            except OSError:
                self._usable = False
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=2.0, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self._table} ({self._columns})")
        except sqlite3.Error:
            connection.close()
            raise
        return connection
