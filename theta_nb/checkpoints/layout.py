"""What a format finds in a checkpoint file: storages, tensors, derived fields.

The bytes of a file fall in three parts. *Storages* hold numbers; tensors are views on them. *Derived fields* follow
from the content (checksums) and would make the rest change whenever a tensor changes. The *skeleton* is everything
else. ``Layout`` describes the three by position only; it never holds a value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from theta_nb.errors import CheckpointError
from theta_nb.tensors.spec import TensorSpec

__all__ = ["ByteSource", "DerivedField", "FileSource", "Layout", "Part", "Segment", "Storage"]


class ByteSource(Protocol):
    """Random access to the bytes of one file of known size."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly ``nbytes`` bytes from ``offset``.

        Raises
        ------
        CheckpointError
            If the range leaves the file.
        """
        ...


class FileSource:
    """A :class:`ByteSource` over an open file descriptor, read with ``pread``.

    An ``mmap`` would raise SIGBUS when the file is truncated meanwhile; a short ``pread`` is an ordinary error.

    Parameters
    ----------
    fd
        Open descriptor of a regular file; the caller keeps and closes it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._size = os.fstat(fd).st_size

    @property
    def size(self) -> int:
        """Length in bytes when the source was opened."""
        return self._size

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly ``nbytes`` bytes from ``offset``."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self._size:
            raise CheckpointError(f"bytes {offset}..{offset + nbytes} lie outside the file of {self._size} bytes")
        pieces = []
        while nbytes:
            piece = os.pread(self.fd, nbytes, offset)
            if not piece:
                raise CheckpointError("the file was cut short while it was read", hint="Run the command again.")
            pieces.append(piece)
            offset += len(piece)
            nbytes -= len(piece)
        return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class Storage:
    """A byte range of the file that holds numbers.

    Parameters
    ----------
    offset, nbytes
        Position in the file.
    itemsize
        Bytes of one element, the unit of the codec's shuffle; 1 where unknown.
    row_nbytes
        Bytes of one row of the tensor that covers the storage: chunks end on row boundaries. ``itemsize`` for
        1-d tensors and for storages that no single tensor covers.
    """

    offset: int
    nbytes: int
    itemsize: int = 1
    row_nbytes: int = 1


@dataclass(frozen=True, slots=True)
class DerivedField:
    """A field outside the storages whose bytes follow from the content.

    Parameters
    ----------
    offset, nbytes
        Position in the file.
    storage
        Index of the storage whose CRC-32 (little-endian, 4 bytes) the field normally is, or ``None`` for a field
        that follows from the whole file.
    """

    offset: int
    nbytes: int
    storage: int | None = None


class Part(Enum):
    """What a stretch of the file belongs to."""

    SKELETON = "skeleton"
    STORAGE = "storage"
    DERIVED = "derived"


class Segment(NamedTuple):
    """A stretch of the file: its part, its number within that part (0 for the skeleton), and its position."""

    part: Part
    number: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in one checkpoint file.

    Parameters
    ----------
    format
        Name in the table of formats (``"safetensors"``, ``"pytorch"``, ``"opaque"``).
    size
        Length of the file in bytes.
    storages
        By ascending offset, disjoint.
    tensors
        Views on the storages, in the order of the file's own listing; names are unique.
    derived
        By ascending offset, disjoint from the storages and each other.
    warnings
        Sentences for the user ("stored as opaque bytes because …").

    Raises
    ------
    CheckpointError
        If ranges overlap, leave the file or are not sorted, names repeat, or a tensor leaves its storage.
    """

    format: str
    size: int
    storages: tuple[Storage, ...]
    tensors: tuple[TensorSpec, ...] = ()
    derived: tuple[DerivedField, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for _ in self.segments():
            pass
        for storage in self.storages:
            if storage.itemsize < 1 or storage.row_nbytes < 1:
                raise CheckpointError(f"storage at byte {storage.offset} has a non-positive item or row size")
        for index, field in enumerate(self.derived):
            if field.storage is not None and not 0 <= field.storage < len(self.storages):
                raise CheckpointError(f"derived field {index} belongs to no storage")
        seen: set[str] = set()
        for tensor in self.tensors:
            if tensor.name in seen:
                raise CheckpointError(f"parameter {tensor.name!r} occurs twice")
            seen.add(tensor.name)
            if not 0 <= tensor.storage < len(self.storages):
                raise CheckpointError(f"parameter {tensor.name!r} belongs to no storage")
            if tensor.offset < 0 or any(n < 0 for n in tensor.shape) or any(s < 0 for s in tensor.strides):
                raise CheckpointError(f"parameter {tensor.name!r} has a negative offset, size or stride")
            if len(tensor.shape) != len(tensor.strides):
                raise CheckpointError(f"parameter {tensor.name!r} has {len(tensor.strides)} strides")
            if tensor.end() > self.storages[tensor.storage].nbytes:
                raise CheckpointError(f"parameter {tensor.name!r} leaves its storage")

    def segments(self) -> Iterator[Segment]:
        """Every byte of the file once, in order; empty storages and fields are left out.

        Raises
        ------
        CheckpointError
            If ranges overlap, are unsorted or leave the file.
        """
        marked = [Segment(Part.STORAGE, i, s.offset, s.nbytes) for i, s in enumerate(self.storages)]
        marked += [Segment(Part.DERIVED, i, f.offset, f.nbytes) for i, f in enumerate(self.derived)]
        if self.derived:
            marked.sort(key=lambda segment: (segment.offset, segment.nbytes))
        position = 0
        for segment in marked:
            if segment.nbytes < 0 or segment.offset < 0 or segment.offset + segment.nbytes > self.size:
                raise CheckpointError(f"a range at byte {segment.offset} leaves the file of {self.size} bytes")
            if segment.nbytes == 0:
                continue
            if segment.offset < position:
                raise CheckpointError(f"two ranges overlap at byte {segment.offset}")
            if segment.offset > position:
                yield Segment(Part.SKELETON, 0, position, segment.offset - position)
            yield segment
            position = segment.offset + segment.nbytes
        if position < self.size:
            yield Segment(Part.SKELETON, 0, position, self.size - position)
