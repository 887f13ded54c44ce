"""Changes of a whole parameter that come from outside: factors, scalings, differences at positions, new values.

Each satisfies :class:`~theta_nb.updates.change.Change`. The arithmetic is that of the update types: float64,
one rounding to the parameter's dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theta_nb.errors import ThetaError
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.rounding import narrow, widen
from theta_nb.tensors.spec import Shape
from theta_nb.updates.change import Array, Change, Parameter, Part, Unfit
from theta_nb.updates.factors import FACTOR_DTYPES
from theta_nb.updates.ia3 import IA3, dump_ia3
from theta_nb.updates.low_rank import LOW_RANK, RESULT_DTYPES, add_product, dump_low_rank, most_factors
from theta_nb.updates.sparse import dump_sparse
from theta_nb.updates.zigzag import patterns, subtract_zigzag

__all__ = [
    "Checked",
    "Differences",
    "Product",
    "Replacement",
    "Scaling",
    "bits",
]


def _check_float(parameter: Parameter, what: str) -> None:
    if parameter.dtype not in RESULT_DTYPES:
        raise Unfit(f"{parameter.name!r} is {parameter.dtype}, and {what} needs floats")


def _check_numbers(array: Array, key: str) -> None:
    """Only finite floats: a NaN in a factor would turn whole rows into NaNs."""
    if array.dtype.name not in RESULT_DTYPES:
        raise Unfit(f"{key!r} is {array.dtype.name}, not floats")
    if not np.isfinite(array).all():
        raise Unfit(f"{key!r} holds numbers that are not finite")


def bits(array: Array) -> Array:
    """An array's bit patterns as unsigned integers."""
    return np.ascontiguousarray(array).view(f"<u{array.dtype.itemsize}").reshape(array.shape)


def _as_float64(array: Array) -> NDArray[np.float64]:
    return widen(bits(array), array.dtype.name)


def _stored(*arrays: Array) -> tuple[str, tuple[Array, ...]]:
    """Bit patterns of arrays in one dtype that factors may have and that loses nothing, and its name."""
    names = {array.dtype.name for array in arrays}
    if len(names) == 1 and names <= set(FACTOR_DTYPES):
        return names.pop(), tuple(bits(array) for array in arrays)
    name = "float64" if "float64" in names else "float32"
    return name, tuple(bits(_as_float64(array).astype(name)) for array in arrays)


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """``low-rank``: new = old + scale * (left @ right).

    Parameters
    ----------
    left, right
        Of shape (rows, rank) and (rank, columns), where all dimensions of the parameter but the first are one.
    scale
        A finite number.
    key
        What to call it in messages.
    factors
        What to call ``left`` and ``right``.
    """

    left: Array
    right: Array
    scale: float
    key: str
    factors: tuple[str, str]
    update: str = "low-rank"

    def check(self, parameter: Parameter) -> None:
        """Refuse other shapes, numbers that are not finite, and parameters that are not floats."""
        rows, columns = parameter.matrix
        shapes = self.left.shape, self.right.shape
        if len(parameter.shape) < 2:
            raise Unfit(f"{parameter.name!r} has {len(parameter.shape)} dimensions, and a product of factors has two")
        if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][0] or not shapes[0][1]:
            raise Unfit(f"{self.key!r}: factors of shapes {list(shapes[0])} and {list(shapes[1])} have no product")
        if (shapes[0][0], shapes[1][1]) != (rows, columns):
            product = [shapes[0][0], shapes[1][1]]
            raise Unfit(f"{self.key!r}: the product is {product}, and {parameter.name!r} is {list(parameter.shape)}")
        _check_float(parameter, "a product of factors")
        _check_numbers(self.left, self.factors[0])
        _check_numbers(self.right, self.factors[1])
        if not math.isfinite(self.scale):
            raise Unfit(f"{self.key!r} has the scale {self.scale}")

    def apply(self, part: Part, dest: memoryview) -> bytes | None:
        """Add the product; a rank above what pays is computed all the same, and no update says it."""
        rows, columns = part.box
        dtype = part.parameter.dtype
        left, right = self.left[rows], self.right[:, columns]
        if left.size + right.size <= most_factors(len(dest)):
            name, (first, second) = _stored(left, right)
            payload = dump_low_rank(dtype, first, second, name, scale=self.scale)
            LOW_RANK.apply(memoryview(payload), dest)
            return payload
        numbers = patterns(dest, dtype_named(dtype).itemsize).reshape(left.shape[0], right.shape[1])
        add_product(numbers, dtype, _as_float64(left) * np.float64(self.scale), _as_float64(right))
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """``ia3``: new = old * factors, broadcast as NumPy does.

    Parameters
    ----------
    factors
        Of a shape that broadcasts to the parameter's.
    key
        What to call it in messages.
    """

    factors: Array
    key: str
    update: str = "ia3"

    def check(self, parameter: Parameter) -> None:
        """Refuse shapes that do not broadcast, numbers that are not finite, and parameters that are not floats."""
        try:
            np.broadcast_to(np.empty(self.factors.shape, np.uint8), parameter.shape)
        except ValueError:
            raise Unfit(
                f"{self.key!r} is {list(self.factors.shape)}, which does not broadcast to {parameter.name!r} "
                f"{list(parameter.shape)}"
            ) from None
        _check_float(parameter, "a scaling")
        _check_numbers(self.factors, self.key)

    def apply(self, part: Part, dest: memoryview) -> bytes | None:
        """Scale; an update says so where the factors are the same for all rows, or for all columns."""
        dtype = part.parameter.dtype
        rows, columns = part.box
        block = self._matrix(part.parameter)[rows, columns]
        for by_row in (False, True):
            line = block[:, :1] if by_row else block[:1]
            if block.strides[by_row] == 0 or line.shape == block.shape or (block == line).all():
                name, (scaling,) = _stored(line.reshape(-1))
                payload = dump_ia3(dtype, scaling, name, by_row=by_row, columns=block.shape[1])
                IA3.apply(memoryview(payload), dest)
                return payload
        numbers = patterns(dest, dtype_named(dtype).itemsize).reshape(block.shape)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for row, factors in zip(numbers, block, strict=True):
                row[...] = narrow(widen(row, dtype) * _as_float64(factors), dtype, row.copy())
        return None

    def _matrix(self, parameter: Parameter) -> Array:
        """The factors in the parameter's shape as a matrix, without making one where they repeat."""
        shape = (1,) * (len(parameter.shape) - self.factors.ndim) + self.factors.shape
        if math.prod(shape[1:]) == 1:
            return np.broadcast_to(self.factors.reshape(-1, 1), parameter.matrix)
        if shape[0] == 1:
            row = np.broadcast_to(self.factors.reshape(shape[1:]), parameter.shape[1:]).reshape(1, -1)
            return np.broadcast_to(row, parameter.matrix)
        return np.broadcast_to(self.factors, parameter.shape).reshape(parameter.matrix)


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """``sparse``: new = old + difference, at some places.

    Parameters
    ----------
    places
        Indices into the flattened parameter, ascending.
    values
        As many differences.
    shape
        Shape of the parameter, or a (1, n) of as many elements.
    key
        What to call it in messages.
    """

    places: NDArray[np.int64]
    values: Array
    shape: Shape
    key: str
    update: str = "sparse"

    def check(self, parameter: Parameter) -> None:
        """Refuse other shapes, numbers that are not finite, and parameters that are not floats."""
        count = math.prod(parameter.shape)
        if self.shape not in (parameter.shape, (1, count)):
            raise Unfit(f"{self.key!r} is for the shape {list(self.shape)}, {parameter.name!r} is {parameter.shape}")
        if len(self.places) and int(self.places[-1]) >= count:
            raise Unfit(f"{self.key!r} has the position {self.places[-1]}, {parameter.name!r} has {count} elements")
        _check_float(parameter, "a sparse difference")
        _check_numbers(self.values, self.key)

    def apply(self, part: Part, dest: memoryview) -> bytes | None:
        """Add the differences that lie in the chunk."""
        numbers, dtype = part.numbers, part.parameter.dtype
        start, stop = np.searchsorted(self.places, [numbers.start, numbers.stop])
        places = self.places[start:stop] - numbers.start
        all_ = patterns(dest, dtype_named(dtype).itemsize)
        old = all_[places]
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            new = narrow(widen(old, dtype) + _as_float64(self.values[start:stop]), dtype, old)
        all_[places] = new
        differ = new != old
        zigzag = np.empty(int(differ.sum()), old.dtype)
        subtract_zigzag(new[differ], old[differ], zigzag)
        return dump_sparse(places[differ], zigzag, old.dtype.itemsize)


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """``dense``: new values, rounded to the parameter's dtype.

    Parameters
    ----------
    values
        Of the parameter's shape.
    key
        What to call it in messages.
    """

    values: Array
    key: str
    update: str = "dense"

    def check(self, parameter: Parameter) -> None:
        """Refuse other shapes, and dtypes between which there is no rounding."""
        if self.values.shape != parameter.shape:
            shapes = f"is {list(self.values.shape)}, and {parameter.name!r} is {list(parameter.shape)}"
            raise Unfit(f"{self.key!r} {shapes}")
        if self.values.dtype.name != parameter.dtype and not {self.values.dtype.name, parameter.dtype} <= set(
            RESULT_DTYPES
        ):
            raise Unfit(f"{self.key!r} is {self.values.dtype.name}, and {parameter.name!r} is {parameter.dtype}")

    def apply(self, part: Part, dest: memoryview) -> bytes | None:
        """Put the new values there."""
        dest[:] = self.bytes_of(part)
        return None

    def bytes_of(self, part: Part) -> memoryview:
        """The new bytes of a chunk."""
        dtype = part.parameter.dtype
        values = np.ascontiguousarray(self.values).reshape(-1)[part.numbers]
        if values.dtype.name != dtype:
            zeros = np.zeros(len(values), f"<u{dtype_named(dtype).itemsize}")
            values = narrow(_as_float64(values), dtype, zeros)
        return values.view(np.uint8).data


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A change that was made to certain old values, which come with it, and no others.

    Parameters
    ----------
    expected
        The old values.
    change
        What to do with them.
    """

    expected: Replacement
    change: Change

    @property
    def update(self) -> str:
        """That of the change."""
        return self.change.update

    def check(self, parameter: Parameter) -> None:
        """Refuse what either of both refuses."""
        self.expected.check(parameter)
        self.change.check(parameter)

    def apply(self, part: Part, dest: memoryview) -> bytes | None:
        """Make the change, if the old values are the expected ones.

        Raises
        ------
        ThetaError
            If they are not.
        """
        if dest != self.expected.bytes_of(part):
            raise ThetaError(
                f"{self.expected.key!r} holds other values than {part.parameter.name!r} has",
                hint="The update was made for another version of this checkpoint; check that one out first.",
            )
        return self.change.apply(part, dest)
