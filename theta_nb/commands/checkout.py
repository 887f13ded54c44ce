"""``git theta checkout``: write checkpoints straight into the work tree."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from theta_nb.engine.rebuild import Rebuilder
from theta_nb.errors import ManifestError, ThetaError
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.process import CatFile, git
from theta_nb.git.tracked import TrackedBlob, tracked_in_commit, tracked_in_index
from theta_nb.git.versions import read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import declared_size, is_manifest, parse

__all__ = ["CheckedOut", "checkout"]

Progress = Callable[[int, int], None]

_LITERAL = {"GIT_LITERAL_PATHSPECS": "1"}


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
    if source is not None:
        _check_names(places, jobs)
    bring(places, {oid: size for job in jobs for oid, size in job.manifest.objects.items()}, progress=progress)
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
    if source is not None:
        _stage(places, jobs)
    _refresh(places, [item.path for item in done if item.action in ("written", "already there")])
    return sorted(done, key=lambda item: item.path)


def _plan(
    places: Places, blobs: Sequence[TrackedBlob], cat_file: CatFile, *, refuse: bool, force: bool
) -> tuple[list[CheckedOut], list[_Job]]:
    """Decide for each path whether it is written; everything that can be refused is refused before the first write."""
    conflicts = sorted({blob.path for blob in blobs if blob.stage})
    done = [CheckedOut(path, 0, "skipped: in conflict") for path in conflicts]
    jobs: list[_Job] = []
    # Only of files: git would start a filter to compare a manifest that waits to be replaced.
    files = {blob.path for blob in blobs if _state(places, blob.path) == "file"}
    changed = _changed(places, sorted(files))
    for blob in blobs:
        if blob.stage:
            continue
        text = read_text(blob.oid, cat_file)
        if text is None:
            done.append(CheckedOut(blob.path, 0, "skipped: not stored by theta-nb"))
            continue
        if blob.path in files and not force:
            if blob.path in changed and refuse:
                raise ThetaError(
                    f"{blob.path} has changes that are not committed", hint="Commit them, or add --force to lose them."
                )
            if blob.path in changed:
                done.append(CheckedOut(blob.path, 0, "skipped: has changes that are not committed"))
                continue
            if blob.in_index:
                done.append(CheckedOut(blob.path, 0, "already there"))
                continue
        _check_place(places, blob.path)
        _check_room(os.statvfs(places.top), blob.path, declared_size(text))
        jobs.append(_Job(blob, parse(text, source=blob.path)))
    return done, jobs


def _check_names(places: Places, jobs: Sequence[_Job]) -> None:
    """Have git judge the names: other than an index, a tree can hold ``.git/hooks/pre-commit`` or ``..``."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": os.path.join(folder, "index")}
        _stage(places, jobs, env)
        accepted = set(git("ls-files", "-z", cwd=places.top, env=env).split(b"\0"))
    for job in jobs:
        if os.fsencode(job.blob.path) not in accepted:
            raise ThetaError(f"{job.blob.path!r} is no path that git allows in a work tree")


def _check_place(places: Places, path: str) -> None:
    """Refuse to write over a folder, or behind a link: that might lead anywhere."""
    parent = places.top
    for part in path.split("/")[:-1]:
        parent = os.path.join(parent, part)
        if os.path.islink(parent):
            raise ThetaError(
                f"{path} lies behind the symbolic link {parent}", hint="Put a folder in the place of the link first."
            )
        if os.path.lexists(parent) and not os.path.isdir(parent):
            raise ThetaError(f"{parent} is in the way of {path}", hint="Move it away first.")
    full = os.path.join(places.top, path)
    if os.path.isdir(full) and not os.path.islink(full):
        raise ThetaError(f"{path} is a folder in the work tree", hint="Move it away first.")


def _state(places: Places, path: str) -> str:
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


def _changed(places: Places, paths: Sequence[str]) -> set[str]:
    """Paths whose content in the work tree git does not have: changed, or not in the index at all."""
    if not paths:
        return set()
    # Unlike 'diff-files' this compares contents where only the times differ.
    differ = git("diff", "--name-only", "--no-ext-diff", "-z", "--", *paths, cwd=places.top, env=_LITERAL)
    others = git("ls-files", "--others", "-z", "--", *paths, cwd=places.top, env=_LITERAL)
    return {os.fsdecode(name) for name in (differ + others).split(b"\0") if name}


def _write(places: Places, job: _Job, executor: Executor, advance: Callable[[int], None]) -> None:
    full = os.path.join(places.top, job.blob.path)
    folder = os.path.dirname(full)
    try:
        rebuilder = Rebuilder(job.manifest, places.store, executor)
    except ManifestError as error:
        raise ManifestError(f"{job.blob.path}: {error.message}", hint=error.hint) from error
    temporary = os.path.join(folder, f".{os.path.basename(full)[:100]}.theta-{os.getpid()}")
    try:
        os.makedirs(folder, exist_ok=True)
        fd = _open_temporary(folder, temporary)
        try:
            _reserve(fd, job)
            rebuilder.file(fd, advance)
            os.fchmod(fd, _mode(job.blob))
            if places.settings.fsync:
                # Else a power failure might leave the reserved length and no content, under the times that git knows.
                os.fdatasync(fd)
            if os.fstat(fd).st_nlink == 0:
                # Python follows the link of /proc only if it is given a folder, which an absolute path ignores.
                os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd)
        finally:
            os.close(fd)
        os.replace(temporary, full)
    except OSError as error:
        raise ThetaError(
            f"cannot write {job.blob.path}: {error.strerror}", hint="The old file is untouched."
        ) from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _open_temporary(folder: str, name: str) -> int:
    """An open file without a name, so that a killed run leaves nothing behind; with one where that cannot be."""
    with suppress(OSError):  # left behind by a process of the same number
        os.unlink(name)
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)


def _reserve(fd: int, job: _Job) -> None:
    """Make room before the first byte: a manifest may claim any size, and a full disk should show now."""
    _check_room(os.fstatvfs(fd), job.blob.path, job.manifest.size)
    if job.manifest.size:
        with suppress(OSError):  # not every file system can
            os.posix_fallocate(fd, 0, job.manifest.size)


def _check_room(free: os.statvfs_result, path: str, nbytes: int) -> None:
    if nbytes > free.f_bavail * free.f_frsize:
        raise ThetaError(f"{path} needs {nbytes} bytes, more than the disk has", hint="Free some space first.")


def _mode(blob: TrackedBlob) -> int:
    mask = os.umask(0)
    os.umask(mask)
    return (0o777 if blob.executable else 0o666) & ~mask


def _stage(places: Places, jobs: Sequence[_Job], env: Mapping[str, str] | None = None) -> None:
    entries = b"".join(
        f"{'100755' if job.blob.executable else '100644'} {job.blob.oid} 0\t".encode()
        + os.fsencode(job.blob.path)
        + b"\0"
        for job in jobs
    )
    if entries:
        git("update-index", "-z", "--index-info", cwd=places.top, data=entries, env=env)


def _refresh(places: Places, paths: Sequence[str]) -> None:
    """Tell the index of files that hold its content.

    It knows the sizes of manifests, so git would call the files modified for ever; given a path it cleans the file once
    and remembers size and times. Files of an earlier run that was interrupted here are among them.
    """
    if not paths:
        return
    stale = git("diff-files", "--name-only", "-z", "--", *paths, cwd=places.top, env=_LITERAL)
    if stale:
        git("update-index", "-z", "--stdin", cwd=places.top, data=stale)
