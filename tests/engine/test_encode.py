"""Chunks become objects: packed, shared, looked up, and the same whatever the order of the threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from tests.git.checkpoints import noise
from theta_nb.engine.chunk_work import PACKED_NBYTES
from theta_nb.engine.encode import ChunkEncoder
from theta_nb.engine.known import Known, KnownChunk, KnownChunks
from theta_nb.engine.rebuild import Decoder
from theta_nb.manifest.model import INLINE_NBYTES, ChunkRef
from theta_nb.storage.objects import MemoryStore
from theta_nb.tensors.chunks import CHUNK_NBYTES, chunk_digest


@pytest.fixture
def executor() -> Iterable[Executor]:
    with ThreadPoolExecutor(3) as threads:
        yield threads


def _encode(
    raws: Iterable[bytes], store: MemoryStore, executor: Executor, known: Known | None = None
) -> tuple[list[bytes], dict[bytes, KnownChunk]]:
    encoder = ChunkEncoder(store, known or KnownChunks(), executor)
    for raw in raws:
        encoder.space(len(raw))[:] = raw
        encoder.add(len(raw), 4)
    encoder.finish()
    return encoder.digests, encoder.known


def _decoded(known: KnownChunk, nbytes: int, store: MemoryStore) -> bytes:
    out = bytearray(nbytes)
    Decoder(store).into(known.ref, memoryview(out), "chunk")
    return bytes(out)


SIZES = {
    "nothing": [0],
    "inline": [1, INLINE_NBYTES],
    "packed": [INLINE_NBYTES + 1, 1000, 60_000],
    "alone": [PACKED_NBYTES * 2, CHUNK_NBYTES],
    "mixed": [3, 100, CHUNK_NBYTES - 4, 65, 100_000, 64, 200],
}


@pytest.mark.parametrize("sizes", SIZES)
def test_every_chunk_can_be_decoded_again(executor: Executor, sizes: str) -> None:
    raws = [noise(nbytes, i) for i, nbytes in enumerate(SIZES[sizes])]
    store = MemoryStore()
    digests, known = _encode(raws, store, executor)
    assert digests == [chunk_digest(raw) for raw in raws], "digests stand in the order the chunks came"
    for digest, raw in zip(digests, raws, strict=True):
        assert _decoded(known[digest], len(raw), store) == raw


def test_small_chunks_share_one_object_in_the_order_they_came(executor: Executor) -> None:
    raws = [noise(500, i) for i in range(300)]
    store = MemoryStore()
    digests, known = _encode(raws, store, executor)
    (oid,) = store
    assert {known[digest].ref.oid for digest in digests} == {oid}
    places = [known[digest].ref.offset for digest in digests]
    assert places == sorted(places)
    assert (
        known[digests[-1]].ref.offset + known[digests[-1]].ref.length
        == store.size(oid)
        == known[digests[0]].object_size
    )


def test_large_chunks_have_objects_of_their_own(executor: Executor) -> None:
    store = MemoryStore()
    digests, known = _encode([noise(200_000, i) for i in range(3)], store, executor)
    assert len({known[digest].ref.oid for digest in digests}) == 3
    assert all(known[digest].ref.offset == 0 for digest in digests)


def test_equal_chunks_are_written_once(executor: Executor) -> None:
    store = MemoryStore()
    digests, _ = _encode([noise(500), noise(500), noise(200_000), noise(200_000)], store, executor)
    assert len(set(digests)) == 2
    assert len(list(store)) == 2


def test_a_long_run_of_small_chunks_fills_several_packs_of_bounded_size(executor: Executor) -> None:
    # 400 chunks of just under the packing limit are 24 MiB, more than a pack holds.
    raws = [noise(60_000, i) for i in range(400)]
    store = MemoryStore()
    digests, known = _encode(raws, store, executor)
    sizes = [store.size(oid) or 0 for oid in store]
    assert len(sizes) == 2
    assert max(sizes) < 17 * 2**20
    for i in (0, 279, 280, 399):
        assert _decoded(known[digests[i]], 60_000, store) == raws[i]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_objects_do_not_depend_on_the_number_of_threads(workers: int) -> None:
    raws = [noise(50 + 997 * i, i) for i in range(100)]
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(workers) as several:
        first, second = MemoryStore(), MemoryStore()
        _encode(raws, first, one)
        _encode(raws, second, several)
    assert set(first) == set(second)


# --- what is known ----------------------------------------------------------------------------------------------------


class _Table(dict[bytes, KnownChunk]):
    def find(self, digest: bytes) -> KnownChunk | None:
        return self.get(digest)


def test_what_is_known_and_here_is_not_written(executor: Executor) -> None:
    raws = [noise(500), noise(200_000)]
    store = MemoryStore()
    _, known = _encode(raws, store, executor)
    before = set(store)
    _, again = _encode(reversed(raws), store, executor, _Table(known))
    assert again == known
    assert set(store) == before


def test_an_object_that_is_known_but_absent_is_written_again(executor: Executor) -> None:
    raw = noise(200_000)
    store = MemoryStore()
    _, known = _encode([raw], store, executor)
    (oid,) = store
    store.delete(oid)
    _encode([raw], store, executor, _Table(known))
    assert list(store) == [oid]


def test_tiny_chunks_are_inline_whatever_is_known(executor: Executor) -> None:
    digest = chunk_digest(b"tiny")
    lie = KnownChunk(ChunkRef(digest, "ab" * 32, 0, 9), 9)
    _, known = _encode([b"tiny"], MemoryStore(), executor, _Table({digest: lie}))
    assert known[digest].ref.inline == b"tiny"


def test_a_lookup_that_fails_fails_the_whole(executor: Executor) -> None:
    class Broken:
        def find(self, digest: bytes) -> KnownChunk | None:
            raise RuntimeError("lookup")

    with pytest.raises(RuntimeError, match="lookup"):
        _encode([noise(500)], MemoryStore(), executor, Broken())


def _write_nothing(store: MemoryStore, executor: Executor) -> ChunkEncoder:
    return ChunkEncoder(store, KnownChunks(), executor, write=False)


def test_without_writing_only_digests_are_made(executor: Executor) -> None:
    store = MemoryStore()
    encoder = _write_nothing(store, executor)
    numbers = [encoder.add_bytes(raw) for raw in (noise(500), noise(200_000), b"tiny")]
    encoder.finish()
    assert [encoder.digests[n] for n in numbers] == [
        chunk_digest(noise(500)),
        chunk_digest(noise(200_000)),
        chunk_digest(b"tiny"),
    ]
    assert list(store) == []


def test_an_encoder_can_be_abandoned_in_the_middle(executor: Executor) -> None:
    encoder = ChunkEncoder(MemoryStore(), KnownChunks(), executor)
    for i in range(20):
        encoder.add_bytes(noise(CHUNK_NBYTES // 2, i))
    encoder.abandon()
    assert len(encoder.digests) <= 20


_Order = Callable[[list[bytes]], list[bytes]]


def test_the_first_manifest_is_preferred(executor: Executor) -> None:
    from tests.engine.filters import clean
    from tests.git.checkpoints import bias, safetensors

    one = clean(safetensors({"a": bias(1.0).repeat(9)}), MemoryStore())
    two = clean(safetensors({"b": bias(2.0).repeat(9), "a": bias(1.0).repeat(9)}), MemoryStore())
    digest = one.value_of("a").chunks[0].digest
    assert two.value_of("a").chunks[0].digest == digest
    assert one.value_of("a").chunks[0].oid != two.value_of("a").chunks[0].oid
    for first, second in ((one, two), (two, one)):
        found = KnownChunks([first, second]).find(digest)
        assert found is not None
        assert found.ref == first.value_of("a").chunks[0]
    behind = _Table({b"x" * 32: KnownChunk(ChunkRef(b"x" * 32, "ab" * 32, 0, 1), 1)})
    assert KnownChunks([one], behind).find(b"x" * 32) is not None
    assert KnownChunks([one]).find(b"x" * 32) is None
