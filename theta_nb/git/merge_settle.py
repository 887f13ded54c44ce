"""End the conflicts of checkpoints that a merge, rebase, cherry-pick or stash of git left."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.stored_inputs import ManifestInput
from theta_nb.errors import ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.index import index_entry, put_entries
from theta_nb.git.merge_commit import message_of, under_way
from theta_nb.git.merge_files import manifest_of_file
from theta_nb.git.merge_result import make_result
from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git, git_text
from theta_nb.git.unmerged import unmerged_paths
from theta_nb.git.versions import read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import parse

__all__ = ["ConflictCommitter", "commit_prepared", "prepared_message", "require_index", "settle"]

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

    def commit(self, session: MergeSession, message: str, *, branch: str = "", progress: Progress | None = None) -> str:
        """Stage the result, and make the merge commit if nothing else is left; returns the commit or blob id."""
        if branch:
            raise ThetaError(f"git's own merge ends on the current branch, not on {branch!r}")
        found = settle(self.places, {self.path: session}, {self.path: self.stages}, message, progress=progress)
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
    require_index(places)
    now = unmerged_paths(places)
    for path in sessions:
        if now.get(path) != stages[path]:
            raise ThetaError(f"{path} is not in the conflict that this merge began with", hint="Begin it again.")
    with ExitStack() as stack:
        results = {
            path: stack.enter_context(make_result(places, session, path, progress=progress))
            for path, session in sessions.items()
        }
        blobs = {}
        for path, result in results.items():
            _refuse_changed(places, path, sessions[path])
            blob = git("hash-object", "-w", "--stdin", "--no-filters", cwd=places.top, data=result.text)
            blobs[path] = blob.decode("ascii").strip()
        # Work tree and index cannot change in one step. The conflict ends with the index; until then it can be
        # continued or aborted, since what was placed is known as ours to replace.
        _remember_placed(places, blobs)
        for path, result in results.items():
            _place(places, path, result.file)
        _stage(places, blobs, now)
    _forget_placed(places)
    if under_way(places) != "merge":
        return ""
    _write_prepared(places, message_of(message or prepared_message(places), sessions))
    return "" if unmerged_paths(places) else commit_prepared(places)


def require_index(places: Places) -> None:
    """Refuse to begin what would fail at its end because the index is locked.

    Raises
    ------
    ThetaError
        If it is.
    """
    lock = os.path.join(places.git_dir, "index.lock")
    if os.path.lexists(lock):
        raise ThetaError(
            "the index is locked by another git command",
            hint=f"Nothing has changed: run this again when that has ended, or delete {lock} if it was killed.",
        )


def commit_prepared(places: Places) -> str:
    """Make the merge commit of what is staged, with the message that was prepared; returns its id.

    Raises
    ------
    GitError
        If a hook refuses, or nobody is configured as author. The merge can be continued then.
    """
    _forget_placed(places)
    text = prepared_message(places).encode("utf-8", "surrogateescape")
    try:
        git("commit", "--quiet", "--cleanup=verbatim", "--file=-", cwd=places.top, data=text + b"\n")
    except GitError as error:
        raise GitError(
            error.message,
            returncode=error.returncode,
            hint="The result is staged. When that is out of the way, 'git theta merge --continue' commits it.",
        ) from error
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
    if not any(found.same_content(one) for one in (*sides, *_placed(places, path))):
        raise ThetaError(
            f"{path} in the work tree is none of the versions that are merged",
            hint=f"Keep it with 'git add {path}', or give it up with 'git checkout --ours {path}'.",
        )


# --- results that were placed and perhaps not staged ------------------------------------------------------------------

_PLACED = "theta-merge-placed"
"""File in the git directory of a work tree: results that are about to be placed, as blobs by path."""


def _remember_placed(places: Places, blobs: Mapping[str, str]) -> None:
    target = os.path.join(places.git_dir, _PLACED)
    fd, partial = tempfile.mkstemp(dir=places.git_dir, prefix=f"{_PLACED}-")
    with open(fd, "wb") as file:
        file.write(b"".join(f"{blob} ".encode() + os.fsencode(path) + b"\0" for path, blob in blobs.items()))
    os.replace(partial, target)


def _placed(places: Places, path: str) -> list[Manifest]:
    """What an earlier try placed at a path, if it came no further."""
    try:
        with open(os.path.join(places.git_dir, _PLACED), "rb") as file:
            records = file.read(2**20).split(b"\0")[:-1]
    except OSError:
        return []
    found = [blob.decode("ascii", "replace") for blob, _, name in (record.partition(b" ") for record in records)
             if name == os.fsencode(path)]  # fmt: skip
    cat_file = CatFile(places.top)
    try:
        texts = [read_text(blob, cat_file) for blob in found if _BLOB.fullmatch(blob)]
    finally:
        cat_file.close()
    return [parse(text, source=path) for text in texts if text is not None]


_BLOB = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def _forget_placed(places: Places) -> None:
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(places.git_dir, _PLACED))


def _place(places: Places, path: str, file: str) -> None:
    full = os.path.join(places.top, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with suppress(FileNotFoundError):
        os.chmod(file, os.stat(full).st_mode & 0o777)
    os.replace(file, full)


def _stage(places: Places, blobs: Mapping[str, str], stages: Mapping[str, Mapping[int, str]]) -> None:
    """End the conflicts in the index: all of them, or none."""
    entries, names = b"", b""
    for path, blob in blobs.items():
        name = os.fsencode(path)
        zeros = "0" * len(next(iter(stages[path].values())))
        executable = os.access(os.path.join(places.top, path), os.X_OK)
        entries += f"0 {zeros}\t".encode() + name + b"\0" + index_entry(path, blob, executable=executable)
        names += name + b"\0"
    try:
        put_entries(places, entries)
    except GitError as error:
        raise GitError(
            error.message, returncode=error.returncode, hint="The conflict is as it was: run the same command again."
        ) from error
    # The entries have no times yet; git cleans each file once and finds that it is the same. Its exit status is about
    # all files, of which others may be in conflict.
    with suppress(GitError):
        git("update-index", "-q", "--refresh", "-z", "--stdin", cwd=places.top, data=names)


def prepared_message(places: Places) -> str:
    """The message that git keeps for the commit that ends the merge."""
    try:
        with open(os.path.join(places.git_dir, "MERGE_MSG"), encoding="utf-8", errors="surrogateescape") as file:
            lines = [line for line in file.read().split("\n") if not line.startswith("#")]
    except FileNotFoundError:
        lines = []
    return "\n".join(lines).strip() or "Merge"


def _write_prepared(places: Places, text: bytes) -> None:
    with open(os.path.join(places.git_dir, "MERGE_MSG"), "wb") as file:
        file.write(text)
