"""A cache in an SQLite file that several processes share: whatever is wrong with it, it is an empty cache."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
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
        Statement that makes the table, if it does not exist.
    """

    def __init__(self, path: str, table: str) -> None:
        self._path = path
        self._table = table
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

    def change(self, statement: str, rows: Iterable[Sequence[Any]], *, then: Sequence[str] = ()) -> None:
        """Run a statement for each row, and some more, in one transaction."""
        with self._lock:
            connection = self._open()
            if connection is None:
                return
            try:
                with connection:
                    connection.executemany(statement, rows)
                    for more in then:
                        connection.execute(more)
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
            connection.execute(self._table)
        except sqlite3.Error:
            connection.close()
            raise
        return connection
