"""The merge driver: three manifests in, one out, in place of ours.

git hands temporary files that hold manifests, but a side from before the file was tracked is a raw checkpoint, and the
ancestor is empty where both sides added the file. Nothing is written to standard output: it would end up in the output
of ``git merge-tree``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from theta_nb.engine.clean import Cleaner
from theta_nb.engine.three_way import merge_manifests
from theta_nb.git.places import Places, find_places
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import dump, is_manifest, parse

__all__ = ["merge_driver"]

_SHOWN = 5


def merge_driver(
    base: str, ours: str, theirs: str, path: str, *, keep_base: bool = False, warn: Callable[[str], None]
) -> int:
    """Merge ``theirs`` into the file ``ours``.

    Parameters
    ----------
    base, ours, theirs
        Files that git made (``%O %A %B``).
    path
        Path of the result in the repository (``%P``), for messages.
    keep_base
        Whether this is the merge of a virtual ancestor: conflicts keep the base's value and are not reported.
    warn
        Shows one sentence.

    Returns
    -------
    int
        0 if everything resolved itself, 1 for a conflict: ``ours`` is then unchanged.
    """
    places = find_places()
    with ThreadPoolExecutor(places.settings.workers) as executor:
        sides = [_manifest(name, path, places, executor) for name in (base, ours, theirs)]
    before, left, right = sides
    if left is None or right is None:
        return _keep(path, warn, ("the whole file",))
    merged = merge_manifests(before, left, right, keep_base=keep_base)
    if merged.conflicts and not keep_base:
        return _keep(path, warn, merged.conflicts)
    _replace(ours, dump(merged.manifest))
    return 0


def _manifest(name: str, path: str, places: Places, executor: ThreadPoolExecutor) -> Manifest | None:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size == 0:
            return None
        if is_manifest(os.pread(fd, 64, 0)):
            with open(fd, "rb", closefd=False) as file:
                return parse(file.read(), source=path)
        encodings = places.encodings()
        try:
            return Cleaner(places.store, executor).file(fd, os.path.basename(path), encodings)[0]
        finally:
            encodings.close()
    finally:
        os.close(fd)


def _keep(path: str, warn: Callable[[str], None], conflicts: tuple[str, ...]) -> int:
    shown = ", ".join(conflicts[:_SHOWN])
    if len(conflicts) > _SHOWN:
        shown += f" and {len(conflicts) - _SHOWN} more"
    warn(
        f"{path}: both sides changed {shown}; the work tree keeps ours. Take a side with 'git checkout --ours' or "
        f"'--theirs {path}', or write a merged checkpoint there; then 'git add {path}'."
    )
    return 1


def _replace(path: str, data: bytes) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=".merge-theta-")
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
