"""A diff as its view in the browser needs it, and answers to what the view asks about single parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from theta_nb.engine.diff import STATUSES, ParameterChange, natural
from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer, Request
from theta_nb.jupyter.worker import Stop
from theta_nb.report.diff_json import highest_octaves
from theta_nb.report.diff_text import heading, missing, notes_of, summary, what
from theta_nb.report.grouping import block_of, role_of
from theta_nb.report.numbers import cosine, percent, short, size
from theta_nb.report.tree import module_tree

if TYPE_CHECKING:
    from theta_nb.report.checkpoint_diff import CheckpointDiff
    from theta_nb.tensors.statistics import Histogram, Statistics

__all__ = ["COLUMNS", "DiffDesk"]

COLUMNS = (
    "relative",
    "delta_norm",
    "max_abs_delta",
    "changed_share",
    "flipped_share",
    "distance",
    "old_norm",
    "new_norm",
)
"""Rows of the numbers that the view gets, one value per parameter; ``distance`` is one minus the cosine."""

MOST = 20_000
"""Parameters of a larger model are not all shown: those that differ come first."""

_WINDOW = (6, 10)

Progress = Callable[[int, int], None]


class DiffDesk:
    """Everything that a diff view needs of one diff.

    Parameters
    ----------
    diff
        What is looked at; :meth:`measure` replaces it by a measured one.
    """

    def __init__(self, diff: CheckpointDiff) -> None:
        self.diff = diff

    def index(self, *, measure: bool = True) -> dict[str, Any]:
        """Names, statuses and places of the parameters, as ``static/diff_data.js`` describes them.

        Parameters
        ----------
        measure
            Whether a view should ask for statistics by itself.
        """
        shown = self._shown()
        dtypes, blocks, roles = (_numbered(values) for values in _columns(shown))
        return {
            "title": heading(self.diff),
            "summary": summary(self.diff),
            "missing": missing(self.diff),
            "columns": list(COLUMNS),
            "statuses": list(STATUSES),
            "dtypes": list(dtypes),
            "blocks": list(blocks),
            "roles": list(roles),
            "names": [change.name for change in shown],
            "status": [STATUSES.index(change.status) for change in shown],
            "dtype": [dtypes[change.dtype] for change in shown],
            "shapes": [list(change.shape) for change in shown],
            "block": [blocks[block_of(change.name)] for change in shown],
            "role": [roles[role_of(change.name)] for change in shown],
            "was": {index: _was(change) for index, change in enumerate(shown) if _was(change)},
            "notes": {index: ", ".join(notes_of(change)) for index, change in enumerate(shown) if notes_of(change)},
            "tree": module_tree(shown).indexed({id(change): index for index, change in enumerate(shown)}),
            "measured": self.diff.measured != "structure" or not len(self.diff),
            "measure": measure,
            "left_out": len(self.diff.parameters) - len(shown),
        }

    def numbers(self) -> npt.NDArray[np.float32]:
        """Statistics of the parameters of :meth:`index`, float32 of shape (:data:`COLUMNS`, parameters)."""
        shown = self._shown()
        found = np.full((len(COLUMNS), len(shown)), np.nan, np.float32)
        with np.errstate(over="ignore"):
            for index, change in enumerate(shown):
                if change.statistics is not None:
                    found[:, index] = [_value(change.statistics, name) for name in COLUMNS]
        return found

    def measure(self, progress: Progress | None) -> None:
        """Read the values that differ."""
        self.diff = self.diff.measure(progress=progress)

    def answer(self, what_: str, request: Request, stop: Stop) -> Answer:
        """Answer what a view asks about one parameter.

        Raises
        ------
        ThetaError
            If there is no such parameter, or nothing to show of it.
        """
        answers: dict[str, Callable[[ParameterChange, Request, Stop], Answer]] = {
            "parameter": self._parameter,
            "picture": self._picture,
            "spectrum": self._spectrum,
            "window": self._window,
        }
        if what_ not in answers:
            raise ThetaError(f"a diff view cannot ask for {what_!r}")
        name = request.text("name")
        try:
            change = self.diff[name]
        except KeyError:
            raise ThetaError(f"there is no parameter {name}") from None
        return answers[what_](change, request, stop)

    def _shown(self) -> tuple[ParameterChange, ...]:
        ordered = sorted(self.diff.parameters, key=lambda change: natural(change.name))
        if len(ordered) > MOST:
            ordered = [change for change in ordered if change.differs] + [c for c in ordered if not c.differs]
            ordered = sorted(ordered[:MOST], key=lambda change: natural(change.name))
        return tuple(ordered)

    def _parameter(self, change: ParameterChange, request: Request, stop: Stop) -> Answer:
        found = change.statistics
        if change.differs and (found is None or found.delta_histogram is None):
            alone = replace(self.diff, parameters=(change,), measured="structure", unavailable="")
            change = alone.measure(histograms=True, progress=lambda done, total: stop()).parameters[0]
            found = change.statistics
        answer = Answer()
        answer.result = {"facts": _facts(change), "note": ", ".join(notes_of(change, reason=True)), "histograms": None}
        if found is not None and found.old_histogram and found.new_histogram and found.delta_histogram:
            sides = {"old": found.old_histogram, "new": found.new_histogram, "delta": found.delta_histogram}
            answer.result["histograms"] = {side: _octaves(answer, histogram) for side, histogram in sides.items()}
        return answer

    def _picture(self, change: ParameterChange, request: Request, stop: Stop) -> Answer:
        found = self.diff.picture(change.name, stop=stop)
        answer = Answer()
        answer.result = {
            "shape": list(found.shape),
            "rms": answer.array(found.rms),
            "mean": answer.array(found.mean),
            "rows": answer.array(found.row_rms),
            "columns": answer.array(found.column_rms),
        }
        return answer

    def _spectrum(self, change: ParameterChange, request: Request, stop: Stop) -> Answer:
        found = self.diff.spectrum(change.name)
        answer = Answer()
        answer.result = {
            "values": answer.array(found.singular_values),
            "stable_rank": found.stable_rank,
            "effective_rank": found.effective_rank,
            "exact": found.exact,
        }
        return answer

    def _window(self, change: ParameterChange, request: Request, stop: Stop) -> Answer:
        found = self.diff.window(change.name, row=request.number("row"), column=request.number("column"), size=_WINDOW)
        answer = Answer()
        with np.errstate(over="ignore"):
            answer.result = {
                "shape": list(found.shape),
                "row": found.row,
                "column": found.column,
                "old": answer.array(found.old),
                "new": answer.array(found.new),
            }
        return answer


def _value(statistics: Statistics, name: str) -> float:
    return 1 - statistics.cosine if name == "distance" else float(getattr(statistics, name))


def _columns(shown: Sequence[ParameterChange]) -> tuple[list[str], list[str], list[str]]:
    names = [change.name for change in shown]
    blocks = sorted({block_of(name) for name in names}, key=natural)
    return [change.dtype for change in shown], blocks, [role_of(name) for name in names]


def _numbered(values: Sequence[str]) -> dict[str, int]:
    """Numbers of texts, in the order in which they come first."""
    return {value: index for index, value in enumerate(dict.fromkeys(values))}


def _was(change: ParameterChange) -> str:
    """What name, dtype or shape it had before, where that is another one."""
    if change.old is None or change.new is None:
        return ""
    name = change.old.name if change.old.name != change.new.name else ""
    before = what(change.old, None)
    return " ".join([name, *before] if before != what(None, change.new) else [name]).strip()


def _octaves(answer: Answer, histogram: Histogram) -> dict[str, Any]:
    top, counts = highest_octaves(histogram)
    return {"top": top, "counts": answer.array(counts / max(1, histogram.total))}


def _facts(change: ParameterChange) -> list[tuple[str, str]]:
    """Numbers of one parameter in words."""
    found = change.statistics
    if found is None:
        side = change.current
        return [("elements", f"{side.numel:,}"), ("size", size(side.nbytes))]
    facts = [
        ("‖Δ‖/‖old‖", short(found.relative)),
        ("‖Δ‖", short(found.delta_norm)),
        ("norm", f"{short(found.old_norm)} → {short(found.new_norm)}"),
        ("max |Δ|", short(found.max_abs_delta)),
        ("cosine", cosine(found.cosine)),
        ("changed", f"{percent(found.changed_share)} of {found.numel:,}"),
        ("sign flips", percent(found.flipped_share)),
        ("mean", f"{short(found.old_mean)} → {short(found.new_mean)}"),
        ("std", f"{short(found.old_std)} → {short(found.new_std)}"),
    ]
    odd = [
        (f"{side} {kind}", getattr(found, f"{side}_{kind.lower()}"))
        for side in ("old", "new")
        for kind in ("NaN", "Inf")
    ]
    return facts + [(label, f"{number:,}") for label, number in odd if number and math.isfinite(number)]
