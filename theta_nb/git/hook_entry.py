"""What our hooks do when git runs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from theta_nb.git.hooks import run_before
from theta_nb.git.places import Places
from theta_nb.manifest.text import is_manifest

__all__ = ["PENDING", "leave_pending", "pending_paths", "pre_push"]

PENDING = "theta-pending"
"""File in the git directory of a work tree: checkpoints that git left as manifests because of their size.

The hooks look for it before they start Python.
"""

_UNDER_WAY = ("rebase-merge", "rebase-apply", "sequencer")

Progress = Callable[[int, int], None]


def leave_pending(places: Places, path: str) -> None:
    """Have the next hook complete a checkpoint that stays a manifest for now."""
    with suppress(OSError), open(os.path.join(places.git_dir, PENDING), "ab") as file:
        file.write(os.fsencode(path) + b"\0")


def pending_paths(places: Places) -> list[str]:
    """Checkpoints to complete now, and forget them; none inside a rebase or sequence.

    A rebase keeps the index in memory, with the sizes of manifests: a file that changes under it stops it.
    """
    if any(os.path.exists(os.path.join(places.git_dir, name)) for name in _UNDER_WAY):
        return []
    file = Path(places.git_dir, PENDING)
    try:
        names = file.read_bytes().split(b"\0")
        file.unlink()
    except OSError:
        return []
    paths = dict.fromkeys(os.fsdecode(name) for name in names if name)
    return [path for path in paths if _is_manifest_file(os.path.join(places.top, path))]


def _is_manifest_file(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return is_manifest(file.read(64))
    except OSError:
        return False


def pre_push(
    places: Places,
    arguments: Sequence[str],
    data: bytes,
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None],
) -> int:
    """Upload what the pushed refs need and the remote lacks; returns the exit status for git.

    Parameters
    ----------
    places
        The repository.
    arguments
        Name (or URL) and URL of the remote.
    data
        Lines ``local-ref local-sha remote-ref remote-sha``.
    progress
        Called with bytes done and bytes in all.
    tell
        Shows one sentence.

    Raises
    ------
    ThetaError
        If an upload fails: the push must then fail too.
    """
    status = run_before(places, "pre-push", arguments, data)
    if status:
        return status
    from theta_nb.git.push_range import objects_of_push, ref_updates
    from theta_nb.git.transfer import push_objects

    remote, url = (*arguments, "", "")[:2]
    objects = objects_of_push(places, remote, ref_updates(os.fsdecode(data)))
    if objects:
        report = push_objects(places, remote, objects, url=url, progress=progress)
        if report.transferred:
            tell(f"{report.transferred} objects ({report.nbytes / 1e6:.1f} MB) uploaded to {report.remote}")
    return 0
