"""Updates in git-theta's naming: values, names, and every way in which they can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.git.checkpoints import Entry, pytorch, safetensors, safetensors_of
from tests.updates.loading import Loaded, side_load
from theta_nb.errors import ThetaError
from theta_nb.tensors.chunks import CHUNK_NBYTES

DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16, np.float64, ml_dtypes.float8_e4m3fn)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def weights(dtype: Any = np.float32) -> dict[str, np.ndarray[Any, Any]]:
    made = rng()
    return {
        "block.0.weight": made.normal(size=(40, 24)).astype(dtype),
        "block.0.bias": made.normal(size=40).astype(dtype),
        "conv.weight": made.normal(size=(8, 3, 3, 3)).astype(dtype),
        "scale": np.array(1.5).astype(dtype),
        "steps": np.array([3, 4]),
    }


def load(
    tmp_path: Path, data: Mapping[str, Any], update: str, dtype: Any = np.float32
) -> tuple[Loaded, dict[str, Any]]:
    """Side-load into :func:`weights`, and the result as NumPy arrays."""
    loaded = side_load(tmp_path, "m.safetensors", safetensors(weights(dtype)), data, update)
    from theta_nb.checkpoints.detection import locate
    from theta_nb.checkpoints.layout import FileSource
    from theta_nb.engine.checkpoint import Checkpoint
    from theta_nb.engine.storages import FileStorages

    with open(loaded.file, "rb") as file:
        source = FileSource(file.fileno())
        layout = locate(source, "m.safetensors")
        return loaded, {n: view.numpy() for n, view in Checkpoint(layout, FileStorages(source, layout)).items()}


def rounded(exact: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    """From float64 to a dtype at once, by a way of its own: torch rounds bfloat16 from float64 in one step."""
    if dtype is ml_dtypes.bfloat16:
        # The nearest of the neighbours, ties to the even pattern.
        near = (exact.astype(np.float32).view(np.uint32) >> 16).astype(np.int64)
        options = [((near + step).astype(np.uint16)).view(ml_dtypes.bfloat16) for step in (-1, 0, 1)]
        gaps = np.stack([np.abs(option.astype(np.float64) - exact) for option in options])
        odd = np.stack([option.view(np.uint16) & 1 for option in options])
        best = np.lexsort((odd, gaps), axis=0)[0]
        chosen: np.ndarray[Any, Any] = np.take_along_axis(np.stack(options), best[None], 0)[0]
        return chosen
    return exact.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_factors_are_added(tmp_path: Path, dtype: Any) -> None:
    r, c = rng(1).normal(size=(40, 3)).astype(np.float32), rng(2).normal(size=(3, 24)).astype(np.float32)
    loaded, found = load(tmp_path, {"block.0.weight/R": r, "block.0.weight/C": c}, "low-rank", dtype)
    total = weights(dtype)["block.0.weight"].astype(np.float64)
    for k in range(3):
        total += r[:, k, None].astype(np.float64) * c[None, k].astype(np.float64)
    assert np.array_equal(found["block.0.weight"], rounded(total, dtype))
    assert found["block.0.weight"].dtype == dtype
    # Factors of float32 are no fewer bytes than a small matrix of bytes.
    assert loaded.updates() == {"block.0.weight": "dense" if np.dtype(dtype).itemsize == 1 else "low-rank"}
    for name, value in weights(dtype).items():
        if name != "block.0.weight":
            assert found[name].tobytes() == value.tobytes()


@pytest.mark.parametrize("factor", [np.float16, ml_dtypes.bfloat16, np.float64, ml_dtypes.float8_e5m2])
def test_factors_may_have_any_float_type(tmp_path: Path, factor: Any) -> None:
    r, c = rng(1).normal(size=(8, 1)).astype(factor), rng(2).normal(size=(1, 3, 3, 3)).astype(np.float32)
    _, found = load(tmp_path, {"conv.weight/R": r, "conv.weight/C": c}, "low-rank")
    exact = r.astype(np.float64) * c.astype(np.float64).reshape(1, -1)
    exact = weights()["conv.weight"].astype(np.float64) + exact.reshape(8, 3, 3, 3)
    assert np.array_equal(found["conv.weight"], exact.astype(np.float32))


def test_a_rank_that_never_pays_is_computed_and_stored_otherwise(tmp_path: Path) -> None:
    r, c = rng(1).normal(size=(40, 900)), rng(2).normal(size=(900, 24))
    loaded, found = load(tmp_path, {"block.0.weight/R": r, "block.0.weight/C": c}, "low-rank")
    exact = weights()["block.0.weight"] + r @ c
    assert np.allclose(found["block.0.weight"], exact, rtol=1e-5)
    assert loaded.updates() == {"block.0.weight": "dense"}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_differences_are_added_where_they_belong(tmp_path: Path, dtype: Any) -> None:
    values, places = np.array([0.5, -2.0, 0.25]).astype(np.float32), np.array([700, 1, 30])
    parts = {"data": values, "indices": places, "indptr": np.array([0, 3]), "shape": np.array([40, 24])}
    loaded, found = load(tmp_path, {f"block.0.weight/{k}": v for k, v in parts.items()}, "sparse", dtype)
    exact = weights(dtype)["block.0.weight"].astype(np.float64).reshape(-1)
    exact[places] += values
    assert np.array_equal(found["block.0.weight"].reshape(-1), rounded(exact, dtype))
    assert loaded.updates() == {"block.0.weight": "sparse"}


@pytest.mark.parametrize("shape", [(40, 1), (1, 24), (24,), (40, 24), (1,), ()], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_scalings_broadcast(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    scaling = (1 + 0.1 * rng(3).normal(size=shape)).astype(np.float32)
    _, found = load(tmp_path, {"block.0.weight/ia3": np.asarray(scaling)}, "ia3", dtype)
    exact = weights(dtype)["block.0.weight"].astype(np.float64) * scaling.astype(np.float64)
    assert np.array_equal(found["block.0.weight"], rounded(exact, dtype))


def test_scalings_as_git_theta_infers_them_are_stored_as_ia3(tmp_path: Path) -> None:
    """It writes them in the parameter's full shape, though they are the same for all rows."""
    full = np.broadcast_to(1 + 0.1 * rng(3).normal(size=(1, 24)), (40, 24)).astype(np.float32)
    loaded, _ = load(tmp_path, {"block.0.weight/ia3": full}, "ia3")
    assert loaded.updates() == {"block.0.weight": "ia3"}


def test_scalings_of_channels_biases_and_scalars(tmp_path: Path) -> None:
    data = {
        "conv.weight/ia3": (1 + rng(1).normal(size=(1, 3, 1, 1))).astype(np.float32),
        "block.0.bias/ia3": (1 + rng(2).normal(size=40)).astype(np.float32),
        "scale/ia3": np.float32(2),
    }
    _, found = load(tmp_path, data, "ia3")
    for key, factor in data.items():
        name = key.removesuffix("/ia3")
        exact = weights()[name].astype(np.float64) * np.float64(factor)
        assert np.array_equal(found[name], exact.astype(np.float32)), name


@pytest.mark.parametrize("ending", ["safetensors", "pt", "bin", "nested.pt"])
def test_files_and_mappings_are_alike(tmp_path: Path, ending: str) -> None:
    r, c = rng(1).normal(size=(40, 2)).astype(np.float32), rng(2).normal(size=(2, 24)).astype(np.float32)
    data = {"block.0.weight/R": r, "block.0.weight/C": c}
    wanted = load(tmp_path, {k: torch.from_numpy(v) for k, v in data.items()}, "low-rank")[1]
    path = tmp_path / f"update.{ending}"
    if ending == "safetensors":
        save_file(data, path)
    elif ending == "nested.pt":
        path.write_bytes(pytorch({"block.0.weight": {"R": torch.from_numpy(r), "C": torch.from_numpy(c)}}))
    else:
        path.write_bytes(pytorch({k: torch.from_numpy(v) for k, v in data.items()}))
    found = side_load(tmp_path, "m.safetensors", safetensors(weights()), path, "low-rank")
    assert np.array_equal(found.tensors()["block.0.weight"].numpy(), wanted["block.0.weight"])


# --- names ------------------------------------------------------------------------------------------------------------


def two(prefix: str) -> dict[str, np.ndarray[Any, Any]]:
    """Scalings of two parameters."""
    return {f"{prefix}block.0.weight/ia3": np.full(24, 2.0), f"{prefix}block.0.bias/ia3": np.full(40, 3.0)}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("", ""), ("model.", ""), ("", "model."), ("module.model.", ""), ("", "base.model."), ("model.", "module.")],
)
def test_a_wrapper_around_either_side_is_seen_through(tmp_path: Path, ours: str, theirs: str) -> None:
    content = safetensors({ours + name: value for name, value in weights().items()})
    loaded = side_load(tmp_path, "m.safetensors", content, two(theirs), "ia3")
    assert set(loaded.updates()) == {f"{ours}block.0.weight", f"{ours}block.0.bias"}


def test_a_state_dict_in_a_container_is_found(tmp_path: Path) -> None:
    state = {"model": {name: torch.from_numpy(value) for name, value in weights().items()}, "epoch": 3}
    loaded = side_load(tmp_path, "m.pt", pytorch(state), two(""), "ia3")
    assert set(loaded.updates()) == {"model/block.0.weight", "model/block.0.bias"}
    assert torch.load(loaded.file, weights_only=True)["epoch"] == 3


def test_odd_names_are_taken_as_they_are(tmp_path: Path) -> None:
    content = safetensors({"a/b": np.ones(8, np.float32), "[0]": np.ones(8, np.float32)})
    loaded = side_load(tmp_path, "m.safetensors", content, {"a/b/ia3": np.float32(2), "[0]/ia3": np.float32(3)}, "ia3")
    assert loaded.tensors()["a/b"].tolist() == [2.0] * 8
    assert loaded.tensors()["[0]"].tolist() == [3.0] * 8


def test_names_that_fit_twice_are_an_error(tmp_path: Path) -> None:
    content = safetensors(
        {f"{side}.{name}": value for side in ("student", "teacher") for name, value in weights().items()}
    )
    with pytest.raises(ThetaError, match=r"'block\.0\.bias' may be 'student\.block\.0\.bias' or 'teacher\."):
        side_load(tmp_path, "m.safetensors", content, two(""), "ia3")


# --- what is wrong ----------------------------------------------------------------------------------------------------

R, C = np.ones((40, 2), np.float32), np.ones((2, 24), np.float32)
SPARSE = {
    "data": np.ones(2, np.float32),
    "indices": np.array([1, 5]),
    "indptr": np.array([0, 2]),
    "shape": np.array([40]),
}


def sparse(**parts: Any) -> dict[str, Any]:
    return {f"block.0.bias/{key}": value for key, value in {**SPARSE, **parts}.items()}


WRONG = {
    "unknown-name": (
        "low-rank",
        {"other.weight/R": R, "other.weight/C": C},
        r"no parameter for its only name.*other\.weight",
    ),
    "one-unknown-name": (
        "ia3",
        {"block.0.weight/ia3": np.float32(2), "block.9.weight/ia3": np.float32(2)},
        r"no parameter for 1 of 2 names of the update: block\.9\.weight\. Did the update mean 'block\.0\.weight'",
    ),
    "leftover": ("low-rank", {"block.0.weight/R": R}, r"lacks block\.0\.weight/C"),
    "strange-part": ("low-rank", {"block.0.weight/R": R, "block.0.weight/C": C, "x/Q": C}, r"x/Q is no part"),
    "no-part": ("ia3", {"block.0.weight": R}, "is no part of the update type ia3"),
    "nothing": ("ia3", {}, "is empty"),
    "turned": (
        "low-rank",
        {"block.0.weight/R": C.T, "block.0.weight/C": R.T},
        r"the product is \[24, 40\], .* is \[40, 24\]",
    ),
    "no-product": ("low-rank", {"block.0.weight/R": R, "block.0.weight/C": C[:1]}, "have no product"),
    "rank-0": ("low-rank", {"block.0.weight/R": R[:, :0], "block.0.weight/C": C[:0]}, "have no product"),
    "vector": ("low-rank", {"block.0.bias/R": R, "block.0.bias/C": C[:, :1]}, "has 1 dimensions"),
    "integers": ("low-rank", {"block.0.weight/R": R.astype(int), "block.0.weight/C": C}, "is int64, not floats"),
    "nan": (
        "low-rank",
        {"block.0.weight/R": R * np.nan, "block.0.weight/C": C},
        r"'block\.0\.weight/R' holds .* not finite",
    ),
    "infinite-scaling": ("ia3", {"block.0.weight/ia3": np.float32(np.inf)}, "not finite"),
    "integer-parameter": ("ia3", {"steps/ia3": np.float32(2)}, "'steps' is int64, and a scaling needs floats"),
    "wrong-scaling": ("ia3", {"block.0.weight/ia3": np.ones(40, np.float32)}, r"\[40\], which does not broadcast"),
    "too-many-dimensions": ("ia3", {"block.0.bias/ia3": np.ones((2, 40), np.float32)}, "does not broadcast"),
    "sparse-lacks": (
        "sparse",
        {"block.0.bias/data": SPARSE["data"]},
        r"lacks block\.0\.bias/indices, block\.0\.bias/indptr",
    ),
    "sparse-shape": ("sparse", sparse(shape=np.array([39])), r"shape \[39\]"),
    "sparse-outside": ("sparse", sparse(indices=np.array([1, 40])), "position 40"),
    "sparse-negative": ("sparse", sparse(indices=np.array([1, -1])), "negative or repeated"),
    "sparse-repeated": ("sparse", sparse(indices=np.array([5, 5])), "negative or repeated"),
    "sparse-lengths": ("sparse", sparse(data=np.ones(3, np.float32)), "not those of a CSR matrix"),
    "sparse-indptr": ("sparse", sparse(indptr=np.array([0, 1])), "not those of a CSR matrix"),
    "sparse-indices": ("sparse", sparse(indices=np.array([1.0, 5.0])), "not a list of integers"),
    "sparse-nan": ("sparse", sparse(data=np.array([1, np.nan], np.float32)), "not finite"),
    "peft-names": ("low-rank", {"base_model.model.q.lora_A.weight": R}, "names of a PEFT adapter"),
    "no-arrays": ("ia3", {"scale/ia3": "2"}, "is a str, not an array"),
    "no-text": ("ia3", {3: np.float32(2)}, "'3' of the update is not text"),
    "no-type": ("", {"scale/ia3": np.float32(2)}, "Add --update-type"),
    "delta": ("delta", {"scale/ia3": np.float32(2)}, "no file can bring the update type 'delta'"),
}


@pytest.mark.parametrize(("update", "data", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_named(tmp_path: Path, update: str, data: Any, message: str) -> None:
    with pytest.raises(ThetaError, match=message):
        load(tmp_path, data, update)


def test_one_error_lists_everything(tmp_path: Path) -> None:
    data = {"block.0.weight/ia3": np.ones(7, np.float32), "steps/ia3": np.float32(2), "scale/ia3": np.float32(np.nan)}
    with pytest.raises(
        ThetaError, match=r"block\.0\.weight.*does not broadcast.*scale.*not finite.*steps.*int64.*Nothing"
    ):
        load(tmp_path, data, "ia3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no tensors that can be read"),
        (b"\x80\x04]q\x00.", "no tensors"),
        (b"a note\n", "no tensors"),
        (safetensors({"w": R})[:-8], "no tensors"),
        (pytorch({"epoch": 3}), "no tensors"),
        (safetensors_of([Entry("w/ia3", "F4", (4,), b"ab")]), "no NumPy counterpart"),
        (safetensors_of([Entry("w/ia3", "X9", (2,), b"ab")]), "no tensors|completely"),
    ],
    ids=["empty", "pickle", "text", "cut", "numbers", "packed", "unknown-dtype"],
)
def test_files_that_are_no_updates(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "update.pt"
    path.write_bytes(content)
    with pytest.raises(ThetaError, match=message):
        side_load(tmp_path, "m.safetensors", safetensors(weights()), path, "ia3")


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "pwned"), "w"))

    path = tmp_path / "update.pt"
    path.write_bytes(pytorch({"scale/ia3": torch.ones(()), "evil": Evil()}))
    loaded = side_load(tmp_path, "m.safetensors", safetensors(weights()), path, "ia3")
    assert loaded.updates() == {}
    assert not (tmp_path / "pwned").exists()


def test_places_that_are_no_files(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none.pt", "No such file"),
        (tmp_path, "has no adapter_model"),
        (Path("/dev/null"), "not a file"),
    ):
        with pytest.raises(ThetaError, match=message):
            side_load(tmp_path, "m.safetensors", safetensors(weights()), path, "ia3")


# --- what shares a storage --------------------------------------------------------------------------------------------


def test_tied_parameters_change_together(tmp_path: Path) -> None:
    w = torch.from_numpy(weights()["block.0.weight"].copy())
    content = pytorch({"embed.weight": w, "head.weight": w, "part": w[3:5], "turned": w.t()})
    loaded = side_load(tmp_path, "m.pt", content, {"head.weight/ia3": np.float32(2)}, "ia3")
    assert loaded.shared == ("embed.weight", "part", "turned")
    found = loaded.tensors()
    assert found["embed.weight"].data_ptr() == found["head.weight"].data_ptr()
    assert torch.equal(found["turned"].t(), 2 * w)
    assert set(loaded.updates()) == {"embed.weight", "head.weight", "part", "turned"}


def test_what_cannot_be_updated_by_itself_is_refused(tmp_path: Path) -> None:
    w = torch.from_numpy(weights()["block.0.weight"].copy())
    content = pytorch({"embed.weight": w, "head.weight": w, "part": w[3:5]})
    with pytest.raises(ThetaError, match="'part' is a view on a part of a storage"):
        side_load(tmp_path, "m.pt", content, {"part/ia3": np.float32(2)}, "ia3")
    with pytest.raises(ThetaError, match=r"'head\.weight' and 'embed\.weight' are tied"):
        side_load(
            tmp_path, "m.pt", content, {"head.weight/ia3": np.float32(2), "embed.weight/ia3": np.float32(3)}, "ia3"
        )


def test_equal_values_that_are_not_tied_stay_apart(tmp_path: Path) -> None:
    w = weights()["block.0.weight"]
    loaded = side_load(tmp_path, "m.safetensors", safetensors({"a": w, "b": w}), {"a/ia3": np.float32(2)}, "ia3")
    assert np.array_equal(loaded.tensors()["b"].numpy(), w)
    assert np.array_equal(loaded.tensors()["a"].numpy(), 2 * w)


def test_the_checksums_of_a_zip_are_those_of_the_new_content(tmp_path: Path) -> None:
    import zipfile

    state = {name: torch.from_numpy(np.asarray(value)) for name, value in weights().items()}
    loaded = side_load(tmp_path, "m.pt", pytorch(state), two(""), "ia3")
    with zipfile.ZipFile(loaded.file) as archive:
        assert archive.testzip() is None


def test_an_update_that_changes_nothing_gives_the_same_version(tmp_path: Path) -> None:
    loaded, _ = load(tmp_path, {"block.0.weight/ia3": np.float32(1)}, "ia3")
    assert loaded.after.same_content(loaded.before)
    assert loaded.after.objects == loaded.before.objects


def test_nans_and_infinities_keep_their_bits(tmp_path: Path) -> None:
    odd = struct.pack("<6I", 0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0x3F800000)
    content = safetensors_of([Entry("w", "F32", (2, 3), odd)])
    loaded = side_load(
        tmp_path,
        "m.safetensors",
        content,
        {"w/R": np.zeros((2, 1), np.float32), "w/C": np.ones((1, 3), np.float32)},
        "low-rank",
    )
    found = loaded.file.read_bytes()[-24:]
    assert found[:16] == odd[:16]
    assert found[20:] == odd[20:]


# --- several chunks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2100, 2100), (1, 4_300_000)], ids=["rows", "parts-of-a-row"])
@pytest.mark.parametrize("update", ["low-rank", "sparse", "ia3"])
def test_parameters_of_several_chunks(tmp_path: Path, shape: tuple[int, int], update: str) -> None:
    w = rng().normal(size=shape).astype(np.float32)
    assert w.nbytes > CHUNK_NBYTES
    exact = w.astype(np.float64)
    if update == "low-rank":
        r, c = (
            rng(1).normal(size=(shape[0], 1)).astype(np.float32),
            rng(2).normal(size=(1, shape[1])).astype(np.float32),
        )
        data: dict[str, Any] = {"w/R": r, "w/C": c}
        exact += r.astype(np.float64) * c
    elif update == "ia3":
        data = {"w/ia3": rng(1).normal(size=(1, shape[1])).astype(np.float32)}
        exact *= data["w/ia3"]
    else:
        places = np.array([0, 7, CHUNK_NBYTES // 4 - 1, CHUNK_NBYTES // 4, w.size - 1])
        values = np.arange(1, 6, dtype=np.float32)
        data = {"w/data": values, "w/indices": places, "w/indptr": np.array([0, 5]), "w/shape": np.array([1, w.size])}
        exact.reshape(-1)[places] += values
    loaded = side_load(tmp_path, "m.safetensors", safetensors({"w": w}), data, update)
    assert np.array_equal(loaded.tensors()["w"].numpy(), exact.astype(np.float32))
    assert len(loaded.after.value_of("w").chunks) == 2
    if shape[0] > 1 or update == "sparse":
        assert loaded.updates() == {"w": update}
