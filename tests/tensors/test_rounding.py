"""Widening is exact and narrowing is one rounding, by a reference that knows fields of bits and fractions only."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from theta_nb.tensors.dtypes import DTYPES, dtype_named
from theta_nb.tensors.rounding import narrow, realdtype, widen

INFINITE, UNDEFINED = "infinite", "undefined"


@dataclass(frozen=True)
class Fields:
    """How a float is laid out, as its specification says: IEEE 754, bfloat16, OCP 8-bit floating point, or FNUZ."""

    exponent: int
    fraction: int
    bias: int
    kind: str = "ieee"
    sign: int = 1

    @property
    def width(self) -> int:
        return self.sign + self.exponent + self.fraction

    def value(self, pattern: int) -> Fraction | str:
        """The number of a pattern, exactly; zeros have no sign here."""
        fraction = pattern & ((1 << self.fraction) - 1)
        exponent = pattern >> self.fraction & ((1 << self.exponent) - 1)
        negative = self.sign and pattern >> (self.width - 1)
        last = exponent == (1 << self.exponent) - 1
        if self.kind == "ieee" and last:
            return UNDEFINED if fraction else INFINITE
        if self.kind in ("fn", "e8m0") and last and fraction == (1 << self.fraction) - 1:
            return UNDEFINED
        if self.kind == "fnuz" and pattern == 1 << (self.width - 1):
            return UNDEFINED
        if exponent or self.kind == "e8m0":
            size = Fraction(2) ** (exponent - self.bias) * (1 + Fraction(fraction, 1 << self.fraction))
        else:
            size = Fraction(2) ** (1 - self.bias) * Fraction(fraction, 1 << self.fraction)
        return -size if negative else size


FIELDS = {
    "float16": Fields(5, 10, 15),
    "bfloat16": Fields(8, 7, 127),
    "float8_e5m2": Fields(5, 2, 15),
    "float8_e4m3fn": Fields(4, 3, 7, "fn"),
    "float8_e4m3fnuz": Fields(4, 3, 8, "fnuz"),
    "float8_e5m2fnuz": Fields(5, 2, 16, "fnuz"),
    "float8_e8m0fnu": Fields(8, 0, 127, "e8m0", sign=0),
}
SIGNED = [name for name in FIELDS if FIELDS[name].sign]


@cache
def positive(name: str) -> list[Fraction]:
    """The finite numbers from zero on, by their patterns: neighbours are neighbours."""
    found = []
    for pattern in range(1 << (FIELDS[name].exponent + FIELDS[name].fraction)):
        value = FIELDS[name].value(pattern)
        if isinstance(value, str):
            break
        found.append(value)
    assert found == sorted(found)
    return found


def beyond(name: str) -> Fraction:
    """The number that would follow the largest; there stand the infinity or the NaN."""
    numbers = positive(name)
    return numbers[-1] + (numbers[-1] if name == "float8_e8m0fnu" else numbers[-1] - numbers[-2])


def unsigned(name: str) -> np.dtype[np.unsignedinteger]:
    return np.dtype(f"<u{dtype_named(name).itemsize}")


def rounded(values: NDArray[np.float64], name: str) -> list[int]:
    return [int(p) for p in narrow(values, name, np.zeros(len(values), unsigned(name)))]


def nearest(value: float, name: str) -> int:
    """Pattern of the nearest number, halfway the even one, by exact arithmetic; ``value`` is finite and positive."""
    numbers, exact = [*positive(name), beyond(name)], Fraction(value)
    at = bisect_left(numbers, exact)
    if at == 0:
        return 0
    if at == len(numbers):
        return at - 1
    below, above = exact - numbers[at - 1], numbers[at] - exact
    if below == above:
        return at if at % 2 == 0 else at - 1
    return at if above < below else at - 1


@pytest.mark.parametrize("name", FIELDS)
def test_every_pattern_is_widened_exactly(name: str) -> None:
    fields = FIELDS[name]
    for pattern, value in enumerate(widen(np.arange(1 << fields.width, dtype=unsigned(name)), name)):
        expected = fields.value(pattern)
        if expected == UNDEFINED:
            assert np.isnan(value), hex(pattern)
        elif expected == INFINITE:
            assert np.isinf(value), hex(pattern)
        else:
            assert Fraction(float(value)) == expected, hex(pattern)
        if fields.sign and expected != UNDEFINED:
            assert np.signbit(value) == bool(pattern >> (fields.width - 1)), hex(pattern)


@pytest.mark.parametrize("name", FIELDS)
def test_every_number_is_narrowed_to_itself(name: str) -> None:
    patterns = np.arange(1 << FIELDS[name].width, dtype=unsigned(name))
    values = widen(patterns, name)
    # NaNs come back whole because the old pattern stays where it is one.
    assert np.array_equal(narrow(values, name, patterns), patterns)


@pytest.mark.parametrize("name", FIELDS)
def test_halfway_goes_to_the_even_neighbour_and_a_hair_beside_to_the_nearer(name: str) -> None:
    numbers = np.array([float(value) for value in positive(name)])
    middle = (numbers[:-1] + numbers[1:]) / 2  # exact: float64 has bits to spare
    lower = list(range(len(middle)))
    assert rounded(middle, name) == [n if n % 2 == 0 else n + 1 for n in lower]
    assert rounded(np.nextafter(middle, 0), name) == lower
    assert rounded(np.nextafter(middle, np.inf), name) == [n + 1 for n in lower]


@pytest.mark.parametrize("name", SIGNED)
def test_negative_numbers_are_mirror_images(name: str) -> None:
    numbers = np.array([float(value) for value in positive(name)])
    values = np.concatenate([numbers, np.nextafter((numbers[:-1] + numbers[1:]) / 2, np.inf)])[1:]
    sign = 1 << (FIELDS[name].width - 1)
    assert rounded(-values, name) == [p | sign for p in rounded(values, name)]


@pytest.mark.parametrize("name", FIELDS)
def test_random_numbers_of_any_size_are_rounded_as_fractions_are(name: str) -> None:
    rng = np.random.default_rng(0)
    largest, smallest = float(positive(name)[-1]), float(min(v for v in positive(name) if v))
    exponents = rng.uniform(np.log2(smallest) - 6, np.log2(largest) + 2, 500)
    values = np.exp2(exponents)
    assert rounded(values, name) == [nearest(float(value), name) for value in values]


@pytest.mark.parametrize("name", FIELDS)
def test_overflow_begins_half_a_step_behind_the_largest_number(name: str) -> None:
    numbers = positive(name)
    edge = float((numbers[-1] + beyond(name)) / 2)
    last = len(numbers) - 1
    on_edge = last if last % 2 == 0 else last + 1
    values = np.array([np.nextafter(edge, 0), edge, np.nextafter(edge, np.inf), 1e300, np.inf])
    assert rounded(values, name) == [last, on_edge, last + 1, last + 1, last + 1]
    assert FIELDS[name].value(last + 1) in (INFINITE, UNDEFINED)


@pytest.mark.parametrize("name", SIGNED)
def test_what_is_too_small_becomes_zero_and_keeps_its_sign(name: str) -> None:
    smallest = float(positive(name)[1])
    values = np.array([smallest / 2, smallest / 4, 5e-324, 0.0, np.nextafter(smallest / 2, 1)])
    assert rounded(values, name) == [0, 0, 0, 0, 1]
    zero = 0 if name.endswith("fnuz") else 1 << (FIELDS[name].width - 1)  # FNUZ types have one zero
    assert rounded(-values[:4], name) == [zero] * 4


def test_the_type_without_sign_and_zero_has_only_nan_for_them() -> None:
    values = np.array([0.0, -0.0, -1.0, -np.inf, 5e-324])
    assert rounded(values, "float8_e8m0fnu") == [255, 255, 255, 255, 0]


@pytest.mark.parametrize("name", ["float64", "float32", *FIELDS])
def test_a_nan_that_was_there_keeps_its_pattern_and_a_new_one_is_the_quiet_one(name: str) -> None:
    kind = unsigned(name)
    if kind.itemsize <= 2:
        every = np.arange(1 << FIELDS[name].width, dtype=kind)
    else:  # signalling and quiet ones, of both signs
        infinity, sign = (0x7F80_0000, 1 << 31) if kind.itemsize == 4 else (0x7FF0_0000_0000_0000, 1 << 63)
        every = np.array([infinity | 7, sign | infinity | 7, sign | infinity | infinity >> 1, infinity - 1], kind)
    was = widen(every, name)
    undefined = every[np.isnan(was)]
    assert len(undefined)
    nans = np.full(len(undefined), np.nan)
    assert np.array_equal(narrow(nans, name, undefined), undefined)
    assert np.array_equal(narrow(-nans, name, undefined), undefined)
    fresh = narrow(np.array([np.nan, -np.nan]), name, np.repeat(every[np.isfinite(was)][:1], 2))
    assert fresh[0] == fresh[1], "the sign of a NaN is no value"
    assert np.isnan(widen(fresh, name)).all()


def test_float32_and_float64_are_what_the_machine_has() -> None:
    values = np.array([0.1, 1 + 2**-24, 1 + 3 * 2**-24, 3.5e38, 1e-45, 7e-46, -0.0])
    found = narrow(values, "float32", np.zeros(7, "<u4")).view("<f4")
    assert found.tobytes() == np.array([0.1, 1, 1 + 2**-22, np.inf, 1e-45, 0, -0.0], "<f4").tobytes()
    assert narrow(values, "float64", np.zeros(7, "<u8")).tobytes() == values.tobytes()


@pytest.mark.parametrize("name", [name for name in DTYPES if realdtype(DTYPES[name])])
def test_whatever_the_bits_are_nothing_is_warned_of_and_nothing_changes(name: str) -> None:
    real = realdtype(DTYPES[name])
    assert real is not None
    patterns = np.frombuffer(np.random.default_rng(1).bytes(80_000), unsigned(real))
    assert np.array_equal(narrow(widen(patterns, real), real, patterns), patterns)
