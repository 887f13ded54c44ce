"""Reads the pickle of a PyTorch archive without importing or running anything it names.

A pickle is a program for a stack machine. This reader keeps the machine of the standard library's *pure-Python*
unpickler (the one in C allocates gigabytes for an eight-byte memo index) and replaces every operation that reaches
out of it: globals become :class:`~theta_nb.checkpoints.pickle_objects.Global`, calls become
:class:`~theta_nb.checkpoints.pickle_objects.Instance` or, for the constructors that PyTorch uses, a
:class:`~theta_nb.checkpoints.pickle_objects.TensorView`. It is bounded in three ways: no length is believed beyond
the bytes that remain, the number of operations is limited, and no operation costs more than its own size (items that
a call copies count as operations; dict keys whose hash could be made expensive are compared by identity).
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from theta_nb.checkpoints.pickle_objects import (
    Global,
    Instance,
    Items,
    OrderedEntries,
    StorageRef,
    TensorView,
    as_key,
)
from theta_nb.checkpoints.pickle_tensors import CONSTRUCTORS, storage_dtype
from theta_nb.errors import CheckpointError

__all__ = ["MALFORMED", "MAX_PICKLE_NBYTES", "Operation", "PickleReader", "read_pickle"]

MAX_PICKLE_NBYTES = 1 << 28
MAX_OPERATIONS = 10_000_000  # 20,000 tensors take 800,000
MAX_MARKS = 10_000

MALFORMED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    pickle.PickleError,
    struct.error,
)
"""What the machine of the standard library raises on a malformed program."""


def read_pickle(data: bytes, records: Mapping[str, int]) -> Any:
    """Object that a pickle describes, made of inert stand-ins.

    Parameters
    ----------
    data
        The pickle.
    records
        Storages that the pickle may refer to: key and size in bytes.

    Returns
    -------
    object
        See :mod:`theta_nb.checkpoints.pickle_objects` for what it is made of.

    Raises
    ------
    CheckpointError
        If the pickle is malformed, exceeds a limit, or refers to a storage that does not exist or is too small.

    Examples
    --------
    >>> import os, pickle
    >>> class Attack:
    ...     def __reduce__(self):
    ...         return os.system, ("echo never printed",)
    >>> instance = read_pickle(pickle.dumps(Attack()), {})
    >>> instance.maker.name, instance.args
    ('system', ('echo never printed',))
    """
    if len(data) > MAX_PICKLE_NBYTES:
        raise CheckpointError(f"the pickle of {len(data)} bytes exceeds the limit of {MAX_PICKLE_NBYTES}")
    try:
        return PickleReader(data, records).load()
    except CheckpointError:
        raise
    except MALFORMED as error:
        raise CheckpointError(f"the pickle cannot be read: {type(error).__name__}: {error}"[:300]) from error


Operation = Callable[["PickleReader"], None]


class PickleReader(pickle._Unpickler):
    """The stack machine. Its ``stack``, ``metastack``, ``memo``, ``append`` and ``pop_mark`` are the base class's."""

    dispatch: ClassVar[dict[int, Operation]] = dict(pickle._Unpickler.dispatch)  # type: ignore[assignment, arg-type]

    if TYPE_CHECKING:  # typeshed does not know it

        def pop_mark(self) -> list[Any]: ...  # noqa: D102

    def __init__(self, data: bytes, records: Mapping[str, int]) -> None:
        # The file is never used: read and readline below replace the base class's, frames and all.
        super().__init__(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
        self.data = data
        self.records = records
        self.budget = MAX_OPERATIONS
        self.globals: dict[tuple[str, str], Global] = {}
        self.storages: dict[str, StorageRef] = {}

    def load(self) -> Any:
        """Run the program."""
        file = io.BytesIO(self.data)
        self.read, self.readline = _strict(file)
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        next_byte = file.read  # the hottest call; at the end of the file its result has no item 0
        dispatch = self.dispatch
        try:
            for _ in range(MAX_OPERATIONS):
                dispatch[next_byte(1)[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        raise CheckpointError(f"the pickle takes more than {MAX_OPERATIONS} operations")

    def spend(self, count: int) -> None:
        """Count items that one operation copies."""
        self.budget -= count
        if self.budget < 0:
            raise CheckpointError(f"the pickle copies more than {MAX_OPERATIONS} items")

    # --- the outside world -----------------------------------------------------------------------------------------

    def find_class(self, module: str, name: str) -> Global:
        """Stand-in for a global, one for each name."""
        key = (module, name)
        found = self.globals.get(key)
        if found is None:
            found = self.globals[key] = Global(module, name)
        return found

    def get_extension(self, code: int) -> None:
        """Push the stand-in for a registered global."""
        self.append(self.find_class("copyreg", f"extension {code}"))

    def persistent_load(self, pid: Any) -> Any:
        """Stand-in for a storage of the archive, once it is known to be there and large enough."""
        if type(pid) is not tuple or len(pid) != 5 or pid[0] != "storage":
            raise CheckpointError("the pickle refers to something that is not a storage")
        _, kind, key, _, numel = pid
        if type(key) is not str or key not in self.records:
            raise CheckpointError(f"the pickle refers to a storage that the archive lacks: {_short(key)}")
        dtype = storage_dtype(kind)
        itemsize = dtype.itemsize if dtype is not None else 1
        if type(numel) is not int or not 0 <= numel * itemsize <= self.records[key]:
            raise CheckpointError(f"the pickle claims more of storage {key!r} than its {self.records[key]} bytes")
        # torch.load, too, types a storage by the first reference to it.
        return self.storages.setdefault(key, StorageRef(key, dtype))

    def call(self, maker: Any, args: Any) -> Any:
        """What calling ``maker`` gives: a stand-in."""
        if type(args) is not tuple:
            raise pickle.UnpicklingError("arguments are not a tuple")
        if type(maker) is Global:
            constructor = CONSTRUCTORS.get(maker.dotted)
            made = None if constructor is None else constructor(self, args)
            return Instance(maker, args) if made is None else made
        if type(maker) is Instance:
            return Instance(maker, args)
        raise pickle.UnpicklingError(f"{type(maker).__name__} cannot be called")


def _short(value: Any) -> str:
    return repr(value[:60]) if type(value) is str else type(value).__name__


def _strict(file: io.BytesIO) -> tuple[Callable[[int], bytes], Callable[[], bytes]]:
    """``read`` and ``readline`` that never return less than they were asked for."""
    raw_read, raw_readline = file.read, file.readline

    def read(nbytes: int) -> bytes:
        piece = raw_read(nbytes)
        if len(piece) != nbytes:
            raise EOFError("the pickle is cut short")
        return piece

    def readline() -> bytes:
        line = raw_readline()
        if not line.endswith(b"\n"):
            raise EOFError("the pickle is cut short")
        return line

    return read, readline


# --- operations ----------------------------------------------------------------------------------------------------


def _operation(opcode: bytes) -> Callable[[Operation], Operation]:
    def register(operation: Operation) -> Operation:
        PickleReader.dispatch[opcode[0]] = operation
        return operation

    return register


@_operation(pickle.FRAME)
def _frame(self: PickleReader) -> None:
    # A frame is a hint for buffering; its content is read like everything else, so its length does not matter.
    self.read(8)


@_operation(pickle.MARK)
def _mark(self: PickleReader) -> None:
    if len(self.metastack) >= MAX_MARKS:
        raise CheckpointError(f"the pickle nests more than {MAX_MARKS} marks")
    self.metastack.append(self.stack)
    self.stack = []
    self.append = self.stack.append


@_operation(pickle.STRING)
def _string(self: PickleReader) -> None:
    text = self.readline()[:-1]
    if len(text) < 2 or text[0] != text[-1] or text[0] not in b"\"'" or b"\\" in text:
        raise pickle.UnpicklingError("a quoted string is malformed or has escapes")
    self.append(text[1:-1].decode("utf-8", "surrogateescape"))


@_operation(pickle.BYTEARRAY8)
def _bytearray8(self: PickleReader) -> None:
    # The base class allocates the claimed length before it reads.
    self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))


@_operation(pickle.READONLY_BUFFER)
def _readonly_buffer(self: PickleReader) -> None:
    raise pickle.UnpicklingError("out-of-band buffers have no place in a file")


@_operation(pickle.EMPTY_SET)
def _empty_set(self: PickleReader) -> None:
    self.append(Items())


@_operation(pickle.FROZENSET)
def _frozenset(self: PickleReader) -> None:
    self.append(Items(self.pop_mark()))


@_operation(pickle.DICT)
def _dict(self: PickleReader) -> None:
    entries: dict[Any, Any] = {}
    _fill(entries, self.pop_mark())
    self.append(entries)


@_operation(pickle.SETITEM)
def _setitem(self: PickleReader) -> None:
    stack = self.stack
    value = stack.pop()
    key = stack.pop()
    _entries(stack[-1])[key if type(key) is str else as_key(key)] = value


@_operation(pickle.SETITEMS)
def _setitems(self: PickleReader) -> None:
    items = self.pop_mark()
    _fill(_entries(self.stack[-1]), items)


def _fill(entries: dict[Any, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        entries[key if type(key) is str else as_key(key)] = value


def _entries(target: Any) -> dict[Any, Any]:
    if isinstance(target, dict):
        return target
    if type(target) is not Instance:
        raise pickle.UnpicklingError(f"{type(target).__name__} takes no entries")
    if target.entries is None:
        target.entries = {}
    return target.entries


@_operation(pickle.APPEND)
def _append(self: PickleReader) -> None:
    value = self.stack.pop()
    _items(self.stack[-1]).append(value)


@_operation(pickle.APPENDS)
@_operation(pickle.ADDITEMS)
def _appends(self: PickleReader) -> None:
    items = self.pop_mark()
    _items(self.stack[-1]).extend(items)


def _items(target: Any) -> list[Any]:
    if isinstance(target, list):
        return target
    if type(target) is not Instance:
        raise pickle.UnpicklingError(f"{type(target).__name__} takes no items")
    if target.items is None:
        target.items = []
    return target.items


@_operation(pickle.REDUCE)
@_operation(pickle.NEWOBJ)
def _reduce(self: PickleReader) -> None:
    args = self.stack.pop()
    self.stack[-1] = self.call(self.stack[-1], args)


@_operation(pickle.NEWOBJ_EX)
def _newobj_ex(self: PickleReader) -> None:
    keywords = self.stack.pop()
    args = self.stack.pop()
    if type(args) is not tuple:
        raise pickle.UnpicklingError("arguments are not a tuple")
    self.spend(len(args))
    self.stack[-1] = self.call(self.stack[-1], (*args, keywords) if keywords else args)


@_operation(pickle.INST)
def _inst(self: PickleReader) -> None:
    module = self.readline()[:-1].decode("utf-8")
    name = self.readline()[:-1].decode("utf-8")
    args = tuple(self.pop_mark())
    self.append(self.call(self.find_class(module, name), args))


@_operation(pickle.OBJ)
def _obj(self: PickleReader) -> None:
    maker, *args = self.pop_mark()
    self.append(self.call(maker, tuple(args)))


@_operation(pickle.BUILD)
def _build(self: PickleReader) -> None:
    # Only a reference is kept: merging the state into a dict would let one state be copied a million times.
    state = self.stack.pop()
    target = self.stack[-1]
    if type(target) is TensorView:
        target.attached = {**(target.attached or {}), "state": state}
    elif type(target) is OrderedEntries:
        target.states.append(state)
    elif type(target) is Instance:
        if target.states is None:
            target.states = []
        target.states.append(state)
    else:
        raise pickle.UnpicklingError(f"{type(target).__name__} takes no state")
