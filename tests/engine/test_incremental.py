"""Which step leads from the committed version of a chunk to the next: the cheapest, in a chain that stays short."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.engine.filters import clean, rebuild
from tests.git.checkpoints import Entry, noise, safetensors, safetensors_of
from theta_nb.engine.incremental import MAX_UPDATES, READ_COST
from theta_nb.engine.known import KnownChunks
from theta_nb.engine.previous import Previous
from theta_nb.manifest.model import ChunkRef, Manifest
from theta_nb.manifest.text import dump, parse
from theta_nb.storage.encoding import encode_numbers
from theta_nb.storage.objects import MemoryStore
from theta_nb.tensors.dtypes import DTYPES, dtype_named
from theta_nb.updates.table import UPDATES, Numbers

Array = np.ndarray


class Series:
    """Versions of one checkpoint, each committed before the next."""

    def __init__(self, update: str = "auto") -> None:
        self.store = MemoryStore()
        self.update = update
        self.manifests: list[Manifest] = []

    def commit(self, data: bytes | dict[str, Array]) -> Manifest:
        """Clean a version on top of the last one; it has to come back bit for bit."""
        data = data if isinstance(data, bytes) else safetensors(data)
        head = self.manifests[-1] if self.manifests else None
        previous = None if head is None else Previous(head, self.update)
        known = KnownChunks([head] if head else [])
        manifest = parse(dump(clean(data, self.store, known=known, previous=previous)))
        assert rebuild(manifest, self.store) == data
        self.manifests.append(manifest)
        return manifest

    def chunk(self, name: str = "w", number: int = 0) -> ChunkRef:
        """A chunk of a parameter in the last version."""
        return self.manifests[-1].value_of(name).chunks[number]


def updates(ref: ChunkRef) -> list[str]:
    return [link.update for link in ref.links()]


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tuned(old: Array, relative: float, seed: int = 1) -> Array:
    """Every number changed a little, as by a fine-tune."""
    factors = 1 + relative * np.random.default_rng(seed).normal(size=old.shape)
    return (old * factors).astype(old.dtype)


def some_changed(old: Array, count: int, seed: int = 1) -> Array:
    new = old.copy()
    rng = np.random.default_rng(seed)
    new.flat[rng.choice(new.size, count, replace=False)] = rng.normal(size=count)
    return new


SMALL, LARGE = (150, 200), (800, 600)  # an object of its own, tried in full; and one of which a sample is taken first
SHAPES = pytest.mark.parametrize("shape", [(20, 30), SMALL, LARGE], ids=["packed", "small", "large"])


# --- choice -----------------------------------------------------------------------------------------------------------

CHOICES: dict[str, tuple[Callable[[Array], Array], str]] = {
    "nothing in common": (lambda old: floats(*old.shape, seed=9), "dense"),
    "a fine-tune": (lambda old: tuned(old, 1e-4), "delta"),
    "every number one step on": (lambda old: np.nextafter(old, np.float32(np.inf)), "delta"),
    "few numbers": (lambda old: some_changed(old, 5), "sparse"),
    "one number": (lambda old: some_changed(old, 1), "sparse"),
    "all zeros": (lambda old: 0 * np.abs(old), "dense"),
    "all NaN": (lambda old: np.full_like(old, np.nan), "dense"),
}


@SHAPES
@pytest.mark.parametrize("case", CHOICES)
def test_the_cheapest_is_taken(shape: tuple[int, int], case: str) -> None:
    change, expected = CHOICES[case]
    old = floats(*shape)
    new = change(old)
    series = Series()
    series.commit({"w": old})
    series.commit({"w": new})
    ref = series.chunk()
    assert ref.update == expected
    numbers = Numbers(dtype_named("float32"), shape[1])
    raws = memoryview(old.tobytes()), memoryview(new.tobytes())
    sizes = {
        name: len(payload) for name in ("dense", "delta", "sparse") if (payload := UPDATES[name].encode(*raws, numbers))
    }
    # A step has to be worth its link, so dense may be a little dearer than the cheapest.
    assert ref.length == sizes[expected]
    assert sizes[expected] <= min(sizes.values()) / 0.9 + 160


def test_a_row_of_an_embedding_costs_a_row() -> None:
    old = floats(6000, 384)
    new = old.copy()
    new[4321] *= 1.5
    series = Series()
    series.commit({"w": old})
    before = set(series.store)
    series.commit({"w": new})
    assert sum(series.store.size(oid) or 0 for oid in set(series.store) - before) < 0.01 * old.nbytes
    assert series.chunk().update == "sparse"


def test_few_changes_on_top_of_few_changes_stay_cheap() -> None:
    """The middle of the chain was a fine-tune: going back to its dense beginning would store that once more."""
    values = [floats(1600, 1000)]
    values.append(tuned(values[-1], 1e-4))
    values += [some_changed(values[1], 3, seed=2)]
    values += [some_changed(values[2], 3, seed=3)]
    series = Series()
    for value in values:
        series.commit({"w": value})
    assert updates(series.chunk()) == ["dense", "delta", "sparse", "sparse"]
    assert series.chunk().length < 1000


def test_moments_that_are_reset_to_zero_take_no_room() -> None:
    """The way to zero from small numbers is shorter than these are, and longer than a few zeros."""
    old = (1e-8 * floats(*SMALL) ** 2).astype(np.float16)
    series = Series()
    series.commit({"w": old})
    series.commit({"w": 0 * old})
    assert updates(series.chunk()) == ["dense"]
    assert series.chunk().length < 500


def test_chunks_are_chosen_one_by_one() -> None:
    old = np.random.default_rng(0).integers(0, 2**16, (3, 8 * 2**20 // 2), np.uint16)
    new = old.copy()
    new[2, 5] ^= 1
    series = Series()
    series.commit({"w": old})
    first = series.manifests[0].value_of("w").chunks
    series.commit({"w": new})
    assert series.chunk(number=0) == first[0]
    assert updates(series.chunk(number=1)) == ["dense", "sparse"]
    assert series.manifests[-1].value_of("w").update == "sparse"


def test_what_is_inline_has_no_chain() -> None:
    series = Series()
    series.commit({"w": floats(16)})
    series.commit({"w": tuned(floats(16), 1e-4)})
    assert series.chunk().inline


def test_what_did_not_change_is_no_update_of_itself() -> None:
    """Also where only the version before knows it: a checkpoint may be saved on a branch that is not checked out."""
    store, data = MemoryStore(), safetensors({"w": floats(*SMALL), "v": floats(*SMALL, seed=3)})
    head = clean(data, store)
    assert clean(data, store, previous=Previous(head)) == head


def test_equal_chunks_with_two_pasts_are_stored_once() -> None:
    a, b = floats(*SMALL), floats(*SMALL, seed=5)
    series = Series()
    series.commit({"a": a, "b": b})
    both = tuned(a, 1e-4)
    series.commit({"a": both, "b": both})
    assert series.chunk("a") == series.chunk("b")


# --- what counts as the previous version ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (floats(150, 200), tuned(floats(150, 200), 1e-4).astype(np.float64)),
        (floats(150, 200), tuned(floats(150, 200), 1e-4).reshape(200, 150)),
        (floats(150, 200), tuned(floats(150, 200), 1e-4).reshape(-1)),
        (floats(150, 200), tuned(floats(150, 200), 1e-4).view(np.int32)),
        (floats(150, 200), np.hstack([floats(150, 200), floats(150, 1)])),
    ],
    ids=["dtype", "shape", "dimensions", "bits as integers", "longer rows"],
)
def test_another_dtype_or_another_kind_of_rows_is_dense(old: Array, new: Array) -> None:
    series = Series()
    series.commit({"w": old})
    series.commit({"w": new})
    assert updates(series.chunk()) == ["dense"]


def test_an_embedding_that_grew_is_an_update_where_chunks_are_as_they_were() -> None:
    old = floats(12_000, 384)  # two chunks: rows of 1536 bytes, the second not full
    new = np.vstack([some_changed(old, 3), floats(5, 384, seed=3)])
    new[0, 0] += 1
    series = Series()
    series.commit({"w": old})
    series.commit({"w": new})
    assert updates(series.chunk(number=0)) == ["dense", "sparse"]
    assert updates(series.chunk(number=1)) == ["dense"], "its last chunk is longer than before"


def test_a_renamed_parameter_costs_nothing_and_a_changed_one_under_a_new_name_is_dense() -> None:
    series = Series()
    series.commit({"w": floats(*SMALL), "v": floats(*SMALL, seed=4)})
    before = set(series.store)
    series.commit({"model.w": floats(*SMALL), "model.v": tuned(floats(*SMALL, seed=4), 1e-4)})
    assert series.chunk("model.w").oid in before
    assert updates(series.chunk("model.v")) == ["dense"]


def test_a_tensor_that_is_new_and_one_that_is_gone_disturb_nobody() -> None:
    series = Series()
    series.commit({"a": floats(*SMALL), "w": floats(*SMALL, seed=4)})
    series.commit({"w": tuned(floats(*SMALL, seed=4), 1e-4), "z": floats(*SMALL, seed=6)})
    assert updates(series.chunk("w")) == ["dense", "delta"]
    assert updates(series.chunk("z")) == ["dense"]


def test_opaque_files_have_steps_too() -> None:
    raw = bytearray(noise(300_000))
    series = Series()
    series.commit(bytes(raw))
    raw[1000:1010] = bytes(10)
    series.commit(bytes(raw))
    assert updates(series.chunk("@0")) == ["dense", "sparse"]


@pytest.mark.parametrize(
    "dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I32", "I8", "U16", "BOOL", "C64", "F4"]
)
def test_every_dtype_has_steps(dtype: str) -> None:
    nbytes = 64_000
    old = bytearray(noise(nbytes))
    new = old.copy()
    new[1000] ^= 1
    bits = next(known.bits for known in DTYPES.values() if known.safetensors == dtype)
    shape = (100, nbytes * 8 // bits // 100)
    series = Series()
    for raw in (old, new):
        series.commit(safetensors_of([Entry("w", dtype, shape, bytes(raw))]))
    assert updates(series.chunk()) == ["dense", "sparse"]


# --- chains -----------------------------------------------------------------------------------------------------------


@SHAPES
@pytest.mark.parametrize("relative", [1e-7, 1e-5, 1e-4, 1e-3])
def test_chains_stay_within_their_limits(shape: tuple[int, int], relative: float) -> None:
    value = floats(*shape)
    series = Series()
    lengths = []
    for number in range(12):
        series.commit({"w": value})
        links = series.chunk().links()
        lengths.append(len(links) - 1)
        dense = len(encode_numbers(value.tobytes(), 4))
        assert len(links) - 1 <= MAX_UPDATES
        assert sum(link.length for link in links) <= READ_COST * max(dense, links[0].length)
        assert links[0].update == "dense"
        value = tuned(value, relative, seed=number)
    assert max(lengths) >= 1, "nothing was ever an update"


def test_small_changes_end_a_chain_only_at_its_full_length() -> None:
    value = floats(*SMALL)
    series = Series()
    lengths = []
    for number in range(20):
        series.commit({"w": value})
        lengths.append(len(series.chunk().links()) - 1)
        value = some_changed(value, 3, seed=number)
    assert lengths[: MAX_UPDATES + 1] == list(range(MAX_UPDATES + 1))
    # Then the dense beginning carries another one; 30 changes cost little.
    assert lengths[MAX_UPDATES + 1] == 1
    assert len({manifest.value_of("w").chunks[0].links()[0].oid for manifest in series.manifests}) == 1


def test_a_star_where_it_costs_no_more_than_a_chain() -> None:
    """Each version is a fresh fine-tune of the first: the way from the one before is longer."""
    first = floats(*LARGE)
    series = Series()
    series.commit({"w": first})
    for number in range(4):
        series.commit({"w": tuned(first, 1e-4, seed=number)})
        assert updates(series.chunk()) == ["dense", "delta"]


def test_a_version_that_comes_back_is_not_stored_again() -> None:
    values = [floats(*SMALL)]
    values.append(tuned(values[0], 1e-4))
    series = Series()
    for value in values:
        series.commit({"w": value})
    before = set(series.store)
    ref = series.chunk().base
    series.commit({"w": values[0]})
    assert series.chunk() == ref
    assert set(series.store) == before


@SHAPES
@pytest.mark.parametrize("link", [0, 1, 2], ids=["the dense one", "the middle", "the last"])
@pytest.mark.parametrize("harm", ["missing", "damaged", "shorter"])
def test_a_base_that_cannot_be_read_is_not_built_upon(shape: tuple[int, int], link: int, harm: str) -> None:
    value = floats(*shape)
    series = Series()
    for number in range(3):
        series.commit({"w": value})
        value = some_changed(value, 4, seed=number)
    victim = series.chunk().links()[link]
    sound = bytearray(series.store._objects.pop(victim.oid))
    if harm == "damaged":
        sound[victim.offset : victim.offset + victim.length] = noise(victim.length)
        series.store._objects[victim.oid] = bytes(sound)
    elif harm == "shorter":
        series.store._objects[victim.oid] = bytes(sound[:-1])
    previous = Previous(series.manifests[-1])
    # Layout and skeleton are in the pack that may be gone, and are not known here.
    manifest = clean(safetensors({"w": value}), series.store, previous=previous)
    links = manifest.value_of("w").chunks[0].links()
    # Where the dense beginning of the chain is sound, it may serve.
    assert (victim.oid, victim.offset) not in [(step.oid, step.offset) for step in links]
    assert [step.update for step in links] in (["dense"], ["dense", "sparse"])
    assert rebuild(manifest, series.store) == safetensors({"w": value})


def test_packs_hold_steps_beside_whole_values() -> None:
    first = {f"layer.{n}": floats(20, 30, seed=n) for n in range(30)}
    second = {name: tuned(value, 1e-4) if n % 2 else value + 1 for n, (name, value) in enumerate(first.items())}
    series = Series()
    series.commit(first)
    before = set(series.store)
    series.commit(second)
    assert len(set(series.store) - before) == 1
    assert {series.chunk(name).update for name in first} == {"dense", "delta"}
    third = {name: tuned(value, 1e-4, seed=7) for name, value in second.items()}
    series.commit(third)
    assert max(len(series.chunk(name).links()) for name in first) == 3


# --- which types may be used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", ["dense", "delta", "sparse"])
def test_a_type_that_is_asked_for_is_the_only_one_beside_dense(update: str) -> None:
    series = Series(update)
    first = floats(*SMALL)
    series.commit({"few": first, "tuned": first + 1, "other": first + 2})
    series.commit({"few": some_changed(first, 3), "tuned": tuned(first + 1, 1e-6), "other": floats(*SMALL, seed=9)})
    found = {series.chunk(name).update for name in ("few", "tuned", "other")}
    assert found == {"dense", update}


@pytest.mark.parametrize("update", ["low-rank", "ia3"])
def test_types_that_are_never_tried_on_their_own_can_be_asked_for(update: str) -> None:
    rng = np.random.default_rng(0)
    first = floats(*SMALL)
    if update == "ia3":
        second = (first.astype("f8") * np.exp2(rng.integers(-1, 2, (1, 200)))).astype("f4")
    else:
        second = (first + rng.normal(size=(150, 1)) @ rng.normal(size=(1, 200))).astype("f4")
    series = Series(update)
    series.commit({"w": first})
    series.commit({"w": second})
    assert updates(series.chunk()) == ["dense", update]
    series.update = "auto"
    series.commit({"w": some_changed(second, 2)})
    assert updates(series.chunk()) == ["dense", update, "sparse"], "and others may be put on top"


class _Rounding:
    """A type as somebody might write it: nearly right."""

    name = "rounding"

    def encode(self, old: memoryview, new: memoryview, numbers: Numbers) -> bytes | None:
        return b"about"

    def apply(self, payload: memoryview, dest: memoryview) -> None:
        dest[:] = bytes(len(dest))


def test_a_type_that_does_not_lead_to_the_new_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPDATES._loaded, "rounding", _Rounding())
    series = Series("rounding")
    series.commit({"w": floats(*SMALL)})
    series.commit({"w": tuned(floats(*SMALL), 1e-4)})
    assert updates(series.chunk()) == ["dense"]


# --- the same everywhere ----------------------------------------------------------------------------------------------


def test_the_number_of_threads_changes_nothing() -> None:
    first = {f"layer.{n}": floats(100, 200, seed=n) for n in range(8)} | {"big": floats(*LARGE)}
    second = {name: tuned(value, 1e-4) for name, value in first.items()}
    store = MemoryStore()
    head = clean(safetensors(first), store)
    texts = {dump(clean(safetensors(second), store, previous=Previous(head), workers=workers)) for workers in (1, 2, 7)}
    assert len(texts) == 1
