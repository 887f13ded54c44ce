"""End the conflicts of checkpoints that a merge, rebase, cherry-pick or stash of git left."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.stored_inputs import ManifestInput
from theta_nb.errors import ThetaError
from theta_nb.git.merge_commit import message_of, under_way
from theta_nb.git.merge_files import manifest_of_file
from theta_nb.git.merge_result import make_result
from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git, git_text
from theta_nb.git.unmerged import unmerged_paths

__all__ = ["ConflictCommitter", "settle"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConflictCommitter:
    """Ends the conflict of one checkpoint: the result is staged, and committed where nothing else is open.

    Parameters
    ----------
    places
        The repository.
    path
        The checkpoint.
    stages
        Its blobs in the index when the session was opened.
    """

    places: Places
    path: str
    stages: Mapping[int, str] = field(default_factory=dict)

    def commit(self, session: MergeSession, message: str) -> str:
        """Stage the result, and make the merge commit if nothing else is left; returns the commit or blob id."""
        found = settle(self.places, {self.path: session}, {self.path: self.stages}, message)
        return found or git_text("rev-parse", f":0:{self.path}", cwd=self.places.top)


def settle(
    places: Places,
    sessions: Mapping[str, MergeSession],
    stages: Mapping[str, Mapping[int, str]],
    message: str = "",
    *,
    progress: Progress | None = None,
) -> str:
    """Stage the results of conflicting checkpoints, and commit if it is a merge and nothing else is open.

    Returns
    -------
    str
        The commit's id; empty if none was made.

    Raises
    ------
    MergeError
        If choices are open.
    ThetaError
        If the conflict is another than when the sessions were opened, or a file in the work tree was changed since.
    """
    for session in sessions.values():
        session.require_closed()
    now = unmerged_paths(places)
    for path in sessions:
        if now.get(path) != stages[path]:
            raise ThetaError(f"{path} is not in the conflict that this merge began with", hint="Begin it again.")
    with ExitStack() as stack:
        results = {
            path: stack.enter_context(make_result(places, session, path, progress=progress))
            for path, session in sessions.items()
        }
        for path, result in results.items():
            _refuse_changed(places, path, sessions[path])
            blob = git("hash-object", "-w", "--stdin", "--no-filters", cwd=places.top, data=result.text)
            _place(places, path, result.file)
            _stage(places, path, blob.decode("ascii").strip(), now[path])
    if under_way(places) != "merge":
        return ""
    text = message or _prepared_message(places)
    noted = message_of(text, sessions)
    if unmerged_paths(places):
        _write_prepared(places, noted)
        return ""
    git("commit", "--quiet", "--cleanup=verbatim", "--file=-", cwd=places.top, data=noted)
    return git_text("rev-parse", "HEAD", cwd=places.top)


def _refuse_changed(places: Places, path: str, session: MergeSession) -> None:
    """Refuse to overwrite a file that is neither ours nor a manifest: somebody has begun to resolve the conflict."""
    full = os.path.join(places.top, path)
    if not os.path.lexists(full):
        return
    fd = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = manifest_of_file(places, fd, path)
    finally:
        os.close(fd)
    sides = [one.manifest for one in (*session.inputs, session.base) if isinstance(one, ManifestInput)]
    if not any(found.same_content(one) for one in sides):
        raise ThetaError(
            f"{path} in the work tree is none of the versions that are merged",
            hint=f"Keep it with 'git add {path}', or give it up with 'git checkout --ours {path}'.",
        )


def _place(places: Places, path: str, file: str) -> None:
    full = os.path.join(places.top, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with suppress(FileNotFoundError):
        os.chmod(file, os.stat(full).st_mode & 0o777)
    os.replace(file, full)


def _stage(places: Places, path: str, blob: str, stages: Mapping[int, str]) -> None:
    mode = "100755" if os.access(os.path.join(places.top, path), os.X_OK) else "100644"
    name = os.fsencode(path)
    zeros = "0" * len(next(iter(stages.values())))
    entry = f"0 {zeros}\t".encode() + name + b"\0" + f"{mode} {blob} 0\t".encode() + name + b"\0"
    git("update-index", "-z", "--index-info", cwd=places.top, data=entry)
    # The entry has no times yet; git cleans the file once and finds that it is the same. Its exit status is about all
    # files, of which others may be in conflict.
    with suppress(GitError):
        git("update-index", "-q", "--refresh", "-z", "--stdin", cwd=places.top, data=name + b"\0")


def _prepared_message(places: Places) -> str:
    try:
        with open(os.path.join(places.git_dir, "MERGE_MSG"), encoding="utf-8", errors="surrogateescape") as file:
            lines = [line for line in file.read().split("\n") if not line.startswith("#")]
    except FileNotFoundError:
        lines = []
    return "\n".join(lines).strip() or "Merge"


def _write_prepared(places: Places, text: bytes) -> None:
    with open(os.path.join(places.git_dir, "MERGE_MSG"), "wb") as file:
        file.write(text)
