"""The table of update types, and what one has to be able to do.

An update works on one chunk: a run of whole rows of a tensor (or a part of one very long row), at most 16 MiB. What it
writes describes itself, so applying it needs the previous bytes and nothing else: no dtype, no path, no commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from theta_nb.registry import Plugin, Registry
from theta_nb.tensors.dtypes import DTYPES, DType

__all__ = ["UPDATES", "Numbers", "Update", "max_payload_nbytes", "numbers_of_width"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the bytes of a chunk mean.

    Parameters
    ----------
    dtype
        Element type.
    columns
        Elements of one row; the chunk may be a part of one row, or hold several rows.
    """

    dtype: DType
    columns: int = 1

    @property
    def width(self) -> int:
        """Bytes of the unsigned integers as which the bit patterns are compared: 1, 2, 4 or 8.

        Complex numbers count as two real ones; packed and unknown types by bytes.

        Examples
        --------
        >>> from theta_nb.tensors.dtypes import dtype_named
        >>> [Numbers(dtype_named(name)).width for name in ("bfloat16", "complex64", "float6_e2m3")]
        [2, 4, 1]
        """
        width = self.dtype.itemsize // 2 if self.dtype.kind == "c" else self.dtype.itemsize
        return width if width in (1, 2, 4, 8) else 1


class Update(Protocol):
    """One update type.

    ``apply`` gives the same bits on every machine: integer operations, or floating-point operations of IEEE 754 one
    element at a time in a fixed order; no BLAS, no fused operations, no reductions.
    """

    name: str
    """Under which manifests refer to it: lower-case letters, digits and hyphens."""

    def encode(self, old: memoryview, new: memoryview, numbers: Numbers) -> bytes | None:
        """Encode the step from one version of a chunk to the next.

        Parameters
        ----------
        old, new
            Raw bytes of both versions, of the same length.
        numbers
            What they mean.

        Returns
        -------
        bytes or None
            ``None`` where the type cannot express the step, or only in more bytes than the chunk has.
        """
        ...

    def apply(self, payload: memoryview, dest: memoryview) -> None:
        """Turn the previous version of a chunk into the next one, in place.

        Parameters
        ----------
        payload
            What :meth:`encode` returned; not trusted.
        dest
            Holds the raw bytes of the previous version, and then those of the next.

        Raises
        ------
        CorruptObjectError
            If the payload is malformed or belongs to a chunk of another length; ``dest`` is then garbage.
        """
        ...


UPDATES: Registry[Update] = Registry(
    "update type",
    "theta_nb.updates",
    {
        "dense": Plugin("theta_nb.updates.dense:DENSE"),
        "delta": Plugin("theta_nb.updates.delta:DELTA"),
        "sparse": Plugin("theta_nb.updates.sparse:SPARSE"),
        "low-rank": Plugin("theta_nb.updates.low_rank:LOW_RANK"),
        "ia3": Plugin("theta_nb.updates.ia3:IA3"),
    },
)
"""Every known update type, by name."""


def max_payload_nbytes(nbytes: int) -> int:
    """How long the payload of a chunk of ``nbytes`` raw bytes may be: longer ones are refused before they are read."""
    return 2 * nbytes + 4096


def numbers_of_width(width: int) -> Numbers:
    """Numbers of which only the width in bytes is known."""
    return Numbers(DTYPES.get(f"uint{8 * width}", DTYPES["uint8"]))
