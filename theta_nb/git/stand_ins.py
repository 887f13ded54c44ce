"""A disposable repository in which objects look as if they were old copies of what a remote has.

Nothing real is in it, so that nothing can be lost whatever git-lfs does with it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from theta_nb.git.carrier import INSIDE, REMOTE, Carrier
from theta_nb.git.pointer_trees import pointer_tree
from theta_nb.git.process import git_elsewhere

__all__ = ["stand_in_repository"]

_LONG_AGO = {
    **{f"GIT_{role}_DATE": "2001-01-01T00:00:00+0000" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_NAME": "theta" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_EMAIL": "theta@localhost" for role in ("AUTHOR", "COMMITTER")},
}


@contextmanager
def stand_in_repository(carrier: Carrier, objects: Mapping[str, int]) -> Iterator[str]:
    """A bare repository whose storage holds an empty file of the right length for each object.

    Its history: a commit with a pointer file for each, then one without; both count as pushed.

    Parameters
    ----------
    carrier
        Repository beside which it is made.
    objects
        Lengths by name.

    Yields
    ------
    str
        The repository.
    """
    parent = os.path.join(carrier.places.theta_dir, "tmp")
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stand-in-", dir=parent) as folder:
        for name in ("config", "HEAD"):
            shutil.copyfile(os.path.join(carrier.folder, name), os.path.join(folder, name))
        for name in (os.path.join("objects", "pack"), "refs"):
            os.makedirs(os.path.join(folder, name))
        for oid, nbytes in objects.items():
            place = os.path.join(folder, "storage", "objects", oid[:2], oid[2:4])
            os.makedirs(place, exist_ok=True)
            with open(os.path.join(place, oid), "xb") as file:
                file.truncate(nbytes)  # a hole: it takes no room
        with pointer_tree(folder, objects) as full:
            empty = _git(folder, "mktree")
            old = _git(folder, "commit-tree", "-m", "with", full)
            new = _git(folder, "commit-tree", "-p", old, "-m", "without", empty)
            _git(folder, "update-ref", "refs/heads/none", new)
            _git(folder, "update-ref", f"refs/remotes/{REMOTE}/none", new)
            yield folder


def _git(folder: str, *arguments: str) -> str:
    return git_elsewhere(*INSIDE, *arguments, cwd=folder, data=b"", env=_LONG_AGO).decode("ascii").strip()
