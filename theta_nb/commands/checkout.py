"""``git theta checkout``: write checkpoints straight into the work tree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from theta_nb.commands.work_tree import changed, check_place, check_room, created_mode, refresh, replacing, state
from theta_nb.engine.rebuild import Rebuilder
from theta_nb.errors import ManifestError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.configuration import require_filter
from theta_nb.git.index import index_entry, put_entries
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.process import git
from theta_nb.git.tracked import TrackedBlob, tracked_in_commit, tracked_in_index
from theta_nb.git.versions import read_text
from theta_nb.git.words import spelled_out
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import declared_size, parse

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
        written that are missing or still manifests. What a sparse checkout leaves out is written only where its path
        is spelled out.
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
        If nothing matches, a file has local changes, git does not know the filter, objects are missing or corrupt, or
        the disk is too small. Each file is old or new; those done before the error stay done.
    """
    if places.work_tree is None:
        raise ThetaError("there is no work tree here to check out into", hint="Run it in a clone that has one.")
    blobs = _wanted(places, paths, source)
    if blobs:
        require_filter(places.top)  # which tells the index what was written
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
    refresh(places, [item.path for item in done if item.action in ("written", "already there")])
    return sorted(done, key=lambda item: item.path)


def _wanted(places: Places, paths: Sequence[str], source: str | None) -> list[TrackedBlob]:
    found = tracked_in_index(places, paths) if source is None else tracked_in_commit(places, source, paths)
    named = spelled_out(places, paths) if any(blob.sparse for blob in found) else frozenset()
    blobs = [blob for blob in found if not blob.sparse or blob.path in named]
    if paths and not blobs:
        said = ", ".join(paths)
        if found:
            raise ThetaError(
                f"the sparse checkout leaves out every checkpoint that {said} stands for",
                hint="Spell out the path of one to have it all the same, or run 'git sparse-checkout add FOLDER'.",
            )
        raise ThetaError(f"no tracked checkpoint matches {said}", hint="'git theta ls-files' lists what is tracked.")
    return blobs


def _plan(
    places: Places, blobs: Sequence[TrackedBlob], cat_file: CatFile, *, refuse: bool, force: bool
) -> tuple[list[CheckedOut], list[_Job]]:
    """Decide for each path whether it is written; everything that can be refused is refused before the first write."""
    conflicts = sorted({blob.path for blob in blobs if blob.stage})
    done = [CheckedOut(path, 0, "skipped: in conflict") for path in conflicts]
    jobs: list[_Job] = []
    # Only of files: git would start a filter to compare a manifest that waits to be replaced.
    files = {blob.path for blob in blobs if state(places, blob.path) == "file"}
    differing = changed(places, sorted(files))
    for blob in blobs:
        if blob.stage:
            continue
        text = read_text(blob.oid, cat_file)
        if text is None:
            done.append(CheckedOut(blob.path, 0, "skipped: not stored by theta-nb"))
            continue
        if blob.path in files and not force:
            if blob.path in differing and refuse:
                raise ThetaError(
                    f"{blob.path} has changes that are not committed", hint="Commit them, or add --force to lose them."
                )
            if blob.path in differing:
                done.append(CheckedOut(blob.path, 0, "skipped: has changes that are not committed"))
                continue
            if blob.in_index:
                done.append(CheckedOut(blob.path, 0, "already there"))
                continue
        check_place(places, blob.path)
        check_room(os.statvfs(places.top), blob.path, declared_size(text))
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


def _write(places: Places, job: _Job, executor: Executor, advance: Callable[[int], None]) -> None:
    try:
        rebuilder = Rebuilder(job.manifest, places.store, executor)
    except ManifestError as error:
        raise ManifestError(f"{job.blob.path}: {error.message}", hint=error.hint) from error
    mode = created_mode(executable=job.blob.executable)
    with replacing(places, job.blob.path, job.manifest.size, mode) as fd:
        rebuilder.file(fd, advance)


def _stage(places: Places, jobs: Sequence[_Job], env: Mapping[str, str] | None = None) -> None:
    entries = b"".join(index_entry(job.blob.path, job.blob.oid, executable=job.blob.executable) for job in jobs)
    if entries:
        put_entries(places, entries, env=env)
