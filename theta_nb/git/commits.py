"""Make commits: of what is staged, or of one blob without touching work tree or hooks."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Mapping
from numbers import Real

from theta_nb.errors import NotTrackedError, ThetaError
from theta_nb.git.attributes import FILTER, filters_of
from theta_nb.git.cat_file import CatFile
from theta_nb.git.index import index_entry, put_entries, tree_with
from theta_nb.git.places import Places
from theta_nb.git.process import LITERAL, GitError, git, git_ok, git_text

__all__ = ["METRIC_TRAILER", "commit_blob", "commit_staged", "message_with_metrics", "metrics_in", "parent_of"]

METRIC_TRAILER = "Theta-Metric"
"""Key of the commit-message trailers that hold metrics, ``Theta-Metric: val_loss=0.31``."""

_METRIC_NAME = re.compile(r"[^\s=][^=\n\r]*")
_METRIC_LINE = re.compile(rf"^{METRIC_TRAILER}: ([^=\n]+)=(\S+)$", re.MULTILINE)


def message_with_metrics(message: str, metrics: Mapping[str, float] | None) -> str:
    """Commit message with one trailer per metric.

    Raises
    ------
    ThetaError
        If the message is empty, or a metric's name or value cannot stand in a trailer.

    Examples
    --------
    >>> print(message_with_metrics("Lower the rate", {"val_loss": 0.31}))
    Lower the rate
    <BLANKLINE>
    Theta-Metric: val_loss=0.31
    """
    if not message.strip():
        raise ThetaError("the commit message is empty")
    lines = []
    for name, value in (metrics or {}).items():
        if not isinstance(name, str) or not _METRIC_NAME.fullmatch(name) or name != name.strip():
            raise ThetaError(f"{name!r} is not the name of a metric", hint="Use text without '=' and line breaks.")
        lines.append(f"{METRIC_TRAILER}: {name}={_number(name, value)}")
    if not lines:
        return message
    return message.rstrip("\n") + "\n\n" + "\n".join(lines)


def _number(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, Real):
        item = getattr(value, "item", None)  # NumPy scalars and 0-d tensors
        with contextlib.suppress(ValueError, RuntimeError):  # an array of several numbers is none
            value = item() if callable(item) else value
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(float(value)):
        raise ThetaError(f"the metric {name!r} is {value!r}, not a number")
    return repr(int(value)) if isinstance(value, int) else repr(float(value))


def metrics_in(message: str) -> dict[str, float]:
    r"""Metrics that a commit message holds; what is malformed is left out.

    Examples
    --------
    >>> metrics_in("Train\n\nTheta-Metric: val_loss=0.31\n")
    {'val_loss': 0.31}
    """
    found = {}
    for name, text in _METRIC_LINE.findall(message):
        try:
            found[name] = float(text)
        except ValueError:
            continue
    return found


def commit_staged(places: Places, message: str) -> str:
    """Commit the index, with hooks; returns the commit's id.

    Raises
    ------
    GitError
        If there is nothing to commit, a hook refuses, or nobody is configured as author.
    """
    git("commit", "--quiet", "--cleanup=verbatim", "--file=-", cwd=places.top, data=message.encode("utf-8"))
    return git_text("rev-parse", "HEAD", cwd=places.top)


def commit_blob(places: Places, path: str, content: bytes, message: str, *, branch: str | None = None) -> str:
    """Commit new content of one path on top of a branch, leaving the work tree alone; returns the commit's id.

    Parameters
    ----------
    places
        The repository, which may be bare.
    path
        Relative to the top. Where the line that tracks it is only staged yet, its ``.gitattributes`` is committed, too.
    content
        Of the blob, as git stores it.
    message
        Commit message.
    branch
        Short name of the branch, made from HEAD if it does not exist; the current one by default, whose index entry
        for ``path`` is then updated too. Hooks do not run.

    Raises
    ------
    NotTrackedError
        If the attributes of the new commit do not track the path.
    ThetaError
        If other content of ``path`` is staged, the branch is checked out in another work tree, or it moved
        meanwhile: nothing is committed then.
    """
    ref = f"refs/heads/{branch}" if branch is not None else "HEAD"
    if branch is not None and not git_ok("check-ref-format", "--branch", branch, cwd=places.top):
        raise ThetaError(f"{branch!r} cannot be the name of a branch")
    tip = _commit(ref, places)
    current = branch is None or _current_branch(places) == ref
    if current and places.work_tree is not None:
        _refuse_staged(places, path)
    elif not current:
        _refuse_elsewhere(places, ref)
    parent = parent_of(places, branch)
    blob = git("hash-object", "-w", "--stdin", "--no-filters", cwd=places.top, data=content).decode("ascii").strip()
    entry = index_entry(path, blob)
    tree = tree_with(places, parent, entry)
    if not _tracks(places, tree, path):
        # The line may only be staged yet. Without it a checkout of the new commit would give the manifest.
        staged = _staged_attributes(places, path) if current or tip is None else b""
        tree = tree_with(places, parent, staged + entry)
        if not _tracks(places, tree, path):
            raise NotTrackedError(
                f"{path} is not tracked on {branch or 'the current branch'}",
                hint="Commit the .gitattributes that tracks it there, then save again.",
            )
    parents = ["-p", parent] if parent else []
    commit = git("commit-tree", tree, *parents, "-F", "-", cwd=places.top, data=message.encode("utf-8"))
    name = commit.decode("ascii").strip()
    # With the old value git refuses if someone else moved the branch meanwhile.
    try:
        git("update-ref", "-m", f"theta: {message.splitlines()[0]}", ref, name, tip or "0" * len(name), cwd=places.top)
    except GitError as error:
        if _commit(ref, places) == tip:
            raise
        raise GitError(
            f"{branch or 'the current branch'} moved while {path} was saved",
            returncode=error.returncode,
            hint="Save it again, on top of what is there now.",
        ) from error
    if current and places.work_tree is not None:
        put_entries(places, entry)
    return name


def parent_of(places: Places, branch: str | None) -> str | None:
    """Id of the commit that the next one on a branch stands on: its tip, or HEAD for a new branch; ``None`` if none."""
    tip = _commit(f"refs/heads/{branch}", places) if branch is not None else None
    return tip or _commit("HEAD", places)


def _tracks(places: Places, tree: str, path: str) -> bool:
    return filters_of([path], places, revision=tree)[path] == FILTER


def _staged_attributes(places: Places, path: str) -> bytes:
    """Entries of the index for the attributes files that count for a path."""
    if places.work_tree is None:
        return b""
    folders = [""]
    for part in path.split("/")[:-1]:
        folders.append(f"{folders[-1]}{part}/")
    names = [f"{folder}.gitattributes" for folder in folders]
    return git("ls-files", "--stage", "-z", "--", *names, cwd=places.top, env=LITERAL)


def _commit(revision: str, places: Places) -> str | None:
    try:
        return git_text(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", cwd=places.top
        )
    except GitError:
        return None


def _current_branch(places: Places) -> str | None:
    try:
        return git_text("symbolic-ref", "--quiet", "HEAD", cwd=places.top)
    except GitError:
        return None


def _refuse_elsewhere(places: Places, ref: str) -> None:
    """Refuse to move a branch under the feet of another work tree, whose files would then look like a revert."""
    work_tree = ""
    for line in git_text("worktree", "list", "--porcelain", cwd=places.top).split("\n"):
        key, _, value = line.partition(" ")
        if key == "worktree":
            work_tree = value
        elif key == "branch" and value == ref and os.path.realpath(work_tree) != os.path.realpath(places.top):
            raise ThetaError(
                f"{ref.removeprefix('refs/heads/')} is checked out in {work_tree}", hint="Save it from there."
            )


def _refuse_staged(places: Places, path: str) -> None:
    out = git("ls-files", "--stage", "-z", "--", path, cwd=places.top, env=LITERAL)
    entries = [record.partition(b"\t")[0].split() for record in out.split(b"\0") if record]
    cat_file = CatFile(places.top)
    try:
        found = cat_file.size(f"HEAD:{path}")
    finally:
        cat_file.close()
    staged = [oid.decode("ascii") for _, oid, _ in entries]
    if staged != ([found[0]] if found else []):
        raise ThetaError(
            f"other content of {path} is staged", hint="Commit it or 'git restore --staged' it, then save again."
        )
