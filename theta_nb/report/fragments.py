"""Pieces of self-contained HTML: readable on light and dark pages, without scripts, safe for any text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from theta_nb.report.visible import visible

__all__ = ["Markup", "bar", "chip", "details", "fragment", "grid", "page", "text"]

_STYLE = """\
.theta-nb{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.45}
.theta-nb code,.theta-nb .mono{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:12px;
background:none}
div.theta-nb table{font-size:inherit;border-collapse:collapse;margin:6px 0;border:none}
div.theta-nb table th,div.theta-nb table td{text-align:left;padding:3px 12px 3px 0;border:none;vertical-align:top;
background:none}
div.theta-nb table th{font-weight:600;border-bottom:1px solid var(--jp-border-color1,#8886)}
.theta-nb tr{background:none!important}div.theta-nb table td.num,div.theta-nb table th.num{text-align:right}
.theta-nb .dim{opacity:.65}.theta-nb .b{font-weight:600}
.theta-nb .chip{border:1px solid var(--jp-border-color1,#8886);border-radius:9px;
padding:0 7px;font-size:11px;white-space:nowrap}
.theta-nb .good{color:var(--jp-success-color1,#2da44e)}.theta-nb .bad{color:var(--jp-error-color1,#e5534b)}
.theta-nb .warn{color:var(--jp-warn-color1,#b08800)}
.theta-nb .bar{display:inline-block;height:9px;background:#0072b2;opacity:.75;border-radius:2px;margin-left:6px}
.theta-nb details>summary{cursor:pointer}.theta-nb ul{margin:2px 0;padding-left:18px}
.theta-nb svg text{fill:currentColor;font-size:11px}"""


class Markup(str):
    """HTML; everything else is text and gets escaped."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Text from anywhere as HTML; control characters and what would reorder the line are spelled out.

    Examples
    --------
    >>> text("<b> & more"), text(Markup("<b>"))
    ('&lt;b&gt; &amp; more', '<b>')
    """
    return value if isinstance(value, Markup) else Markup(escape(visible(str(value))))


def fragment(*parts: str) -> str:
    """A fragment of a page with the style that its parts need."""
    return f"<div class='theta-nb'><style>{_STYLE}</style>{''.join(text(part) for part in parts)}</div>"


def page(title: str, *bodies: str) -> str:
    """A whole document that holds some fragments; light or dark as the reader's system is."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}'
        "body{margin:24px;background:Canvas;color:CanvasText}</style></head><body>"
        f"{'<hr>'.join(bodies)}</body></html>\n"
    )


def grid(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> Markup:
    """A table.

    Parameters
    ----------
    head
        Names of the columns; no head if all are empty.
    rows
        Cells: text, or :class:`Markup`.
    numbers
        Columns that are aligned to the right.
    """

    def line(cells: Sequence[object], tag: str) -> str:
        marks = (" class='num'" if index in numbers else "" for index in range(len(cells)))
        return "".join(f"<{tag}{mark}>{text(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))

    top = f"<thead><tr>{line(head, 'th')}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return Markup(f"<table>{top}<tbody>{body}</tbody></table>")


def details(summary: str, items: Sequence[str], *, most: int = 200) -> Markup:
    """A line that unfolds into a list of names."""
    shown = "".join(f"<li><code>{text(item)}</code></li>" for item in items[:most])
    more = f"<li class='dim'>… and {len(items) - most:,} more</li>" if len(items) > most else ""
    return Markup(f"<details><summary>{text(summary)}</summary><ul>{shown}{more}</ul></details>")


def chip(word: str) -> Markup:
    """A name in a frame."""
    return Markup(f"<span class='chip'>{text(word)}</span>")


def bar(share: float) -> Markup:
    """A bar behind a number; ``share`` is 0 to 1."""
    return Markup(f"<span class='bar' style='width:{max(1, round(60 * share))}px'></span>") if share > 0 else Markup("")
