"""What every update type keeps to: subclass :class:`UpdateContract` to try one of your own.

::

    class TestMyUpdate(UpdateContract):
        @pytest.fixture
        def update(self):
            return MyUpdate()

        def steps(self, dtype):
            return {"what it is for": step(old, new, dtype)}

Where ``steps`` gives nothing, the tests still try what no update may do to any chunk.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from theta_nb.errors import CorruptObjectError
from theta_nb.manifest.model import UPDATE_NAME
from theta_nb.tensors.dtypes import DTYPES, DType
from theta_nb.updates.table import Numbers, Update, max_payload_nbytes

ALL_DTYPES = tuple(DTYPES.values())


@dataclass(frozen=True)
class Step:
    """Two versions of a chunk."""

    old: bytes
    new: bytes
    numbers: Numbers


def step(old: bytes, new: bytes, dtype: DType, columns: int = 1) -> Step:
    """Two versions of a chunk of ``dtype``, in rows of ``columns`` elements."""
    return Step(old, new, Numbers(dtype, columns))


def telling(width: int) -> list[int]:
    """Bit patterns of ``width`` bytes that mean something special, to one float type or another, or to arithmetic."""
    bits = 8 * width
    sign = 1 << (bits - 1)
    found = {0, 1, 2, sign - 1, (1 << bits) - 1, (1 << bits) - 2}
    for exponent, fraction in ((5, 10), (8, 7), (8, 23), (11, 52), (4, 3), (5, 2)):
        if 1 + exponent + fraction == bits:
            infinity = ((1 << exponent) - 1) << fraction
            quiet = infinity | 1 << (fraction - 1)
            found |= {infinity - 1, infinity, infinity | 1, quiet, quiet | 1}  # largest, Inf, NaNs of two kinds
            found |= {1 << fraction, (1 << fraction) - 1, 3 << (bits - 4)}  # smallest normal, denormals
    found |= {pattern ^ sign for pattern in found}
    return sorted(found)


def of_patterns(patterns: np.ndarray, width: int) -> bytes:
    """Their bytes."""
    return patterns.astype(f"<u{width}").tobytes()


def usual_steps(dtype: DType) -> dict[str, Step]:
    """Pairs of versions that any update has to be asked about, by what is special about them."""
    rng = np.random.default_rng(len(dtype.name))
    width = Numbers(dtype).width
    per = max(1, dtype.itemsize // width)  # patterns of one element: two for a complex number

    def noise(count: int) -> np.ndarray:
        return (
            rng.integers(0, 1 << (8 * width), count * per, np.uint64, endpoint=False)
            if width < 8
            else rng.integers(0, 2**64 - 1, count * per, np.uint64, endpoint=True)
        )

    def pair(old: np.ndarray, new: np.ndarray, columns: int = 1) -> Step:
        return step(of_patterns(old, width), of_patterns(new, width), dtype, columns)

    base = noise(600)
    near = base + rng.integers(-3, 4, len(base)).astype(np.uint64)
    few = base.copy()
    few[rng.choice(len(base), 5, replace=False)] ^= np.uint64(1)
    special = np.array(telling(width) * (2 * per), np.uint64)
    return {
        "empty": pair(base[:0], base[:0]),
        "one element": pair(base[:per], near[:per]),
        "two elements": pair(base[: 2 * per], few[: 2 * per], 2),
        "one row": pair(base, near, 600),
        "rows": pair(base, near, 20),
        "columns that do not divide it": pair(base, near, 7),
        "a part of a longer row": pair(base, near, 10_000),
        "nothing changed": pair(base, base, 20),
        "a few changed": pair(base, few, 20),
        "the first and the last changed": pair(base, np.concatenate([~base[:1], base[1:-1], ~base[-1:]]), 20),
        "all is different": pair(base, noise(600), 20),
        "everything becomes zero": pair(base, 0 * base, 20),
        "everything was zero": pair(0 * base, base, 20),
        "special to special": pair(special, rng.permutation(special), per),
        "special to number": pair(special, noise(len(special) // per), per),
        "number to special": pair(noise(len(special) // per), special, per),
        "one step across every border": pair(special, special + np.uint64(1), per),
        "a long run": pair(np.tile(base, 300), np.tile(near, 300), 600),
    }


class UpdateContract:
    """Tests that need a fixture ``update``, and are the better for ``steps``."""

    @pytest.fixture
    def update(self) -> Update:
        """The update type."""
        raise NotImplementedError("the subclass gives the update type")

    def steps(self, dtype: DType) -> dict[str, Step]:
        """Versions of a chunk of ``dtype`` that it is meant for and must be able to express, by name."""
        return {}

    def encoded(self, update: Update, dtype: DType) -> Iterator[tuple[str, Step, bytes]]:
        """Every step that it expresses, with the payload."""
        for name, case in (usual_steps(dtype) | self.steps(dtype)).items():
            payload = encode(update, case)
            if payload is not None:
                yield name, case, payload

    def test_its_name_can_stand_in_a_manifest(self, update: Update) -> None:
        assert UPDATE_NAME.fullmatch(update.name)

    @pytest.mark.parametrize("dtype", ALL_DTYPES, ids=lambda dtype: dtype.name)
    def test_what_is_encoded_comes_back_bit_for_bit(self, update: Update, dtype: DType) -> None:
        for name, case, payload in self.encoded(update, dtype):
            assert applied(update, case.old, payload) == case.new, name
            assert len(payload) <= min(max_payload_nbytes(len(case.new)), len(case.new) + 16), f"{name}: too long"

    @pytest.mark.parametrize("dtype", ALL_DTYPES, ids=lambda dtype: dtype.name)
    def test_it_expresses_what_it_is_meant_for(self, update: Update, dtype: DType) -> None:
        for name, case in self.steps(dtype).items():
            payload = encode(update, case)
            assert payload is not None, name
            assert applied(update, case.old, payload) == case.new, name

    def test_versions_of_two_lengths_are_no_step(self, update: Update) -> None:
        dtype = DTYPES["float32"]
        for old, new in ((bytes(40), bytes(44)), (bytes(44), bytes(40)), (b"", bytes(40)), (bytes(40), b"")):
            payload = encode(update, step(old, new, dtype))
            if payload is not None:  # what needs no old bytes may not care
                assert applied(update, bytes(len(new)), payload) == new

    @pytest.mark.parametrize("name", ["float32", "bfloat16", "uint8", "complex128"])
    def test_memory_may_begin_anywhere(self, update: Update, name: str) -> None:
        """Chunks lie one behind the other in a buffer, payloads in an object."""
        for what, case, payload in self.encoded(update, DTYPES[name]):
            odd = memoryview(b"x" + case.old)[1:], memoryview(b"x" + case.new)[1:]
            assert update.encode(*odd, case.numbers) == payload, what
            buffer = bytearray(b"abc" + case.old + b"xyz")
            update.apply(memoryview(b"x" + payload)[1:], memoryview(buffer)[3:-3])
            assert buffer == b"abc" + case.new + b"xyz", f"{what}: or it wrote beside its chunk"

    @pytest.mark.parametrize("name", ["float32", "bfloat16", "uint8"])
    def test_threads_do_not_meet(self, update: Update, name: str) -> None:
        cases = list(self.encoded(update, DTYPES[name])) * 6
        with ThreadPoolExecutor(8) as executor:
            assert list(executor.map(lambda item: encode(update, item[1]), cases)) == [item[2] for item in cases]
            results = executor.map(lambda item: applied(update, item[1].old, item[2]), cases)
            assert list(results) == [item[1].new for item in cases]

    @pytest.mark.parametrize("name", ["float64", "float32", "bfloat16", "int8", "complex64"])
    def test_damaged_payloads_are_refused_or_give_other_numbers(self, update: Update, name: str) -> None:
        """Nothing else: no crash, no other error, no more memory than a chunk may take."""
        for what, case, payload in self.encoded(update, DTYPES[name]):
            if len(case.new) > 100_000:
                continue
            for damaged in damages(payload):
                refused = self.try_apply(update, case.old, damaged, what)
                assert refused or len(damaged) == len(payload), f"{what}: a payload of another length was applied"

    @pytest.mark.parametrize("name", ["float32", "bfloat16", "int8"])
    def test_the_payload_of_a_chunk_of_another_length_is_refused(self, update: Update, name: str) -> None:
        for what, case, payload in self.encoded(update, DTYPES[name]):
            for old in (case.old[: len(case.old) // 2], case.old + bytes(8), case.old * 2, case.old[:-1], b""):
                if len(old) == len(case.old):
                    continue
                result = bytearray(old)
                # A sparse update does not say how long its chunk is; what it changes must lie in it.
                if not self.try_apply(update, old, payload, what):
                    update.apply(memoryview(payload), memoryview(result))
                    assert len(result) == len(old)

    @staticmethod
    def try_apply(update: Update, old: bytes, payload: bytes, what: str) -> bool:
        """Whether a payload is refused; it may also be applied, in bounded memory."""
        dest = bytearray(old)
        tracemalloc.start()
        try:
            update.apply(memoryview(payload), memoryview(dest))
        except CorruptObjectError:
            refused = True
        else:
            refused = False
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        # A type may make a table once.
        assert peak < 64 * len(old) + 2**22, f"{what}: {peak} bytes were taken for a chunk of {len(old)}"
        return refused


def encode(update: Update, case: Step) -> bytes | None:
    """Payload of a step; both versions are read-only."""
    return update.encode(memoryview(case.old), memoryview(case.new), case.numbers)


def applied(update: Update, old: bytes, payload: bytes) -> bytes:
    """The new version."""
    dest = bytearray(old)
    update.apply(memoryview(payload), memoryview(dest))
    return bytes(dest)


def damages(payload: bytes) -> Iterator[bytes]:
    """The payload cut short, made longer, and with single bits or whole words changed, most of all in its headers."""
    rng = np.random.default_rng(len(payload))
    for length in {*range(min(48, len(payload))), *rng.integers(0, len(payload), 8).tolist(), len(payload) - 1}:
        yield payload[:length]
    yield payload + b"\0"
    yield payload + payload
    yield b"\0" + payload
    places = [*range(min(64, len(payload))), *rng.integers(0, len(payload), 24).tolist()]
    for place in places:
        for change in (1 << int(rng.integers(8)), 0xFF):
            damaged = bytearray(payload)
            damaged[place] ^= change
            yield bytes(damaged)
    for place in range(0, min(60, len(payload) - 4), 2):
        for word in (b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"):
            yield payload[:place] + word + payload[place + 4 :]
