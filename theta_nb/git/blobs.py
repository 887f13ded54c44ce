"""What a blob of git holds, judged by its first bytes."""

from __future__ import annotations

import subprocess

from theta_nb.git.content import is_reference_manifest
from theta_nb.git.places import Places
from theta_nb.manifest.text import is_manifest

__all__ = ["blob_head", "is_stored"]

_HEAD_NBYTES = 64 * 1024


def blob_head(oid: str, places: Places) -> bytes:
    """First 64 KiB of a blob: a raw checkpoint in git may be large, so no more of it is read."""
    with subprocess.Popen(
        ["git", "cat-file", "blob", oid], cwd=places.top, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        head = process.stdout.read(_HEAD_NBYTES) if process.stdout else b""
        process.kill()
    return head


def is_stored(oid: str, places: Places) -> bool:
    """Whether a blob of a tracked path is what the filter puts there: a manifest, of any format, or nothing at all."""
    head = blob_head(oid, places)
    return not head or is_manifest(head) or is_reference_manifest(head)
