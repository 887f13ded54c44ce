"""Pictures of a diff, by matplotlib.

Lines and texts are of a middle grey and backgrounds transparent, so a picture reads well on a light page and on a dark
one. Colours are close to those of Okabe and Ito (2008), the map is ``cividis`` (Nunez et al., 2018): readers who are
colour-blind tell both apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from theta_nb.engine.diff import ParameterChange, natural
from theta_nb.errors import ThetaError
from theta_nb.report.diff_text import heading
from theta_nb.report.grouping import block_of, role_of
from theta_nb.report.numbers import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from theta_nb.report.checkpoint_diff import CheckpointDiff
    from theta_nb.tensors.statistics import Histogram

__all__ = ["METRICS", "PLOTS", "literal", "middle_grey", "name_map", "plot"]

_GREY = "#808080"
_BLUE, _ORANGE = "#2B8CC4", "#E69F00"
_LONGEST_LABEL = 48

METRICS: dict[str, str] = {
    "relative": "‖Δ‖/‖old‖",
    "delta_norm": "‖Δ‖",
    "max_abs_delta": "max |Δ|",
    "changed_share": "share of entries changed",
    "flipped_share": "share of signs flipped",
}
"""What can be drawn, and how it is labelled."""


def plot(diff: CheckpointDiff, kind: str = "bars", **options: Any) -> Figure:
    """A figure of one of the kinds in :data:`PLOTS`.

    Raises
    ------
    ThetaError
        If there is no such kind, or nothing to draw.
    """
    if kind not in PLOTS:
        raise ThetaError(f"there is no plot {kind!r}", hint=f"Use one of {', '.join(PLOTS)}.")
    with middle_grey():
        return PLOTS[kind](diff, **options)


@contextmanager
def middle_grey() -> Iterator[None]:
    """Lines and texts of a middle grey on nothing, for figures that are made meanwhile."""
    import matplotlib as mpl

    settings: Any = {
        "axes.edgecolor": _GREY,
        "axes.facecolor": "none",
        "axes.labelcolor": _GREY,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": "medium",
        "figure.facecolor": "none",
        "font.size": 9,
        "savefig.facecolor": "none",
        "text.color": _GREY,
        "xtick.color": _GREY,
        "ytick.color": _GREY,
    }
    with mpl.rc_context(settings):
        yield


def literal(text: str) -> str:
    r"""Text that matplotlib shows as it is, formulas included.

    Examples
    --------
    >>> print(literal("w$^{$"))
    w\$^{\$
    """
    return text.replace("$", r"\$")


def _figure(width: float, height: float, ax: Axes | None) -> tuple[Figure, Axes]:
    """Axes to draw in: the given ones, or those of a new figure that pyplot does not know."""
    if ax is not None:
        figure = ax.get_figure(root=True)
        if figure is not None:
            return figure, ax
    from theta_nb.report.figure import ShownFigure

    figure = ShownFigure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _measured(diff: CheckpointDiff, what: str = "statistics") -> list[ParameterChange]:
    found = [change for change in diff if change.statistics is not None]
    if not found:
        reason = diff.unavailable or "nothing that both sides have was measured"
        raise ThetaError(f"there are no {what} to draw: {reason}", hint="Call diff.measure() first.")
    return found


def _metric(metric: str) -> str:
    if metric not in METRICS:
        raise ThetaError(f"there is no metric {metric!r}", hint=f"Use one of {', '.join(METRICS)}.")
    return METRICS[metric]


def bars(diff: CheckpointDiff, *, metric: str = "relative", top: int = 40, ax: Axes | None = None) -> Figure:
    """A bar per parameter, the largest ``top`` of them, in the present order."""
    label = _metric(metric)
    found = _measured(diff)
    largest = sorted(found, key=lambda c: -_finite(getattr(c.statistics, metric)))[:top]
    chosen = [change for change in found if change in largest]
    values = [_finite(getattr(change.statistics, metric)) for change in chosen]
    figure, axes = _figure(8, 0.9 + 0.2 * len(chosen), ax)
    places = np.arange(len(chosen))
    axes.barh(places, values, color=_BLUE, height=0.72)
    for place, value in zip(places, values, strict=True):
        axes.annotate(short(value), (value, place), xytext=(3, 0), textcoords="offset points", va="center", size=7)
    axes.set_yticks(places, [_shortened(change.name) for change in chosen], size=7)
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.set_xlim(0, max([*values, 0]) * 1.12 or 1)
    left_out = len(found) - len(chosen)
    axes.set_title(literal(heading(diff)) + (f"   ({left_out} smaller ones not shown)" if left_out else ""), loc="left")
    return figure


def heatmap(diff: CheckpointDiff, *, metric: str = "relative", ax: Axes | None = None) -> Figure:
    """Blocks against what a parameter is within its block; logarithmic where the values span more than a decade."""
    label = _metric(metric)
    values = {change.name: _finite(getattr(change.statistics, metric)) for change in _measured(diff)}
    names = [change.name for change in diff.parameters]
    return name_map(values, names, label=label, title=heading(diff), ax=ax)


def name_map(
    values: Mapping[str, float], names: Sequence[str], *, label: str, title: str, ax: Axes | None = None
) -> Figure:
    """Values by name as a map of blocks against roles.

    Parameters
    ----------
    values
        What is drawn; parameters without one are left blank.
    names
        All names, in the order in which roles are listed.
    label, title
        Of the colours, and of the whole.
    ax
        Where to draw; a figure of its own by default.
    """
    from matplotlib.colors import LogNorm, Normalize

    used = {role_of(name) for name in values}
    roles = [role for role in dict.fromkeys(map(role_of, names)) if role in used]
    blocks = sorted({block_of(name) for name in values}, key=natural)
    grid = np.full((len(roles), len(blocks)), np.nan)
    for name, value in values.items():
        grid[roles.index(role_of(name)), blocks.index(block_of(name))] = value
    positive = grid[grid > 0]
    logarithmic = bool(len(positive)) and positive.max() > 10 * positive.min()
    norm = (
        LogNorm(positive.min(), positive.max())
        if logarithmic
        else Normalize(0, float(positive.max()) if len(positive) else 1.0)
    )
    longest = max(map(len, roles), default=0)
    figure, axes = _figure(2.6 + 0.34 * len(blocks) + 0.05 * longest, 1.6 + 0.24 * len(roles), ax)
    image = axes.pcolormesh(np.ma.masked_invalid(grid), cmap="cividis", norm=norm, edgecolors="none")
    axes.set_xticks(np.arange(len(blocks)) + 0.5, [_shortened(b, 28) for b in blocks], size=7, rotation=60, ha="right")
    axes.set_yticks(np.arange(len(roles)) + 0.5, [_shortened(role, 40) for role in roles], size=7)
    axes.invert_yaxis()
    axes.set_title(literal(title), loc="left")
    figure.colorbar(image, ax=axes, label=label, fraction=0.05, pad=0.02)
    return figure


def histograms(diff: CheckpointDiff, *, top: int = 6, names: Sequence[str] | None = None) -> Figure:
    """Magnitudes of old values, new values and differences, by powers of two."""
    chosen = _chosen(diff, top, names)
    chosen = [c for c in chosen if c.statistics is not None and c.statistics.delta_histogram is not None]
    if not chosen:
        raise ThetaError("there are no histograms to draw", hint="Call diff.measure(histograms=True) first.")
    figure, axes = _panels(len(chosen))
    for panel, change in zip(axes, chosen, strict=False):
        found = change.statistics
        if found is None:
            continue
        sides = ((found.old_histogram, "old", _GREY, 2.2), (found.new_histogram, "new", _BLUE, 1.2))
        for histogram, label, colour, width in (*sides, (found.delta_histogram, "Δ", _ORANGE, 1.2)):
            if histogram is not None and histogram.total:
                edges, shares = _steps(histogram)
                panel.stairs(shares, edges, color=colour, label=label, linewidth=width, fill=label == "Δ", alpha=0.85)
        panel.set_xscale("log", base=2)
        panel.set_title(_shortened(change.name, 44), size=8, loc="left")
    axes[0].legend(frameon=False, labelcolor=_GREY, fontsize=7)
    figure.supxlabel("magnitude", color=_GREY, size=9)
    figure.supylabel("share of entries per octave", color=_GREY, size=9)
    return figure


def spectra(diff: CheckpointDiff, *, top: int = 6, names: Sequence[str] | None = None, count: int = 64) -> Figure:
    """Singular values of the differences, relative to the largest one, with the ranks that follow from them."""
    matrices = [c for c in _chosen(diff, len(diff), names) if len(c.shape) > 1 and min(c.shape) > 1]
    chosen = matrices[:top]
    if not chosen:
        raise ThetaError("no matrix changed, so there is no spectrum to draw")
    figure, axes = _panels(len(chosen))
    for panel, change in zip(axes, chosen, strict=False):
        found = diff.spectrum(change.name, count=count)
        values = np.array(found.singular_values)
        largest = values[0] if len(values) and values[0] else 1.0
        panel.plot(np.arange(1, len(values) + 1), values / largest, color=_BLUE, linewidth=1.4)
        panel.set_yscale("log")
        panel.set_ylim(bottom=max(1e-6, float((values / largest).min()) * 0.7), top=1.4)
        panel.set_title(_shortened(change.name, 44), size=8, loc="left")
        text = f"stable rank {short(found.stable_rank)}\neffective rank {short(found.effective_rank)}"
        panel.text(0.97, 0.95, text, transform=panel.transAxes, ha="right", va="top", size=7)
    figure.supxlabel("index", color=_GREY, size=9)
    figure.supylabel("singular value of Δ / largest", color=_GREY, size=9)
    return figure


PLOTS: dict[str, Callable[..., Figure]] = {
    "bars": bars,
    "heatmap": heatmap,
    "histograms": histograms,
    "spectra": spectra,
}
"""Kinds of pictures."""


def _chosen(diff: CheckpointDiff, top: int, names: Sequence[str] | None) -> list[ParameterChange]:
    """The named parameters, or the ``top`` with the largest relative change."""
    if names is not None:
        return [diff[name] for name in names]
    return sorted(_measured(diff), key=lambda c: -_finite(c.statistics.relative if c.statistics else 0.0))[:top]


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    from theta_nb.report.figure import ShownFigure

    columns = min(3, count)
    rows = -(-count // columns)
    figure = ShownFigure(figsize=(3.1 * columns + 0.4, 2.1 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in grid[count:]:
        unused.remove()
    return figure, grid[:count]


def _steps(histogram: Histogram) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Edges and shares of the octaves that hold more than a millionth of all entries."""
    shares = histogram.counts / histogram.total
    seen = np.flatnonzero(shares > 1e-6)
    if not len(seen):
        return histogram.edges, shares
    first, last = int(seen[0]), int(seen[-1]) + 1
    return histogram.edges[first : last + 1], shares[first:last]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _shortened(name: str, longest: int = _LONGEST_LABEL) -> str:
    """The end of a name, which tells more than its beginning."""
    return literal(name if len(name) <= longest else f"…{name[1 - longest :]}")
