"""Writes the result of a merge as a checkpoint file.

The form is that of a side, if its file has just what the result has: names, shapes, ties, and everything that is no
tensor. Otherwise the file is written anew, from what the sides' files are made of.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from theta_nb.checkpoints.detection import locate
from theta_nb.checkpoints.formats import FORMATS
from theta_nb.checkpoints.layout import FileSource
from theta_nb.engine.merging.computing import nbytes_of
from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.form import Form, merged_metadata
from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.engine.merging.outline import METADATA
from theta_nb.engine.merging.placing import shape_of
from theta_nb.engine.merging.rewriting import crc32, pwrite, rewrite
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.engine.rebuild import Rebuilder
from theta_nb.errors import CheckpointError
from theta_nb.storage.durable import to_disk
from theta_nb.tensors.dtypes import DTYPES

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession, Progress

__all__ = ["write"]

_FLUSH_SECONDS = 0.01
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(session: MergeSession, path: str, progress: Progress | None) -> None:
    """Write the result to a file that appears whole or not at all; see :meth:`MergeSession.write`."""
    try:
        _replace(session, path, progress)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise CheckpointError(
            f"cannot write {path}: {error.strerror}", hint="Free some disk space and run the command again."
        ) from error


def _replace(session: MergeSession, path: str, progress: Progress | None) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    handle, partial = tempfile.mkstemp(prefix=".theta-merge-", dir=folder)
    try:
        try:
            os.fchmod(handle, _mode(path))
            with _flushing(handle):
                _write(session, handle, partial, path, progress)
            os.fsync(handle)
        finally:
            os.close(handle)
        for source in (session.base, *session.inputs):
            if isinstance(source, FileInput):
                source.verify()  # also what was only copied
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


@contextmanager
def _flushing(fd: int) -> Iterator[None]:
    """Bring to the disk what has been written while the rest is computed, so that the last ``fsync`` has little left.

    Raises
    ------
    OSError
        If the disk reports an error: it does so once, and the last ``fsync`` would not hear of it.
    """
    done = Event()

    def flush() -> None:
        while not done.wait(_FLUSH_SECONDS):
            to_disk(fd)

    with ThreadPoolExecutor(1, "theta-flush") as executor:
        flushing = executor.submit(flush)
        try:
            yield
        finally:
            done.set()
    flushing.result()


def _mode(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _write(session: MergeSession, fd: int, partial: str, path: str, progress: Progress | None) -> None:
    ours = session.inputs[0]
    ending = os.path.splitext(path)[1].lower()
    fits = isinstance(ours, FileInput | ManifestInput) and ending in FORMATS[ours.layout.format].extensions
    frame = Form(session).frame() if fits else None
    if frame is not None:
        _into_frame(session, frame, fd, progress)
    elif ending == ".safetensors":
        _fresh_safetensors(session, fd, progress)
    elif fits:
        rewrite(session, fd, progress)
        _verify(session, fd, path)
    else:
        state = session.arrays(progress)
        if any("/" in name for name in state):
            raise CheckpointError(
                f"{path}: nested names can only be written in the format of ours",
                hint="Write it to a .safetensors file.",
            )
        from theta_nb.checkpoints.detection import format_for_name

        format_for_name(path).write(state, partial, {})


def _into_frame(session: MergeSession, frame: int, fd: int, progress: Progress | None) -> None:
    """Copy of an input what the result shares with it, and compute the rest; then make its checksums right."""
    source = session.inputs[frame]
    if not isinstance(source, FileInput | ManifestInput):
        raise CheckpointError(f"{source.label} is no file")
    layout, storages = source.layout, source.storages
    changed = [d for d in session.tensor_decisions if d.take != frame and not d.dropped]
    touched = {storages[d.unit.name] for d in changed}
    os.ftruncate(fd, layout.size)
    if isinstance(source, FileInput):
        source.copy_to(fd, skip=touched)
    else:
        source.prepare_all()
        with ThreadPoolExecutor(2) as executor:
            Rebuilder(source.manifest, source.store, executor).file(fd, skip=touched)

    def fill(decision: Decision) -> None:
        start = layout.storages[storages[decision.unit.name]].offset
        session.produce(decision, lambda offset, data: pwrite(fd, data, start + offset))

    session._each(changed, fill, progress)
    for derived in layout.derived:
        if derived.storage in touched:
            storage = layout.storages[derived.storage]
            pwrite(fd, crc32(fd, storage.offset, storage.nbytes).to_bytes(4, "little"), derived.offset)


def _verify(session: MergeSession, fd: int, path: str) -> None:
    """See that a file written anew has the tensors that it should have, before anybody gets it."""
    layout = locate(FileSource(fd), path)
    found = {tensor.name: (tensor.dtype.name, tensor.shape) for tensor in layout.tensors}
    for decision in session.tensor_decisions:
        name, info = decision.unit.name, decision.info
        if info is None or name.startswith("@"):
            continue
        if found.get(name) != (info.dtype, shape_of(decision)):
            raise CheckpointError(
                f"{path}: {name!r} would not be in the file as it is in the result",
                hint="Write it to a .safetensors file.",
            )


def _fresh_safetensors(session: MergeSession, fd: int, progress: Progress | None) -> None:
    """Write a safetensors file tensor by tensor; nothing is held in memory but blocks."""
    wanted = [d for d in session.tensor_decisions if not d.dropped]
    infos = {}
    for decision in wanted:
        name, info = decision.unit.name, decision.info
        tag = DTYPES[info.dtype].safetensors if info is not None and info.dtype in DTYPES else None
        if info is None or tag is None or name.startswith("@"):
            raise CheckpointError(
                f"a safetensors file cannot hold {name!r} as it is in ours", hint="Write a file in the format of ours."
            )
        infos[name] = (decision, TensorInfo(info.dtype, shape_of(decision), info.digest), tag)
    _refuse_ties(session)
    order = sorted(infos, key=lambda name: (-DTYPES[infos[name][1].dtype].itemsize, name))
    metadata = merged_metadata(session)
    header: dict[str, Any] = {METADATA: metadata} if metadata else {}
    position, starts = 0, {}
    for name in order:
        _, info, tag = infos[name]
        end = position + nbytes_of(info)
        header[name] = {"dtype": tag, "shape": list(info.shape), "data_offsets": [position, end]}
        starts[name], position = position, end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    front = len(raw).to_bytes(8, "little") + raw
    pwrite(fd, front, 0)
    os.ftruncate(fd, len(front) + position)

    def fill(decision: Decision) -> None:
        start = len(front) + starts[decision.unit.name]
        session.produce(decision, lambda offset, data: pwrite(fd, data, start + offset))

    session._each(wanted, fill, progress)


def _refuse_ties(session: MergeSession) -> None:
    kept = {d.unit.name for d in session.tensor_decisions if not d.dropped}
    for name, info in session.inputs[0].tensors.items():
        if info.owner in kept:
            raise CheckpointError(
                f"{name!r} shares memory with {info.owner!r}, which a safetensors file cannot hold",
                hint="Write a file in the format of ours.",
            )
