"""The half of the filter that a ``git add`` needs and a checkout does not: from a file to its manifest."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from typing import BinaryIO

from theta_nb.checkpoints.layout import FileSource
from theta_nb.engine.clean import Cleaner
from theta_nb.engine.known import EncodingCache, KnownChunks
from theta_nb.engine.previous import AUTO, Previous
from theta_nb.errors import ManifestError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.content import HEAD_NBYTES, Content, is_reference_manifest, read_rest, take
from theta_nb.git.places import Places
from theta_nb.git.versions import Version, previous_of, recorded_texts, text_of, versions_at
from theta_nb.manifest.text import is_manifest, parse
from theta_nb.storage.objects import lacking
from theta_nb.updates.blas import single_threaded_blas

__all__ = ["FileCleaner"]


class FileCleaner:
    """Cleans the files of one git command.

    Parameters
    ----------
    places
        The repository.
    cat_file
        Reads git's objects.
    encodings
        What is stored already.
    executor
        Where chunks are encoded.
    spool
        Makes a temporary file, for what has to be read twice.
    warn
        Shows one sentence to the user.
    """

    def __init__(
        self,
        places: Places,
        cat_file: CatFile,
        encodings: EncodingCache,
        executor: Executor,
        spool: Callable[[], BinaryIO],
        warn: Callable[[str], None],
    ) -> None:
        self._places = places
        self._cat_file = cat_file
        self._encodings = encodings
        self._executor = executor
        self._spool = spool
        self._warn = warn

    def clean(self, path: str, content: Content) -> tuple[bytes, bool]:
        """What ``Filter.clean`` gives, and whether a checkpoint was stored for it."""
        head = take(content, HEAD_NBYTES)
        if not head:
            return b"", False
        if is_manifest(head) or is_reference_manifest(head):
            return self._manifest(path, head + read_rest(content)), False
        content.push_back(head)
        return self._checkpoint(path, head, content), True

    def _checkpoint(self, path: str, head: bytes, content: Content) -> bytes:
        versions = versions_at(path, self._places, self._cat_file)
        known = KnownChunks((v.manifest for v in versions), behind=self._encodings)
        previous = self._previous(path, versions)
        cleaner = Cleaner(self._places.store, self._executor, previous=previous)
        decomposes = previous is not None and previous.update == "low-rank"
        with self._hint(path, head) as hint, single_threaded_blas() if decomposes else nullcontext():
            manifest, layout = cleaner.stream(
                content, os.path.basename(path) or path, known, hint=hint, spool=self._spool
            )
        for warning in layout.warnings:
            self._warn(f"{path}: {warning}")
        self._encodings.remember(manifest)
        if self._places.settings.renew:
            versions = [v for v in versions if not lacking(v.manifest.objects, self._places.store)]
        return text_of(manifest, versions)

    def _previous(self, path: str, versions: Sequence[Version]) -> Previous | None:
        try:
            return previous_of(path, self._places, self._cat_file, versions)
        except ThetaError as error:
            # An error would make 'git status' fail as well, over how something is stored.
            self._warn(f"{error} It is stored as if nothing were set.")
            return previous_of(path, self._places, self._cat_file, versions, update=AUTO)

    def _manifest(self, path: str, data: bytes) -> bytes:
        if is_reference_manifest(data):
            return data
        text = data.replace(b"\r\n", b"\n")
        try:
            parse(text, source=path)
        except ManifestError:
            # 'git status' must go on in a repository that holds a broken manifest already; a new one is refused, and so
            # is what a merge by lines just left behind (AUTO_MERGE knows it, but nobody committed it yet).
            if text not in recorded_texts(path, self._places, self._cat_file):
                raise
        return text

    @contextmanager
    def _hint(self, path: str, head: bytes) -> Iterator[FileSource | None]:
        """The work-tree file, if it is a regular file that begins like the content."""
        try:
            fd = os.open(
                os.path.join(self._places.top, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            )
        except (OSError, ValueError):
            yield None
            return
        try:
            same = stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(head), 0) == head
            yield FileSource(fd) if same else None
        finally:
            os.close(fd)
