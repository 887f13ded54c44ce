"""Chains of updates in the text of a manifest: golden, canonical, and closed to what lies."""

from __future__ import annotations

import io
import random
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.filters import clean, rebuild
from tests.git.checkpoints import noise, safetensors
from theta_nb.engine.decode import check_updates
from theta_nb.engine.known import KnownChunks
from theta_nb.engine.previous import Previous
from theta_nb.engine.rebuild import Rebuilder
from theta_nb.errors import CorruptObjectError, ManifestError, MissingObjectError, ThetaError
from theta_nb.manifest.model import MAX_LINKS, UPDATE_NAME, ChunkRef, Entry, Manifest, Value
from theta_nb.manifest.text import dump, parse
from theta_nb.storage.encoding import encode_numbers
from theta_nb.storage.objects import MemoryStore
from theta_nb.tensors.chunks import chunk_digest, storage_digest, tensor_digest
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.spec import TensorSpec, contiguous_strides
from theta_nb.updates.table import UPDATES, Numbers

# --- golden -----------------------------------------------------------------------------------------------------------


def _versions() -> list[dict[str, np.ndarray]]:
    first = np.frombuffer(noise(4000), "<i4").reshape(20, 50)
    second = first + 1
    third = second.copy()
    third[0, 0] = 7
    return [{"a": value, "b": first} for value in (first, second, third)]


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore()


def _stored(store: MemoryStore) -> Manifest:
    """The last of the three versions, each stored on top of the one before."""
    first, *later = (safetensors(tensors) for tensors in _versions())
    manifest = clean(first, store)
    for data in later:
        manifest = clean(data, store, known=KnownChunks([manifest]), previous=Previous(manifest))
    return manifest


@pytest.fixture(scope="module")
def chained(store: MemoryStore) -> Manifest:
    return _stored(store)


def test_the_lines_of_a_chain_are_the_golden_ones(chained: Manifest) -> None:
    text = dump(chained).decode()
    head, rows, machine = text.split("\n\n")
    assert head.splitlines()[:3] == ["theta-manifest 1", "format safetensors", f"size {chained.size}"]
    assert (
        re.sub("[0-9a-f]{16}", "DIGEST", rows) == "a\tint32\t[20,50]\tDIGEST\tsparse\nb\tint32\t[20,50]\tDIGEST\tdense"
    )
    (line,) = [line for line in machine.splitlines() if line.startswith("value ") and " sparse " in line]
    digests = [chunk_digest(tensors["a"].tobytes()).hex() for tensors in _versions()]
    steps = line.split(" ")[4].split("+")
    assert line.split(" ")[2:4] == ["sparse", "4000"]
    assert [re.sub(r":[0-9a-f]{16}:\d+:\d+$", ":OBJECT", step) for step in steps] == [
        f"{digests[0]}:OBJECT",
        f"delta:{digests[1]}:OBJECT",
        f"sparse:{digests[2]}:OBJECT",
    ]
    # Every object of the chain is listed, and nothing else.
    assert sorted(re.findall(r"^object ([0-9a-f]{64}) ", machine, re.MULTILINE)) == sorted(
        {link.oid for ref in chained.chunk_refs() for link in ref.links() if link.oid}
    )


def test_a_chain_is_rebuilt_from_its_text_alone(chained: Manifest, store: MemoryStore) -> None:
    assert rebuild(parse(dump(chained)), store) == safetensors(_versions()[-1])


# --- canonical --------------------------------------------------------------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> Manifest:
    """Manifests of one tensor and one opaque storage whose chunks are chains of any length and any types."""
    objects: dict[str, int] = {}
    rng = random.Random(draw(st.integers(0, 2**32)))  # for what may be anything: digests, offsets
    types = draw(st.lists(st.from_regex(UPDATE_NAME, fullmatch=True).filter("dense".__ne__), min_size=1, max_size=3))

    def ref() -> ChunkRef:
        found = None
        for number in range(draw(st.integers(1, 5) | st.just(MAX_LINKS))):
            oid = rng.choice(sorted(objects)) if objects and rng.random() < 0.5 else rng.randbytes(32).hex()
            start, length = rng.choice((0, rng.randrange(2**40))), rng.choice((1, rng.randrange(1, 2**40)))
            objects[oid] = max(objects.get(oid, 0), start + length)
            update = rng.choice(types) if number else "dense"
            found = ChunkRef(rng.randbytes(32), oid, start, length, update=update, base=found)
        assert found is not None
        return found

    def stored(nbytes: int) -> Value:
        chunks = (ref(),)
        return Value(storage_digest(nbytes, [chunks[0].digest]), nbytes, chunks)

    spec = TensorSpec("w", dtype_named("float32"), (10, 30), contiguous_strides((10, 30)), 0)
    chunk = ref()
    tensor = Value(tensor_digest(spec, [chunk.digest]), 1200, (chunk,), crc32=draw(st.just(b"") | st.just(b"abcd")))
    layout, skeleton, opaque = (stored(draw(st.integers(65, 500))) for _ in range(3))
    values = {value.digest: value for value in (layout, skeleton, opaque, tensor)}
    entries = {
        "w": Entry("w", "float32", (10, 30), tensor.digest),
        "@0": Entry("@0", "bytes", (opaque.nbytes,), opaque.digest),
    }
    used = {oid for value in values.values() for oid in value.oids}
    sizes = {oid: size for oid, size in objects.items() if oid in used}
    return Manifest("opaque", 2000, layout.digest, skeleton.digest, entries, values, sizes)


@settings(max_examples=40, deadline=None)
@given(chains())
def test_any_chain_is_read_as_it_was_written(manifest: Manifest) -> None:
    text = dump(manifest)
    assert parse(text) == manifest
    assert dump(parse(text)) == text


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_text_with_a_changed_place_is_refused_or_another_manifest(data: st.DataObject) -> None:
    text = bytearray(TEXT.encode())
    start = TEXT.index(CHAIN)
    place = data.draw(st.integers(start, start + len(CHAIN) - 1))
    text[place] = data.draw(st.sampled_from(b"0123456789abcdefx:+ -\n\t~"))
    try:
        found = parse(bytes(text))
    except ManifestError:
        return
    assert dump(found) == bytes(text), "two texts for one manifest"


# --- attacks ----------------------------------------------------------------------------------------------------------


TEXT = dump(_stored(MemoryStore())).decode()
CHAIN = next(word for line in TEXT.splitlines() for word in line.split(" ") if "+" in word)
FIRST, SECOND, THIRD = CHAIN.split("+")
LAST_DIGEST = THIRD.split(":")[1]
OID = re.findall(r"^object ([0-9a-f]{64}) ", TEXT, re.MULTILINE)[0]


def _but(chain: str) -> str:
    assert TEXT.count(CHAIN) == 1
    return TEXT.replace(CHAIN, chain)


ATTACKS: dict[str, tuple[str, str]] = {
    "65 steps": (_but("+".join([FIRST, *[SECOND] * (MAX_LINKS - 1), THIRD])), "of 65 updates is longer than 64"),
    "a million steps": (_but("+".join([FIRST, *[SECOND] * 1_000_000])), "is longer than 64"),
    "no beginning": (_but(f"{SECOND}+{THIRD}"), "does not describe a chunk"),
    "two beginnings": (_but(f"{FIRST}+{FIRST}+{THIRD}"), "does not describe a chunk"),
    "an update called dense": (_but(f"{FIRST}+dense:{THIRD.partition(':')[2]}"), "does not describe a chunk"),
    "a beginning that says dense": (_but(f"dense:{FIRST}+{THIRD}"), "does not describe a chunk"),
    "an empty step": (_but(f"{FIRST}++{THIRD}"), "does not describe a chunk"),
    "a step behind the last": (_but(f"{CHAIN}+"), "does not describe a chunk"),
    "a step without a type": (_but(f"{FIRST}+:{THIRD.partition(':')[2]}"), "does not describe a chunk"),
    "a type in capitals": (_but(f"{FIRST}+Delta:{THIRD.partition(':')[2]}"), "does not describe a chunk"),
    "a type that is a path": (_but(f"{FIRST}+../x:{THIRD.partition(':')[2]}"), "does not describe a chunk"),
    "a type of 41 letters": (_but(f"{FIRST}+{'a' * 41}:{THIRD.partition(':')[2]}"), "does not describe a chunk"),
    "a beginning in the text": (_but(f"x{'00' * 64}+{THIRD}"), "is not hexadecimal"),
    "a step in the text": (_but(f"{FIRST}+x{'00' * 10}"), "does not describe a chunk"),
    "a step of an object that is not listed": (
        _but(f"{FIRST}+delta:{SECOND.split(':')[1]}:{'f' * 16}:0:9+{THIRD}"), "not described"
    ),
    "a step that leaves its object": (_but(f"{FIRST}+{SECOND}999999+{THIRD}"), "leaves its object"),
    "a step of no length": (_but(f"{FIRST}+{SECOND.rpartition(':')[0]}:0+{THIRD}"), "leaves its object"),
    "a step with a short digest": (_but(CHAIN.replace(SECOND.split(":")[1], "abc")), "does not describe a chunk"),
    "another last digest": (_but(CHAIN.replace(LAST_DIGEST, "0" * 64)), "does not have the digest"),
    "another type than the row says": (
        _but(f"{FIRST}+{SECOND}+delta:{THIRD.partition(':')[2]}"), "is stored as 'delta' and listed as 'sparse'"
    ),
    "a row that says dense": (TEXT.replace("\tsparse\n", "\tdense\n", 1), "is said to be stored as 'dense'"),
    "an object of a step that is left out": (
        re.sub(rf"object {SECOND.split(':')[2]}\S* \d+\n", "", TEXT), "not described"
    ),
    "a chain cut to its beginning": (_but(FIRST), "does not have|listed as"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_chain_that_lies_is_refused(attack: str) -> None:
    text, expected = ATTACKS[attack]
    assert text != TEXT
    with pytest.raises(ManifestError, match=expected) as caught:
        parse(text.encode(), source="m.pt")
    assert str(caught.value).startswith("m.pt: ")
    assert len(str(caught.value)) < 400


def test_a_chain_of_64_steps_is_read() -> None:
    digests = [SECOND.replace(SECOND.split(":")[1], f"{n:064x}") for n in range(MAX_LINKS - 2)]
    manifest = parse(_but("+".join([FIRST, *digests, THIRD])).encode())
    assert max(len(ref.links()) for ref in manifest.chunk_refs()) == MAX_LINKS


# --- chains whose objects lie -----------------------------------------------------------------------------------------

RAW = [value["a"].tobytes() for value in _versions()]


class Forged:
    """A manifest of one float tensor whose chain is put together by hand."""

    def __init__(self, *steps: tuple[str, bytes, bytes], final: bytes = RAW[2]) -> None:
        """``steps``: type, payload and the digest that it promises."""
        self.store = MemoryStore()
        ref = None
        for update, payload, digest in steps:
            ref = ChunkRef(digest, self.store.write(payload), 0, len(payload), update=update, base=ref)
        assert ref is not None
        base = clean(safetensors({"a": np.frombuffer(final, "<i4").reshape(20, 50)}), self.store)
        ((key, old),) = [(e.digest, base.values[e.digest]) for e in base.entries.values()]
        value = Value(old.digest, old.nbytes, (ref,))
        values = {**base.values, key: value}
        objects = {oid: self.store.size(oid) or 0 for v in values.values() for oid in v.oids}
        self.manifest = Manifest(
            base.format, base.size, base.layout, base.skeleton, base.entries, values, objects, base.derived
        )

    def rebuild(self) -> bytes:
        out = io.BytesIO()
        with ThreadPoolExecutor(1) as executor:
            Rebuilder(parse(dump(self.manifest)), self.store, executor).stream(out.write)
        return out.getvalue()


def _payload(update: str, old: bytes, new: bytes) -> bytes:
    payload = UPDATES[update].encode(memoryview(old), memoryview(new), Numbers(dtype_named("int32"), 50))
    assert payload is not None
    return payload


DENSE = ("dense", encode_numbers(RAW[0], 4), chunk_digest(RAW[0]))
DELTA = ("delta", _payload("delta", RAW[0], RAW[1]), chunk_digest(RAW[1]))
SPARSE = ("sparse", _payload("sparse", RAW[1], RAW[2]), chunk_digest(RAW[2]))


def test_a_forged_chain_of_true_steps_is_rebuilt() -> None:
    assert Forged(DENSE, DELTA, SPARSE).rebuild() == safetensors({"a": np.frombuffer(RAW[2], "<i4").reshape(20, 50)})


LIES: dict[str, tuple[tuple[str, bytes, bytes], ...]] = {
    "a base of another length": (("dense", encode_numbers(RAW[0][:2000], 4), DENSE[2]), DELTA, SPARSE),
    "a base twice as long": (("dense", encode_numbers(RAW[0] * 2, 4), DENSE[2]), DELTA, SPARSE),
    "a base of zeros": (("dense", encode_numbers(bytes(2**20), 1), DENSE[2]), DELTA, SPARSE),
    "another base": (("dense", encode_numbers(RAW[2], 4), DENSE[2]), DELTA, SPARSE),
    "one step twice": (DENSE, DELTA, (*DELTA[:2], SPARSE[2])),
    "a delta that is a sparse": (DENSE, ("delta", SPARSE[1], DELTA[2]), SPARSE),
    "a sparse that is a delta": (DENSE, DELTA, ("sparse", DELTA[1], SPARSE[2])),
    "a sparse for a longer chunk": (
        DENSE, DELTA, ("sparse", _payload("sparse", RAW[0] * 9, RAW[0] * 8 + RAW[1][:4] + RAW[0][4:]), SPARSE[2])
    ),
    "a delta of another length": (DENSE, ("delta", _payload("delta", RAW[0] * 2, RAW[1] * 2), DELTA[2]), SPARSE),
    "a payload longer than any": (DENSE, ("delta", bytes(2 * len(RAW[0]) + 5000), DELTA[2]), SPARSE),
    "a payload of one byte": (DENSE, ("ia3", b"\0", DELTA[2]), SPARSE),
    "noise": (DENSE, ("low-rank", noise(500), DELTA[2]), SPARSE),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_objects_that_do_not_lead_to_the_value_are_corrupt(lie: str) -> None:
    forged = Forged(*LIES[lie])
    with pytest.raises(CorruptObjectError) as caught:
        forged.rebuild()
    links = next(iter(forged.manifest.value_of("a").chunks)).links()
    assert caught.value.oid in {link.oid for link in links}
    assert str(caught.value).startswith("a: ")
    assert "fsck" in caught.value.hint


def test_the_first_step_that_goes_wrong_is_named() -> None:
    wrong = ("delta", _payload("delta", RAW[0], RAW[2]), DELTA[2])
    forged = Forged(DENSE, wrong, SPARSE)
    with pytest.raises(CorruptObjectError) as caught:
        forged.rebuild()
    assert caught.value.oid == forged.manifest.value_of("a").chunks[0].links()[1].oid


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_step_whose_object_is_missing_is_told_before_anything_is_made(step: int) -> None:
    forged = Forged(DENSE, DELTA, SPARSE)
    oid = forged.manifest.value_of("a").chunks[0].links()[step].oid
    del forged.store._objects[oid]
    with pytest.raises(MissingObjectError) as caught:
        forged.rebuild()
    assert caught.value.oids == (oid,)


def test_an_update_type_that_is_not_here_is_told_before_anything_is_made() -> None:
    forged = Forged(DENSE, ("quantum", b"?", DELTA[2]), SPARSE)
    assert parse(dump(forged.manifest)) == forged.manifest, "who does not rebuild it may handle it"
    with pytest.raises(ManifestError, match="needs the update type 'quantum'") as caught:
        check_updates(forged.manifest)
    assert "upgrade" in caught.value.hint
    with pytest.raises(ThetaError, match="quantum"):
        forged.rebuild()
