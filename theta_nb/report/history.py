"""The history of a checkpoint: frozen data that can show itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, overload

from theta_nb.engine.diff import ParameterChange, natural
from theta_nb.engine.history import Commit, Step
from theta_nb.errors import ThetaError
from theta_nb.report.checkpoint_diff import ChangeGroup, CheckpointDiff
from theta_nb.report.grouping import block_of, kind_of, module_of
from theta_nb.report.showing import Showing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["ChangeMatrix", "History", "StepValues"]

Progress = Callable[[int, int], None]

_GROUPERS: dict[str, Callable[[str], str]] = {
    "block": block_of,
    "module": module_of,
    "kind": kind_of,
    "parameter": lambda name: name,
}


class StepValues(Protocol):
    """Measures by how much the values of a commit differ from those of its parent, or of any other."""

    def __call__(self, step: Step, progress: Progress | None) -> tuple[ParameterChange, ...]:
        """The changes of a step with statistics, or with a note why there are none."""
        ...

    def between(self, old: Step, new: Step) -> CheckpointDiff:
        """What differs between the versions of two commits, not measured yet."""
        ...


@dataclass(frozen=True, slots=True)
class ChangeMatrix:
    """How much each part of a model changed in each commit.

    Parameters
    ----------
    layers
        Names of the rows: blocks, modules or parameters, in the order in which people count.
    commits
        The columns, oldest first.
    values
        One row per layer: ‖Δ‖/‖old‖ over what changed if ``measured``, else the share of the layer's elements that
        belong to changed tensors. NaN where the commit has no such layer, 0 where nothing in it changed.
    measured
        Which of the two the values are.
    added
        Cells (row, column) of layers that came into being in that commit: there is nothing to compare them with.
    """

    layers: tuple[str, ...]
    commits: tuple[Commit, ...]
    values: tuple[tuple[float, ...], ...]
    measured: bool = False
    added: frozenset[tuple[int, int]] = frozenset()

    def column(self, commit: str) -> dict[str, float]:
        """Values of one commit by layer; ``commit`` is an id or the beginning of one.

        Raises
        ------
        KeyError
            If no commit, or more than one, begins like that.
        """
        found = [i for i, c in enumerate(self.commits) if c.id.startswith(commit)]
        if len(found) != 1:
            raise KeyError(commit)
        return {layer: row[found[0]] for layer, row in zip(self.layers, self.values, strict=True)}


@dataclass(frozen=True)
class History(Showing, Sequence[Step]):
    """What the commits of a repository did to one checkpoint, newest first.

    It is a sequence of steps. In a notebook it shows itself.

    Parameters
    ----------
    path
        Name of the checkpoint.
    steps
        Descendants before ancestors.
    first_parent
        Whether only first parents were followed.
    measured
        Whether the changes have statistics.
    """

    mime: ClassVar[str] = "application/vnd.theta.history+json"

    path: str
    steps: tuple[Step, ...]
    first_parent: bool = False
    measured: bool = False
    _values: StepValues | None = field(default=None, repr=False, compare=False)

    # --- as a sequence ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, index: int | slice) -> Step | tuple[Step, ...]:
        return self.steps[index]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @property
    def stored(self) -> int:
        """Bytes of all objects that these commits added."""
        return sum(step.new_bytes for step in self.steps)

    @property
    def metrics(self) -> dict[str, tuple[float, ...]]:
        """Values by name of metric, oldest commit first; NaN where a commit has none of that name."""
        names = dict.fromkeys(name for step in reversed(self.steps) for name in step.commit.metrics)
        return {name: tuple(s.commit.metrics.get(name, math.nan) for s in reversed(self.steps)) for name in names}

    # --- by how much --------------------------------------------------------------------------------------------------

    def measure(self, *, progress: Progress | None = None) -> History:
        """The same history with statistics of what changed in each commit.

        Values are read, which takes about as long as a checkout of each version; results are remembered on disk.

        Parameters
        ----------
        progress
            Called with commits done and commits in all. What it raises stops the work.
        """
        if self.measured or self._values is None:
            return self
        done = []
        for index, step in enumerate(self.steps):
            if progress is not None:
                progress(index, len(self.steps))
            done.append(replace(step, changes=self._values(step, None)) if step.state == "modified" else step)
        if progress is not None:
            progress(len(self.steps), len(self.steps))
        return replace(self, steps=tuple(done), measured=True)

    def matrix(self, by: str = "block") -> ChangeMatrix:
        """How much each part of the model changed in each commit.

        Parameters
        ----------
        by
            What the rows are: ``"block"`` (``encoder.layer.5``), ``"module"``, ``"kind"`` or ``"parameter"``.

        Raises
        ------
        ThetaError
            If there is no such grouping.
        """
        if by not in _GROUPERS:
            raise ThetaError(f"a history cannot be grouped by {by!r}", hint=f"Use one of {', '.join(_GROUPERS)}.")
        group = _GROUPERS[by]
        steps = [step for step in reversed(self.steps) if step.state in ("added", "modified", "unchanged")]
        columns = [_column(step, group, measured=self.measured) for step in steps]
        layers = tuple(sorted({layer for column in columns for layer in column}, key=natural))
        values = tuple(tuple(column.get(layer, math.nan) for column in columns) for layer in layers)
        rows = {layer: row for row, layer in enumerate(layers)}
        added = frozenset((rows[layer], column) for column, step in enumerate(steps) for layer in _new(step, group))
        return ChangeMatrix(layers, tuple(step.commit for step in steps), values, self.measured, added)

    def step(self, commit: str) -> Step:
        """The step of one commit.

        Parameters
        ----------
        commit
            Its id, or the beginning of one.

        Raises
        ------
        KeyError
            If no commit, or more than one, begins like that.
        """
        found = [step for step in self.steps if commit and step.commit.id.startswith(commit)]
        if len(found) != 1:
            raise KeyError(commit)
        return found[0]

    def diff(self, old: str, new: str) -> CheckpointDiff:
        """What differs between the versions of two commits of this history, not measured yet.

        Parameters
        ----------
        old, new
            Ids of the commits, or the beginning of them.

        Raises
        ------
        KeyError
            If there is no such commit.
        ThetaError
            If this history has no values.
        """
        before, after = self.step(old), self.step(new)
        if self._values is None:
            raise ThetaError("this history has no values", hint="Make it anew with repo.history().")
        return self._values.between(before, after)

    # --- showing ------------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """One line: how many commits, of how many lines, and what they store."""
        from theta_nb.report.history_text import summary

        return summary(self)

    def table(self, *, limit: int | None = None) -> str:
        """Aligned text, one line per commit.

        Parameters
        ----------
        limit
            Most commits; the rest is counted.
        """
        from theta_nb.report.history_text import table

        return "\n".join(table(self, limit=limit))

    def to_dict(self) -> dict[str, Any]:
        """The history as JSON types, as ``theta_nb/report/history.schema.json`` describes them."""
        from theta_nb.report.history_json import to_dict

        return to_dict(self)

    def to_html(self) -> str:
        """A self-contained HTML fragment: no script, nothing loaded from elsewhere."""
        from theta_nb.report.history_html import to_html

        return to_html(self)

    def to_pandas(self) -> pd.DataFrame:
        """A data frame with a row per commit, oldest first, and a column per metric.

        Raises
        ------
        ThetaError
            If pandas is not installed.
        """
        from theta_nb.report.history_json import to_pandas

        return to_pandas(self)

    def plot(self, by: str = "block", **options: Any) -> Figure:
        """A matplotlib figure: parts of the model against commits, the metrics above them.

        Parameters
        ----------
        by
            As for :meth:`matrix`.
        options
            Of :func:`theta_nb.report.history_plot.plot`: ``top``, ``figsize``.
        """
        from theta_nb.report.history_plot import plot

        return plot(self, by, **options)


def _column(step: Step, group: Callable[[str], str], *, measured: bool) -> dict[str, float]:
    """Value of every part of the model in one commit."""
    elements: dict[str, int] = {}
    for parameter in step.parameters.values():
        layer = group(parameter.name)
        elements[layer] = elements.get(layer, 0) + parameter.numel
    changed: dict[str, list[ParameterChange]] = {}
    for change in step.changes:
        changed.setdefault(group(change.name), []).append(change)
    column = dict.fromkeys(elements, 0.0)
    for layer, changes in changed.items():
        if layer not in elements:  # all of it was removed
            continue
        relative = ChangeGroup(layer, tuple(changes)).relative if measured else math.nan
        if measured and not math.isnan(relative):
            column[layer] = relative
        elif not measured:
            numel = sum(change.new.numel for change in changes if change.new is not None)
            column[layer] = numel / elements[layer] if elements[layer] else 1.0
        else:
            column[layer] = math.nan  # new, or its values are not here: there is nothing to divide by
    return column


def _new(step: Step, group: Callable[[str], str]) -> set[str]:
    """Parts of the model that a commit brought, with all that is in them."""
    present = Counter(group(name) for name in step.parameters)
    if step.state == "added":
        return set(present)
    came = Counter(group(change.name) for change in step.changes if change.status == "added")
    return {layer for layer, number in came.items() if number == present[layer]}
