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
from theta_nb.engine.previous import AUTO, Previous
from theta_nb.errors import ThetaError
from theta_nb.manifest.model import ChunkRef
from theta_nb.storage.encoding import encode_differences, encode_numbers, read_range
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.chunks import CHUNK_NBYTES, chunk_digest
from theta_nb.tensors.rounding import realdtype, widen
from theta_nb.updates.table import UPDATES, Numbers
from theta_nb.updates.zigzag import Patterns, add_zigzag, patterns, subtract_zigzag

__all__ = ["MAX_UPDATES", "READ_COST", "Incremental", "Step"]

MAX_UPDATES = 8
"""Longest chain that is written; readers accept more."""

READ_COST = 2.0
"""Bytes that reading a chunk may touch, as a multiple of its dense ones."""

_PAYS = 0.9  # share of the dense bytes above which an update is not worth its chain
_LINK_NBYTES = 128  # what a link costs in every manifest
_NEAR = 1.25  # an update of the beginning may be so much longer than one of the end of the chain
_SMALL_NBYTES = 2**20  # smaller chunks are tried in full
_SAMPLES, _SAMPLE_NBYTES = 3, 2**16
_FEW_NUMBERS = 1024  # of a small chunk that are looked at first
_BLOCK = 2**15  # numbers that are compared at a time
_FEW = 0.1  # share of changed numbers below which positions may be cheaper than differences
_OWN = ("delta", "sparse")  # integer arithmetic, exact by construction; what others make is tried before it is trusted


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
    previous
        The version that updates start from, and which ones may be used.
    """

    def __init__(self, store: ObjectStore, previous: Previous) -> None:
        self._store = store
        self._decoder = Decoder(store)
        self._update = previous.update
        self._encoder = previous.encoder
        self._tolerance = previous.tolerance
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
            if len(raw) < _SMALL_NBYTES and self._update == AUTO and self._hopeless(raw, base, numbers, dense):
                continue
            step = self._encoded(raw, base, numbers, changed)
            if step is not None and self.allowed(base, len(step.payload), dense):
                return step if self._pays(step, raw, numbers, dense) else None
        return None

    @staticmethod
    def _pays(step: Step, raw: memoryview, numbers: Numbers, dense: int) -> bool:
        """Whether the new numbers are not cheaper themselves: all zeros are, whatever they come from."""
        if len(step.payload) < _FEW * dense:
            return True
        parts = [raw] if len(raw) < _SMALL_NBYTES else [raw[at : at + _SAMPLE_NBYTES] for at in _samples(raw, numbers)]
        length = sum(len(encode_numbers(part, numbers.dtype.itemsize)) for part in parts)
        return len(step.payload) + _LINK_NBYTES < _PAYS * length / sum(map(len, parts)) * len(raw)

    @staticmethod
    def allowed(base: KnownChunk, payload: int, dense: int) -> bool:
        """Whether a chunk may be stored as an update of ``payload`` bytes on a chain, where dense takes ``dense``."""
        steps = base.steps()
        read = payload + sum(step.ref.length for step in steps)
        return len(steps) <= MAX_UPDATES and payload + _LINK_NBYTES < _PAYS * dense and read <= READ_COST * dense

    def _bases(
        self, raw: memoryview, previous: KnownChunk, numbers: Numbers, dense: int
    ) -> Iterator[tuple[KnownChunk, float]]:
        """Steps of the previous chain on which an update may be put, the better first; with the share that changed."""
        first = previous.steps()[0]
        if len(raw) < _SMALL_NBYTES or self._update != AUTO:
            yield from ((base, 0.0) for base in dict.fromkeys((previous, first)) if self.allowed(base, 0, dense))
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
        if name not in _OWN:  # no checkpoint is lost to a plug-in that rounds
            result = bytearray(old)
            UPDATES[name].apply(memoryview(payload), memoryview(result))
            if result != raw:
                return None
        return Step(name, payload, base)

    def _old(self, base: KnownChunk, nbytes: int) -> memoryview | None:
        """The old bytes, verified: an update of something else could never be applied."""
        old = self._decoded(base, nbytes)
        if old is None or self._buffers.verified:
            return old
        if chunk_digest(old) != base.ref.digest:
            return None
        self._buffers.verified = True
        return old

    def _decoded(self, base: KnownChunk, nbytes: int) -> memoryview | None:
        """The old bytes as they come; those that this thread asked for last stay in its buffer."""
        memory: memoryview | None = getattr(self._buffers, "memory", None)
        if memory is None or len(memory) < nbytes:
            size = CHUNK_NBYTES if nbytes > _SMALL_NBYTES else _SMALL_NBYTES
            memory = self._buffers.memory = memoryview(bytearray(size))
            self._buffers.digest = None
        if self._buffers.digest != base.ref.digest:
            self._buffers.digest, self._buffers.verified = None, False
            try:
                self._decoder.unverified(base.ref, memory[:nbytes], "the previous version")
            except ThetaError:
                return None  # damaged, gone meanwhile, or by a plug-in that is not here: dense needs none of it
            self._buffers.digest = base.ref.digest
        return memory[:nbytes].toreadonly()

    def _hopeless(self, raw: memoryview, base: KnownChunk, numbers: Numbers, dense: int) -> bool:
        """Whether the differences of a few numbers have more entropy, plane by plane, than dense ones take bytes."""
        old = self._decoded(base, len(raw))
        if old is None:
            return True
        count = len(raw) // numbers.width
        step = max(1, count // _FEW_NUMBERS)
        new, was = patterns(raw, numbers.width)[:count:step], patterns(old, numbers.width)[:count:step]
        differences = np.empty(len(new), new.dtype)
        subtract_zigzag(new, was, differences)
        planes = np.unpackbits(differences.view(np.uint8)).reshape(len(new), 8 * numbers.width)
        ones = np.clip(planes.mean(axis=0), 1e-9, 1 - 1e-9)
        entropy = -(ones * np.log2(ones) + (1 - ones) * np.log2(1 - ones)).sum()
        return bool(entropy / (8 * numbers.width) * len(raw) > _PAYS * dense)

    def near(self, raw: memoryview, previous: KnownChunk, numbers: Numbers) -> bool:
        """Whether every number is within the tolerance of the old one; never where one of them is NaN or infinite."""
        name = realdtype(numbers.dtype)
        if self._tolerance is None or name is None or len(raw) % numbers.width:
            return False
        old = self._old(previous, len(raw)) if previous.complete(self._store) else None
        if old is None:
            return False
        new, was = patterns(raw, numbers.width), patterns(old, numbers.width)
        for start in range(0, len(new), _BLOCK):
            a, b = widen(new[start : start + _BLOCK], name), widen(was[start : start + _BLOCK], name)
            with np.errstate(invalid="ignore", over="ignore"):
                near = np.abs(a - b) <= self._tolerance.atol + self._tolerance.rtol * np.abs(b)
            if not near.all() or not (np.isfinite(a) & np.isfinite(b)).all():
                return False
        return True

    # --- sampling -----------------------------------------------------------------------------------------------------

    def _estimate(self, raw: memoryview, base: KnownChunk, numbers: Numbers) -> _Estimate | None:
        """Size of a delta, from a few blocks; ``None`` where the old bytes cannot be had."""
        parts, changed = [], 0
        for start in _samples(raw, numbers):
            old = self._part(base, len(raw), start, numbers.width)
            if old is None:
                return None
            new = patterns(raw[start : start + _SAMPLE_NBYTES], numbers.width)
            differences = np.empty_like(new)
            subtract_zigzag(new, old, differences)
            changed += int(np.count_nonzero(differences))
            parts.append(differences)
        sample = np.concatenate(parts)
        length = len(encode_differences(sample.tobytes(), numbers.width))
        return _Estimate(length / sample.nbytes * len(raw), changed / len(sample))

    def _part(self, base: KnownChunk, nbytes: int, start: int, width: int) -> Patterns | None:
        """A few old numbers: from the blocks of the frames that hold them, or else of the whole."""
        result: Patterns | None = None
        for step in base.steps():
            data = self._blocks(step.ref, nbytes, start)
            if data is None:
                old = self._old(base, nbytes)
                return None if old is None else patterns(old[start : start + _SAMPLE_NBYTES], width)
            part = patterns(data, width)
            if result is None:
                result = part
            else:
                add_zigzag(result, part)
        return result

    def _blocks(self, ref: ChunkRef, nbytes: int, start: int) -> bytearray | None:
        """A part of the frame of one step, if it is one of numbers or differences in their order."""
        if ref.update not in ("dense", "delta"):
            return None
        try:
            return bytearray(read_range(partial(self._read, ref), nbytes, start, _SAMPLE_NBYTES))
        except ThetaError:
            return None

    def _read(self, ref: ChunkRef, position: int, length: int) -> bytes:
        if position + length > ref.length:
            return b""
        data = bytearray(length)
        self._store.read_into(ref.oid, ref.offset + position, memoryview(data))
        return bytes(data)


def _samples(raw: memoryview, numbers: Numbers) -> list[int]:
    """Where the samples of a large chunk begin: in the middle of each of a few equal parts, at whole numbers."""
    step, width = len(raw) // _SAMPLES, numbers.width
    return [(n * step + (step - _SAMPLE_NBYTES) // 2) // width * width for n in range(_SAMPLES)]
