"""Tensor specifications: a name and a view on a storage."""

from __future__ import annotations

import math
from dataclasses import dataclass

from theta_nb.tensors.dtypes import DType

__all__ = ["Shape", "TensorSpec", "contiguous_strides"]

Shape = tuple[int, ...]


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides, in elements, as PyTorch computes them (a dimension of size 0 counts as 1).

    Examples
    --------
    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named view on one storage of a checkpoint.

    Parameters
    ----------
    name
        Parameter name; nested containers are spelled as an injective path.
    dtype
        Element type.
    shape
        Size of each dimension.
    strides
        Step of each dimension, in elements.
    storage
        Index into the layout's storages.
    offset
        Byte offset of the first element in the storage.
    conj, neg
        PyTorch's lazy conjugate and negative bits.
    """

    name: str
    dtype: DType
    shape: Shape
    strides: Shape
    storage: int
    offset: int = 0
    conj: bool = False
    neg: bool = False

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps (strides of size-1 dimensions are ignored)."""
        if self.numel == 0:
            return True
        expected = contiguous_strides(self.shape)
        return self.strides == expected or all(
            n == 1 or s == e for n, s, e in zip(self.shape, self.strides, expected, strict=True)
        )

    def end(self) -> int:
        """First byte of the storage behind the view's last element (``offset`` for an empty view)."""
        if self.numel == 0:
            return self.offset
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        packed = self.dtype.bits < 8 and self.contiguous
        return self.offset + (self.dtype.nbytes(last + 1) if packed else (last + 1) * self.dtype.itemsize)

    def covers(self, storage_nbytes: int) -> bool:
        """Whether this view is exactly its whole storage: contiguous, from the first byte to the last."""
        return (
            self.offset == 0
            and self.contiguous
            and not self.conj
            and not self.neg
            and self.dtype.nbytes(self.numel) == storage_nbytes
        )
