"""Damaged objects, in this process: every place, every length, and never a wrong byte."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.engine.filters import clean, rebuild
from tests.git.checkpoints import pytorch, safetensors
from theta_nb.engine.known import KnownChunks
from theta_nb.errors import CorruptObjectError, MissingObjectError, ThetaError
from theta_nb.manifest.model import Manifest
from theta_nb.storage.objects import DirectoryStore


def checkpoint(seed: int = 0) -> bytes:
    """Three tensors: an object of its own, and two in a pack."""
    rng = np.random.default_rng(seed)
    return safetensors(
        {
            "large": rng.normal(size=(160, 160)).astype(np.float32),
            "small.a": rng.normal(size=100).astype(np.float32),
            "small.b": rng.normal(size=(10, 10)).astype(np.float64),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "theta", fsync=False)


def put(store: DirectoryStore, oid: str, data: bytes) -> None:
    """Have other bytes under the name of an object."""
    path = Path(store.path(oid))
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def frames(manifest: Manifest) -> dict[str, list[tuple[int, int]]]:
    """Where encoded chunks lie, by object."""
    found: dict[str, list[tuple[int, int]]] = {}
    for ref in manifest.chunk_refs():
        if ref.oid:
            found.setdefault(ref.oid, []).append((ref.offset, ref.length))
    return found


def is_pack(manifest: Manifest, oid: str) -> bool:
    return len(frames(manifest)[oid]) > 1


def error_of(manifest: Manifest, store: DirectoryStore, data: bytes) -> CorruptObjectError | None:
    """What a rebuild complains about; a bit that the codec does not look at may flip, and then the bytes are right."""
    try:
        assert rebuild(manifest, store) == data
    except CorruptObjectError as error:
        return error
    return None


@pytest.mark.parametrize("kind", ["safetensors", "pytorch"])
def test_a_flipped_bit_anywhere_is_an_error_and_never_another_file(store: DirectoryStore, kind: str) -> None:
    import torch

    data = checkpoint() if kind == "safetensors" else pytorch({"w": torch.arange(9000.0), "b": torch.ones(40)})
    manifest = clean(data, store)
    rng = random.Random(7)
    silent = []
    for oid, places in frames(manifest).items():
        good = Path(store.path(oid)).read_bytes()
        # All bytes of every Blosc header and block table, and some of the content.
        wanted = {start + i for start, length in places for i in range(min(40, length))}
        wanted |= {start + length - 1 for start, length in places}
        wanted |= {rng.randrange(len(good)) for _ in range(40)}
        for place in sorted(wanted):
            bad = bytearray(good)
            bad[place] ^= 1 << rng.randrange(8)
            put(store, oid, bytes(bad))
            error = error_of(manifest, store, data)
            if error is None:
                silent.append((oid, place))
            else:
                assert error.oid == oid
                assert oid[:12] in str(error) or "encoded chunk" in str(error)
        put(store, oid, good)
    assert rebuild(manifest, store) == data
    assert len(silent) < 60, "most flipped bits must be noticed"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100, -1])
def test_an_object_that_was_cut_is_an_error_that_names_what_it_held(store: DirectoryStore, length: int) -> None:
    manifest = clean(checkpoint(), store)
    for oid in frames(manifest):
        good = Path(store.path(oid)).read_bytes()
        put(store, oid, good[:length])
        with pytest.raises(CorruptObjectError, match=r"large|small\.|the layout|the skeleton") as caught:
            rebuild(manifest, store)
        assert caught.value.oid == oid
        assert "git theta fsck" in str(caught.value)
        put(store, oid, good)


def test_a_folder_in_the_place_of_an_object_is_a_missing_object(store: DirectoryStore) -> None:
    manifest = clean(checkpoint(), store)
    for oid in frames(manifest):
        good = Path(store.path(oid)).read_bytes()
        store.delete(oid)
        Path(store.path(oid)).mkdir()
        assert store.size(oid) is None
        with pytest.raises(MissingObjectError) as caught:
            rebuild(manifest, store)
        assert caught.value.oids == (oid,)
        with pytest.raises(ThetaError, match="cannot write object"):
            store.write(good)
        Path(store.path(oid)).rmdir()
        store.write(good)
    assert rebuild(manifest, store) == checkpoint()


def test_an_object_that_cannot_be_read_is_named(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = clean(checkpoint(), store)
    oid = next(oid for oid in frames(manifest) if not is_pack(manifest, oid))

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(CorruptObjectError, match=f"object {oid} cannot be read: Input/output error"):
        store.read_into(oid, 0, memoryview(bytearray(5)))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_cleaning_the_file_again_heals_the_store(store: DirectoryStore, damage: str) -> None:
    data = checkpoint()
    manifest = clean(data, store)
    for oid in frames(manifest):
        good = Path(store.path(oid)).read_bytes()
        if damage == "missing":
            store.delete(oid)
        else:
            put(store, oid, b"" if damage == "empty" else good[:-1])
        again = clean(data, store, known=KnownChunks([manifest]))
        assert again == manifest
        assert Path(store.path(oid)).read_bytes() == good
    assert rebuild(manifest, store) == data


def test_a_pack_of_which_a_part_changed_keeps_its_name_and_stays_missing(store: DirectoryStore) -> None:
    """Its other chunks are described by the old pack, which a remote may have."""
    before = safetensors({"a": np.arange(50.0), "b": np.arange(60.0), "c": np.arange(70.0)})
    after = safetensors({"a": np.arange(50.0), "b": np.arange(60.0) + 1, "c": np.arange(70.0)})
    manifest = clean(before, store)
    (oid,) = frames(manifest)
    store.delete(oid)
    changed = clean(after, store, known=KnownChunks([manifest]))
    assert oid in changed.objects
    assert store.size(oid) is None
    with pytest.raises(MissingObjectError):
        rebuild(changed, store)
    clean(before, store, known=KnownChunks([manifest]))
    assert rebuild(changed, store) == after


def test_many_lost_packs_are_put_together_one_after_the_other(store: DirectoryStore) -> None:
    parts = [
        safetensors({f"t{i}.{j}": np.random.default_rng(9 * i + j).normal(size=500) for j in range(3)})
        for i in range(8)
    ]
    manifests = [clean(part, store) for part in parts]
    whole = safetensors(
        {f"t{i}.{j}": np.random.default_rng(9 * i + j).normal(size=500) for i in range(8) for j in range(3)}
    )
    known = KnownChunks(manifests)
    packs = {oid for manifest in manifests for oid in frames(manifest)}
    sizes = {oid: store.size(oid) for oid in packs}
    for oid in packs:
        store.delete(oid)
    manifest = clean(whole, store, known=known)
    # Headers and layouts of the parts do not come by, so their packs cannot be whole again; nothing wrong is written.
    for oid in store:
        assert hashlib.sha256(Path(store.path(oid)).read_bytes()).hexdigest() == oid
    for part in parts:
        clean(part, store, known=known)
    assert {oid: store.size(oid) for oid in packs} == sizes
    assert rebuild(manifest, store) == whole


# --- many writers -----------------------------------------------------------------------------------------------------


WRITER = """
import random, sys, threading
from concurrent.futures import ThreadPoolExecutor
from theta_nb.storage.objects import DirectoryStore

store = DirectoryStore(sys.argv[1], fsync=False)
contents = [random.Random(seed).randbytes(20_000 + seed) for seed in range(40)]
random.Random(sys.argv[2]).shuffle(contents)
barrier = threading.Barrier(8)

def work(number):
    barrier.wait()
    for content in contents[number % 3:]:
        store.write(content)

print("ready", flush=True)
sys.stdin.read()
with ThreadPoolExecutor(8) as threads:
    list(threads.map(work, range(8)))
"""


def test_processes_and_threads_that_write_equal_objects_do_not_disturb_each_other(tmp_path: Path) -> None:
    root = tmp_path / "theta"
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, root, str(i)], stdin=pipe, stdout=pipe) for i in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()  # the sign to begin
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 0
    written = {hashlib.sha256(random.Random(seed).randbytes(20_000 + seed)).hexdigest() for seed in range(40)}
    store = DirectoryStore(root)
    assert set(store) == written
    for oid in written:
        path = Path(store.path(oid))
        assert hashlib.sha256(path.read_bytes()).hexdigest() == oid
        assert path.stat().st_mode & 0o222 == 0, "objects are read-only"
    assert os.listdir(root / "tmp") == [], "temporary files were left behind"
