"""Encodings that exist already: in manifests at hand, and in a persistent cache."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from theta_nb.manifest.model import ChunkRef, Manifest
from theta_nb.storage.objects import ObjectStore, is_oid

__all__ = ["EncodingCache", "Known", "KnownChunk", "KnownChunks"]

_MAX_ROWS = 2_000_000


class KnownChunk(NamedTuple):
    """An encoding that exists already, and the size of the object that holds it."""

    ref: ChunkRef
    object_size: int


class Known(Protocol):
    """Where encodings of chunks are looked up before anything is encoded."""

    def find(self, digest: bytes) -> KnownChunk | None:
        """An encoding of the chunk, or ``None``; called from worker threads."""
        ...


class KnownChunks:
    """The encodings that some manifests name, the first manifest first; then those of ``behind``.

    Parameters
    ----------
    manifests
        In order of preference.
    behind
        Asked where no manifest knows a digest.
    """

    def __init__(self, manifests: Iterable[Manifest] = (), behind: Known | None = None) -> None:
        self._chunks: dict[bytes, KnownChunk] = {}
        self._behind = behind
        for manifest in manifests:
            for ref in manifest.chunk_refs():
                if ref.oid:
                    self._chunks.setdefault(ref.digest, KnownChunk(ref, manifest.objects[ref.oid]))

    def find(self, digest: bytes) -> KnownChunk | None:
        """An encoding of the chunk, or ``None``."""
        found = self._chunks.get(digest)
        if found is None and self._behind is not None:
            return self._behind.find(digest)
        return found


class EncodingCache:
    """Which object holds a chunk, remembered across processes in an SQLite file.

    A poller's ``git status`` cleans a modified checkpoint again and again, and a resharded or renamed checkpoint brings
    known values under new names: both find their encodings here. The cache is an encoding choice, never a truth. An
    entry counts only while its object is in the store, and a cache that cannot be read or written is an empty one.

    Parameters
    ----------
    path
        File of the cache; made on first use.
    store
        Where the objects must be for an entry to count.
    """

    def __init__(self, path: str, store: ObjectStore) -> None:
        self._path = path
        self._store = store
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._usable = True

    def find(self, digest: bytes) -> KnownChunk | None:
        """An encoding of the chunk whose object is in the store, or ``None``."""
        with self._lock:
            rows = self._run("SELECT oid, start, length, size FROM chunks WHERE digest = ?", (digest,))
        if not rows:
            return None
        oid, start, length, size = rows[0]
        if not isinstance(oid, str) or not is_oid(oid) or not all(type(n) is int for n in (start, length, size)):
            return None
        if not 0 <= start < start + length <= size or self._store.size(oid) != size:
            return None
        self._store.freshen(oid)  # perhaps nothing refers to it yet
        return KnownChunk(ChunkRef(digest, oid, start, length), size)

    def remember(self, manifest: Manifest) -> None:
        """Add the encodings that a manifest names; earlier ones of the same chunks stay."""
        rows = [
            (ref.digest, ref.oid, ref.offset, ref.length, manifest.objects[ref.oid])
            for ref in manifest.chunk_refs()
            if ref.oid
        ]
        with self._lock:
            connection = self._open()
            if connection is None:
                return
            try:
                with connection:
                    # A replaced row moves to the end, so what is pruned first is what was not seen for longest.
                    connection.executemany("REPLACE INTO chunks VALUES (?, ?, ?, ?, ?)", rows)
                    connection.execute(
                        "DELETE FROM chunks WHERE rowid <= (SELECT max(rowid) FROM chunks) - ?", (_MAX_ROWS,)
                    )
            except sqlite3.Error as error:
                self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self, query: str, arguments: tuple[bytes, ...]) -> list[tuple[str, int, int, int]]:
        connection = self._open()
        if connection is None:
            return []
        try:
            return connection.execute(query, arguments).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

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
            connection.execute(
                "CREATE TABLE IF NOT EXISTS chunks "
                "(digest BLOB PRIMARY KEY, oid TEXT, start INTEGER, length INTEGER, size INTEGER)"
            )
        except sqlite3.Error:
            connection.close()
            raise
        return connection
