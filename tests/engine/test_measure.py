"""Measuring: every kind of side, what can go wrong with its values, and what is remembered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest
import torch

from tests.engine.filters import clean
from tests.git.checkpoints import Entry, pytorch, safetensors, safetensors_of
from theta_nb.engine.diff import ParameterChange, structural_diff
from theta_nb.engine.memory_source import MemorySource
from theta_nb.engine.source_pair import PairOfSources
from theta_nb.engine.sources import FileSource, ManifestSource, Source
from theta_nb.errors import CheckpointError, MissingObjectError, ThetaError
from theta_nb.storage.objects import MemoryStore
from theta_nb.tensors import chunks

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 KiB, so that small tensors have several."""
    monkeypatch.setattr(chunks, "CHUNK_NBYTES", 4096)


def committed(data: bytes, store: MemoryStore | None = None, name: str = "model.bin") -> ManifestSource:
    store = store or MemoryStore()
    return ManifestSource(clean(data, store, name), store)


def measure(old: Source, new: Source, **options: Any) -> dict[str, ParameterChange]:
    found = structural_diff(old.parameters, new.parameters)
    return {change.name: change for change in PairOfSources(old, new).measure(found, **options)}


def pair(rows: int = 100, columns: int = 64, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    old = random.standard_normal((rows, columns)).astype("float32")
    new = old.copy()
    new[rows // 2] += 0.25
    return old, new


def expect(change: ParameterChange, old: Array, new: Array) -> None:
    found = change.statistics
    assert found is not None, change.note
    before, after = old.astype("float64"), new.astype("float64")
    assert found.numel == old.size
    assert found.old_norm == pytest.approx(np.linalg.norm(before), rel=1e-6)
    assert found.new_norm == pytest.approx(np.linalg.norm(after), rel=1e-6)
    assert found.delta_norm == pytest.approx(np.linalg.norm(after - before), rel=1e-6)
    assert found.changed == (before != after).sum()


@pytest.mark.usefixtures("small_chunks")
def test_every_pair_of_sides_agrees(tmp_path: Path, executor: Executor) -> None:
    old, new = pair()
    sides: list[tuple[Source, ...]] = []
    for name, value in (("old", old), ("new", new)):
        data = safetensors({"w": value})
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        sides.append(
            (
                committed(data),
                FileSource(path, executor),
                MemorySource({"w": torch.from_numpy(value)}, executor),
                MemorySource({"w": value}, executor),
                committed(pytorch({"w": torch.from_numpy(value)}), name="m.pt"),
            )
        )
    results = {repr(measure(before, after)["w"].statistics) for before in sides[0] for after in sides[1]}
    assert len(results) == 1, "the same bits, wherever the values are"
    expect(measure(sides[0][0], sides[1][1])["w"], old, new)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_decides_nothing(threads: int) -> None:
    old, new = pair(500)
    sides = [committed(safetensors({"w": value, "v": value[::2]})) for value in (old, new)]
    with ThreadPoolExecutor(threads) as pool:
        found = measure(*sides, executor=pool, histograms=True)
    again = measure(*sides, histograms=True)
    assert repr(found) == repr(again)
    expect(found["w"], old, new)


@pytest.mark.usefixtures("small_chunks")
def test_another_dtype_is_cut_into_other_chunks() -> None:
    old, _ = pair(300)
    for dtype in (np.float16, np.float64, ml_dtypes.bfloat16, np.int8):
        new = old.astype(dtype)
        change = measure(committed(safetensors({"w": old})), committed(safetensors({"w": new})))["w"]
        assert change.status == "retyped"
        expect(change, old, new)


@pytest.mark.usefixtures("small_chunks")
def test_shapes_that_overlap() -> None:
    old, new = pair(100)
    grown = np.concatenate([new, np.ones((8, 64), "float32")])
    change = measure(committed(safetensors({"w": old})), committed(safetensors({"w": grown})))["w"]
    expect(change, old, new)
    assert change.statistics is not None
    assert (change.statistics.overlap, change.note) == ((100, 64), "compared over the first 100 of 108 rows")

    wider = np.concatenate([new, np.ones((100, 3), "float32")], axis=1)
    change = measure(committed(safetensors({"w": wider})), committed(safetensors({"w": old[:90]})))["w"]
    expect(change, new[:90], old[:90])
    assert change.note == "compared over the part [90,64] that both have"

    change = measure(committed(safetensors({"w": old})), committed(safetensors({"w": new.reshape(-1)})))["w"]
    expect(change, old, new)
    assert change.note == "compared in row-major order"

    change = measure(committed(safetensors({"w": old})), committed(safetensors({"w": new[None, :2]})))["w"]
    assert change.statistics is None
    assert "no part in common" in change.note


@pytest.mark.usefixtures("small_chunks")
def test_views() -> None:
    """A transposed tensor, two halves of one storage, and a slice that begins in the middle of a chunk."""
    old, new = (torch.from_numpy(value) for value in pair(100))
    for view in (
        lambda t: {"w": t.t()},
        lambda t: {"w": t[:, ::3], "whole": t},
        lambda t: {"w": t.reshape(-1)[33:4000]},
        lambda t: {"w": t[:, :5].t()},
    ):
        sides = [committed(pytorch(view(value)), name="m.pt") for value in (old, new)]
        expect(measure(*sides)["w"], view(old)["w"].numpy(), view(new)["w"].numpy())


def test_conjugated_views() -> None:
    value = torch.randn(3, 4, dtype=torch.complex64)
    old = committed(pytorch({"w": value}), name="m.pt")
    found = measure(old, committed(pytorch({"w": value.conj()}), name="m.pt"))["w"].statistics
    assert found is not None
    assert found.delta_norm == pytest.approx(2 * float(torch.linalg.vector_norm(value.imag)), rel=1e-5)


def test_the_same_values_stored_in_another_way_are_unchanged(executor: Executor) -> None:
    value = torch.randn(6, 4)
    transposed = committed(pytorch({"w": value.t()}), name="m.pt")
    change = measure(transposed, MemorySource({"w": value.t()}, executor))["w"]
    assert (change.status, change.note) == ("unchanged", "the same values, stored in another way")


def test_nothing_of_unchanged_parameters_is_read() -> None:
    class Watched(ManifestSource):
        read: ClassVar[set[str]] = set()

        def block(self, stored: Any, chunk: int, offset: int, dest: memoryview) -> memoryview:
            self.read.add(stored.spec.name)
            return super().block(stored, chunk, offset, dest)

    old, new = pair()
    store = MemoryStore()
    before = Watched(clean(safetensors({"same": old, "w": old, "gone": old[:5]}), store), store)
    after = committed(safetensors({"same": old, "w": new, "new": old[:7]}), store)
    found = measure(before, after)
    assert Watched.read == {"w"}
    assert {name for name, change in found.items() if change.statistics is not None} == {"w"}


def test_missing_objects_cost_their_parameters_only() -> None:
    old, new = pair(400)
    stores = MemoryStore(), MemoryStore()
    before = committed(safetensors({"a": old, "b": old + 1}), stores[0])
    after = committed(safetensors({"a": new, "b": new + 1}), stores[1])
    for ref in before.manifest.value_of("a").chunks:
        stores[0].delete(ref.oid)
    found = measure(before, after)
    assert found["a"].statistics is None
    assert found["a"].note.startswith("not measured: ")
    assert found["a"].status == "modified"
    expect(found["b"], old + 1, new + 1)


def test_a_failed_fetch_is_the_reason() -> None:
    def bring(objects: Any) -> None:
        raise MissingObjectError(f"{len(objects)} objects are not here, and there is no remote")

    old, new = pair(400)
    store = MemoryStore()
    before = ManifestSource(clean(safetensors({"a": old}), store), store, bring)
    for ref in before.manifest.value_of("a").chunks:
        store.delete(ref.oid)
    found = measure(before, committed(safetensors({"a": new})))
    assert found["a"].note == "not measured: 1 objects are not here, and there is no remote"


def test_corrupt_objects() -> None:
    class Rotten(MemoryStore):
        def read_into(self, oid: str, offset: int, dest: memoryview) -> None:
            super().read_into(oid, offset, dest)
            dest[len(dest) // 2] ^= 1

    old, new = pair(400)
    store = Rotten()
    found = measure(committed(safetensors({"a": old}), store), committed(safetensors({"a": new})))
    assert found["a"].statistics is None
    assert "git theta fsck" in found["a"].note


def test_a_file_that_is_overwritten_meanwhile(tmp_path: Path, executor: Executor) -> None:
    old, new = pair()
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"w": old}))
    source = FileSource(path, executor)
    path.write_bytes(safetensors({"w": old * 2}))
    found = measure(source, committed(safetensors({"w": new})))
    assert "was overwritten while it was compared" in found["w"].note


def test_packed_dtypes_are_not_measured_and_say_so() -> None:
    sides = [committed(safetensors_of([Entry("w", "F6_E2M3", (4,), bytes([n, 2, 3]))])) for n in (1, 9)]
    found = measure(*sides)["w"]
    assert found.status == "modified"
    assert "float6_e2m3" in found.note


@pytest.mark.usefixtures("small_chunks")
def test_empty_and_scalar_tensors() -> None:
    old = {"empty": np.zeros((0, 3), "float32"), "scalar": np.array(2.0, "float32"), "w": np.ones(3, "float32")}
    new = {"empty": np.zeros((2, 3), "float32"), "scalar": np.array(3.0, "float32"), "w": np.ones(3, "float32")}
    found = measure(committed(safetensors(old)), committed(safetensors(new)))
    assert found["scalar"].statistics is not None
    assert (found["scalar"].statistics.delta_norm, found["scalar"].statistics.relative) == (1.0, 0.5)
    assert found["empty"].statistics is not None
    assert (found["empty"].statistics.numel, found["empty"].note) == (0, "compared over the first 0 of 2 rows")


@pytest.mark.usefixtures("small_chunks")
def test_progress_and_cancelling(tmp_path: Path) -> None:
    old, new = pair(40_000)
    before, after = committed(safetensors({"w": old})), committed(safetensors({"w": new + 1}))
    calls: list[tuple[int, int]] = []
    measure(before, after, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (2 * old.nbytes, 2 * old.nbytes)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise StopError

    threads = threading.active_count()
    pair_ = PairOfSources(before, after, cache=str(tmp_path / "statistics.sqlite"))
    with pytest.raises(StopError):
        pair_.measure(structural_diff(before.parameters, after.parameters), progress=stop)
    assert threading.active_count() == threads, "nothing runs on"


@pytest.mark.usefixtures("small_chunks")
def test_a_second_time_reads_nothing(tmp_path: Path) -> None:
    old, new = pair(300)
    store = MemoryStore()
    sides = [committed(safetensors({"w": w, "t": t}), store) for w, t in ((old, old), (new, new.astype("float16")))]
    changes = structural_diff(sides[0].parameters, sides[1].parameters)
    cache = str(tmp_path / "statistics.sqlite")
    first = PairOfSources(*sides, cache=cache).measure(changes, histograms=True)
    for oid in list(store):
        store.delete(oid)
    for histograms in (True, False):
        again = PairOfSources(*sides, cache=cache).measure(changes, histograms=histograms)
        assert [c.note for c in again] == [c.note for c in first]
        assert repr(again) == repr(first)


@pytest.mark.usefixtures("small_chunks")
def test_histograms_are_added_to_what_is_known(tmp_path: Path) -> None:
    old, new = pair()
    sides = [committed(safetensors({"w": value})) for value in (old, new)]
    changes = structural_diff(sides[0].parameters, sides[1].parameters)
    measured = PairOfSources(*sides, cache=str(tmp_path / "c"))
    assert measured.measure(changes)[0].statistics.old_histogram is None  # type: ignore[union-attr]
    assert measured.measure(changes, histograms=True)[0].statistics.old_histogram.total == old.size  # type: ignore[union-attr]


@pytest.mark.usefixtures("small_chunks")
def test_chunks_that_are_equal_are_known_from_other_diffs(tmp_path: Path) -> None:
    old, new = pair(1000)
    third = new.copy()
    third[0] += 1
    store = MemoryStore()
    versions = [committed(safetensors({"w": value}), store) for value in (old, new, third)]
    read = []

    class Counted(ManifestSource):
        def block(self, stored: Any, chunk: int, offset: int, dest: memoryview) -> memoryview:
            read.append(stored.digests[chunk])
            return super().block(stored, chunk, offset, dest)

    cache = str(tmp_path / "c")
    for before, after in pairwise(versions):
        source = Counted(before.manifest, store)
        read.clear()
        changes = structural_diff(before.parameters, after.parameters)
        (change,) = PairOfSources(source, after, cache=cache).measure(changes)
    expect(change, new, third)
    assert len(set(read)) == 2, "the chunk that changed now, and the one that had changed before"


class TestMemory:
    def test_names_of_nested_state(self, executor: Executor) -> None:
        state = {"model": {"a.b": torch.ones(2), 3: torch.ones(1)}, "steps": [torch.ones(1), "text"], "lr": 0.1}
        assert list(MemorySource(state, executor).parameters) == ["model/a.b", "model/[3]", "steps/[0]"]

    def test_a_key_that_is_a_name_of_the_other_side(self, executor: Executor) -> None:
        name = "optimizer/state/[0]/exp_avg"
        assert list(MemorySource({name: torch.ones(2)}, executor, {name}).parameters) == [name]
        assert list(MemorySource({name: torch.ones(2)}, executor).parameters) == [r"optimizer\/state\/[0]\/exp_avg"]

    def test_modules_and_tied_weights(self, executor: Executor) -> None:
        module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        module[1].weight = module[0].weight
        found = MemorySource(module, executor).parameters
        assert found["1.weight"].tied == "0.weight"
        saved = parameters = committed(pytorch(module.state_dict()), name="m.pt").parameters
        assert {n: p.digest for n, p in parameters.items()} == {n: p.digest for n, p in found.items()}, saved

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            (3, "is no state"),
            ({"lr": 0.1}, "holds no tensor"),
            ({"w": torch.ones(2).to_sparse()}, "not a dense tensor"),
            ({"w": torch.ones(2, device="meta")}, "not a dense tensor"),
            ({"w": np.array(["text"])}, "checkpoints cannot hold"),
            ({"w": np.ones(2, ">f4")}, "checkpoints cannot hold"),
        ],
    )
    def test_what_is_refused(self, state: Any, words: str, executor: Executor) -> None:
        with pytest.raises(CheckpointError, match=words):
            MemorySource(state, executor)

    @pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool])
    def test_every_kind_has_the_digest_of_its_file(self, kind: torch.dtype, executor: Executor) -> None:
        value = torch.randn(5, 3).to(kind)
        assert (
            MemorySource({"w": value}, executor).parameters["w"].digest
            == committed(pytorch({"w": value}), name="m.pt").parameters["w"].digest
        )


class TestSpectrum:
    def change(self, old: Array, new: Array) -> tuple[PairOfSources, ParameterChange]:
        sides = [committed(safetensors({"w": value})) for value in (old, new)]
        (change,) = structural_diff(sides[0].parameters, sides[1].parameters)
        return PairOfSources(*sides), change

    def test_of_a_small_difference(self) -> None:
        random = np.random.default_rng(0)
        old = random.standard_normal((40, 30)).astype("float32")
        delta = random.standard_normal((40, 3)) @ random.standard_normal((3, 30))
        pair_, change = self.change(old, (old + delta).astype("float32"))
        found = pair_.spectrum(change)
        expected = np.linalg.svd(delta, compute_uv=False)
        assert found.exact
        assert found.singular_values[:3] == pytest.approx(expected[:3], rel=1e-5)
        assert found.singular_values[3] < 1e-4
        assert found.stable_rank == pytest.approx((delta**2).sum() / expected[0] ** 2, rel=1e-5)

    def test_of_a_large_one_is_random_but_seeded(self) -> None:
        random = np.random.default_rng(1)
        old = np.zeros((900, 700), "float32")
        new = (random.standard_normal((900, 20)) @ random.standard_normal((20, 700))).astype("float32")
        new += 0.01 * random.standard_normal(new.shape).astype("float32")
        pair_, change = self.change(old, new)
        found = pair_.spectrum(change, count=16)
        expected = np.linalg.svd(new, compute_uv=False)
        assert not found.exact
        assert found.singular_values == pytest.approx(expected[:16], rel=1e-3)
        assert found == pair_.spectrum(change, count=16)
        probabilities = expected / expected.sum()
        assert found.effective_rank >= 0.98 * np.exp(-(probabilities * np.log(probabilities)).sum())

    def test_of_nothing(self) -> None:
        old = np.ones((3, 3), "float32")
        pair_, change = self.change(old, old)
        with pytest.raises(ThetaError, match="w is unchanged"):
            pair_.spectrum(change)
        pair_, change = self.change(np.ones(3, "float32"), np.zeros(3, "float32"))
        with pytest.raises(ThetaError, match="is no matrix"):
            pair_.spectrum(change)
        pair_, change = self.change(old, old * np.nan)
        with pytest.raises(ThetaError, match="NaN or Inf"):
            pair_.spectrum(change)
