"""``git theta commit``: commit what is staged, with metrics."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from theta_nb.errors import ThetaError
from theta_nb.git.commits import commit_staged, message_with_metrics, metrics_in
from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git, git_text
from theta_nb.git.tracked import filter_of

__all__ = ["CommitResult", "commit"]


@dataclass(frozen=True, slots=True)
class CommitResult:
    """A commit that was made.

    Parameters
    ----------
    id
        Full commit id.
    branch
        Short name of the branch; empty if HEAD is detached.
    subject
        First line of the message.
    metrics
        Numbers by name that the commit carries.
    checkpoints
        Tracked files that it changed, relative to the top of the work tree.
    """

    id: str
    branch: str
    subject: str
    metrics: Mapping[str, float]
    checkpoints: tuple[str, ...]


def commit(places: Places, messages: Sequence[str], metrics: Mapping[str, float] | None = None) -> CommitResult:
    """Commit the index, hooks included.

    Parameters
    ----------
    places
        The repository.
    messages
        Paragraphs of the message.
    metrics
        Numbers by name, kept as trailers of the message (``Theta-Metric: val_loss=0.31``).

    Raises
    ------
    ThetaError
        If there is nothing to commit, a hook refuses, or a metric is no number.
    """
    if places.work_tree is None:
        raise ThetaError("there is no work tree here", hint="Run it in a clone that has one.")
    text = message_with_metrics("\n\n".join(message.strip("\n") for message in messages), metrics)
    try:
        oid = commit_staged(places, text)
    except GitError as error:
        raise _explained(places, error) from error
    try:
        branch = git_text("symbolic-ref", "--quiet", "--short", "HEAD", cwd=places.top)
    except GitError:
        branch = ""
    # What a hook made of the message counts.
    message = git_text("log", "-1", "--no-show-signature", "--format=%B", oid, cwd=places.top)
    return CommitResult(oid, branch, message.partition("\n")[0], metrics_in(message), _checkpoints(places, oid))


def _explained(places: Places, error: GitError) -> GitError:
    staged = git("diff", "--cached", "--name-only", "--no-ext-diff", "-z", cwd=places.top)
    if staged:
        return error
    return GitError("nothing is staged to commit", returncode=error.returncode, hint="Run 'git theta add PATH' first.")


def _checkpoints(places: Places, oid: str) -> tuple[str, ...]:
    options = ("-r", "--diff-merges=first-parent", "--root", "--no-commit-id", "--name-only", "-z")
    out = git("diff-tree", *options, oid, cwd=places.top)
    names = [os.fsdecode(name) for name in out.split(b"\0") if name]
    filters = filter_of(places, names)
    return tuple(name for name in names if filters.get(name) == "theta")
