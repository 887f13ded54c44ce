"""Open checkpoints for reading: files of the work tree, and versions that git has."""

from __future__ import annotations

import os
import stat
from concurrent.futures import Executor
from functools import partial

from theta_nb.checkpoints.detection import locate
from theta_nb.checkpoints.layout import FileSource
from theta_nb.engine.checkpoint import Checkpoint
from theta_nb.engine.storages import FileStorages
from theta_nb.errors import CheckpointError, NotTrackedError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.tracked import resolve
from theta_nb.git.versions import index_blobs, read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, is_manifest, parse

__all__ = ["checkpoint_at", "checkpoint_in_work_tree"]


def checkpoint_in_work_tree(places: Places, name: str, executor: Executor) -> Checkpoint:
    """The checkpoint in a file of the work tree, or what that stands for if it is a manifest.

    Parameters
    ----------
    places
        The repository.
    name
        Relative to its top.
    executor
        Threads for decoding.

    Raises
    ------
    ThetaError
        If there is no such file.
    """
    full = os.path.join(places.top, name)
    try:
        # Without O_NONBLOCK, opening a pipe of that name would wait for ever.
        source = _OwnedFile(os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise ThetaError(
            f"{name} is not in the work tree ({error.strerror})", hint="Give rev='HEAD' to read it from git."
        ) from error
    if not stat.S_ISREG(os.fstat(source.fd).st_mode):
        raise ThetaError(f"{name} is not a file", hint="Name a checkpoint.")
    if is_manifest(source.read(0, min(64, source.size))):
        manifest = parse(source.read(0, min(MAX_MANIFEST_NBYTES + 1, source.size)), source=name)
        return _stored(places, manifest, name, executor)
    layout = locate(source, os.path.basename(name))
    return Checkpoint(layout, FileStorages(source, layout), name)


def checkpoint_at(places: Places, name: str, rev: str, executor: Executor) -> Checkpoint:
    """The checkpoint that a commit has; ``rev`` may be empty for the index.

    Raises
    ------
    NotTrackedError
        If it is not stored by theta-nb.
    ThetaError
        If there is no such file or revision.
    """
    return _stored(places, _manifest(places, name, rev), f"{name} at {rev or 'the index'}", executor)


def _stored(places: Places, manifest: Manifest, description: str, executor: Executor) -> Checkpoint:
    return Checkpoint.from_manifest(manifest, places.store, executor, description, bring=partial(bring, places))


def _manifest(places: Places, name: str, rev: str) -> Manifest:
    cat_file = CatFile(places.top)
    try:
        names = [f"{resolve(rev, places.top)}:{name}"] if rev else index_blobs(name, places.top)
        found = cat_file.size(names[0]) if names else None
        if found is None:
            raise ThetaError(
                f"{name} does not exist at {rev or 'the index'}", hint="'git log -- PATH' shows where it does."
            )
        text = read_text(found[0], cat_file)
    finally:
        cat_file.close()
    if text is None:
        raise NotTrackedError(
            f"{name} at {rev or 'the index'} is not stored by theta-nb", hint="Run 'git theta track' and add it."
        )
    return parse(text, source=name)


class _OwnedFile(FileSource):
    """A file that is closed when nothing reads from it any more, and that must stay as it was when it was opened."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._time = os.fstat(fd).st_mtime_ns

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly ``nbytes`` bytes from ``offset``, which still stand where the layout was located."""
        data = super().read(offset, nbytes)
        now = os.fstat(self.fd)
        if (now.st_size, now.st_mtime_ns) != (self.size, self._time):
            raise CheckpointError(
                "the file was overwritten after it was opened", hint="Open the checkpoint again when it is written."
            )
        return data

    def __del__(self) -> None:
        os.close(self.fd)
