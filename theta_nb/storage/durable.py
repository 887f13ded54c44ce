"""Waiting for the disk."""

from __future__ import annotations

import os

__all__ = ["to_disk"]


def to_disk(fd: int) -> None:
    """Return when the content of an open file is on the disk, and what it takes to find it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     to_disk(file.fileno())
    """
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:  # macOS
        os.fsync(fd)
