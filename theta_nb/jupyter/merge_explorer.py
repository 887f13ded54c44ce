"""``MergeExplorer``: try merges live, look at what they would do, keep the best."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import traitlets

from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError, ThetaError
from theta_nb.jupyter.answers import Answer, Request, deflated
from theta_nb.jupyter.evaluation_desk import EvaluationDesk
from theta_nb.jupyter.evaluator import Evaluator
from theta_nb.jupyter.explorer import Explorer
from theta_nb.jupyter.keeping_desk import KeepingDesk
from theta_nb.jupyter.merge_desk import MergeDesk
from theta_nb.jupyter.static import linked, loader, stylesheet
from theta_nb.jupyter.sweep_desk import SweepDesk
from theta_nb.jupyter.tries_desk import TriesDesk
from theta_nb.jupyter.worker import Stop

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PANELS", "MergeExplorer", "PanelDesk"]

METRICS = ("to_ours", "to_theirs", "moved", "cosine", "conflict", "norm", "choice", "change")
"""What the map can be coloured by."""

ROWS = ("role", "kind")
"""What the rows of the map are: what a parameter is within its block, or attention, norms and other kinds."""

SORTS = ("model", "change", "conflict")
"""How the list of parameters can be sorted."""


class PanelDesk(Protocol):
    """Python's side of a panel: evaluation, sweep, tries, keeping the result.

    It is made with the explorer, as ``make(explorer)``, and has ``explorer.session``, ``explorer.lock`` (held while the
    session is changed or computes), ``explorer.evaluator``, ``explorer.refresh(NAME)``, which sends its state to the
    view again, and ``explorer.soon(NAME, work)``, which has something done in a thread.
    """

    def state(self) -> dict[str, Any]:
        """What the panel shows, as JSON types; ``update()`` of its ES module gets it."""
        ...

    def answer(self, request: Request, stop: Stop, progress: Callable[[int, int], None]) -> Answer:
        """Answer a request, whose ``what`` is without the name of the panel; in a thread of its own."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


PANELS: Mapping[str, Callable[[MergeExplorer], PanelDesk]] = {
    "evaluation": EvaluationDesk,
    "sweep": SweepDesk,
    "tries": TriesDesk,
    "keeping": KeepingDesk,
}
"""Panels by name, the same names as in ``static/merge_panels.js``; requests are called ``NAME.WHAT``."""


class MergeExplorer(Explorer):
    """Explore a merge: the parameters and what happened to them, a map of what would come out, and the methods.

    Parameters
    ----------
    session
        From :meth:`theta_nb.Repository.merge`. What is done in the view is done to it, and what is done to it in a
        cell shows in the view.
    evaluate
        Takes the merged model or state dict, and returns metrics by name, or one number.
    into
        Model or state dict that the result is put into before it is evaluated.
    measure
        Whether values are read without being asked to.
    options
        ``metric`` (``"to_ours"``, ``"to_theirs"``, ``"moved"``, ``"cosine"``, ``"conflict"``, ``"norm"``,
        ``"choice"``, ``"change"``), ``rows`` (``"role"``, ``"kind"``), ``sort``, ``filter``, ``selection``: the
        traits below.

    Raises
    ------
    TypeError
        If ``session`` is no session, or there is no such option.

    Examples
    --------
    >>> import numpy as np
    >>> from theta_nb.engine.merging.inputs import StateInput
    >>> one = np.ones((2, 2), np.float32)
    >>> inputs = [StateInput("ours", {"w": one}), StateInput("theirs", {"w": 3 * one})]
    >>> explorer = MergeExplorer(MergeSession(StateInput("original", {"w": 0 * one}), inputs).use("linear"))
    >>> explorer.session.recipe().short()
    'linear(weight=1, normalize=True)'
    >>> explorer.close()
    """

    _threads = 4  # an evaluation, a sweep that waits for it, and two for what is dragged meanwhile
    _esm = loader("merge_explorer")
    _css = stylesheet("explorer") + stylesheet("merge") + stylesheet("panels")
    _module = traitlets.Unicode(linked("merge_explorer"), help="The ES module that draws.").tag(sync=True)

    metric = traitlets.Enum(METRICS, "to_ours", help="What the colours of the map stand for.").tag(
        sync=True, option=True
    )
    rows = traitlets.Enum(ROWS, "role", help="What the rows of the map are: parameters of a block, or kinds.").tag(
        sync=True, option=True
    )
    sort = traitlets.Enum(SORTS, "model", help="How parameters are listed: by module, or the largest first.").tag(
        sync=True, option=True
    )
    filter = traitlets.Unicode(
        "", help="Which names are shown: a piece, a range as layers 3-8, a glob, or a regular expression in /…/."
    ).tag(sync=True, option=True)
    selection = traitlets.List(traitlets.Unicode(), help="Names of the parameters that are selected.").tag(
        sync=True, option=True
    )
    _index = traitlets.Bytes(help="Names, places and methods, deflated JSON.").tag(sync=True)
    _chosen = traitlets.Dict(help="What is chosen now; see MergeDesk.chosen().").tag(sync=True)
    _panels = traitlets.Dict(help="States of the panels by name.").tag(sync=True)

    def __init__(
        self,
        session: MergeSession,
        *,
        evaluate: Callable[[Any], Any] | None = None,
        into: Any = None,
        measure: bool = True,
        **options: Any,
    ) -> None:
        if not isinstance(session, MergeSession):
            raise TypeError(
                f"MergeExplorer shows a merge session, as repo.merge() returns it, and no {type(session).__name__}"
            )
        if evaluate is not None and not callable(evaluate):
            raise TypeError(f"evaluate is a function that takes a model, and no {type(evaluate).__name__}")
        self._desk = MergeDesk(session)
        self.evaluator = Evaluator(session, evaluate, into, self._other_function)
        self._panel_desks: dict[str, PanelDesk] = {}
        self._panel_lock = threading.Lock()
        super().__init__(
            **options,
            _index=deflated({**self._desk.index(measure=measure), "title": _title(session)}),
            _chosen=self._desk.chosen(),
        )
        self._unwatch = session.watch(self._changed)
        self._panel_desks = {name: make(self) for name, make in PANELS.items()}
        self._panels = {name: desk.state() for name, desk in self._panel_desks.items()}

    @property
    def session(self) -> MergeSession:
        """The session that is shown and changed."""
        return self._desk.session

    @property
    def lock(self) -> Any:
        """Held while the session is changed or computes."""
        return self._desk.lock

    @property
    def evaluate(self) -> Callable[[Any], Any] | None:
        """The function that evaluates; set it to use another one from now on."""
        return self.evaluator.function

    @evaluate.setter
    def evaluate(self, function: Callable[[Any], Any] | None) -> None:
        self.evaluator.use(function, self.evaluator.into)

    def _other_function(self) -> None:
        for name in ("evaluation", "sweep"):
            self.refresh(name)

    def to_table(self) -> list[dict[str, Any]]:
        """The selected parameters, or all if none is selected, as rows: ``pandas.DataFrame`` takes them."""
        chosen = set(self.selection)
        with self.lock:
            preview = self.session.preview(measure=False)
        return [
            {field: getattr(row, field) for field in row.__dataclass_fields__}
            for row in preview
            if not chosen or row.name in chosen
        ]

    def refresh(self, name: str) -> None:
        """Send the state of a panel to the view."""
        with self._panel_lock:
            desk = self._panel_desks.get(name)
            if desk is not None:
                self._panels = {**self._panels, name: desk.state()}

    def soon(self, name: str, work: Callable[[Stop], None]) -> None:
        """Have something done in a thread; newer work of the same name replaces what waits or runs."""
        if self._worker is not None:
            self._worker.submit(name, work)

    def fill(self) -> None:
        """Have the model of the notebook hold what is chosen, soon; a sweep leaves other things in it."""
        if self.evaluator.into is not None:
            self.soon("fill", self.evaluator.fill)

    def _forget(self) -> None:
        with self._panel_lock:
            desks, self._panel_desks = self._panel_desks, {}
        for desk in desks.values():
            desk.close()
        self._unwatch()

    @traitlets.validate("selection")
    def _known(self, proposal: Any) -> list[str]:
        names = {unit.name for unit in self.session.units}
        for name in proposal["value"]:
            if name not in names:
                raise traitlets.TraitError(f"there is no parameter {name!r} in this merge")
        return list(proposal["value"])

    def _changed(self) -> None:
        """Something else was chosen: here, in a cell, by a sweep."""
        if self._worker is not None:
            # Its own thread: a sweep in a cell chooses many times, and only where it stops is of interest.
            self._worker.submit("chosen", lambda stop: self._tell(stop))

    def _tell(self, stop: Stop) -> None:
        chosen = self._desk.chosen()
        stop()
        self._chosen = chosen

    def _answered_at_once(self, request: Request) -> bool:
        """Answer what a hand waits for, if it is a matter of milliseconds and nobody computes.

        From another thread the answer would come behind the end of the request, which the server sends on its own: the
        connection would be waited for once more.
        """
        if self._worker is None or not self._desk.is_swift(request) or not self.lock.acquire(blocking=False):
            return False
        try:
            self._worker.cancel(request.channel)
            self._work(request, lambda: None)
        finally:
            self.lock.release()
        return True

    def _answer(self, request: Request, stop: Stop, progress: Callable[[int, int], None]) -> Answer:
        panel, dot, what = request.what.partition(".")
        if not dot:
            answer = self._desk.answer(request, stop, progress)
            if request.what == "measure":
                self._changed()
                self.soon("still", self._renew_still)  # with the numbers that were missing
            return answer
        if panel not in self._panel_desks:
            raise ThetaError(f"there is no panel {panel!r}")
        asked = Request(request.id, request.channel, what, request.details)
        return self._panel_desks[panel].answer(asked, stop, progress)

    def _static(self) -> Mapping[str, Any]:
        from theta_nb.jupyter.merging import session_bundle

        with self.lock:
            return session_bundle(self.session, measure=False)

    def _picture(self) -> Figure | None:
        from theta_nb.report.merge_plot import heatmap

        with self.lock:
            preview = self.session.preview(measure=False)
        return heatmap(preview)


def _title(session: MergeSession) -> str:
    """Of which file it is, and which commits; empty where the merge is not one of a repository.

    Examples
    --------
    >>> from theta_nb.engine.merging.inputs import StateInput
    >>> _title(MergeSession(None, [StateInput("ours", {}), StateInput("theirs", {})]))
    ''
    """
    from theta_nb.git.merge_commit import MergeCommitter

    try:
        committer = session.committer
    except MergeError:
        return ""
    return f"{', '.join(committer.plan.words)} in {committer.path}" if isinstance(committer, MergeCommitter) else ""
