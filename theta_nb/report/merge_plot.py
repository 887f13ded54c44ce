"""A picture of what a merge would do, by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from theta_nb.report.diff_plots import middle_grey, name_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from theta_nb.engine.merging.preview import Preview

__all__ = ["heatmap"]


def heatmap(preview: Preview) -> Figure | None:
    """How far the results are from ours, relative to their norms; ``None`` where no number is known.

    Parameters
    ----------
    preview
        Blocks against what a parameter is within its block.
    """
    ours = 1 if preview.has_base else 0
    values = {
        row.name: row.distances[min(ours, len(row.distances) - 1)] / row.norm
        for row in preview
        if row.distances and row.norm
    }
    if not values:
        return None
    with middle_grey():
        names = [row.name for row in preview]
        title = f"merge of {', '.join(preview.labels)}"
        return name_map(values, names, label="distance to ours / ‖result‖", title=title)
