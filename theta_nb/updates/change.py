"""What a change of a parameter is, and what it is made to: parameters, and the chunks that they are cut into.

A change knows how the numbers of any chunk of its parameter follow from the old ones, and how an update of its type
says so, if it can. :mod:`theta_nb.updates.changes` has the kinds there are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from theta_nb.tensors.chunks import Extent
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.spec import Shape

__all__ = ["Array", "Change", "Parameter", "Part", "Unfit"]

Array = NDArray[Any]
"""An array of a NumPy or ``ml_dtypes`` type."""


class Unfit(Exception):  # noqa: N818 - collected, and then told as one ThetaError
    """A change cannot be made to a parameter; the message says why."""


class Parameter(NamedTuple):
    """What a change is made to: name, canonical name of the dtype, shape."""

    name: str
    dtype: str
    shape: Shape

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns when all dimensions but the first are one.

        Examples
        --------
        >>> Parameter("w", "float32", (4, 3, 2)).matrix, Parameter("b", "float32", (5,)).matrix
        ((4, 6), (5, 1))
        """
        return (self.shape[0] if self.shape else 1), math.prod(self.shape[1:])


class Part(NamedTuple):
    """A chunk of a parameter: whole rows, or a part of one row."""

    parameter: Parameter
    extent: Extent

    @property
    def numbers(self) -> slice:
        """Its elements, by their place in row-major order."""
        width = dtype_named(self.parameter.dtype).itemsize
        first = self.extent.offset // width
        return slice(first, first + self.extent.nbytes // width)

    @property
    def box(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        numbers, columns = self.numbers, self.parameter.matrix[1]
        row, column = divmod(numbers.start, columns)
        count = numbers.stop - numbers.start
        if column or count < columns:
            return slice(row, row + 1), slice(column, column + count)
        return slice(row, row + count // columns), slice(0, columns)


class Change(Protocol):
    """One change of one parameter."""

    @property
    def update(self) -> str:
        """Update type that can say it in few bytes; ``"dense"`` if none."""
        ...

    def check(self, parameter: Parameter) -> None:
        """Raise :class:`Unfit` where the change cannot be made to a parameter."""
        ...

    def apply(self, part: Part, dest: memoryview) -> bytes | None:
        """Turn the old bytes of a chunk into the new ones, in place.

        Returns
        -------
        bytes or None
            Payload of the update type that leads from the old bytes to exactly these; ``None`` where there is none.
        """
        ...
