"""The result of comparing two versions of a checkpoint: frozen data that can show itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from theta_nb.engine.checkpoint import matching
from theta_nb.engine.diff import NOT_MEASURED, STATUSES, ParameterChange, Status
from theta_nb.errors import ThetaError
from theta_nb.report.change_group import GROUPERS, ChangeGroup
from theta_nb.report.showing import Showing
from theta_nb.report.side import Side
from theta_nb.report.sorting import SortKey, sorted_by
from theta_nb.report.values import Progress, Values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from theta_nb.engine.pictures import Picture, Window
    from theta_nb.tensors.spectrum import Spectrum

__all__ = ["ChangeGroup", "CheckpointDiff", "Side"]

GroupBy = Literal["module", "block", "kind", "dtype", "status"]


@dataclass(frozen=True, repr=False)
class CheckpointDiff(Showing):
    """What changed between two versions of a checkpoint.

    Iterating gives the parameters that differ; :attr:`parameters` has all of them. Filtering, sorting and measuring
    return a new diff. In a notebook it shows itself.

    Parameters
    ----------
    old, new
        What was compared.
    parameters
        What happened to every parameter group.
    other
        Sentences about what is no tensor ("metadata or pickled values changed").
    measured
        Whether values were read: ``"structure"`` (not yet), ``"scalars"`` or ``"histograms"``.
    unavailable
        Why some statistics are missing, or empty.
    hidden
        Number of parameters that filters left out.
    order
        What the parameters are sorted by, one of :data:`SORT_KEYS`.

    Examples
    --------
    >>> from theta_nb.engine.diff import Parameter
    >>> old = [Parameter(name, "float32", (4, 4), b"1") for name in ("head.weight", "head.bias")]
    >>> new = [Parameter(name, "float32", (4, 4), b"2") for name in ("head.weight", "head.bias")]
    >>> changes = tuple(ParameterChange("modified", *sides) for sides in zip(old, new, strict=True))
    >>> diff = CheckpointDiff(Side("m.pt", "HEAD~1", parameters=2), Side("m.pt", "HEAD", parameters=2), changes)
    >>> diff
    <CheckpointDiff m.pt  HEAD~1 → HEAD: 2 of 2 parameters modified>
    >>> print(diff.filter("*.bias"))
    m.pt  HEAD~1 → HEAD
    1 of 1 shown parameter modified, 1 not shown
    <BLANKLINE>
      parameter  dtype    shape
    ~ head.bias  float32  [4,4]
    """

    mime: ClassVar[str] = "application/vnd.theta.diff+json"

    old: Side
    new: Side
    parameters: tuple[ParameterChange, ...]
    other: tuple[str, ...] = ()
    measured: Literal["structure", "scalars", "histograms"] = "structure"
    unavailable: str = ""
    hidden: int = 0
    order: str = "name"
    _values: Values | None = field(default=None, repr=False, compare=False)

    # --- as a collection ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[ParameterChange]:
        return (change for change in self.parameters if change.differs)

    def __len__(self) -> int:
        return sum(change.differs for change in self.parameters)

    def __bool__(self) -> bool:
        """Whether anything differs, also what is no tensor."""
        return bool(self.other) or self.old.exists != self.new.exists or any(c.differs for c in self.parameters)

    def __getitem__(self, name: str) -> ParameterChange:
        """The change of one parameter, by its name on either side (the new side first)."""
        for change in self.parameters:
            if change.name == name:
                return change
        for change in self.parameters:
            if change.old_name == name:
                return change
        raise KeyError(name)

    @property
    def counts(self) -> dict[Status, int]:
        """Number of parameters by status, without zeros."""
        return ChangeGroup("", self.parameters).counts

    @property
    def total(self) -> ChangeGroup:
        """All parameters as one group: norms and shares of the whole model."""
        return ChangeGroup("", self.parameters)

    # --- choosing -----------------------------------------------------------------------------------------------------

    def filter(
        self, pattern: str | re.Pattern[str] | None = None, *, status: Status | Iterable[Status] | None = None
    ) -> CheckpointDiff:
        """The part whose names match ``pattern`` (on either side) and whose status is one of ``status``.

        Parameters
        ----------
        pattern
            Glob (``"encoder.*"``) or compiled regular expression over whole names.
        status
            One status or several.
        """
        kept = self.parameters
        if pattern is not None:
            names = {name for c in kept for name in (c.name, c.old_name) if name}
            chosen = set(matching(names, pattern))
            kept = tuple(c for c in kept if c.name in chosen or c.old_name in chosen)
        if status is not None:
            wanted = {status} if isinstance(status, str) else set(status)
            unknown = sorted(wanted - set(STATUSES))
            if unknown:
                raise ThetaError(f"{unknown[0]!r} is no status", hint=f"Use one of {', '.join(STATUSES)}.")
            kept = tuple(c for c in kept if c.status in wanted)
        return self._with(kept)

    def sort(self, key: SortKey | str = "relative", *, reverse: bool = False) -> CheckpointDiff:
        """The same diff in another order: largest change first, or by name.

        Parameters
        ----------
        key
            One of :data:`SORT_KEYS`. What was not measured comes last, in the order of names.
        reverse
            Whether to turn the order round.

        Raises
        ------
        ThetaError
            If there is no such key.
        """
        return replace(self, parameters=sorted_by(self.parameters, key, reverse=reverse), order=key)

    def top(self, count: int) -> CheckpointDiff:
        """The first ``count`` parameters that differ, in the present order."""
        return self._with(tuple(self)[: max(0, count)])

    def groups(self, by: GroupBy | str = "module") -> tuple[ChangeGroup, ...]:
        """Parameters by ``"module"``, ``"block"``, ``"kind"``, ``"dtype"`` or ``"status"``, in the present order.

        Raises
        ------
        ThetaError
            If there is no such grouping.
        """
        if by not in GROUPERS:
            raise ThetaError(f"a diff cannot be grouped by {by!r}", hint=f"Use one of {', '.join(GROUPERS)}.")
        found: dict[str, list[ParameterChange]] = {}
        for change in self.parameters:
            found.setdefault(GROUPERS[by](change), []).append(change)
        return tuple(ChangeGroup(key, tuple(changes)) for key, changes in found.items())

    def _with(self, kept: tuple[ParameterChange, ...]) -> CheckpointDiff:
        return replace(self, parameters=kept, hidden=self.hidden + len(self.parameters) - len(kept))

    # --- measuring ----------------------------------------------------------------------------------------------------

    def measure(
        self, *, histograms: bool = False, progress: Progress | None = None, executor: Executor | None = None
    ) -> CheckpointDiff:
        """The same diff with statistics of the values that changed.

        Values are read chunk by chunk, in parallel; results are remembered on disk. Where values are not here, the
        parameter carries a note that says why, and the rest is measured.

        Parameters
        ----------
        histograms
            Whether to count magnitudes as well.
        progress
            Called with bytes done and bytes in all. What it raises stops the work.
        executor
            Where chunks are worked on; threads of its own by default.
        """
        if self._values is None:
            return self
        enough = ("histograms",) if histograms else ("scalars", "histograms")
        if self.measured in enough and not self.unavailable:
            return self
        found = self._values.measure(self.parameters, histograms=histograms, progress=progress, executor=executor)
        missing = next((c.note.removeprefix(NOT_MEASURED) for c in found if c.note.startswith(NOT_MEASURED)), "")
        level: Literal["scalars", "histograms"] = "histograms" if histograms else "scalars"
        return replace(self, parameters=found, measured=level, unavailable=missing)

    def spectrum(self, name: str, *, count: int = 64, seed: int = 0) -> Spectrum:
        """Largest singular values of the difference of one parameter, and its stable and effective rank.

        Parameters
        ----------
        name
            Parameter name, on either side.
        count
            How many singular values are wanted of a large matrix.
        seed
            Of the randomized method.

        Raises
        ------
        ThetaError
            If there is no difference to take it of.
        """
        return self._with_values().spectrum(self._named(name), count=count, seed=seed)

    def picture(
        self, name: str, *, size: tuple[int, int] = (96, 96), stop: Callable[[], None] | None = None
    ) -> Picture:
        """The difference of one parameter as a small image, with profiles along rows and columns.

        Parameters
        ----------
        name
            Parameter name, on either side.
        size
            Most rows and columns of the image.
        stop
            Called now and then. What it raises stops the work.

        Raises
        ------
        ThetaError
            If there is no difference to show.
        """
        return self._with_values().picture(self._named(name), size=size, stop=stop)

    def window(self, name: str, *, row: int = 0, column: int = 0, size: tuple[int, int] = (8, 8)) -> Window:
        """Single values of one parameter on both sides.

        Parameters
        ----------
        name
            Parameter name, on either side.
        row, column
            Where the window begins; a tensor of more than two dimensions is seen as its first one against all others.
        size
            Rows and columns of the window.

        Raises
        ------
        ThetaError
            If there are no two sides to show.
        """
        return self._with_values().window(self._named(name), row=row, column=column, size=size)

    def _named(self, name: str) -> ParameterChange:
        try:
            return self[name]
        except KeyError:
            hint = "Filters left parameters out." if self.hidden else "Names are those of either side."
            raise ThetaError(f"there is no parameter {name!r} in this diff", hint=hint) from None

    def _with_values(self) -> Values:
        if self._values is None:
            raise ThetaError("this diff has no values", hint="Make it anew with repo.diff().")
        return self._values

    # --- showing ------------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """One line: what changed, and by how much."""
        from theta_nb.report.diff_text import summary

        return summary(self)

    def table(self, *, limit: int | None = None, unchanged: bool = False) -> str:
        """Aligned text, one line per parameter that differs.

        Parameters
        ----------
        limit
            Most lines; the rest is counted.
        unchanged
            Whether to list unchanged parameters as well.
        """
        from theta_nb.report.diff_text import table

        return table(self, limit=limit, unchanged=unchanged)

    def to_dict(self) -> dict[str, Any]:
        """The diff as JSON types, as ``theta_nb/report/diff.schema.json`` describes them."""
        from theta_nb.report.diff_json import to_dict

        return to_dict(self)

    def to_html(self, *, page: bool = False) -> str:
        """A self-contained HTML fragment, or a whole page: no script, nothing loaded from elsewhere."""
        from theta_nb.report.diff_html import to_html

        return to_html(self, page=page)

    def to_pandas(self) -> pd.DataFrame:
        """A data frame with a row per parameter, unchanged ones included, indexed by name.

        Raises
        ------
        ThetaError
            If pandas is not installed.
        """
        from theta_nb.report.diff_frame import to_pandas

        return to_pandas(self)

    def plot(self, kind: str = "bars", **options: Any) -> Figure:
        """A matplotlib figure.

        Parameters
        ----------
        kind
            ``"bars"`` (relative change per parameter), ``"heatmap"`` (block against role), ``"histograms"`` (of the
            differences) or ``"spectra"`` (singular values of the differences).
        options
            Of :mod:`theta_nb.report.diff_plots`: ``top``, ``metric``, ``ax``, …
        """
        from theta_nb.report.diff_plots import plot

        return plot(self, kind, **options)

    def __repr__(self) -> str:
        from theta_nb.report.diff_text import heading

        return f"<CheckpointDiff {heading(self)}: {self.summary()}>"
