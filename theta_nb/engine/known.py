"""Encodings that exist already: in manifests at hand, and in a persistent cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, cast

from theta_nb.engine.cache_file import CacheFile
from theta_nb.manifest.model import MAX_LINKS, UPDATE_NAME, ChunkRef, Manifest
from theta_nb.storage.objects import ObjectStore, is_oid

__all__ = ["EncodingCache", "Known", "KnownChunk", "KnownChunks"]

_COLUMNS = "digest BLOB PRIMARY KEY, oid TEXT, start INTEGER, length INTEGER, size INTEGER, step TEXT, base BLOB"
_MAX_ROWS = 2_000_000

_FIND = "SELECT digest, oid, start, length, size, step, base FROM encodings WHERE digest = ?"
_Row = tuple[bytes, str, int, int, int, str, bytes | None]


class KnownChunk(NamedTuple):
    """An encoding that exists already, and the size of the object that holds it; ``base``: the same of ``ref.base``."""

    ref: ChunkRef
    object_size: int
    base: KnownChunk | None = None

    @classmethod
    def of(cls, ref: ChunkRef, sizes: Mapping[str, int]) -> KnownChunk:
        """From a reference and the sizes of a manifest's objects."""
        found: KnownChunk | None = None
        for link in ref.links():
            found = cls(link, sizes.get(link.oid, 0), found)
        assert found is not None  # noqa: S101 - a chain has at least one step
        return found

    def steps(self) -> tuple[KnownChunk, ...]:
        """Every step of the chain, the dense one first."""
        found = [self]
        while found[-1].base is not None:
            found.append(found[-1].base)
        return tuple(reversed(found))

    def complete(self, store: ObjectStore) -> bool:
        """Whether a store has the objects of every step."""
        return all(not step.ref.oid or store.size(step.ref.oid) == step.object_size for step in self.steps())


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
        earlier: dict[bytes, KnownChunk] = {}
        for manifest in manifests:
            for ref in manifest.chunk_refs():
                if ref.oid and ref.digest not in self._chunks:
                    known = self._chunks[ref.digest] = KnownChunk.of(ref, manifest.objects)
                    earlier.update((step.ref.digest, step) for step in known.steps()[:-1])
        # What a value was before: a revert brings it back.
        self._chunks = {**earlier, **self._chunks}

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
        self._file = CacheFile(path, "encodings", _COLUMNS)
        self._store = store

    def find(self, digest: bytes) -> KnownChunk | None:
        """An encoding of the chunk whose object is in the store, or ``None``."""
        found: KnownChunk | None = None
        for row in reversed(self._chain(digest)):
            key, oid, start, length, size, update = row[:6]
            if self._store.size(oid) != size:
                return None
            base = None if found is None else found.ref
            found = KnownChunk(ChunkRef(key, oid, start, length, update=update, base=base), size, found)
        for step in found.steps() if found is not None else ():
            self._store.freshen(step.ref.oid)  # perhaps nothing refers to it yet
        return found

    def _chain(self, digest: bytes) -> list[_Row]:
        """Rows from a chunk back to its dense beginning; none where something is missing or cannot be."""
        rows: list[_Row] = []
        key: bytes | None = digest
        while key is not None:
            found = cast(list[_Row], self._file.ask(_FIND, (key,)))
            if not found or len(rows) >= MAX_LINKS or not _is_possible(found[0]):
                return []
            rows.append(found[0])
            key = found[0][6]
        return rows

    def remember(self, manifest: Manifest) -> None:
        """Add the encodings that a manifest names; the newest of a chunk replaces earlier ones."""
        rows = {
            link.digest: (
                link.digest,
                link.oid,
                link.offset,
                link.length,
                manifest.objects[link.oid],
                link.update,
                None if link.base is None else link.base.digest,
            )
            for ref in manifest.chunk_refs()
            for link in ref.links()
            if link.oid
        }
        self._file.remember(list(rows.values()), most=_MAX_ROWS)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _is_possible(row: _Row) -> bool:
    """Whether a row says what it may: a cache is a file like any other."""
    digest, oid, start, length, size, update, base = row
    if not isinstance(oid, str) or not is_oid(oid) or not all(type(n) is int for n in (start, length, size)):
        return False
    if (
        not isinstance(update, str)
        or not UPDATE_NAME.fullmatch(update)
        or not (base is None or isinstance(base, bytes))
    ):
        return False
    return base != digest and (base is None) == (update == "dense") and 0 <= start < start + length <= size
