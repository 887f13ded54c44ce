"""Checkpoints that git left as manifests because of their size, for a hook to complete."""

from __future__ import annotations

import os
from contextlib import suppress

from theta_nb.git.places import Places

__all__ = ["PENDING", "leave_pending"]

PENDING = "theta-pending"
"""File in the git directory of a work tree: their paths, each with a zero byte behind it.

The hooks look for it before they start Python.
"""


def leave_pending(places: Places, path: str) -> None:
    """Have the next hook complete a checkpoint that stays a manifest for now."""
    with suppress(OSError), open(os.path.join(places.git_dir, PENDING), "ab") as file:
        file.write(os.fsencode(path) + b"\0")
