"""A history as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from theta_nb.errors import ThetaError
from theta_nb.report.diff_plots import literal, middle_grey

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from theta_nb.report.history import ChangeMatrix, History

__all__ = ["plot"]

_COLOURS = ("#2b8cc4", "#e69f00", "#009e73", "#cc79a7")
"""Close to the palette of Okabe and Ito, which colour-blind people can tell apart."""


def plot(history: History, by: str = "block", *, top: int = 40, figsize: tuple[float, float] | None = None) -> Figure:
    """Parts of the model against commits, oldest left; above them the metrics that the commits carry.

    Parameters
    ----------
    history
        What is shown; measured (``history.measure()``) it shows ‖Δ‖/‖old‖, else the share of values in changed tensors.
    by
        What the rows are, as for :meth:`theta_nb.report.history.History.matrix`.
    top
        Most rows: those that changed most.
    figsize
        Width and height in inches.

    Raises
    ------
    ThetaError
        If there is nothing to show.
    """
    matrix = history.matrix(by)
    if not matrix.layers:
        raise ThetaError(f"the history of {history.path} has no version with tensors to show")
    with middle_grey():
        return _drawn(history, matrix, top, figsize)


def _drawn(history: History, matrix: ChangeMatrix, top: int, figsize: tuple[float, float] | None) -> Figure:
    from theta_nb.report.figure import ShownFigure

    rows = _rows(matrix, top)
    metrics = {name: values for name, values in _metrics(history).items() if any(map(math.isfinite, values))}
    height = 1.4 + 0.24 * len(rows) + (1.6 if metrics else 0)
    figure = ShownFigure(figsize=figsize or (max(6.0, 3.2 + 0.22 * len(matrix.commits)), height), layout="constrained")
    ratios = [1.6, height - 1.6] if metrics else None
    axes = figure.subplots(2 if metrics else 1, 1, sharex=True, squeeze=False, height_ratios=ratios)
    if metrics:
        _draw_metrics(axes[0, 0], metrics)
    _draw_matrix(figure, axes[-1, 0], matrix, rows)
    axes[0, 0].set_title(literal(history.path), loc="left")
    return figure


def _rows(matrix: ChangeMatrix, top: int) -> list[int]:
    """Rows that changed most, in their order."""
    weight = [sum(v for v in row if math.isfinite(v)) for row in matrix.values]
    best = sorted(range(len(weight)), key=lambda i: -weight[i])[: max(1, top)]
    return sorted(best)


def _metrics(history: History) -> dict[str, list[float]]:
    steps = [step for step in reversed(history.steps) if step.state in ("added", "modified", "unchanged")]
    return {name: [s.commit.metrics.get(name, math.nan) for s in steps] for name in list(history.metrics)[:4]}


def _draw_metrics(axes: Axes, metrics: dict[str, list[float]]) -> None:
    for index, (name, values) in enumerate(metrics.items()):
        axis = axes if index == 0 else axes.twinx()
        axis.plot(range(len(values)), values, "o-", markersize=3, color=_COLOURS[index], label=literal(name))
        if index > 1:
            axis.yaxis.set_visible(False)
        else:
            axis.tick_params(axis="y", colors=_COLOURS[index])
            axis.set_ylabel(literal(name), color=_COLOURS[index])
    if len(metrics) > 2:
        lines = [axis.lines[0] for axis in axes.figure.axes if axis.lines]
        axes.legend(lines, [str(line.get_label()) for line in lines], fontsize="small", frameon=False)


def _draw_matrix(figure: Figure, axes: Axes, matrix: ChangeMatrix, rows: list[int]) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    values = np.array([matrix.values[row] for row in rows])
    shown = np.ma.masked_where(~np.isfinite(values) | (values <= 0), values)
    norm: Normalize = Normalize(0, 1)
    if matrix.measured and shown.count():
        low, high = float(shown.min()), float(shown.max())
        norm = LogNorm(low, high) if high > 10 * low else Normalize(0, high)
    image = axes.imshow(shown, aspect="auto", cmap="cividis", norm=norm, interpolation="nearest")
    axes.set_yticks(range(len(rows)), [literal(matrix.layers[row] or "(top)") for row in rows])
    step = max(1, len(matrix.commits) // 25)
    ticks = range(0, len(matrix.commits), step)
    axes.set_xticks(list(ticks), [matrix.commits[i].short for i in ticks], rotation=90, family="monospace", size=8)
    axes.tick_params(length=0)
    _draw_added(figure, axes, matrix, rows)
    axes.set_facecolor("#80808018")  # where nothing changed
    label = "‖Δ‖/‖old‖" if matrix.measured else "share of values in changed tensors"
    figure.colorbar(image, ax=axes, label=label, pad=0.01)


def _draw_added(figure: Figure, axes: Axes, matrix: ChangeMatrix, rows: list[int]) -> None:
    """Hatch what came into being, in one rectangle for rows that follow each other."""
    from itertools import groupby

    from matplotlib.patches import Rectangle

    look: dict[str, Any] = {"fill": False, "hatch": "/////", "edgecolor": "#80808090", "linewidth": 0}
    for column in range(len(matrix.commits)):
        places = [place for place, row in enumerate(rows) if (row, column) in matrix.added]
        for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0]):
            found = [place for _, place in run]
            axes.add_patch(Rectangle((column - 0.5, found[0] - 0.5), 1, len(found), **look))
    if matrix.added:
        figure.legend(
            [Rectangle((0, 0), 1, 1, **look)], ["added"], loc="outside lower right", frameon=False, fontsize=8
        )
