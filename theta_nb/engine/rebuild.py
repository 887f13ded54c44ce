"""From a manifest back to the checkpoint, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

from theta_nb.checkpoints.layout import Layout, Part
from theta_nb.engine.decode import Decoder, check_updates
from theta_nb.engine.layouts import MAX_LAYOUT_NBYTES, anonymous, check_layout, derived_bytes, owners, parse_layout
from theta_nb.engine.pipeline import Pipeline
from theta_nb.errors import ManifestError, MissingObjectError
from theta_nb.manifest.model import ChunkRef, Manifest
from theta_nb.storage.objects import ObjectStore, lacking
from theta_nb.tensors.chunks import Extent, chunk_extents

__all__ = ["Decoder", "Rebuilder"]

Progress = Callable[[int], None]

_STREAMED = 2  # buffers: while one is written the other is filled, and fresh memory is dear
_PLACED = 3  # one more, so that a worker that is done need not wait for us
_BATCH_NBYTES = 2**22  # small pieces that go through a buffer together: what is not touched of it costs nothing


class _Piece(NamedTuple):
    """A stretch of the file: a chunk to decode, or literal bytes."""

    offset: int
    nbytes: int
    ref: ChunkRef | None
    literal: bytes
    what: str


class Rebuilder:
    """Rebuilds one checkpoint file.

    Parameters
    ----------
    manifest
        What to rebuild.
    store
        Where objects are read.
    executor
        Where chunks are decoded.

    Raises
    ------
    MissingObjectError
        If any object is missing: known before the first byte is made.
    ManifestError, CorruptObjectError
        If layout and manifest do not belong together, the layout is corrupt, or an update type is not known here.
    """

    def __init__(self, manifest: Manifest, store: ObjectStore, executor: Executor) -> None:
        check_updates(manifest)
        missing = lacking(manifest.objects, store)
        if missing:
            raise MissingObjectError(
                f"{len(missing)} of {len(manifest.objects)} objects are not here (first: {missing[0][:12]})",
                oids=missing,
            )
        self.manifest = manifest
        self._decoder = Decoder(store)
        self._executor = executor
        self.layout = read_layout(manifest, self._decoder)
        self._owners = owners(self.layout)
        self._derived = derived_bytes(manifest, self.layout, self._owners)

    def stream(self, sink: Callable[[memoryview], None], progress: Progress | None = None) -> None:
        """Write the file to ``sink``, in order; every chunk is verified before it is passed on."""

        def take(nbytes: int, buffer: memoryview) -> None:
            sink(buffer[:nbytes])
            if progress is not None:
                progress(nbytes)

        self._run(take, lambda _offset, pieces, buffer: self._fill(pieces, buffer), _STREAMED)

    def file(self, fd: int, progress: Progress | None = None, *, skip: Collection[int] = ()) -> None:
        """Write the file to an open descriptor: chunks go to their places in parallel.

        Parameters
        ----------
        fd
            Of a file that is empty, but for the storages in ``skip``.
        progress
            Called with the number of bytes done since the last call.
        skip
            Indices of storages whose bytes are there already.
        """

        def work(offset: int, pieces: list[_Piece], buffer: memoryview) -> int:
            nbytes = self._fill(pieces, buffer)
            view = buffer[:nbytes]
            while view:
                count = os.pwrite(fd, view, offset)
                offset += count
                view = view[count:]
            return nbytes

        def take(nbytes: int, _buffer: memoryview) -> None:
            if progress is not None:
                progress(nbytes)

        self._run(take, work, _PLACED, skip)

    def _run(
        self,
        take: Callable[[int, memoryview], None],
        work: Callable[[int, list[_Piece], memoryview], int],
        depth: int,
        skip: Collection[int] = (),
    ) -> None:
        pipeline: Pipeline[int] = Pipeline(self._executor, depth, take)
        try:
            for offset, pieces in self._batches(skip):
                buffer = pipeline.buffer()
                pipeline.submit(partial(work, offset, pieces), buffer)
            pipeline.finish()
        except BaseException:
            pipeline.abandon()
            raise

    def _fill(self, pieces: list[_Piece], buffer: memoryview) -> int:
        position = 0
        for piece in pieces:
            dest = buffer[position : position + piece.nbytes]
            if piece.ref is not None:
                self._decoder.into(piece.ref, dest, piece.what)
            else:
                dest[:] = piece.literal
            position += piece.nbytes
        return position

    def _batches(self, skip: Collection[int]) -> Iterator[tuple[int, list[_Piece]]]:
        """Runs of consecutive pieces that fit one buffer, with their place in the file."""
        batch: list[_Piece] = []
        start = end = 0
        for piece in self._pieces(skip):
            if batch and (piece.offset != end or end + piece.nbytes - start > _BATCH_NBYTES):
                yield start, batch
                batch = []
            if not batch:
                start = piece.offset
            batch.append(piece)
            end = piece.offset + piece.nbytes
        if batch:
            yield start, batch

    def _pieces(self, skip: Collection[int]) -> Iterator[_Piece]:
        skeleton = _Skeleton(self.manifest, self._decoder)
        for part, index, offset, nbytes in self.layout.segments():
            if part is Part.STORAGE and index in skip:
                continue
            if part is Part.STORAGE:
                owner = self._owners[index]
                value = self.manifest.value_of(owner)
                for extent, ref in zip(self._extents(index), value.chunks, strict=True):
                    yield _Piece(offset + extent.offset, extent.nbytes, ref, b"", owner)
            elif part is Part.SKELETON:
                for data in skeleton.take(nbytes):
                    yield _Piece(offset, len(data), None, data, "")
                    offset += len(data)
            else:
                yield _Piece(offset, nbytes, None, self._derived[index], "")
        skeleton.end()

    def _extents(self, index: int) -> Iterator[Extent]:
        storage = self.layout.storages[index]
        if self._owners[index] == anonymous(index):
            return chunk_extents(storage.nbytes, 1, 1)
        return chunk_extents(storage.nbytes, storage.row_nbytes, storage.itemsize)


class _Skeleton:
    """The skeleton as a stream, one decoded chunk at a time."""

    def __init__(self, manifest: Manifest, decoder: Decoder) -> None:
        self._value = manifest.values[manifest.skeleton]
        self._decoder = decoder
        self._chunks = zip(chunk_extents(self._value.nbytes, 1, 1), self._value.chunks, strict=True)
        self._current = memoryview(b"")

    def take(self, nbytes: int) -> Iterator[bytes]:
        while nbytes:
            if not self._current:
                extent, ref = next(self._chunks, (None, None))
                if extent is None or ref is None:
                    raise ManifestError("the skeleton is shorter than the layout asks for")
                raw = bytearray(extent.nbytes)
                self._decoder.into(ref, memoryview(raw), "the skeleton")
                self._current = memoryview(raw)
            piece = self._current[:nbytes]
            self._current = self._current[len(piece) :]
            nbytes -= len(piece)
            yield bytes(piece)

    def end(self) -> None:
        if self._current or next(self._chunks, None) is not None:
            raise ManifestError("the skeleton is longer than the layout asks for")


def read_layout(manifest: Manifest, decoder: Decoder) -> Layout:
    """The layout of a manifest, checked against its entries.

    Raises
    ------
    ManifestError
        If the layout is too long or does not fit the manifest.
    """
    value = manifest.values[manifest.layout]
    if value.nbytes > MAX_LAYOUT_NBYTES:
        raise ManifestError(f"a layout of {value.nbytes} bytes is too long")
    layout = parse_layout(decoder.value(value, "the layout"), manifest.format, manifest.size)
    check_layout(manifest, layout)
    return layout
