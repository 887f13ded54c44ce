"""``git theta checkout``: write checkpoints straight into the work tree."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from theta_nb.engine.rebuild import Rebuilder
from theta_nb.errors import ThetaError
from theta_nb.git.places import Places
from theta_nb.git.process import CatFile, git
from theta_nb.git.tracked import TrackedBlob, tracked_in_commit, tracked_in_index
from theta_nb.git.versions import read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import is_manifest, parse

__all__ = ["CheckedOut", "checkout"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """What happened to one path.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    nbytes
        Bytes written.
    action
        ``"written"``, ``"already there"`` or ``"skipped: …"``.
    """

    path: str
    nbytes: int
    action: str


class _Job(NamedTuple):
    blob: TrackedBlob
    manifest: Manifest


def checkout(
    places: Places,
    paths: Sequence[str] = (),
    *,
    source: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[CheckedOut]:
    """Write checkpoints into the work tree and refresh the index for them.

    git holds a whole smudged file in memory and feeds it through a pipe; here chunks go to their places in parallel.

    Parameters
    ----------
    places
        The repository; needs a work tree.
    paths
        Pathspecs relative to the current directory; all tracked checkpoints by default, of which only those are
        written that are missing or still manifests.
    source
        Commit to take them from (which also changes the index, as ``git checkout REV -- PATH`` does); the index by
        default.
    force
        Whether files with changes that git does not have may be overwritten.
    progress
        Called with bytes done and bytes in all.

    Returns
    -------
    list of CheckedOut
        One for each path, in order.

    Raises
    ------
    ThetaError
        If nothing matches, a file has local changes, objects are missing or corrupt, or the disk is too small. Each
        file is old or new; those done before the error stay done.
    """
    if places.work_tree is None:
        raise ThetaError("there is no work tree here to check out into", hint="Run it in a clone that has one.")
    blobs = tracked_in_index(places, paths) if source is None else tracked_in_commit(places, source, paths)
    if paths and not blobs:
        raise ThetaError(
            f"no tracked checkpoint matches {', '.join(paths)}", hint="'git theta ls-files' lists what is tracked."
        )
    cat_file = CatFile(places.top)
    try:
        done, jobs = _plan(places, blobs, cat_file, refuse=bool(paths) or source is not None, force=force)
    finally:
        cat_file.close()
    total = sum(job.manifest.size for job in jobs)
    written = 0

    def advance(nbytes: int) -> None:
        nonlocal written
        written += nbytes
        if progress is not None:
            progress(written, total)

    with ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta") as executor:
        for job in jobs:
            _write(places, job, executor, advance)
            done.append(CheckedOut(job.blob.path, job.manifest.size, "written"))
    _update_index(places, [job.blob for job in jobs], changed=source is not None)
    return sorted(done, key=lambda item: item.path)


def _plan(
    places: Places, blobs: Sequence[TrackedBlob], cat_file: CatFile, *, refuse: bool, force: bool
) -> tuple[list[CheckedOut], list[_Job]]:
    """Decide for each path whether it is written; everything that can be refused is refused before the first write."""
    done: list[CheckedOut] = []
    jobs: list[_Job] = []
    modified = _modified(places, [blob.path for blob in blobs])
    for blob in blobs:
        text = read_text(blob.oid, cat_file)
        if text is None:
            done.append(CheckedOut(blob.path, 0, "skipped: not stored by theta-nb"))
            continue
        state = _state(places, blob.path, text)
        if state == "file" and not force:
            if blob.path in modified and refuse:
                raise ThetaError(
                    f"{blob.path} has changes that are not committed", hint="Commit them, or add --force to lose them."
                )
            if blob.path in modified or blob.in_index:
                done.append(CheckedOut(blob.path, 0, "already there"))
                continue
        jobs.append(_Job(blob, parse(text, source=blob.path)))
    return done, jobs


def _state(places: Places, path: str, text: bytes) -> str:
    """``"missing"``, ``"manifest"`` (of this or another version) or ``"file"``."""
    full = os.path.join(places.top, path)
    try:
        info = os.lstat(full)
    except OSError:
        return "missing"
    if not stat.S_ISREG(info.st_mode):
        return "file"
    with open(full, "rb") as file:
        return "manifest" if is_manifest(file.read(64)) else "file"


def _modified(places: Places, paths: Sequence[str]) -> set[str]:
    if not paths:
        return set()
    # Unlike 'diff-files' this compares contents where only the times differ.
    out = git(
        "diff", "--name-only", "--no-ext-diff", "-z", "--", *paths, cwd=places.top, env={"GIT_LITERAL_PATHSPECS": "1"}
    )
    return {os.fsdecode(name) for name in out.split(b"\0") if name}


def _write(places: Places, job: _Job, executor: Executor, advance: Callable[[int], None]) -> None:
    full = os.path.join(places.top, job.blob.path)
    folder = os.path.dirname(full)
    os.makedirs(folder, exist_ok=True)
    if not os.path.realpath(folder).startswith(os.path.realpath(places.top)):
        raise ThetaError(f"{job.blob.path} lies behind a symbolic link that leaves the work tree")
    rebuilder = Rebuilder(job.manifest, places.store, executor)
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(full)[:100]}.theta-")
    try:
        try:
            _reserve(fd, job)
            rebuilder.file(fd, advance)
            os.fchmod(fd, _mode(job.blob))
        finally:
            os.close(fd)
        if os.path.isdir(full) and not os.path.islink(full):
            raise ThetaError(f"{job.blob.path} is a folder in the work tree", hint="Move it away first.")
        os.replace(temporary, full)
    except OSError as error:
        raise ThetaError(
            f"cannot write {job.blob.path}: {error.strerror}", hint="The old file is untouched."
        ) from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _reserve(fd: int, job: _Job) -> None:
    """Make room before the first byte: a manifest may claim any size, and a full disk should show now."""
    free = os.fstatvfs(fd)
    if job.manifest.size > free.f_bavail * free.f_frsize:
        raise ThetaError(
            f"{job.blob.path} needs {job.manifest.size} bytes, more than the disk has", hint="Free some space first."
        )
    if job.manifest.size:
        with suppress(OSError):  # not every file system can
            os.posix_fallocate(fd, 0, job.manifest.size)


def _mode(blob: TrackedBlob) -> int:
    mask = os.umask(0)
    os.umask(mask)
    return (0o777 if blob.executable else 0o666) & ~mask


def _update_index(places: Places, blobs: Sequence[TrackedBlob], *, changed: bool) -> None:
    if not blobs:
        return
    if changed:
        entries = b"".join(
            f"{'100755' if b.executable else '100644'} {b.oid} 0\t".encode() + os.fsencode(b.path) + b"\0"
            for b in blobs
        )
        git("update-index", "-z", "--index-info", cwd=places.top, data=entries)
    # The index knows the size of the manifest, so git would call the file modified for ever; given the path it cleans
    # the file once and remembers the new size and times.
    names = b"".join(os.fsencode(blob.path) + b"\0" for blob in blobs)
    git("update-index", "-z", "--stdin", cwd=places.top, data=names)
