"""Reads the pickle of a PyTorch archive as the graph that it is, and writes such a graph as a pickle.

:mod:`theta_nb.checkpoints.pickle_reader` says what a pickle holds; what it read cannot be written again, since a
``torch.Size`` has become a tuple by then and a parameter a view. Here a call stays a call: its maker, its arguments and
what it was given afterwards. Nothing is imported or run, neither in reading nor in writing; globals go out by the names
they came in with.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from theta_nb.checkpoints.pickle_objects import Global, Instance, Key
from theta_nb.checkpoints.pickle_reader import MALFORMED, MAX_PICKLE_NBYTES, Operation, PickleReader
from theta_nb.errors import CheckpointError

__all__ = ["Graph", "NewObject", "StorageNode", "is_ordered_dict", "nodes", "read_graph", "write_graph"]


class StorageNode:
    """A reference to a record of the archive, with all that the pickle says of it.

    Parameters
    ----------
    kind
        The storage class.
    key
        The record.
    location
        Device that it was on.
    numel
        Elements that it claims.
    """

    __slots__ = ("key", "kind", "location", "numel")

    def __init__(self, kind: Global, key: str, location: Any, numel: int) -> None:
        self.kind = kind
        self.key = key
        self.location = location
        self.numel = numel


class NewObject(Instance):
    """An instance made by ``__new__``, which has another opcode than a call."""

    __slots__ = ()


Graph = Any
"""``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``bytearray``, ``list``, ``tuple``, ``dict`` (with
:class:`Key` for keys that are dear to compare), :class:`Global`, :class:`Instance` and :class:`StorageNode`."""

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


def read_graph(data: bytes, records: Mapping[str, int]) -> Graph:
    """Graph of a pickle.

    Parameters
    ----------
    data
        The pickle.
    records
        Storages that it may refer to: key and size in bytes.

    Raises
    ------
    CheckpointError
        If it is malformed, exceeds a limit, or has something that could not be written again.

    Examples
    --------
    >>> from collections import OrderedDict
    >>> state = read_graph(pickle.dumps(OrderedDict(a=1), 2), {})
    >>> is_ordered_dict(state), state.entries
    (True, {'a': 1})
    >>> pickle.loads(write_graph(state, lambda node: (node.key, node.numel)))
    OrderedDict([('a', 1)])
    """
    if len(data) > MAX_PICKLE_NBYTES:
        raise CheckpointError(f"the pickle of {len(data)} bytes exceeds the limit of {MAX_PICKLE_NBYTES}")
    try:
        return _GraphReader(data, records).load()
    except CheckpointError:
        raise
    except MALFORMED as error:
        raise CheckpointError(f"the pickle cannot be read: {type(error).__name__}: {error}"[:300]) from error


def is_ordered_dict(node: Graph) -> bool:
    """Whether a node is a ``collections.OrderedDict`` that was filled by key, as a state dict is."""
    return (
        type(node) is Instance
        and type(node.maker) is Global
        and node.maker.dotted == "collections.OrderedDict"
        and node.args == ()
        and node.items is None
    )


def nodes(root: Graph) -> Iterator[Graph]:
    """Every node below ``root``, itself included, each once."""
    seen: set[int] = set()
    pending = [root]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        if isinstance(node, list | tuple | dict | Instance):
            seen.add(id(node))
        yield node
        pending.extend(_parts(node))


def _parts(node: Graph) -> Iterator[Graph]:
    if isinstance(node, list | tuple):
        yield from node
    elif isinstance(node, dict):
        yield from node.keys()
        yield from node.values()
    elif isinstance(node, Instance):
        yield from (node.maker, node.args, node.items, node.entries, node.states)
    elif type(node) is Key:
        yield node.value
    elif type(node) is StorageNode:
        yield from (node.kind, node.location)


# --- reading ----------------------------------------------------------------------------------------------------------


class _GraphReader(PickleReader):
    dispatch: ClassVar[dict[int, Operation]] = dict(PickleReader.dispatch)

    def __init__(self, data: bytes, records: Mapping[str, int]) -> None:
        super().__init__(data, records)
        self.nodes: dict[tuple[Any, ...], StorageNode] = {}

    def persistent_load(self, pid: Any) -> Any:
        super().persistent_load(pid)  # checks it
        _, kind, key, location, numel = pid
        found = self.nodes.get((key, kind))
        if found is None:
            found = self.nodes[key, kind] = StorageNode(kind, key, location, numel)
        found.numel = max(found.numel, numel)
        return found

    def call(self, maker: Any, args: Any) -> Any:
        if type(args) is not tuple:
            raise pickle.UnpicklingError("arguments are not a tuple")
        if not isinstance(maker, Global | Instance):
            raise pickle.UnpicklingError(f"{type(maker).__name__} cannot be called")
        return Instance(maker, args)


def _newobj(self: Any) -> None:
    args = self.stack.pop()
    maker = self.stack.pop()
    if type(args) is not tuple or type(maker) is not Global:
        raise pickle.UnpicklingError("a new object is no class with a tuple of arguments")
    self.append(NewObject(maker, args))


def _refuse(self: Any) -> None:
    raise CheckpointError("the pickle uses an operation that is not written again (sets or keywords of protocol 4)")


_GraphReader.dispatch[pickle.NEWOBJ[0]] = _newobj
for _opcode in (pickle.EMPTY_SET, pickle.FROZENSET, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4):
    _GraphReader.dispatch[_opcode[0]] = _refuse


# --- writing ----------------------------------------------------------------------------------------------------------


def write_graph(root: Graph, place: Any) -> bytes:
    """Pickle of a graph, in protocol 2 as ``torch.save`` uses it.

    Parameters
    ----------
    root
        From :func:`read_graph`, or put together from several.
    place
        Called with a :class:`StorageNode`; returns the key of its record in the new archive and the number of its
        elements there.

    Raises
    ------
    CheckpointError
        If it nests too deep, or has a global whose name is none.
    """
    file = io.BytesIO()
    writer = _GraphWriter(file, place)
    try:
        writer.dump(root)
    except (pickle.PicklingError, RecursionError) as error:
        raise CheckpointError(f"the pickle cannot be written: {error}"[:300]) from None
    return file.getvalue()


_ENCODE, _BYTEARRAY = Global("_codecs", "encode"), Global("builtins", "bytearray")


class _GraphWriter(pickle._Pickler):
    """The standard library's pure-Python pickler, with the nodes of a graph in place of objects."""

    dispatch: ClassVar[dict[type, Any]] = {
        kind: pickle._Pickler.dispatch[kind] for kind in (type(None), bool, int, float, tuple, list, dict)
    }

    def __init__(self, file: io.BytesIO, place: Any) -> None:
        super().__init__(file, 2, fix_imports=False)
        self.place = place
        self.strings: dict[str, str] = {}

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is not StorageNode:
            return None
        key, numel = self.place(obj)
        return ("storage", obj.kind, key, obj.location, numel)

    def reducer_override(self, obj: Any) -> Any:
        # Whatever else there is would be pickled by what Python thinks of it: nothing but nodes may come here.
        if type(obj) not in self.dispatch:
            raise pickle.PicklingError(f"{type(obj).__name__} has no place in a pickle")
        return NotImplemented

    def text(self, obj: str) -> None:
        # Equal text is written once, however many objects it is: the same graph gives the same bytes.
        kept = self.strings.setdefault(obj, obj)
        known = self.memo.get(id(kept))  # type: ignore[attr-defined]
        if known is not None:
            self.write(self.get(known[0]))  # type: ignore[attr-defined]
        else:
            pickle._Pickler.save_str(self, kept)  # type: ignore[attr-defined]

    def named(self, obj: Global) -> None:
        # A line break in a name would end it, and what follows would be operations.
        if not _NAME.fullmatch(obj.module) or not _NAME.fullmatch(obj.name):
            raise pickle.PicklingError(f"{obj.dotted[:60]!r} is not the name of anything")
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode("ascii"))  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]

    def octets(self, obj: bytes) -> None:
        # How protocol 2 spells them.
        self.save_made(Instance(_ENCODE, (obj.decode("latin1"), "latin1")), obj)

    def array(self, obj: bytearray) -> None:
        self.save_made(Instance(_BYTEARRAY, (bytes(obj),)), obj)

    def instance(self, obj: Instance) -> None:
        self.save_made(obj, obj)

    def save_made(self, made: Instance, obj: Any) -> None:
        save, write = self.save, self.write  # type: ignore[attr-defined]
        save(made.maker)
        save(made.args)
        write(pickle.NEWOBJ if type(made) is NewObject else pickle.REDUCE)
        self.memoize(obj)  # type: ignore[attr-defined]
        if made.items:
            write(pickle.MARK)
            for item in made.items:
                save(item)
            write(pickle.APPENDS)
        if made.entries:
            write(pickle.MARK)
            for key, value in made.entries.items():
                save(key)
                save(value)
            write(pickle.SETITEMS)
        for state in made.states or ():
            save(state)
            write(pickle.BUILD)

    def key(self, obj: Key) -> None:
        self.save(obj.value)  # type: ignore[attr-defined]


_GraphWriter.dispatch.update(
    {
        str: _GraphWriter.text,
        bytes: _GraphWriter.octets,
        bytearray: _GraphWriter.array,
        Global: _GraphWriter.named,
        Instance: _GraphWriter.instance,
        NewObject: _GraphWriter.instance,
        Key: _GraphWriter.key,
    }
)
