"""What happens to one chunk, in a worker thread: digest, look up, encode, write."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from theta_nb.engine.known import Known, KnownChunk
from theta_nb.engine.previous import AUTO, Previous
from theta_nb.manifest.model import INLINE_NBYTES, ChunkRef
from theta_nb.storage.encoding import encode_bytes, encode_numbers
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.chunks import chunk_digest
from theta_nb.updates.table import Numbers, numbers_of_width

if TYPE_CHECKING:
    from theta_nb.engine.incremental import Incremental, Step

__all__ = ["PACKED_NBYTES", "Chunk", "Make", "Outcome", "Read", "Worker"]

PACKED_NBYTES = 64 * 2**10
"""Encoded chunks shorter than this share objects: 20,000 optimizer records must not be 20,000 objects."""

Make = Callable[[memoryview], "Step | None"]
"""Fills a chunk, in a worker thread; returns an update that leads to exactly these bytes, if there is one to prefer."""


Read = Callable[[memoryview, int], None]
"""Puts the bytes of a chunk from an offset on into memory, in a worker thread."""

_PIECE_NBYTES = 2**20  # what is read and hashed at once stays in a core's cache


class Chunk(NamedTuple):
    """A chunk that waits in a buffer."""

    offset: int  # in the buffer
    nbytes: int
    itemsize: int  # 0 for bytes that are not numbers
    numbers: Numbers | None  # what its bytes mean, where more is known
    previous: KnownChunk | None  # what stood in its place before
    make: Make | None = None  # fills it
    read: Read | None = None  # likewise, any part of it


class Outcome(NamedTuple):
    """What became of a chunk: it is known, it was written as ``known``, or its frame waits to be packed."""

    digest: bytes
    known: KnownChunk | None
    frame: bytes  # small, still to be packed, or of a known pack that is not here
    update: str = "dense"
    base: KnownChunk | None = None  # what the frame is an update of
    near: bool = False  # within the tolerance of what stood in its place before

    @property
    def base_ref(self) -> ChunkRef | None:
        """Reference of the chunk that the frame is an update of."""
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


class Worker:
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

    def process(self, chunks: list[Chunk], buffer: memoryview) -> list[Outcome]:
        """Digest, look up and encode every chunk of a buffer."""
        patience = _Patience()
        return [self._one(buffer[c.offset : c.offset + c.nbytes], c, patience) for c in chunks]

    def _one(self, raw: memoryview, chunk: Chunk, patience: _Patience) -> Outcome:
        made = None if chunk.make is None else chunk.make(raw)
        digest = chunk_digest(raw) if chunk.read is None else self._read(raw, chunk.read)
        if len(raw) <= INLINE_NBYTES:
            return Outcome(digest, KnownChunk(ChunkRef(digest, inline=bytes(raw)), 0), b"")
        known = self.known.find(digest)
        if known is None and chunk.previous is not None and chunk.previous.ref.digest == digest:
            known = chunk.previous  # of a commit that is not checked out
        near = self._near(raw, digest, chunk)
        if not self.write:
            return Outcome(digest, known, b"", near=near)
        if known is not None and self._unwanted(known, digest, chunk):
            known = None
        if known is not None and known.complete(self.store):
            return Outcome(digest, known, b"", near=near)
        if known is not None and known.base is not None:
            known = None  # an update cannot be made again without what it was made from; the bytes here can be kept
        step = (made or self._step(raw, chunk, patience)) if known is None else None
        if step is not None:
            outcome = Outcome(digest, None, step.payload, step.update, step.base, near)
        else:
            frame = encode_numbers(raw, chunk.itemsize) if chunk.itemsize else encode_bytes(raw)
            outcome = Outcome(digest, known, frame, near=near)
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

    def _unwanted(self, known: KnownChunk, digest: bytes, chunk: Chunk) -> bool:
        """Whether a new chunk is known as another update type than the one that is set: a status cleaned it before."""
        if self.previous is None or self.previous.update == AUTO or chunk.previous is None:
            return False
        return chunk.previous.ref.digest != digest and known.ref.update != self.previous.update

    def _step(self, raw: memoryview, chunk: Chunk, patience: _Patience) -> Step | None:
        if self.previous is None or chunk.previous is None or not chunk.itemsize:
            return None
        if self.previous.update == AUTO and not patience.tries():  # who asks for a type has the patience
            return None
        step = self.incremental.step(raw, chunk.previous, chunk.numbers or numbers_of_width(chunk.itemsize))
        patience.learn(found=step is not None)
        return step

    def _near(self, raw: memoryview, digest: bytes, chunk: Chunk) -> bool:
        previous = chunk.previous
        tolerant = self.previous is not None and self.previous.tolerance is not None
        if not tolerant or previous is None or chunk.numbers is None or previous.ref.digest == digest:
            return False
        return self.incremental.near(raw, previous, chunk.numbers)

    def _written(self, outcome: Outcome) -> Outcome:
        """Write an object of its own."""
        size = len(outcome.frame)
        oid = self.store.write(outcome.frame)
        ref = ChunkRef(outcome.digest, oid, 0, size, update=outcome.update, base=outcome.base_ref)
        return Outcome(outcome.digest, outcome.known or KnownChunk(ref, size, outcome.base), b"", near=outcome.near)
