"""The codec of chunks: Blosc frames.

Numbers are compressed with LZ4 behind a bit shuffle, which gathers the exponent bits of neighbouring floats; other
bytes with Zstandard. A frame describes itself (c-blosc ``README_HEADER.rst``), so one decoder serves both, and a frame
is what a Zarr v2 chunk is.
"""

from __future__ import annotations

import struct

from theta_nb.errors import CorruptObjectError
from theta_nb.storage import blosc

__all__ = ["decode_into", "encode_bytes", "encode_numbers"]

_HEADER = struct.Struct("<BBBBIII")  # version, versionlz, flags, typesize, nbytes, blocksize, cbytes
_MAX_TYPESIZE = 16


def encode_numbers(raw: bytes | bytearray | memoryview, itemsize: int) -> bytes:
    """Encode the raw bytes of numbers of ``itemsize`` bytes each (LZ4 level 5, bit shuffle)."""
    typesize = itemsize if 0 < itemsize <= _MAX_TYPESIZE else 1
    return blosc.compress(raw, b"lz4", 5, blosc.BIT_SHUFFLE, typesize)


def encode_bytes(raw: bytes | bytearray | memoryview) -> bytes:
    """Encode bytes that are not numbers: headers, pickles, layouts (Zstandard level 3)."""
    return blosc.compress(raw, b"zstd", 3, blosc.NO_SHUFFLE, 1)


def decode_into(frame: bytes | bytearray | memoryview, dest: memoryview) -> None:
    """Decode one frame into ``dest``, which has exactly the expected length.

    The frame is not trusted: its header must agree with both lengths before the decompressor sees it.

    Raises
    ------
    CorruptObjectError
        If the frame is cut, of another length than expected, or does not decompress.

    Examples
    --------
    >>> raw = bytes(range(64))
    >>> out = bytearray(64)
    >>> decode_into(encode_numbers(raw, 4), memoryview(out))
    >>> bytes(out) == raw
    True
    """
    if len(frame) < _HEADER.size:
        raise CorruptObjectError("an encoded chunk is shorter than its header")
    _, _, _, _, nbytes, _, cbytes = _HEADER.unpack_from(frame)
    if nbytes != len(dest) or cbytes != len(frame):
        raise CorruptObjectError(
            f"an encoded chunk claims {nbytes} bytes in {cbytes}, expected {len(dest)} in {len(frame)}"
        )
    try:
        blosc.decompress(frame, dest)
    except (RuntimeError, ValueError) as error:
        raise CorruptObjectError("an encoded chunk does not decompress") from error
