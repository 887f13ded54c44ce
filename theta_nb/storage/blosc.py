"""The Blosc compressor: the C library that comes with ``numcodecs``, called directly.

The Python module around it brings NumPy and a dozen other codecs, which takes longer to import than all of ours: every
``git status`` would wait for it. What is called here are the functions of c-blosc's ``blosc.h`` that keep no state, so
that chunks are coded in parallel. Where the library does not let itself be called, the module is used after all; both
write the same bytes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Any, Protocol

__all__ = ["BIT_SHUFFLE", "NO_SHUFFLE", "compress", "decompress"]

NO_SHUFFLE, BIT_SHUFFLE = 0, 2

_MAX_OVERHEAD = 16
_ONE_THREAD = 1

Buffer = bytes | bytearray | memoryview


class _Codec(Protocol):
    def compress(self, raw: Buffer, name: bytes, level: int, shuffle: int, typesize: int) -> bytes: ...

    def decompress(self, frame: Buffer, dest: memoryview) -> None: ...


def compress(raw: Buffer, name: bytes, level: int, shuffle: int, typesize: int) -> bytes:
    """One frame that holds ``raw``.

    Parameters
    ----------
    raw
        Contiguous bytes, less than 2 GiB.
    name
        Compressor inside Blosc: ``b"lz4"`` or ``b"zstd"``.
    level
        From 1 (fast) to 9.
    shuffle
        :data:`NO_SHUFFLE` or :data:`BIT_SHUFFLE`.
    typesize
        Bytes of one number.
    """
    return _codec().compress(raw, name, level, shuffle, typesize)


def decompress(frame: Buffer, dest: memoryview) -> None:
    """Decode a frame whose header says that it is as long as ``frame`` and holds as much as ``dest``.

    Raises
    ------
    RuntimeError, ValueError
        If it does not decompress.

    Examples
    --------
    >>> dest = bytearray(1000)
    >>> decompress(compress(bytes(1000), b"lz4", 5, BIT_SHUFFLE, 4), memoryview(dest))
    >>> dest == bytes(1000)
    True
    """
    _codec().decompress(frame, dest)


@cache
def _codec() -> _Codec:
    return _Library.load() or _Module()


class _Library:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._compress = library.blosc_compress_ctx
        size, number, pointer, text = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
        # level, shuffle, typesize, source and its length, target and its length, compressor, block size, threads
        self._compress.argtypes = [number, number, size, size, pointer, pointer, size, text, size, number]
        self._buffers = threading.local()
        self._decompress = library.blosc_decompress_ctx
        self._decompress.argtypes = [pointer, pointer, size, number]  # source, target and its length, threads

    @classmethod
    def load(cls) -> _Library | None:
        spec = find_spec("numcodecs")
        for folder in (spec and spec.submodule_search_locations) or ():
            for suffix in EXTENSION_SUFFIXES:
                path = os.path.join(folder, f"blosc{suffix}")
                try:
                    return cls(ctypes.CDLL(path))
                except (OSError, AttributeError):  # no such file, or its functions are not to be seen
                    continue
        return None

    def compress(self, raw: Buffer, name: bytes, level: int, shuffle: int, typesize: int) -> bytes:
        nbytes = memoryview(raw).nbytes
        most = nbytes + _MAX_OVERHEAD  # where that does not suffice, Blosc copies
        frame = self._frame(most)
        length = self._compress(
            level, shuffle, typesize, nbytes, _pointer(raw), _pointer(frame), most, name, 0, _ONE_THREAD
        )
        if length <= 0:
            raise RuntimeError(f"Blosc does not compress {nbytes} bytes: {length}")
        return bytes(memoryview(frame)[:length])

    def _frame(self, nbytes: int) -> bytearray:
        """A buffer of this thread: fresh memory is dear."""
        frame: bytearray | None = getattr(self._buffers, "frame", None)
        if frame is None or len(frame) < nbytes:
            frame = self._buffers.frame = bytearray(nbytes)
        return frame

    def decompress(self, frame: Buffer, dest: memoryview) -> None:
        length = self._decompress(_pointer(frame), _pointer(dest), dest.nbytes, _ONE_THREAD)
        if length != dest.nbytes:
            raise RuntimeError(f"Blosc does not decompress: {length}")


def _pointer(buffer: Buffer) -> Any:
    """What ctypes passes on as the address of a buffer, which lives as long as the result."""
    if isinstance(buffer, bytes):
        return buffer
    if not memoryview(buffer).nbytes or memoryview(buffer).readonly:
        return bytes(buffer)
    return ctypes.byref(ctypes.c_char.from_buffer(buffer))


class _Module:
    def __init__(self) -> None:
        from numcodecs import blosc

        # Blosc's own thread pool is process-wide and serialises concurrent calls; ours are parallel across chunks.
        blosc.use_threads = False
        self._blosc = blosc

    def compress(self, raw: Buffer, name: bytes, level: int, shuffle: int, typesize: int) -> bytes:
        frame: bytes = self._blosc.compress(raw, name, level, shuffle, typesize=typesize)
        return frame

    def decompress(self, frame: Buffer, dest: memoryview) -> None:
        self._blosc.decompress(frame, dest)
