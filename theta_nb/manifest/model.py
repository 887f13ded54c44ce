"""What a manifest says, as frozen data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from theta_nb.tensors.chunks import Extent, chunk_extents, row_nbytes
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.spec import Shape

__all__ = ["INLINE_NBYTES", "MAX_LINKS", "UPDATE_NAME", "ChunkRef", "Entry", "Manifest", "Value", "update_of"]

INLINE_NBYTES = 64
"""Chunks up to this many raw bytes stand in the manifest itself."""


MAX_LINKS = 64
"""Longer chains of updates are refused; writers stop much earlier."""


UPDATE_NAME = re.compile("[a-z][a-z0-9-]{0,39}")
"""Names that update types may have."""


class ChunkRef(NamedTuple):
    """Where the encoding of one chunk is: all of it, or the last step of a chain that begins with a dense one.

    Parameters
    ----------
    digest
        BLAKE3 of the raw bytes.
    oid
        Name of the object that holds the encoded bytes; empty where ``inline`` holds the raw ones.
    offset, length
        Range within the object; ``length`` 0 with an ``oid`` never occurs.
    inline
        Raw bytes of a small chunk.
    update
        Update type of this step; ``"dense"`` for the first of a chain.
    base
        The step before; ``None`` for the first.

    Examples
    --------
    >>> first = ChunkRef(b"1" * 32, "aa" * 32, 0, 9)
    >>> [link.update for link in ChunkRef(b"2" * 32, "bb" * 32, 0, 5, update="delta", base=first).links()]
    ['dense', 'delta']
    """

    digest: bytes
    oid: str = ""
    offset: int = 0
    length: int = 0
    inline: bytes = b""
    update: str = "dense"
    base: ChunkRef | None = None

    def links(self) -> tuple[ChunkRef, ...]:
        """Every step of the chain, the dense one first."""
        found = [self]
        while found[-1].base is not None:
            found.append(found[-1].base)
        return tuple(reversed(found))


def update_of(chunks: Iterable[ChunkRef]) -> str:
    """How the chunks of a value come from their previous versions, as one word.

    Examples
    --------
    >>> dense = ChunkRef(b"", "aa" * 32, 0, 9)
    >>> update_of([dense]), update_of([dense, dense._replace(update="delta", base=dense)])
    ('dense', 'delta')
    """
    return "+".join(sorted({chunk.update for chunk in chunks if chunk.base is not None})) or "dense"


@dataclass(frozen=True, slots=True)
class Value:
    """How the bytes of one storage are rebuilt.

    Parameters
    ----------
    digest
        Identity; the key under which entries refer to it.
    nbytes
        Raw length.
    chunks
        Chunks in order.
    crc32
        CRC-32 of the raw bytes, little-endian, where the file format stores one.
    """

    digest: bytes
    nbytes: int
    chunks: tuple[ChunkRef, ...]
    crc32: bytes = b""

    @property
    def update(self) -> str:
        """The update types of its chunks: ``"dense"``, ``"delta"``, ``"delta+sparse"``."""
        return update_of(self.chunks)

    @property
    def oids(self) -> Iterator[str]:
        """Names of the objects that hold it, some more than once."""
        return (link.oid for chunk in self.chunks for link in chunk.links() if link.oid)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line to be read by people: a tensor, or a storage that no single tensor covers.

    Parameters
    ----------
    name
        Parameter name, or ``@N`` for storage N of the layout.
    dtype
        Canonical dtype name; ``"bytes"`` for a storage.
    shape
        Shape; the byte length for a storage.
    digest
        Identity of the value seen through its view.
    owner
        Name of the entry whose value holds the bytes, or empty where this entry's own value does.
    """

    name: str
    dtype: str
    shape: Shape
    digest: bytes
    owner: str = ""

    @property
    def itemsize(self) -> int:
        """Bytes of one element, or 1."""
        return 1 if self.dtype == "bytes" else dtype_named(self.dtype).itemsize

    def extents(self, nbytes: int) -> Iterator[Extent]:
        """Where the chunks of its value of ``nbytes`` bytes lie."""
        row = 1 if self.dtype == "bytes" else row_nbytes(dtype_named(self.dtype), self.shape)
        return chunk_extents(nbytes, row, self.itemsize)


@dataclass(frozen=True)
class Manifest:
    """One version of one checkpoint.

    Parameters
    ----------
    format
        Name of the file format.
    size
        Length of the checkpoint file in bytes.
    layout, skeleton
        Digests of the values that hold the layout and the skeleton.
    entries
        By name.
    values
        By digest; closed under every reference of the manifest.
    objects
        Size of every object that the values refer to, by oid.
    derived
        Bytes of derived fields that are not the CRC-32 of their storage's value, by index.
    recipe
        Recipe of the merge that made this version, a JSON text; empty if it is none.
    """

    format: str
    size: int
    layout: bytes
    skeleton: bytes
    entries: Mapping[str, Entry]
    values: Mapping[bytes, Value]
    objects: Mapping[str, int] = field(default_factory=dict)
    derived: Mapping[int, bytes] = field(default_factory=dict)
    recipe: str = ""

    def value_of(self, name: str) -> Value:
        """The value that holds the bytes of entry ``name`` (its owner's, for a view)."""
        entry = self.entries[name]
        return self.values[self.entries[entry.owner].digest if entry.owner else entry.digest]

    def chunk_refs(self) -> Iterator[ChunkRef]:
        """Every chunk of every value; the steps that lead to it are its :meth:`~ChunkRef.links`."""
        for value in self.values.values():
            yield from value.chunks

    def same_content(self, other: Manifest) -> bool:
        """Whether both describe the same file, byte for byte, however it is encoded."""
        return (
            self.format == other.format
            and self.size == other.size
            and self.layout == other.layout
            and self.skeleton == other.skeleton
            and self.entries == other.entries
            and self.derived_bytes() == other.derived_bytes()
        )

    def derived_bytes(self) -> tuple[Mapping[int, bytes], Mapping[bytes, bytes]]:
        """Everything that determines the derived fields."""
        owned = {e.digest for e in self.entries.values() if not e.owner}
        return self.derived, {digest: self.values[digest].crc32 for digest in owned}
