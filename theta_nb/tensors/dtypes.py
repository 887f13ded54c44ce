"""The dtypes a checkpoint can hold, under the names that PyTorch and NumPy users know.

Sources: the safetensors specification (``safetensors/src/tensor.rs``, enum ``Dtype``) and PyTorch's
``torch/storage.py`` (legacy storage classes). Widths are in bits because safetensors packs 4- and 6-bit floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from theta_nb.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DTYPES", "DType", "dtype_named"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    Parameters
    ----------
    name
        Canonical name, the one PyTorch uses where it has the type (``"bfloat16"``).
    bits
        Width of one element in bits.
    kind
        ``"f"`` float, ``"c"`` complex, ``"i"`` signed, ``"u"`` unsigned, ``"b"`` bool, ``"q"`` quantized.
    safetensors
        Name in a safetensors header, or ``None`` where the format cannot hold it.
    numpy
        Name of the NumPy (or ``ml_dtypes``) type with the same bits, or ``None`` where there is none.
    """

    name: str
    bits: int
    kind: str
    safetensors: str | None = None
    numpy: str | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of the smallest addressable unit: at least 1, also for packed sub-byte types."""
        return max(1, self.bits // 8) if self.bits % 8 == 0 else 1

    def nbytes(self, count: int) -> int:
        """Bytes of ``count`` contiguous elements.

        Raises
        ------
        CheckpointError
            If packed sub-byte elements do not fill whole bytes.

        Examples
        --------
        >>> dtype_named("bfloat16").nbytes(3), dtype_named("float4_e2m1").nbytes(4)
        (6, 2)
        """
        total = count * self.bits
        if total % 8:
            raise CheckpointError(f"{count} elements of {self.name} do not fill whole bytes")
        return total // 8

    def to_numpy(self) -> np.dtype[Any]:
        """NumPy dtype with the same bits; needs ``ml_dtypes`` for bfloat16 and the 8-bit floats.

        Raises
        ------
        CheckpointError
            If no NumPy type has this layout.
        """
        return _numpy_dtype(self.name)


@cache
def _numpy_dtype(name: str) -> np.dtype[Any]:
    import numpy as np

    dtype = DTYPES[name]
    if dtype.numpy is None:
        raise CheckpointError(f"dtype {name} has no NumPy counterpart", hint="Read it as bytes or through torch.")
    if hasattr(np, dtype.numpy):
        return np.dtype(dtype.numpy)
    import ml_dtypes

    dtype_: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype.numpy))
    return dtype_


DTYPES: dict[str, DType] = {
    dtype.name: dtype
    for dtype in (
        DType("bool", 8, "b", "BOOL", "bool_"),
        DType("uint8", 8, "u", "U8", "uint8"),
        DType("uint16", 16, "u", "U16", "uint16"),
        DType("uint32", 32, "u", "U32", "uint32"),
        DType("uint64", 64, "u", "U64", "uint64"),
        DType("int8", 8, "i", "I8", "int8"),
        DType("int16", 16, "i", "I16", "int16"),
        DType("int32", 32, "i", "I32", "int32"),
        DType("int64", 64, "i", "I64", "int64"),
        DType("float16", 16, "f", "F16", "float16"),
        DType("bfloat16", 16, "f", "BF16", "bfloat16"),
        DType("float32", 32, "f", "F32", "float32"),
        DType("float64", 64, "f", "F64", "float64"),
        DType("complex32", 32, "c"),
        DType("complex64", 64, "c", "C64", "complex64"),
        DType("complex128", 128, "c", None, "complex128"),
        DType("float8_e4m3fn", 8, "f", "F8_E4M3", "float8_e4m3fn"),
        DType("float8_e5m2", 8, "f", "F8_E5M2", "float8_e5m2"),
        DType("float8_e4m3fnuz", 8, "f", "F8_E4M3FNUZ", "float8_e4m3fnuz"),
        DType("float8_e5m2fnuz", 8, "f", "F8_E5M2FNUZ", "float8_e5m2fnuz"),
        DType("float8_e8m0fnu", 8, "f", "F8_E8M0", "float8_e8m0fnu"),
        DType("float4_e2m1", 4, "f", "F4"),
        DType("float6_e2m3", 6, "f", "F6_E2M3"),
        DType("float6_e3m2", 6, "f", "F6_E3M2"),
        DType("float4_e2m1fn_x2", 8, "f"),
        DType("qint8", 8, "q"),
        DType("quint8", 8, "q"),
        DType("qint32", 32, "q"),
        DType("quint4x2", 8, "q"),
        DType("quint2x4", 8, "q"),
    )
}


def dtype_named(name: str) -> DType:
    """Dtype with the canonical ``name``.

    Raises
    ------
    CheckpointError
        If no such dtype is known.
    """
    try:
        return DTYPES[name]
    except KeyError:
        raise CheckpointError(f"unknown dtype {name!r}") from None
