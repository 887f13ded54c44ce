"""Whether a chunk is stored as an update of its previous version, and as which.

The cheapest wins by real size; what cannot win is found out from a sample of a few blocks, so that the question costs
little where the answer is no. Chains stay short: an update goes on top of the previous version, or again on top of the
dense beginning of its chain where that costs about as much, and reading a chunk never touches more than twice the bytes
of a dense one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from theta_nb.engine.decode import Decoder
from theta_nb.engine.known import KnownChunk
from theta_nb.errors import ThetaError
from theta_nb.manifest.model import ChunkRef, Manifest
from theta_nb.storage.encoding import encode_differences, read_range
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.chunks import CHUNK_NBYTES, Extent, chunk_extents, row_nbytes
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.updates.table import UPDATES, Numbers, Update
from theta_nb.updates.zigzag import Patterns, add_zigzag, patterns, subtract_zigzag

__all__ = ["AUTO", "MAX_UPDATES", "READ_COST", "Incremental", "Previous", "Step"]

AUTO = "auto"
"""Setting that lets sizes decide between the types that cost nothing to try."""

MAX_UPDATES = 8
"""Longest chain that is written; readers accept more."""

READ_COST = 2.0
"""Bytes that reading a chunk may touch, as a multiple of its dense ones."""

_PAYS = 0.9  # share of the dense bytes above which an update is not worth its chain
_LINK_NBYTES = 128  # what a link costs in every manifest
_NEAR = 1.25  # an update of the beginning may be so much longer than one of the end of the chain
_SMALL_NBYTES = 2**20  # smaller chunks are tried in full
_SAMPLES, _SAMPLE_NBYTES = 3, 2**16
_FEW = 0.1  # share of changed numbers below which positions may be cheaper than differences


@dataclass(frozen=True, slots=True)
class Previous:
    """The version that changed chunks may be stored as updates of: the committed one, never a staged one.

    Parameters
    ----------
    manifest
        That version.
    update
        Update type to be used, or ``"auto"``.
    encoder
        What encodes it, where that is not the type with its default settings.
    """

    manifest: Manifest
    update: str = AUTO
    encoder: Update | None = None

    def chunks(self, name: str, dtype: str, shape: tuple[int, ...]) -> dict[Extent, KnownChunk]:
        """Encodings of the chunks of a parameter by their place, if its rows were as long then; else none."""
        old = self.manifest.entries.get(name)
        if old is None or old.owner or old.dtype != dtype or len(old.shape) != len(shape) or old.shape[1:] != shape[1:]:
            return {}
        value = self.manifest.values[old.digest]
        row, itemsize = 1, 1
        if dtype != "bytes":
            row, itemsize = row_nbytes(dtype_named(dtype), old.shape), dtype_named(dtype).itemsize
        extents = chunk_extents(value.nbytes, row, itemsize)
        return {e: KnownChunk.of(r, self.manifest.objects) for e, r in zip(extents, value.chunks, strict=True)}


class Step(NamedTuple):
    """An update to be stored."""

    update: str
    payload: bytes
    base: KnownChunk


@dataclass(frozen=True, slots=True)
class _Estimate:
    nbytes: float
    changed: float  # share of the numbers


class Incremental:
    """Finds the step from the previous version of a chunk; safe to share between threads.

    Parameters
    ----------
    store
        Where the objects of previous versions are.
    update
        ``"auto"``, or the name of the only update type that may be used besides ``"dense"``.
    encoder
        What encodes it, where that is not the type with its default settings.
    """

    def __init__(self, store: ObjectStore, update: str = AUTO, encoder: Update | None = None) -> None:
        self._store = store
        self._encoder = encoder
        self._decoder = Decoder(store)
        self._update = update
        self._buffers = threading.local()

    def step(self, raw: memoryview, previous: KnownChunk, numbers: Numbers) -> Step | None:
        """The cheapest update that leads to ``raw``, or ``None`` where dense is cheaper or nothing else is possible.

        Parameters
        ----------
        raw
            The new bytes.
        previous
            Encoding of the old ones, which are as many.
        numbers
            What both mean.
        """
        if self._update == "dense" or not previous.ref.oid or not previous.complete(self._store):
            return None
        dense = previous.steps()[0].ref.length
        for base, changed in self._bases(raw, previous, numbers, dense):
            step = self._encoded(raw, base, numbers, changed)
            if step is not None and self.allowed(base, len(step.payload), dense):
                return step
        return None

    @staticmethod
    def allowed(base: KnownChunk, payload: int, dense: int) -> bool:
        """Whether a chunk may be stored as an update on top of a chain.

        Parameters
        ----------
        base
            The chain.
        payload
            Bytes of the update.
        dense
            Bytes of a dense encoding.
        """
        steps = base.steps()
        read = payload + sum(step.ref.length for step in steps)
        return len(steps) <= MAX_UPDATES and payload + _LINK_NBYTES < _PAYS * dense and read <= READ_COST * dense

    def _bases(
        self, raw: memoryview, previous: KnownChunk, numbers: Numbers, dense: int
    ) -> Iterator[tuple[KnownChunk, float]]:
        """Steps of the previous chain on which an update may be put, the better first; with the share that changed."""
        first = previous.steps()[0]
        if len(raw) < _SMALL_NBYTES or self._update != AUTO:
            yield from ((base, 0.0) for base in dict.fromkeys((previous, first)))
            return
        far = self._estimate(raw, first, numbers)
        near = far if previous is first else self._estimate(raw, previous, numbers)
        order = [(first, far), (previous, near)]
        if far is None or (near is not None and far.nbytes > _NEAR * near.nbytes + _LINK_NBYTES):
            order.reverse()
        for base, estimate in dict(order).items():
            if estimate is None or self.allowed(base, int(estimate.nbytes), dense):
                yield base, 0.0 if estimate is None else estimate.changed

    def _encoded(self, raw: memoryview, base: KnownChunk, numbers: Numbers, changed: float) -> Step | None:
        old = self._old(base, len(raw))
        if old is None:
            return None
        names = [self._update]
        if self._update == AUTO:
            names = ["delta"] if changed > _FEW else ["sparse", "delta"]
        encoders = {name: self._encoder or UPDATES[name] for name in names}
        found = [(name, data) for name, by in encoders.items() if (data := by.encode(old, raw, numbers)) is not None]
        if not found:
            return None
        name, payload = min(found, key=lambda item: len(item[1]))
        return Step(name, payload, base)

    def _old(self, base: KnownChunk, nbytes: int) -> memoryview | None:
        """The old bytes, verified: an update of something else could never be applied."""
        memory: memoryview | None = getattr(self._buffers, "memory", None)
        if memory is None or len(memory) < nbytes:
            memory = self._buffers.memory = memoryview(bytearray(CHUNK_NBYTES if nbytes > _SMALL_NBYTES else nbytes))
        try:
            self._decoder.into(base.ref, memory[:nbytes], "the previous version")
        except ThetaError:
            return None  # damaged, gone meanwhile, or by a plug-in that is not here: dense needs none of it
        return memory[:nbytes]

    # --- sampling -----------------------------------------------------------------------------------------------------

    def _estimate(self, raw: memoryview, base: KnownChunk, numbers: Numbers) -> _Estimate | None:
        """Size of a delta, from a few blocks; ``None`` where only a full read can tell."""
        width = numbers.width
        step = len(raw) // _SAMPLES // width * width
        parts, changed = [], 0
        for number in range(_SAMPLES):
            start = number * step + (step - _SAMPLE_NBYTES) // 2 // width * width
            old = self._part(base, start, width)
            if old is None:
                return None
            new = patterns(raw[start : start + _SAMPLE_NBYTES], width)
            differences = np.empty_like(new)
            subtract_zigzag(new, old, differences)
            changed += int(np.count_nonzero(differences))
            parts.append(differences)
        sample = np.concatenate(parts)
        length = len(encode_differences(sample.tobytes(), width))
        return _Estimate(length / sample.nbytes * len(raw), changed / len(sample))

    def _part(self, base: KnownChunk, start: int, width: int) -> Patterns | None:
        """A few old numbers, from the blocks of the frames that hold them."""
        result: Patterns | None = None
        for step in base.steps():
            if step.ref.update not in ("dense", "delta"):
                return None
            try:
                data = read_range(partial(self._read, step.ref), start, _SAMPLE_NBYTES)
            except ThetaError:
                return None
            part = patterns(bytearray(data), width)
            if result is None:
                result = part
            else:
                add_zigzag(result, part)
        return result

    def _read(self, ref: ChunkRef, position: int, length: int) -> bytes:
        if position + length > ref.length:
            return b""
        data = bytearray(length)
        self._store.read_into(ref.oid, ref.offset + position, memoryview(data))
        return bytes(data)
