"""Long output through the pager that git would use."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import TextIO

from theta_nb.git.process import GitError, git_text

__all__ = ["pager_command", "show_paged"]

_DEFAULTS = {"LESS": "FRX", "LV": "-c"}
"""As git sets them: quit if it fits on the screen, pass colours through."""


def pager_command(stream: TextIO, environ: Mapping[str, str]) -> str:
    """The pager for output to ``stream``, as a command of the shell; empty for none.

    git's own choice counts: ``GIT_PAGER``, ``core.pager``, ``PAGER``, and ``pager.theta`` set to false or to another
    pager. ``git --no-pager`` and ``git -p`` tell us through the environment.
    """
    if not stream.isatty() or environ.get("TERM") in (None, "dumb") or environ.get("GIT_PAGER_IN_USE"):
        return ""
    try:
        wanted = git_text("config", "--get", "pager.theta")
    except GitError:
        wanted = ""
    if wanted.lower() in ("false", "no", "off", "0"):
        return ""
    if wanted and wanted.lower() not in ("true", "yes", "on", "1"):
        return wanted
    try:
        pager = git_text("var", "GIT_PAGER")
    except GitError:
        return ""
    return "" if pager == "cat" else pager


def show_paged(text: str, pager: str) -> None:
    """Show text in a pager; whoever leaves it early has seen enough."""
    environment = {**_DEFAULTS, **os.environ}
    # A pager is configured as a command of the shell ('less -S', 'delta | less'); git runs it like this.
    with subprocess.Popen(["sh", "-c", pager], stdin=subprocess.PIPE, env=environment) as process:
        try:
            process.communicate(f"{text}\n".encode("utf-8", "backslashreplace"))
        except KeyboardInterrupt:  # meant for the pager, which decides what it does with it
            process.wait()
