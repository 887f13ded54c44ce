"""Turn raw chunks into objects: digest, look up, encode, write, pack."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from theta_nb.engine.known import Known, KnownChunk
from theta_nb.engine.pipeline import Pipeline
from theta_nb.engine.previous import AUTO, Previous
from theta_nb.manifest.model import INLINE_NBYTES, ChunkRef
from theta_nb.storage.encoding import encode_bytes, encode_numbers
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.chunks import chunk_digest
from theta_nb.updates.table import Numbers, numbers_of_width

if TYPE_CHECKING:
    from theta_nb.engine.incremental import Incremental, Step

__all__ = ["PACKED_NBYTES", "ChunkEncoder", "Read"]

PACKED_NBYTES = 64 * 2**10
"""Encoded chunks shorter than this share objects: 20,000 optimizer records must not be 20,000 objects."""

_PACK_NBYTES = 16 * 2**20

_MAX_LOST_PACKS = 2  # chunks come in the order in which they were packed, so a pack is complete before the next begins


Make = Callable[[memoryview], "Step | None"]
"""Fills a chunk, in a worker thread; returns an update that leads to exactly these bytes, if there is one to prefer."""


Read = Callable[[memoryview, int], None]
"""Puts the bytes of a chunk from an offset on into memory, in a worker thread."""

_PIECE_NBYTES = 2**20  # what is read and hashed at once stays in a core's cache


class _Chunk(NamedTuple):
    offset: int  # in the buffer
    nbytes: int
    itemsize: int  # 0 for bytes that are not numbers
    numbers: Numbers | None  # what its bytes mean, where more is known
    previous: KnownChunk | None  # what stood in its place before
    make: Make | None = None  # fills it
    read: Read | None = None  # likewise, any part of it


class _Outcome(NamedTuple):
    digest: bytes
    known: KnownChunk | None
    frame: bytes  # small, still to be packed, or of a known pack that is not here
    update: str = "dense"
    base: KnownChunk | None = None  # what the frame is an update of
    near: bool = False  # within the tolerance of what stood in its place before

    @property
    def base_ref(self) -> ChunkRef | None:
        return None if self.base is None else self.base.ref


class _Patience:
    """Whether another chunk of a buffer is worth a try: after some in vain only every eighth is, until one succeeds.

    A buffer is worked on in order, by one thread, so the same file gives the same answers.
    """

    _IN_VAIN, _EVERY = 4, 8

    def __init__(self) -> None:
        self._in_vain = 0

    def tries(self) -> bool:
        if self._in_vain >= self._IN_VAIN:
            self._in_vain += 1
            return self._in_vain % self._EVERY == 0
        return True

    def learn(self, *, found: bool) -> None:
        self._in_vain = 0 if found else self._in_vain + 1


class _Worker:
    """What happens to one chunk, in a worker thread."""

    def __init__(self, store: ObjectStore, known: Known, previous: Previous | None, *, write: bool = True) -> None:
        self.store = store
        self.known = known
        self.previous = previous
        self.write = write

    @cached_property
    def incremental(self) -> Incremental:
        """Loaded when the first chunk asks for it: it brings NumPy, and most commands meet no new chunk."""
        from theta_nb.engine.incremental import Incremental

        if self.previous is None:
            raise ValueError("there is no version before")
        return Incremental(self.store, self.previous)

    def process(self, chunks: list[_Chunk], buffer: memoryview) -> list[_Outcome]:
        """Digest, look up and encode every chunk of a buffer."""
        patience = _Patience()
        return [self._one(buffer[c.offset : c.offset + c.nbytes], c, patience) for c in chunks]

    def _one(self, raw: memoryview, chunk: _Chunk, patience: _Patience) -> _Outcome:
        made = None if chunk.make is None else chunk.make(raw)
        digest = chunk_digest(raw) if chunk.read is None else self._read(raw, chunk.read)
        if len(raw) <= INLINE_NBYTES:
            return _Outcome(digest, KnownChunk(ChunkRef(digest, inline=bytes(raw)), 0), b"")
        known = self.known.find(digest)
        if known is None and chunk.previous is not None and chunk.previous.ref.digest == digest:
            known = chunk.previous  # of a commit that is not checked out
        near = self._near(raw, digest, chunk)
        if not self.write:
            return _Outcome(digest, known, b"", near=near)
        if known is not None and self._unwanted(known, digest, chunk):
            known = None
        if known is not None and known.complete(self.store):
            return _Outcome(digest, known, b"", near=near)
        if known is not None and known.base is not None:
            known = None  # an update cannot be made again without what it was made from; the bytes here can be kept
        step = (made or self._step(raw, chunk, patience)) if known is None else None
        if step is not None:
            outcome = _Outcome(digest, None, step.payload, step.update, step.base, near)
        else:
            frame = encode_numbers(raw, chunk.itemsize) if chunk.itemsize else encode_bytes(raw)
            outcome = _Outcome(digest, known, frame, near=near)
        return outcome if len(outcome.frame) < PACKED_NBYTES else self._written(outcome)

    def _read(self, raw: memoryview, read: Read) -> bytes:
        """Fill a chunk; of one that is only hashed, no more is in memory than a piece."""
        if self.write or self.previous is not None or len(raw) <= _PIECE_NBYTES:
            read(raw, 0)
            return chunk_digest(raw)
        hasher = blake3()
        for start in range(0, len(raw), _PIECE_NBYTES):
            piece = raw[: min(_PIECE_NBYTES, len(raw) - start)]
            read(piece, start)
            hasher.update(piece)
        return hasher.digest()

    def _unwanted(self, known: KnownChunk, digest: bytes, chunk: _Chunk) -> bool:
        """Whether a new chunk is known as another update type than the one that is set: a status cleaned it before."""
        if self.previous is None or self.previous.update == AUTO or chunk.previous is None:
            return False
        return chunk.previous.ref.digest != digest and known.ref.update != self.previous.update

    def _step(self, raw: memoryview, chunk: _Chunk, patience: _Patience) -> Step | None:
        if self.previous is None or chunk.previous is None or not chunk.itemsize:
            return None
        if self.previous.update == AUTO and not patience.tries():  # who asks for a type has the patience
            return None
        step = self.incremental.step(raw, chunk.previous, chunk.numbers or numbers_of_width(chunk.itemsize))
        patience.learn(found=step is not None)
        return step

    def _near(self, raw: memoryview, digest: bytes, chunk: _Chunk) -> bool:
        previous = chunk.previous
        tolerant = self.previous is not None and self.previous.tolerance is not None
        if not tolerant or previous is None or chunk.numbers is None or previous.ref.digest == digest:
            return False
        return self.incremental.near(raw, previous, chunk.numbers)

    def _written(self, outcome: _Outcome) -> _Outcome:
        """Write an object of its own."""
        size = len(outcome.frame)
        oid = self.store.write(outcome.frame)
        ref = ChunkRef(outcome.digest, oid, 0, size, update=outcome.update, base=outcome.base_ref)
        return _Outcome(outcome.digest, outcome.known or KnownChunk(ref, size, outcome.base), b"", near=outcome.near)


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
        self._worker = _Worker(store, known, previous, write=write)
        self._pipeline: Pipeline[list[_Outcome]] = Pipeline(executor, depth, self._take)
        self._buffer: memoryview | None = None
        self._filled = 0
        self._chunks: list[_Chunk] = []
        self._pack: dict[bytes, _Outcome] = {}
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
        self._chunks.append(_Chunk(self._filled, nbytes, itemsize, numbers, previous, make, read))
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

    def _take(self, outcomes: list[_Outcome], _buffer: memoryview) -> None:
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
