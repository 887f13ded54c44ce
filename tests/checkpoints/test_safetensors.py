from __future__ import annotations

import json

import ml_dtypes  # noqa: F401  # registers bfloat16 and the 8-bit floats with NumPy
import numpy as np
import pytest
import safetensors.torch
import torch

from theta_nb.checkpoints import safetensors as format_
from theta_nb.checkpoints.detection import locate as locate_any
from theta_nb.errors import CheckpointError


def packed(header: object, data: bytes = b"", *, pad: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    raw += pad
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DTYPES = [
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16"),
    *("float32", "float64", "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"),
    *("float8_e4m3fnuz", "float8_e5m2fnuz"),
]


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 0, 3), (2, 3, 4)], ids=str)
def test_a_file_of_the_library(name, shape, locate, rebuild, same):
    count = int(np.prod(shape)) * torch.empty((), dtype=getattr(torch, name)).element_size()
    raw = torch.arange(count, dtype=torch.uint8) % (2 if name == "bool" else 251)
    tensor = (raw.view(getattr(torch, name)) if count else raw.to(getattr(torch, name))).reshape(shape)
    data = safetensors.torch.save({"w": tensor, "other": torch.ones(2)}, {"format": "pt"})
    layout = locate(data, "m.safetensors")
    assert (layout.format, layout.warnings, len(layout.storages)) == ("safetensors", (), 2)
    tensors = rebuild(layout, data)
    assert same(tensors["w"], tensor)
    assert same(tensors["other"], torch.ones(2))


def test_nan_and_infinity_are_bytes_like_others(locate, rebuild, same):
    tensor = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    data = safetensors.torch.save({"w": tensor})
    assert same(rebuild(locate(data), data)["w"], tensor)


def test_rows(locate):
    data = safetensors.torch.save(
        {"w": torch.ones(3, 4, 5), "v": torch.ones(7, dtype=torch.float16), "s": torch.ones(())}
    )
    layout = locate(data)
    rows = {
        t.name: (layout.storages[t.storage].itemsize, layout.storages[t.storage].row_nbytes) for t in layout.tensors
    }
    assert rows == {"w": (4, 80), "v": (2, 2), "s": (4, 4)}


def test_packed_types(locate):
    header = {
        "f4": entry("F4", [3, 4], 0, 6),
        "f6": entry("F6_E2M3", [4], 6, 9),
        "odd": entry("F6_E3M2", [2, 2], 9, 12),
        "half row": entry("F4", [2, 3], 12, 15),
    }
    layout = locate(packed(header, bytes(15)))
    assert layout.warnings == ()
    assert [(s.itemsize, s.row_nbytes) for s in layout.storages] == [(1, 2), (1, 1), (1, 1), (1, 1)]
    assert [t.dtype.name for t in layout.tensors] == ["float4_e2m1", "float6_e2m3", "float6_e3m2", "float4_e2m1"]


def test_header_order_is_kept_and_storages_are_sorted(locate):
    header = {"z": entry("U8", [2], 2, 4), "a": entry("U8", [2], 0, 2), "__metadata__": {"k": "v"}}
    layout = locate(packed(header, bytes(4), pad=b"   "))
    assert [t.name for t in layout.tensors] == ["z", "a"]
    assert [t.storage for t in layout.tensors] == [1, 0]


def test_entries_with_one_range_are_tied(locate):
    header = {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8), "c": entry("I64", [1], 0, 8)}
    layout = locate(packed(header, bytes(8)))
    assert len(layout.storages) == 1
    assert {t.storage for t in layout.tensors} == {0}


def test_holes_and_trailing_bytes_are_skeleton(locate, skeleton_of):
    data = packed({"a": entry("U8", [2], 3, 5)}, b"holXYtrail")
    layout = locate(data)
    assert layout.format == "safetensors"
    assert skeleton_of(layout, data).endswith(b"}holtrail")


def test_empty_tensors_anywhere(locate):
    header = {
        "a": entry("F32", [2], 0, 8),
        "e": entry("F32", [0, 3], 4, 4),
        "f": entry("U8", [0], 8, 8),
        "g": entry("U8", [0], 8, 8),
    }
    layout = locate(packed(header, bytes(8)))
    assert (layout.format, len(layout.tensors), len(layout.storages)) == ("safetensors", 4, 4)


def test_unknown_dtype_is_kept_as_bytes(locate):
    layout = locate(packed({"a": entry("F3_NEW", [5], 0, 2), "b": entry("U8", [1], 2, 3)}, bytes(3)))
    assert [t.name for t in layout.tensors] == ["b"]
    assert len(layout.storages) == 2
    assert "'a'" in layout.warnings[0]


def test_names_are_spelled(locate):
    header = {name: entry("U8", [1], i, i + 1) for i, name in enumerate(["a/b", "größe", "@0", "[0]", "x\ny", ""])}
    layout = locate(packed(header, bytes(6)))
    assert [t.name for t in layout.tensors] == [r"a\/b", "größe", r"\@0", r"\[0]", r"x\x0ay", r"\e"]


def test_header_alone(locate):
    for header in ({}, {"__metadata__": {}}, b" {}", b"{}\n  "):
        layout = locate(packed(header))
        assert (layout.format, layout.tensors) == ("safetensors", ())


OK = entry("U8", [2], 0, 2)
LIES = {
    "no object": packed(b"[1]"),
    "no JSON": packed(b"{]"),
    "not UTF-8": packed(b'{"\xff": 1}'),
    "duplicate name": packed(b'{"a":%s,"a":%s}' % ((json.dumps(OK).encode(),) * 2), bytes(2)),
    "duplicate field": packed(b'{"a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}}', bytes(2)),
    "duplicate in metadata": packed(b'{"__metadata__":{"a":"1","a":"2"}}'),
    "metadata not text": packed({"__metadata__": {"a": 1}}),
    "metadata not a table": packed({"__metadata__": "x"}),
    "range behind the end": packed({"a": entry("U8", [3], 0, 3)}, bytes(2)),
    "range backwards": packed({"a": entry("U8", [1], 2, 1)}, bytes(2)),
    "range negative": packed({"a": entry("U8", [1], -1, 0)}, bytes(2)),
    "range far away": packed({"a": entry("U8", [1], 2**62, 2**62 + 1)}, bytes(2)),
    "range beyond 64 bits": packed({"a": entry("U8", [1], 2**64, 2**64 + 1)}, bytes(2)),
    "overlap": packed({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, bytes(3)),
    "nested ranges": packed({"a": entry("U8", [4], 0, 4), "b": entry("U8", [2], 1, 3)}, bytes(4)),
    "same begin": packed({"a": entry("U8", [4], 0, 4), "b": entry("U8", [2], 0, 2)}, bytes(4)),
    "shape too small": packed({"a": entry("F32", [1], 0, 8)}, bytes(8)),
    "shape too large": packed({"a": entry("F32", [2**40, 2**40], 0, 8)}, bytes(8)),
    "shape wraps to its size": packed({"a": entry("U8", [2**32, 2**32], 0, 0)}, bytes(8)),
    "shape of bools": packed({"a": entry("U8", [True], 0, 1)}, bytes(8)),
    "shape of floats": packed({"a": entry("U8", [1.0], 0, 1)}, bytes(8)),
    "shape of strings": packed({"a": entry("U8", ["1"], 0, 1)}, bytes(8)),
    "shape negative": packed({"a": entry("U8", [-1, -1], 0, 1)}, bytes(8)),
    "shape of many dimensions": packed({"a": entry("U8", [1] * 65, 0, 1)}, bytes(8)),
    "shape missing": packed({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, bytes(8)),
    "offsets of three": packed({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, bytes(8)),
    "offsets infinite": packed(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,Infinity]}}', bytes(8)),
    "offsets endless": packed(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1%s]}}' % (b"0" * 6000), bytes(8)),
    "dtype a number": packed({"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 1]}}, bytes(8)),
    "entry a list": packed({"a": [1, 2]}, bytes(8)),
    "half a byte": packed({"a": entry("F4", [3], 0, 2)}, bytes(8)),
    "nested JSON": packed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "header of 2**63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "no header": b"\1\0\0\0\0\0\0",
}


@pytest.mark.parametrize("data", LIES.values(), ids=LIES)
def test_lies_are_refused(data, source, locate):
    with pytest.raises(CheckpointError):
        format_.locate(source(data))
    layout = locate(data, "m.safetensors")
    assert layout.format == "opaque"
    assert len(layout.warnings) == 1


def test_reserved_key_is_no_tensor(source):
    with pytest.raises(CheckpointError):
        locate_any_or_raise(source(packed({"__metadata__": OK}, bytes(2))))


def locate_any_or_raise(source):
    layout = locate_any(source, "m.safetensors")
    if layout.format == "opaque":
        raise CheckpointError(layout.warnings[0])
