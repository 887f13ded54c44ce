"""What changed between two versions of a checkpoint, parameter by parameter, from digests alone.

Nothing is read but the two manifests (or, for state in memory, the digests of its tensors), so the answer is instant
whatever the size of the model. By how much the values differ is measured on top (:mod:`theta_nb.engine.measure`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from theta_nb.engine.renames import match_renamed
from theta_nb.manifest.model import Entry, Manifest
from theta_nb.tensors.dtypes import DTYPES
from theta_nb.tensors.spec import Shape

if TYPE_CHECKING:
    from theta_nb.tensors.statistics import Statistics

__all__ = ["NOT_MEASURED", "STATUSES", "Parameter", "ParameterChange", "Status", "parameters_of", "structural_diff"]

Status = Literal["added", "removed", "renamed", "retyped", "reshaped", "modified", "unchanged"]
"""What happened to a parameter group; a tensor whose shape and dtype both changed is ``"reshaped"``."""

STATUSES: tuple[Status, ...] = get_args(Status)

NOT_MEASURED = "not measured: "
"""How the note of a parameter begins whose values could not be compared."""

RAW = "bytes"
"""Dtype of a storage that no tensor looks at."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter group on one side of a comparison.

    Parameters
    ----------
    name
        Parameter name; ``@N`` for a storage that no tensor looks at.
    dtype
        Canonical dtype name; ``"bytes"`` for a storage.
    shape
        Shape; the length for a storage.
    digest
        Identity of the value, dtype and view included (:func:`theta_nb.tensors.chunks.tensor_digest`).
    tied
        Name of the parameter that holds the bytes of this one as well; empty where it has bytes of its own. Totals
        count a value once, under its first name.
    """

    name: str
    dtype: str
    shape: Shape
    digest: bytes
    tied: str = ""

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Raw bytes of the elements, packed where the dtype is."""
        bits = DTYPES[self.dtype].bits if self.dtype in DTYPES else 8
        return -(-self.numel * bits // 8)


@dataclass(frozen=True, slots=True)
class ParameterChange:
    """What happened to one parameter group.

    Parameters
    ----------
    status
        One of :data:`STATUSES`.
    old, new
        The two sides; ``None`` where the parameter does not exist.
    statistics
        By how much the values differ; ``None`` where they were not measured.
    note
        A sentence about this parameter ("compared over the first 100 of 120 rows"), or empty.

    Examples
    --------
    >>> old = Parameter("head.weight", "float32", (10, 4), b"1")
    >>> change = ParameterChange("reshaped", old, Parameter("head.weight", "float32", (12, 4), b"2"))
    >>> change.name, change.shape, change.retyped
    ('head.weight', (12, 4), False)
    """

    status: Status
    old: Parameter | None
    new: Parameter | None
    statistics: Statistics | None = None
    note: str = ""

    @property
    def current(self) -> Parameter:
        """The new side, or the old one of what was removed."""
        side = self.new or self.old
        if side is None:
            raise ValueError("a change has at least one side")
        return side

    @property
    def name(self) -> str:
        """Name on the new side, or the old one of what was removed."""
        return self.current.name

    @property
    def old_name(self) -> str:
        """Name on the old side; empty for what was added."""
        return self.old.name if self.old is not None else ""

    @property
    def dtype(self) -> str:
        """Canonical dtype name, on the new side where there is one."""
        return self.current.dtype

    @property
    def shape(self) -> Shape:
        """Shape, on the new side where there is one."""
        return self.current.shape

    @property
    def tied(self) -> str:
        """Name of the parameter whose bytes these are, or empty."""
        return self.current.tied

    @property
    def retyped(self) -> bool:
        """Whether the dtype changed, also where the shape did as well."""
        return self.old is not None and self.new is not None and self.old.dtype != self.new.dtype

    @property
    def comparable(self) -> bool:
        """Whether there are two values that may differ, and numbers in them."""
        if self.old is None or self.new is None or RAW in (self.old.dtype, self.new.dtype):
            return False
        return self.status in ("modified", "retyped", "reshaped")

    @property
    def differs(self) -> bool:
        """Whether anything changed, the name included."""
        return self.status != "unchanged"


def parameters_of(manifest: Manifest | None) -> dict[str, Parameter]:
    """Parameter groups of a manifest, by name; none for a file that does not exist.

    A storage is listed (as ``@N``) only where no tensor looks at it: else its tensors are.
    """
    if manifest is None:
        return {}
    seen = {entry.owner for entry in manifest.entries.values()}
    return {
        entry.name: Parameter(entry.name, entry.dtype, entry.shape, entry.digest, _tied(entry))
        for entry in manifest.entries.values()
        if entry.dtype != RAW or entry.name not in seen
    }


def _tied(entry: Entry) -> str:
    """Views on a storage that no tensor covers have no first name; each counts for itself."""
    return "" if entry.owner.startswith("@") else entry.owner


def structural_diff(old: Mapping[str, Parameter], new: Mapping[str, Parameter]) -> tuple[ParameterChange, ...]:
    """What happened to every parameter group, sorted by name as people count (``layer.2`` before ``layer.10``).

    A parameter is *renamed* if its value (dtype and shape included) stands under another name, and it is clear under
    which one; :func:`theta_nb.engine.renames.match_renamed` says when it is. Storages that no tensor looks at have
    numbers, not names, and are recognised by their value first.

    Parameters
    ----------
    old, new
        Parameter groups by name.

    Examples
    --------
    >>> old = {name: Parameter(name, "float32", (2,), name.encode()) for name in ("a", "b", "c")}
    >>> new = {name: Parameter(name, "float32", (2,), value) for name, value in [("a", b"a"), ("b", b"!"), ("d", b"c")]}
    >>> [(change.name, change.status) for change in structural_diff(old, new)]
    [('a', 'unchanged'), ('b', 'modified'), ('d', 'renamed')]
    """
    both = {name for name in old.keys() & new.keys() if not _moved(old[name], new[name])}
    removed = {name: old[name].digest for name in old if name not in both}
    added = {name: new[name].digest for name in new if name not in both}
    renamed = match_renamed(removed, added)
    changes = [ParameterChange(_status(old[name], new[name]), old[name], new[name]) for name in both]
    for before, after in renamed.items():
        numbered = before.startswith("@") and after.startswith("@")
        changes.append(ParameterChange("unchanged" if numbered else "renamed", old[before], new[after]))
    gone, come = removed.keys() - renamed.keys(), added.keys() - set(renamed.values())
    changes += [ParameterChange("modified", old[name], new[name]) for name in gone & come]
    changes += [ParameterChange("removed", old[name], None) for name in gone - come]
    changes += [ParameterChange("added", None, new[name]) for name in come - gone]
    return tuple(sorted(changes, key=lambda change: (natural(change.name), change.status)))


def _moved(old: Parameter, new: Parameter) -> bool:
    """Whether two storages of one number may be different ones: numbers shift as tensors come and go."""
    return old.name.startswith("@") and old.digest != new.digest


def _status(old: Parameter, new: Parameter) -> Status:
    if old.shape != new.shape:
        return "reshaped"
    if old.dtype != new.dtype:
        return "retyped"
    return "unchanged" if old.digest == new.digest else "modified"


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Key that sorts names as people count.

    Examples
    --------
    >>> sorted(["layer.10.weight", "layer.2.weight"], key=natural)
    ['layer.2.weight', 'layer.10.weight']
    """
    return tuple(
        (0, int(text), text) if is_number and len(text) < 20 else (1, 0, text) for is_number, text in _runs(name)
    )


def _runs(name: str) -> list[tuple[bool, str]]:
    runs: list[tuple[bool, str]] = []
    for char in name:
        digit = "0" <= char <= "9"
        if runs and runs[-1][0] == digit:
            runs[-1] = (digit, runs[-1][1] + char)
        else:
            runs.append((digit, char))
    return runs
