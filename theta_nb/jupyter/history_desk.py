"""A history as its view in the browser needs it, and answers to what the view asks."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer, Request, deflated
from theta_nb.jupyter.diff_desk import DiffDesk
from theta_nb.jupyter.worker import Stop
from theta_nb.report.history_json import commit_to_dict
from theta_nb.report.history_text import refs, summary, what_changed

if TYPE_CHECKING:
    from theta_nb.engine.history import Step
    from theta_nb.report.history import History

__all__ = ["GROUPINGS", "HistoryDesk"]

GROUPINGS = ("block", "module", "kind", "parameter")
"""What the rows of the map can be."""

Progress = Callable[[int, int], None]


class HistoryDesk:
    """Everything that a history view needs of one history.

    Parameters
    ----------
    history
        What is looked at; :meth:`answer` replaces it by a measured one where that is asked for.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.opened: DiffDesk | None = None
        """The diff that the view shows below the history."""

    def index(self) -> dict[str, Any]:
        """The commits, oldest first, and what the view says above them."""
        steps = self._steps()
        positions = {step.commit.id: index for index, step in enumerate(steps)}
        return {
            "title": self.history.path,
            "summary": summary(self.history).removeprefix(f"{self.history.path}: "),
            "groupings": list(GROUPINGS),
            "metrics": list(self.history.metrics),
            "measured": self.history.measured,
            "commits": [_commit(step, positions) for step in steps],
        }

    def answer(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        """Answer what a view asks.

        Raises
        ------
        ThetaError
            If there is no such commit or grouping, or values are not here.
        """
        if request.what == "matrix":
            return self._matrix(request.text("by") or "block")
        if request.what == "measure":
            self.history = self.history.measure(progress=progress)
            return Answer()
        if request.what == "diff":
            return self._open(request.text("old"), request.text("new"))
        part, _, what = request.what.partition(".")
        if part != "diff" or self.opened is None:
            raise ThetaError(f"a history view cannot ask for {request.what!r}", hint="Open a diff first.")
        if what != "measure":
            return self.opened.answer(what, request, stop)
        desk = self.opened
        desk.measure(progress)
        return _tables(desk)

    def _steps(self) -> tuple[Step, ...]:
        return tuple(reversed(self.history.steps))

    def _matrix(self, by: str) -> Answer:
        matrix = self.history.matrix(by)
        steps = self._steps()
        positions = {step.commit.id: index for index, step in enumerate(steps)}
        values = np.full((len(matrix.layers), len(steps)), np.nan, np.float32)
        if matrix.layers:
            columns = [positions[commit.id] for commit in matrix.commits]
            with np.errstate(over="ignore"):
                values[:, columns] = np.array(matrix.values, np.float64)
            added = [row * len(steps) + columns[column] for row, column in sorted(matrix.added)]
        else:
            added = []
        answer = Answer()
        answer.result = {
            "layers": list(matrix.layers),
            "added": added,
            "values": answer.array(values),
            "measured": matrix.measured,
        }
        return answer

    def _open(self, old: str, new: str) -> Answer:
        try:
            self.opened = DiffDesk(self.history.diff(old, new))
        except KeyError as error:
            raise ThetaError(f"this history has no commit {error.args[0]}") from None
        return _tables(self.opened)


def _tables(desk: DiffDesk) -> Answer:
    answer = Answer()
    index = base64.b64encode(deflated(desk.index())).decode("ascii")
    answer.result = {"index": index, "numbers": answer.array(desk.numbers())}
    return answer


def _commit(step: Step, positions: dict[str, int]) -> dict[str, Any]:
    commit = commit_to_dict(step.commit)
    return {
        "id": commit["id"],
        "short": step.commit.short,
        "subject": commit["subject"],
        "author": commit["author"],
        "date": commit["date"],
        "metrics": commit["metrics"],
        "parents": [positions[parent] for parent in step.commit.parents if parent in positions],
        "refs": refs(step.commit),
        "what": what_changed(step),
        "stored": step.new_bytes,
        "problem": step.problem,
    }
