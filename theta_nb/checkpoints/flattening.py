"""Walks what a pickle was read into and names every tensor by the path that leads to it.

A pickle is a graph, not a tree: containers may be shared or contain themselves, and 547 bytes can describe 2**60
paths. So every container is walked once, at the first path that reaches it, while a tensor gets a name for each
walked container that holds it: tied weights are listed under all their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from theta_nb.checkpoints.naming import ROOT, Other, Step, spell_step
from theta_nb.checkpoints.pickle_objects import Instance, Items, Key, OrderedEntries, TensorView

__all__ = ["MAX_DEPTH", "joined", "key_step", "named_tensors"]

MAX_DEPTH = 200
MAX_NAME_LENGTH = 2000
MAX_NAMES = 250_000
_MAX_KEY_REPR = 80

Child = tuple[Step, Any]


def named_tensors(root: object) -> tuple[dict[str, TensorView], int]:
    """Every tensor that ``root`` holds, by name, in the order of the pickle.

    Parameters
    ----------
    root
        What :func:`theta_nb.checkpoints.pickle_reader.read_pickle` returned.

    Returns
    -------
    tensors : dict of str to TensorView
    left_out : int
        How many tensors or containers were too deep, too many, or had too long a name.

    Examples
    --------
    >>> from theta_nb.tensors.dtypes import dtype_named
    >>> w = TensorView("0", dtype_named("float32"), 0, (2,), (1,))
    >>> tensors, left_out = named_tensors({"model": {"a.w": w, "b.w": w}, "steps": [w, 3]})
    >>> list(tensors), left_out
    (['model/a.w', 'model/b.w', 'steps/[0]'], 0)
    """
    tensors: dict[str, TensorView] = {}
    left_out = 0
    visited: set[int] = set()
    pending: list[tuple[str, Iterator[Child]]] = [("", iter([(_HERE, root)]))]
    while pending:
        parent, children = pending[-1]
        for step, child in children:
            kind = type(child)
            if kind not in _CONTAINERS:
                continue
            name = joined(parent, step)
            if kind is TensorView:
                if len(name) > MAX_NAME_LENGTH or len(tensors) >= MAX_NAMES:
                    left_out += 1
                else:
                    tensors[name or ROOT] = child
            if id(child) in visited:
                continue
            if len(pending) > MAX_DEPTH or len(name) > MAX_NAME_LENGTH:
                left_out += kind is not TensorView
                continue
            visited.add(id(child))
            pending.append((name, _children(child)))
            break
        else:
            pending.pop()
    return tensors, left_out


_HERE = Other("")  # the child has its parent's name


def joined(parent: str, step: Step) -> str:
    """Name of what a step leads to from the container called ``parent``; the root has an empty name."""
    if step is _HERE:
        return parent
    return f"{parent}/{spell_step(step)}" if parent else spell_step(step)


def _children(container: Any) -> Iterator[Child]:
    if isinstance(container, dict):
        yield from _entries(container)
        if type(container) is OrderedEntries:
            for state in container.states:
                yield Other("state"), state
    elif isinstance(container, (list, tuple)):
        yield from enumerate(container)
    elif type(container) is TensorView:
        if container.attached is not None:
            yield from _entries(container.attached)
    elif type(container) is Instance:
        yield from _parts(container)


def _entries(entries: dict[Any, Any]) -> Iterator[Child]:
    for position, (key, value) in enumerate(entries.items()):
        yield (key if type(key) is str else key_step(key, position)), value


def _parts(instance: Instance) -> Iterator[Child]:
    """Attributes of an ordinary object have plain names; what else it holds stands behind a word in brackets."""
    yield Other("args"), instance.args
    if instance.entries is not None:
        yield from _entries(instance.entries)
    if instance.items is not None:
        yield Other("items"), instance.items
    for state in instance.states or ():
        attributes = [state]
        if type(state) is tuple and len(state) == 2 and all(part is None or type(part) is dict for part in state):
            attributes = list(state)  # __dict__ and __slots__
        for part in attributes:
            # The state is a child like others, not iterated here: many objects may share one.
            yield _HERE if type(part) is dict and instance.entries is None else Other("state"), part


def key_step(key: Any, position: int) -> Step:
    """Step for a dict key that is not a string. Its ``repr`` may be long, but never a path and never endless."""
    value = key.value if type(key) is Key else key
    if type(value) is int and value.bit_length() <= 256:
        return value
    if type(value) is bytes and len(value) > _MAX_KEY_REPR:
        return Other(f"{len(value)} bytes {hashlib.sha256(value).hexdigest()[:32]}")
    if value is None or type(value) in (bool, float, bytes):
        return Other(repr(value))
    if type(value) is tuple and len(value) <= 8 and all(_is_short_scalar(part) for part in value):
        return Other(repr(value))
    return Other(f"key {position}")


def _is_short_scalar(value: Any) -> bool:
    if type(value) in (str, bytes):
        return len(value) <= _MAX_KEY_REPR
    if type(value) is int:
        return bool(value.bit_length() <= 256)
    return value is None or type(value) in (bool, float)


_CONTAINERS = frozenset({dict, OrderedEntries, list, tuple, Items, Instance, TensorView})
