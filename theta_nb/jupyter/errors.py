"""Errors of the magics: one line first, the traceback when ``%tb`` asks for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from theta_nb.commands.parser import respelled
from theta_nb.report.visible import visible

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["show_as_one_line"]


def show_as_one_line(error: BaseException, shell: InteractiveShell) -> None:
    """Have IPython show an error as one line; ``%tb`` then shows where it comes from.

    The error keeps its class, so a cell can catch it. IPython asks an exception for ``_render_traceback_`` before it
    makes a traceback of its own.

    Parameters
    ----------
    error
        What will be raised.
    shell
        Whose traceback is shown later.
    """
    said = False

    def render() -> list[str]:
        nonlocal said
        if said:
            lines: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
            return lines
        said = True
        text = visible(respelled(re.sub(r"\s*\n\s*", " ", str(error).strip()), "%theta"))
        return [f"\x1b[31mtheta:\x1b[0m {text}"]

    error._render_traceback_ = render  # type: ignore[attr-defined]
