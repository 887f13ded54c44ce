"""Frames decode to what was encoded, or not at all."""

from __future__ import annotations

import contextlib
import itertools
import struct
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.git.checkpoints import noise
from theta_nb.errors import CorruptObjectError
from theta_nb.storage import blosc
from theta_nb.storage.encoding import (
    FrameDecoder,
    decode_into,
    encode_bytes,
    encode_differences,
    encode_numbers,
    read_range,
)

_HEADER = struct.Struct("<BBBBIII")


def _decode(frame: bytes, nbytes: int) -> bytes:
    out = bytearray(nbytes)
    decode_into(frame, memoryview(out))
    return bytes(out)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8, 16, 3, 0, 17, 1000])
@pytest.mark.parametrize("nbytes", [1, 15, 16, 17, 1000, 100_001])
def test_numbers_of_any_width_come_back(itemsize: int, nbytes: int) -> None:
    for raw in (noise(nbytes), bytes(nbytes)):
        assert _decode(encode_numbers(raw, itemsize), nbytes) == raw


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=2000), st.integers(0, 20))
def test_any_bytes_come_back(raw: bytes, itemsize: int) -> None:
    assert _decode(encode_numbers(raw, itemsize), len(raw)) == raw
    assert _decode(encode_bytes(raw), len(raw)) == raw


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_encoded_and_decoded(kind: type) -> None:
    raw = noise(5000)
    frame = encode_numbers(kind(bytearray(raw)), 4)
    assert frame == encode_numbers(raw, 4)
    out = bytearray(5000)
    decode_into(kind(bytearray(frame)), memoryview(out))
    assert bytes(out) == raw


def test_a_frame_is_hardly_longer_than_its_content() -> None:
    for raw in (noise(100), noise(100_000)):
        assert len(encode_numbers(raw, 4)) <= len(raw) + 16
        assert len(encode_bytes(raw)) <= len(raw) + 16


def test_the_module_writes_and_reads_the_same_bytes_as_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library does not let itself be called, the module of numcodecs takes over."""
    contents = [noise(70_000), bytes(70_000), b"x", noise(17) * 900]

    def frames() -> list[bytes]:
        return [encode_numbers(raw, 4) for raw in contents] + [encode_bytes(raw) for raw in contents]

    assert isinstance(blosc._codec(), blosc._Library), "the wheels of numcodecs let it be called"
    by_library = frames()
    monkeypatch.setattr(blosc, "EXTENSION_SUFFIXES", [".nowhere"])
    blosc._codec.cache_clear()
    try:
        assert isinstance(blosc._codec(), blosc._Module)
        assert frames() == by_library
        assert [_decode(frame, len(raw)) for frame, raw in zip(by_library, contents * 2, strict=True)] == contents * 2
    finally:
        blosc._codec.cache_clear()


# --- frames that lie --------------------------------------------------------------------------------------------------

RAW = bytes(range(256)) * 40
FRAMES = {"numbers": encode_numbers(RAW, 4), "bytes": encode_bytes(RAW), "stored": encode_numbers(noise(10_240), 1)}


def _header(frame: bytes, **changed: int) -> bytes:
    names = ("version", "versionlz", "flags", "typesize", "nbytes", "blocksize", "cbytes")
    values = dict(zip(names, _HEADER.unpack_from(frame), strict=True)) | changed
    return _HEADER.pack(*values.values()) + frame[16:]


LIES = {
    "longer content": {"nbytes": len(RAW) + 1},
    "shorter content": {"nbytes": len(RAW) - 1},
    "no content": {"nbytes": 0},
    "4 GiB of content": {"nbytes": 2**32 - 1},
    "longer frame": {"cbytes": 2**32 - 1},
    "shorter frame": {"cbytes": 16},
    "frame of nothing": {"cbytes": 0},
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("frame", FRAMES)
def test_a_header_with_another_length_is_refused_before_it_is_decoded(frame: str, lie: str) -> None:
    with pytest.raises(CorruptObjectError, match="claims"):
        _decode(_header(FRAMES[frame], **LIES[lie]), len(RAW))


# The lengths are right and all else is not: nothing may crash, and what does decode is checked by digest elsewhere.
CRASHES = {
    "another version": {"version": 99},
    "version 0": {"version": 0},
    "another codec version": {"versionlz": 99},
    "all flags": {"flags": 0xFF},
    "no flags": {"flags": 0},
    "reserved codec": {"flags": 0b11100001},
    "typesize 0": {"typesize": 0},
    "typesize 255": {"typesize": 255},
    "block of 0": {"blocksize": 0},
    "block of 1": {"blocksize": 1},
    "block of 4 GiB": {"blocksize": 2**32 - 1},
    "block of 2 GiB": {"blocksize": 2**31},
    "block longer than the content": {"blocksize": len(RAW) * 2},
}


def _decode_guarded(frame: bytes, nbytes: int) -> None:
    """Decode between two walls: what is written outside the destination shows."""
    wall = b"\xa5" * 4096
    arena = bytearray(wall + bytes(nbytes) + wall)
    with contextlib.suppress(CorruptObjectError):
        decode_into(frame, memoryview(arena)[4096 : 4096 + nbytes])
    assert bytes(arena[:4096]) == wall
    assert bytes(arena[-4096:]) == wall, "bytes were written behind the destination"


@pytest.mark.parametrize("lie", CRASHES)
@pytest.mark.parametrize("frame", FRAMES)
def test_a_header_that_lies_otherwise_does_no_harm(frame: str, lie: str) -> None:
    _decode_guarded(_header(FRAMES[frame], **CRASHES[lie]), len(RAW))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_a_damaged_frame_does_no_harm(name: str, draw: st.DataObject) -> None:
    frame = bytearray(FRAMES[name])
    for _ in range(draw.draw(st.integers(1, 6))):
        # Lengths stay right, so that the decompressor sees the rest; the offsets of blocks are hit most often.
        position = draw.draw(st.integers(0, 3) | st.integers(8, 11) | st.integers(16, min(80, len(frame) - 1)))
        frame[position] = draw.draw(st.integers(0, 255))
    _decode_guarded(bytes(frame), len(RAW))


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_frame_shorter_than_a_header_is_refused(length: int) -> None:
    with pytest.raises(CorruptObjectError, match="shorter than its header"):
        _decode(FRAMES["numbers"][:length], len(RAW))


def test_a_cut_frame_is_refused() -> None:
    for frame in FRAMES.values():
        with pytest.raises(CorruptObjectError):
            _decode(frame[:-1], len(RAW))
        with pytest.raises(CorruptObjectError):
            _decode(frame + b"x", len(RAW))


# --- parts of frames --------------------------------------------------------------------------------------------------

TOTAL = 2**21 + 40  # the last block is shorter than the others
CONTENTS = {
    "stored": noise(TOTAL),
    "smooth": bytes(range(256)) * (TOTAL // 256) + bytes(TOTAL % 256),
    "sparse": b"".join(bytes(1000) + noise(10, i) for i in range(TOTAL // 1000))[:TOTAL],
}
ENCODINGS = {
    **{f"numbers of {n}": lambda raw, n=n: encode_numbers(raw, n) for n in (1, 2, 4, 8, 16)},
    **{f"differences of {n}": lambda raw, n=n: encode_differences(raw, n) for n in (1, 2, 4, 8)},
    "bytes": encode_bytes,
}


class _Reader:
    """Reads a frame and counts."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.count = 0

    def __call__(self, position: int, length: int) -> bytes:
        self.count += length
        return self.frame[position : position + length]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("content", CONTENTS)
def test_a_part_of_a_frame_is_that_part_of_its_content_and_little_more_is_read(content: str, encoding: str) -> None:
    raw = CONTENTS[content]
    frame = ENCODINGS[encoding](raw)
    blocksize = struct.unpack_from("<I", frame, 8)[0]
    whole = TOTAL // blocksize * blocksize
    for offset, nbytes in ((0, 1), (0, 5000), (blocksize - 3, 7), (whole // 2, 2**16), (whole - 9, 9), (0, whole)):
        read = _Reader(frame)
        assert read_range(read, TOTAL, offset, nbytes) == raw[offset : offset + nbytes], (offset, nbytes)
        assert read.count <= (nbytes // blocksize + 2) * (blocksize + 4096), (
            "more was read than the blocks that hold it"
        )


@pytest.mark.parametrize("encoding", ["numbers of 4", "bytes"])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_not_in_a_frame_cannot_be_read(content: str, encoding: str) -> None:
    frame = ENCODINGS[encoding](CONTENTS[content])
    for total, offset, nbytes in (
        *((TOTAL, TOTAL, 1), (TOTAL, TOTAL - 1, 2), (TOTAL, -1, 2), (TOTAL, 0, 0), (TOTAL, 2**40, 9)),
        *((TOTAL - 1, 0, 9), (TOTAL + 1, 0, 9), (0, 0, 9)),
    ):
        with pytest.raises(CorruptObjectError):
            read_range(_Reader(frame), total, offset, nbytes)


def _lying(frame: bytes) -> Iterator[bytes]:
    """Frames whose header, or whose table of blocks, was changed."""
    for length in (0, 5, 15, 16, 17, 20, len(frame) // 2):
        yield frame[:length]
    for place in range(40):
        for word in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x01\0\0\0", b"\0\0\x10\0"):
            yield frame[:place] + word + frame[place + 4 :]
    for blocksize in (1, 3, TOTAL - 1, TOTAL, 2**31, 2**32 - 1):
        yield _header(frame, blocksize=blocksize)
    yield _header(frame, nbytes=2**32 - 1, blocksize=2**32 - 1)


@pytest.mark.parametrize("encoding", ["numbers of 4", "differences of 2", "bytes"])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_frame_that_lies_is_refused_or_gives_other_bytes_in_bounded_memory(content: str, encoding: str) -> None:
    for frame in _lying(ENCODINGS[encoding](CONTENTS[content])):
        tracemalloc.start()
        try:
            with contextlib.suppress(CorruptObjectError):
                assert len(read_range(_Reader(frame), TOTAL, 100_000, 5000)) == 5000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * TOTAL, f"{peak} bytes"


# --- frames, a few blocks at a time -----------------------------------------------------------------------------------


def _by_pieces(frame: bytes, length: int, nbytes: int) -> tuple[bytes, int]:
    """What a frame holds, and the most bytes of it that were read at once."""
    most = 0

    def read_into(position: int, buffer: memoryview) -> None:
        nonlocal most
        if buffer.nbytes != nbytes:  # what is stored as it is goes to its place at once
            most = max(most, len(buffer))
        piece = frame[position : position + len(buffer)]
        if len(piece) < len(buffer):
            raise CorruptObjectError("the object is shorter")
        buffer[:] = piece

    dest = bytearray(nbytes)
    FrameDecoder(lambda count: memoryview(bytearray(count))).decode(read_into, length, memoryview(dest))
    return bytes(dest), most


@pytest.mark.parametrize("encoding", ["numbers of 2", "numbers of 4", "differences of 2", "bytes"])
@pytest.mark.parametrize("nbytes", [0, 1, 2**19, 2**20 + 2**19, 2**21 + 40, 2**22, 2**22 + 2**19, 3 * 2**20 + 16])
@pytest.mark.parametrize("kind", ["floats", "noise", "zeros"])
def test_a_frame_is_decoded_by_pieces_and_little_of_it_is_held(kind: str, nbytes: int, encoding: str) -> None:
    floats = np.random.default_rng(0).standard_normal(nbytes // 4, dtype=np.float32).tobytes()
    raw = {"floats": floats + bytes(nbytes % 4), "noise": noise(nbytes), "zeros": bytes(nbytes)}[kind]
    frame = ENCODINGS[encoding](raw)
    found, most = _by_pieces(frame, len(frame), nbytes)
    assert found == raw
    if encoding != "bytes":  # blocks of Zstandard are as long as it likes
        assert most <= 2**20 + 2**16, "more was held than a piece"


def test_blocks_in_any_order_are_decoded() -> None:
    """Programs with threads write blocks as they finish them."""
    raw = np.random.default_rng(0).standard_normal(2**20, dtype=np.float32).tobytes()
    frame = encode_numbers(raw, 4)
    blocksize = struct.unpack_from("<I", frame, 8)[0]
    count = len(raw) // blocksize
    starts = [*struct.unpack_from(f"<{count}I", frame, 16), len(frame)]
    blocks = [frame[a:b] for a, b in itertools.pairwise(starts)]
    place = 16 + 4 * count
    table = [0] * count
    for index in reversed(range(count)):
        table[index] = place
        place += len(blocks[index])
    mixed = frame[:16] + struct.pack(f"<{count}I", *table) + b"".join(reversed(blocks))
    assert mixed != frame
    assert _by_pieces(mixed, len(mixed), len(raw))[0] == raw


@pytest.mark.parametrize("encoding", ["numbers of 4", "differences of 2", "bytes"])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_frame_that_lies_is_not_decoded_by_pieces(content: str, encoding: str) -> None:
    whole = ENCODINGS[encoding](CONTENTS[content])
    for frame in _lying(whole):
        for length in {len(frame), len(whole)}:
            tracemalloc.start()
            try:
                with contextlib.suppress(CorruptObjectError):
                    assert len(_by_pieces(frame, length, TOTAL)[0]) == TOTAL
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 8 * TOTAL, f"{peak} bytes"
