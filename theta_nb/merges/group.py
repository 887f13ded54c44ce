"""The inputs of one merged tensor, read block by block.

A merge method never sees a whole model, and rarely a whole tensor: it walks over blocks that stay in the cache of a
core, as often as it has to. Where a block comes from (an array, a chunk of an object store, a file) is the affair of a
:class:`Reader`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from theta_nb.errors import MergeError
from theta_nb.tensors.spec import Shape

if TYPE_CHECKING:
    from theta_nb.merges.gram import Gram
    from theta_nb.merges.selection import Cut

__all__ = ["BLOCK", "Array", "ArrayReader", "Block", "Deltas", "Group", "Reader", "keep", "widen"]

Array = npt.NDArray[Any]

BLOCK = 2**17
"""Elements of a block: a handful of float32 blocks stay in the last-level cache, and work on one takes long enough that
threads do not spend their time handing the interpreter's lock to one another (at 2**15 two were as slow as one)."""

Decided = dict[str, tuple[float, ...]]
"""Numbers that follow from sums over a tensor; a replay takes them from the recipe, so it gives the same bits."""


class Reader(Protocol):
    """Random access to the elements of one tensor, in row-major order."""

    def read(self, start: int, stop: int, /) -> Array:
        """Elements ``start`` to ``stop``, flat, float32 or float64; valid until the next call."""
        ...


def widen(values: Array) -> Array:
    """Floats as float32, or float64 where they are; complex numbers as pairs of floats.

    Examples
    --------
    >>> widen(np.array([1.5], np.float16)).dtype.name, widen(np.array([1 + 2j])).tolist()
    ('float32', [1.0, 2.0])
    """
    if values.dtype.kind == "c":
        values = values.view(values.real.dtype)
    if values.dtype in (np.float32, np.float64):
        return values
    if values.dtype.name == "bfloat16":
        # Its bits are the upper half of a float32's: three times as fast as the conversion of ml_dtypes.
        wide = values.view(np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values.astype(np.float32)


def keep(values: Array, mask: Array) -> None:
    """Set to zero, in place, what a mask does not name; also NaN and Inf, which a product would not get rid of.

    Several times as fast as an indexed assignment, since there is nothing to branch on.

    Examples
    --------
    >>> values = np.array([1, np.nan, 3], np.float32)
    >>> keep(values, np.array([True, False, True])); values.tolist()
    [1.0, 0.0, 3.0]
    """
    unsigned: Any = np.uint64 if values.itemsize == 8 else np.uint32
    bits = values.view(unsigned)
    ones = mask.astype(unsigned)
    np.negative(ones, out=ones)
    np.bitwise_and(bits, ones, out=bits)


class ArrayReader:
    """A :class:`Reader` of an array of any float or complex dtype.

    Parameters
    ----------
    array
        The tensor.
    """

    def __init__(self, array: Array) -> None:
        self._flat = np.ascontiguousarray(array).reshape(-1)
        self._factor = 2 if array.dtype.kind == "c" else 1

    def read(self, start: int, stop: int, /) -> Array:
        """Elements ``start`` to ``stop``; those of a complex array count twice."""
        return widen(self._flat[start // self._factor : stop // self._factor])


class Block(NamedTuple):
    """A stretch of a tensor: base (or ``None``), inputs and statistics, flat or, from ``whole``, in their shape."""

    start: int
    base: Array | None
    inputs: list[Array]
    statistics: list[Array]


class Deltas(NamedTuple):
    """A stretch of a tensor: base, and the task vectors in memory that may be overwritten."""

    start: int
    base: Array
    deltas: list[Array]


@dataclass
class Group:
    """The inputs of one merged tensor.

    Parameters
    ----------
    name
        Parameter name; part of the key of random draws.
    shape
        Shape of all inputs, and of the result; that of a single number is (1,).
    inputs
        The tensors that are merged.
    base
        Their common ancestor, if there is one.
    dtype
        In which is computed: float32, or float64 where an input is that wide.
    depth
        Where the tensor stands in the model, 0 for the first layer to 1 for the last.
    statistics
        Of each input, in a method's own shape; empty where none are given.
    decided
        Numbers that a method derived from sums; filled in by the first run, taken from there by a replay.
    model_cut
        Where the largest share of task vector ``k`` ends, ranked over the whole model.
    known_gram
        Gram matrix of the group, if it is known.
    histogram
        Histogram of the magnitudes of task vector ``k``, if these are known.
    scaled
        Factor that the task vectors are multiplied by.
    """

    name: str
    shape: Shape
    inputs: tuple[Reader, ...]
    base: Reader | None = None
    dtype: npt.DTypeLike = np.float32
    depth: float = 0.0
    statistics: tuple[Array, ...] = ()
    decided: Decided = field(default_factory=dict)
    model_cut: Callable[[int, float], Cut] | None = None
    known_gram: Gram | None = None
    histogram: Callable[[int], Array] | None = None
    scaled: float = 1.0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def rows(self) -> tuple[int, int]:
        """Number and length of the rows: the first dimension against the rest; a vector is one row."""
        if len(self.shape) < 2 or not self.size:
            return (1, self.size)
        return (self.shape[0], self.size // self.shape[0])

    @classmethod
    def of(
        cls,
        inputs: Sequence[Array],
        base: Array | None = None,
        *,
        name: str = "",
        depth: float = 0.0,
        statistics: Sequence[Array] = (),
    ) -> Group:
        """A group of arrays in memory.

        Examples
        --------
        >>> group = Group.of([np.ones(3), np.zeros(3)])
        >>> group.shape, np.dtype(group.dtype).name
        ((3,), 'float64')
        """
        arrays = [*inputs, *([] if base is None else [base])]
        wide = any(array.dtype in (np.float64, np.complex128) for array in arrays)
        shape = tuple(inputs[0].shape) or (1,)
        if inputs[0].dtype.kind == "c":
            statistics = [np.stack([s, s], -1) if tuple(s.shape) == shape else s for s in statistics]
            shape = (*shape, 2)
        return cls(
            name=name,
            shape=shape,
            inputs=tuple(ArrayReader(array) for array in inputs),
            base=None if base is None else ArrayReader(base),
            dtype=np.float64 if wide else np.float32,
            depth=depth,
            statistics=tuple(statistics),
        )

    def steps(self, *, rows: bool = False) -> Iterator[tuple[int, int]]:
        """Ends of the blocks; with ``rows`` they hold whole rows."""
        step = BLOCK
        if rows:
            length = max(self.rows[1], 1)
            step = max(BLOCK // length, 1) * length
        for start in range(0, self.size, step):
            yield start, min(start + step, self.size)

    def blocks(self, *, rows: bool = False) -> Iterator[Block]:
        """Walk over base and inputs. What is read must not be written to."""
        for start, stop in self.steps(rows=rows):
            base = None if self.base is None else self._read(self.base, start, stop)
            inputs = [self._read(reader, start, stop) for reader in self.inputs]
            if self.scaled != 1.0 and base is not None:
                inputs = [base + (x - base) * self.number(self.scaled) for x in inputs]
            yield Block(start, base, inputs, [])

    def deltas(self, *, rows: bool = False) -> Iterator[Deltas]:
        """Walk over base and task vectors; the latter may be overwritten until the next step."""
        if self.base is None:
            raise MergeError(f"{self.name}: there is no common ancestor, so there are no task vectors")
        buffers: list[Array] = []
        for start, stop in self.steps(rows=rows):
            if not buffers:
                buffers = [np.empty(stop - start, self.dtype) for _ in self.inputs]
            base = self._read(self.base, start, stop)
            out = [buffer[: stop - start] for buffer in buffers]
            for reader, delta in zip(self.inputs, out, strict=True):
                np.subtract(self._read(reader, start, stop), base, out=delta)
                if self.scaled != 1.0:
                    delta *= self.number(self.scaled)
            yield Deltas(start, base, out)

    def delta(self, index: int) -> Iterator[Array]:
        """Walk over one task vector alone."""
        if self.base is None:
            raise MergeError(f"{self.name}: there is no common ancestor, so there are no task vectors")
        buffer = np.empty(0, self.dtype)
        for start, stop in self.steps():
            if len(buffer) < stop - start:
                buffer = np.empty(stop - start, self.dtype)
            out = buffer[: stop - start]
            base, x = self._read(self.base, start, stop), self._read(self.inputs[index], start, stop)
            np.subtract(x, base, out=out)
            if self.scaled != 1.0:
                out *= self.number(self.scaled)
            yield out

    def whole(self) -> Block:
        """Base and inputs at full length, in their shape; for methods that decompose matrices."""

        def full(reader: Reader) -> Array:
            out = np.empty(self.size, self.dtype)
            for start, stop in self.steps():
                out[start:stop] = reader.read(start, stop)
            return out.reshape(self.shape)

        base = None if self.base is None else full(self.base)
        inputs = [full(reader) for reader in self.inputs]
        if self.scaled != 1.0 and base is not None:
            inputs = [base + (x - base) * self.number(self.scaled) for x in inputs]
        return Block(0, base, inputs, [np.asarray(s, self.dtype) for s in self.statistics])

    def gram(self) -> Gram:
        """Gram matrix of base and differences, from the cache or one pass."""
        from theta_nb.merges.gram import gram_of

        known = self.known_gram if self.known_gram is not None else gram_of(self)
        # Blocks of a scaled group are scaled already; what was known beforehand is not.
        return known.scaled(self.scaled) if self.known_gram is not None else known

    def decide(self, key: str, compute: Callable[[], float | Sequence[float]]) -> tuple[float, ...]:
        """Numbers that follow from sums: computed once and recorded, or taken from the record."""
        if key not in self.decided:
            made = compute()
            self.decided[key] = tuple(map(float, made)) if isinstance(made, Sequence) else (float(made),)
        return self.decided[key]

    def _read(self, reader: Reader, start: int, stop: int) -> Array:
        values = reader.read(start, stop)
        return values if values.dtype == self.dtype else values.astype(self.dtype)

    def number(self, value: float) -> Any:
        """A scalar of the dtype in which is computed."""
        return np.float64(value) if np.dtype(self.dtype) == np.float64 else np.float32(value)
