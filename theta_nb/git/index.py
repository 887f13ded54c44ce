"""Entries of git's index, put there without the work tree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from theta_nb.git.places import Places
from theta_nb.git.process import git

__all__ = ["index_entry", "put_entries", "tree_with"]


def index_entry(path: str, blob: str, *, executable: bool = False) -> bytes:
    r"""One file, as :func:`put_entries` takes it.

    Examples
    --------
    >>> index_entry("m.pt", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    b'100644 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391 0\tm.pt\x00'
    """
    return f"{'100755' if executable else '100644'} {blob} 0\t".encode("ascii") + os.fsencode(path) + b"\0"


def put_entries(places: Places, entries: bytes, *, env: Mapping[str, str] | None = None) -> None:
    """Put entries into the index: all, or none.

    Raises
    ------
    GitError
        If git refuses one.
    """
    git("update-index", "-z", "--index-info", cwd=places.top, env=env, data=entries)


def tree_with(places: Places, tree: str | None, entries: bytes) -> str:
    """Id of the tree of a commit (of none: the empty one) with some entries replaced; the index stays as it is."""
    with tempfile.TemporaryDirectory(prefix="theta-") as folder:
        index = {"GIT_INDEX_FILE": os.path.join(folder, "index")}
        git("read-tree", tree or "--empty", cwd=places.top, env=index)
        put_entries(places, entries, env=index)
        return git("write-tree", cwd=places.top, env=index).decode("ascii").strip()
