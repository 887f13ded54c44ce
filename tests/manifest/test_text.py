"""The text of a manifest: golden, canonical, and closed to what lies."""

from __future__ import annotations

import contextlib
import re
import struct
import sys
import tracemalloc
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.filters import clean
from tests.git.checkpoints import Entry as SafetensorsEntry
from tests.git.checkpoints import every_pytorch, every_safetensors, model, safetensors_of
from theta_nb.errors import ManifestError
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value
from theta_nb.manifest.text import dump, is_manifest, parse
from theta_nb.storage.objects import MemoryStore
from theta_nb.tensors.chunks import CHUNK_NBYTES, chunk_digest, chunk_extents, row_nbytes, storage_digest, tensor_digest
from theta_nb.tensors.dtypes import DTYPES, dtype_named
from theta_nb.tensors.spec import TensorSpec, contiguous_strides

# --- golden -----------------------------------------------------------------------------------------------------------

TINY = safetensors_of(
    [
        SafetensorsEntry("w", "F32", (4, 5), bytes(range(80))),
        SafetensorsEntry("b", "BF16", (4,), bytes(range(8))),
        SafetensorsEntry("scale", "F64", (), bytes(8)),
    ],
    {"format": "pt"},
)

# Offsets, lengths and names of objects come from the codec, whose next release may compress better; the rest is ours.
GOLDEN = """\
theta-manifest 1
format safetensors
size 306
layout 51eb9009d8b69702
skeleton 4b3275b37285540d

b	bfloat16	[4]	baf9912e29993f37	dense
scale	float64	[]	34b6143a5bf0aee7	dense
w	float32	[4,5]	1240f8f2de1d1fcf	dense

object OID SIZE
value 1240f8f2de1d1fcfc588c19f97e1706ab88d7116525d2eb816d3732ab8ce05ed dense 80 \
4a6847ef66bce6c14ca05ec8f8ad7383bf2931f4bcfd0373c18e059e93f9def6:OBJECT
value 34b6143a5bf0aee7520f103576219c2cc2d9a8713a5c0571f29399b3cb65079b dense 8 x0000000000000000
value 4b3275b37285540d4c9f7b0a26d6b07521f96a054f38e0535898e0f384f4aa56 dense 210 \
ac1e36f3281e17ac10b5762f22a6dc80bf57bddfdd20da5cf2e106da1c0637bf:OBJECT
value 51eb9009d8b697020ef8bffe0e522a770b60e91a3ddaf5b9eaca61e4a17dd7d6 dense 166 \
de4a48b33db77c51ae84e20fee48048776149a5165b4ae8ba51e6d524205dff7:OBJECT
value baf9912e29993f37b71c4131ab51ff0703b8eef1508f6f04c3c747b218ebb178 dense 8 x0001020304050607
"""


def test_the_manifest_of_a_tiny_checkpoint_is_the_golden_one() -> None:
    text = dump(clean(TINY, MemoryStore())).decode()
    text = re.sub(r"object [0-9a-f]{64} \d+", "object OID SIZE", text)
    text = re.sub(r":[0-9a-f]{16}:\d+:\d+", ":OBJECT", text)
    assert text == GOLDEN


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"theta-manifest 1\n", True),
        (b"theta-manifest 2", True),
        (b"theta-manifest", False),
        (b" theta-manifest 1", False),
    ],
)
def test_a_manifest_is_known_by_its_first_words(head: bytes, expected: bool) -> None:
    assert is_manifest(head) is expected


# --- canonical --------------------------------------------------------------------------------------------------------

_REAL = {**every_safetensors(), **{f"pytorch-{name}": data for name, data in every_pytorch().items()}}


@pytest.mark.parametrize("name", _REAL)
def test_manifests_of_real_files_are_written_as_they_were_read(name: str) -> None:
    text = dump(clean(_REAL[name], MemoryStore()))
    assert dump(parse(text)) == text
    assert parse(text.replace(b"\n", b"\r\n")) == parse(text)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Manifests with any names, dtypes and shapes, chunks inline, alone in an object or packed."""
    objects: dict[str, int] = {}
    values: dict[bytes, Value] = {}
    entries: dict[str, Entry] = {}

    def refs(nbytes: int, row: int, itemsize: int) -> tuple[ChunkRef, ...]:
        found = []
        for extent in chunk_extents(nbytes, row, itemsize):
            if extent.nbytes <= 64:
                raw = draw(st.binary(min_size=extent.nbytes, max_size=extent.nbytes))
                found.append(ChunkRef(chunk_digest(raw), inline=raw))
                continue
            fresh = draw(st.binary(min_size=32, max_size=32)).hex()
            oid = draw(st.sampled_from(sorted(objects))) if objects and draw(st.booleans()) else fresh
            start, length, behind = draw(st.integers(0, 2**40)), draw(st.integers(1, 2**40)), draw(st.integers(0, 9))
            objects[oid] = max(objects.get(oid, 0), start + length + behind)
            found.append(ChunkRef(draw(st.binary(min_size=32, max_size=32)), oid, start, length))
        return tuple(found)

    def stored(nbytes: int) -> bytes:
        chunks = refs(nbytes, 1, 1)
        digest = storage_digest(nbytes, (chunk.digest for chunk in chunks))
        values[digest] = Value(digest, nbytes, chunks)
        return digest

    layout, skeleton = stored(draw(st.integers(0, 200))), stored(draw(st.integers(0, 3 * CHUNK_NBYTES)))
    names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8).filter(lambda n: n[0] != "@")
    for name in draw(st.lists(names, max_size=6, unique=True)):
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        shape = tuple(draw(st.lists(st.integers(0, 40), max_size=4)))
        spec = TensorSpec(name, dtype_named(dtype), shape, contiguous_strides(shape), 0)
        if spec.numel * spec.dtype.bits % 8:
            continue
        chunks = refs(spec.dtype.nbytes(spec.numel), row_nbytes(spec.dtype, shape), spec.dtype.itemsize)
        digest = tensor_digest(spec, (chunk.digest for chunk in chunks))
        crc32 = draw(st.just(b"") | st.binary(min_size=4, max_size=4))
        values[digest] = Value(digest, spec.dtype.nbytes(spec.numel), chunks, crc32=crc32)
        entries[name] = Entry(name, dtype, shape, digest)
        if draw(st.booleans()):
            view = draw(st.binary(min_size=32, max_size=32))
            entries[f"{name}/view"] = Entry(f"{name}/view", "float32", (3,), view, owner=name)
    if draw(st.booleans()):
        nbytes = draw(st.integers(0, 200))
        entries["@0"] = Entry("@0", "bytes", (nbytes,), stored(nbytes))
    used = {ref.oid for value in values.values() for ref in value.chunks if ref.oid}
    return Manifest(
        format=draw(st.sampled_from(["safetensors", "pytorch", "opaque"])),
        size=draw(st.integers(0, 2**50)),
        layout=layout,
        skeleton=skeleton,
        entries=entries,
        values=values,
        objects={oid: size for oid, size in objects.items() if oid in used},
        derived=draw(st.dictionaries(st.integers(0, 99), st.binary(min_size=1, max_size=40), max_size=3)),
        recipe=draw(st.sampled_from(["", '{"method":"linear"}', '{"text":"a b\\tc"}'])),
    )


@settings(max_examples=150, deadline=None)
@given(manifests())
def test_any_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    text = dump(manifest)
    assert parse(text) == manifest
    assert dump(parse(text)) == text


def test_names_that_share_a_prefix_are_written_in_full() -> None:
    raws = [bytes(60), bytes([1] * 60)]
    values = {}
    for raw in raws:
        digest = storage_digest(60, [chunk_digest(raw)])
        values[digest] = Value(digest, 60, (ChunkRef(chunk_digest(raw), inline=raw),))
    first, second = values
    oids = ["a" * 63 + "0", "a" * 63 + "1"]
    chunk = ChunkRef(b"\1" * 32, oids[0], 0, 9), ChunkRef(b"\2" * 32, oids[1], 0, 9)
    spec = TensorSpec("w", dtype_named("uint8"), (2, CHUNK_NBYTES), (CHUNK_NBYTES, 1), 0)
    digest = tensor_digest(spec, (ref.digest for ref in chunk))
    values[digest] = Value(digest, 2 * CHUNK_NBYTES, chunk)
    entries = {"w": Entry("w", "uint8", spec.shape, digest)}
    manifest = Manifest("opaque", 9, first, second, entries, values, dict.fromkeys(oids, 9))
    text = dump(manifest)
    assert text.count(oids[0].encode()) == 2
    assert parse(text) == manifest


# --- attacks ----------------------------------------------------------------------------------------------------------

SOUND = dump(clean(model(), MemoryStore())).decode()
ZEROS = "0" * 64


def _lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def _value_of(name: str) -> str:
    digest = next(line.split("\t")[3] for line in SOUND.splitlines() if line.startswith(f"{name}\t"))
    return next(line for line in _lines(SOUND, "value") if line.split()[1].startswith(digest))


OBJECT = _lines(SOUND, "object")[0]
OID = OBJECT.split()[1]
EMBED, WEIGHT, STEPS = _value_of("embed.weight"), _value_of("layer.0.weight"), _value_of("steps")
EMBED_ROW, STEPS_ROW = _lines(SOUND, "embed.weight\t")[0], _lines(SOUND, "steps\t")[0]
CHUNK, OTHER_CHUNK = EMBED.split()[4], WEIGHT.split()[4]
INLINE = STEPS.split()[4]
EMBED_DIGEST, STEPS_DIGEST = EMBED.split()[1][:16], STEPS.split()[1][:16]


def _swapped(one: str, other: str) -> str:
    return SOUND.replace(one, "X").replace(other, one).replace("X", other)


def _but(old: str, new: str, text: str = SOUND) -> str:
    assert text.count(old) >= 1, old
    return text.replace(old, new, 1)


ATTACKS: dict[str, tuple[str, str]] = {
    # object names
    "oid in capitals": (_but(OBJECT, OBJECT.upper().replace("OBJECT", "object")), "not known"),
    "oid that is a path": (_but(OID, "../" * 20 + "etc"), "not known"),
    "oid too short": (_but(OID, OID[:-1]), "not known"),
    "oid of other digits": (_but(OID, "٣" * 64), "not known"),
    "oid with a newline": (_but(f"object {OID}", f"object {OID[:63]}\n{OID[63:]}"), "not known"),
    "chunk of an unknown object": (_but(f":{OID[:16]}:", f":{'f' * 16}:"), "not described"),
    "chunk with an empty object": (_but(f":{OID[:16]}:", "::"), "not described"),
    "chunk with a prefix of one digit": (_but(f":{OID[:16]}:", f":{OID[0]}:"), "described"),
    "chunk with a path": (_but(f":{OID[:16]}:", ":../../passwd:"), "described"),
    # sizes
    "size beyond 64 bits": (re.sub(r"\nsize \d+", f"\nsize {2**64}", SOUND), "not a size"),
    "size of a million digits": (re.sub(r"\nsize \d+", "\nsize " + "9" * 1_000_000, SOUND), "not a size"),
    "negative size": (re.sub(r"\nsize ", "\nsize -", SOUND), "not a size"),
    "size with a sign": (re.sub(r"\nsize ", "\nsize +", SOUND), "not a size"),
    "size in other digits": (re.sub(r"\nsize \d+", "\nsize ١٢", SOUND), "not a size"),
    "size in hexadecimal": (re.sub(r"\nsize \d+", "\nsize 0x10", SOUND), "not a size"),
    "leading zero": (re.sub(r"\nsize ", "\nsize 0", SOUND), "not a size"),
    "object of negative size": (_but(OBJECT, f"object {OID} -1"), "not a size"),
    "huge dimension": (_but("[40,16]", "[99999999999999999999,16]"), "not a size"),
    "dimensions that overflow": (_but("[40,16]", "[" + ",".join(["4611686018427387904"] * 60) + "]"), "do not fill"),
    "a thousand dimensions": (_but("[40,16]", "[" + "1," * 1000 + "40,16]"), "dimensions"),
    "shape that is none": (_but("[40,16]", "40,16"), "not a shape"),
    "shape with a blank": (_but("[40,16]", "[40, 16]"), "not a size"),
    "another shape of the same size": (_but("[40,16]", "[16,40]"), "does not have the digest"),
    "another dtype of one size": (_but("embed.weight\tfloat32", "embed.weight\tint32"), "does not have the digest"),
    "unknown dtype": (_but("embed.weight\tfloat32", "embed.weight\tfloat33"), "unknown dtype"),
    # chunks
    "chunk that leaves its object": (_but(CHUNK, CHUNK.rsplit(":", 1)[0] + ":999999"), "leaves its object"),
    "chunk far behind its object": (_but(CHUNK, ":".join([*CHUNK.split(":")[:2], str(2**61), "5"])), "leaves"),
    "chunk of no length": (_but(CHUNK, CHUNK.rsplit(":", 1)[0] + ":0"), "leaves its object"),
    "chunk with a field too many": (_but(CHUNK, CHUNK + ":1"), "does not describe a chunk"),
    "chunk missing": (_but(f" {CHUNK}", ""), "does not have"),
    "chunk twice": (_but(CHUNK, f"{CHUNK} {CHUNK}"), "does not have"),
    "another chunk digest": (_but(CHUNK, ZEROS + CHUNK[64:]), "does not have the digest"),
    "swapped chunks of two values": (_swapped(CHUNK, OTHER_CHUNK), "does not have the digest"),
    "inline chunk too long": (_but(INLINE, "x" + "00" * 65), "more than 64"),
    "inline chunk of another length": (_but(INLINE, "x0000"), "does not have"),
    "inline chunk of other bytes": (_but(INLINE, "x" + "ab" * 16), "does not have the digest"),
    "inline chunk in capitals": (_but(INLINE, "x" + "AB" * 16), "not hexadecimal"),
    "crc of three bytes": (_but(f"dense {STEPS.split()[3]} ", f"dense {STEPS.split()[3]} crc32:abcdef "), "CRC-32"),
    # values and rows
    "value missing": (_but(f"{EMBED}\n", ""), "not described"),
    "value that nothing refers to": (_but(STEPS_ROW + "\n", ""), "refers to"),
    "object that nothing refers to": (_but(OBJECT, f"{OBJECT}\nobject {ZEROS} 5"), "refers to"),
    "value twice": (_but(EMBED, f"{EMBED}\n{EMBED}"), "twice"),
    "object twice": (_but(OBJECT, f"{OBJECT}\n{OBJECT}"), "twice"),
    "object twice with two sizes": (_but(OBJECT, f"{OBJECT}\nobject {OID} 99999999"), "twice"),
    "row twice": (_but(EMBED_ROW, f"{EMBED_ROW}\n{EMBED_ROW}"), "two lines"),
    "digests of two rows swapped": (_swapped(EMBED_DIGEST, STEPS_DIGEST), "its value"),
    "header twice": (_but("\nsize ", "\nsize 5\nsize "), "twice"),
    "derived field twice": (_but("\nsize ", "\nderived 0 aa\nderived 0 bb\nsize "), "twice"),
    "header missing": (re.sub(r"\nskeleton .*", "", SOUND), "no line 'skeleton'"),
    "header unknown": (_but("\nsize ", "\nencryption rot13\nsize "), "not known"),
    "layout that is a tensor": (
        re.sub(r"\nlayout .*", f"\nlayout {STEPS_DIGEST}", SOUND), "does not have the digest"
    ),
    "layout unknown": (re.sub(r"\nlayout .*", "\nlayout 0123456789abcdef", SOUND), "not described"),
    "update type of a value is not its chunks'": (_but(" dense ", " magic "), "listed as 'magic'"),
    "row with a column too many": (_but(EMBED_ROW, EMBED_ROW + "\tx"), "columns"),
    "row with blanks for tabs": (_but(EMBED_ROW, EMBED_ROW.replace("\t", "    ")), "columns"),
    "view of nothing": (_but(STEPS_ROW, f"steps\tint64\t[2]\t{ZEROS}\tview of nobody"), "holds no value"),
    "view of itself": (_but(STEPS_ROW, f"steps\tint64\t[2]\t{ZEROS}\tview of steps"), "holds no value"),
    "views of each other": (
        _but(STEPS_ROW, f"steps\tint64\t[2]\t{ZEROS}\tview of t\nt\tint64\t[2]\t{ZEROS}\tview of steps"),
        "holds no value",
    ),
    "view with a short digest": (_but(STEPS_ROW, f"{STEPS_ROW}\nt\tint64\t[2]\tabcd\tview of steps"), "instead of 64"),
    # what a merge by lines leaves
    "markers in part 1": (_but(EMBED_ROW, f"<<<<<<< a\n{EMBED_ROW}\n=======\n>>>>>>> b"), "conflict markers"),
    "markers in part 2": (_but(EMBED, f"<<<<<<< a\n{EMBED}\n=======\n{EMBED}\n>>>>>>> b"), "conflict markers"),
    "markers in the header": (_but("\nsize ", "\n<<<<<<< a\nsize 5\n||||||| b\n=======\nsize "), "conflict markers"),
    # not whole, not text
    "nothing behind the header": (SOUND.partition("\n\n")[0] + "\n", "cut short"),
    "cut in part 2": (SOUND[: SOUND.index(EMBED) + 100], ""),
    "cut at a line of part 2": (SOUND[: SOUND.rindex("value ")], "not described"),
    "a later version": (_but("theta-manifest 1\n", "theta-manifest 2\n"), "version '2'"),
    "no version": (_but("theta-manifest 1\n", "theta-manifest \n"), "version ''"),
    "only the magic": ("theta-manifest 1", "cut short"),
    "control character in a name": (_but("embed.weight\t", "embed\x1b[2Jweight\t"), "character"),
    "carriage return in a name": (_but("embed.weight\t", "embed\rweight\t"), "character"),
    "right-to-left mark in a name": (_but("embed.weight\t", "embed\u202eweight\t"), "character"),
    "a name like a storage": (_but(EMBED_ROW, EMBED_ROW.replace("embed.weight", "@7")), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_manifest_that_lies_is_refused_with_its_reason(name: str) -> None:
    text, reason = ATTACKS[name]
    assert parse(SOUND.encode()), "the attack starts from a sound manifest"
    with pytest.raises(ManifestError) as caught:
        parse(text.encode("utf-8", "surrogatepass"), source="model.pt")
    assert str(caught.value).startswith("model.pt: ")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 500, "the message repeats what the attacker wrote"


def test_a_manifest_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(ManifestError, match="UTF-8"):
        parse(SOUND.encode() + b"\xff")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_manifest_is_refused_or_read_never_a_crash(draw: st.DataObject) -> None:
    data = SOUND.encode()
    for _ in range(draw.draw(st.integers(1, 3))):
        position = draw.draw(st.integers(0, len(data) - 1))
        patch = draw.draw(st.binary(max_size=4) | st.sampled_from([b"\n", b"\t", b" ", b":", b"0", b"\r\n", b"9" * 30]))
        data = data[:position] + patch + data[position + draw.draw(st.integers(0, 9)) :]
    try:
        manifest = parse(data)
    except ManifestError:
        return
    assert parse(dump(manifest)) == manifest


@settings(max_examples=100, deadline=None)
@given(st.permutations(SOUND.splitlines()))
def test_a_shuffled_manifest_is_refused_or_means_the_same(lines: list[str]) -> None:
    try:
        manifest = parse("\n".join([*lines, ""]).encode())
    except ManifestError:
        return
    assert manifest == parse(SOUND.encode())


# --- attacks on time and memory ---------------------------------------------------------------------------------------


def _many(count: int, of: str) -> bytes:
    """A manifest of about ``count`` lines or words that all make the parser work."""
    head, rows, tail = SOUND.split("\n\n")
    common = "ab" * 8
    if of == "values with one prefix":
        # Every row asks for a value among values whose short names are all the same.
        rows = "\n".join(f"t{i}\tfloat32\t[1]\t{common}{i:048x}\tdense" for i in range(count))
        kept = [line for line in tail.splitlines() if " x" not in line][:1]
        kept += [line for line in tail.splitlines() if line.split()[1][:16] in head]
        tail = "\n".join([*kept, *(f"value {common}{i:048x} dense 4 x00000000" for i in range(count)), ""])
    elif of == "objects with one prefix":
        objects = [f"object {common}{i:048x} 9" for i in range(count)]
        chunks = " ".join(f"{ZEROS}:{common}{i:048x}:0:1" for i in range(count))
        tail = "\n".join([*objects, f"value {ZEROS} dense 4 {chunks}", ""])
    elif of == "chunks of a tiny value":
        tail = f"value {ZEROS} dense 4 " + "x00 " * count + "\n"
    elif of == "conflict-free blank lines":
        tail += "\n" * count
    elif of == "headers":
        head += "".join(f"\nderived {i} 00" for i in range(count))
    elif of == "columns":
        rows += "\tx" * count
    elif of == "dimensions":
        rows = rows.replace("[40,16]", "[" + "1," * count + "1]")
    return "\n\n".join((head, rows, tail)).encode()


MANY = (
    *("values with one prefix", "objects with one prefix", "chunks of a tiny value", "conflict-free blank lines"),
    *("headers", "columns", "dimensions"),
)


def _steps(text: bytes) -> int:
    """How many functions are called to read a text: unlike seconds, the same on every machine."""
    count = 0

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        with contextlib.suppress(ManifestError):
            parse(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("of", MANY)
def test_the_work_grows_with_the_length_of_the_text_only(of: str) -> None:
    few, many = (_steps(_many(count, of)) for count in (500, 4000))
    assert many < 12 * few + 1000, "eight times the text takes far more than eight times the steps"


def test_a_text_longer_than_any_manifest_is_refused_before_it_is_read() -> None:
    text = SOUND.encode() + b"\n" * (2**22 + 1)
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError, match="too many"):
            parse(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_a_terabyte_of_one_chunk_is_read_in_bounded_memory() -> None:
    """A zero chunk, many times: the text is honest and so it is read; what it promises is for the caller to cap."""
    count = 1_000_000 // 16
    zero = chunk_digest(bytes(CHUNK_NBYTES))
    oid = "ab" * 32
    spec = TensorSpec("w", dtype_named("uint8"), (count, CHUNK_NBYTES), (CHUNK_NBYTES, 1), 0)
    digest = tensor_digest(spec, [zero] * count)
    layout = b"{}"
    layout_digest = storage_digest(len(layout), [chunk_digest(layout)])
    value = Value(layout_digest, len(layout), (ChunkRef(chunk_digest(layout), inline=layout),))
    big = Value(digest, count * CHUNK_NBYTES, (ChunkRef(zero, oid, 0, 99),) * count)
    manifest = Manifest(
        "opaque", count * CHUNK_NBYTES, layout_digest, layout_digest, {"w": Entry("w", "uint8", spec.shape, digest)},
        {value.digest: value, digest: big}, {oid: 99},
    )  # fmt: skip
    text = dump(manifest)
    assert manifest.size >= 10**12
    tracemalloc.start()
    try:
        assert parse(text) == manifest
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(text)


def test_a_size_that_no_file_has_is_still_only_a_number() -> None:
    size = struct.calcsize("<Q") * 8
    assert parse(re.sub(r"\nsize \d+", f"\nsize {2 ** (size - 2)}", SOUND).encode()).size == 2**62
