"""Which checkpoints differ between two trees, the index and the work tree: git is asked, and nothing is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from theta_nb.git.attributes import filters_of
from theta_nb.git.places import Places
from theta_nb.git.process import git
from theta_nb.git.tracked import filter_of, resolve

__all__ = ["ChangedPath", "changed_paths"]

INDEX = ""
"""Stands for the index among revisions."""


@dataclass(frozen=True, slots=True)
class ChangedPath:
    """A checkpoint that differs.

    Parameters
    ----------
    old, new
        Its path on either side, relative to the top of the work tree; another one where it was renamed, and the same
        one where it exists on one side only.
    both
        Whether it exists on both sides.
    """

    old: str
    new: str
    both: bool = True


def changed_paths(places: Places, old: str, new: str | None, pathspecs: Sequence[str] = ()) -> list[ChangedPath]:
    """Tracked files that differ, sorted by path.

    Parameters
    ----------
    places
        The repository.
    old
        A commit, or ``""`` for the index.
    new
        A commit, ``""`` for the index, or ``None`` for the work tree, where whatever has another time or size than the
        index says counts as different.
    pathspecs
        Relative to the current directory; everything by default.

    Raises
    ------
    GitError
        If a commit does not exist or a pathspec leaves the repository.
    """
    words = git(*_command(places, old, new), "--", *pathspecs, cwd=places.cwd if pathspecs else places.top)
    found = _parse(words)
    if any(not change.both for change in found) and (pathspecs or new is None):
        found = _renamed(found, places, old, new)
    # In a bare repository only the commit itself says what is tracked.
    paths = [change.new for change in found]
    if places.work_tree is not None:
        filters = filter_of(places, paths)
    else:
        filters = filters_of(paths, places, revision=resolve(new or old, places.cwd)) if paths else {}
    return sorted((c for c in found if filters.get(c.new) == "theta"), key=lambda change: change.new)


def _renamed(found: list[ChangedPath], places: Places, old: str, new: str | None) -> list[ChangedPath]:
    """The same, with both names of what was renamed: git, told one of them by a pathspec, sees a new or a removed file.

    In the work tree git could tell only by cleaning the files, so what counts there is a rename that is staged.
    """
    if old == INDEX and new is None:
        return found
    words = git(*_command(places, old, INDEX if new is None else new), cwd=places.top)
    renames = [change for change in _parse(words) if change.old != change.new]
    lonely = {change.new for change in found if not change.both}
    joined = {change: None for change in renames if change.old in lonely or change.new in lonely}
    taken = {name for change in joined for name in (change.old, change.new)}
    return [*joined, *(change for change in found if change.both or change.new not in taken)]


def _command(places: Places, old: str, new: str | None) -> list[str]:
    options = ["-z", "--raw", "--no-abbrev", "--no-ext-diff", "--no-textconv", "--no-color", "--no-relative"]
    if new is not None and old != INDEX and new != INDEX:
        return ["diff-tree", "-r", "-M", *options, resolve(old, places.cwd), resolve(new, places.cwd)]
    if new is None and old == INDEX:
        return ["diff-files", *options]
    if new is None:
        return ["diff-index", *options, resolve(old, places.cwd)]
    # From the index to a commit: the same files as from the commit to the index.
    backwards = ["-R"] if old == INDEX else []
    return ["diff-index", "--cached", "-M", *backwards, *options, resolve(old or new, places.cwd)]


def _parse(out: bytes) -> list[ChangedPath]:
    found: dict[ChangedPath, None] = {}
    words = iter(out.split(b"\0"))
    for record in words:
        if not record.startswith(b":"):
            continue
        old_mode, new_mode, _, _, status = record[1:].split(b" ")
        old = os.fsdecode(next(words))
        new = os.fsdecode(next(words)) if status[:1] in (b"R", b"C") else old
        # Neither side may be a link or a submodule: filters see files only. An absent side has mode 0.
        modes = (old_mode, new_mode)
        if all(mode.startswith((b"100", b"000")) for mode in modes):
            found[ChangedPath(old, new, both=not any(mode.startswith(b"000") for mode in modes))] = None
    return list(found)
