"""The directory of a zip archive, read without inflating or trusting anything.

Specification: PKWARE's APPNOTE.TXT (sections 4.3 and 4.5.3). Python's ``zipfile`` believes the central directory;
PyTorch's reader and other tools look at local headers too, so an archive whose two listings differ means different
things to different readers. Here every record is described three times (central directory, local header, data
descriptor) and all descriptions must agree, records must not overlap, and names must be unique.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from theta_nb.checkpoints.layout import ByteSource
from theta_nb.errors import CheckpointError

__all__ = ["Record", "read_directory"]

_END = struct.Struct("<4sHHHHIIH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CRC_IN_LOCAL = 14
_CRC_IN_CENTRAL = 16

MAX_RECORDS = 1_000_000
MAX_DIRECTORY_NBYTES = 1 << 27
_MAX_COMMENT = 0xFFFF
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 field"
_ENCRYPTED, _HAS_DESCRIPTOR = 1 << 0, 1 << 3
_COMPARED_FLAGS = _ENCRYPTED | _HAS_DESCRIPTOR
_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"


@dataclass(frozen=True, slots=True)
class Record:
    """One member of an archive.

    Parameters
    ----------
    name
        Its name; bytes that are not UTF-8 become lone surrogates.
    stored
        Whether its bytes stand in the file as they are, neither compressed nor encrypted.
    offset, nbytes
        Position in the file of its (possibly compressed) bytes.
    crc_offsets
        Positions of every 4-byte field that holds its CRC-32, ascending.
    """

    name: str
    stored: bool
    offset: int
    nbytes: int
    crc_offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Central:
    """A record as the central directory describes it."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    uncompressed: int
    header: int
    crc_offset: int

    @property
    def name(self) -> str:
        return self.raw_name.decode("utf-8", "surrogateescape")


def read_directory(source: ByteSource) -> tuple[Record, ...]:
    """All records of a zip archive, by ascending offset.

    Parameters
    ----------
    source
        The whole archive. Text after its end record's comment is not accepted.

    Returns
    -------
    tuple of Record

    Raises
    ------
    CheckpointError
        If the archive is malformed or any two of its listings disagree.
    """
    start, nbytes, count = _find_directory(source)
    centrals = _parse_central(source.read(start, nbytes), start, count)
    names = {central.raw_name for central in centrals}
    if len(names) != len(centrals):
        raise CheckpointError("the zip archive lists a record twice")
    records = []
    position = 0
    for central in sorted(centrals, key=lambda central: central.header):
        if central.header < position:
            raise CheckpointError(f"zip record {central.name!r} overlaps the one before it")
        record, position = _locate_record(source, central, start)
        records.append(record)
    return tuple(records)


def _find_directory(source: ByteSource) -> tuple[int, int, int]:
    """Offset, length and number of entries of the central directory."""
    tail_nbytes = min(source.size, _END.size + _MAX_COMMENT)
    tail = source.read(source.size - tail_nbytes, tail_nbytes)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0 and not _ends_file(tail, at):
        at = tail.rfind(b"PK\x05\x06", 0, at)
    if at < 0:
        raise CheckpointError("the zip archive has no end record (cut short?)")
    _, disk, start_disk, on_disk, count, nbytes, start, _ = _END.unpack_from(tail, at)
    end_offset = source.size - len(tail) + at
    if disk not in (0, _FULL16) or start_disk not in (0, _FULL16) or on_disk != count:
        raise CheckpointError("the zip archive spans several volumes")
    end64 = _read_end64(source, end_offset)
    if end64 is not None:
        end_offset, start64, nbytes64, count64 = end64
        if start not in (start64, _FULL32) or nbytes not in (nbytes64, _FULL32) or count not in (count64, _FULL16):
            raise CheckpointError("the zip archive's two end records disagree")
        start, nbytes, count = start64, nbytes64, count64
    if start + nbytes != end_offset:
        raise CheckpointError("the zip archive's directory does not end at its end record")
    if nbytes > MAX_DIRECTORY_NBYTES or count > MAX_RECORDS or count * _CENTRAL.size > nbytes:
        raise CheckpointError(f"the zip archive claims {count} records in a directory of {nbytes} bytes")
    return start, nbytes, count


def _ends_file(tail: bytes, at: int) -> bool:
    comment_nbytes = int.from_bytes(tail[at + _END.size - 2 : at + _END.size], "little")
    return len(tail) - at == _END.size + comment_nbytes


def _read_end64(source: ByteSource, end_offset: int) -> tuple[int, int, int, int] | None:
    """Offset of the zip64 end record, and the directory's offset, length and count; ``None`` without one."""
    locator_offset = end_offset - _END64_LOCATOR.size
    if locator_offset < _END64.size:
        return None
    signature, disk, offset, disks = _END64_LOCATOR.unpack(source.read(locator_offset, _END64_LOCATOR.size))
    if signature != b"PK\x06\x07":
        return None
    if disk != 0 or disks > 1 or offset + _END64.size > locator_offset:
        raise CheckpointError("the zip archive's zip64 locator points nowhere")
    fields = _END64.unpack(source.read(offset, _END64.size))
    signature, nbytes, _, _, disk, start_disk, on_disk, count, directory_nbytes, start = fields
    if signature != b"PK\x06\x06" or offset + 12 + nbytes != locator_offset:
        raise CheckpointError("the zip archive's zip64 end record is malformed")
    if disk or start_disk or on_disk != count:
        raise CheckpointError("the zip archive spans several volumes")
    return offset, start, directory_nbytes, count


def _parse_central(raw: bytes, start: int, count: int) -> list[_Central]:
    centrals = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(raw):
            raise CheckpointError("the zip directory is cut short")
        fields = _CENTRAL.unpack_from(raw, at)
        signature, _, _, flags, method, _, _, crc, compressed, uncompressed = fields[:10]
        name_nbytes, extra_nbytes, comment_nbytes, disk, _, _, header = fields[10:]
        extra_at = at + _CENTRAL.size + name_nbytes
        end = extra_at + extra_nbytes + comment_nbytes
        if signature != b"PK\x01\x02" or end > len(raw) or disk not in (0, _FULL16):
            raise CheckpointError("the zip directory is malformed")
        if _FULL32 in (compressed, uncompressed, header):
            extra = raw[extra_at : extra_at + extra_nbytes]
            uncompressed, compressed, header = _zip64(extra, uncompressed, compressed, header)
        name = raw[at + _CENTRAL.size : extra_at]
        centrals.append(
            _Central(name, flags, method, crc, compressed, uncompressed, header, start + at + _CRC_IN_CENTRAL)
        )
        at = end
    if at != len(raw):
        raise CheckpointError("the zip directory holds more than its records")
    return centrals


def _zip64(extra: bytes, *values: int) -> tuple[int, ...]:
    """``values`` with each saturated one replaced from the zip64 extra field, in the field's fixed order."""
    at = 0
    while at + 4 <= len(extra):
        tag, nbytes = struct.unpack_from("<HH", extra, at)
        at += 4
        if tag == 1:
            body = extra[at : at + nbytes]
            wide = struct.unpack_from(f"<{len(body) // 8}Q", body)
            if len(wide) < values.count(_FULL32):
                raise CheckpointError("a zip64 field is cut short")
            replacements = iter(wide)
            return tuple(next(replacements) if value == _FULL32 else value for value in values)
        at += nbytes
    raise CheckpointError("a zip record lacks the zip64 field that its sizes refer to")


def _locate_record(source: ByteSource, central: _Central, directory_start: int) -> tuple[Record, int]:
    """The record, and the first byte behind it."""
    offset, crc_is_local = _check_local(source, central)
    crc_offsets = [central.header + _CRC_IN_LOCAL] if crc_is_local else []
    end = offset + central.compressed
    if end > directory_start:
        raise CheckpointError(f"zip record {central.name!r} reaches into the directory")
    if central.flags & _HAS_DESCRIPTOR:
        nbytes, crc_at = _find_descriptor(source.read(end, min(24, directory_start - end)), central)
        if nbytes:
            crc_offsets.append(end + crc_at)
        end += nbytes
    crc_offsets.append(central.crc_offset)
    stored = central.method == 0 and not central.flags & _ENCRYPTED
    if stored and central.compressed != central.uncompressed:
        raise CheckpointError(f"stored zip record {central.name!r} claims two sizes")
    return Record(central.name, stored, offset, central.compressed, tuple(crc_offsets)), end


def _check_local(source: ByteSource, central: _Central) -> tuple[int, bool]:
    """Offset of the record's bytes, and whether its local header, compared with the central one, has the CRC."""
    head = source.read(central.header, _LOCAL.size + len(central.raw_name))
    fields = _LOCAL.unpack_from(head)
    signature, _, flags, method, _, _, crc, compressed, uncompressed, name_nbytes, extra_nbytes = fields
    offset = central.header + _LOCAL.size + name_nbytes + extra_nbytes
    if signature != b"PK\x03\x04":
        raise CheckpointError(f"zip record {central.name!r} has no local header")
    if _FULL32 in (compressed, uncompressed):
        extra = source.read(offset - extra_nbytes, extra_nbytes)
        uncompressed, compressed = _zip64(extra, uncompressed, compressed)
    local = (head[_LOCAL.size :], name_nbytes, method, flags & _COMPARED_FLAGS)
    same = local == (central.raw_name, len(central.raw_name), central.method, central.flags & _COMPARED_FLAGS)
    sizes = (crc, compressed, uncompressed)
    deferred = bool(flags & _HAS_DESCRIPTOR) and sizes == (0, 0, 0)  # to the data descriptor
    if not same or not (deferred or sizes == (central.crc, central.compressed, central.uncompressed)):
        raise CheckpointError(f"the two headers of zip record {central.name!r} disagree")
    return offset, not deferred


def _find_descriptor(tail: bytes, central: _Central) -> tuple[int, int]:
    """Length of the data descriptor that ``tail`` begins with, and the position of the CRC-32 in it.

    The descriptor has four forms (with and without signature, sizes of 4 or 8 bytes) that only its content tells
    apart. miniz, and so PyTorch, writes none behind an empty record although the flag promises one.
    """
    for signature in (_DESCRIPTOR_SIGNATURE, b""):
        for sizes in ("<IQQ", "<III"):
            try:
                form = signature + struct.pack(sizes, central.crc, central.compressed, central.uncompressed)
            except struct.error:  # the sizes need 8 bytes
                continue
            if tail.startswith(form):
                return len(form), len(signature)
    if central.compressed == 0:
        return 0, 0
    raise CheckpointError(f"the data descriptor of zip record {central.name!r} disagrees with the directory")
