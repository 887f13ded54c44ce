from __future__ import annotations

import collections
import dataclasses
import io
import time
import zipfile
from typing import NamedTuple

import pytest
import torch

from theta_nb.checkpoints import detection
from theta_nb.checkpoints.layout import FileSource, Part
from theta_nb.checkpoints.naming import Other, spell

# Quantized, sparse and named-storage tensors warn of their future; TorchScript of its end.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

DTYPES = [
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16"),
    *("float32", "float64", "complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"),
    *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"),
]


def made(name: str, *shape: int) -> torch.Tensor:
    """A tensor of arbitrary bits: all of NaN, Inf and negative zero occur somewhere."""
    dtype = getattr(torch, name)
    count = torch.Size(shape).numel() * torch.empty((), dtype=dtype).element_size()
    if not count:
        return torch.empty(shape, dtype=dtype)
    raw = torch.arange(count, dtype=torch.int64).mul(37).remainder(2 if name == "bool" else 256).to(torch.uint8)
    return raw.view(dtype).reshape(shape)


VIEWS = {
    "whole": lambda t: {"w": t},
    "sliced": lambda t: {"w": t[1:3]},
    "column": lambda t: {"w": t[:, 1]},
    "strided": lambda t: {"w": t[::2, 1::2]},
    "transposed": lambda t: {"w": t.t()},
    "expanded": lambda t: {"w": t[:1].expand(5, 6)},
    "tied": lambda t: {"a": t, "b": t},
    "tied views": lambda t: {"a": t, "b": t.t(), "c": t[2]},
    "0-d": lambda t: {"w": t[1, 1]},
    "empty": lambda t: {"w": t[:0], "v": torch.empty(0, dtype=t.dtype), "u": torch.empty(2, 0, 3, dtype=t.dtype)},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_of_every_dtype(dtype, view, saved, locate, rebuild, same):
    state = view(made(dtype, 4, 6))
    data = saved(state)
    layout = locate(data)
    assert (layout.format, layout.warnings) == ("pytorch", ())
    tensors = rebuild(layout, data)
    assert list(tensors) == list(state)
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    for name, tensor in loaded.items():
        assert same(tensors[name], tensor)
    assert len(layout.storages) == len({t.untyped_storage()._cdata for t in loaded.values()})


@pytest.mark.parametrize("dtype", ["complex32", "complex64", "complex128"])
def test_lazy_bits(dtype, saved, locate, rebuild, same):
    tensor = made(dtype, 4, 6)
    state = {"conj": tensor.conj(), "neg": tensor.clone().conj().imag, "plain": tensor.clone().real}
    data = saved(state)
    layout = locate(data)
    assert [(t.conj, t.neg) for t in layout.tensors] == [(True, False), (False, True), (False, False)]
    tensors = rebuild(layout, data)
    for name, loaded in torch.load(io.BytesIO(data)).items():
        assert same(tensors[name], loaded)


def flattened(value: object, path: tuple = ()) -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {spell(path): value}
    found = {}
    if isinstance(value, dict):
        for key, part in value.items():
            found |= flattened(part, (*path, key if isinstance(key, str | int) else Other(repr(key))))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            found |= flattened(part, (*path, index))
    return found


def trained() -> dict[str, object]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.ones(5, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "epoch": 3,
        "history": [0.5, 0.25],
        "args": ("adam", None, True),
    }


CONTAINERS = {
    "training state": trained(),
    "bare tensor": torch.ones(2),
    "parameter": {"w": torch.nn.Parameter(torch.ones(2, 3))},
    "list": [torch.ones(1), (torch.ones(2), {"a": torch.ones(3)})],
    "slash": {"a/b": torch.ones(1), "a": {"b": torch.ones(2)}, "a.b": torch.ones(3), "a\\": {"b": torch.ones(4)}},
    "numbers": {0: torch.ones(1), "0": torch.ones(2), "[0]": torch.ones(3), -7: torch.ones(4), 2**70: torch.ones(5)},
    "other keys": {None: torch.ones(1), 1.5: torch.ones(3), (1, "x"): torch.ones(4), b"y": torch.ones(5)},
    "non-ASCII": {
        "größe": torch.ones(1),
        "层.0": torch.ones(2),
        "\udc80": torch.ones(3),
        "": torch.ones(4),
        "@0": torch.ones(5),
    },
    "default dict": collections.defaultdict(list, {"a": torch.ones(1)}),
    "deep": {"a": {"b": [{"c": {"d": (torch.ones(2),)}}]}},
}


@pytest.mark.parametrize("value", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_containers(value, protocol, saved, locate, rebuild, same):
    data = saved(value, pickle_protocol=protocol)
    layout = locate(data)
    assert layout.warnings == ()
    tensors = rebuild(layout, data)
    expected = flattened(torch.load(io.BytesIO(data), weights_only=False))
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        assert same(tensors[name], tensor)


class Holder:
    """Pickled by its attributes."""

    def __init__(self) -> None:
        self.weight = torch.ones(2)
        self.inner = {"a": torch.ones(3)}


class Slotted:
    __slots__ = ("bias", "weight")

    def __init__(self) -> None:
        self.weight = torch.ones(2)


class Stateful(Holder):
    def __getstate__(self):
        return [self.weight, "x"]

    def __setstate__(self, state):
        raise AssertionError("nothing in a checkpoint is ever called")


class Reduced:
    def __reduce__(self):
        return Reduced, (torch.ones(2), [torch.ones(3)])


class Table(dict):
    pass


class Pair(NamedTuple):
    left: torch.Tensor
    right: int


@dataclasses.dataclass
class Record:
    weight: torch.Tensor


def table() -> Table:
    made = Table(a=torch.ones(1))
    made.b = torch.ones(2)
    return made


OBJECTS = {
    "attributes": (Holder, ["x/weight", "x/inner/a"]),
    "slots": (Slotted, ["x/weight"]),
    "state": (Stateful, ["x/[state]/[0]"]),
    "reduce": (Reduced, ["x/[args]/[0]", "x/[args]/[1]/[0]"]),
    "dict subclass": (table, ["x/a", "x/[state]/b"]),
    "namedtuple": (lambda: Pair(torch.ones(1), 2), ["x/[args]/[0]"]),
    "dataclass": (lambda: Record(torch.ones(1)), ["x/weight"]),
    "set": (lambda: {torch.ones(1)}, ["x/[0]"]),
    "module": (
        lambda: torch.nn.Linear(2, 1),
        ["x/_parameters/weight", "x/_parameters/bias"],
    ),
    "sparse": (
        lambda: torch.eye(2).to_sparse(),
        ["x/indices", "x/values"],
    ),
    "sparse rows": (lambda: torch.eye(2).to_sparse_csr(), ["x/crow_indices", "x/col_indices", "x/values"]),
    "sparse columns": (lambda: torch.eye(2).to_sparse_csc(), ["x/ccol_indices", "x/row_indices", "x/values"]),
    "nested tensor": (
        lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
        [f"x/[args]/[{i}]" for i in range(4)],
    ),
    "meta tensor": (lambda: torch.ones(2, device="meta"), []),
    "raw storage": (lambda: torch.ones(2).untyped_storage(), []),
}


@pytest.mark.parametrize(("make", "names"), OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_objects(make, names, protocol, saved, locate):
    data = saved({"x": make()}, pickle_protocol=protocol)
    layout = locate(data)
    assert layout.warnings == ()
    assert [t.name for t in layout.tensors] == names


def test_tensor_with_attributes(saved, locate):
    tensor = torch.nn.Parameter(torch.ones(2))
    tensor.extra = torch.ones(3)
    plain = torch.ones(4)
    plain.note = torch.ones(5)
    buffer = getattr(torch.nn, "Buffer", torch.nn.Parameter)(torch.ones(2))  # since 2.5
    layout = locate(saved({"p": tensor, "b": buffer, "t": plain}))
    assert [t.name for t in layout.tensors] == ["p", "p/state/extra", "b", "t", "t/state/note"]


def test_quantized_tensors_are_integers(saved, locate, rebuild):
    one = torch.quantize_per_tensor(torch.arange(6.0).reshape(2, 3), 0.5, 1, torch.qint8)
    two = torch.quantize_per_channel(torch.ones(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.quint8)
    data = saved({"one": one, "two": two})
    layout = locate(data)
    assert [(t.name, t.dtype.name) for t in layout.tensors] == [
        ("one", "qint8"),
        ("two", "quint8"),
        ("two/scales", "float64"),
        ("two/zero_points", "int64"),
    ]
    stored = layout.storages[layout.tensors[0].storage]
    assert data[stored.offset : stored.offset + stored.nbytes] == bytes(one.int_repr().reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("crc", [True, False], ids=["checksums", "no checksums"])
def test_only_storages_and_derived_fields_change_with_a_value(crc, locate, skeleton_of):
    def save(value: float) -> bytes:
        file = io.BytesIO()
        state = trained()
        state["model"]["0.weight"].fill_(value)
        torch.save(state, file)
        return file.getvalue()

    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(crc)
    try:
        one, two = save(1.0), save(2.0)
    finally:
        torch.serialization.set_crc32_options(before)
    layout = locate(one)
    assert layout == locate(two)
    assert one != two
    assert skeleton_of(layout, one) == skeleton_of(layout, two)
    changed = [
        (part, number)
        for part, number, offset, nbytes in layout.segments()
        if one[offset : offset + nbytes] != two[offset : offset + nbytes]
    ]
    (storage,) = [number for part, number in changed if part is Part.STORAGE]
    fields = [layout.derived[number].storage for part, number in changed if part is Part.DERIVED]
    # Data descriptor and central directory of the record; content, and again two checksums, of the serialization id.
    # Without checksums the serialization id says nothing about the content either.
    assert fields == ([storage, None, None, storage, None] if crc else [])


def test_derived_fields_are_checksums(saved, locate):
    import zlib

    data = saved({"a": torch.ones(3), "b": torch.empty(0), "c": torch.zeros(1000)})
    layout = locate(data)
    checked = [0] * len(layout.storages)
    for field in layout.derived:
        if field.storage is not None:
            stored = layout.storages[field.storage]
            crc = zlib.crc32(data[stored.offset : stored.offset + stored.nbytes])
            assert data[field.offset : field.offset + field.nbytes] == crc.to_bytes(4, "little")
            checked[field.storage] += 1
    assert checked == [2, 2, 2]


def test_rows_of_storages(saved, locate):
    wide = torch.ones(4, 5)
    data = saved({"w": wide, "v": torch.ones(3, dtype=torch.float16), "s": torch.ones(6, 2)[1:], "t": wide.reshape(-1)})
    layout = locate(data)
    assert [(s.itemsize, s.row_nbytes) for s in layout.storages] == [(4, 20), (2, 2), (4, 4)]


def test_torchscript(locate, rebuild, same):
    module = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
    file = io.BytesIO()
    torch.jit.save(module, file)
    data = file.getvalue()
    layout = locate(data)
    assert layout.format == "pytorch"
    tensors = rebuild(layout, data)
    assert list(tensors) == ["0/weight", "0/bias"]
    assert same(tensors["0/weight"], module.state_dict()["0.weight"])


def rezipped(data: bytes, replace: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """The archive written anew by Python's zipfile: other headers, checksums in the local ones."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", method) as new:
        for name in old.namelist():
            content = replace.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return file.getvalue()


def test_archive_of_another_writer(saved, locate, rebuild, same, skeleton_of):
    state = {"w": torch.arange(6.0).reshape(2, 3), "v": torch.ones(2)}
    one = rezipped(saved(state), {})
    state["w"][0] = 7
    two = rezipped(saved(state), {})
    layout = locate(two)
    assert layout.warnings == ()
    for name, tensor in rebuild(layout, two).items():
        assert same(tensor, state[name])
    stamps = (b"PK\3\4", b"PK\1\2")  # writestr puts the time into both headers; both files are of one moment or next
    assert all(stamp in skeleton_of(layout, two) for stamp in stamps)
    assert len(skeleton_of(locate(one), one)) == len(skeleton_of(layout, two))


def test_zip_of_a_stream_has_descriptors(saved, locate):
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *arguments: int) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    file = Stream()
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.ones(3)}))) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    layout = locate(file.getvalue())
    assert (layout.format, len(layout.tensors), len(layout.derived)) == ("pytorch", 1, 5)


def test_zip64_of_another_writer(saved, locate):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.ones(3)}))) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            with new.open(name, "w", force_zip64=True) as record:
                record.write(old.read(name))
    layout = locate(file.getvalue())
    assert (layout.format, len(layout.tensors), len(layout.derived)) == ("pytorch", 1, 5)


def test_big_endian_archives_list_no_tensors(saved, locate):
    data = rezipped(saved({"w": torch.ones(3)}), {"archive/byteorder": b"big"})
    layout = locate(data)
    assert (layout.format, len(layout.storages), layout.tensors) == ("pytorch", 1, ())
    assert "little-endian" in layout.warnings[0]


def test_unreadable_pickle_keeps_the_storages(saved, locate):
    data = rezipped(saved({"w": torch.ones(3), "v": torch.ones(2)}), {"archive/data.pkl": b"\x80\x02nonsense"})
    layout = locate(data)
    assert (layout.format, len(layout.storages), layout.tensors) == ("pytorch", 2, ())
    assert "not listed" in layout.warnings[0]


@pytest.mark.parametrize(
    "change",
    [
        {"archive/data.pkl": None},
        {"archive/data.pkl": None, "archive/data/0": None},
    ],
    ids=["no pickle", "no data"],
)
def test_other_zips_are_opaque(change, saved, locate):
    assert locate(rezipped(saved({"w": torch.ones(3)}), change)).format == "opaque"


def test_compressed_archives_are_opaque(saved, locate):
    layout = locate(rezipped(saved({"w": torch.ones(1000)}), {}, zipfile.ZIP_DEFLATED))
    assert layout.format == "opaque"
    assert "compressed" in layout.warnings[0]


def test_tied_weights_are_listed_under_all_their_names(saved, locate):
    embedding = torch.nn.Embedding(4, 3)
    head = torch.nn.Linear(3, 4, bias=False)
    head.weight = embedding.weight
    model = torch.nn.ModuleDict({"embedding": embedding, "head": head})
    layout = locate(saved({"model": model.state_dict(), "list": [embedding.weight, embedding.weight]}))
    assert [t.name for t in layout.tensors] == ["model/embedding.weight", "model/head.weight", "list/[0]", "list/[1]"]
    assert len(layout.storages) == 1


def test_records_behind_4_gigabytes(tmp_path, source):
    """Sizes and offsets of 64 bits, in a sparse file."""
    path = tmp_path / "huge.pt"
    try:
        with torch.serialization.skip_data():
            torch.save({"a": torch.empty(1_200_000_000), "b": torch.empty(5, dtype=torch.float64)}, path)
    except (AttributeError, RuntimeError, OSError) as error:
        pytest.skip(f"no sparse file of this size: {error}")
    with path.open("rb") as file:
        layout = detection.locate(FileSource(file.fileno()), "huge.pt")
    path.unlink()
    assert (layout.warnings, [s.nbytes for s in layout.storages]) == ((), [4_800_000_000, 40])
    assert len(layout.derived) == 7
    assert layout.tensors[1].storage == 1


def test_an_id_that_is_none_is_skeleton(saved, locate):
    data = rezipped(saved({"w": torch.ones(3)}), {"archive/.data/serialization_id": bytes(1000)})
    layout = locate(data)
    assert all(field.storage == 0 for field in layout.derived)


def test_locating_a_large_training_state_is_quick(saved, locate):
    state = {
        "model": {f"layer.{i}.weight": torch.full((2, 3), float(i)) for i in range(1000)},
        "optimizer": {
            "state": {
                i: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2, 3), "exp_avg_sq": torch.zeros(2, 3)}
                for i in range(1000)
            }
        },
    }
    data = saved(state)
    start = time.process_time()
    layout = locate(data)
    assert len(layout.tensors) == 4000
    assert time.process_time() - start < 5  # takes 0.2 s; a quadratic step would take minutes
