"""Packet lines: one table drives reader and writer, and no way of cutting the data changes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theta_nb.git.pktline import MAX_DATA, PacketReader, PacketWriter, ProtocolError

# Lines of text that one side sends, and the bytes on the wire.
LISTS: dict[str, tuple[list[str], bytes]] = {
    "empty": ([], b"0000"),
    "one": (["version=2"], b"000eversion=2\n0000"),
    "two": (["git-filter-server", "version=2"], b"0016git-filter-server\n000eversion=2\n0000"),
    "empty line": ([""], b"0005\n0000"),
    "inner newline": (["pathname=a\nb"], b"0011pathname=a\nb\n0000"),
    "equals": (["pathname=lr=0.1"], b"0014pathname=lr=0.1\n0000"),
    "non-ascii": (["pathname=ö"], "0010pathname=ö\n0000".encode()),
    "not utf-8": (["pathname=\udcff"], b"000fpathname=\xff\n0000"),
}

# Content that one side sends, and the packets it may not differ from.
CONTENTS: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b"0000"),
    "a byte": (b"x", b"0005x0000"),
    "looks like a flush": (b"0000", b"000800000000"),
    "a full packet": (b"y" * MAX_DATA, b"fff0" + b"y" * MAX_DATA + b"0000"),
    "one byte more": (b"y" * MAX_DATA + b"z", b"fff0" + b"y" * MAX_DATA + b"0005z0000"),
}

MALFORMED = {
    "no hexadecimal": b"zzzz",
    "length 1": b"0001",
    "length 2": b"0002",
    "length 3": b"0003",
    "too long": b"fff1" + b"y" * 65521,
    "longest": b"ffff" + b"y" * 65535,
    "sign": b"+008data0000",
    "minus": b"-008data0000",
    "blank": b"  08data0000",
    "underscore": b"0_08data0000",
    "prefix": b"0x08data0000",
    "cut header": b"00",
    "cut data": b"0008da",
}


@contextmanager
def _arriving(pieces: Sequence[bytes]) -> Iterator[int]:
    """A pipe into which another thread writes the pieces, one system call each; yields the end to read from."""
    source, sink = os.pipe()

    def write() -> None:
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(sink, view) :]
        except BrokenPipeError:
            pass
        finally:
            os.close(sink)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield source
    finally:
        os.close(source)
        thread.join()


def _written(write: Callable[[PacketWriter], None]) -> bytes:
    source, sink = os.pipe()
    collected = bytearray()

    def read() -> None:
        while piece := os.read(source, 2**16):
            collected.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        write(PacketWriter(sink))
    finally:
        os.close(sink)
        thread.join()
        os.close(source)
    return bytes(collected)


@pytest.mark.parametrize("case", LISTS)
def test_lists_are_written_as_in_the_table(case: str) -> None:
    lines, wire = LISTS[case]
    assert _written(lambda writer: writer.lines(*lines)) == wire


@pytest.mark.parametrize("case", LISTS)
def test_lists_are_read_as_in_the_table(case: str) -> None:
    lines, wire = LISTS[case]
    with _arriving([wire]) as source:
        assert [os.fsdecode(line) for line in PacketReader(source).lines()] == lines


@pytest.mark.parametrize("case", CONTENTS)
def test_content_is_written_as_in_the_table(case: str) -> None:
    content, wire = CONTENTS[case]

    def write(writer: PacketWriter) -> None:
        writer.data(content)
        writer.flush()

    assert _written(write) == wire


@pytest.mark.parametrize("case", CONTENTS)
def test_content_is_read_as_in_the_table(case: str) -> None:
    content, wire = CONTENTS[case]
    with _arriving([wire]) as source:
        stream = PacketReader(source).content()
        buffer = bytearray(len(content) + 10)
        count = stream.readinto(memoryview(buffer))
        assert bytes(buffer[:count]) == content
        assert stream.readinto(memoryview(buffer)) == 0, "the end is the end"


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("as_content", [False, True], ids=["packet", "content"])
def test_what_is_no_packet_is_an_error(case: str, as_content: bool) -> None:
    with _arriving([MALFORMED[case]]) as source:
        reader = PacketReader(source)
        read = reader.content().drain if as_content else reader.packet
        with pytest.raises(ProtocolError):
            read()


def test_the_end_between_packets_is_no_error_of_the_protocol() -> None:
    with _arriving([b"0008data"]) as source:
        reader = PacketReader(source)
        assert reader.packet() == b"data"
        with pytest.raises(EOFError):
            reader.packet()


def test_content_that_ends_without_a_flush_is_an_error() -> None:
    with _arriving([b"0008data"]) as source, pytest.raises(ProtocolError):
        PacketReader(source).content().drain()


def test_an_empty_packet_is_not_the_end() -> None:
    with _arriving([b"000400040005x00040000"]) as source:
        buffer = bytearray(10)
        stream = PacketReader(source).content()
        assert stream.readinto(memoryview(buffer)) == 1
        assert buffer[:1] == b"x"


# --- any cut ----------------------------------------------------------------------------------------------------------

_PACKETS = st.lists(st.binary(max_size=50) | st.just(b"y" * MAX_DATA), max_size=6)
_SIZES = st.lists(st.integers(0, 70) | st.just(MAX_DATA) | st.just(3 * MAX_DATA), min_size=1, max_size=8)


def _wire(packets: Sequence[bytes]) -> bytes:
    return b"".join(b"%04x" % (len(packet) + 4) + packet for packet in packets) + b"0000"


def _cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    pieces, position = [], 0
    while position < len(data):
        for size in sizes:
            pieces.append(data[position : position + size])
            position += size
        position += 0 if any(sizes) else len(data)
    return pieces if any(sizes) else [data]


@settings(max_examples=120, deadline=None)
@given(packets=_PACKETS, arrivals=_SIZES, wanted=_SIZES, next_packet=st.binary(max_size=20))
def test_any_cut_into_packets_writes_and_reads_gives_the_same_bytes(
    packets: list[bytes], arrivals: list[int], wanted: list[int], next_packet: bytes
) -> None:
    wire = _wire(packets) + _wire([next_packet])
    # Single bytes would take 65,000 system calls for a full packet.
    pieces = _cut(wire, [max(size, len(wire) // 200) for size in arrivals])
    with _arriving(pieces) as source:
        reader = PacketReader(source)
        stream = reader.content()
        collected = bytearray()
        while True:
            ended = True
            for size in [*wanted, MAX_DATA // 3]:
                buffer = bytearray(size)
                count = stream.readinto(memoryview(buffer))
                collected += buffer[:count]
                assert count == size or not stream.readinto(memoryview(bytearray(1))), "less than wanted before the end"
                ended = ended and count == 0
            if ended:
                break
        assert bytes(collected) == b"".join(packets)
        assert reader.packet() == next_packet, "the stream took more, or less, than its own packets"
        assert reader.packet() is None


@settings(max_examples=60, deadline=None)
@given(packets=_PACKETS, taken=st.integers(0, 100), rest=_SIZES)
def test_bytes_given_back_come_again(packets: list[bytes], taken: int, rest: list[int]) -> None:
    with _arriving([_wire(packets)]) as source:
        stream = PacketReader(source).content()
        head = bytearray(taken)
        count = stream.readinto(memoryview(head))
        stream.push_back(bytes(head[:count]))
        collected = bytearray()
        for size in [*rest, 10 * MAX_DATA]:
            buffer = bytearray(size)
            collected += buffer[: stream.readinto(memoryview(buffer))]
        assert bytes(collected) == b"".join(packets)


@settings(max_examples=60, deadline=None)
@given(packets=_PACKETS, taken=st.integers(0, 100), next_packet=st.binary(max_size=20))
def test_what_is_not_wanted_can_be_drained(packets: list[bytes], taken: int, next_packet: bytes) -> None:
    with _arriving([_wire(packets) + _wire([next_packet])]) as source:
        reader = PacketReader(source)
        stream = reader.content()
        head = bytearray(taken)
        count = stream.readinto(memoryview(head))
        stream.push_back(bytes(head[:count]))
        stream.drain()
        assert stream.readinto(memoryview(head)) == 0
        assert reader.packet() == next_packet


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=100) | st.just(b"y" * (20 * MAX_DATA + 7)), max_size=4))
def test_what_the_writer_writes_the_reader_reads(pieces: list[bytes]) -> None:
    def write(writer: PacketWriter) -> None:
        for piece in pieces:
            writer.data(piece)
        writer.flush()

    wire = _written(write)
    with _arriving([wire]) as source:
        stream = PacketReader(source).content()
        buffer = bytearray(sum(map(len, pieces)) + 1)
        assert stream.readinto(memoryview(buffer)) == len(buffer) - 1
        assert bytes(buffer[:-1]) == b"".join(pieces)


def test_the_writer_ends_with_the_reader() -> None:
    source, sink = os.pipe()
    os.close(source)
    try:
        with pytest.raises(BrokenPipeError):
            PacketWriter(sink).data(b"nobody listens")
    finally:
        os.close(sink)
