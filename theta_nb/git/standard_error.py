"""Warnings on standard error: of commands that git started, which have nothing else, and of what is no result."""

from __future__ import annotations

import re
import sys

__all__ = ["warn_on_stderr"]

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def warn_on_stderr(message: str) -> None:
    """Show one sentence on one line; a closed terminal is no reason to fail."""
    # Names of files and parameters come from others: what they hold must not move the cursor or fake a line.
    line = _CONTROLS.sub(lambda match: repr(match[0])[1:-1], message)
    if sys.stderr is None:  # closed before we started
        return
    try:
        sys.stderr.write(f"theta: {line}\n")
        sys.stderr.flush()
    except OSError:
        pass
