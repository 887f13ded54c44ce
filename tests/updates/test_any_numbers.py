"""Every update type on any numbers: what is encoded leads back to exactly the new bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theta_nb.tensors.dtypes import DTYPES
from theta_nb.updates.table import UPDATES, Numbers

_DTYPES = [dtype for dtype in DTYPES.values() if dtype.bits % 8 == 0]


@st.composite
def steps(draw: st.DrawFn) -> tuple[bytes, bytes, Numbers]:
    """Old and new bytes of a matrix; the new ones anything, a few changes, a scaling of bits, or the old ones."""
    dtype = draw(st.sampled_from(_DTYPES))
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    nbytes = rows * columns * dtype.itemsize
    old = draw(st.binary(min_size=nbytes, max_size=nbytes))
    kind = draw(st.sampled_from(["any", "few", "near", "same"]))
    new = bytearray(old)
    if kind == "any":
        new[:] = draw(st.binary(min_size=nbytes, max_size=nbytes))
    elif kind == "few":
        for place in draw(st.lists(st.integers(0, nbytes - 1), max_size=4)):
            new[place] = draw(st.integers(0, 255))
    elif kind == "near":
        width = Numbers(dtype).width
        moved = np.frombuffer(old, f"<u{width}") + np.array(draw(st.integers(0, 3)), f"<u{width}")
        new[:] = moved.tobytes()
    return old, bytes(new), Numbers(dtype, columns)


@pytest.mark.parametrize("name", UPDATES.names())
@given(step=steps())
@settings(deadline=None, max_examples=60)
def test_what_is_encoded_leads_to_the_new_bytes(name: str, step: tuple[bytes, bytes, Numbers]) -> None:
    old, new, numbers = step
    payload = UPDATES[name].encode(memoryview(old), memoryview(new), numbers)
    if payload is not None:
        result = bytearray(old)
        UPDATES[name].apply(memoryview(payload), memoryview(result))
        assert bytes(result) == new
