"""Figures that notebooks show without pyplot, and without anything having been loaded for them."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["ShownFigure"]


class ShownFigure(Figure):
    r"""A matplotlib figure that shows itself as the last expression of a cell.

    IPython knows how to show figures only once pyplot was imported, and a figure that pyplot made is shown twice where
    it is also returned.

    Examples
    --------
    >>> ShownFigure(figsize=(1, 1))._repr_png_()[:4]
    b'\x89PNG'
    """

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", bbox_inches="tight")
        return png.getvalue()
