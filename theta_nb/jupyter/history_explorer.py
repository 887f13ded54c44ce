"""``HistoryExplorer``: look at what the commits of a repository did to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import traitlets

from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer, Request, deflated
from theta_nb.jupyter.explorer import Explorer
from theta_nb.jupyter.history_desk import GROUPINGS, HistoryDesk
from theta_nb.jupyter.static import linked, loader
from theta_nb.jupyter.worker import Stop
from theta_nb.report.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from theta_nb.jupyter.diff_explorer import DiffExplorer
    from theta_nb.report.checkpoint_diff import CheckpointDiff

__all__ = ["HistoryExplorer"]


class HistoryExplorer(Explorer):
    """Explore a history: the commit graph above a map of layers against commits, and the diff of any two commits.

    Parameters
    ----------
    history
        From :meth:`theta_nb.Repository.history`. Measured (``history.measure()``) the map shows by how much values
        changed, else which ones did; the view has a button that measures.
    options
        ``by`` (``"block"``, ``"module"``, ``"kind"``, ``"parameter"``), ``selected_commits``: the traits below.

    Raises
    ------
    TypeError
        If ``history`` is no history, or there is no such option.

    Examples
    --------
    >>> explorer = HistoryExplorer(History("model.safetensors", ()), by="module")
    >>> explorer.selected_commits
    []
    >>> explorer.close()
    """

    _esm = loader("history_explorer")
    _module = traitlets.Unicode(linked("history_explorer"), help="The ES module that draws.").tag(sync=True)

    by = traitlets.Enum(GROUPINGS, "block", help="What the rows of the map are.").tag(sync=True, option=True)
    selected_commits = traitlets.List(
        traitlets.Unicode(), maxlen=2, help="Full ids of one commit, or of two, the older one first."
    ).tag(sync=True, option=True)
    _index = traitlets.Bytes(help="The commits, deflated JSON.").tag(sync=True)

    def __init__(self, history: History, **options: Any) -> None:
        if not isinstance(history, History):
            raise TypeError(
                f"HistoryExplorer shows a history, as repo.history() returns it, and no {type(history).__name__}"
            )
        self._desk = HistoryDesk(history)
        super().__init__(**options, _index=deflated(self._desk.index()))

    @property
    def history(self) -> History:
        """What is shown, measured if it has been."""
        return self._desk.history

    @property
    def diff(self) -> CheckpointDiff | None:
        """The diff that is open below the history, or ``None``."""
        return self._desk.opened.diff if self._desk.opened is not None else None

    def open_diff(self, **options: Any) -> DiffExplorer:
        """The diff of the selected commits in an explorer of its own: of two, or of one against its first parent.

        Parameters
        ----------
        options
            Of :class:`theta_nb.DiffExplorer`.

        Raises
        ------
        ThetaError
            If no commit is selected, or one without a parent.
        """
        from theta_nb.jupyter.diff_explorer import DiffExplorer

        chosen = list(self.selected_commits)
        if len(chosen) == 1:
            chosen = [*self.history.step(chosen[0]).commit.parents[:1], *chosen]
        if len(chosen) < 2:
            raise ThetaError("there are no two commits to compare", hint="Select two, or one that has a parent.")
        return DiffExplorer(self.history.diff(*chosen), **options)

    def _forget(self) -> None:
        self._desk = HistoryDesk(replace(self.history, steps=(), _values=None))

    @traitlets.validate("selected_commits")
    def _known(self, proposal: Any) -> list[str]:
        found = []
        for name in proposal["value"]:
            try:
                found.append(self.history.step(name).commit.id)
            except KeyError:
                raise traitlets.TraitError(f"this history has no commit {name!r}, or several") from None
        order = [step.commit.id for step in reversed(self.history.steps)]
        return sorted(found, key=order.index)

    def _answer(self, request: Request, stop: Stop, progress: Callable[[int, int], None]) -> Answer:
        return self._desk.answer(request, stop, progress)

    def _static(self) -> Mapping[str, Any]:
        return self.history._repr_mimebundle_()

    def _picture(self) -> Figure | None:
        return self.history.plot(self.by) if self.history.matrix().layers else None
