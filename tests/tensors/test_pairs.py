"""Statistics of pairs against float64 NumPy, for every dtype that has numbers."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from theta_nb.errors import CheckpointError
from theta_nb.tensors.dtypes import DTYPES, DType, dtype_named
from theta_nb.tensors.lanes import BLOCK_NUMEL, parts_of
from theta_nb.tensors.moments import Piece
from theta_nb.tensors.pairs import PairKernel
from theta_nb.tensors.spec import TensorSpec
from theta_nb.tensors.statistics import Statistics

Array = npt.NDArray[Any]

PLAIN = [
    dtype for dtype in DTYPES.values() if dtype.numpy is not None and dtype.name not in ("float8_e8m0fnu", "uint64")
]
FLOATS = [dtype for dtype in PLAIN if dtype.kind == "f"]
PACKED = ("float6_e2m3", "float6_e3m2", "quint4x2", "quint2x4")


def spec(dtype: DType, numel: int, **flags: bool) -> TensorSpec:
    return TensorSpec("w", dtype, (numel,), (1,), 0, **flags)


def measured(
    old: Array, new: Array, dtypes: tuple[DType, DType], *, histograms: bool = False, **flags: bool
) -> Statistics:
    """Statistics of two arrays, taken block by block as the engine does."""
    kernel = PairKernel(spec(dtypes[0], old.size), spec(dtypes[1], new.size, **flags), histograms=histograms)
    raws = [memoryview(np.ascontiguousarray(array).tobytes()) for array in (old, new)]
    step = BLOCK_NUMEL // max(map(parts_of, dtypes))
    total = Piece()
    for start in range(0, old.size, step):
        cut = [
            raw[start * array.itemsize : (start + step) * array.itemsize]
            for raw, array in zip(raws, (old, new), strict=True)
        ]
        total.add(kernel.block(*cut))
    total.add(Piece(tallies=kernel.take_tallies()))
    return Statistics.of(total)


def wide(array: Array) -> Array:
    """The real numbers of an array in float64, real and imaginary parts one after the other."""
    if array.dtype.kind == "c":
        return array.astype(np.complex128).view(np.float64)
    return array.astype(np.float64)


def close(found: float, expected: float, relative: float = 2e-6) -> bool:
    if math.isnan(expected):
        return math.isnan(found)
    return math.isclose(found, float(expected), rel_tol=relative, abs_tol=1e-300)


def check(found: Statistics, old: Array, new: Array) -> None:
    """Every statistic against its definition."""
    before, after = wide(old), wide(new)
    fine_before, fine_after = np.isfinite(before), np.isfinite(after)
    both = fine_before & fine_after
    delta = np.where(both, after, 0.0) - np.where(both, before, 0.0)
    assert found.numel == old.size
    assert close(found.old_norm, np.linalg.norm(before[fine_before]))
    assert close(found.new_norm, np.linalg.norm(after[fine_after]))
    assert close(found.delta_norm, np.linalg.norm(delta), 2e-6 if np.linalg.norm(delta) else 0)
    assert close(found.max_abs_delta, np.abs(delta).max(initial=0.0), 1e-6)
    for fine, numbers, mean, std in (
        (fine_before, before, found.old_mean, found.old_std),
        (fine_after, after, found.new_mean, found.new_std),
    ):
        chosen = numbers[fine]
        scale = float(np.abs(chosen).max(initial=0.0))
        assert mean == pytest.approx(chosen.mean() if chosen.size else 0.0, rel=1e-6, abs=1e-7 * scale)
        assert std == pytest.approx(chosen.std() if chosen.size else 0.0, rel=1e-4, abs=1e-7 * scale)
    assert (found.old_nan, found.new_nan) == (np.isnan(before).sum(), np.isnan(after).sum())
    assert (found.old_inf, found.new_inf) == (np.isinf(before).sum(), np.isinf(after).sum())
    flips = ((before > 0) & (after < 0)) | ((before < 0) & (after > 0))
    assert found.sign_flips == flips.sum()
    lengths = np.linalg.norm(before[both]), np.linalg.norm(after[both])
    expected = np.dot(before[both], after[both]) / lengths[0] / lengths[1] if all(lengths) else math.nan
    assert close(found.cosine, expected, 2e-6) or found.cosine == pytest.approx(expected, abs=2e-6)


def bits_changed(old: Array, new: Array) -> int:
    raw = [np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, array.itemsize) for array in (old, new)]
    return int((raw[0] != raw[1]).any(axis=1).sum())


def sample(dtype: DType, size: int, seed: int = 0) -> tuple[Array, Array]:
    """A tensor as it may be trained, and the same after a step, a third of it untouched."""
    random = np.random.default_rng(seed)
    kind = dtype.to_numpy()
    if dtype.kind in "iu":
        info = np.iinfo(kind)
        old = random.integers(max(info.min, -(2**40)), min(info.max, 2**40), size, dtype=np.int64, endpoint=True)
        new = np.where(random.random(size) < 0.3, old, np.clip(old + random.integers(-3, 4, size), info.min, info.max))
    elif dtype.kind == "b":
        old, new = random.random((2, size)) < 0.5
    else:
        old = random.standard_normal(size) * 0.5
        new = np.where(random.random(size) < 0.3, old, old + 0.1 * random.standard_normal(size))
        if dtype.kind == "c":
            old, new = old + 0.3j * old[::-1], new + 0.3j * old[::-1]
    return old.astype(kind), new.astype(kind)


@pytest.mark.parametrize("size", [0, 1, 7, 8192, BLOCK_NUMEL + 13], ids=lambda n: f"n{n}")
@pytest.mark.parametrize("dtype", PLAIN, ids=lambda d: d.name)
def test_agrees_with_numpy(dtype: DType, size: int) -> None:
    old, new = sample(dtype, size)
    found = measured(old, new, (dtype, dtype))
    check(found, old, new)
    assert found.changed == bits_changed(old, new)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_nan_and_inf_are_counted_and_hide_nothing(dtype: DType) -> None:
    old, new = sample(dtype, 10_000)
    info = ml_dtypes.finfo(dtype.to_numpy())
    special = [x for x in (math.nan, math.inf, -math.inf) if not dtype.name.startswith("float8") or math.isnan(x)]
    for place, value in enumerate(special):
        old[place] = new[100 + place] = old[200 + place] = new[200 + place] = value
    largest = min(float(info.max), 1e150)  # the square of more would be too large for the check itself
    old[300], new[301], new[302] = largest, -largest, info.smallest_subnormal
    with np.errstate(all="ignore"):
        found = measured(old, new, (dtype, dtype))
    check(found, old, new)
    assert found.changed == bits_changed(old, new)


def test_norm_of_float16_does_not_overflow() -> None:
    old = np.full(100_000, 60_000, np.float16)
    found = measured(old, -old, (dtype_named("float16"),) * 2)
    assert found.old_norm == pytest.approx(60_000 * math.sqrt(100_000))
    assert found.max_abs_delta == 120_000
    assert (found.cosine, found.sign_flips, found.relative) == (-1, 100_000, pytest.approx(2, rel=5e-6))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("scale", [1.0, 1e30, 3e38, 1e-30, 1e-40], ids=lambda s: f"{s:g}")
def test_values_far_from_one(name: str, scale: float) -> None:
    dtype = dtype_named(name)
    random = np.random.default_rng(3)
    old, new = (np.clip(random.standard_normal((2, 20_000)) / 5, -1, 1) * scale).astype(dtype.to_numpy())
    check(measured(old, new, (dtype, dtype)), old, new)


@pytest.mark.parametrize("scale", [1e300, 1e-300], ids=["huge", "tiny"])
def test_float64_whose_squares_leave_the_range(scale: float) -> None:
    dtype = dtype_named("float64")
    random = np.random.default_rng(4)
    old, new = random.standard_normal((2, BLOCK_NUMEL + 5))
    found, plain = (measured(old * s, new * s, (dtype, dtype)) for s in (scale, 1.0))
    for name in ("old_norm", "new_norm", "delta_norm", "max_abs_delta", "old_std", "new_std"):
        assert getattr(found, name) / scale == pytest.approx(getattr(plain, name), rel=1e-12)
    assert found.cosine == pytest.approx(plain.cosine, rel=1e-12)


def test_blocks_of_different_scale() -> None:
    dtype = dtype_named("float64")
    old = np.concatenate([np.full(BLOCK_NUMEL, 1e-200), np.full(BLOCK_NUMEL, 2.0), np.full(BLOCK_NUMEL, 1e200)])
    found = measured(old, old * 2, (dtype, dtype))
    assert found.old_norm == pytest.approx(1e200 * math.sqrt(BLOCK_NUMEL))
    assert (found.relative, found.cosine) == (pytest.approx(1), pytest.approx(1))


def test_opposite_ends_of_float64() -> None:
    dtype = dtype_named("float64")
    largest = np.finfo(np.float64).max
    found = measured(np.array([largest, 1.0]), np.array([-largest / 2, 1.0]), (dtype, dtype))
    assert found.max_abs_delta == math.inf  # 1.5 times the largest number
    assert found.old_norm == pytest.approx(largest)
    assert found.cosine == pytest.approx(-1)


def test_differences_of_large_integers_are_exact() -> None:
    for name in ("int64", "uint64"):
        dtype = dtype_named(name)
        old = np.full(1000, 2**62 + 1, dtype.to_numpy())
        found = measured(old, old + 3, (dtype, dtype))
        assert (found.max_abs_delta, found.changed) == (3, 1000)
    top = np.array([2**64 - 1, 0], np.uint64)
    found = measured(top, top[::-1].copy(), (dtype_named("uint64"),) * 2)
    assert found.max_abs_delta == pytest.approx(2.0**64)


def test_scatter_about_a_large_mean() -> None:
    dtype = dtype_named("float32")
    old = (1.0 + 1e-4 * np.random.default_rng(5).standard_normal(50_000)).astype(np.float32)
    found = measured(old, old + np.float32(1e-3), (dtype, dtype))
    assert found.old_std == pytest.approx(old.astype(np.float64).std(), rel=1e-4)


def test_a_small_change_is_measured_exactly() -> None:
    """The cosine of almost equal tensors, which a product of float32 could not tell from 1."""
    dtype = dtype_named("float32")
    random = np.random.default_rng(6)
    old = random.standard_normal(100_000).astype(np.float32)
    new = (old * (1 + 1e-5 * random.standard_normal(old.size))).astype(np.float32)
    found = measured(old, new, (dtype, dtype))
    before, after = old.astype(np.float64), new.astype(np.float64)
    expected = np.dot(before, after) / np.linalg.norm(before) / np.linalg.norm(after)
    assert 1 - found.cosine == pytest.approx(1 - expected, rel=1e-3)


def test_equal_blocks() -> None:
    for name in ("bfloat16", "float64", "int8"):
        dtype = dtype_named(name)
        old, _ = sample(dtype, 1000)
        found = measured(old, old, (dtype, dtype), histograms=True)
        assert (found.changed, found.delta_norm, found.max_abs_delta, found.relative) == (0, 0, 0, 0)
        assert found.delta_histogram is not None
        assert found.delta_histogram.zeros == 1000
        check(found, old, old)


def test_zeros_have_no_sign() -> None:
    dtype = dtype_named("float32")
    old = np.array([0.0, -0.0, 1.0, -1.0, 0.0], np.float32)
    new = np.array([-0.0, 1.0, -0.0, 1.0, 0.0], np.float32)
    found = measured(old, new, (dtype, dtype))
    assert (found.sign_flips, found.changed) == (1, 4)


@pytest.mark.parametrize(
    ("old_name", "new_name"),
    [
        ("float32", "bfloat16"),
        ("float64", "float32"),
        ("float16", "float8_e4m3fn"),
        ("int8", "float32"),
        ("int64", "float64"),
        ("float32", "complex64"),
        ("complex128", "complex64"),
    ],
)
def test_another_dtype(old_name: str, new_name: str) -> None:
    dtypes = dtype_named(old_name), dtype_named(new_name)
    old, _ = sample(dtypes[0], 5000)
    with np.errstate(all="ignore"):
        new = old.astype(dtypes[1].to_numpy())
    found = measured(old, new, dtypes)
    if old_name == "float32" and new_name == "complex64":
        old = old.astype(np.complex64)
    check(found, old, new)
    differing = wide(old) != wide(new)
    parts = max(map(parts_of, dtypes))
    assert found.changed == differing.reshape(-1, parts).any(axis=1).sum()


def test_lazy_negation_and_conjugation() -> None:
    dtype = dtype_named("complex64")
    value = (np.arange(1, 9) + 1j * np.arange(8, 0, -1)).astype(np.complex64)
    found = measured(value, value, (dtype, dtype), conj=True)
    check(found, value, value.conj())
    found = measured(value, value, (dtype, dtype), neg=True)
    check(found, value, -value)
    assert found.changed == 8


def test_half_bytes() -> None:
    dtype = dtype_named("float4_e2m1")
    raw = np.arange(256, dtype=np.uint8)
    kernel = PairKernel(spec(dtype, 512), spec(dtype, 512))
    piece = kernel.block(memoryview(raw.tobytes()), memoryview(raw[::-1].tobytes()))
    codes = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)
    values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float64)
    other = np.stack([raw[::-1] & 15, raw[::-1] >> 4], axis=1).reshape(-1).view(ml_dtypes.float4_e2m1fn)
    assert piece.numel == 512
    assert piece.old.norm == pytest.approx(np.linalg.norm(values))
    assert piece.delta.norm == pytest.approx(np.linalg.norm(other.astype(np.float64) - values))


@pytest.mark.parametrize("name", PACKED)
def test_what_is_packed_in_an_unknown_way_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        PairKernel(spec(dtype_named(name), 8), spec(dtype_named(name), 8))


def test_stored_integers_of_quantized_types() -> None:
    old, new = np.array([1, -5, 100], np.int8), np.array([1, 5, 101], np.int8)
    found = measured(old, new, (dtype_named("qint8"),) * 2)
    assert (found.changed, found.sign_flips, found.max_abs_delta) == (2, 1, 10)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64", "int16", "int32", "complex64"])
def test_histograms(name: str) -> None:
    dtype = dtype_named(name)
    old, new = sample(dtype, BLOCK_NUMEL + 1000)
    old[5] = new[6] = 0
    found = measured(old, new, (dtype, dtype), histograms=True)
    before, after = wide(old), wide(new)
    for histogram, numbers in (
        (found.old_histogram, before),
        (found.new_histogram, after),
        (found.delta_histogram, after - before),
    ):
        assert histogram is not None
        magnitudes = np.abs(numbers)
        small = magnitudes < 2.0**-126
        expected, _ = np.histogram(magnitudes[~small], histogram.edges)
        assert histogram.counts.tolist() == expected.tolist()
        assert histogram.zeros == small.sum()
        assert histogram.total == len(numbers)


def test_histograms_leave_out_what_is_not_finite() -> None:
    dtype = dtype_named("float32")
    old = np.array([1.0, math.nan, math.inf, 4.0], np.float32)
    found = measured(old, np.ones(4, np.float32), (dtype, dtype), histograms=True)
    assert found.old_histogram is not None
    assert found.delta_histogram is not None
    assert (found.old_histogram.first, found.old_histogram.counts.tolist()) == (0, [1, 0, 1])
    assert (found.delta_histogram.total, found.delta_histogram.zeros) == (2, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["float16", "bfloat16", "float32", "float64"]).flatmap(
        lambda name: st.tuples(
            st.just(name),
            hnp.arrays(
                np.float64,
                st.tuples(st.just(2), st.integers(0, 300)),
                elements=st.floats(allow_nan=True, allow_infinity=True, width=16),
            ),
        )
    )
)
def test_any_values(drawn: tuple[str, Array]) -> None:
    name, values = drawn
    dtype = dtype_named(name)
    old, new = values.astype(dtype.to_numpy())
    found = measured(old, new, (dtype, dtype))
    check(found, old, new)
    assert found.changed == bits_changed(old, new)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_pieces_add_up(sizes: list[int], seed: int) -> None:
    dtype = dtype_named("float32")
    old, new = sample(dtype, sum(sizes), seed)
    kernel = PairKernel(spec(dtype, old.size), spec(dtype, old.size))
    total, start = Piece(), 0
    for size in sizes:
        total.add(
            kernel.block(
                memoryview(old[start : start + size].tobytes()), memoryview(new[start : start + size].tobytes())
            )
        )
        start += size
    check(Statistics.of(total), old, new)
