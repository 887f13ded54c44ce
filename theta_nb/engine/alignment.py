"""Which elements of two tensors are compared with each other, and how they are read block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from theta_nb.engine.sources import Source, Stored
from theta_nb.errors import CheckpointError
from theta_nb.tensors.chunks import CHUNK_NBYTES
from theta_nb.tensors.lanes import BLOCK_NUMEL, parts_of
from theta_nb.tensors.spec import Shape

__all__ = ["Alignment", "Blocks", "align"]


@dataclass(frozen=True, slots=True)
class Alignment:
    """What is compared of two tensors.

    Parameters
    ----------
    overlap
        Shape of the part they share; ``None`` where that is everything.
    numel
        Elements compared.
    flat
        Whether the elements are a stretch in row-major order on both sides, and read as such; else rows are cut out.
    note
        A sentence about what is compared, or empty.
    """

    overlap: Shape | None
    numel: int
    flat: bool
    note: str = ""


def align(old: Stored, new: Stored) -> Alignment:
    """What of two tensors can be compared.

    Equal shapes are compared element by element; of two shapes with equally many dimensions the part that both have
    (as when an embedding grows); two shapes with equally many elements in row-major order.

    Raises
    ------
    CheckpointError
        If the shapes have nothing in common.
    """
    before, after = old.spec, new.spec
    contiguous = before.contiguous and after.contiguous
    if before.shape == after.shape:
        return Alignment(None, before.numel, contiguous)
    if len(before.shape) == len(after.shape):
        overlap = tuple(map(min, before.shape, after.shape))
        note = f"compared over the {_overlap_text(before.shape, after.shape, overlap)}"
        rows_only = before.shape[1:] == after.shape[1:]
        return Alignment(overlap, math.prod(overlap), contiguous and rows_only, note)
    if before.numel == after.numel and contiguous:
        return Alignment(None, before.numel, flat=True, note="compared in row-major order")
    raise CheckpointError(f"the shapes {list(before.shape)} and {list(after.shape)} have no part in common")


def _overlap_text(old: Shape, new: Shape, overlap: Shape) -> str:
    if old[1:] == new[1:]:
        return f"first {overlap[0]} of {max(old[0], new[0])} {'rows' if len(old) > 1 else 'elements'}"
    return f"part [{','.join(map(str, overlap))}] that both have"


class Blocks:
    """Reads the same elements of two tensors block by block; not to be shared between threads.

    Parameters
    ----------
    old, new
        Where values are read.
    """

    def __init__(self, old: Source, new: Source) -> None:
        self._sources = (old, new)
        self._space = [memoryview(bytearray(0)), memoryview(bytearray(0))]

    def flat(self, old: Stored, new: Stored, start: int, stop: int) -> Iterator[tuple[memoryview, memoryview]]:
        """Raw bytes of the elements from ``start`` to ``stop`` in row-major order, in blocks."""
        step = BLOCK_NUMEL // max(parts_of(old.spec.dtype), parts_of(new.spec.dtype))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            yield self._range(0, old, first, last), self._range(1, new, first, last)

    def rows(self, old: Stored, new: Stored, alignment: Alignment) -> Iterator[tuple[memoryview, memoryview]]:
        """The same for a part cut out of tensors, or for views whose elements are no stretch of memory."""
        overlap = alignment.overlap if alignment.overlap is not None else old.spec.shape
        cut = tuple(slice(size) for size in overlap[1:])
        arrays = [self._whole(side, stored) for side, stored in enumerate((old, new))]
        longest = max(math.prod(stored.spec.shape[1:]) for stored in (old, new))
        step = max(1, BLOCK_NUMEL // max(1, longest))
        for first in range(0, overlap[0], step):
            last = min(first + step, overlap[0])
            pieces = []
            for side, stored in enumerate((old, new)):
                whole = arrays[side]
                rows = self._read_rows(side, stored, first, last) if whole is None else whole[first:last]
                piece = np.ascontiguousarray(rows[(slice(None), *cut)]).reshape(-1).view(np.uint8)
                pieces.append(piece.data.cast("B"))
            yield pieces[0], pieces[1]

    def _whole(self, side: int, stored: Stored) -> npt.NDArray[Any] | None:
        """A view whose elements are no stretch of memory, as an array on its whole storage; else ``None``."""
        spec = stored.spec
        if spec.dtype.bits % 8:
            raise CheckpointError(f"{spec.dtype.name} is packed, and a part of it cannot be cut out")
        if spec.contiguous:
            return None
        data = memoryview(bytearray(stored.nbytes))
        for chunk, extent in enumerate(stored.extents):
            place = data[extent.offset : extent.offset + extent.nbytes]
            found = self._sources[side].block(stored, chunk, 0, place)
            if found.obj is not place.obj:
                place[:] = found
        size = spec.dtype.itemsize
        return np.ndarray(spec.shape, f"V{size}", data, spec.offset, tuple(step * size for step in spec.strides))

    def _read_rows(self, side: int, stored: Stored, first: int, last: int) -> npt.NDArray[Any]:
        spec = stored.spec
        row = math.prod(spec.shape[1:])
        raw = self._range(side, stored, first * row, last * row)
        return np.frombuffer(raw, f"V{spec.dtype.itemsize}").reshape(last - first, *spec.shape[1:])

    def _range(self, side: int, stored: Stored, first: int, last: int) -> memoryview:
        """Raw bytes of the elements from ``first`` to ``last`` of a contiguous view."""
        dtype = stored.spec.dtype
        begin = stored.spec.offset + first * dtype.bits // 8
        nbytes = stored.spec.offset + -(-last * dtype.bits // 8) - begin
        dest = self._dest(side, nbytes)
        source = self._sources[side]
        chunk = stored.chunk_at(begin)
        within = begin - stored.extents[chunk].offset if nbytes else 0
        if nbytes and within + nbytes <= stored.extents[chunk].nbytes:
            return source.block(stored, chunk, within, dest)
        done = 0
        while done < nbytes:  # a block may lie across chunks where the two sides are cut differently
            extent = stored.extents[chunk]
            count = min(extent.nbytes - within, nbytes - done)
            place = dest[done : done + count]
            found = source.block(stored, chunk, within, place)
            if found.obj is not place.obj:
                place[:] = found
            done, chunk, within = done + count, chunk + 1, 0
        return dest

    def _dest(self, side: int, nbytes: int) -> memoryview:
        if len(self._space[side]) < nbytes:
            self._space[side] = memoryview(bytearray(nbytes))
        return self._space[side][:nbytes]


def stretches(stored: Stored, numel: int) -> Iterator[tuple[int, int]]:
    """Ranges of elements, one a chunk, that make up the first ``numel`` elements of a contiguous view."""
    dtype = stored.spec.dtype
    if stored.spec.offset == 0 and not dtype.bits % 8:
        ends = [(extent.offset + extent.nbytes) // dtype.itemsize for extent in stored.extents]
    else:
        step = CHUNK_NBYTES * 8 // dtype.bits
        ends = list(range(step, numel + step, step))
    start = 0
    for end in ends:
        stop = min(end, numel)
        if stop > start:
            yield start, stop
            start = stop
