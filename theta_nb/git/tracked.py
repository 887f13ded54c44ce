"""Which paths of the index or of a commit the theta filter handles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git, git_text

__all__ = [
    "SKIP_WORKTREE",
    "TrackedBlob",
    "filter_of",
    "resolve",
    "tracked_in_commit",
    "tracked_in_index",
    "untracked_checkpoints",
]

SKIP_WORKTREE = "S"
"""What ``git ls-files -t`` writes before an entry that a sparse checkout leaves out of the work tree."""


@dataclass(frozen=True, slots=True)
class TrackedBlob:
    """A file that the theta filter handles.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    oid
        Blob id.
    executable
        Whether the file has the executable bit.
    in_index
        Whether the index holds this blob at this path.
    stage
        0, or the stage of an unmerged entry.
    sparse
        Whether a sparse checkout leaves the file out of the work tree.
    """

    path: str
    oid: str
    executable: bool = False
    in_index: bool = True
    stage: int = 0
    sparse: bool = False


def filter_of(places: Places, paths: Iterable[str], *, cached: bool = False) -> dict[str, str]:
    """Value of the attribute ``filter`` of each path (``"unspecified"`` where it has none), as git sees it."""
    names = b"".join(os.fsencode(path) + b"\0" for path in paths)
    if not names:
        return {}
    flags = ["--cached"] if cached or places.work_tree is None else []
    out = git("check-attr", *flags, "-z", "--stdin", "filter", cwd=places.top, data=names).split(b"\0")
    return {os.fsdecode(out[i]): os.fsdecode(out[i + 2]) for i in range(0, len(out) - 2, 3)}


def tracked_in_index(places: Places, pathspecs: Sequence[str] = ()) -> list[TrackedBlob]:
    """Tracked files of the index; an unmerged one appears with each of its stages.

    Raises
    ------
    GitError
        If a pathspec leaves the repository.
    """
    # From the top without a pathspec, not with one for the top: GIT_LITERAL_PATHSPECS may be set.
    cwd = places.cwd if pathspecs else places.top
    out = git("ls-files", "--stage", "-t", "--full-name", "-z", "--", *pathspecs, cwd=cwd)
    blobs = []
    for record in out.split(b"\0")[:-1]:
        info, _, name = record.partition(b"\t")
        tag, mode, oid, stage = info.decode("ascii").split(" ")
        if mode.startswith("100"):
            blobs.append(
                TrackedBlob(os.fsdecode(name), oid, mode == "100755", stage=int(stage), sparse=tag == SKIP_WORKTREE)
            )
    return _only_tracked(places, blobs)


def tracked_in_commit(places: Places, revision: str, pathspecs: Sequence[str] = ()) -> list[TrackedBlob]:
    """Tracked files of a commit; attributes are those of the work tree.

    Raises
    ------
    GitError
        If the revision does not exist; the message is git's.
    """
    commit = resolve(revision, places.top)
    wanted = None
    if pathspecs:
        # Unlike ls-tree this takes every kind of pathspec; it also lists what only the index has.
        listed = git("ls-files", f"--with-tree={commit}", "--full-name", "-z", "--", *pathspecs, cwd=places.cwd)
        wanted = set(listed.split(b"\0"))
    out = git("ls-tree", "-r", "-z", "--full-tree", commit, cwd=places.top)
    index = {blob.path: blob for blob in tracked_in_index(places) if blob.stage == 0}
    blobs = []
    for record in out.split(b"\0")[:-1]:
        info, _, name = record.partition(b"\t")
        mode, _, oid = info.decode("ascii").split(" ")
        if mode.startswith("100") and (wanted is None or name in wanted):
            path = os.fsdecode(name)
            entry = index.get(path)
            in_index, sparse = (False, False) if entry is None else (entry.oid == oid, entry.sparse)
            blobs.append(TrackedBlob(path, oid, mode == "100755", in_index=in_index, sparse=sparse))
    return _only_tracked(places, blobs)


def resolve(revision: str, cwd: str | None = None) -> str:
    """Id of the commit that a revision names.

    Raises
    ------
    GitError
        If there is none; a revision never becomes an option.
    """
    try:
        if revision.startswith(":/"):  # what is appended to it would be searched for
            revision = git_text("rev-parse", "--verify", "--quiet", "--end-of-options", revision, cwd=cwd)
        out = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", cwd=cwd)
    except GitError as error:
        raise GitError(
            f"{revision!r} is no commit here", returncode=error.returncode, hint="'git log' shows the commits."
        ) from error
    return out.decode("ascii").strip()


def untracked_checkpoints(places: Places, pathspecs: Sequence[str] = ()) -> list[str]:
    """Files of the work tree that the filter would handle and git does not have yet."""
    out = git(
        "ls-files",
        "--others",
        "--exclude-standard",
        "--full-name",
        "-z",
        "--",
        *pathspecs,
        cwd=places.cwd if pathspecs else places.top,
    )
    names = [os.fsdecode(name) for name in out.split(b"\0") if name]
    filters = filter_of(places, names)
    return [name for name in names if filters.get(name) == "theta"]


def _only_tracked(places: Places, blobs: Sequence[TrackedBlob]) -> list[TrackedBlob]:
    filters = filter_of(places, dict.fromkeys(blob.path for blob in blobs))
    return [blob for blob in blobs if filters.get(blob.path) == "theta"]
