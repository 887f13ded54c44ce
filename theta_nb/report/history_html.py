"""Histories and blames as HTML."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from theta_nb.report.fragments import Markup, bar, chip, details, fragment, grid, text
from theta_nb.report.history_text import number, refs, summary, what_changed
from theta_nb.report.numbers import percent, short, size

if TYPE_CHECKING:
    from theta_nb.engine.history import Commit, Step
    from theta_nb.report.blame import Blame
    from theta_nb.report.history import ChangeMatrix, History

__all__ = ["blame_to_html", "to_html"]

_SHOWN_COMMITS = 200
_SHOWN_LAYERS = 60
_SHOWN_METRICS = 6
_CELL = 14
_LABEL = 230


def to_html(history: History) -> str:
    """A table of commits, and below it which part of the model changed in which commit."""
    steps = history.steps[:_SHOWN_COMMITS]
    metrics = list(history.metrics)[:_SHOWN_METRICS]
    most = max((step.new_bytes for step in steps), default=0)
    rows = [
        [
            _commit(step.commit),
            Markup(f"<span class='dim'>{step.commit.date:%Y-%m-%d}</span>"),
            _changes(step),
            Markup(f"{size(step.new_bytes)}{bar(step.new_bytes / most)}") if step.new_bytes else "-",
            *(number(step.commit.metrics.get(name, math.nan)) for name in metrics),
            _message(step),
        ]
        for step in steps
    ]
    head = ["commit", "date", "what changed", "stored", *metrics, "message"]
    parts = [Markup(f"<div><b>{text(summary(history))}</b></div>")]
    parts.append(grid(head, rows, numbers=range(4, 4 + len(metrics))))
    if len(history) > len(steps):
        parts.append(Markup(f"<div class='dim'>… and {len(history) - len(steps):,} earlier commits</div>"))
    return fragment(*parts, _heatmap(history.matrix()))


def _commit(commit: Commit) -> Markup:
    return Markup(f"<code title='{text(commit.id)}, {text(commit.author)}'>{text(commit.short)}</code>")


def _changes(step: Step) -> Markup:
    words = what_changed(step)
    if step.state != "modified" or not step.changes:
        return text(words)
    signs = {"added": "+ ", "removed": "- ", "renamed": "> "}
    return details(words, [signs.get(change.status, "~ ") + change.name for change in step.changes], most=50)


def _message(step: Step) -> Markup:
    words = [text(step.commit.subject), *(chip(name) for name in refs(step.commit))]
    if step.renamed_from:
        words.append(Markup(f"<span class='dim'>renamed from {text(step.renamed_from)}</span>"))
    if step.recipe:
        words.append(Markup(f"<span class='chip' title='{text(step.recipe[:500])}'>merge recipe</span>"))
    if step.problem:
        words.append(Markup(f"<span class='bad'>{text(step.problem)}</span>"))
    return Markup(" ".join(words))


def _heatmap(matrix: ChangeMatrix) -> Markup:
    """Layers against commits, as a picture."""
    layers, commits = matrix.layers[:_SHOWN_LAYERS], matrix.commits[-_SHOWN_COMMITS:]
    skipped = len(matrix.commits) - len(commits)
    if len(commits) < 2 or not layers:
        return Markup("")
    shapes = []
    for y, (layer, row) in enumerate(zip(layers, matrix.values, strict=False)):
        label = layer if len(layer) <= 36 else f"…{layer[-35:]}"
        shapes.append(f"<text x='{_LABEL - 6}' y='{y * _CELL + 11}' text-anchor='end'>{text(label or '(top)')}</text>")
        for x, value in enumerate(row[skipped:]):
            if math.isnan(value) or value == 0:
                continue
            shown = short(value) if matrix.measured else percent(value)
            shapes.append(
                f"<rect x='{_LABEL + x * _CELL}' y='{y * _CELL}' width='{_CELL - 1}' height='{_CELL - 1}' "
                f"fill-opacity='{_strength(value, measured=matrix.measured):.2f}'>"
                f"<title>{text(layer)}, {commits[x].short} {text(commits[x].subject[:60])}: {shown}</title></rect>"
            )
    what = "relative change ‖Δ‖/‖old‖" if matrix.measured else "share of values in changed tensors"
    width, height = _LABEL + len(commits) * _CELL, len(layers) * _CELL
    label = f"{len(layers)} parts of the model against {len(commits)} commits: {what}"
    more = f", first {len(layers)} of {len(matrix.layers)} parts" if len(matrix.layers) > len(layers) else ""
    return Markup(
        f"<details><summary>Where it changed: {what}, oldest commit left{more}</summary>"
        f"<svg role='img' aria-label='{text(label)}' width='{width}' height='{height}' fill='#d55e00'>"
        f"{''.join(shapes)}</svg></details>"
    )


def _strength(value: float, *, measured: bool) -> float:
    """Opacity of a cell. Relative changes span magnitudes: 1e-6 is faint, 1 and more is full."""
    if not measured:
        return 0.15 + 0.85 * min(value, 1.0)
    return min(1.0, max(0.1, (math.log10(value) + 6.5) / 6.5)) if math.isfinite(value) else 1.0


def blame_to_html(blame: Blame) -> str:
    """One line per commit, the parameters that it changed last unfolding below."""
    rows = []
    for commit, parameters in blame.commits().items():
        names = [parameter.name for parameter in parameters]
        rows.append(
            [
                _commit(commit),
                Markup(f"<span class='dim'>{commit.date:%Y-%m-%d}</span>"),
                commit.author,
                commit.subject,
                Markup(f"<code>{text(names[0])}</code>")
                if len(names) == 1
                else details(f"{len(names)} tensors", names),
            ]
        )
    head = ["commit", "date", "author", "message", "last changed"]
    where = f"{blame.path} at {blame.revision}: {len(blame)} parameters"
    return fragment(Markup(f"<div><b>{text(where)}</b></div>"), grid(head, rows))
