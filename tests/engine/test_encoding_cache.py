"""The cache of encodings is a choice, never a truth: however broken, it is at worst an empty one."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.engine.filters import clean
from tests.git.checkpoints import bias, safetensors
from theta_nb.engine.known import EncodingCache, KnownChunk
from theta_nb.engine.previous import Previous
from theta_nb.manifest.model import Manifest
from theta_nb.storage.objects import DirectoryStore, MemoryStore

_DATA = safetensors({"w": bias(1.0).repeat(100)})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def manifest(store: MemoryStore) -> Manifest:
    return clean(_DATA, store)


def _digest(manifest: Manifest) -> bytes:
    return manifest.value_of("w").chunks[0].digest


def _remember(path: Path, store: MemoryStore, manifest: Manifest) -> None:
    cache = EncodingCache(str(path), store)
    cache.remember(manifest)
    cache.close()


def test_what_is_remembered_is_found_by_another_process(tmp_path: Path, store: MemoryStore, manifest: Manifest) -> None:
    _remember(tmp_path / "new" / "cache.sqlite", store, manifest)
    cache = EncodingCache(str(tmp_path / "new" / "cache.sqlite"), store)
    found = cache.find(_digest(manifest))
    cache.close()
    assert found is not None
    assert found.ref == manifest.value_of("w").chunks[0]
    assert found.object_size == store.size(found.ref.oid)


def test_an_entry_counts_only_while_its_object_is_here(tmp_path: Path, store: MemoryStore, manifest: Manifest) -> None:
    _remember(tmp_path / "cache", store, manifest)
    cache = EncodingCache(str(tmp_path / "cache"), store)
    oid = manifest.value_of("w").chunks[0].oid
    sound = store._objects.pop(oid)
    assert cache.find(_digest(manifest)) is None, "the object is gone"
    store._objects[oid] = sound[:-1]
    assert cache.find(_digest(manifest)) is None, "the object has another length"
    store._objects[oid] = sound
    assert cache.find(_digest(manifest)) is not None
    cache.close()


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _overwritten_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    path.write_bytes(bytes(data))


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _other_table(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE encodings (something TEXT, else_ TEXT)")
    connection.execute("INSERT INTO encodings VALUES ('a', 'b')")
    connection.commit()
    connection.close()


def _other_types(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE encodings SET oid = '../../etc/passwd', start = 'x', length = NULL, size = -1")
    connection.commit()
    connection.close()


def _range_outside_the_object(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE encodings SET start = size")
    connection.commit()
    connection.close()


def _blob_oid(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE encodings SET oid = x'00ff', size = 1.5")
    connection.commit()
    connection.close()


BREAKAGES = (
    _garbage,
    _empty,
    _torn,
    _overwritten_middle,
    _directory,
    _other_table,
    _other_types,
    _blob_oid,
    _range_outside_the_object,
)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__.strip("_"))
def test_a_broken_cache_knows_nothing_and_breaks_nothing(tmp_path: Path, breakage: Callable[[Path], None]) -> None:
    path, store = tmp_path / "cache", DirectoryStore(tmp_path / "store")
    manifest = clean(_DATA, store)
    cache = EncodingCache(str(path), store)
    cache.remember(manifest)
    cache.close()
    breakage(path)
    cache = EncodingCache(str(path), store)
    assert cache.find(_digest(manifest)) is None
    cache.remember(manifest)
    cache.find(_digest(manifest))
    cache.close()
    # A clean through it stores the file as ever.
    cache = EncodingCache(str(path), store)
    assert clean(_DATA, store, known=cache) == manifest
    cache.close()


@pytest.mark.parametrize(
    "breakage", [_garbage, _empty, _torn, _overwritten_middle], ids=lambda breakage: breakage.__name__.strip("_")
)
def test_a_broken_cache_is_begun_anew(
    tmp_path: Path, store: MemoryStore, manifest: Manifest, breakage: Callable[[Path], None]
) -> None:
    path = tmp_path / "cache"
    _remember(path, store, manifest)
    breakage(path)
    _remember(path, store, manifest)
    _remember(path, store, manifest)
    cache = EncodingCache(str(path), store)
    found = cache.find(_digest(manifest))
    cache.close()
    assert found is not None


def test_a_cache_that_another_process_holds_locked_is_an_empty_one(
    tmp_path: Path, store: MemoryStore, manifest: Manifest
) -> None:
    path = tmp_path / "cache"
    _remember(path, store, manifest)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        cache = EncodingCache(str(path), store)
        assert cache.find(_digest(manifest)) is None
        cache.remember(clean(safetensors({"w": bias(2.0).repeat(100)}), store))
        cache.close()
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    cache = EncodingCache(str(path), store)
    assert cache.find(_digest(manifest)) is not None, "the locked cache was thrown away"
    cache.close()


def test_a_cache_in_a_place_that_cannot_be_written_is_an_empty_one(
    tmp_path: Path, store: MemoryStore, manifest: Manifest
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = EncodingCache(str(tmp_path / "file" / "cache"), store)
    cache.remember(manifest)
    assert cache.find(_digest(manifest)) is None
    cache.close()


def test_a_cache_that_vanishes_while_it_is_open_breaks_nothing(
    tmp_path: Path, store: MemoryStore, manifest: Manifest
) -> None:
    cache = EncodingCache(str(tmp_path / "cache"), store)
    cache.remember(manifest)
    (tmp_path / "cache").unlink()
    cache.find(_digest(manifest))
    cache.remember(manifest)
    cache.close()


def test_it_can_be_asked_from_many_threads(tmp_path: Path, store: MemoryStore, manifest: Manifest) -> None:
    _remember(tmp_path / "cache", store, manifest)
    cache = EncodingCache(str(tmp_path / "cache"), store)
    missed: list[int] = []

    def ask(number: int) -> None:
        for _ in range(50):
            if cache.find(_digest(manifest)) is None or cache.find(b"x" * 32) is not None:
                missed.append(number)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert not missed


def test_it_forgets_what_was_not_seen_for_longest(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("theta_nb.engine.known._MAX_ROWS", 6)
    manifests = [clean(safetensors({"w": bias(float(i)).repeat(100)}), store) for i in range(5)]
    path = tmp_path / "cache"
    for manifest in [*manifests, manifests[1]]:
        _remember(path, store, manifest)
    cache = EncodingCache(str(path), store)
    known = [cache.find(_digest(manifest)) is not None for manifest in manifests]
    cache.close()
    # Each version has a chunk of its own; the layout and skeleton are those of all.
    assert known[1], "what was seen again was forgotten"
    assert not known[0], "what was not seen for longest was kept"


# --- chains -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def chain(store: MemoryStore) -> Manifest:
    """A manifest whose ``w`` is a dense value and two updates."""
    manifest = None
    value = np.random.default_rng(0).normal(size=(100, 200))
    for number in range(3):
        previous = None if manifest is None else Previous(manifest)
        manifest = clean(safetensors({"w": value}), store, previous=previous)
        value = value.copy()
        value[number] += 1
    assert manifest is not None
    assert [link.update for link in manifest.value_of("w").chunks[0].links()] == ["dense", "sparse", "sparse"]
    return manifest


def _change(path: Path, query: str, *arguments: object) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute(query, arguments).rowcount > 0
    connection.commit()
    connection.close()


def _found(path: Path, store: MemoryStore, digest: bytes) -> KnownChunk | None:
    cache = EncodingCache(str(path), store)
    try:
        return cache.find(digest)
    finally:
        cache.close()


def test_a_chain_is_found_as_it_was_remembered(tmp_path: Path, store: MemoryStore, chain: Manifest) -> None:
    _remember(tmp_path / "cache", store, chain)
    (ref,) = chain.value_of("w").chunks
    found = _found(tmp_path / "cache", store, ref.digest)
    assert found == KnownChunk.of(ref, chain.objects)
    for link in ref.links():
        step = _found(tmp_path / "cache", store, link.digest)
        assert step is not None
        assert step.ref == link, "every step of a chain is a value of its own"


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_chain_counts_only_while_every_object_of_it_is_here(
    tmp_path: Path, store: MemoryStore, chain: Manifest, step: int
) -> None:
    _remember(tmp_path / "cache", store, chain)
    links = chain.value_of("w").chunks[0].links()
    del store._objects[links[step].oid]
    for number, link in enumerate(links):
        assert (_found(tmp_path / "cache", store, link.digest) is None) == (number >= step)


def _cycle(path: Path, digests: list[bytes]) -> None:
    _change(path, "UPDATE encodings SET base = ?, step = 'sparse' WHERE digest = ?", digests[2], digests[0])


def _itself(path: Path, digests: list[bytes]) -> None:
    _change(path, "UPDATE encodings SET base = digest WHERE digest = ?", digests[2])


def _no_beginning(path: Path, digests: list[bytes]) -> None:
    _change(path, "DELETE FROM encodings WHERE digest = ?", digests[0])


def _dense_with_a_base(path: Path, digests: list[bytes]) -> None:
    _change(path, "UPDATE encodings SET step = 'dense' WHERE digest = ?", digests[2])


def _update_without_a_base(path: Path, digests: list[bytes]) -> None:
    _change(path, "UPDATE encodings SET base = NULL WHERE digest = ?", digests[2])


def _name_that_is_none(path: Path, digests: list[bytes]) -> None:
    _change(path, "UPDATE encodings SET step = ? WHERE digest = ?", "sparse:0+\nobject x", digests[2])


def _base_of_another_type(path: Path, digests: list[bytes]) -> None:
    _change(path, "UPDATE encodings SET base = 7 WHERE digest = ?", digests[2])


def _longer_than_any(path: Path, digests: list[bytes]) -> None:
    row = sqlite3.connect(path).execute("SELECT * FROM encodings WHERE digest = ?", (digests[1],)).fetchone()
    connection = sqlite3.connect(path)
    rows = [(n.to_bytes(32, "big"), *row[1:6], (n - 1).to_bytes(32, "big") if n else digests[0]) for n in range(100)]
    connection.executemany("INSERT INTO encodings VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute("UPDATE encodings SET base = ? WHERE digest = ?", (rows[-1][0], digests[2]))
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "breakage",
    [
        *(_cycle, _itself, _no_beginning, _dense_with_a_base, _update_without_a_base),
        *(_name_that_is_none, _base_of_another_type, _longer_than_any),
    ],
    ids=lambda breakage: breakage.__name__.strip("_"),
)
def test_a_chain_that_cannot_be_is_none(
    tmp_path: Path, store: MemoryStore, chain: Manifest, breakage: Callable[[Path, list[bytes]], None]
) -> None:
    path = tmp_path / "cache"
    _remember(path, store, chain)
    digests = [link.digest for link in chain.value_of("w").chunks[0].links()]
    breakage(path, digests)
    assert _found(path, store, digests[2]) is None
    cache = EncodingCache(str(path), store)
    raw = safetensors({"w": np.random.default_rng(0).normal(size=(100, 200))})
    assert clean(raw, store, known=cache).value_of("w").update == "dense"
    cache.close()


def test_a_cache_of_the_release_before_is_used_as_if_it_were_empty(
    tmp_path: Path, store: MemoryStore, chain: Manifest
) -> None:
    """It knew no chains, in a table of another name."""
    connection = sqlite3.connect(tmp_path / "cache")
    connection.execute(
        "CREATE TABLE chunks (digest BLOB PRIMARY KEY, oid TEXT, start INTEGER, length INTEGER, size INTEGER)"
    )
    connection.commit()
    connection.close()
    digest = chain.value_of("w").chunks[0].digest
    assert _found(tmp_path / "cache", store, digest) is None
    _remember(tmp_path / "cache", store, chain)
    assert _found(tmp_path / "cache", store, digest) is not None
