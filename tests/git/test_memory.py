"""What the filter and ``git theta checkout`` need of memory does not grow with the checkpoint."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checks import theta_dir, warnings
from tests.git.filter_client import PACKET, FilterClient
from theta_nb.checkpoints.layout import Layout, Storage
from theta_nb.engine.layouts import dump_layout
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value
from theta_nb.manifest.text import dump
from theta_nb.storage.encoding import encode_bytes
from theta_nb.storage.objects import DirectoryStore
from theta_nb.tensors.chunks import CHUNK_NBYTES, chunk_digest, storage_digest

MIB = 2**20
GIB = 2**30
ALLOWED = 200 * MIB
"""Less than the smallest checkpoint here: whoever holds the whole content fails."""


@pytest.fixture(scope="session")
def bare_interpreter() -> int:
    """Peak memory of an interpreter that does nothing."""
    code = "import re; print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) * 1024


def sparse_opaque(path: Path, size: int) -> None:
    """A file of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size)


def sparse_safetensors(path: Path, size: int) -> None:
    """The same with three float32 tensors declared over it: two matrices and one of a single, endless row."""
    third = size // 12 * 4
    shapes = {"embed": [third // 4 // 1024, 1024], "head": [third // 4 // 3, 3], "long": [1, third // 4]}
    header, position = {}, 0
    for name, shape in shapes.items():
        nbytes = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + nbytes]}
        position += nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + position)


def content(path: Path) -> Iterator[bytes]:
    """The content of a file, a packet at a time."""
    with path.open("rb", buffering=MIB) as file:
        while piece := file.read(PACKET):
            yield piece


class Comparison:
    """A sink that compares what comes with an open file and holds none of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.nbytes = 0
        self.same = True

    def __call__(self, piece: bytes) -> None:
        self.nbytes += len(piece)
        self.same = self.same and self._file.read(len(piece)) == piece


@pytest.mark.parametrize("kind", ["opaque", "safetensors"])
@pytest.mark.parametrize(
    "size", [GIB // 4, pytest.param(4 * GIB + 12345, marks=pytest.mark.slow)], ids=["quarter", "4gib"]
)
def test_clean_and_smudge_of_gigabytes_stay_small(
    repository: GitSandbox, bare_interpreter: int, kind: str, size: int
) -> None:
    name = "m.pt" if kind == "opaque" else "m.safetensors"
    path = repository.path / name
    (sparse_opaque if kind == "opaque" else sparse_safetensors)(path, size)
    repository("config", "theta.smudgeLimit", "8g")
    repository("config", "theta.workers", "2")
    with FilterClient(repository.path) as client:
        client.shake_hands()
        cleaned = client.request("clean", name, content(path))
        assert cleaned.status == "success"
        peak = client.peak() - bare_interpreter
    assert peak < ALLOWED, f"clean of {size} bytes took {peak / MIB:.0f} MiB"
    assert f"\nformat {kind}\n".encode() in cleaned.content

    with FilterClient(repository.path) as client:
        client.shake_hands()
        with path.open("rb", buffering=MIB) as file:
            comparison = Comparison(file)
            smudged = client.request("smudge", name, cleaned.content, comparison)
        assert smudged.status == "success"
        assert comparison.same, "the content came back changed"
        assert comparison.nbytes == path.stat().st_size
        peak = client.peak() - bare_interpreter
    assert peak < ALLOWED, f"smudge of {size} bytes took {peak / MIB:.0f} MiB"


def test_content_that_is_not_the_file_is_spooled_in_little_memory(
    repository: GitSandbox, bare_interpreter: int
) -> None:
    path = repository.path / "m.pt"
    sparse_opaque(path, GIB // 4)
    repository("config", "theta.workers", "2")

    def longer() -> Iterator[bytes]:
        yield from content(path)
        yield from content(path)
        yield b"and more"

    with FilterClient(repository.path) as client:
        client.shake_hands()
        cleaned = client.request("clean", "m.pt", longer())
        assert cleaned.status == "success"
        assert f"\nsize {GIB // 2 + 8}\n".encode() in cleaned.content
        peak = client.peak() - bare_interpreter
    assert peak < 300 * MIB, f"it took {peak / MIB:.0f} MiB"


# --- a manifest that promises sixteen terabytes -----------------------------------------------------------------------


def bomb(store: DirectoryStore, chunks: int) -> Manifest:
    """A manifest of one object of zeros, named again and again."""
    frame = encode_bytes(bytes(CHUNK_NBYTES))
    zeros = ChunkRef(chunk_digest(bytes(CHUNK_NBYTES)), store.write(frame), 0, len(frame))
    size = chunks * CHUNK_NBYTES
    storage = Value(storage_digest(size, [zeros.digest] * chunks), size, (zeros,) * chunks)
    text = dump_layout(Layout("opaque", size, (Storage(0, size),)))
    layout_frame = encode_bytes(text)
    layout_ref = ChunkRef(chunk_digest(text), store.write(layout_frame), 0, len(layout_frame))
    layout = Value(storage_digest(len(text), [layout_ref.digest]), len(text), (layout_ref,))
    skeleton = Value(storage_digest(0, []), 0, ())
    return Manifest(
        "opaque",
        size,
        layout.digest,
        skeleton.digest,
        {"@0": Entry("@0", "bytes", (size,), storage.digest)},
        {value.digest: value for value in (storage, layout, skeleton)},
        {zeros.oid: len(frame), layout_ref.oid: len(layout_frame)},
    )


@pytest.fixture(scope="module")
def bomb_text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A store and the text of a manifest of 16 TiB."""
    root = tmp_path_factory.mktemp("bomb") / "theta"
    return root, dump(bomb(DirectoryStore(root), 2**20))


def plant(repo: GitSandbox, store: Path, text: bytes) -> None:
    """Commit a manifest as ``m.pt`` without any filter, with the objects of another store."""
    theta_dir(repo).symlink_to(store)
    oid = repo.run("hash-object", "-w", "--stdin", data=text).stdout.strip()
    repo("update-index", "--add", "--cacheinfo", f"100644,{oid},m.pt")
    repo("commit", "-qm", "a bomb")


def test_the_bomb_would_go_off(tmp_path: Path, repository: GitSandbox) -> None:
    """A small one is a proper manifest: what is refused below is refused for its size."""
    store = tmp_path / "theta"
    plant(repository, store, dump(bomb(DirectoryStore(store), 2)))
    repository("checkout", "m.pt")
    assert (repository.path / "m.pt").read_bytes() == bytes(2 * CHUNK_NBYTES)


def test_a_manifest_of_16_tib_is_handed_out_as_it_is(
    repository: GitSandbox, bare_interpreter: int, bomb_text: tuple[Path, bytes]
) -> None:
    store, text = bomb_text
    theta_dir(repository).symlink_to(store)
    with FilterClient(repository.path) as client:
        client.shake_hands()
        answer = client.request("smudge", "m.pt", text)
        assert answer.status == "success"
        assert answer.content == text
        peak = client.peak() - bare_interpreter
    assert [("above theta.smudgeLimit" in line) for line in warnings(client.stderr)] == [True]
    assert peak < 3 * len(text), f"it took {peak / MIB:.0f} MiB"


def test_git_theta_checkout_refuses_16_tib_before_it_writes(
    repository: GitSandbox, bare_interpreter: int, bomb_text: tuple[Path, bytes]
) -> None:
    store, text = bomb_text
    plant(repository, store, text)
    code = """
import re, sys
from theta_nb.commands.checkout import checkout
from theta_nb.errors import ThetaError
from theta_nb.git.places import find_places
try:
    checkout(find_places("."), ["m.pt"])
except ThetaError as error:
    print(error)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repository.path, capture_output=True, text=True, check=True
    )
    said, peak = result.stdout.splitlines()
    assert said.startswith(f"m.pt needs {2**44} bytes, more than the disk has")
    assert not (repository.path / "m.pt").exists()
    assert sorted(os.listdir(repository.path)) == [".git", ".gitattributes"], "a temporary file was left"
    assert int(peak) * 1024 - bare_interpreter < 3 * len(text), f"it took {int(peak) / 1024:.0f} MiB"


# --- on top of a committed version ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["few", pytest.param("all", marks=pytest.mark.slow)])
def test_clean_and_smudge_of_updates_stay_small(repository: GitSandbox, bare_interpreter: int, change: str) -> None:
    """Old bytes, differences and payloads lie in buffers that are used again, a few for every thread."""
    name, size = "m.safetensors", 20 * CHUNK_NBYTES
    path = repository.path / name
    numbers = np.random.default_rng(0).integers(0, 2**32, size // 4, np.uint32)
    header = json.dumps({"w": {"dtype": "I32", "shape": [20, size // 80], "data_offsets": [0, size]}}).encode()
    head = struct.pack("<Q", len(header)) + header
    path.write_bytes(head + numbers.tobytes())
    repository("config", "theta.workers", "2")
    repository("config", "theta.smudgeLimit", "8g")
    repository.commit_all("first")
    if change == "few":
        numbers[:: size // 400] += 5
    else:
        numbers += 5
    path.write_bytes(head + numbers.tobytes())
    del numbers
    with FilterClient(repository.path) as client:
        client.shake_hands()
        cleaned = client.request("clean", name, content(path))
        assert cleaned.status == "success"
        assert f"\t{'sparse' if change == 'few' else 'delta'}\n".encode() in cleaned.content
        peak = client.peak() - bare_interpreter
    assert peak < 300 * MIB < size, f"clean took {peak / MIB:.0f} MiB"
    with FilterClient(repository.path) as client:
        client.shake_hands()
        with path.open("rb", buffering=MIB) as file:
            comparison = Comparison(file)
            smudged = client.request("smudge", name, cleaned.content, comparison)
        assert smudged.status == "success"
        assert comparison.same
        peak = client.peak() - bare_interpreter
    assert peak < ALLOWED, f"smudge took {peak / MIB:.0f} MiB"
