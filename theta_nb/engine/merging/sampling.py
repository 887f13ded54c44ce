"""Samples of tensors: so few of their entries that a merge of them keeps up with a slider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from theta_nb.merges.draws import Draws
from theta_nb.merges.group import Array, ArrayReader, Group, Reader
from theta_nb.tensors.spec import Shape

__all__ = ["ENTRIES", "Sample", "take_sample"]

ENTRIES = 2**12
"""Entries of a sample, where entries are picked; a tensor of up to twice as many is taken whole."""

_WIDTH = 32  # entries are picked in stretches of this length: a read each
_ROWS = 4  # fewest rows of a sample
_MOST = 2**18  # entries, where so many rows are longer


@dataclass(frozen=True)
class Sample:
    """Some entries or rows of the inputs of a tensor, in memory.

    Parameters
    ----------
    shape
        Of the sample.
    inputs, base, statistics
        Its parts of the tensors; flat, statistics in its shape.
    share
        How many entries of the tensor each of it stands for.
    """

    shape: Shape
    inputs: tuple[Array, ...]
    base: Array | None
    statistics: tuple[Array, ...]
    share: float

    def group(self, name: str, depth: float, model_cut: Callable[[int, float], Any] | None = None) -> Group:
        """The sample as something to merge."""
        return Group(
            name=name,
            shape=self.shape,
            inputs=tuple(map(ArrayReader, self.inputs)),
            base=None if self.base is None else ArrayReader(self.base),
            dtype=self.inputs[0].dtype,
            depth=depth,
            statistics=self.statistics,
            model_cut=model_cut,
        )

    @cached_property
    def vectors(self) -> Array:
        """Origin and differences in float64, shape (K+1, n)."""
        origin = self.inputs[0] if self.base is None else self.base
        made: Array = np.stack([origin, *(x - origin for x in self.inputs)]).astype(np.float64)
        return made

    @cached_property
    def products(self) -> Array:
        """Their inner products."""
        made: Array = self.vectors @ self.vectors.T
        return made


def take_sample(group: Group, kind: str) -> Sample | None:
    """Pick entries or rows of a group, always the same ones for a name and a shape.

    Parameters
    ----------
    group
        The tensor.
    kind
        ``"entries"`` or ``"rows"``, as methods ask for it.

    Returns
    -------
    Sample
        Or ``None`` where even a few rows are too long.

    Examples
    --------
    >>> group = Group.of([np.ones((300, 100), np.float32)], np.zeros((300, 100), np.float32), name="w")
    >>> take_sample(group, "rows").shape, take_sample(group, "entries").shape
    ((41, 100), (4096,))
    """
    row = group.rows[1] if kind == "rows" else 1
    count = max(-(-ENTRIES // max(row, 1)), _ROWS if kind == "rows" else 1)
    if group.size <= 2 * count * row:
        count, starts, width = group.rows[0] if kind == "rows" else group.size, np.zeros(1, np.int64), group.size
    elif kind == "rows":
        starts, width = _spread(group.name, group.rows[0], count, 1) * row, row
    else:
        starts, width = _spread(group.name, group.size, count // _WIDTH, _WIDTH), _WIDTH
        starts -= starts % 2  # complex numbers are pairs
    if len(starts) * width > _MOST:
        return None

    def part(reader: Reader) -> Array:
        out = np.empty(len(starts) * width, group.dtype)
        for k, start in enumerate(starts.tolist()):
            out[k * width : (k + 1) * width] = reader.read(start, start + width)
        return out

    whole = width == group.size
    shape = group.shape if whole else (count, *group.shape[1:]) if kind == "rows" else (len(starts) * width,)
    return Sample(
        shape,
        tuple(map(part, group.inputs)),
        None if group.base is None else part(group.base),
        tuple(part(ArrayReader(s)).reshape(shape) for s in group.statistics if s.size == group.size),
        1.0 if whole else group.size / (len(starts) * width),
    )


def _spread(name: str, size: int, count: int, width: int) -> Array:
    """Starts of ``count`` stretches: one at random within each of as many equal parts."""
    ends = np.arange(count + 1, dtype=np.int64) * size // count
    room = np.maximum(np.diff(ends) - width + 1, 1)
    made: Array = ends[:-1] + Draws(0, f"sample of {name}", 0).take(count).astype(np.int64) % room
    return made
