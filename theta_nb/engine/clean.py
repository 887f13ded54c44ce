"""From a checkpoint, a file or a stream, to its manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import BinaryIO

from theta_nb.checkpoints.detection import locate
from theta_nb.checkpoints.layout import FileSource, Layout
from theta_nb.engine.decode import Decoder
from theta_nb.engine.encode import ChunkEncoder
from theta_nb.engine.known import Known
from theta_nb.engine.one_pass import Pass, Progress
from theta_nb.engine.previous import Previous
from theta_nb.engine.streams import ByteStream, FileStream, MismatchError
from theta_nb.errors import CheckpointError, listed
from theta_nb.manifest.model import Manifest
from theta_nb.storage.objects import ObjectStore

__all__ = ["ByteStream", "Cleaner", "FileStream"]


class Cleaner:
    """Cleans checkpoints into one store.

    Parameters
    ----------
    store
        Where new objects go.
    executor
        Where chunks are encoded.
    write
        If false only digests are computed; the manifest then lacks references for new chunks.
    previous
        The version that changed chunks may be stored as updates of; ``None``: every new chunk is dense.
    """

    def __init__(
        self, store: ObjectStore, executor: Executor, *, write: bool = True, previous: Previous | None = None
    ) -> None:
        self._store = store
        self._executor = executor
        self._write = write
        self._previous = previous

    def file(self, fd: int, name: str, known: Known, progress: Progress | None = None) -> tuple[Manifest, Layout]:
        """Clean an open file.

        Parameters
        ----------
        fd
            Descriptor of a regular file.
        name
            File name: the format is found by content first and name second.
        known
            Encodings that exist.
        progress
            Called with the number of bytes done since the last call.

        Returns
        -------
        Manifest, Layout
            The layout also carries warnings for the user.

        Raises
        ------
        CheckpointError
            If the file changes meanwhile, or is unsafe to store.
        """
        before = _times(fd)
        layout = locate(FileSource(fd), name)
        try:
            work = self._pass(layout, known, progress)
            manifest = work.run(FileStream(fd))
        except MismatchError:
            raise _changed(name) from None
        if _times(fd) != before:
            raise _changed(name)
        return manifest, _with_kept(layout, work.kept)

    def stream(
        self, stream: ByteStream, name: str, known: Known, *, hint: FileSource | None, spool: Callable[[], BinaryIO]
    ) -> tuple[Manifest, Layout]:
        """Clean bytes that come once, as git sends them.

        The stream is the truth. Locating needs random access, so the layout is taken from ``hint``, the work-tree file
        that git is most likely sending; every byte outside the storages is compared as it comes. If it is another file
        after all, what was consumed is rebuilt and the whole is spooled.

        Parameters
        ----------
        stream
            The content.
        name, known
            As for :meth:`file`.
        hint
            File that the content probably comes from.
        spool
            Opens a temporary binary file for content that has no file; the caller's, deleted on close.
        """
        if hint is None:
            with spool() as file:
                return self._spooled(file, stream, name, known)
        before = _times(hint.fd)
        layout = locate(hint, name)
        work = self._pass(layout, known, None, hint)
        try:
            manifest, tail = work.run(stream), b""
            # A file that became the stream's content after it was located would lend it another file's names.
            if _times(hint.fd) == before:
                return manifest, _with_kept(layout, work.kept)
        except MismatchError as mismatch:
            tail = mismatch.tail
        with spool() as file:
            work.replay(file)
            file.write(tail)
            return self._spooled(file, stream, name, known)

    def _pass(self, layout: Layout, known: Known, progress: Progress | None, hint: FileSource | None = None) -> Pass:
        encoder = ChunkEncoder(
            self._store,
            known,
            self._executor,
            write=self._write,
            previous=self._previous,
        )
        return Pass(layout, encoder, Decoder(self._store), self._previous, progress, hint)

    def _spooled(self, file: BinaryIO, stream: ByteStream, name: str, known: Known) -> tuple[Manifest, Layout]:
        buffer = memoryview(bytearray(2**20))
        while count := stream.readinto(buffer):
            file.write(buffer[:count])
        file.flush()
        return self.file(file.fileno(), name, known)


def _with_kept(layout: Layout, kept: Sequence[str]) -> Layout:
    """Say in the warnings what was not taken."""
    if not kept:
        return layout
    warning = (
        f"{len(kept)} tensor{'s are' * (len(kept) > 1) or ' is'} within theta.tolerance of the committed version and "
        f"kept as committed: {listed(kept)}"
    )
    return replace(layout, warnings=(*layout.warnings, warning))


def _times(fd: int) -> tuple[int, int]:
    """What changes when a file is written to."""
    info = os.fstat(fd)
    return info.st_size, info.st_mtime_ns


def _changed(name: str) -> CheckpointError:
    return CheckpointError(f"{name} changed while it was read", hint="Wait until it is written, then run it again.")
