"""The bytes of a checkpoint as they come: once and in order from git or a file, or in short reads of a source."""

from __future__ import annotations

import os
from typing import Protocol

from theta_nb.checkpoints.layout import ByteSource
from theta_nb.engine.chunk_work import Read
from theta_nb.errors import CheckpointError

__all__ = ["ByteStream", "FileStream", "MismatchError", "Window"]


class ByteStream(Protocol):
    """Bytes that come once, in order."""

    def readinto(self, dest: memoryview) -> int:
        """Fill ``dest`` and return its length; less only at the end of the stream."""
        ...


class FileStream:
    """A :class:`ByteStream` over a file descriptor, from its start."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._offset = 0

    def readinto(self, dest: memoryview) -> int:
        """Fill ``dest`` from the file."""
        done = self._fill(dest, self._offset)
        self._offset += done
        return done

    def later(self, nbytes: int) -> Read:
        """Step over some bytes, which whoever works on them reads: reading is half the work of hashing."""
        start = self._offset
        self._offset += nbytes

        def read(dest: memoryview, offset: int) -> None:
            if self._fill(dest, start + offset) < len(dest):
                raise MismatchError(b"")

        return read

    def _fill(self, dest: memoryview, offset: int) -> int:
        done = 0
        while done < len(dest):
            count = os.preadv(self._fd, [dest[done:]], offset + done)
            if count == 0:
                break
            done += count
        return done


class MismatchError(Exception):
    """The stream is not what the layout was located in; carries the bytes read since the last whole piece."""

    def __init__(self, tail: bytes) -> None:
        super().__init__()
        self.tail = tail


class Window:
    """Short reads of a source, many of them close together: the skeleton lies in small gaps between the tensors."""

    _NBYTES = 2**16

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._start = 0
        self._data = b""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes of a range, or nothing if the file was cut short meanwhile."""
        if offset < self._start or offset + nbytes > self._start + len(self._data):
            wanted = max(nbytes, min(self._NBYTES, self._source.size - offset))
            try:
                self._start, self._data = offset, self._source.read(offset, wanted)
            except CheckpointError:
                return b""
        return self._data[offset - self._start : offset - self._start + nbytes]
