"""What our hooks do when git runs them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which
from urllib.parse import quote

from theta_nb.errors import count
from theta_nb.git.hooks import hooks_folder, kept_hooks
from theta_nb.git.pending import PENDING, leave_pending
from theta_nb.git.places import Places
from theta_nb.git.pointers import FOLDER, link_objects, sync_pointers, uses_pointers
from theta_nb.git.process import GitError, git_text
from theta_nb.git.tracked import tracked_in_index
from theta_nb.manifest.text import is_manifest

__all__ = ["pending_paths", "pointers_wait", "pre_commit", "pre_push", "run_before"]

_REBASE = ("rebase-merge", "rebase-apply")
_SEQUENCE = ("sequencer",)
_MOST_PENDING_NBYTES = 2**24
_CHAIN = "GIT_THETA_BEFORE"

Progress = Callable[[int, int], None]


# --- completing what a checkout left --------------------------------------------------------------------------------


def pending_paths(places: Places, *, rebased: bool = False) -> list[str]:
    """Checkpoints to complete now, and forget them; none inside a rebase or sequence.

    A rebase keeps the index in memory, with the sizes of manifests: a file that changes under it stops it.

    Parameters
    ----------
    places
        The repository.
    rebased
        Whether a rebase says that it made its last commit; its files are still there then.
    """
    under_way = _SEQUENCE if rebased else (*_REBASE, *_SEQUENCE)
    if any(os.path.lexists(os.path.join(places.git_dir, name)) for name in under_way):
        return []
    names = _take_pending(os.path.join(places.git_dir, PENDING))
    if not names:
        return []
    # A path may be gone by now, or the file may be damaged: only what git has is written.
    tracked = {blob.path for blob in tracked_in_index(places) if blob.stage == 0}
    return [path for path in names if path in tracked and _is_manifest_file(os.path.join(places.top, path))]


def pointers_wait(places: Places) -> bool:
    """Whether ``git commit PATH`` made a commit from an index of its own, so that the other one lacks its pointers."""
    try:
        with open(os.path.join(places.git_dir, PENDING), "rb") as file:
            return os.fsencode(FOLDER) in file.read(_MOST_PENDING_NBYTES).split(b"\0")
    except OSError:
        return False


def pre_commit(places: Places) -> None:
    """Have the commit that is being made hold the pointer files of its checkpoints.

    Raises
    ------
    ThetaError
        If they cannot be written.
    """
    changed = sync_pointers(places)
    if changed and os.path.basename(os.environ.get("GIT_INDEX_FILE", "")).startswith("next-index-"):
        leave_pending(places, FOLDER)


def _take_pending(path: str) -> list[str]:
    """What the file says, each name once; the file is gone afterwards, and what is added meanwhile is not lost."""
    taken = f"{path}-{os.getpid()}"
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return []
        os.rename(path, taken)
        with open(taken, "rb") as file:
            names = file.read(_MOST_PENDING_NBYTES).split(b"\0")
        os.unlink(taken)
    except OSError:
        return []
    return list(dict.fromkeys(os.fsdecode(name) for name in names if name))


def _is_manifest_file(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return is_manifest(file.read(64))
    except OSError:
        return False


# --- pushing ----------------------------------------------------------------------------------------------------------


def pre_push(
    places: Places,
    arguments: Sequence[str],
    data: bytes,
    *,
    file: str = "",
    progress: Progress | None = None,
    tell: Callable[[str], None],
) -> int:
    """Upload what the pushed refs need and the remote lacks; returns the exit status for git.

    Parameters
    ----------
    places
        The repository.
    arguments
        Name (or URL) and URL of the remote.
    data
        Lines ``local-ref local-sha remote-ref remote-sha``.
    file
        The hook that was started.
    progress
        Called with bytes done and bytes in all.
    tell
        Shows one sentence.

    Raises
    ------
    ThetaError
        If an upload fails: the push must then fail too.
    """
    from theta_nb.git.push_range import objects_of_push, ref_updates
    from theta_nb.git.upload import push_objects

    remote, url = (*arguments, "", "")[:2]
    objects = objects_of_push(places, remote, ref_updates(os.fsdecode(data)), url=url)
    if objects and uses_pointers(places):
        # For git-lfs they are objects like others, and 'git lfs prune' may have deleted them for one remote's sake.
        link_objects(places, objects)
    status = run_before(places, "pre-push", arguments, data, file=file)
    if status:
        return status
    if objects:
        report = push_objects(places, remote, objects, url=url, progress=progress)
        if report.transferred:
            tell(f"{count(report.transferred, 'object')} ({report.nbytes / 1e6:.1f} MB) uploaded to {report.remote}")
    return 0


def run_before(places: Places, name: str, arguments: Sequence[str], data: bytes, *, file: str = "") -> int:
    """Run the hooks that were there before ours, then Git LFS's; returns the first exit status that is not 0.

    ``git lfs install`` refuses to chain with a foreign hook, so ours uploads what plain Git LFS tracks as well.

    Parameters
    ----------
    places
        The repository.
    name
        Hook.
    arguments
        As git gave them.
    data
        What git wrote to the hook's input; each hook gets all of it.
    file
        The hook that was started.
    """
    folder = os.path.dirname(os.path.abspath(file)) if file else hooks_folder(places)
    if os.environ.get(_CHAIN) == name and os.path.basename(file) != name:
        return 0  # one of those hooks started us
    kept = [path for path in kept_hooks(folder, name) if os.path.isfile(path) and os.access(path, os.X_OK)]
    for path in kept:
        status = _run([path, *arguments], data, {**os.environ, _CHAIN: name})
        if status:
            return status
    if name == "pre-push" and not any(_is_lfs(path, name) for path in kept) and _uses_lfs(places):
        return _run(["git", "lfs", name, *_for_lfs(arguments)], data, dict(os.environ))
    return 0


def _for_lfs(arguments: Sequence[str]) -> list[str]:
    """Name and URL of a remote; where the name is a path, git-lfs fails ("EOF") and takes a URL."""
    if len(arguments) == 2 and arguments[0] == arguments[1] and os.path.isdir(arguments[0]):
        return [f"file://{quote(os.path.abspath(arguments[0]))}"] * 2
    return list(arguments)


def _run(command: list[str], data: bytes, env: dict[str, str]) -> int:
    # A hook that reads nothing is no error: git itself ignores the broken pipe.
    try:
        status = subprocess.run(command, input=data, env=env, check=False).returncode
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # Without '#!' it is for the shell, as git has it.
        status = subprocess.run(["/bin/sh", *command], input=data, env=env, check=False).returncode
    return status if status >= 0 else 128 - status


def _is_lfs(path: str, name: str) -> bool:
    try:
        return f"git lfs {name}" in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _uses_lfs(places: Places) -> bool:
    """Whether plain Git LFS may have something to upload, whatever branch is checked out now."""
    if which("git-lfs") is None:
        return False
    try:
        storage = git_text("config", "--path", "lfs.storage", cwd=places.top)
    except GitError:
        storage = "lfs"
    if os.path.isdir(os.path.join(places.common_dir, storage, "objects")):
        return True
    try:
        return git_text("ls-files", "--", ":(top,attr:filter=lfs)", cwd=places.top) != ""
    except GitError:
        return False
