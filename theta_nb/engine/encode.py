"""Turn raw chunks into objects, in order: hand them to workers, take what they made, pack what is small."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import Executor
from functools import partial

from theta_nb.engine.chunk_work import Chunk, Make, Outcome, Read, Worker
from theta_nb.engine.known import Known, KnownChunk
from theta_nb.engine.pipeline import Pipeline
from theta_nb.engine.previous import Previous
from theta_nb.manifest.model import ChunkRef
from theta_nb.storage.objects import ObjectStore
from theta_nb.updates.table import Numbers

__all__ = ["ChunkEncoder"]

_PACK_NBYTES = 16 * 2**20

_MAX_LOST_PACKS = 2  # chunks come in the order in which they were packed, so a pack is complete before the next begins


class _LostPacks:
    """Puts packs together again that manifests name and the store lacks, as far as their chunks come by.

    A reference to such a pack stays in any case: what a chunk is called must not depend on what happens to lie in the
    local store, which may be that of a clone that skipped the objects.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._packs: dict[str, dict[int, bytes]] = {}  # frames by offset, by name of the pack
        self._nbytes: Counter[str] = Counter()

    def add(self, known: KnownChunk, frame: bytes) -> None:
        """Take one frame; if it completes its pack, the pack is written."""
        oid, offset = known.ref.oid, known.ref.offset
        frames = self._packs.setdefault(oid, {})
        if offset not in frames:
            frames[offset] = frame
            self._nbytes[oid] += len(frame)
        if self._nbytes[oid] >= known.object_size:
            data = b"".join(frames[start] for start in sorted(frames))
            # A codec of another version may have made other frames of the same chunks.
            if hashlib.sha256(data).hexdigest() == oid:
                self._store.write(data)
            self._drop(oid)
        elif len(self._packs) > _MAX_LOST_PACKS:
            self._drop(next(iter(self._packs)))

    def _drop(self, oid: str) -> None:
        del self._packs[oid], self._nbytes[oid]


class ChunkEncoder:
    """Encodes chunks in the order they are added; equal content gives equal objects.

    Parameters
    ----------
    store
        Where objects are written.
    known
        Encodings that need not be made again.
    executor
        Where chunks are worked on.
    depth
        Number of 16 MiB buffers in flight.
    write
        If false only digests are computed: nothing is encoded or written, and new chunks get no reference.
    previous
        The version that changed chunks may be stored as updates of; ``None``: every new chunk is dense.
    """

    def __init__(
        self,
        store: ObjectStore,
        known: Known,
        executor: Executor,
        *,
        depth: int = 5,
        write: bool = True,
        previous: Previous | None = None,
    ) -> None:
        self._store = store
        self._worker = Worker(store, known, previous, write=write)
        self._pipeline: Pipeline[list[Outcome]] = Pipeline(executor, depth, self._take)
        self._buffer: memoryview | None = None
        self._filled = 0
        self._chunks: list[Chunk] = []
        self._pack: dict[bytes, Outcome] = {}
        self._pack_nbytes = 0
        self._lost = _LostPacks(store)
        self.digests: list[bytes] = []
        """Digest of every chunk, by its number; complete after :meth:`finish`."""
        self.known: dict[bytes, KnownChunk] = {}
        """Encoding of every chunk, by digest; complete after :meth:`finish`."""
        self.near: set[int] = set()
        """Numbers of chunks that are within the tolerance of their previous versions; complete likewise."""
        self._count = 0

    def space(self, nbytes: int) -> memoryview:
        """Where to put the raw bytes of the next chunk; :meth:`add` must follow."""
        if self._buffer is not None and len(self._buffer) - self._filled < nbytes:
            self._flush()
        if self._buffer is None:
            self._buffer = self._pipeline.buffer()
        return self._buffer[self._filled : self._filled + nbytes]

    def add(
        self,
        nbytes: int,
        itemsize: int,
        *,
        numbers: Numbers | None = None,
        previous: KnownChunk | None = None,
        make: Make | None = None,
        read: Read | None = None,
    ) -> int:
        """Take the chunk that was put into :meth:`space`; returns its number.

        Parameters
        ----------
        nbytes
            Its length.
        itemsize
            Bytes of a number; 0 where the chunk is not numbers.
        numbers
            What its bytes mean, where more is known than the item size.
        previous
            What stood in its place before, if it may be stored as an update of that.
        make, read
            Put the bytes into :meth:`space`, where the caller does not.
        """
        self._chunks.append(Chunk(self._filled, nbytes, itemsize, numbers, previous, make, read))
        self._filled += nbytes
        self._count += 1
        return self._count - 1

    def add_bytes(self, data: bytes | bytearray | memoryview) -> int:
        """Encode bytes that are not numbers as one chunk; returns its number."""
        self.space(len(data))[:] = data
        return self.add(len(data), 0)

    def finish(self) -> None:
        """Wait until everything added so far is encoded and written."""
        self._flush()
        self._pipeline.finish()
        self._flush_pack()

    def abandon(self) -> None:
        """Stop; objects that were written already stay, as unreferenced ones that ``gc`` collects."""
        self._pipeline.abandon()

    def _flush(self) -> None:
        if self._buffer is not None:
            self._pipeline.submit(partial(self._worker.process, self._chunks), self._buffer)
            self._buffer, self._filled, self._chunks = None, 0, []

    def _take(self, outcomes: list[Outcome], _buffer: memoryview) -> None:
        for outcome in outcomes:
            if outcome.near:
                self.near.add(len(self.digests))
            self.digests.append(outcome.digest)
            if outcome.known is not None:
                self.known.setdefault(outcome.digest, outcome.known)
                if outcome.frame:
                    self._lost.add(outcome.known, outcome.frame)
            elif outcome.frame and outcome.digest not in self._pack and outcome.digest not in self.known:
                self._pack[outcome.digest] = outcome
                self._pack_nbytes += len(outcome.frame)
                if self._pack_nbytes >= _PACK_NBYTES:
                    self._flush_pack()

    def _flush_pack(self) -> None:
        if not self._pack:
            return
        data = b"".join(outcome.frame for outcome in self._pack.values())
        oid = self._store.write(data)
        offset = 0
        for digest, packed in self._pack.items():
            size = len(packed.frame)
            ref = ChunkRef(digest, oid, offset, size, update=packed.update, base=packed.base_ref)
            self.known[digest] = KnownChunk(ref, len(data), packed.base)
            offset += size
        self._pack, self._pack_nbytes = {}, 0
