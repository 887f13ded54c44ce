"""Merges of whole trees by ``git merge-tree``, which writes nothing but objects and tells the stages of conflicts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from theta_nb.git.places import Places
from theta_nb.git.process import GitError, child_environment, run_gently

__all__ = ["MergedTree", "merge_trees", "virtual_ancestor"]


@dataclass(frozen=True)
class MergedTree:
    """What git makes of two commits.

    Parameters
    ----------
    tree
        Id of the tree.
    conflicts
        Blob ids by stage (1 ancestor, 2 ours, 3 theirs) of every path in conflict.
    """

    tree: str
    conflicts: Mapping[str, Mapping[int, str]]


def merge_trees(places: Places, left: str, right: str, decided: Iterable[str] = ()) -> MergedTree:
    """Merge two commits as git does.

    Parameters
    ----------
    places
        The repository.
    left, right
        The commits.
    decided
        Paths for which our merge driver has nothing to do or to ask; they come out in conflict.

    Raises
    ------
    GitError
        If git cannot.
    """
    environment = child_environment({"GIT_TERMINAL_PROMPT": "0", "GIT_THETA_MERGE_DECIDED": "\n".join(decided)})
    words = ["merge-tree", "--write-tree", "--allow-unrelated-histories", "--no-messages", "-z"]
    result = run_gently(["git", *words, left, right], cwd=places.top, env=environment)
    if result.returncode not in (0, 1):
        said = result.stderr.decode("utf-8", "replace").strip()
        hint = "Merging beside checkpoints needs git 2.38." if "usage" in said else ""
        raise GitError(f"git cannot merge {right[:10]}: {said}", returncode=result.returncode, hint=hint)
    tree, *records = result.stdout.split(b"\0")
    conflicts: dict[str, dict[int, str]] = {}
    for record in filter(None, records):
        info, _, name = record.partition(b"\t")
        _, blob, stage = info.decode("ascii").split(" ")
        conflicts.setdefault(os.fsdecode(name), {})[int(stage)] = blob
    return MergedTree(tree.decode("ascii"), conflicts)


def virtual_ancestor(places: Places, left: str, right: str, path: str) -> str | None:
    """Blob of the ancestor that git makes up where two commits have several best common ancestors (a criss-cross).

    No commit has that blob, so it does not travel with clones, and git deletes it after a while. It follows from the
    two commits: making it up again gives the same, and writes it.

    Parameters
    ----------
    places
        The repository.
    left, right
        The commits.
    path
        A file that both changed.

    Returns
    -------
    str or None
        ``None`` if the file has no ancestor, or is not changed by both.
    """
    return merge_trees(places, left, right, [path]).conflicts.get(path, {}).get(1)
