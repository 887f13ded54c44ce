"""Small checkpoints of every kind, as bytes: what the tests put into repositories."""

from __future__ import annotations

import io
import json
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from theta_nb.tensors.dtypes import DTYPES

SAFETENSORS_DTYPES = tuple(dtype for dtype in DTYPES.values() if dtype.safetensors is not None)

TORCH_DTYPES = tuple(
    getattr(torch, name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
)


def noise(nbytes: int, seed: int = 0) -> bytes:
    """Bytes without pattern, the same for the same seed."""
    return np.random.default_rng(seed).bytes(nbytes)


@dataclass
class Entry:
    """One entry of a safetensors header, written down as it is: nothing is checked."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def safetensors_of(
    entries: Iterable[Entry],
    metadata: Mapping[str, str] | None = None,
    *,
    padding: int = 0,
    metadata_last: bool = False,
) -> bytes:
    """A safetensors file with its entries in the given order."""
    header: dict[str, Any] = {}
    if metadata is not None and not metadata_last:
        header["__metadata__"] = dict(metadata)
    position = 0
    body = b""
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + len(entry.data)],
        }
        position += len(entry.data)
        body += entry.data
    if metadata is not None and metadata_last:
        header["__metadata__"] = dict(metadata)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode() + b" " * padding
    return struct.pack("<Q", len(text)) + text + body


def safetensors(tensors: Mapping[str, np.ndarray[Any, Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of NumPy arrays, through the reference writer."""
    from safetensors.numpy import save

    return save(dict(tensors), None if metadata is None else dict(metadata))


def pytorch(saved: object) -> bytes:
    """What ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()


def tensors(seed: int = 0, prefix: str = "") -> dict[str, np.ndarray[Any, Any]]:
    """A little model of four tensors: two that fill objects of their own in a pack, one tiny, one of integers."""
    rng = np.random.default_rng(seed)
    return {
        f"{prefix}embed.weight": rng.normal(size=(40, 16)).astype(np.float32),
        f"{prefix}layer.0.weight": rng.normal(size=(16, 16)).astype(np.float32),
        f"{prefix}layer.0.bias": rng.normal(size=16).astype(np.float32),
        f"{prefix}steps": np.array([seed, 7], dtype=np.int64),
    }


def model(seed: int = 0, **changed: np.ndarray[Any, Any]) -> bytes:
    """The little model as safetensors; ``changed`` replaces tensors (``layer_0_bias=…``)."""
    named = tensors(seed)
    by_word = {name.replace(".", "_"): name for name in named}
    for word, value in changed.items():
        named[by_word[word]] = value
    return safetensors(named)


def bias(value: float) -> np.ndarray[Any, Any]:
    """A bias for ``layer.0.bias`` that is unlike the others."""
    return np.full(16, value, dtype=np.float32)


# --- one of each kind -------------------------------------------------------------------------------------------------


def every_safetensors() -> dict[str, bytes]:
    """Safetensors files by what is special about them."""
    files = {
        f"dtype-{dtype.name}": safetensors_of(
            [
                Entry("w", str(dtype.safetensors), (4, 24), noise(dtype.nbytes(96), i)),
                Entry("v", "F32", (3,), noise(12)),
            ]
        )
        for i, dtype in enumerate(SAFETENSORS_DTYPES)
    }
    w = Entry("w", "F32", (8, 8), noise(256))
    files |= {
        "zero-dimensional": safetensors_of([Entry("scale", "F32", (), noise(4)), w]),
        "empty-tensors": safetensors_of([Entry("a", "F32", (0,), b""), w, Entry("z", "I64", (3, 0, 2), b"")]),
        "no-tensors": safetensors_of([]),
        "only-metadata": safetensors_of([], {"format": "pt"}),
        "metadata": safetensors_of([w], {"format": "pt", "größe": "8 ↔ 8", "newline": "a\nb"}),
        "metadata-last": safetensors_of([w], {"format": "pt"}, metadata_last=True),
        "padded-header": safetensors_of([w], padding=13),
        "unsorted-entries": safetensors_of(
            [Entry("z", "F32", (8, 8), noise(256, 1)), w, Entry("a", "U8", (3,), b"abc")]
        ),
        "unknown-dtype": safetensors_of([w, Entry("odd", "X7", (3,), b"abc")]),
        "trailing-bytes": safetensors_of([w]) + b"after the end",
        "nan-and-inf": safetensors({"w": np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45] * 20, dtype=np.float32)}),
        "nan-payloads": safetensors_of([Entry("w", "F32", (32,), struct.pack("<32I", *range(0x7FC00000, 0x7FC00020)))]),
        "equal-tensors": safetensors_of([w, Entry("copy", "F32", (8, 8), w.data)]),
        "names": safetensors_of([Entry(name, "F32", (8, 3), noise(96, i)) for i, name in enumerate(NAMES)]),
        "one-byte-storages": safetensors_of([Entry(f"b{i}", "U8", (1,), bytes([i])) for i in range(100)]),
        "around-the-inline-limit": safetensors_of([Entry(f"b{n}", "U8", (n,), noise(n, n)) for n in range(60, 70)]),
    }
    raw = bytearray(files["equal-tensors"])
    # Both entries name one range: the safetensors library refuses such a file, ours keeps it.
    header = {name: {"dtype": "F32", "shape": [8, 8], "data_offsets": [0, 256]} for name in ("w", "tied")}
    text = json.dumps(header).encode()
    files["tied-ranges"] = struct.pack("<Q", len(text)) + text + bytes(raw[-256:])
    return files


NAMES = (
    *("plain", "dotted.name.weight", "with/slash", "with\\backslash", "with blank", "tab\there", "line\nbreak"),
    *("größe", "权重", "🦙", "@0", "[0]", "0", "12", "", " ", "a\u2028b", "é", "e\u0301", "'quoted'", '"double"'),
    *("dense", "view of x", "value", "object", "<<<<<<< ours", "=======", "-rf", "x" * 300),
)


@dataclass
class Config:
    """A class that only these tests have: nothing may try to import it."""

    hidden: int = 16
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


class Counter(torch.nn.Parameter):
    """A subclass of a parameter."""


def _view_cases(w: torch.Tensor) -> dict[str, object]:
    return {
        "tied": {"w": w, "head.weight": w, "also": w},
        "sliced": {"first": w[:3], "rest": w[3:], "column": w[:, 1]},
        "strided-view": {"t": w.t(), "step": w[::2, ::3], "diagonal": w.diagonal()},
        "expanded": {"e": torch.ones(1).expand(4, 5), "w": w},
        "conjugate": {"c": torch.complex(w, w).conj(), "n": torch.complex(w, w).conj().imag},
    }


def _torch_objects() -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(8, 8, generator=generator)
    layer = torch.nn.Linear(8, 8)
    torch.nn.init.normal_(layer.weight, generator=generator)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(w).sum().backward()
    optimizer.step()
    return _view_cases(w) | {
        "zero-dimensional": {"scale": torch.tensor(1.5), "n": torch.tensor(3)},
        "empty-tensors": {"a": torch.empty(0), "b": torch.empty(3, 0, 2), "w": w},
        "nan-and-inf": {"w": torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0] * 30)},
        "nested": {"model": OrderedDict(a=OrderedDict(b=w)), "list": [w + 1, (w + 2, {"x": w + 3})]},
        "ambiguous-names": {"a": {"b": w}, "a.b": w + 1, "a/b": w + 2, 0: w + 3, "0": w + 4, None: w + 5, 1.5: w + 6},
        "names": {name: w + i for i, name in enumerate(NAMES)},
        "lone-surrogate": {"bad\ud800name": w},
        "numeric-names": {i: w + i for i in range(12)},
        "training-state": {
            "model": layer.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": 3,
            "best": 0.25,
            "args": ["--lr", "1e-3", None, True],
        },
        "module-like": Config(weights={"w": w}),
        "custom-parameter": {"w": Counter(w), "p": torch.nn.Parameter(w + 1)},
        "sparse": {"coo": (w * (w > 1)).to_sparse(), "w": w},
        "bare-tensor": w,
        "no-tensors": {"epoch": 3, "text": "x" * 100},
        "empty-dict": {},
        "bare-storage": w.untyped_storage(),
        "sets-and-bytes": {"s": {1, 2, 3}, "b": b"\0\1\2", "big": 2**200, "w": w},
    }


def every_pytorch() -> dict[str, bytes]:
    """PyTorch files by what is special about them."""
    files = {}
    for i, dtype in enumerate(TORCH_DTYPES):
        tensor = torch.frombuffer(bytearray(noise(96 * dtype.itemsize, i)), dtype=torch.uint8)
        if dtype == torch.bool:
            tensor = tensor % 2
        files[f"dtype-{str(dtype).removeprefix('torch.')}"] = pytorch({"w": tensor.view(dtype).reshape(4, 24)})
    files |= {name: pytorch(saved) for name, saved in _torch_objects().items()}
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(8, 8)}, buffer, _use_new_zipfile_serialization=False)
    files["before-1.6"] = buffer.getvalue()
    files["cut-short"] = files["nested"][:-100]
    files["padded"] = files["nested"] + b"\0" * 10
    return files


def every_other() -> dict[str, bytes]:
    """Files that are no checkpoints, or no longer."""
    sound = model()
    return {
        "empty": b"",
        "one-byte": b"\0",
        "one-letter": b"t",
        "seven-bytes": b"\x08\0\0\0\0\0\0",
        "eight-bytes": b"\x02\0\0\0\0\0\0\0",
        "text": b"just a note\n",
        "crlf-text": b"just\r\na note\r\n",
        "noise": noise(5000),
        "noise-of-64": noise(64),
        "zip-magic": b"PK\x03\x04" + noise(200),
        "pickle-magic": b"\x80\x02" + noise(200),
        "header-too-long": struct.pack("<Q", 2**40) + noise(100),
        "header-cut": sound[:40],
        "body-cut": sound[:-40],
        "json": b'{"a": 1}',
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n",
    }


def optimizer_of_20000_records() -> bytes:
    """A checkpoint with its Adam state: 5,000 parameters, each with a value, two moments and a step."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5000, 3, 24, generator=generator)
    model_state = OrderedDict((f"layer.{i}.weight", values[i, 0].clone()) for i in range(5000))
    state = {
        i: {"step": torch.tensor(float(i)), "exp_avg": values[i, 1].clone(), "exp_avg_sq": values[i, 2].clone()}
        for i in range(5000)
    }
    return pytorch({"model": model_state, "optimizer": {"state": state, "param_groups": [{"lr": 1e-3}]}})
