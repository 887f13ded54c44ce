"""Clean and rebuild whole files in this process, without git."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

from theta_nb.checkpoints.layout import FileSource
from theta_nb.engine.clean import Cleaner
from theta_nb.engine.known import Known, KnownChunks
from theta_nb.engine.previous import Previous
from theta_nb.engine.rebuild import Rebuilder
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import dump, parse
from theta_nb.storage.objects import MemoryStore, ObjectStore


@contextmanager
def temporary(data: bytes) -> Iterator[BinaryIO]:
    """An open, nameless file that holds ``data``."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file


def clean(
    data: bytes,
    store: ObjectStore,
    name: str = "model.bin",
    known: Known | None = None,
    previous: Previous | None = None,
    workers: int = 2,
) -> Manifest:
    """Manifest of a file that holds ``data``."""
    with temporary(data) as file, ThreadPoolExecutor(workers) as executor:
        cleaner = Cleaner(store, executor, previous=previous)
        return cleaner.file(file.fileno(), name, known or KnownChunks())[0]


class OneTimeStream:
    """Bytes that come once, in pieces as odd as those of a pipe, but whole as the protocol asks."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readinto(self, dest: memoryview) -> int:
        return self._data.readinto(dest)


def clean_stream(
    data: bytes, store: ObjectStore, *, hint: bytes | None, name: str = "model.bin", known: Known | None = None
) -> Manifest:
    """Manifest of a stream of ``data`` that is taken for the content of a file that holds ``hint``."""
    with ThreadPoolExecutor(2) as executor:
        cleaner = Cleaner(store, executor)
        if hint is None:
            return cleaner.stream(
                OneTimeStream(data), name, known or KnownChunks(), hint=None, spool=tempfile.TemporaryFile
            )[0]
        with temporary(hint) as file:
            return cleaner.stream(
                OneTimeStream(data),
                name,
                known or KnownChunks(),
                hint=FileSource(file.fileno()),
                spool=tempfile.TemporaryFile,
            )[0]


def rebuild(manifest: Manifest, store: ObjectStore) -> bytes:
    """The file of a manifest, made both ways: as a stream and in parallel."""
    streamed = io.BytesIO()
    with ThreadPoolExecutor(2) as executor, tempfile.TemporaryFile() as file:
        rebuilder = Rebuilder(manifest, store, executor)
        rebuilder.stream(streamed.write)
        rebuilder.file(file.fileno())
        size = os.fstat(file.fileno()).st_size
        assert os.pread(file.fileno(), size, 0) == streamed.getvalue(), "stream() and file() disagree"
    return streamed.getvalue()


def round_trip(data: bytes, name: str = "model.bin") -> bytes:
    """The file again, after it was stored and its manifest written and read."""
    store = MemoryStore()
    return rebuild(parse(dump(clean(data, store, name))), store)
