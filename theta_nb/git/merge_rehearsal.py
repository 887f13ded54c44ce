"""What keeping a merge would do, and what stands in its way; nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError, ThetaError
from theta_nb.git.merge_commit import MergeCommitter, merged_tree, require_calm, require_new_branch
from theta_nb.git.merge_plan import changed_files, default_message
from theta_nb.git.merge_result import kept_from_theirs, make_result
from theta_nb.git.merge_settle import ConflictCommitter, prepared_message
from theta_nb.git.places import Places
from theta_nb.git.process import git_lines, git_ok, git_text
from theta_nb.git.unmerged import unmerged_paths

__all__ = ["Rehearsal", "Surroundings", "commit_line", "places_of", "rehearse", "surroundings"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Surroundings:
    """Where the result of a session goes, as things stand.

    Parameters
    ----------
    path
        The checkpoint.
    branch
        The current branch; empty for a detached HEAD.
    branches
        Names that are taken.
    message
        What git would call the merge.
    problem
        Why the current branch cannot take it now, with what to do about it; empty if it can.
    in_conflict
        Whether the session ends a conflict of git's own merge, which fixes the branch.
    """

    path: str
    branch: str
    branches: tuple[str, ...]
    message: str
    problem: str = ""
    in_conflict: bool = False


@dataclass(frozen=True)
class Rehearsal:
    """What a commit would do.

    Parameters
    ----------
    tensors, changed
        Number of tensors of the result, and of those that are not as in ours.
    nbytes
        Size of the checkpoint file.
    files
        Other files that git merges.
    note
        What a person has to know; may be empty.
    """

    tensors: int
    changed: int
    nbytes: int
    files: tuple[str, ...]
    note: str = ""


def surroundings(session: MergeSession) -> Surroundings:
    """Look at the repository around a session.

    Raises
    ------
    MergeError
        If the session has nowhere to commit to.
    """
    committer = session.committer
    places, path = places_of(session), _path_of(session)
    branch = git_text("symbolic-ref", "--short", "--quiet", "HEAD", cwd=places.top) if _on_a_branch(places) else ""
    branches = tuple(git_lines("for-each-ref", "--format=%(refname:short)", "refs/heads", cwd=places.top))
    if isinstance(committer, ConflictCommitter):
        waiting = unmerged_paths(places)
        problem = "" if path in waiting else f"{path} is in conflict no more. Begin again with '%theta merge'."
        return Surroundings(path, branch, branches, prepared_message(places), problem, in_conflict=True)
    problem = ""
    try:
        require_calm(places, [path])
        _require_same_head(session)
    except ThetaError as error:
        problem = str(error)
    return Surroundings(path, branch, branches, default_message(_plan_of(session).plan), problem)


def rehearse(session: MergeSession, *, branch: str = "", progress: Progress | None = None) -> Rehearsal:
    """Compute the result and the merge of the other files, and keep nothing of it.

    Parameters
    ----------
    session
        With no choice open.
    branch
        New branch that it would go to; by default the current one.
    progress
        Told how many parameters are computed.

    Raises
    ------
    MergeError
        If choices are open, or the session has nowhere to commit to.
    ThetaError
        If something is in the way of the commit; it says what.
    """
    session.require_closed()
    places, path = places_of(session), _path_of(session)
    files: tuple[str, ...] = ()
    if not isinstance(session.committer, ConflictCommitter):
        committer = _plan_of(session)
        if branch:
            require_new_branch(places, branch)
        else:
            require_calm(places, [path])
            _require_same_head(session)
        tree = merged_tree(committer.plan, frozenset([path]))
        files = tuple(sorted(changed_files(places, committer.plan.head, tree) - {path}))
    with make_result(places, session, path, write=False, progress=progress) as result:
        entries, ours = result.manifest.entries, session.inputs[0].tensors
        changed = sum(name not in ours or ours[name].digest != entry.digest for name, entry in entries.items())
        gone = len(ours.keys() - entries.keys())
        nbytes = result.nbytes
    return Rehearsal(len(entries), changed + gone, nbytes, files, kept_from_theirs(session))


def commit_line(session: MergeSession, commit: str) -> tuple[str, list[str]]:
    """Subject of a commit, and its parents."""
    line = git_text("log", "-1", "--no-show-signature", "--format=%P%n%s", commit, cwd=places_of(session).top)
    parents, _, subject = line.partition("\n")
    return subject, parents.split()


def places_of(session: MergeSession) -> Places:
    """The repository that a session keeps its result in.

    Raises
    ------
    MergeError
        If it keeps it elsewhere, or nowhere.
    """
    committer = session.committer
    return committer.places if isinstance(committer, ConflictCommitter) else _plan_of(session).plan.places


def _path_of(session: MergeSession) -> str:
    committer = session.committer
    return committer.path if isinstance(committer, ConflictCommitter) else _plan_of(session).path


def _plan_of(session: MergeSession) -> MergeCommitter:
    committer = session.committer
    if not isinstance(committer, MergeCommitter):
        raise MergeError("this session keeps its result in a way of its own", hint="Use session.commit(message).")
    return committer


def _require_same_head(session: MergeSession) -> None:
    plan = _plan_of(session).plan
    if git_text("rev-parse", "HEAD", cwd=plan.places.top) != plan.head:
        raise ThetaError(
            f"HEAD is no longer {plan.head[:7]}, with which this merge was begun",
            hint="Commit to a new branch, or save this session and open the merge again.",
        )


def _on_a_branch(places: Places) -> bool:
    return git_ok("symbolic-ref", "--quiet", "HEAD", cwd=places.top)
