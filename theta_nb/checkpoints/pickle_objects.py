"""What a pickle is read into: inert stand-ins that name things and never do anything.

Reading a pickle with Python's own machinery runs whatever code it names. Here a global is only its name, calling it
only records the arguments, and nothing is ever imported.

Only these kinds of objects come out of a pickle: ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``,
``bytearray``, ``list``, ``tuple``, ``dict``, and the classes below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from theta_nb.tensors.dtypes import DType

__all__ = ["Global", "Instance", "Items", "Key", "OrderedEntries", "StorageRef", "TensorView", "as_key"]


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name that the pickle would have imported. Compared by identity; a reader makes one for each name."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        """Module and name, joined."""
        return f"{self.module}.{self.name}"


class Items(list[Any]):
    """A set or frozenset, in the order of the pickle: hashing hostile elements could take forever."""

    __slots__ = ()


class OrderedEntries(dict[Any, Any]):
    """A ``collections.OrderedDict`` or ``defaultdict``: a dict that can have attributes as well."""

    __slots__ = ("states",)

    def __init__(self) -> None:
        super().__init__()
        self.states: list[Any] = []


class Instance:
    """What calling a global with ``args`` would have made.

    Parameters
    ----------
    maker
        The global, or an earlier instance that is called.
    args
        Positional arguments, and a dict of keyword arguments behind them where there were any.

    Attributes
    ----------
    items, entries, states
        What was appended, set by key, and handed to ``__setstate__``; ``None`` until then.
    """

    __slots__ = ("args", "entries", "items", "maker", "states")

    def __init__(self, maker: Global | Instance, args: tuple[Any, ...]) -> None:
        self.maker = maker
        self.args = args
        self.items: list[Any] | None = None
        self.entries: dict[Any, Any] | None = None
        self.states: list[Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef:
    """A record of the archive that the pickle refers to, and the dtype that it is referred to with."""

    key: str
    dtype: DType | None


@dataclass(slots=True, eq=False)
class TensorView:
    """A tensor: a view on a storage.

    Parameters
    ----------
    key
        The storage's record.
    dtype
        Element type.
    offset
        Of the first element, in bytes.
    shape, strides
        In elements.
    conj, neg
        PyTorch's lazy conjugate and negative bits.
    attached
        Further values that belong to the tensor (attributes, per-channel scales), by name.
    """

    key: str
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conj: bool = False
    neg: bool = False
    attached: dict[Any, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A dict key that is compared by identity, because comparing or hashing its value could take forever."""

    value: Any


# Integers below this have no hash collisions but -1 and -2; larger ones can be made to collide at will, which makes a
# dict quadratic. Tuples are worse: (t, t) nested 60 deep takes 2**60 steps to hash.
_SMALL = 1 << 60


def as_key(value: Any) -> Any:
    """``value`` as a dict key whose hash and comparison are cheap."""
    kind = type(value)
    if kind is str or value is None or kind in (bool, float, bytes, Global):
        return value
    if kind is int and -_SMALL < value < _SMALL:
        return value
    return Key(value)
