"""git's packet lines, the framing of the long-running filter protocol.

Source: ``Documentation/gitprotocol-common.txt`` and ``gitattributes(5)`` ("Long Running Filter Process"). A packet is
four hexadecimal digits of length (themselves included) and data; ``0000`` is a flush packet.
"""

from __future__ import annotations

import binascii
import contextlib
import fcntl
import os
from collections.abc import Iterator

from theta_nb.errors import ThetaError

__all__ = ["MAX_DATA", "HungUpError", "PacketReader", "PacketStream", "PacketWriter", "ProtocolError"]

MAX_DATA = 65516
"""Most bytes of data in one packet."""

_FLUSH = b"0000"
_PIPE_NBYTES = 2**20
_PACKETS_PER_WRITE = 16


class ProtocolError(ThetaError):
    """The other side does not speak the protocol."""


class HungUpError(ProtocolError):
    """The input ends where git never ends it: git was killed, and nobody is there to be told."""

    def __init__(self) -> None:
        super().__init__("the input ends inside a packet or a list")


def _widen(fd: int) -> None:
    """Let a pipe hold 1 MiB instead of 64 KiB: fewer switches between git and us. Not a pipe, or refused: no matter."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_NBYTES)


class PacketReader:
    """Reads packets from a descriptor.

    Parameters
    ----------
    fd
        Descriptor, usually a pipe from git.
    """

    def __init__(self, fd: int) -> None:
        _widen(fd)
        self._fd = fd
        self._next: int | None = None  # length of the next packet's data, -1 for flush; None: header not read yet
        self._header = bytearray(4)

    def packet(self) -> bytes | None:
        """Data of the next packet, or ``None`` for a flush packet.

        Raises
        ------
        EOFError
            If the input ends between two packets.
        HungUpError
            If it ends inside one.
        ProtocolError
            If a header is not one.
        """
        length = self._length()
        self._next = None
        if length < 0:
            return None
        data = bytearray(length)
        self._exactly(memoryview(data))
        return bytes(data)

    def lines(self) -> Iterator[bytes]:
        """Text packets up to the next flush, each without its one final newline."""
        while (data := self.packet()) is not None:
            yield data.removesuffix(b"\n")

    def content(self) -> PacketStream:
        """What comes up to the next flush packet, as a stream."""
        return PacketStream(self)

    def _length(self) -> int:
        if self._next is None:
            got = self._fill(memoryview(self._header))
            if got == 0:
                raise EOFError
            if got < 4:
                raise HungUpError
            self._next = self._parse_header()
        return self._next

    def _parse_header(self) -> int:
        try:
            # Unlike int(), which takes signs, blanks, underscores and 0x.
            length = int.from_bytes(binascii.unhexlify(self._header), "big")
        except binascii.Error:
            length = -1
        if self._header == _FLUSH:
            return -1
        if not 4 <= length <= MAX_DATA + 4:
            raise ProtocolError(f"{bytes(self._header)!r} is not the header of a packet")
        return length - 4

    def _fill(self, dest: memoryview) -> int:
        done = 0
        while done < len(dest):
            count = os.readv(self._fd, [dest[done:]])
            if count == 0:
                break
            done += count
        return done

    def _exactly(self, dest: memoryview) -> None:
        if self._fill(dest) < len(dest):
            raise HungUpError

    def data_and_next_header(self, dest: memoryview) -> None:
        """Read the rest of the current packet into ``dest`` and, in the same call of the system, the next header."""
        header = memoryview(self._header)
        total, done = len(dest), 0
        while done < total + 4:
            buffers = [dest[done:], header] if done < total else [header[done - total :]]
            count = os.readv(self._fd, buffers)
            if count == 0:
                raise HungUpError
            done += count
        self._next = self._parse_header()


class PacketStream:
    """The data of consecutive packets up to a flush packet, without their framing.

    Parameters
    ----------
    reader
        Where packets come from; nothing else may read from it until :meth:`drain` was called or the end was seen.
    """

    def __init__(self, reader: PacketReader) -> None:
        self._reader = reader
        self._left = 0  # bytes of the current packet still in the pipe
        self._ended = False
        self._pushed = memoryview(b"")
        self._packet = memoryview(bytearray(MAX_DATA))

    def push_back(self, data: bytes) -> None:
        """Have ``data`` come (again) before everything else."""
        self._pushed = memoryview(data + bytes(self._pushed))

    def readinto(self, dest: memoryview) -> int:
        """Fill ``dest``; returns its length, or less at the end."""
        done = min(len(self._pushed), len(dest))
        if done:
            dest[:done] = self._pushed[:done]
            self._pushed = self._pushed[done:]
        total = len(dest)
        while done < total and not self._ended:
            if self._left == 0:
                self._begin()
                continue
            if self._left <= total - done:
                self._reader.data_and_next_header(dest[done : done + self._left])
                done += self._left
                self._left = 0
            else:
                # Small pieces (the skeleton of a file with many tensors) are cut from one read of the packet.
                self._reader.data_and_next_header(self._packet[: self._left])
                count = total - done
                dest[done:] = self._packet[:count]
                self._pushed = self._packet[count : self._left]
                self._left = 0
                done = total
        return done

    def _begin(self) -> None:
        try:
            length = self._reader._length()
        except EOFError:
            raise HungUpError from None
        self._reader._next = None
        if length < 0:
            self._ended = True
        self._left = max(length, 0)

    def drain(self) -> None:
        """Read and drop the rest: git must be able to write everything before it listens."""
        scratch = memoryview(bytearray(MAX_DATA))
        self._pushed = memoryview(b"")
        while self.readinto(scratch):
            pass


class PacketWriter:
    """Writes packets to a descriptor.

    Parameters
    ----------
    fd
        Descriptor, usually a pipe to git.
    """

    def __init__(self, fd: int) -> None:
        _widen(fd)
        self._fd = fd

    def lines(self, *lines: str) -> None:
        """A list of text packets and a flush packet."""
        data = b"".join(b"%04x%s\n" % (len(raw) + 5, raw) for raw in map(os.fsencode, lines))
        self._all([memoryview(data + _FLUSH)])

    def flush(self) -> None:
        """A flush packet."""
        self._all([memoryview(_FLUSH)])

    def data(self, data: memoryview | bytes) -> None:
        """Any amount of data, in as many packets as it takes."""
        view = memoryview(data)
        while view:
            buffers: list[memoryview] = []
            for _ in range(_PACKETS_PER_WRITE):
                piece, view = view[:MAX_DATA], view[MAX_DATA:]
                if not piece:
                    break
                buffers += [memoryview(b"%04x" % (len(piece) + 4)), piece]
            self._all(buffers)

    def _all(self, buffers: list[memoryview]) -> None:
        while buffers:
            count = os.writev(self._fd, buffers)
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.pop(0))
            if count:
                buffers[0] = buffers[0][count:]
