"""The codec of chunks: Blosc frames.

Numbers are compressed with LZ4 behind a bit shuffle, which gathers the exponent bits of neighbouring floats; other
bytes with Zstandard. A frame describes itself (c-blosc ``README_HEADER.rst``), so one decoder serves both, and a frame
is what a Zarr v2 chunk is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import pairwise

from theta_nb.errors import CorruptObjectError
from theta_nb.storage import blosc

__all__ = [
    "FrameDecoder",
    "decode_into",
    "encode_bytes",
    "encode_differences",
    "encode_numbers",
    "read_range",
    "typesize_of",
]

_HEADER = struct.Struct("<BBBBIII")  # version, versionlz, flags, typesize, nbytes, blocksize, cbytes
_MAX_TYPESIZE = 16


def encode_numbers(raw: bytes | bytearray | memoryview, itemsize: int) -> bytes:
    """Encode the raw bytes of numbers of ``itemsize`` bytes each (LZ4 level 5, bit shuffle)."""
    typesize = itemsize if 0 < itemsize <= _MAX_TYPESIZE else 1
    return blosc.compress(raw, b"lz4", 5, blosc.BIT_SHUFFLE, typesize)


def encode_bytes(raw: bytes | bytearray | memoryview) -> bytes:
    """Encode bytes that are not numbers: headers, pickles, layouts (Zstandard level 3)."""
    return blosc.compress(raw, b"zstd", 3, blosc.NO_SHUFFLE, 1)


_SAMPLE_NBYTES = 2**17


def encode_differences(raw: bytes | bytearray | memoryview, itemsize: int) -> bytes:
    """Encode integers that are mostly small: with Zstandard (level 1) where a sample says that it pays, else LZ4.

    Small differences leave whole bit planes of zeros, which both find; what is left of a bfloat16 fine-tune Zstandard
    makes a third smaller, and nothing of a float32 one, at three times the cost.
    """
    view = memoryview(raw).cast("B")
    start = (len(view) - _SAMPLE_NBYTES) // 2 // itemsize * itemsize
    sample = view[start : start + _SAMPLE_NBYTES] if start > 0 else view
    fast = blosc.compress(sample, b"lz4", 5, blosc.BIT_SHUFFLE, itemsize)
    small = blosc.compress(sample, b"zstd", 1, blosc.BIT_SHUFFLE, itemsize)
    pays = len(small) < 0.9 * len(fast)
    if len(sample) == len(view):
        return small if pays else fast
    codec, level = (b"zstd", 1) if pays else (b"lz4", 5)
    return blosc.compress(view, codec, level, blosc.BIT_SHUFFLE, itemsize)


def typesize_of(frame: bytes | bytearray | memoryview) -> int:
    """Type size that the header of a frame names; not trusted.

    Raises
    ------
    CorruptObjectError
        If the frame is shorter than a header.
    """
    if len(frame) < _HEADER.size:
        raise CorruptObjectError("an encoded chunk is shorter than its header")
    return int(frame[3])


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
        raise _disagrees(nbytes, cbytes, dest, len(frame))
    try:
        blosc.decompress(frame, dest)
    except (RuntimeError, ValueError) as error:
        raise CorruptObjectError("an encoded chunk does not decompress") from error


_COPIED = 2  # flag of a frame that holds its content as it is
_MOST_BLOCKS = 2**16
_PIECE_NBYTES = 2**20 + 2**16  # two blocks of 512 KiB, as Blosc makes them, and their overhead


class FrameDecoder:
    """Decodes frames a few blocks at a time: of a frame of 16 MB, never more than 1 MB is held encoded.

    Fresh memory is dear, and what has just been read is still in the cache of the core that decodes it. One decoder
    serves one thread.

    Parameters
    ----------
    new_buffer
        Makes the buffer that goes round; called with its length, again only for frames of other programs that do not
        come in blocks.
    """

    def __init__(self, new_buffer: Callable[[int], memoryview]) -> None:
        self._new_buffer = new_buffer
        self._buffer = memoryview(bytearray())

    def decode(self, read_into: Callable[[int, memoryview], None], length: int, dest: memoryview) -> None:
        """Decode one frame into ``dest``, which has exactly the expected length.

        Parameters
        ----------
        read_into
            Fills a buffer with the frame's bytes from a position; called as ``read_into(position, buffer)``. What it
            gives is not trusted.
        length
            Of the frame.
        dest
            Where the content goes.

        Raises
        ------
        CorruptObjectError
            If the frame is malformed, of other lengths than expected, or does not decompress.

        Examples
        --------
        >>> raw = bytes(range(250)) * 40_000
        >>> frame = encode_numbers(raw, 2)
        >>> def read_into(start, buffer):
        ...     buffer[:] = frame[start : start + len(buffer)]
        >>> out = bytearray(len(raw))
        >>> FrameDecoder(lambda nbytes: memoryview(bytearray(nbytes))).decode(read_into, len(frame), memoryview(out))
        >>> bytes(out) == raw
        True
        """
        if length > _PIECE_NBYTES and self._by_blocks(read_into, length, dest):
            return
        frame = self._room(length)[:length]
        read_into(0, frame)
        decode_into(frame, dest)

    def _room(self, nbytes: int) -> memoryview:
        if len(self._buffer) < nbytes:
            self._buffer = self._new_buffer(max(nbytes, _PIECE_NBYTES))
        return self._buffer

    def _by_blocks(self, read_into: Callable[[int, memoryview], None], length: int, dest: memoryview) -> bool:
        """Whether the frame came in blocks, one after the other, and was decoded."""
        buffer = self._room(_PIECE_NBYTES)
        read_into(0, buffer[: _HEADER.size])
        version, format_, flags, typesize, total, blocksize, claimed = _HEADER.unpack_from(buffer)
        if (total, claimed) != (len(dest), length):
            raise _disagrees(total, claimed, dest, length)
        if flags & _COPIED and length == _HEADER.size + total:
            read_into(_HEADER.size, dest)
            return True
        count = -(-total // blocksize) if blocksize else 0
        first = _HEADER.size + 4 * count
        if not 0 < count <= _MOST_BLOCKS or first > min(length, _PIECE_NBYTES):
            return False
        read_into(_HEADER.size, buffer[: 4 * count])
        ends = (*struct.unpack_from(f"<{count}I", buffer), length)
        if ends[0] != first or not all(start < end for start, end in pairwise(ends)):
            return False  # of a program with threads, which write blocks as they finish them
        begin = 0
        while begin < count:
            # A frame of its own: as many blocks as there is room for.
            stop = begin + 1
            while stop < count and self._piece(ends, begin, stop + 1) <= _PIECE_NBYTES:
                stop += 1
            if stop == count - 1 and total % blocksize:
                stop -= 1  # Blosc takes a short block for one only behind a block of full length
            piece = self._piece(ends, begin, stop)
            if stop <= begin or piece > _PIECE_NBYTES:
                return False
            front = _HEADER.size + 4 * (stop - begin)
            start, end = begin * blocksize, min(stop * blocksize, total)
            starts = (front + at - ends[begin] for at in ends[begin:stop])
            _HEADER.pack_into(buffer, 0, version, format_, flags, typesize, end - start, blocksize, piece)
            struct.pack_into(f"<{stop - begin}I", buffer, _HEADER.size, *starts)
            read_into(ends[begin], buffer[front:piece])
            decode_into(buffer[:piece], dest[start:end])
            begin = stop
        return True

    @staticmethod
    def _piece(ends: Sequence[int], begin: int, stop: int) -> int:
        """Length of a frame that holds some of the blocks."""
        return _HEADER.size + 4 * (stop - begin) + ends[stop] - ends[begin]


def _disagrees(nbytes: int, cbytes: int, dest: memoryview, length: int) -> CorruptObjectError:
    return CorruptObjectError(f"an encoded chunk claims {nbytes} bytes in {cbytes}, expected {len(dest)} in {length}")


_BLOCK_OVERHEAD = 4096  # generous: a block that does not shrink is kept as it is, with lengths of 4 bytes between parts


def read_range(read: Callable[[int, int], bytes], total: int, offset: int, nbytes: int) -> bytes:
    """Decode a part of a frame and read little more of it than that.

    A frame is a sequence of blocks that can be decoded one by one: each becomes a frame of its own here.

    Parameters
    ----------
    read
        Gives ``length`` bytes of the frame from a position; called as ``read(position, length)``. What it gives is not
        trusted.
    total
        Length of the whole content, which bounds what is allocated.
    offset, nbytes
        Range of the content; it may not touch a last block that is shorter than the others.

    Raises
    ------
    CorruptObjectError
        If the frame is malformed or of other content, or the range is not one of whole blocks' content.

    Examples
    --------
    >>> raw = bytes(range(250)) * 40_000
    >>> frame = encode_numbers(raw, 2)
    >>> read_range(lambda start, n: frame[start : start + n], len(raw), 5_000_000, 4) == raw[5_000_000:5_000_004]
    True
    """

    def exactly(position: int, length: int) -> bytes:
        data = read(position, length)
        if len(data) != length:
            raise CorruptObjectError("an encoded chunk is cut short")
        return data

    version, format_, flags, typesize, claimed, blocksize, length = _HEADER.unpack(exactly(0, _HEADER.size))
    if claimed != total or offset < 0 or nbytes < 1 or offset + nbytes > total:
        raise CorruptObjectError(f"an encoded chunk claims {claimed} bytes, expected {total}")
    if flags & _COPIED:
        return exactly(_HEADER.size + offset, nbytes)
    count = -(-total // blocksize) if blocksize else 0
    if not 0 < count <= _MOST_BLOCKS or offset + nbytes > total // blocksize * blocksize:
        raise CorruptObjectError("a part of an encoded chunk is not in its whole blocks")
    first, last = offset // blocksize, (offset + nbytes - 1) // blocksize
    # Blocks lie in the order in which threads finished them, so where one ends is where any other begins.
    starts = struct.unpack(f"<{count}I", exactly(_HEADER.size, 4 * count))
    ends = dict(zip(sorted(starts), [*sorted(starts)[1:], length], strict=True))
    out = bytearray()
    for start in starts[first : last + 1]:
        if not 0 < ends[start] - start <= blocksize + _BLOCK_OVERHEAD:
            raise CorruptObjectError("a block of an encoded chunk is not where it should be")
        block = exactly(start, ends[start] - start)
        head = _HEADER.pack(version, format_, flags, typesize, blocksize, blocksize, _HEADER.size + 4 + len(block))
        piece = bytearray(blocksize)
        decode_into(head + struct.pack("<I", _HEADER.size + 4) + block, memoryview(piece))
        out += piece
    start = offset - first * blocksize
    return bytes(out[start : start + nbytes])
