"""Differences to look at: a matrix scaled down to the pixels that a screen has, and a window of single values.

Both stream: no more than a block of either side is in memory, so a picture of an embedding of a billion entries costs
its reading time and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theta_nb.errors import CheckpointError
from theta_nb.tensors.lanes import numbers_in, numbers_of, parts_of
from theta_nb.tensors.spec import Shape, TensorSpec

__all__ = ["Picture", "Window", "as_matrix", "picture_of", "window_of"]

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Picture:
    """A difference scaled down.

    Parameters
    ----------
    shape
        Rows and columns of the matrix: a tensor of more dimensions is seen as its first one against all others.
    rms
        Root mean square of the differences in each cell, float32 of shape (rows, columns); NaN where none is finite.
    mean
        Mean of the differences in each cell, likewise.
    row_rms, column_rms
        The same over whole rows and columns of cells.

    Notes
    -----
    Cell ``i`` of ``n`` begins at row ``i * shape[0] // n``, so cells differ by one row at most.
    """

    shape: tuple[int, int]
    rms: Singles
    mean: Singles
    row_rms: Singles
    column_rms: Singles


@dataclass(frozen=True, eq=False)
class Window:
    """Single values of both sides.

    Parameters
    ----------
    shape
        Rows and columns of the whole matrix.
    row, column
        Where the window begins.
    old, new
        Values, float64 of the shape of the window.
    """

    shape: tuple[int, int]
    row: int
    column: int
    old: Doubles
    new: Doubles


def as_matrix(shape: Shape) -> tuple[int, int]:
    """Rows and columns under which a tensor is looked at.

    Examples
    --------
    >>> as_matrix((8, 3, 5, 5)), as_matrix((7,)), as_matrix(())
    ((8, 75), (1, 7), (1, 1))
    """
    if len(shape) < 2:
        return 1, math.prod(shape)
    return shape[0], math.prod(shape[1:])


def picture_of(
    pairs: Iterable[tuple[memoryview, memoryview]],
    old: TensorSpec,
    new: TensorSpec,
    shape: Shape,
    *,
    size: tuple[int, int] = (96, 96),
) -> Picture:
    """Scale new minus old down.

    Parameters
    ----------
    pairs
        Blocks of the elements, in row-major order.
    old, new
        Their dtypes.
    shape
        Of what is compared.
    size
        Most rows and columns of the picture.

    Raises
    ------
    CheckpointError
        If the numbers are complex, or there are none.
    """
    rows, columns = as_matrix(shape)
    if parts_of(old.dtype) != 1 or parts_of(new.dtype) != 1:
        raise CheckpointError(f"{new.name} is complex, and pictures are of real numbers")
    if not rows * columns:
        raise CheckpointError(f"{new.name} of shape {list(shape)} is empty")
    cells = _Cells(rows, columns, min(rows, size[0]), min(columns, size[1]))
    position = 0
    for before, after in pairs:
        count = numbers_in(after, new.dtype)
        delta = _numbers(after, new, count) - _numbers(before, old, count)
        cells.add(position, delta)
        position += count
    return cells.picture()


def window_of(
    rows: Iterable[tuple[memoryview, memoryview]],
    old: TensorSpec,
    new: TensorSpec,
    *,
    shape: tuple[int, int],
    row: int,
    column: int,
) -> Window:
    """Values of a few rows, given as pairs of blocks, one a row."""
    if parts_of(old.dtype) != 1 or parts_of(new.dtype) != 1:
        raise CheckpointError(f"{new.name} is complex, and only real numbers are listed")
    befores, afters = [], []
    for before, after in rows:
        befores.append(_numbers(before, old, numbers_in(before, old.dtype)).copy())
        afters.append(_numbers(after, new, numbers_in(after, new.dtype)).copy())
    return Window(shape, row, column, np.array(befores), np.array(afters))


def _numbers(raw: memoryview, spec: TensorSpec, count: int) -> Doubles:
    found: Doubles = numbers_of(raw, spec.dtype, np.empty(count, np.float64))
    return -found if spec.neg else found


class _Cells:
    """Sums over the cells of a picture, fed with stretches of a matrix in row-major order."""

    def __init__(self, rows: int, columns: int, height: int, width: int) -> None:
        self._shape = (rows, columns)
        self._row_cell = np.arange(rows) * height // rows if rows < 2**24 else None
        self._starts = -(-np.arange(width) * columns // width)  # the first column of each cell
        self._height = height
        self._sums = np.zeros((3, height, width))

    def add(self, position: int, delta: Doubles) -> None:
        """Add the elements from ``position`` on: the rest of a row, whole rows, the beginning of another."""
        columns = self._shape[1]
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(delta)
            kept = delta if finite.all() else np.where(finite, delta, 0.0)
            for index, values in enumerate((kept, np.square(kept), finite.astype(np.float64))):
                begin = position
                rest = values
                while len(rest):
                    within = begin % columns
                    whole = len(rest) // columns * columns if not within else 0
                    count = whole or min(columns - within, len(rest))
                    if whole:
                        self._whole(index, begin // columns, rest[:count].reshape(-1, columns))
                    else:
                        self._part(index, begin // columns, within, rest[:count])
                    begin, rest = begin + count, rest[count:]

    def picture(self) -> Picture:
        """What the sums amount to."""
        sums, squares, counts = self._sums
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return Picture(
                self._shape,
                np.sqrt(squares / counts).astype(np.float32),
                (sums / counts).astype(np.float32),
                np.sqrt(squares.sum(1) / counts.sum(1)).astype(np.float32),
                np.sqrt(squares.sum(0) / counts.sum(0)).astype(np.float32),
            )

    def _cells_of(self, first: int, count: int) -> npt.NDArray[np.int64]:
        if self._row_cell is not None:
            return self._row_cell[first : first + count]
        return np.arange(first, first + count) * self._height // self._shape[0]

    def _whole(self, index: int, first: int, rows: Doubles) -> None:
        by_cell = np.add.reduceat(rows, self._starts, axis=1)
        np.add.at(self._sums[index], self._cells_of(first, len(rows)), by_cell)

    def _part(self, index: int, row: int, column: int, values: Doubles) -> None:
        cell = int(self._cells_of(row, 1)[0])
        first = int(np.searchsorted(self._starts, column, "right")) - 1
        last = int(np.searchsorted(self._starts, column + len(values), "left"))
        starts = np.maximum(self._starts[first:last] - column, 0)
        self._sums[index, cell, first:last] += np.add.reduceat(values, starts)
