"""Previews of every method: predicted, estimated, and weighed against the result itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.engine.merging.checkpoints import State, model, session_of
from theta_nb.engine.merging.computing import Kitchen
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError
from theta_nb.merges.table import METHODS, method_named
from theta_nb.merges.tensors import merge_tensors

OTHERS = [name for name in METHODS.names() if not METHODS[name].gram]
SAMPLED = [name for name in OTHERS if METHODS[name].sample]
PARENTS = ("original", "ours", "theirs")


def given(path: Path, method: str, *states: State) -> MergeSession:
    """A session over states in memory, with statistics of the data for the methods that need them."""
    known = []
    if method in ("fisher", "regmean"):
        # Inner products have other shapes than most tensors; those without any are averaged.
        fits = {n: x for n, x in states[1].items() if method == "fisher"}
        known = [StateInput(f"statistics {k}", {n: np.full_like(x, 1 + k) for n, x in fits.items()}) for k in range(2)]
    return session_of(path, "memory", *states, statistics=known)


def inputs_of(method: str) -> int:
    return 1 if METHODS[method].inputs[1] == 1 else 2


def large(rows: int = 400, columns: int = 300) -> list[State]:
    """Tensors of which only a part is sampled: heavy tails, and rows that differ in how far they went."""
    random = np.random.default_rng(7)
    base = {f"layers.{k}.w": 0.02 * random.standard_normal((rows, columns)) for k in range(3)}
    base["layers.0.bias"] = random.standard_normal(columns)

    def tuned() -> State:
        changes = {
            n: random.standard_t(4, x.shape) * np.exp(0.5 * random.standard_normal(x.shape[:1] + (1,) * (x.ndim - 1)))
            for n, x in base.items()
        }
        return {n: (x + 0.002 * changes[n]).astype(np.float32) for n, x in base.items()}

    return [{n: x.astype(np.float32) for n, x in base.items()}, tuned(), tuned()]


LARGE, SMALL = large(), large(40, 30)


@pytest.fixture
def session(tmp_path: Path) -> MergeSession:
    return session_of(tmp_path, "memory", *LARGE)


def direct(made: np.ndarray, name: str, states: list[State] = LARGE) -> tuple[float, list[float]]:
    """Norm and distances of a result, by their definition."""
    wide = made.astype(np.float64)
    return float(np.linalg.norm(wide)), [float(np.linalg.norm(wide - x[name].astype(np.float64))) for x in states]


@pytest.mark.parametrize("method", [*OTHERS, "lines:ties", "lines:dare_linear"])
def test_exact_previews_are_the_lengths_of_the_result(tmp_path: Path, method: str) -> None:
    states = [model(0), model(1, model(0)), model(2, model(0))]
    session = session_of(tmp_path, "safetensors", *states)
    if method in ("regmean", "fisher"):
        session = given(tmp_path, method, *states)
    preview = session.use(method).preview(exact=True)
    made = session.arrays()
    for index, name in enumerate(preview.names):
        norm, distances = direct(made[name], name, states)
        row = preview[name]
        assert not row.estimated
        assert row.norm == pytest.approx(norm, rel=1e-5)
        assert row.distances == pytest.approx(distances, rel=1e-4, abs=1e-5)
        assert preview.lengths.norms[index] == row.norm
        assert tuple(preview.lengths.distances[index]) == row.distances
    assert preview.parents == PARENTS


@pytest.mark.parametrize("method", SAMPLED)
def test_estimates_are_near_and_say_what_they_are(tmp_path: Path, method: str) -> None:
    session = given(tmp_path, method, *LARGE)
    quick = session.use(method).preview()
    exact = session.preview(exact=True)
    for name in LARGE[0]:
        row, truth = quick[name], exact[name]
        assert truth.norm is not None
        assert truth.distances is not None
        assert not truth.estimated
        assert row.norm == pytest.approx(truth.norm, rel=0.01)
        # In units of how far the models went: a result may coincide with one of them.
        unit = max(float(np.linalg.norm(x[name] - LARGE[0][name])) for x in LARGE[1:])
        assert row.distances == pytest.approx(truth.distances, abs=0.25 * unit)
        assert row.estimated == (name != "layers.0.bias"), "what is small is taken whole"
    assert "moved about " in str(quick)
    assert "about" not in str(exact)


def test_an_estimate_is_exact_where_the_result_is_a_combination(session: MergeSession) -> None:
    quick = session.use("passthrough", scale=0.5).preview()["layers.1.w"]
    assert quick.estimated
    norm, distances = direct(LARGE[1]["layers.1.w"] * np.float32(0.5), "layers.1.w")
    assert quick.norm == pytest.approx(norm, rel=1e-6)
    assert quick.distances == pytest.approx(distances, rel=1e-5)


def test_estimates_are_the_same_again_and_follow_the_density(tmp_path: Path) -> None:
    first, second = (session_of(tmp_path, "memory", *LARGE).use("ties", density=0.1) for _ in range(2))
    assert first.preview().rows == second.preview().rows
    for density in (0.02, 0.2, 0.7):
        first.use("ties", density=density)
        quick, exact = (first.preview(exact=exact)["layers.0.w"].distances for exact in (False, True))
        assert quick == pytest.approx(exact, rel=0.1)


def test_samples_without_statistics_are_not_taken_for_such_with_them(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    known = [StateInput(f"fisher {k}", {n: random.random(x.shape) for n, x in LARGE[0].items()}) for k in range(2)]
    fresh = session_of(tmp_path, "memory", *LARGE, statistics=known).use("fisher").preview()
    after = session_of(tmp_path, "memory", *LARGE, statistics=known).use("ties", density=0.3)
    after.preview()
    assert after.use("fisher").preview().rows == fresh.rows


def test_samples_are_those_of_the_estimates(session: MergeSession) -> None:
    names = [*LARGE[0], "layers.0.w"]
    assert session.samples(names) == {}, "nothing is measured"
    session.use("ties", density=0.3).preview()
    found = session.samples(names)
    assert list(found) == list(LARGE[0])
    assert all(found[name] is session.kitchen.samples[name, "entries", ""] for name in found)
    assert session.samples(["layers.1.w"])["layers.1.w"].share == 400 * 300 / 4096


def test_trimming_over_the_model_is_estimated_over_all_samples(session: MergeSession) -> None:
    quick = session.use("ties", density=0.2, scope="model").preview()
    exact = session.preview(exact=True)
    for name in ("layers.0.w", "layers.1.w", "layers.2.w"):
        assert quick[name].estimated
        assert quick[name].distances == pytest.approx(exact[name].distances, rel=0.1)  # type: ignore[arg-type]
    assert session.use("ties", density=0.0, scope="model").preview()["layers.0.w"].distances[0] < 1e-6  # type: ignore[index]


def test_decompositions_are_known_only_when_asked_for(tmp_path: Path) -> None:
    session = session_of(tmp_path, "memory", *SMALL)
    preview = session.use("iso_c").preview()
    assert not preview.lengths.known.any()
    assert np.isnan(preview.lengths.norms).all()
    assert preview["layers.0.w"].norm is None
    assert session.preview(exact=True).lengths.known.all()
    assert session.preview().lengths.known.all(), "what was computed is remembered"


@pytest.mark.parametrize("axis", ["row", "column"])
@pytest.mark.parametrize("method", ["nuslerp", "lines:nuslerp", "model_stock", "lines:model_stock"])
def test_methods_by_rows_are_predicted_exactly(session: MergeSession, method: str, axis: str) -> None:
    preview = session.use(method, axis=axis).preview()
    made = session.arrays()
    for each in LARGE[0]:
        norm, distances = direct(made[each], each)
        assert not preview[each].estimated
        assert preview[each].norm == pytest.approx(norm, rel=1e-5)
        assert preview[each].distances == pytest.approx(distances, rel=1e-4, abs=1e-5)


def test_only_what_was_chosen_anew_is_weighed_again(session: MergeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    weigh = Kitchen.weigh

    def counted(self: Kitchen, decision: Any, *rest: Any) -> Any:
        seen.append(decision.unit.name)
        return weigh(self, decision, *rest)

    monkeypatch.setattr(Kitchen, "weigh", counted)
    session.use("ties", density=0.3).preview(exact=True)
    assert sorted(seen) == sorted(LARGE[0])
    seen.clear()
    session.override("layers.1.w", "ties", density=0.5)
    assert session.preview(exact=True)["layers.1.w"].estimated is False
    assert seen == ["layers.1.w"]
    seen.clear()
    assert not session.preview().lengths.estimated.any(), "exact numbers are kept while they hold"
    assert session.override("layers.1.w", "ties", density=0.6).preview()["layers.1.w"].estimated
    assert seen == []


def test_weighing_can_be_given_up_and_goes_on_where_it_was(session: MergeSession) -> None:
    session.use("ties", density=0.3).measure()

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.preview(exact=True, progress=stop)
    told: list[tuple[int, int]] = []
    preview = session.preview(exact=True, progress=lambda done, total: told.append((done, total)))
    assert not preview.lengths.estimated.any()
    assert all(total < len(LARGE[0]) for _, total in told), "at least the largest was done"


def test_giving_up_ends_within_a_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = 0
    monkeypatch.setattr("theta_nb.merges.group.BLOCK", 64)
    session = session_of(tmp_path, "memory", *LARGE).use("ties", density=1.0).measure()
    session.override("layers.[12].w", "ours")

    class Counted:
        def __init__(self, reader: Any) -> None:
            self._reader = reader

        def read(self, start: int, stop: int, /) -> Any:
            nonlocal blocks
            blocks += 1
            return self._reader.read(start, stop)

    monkeypatch.setattr("theta_nb.engine.merging.working._BEAT", 0.001)
    monkeypatch.setattr("theta_nb.engine.merging.computing._Latest", Counted)

    def stop(done: int, total: int) -> None:
        if blocks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.preview(exact=True, progress=stop)
    assert 0 < blocks < 3 * 2 * LARGE[0]["layers.0.w"].size // 64, "it was not walked to its end"


def test_a_resized_embedding_has_a_norm_and_no_distances(tmp_path: Path) -> None:
    states = [model(0), model(1, model(0)), model(2, model(0))]
    states[2]["embed.weight"] = np.concatenate([states[2]["embed.weight"], np.ones((2, 8), np.float32)])
    session = session_of(tmp_path, "memory", *states).use("ties", density=0.5)
    assert session.preview()["embed.weight"].norm is None
    row = session.preview(exact=True)["embed.weight"]
    assert row.norm == pytest.approx(np.linalg.norm(session.arrays()["embed.weight"].astype(np.float64)))
    assert row.distances is None
    assert re_line("embed.weight", str(session.preview(exact=True)))


def re_line(name: str, text: str) -> str:
    return next(line for line in text.splitlines() if name in line)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "complex64"])
def test_every_dtype_is_weighed_and_sampled(tmp_path: Path, dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    base, ours, theirs = ({"w": x["layers.0.w"].astype(kind)} for x in LARGE)
    if kind.kind == "c":
        for k, x in enumerate((base, ours, theirs)):
            x["w"] = (x["w"] + 1j * LARGE[k]["layers.1.w"]).astype(kind)
    session = MergeSession(StateInput("o", base), [StateInput("a", ours), StateInput("b", theirs)])
    quick = session.use("ties", density=0.3, scope="model").preview()["w"]
    exact = session.preview(exact=True)["w"]
    assert quick.estimated
    assert quick.distances == pytest.approx(exact.distances, rel=0.1)  # type: ignore[arg-type]


def test_nan_is_said_and_spoils_nothing_else(tmp_path: Path) -> None:
    states = [{name: x.copy() for name, x in state.items()} for state in LARGE]
    states[1]["layers.0.w"][:] = np.nan
    session = session_of(tmp_path, "memory", *states).use("ties", density=0.3)
    for exact in (False, True):
        preview = session.preview(exact=exact)
        assert np.isnan(preview["layers.0.w"].norm)  # type: ignore[arg-type]
        assert np.isfinite(preview["layers.1.w"].norm)  # type: ignore[arg-type]
    assert "nan" in session.explain("layers.0.w")
    json.dumps(session.preview().to_dict(), allow_nan=False)


def test_an_input_that_lacks_a_parameter_has_no_distance(tmp_path: Path) -> None:
    third = {name: x for name, x in model(5, model(0)).items() if name != "norm.weight"}
    states = [model(0), model(1, model(0)), model(2, model(0)), third]
    session = session_of(tmp_path, "memory", *states).override("norm.weight", "linear")
    preview = session.use("linear").preview()
    index = preview.names.index("norm.weight")
    assert np.isnan(preview.lengths.distances[index]).tolist() == [False, False, False, True]
    assert len(preview["norm.weight"].distances) == 3  # type: ignore[arg-type]
    assert preview.relations.cosines.shape == (len(preview), 3)
    assert np.isnan(preview.relations.cosines[index]).tolist() == [False, True, True]


# --- explanations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", OTHERS)
def test_every_method_explains_itself_with_numbers(tmp_path: Path, method: str) -> None:
    session = given(tmp_path, method, *SMALL)
    text = session.use(method).explain("layers.0.w")
    norm, distances = direct(session.arrays()["layers.0.w"], "layers.0.w", SMALL)
    line = text.splitlines()[-1]
    assert line.startswith(f"  norm {norm:.3g}"[:9])
    assert f" {distances[0]:.4g}"[:5] in line
    assert " to original, " in line
    assert line.endswith(" to theirs")
    assert any(row.startswith("  ≈ ") for row in text.splitlines())


def test_explanations_name_the_nearest_combination(session: MergeSession) -> None:
    session.use("passthrough", scale=0.5)
    assert "\n  ≈ 0.5 ours\n" in session.explain("layers.0.w")
    assert "\n  ≈ original + 1 (ours - original)\n" in session.use("passthrough").explain("layers.0.w")
    text = session.use("ties", density=0.2).explain("layers.0.w")
    assert "of the change that no combination gives" in text
    quick = session.use("ties", density=0.25).explain("layers.0.w", exact=False)
    assert "norm about " in quick
    assert "distance about " in quick
    assert "weights: 0.4" in session.use("sce").explain("layers.0.w") or "weights: 0.5" in session.explain("layers.0.w")


# --- Gram matrices ----------------------------------------------------------------------------------------------------


def test_gram_matrices_are_enough_for_a_preview_of_ones_own(session: MergeSession) -> None:
    grams = session.gram()
    preview = session.use("linear", weight={"ours": 1, "theirs": 3}).preview()
    assert grams.matrices.shape == (len(LARGE[0]), 3, 3)
    assert grams.matrices.dtype == np.float64
    assert grams.labels == ("ours", "theirs")
    v = np.array([1, 0.25, 0.75])
    norms = np.sqrt(np.einsum("i,nij,j->n", v, grams.matrices, v))
    away = v - [1, 1, 0]
    from_ours = np.sqrt(np.einsum("i,nij,j->n", away, grams.matrices, away))
    order = [preview.names.index(name) for name in grams.names]
    np.testing.assert_allclose(norms, preview.lengths.norms[order])
    np.testing.assert_allclose(from_ours, preview.lengths.distances[order, 1])
    assert session.gram(["layers.1.w"]).names == ("layers.1.w",)
    with pytest.raises(MergeError, match=r"Did you mean 'layers.1.w'"):
        session.gram(["layers.1.v"])


def test_gram_matrices_say_who_lacks_a_parameter_and_what_is_equal(tmp_path: Path) -> None:
    base, ours, theirs = model(0), model(1, model(0)), model(2, model(0))
    ours["extra"] = theirs["alone"] = np.ones(3, np.float32)
    ours["norm.weight"] = theirs["norm.weight"] = base["norm.weight"]
    grams = session_of(tmp_path, "memory", base, ours, theirs).gram()
    assert "norm.weight" not in grams.names
    place = grams.names.index("alone")
    assert np.isnan(grams.matrices[place]).tolist() == [[False, True, False], [True] * 3, [False, True, False]]
    assert not grams.has_base[place]
    assert grams.has_base[grams.names.index("embed.weight")]
    with pytest.raises(MergeError, match="nothing is measured"):
        session_of(tmp_path, "memory", base, ours, theirs).gram(["norm.weight"])


def test_the_method_table_knows_what_can_be_sampled() -> None:
    for name in OTHERS:
        method = method_named(name)
        assert method.sample in ("", "entries", "rows")
        assert method_named(f"lines:{name}").sample == method.sample
        if method.matrices:
            assert not method.sample
    assert merge_tensors("ties", [[1.0]], base=[0.0]).tolist() == [1.0]
