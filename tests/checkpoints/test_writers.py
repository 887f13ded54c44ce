from __future__ import annotations

import collections

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from theta_nb.checkpoints.formats import FORMATS
from theta_nb.errors import CheckpointError


@pytest.fixture
def write(tmp_path):
    def written(format_name: str, state, metadata=None) -> bytes:
        path = tmp_path / f"file.{format_name}"
        FORMATS[format_name].write(state, str(path), metadata or {})
        return path.read_bytes()

    return written


FLAT = {
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
    "conj": torch.tensor([1 + 2j]).conj(),
    "neg": torch.tensor([1 + 2j]).conj().imag,
    "scalar": torch.tensor(True),
    "empty": torch.empty(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "tiny": torch.ones(3, dtype=torch.float8_e4m3fn),
    "größe/β": torch.ones(1, dtype=torch.uint16),
}
ARRAYS = {
    "plain": np.arange(6, dtype="float32").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "reversed": np.arange(6)[::-1],
    "big-endian": np.arange(3, dtype=">f4"),
    "bfloat16": np.arange(3).astype(ml_dtypes.bfloat16),
    "float8": np.arange(3).astype(ml_dtypes.float8_e5m2),
    "bool": np.array([True, False]),
    "scalar": np.float32(3),
    "empty": np.empty((0, 2), "int8"),
}


def test_safetensors_from_torch(write, locate, rebuild):
    data = write("safetensors", FLAT, {"format": "pt", "note": "größe"})
    loaded = safetensors.torch.load(data)
    assert loaded.keys() == FLAT.keys()
    for name, tensor in FLAT.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name].to(torch.complex64), tensor.to(torch.complex64))
    layout = locate(data, "m.safetensors")
    assert (len(layout.tensors), layout.warnings) == (len(FLAT), ())
    assert all(storage.offset % storage.itemsize == 0 for storage in layout.storages)


def test_safetensors_from_numpy(write):
    loaded = safetensors.torch.load(write("safetensors", ARRAYS))
    for name, array in ARRAYS.items():
        assert tuple(loaded[name].shape) == array.shape
        assert np.array_equal(loaded[name].to(torch.float64).numpy(), np.asarray(array).astype("float64"))


def test_metadata_is_kept(write, tmp_path):
    write("safetensors", {"w": torch.ones(1)}, {"b": "1", "a": "2"})
    with safetensors.safe_open(tmp_path / "file.safetensors", "pt") as file:
        assert file.metadata() == {"b": "1", "a": "2"}
    write("safetensors", {"w": torch.ones(1)})
    with safetensors.safe_open(tmp_path / "file.safetensors", "pt") as file:
        assert file.metadata() is None


@pytest.mark.parametrize("format_name", ["safetensors", "pytorch"])
def test_the_same_state_gives_the_same_file(format_name, write):
    metadata = {str(i): "x" for i in range(20)} if format_name == "safetensors" else {}
    one = write(format_name, {"b": torch.ones(2), "a": torch.ones(3)}, metadata)
    assert write(format_name, {"b": torch.ones(2), "a": torch.ones(3)}, metadata) == one


def test_pairs_of_4_bits(write):
    raw = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    loaded = write("safetensors", {"w": raw.view(torch.float4_e2m1fn_x2)})
    assert b'{"dtype":"F4","shape":[2,6],"data_offsets":[0,6]}' in loaded
    assert loaded.endswith(bytes(range(6)))


W = torch.ones(4, 4)
A = np.ones((4, 4))
REFUSED = {
    "tied": ({"a": W, "b": W}, "'a' and 'b'"),
    "views of one": ({"a": W[:2], "b": W[1:]}, "'a' and 'b'"),
    "transposed": ({"a": W, "b": W.t()}, "'a' and 'b'"),
    "tied arrays": ({"a": A, "b": A[:1]}, "'a' and 'b'"),
    "nested": ({"a": {"b": W}}, "'a' is a dict"),
    "number": ({"epoch": 3}, "'epoch' is a int"),
    "int key": ({0: W}, "the key 0"),
    "reserved key": ({"__metadata__": W}, "__metadata__"),
    "surrogate": ({"\udc80": W}, "Unicode"),
    "complex128": ({"a": W.to(torch.complex128)}, "complex128"),
    "complex array": ({"a": A.astype("complex128")}, "complex128"),
    "text array": ({"a": np.array(["x"])}, "no type"),
    "object array": ({"a": np.array([None])}, "no type"),
    "sparse": ({"a": W.to_sparse()}, "dense"),
    "meta": ({"a": W.to("meta")}, "dense"),
}


@pytest.mark.parametrize(("state", "message"), REFUSED.values(), ids=REFUSED)
def test_what_safetensors_cannot_hold(state, message, write):
    with pytest.raises(CheckpointError, match=message) as caught:
        write("safetensors", state)
    assert caught.value.hint


def test_parts_of_one_buffer_that_do_not_overlap_are_not_tied(write):
    assert len(safetensors.torch.load(write("safetensors", {"a": W[:2], "b": W[2:], "c": W[:0]}))) == 3


def test_metadata_must_be_text(write):
    with pytest.raises(CheckpointError, match="text"):
        write("safetensors", {"w": W}, {"epoch": 3})


def test_pytorch_keeps_structure(write, tmp_path, locate):
    state = {"model": collections.OrderedDict(a=W, b=W), "arrays": dict(ARRAYS), "epoch": 3, "list": [A, (A,)]}
    state["model"]._metadata = {"version": 1}
    data = write("pytorch", state)
    loaded = torch.load(tmp_path / "file.pytorch", weights_only=False)
    assert loaded["model"]["a"].data_ptr() == loaded["model"]["b"].data_ptr()
    assert loaded["model"]._metadata == {"version": 1}
    assert loaded["list"][0] is loaded["list"][1][0]
    for name, array in ARRAYS.items():
        values = loaded["arrays"][name]
        values = values.to(torch.float64).numpy() if isinstance(values, torch.Tensor) else values
        assert np.array_equal(values, np.asarray(array).astype("float64"))
    names = [t.name for t in locate(data).tensors]
    assert names[:3] == ["model/a", "model/b", "arrays/plain"]
    assert names[-2:] == ["list/[0]", "list/[1]/[0]"]
    assert state["list"][0] is A


def test_pytorch_from_any_mapping(write, locate):
    class Lazy(collections.UserDict):
        pass

    cyclic = {"w": A}
    cyclic["self"] = cyclic
    layout = locate(write("pytorch", Lazy(w=np.ones(2), c=cyclic)))
    assert [t.name for t in layout.tensors] == ["w", "c/w"]


def test_what_pytorch_cannot_hold(write):
    with pytest.raises(CheckpointError, match="metadata"):
        write("pytorch", {"w": W}, {"format": "pt"})
    with pytest.raises(CheckpointError, match="no type"):
        write("pytorch", {"w": np.array(["x"])})


def test_opaque_files_cannot_be_written(write):
    with pytest.raises(CheckpointError, match="cannot be written"):
        write("opaque", {"w": W})
