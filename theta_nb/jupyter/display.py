"""How results of ``%theta`` show themselves in a notebook: as tables, or as the lines that a terminal would show."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakValueDictionary

from theta_nb.commands import printing
from theta_nb.commands.terminal import Style
from theta_nb.report.fragments import Markup, fragment

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Listing", "register_formatters"]

Bundle = dict[str, Any]

_RESULTS = {
    ("theta_nb.git.installation", "InstallResult"): "install",
    ("theta_nb.git.installation", "UninstallResult"): "uninstall",
    ("theta_nb.commands.track", "TrackResult"): "track",
    ("theta_nb.commands.untrack", "UntrackResult"): "untrack",
    ("theta_nb.commands.add", "AddResult"): "add",
    ("theta_nb.commands.commit", "CommitResult"): "commit",
    ("theta_nb.commands.merge", "MergeResult"): "merge",
    ("theta_nb.commands.push", "PushResult"): "push",
    ("theta_nb.commands.fetch", "FetchResult"): "fetch",
    ("theta_nb.commands.pull", "PullResult"): "pull",
    ("theta_nb.commands.fsck", "FsckReport"): "fsck",
    ("theta_nb.commands.gc", "GcReport"): "gc",
    ("theta_nb.commands.hooks", "HooksResult"): "hooks",
    ("theta_nb.commands.env", "EnvReport"): "env",
}
"""Commands by the class of their result, which is imported when there is one."""

_OPEN, _CLOSE = "\ue000", "\ue001"
_CLASSES = {"1": "b", "2": "dim", "31": "bad", "32": "good", "33": "warn"}
_MARK = re.compile(f"{_OPEN}([a-z]+);|{_CLOSE}")


class _HtmlStyle(Style):
    """Emphasis as marks that survive escaping and then become elements."""

    def _wrap(self, code: str, text: str) -> str:
        return f"{_OPEN}{_CLASSES[code]};{text}{_CLOSE}" if text else text


@dataclass(frozen=True)
class Listing(Sequence[Any]):
    """Results of one command, as a sequence that shows itself.

    It is no tuple: IPython has a way of its own to show those.

    Parameters
    ----------
    items
        The results.
    arguments
        What was asked for.
    prefix
        Folder that shown paths start from, relative to the top of the work tree.
    """

    items: tuple[Any, ...]
    arguments: Namespace = field(repr=False)
    prefix: str = field(default="", repr=False)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.items[index]

    def __str__(self) -> str:
        plain: str = self._repr_mimebundle_()["text/plain"]
        return plain

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        """What a notebook shows."""
        if self and all(hasattr(item, "to_html") for item in self):
            html = "<hr>".join(item.to_html() for item in self)
            return {"text/plain": "\n\n".join(item.table(limit=60) for item in self), "text/html": html}
        return bundle(self.arguments, self.items, self.prefix)


def bundle(arguments: Namespace, result: Any, prefix: str = "") -> Bundle:
    """A result as the lines that a terminal would show, and the same as HTML with a table where there is one."""
    from theta_nb.jupyter.tables import TABLES

    plain = printing.as_text(arguments, result, Style(prefix=prefix))
    table = TABLES.get(arguments.command)
    style = _HtmlStyle(prefix=prefix)
    html = table(arguments, result, style) if table is not None and result else None
    if html is None:
        html = fragment(lines(printing.as_text(arguments, result, style)))
    return {"text/plain": plain or "Nothing to show.", "text/html": html}


def lines(marked: str) -> Markup:
    """Lines with marks of emphasis as HTML; blanks at their beginning and between columns stay."""

    def element(match: re.Match[str]) -> str:
        return f"<span class='{match[1]}'>" if match[1] else "</span>"

    shown = _MARK.sub(element, escape(marked or "Nothing to show."))
    return Markup(f"<div class='mono' style='white-space:pre-wrap'>{shown}</div>")


def register_formatters(shell: InteractiveShell) -> None:
    """Have results show themselves, those of :class:`theta_nb.Repository` as well."""
    formatter = shell.display_formatter.mimebundle_formatter  # type: ignore[union-attr]
    for (module, name), command in _RESULTS.items():
        formatter.for_type_by_name(module, name, _shows(command))
    session = ("theta_nb.engine.merging.session", "MergeSession")
    formatter.for_type_by_name(*session, _session)
    if hasattr(shell, "kernel"):  # a terminal has nobody to show widgets
        display = shell.display_formatter.ipython_display_formatter  # type: ignore[union-attr]
        display.for_type_by_name(*session, _explore)


def _session(session: Any, include: Any = None, exclude: Any = None) -> Bundle:
    from theta_nb.jupyter.merging import session_bundle

    return session_bundle(session)


_explorers: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""Explorers by the id of their session: whoever shows a session twice sees one explorer in two places."""


def _explore(session: Any) -> None:
    from theta_nb.jupyter.merge_explorer import MergeExplorer

    explorer = _explorers.get(id(session))
    if explorer is None or explorer.comm is None:
        explorer = _explorers[id(session)] = MergeExplorer(session)
    explorer._ipython_display_()


def _shows(command: str) -> Callable[..., Bundle]:
    def show(result: Any, include: Any = None, exclude: Any = None) -> Bundle:
        return bundle(Namespace(command=command, paths=()), result)

    return show
