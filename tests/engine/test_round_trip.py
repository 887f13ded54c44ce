"""What goes in comes out, byte for byte, whatever it is."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.engine.filters import clean, rebuild, round_trip
from tests.git.checkpoints import (
    SAFETENSORS_DTYPES,
    Entry,
    every_other,
    every_pytorch,
    every_safetensors,
    optimizer_of_20000_records,
    safetensors_of,
)
from theta_nb.manifest.text import dump, parse
from theta_nb.storage.objects import MemoryStore
from theta_nb.tensors.chunks import CHUNK_NBYTES

FILES = {
    **{f"safetensors/{name}": data for name, data in every_safetensors().items()},
    **{f"pytorch/{name}": data for name, data in every_pytorch().items()},
    **{f"other/{name}": data for name, data in every_other().items()},
}

# What no format takes apart; everything else must be seen by layer, or the round trip proves little.
OPAQUE = {"pytorch/before-1.6", "pytorch/cut-short", "pytorch/padded"}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_comes_back_byte_for_byte(name: str) -> None:
    assert round_trip(FILES[name]) == FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_taken_apart_by_its_own_format(name: str) -> None:
    kind = name.partition("/")[0]
    expected = "opaque" if kind == "other" or name in OPAQUE else kind
    assert clean(FILES[name], MemoryStore()).format == expected


@pytest.mark.parametrize("name", FILES)
def test_the_manifest_is_the_same_in_every_repository(name: str) -> None:
    first, second = (dump(clean(FILES[name], MemoryStore())) for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_an_optimizer_of_20000_records_comes_back_from_a_handful_of_objects() -> None:
    data = optimizer_of_20000_records()
    store = MemoryStore()
    manifest = clean(data, store)
    assert rebuild(parse(dump(manifest)), store) == data
    assert len(manifest.entries) == 20_000
    assert len(list(store)) < 10


def test_a_tensor_of_several_chunks_with_rows_across_them_comes_back() -> None:
    # Rows of 12 KiB do not divide a chunk, so every chunk but the last ends before its limit.
    rows = CHUNK_NBYTES // 12_288 + 3
    data = safetensors_of(
        [Entry("a", "F32", (rows, 3072), bytes(rows * 12_288)), Entry("b", "U8", (7,), b"seven b")], {"format": "pt"}
    )
    store = MemoryStore()
    manifest = clean(data, store)
    assert len(manifest.value_of("a").chunks) == 2
    assert rebuild(manifest, store) == data


def test_a_row_longer_than_a_chunk_is_split() -> None:
    row = CHUNK_NBYTES + 4096
    data = safetensors_of([Entry("a", "F32", (2, row // 4), b"\1" * (2 * row))])
    store = MemoryStore()
    manifest = clean(data, store)
    assert [ref.length > 0 for ref in manifest.value_of("a").chunks] == [True] * 4
    assert rebuild(manifest, store) == data


# --- any layout -------------------------------------------------------------------------------------------------------

_SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
_NAMES = st.text(max_size=12).filter(lambda name: name != "__metadata__")


@st.composite
def safetensors_files(draw: st.DrawFn) -> bytes:
    """Safetensors files with any order of header and data, gaps, ties, and text behind the end."""
    entries = draw(
        st.lists(
            st.tuples(_NAMES, st.sampled_from(SAFETENSORS_DTYPES), _SHAPES, st.integers(0, 3)),
            max_size=8,
            unique_by=lambda entry: entry[0],
        )
    )
    header: dict[str, Any] = {}
    body = b""
    for name, dtype, shape, gap in entries:
        count = 1
        for size in shape:
            count *= size
        if count * dtype.bits % 8:
            continue
        nbytes = dtype.nbytes(count)
        tied = [v["data_offsets"] for v in header.values() if v["data_offsets"][1] - v["data_offsets"][0] == nbytes]
        if tied and gap == 0:
            offsets = tied[0]
        else:
            body += draw(st.binary(min_size=gap, max_size=gap))
            offsets = [len(body), len(body) + nbytes]
            body += draw(st.binary(min_size=nbytes, max_size=nbytes)) if nbytes < 40 else bytes(range(256)) * nbytes
            body = body[: offsets[1]]
        header[name] = {"dtype": dtype.safetensors, "shape": list(shape), "data_offsets": offsets}
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
    names = draw(st.permutations(list(header)))
    text = json.dumps(
        {name: header[name] for name in names},
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])),
    ).encode("utf-8", "surrogatepass")
    text += b" " * draw(st.integers(0, 9))
    return struct.pack("<Q", len(text)) + text + body + draw(st.binary(max_size=5))


@settings(max_examples=150, deadline=None)
@given(safetensors_files())
def test_any_layout_of_a_safetensors_file_comes_back(data: bytes) -> None:
    assert round_trip(data, "model.safetensors") == data


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300))
@example(b"theta-manifest")
def test_any_bytes_come_back(data: bytes) -> None:
    assert round_trip(data) == data


_PATCHED = [FILES["safetensors/equal-tensors"], FILES["pytorch/nested"], FILES["pytorch/training-state"]]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(_PATCHED), st.data())
def test_a_damaged_checkpoint_comes_back_as_damaged_as_it_was(data: bytes, draw: st.DataObject) -> None:
    position = draw.draw(st.integers(0, len(data) - 1))
    patch = draw.draw(st.binary(min_size=1, max_size=9))
    damaged = data[:position] + patch + data[position + draw.draw(st.integers(0, 9)) :]
    assert round_trip(damaged) == damaged
