"""A diff as JSON types: compact, so that a notebook which shows a diff of 1,000 tensors stays small.

``diff.schema.json`` beside this module specifies the form. What there is one of per parameter stands in columns, and
histograms are float32 in base64: the 16 highest octaves of each, everything smaller in the lowest of them.
"""

from __future__ import annotations

import base64
import json
import math
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from theta_nb.report.diff_text import summary

if TYPE_CHECKING:
    from theta_nb.engine.diff import Parameter, ParameterChange
    from theta_nb.report.change_group import ChangeGroup
    from theta_nb.report.checkpoint_diff import CheckpointDiff, Side
    from theta_nb.tensors.statistics import Histogram

__all__ = ["BINS", "HISTOGRAMS", "NUMBERS", "VERSION", "schema", "to_dict"]

VERSION = 1
BINS = 16
HISTOGRAMS = ("old", "new", "delta")
_WHOLE = ("numel", "changed", "sign_flips", "old_nan", "old_inf", "new_nan", "new_inf")
_REAL = (
    "relative",
    "delta_norm",
    "old_norm",
    "new_norm",
    "max_abs_delta",
    "cosine",
    "old_mean",
    "new_mean",
    "old_std",
    "new_std",
)
NUMBERS = (*_WHOLE, *_REAL)
"""Columns of the statistics."""


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema that :func:`to_dict` keeps to."""
    form: dict[str, Any] = json.loads(files("theta_nb.report").joinpath("diff.schema.json").read_text("utf-8"))
    return form


def to_dict(diff: CheckpointDiff) -> dict[str, Any]:
    """The diff as JSON types."""
    form: dict[str, Any] = {
        "version": VERSION,
        "old": _side(diff.old),
        "new": _side(diff.new),
        "measured": diff.measured,
        "order": diff.order,
        "hidden": diff.hidden,
        "summary": summary(diff),
        "unavailable": diff.unavailable,
        "other": list(diff.other),
        "counts": dict(diff.counts),
        "total": _total(diff.total),
        "parameters": [_parameter(change) for change in diff.parameters],
    }
    rows = [index for index, change in enumerate(diff.parameters) if change.statistics is not None]
    if rows:
        form["statistics"] = _columns(diff, rows)
    if diff.measured == "histograms" and rows:
        form["histograms"] = _histograms(diff, rows)
    return form


def _side(side: Side) -> dict[str, Any]:
    return {
        "path": side.path,
        "label": side.label,
        "exists": side.exists,
        "format": side.format,
        "size": side.size,
        "parameters": side.parameters,
    }


def _total(group: ChangeGroup) -> dict[str, Any]:
    names = ("relative", "delta_norm", "old_norm", "max_abs_delta", "changed_share")
    return {name: number(getattr(group, name)) for name in names}


def _parameter(change: ParameterChange) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": change.name,
        "status": change.status,
        "dtype": change.dtype,
        "shape": list(change.shape),
    }
    if change.old is not None and change.new is not None:
        was = _was(change.old, change.new)
        if was:
            row["was"] = was
    if change.tied:
        row["tied"] = change.tied
    if change.note:
        row["note"] = change.note
    if change.statistics is not None and change.statistics.overlap is not None:
        row["overlap"] = list(change.statistics.overlap)
    return row


def _was(old: Parameter, new: Parameter) -> dict[str, Any]:
    """What else than the value is another one on the old side."""
    was: dict[str, Any] = {}
    if old.name != new.name:
        was["name"] = old.name
    if old.dtype != new.dtype:
        was["dtype"] = old.dtype
    if old.shape != new.shape:
        was["shape"] = list(old.shape)
    return was


def _columns(diff: CheckpointDiff, rows: list[int]) -> dict[str, Any]:
    found = [diff.parameters[index].statistics for index in rows]
    columns: dict[str, Any] = {"parameters": rows}
    for name in _WHOLE:
        columns[name] = [getattr(statistics, name) for statistics in found]
    for name in _REAL:
        digits = 8 if name == "cosine" else 4
        columns[name] = [number(getattr(statistics, name), digits) for statistics in found]
    return columns


def number(value: float, digits: int = 4) -> float | str | None:
    """A number of some significant digits as JSON can hold it: ``None`` for NaN, a word for infinities.

    Examples
    --------
    >>> number(0.123456789), number(float("nan")), number(float("inf"))
    (0.1235, None, 'inf')
    """
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(f"{value:.{digits}g}")


def _histograms(diff: CheckpointDiff, rows: list[int]) -> dict[str, Any]:
    kept = []
    tops: list[int] = []
    data: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    for index in rows:
        found = diff.parameters[index].statistics
        if found is None or found.old_histogram is None or found.new_histogram is None or found.delta_histogram is None:
            continue
        kept.append(index)
        for histogram in (found.old_histogram, found.new_histogram, found.delta_histogram):
            top, counts = highest_octaves(histogram)
            tops.append(top)
            data.append(counts)
    raw = np.concatenate(data).astype("<f4").tobytes() if data else b""
    return {
        "of": list(HISTOGRAMS),
        "bins": BINS,
        "parameters": kept,
        "tops": tops,
        "counts": base64.b64encode(raw).decode("ascii"),
    }


def highest_octaves(histogram: Histogram) -> tuple[int, np.ndarray[Any, np.dtype[np.float32]]]:
    """Exponent of the upper edge of the highest octave, and counts of 16 octaves, what is smaller in the first one."""
    counts = np.zeros(BINS, np.float32)
    top = histogram.first + len(histogram.counts)
    shown = histogram.counts[-BINS:]
    counts[BINS - len(shown) :] = shown
    counts[0] += histogram.zeros + int(histogram.counts[:-BINS].sum())
    return top, counts
