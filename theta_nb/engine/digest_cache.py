"""What checkpoint files hold, by digest, remembered across processes for as long as they stay as they are.

Hashing a file of 1 GB takes a good part of a comparison. A file counts as unchanged as it does for git: device, inode,
length and both times are those of when it was read, and it had not been written just before, when a second write could
have left the same times (git calls such files racy; see ``Documentation/technical/racy-git.txt``).
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from theta_nb.engine.cache_file import CacheFile
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value
from theta_nb.tensors.chunks import CHUNK_NBYTES, chunk_digest, storage_digest
from theta_nb.tensors.dtypes import DTYPES

__all__ = ["DigestCache", "FileState", "layout_digest"]

_VERSION = 1
_MAX_ROWS = 1000
_MAX_NBYTES = 2**27  # of one row, unpacked
_COLUMNS = "path BLOB PRIMARY KEY, state TEXT, form BLOB"
_SETTLED_NS = 2_000_000_000  # the coarsest times that file systems keep


@dataclass(frozen=True, slots=True)
class FileState:
    """What changes when a file is written to, replaced or renamed.

    Parameters
    ----------
    device, inode, size, mtime_ns, ctime_ns
        As :func:`os.fstat` gives them.
    seen_ns
        When they were asked for, in the time of :func:`time.time_ns`.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    seen_ns: int

    @classmethod
    def of(cls, fd: int) -> FileState:
        """State of an open file."""
        seen = time.time_ns()
        info = os.fstat(fd)
        return cls(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, seen)

    @property
    def settled(self) -> bool:
        """Whether a later write must show in the times: they are neither of just now nor of the future."""
        return max(self.mtime_ns, self.ctime_ns) < self.seen_ns - _SETTLED_NS

    @property
    def key(self) -> str:
        """The same text for the same state, whenever it was seen."""
        return f"{_VERSION} {self.device} {self.inode} {self.size} {self.mtime_ns} {self.ctime_ns}"


class DigestCache:
    """Manifests of files, without references to objects.

    Parameters
    ----------
    path
        File of the cache; made on first use.
    """

    def __init__(self, path: str) -> None:
        self._file = CacheFile(path, "files", _COLUMNS)

    def find(self, file: str, state: FileState) -> Manifest | None:
        """What a file holds, if that is known of the state it is in.

        Parameters
        ----------
        file
            Absolute path.
        state
            Its state now.
        """
        rows = self._file.ask("SELECT form FROM files WHERE path = ? AND state = ?", (os.fsencode(file), state.key))
        return _read(rows[0][0], state.size) if rows else None

    def remember(self, file: str, state: FileState, manifest: Manifest) -> None:
        """Keep what a file holds, read since ``state``, unless a later write might go unnoticed."""
        if state.settled:
            self._file.remember([(os.fsencode(file), state.key, _write(manifest))], most=_MAX_ROWS)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def layout_digest(layout: bytes) -> bytes:
    """Digest of a layout in its stored form, as a manifest names it."""
    pieces = (layout[start : start + CHUNK_NBYTES] for start in range(0, len(layout), CHUNK_NBYTES))
    return storage_digest(len(layout), map(chunk_digest, pieces))


def _write(manifest: Manifest) -> bytes:
    form = {
        "format": manifest.format,
        "layout": manifest.layout.hex(),
        "skeleton": manifest.skeleton.hex(),
        "entries": [[e.name, e.dtype, e.shape, e.digest.hex(), e.owner] for e in manifest.entries.values()],
        "values": [
            [v.digest.hex(), v.nbytes, v.crc32.hex(), b"".join(ref.digest for ref in v.chunks).hex()]
            for v in manifest.values.values()
        ],
        "derived": [[index, data.hex()] for index, data in manifest.derived.items()],
    }
    return zlib.compress(json.dumps(form, separators=(",", ":")).encode(), 1)


def _read(packed: Any, size: int) -> Manifest | None:
    """A row, or ``None`` where it is not what :func:`_write` makes: a cache is a file like any other."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, _MAX_NBYTES)
        if unpacker.unconsumed_tail:
            return None
        form = json.loads(text)
        values = {value.digest: value for value in map(_value, form["values"])}
        entries = {entry.name: entry for entry in map(_entry, form["entries"])}
        manifest = Manifest(
            _text(form["format"]),
            size,
            _digest(form["layout"]),
            _digest(form["skeleton"]),
            entries,
            values,
            derived={_count(index): bytes.fromhex(data) for index, data in form["derived"]},
        )
        _check(manifest, entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error):
        return None
    return manifest


def _check(manifest: Manifest, entries: Mapping[str, Entry]) -> None:
    for digest in (manifest.layout, manifest.skeleton, *(manifest.value_of(name).digest for name in entries)):
        manifest.values[digest]
    for entry in entries.values():
        holder = entries[entry.owner] if entry.owner else entry
        value = manifest.value_of(entry.name)
        if len(list(holder.extents(value.nbytes))) != len(value.chunks):
            raise ValueError(entry.name)


def _entry(row: list[Any]) -> Entry:
    name, dtype, shape, digest, owner = row
    if dtype != "bytes" and dtype not in DTYPES:
        raise ValueError(dtype)
    return Entry(_text(name), dtype, tuple(map(_count, shape)), _digest(digest), _text(owner))


def _value(row: list[Any]) -> Value:
    digest, nbytes, crc32, chunks = row
    raw = bytes.fromhex(chunks)
    if len(raw) % 32 or _count(nbytes) > len(raw) // 32 * CHUNK_NBYTES:
        raise ValueError(nbytes)
    refs = tuple(ChunkRef(raw[start : start + 32]) for start in range(0, len(raw), 32))
    return Value(_digest(digest), nbytes, refs, bytes.fromhex(crc32))


def _digest(text: Any) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != 32:
        raise ValueError(text)
    return found


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**62:
        raise ValueError(number)
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
