"""A diff as a fragment of HTML: no script, nothing loaded from elsewhere, every text escaped.

It inherits colours of text and background from the page, and draws with translucent ones, so it reads well on a light
page and on a dark one. Closing tags that HTML5 lets one omit are omitted: a diff of 1,000 tensors stays below 300 KB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from theta_nb.report.change_group import ChangeGroup
from theta_nb.report.diff_text import heading, missing, notes_of, summary, what
from theta_nb.report.numbers import cosine, percent, short
from theta_nb.report.tree import Module, module_tree

if TYPE_CHECKING:
    from theta_nb.engine.diff import ParameterChange
    from theta_nb.report.checkpoint_diff import CheckpointDiff

__all__ = ["to_html"]

_OPEN = 40
"""Up to this many changed parameters every module starts unfolded."""

_STYLE = """
.theta-diff{font:13px/1.45 var(--jp-ui-font-family,system-ui,sans-serif);color:inherit;max-width:1100px;overflow-x:auto;
container-type:inline-size}
.theta-diff>div{min-width:840px}
@container(max-width:820px){.theta-diff>div{min-width:600px}.theta-diff tr>:nth-child(n+6){display:none}}
.theta-diff table{table-layout:fixed;width:100%;border-collapse:collapse;margin:0;font-size:inherit}
.theta-diff tr{background:none!important}
.theta-diff td,.theta-diff th{padding:1px 8px;text-align:right;white-space:nowrap;overflow:hidden;
text-overflow:ellipsis;border:0;border-top:1px solid rgba(128,128,128,.2);font-variant-numeric:tabular-nums}
.theta-diff th{font-weight:600;border:0;opacity:.75}
.theta-diff tr>*{width:82px;box-sizing:border-box}
.theta-diff tr>:first-child{text-align:left;width:auto}
.theta-diff tr>:nth-child(2){text-align:left;width:200px}
.theta-diff tr>:nth-child(3){width:98px}
.theta-diff td:first-child{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:12px}
.theta-diff td:nth-child(3){background:linear-gradient(90deg,rgba(0,114,178,.38) var(--w,0%),transparent 0)}
.theta-diff td:first-child::before{display:inline-block;width:1.3em;font-weight:700;content:"~";color:#2b8cc4}
.theta-diff .a td:first-child::before{content:"+";color:#009e73}
.theta-diff .d td:first-child::before{content:"\\2212";color:#d55e00}
.theta-diff .r td:first-child::before{content:"→";color:#b8860b}
.theta-diff small{opacity:.8}
.theta-diff .n td{white-space:normal;border:0;padding-top:0;text-align:left}
.theta-diff .n td::before{content:""!important}
.theta-diff details{margin:0 0 0 14px;border-left:2px solid rgba(128,128,128,.25);padding-left:6px}
.theta-diff summary{cursor:pointer;padding:2px 0}
.theta-diff summary b{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:12px}
.theta-diff p{margin:2px 0}
.theta-diff mark{background:rgba(0,114,178,.25);color:inherit;padding:0 6px;border-radius:3px}
.theta-diff .w{border-left:3px solid #d55e00;padding-left:8px}
""".replace("\n", "")

_CLASSES = {"added": "a", "removed": "d", "renamed": "r"}
_COLUMNS = (
    ("name", "parameter"),
    ("size", "dtype and shape"),
    ("relative", "‖Δ‖/‖old‖"),
    ("max", "max |Δ|"),
    ("changed", "changed"),
    ("flips", "flips"),
    ("cosine", "cosine"),
)


def to_html(diff: CheckpointDiff, *, page: bool = False) -> str:
    """The diff as HTML.

    Parameters
    ----------
    diff
        What to show: as a tree of modules in the order of names, as one table in any other order.
    page
        Whether to make a whole document, light or dark as the reader's system is, rather than a fragment.
    """
    body = "".join(_fragment(diff))
    if not page:
        return body
    title = escape(heading(diff))
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<style>:root{color-scheme:light dark}body{margin:16px}</style>" + body + "</html>\n"
    )


def _fragment(diff: CheckpointDiff) -> Iterator[str]:
    yield f'<div class="theta-diff"><style>{_STYLE}</style>'
    yield f"<p><b>{escape(heading(diff))}</b><p>{escape(summary(diff))}"
    for line in missing(diff):
        yield f'<p class="w">{escape(line)}'
    if len(diff):
        measured = diff.measured != "structure"
        scale = _scale(diff)
        yield f"<div>{_head(diff, measured=measured)}"
        if diff.order == "name":
            unfolded = len(diff) <= _OPEN
            yield from _module(module_tree(diff.parameters), scale, measured=measured, unfolded=unfolded)
        else:
            yield from _table([(change.name, change) for change in diff], scale, measured=measured)
        yield "</div>"
    yield "</div>"


def _scale(diff: CheckpointDiff) -> float:
    """The relative change that fills a bar: the largest finite one."""
    found = [c.statistics.relative for c in diff if c.statistics is not None]
    return max((value for value in found if math.isfinite(value)), default=0.0)


def _head(diff: CheckpointDiff, *, measured: bool) -> str:
    columns = _COLUMNS if measured else _COLUMNS[:2]
    cells = "".join(f"<th>{text}{' ▾' if key == diff.order != 'name' else ''}" for key, text in columns)
    return f"<table><tr>{cells}</table>"


def _module(
    module: Module[ParameterChange], scale: float, *, measured: bool, unfolded: bool, top: bool = True
) -> Iterator[str]:
    group = ChangeGroup(module.label, tuple(module.changes))
    if not group.differing:
        return
    if not top or module.label:
        yield f"<details{' open' if unfolded else ''}><summary><b>{escape(module.label)}</b> {_group(group)}</summary>"
    rows = [(name, change) for name, change in module.rows if change.differs]
    if rows:
        yield from _table(rows, scale, measured=measured)
    for below in module.modules:
        yield from _module(below, scale, measured=measured, unfolded=unfolded, top=False)
    if not top or module.label:
        yield "</details>"


def _group(group: ChangeGroup) -> str:
    counts = group.counts
    unchanged = counts.pop("unchanged", 0)
    texts = [f"{count} {status}" for status, count in counts.items()]
    if unchanged:
        texts.append(f"{unchanged} unchanged")
    number = "" if math.isnan(group.relative) else f" <mark>{short(group.relative)}</mark>"
    return f"<small>{', '.join(texts)}</small>{number}"


def _table(rows: list[tuple[str, ParameterChange]], scale: float, *, measured: bool) -> Iterator[str]:
    yield "<table>"
    for name, change in rows:
        yield _row(name, change, scale, measured=measured)
    yield "</table>"


def _row(name: str, change: ParameterChange, scale: float, *, measured: bool) -> str:
    dtype, shape = what(change.old, change.new)
    mark = f" class={_CLASSES[change.status]}" if change.status in _CLASSES else ""
    cells = [f"<tr{mark}><td>{escape(name)}<td>{escape(dtype)} {escape(shape)}"]
    found = change.statistics
    if found is not None:
        share = min(found.relative / scale, 1.0) if scale else 0.0
        width = f" style=--w:{share * 100:.0f}%" if share >= 0.005 else ""
        cells.append(
            f"<td{width}>{short(found.relative)}<td>{short(found.max_abs_delta)}<td>{percent(found.changed_share)}"
            f"<td>{percent(found.flipped_share)}<td>{cosine(found.cosine)}"
        )
    elif measured:
        cells.append("<td>" * 5)
    notes = ", ".join(notes_of(change))
    if notes:
        cells.append(f"<tr class=n><td colspan={5 if measured else 2}><small>{escape(notes)}</small>")
    return "".join(cells)
