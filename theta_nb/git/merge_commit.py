"""Keep merged checkpoints in a merge commit with all its parents.

Nothing is touched before everything is made: the objects, the trees and the commit exist when the branch moves, and it
moves by a fast-forward, which git refuses or does as a whole, work tree and index included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import ThetaError, listed
from theta_nb.git.commits import message_with_metrics
from theta_nb.git.index import index_entry, tree_with
from theta_nb.git.merge_plan import MergePlan, default_message
from theta_nb.git.merge_result import make_result
from theta_nb.git.merge_trailers import MERGE_TRAILER, with_trailers
from theta_nb.git.merge_trees import merge_trees
from theta_nb.git.places import Places
from theta_nb.git.process import LITERAL, GitError, git, git_ok, git_text

__all__ = [
    "MergeCommitter",
    "commit_merge",
    "merged_tree",
    "message_of",
    "require_calm",
    "require_new_branch",
    "under_way",
]

Progress = Callable[[int, int], None]

_UNDER_WAY = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}


def under_way(places: Places) -> str:
    """The operation that git has begun and not ended (``"merge"``, ``"rebase"``, …); empty if there is none."""
    # A rebase picks commits: while it lasts, it is what has to be continued.
    order = sorted(_UNDER_WAY.items(), key=lambda item: item[1] != "rebase")
    return next((what for name, what in order if os.path.exists(os.path.join(places.git_dir, name))), "")


def require_calm(places: Places, paths: Sequence[str] = ()) -> None:
    """Refuse to merge into a state that is not committed.

    Parameters
    ----------
    places
        The repository.
    paths
        Checkpoints that will be written.

    Raises
    ------
    ThetaError
        If there is no work tree, another operation is under way, something is staged, or a path has changes.
    """
    if places.work_tree is None:
        raise ThetaError("there is no work tree here", hint="Merge in a clone that has one.")
    what = under_way(places)
    if what:
        how = "'git theta merge --continue' or '--abort'" if what == "merge" else f"'git {what} --continue'"
        raise ThetaError(f"a {what} is under way", hint=f"End it first, with {how}.")
    if not git_ok("diff-index", "--cached", "--quiet", "HEAD", "--", cwd=places.top):
        raise ThetaError("something is staged that is not committed", hint="Commit it or 'git stash' it first.")
    if paths:
        out = git("status", "--porcelain", "-z", "--untracked-files=no", "--", *paths, cwd=places.top, env=LITERAL)
        changed = [os.fsdecode(record[3:]) for record in out.split(b"\0") if record]
        if changed:
            raise ThetaError(f"{changed[0]} has changes that are not committed", hint="Commit or 'git stash' them.")


@dataclass(frozen=True)
class MergeCommitter:
    """Commits a session as the merge that it was opened for.

    Parameters
    ----------
    plan
        The merge.
    path
        Where the result goes.
    """

    plan: MergePlan
    path: str

    def commit(self, session: MergeSession, message: str, *, branch: str = "", progress: Progress | None = None) -> str:
        """Make the merge commit, on a new branch if one is named, and return its name; on failure nothing changed."""
        return commit_merge(self.plan, {self.path: session}, message, branch=branch, progress=progress)


def commit_merge(
    plan: MergePlan,
    sessions: Mapping[str, MergeSession],
    message: str = "",
    *,
    branch: str = "",
    progress: Progress | None = None,
) -> str:
    """Make one merge commit of all parents and move the branch to it.

    Parameters
    ----------
    plan
        The merge.
    sessions
        Decided sessions by the path of their result; git merges everything else.
    message
        Of the commit; what git would say by default.
    branch
        A new branch to be made for it: HEAD and the work tree stay as they are, whatever their state.
    progress
        Told how many parameters of the current checkpoint are computed.

    Returns
    -------
    str
        The commit's id. Hooks that see messages do not run, ``post-merge`` does.

    Raises
    ------
    MergeError
        If choices are open.
    ThetaError
        If HEAD moved meanwhile, the state is not committed, or git cannot merge another file by itself. Nothing has
        changed then.
    """
    places = plan.places
    for session in sessions.values():
        session.require_closed()
    if branch:
        require_new_branch(places, branch)
    else:
        require_calm(places, list(sessions))
        _require_head(plan)
    tree = merged_tree(plan, frozenset(sessions))
    entries = []
    for path, session in sessions.items():
        with make_result(places, session, path, progress=progress) as result:
            blob = git("hash-object", "-w", "--stdin", "--no-filters", cwd=places.top, data=result.text)
        entries.append(_entry(places, tree, plan.head, path, blob.decode("ascii").strip()))
    tree = tree_with(places, tree, b"".join(entries))
    parents = [word for commit in (plan.head, *plan.commits) for word in ("-p", commit)]
    text = message_of(message or default_message(plan), sessions)
    commit = git("commit-tree", tree, *parents, "-F", "-", cwd=places.top, data=text).decode("ascii").strip()
    if branch:
        git("branch", "--no-track", branch, commit, cwd=places.top)
        return commit
    _require_head(plan)
    _fast_forward(plan, commit)
    return commit


def require_new_branch(places: Places, branch: str) -> None:
    """Refuse a name that no branch can have, or one has already.

    Raises
    ------
    ThetaError
        If it is one.
    """
    if not git_ok("check-ref-format", "--branch", branch, cwd=places.top):
        raise ThetaError(f"{branch!r} cannot be the name of a branch")
    if git_ok("show-ref", "--verify", "--quiet", f"refs/heads/{branch}", cwd=places.top):
        raise ThetaError(f"there is a branch {branch!r} already", hint="Choose another name.")


def _require_head(plan: MergePlan) -> None:
    if git_text("rev-parse", "HEAD", cwd=plan.places.top) != plan.head:
        raise ThetaError("HEAD is another commit than when the merge was begun", hint="Begin the merge again.")


def message_of(message: str, sessions: Mapping[str, MergeSession]) -> bytes:
    """The message with trailers: how each checkpoint was merged, and what was measured of just this result."""
    metrics: dict[str, float] = {}
    for session in sessions.values():
        for one in session.tries.having(session.settings):
            metrics.update(one.metrics)
    text = message_with_metrics(message, None)
    said = [f"{MERGE_TRAILER}: {path}: {session.recipe().short()}" for path, session in sessions.items()]
    for name, value in metrics.items():
        with suppress(ThetaError):  # a metric that is NaN, or has a name that no trailer can hold, is no reason to stop
            said.append(message_with_metrics("x", {name: value}).partition("\n\n")[2])
    return with_trailers(text.encode("utf-8", "surrogateescape"), said)


# --- trees ------------------------------------------------------------------------------------------------------------


def merged_tree(plan: MergePlan, ours: frozenset[str]) -> str:
    """Tree of the merge as git makes it, one commit after the other.

    Conflicts in the paths that are ``ours`` do not matter: what comes there is known already.
    """
    places, current = plan.places, plan.head
    tree = ""
    for index, commit in enumerate(plan.commits):
        tree = _merge_trees(plan, current, commit, ours)
        if index + 1 < len(plan.commits):
            step = ("-p", current, "-p", commit)
            current = git("commit-tree", tree, *step, "-m", "step", cwd=places.top).decode("ascii").strip()
    return tree


def _merge_trees(plan: MergePlan, left: str, right: str, ours: frozenset[str]) -> str:
    merged = merge_trees(plan.places, left, right, ours)
    conflicts = sorted(merged.conflicts.keys() - ours)
    if conflicts:
        raise ThetaError(
            f"git cannot merge {listed(conflicts)} by itself",
            hint="Run 'git merge', resolve that, then 'git theta merge --continue' merges the checkpoints."
            if len(plan.commits) == 1
            else "git gives up such merges of several commits: merge them one after the other.",
        )
    return merged.tree


def _entry(places: Places, tree: str, head: str, path: str, blob: str) -> bytes:
    """The path's entry, with the mode that it has."""
    for where in (tree, head):
        out = git("ls-tree", "-z", "--full-tree", where, "--", path, cwd=places.top, env=LITERAL)
        if out:
            return index_entry(path, blob, executable=out.startswith(b"100755 "))
    return index_entry(path, blob)


def _fast_forward(plan: MergePlan, commit: str) -> None:
    action = {"GIT_REFLOG_ACTION": f"theta merge {' '.join(plan.words)}"}
    try:
        git("merge", "--ff-only", "--no-stat", "--quiet", commit, cwd=plan.places.top, env=action)
    except GitError as error:
        raise GitError(
            f"the merge is made, but git does not move to it: {error.message}",
            returncode=error.returncode,
            hint=f"When that is out of the way, 'git merge --ff-only {commit[:12]}' does.",
        ) from error
