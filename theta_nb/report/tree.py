"""Parameters as a tree of modules, folded where it helps reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from theta_nb.report.grouping import steps_of

__all__ = ["Module", "Named", "module_tree"]


class Named(Protocol):
    """What a tree is made of: a change, a parameter of a merge."""

    @property
    def name(self) -> str:
        """Its name in the model."""
        ...


T = TypeVar("T", bound=Named)

_WORTH_FOLDING = 8
"""Modules of fewer parameters are listed where they stand."""


@dataclass
class Module(Generic[T]):
    """A module and what is in it.

    Parameters
    ----------
    label
        Its name below its parent (several steps where there was no choice between).
    rows
        Parameters listed here, with their names below this module.
    modules
        Modules below that are worth folding.
    changes
        Every parameter below, unchanged ones included.
    """

    label: str
    rows: list[tuple[str, T]] = field(default_factory=list)
    modules: list[Module[T]] = field(default_factory=list)
    changes: list[T] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Module[T]]]:
        """The module and those below, each with its depth."""
        yield depth, self
        for module in self.modules:
            yield from module.walk(depth + 1)

    def indexed(self, positions: Mapping[int, int]) -> dict[str, Any]:
        """The tree as plain data, a leaf being the position of what has that ``id()``; for ``tree.js``."""
        return {
            "label": self.label,
            "rows": [[label, positions[id(item)]] for label, item in self.rows],
            "modules": [module.indexed(positions) for module in self.modules],
        }


@dataclass
class _Node(Generic[T]):
    items: list[tuple[str, _Node[T] | T]] = field(default_factory=list)
    children: dict[str, _Node[T]] = field(default_factory=dict)
    changes: list[T] = field(default_factory=list)

    def child(self, step: str) -> _Node[T]:
        """The module below of that name, made where it is first needed."""
        if step not in self.children:
            self.children[step] = _Node()
            self.items.append((step, self.children[step]))
        return self.children[step]


def module_tree(changes: Iterable[T], *, fold: int = _WORTH_FOLDING) -> Module[T]:
    """Tree of modules over all parameters; a module of fewer than ``fold`` of them is part of its parent.

    Examples
    --------
    >>> from theta_nb.engine.diff import Parameter, ParameterChange
    >>> names = [f"enc.{i}.{kind}" for i in range(2) for kind in "abc"] + ["head.weight"]
    >>> made = [ParameterChange("added", None, Parameter(name, "int8", (), b"")) for name in names]
    >>> tree = module_tree(made, fold=3)
    >>> [(depth, m.label, [name for name, _ in m.rows]) for depth, m in tree.walk()]
    [(0, '', ['head.weight']), (1, 'enc', []), (2, '0', ['a', 'b', 'c']), (2, '1', ['a', 'b', 'c'])]
    """
    root: _Node[T] = _Node()
    for change in changes:
        steps = steps_of(change.name)
        node = root
        node.changes.append(change)
        for step in steps[:-1]:
            node = node.child(step)
            node.changes.append(change)
        node.items.append((steps[-1], change))
    return _module("", root, fold)


def _module(label: str, node: _Node[T], fold: int) -> Module[T]:
    while len(node.items) == 1:
        step, only = node.items[0]
        if not isinstance(only, _Node) or len(only.changes) < fold:
            break
        label, node = label + step, only
    found: Module[T] = Module(label.rstrip("./"), changes=node.changes)
    for prefix, child in _spread("", node, fold):
        if isinstance(child, _Node):
            found.modules.append(_module(prefix, child, fold))
        else:
            found.rows.append((prefix, child))
    return found


def _spread(prefix: str, node: _Node[T], fold: int) -> Iterator[tuple[str, _Node[T] | T]]:
    """What stands directly in a module: its parameters, small modules spread out, and large ones as they are."""
    for step, item in node.items:
        if isinstance(item, _Node) and len(item.changes) < fold:
            yield from _spread(prefix + step, item, fold)
        else:
            yield prefix + step, item
