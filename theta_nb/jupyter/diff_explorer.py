"""``DiffExplorer``: look at what changed between two checkpoints, from the whole model down to single values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import traitlets

from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer, Request, deflated
from theta_nb.jupyter.diff_desk import DiffDesk
from theta_nb.jupyter.explorer import Explorer
from theta_nb.jupyter.static import linked, loader
from theta_nb.jupyter.worker import Stop
from theta_nb.report.checkpoint_diff import CheckpointDiff
from theta_nb.report.diff_frame import rows
from theta_nb.report.diff_plots import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DiffExplorer"]


class DiffExplorer(Explorer):
    """Explore a diff: a tree of modules, a map of blocks against roles, and single parameters in depth.

    Parameters
    ----------
    diff
        From :meth:`theta_nb.Repository.diff`. Where it is not measured yet, the view appears at once and the numbers
        follow.
    measure
        Whether values are read without being asked to.
    options
        ``metric`` (``"relative"``, ``"delta_norm"``, ``"max_abs_delta"``, ``"changed_share"``, ``"flipped_share"``,
        ``"distance"``), ``log_scale``, ``filter``, ``selection``, ``pins``: the traits below.

    Raises
    ------
    TypeError
        If ``diff`` is no diff, or there is no such option.

    Examples
    --------
    >>> from theta_nb.engine.diff import Parameter, ParameterChange
    >>> from theta_nb.report.checkpoint_diff import CheckpointDiff, Side
    >>> head = ParameterChange("added", None, Parameter("head.weight", "float32", (4, 2), b"1"))
    >>> explorer = DiffExplorer(CheckpointDiff(Side("m.pt", "HEAD~1"), Side("m.pt", "HEAD"), (head,)))
    >>> explorer.selection = ["head.weight"]
    >>> [row["status"] for row in explorer.to_table()]
    ['added']
    >>> explorer.close()
    """

    _esm = loader("diff_explorer")
    _module = traitlets.Unicode(linked("diff_explorer"), help="The ES module that draws.").tag(sync=True)

    metric = traitlets.Enum(
        (*METRICS, "distance"), "relative", help="What the colours stand for; 'distance' is one minus the cosine."
    ).tag(sync=True, option=True)
    log_scale = traitlets.Bool(True, help="Whether colours are logarithmic.").tag(sync=True, option=True)
    filter = traitlets.Unicode(
        "", help="Which names are shown: a piece, a range as layers 3-8, a glob, or a regular expression in /…/."
    ).tag(sync=True, option=True)
    selection = traitlets.List(traitlets.Unicode(), help="Names of the parameters that are selected.").tag(
        sync=True, option=True
    )
    pins = traitlets.List(
        traitlets.Unicode(), maxlen=2, help="Names of at most two parameters that are shown side by side."
    ).tag(sync=True, option=True)
    _index = traitlets.Bytes(help="Names and places, deflated JSON.").tag(sync=True)
    _numbers = traitlets.Bytes(help="Statistics, float32.").tag(sync=True)

    def __init__(self, diff: CheckpointDiff, *, measure: bool = True, **options: Any) -> None:
        if not isinstance(diff, CheckpointDiff):
            raise TypeError(f"DiffExplorer shows a diff, as repo.diff() returns it, and no {type(diff).__name__}")
        self._desk = DiffDesk(diff)
        self._measure = measure
        super().__init__(**options, **self._tables())

    @property
    def diff(self) -> CheckpointDiff:
        """What is shown, measured as far as it has been."""
        return self._desk.diff

    def to_table(self) -> list[dict[str, Any]]:
        """The selected parameters, or all that differ if none is selected, as rows: ``pandas.DataFrame`` takes them."""
        chosen = set(self.selection)
        kept = tuple(c for c in self.diff.parameters if (c.name in chosen if chosen else c.differs))
        return rows(replace(self.diff, parameters=kept))

    def _forget(self) -> None:
        self._desk = DiffDesk(replace(self.diff, parameters=(), _values=None))

    @traitlets.validate("selection", "pins")
    def _known(self, proposal: Any) -> list[str]:
        names = {change.name for change in self.diff.parameters}
        for name in proposal["value"]:
            if name not in names:
                raise traitlets.TraitError(f"there is no parameter {name!r} in this diff")
        return list(proposal["value"])

    def _tables(self) -> dict[str, bytes]:
        return {
            "_index": deflated(self._desk.index(measure=self._measure)),
            "_numbers": self._desk.numbers().tobytes(),
        }

    def _answer(self, request: Request, stop: Stop, progress: Callable[[int, int], None]) -> Answer:
        if request.what != "measure":
            return self._desk.answer(request.what, request, stop)
        if self.diff.unavailable:
            raise ThetaError(self.diff.unavailable)
        self._desk.measure(progress)
        stop()
        with self.hold_sync():
            for name, value in self._tables().items():
                self.set_trait(name, value)
        if self._worker is not None:
            self._worker.submit("still", self._renew_still)  # with the numbers that were missing
        return Answer()

    def _static(self) -> Mapping[str, Any]:
        return self.diff._repr_mimebundle_()

    def _picture(self) -> Figure | None:
        measured = any(change.statistics is not None for change in self.diff)
        return self.diff.plot("heatmap") if measured else None
