"""Writes an archive whose records are stored as they are, from their sizes alone: their bytes may come in any order.

Specification: PKWARE's APPNOTE.TXT (sections 4.3 and 4.5.3). Records begin at multiples of 64 bytes, as PyTorch's do,
so that a loaded file can be mapped; the padding is an extra field, as there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Member", "ZipPlan"]

_ALIGNMENT = 64
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_DAY_ONE = 0x21  # the first of January 1980, the earliest day there is
_UTF8 = 1 << 11


@dataclass(frozen=True, slots=True)
class Member:
    """A record that is planned.

    Parameters
    ----------
    name
        Its name in the archive, at most 65,535 bytes.
    nbytes
        Its length.
    header, offset
        Where its local header and its bytes begin.
    """

    name: bytes
    nbytes: int
    header: int
    offset: int

    @property
    def _wide(self) -> bool:
        return self.nbytes >= _FULL32

    def local_header(self, crc32: int) -> bytes:
        """What stands before its bytes."""
        sizes = (_FULL32, _FULL32) if self._wide else (self.nbytes, self.nbytes)
        extra = struct.pack("<HHQQ", 1, 16, self.nbytes, self.nbytes) if self._wide else b""
        room = self.offset - self.header - 30 - len(self.name) - len(extra)
        extra += b"FB" + struct.pack("<H", room - 4) + bytes(room - 4)
        version = 45 if self._wide else 20
        fields = (b"PK\x03\x04", version, _UTF8, 0, 0, _DAY_ONE, crc32, *sizes, len(self.name), len(extra))
        return struct.pack("<4sHHHHHIIIHH", *fields) + self.name + extra

    def central_header(self, crc32: int) -> bytes:
        """Its entry in the directory."""
        numbers = (self.nbytes, self.nbytes, self.header)
        wide = [number for number in numbers if number >= _FULL32]
        extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        nbytes, _, header = (min(number, _FULL32) for number in numbers)
        version = 45 if wide else 20
        fields = (b"PK\x01\x02", version, version, _UTF8, 0, 0, _DAY_ONE, crc32, nbytes, nbytes, len(self.name))
        return struct.pack("<4sHHHHHHIIIHHHHHII", *fields, len(extra), 0, 0, 0, 0, header) + self.name + extra


class ZipPlan:
    """Where everything of an archive goes.

    Parameters
    ----------
    records
        Name and length of each, in order.

    Examples
    --------
    >>> import io, zipfile, zlib
    >>> plan = ZipPlan([(b"a/one", 3)])
    >>> [one] = plan.members
    >>> crc32 = zlib.crc32(b"abc")
    >>> data = bytearray(plan.directory_offset) + plan.directory([crc32])
    >>> head = one.local_header(crc32)
    >>> data[: len(head)], data[one.offset : one.offset + 3] = head, b"abc"
    >>> zipfile.ZipFile(io.BytesIO(data)).read("a/one"), one.offset
    (b'abc', 64)
    """

    def __init__(self, records: Sequence[tuple[bytes, int]]) -> None:
        members = []
        position = 0
        for name, nbytes in records:
            least = position + 30 + len(name) + (20 if nbytes >= _FULL32 else 0) + 4
            offset = -(-least // _ALIGNMENT) * _ALIGNMENT
            members.append(Member(name, nbytes, position, offset))
            position = offset + nbytes
        self.members = tuple(members)
        self.directory_offset = position

    def directory(self, crc32s: Sequence[int]) -> bytes:
        """The directory, which ends the archive, given the CRC-32 of each record."""
        entries = b"".join(one.central_header(crc) for one, crc in zip(self.members, crc32s, strict=True))
        start, nbytes, count = self.directory_offset, len(entries), len(self.members)
        end = b""
        if start >= _FULL32 or nbytes >= _FULL32 or count >= _FULL16:
            fields = (b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, nbytes, start)
            end = struct.pack("<4sQHHIIQQQQ", *fields) + struct.pack("<4sIQI", b"PK\x06\x07", 0, start + nbytes, 1)
        short = (min(count, _FULL16), min(count, _FULL16), min(nbytes, _FULL32), min(start, _FULL32))
        return entries + end + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, *short, 0)
