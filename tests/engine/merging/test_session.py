"""Merge sessions: choose, look, evaluate, keep."""

from __future__ import annotations

import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.engine.merging.checkpoints import FORMS, as_safetensors, model, session_of, torch_state
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.stored_inputs import FileInput
from theta_nb.errors import CheckpointError, MergeError
from theta_nb.merges.table import METHODS
from theta_nb.merges.tensors import merge_tensors

BASE = model(0)
OURS = model(1, BASE)
THEIRS = model(2, BASE)
# One-sided and equal changes beside those of both.
OURS["layers.0.bias"] = THEIRS["layers.0.bias"]
OURS["layers.1.bias"] = BASE["layers.1.bias"]
THEIRS["layers.2.bias"] = BASE["layers.2.bias"]
OURS["layers.3.bias"] = THEIRS["layers.3.bias"] = BASE["layers.3.bias"]

BOTH = [name for name in BASE if "bias" not in name]


@pytest.fixture
def session(tmp_path: Path) -> MergeSession:
    return session_of(tmp_path, "memory", BASE, OURS, THEIRS)


def expected(method: str, name: str, **parameters: Any) -> np.ndarray:
    return merge_tensors(method, [OURS[name], THEIRS[name]], base=BASE[name], name=name, **parameters)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["linear", "ties", "slerp", "dare_ties", "iso_c", "sce", "arcee_fusion"])
def test_every_form_of_input_gives_the_methods_numbers(tmp_path: Path, form: str, method: str) -> None:
    made = session_of(tmp_path, form, BASE, OURS, THEIRS).use(method).arrays()
    assert made.keys() == BASE.keys()
    for name in BOTH:
        assert np.array_equal(made[name], expected(method, name)), name
    assert np.array_equal(made["layers.0.bias"], OURS["layers.0.bias"])
    assert np.array_equal(made["layers.1.bias"], THEIRS["layers.1.bias"])
    assert np.array_equal(made["layers.2.bias"], OURS["layers.2.bias"])
    assert np.array_equal(made["layers.3.bias"], BASE["layers.3.bias"])


def test_nothing_is_merged_before_a_choice(session: MergeSession, tmp_path: Path) -> None:
    assert set(session.open) == set(BOTH)
    for use in (session.arrays, session.state_dict, lambda: session.write(str(tmp_path / "x.safetensors"))):
        with pytest.raises(MergeError, match=r"session.use\(METHOD\)"):
            use()
    assert session.use("linear").open == ()


def test_overrides_count_before_everything_and_the_last_one_wins(session: MergeSession) -> None:
    session.use("ties", density=0.3)
    session.override("layers.*", "theirs")
    session.override(re.compile(r"layers\.[12]\..*"), "original")
    session.override("layers.2.attn.weight", "slerp", t=0.25)
    made = session.arrays()
    assert np.array_equal(made["norm.weight"], expected("ties", "norm.weight", density=0.3))
    assert np.array_equal(made["layers.0.attn.weight"], THEIRS["layers.0.attn.weight"])
    assert np.array_equal(made["layers.2.bias"], BASE["layers.2.bias"]), "also where one side alone changed it"
    assert np.array_equal(made["layers.2.attn.weight"], expected("slerp", "layers.2.attn.weight", t=0.25))
    # The same pattern again replaces its choice.
    session.override("layers.*", "ours")
    assert np.array_equal(session.arrays()["layers.2.attn.weight"], OURS["layers.2.attn.weight"])


def test_lists_are_gradients_over_the_depth(session: MergeSession) -> None:
    made = session.use("slerp", t=[0, 1]).arrays()
    for layer, t in enumerate((0, 1 / 3, 2 / 3, 1)):
        name = f"layers.{layer}.attn.weight"
        assert np.allclose(made[name], expected("slerp", name, t=t), atol=1e-7)
    assert np.array_equal(made["embed.weight"], OURS["embed.weight"])
    assert np.array_equal(made["head.weight"], THEIRS["head.weight"]), "mergekit gives head and norm the first value"
    assert np.array_equal(made["norm.weight"], THEIRS["norm.weight"])


def test_mappings_give_each_input_its_own_value(session: MergeSession) -> None:
    made = session.use("linear", weight={"theirs": [0, 3]}).arrays()
    name = "layers.1.mlp.weight"
    assert np.array_equal(made[name], expected("linear", name, weight=[1, 1]))


def test_lines_scales_by_depth(session: MergeSession) -> None:
    made = session.use("lines:task_arithmetic", lines_alpha=0.0, lines_beta=1.0).arrays()
    name = "layers.2.mlp.weight"
    direct = merge_tensors(
        "lines:task_arithmetic", [OURS[name], THEIRS[name]], base=BASE[name], depth=2 / 3, lines_alpha=0, lines_beta=1
    )
    assert np.array_equal(made[name], direct)
    assert np.allclose(made["embed.weight"], BASE["embed.weight"])


def test_undo_redo_reset_and_presets(session: MergeSession) -> None:
    first = session.settings
    session.use("linear")
    second = session.settings
    session.preset("trimmed-ties")
    assert session.settings.default.parameters == {"density": 0.2}  # type: ignore[union-attr]
    assert session.undo().settings is second
    assert session.undo().settings is first
    assert session.undo().settings is first
    assert session.redo().settings is second
    session.use("slerp")
    assert session.redo().settings.default.method == "slerp", "a new choice ends what could be redone"  # type: ignore[union-attr]
    assert session.reset().settings == first
    assert session.undo().settings.default.method == "slerp"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.use("tise"), "Did you mean 'ties'"),
        (lambda s: s.use("ties", densty=1), "Did you mean 'density'"),
        (lambda s: s.use("ties", density=2), "must lie in 0 to 1"),
        (lambda s: s.use("ties", density=[0.5, 2]), "must lie in 0 to 1"),
        (lambda s: s.use("slerp", t=[]), "empty gradient"),
        (lambda s: s.use("linear", weight={"theirs": [-1, 1]}), "linear: the weights sum to 0"),
        (lambda s: s.use("nuslerp", axis="diagonal"), "Known: tensor, row, column"),
        (lambda s: s.use("linear", weight={"nobody": 1}), "'nobody', which is no input"),
        (lambda s: s.override("layer.*", "ours"), "no parameter matches 'layer.*'"),
        (lambda s: s.override("*" * 2000, "ours"), "too long"),
        (lambda s: s.preset("bests"), "no preset is called 'bests'"),
        (lambda s: s.explain("embed"), "Did you mean 'embed.weight'"),
        (lambda s: s.commit("x"), "11 parameters wait for a choice: embed.weight, norm.weight, "),
        (lambda s: s.use("linear").commit("x"), "nowhere to commit"),
    ],
)
def test_mistakes_change_nothing(session: MergeSession, call: Any, message: str) -> None:
    before = session.settings if "commit" not in message else None
    with pytest.raises(MergeError, match=re.escape(message)):
        call(session)
    assert before is None or session.settings == before or session.settings.default is not None


def test_unrelated_histories_take_methods_without_an_ancestor(tmp_path: Path) -> None:
    session = session_of(tmp_path, "memory", None, OURS, THEIRS)
    with pytest.raises(MergeError, match="needs a common ancestor"):
        session.use("ties")
    made = session.use("slerp", t=0.3).arrays()
    name = "embed.weight"
    assert np.array_equal(made[name], merge_tensors("slerp", [OURS[name], THEIRS[name]], t=0.3))


# --- preview ----------------------------------------------------------------------------------------------------------

GRAM = [name for name in METHODS.names() if METHODS[name].gram and METHODS[name].inputs[1] in (0, 2)]


@pytest.mark.parametrize("method", [*GRAM, "lines:slerp", "lines:task_arithmetic"])
def test_previews_tell_what_the_result_will_be(session: MergeSession, method: str) -> None:
    session.use(method)
    rows = {row.name: row for row in session.preview()}
    made = session.arrays()
    for name in BASE:
        row = rows[name]
        if row.norm is None:
            continue
        wide = made[name].astype(np.float64)
        assert row.norm == pytest.approx(np.linalg.norm(wide), rel=1e-5)
        distances = [np.linalg.norm(wide - x) for x in (BASE[name], OURS[name], THEIRS[name])]
        assert row.distances == pytest.approx(distances, rel=1e-4, abs=1e-5)
    assert rows["embed.weight"].norm is not None


def test_previews_of_every_choice_have_cosines_and_conflicts(session: MergeSession) -> None:
    rows = {row.name: row for row in session.use("ties", density=0.2).preview()}
    name = "layers.1.mlp.weight"
    a, b = (x[name].astype(np.float64) - BASE[name] for x in (OURS, THEIRS))
    assert rows[name].cosines[0] == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert rows[name].conflict == pytest.approx((a * b < 0).mean())
    assert rows["layers.3.bias"].state == "equal"
    assert rows["layers.1.bias"].choice == "theirs"
    assert rows["layers.1.bias"].distances == pytest.approx(
        (np.linalg.norm(THEIRS["layers.1.bias"] - BASE["layers.1.bias"]),) * 2 + (0,), rel=1e-5
    )


def test_weights_are_read_once_for_previews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS).use("slerp", t=0.1)
    session.preview()

    def refuse(self: Any, name: str) -> Any:
        raise AssertionError(f"{name} is read again")

    with monkeypatch.context() as patch:
        patch.setattr(FileInput, "reader", refuse)
        assert session.use("karcher").preview()["embed.weight"].norm is not None
        assert "karcher" in session.explain("embed.weight")


def test_the_preview_reads_well(session: MergeSession) -> None:
    text = str(session.preview())
    assert text.splitlines()[0] == (
        "11 changed by both, 1 changed alike, 1 changed by theirs, 1 changed by ours, 1 equal"
    )
    assert re.search(r"^\? embed.weight +changed by both +ours +cos [+-]0\.\d\d  conflict +\d+%", text, re.M)
    assert re.search(r"^  layers.1.bias +changed by theirs +theirs +moved \d", text, re.M)
    session.use("slerp")
    assert re.search(r"^  embed.weight +changed by both +slerp +cos .* moved \d", str(session.preview()), re.M)


def test_explanations_have_the_numbers_in_them(session: MergeSession) -> None:
    text = session.use("linear", weight={"ours": 1, "theirs": 3}).explain("embed.weight")
    assert "changed by both" in text
    assert "= 0.25 ours + 0.75 theirs" in text
    assert re.search(r"norm \d.*; distance .* to original, .* to ours, .* to theirs", text)
    text = session.use("task_arithmetic", weight={"theirs": -0.5}).explain("embed.weight")
    assert "= original + 1 (ours - original) - 0.5 (theirs - original)" in text
    assert "2306.01708" in session.use("ties").explain("embed.weight")
    assert "= theirs  (changed by theirs)" in session.explain("layers.1.bias")


# --- results ----------------------------------------------------------------------------------------------------------


def counting(session: MergeSession, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parameters that are computed from now on."""
    seen: list[str] = []
    produce = session.kitchen.produce

    def counted(decision: Any, *rest: Any) -> None:
        seen.append(decision.unit.name)
        produce(decision, *rest)

    monkeypatch.setattr(session.kitchen, "produce", counted)
    return seen


def test_only_what_was_chosen_anew_is_computed_again(session: MergeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.use("ties", density=0.5)
    into = {name: np.zeros_like(x) for name, x in BASE.items()}
    addresses = {name: x.ctypes.data for name, x in into.items()}
    seen = counting(session, monkeypatch)
    session.materialize(into)
    assert set(seen) == set(BASE)
    seen.clear()
    session.materialize(into)
    assert seen == []
    session.override("layers.1.attn.weight", "theirs")
    session.materialize(into)
    assert seen == ["layers.1.attn.weight"]
    assert np.array_equal(into["layers.1.attn.weight"], THEIRS["layers.1.attn.weight"])
    assert {name: x.ctypes.data for name, x in into.items()} == addresses
    seen.clear()
    other = {name: np.zeros_like(x) for name, x in BASE.items()}
    session.materialize(other)
    assert set(seen) == set(BASE), "another model starts from nothing"


@pytest.mark.parametrize("method", ["linear", "ties", "sce", "dare_ties"])
@pytest.mark.parametrize("form", ["memory", "safetensors"])
def test_filling_a_model_allocates_no_tensor(tmp_path: Path, form: str, method: str) -> None:
    """NumPy tells tracemalloc of its memory, torch shows where its own lies: neither grows by a tensor."""
    random = np.random.default_rng(0)
    base = {f"layers.{k}.w": random.standard_normal((4096, 1024), dtype=np.float32) for k in range(4)}
    mine, other = ({n: x + np.float32(0.1) * x[::s] for n, x in base.items()} for s in (1, -1))
    net = torch.nn.ParameterDict({name.replace(".", "_"): torch.zeros(4096, 1024) for name in base})
    into = {name: net[name.replace(".", "_")].data for name in base}
    before = {name: (x.data_ptr(), x.untyped_storage().nbytes()) for name, x in into.items()}
    session = session_of(tmp_path, form, base, mine, other)
    session.use(method, **({"weight": {"ours": 0.2}} if method == "linear" else {"density": 0.5}))
    session.materialize(into)
    first = {name: x.clone() for name, x in into.items()}
    session.use(method, **({"weight": {"theirs": 0.2}} if method == "linear" else {"density": 0.4}))
    tracemalloc.start()
    session.materialize(into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not any(torch.equal(first[name], x) for name, x in into.items()), "all were filled anew"
    assert {name: (x.data_ptr(), x.untyped_storage().nbytes()) for name, x in into.items()} == before
    assert peak < base["layers.0.w"].nbytes, "the blocks of two threads, less than one of four tensors"


def test_a_torch_module_is_filled_in_place(session: MergeSession, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    states = []
    for seed in range(3):
        torch.manual_seed(seed)
        states.append({name: x.clone() for name, x in net.state_dict().items()})
        for x in states[-1].values():
            if x.is_floating_point():
                x.normal_()
    states[1]["1.num_batches_tracked"] = torch.tensor(5)
    states[2]["1.num_batches_tracked"] = torch.tensor(7)
    merge = session_of(tmp_path, "memory", *states).use("task_arithmetic", scale=0.5)
    weight = net[0].weight
    assert merge.materialize(net) is net
    assert net[0].weight is weight
    base, mine, other = (s["0.weight"] for s in states)
    torch.testing.assert_close(weight.detach(), base + 0.5 * ((mine - base) + (other - base)))
    torch.testing.assert_close(net[1].running_var, (states[1]["1.running_var"] + states[2]["1.running_var"]) / 2)
    assert int(net[1].num_batches_tracked) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("embed.weight"), "no parameter 'embed.weight'"),
        (lambda d: d.update({"embed.weight": np.zeros((2, 2), np.float32)}), "in the model, and float32"),
        (lambda d: d.update({"embed.weight": np.zeros((30, 8))}), "float64"),
        (lambda d: d["embed.weight"].setflags(write=False), "read-only"),
    ],
)
def test_a_model_that_does_not_fit_is_left_alone(session: MergeSession, change: Any, message: str) -> None:
    into = {name: np.zeros_like(x) for name, x in BASE.items()}
    change(into)
    with pytest.raises(MergeError, match=message):
        session.use("linear").materialize(into)
    assert not any(x.any() for x in into.values())


def test_arrays_that_were_handed_out_do_not_change(session: MergeSession) -> None:
    first = session.use("linear").arrays()
    kept = first["embed.weight"].copy()
    session.use("theirs").arrays()
    assert np.array_equal(first["embed.weight"], kept)


@pytest.mark.parametrize("form", ["safetensors", "objects"])
def test_a_written_file_is_the_result_in_the_form_of_ours(tmp_path: Path, form: str) -> None:
    session = session_of(tmp_path, form, BASE, OURS, THEIRS).use("ties", density=0.4)
    path = tmp_path / "merged.safetensors"
    session.write(str(path))
    made = session.arrays()
    loaded = load_file(path)
    assert all(np.array_equal(loaded[name], x) for name, x in made.items())
    ours = (tmp_path / "ours.safetensors").read_bytes()
    assert path.read_bytes()[:8] == ours[:8]
    length = 8 + int.from_bytes(ours[:8], "little")
    assert path.read_bytes()[:length] == ours[:length], "metadata and order are kept"
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".theta")]


def test_a_pytorch_file_keeps_everything_that_is_no_tensor(tmp_path: Path) -> None:
    states = [{"model": torch_state(x), "epoch": k, "tied": None} for k, x in enumerate((BASE, OURS, THEIRS))]
    for state in states:
        state["tied"] = state["model"]["embed.weight"]
    session = session_of(tmp_path, "pytorch", *states).use("linear")
    path = tmp_path / "merged.pt"
    session.write(str(path))
    loaded = torch.load(path, weights_only=True)  # checks the archive's checksums, too
    assert loaded["epoch"] == 1
    assert loaded["tied"].data_ptr() == loaded["model"]["embed.weight"].data_ptr()
    mean = torch.from_numpy(expected("linear", "embed.weight"))
    assert torch.equal(loaded["model"]["embed.weight"], mean)
    import zipfile

    assert zipfile.ZipFile(path).testzip() is None


def test_a_result_with_other_tensors_is_written_anew(tmp_path: Path) -> None:
    ours = {name: x for name, x in OURS.items() if name != "norm.weight"}
    theirs = {**THEIRS, "extra": np.ones(3, np.float32), "norm.weight": BASE["norm.weight"]}
    theirs["embed.weight"] = np.concatenate([THEIRS["embed.weight"], np.ones((2, 8), np.float32)])
    session = session_of(tmp_path, "safetensors", BASE, ours, theirs).use("linear")
    path = tmp_path / "merged.safetensors"
    session.write(str(path))
    loaded = load_file(path)
    assert loaded.keys() == (BASE.keys() | {"extra"}) - {"norm.weight"}
    assert loaded["embed.weight"].shape == (32, 8)
    assert (loaded["embed.weight"][30:] == 1).all()
    assert all(np.array_equal(loaded[name], x) for name, x in session.arrays().items())


@pytest.mark.parametrize("method", ["ties", "slerp", "dare_ties", "sce", "della"])
def test_memory_does_not_grow_with_the_model(tmp_path: Path, method: str) -> None:
    random = np.random.default_rng(0)
    peaks = []
    for count in (4, 24):
        base = {f"layers.{k}.w": random.standard_normal((512, 512)).astype(np.float32) for k in range(count)}
        mine, other = ({n: x + np.float32(0.1) * x[::s] for n, x in base.items()} for s in (1, -1))
        folder = tmp_path / str(count)
        folder.mkdir()
        # One thread: whether two are at their peaks at the same moment is chance, and makes twice as much.
        with ThreadPoolExecutor(1) as executor:
            session = session_of(folder, "safetensors", base, mine, other, executor=executor).use(method)
            tracemalloc.start()
            session.write(str(folder / "merged.safetensors"))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 6 * 2**20, "the result alone grew by 20 MB; histograms are remembered"
    assert peaks[1] < 16 * 2**20, "less than the result alone, which has 24 MB"


def test_the_result_can_replace_an_input(tmp_path: Path) -> None:
    session = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS).use("linear")
    session.write(str(tmp_path / "ours.safetensors"))
    loaded = load_file(tmp_path / "ours.safetensors")
    assert np.array_equal(loaded["embed.weight"], expected("linear", "embed.weight"))
    made = session.use("slerp", t=0.2).arrays()
    assert np.array_equal(made["embed.weight"], expected("slerp", "embed.weight", t=0.2)), "the session still has ours"


def test_a_failed_write_leaves_the_old_file(session: MergeSession, tmp_path: Path) -> None:
    path = tmp_path / "merged.safetensors"
    path.write_bytes(b"old")
    session.use("linear")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.write(str(path), progress=stop)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["merged.safetensors"]


def test_a_file_that_is_cut_short_meanwhile_is_named(tmp_path: Path) -> None:
    session = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS).use("linear")
    (tmp_path / "theirs.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"theirs.safetensors: the file was cut short"):
        session.arrays()


def test_a_file_that_is_written_to_meanwhile_is_named(tmp_path: Path) -> None:
    session = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS).use("linear")
    path = tmp_path / "theirs.safetensors"
    with open(path, "r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")
    for use in (session.arrays, lambda: session.write(str(tmp_path / "x.safetensors"))):
        with pytest.raises(CheckpointError, match=r"theirs.safetensors was changed while it was merged"):
            use()
    assert not (tmp_path / "x.safetensors").exists()


def test_conflicts_have_to_be_settled_before_the_result_is_kept(tmp_path: Path) -> None:
    theirs = {name: x for name, x in THEIRS.items() if name != "norm.weight"}
    session = session_of(tmp_path, "safetensors", BASE, OURS, theirs).use("linear")
    assert session.open == ("norm.weight",)
    assert np.array_equal(session.arrays()["norm.weight"], OURS["norm.weight"])
    with pytest.raises(MergeError, match=r"norm.weight"):
        session.write(str(tmp_path / "x.safetensors"))
    session.override("norm.weight", "theirs").write(str(tmp_path / "x.safetensors"))
    assert "norm.weight" not in load_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_are_computed_wide_and_rounded_once(tmp_path: Path, dtype: str) -> None:
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    states = [{name: x.astype(kind) for name, x in state.items()} for state in (BASE, OURS, THEIRS)]
    made = session_of(tmp_path, "safetensors", *states).use("ties", density=0.5).arrays()
    name = "layers.1.mlp.weight"
    direct = merge_tensors("ties", [states[1][name], states[2][name]], base=states[0][name], density=0.5)
    assert made[name].dtype == kind
    assert made[name].tobytes() == direct.tobytes()


def test_three_inputs_are_merged_at_once(tmp_path: Path) -> None:
    third = model(3, BASE)
    session = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS, third).use("ties", density=0.3)
    name = "embed.weight"
    direct = merge_tensors("ties", [OURS[name], THEIRS[name], third[name]], base=BASE[name], density=0.3)
    assert np.array_equal(session.arrays()[name], direct)
    with pytest.raises(MergeError, match="takes 2 inputs, and there are 3"):
        session.use("slerp")


def test_entries_can_be_ranked_over_the_whole_model(tmp_path: Path) -> None:
    small = {"a.weight": np.zeros(2, np.float32), "b.weight": np.zeros(2, np.float32)}
    mine = {"a.weight": np.array([10, 9], np.float32), "b.weight": np.array([1, 2], np.float32)}
    other = {name: np.float32(0.5) * x for name, x in mine.items()}
    session = session_of(tmp_path, "memory", small, mine, other).use("ties", density=0.5, scope="model")
    made = session.arrays()
    assert made["a.weight"].tolist() == [7.5, 6.75]
    assert made["b.weight"].tolist() == [0, 0]


def test_big_tensors_of_many_chunks_are_read_piece_by_piece(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    base = {"w": random.standard_normal((2100, 2500)).astype(np.float32)}
    mine, other = (
        {"w": base["w"] + np.float32(0.1) * random.standard_normal((2100, 2500)).astype(np.float32)} for _ in range(2)
    )
    for method in ("ties", "slerp"):
        made = session_of(tmp_path, "objects", base, mine, other).use(method).arrays()["w"]
        direct = merge_tensors(method, [mine["w"], other["w"]], base=base["w"])
        assert np.array_equal(made, direct)


def test_statistics_given_as_checkpoints(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    known = [StateInput(f"fisher {k}", {n: random.random(x.shape) for n, x in BASE.items()}) for k in range(2)]
    session = session_of(tmp_path, "memory", BASE, OURS, THEIRS, statistics=known).use("fisher")
    name = "embed.weight"
    a, b = (source._flat[name].view(np.float64).reshape(30, 8) for source in known)
    close = (a * OURS[name] + b * THEIRS[name]) / (a + b)
    assert np.allclose(session.arrays()[name], close, rtol=1e-5)


def test_tensors_that_are_tied_stay_one_tensor(tmp_path: Path) -> None:
    states = [torch_state(x) for x in (BASE, OURS, THEIRS)]
    for state in states:
        state["head.weight"] = state["embed.weight"]
        state["first"] = state["embed.weight"][:2]
    made = session_of(tmp_path, "pytorch", *states).use("linear").state_dict()
    assert made["head.weight"].data_ptr() == made["embed.weight"].data_ptr()
    assert torch.equal(made["first"], made["embed.weight"][:2])


def test_labels_must_differ_and_inputs_exist(tmp_path: Path) -> None:
    one = as_safetensors(tmp_path, "ours", BASE)
    with pytest.raises(MergeError, match="called alike"):
        MergeSession(None, [one, one])
    with pytest.raises(MergeError, match="at least one"):
        MergeSession(None, [])
    (tmp_path / "notes.txt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="no checkpoint that can be merged"):
        FileInput("x", tmp_path / "notes.txt")
