"""The constructors that PyTorch pickles call, as functions from arguments to stand-ins.

Source: ``torch/_utils.py``, ``torch/_tensor.py``, ``torch/storage.py`` (PyTorch 1.4 to 2.13). A constructor that is
not listed here makes a plain :class:`~theta_nb.checkpoints.pickle_objects.Instance`: its storages are kept, and the
tensors among its arguments keep their own names, but what it computes from them is not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from theta_nb.checkpoints.pickle_objects import (
    Global,
    Instance,
    Items,
    OrderedEntries,
    StorageRef,
    TensorView,
    as_key,
)
from theta_nb.errors import CheckpointError
from theta_nb.tensors.dtypes import DTYPES, DType

__all__ = ["CONSTRUCTORS", "storage_dtype"]

MAX_DIMENSIONS = 64
_MAX_SIZE = 1 << 63

_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QInt32Storage": "qint32",
    "QUInt8Storage": "quint8",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
    "_UntypedStorage": "uint8",
}
# Several elements in one byte: the view's strides do not count bytes, so no tensor is claimed.
_PACKED = {"quint4x2", "quint2x4"}


class Reader(Protocol):
    """What a constructor may ask of the machine that calls it."""

    def spend(self, count: int) -> None:
        """Count items that the constructor copies."""
        ...

    def call(self, maker: Any, args: Any) -> Any:
        """What calling ``maker`` gives."""
        ...


Constructor = Callable[[Reader, tuple[Any, ...]], Any]
"""Returns a stand-in, or ``None`` where the arguments are not those it knows."""


def storage_dtype(kind: Any) -> DType | None:
    """Dtype of a storage class, or ``None`` if it is unknown.

    Examples
    --------
    >>> storage_dtype(Global("torch", "BFloat16Storage")).name
    'bfloat16'
    """
    if type(kind) is not Global:
        raise CheckpointError("the pickle names a storage class that is not a class")
    name = _STORAGE_DTYPES.get(kind.name)
    return None if name is None else DTYPES[name]


def _view(args: tuple[Any, ...], dtype: DType | None = None, metadata: Any = None) -> TensorView | None:
    storage, offset, shape, strides = args[:4]
    if type(storage) is not StorageRef:
        return None
    dtype = storage.dtype if dtype is None else dtype
    if dtype is None or dtype.name in _PACKED or type(offset) is not int or not 0 <= offset < _MAX_SIZE:
        return None
    if not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
        return None
    conj = neg = False
    if metadata:
        if type(metadata) is not dict:
            return None
        conj, neg = metadata.get("conj") is True, metadata.get("neg") is True
    return TensorView(storage.key, dtype, offset * dtype.itemsize, tuple(shape), tuple(strides), conj, neg)


def _are_sizes(value: Any) -> bool:
    return (
        type(value) in (tuple, list)
        and len(value) <= MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n < _MAX_SIZE for n in value)
    )


def _rebuild_tensor(reader: Reader, args: tuple[Any, ...]) -> Any:
    return _view(args) if len(args) == 4 else None


def _rebuild_tensor_v2(reader: Reader, args: tuple[Any, ...]) -> Any:
    return _view(args, metadata=args[6] if len(args) == 7 else None) if len(args) in (6, 7) else None


def _rebuild_tensor_v3(reader: Reader, args: tuple[Any, ...]) -> Any:
    if len(args) not in (7, 8):
        return None
    dtype = args[6]
    if type(dtype) is not Global or dtype.module != "torch" or dtype.name not in DTYPES:
        return None
    return _view(args, DTYPES[dtype.name], args[7] if len(args) == 8 else None)


def _rebuild_qtensor(reader: Reader, args: tuple[Any, ...]) -> Any:
    view = _view(args) if len(args) == 7 else None
    if view is not None and type(args[4]) is tuple and len(args[4]) == 4:
        view.attached = {"scales": args[4][1], "zero_points": args[4][2]}
    return view


def _rebuild_parameter(reader: Reader, args: tuple[Any, ...]) -> Any:
    return args[0] if len(args) == 3 else None


def _rebuild_parameter_with_state(reader: Reader, args: tuple[Any, ...]) -> Any:
    return _with_state(args[0], args[3]) if len(args) == 4 else None


def _rebuild_from_type(reader: Reader, args: tuple[Any, ...]) -> Any:
    if len(args) != 4 or type(args[0]) is not Global:
        return None
    # Not reader.call: a constructor that rebuilds through itself would recurse as deep as the pickle says.
    constructor = _FOR_SUBCLASSES.get(args[0].dotted)
    if constructor is None or type(args[2]) is not tuple:
        return None
    return _with_state(constructor(reader, args[2]), args[3])


def _with_state(tensor: Any, state: Any) -> Any:
    if type(tensor) is not TensorView:
        return None
    return replace(tensor, attached={**(tensor.attached or {}), "state": state}) if state else tensor


def _rebuild_sparse_tensor(reader: Reader, args: tuple[Any, ...]) -> Any:
    if len(args) != 2 or type(args[1]) is not tuple:
        return None
    layout, data = args
    name = layout.args[0] if type(layout) is Instance and layout.args else None
    if name == "torch.sparse_coo" and len(data) in (3, 4):
        return {"indices": data[0], "values": data[1]}
    if name in ("torch.sparse_csr", "torch.sparse_bsr") and len(data) == 4:
        return {"crow_indices": data[0], "col_indices": data[1], "values": data[2]}
    if name in ("torch.sparse_csc", "torch.sparse_bsc") and len(data) == 4:
        return {"ccol_indices": data[0], "row_indices": data[1], "values": data[2]}
    return None


def _size(reader: Reader, args: tuple[Any, ...]) -> Any:
    if len(args) != 1 or not _are_sizes(args[0]):
        return None
    return tuple(args[0])


def _ordered_dict(reader: Reader, args: tuple[Any, ...]) -> Any:
    entries = OrderedEntries()
    pairs = args[0] if args else ()  # as Python 2 wrote them
    if len(args) > 1 or type(pairs) not in (list, tuple):
        return None
    reader.spend(len(pairs))
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            return None
        entries[as_key(pair[0])] = pair[1]
    return entries


def _default_dict(reader: Reader, args: tuple[Any, ...]) -> Any:
    return OrderedEntries() if len(args) <= 1 else None


def _set(reader: Reader, args: tuple[Any, ...]) -> Any:
    if len(args) != 1 or type(args[0]) not in (list, tuple, Items):
        return None
    reader.spend(len(args[0]))
    return Items(args[0])


def _bytes(reader: Reader, args: tuple[Any, ...]) -> Any:
    """``_codecs.encode``: how protocol 2 spells bytes."""
    if len(args) != 2 or type(args[0]) is not str or args[1] != "latin1":
        return None
    reader.spend(len(args[0]))
    return args[0].encode("latin1")


_FOR_SUBCLASSES: dict[str, Constructor] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_qtensor": _rebuild_qtensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter_with_state,
}

CONSTRUCTORS: dict[str, Constructor] = {
    **_FOR_SUBCLASSES,
    "torch._utils._rebuild_sparse_tensor": _rebuild_sparse_tensor,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.tensor._rebuild_from_type": _rebuild_from_type,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "_codecs.encode": _bytes,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "__builtin__.set": _set,
    "__builtin__.frozenset": _set,
}
"""By dotted name."""
