"""Lazy checkpoints: every dtype and view as the reference libraries load it, and only what is asked for is read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.git.checks import manifest_of
from theta_nb import Checkpoint, Repository, ThetaError
from theta_nb.errors import CheckpointError, ManifestError, MissingObjectError, NotTrackedError
from theta_nb.git.process import GitError

DTYPES = [
    getattr(torch, name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
]
NOT_IN_SAFETENSORS = {torch.complex32, torch.complex128}
NOT_IN_NUMPY = {torch.complex32}


def random_bits(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Any bit pattern that the type can have, NaN with payload included."""
    count = int(np.prod(shape)) * dtype.itemsize
    raw = bytearray(np.random.default_rng(seed).bytes(count))
    if dtype == torch.bool:
        raw = bytearray(byte & 1 for byte in raw)
    return torch.frombuffer(raw, dtype=torch.uint8).view(dtype).reshape(shape)


def bits(value: torch.Tensor | np.ndarray[Any, Any]) -> bytes:
    """The elements in order as bytes, lazy conjugation and negation carried out."""
    if isinstance(value, torch.Tensor):
        dense = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return dense.view(torch.uint8).numpy().tobytes()
    return value.tobytes()


def assert_equal(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    assert found.dtype == expected.dtype, name
    assert found.shape == expected.shape, name
    assert bits(found) == bits(expected), f"{name}: other bits"


@pytest.fixture(scope="module")
def zoo() -> dict[str, torch.Tensor]:
    return {str(dtype).removeprefix("torch."): random_bits(dtype, 4, 24, seed=i) for i, dtype in enumerate(DTYPES)}


def _stored(repository: Any, name: str) -> Repository:
    repo = Repository(repository.path)
    repo.add(name)
    repo.commit(name)
    return repo


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("file", ["zoo.pt", "zoo.safetensors"])
def test_every_dtype_as_the_reference_libraries_load_it(
    repository: Any, zoo: dict[str, torch.Tensor], file: str
) -> None:
    path = repository.path / file
    if file.endswith(".pt"):
        torch.save(zoo, path)
        reference = torch.load(path, weights_only=True)
    else:
        save_file({name: t for name, t in zoo.items() if t.dtype not in NOT_IN_SAFETENSORS}, path)
        reference = load_file(path)
    repo = _stored(repository, file)
    for source in (repo.checkpoint(file), repo.checkpoint(file, "HEAD")):
        assert set(source) == set(reference)
        for name, expected in reference.items():
            view = source[name]
            assert (view.name, view.dtype, view.shape) == (name, name, (4, 24))
            assert view.nbytes == expected.nbytes
            assert_equal(view.torch(), expected, name)
            if expected.dtype not in NOT_IN_NUMPY:
                assert view.numpy().dtype.itemsize == expected.itemsize, name
                assert bits(view.numpy()) == bits(expected), name
        loaded = source.state_dict()
        assert loaded.keys() == reference.keys()
        for name, expected in reference.items():
            assert_equal(loaded[name], expected, name)


def test_what_numpy_cannot_hold_says_what_can(repository: Any, zoo: dict[str, torch.Tensor]) -> None:
    torch.save({"w": zoo["complex32"]}, repository.path / "zoo.pt")
    with pytest.raises(CheckpointError, match="complex32 has no NumPy counterpart"):
        Repository(repository.path).checkpoint("zoo.pt")["w"].numpy()


def test_packed_types_are_listed_and_not_guessed(repository: Any) -> None:
    header = b'{"w":{"dtype":"F4","shape":[4,4],"data_offsets":[0,8]}}'
    repository.write("packed.safetensors", len(header).to_bytes(8, "little") + header + bytes(range(8)))
    view = Repository(repository.path).checkpoint("packed.safetensors")["w"]
    assert (view.dtype, view.shape, view.nbytes) == ("float4_e2m1", (4, 4), 8)
    with pytest.raises(CheckpointError, match="torch has no plain dtype float4_e2m1"):
        view.torch()
    with pytest.raises(CheckpointError, match="no NumPy counterpart"):
        view.numpy()


def _views() -> dict[str, torch.Tensor]:
    w = torch.arange(120, dtype=torch.float32).reshape(10, 12)
    z = torch.complex(w, w + 0.5)
    parts = z.clone()  # torch saves no storage as two types
    return {
        "whole": w,
        "tied": w,
        "transposed": w.t(),
        "rows": w[3:5],
        "column": w[:, 1],
        "steps": w[::2, ::3],
        "diagonal": w.diagonal(),
        "expanded": w[0, 0].expand(4, 5),
        "scalar": w[3, 4],
        "empty": w[:0],
        "no dimensions and nothing": torch.empty(3, 0, 2),
        "one row": w[2:3].t(),
        "conjugate": z.conj(),
        "conjugate transposed": z.t().conj(),
        "negative": parts.conj().imag,
        "imaginary": parts.imag,
    }


def test_views_keep_their_values_and_their_memory(repository: Any) -> None:
    views = _views()
    path = repository.path / "views.pt"
    torch.save(views, path)
    reference = torch.load(path, weights_only=True)
    repo = _stored(repository, "views.pt")
    for source in (repo.checkpoint("views.pt"), repo.checkpoint("views.pt", "HEAD")):
        assert set(source) == set(views)
        loaded = source.state_dict()
        for name, expected in reference.items():
            assert_equal(source[name].torch(), expected, name)
            assert_equal(loaded[name], expected, name)
            np.testing.assert_array_equal(source[name].numpy(), expected.resolve_conj().resolve_neg().numpy(), name)
        assert loaded["transposed"].stride() == (1, 12)
        assert loaded["conjugate"].is_conj()
        loaded["whole"][3, 4] = -1.0
        for name, where in (("tied", (3, 4)), ("transposed", (4, 3)), ("rows", (0, 4)), ("scalar", ())):
            assert loaded[name][where] == -1.0, f"{name} shares the memory of the tensor that was written to"


def test_tied_tensors_stay_tied_when_torch_saves_them_again(repository: Any, tmp_path: Path) -> None:
    w = torch.randn(64, 64)
    torch.save({"a": w, "b": w, "c": w[:8]}, repository.path / "tied.pt")
    loaded = Repository(repository.path).load("tied.pt")
    assert loaded["a"].untyped_storage()._cdata == loaded["b"].untyped_storage()._cdata
    torch.save(loaded, tmp_path / "again.pt")
    original, again = (repository.path / "tied.pt").stat().st_size, (tmp_path / "again.pt").stat().st_size
    assert again == pytest.approx(original, rel=0.01), "three views are saved as one storage"


def test_two_reads_do_not_share_memory(repository: Any) -> None:
    torch.save({"w": torch.zeros(4, 4)}, repository.path / "w.pt")
    checkpoint = _stored(repository, "w.pt").checkpoint("w.pt", "HEAD")
    checkpoint["w"].torch().fill_(1)
    checkpoint["w"].numpy()[:] = 2
    assert checkpoint["w"].numpy().max() == 0


def test_a_tensor_that_starts_between_two_elements(repository: Any) -> None:
    """Only safetensors files of other writers have this: the header may have any length."""
    header = b'{"n":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},'
    header += b'"w":{"dtype":"F32","shape":[2,3],"data_offsets":[3,27]}}'
    values = np.arange(6, dtype="<f4")
    repository.write("odd.safetensors", len(header).to_bytes(8, "little") + header + b"abc" + values.tobytes())
    repo = _stored(repository, "odd.safetensors")
    for source in (repo.checkpoint("odd.safetensors"), repo.checkpoint("odd.safetensors", "HEAD")):
        np.testing.assert_array_equal(source["w"].numpy(), values.reshape(2, 3))
        np.testing.assert_array_equal(source.state_dict()["w"].numpy(), values.reshape(2, 3))


# --- names and patterns -----------------------------------------------------------------------------------------------


def test_a_checkpoint_is_a_mapping(repository: Any) -> None:
    torch.save({"b.weight": torch.ones(2), "a": torch.zeros(3)}, repository.path / "m.pt")
    checkpoint = Repository(repository.path).checkpoint("m.pt")
    assert isinstance(checkpoint, Checkpoint)
    assert list(checkpoint) == ["b.weight", "a"], "in the order of the file"
    assert len(checkpoint) == 2
    assert "a" in checkpoint
    assert "c" not in checkpoint
    assert checkpoint.format == "pytorch"
    assert checkpoint.size == (repository.path / "m.pt").stat().st_size
    assert repr(checkpoint).startswith("<Checkpoint m.pt: pytorch, 2 tensors")
    assert repr(checkpoint["a"]) == "TensorView('a', float32, [3])"
    with pytest.raises(KeyError, match="c"):
        checkpoint["c"]


def test_names_of_nested_containers(repository: Any) -> None:
    w = torch.arange(6.0)
    state = {"model": {"a.b": w, "a/b": w + 1}, "steps": [w + 2], 0: w + 3, "0": w + 4, "a.b": w + 5}
    torch.save(state, repository.path / "nested.pt")
    repo = _stored(repository, "nested.pt")
    expected = {
        "model/a.b": 0.0, r"model/a\/b": 1.0, "steps/[0]": 2.0, "[0]": 3.0, "0": 4.0, "a.b": 5.0,
    }  # fmt: skip
    found = repo.load("nested.pt", "HEAD")
    assert {name: tensor[0].item() for name, tensor in found.items()} == expected


def test_flat_keys_come_back_as_they_were(repository: Any) -> None:
    names = ["a/b", "[0]", "@0", "", "line\nbreak", "größe", "with\\backslash", " "]
    state = {name: torch.full((20,), float(i)) for i, name in enumerate(names)}
    save_file(state, repository.path / "names.safetensors")
    loaded = _stored(repository, "names.safetensors").load("names.safetensors", "HEAD")
    assert {name: tensor[0].item() for name, tensor in loaded.items()} == {n: float(i) for i, n in enumerate(names)}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("encoder.*", ["encoder.0.bias", "encoder.0.weight", "encoder.1.weight"], id="glob"),
        pytest.param("*.weight", ["encoder.0.weight", "encoder.1.weight", "head.weight"], id="ending"),
        pytest.param("encoder.?.bias", ["encoder.0.bias"], id="one character"),
        pytest.param(re.compile(r"encoder\.[01]\.weight"), ["encoder.0.weight", "encoder.1.weight"], id="expression"),
        pytest.param("head.weight", ["head.weight"], id="name"),
        pytest.param(None, ["encoder.0.bias", "encoder.0.weight", "encoder.1.weight", "head.weight"], id="all"),
    ],
)
def test_patterns_select_names(repository: Any, pattern: Any, expected: list[str]) -> None:
    names = ["head.weight", "encoder.0.weight", "encoder.0.bias", "encoder.1.weight"]
    save_file({name: torch.ones(2) for name in names}, repository.path / "m.safetensors")
    assert sorted(Repository(repository.path).load("m.safetensors", pattern=pattern)) == expected


@pytest.mark.parametrize("pattern", ["decoder.*", "encoder", re.compile("encoder")])
def test_a_pattern_that_selects_nothing_is_an_error(repository: Any, pattern: Any) -> None:
    save_file({"encoder.weight": torch.ones(2)}, repository.path / "m.safetensors")
    with pytest.raises(ThetaError, match=r"no parameter of m\.safetensors matches"):
        Repository(repository.path).load("m.safetensors", pattern=pattern)


# --- what is read -----------------------------------------------------------------------------------------------------


def _noise(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def test_a_pattern_needs_no_more_than_its_own_objects(repository: Any) -> None:
    # Each of the large tensors is an object of its own; nothing of it is left but what the pattern selects.
    state = {f"layer.{i}.weight": _noise(i, 60_000) for i in range(4)} | {"layer.0.bias": _noise(9, 100)}
    save_file(state, repository.path / "m.safetensors")
    repo = _stored(repository, "m.safetensors")
    manifest = manifest_of(repository, "m.safetensors", "HEAD")
    owned = {name: {ref.oid for ref in manifest.value_of(name).chunks} for name in state}
    kept = owned["layer.2.weight"] | {
        ref.oid for digest in (manifest.layout, manifest.skeleton) for ref in manifest.values[digest].chunks
    }
    removed = set(manifest.objects) - kept
    assert len(removed) >= 3, "the other tensors have objects of their own"
    for oid in removed:
        (repository.path / ".git/theta/objects" / oid[:2] / oid[2:4] / oid).unlink()
    checkpoint = repo.checkpoint("m.safetensors", "HEAD")
    assert checkpoint["layer.1.weight"].shape == (60_000,), "names and shapes need no numbers"
    assert_equal(checkpoint.state_dict("layer.2.*")["layer.2.weight"], state["layer.2.weight"], "layer.2.weight")
    with pytest.raises(
        MissingObjectError, match=r"parameter 'layer\.1\.weight'.*could not be fetched.*no remote"
    ) as caught:
        checkpoint["layer.1.weight"].torch()
    assert set(caught.value.oids) == owned["layer.1.weight"]
    with pytest.raises(MissingObjectError):
        checkpoint.state_dict()


def test_values_of_several_chunks(repository: Any) -> None:
    """45 MB in rows of 12 kB: three chunks, cut between rows and put together again in their order."""
    state = {"embed": torch.arange(3750 * 3000, dtype=torch.float32).reshape(3750, 3000)}
    save_file(state, repository.path / "m.safetensors")
    checkpoint = _stored(repository, "m.safetensors").checkpoint("m.safetensors", "HEAD")
    assert_equal(checkpoint["embed"].torch(), state["embed"], "embed")


def test_a_damaged_object_is_never_returned_as_numbers(repository: Any) -> None:
    save_file({"w": _noise(0, 60_000)}, repository.path / "m.safetensors")
    repo = _stored(repository, "m.safetensors")
    (oid,) = {ref.oid for ref in manifest_of(repository, "m.safetensors", "HEAD").value_of("w").chunks}
    path = repository.path / ".git/theta/objects" / oid[:2] / oid[2:4] / oid
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    os.chmod(path, 0o644)
    path.write_bytes(data)
    with pytest.raises(ThetaError, match=r"^w: .*fsck") as caught:
        repo.load("m.safetensors", "HEAD")
    assert getattr(caught.value, "oid", None) == oid


# --- revisions --------------------------------------------------------------------------------------------------------


def test_work_tree_index_commit_and_tag(repository: Any) -> None:
    path = repository.path / "m.safetensors"
    for i, text in enumerate(["one", "two"]):
        save_file({"w": torch.full((20,), float(i))}, path)
        repository.commit_all(text)
    repository("tag", "-a", "-m", "release", "v1.0", "HEAD~1")
    save_file({"w": torch.full((20,), 2.0)}, path)
    repository("add", "m.safetensors")
    save_file({"w": torch.full((20,), 3.0)}, path)
    repo = Repository(repository.path)
    revisions = ["v1.0", "HEAD~1", "main", repository("rev-parse", "HEAD").strip(), ":/one", "", None]
    found = [repo.load("m.safetensors", rev)["w"][0].item() for rev in revisions]
    assert found == [0.0, 0.0, 1.0, 1.0, 0.0, 2.0, 3.0], f"in {revisions}"


@pytest.mark.parametrize("rev", ["nope", "HEAD~99", "--all", "HEAD:m.safetensors", "HEAD^{tree}", "two words", "a\nb"])
def test_a_revision_that_is_no_commit(repository: Any, rev: str) -> None:
    with pytest.raises(GitError, match="is no commit here"):
        Repository(repository.path).checkpoint("m.safetensors", rev)


@pytest.mark.parametrize("rev", ["HEAD", ""])
def test_a_file_that_the_revision_does_not_have(repository: Any, rev: str) -> None:
    repo = Repository(repository.path)
    with pytest.raises(ThetaError, match=r"m\.safetensors does not exist at (HEAD|the index)"):
        repo.checkpoint("m.safetensors", rev)
    with pytest.raises(ThetaError, match=r"m\.safetensors is not in the work tree.*rev='HEAD'"):
        repo.checkpoint("m.safetensors")


def test_what_is_not_stored_by_us(repository: Any) -> None:
    repository.write("notes.txt", b"hello")
    repository.commit_all("notes")
    repo = Repository(repository.path)
    with pytest.raises(NotTrackedError, match=r"notes\.txt at HEAD is not stored by theta-nb"):
        repo.checkpoint("notes.txt", "HEAD")
    (repository.path / "folder").mkdir()
    with pytest.raises(ThetaError, match="folder is not a file"):
        repo.checkpoint("folder")
    os.mkfifo(repository.path / "pipe.pt")
    with pytest.raises(ThetaError, match=r"pipe\.pt is not a file"):
        repo.checkpoint("pipe.pt")


def test_a_file_of_the_work_tree_need_not_be_tracked(repository: Any) -> None:
    save_file({"w": torch.ones(2)}, repository.path / "loose.bin")
    assert list(Repository(repository.path).checkpoint("loose.bin")) == ["w"]


def test_a_manifest_in_the_work_tree_that_is_broken(repository: Any) -> None:
    repository.write("m.safetensors", b"theta-manifest 1\nformat safetensors\n")
    with pytest.raises(ManifestError, match=r"m\.safetensors"):
        Repository(repository.path).checkpoint("m.safetensors")


def test_a_file_that_is_overwritten_after_it_was_opened(repository: Any) -> None:
    path = repository.path / "m.safetensors"
    save_file({"w": torch.zeros(20), "v": torch.zeros(20)}, path)
    os.utime(path, (1, 1))
    checkpoint = Repository(repository.path).checkpoint("m.safetensors")
    assert checkpoint["w"].torch().sum() == 0
    with open(path, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\x80\x3f")
    with pytest.raises(CheckpointError, match="overwritten after it was opened"):
        checkpoint["v"].torch()


def test_a_file_that_is_replaced_stays_readable(repository: Any, tmp_path: Path) -> None:
    """How a library saves: beside it, then into its place; or the old file is simply removed."""
    path = repository.path / "m.safetensors"
    save_file({"w": torch.zeros(20)}, path)
    checkpoint = Repository(repository.path).checkpoint("m.safetensors")
    save_file({"w": torch.ones(20)}, tmp_path / "new")
    os.replace(tmp_path / "new", path)
    assert checkpoint["w"].torch().sum() == 0
