"""The panel that keeps a merge on the side of Python: message, branch, rehearsal, commit; and the session itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError, ThetaError
from theta_nb.jupyter.answers import Answer, Request
from theta_nb.jupyter.autosave import Autosave
from theta_nb.jupyter.tries_desk import briefly
from theta_nb.jupyter.worker import Stop

if TYPE_CHECKING:
    from theta_nb.git.merge_rehearsal import Surroundings
    from theta_nb.jupyter.merge_explorer import MergeExplorer

__all__ = ["KeepingDesk", "message_for"]

Progress = Callable[[int, int], None]


class KeepingDesk:
    """Answers for the panel that keeps the result.

    Requests: ``look`` looks at the repository again; ``rehearse`` and ``commit`` with ``branch`` (empty: the current
    one), the latter with a ``message``; ``save`` with a ``path``; ``reopen`` goes on with what was saved by itself.

    Parameters
    ----------
    explorer
        Whose panel it is.
    """

    def __init__(self, explorer: MergeExplorer) -> None:
        self._explorer = explorer
        self._session: MergeSession = explorer.session
        self._committed: list[dict[str, Any]] = []
        self._around: Surroundings | None = None
        self._nowhere, self._saved = "", ""
        try:
            folder = _folder(self._session)
        except ThetaError as error:
            folder, self._nowhere = "", str(error)
        self._autosave = Autosave(self._session, folder, explorer.soon)
        # What was measured stands in the message.
        self._unwatch = self._session.tries.watch(
            lambda: explorer.soon("keeping", lambda _: explorer.refresh("keeping"))
        )

    def _look(self) -> None:
        from theta_nb.git.merge_rehearsal import surroundings

        try:
            self._around, self._nowhere = surroundings(self._session), ""
        except ThetaError as error:
            self._around, self._nowhere = None, str(error)

    def state(self) -> dict[str, Any]:
        """What ``static/keeping_panel.js`` draws."""
        around = self._around
        out: dict[str, Any] = {
            "looked": self._around is not None,  # git is asked when the view is there, so that it appears at once
            "nowhere": self._nowhere,
            "committed": self._committed,
            "saved": self._saved,
            "tries": len(self._session.tries),
            "reopenable": self._autosave.found,
        }
        if around is not None:
            out |= {
                "path": around.path,
                "branch": around.branch,
                "branches": list(around.branches),
                "message": around.message,
                "problem": around.problem,
                "in_conflict": around.in_conflict,
            }
        return out

    def answer(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        """Answer a request of the panel."""
        answers: dict[str, Callable[[Request, Progress], dict[str, Any]]] = {
            "look": lambda *_: {},
            "suggest": lambda *_: {"message": message_for(self._session, self._title())},
            "rehearse": self._rehearse,
            "commit": self._commit,
            "save": self._save,
            "reopen": self._reopen,
        }
        if request.what not in answers:
            raise ThetaError(f"this panel cannot ask for {request.what!r}")
        try:
            return Answer(answers[request.what](request, progress))
        finally:
            self._look()
            self._explorer.refresh("keeping")

    def _title(self) -> str:
        return self._around.message if self._around is not None else "Merge"

    def _rehearse(self, request: Request, progress: Progress) -> dict[str, Any]:
        from theta_nb.git.merge_rehearsal import rehearse

        # A fork: the rehearsal is of what is chosen now, whatever is dragged meanwhile.
        found = rehearse(self._session.fork(), branch=request.text("branch"), progress=progress)
        return {
            "tensors": found.tensors,
            "changed": found.changed,
            "nbytes": found.nbytes,
            "files": list(found.files),
            "note": found.note,
        }

    def _commit(self, request: Request, progress: Progress) -> dict[str, Any]:
        """Commit; a view that went away meanwhile stops nothing, since half a commit is nobody's wish."""
        branch, message = request.text("branch"), request.text("message")
        if not message.strip():
            raise MergeError("the commit message is empty", hint="Say in a line what was merged.")
        self._autosave.now()
        fork = self._session.fork()
        commit = fork.commit(message, branch=branch, progress=progress)
        self._committed.append(self._described(commit, branch))
        self._explorer.fill()
        return self._committed[-1]

    def _described(self, commit: str, branch: str) -> dict[str, Any]:
        from theta_nb.git.merge_rehearsal import commit_line

        subject, parents = commit_line(self._session, commit)
        where = branch or (self._around.branch if self._around is not None else "")
        return {"commit": commit, "subject": subject, "parents": parents, "branch": where, "own": bool(branch)}

    def _save(self, request: Request, progress: Progress) -> dict[str, Any]:
        path = os.path.abspath(os.path.expanduser(request.text("path").strip() or "merge-session.json"))
        if not path.endswith(".json"):
            raise MergeError(f"{os.path.basename(path)} is no name for a saved session", hint="End it with .json.")
        self._session.save(path)
        self._saved = path
        return {"path": path}

    def _reopen(self, request: Request, progress: Progress) -> dict[str, Any]:
        with self._explorer.lock:
            self._autosave.reopen()
        return {}

    def close(self) -> None:
        """Save once more and listen no longer."""
        self._unwatch()
        self._autosave.close()


def _folder(session: MergeSession) -> str:
    from theta_nb.git.merge_rehearsal import places_of

    return os.path.join(places_of(session).theta_dir, "merges")


def message_for(session: MergeSession, title: str) -> str:
    """A commit message that says what was done, for people; what tools need is added as trailers.

    Parameters
    ----------
    session
        What is committed.
    title
        First line, as git has it.

    Examples
    --------
    >>> import numpy as np
    >>> from theta_nb.engine.merging.inputs import StateInput
    >>> states = [StateInput(k, {"w": np.float32([v])}) for k, v in (("ours", 1), ("theirs", 3))]
    >>> session = MergeSession(StateInput("original", {"w": np.float32([0])}), states).use("linear")
    >>> print(message_for(session, "Merge branch 'feature'"))
    Merge branch 'feature'
    <BLANKLINE>
    linear for 1 parameter that both sides changed.
    """
    settings = session.settings
    merged = [one for one in session.decisions.values() if one.method is not None and not one.reason.startswith("over")]
    lines = []
    if settings.default is not None and merged:
        what = "parameter that both sides" if len(merged) == 1 else "parameters that both sides"
        lines.append(f"{briefly(type(settings)(settings.default))} for {len(merged)} {what} changed.")
    overrides = settings.overrides[:10]
    lines += [f"{one.pattern}: {briefly(type(settings)(one.choice))}" for one in overrides]
    if len(settings.overrides) > len(overrides):
        lines.append(f"… and {len(settings.overrides) - len(overrides)} more overrides.")
    scores = _scores(session)
    if scores:
        lines.append(scores)
    return "\n".join([title, "", *lines]).rstrip()


def _scores(session: MergeSession) -> str:
    tried = session.tries.having(session.settings)
    if not tried:
        return ""
    return "Measured: " + ", ".join(f"{name} {value:.4g}" for name, value in tried[-1].metrics.items()) + "."
