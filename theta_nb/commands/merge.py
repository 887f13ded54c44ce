"""``git theta merge``: merge commits, checkpoints by parameter, and end the conflicts that git left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from theta_nb.commands.merge_wishes import Wishes
from theta_nb.engine.merging.preview import Preview
from theta_nb.engine.merging.session import Committer, MergeSession
from theta_nb.errors import MergeError, ThetaError, listed
from theta_nb.git.asking import open_terminal
from theta_nb.git.merge_commit import MergeCommitter, commit_merge, require_calm, under_way
from theta_nb.git.merge_inputs import open_session, statistics_of_data
from theta_nb.git.merge_menu import MergeMenu
from theta_nb.git.merge_plan import MergePlan, Versions, changed_files, plan_merge
from theta_nb.git.merge_result import kept_from_theirs
from theta_nb.git.merge_settle import ConflictCommitter, commit_prepared, require_index, settle
from theta_nb.git.places import Places
from theta_nb.git.process import git, git_ok, git_text
from theta_nb.git.tracked import tracked_in_commit
from theta_nb.git.unmerged import unmerged_checkpoints, unmerged_paths, versions_in_conflict

__all__ = [
    "MergeResult",
    "MergedCheckpoint",
    "abort_merge",
    "contested_checkpoints",
    "continue_merge",
    "described",
    "is_current",
    "merge",
    "open_conflicts",
    "open_merge",
]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MergedCheckpoint:
    """A checkpoint that was merged.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    recipe
        Short form of what was chosen.
    states, choices
        Numbers of parameters, by what the sides did and by what was done.
    note
        What a person has to know; may be empty.
    preview
        What comes out, of a dry run.
    """

    path: str
    recipe: str
    states: Mapping[str, int]
    choices: Mapping[str, int]
    note: str = ""
    preview: Preview | None = None


@dataclass(frozen=True)
class MergeResult:
    """What a merge did.

    Parameters
    ----------
    action
        ``"merged"``, ``"fast-forwarded"``, ``"up to date"``, ``"staged"`` (a conflict is resolved and not committed),
        ``"committed"`` (all had been resolved before), ``"aborted"`` or ``"preview"``.
    commit
        Id of the merge commit; empty where none was made.
    subject
        First line of its message.
    checkpoints
        Those that were merged by parameter; git took the others from one side.
    waiting
        Files that are still in conflict.
    under_way
        What git has to continue: ``"merge"``, ``"rebase"``, …; empty if nothing.
    """

    action: str
    commit: str = ""
    subject: str = ""
    checkpoints: tuple[MergedCheckpoint, ...] = ()
    waiting: tuple[str, ...] = ()
    under_way: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        form = asdict(replace(self, checkpoints=tuple(replace(one, preview=None) for one in self.checkpoints)))
        for shown, one in zip(form["checkpoints"], self.checkpoints, strict=True):
            shown["preview"] = one.preview and one.preview.to_dict()
        return form


def merge(
    places: Places,
    words: Sequence[str],
    paths: Sequence[str] = (),
    *,
    wishes: Wishes | None = None,
    message: str = "",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> MergeResult:
    """Merge commits into HEAD.

    Parameters
    ----------
    places
        The repository.
    words
        Commits to be merged; several make an octopus merge.
    paths
        Checkpoints that are merged by parameter, relative to the top; by default those with several new versions.
    wishes
        How; by default as it is configured, or as somebody says at the terminal.
    message
        Of the commit; what git would say by default.
    dry_run
        Whether only to show what would come out.
    progress
        Told how many parameters are computed.

    Raises
    ------
    ThetaError
        If the state is not committed, choices are open and there is nobody to ask, or git cannot merge another file
        by itself. Nothing has changed then.
    """
    wishes = wishes or Wishes()
    plan = plan_merge(places, words)
    if plan.up_to_date:
        return MergeResult("up to date")
    if not dry_run:
        require_calm(places, paths)
    if plan.fast_forward and not wishes.explicit and not paths and not dry_run:
        git("merge", "--ff-only", "--quiet", plan.commits[0], cwd=places.top)
        return MergeResult("fast-forwarded", plan.commits[0], _subject(places, plan.commits[0]))
    sessions = {}
    for versions in _merged_by_parameter(plan, paths, everything=wishes.explicit):
        session = _opened(plan, versions, wishes)
        wishes.apply(session, places, versions.path)
        sessions[versions.path] = session
    if dry_run:
        return MergeResult("preview", checkpoints=_described(sessions, preview=True))
    _decide(sessions)
    commit = commit_merge(plan, sessions, message, progress=progress)
    return MergeResult("merged", commit, _subject(places, commit), _described(sessions))


def open_merge(places: Places, words: Sequence[str], path: str, wishes: Wishes) -> MergeSession:
    """A session of one checkpoint, which ``session.commit(message)`` ends.

    Raises
    ------
    ThetaError
        If the commits are part of HEAD already, or one has no such checkpoint.
    """
    plan = _plan(places, words)
    versions = plan.versions(path).required(plan.words)
    session = _opened(plan, versions, wishes)
    wishes.apply(session, places, versions.path)
    return session


def contested_checkpoints(places: Places, words: Sequence[str]) -> list[str]:
    """Checkpoints of HEAD of which a merge has several new versions.

    Raises
    ------
    ThetaError
        If the commits are part of HEAD already.
    """
    return [versions.path for versions in _merged_by_parameter(_plan(places, words), (), everything=False)]


def _plan(places: Places, words: Sequence[str]) -> MergePlan:
    plan = plan_merge(places, words)
    if plan.up_to_date:
        raise ThetaError(f"{', '.join(words)} is part of HEAD already", hint="There is nothing to merge.")
    return plan


def open_conflicts(places: Places, wishes: Wishes) -> dict[str, MergeSession]:
    """A session for each checkpoint in conflict, by path."""
    sessions = {}
    for path, stages in unmerged_checkpoints(places).items():
        versions = versions_in_conflict(path, stages)
        committer = ConflictCommitter(places, path, stages)
        session = _session(places, versions, committer, wishes)
        wishes.apply(session, places, path)
        sessions[path] = session
    return sessions


def continue_merge(
    places: Places, *, wishes: Wishes | None = None, message: str = "", progress: Progress | None = None
) -> MergeResult:
    """Merge the checkpoints that git left in conflict, and commit if nothing else is open.

    Raises
    ------
    ThetaError
        If there is no such conflict, or choices are open and there is nobody to ask. Nothing has changed then.
    """
    if places.work_tree is None:
        raise ThetaError("there is no work tree here", hint="Merge in a clone that has one.")
    what = under_way(places)
    stages = unmerged_checkpoints(places)
    if not stages:
        others = sorted(unmerged_paths(places))
        if others:
            raise ThetaError(f"no checkpoint is in conflict, but {others[0]} is", hint="Resolve it, then 'git add' it.")
        if what == "merge":  # only the commit is left, such as where a hook refused it
            commit = commit_prepared(places)
            return MergeResult("committed", commit, _subject(places, commit))
        raise ThetaError("no checkpoint is in conflict", hint=f"'git {what} --continue' goes on." if what else "")
    sessions = open_conflicts(places, wishes or Wishes())
    _decide(sessions)
    commit = settle(places, sessions, stages, message, progress=progress)
    left = tuple(sorted(unmerged_paths(places)))
    subject = _subject(places, commit) if commit else ""
    return MergeResult("merged" if commit else "staged", commit, subject, _described(sessions), left, under_way(places))


def abort_merge(places: Places) -> MergeResult:
    """Give up the merge that is under way: HEAD, index and work tree are as before it.

    Raises
    ------
    ThetaError
        If there is none.
    """
    what = under_way(places)
    if what != "merge":
        hint = f"'git {what} --abort' gives up the {what}." if what else ""
        raise ThetaError("no merge is under way", hint=hint)
    require_index(places)
    git("merge", "--abort", cwd=places.top)
    return MergeResult("aborted", subject=_subject(places, "HEAD"))


def described(places: Places, session: MergeSession, path: str) -> MergeResult:
    """What was done, after a session was kept."""
    left = tuple(sorted(unmerged_paths(places)))
    commit = git_text("rev-parse", "HEAD", cwd=places.top)
    done = _described({path: session})
    if under_way(places) or not git_ok("diff", "--cached", "--quiet", cwd=places.top):
        return MergeResult("staged", checkpoints=done, waiting=left, under_way=under_way(places))
    return MergeResult("merged", commit, _subject(places, commit), done)


def is_current(session: MergeSession, places: Places) -> bool:
    """Whether what a session merges is still what HEAD, or the conflict in the index, has."""
    now = {oid for stages in unmerged_paths(places).values() for oid in stages.values()}
    return session.inputs[0].revision in {git_text("rev-parse", "HEAD", cwd=places.top), *now}


def _merged_by_parameter(plan: MergePlan, paths: Sequence[str], *, everything: bool) -> list[Versions]:
    """Checkpoints of which more than one side has a version of its own; git takes the others as they are."""
    if paths:
        return [plan.versions(path).required(plan.words) for path in paths]
    # Of two sides both must have changed it, and git knows at once what ours did.
    mine = changed_files(plan.places, plan.base, plan.head) if plan.base and len(plan.commits) == 1 else None
    found = []
    for blob in tracked_in_commit(plan.places, plan.head):
        if mine is not None and not everything and blob.path not in mine:
            continue
        versions = plan.versions(blob.path)
        if versions.contested or (everything and len({one.blob for one in versions.origins}) > 1):
            found.append(versions)
    return found


def _opened(plan: MergePlan, versions: Versions, wishes: Wishes) -> MergeSession:
    return _session(plan.places, versions, MergeCommitter(plan, versions.path), wishes)


def _session(places: Places, versions: Versions, committer: Committer, wishes: Wishes) -> MergeSession:
    return open_session(
        places,
        versions.path,
        versions.base,
        versions.origins,
        committer=committer,
        statistics=statistics_of_data(places, wishes.statistics),
    )


def _decide(sessions: Mapping[str, MergeSession]) -> None:
    """Have nothing open: ask at the terminal, or refuse."""
    for path, session in sessions.items():
        if not session.open:
            continue
        with open_terminal() as terminal:
            if terminal is not None:
                if MergeMenu(session, path, terminal).run():
                    continue
                raise ThetaError("the merge was given up", hint="Nothing has changed.")
        stuck = session.settings.default is not None
        raise MergeError(
            f"{path}: both sides changed {listed(session.open)}" + (", which no method can merge" if stuck else ""),
            hint="Choose a side with --override NAME ours (or theirs)."
            if stuck
            else "Choose with --method METHOD; 'git theta merge --methods' lists them.",
        )


def _described(sessions: Mapping[str, MergeSession], *, preview: bool = False) -> tuple[MergedCheckpoint, ...]:
    found = []
    for path, session in sessions.items():
        shown = session.preview(measure=preview)
        choices: dict[str, int] = {}
        for row in shown:
            if row.state != "equal":
                what = "waiting for a choice" if row.open else row.choice
                choices[what] = choices.get(what, 0) + 1
        recipe = session.recipe().short()
        note = kept_from_theirs(session)
        found.append(MergedCheckpoint(path, recipe, shown.counts(), choices, note, shown if preview else None))
    return tuple(found)


def _subject(places: Places, commit: str) -> str:
    return git_text("log", "-1", "--no-show-signature", "--format=%s", commit, cwd=places.top)
