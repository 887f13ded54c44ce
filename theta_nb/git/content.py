"""Content as git hands it to a filter: a stream that is looked into before anybody decides what it is."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Protocol

from theta_nb.errors import ManifestError
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES

__all__ = ["HEAD_NBYTES", "Content", "copy_rest", "is_reference_manifest", "read_rest", "take"]

HEAD_NBYTES = 64 * 1024
"""So much is looked at to tell a manifest from a checkpoint."""


class Content(Protocol):
    """A stream that takes bytes back."""

    def readinto(self, dest: memoryview, /) -> int:
        """Fill ``dest``; returns its length, or less at the end."""
        ...

    def push_back(self, data: bytes) -> None:
        """Have ``data`` come (again) before everything else."""
        ...


def is_reference_manifest(head: bytes) -> bool:
    """Whether content is a version-1 manifest of git-theta: JSON that nests ``theta_metadata``."""
    return head.lstrip()[:1] == b"{" and b'"theta_metadata"' in head


def take(content: Content, nbytes: int) -> bytes:
    """The next bytes, fewer at the end."""
    buffer = memoryview(bytearray(nbytes))
    return bytes(buffer[: content.readinto(buffer)])


def copy_rest(content: Content, write: Callable[[memoryview], object]) -> None:
    """Hand on everything up to the end, in pieces that are valid until the next one."""
    buffer = memoryview(bytearray(2**20))
    while count := content.readinto(buffer):
        write(buffer[:count])


def read_rest(content: Content) -> bytes:
    """Everything up to the end.

    Raises
    ------
    ManifestError
        If it is longer than a manifest may be.
    """
    collected = io.BytesIO()

    def write(piece: memoryview) -> None:
        if collected.tell() + len(piece) > MAX_MANIFEST_NBYTES:
            raise ManifestError(f"the manifest is longer than {MAX_MANIFEST_NBYTES} bytes")
        collected.write(piece)

    copy_rest(content, write)
    return collected.getvalue()
