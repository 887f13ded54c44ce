"""The shared methods give the numbers of mergekit 0.1.5, an independent implementation.

Where the results differ on purpose, the reference is the definition in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.merges import references
from theta_nb.merges.draws import Draws
from theta_nb.merges.tensors import merge_tensors

torch = pytest.importorskip("torch")
mergekit: Callable[..., Any] = pytest.importorskip("mergekit.merge_methods").merge_tensors

Arrays = list[np.ndarray]

SHAPES = [(7,), (33, 17), (5, 4, 3), (1, 9), (9, 1)]


def random_tensors(shape: tuple[int, ...], count: int, seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    base = random.standard_normal(shape)
    return [x.astype(np.float32) for x in (base, *(base + 0.4 * random.standard_normal(shape) for _ in range(count)))]


def adversarial(shape: tuple[int, ...], count: int) -> dict[str, Arrays]:
    """Tensors that expose shortcuts: ties, zeros, one-sided changes, opposites, ranges from 1e-6 to 1e6."""
    base, *inputs = random_tensors(shape, count, 5)
    random = np.random.default_rng(6)
    signs = [np.float32(1 if k % 2 else -1) for k in range(count)]
    spread = (10.0 ** random.uniform(-6, 6, shape)).astype(np.float32)
    return {
        "equal magnitudes": [np.zeros_like(base), *(np.sign(x).astype(np.float32) for x in inputs)],
        "one changed": [base, inputs[0], *[base] * (count - 1)],
        "nothing changed": [base] * (count + 1),
        "zeros": [np.zeros_like(base)] * (count + 1),
        "zero base": [np.zeros_like(base), *inputs],
        "wide range": [base * spread, *(x * spread for x in inputs)],
        "nearly parallel": [base, *(base * np.float32(1 + 1e-3 * k) for k in range(1, count + 1))],
        "opposite": [base, *(base + s * inputs[0] for s in signs)],
        "coarse": [np.round(x * 2) / 2 for x in (base, *inputs)],
    }


CASES = [
    *((f"{shape} x{count}", random_tensors(shape, count)) for shape in SHAPES for count in (2, 3)),
    *(item for shape in [(33, 17), (64,)] for count in (2, 3) for item in adversarial(shape, count).items()),
]


def oracle(method: str, arrays: Arrays, base: bool, dtype: Any, **parameters: Any) -> np.ndarray:
    tensors = [torch.from_numpy(np.array(x, dtype)) for x in (arrays if base else arrays[1:])]
    index = 0 if base or method == "slerp" else None  # there the base is the first of two
    made: np.ndarray = mergekit(tensors, method, base_index=index, parameters=parameters).numpy()
    return made


def agree(ours: np.ndarray, theirs: np.ndarray, arrays: Arrays, *, election: bool = False) -> None:
    """Equal to float32 rounding: a few units in the last place of the largest number that takes part.

    Where signs are elected, entries whose sum is nothing but rounding may go either way.
    """
    size = np.max(np.abs(np.stack(arrays)), axis=0)
    allowed = 1e-6 * size + 1e-6 * np.abs(theirs) + 1e-12
    if election:
        deltas = [x.astype(np.float64) - arrays[0] for x in arrays[1:]]
        allowed[np.abs(sum(deltas)) <= 1e-6 * size] = np.inf
    np.testing.assert_array_less(np.abs(ours.astype(float) - theirs), allowed)


def counted(arrays: Arrays, low: int, high: int) -> bool:
    return low <= len(arrays) - 1 <= high


# our method and parameters, mergekit's, with a base, least and most inputs
SHARED: list[tuple[str, dict[str, Any], str, dict[str, Any], bool, tuple[int, int]]] = [
    ("linear", {}, "linear", {"weight": 1.0}, False, (2, 9)),
    ("linear", {"weight": 0.7, "normalize": False}, "linear", {"weight": 0.7, "normalize": False}, False, (2, 9)),
    ("slerp", {"t": 0.3}, "slerp", {"t": 0.3}, False, (2, 2)),
    ("nuslerp", {"weight": 0.5}, "nuslerp", {"weight": 0.5}, False, (2, 2)),
    ("nuslerp", {"space": "task"}, "nuslerp", {"weight": 1.0}, True, (2, 2)),
    ("nuslerp", {"axis": "row"}, "nuslerp", {"weight": 1.0, "nuslerp_flatten": False}, False, (2, 2)),
    (
        "nuslerp",
        {"axis": "column"},
        "nuslerp",
        {"weight": 1.0, "nuslerp_flatten": False, "nuslerp_row_wise": True},
        False,
        (2, 2),
    ),
    ("multislerp", {}, "multislerp", {"weight": 1.0}, False, (2, 9)),
    ("multislerp", {"space": "task"}, "multislerp", {"weight": 1.0}, True, (2, 9)),
    ("karcher", {}, "karcher", {}, False, (2, 9)),
    ("task_arithmetic", {"weight": 0.6}, "task_arithmetic", {"weight": 0.6}, True, (2, 9)),
    (
        "task_arithmetic",
        {"normalize": True, "scale": 1.5},
        "task_arithmetic",
        {"weight": 1.0, "normalize": True, "lambda": 1.5},
        True,
        (2, 9),
    ),
    ("ties", {"density": 0.3}, "ties", {"weight": 1.0, "density": 0.3}, True, (2, 9)),
    ("ties", {"weight": 0.4, "normalize": False}, "ties", {"weight": 0.4, "normalize": False}, True, (2, 9)),
    (
        "breadcrumbs",
        {"density": 0.6, "gamma": 0.1},
        "breadcrumbs",
        {"weight": 1.0, "density": 0.6, "gamma": 0.1},
        True,
        (2, 9),
    ),
    (
        "breadcrumbs_ties",
        {"density": 0.6, "gamma": 0.1},
        "breadcrumbs_ties",
        {"weight": 1.0, "density": 0.6, "gamma": 0.1},
        True,
        (2, 9),
    ),
    ("dare_linear", {"density": 1.0}, "dare_linear", {"weight": 1.0, "density": 1.0}, True, (2, 9)),
    ("dare_ties", {"density": 1.0}, "dare_ties", {"weight": 1.0, "density": 1.0}, True, (2, 9)),
    ("della", {"density": 1.0}, "della", {"weight": 1.0, "density": 1.0}, True, (2, 9)),
    ("della_linear", {"density": 1.0}, "della_linear", {"weight": 1.0, "density": 1.0}, True, (2, 9)),
    ("model_stock", {}, "model_stock", {}, True, (2, 9)),
    ("model_stock", {"axis": "row"}, "model_stock", {"filter_wise": True}, True, (2, 9)),
    ("sce", {}, "sce", {}, True, (2, 9)),
    ("sce", {"density": 0.4}, "sce", {"select_topk": 0.4}, True, (2, 9)),
    ("ram", {}, "ram", {}, True, (1, 9)),
    ("ramplus", {"r": 0.3, "alpha": 2}, "ramplus_tl", {"r": 0.3, "alpha": 2.0}, True, (1, 9)),
    ("passthrough", {"scale": 0.5}, "passthrough", {"scale": 0.5}, False, (1, 1)),
]


SELECTING = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce")
ELECTING = ("ties", "breadcrumbs_ties", "dare_ties", "della", "sce")


@pytest.mark.parametrize(("case", "arrays"), CASES, ids=[f"{name}-{k}" for k, (name, _) in enumerate(CASES)])
@pytest.mark.parametrize("row", SHARED, ids=[f"{row[0]}-{k}" for k, row in enumerate(SHARED)])
def test_shared_methods_give_mergekits_numbers(row: Any, case: str, arrays: Arrays) -> None:
    ours, mine, theirs, parameters, base, (low, high) = row
    if high == 1:
        arrays = arrays[:2]
    if not counted(arrays, low, high) or (ours in SELECTING and case in WITH_TIES):
        return  # which of equal numbers mergekit selects depends on the sort: see the next test
    made = merge_tensors(ours, arrays[1:], base=arrays[0], **mine)
    if case == "opposite" and mine.get("space") == "task" and len(arrays) == 3:
        # Opposite to the last bits: the direction in which mergekit goes is that of the rounding. Ours is the average.
        agree(made, np.mean(arrays[1:], axis=0, dtype=np.float64), arrays)
        return
    if ours == "multislerp" and case in ("zeros", "nothing changed", "opposite") and len(arrays) > 3:
        assert np.isfinite(made).all()  # without a mean direction ours averages, and mergekit may give up
        return
    wide = oracle(theirs, arrays, base, np.float64, **parameters)
    agree(made, wide, arrays, election=ours in ELECTING)
    if case not in ("nearly parallel", "wide range", "opposite"):  # there mergekit's own float32 is off
        single = oracle(theirs, arrays, base, np.float32, **parameters)
        np.testing.assert_allclose(made, single, rtol=3e-5, atol=3e-6)


WITH_TIES = ("equal magnitudes", "coarse", "one changed", "opposite", "zeros", "nothing changed")


@pytest.mark.parametrize(
    ("case", "arrays"),
    [(name, x) for name, x in CASES if name in WITH_TIES],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_selection_among_equal_numbers_is_in_order(case: str, arrays: Arrays) -> None:
    base, *inputs = arrays
    election = case == "opposite"
    agree(
        merge_tensors("ties", inputs, base=base, density=0.3),
        references.ties(base, inputs, 0.3),
        arrays,
        election=election,
    )
    for name, vote in (("breadcrumbs", False), ("breadcrumbs_ties", True)):
        made = merge_tensors(name, inputs, base=base, density=0.6, gamma=0.1)
        agree(made, references.breadcrumbs(base, inputs, 0.6, 0.1, vote), arrays, election=election)
    for density in (0.4, 1.0):
        made = merge_tensors("sce", inputs, base=base, density=density)
        agree(made, references.sce(base, inputs, density), arrays, election=election)


PAIRS = [
    *((f"random {shape}", random_tensors(shape, 1, seed=8)) for shape in [(12, 8), (40,), (5, 4, 3), (1, 9), (9, 1)]),
    *((f"{name} {shape}", x) for shape in [(33, 17), (64,)] for name, x in adversarial(shape, 1).items()),
]


@pytest.mark.parametrize(("case", "arrays"), PAIRS, ids=[name for name, _ in PAIRS])
class TestMethodsOfTwo:
    """What mergekit does between a base and one model is between ours and theirs here."""

    def test_slerp(self, case: str, arrays: Arrays) -> None:
        made = merge_tensors("slerp", arrays, t=0.25)
        agree(made, oracle("slerp", arrays, True, np.float64, t=0.25), arrays)

    @pytest.mark.parametrize("t", [0.0, 1e-6, 0.2, 1.0])
    def test_nearswap(self, case: str, arrays: Arrays, t: float) -> None:
        """Also where both are equal, and where they are so near that all is swapped."""
        agree(merge_tensors("nearswap", arrays, t=t), oracle("nearswap", arrays, True, np.float64, t=t), arrays)

    def test_arcee_fusion(self, case: str, arrays: Arrays) -> None:
        base, x = arrays
        made = merge_tensors("arcee_fusion", [x], base=base)
        theirs = oracle("arcee_fusion", arrays, True, np.float64)
        importance, threshold = references.importance(base, x)
        near = np.abs(importance - threshold) <= 1e-6 * np.abs(threshold)
        kept = importance >= threshold
        np.testing.assert_array_equal(theirs[~near], np.where(kept, base + (x.astype(float) - base), base)[~near])
        agree(made[~near], theirs[~near], [y[~near] for y in arrays])
        # Of entries that matter equally all are kept or none.
        changed = near & (base != x)
        assert np.allclose(made[changed], x[changed]) or np.allclose(made[changed], base[changed])


def test_arcee_fusion_sees_the_small_divergences_of_a_fine_tune() -> None:
    """A change of a thousandth: in float32 the divergence of a row drowns in the rounding of its sum."""
    random = np.random.default_rng(3)
    base = (0.05 * random.standard_normal((64, 384))).astype(np.float32)
    rows = np.linspace(0.2, 2.0, 64)[:, None]
    x = (base + 5e-5 * rows * random.standard_normal(base.shape)).astype(np.float32)
    made = merge_tensors("arcee_fusion", [x], base=base)
    importance, threshold = references.importance(base, x)
    np.testing.assert_array_equal(made != base, (importance >= threshold) & (base != x))
    single = oracle("arcee_fusion", [base, x], True, np.float32)
    assert ((single != base) != (made != base)).mean() > 0.01, "mergekit's float32 picks others"


# --- random masks: mergekit is given ours -----------------------------------------------------------------------------


@pytest.fixture
def our_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mergekit draw what we draw: one tensor of probabilities for each input, in order."""
    position = 0

    def bernoulli(probabilities: Any) -> Any:
        nonlocal position
        drawn = Draws(4, "w", position).take(probabilities.numel()).reshape(tuple(probabilities.shape))
        position += 1
        # As float64: whoever draws in float32 rounds probabilities.
        return torch.from_numpy(drawn < probabilities.double().numpy() * 2.0**32).to(probabilities.dtype)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)


@pytest.mark.usefixtures("our_masks")
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(33, 17), (64,), (1, 9)], ids=str)
@pytest.mark.parametrize("rescale", ["l1", "none"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_random_methods_given_their_masks_give_mergekits_numbers(
    method: str, normalize: bool, rescale: str, shape: tuple[int, ...], count: int
) -> None:
    arrays = random_tensors(shape, count, seed=12)
    density, weights = [0.3, 0.6, 0.45][:count], [0.4, 1.1, 0.8][:count]
    common: dict[str, Any] = {"weight": weights, "density": density, "normalize": normalize}
    if "della" in method:
        common["epsilon"] = [0.1, 0.2, 0.15][:count]
    made = merge_tensors(method, arrays[1:], base=arrays[0], name="w", seed=4, rescale=rescale, **common)
    given = {**common, "rescale": rescale == "l1"}
    if count == 1:  # mergekit has no list of one
        given.update({key: value[0] for key, value in common.items() if isinstance(value, list)})
    theirs = oracle(method, arrays, True, np.float64, **given)
    assert (made == arrays[0]).any() or count > 1, "something is dropped"
    np.testing.assert_allclose(made, theirs, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("election", [False, True])
@pytest.mark.parametrize("case", ["coarse", "equal magnitudes", "one changed", "wide range", "zeros"])
@pytest.mark.parametrize("method", ["dare", "della"])
def test_random_methods_are_their_definition_given_the_masks(method: str, case: str, election: bool) -> None:
    """As the papers rescale, on numbers among which many are equal; masks and ranks are made here."""
    base, *inputs = adversarial((33, 17), 3)[case]
    densities, weights = [0.3, 0.6, 0.45], [0.4, 1.1, 0.8]
    vectors = []
    for k, x in enumerate(inputs):
        delta = x.astype(np.float64) - base
        if method == "dare":
            probability = np.full(delta.shape, densities[k])
        else:
            # Of equal magnitudes in a row the first has the lower rank.
            rank = np.argsort(np.argsort(np.abs(delta), axis=1, kind="stable"), axis=1)
            probability = densities[k] - 0.1 + 0.2 * rank / (delta.shape[1] - 1)
        kept = Draws(9, "w", k).take(delta.size).reshape(delta.shape) < probability * 2.0**32
        vectors.append(np.where(kept, delta / probability, 0))
    name = {"dare": ["dare_linear", "dare_ties"], "della": ["della_linear", "della"]}[method][election]
    options: dict[str, Any] = {"weight": weights, "density": densities, "seed": 9, "normalize": True, "name": "w"}
    made = merge_tensors(name, inputs, base=base, **options, **({"epsilon": 0.1} if method == "della" else {}))
    if election:
        merged = references.elected(vectors, weights, True)
    else:
        merged = sum(w * v for w, v in zip(weights, vectors, strict=True)) / sum(weights)
    size = np.max([np.abs(x) for x in (base, *inputs)], axis=0) / 0.2
    allowed = 2e-6 * size + 1e-12
    if election:
        allowed[np.abs(sum(w * v for w, v in zip(weights, vectors, strict=True))) <= 2e-6 * size] = np.inf
    np.testing.assert_array_less(np.abs(made - (base + merged)), allowed)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "task_arithmetic", "breadcrumbs"])
def test_each_input_has_its_own_weight(method: str) -> None:
    arrays = random_tensors((20, 10), 3)
    weights, density = [0.2, 0.5, 0.9], [0.3, 0.6, 1.0] if method in ("ties", "breadcrumbs") else [1.0, 1.0, 1.0]
    parameters: dict[str, Any] = {"weight": weights}
    if method != "task_arithmetic":
        parameters["density"] = density
    mine = merge_tensors(method, arrays[1:], base=arrays[0], **parameters)
    agree(mine, oracle(method, arrays, True, np.float64, **parameters), arrays)


# --- documented differences -------------------------------------------------------------------------------------------


def test_model_stock_is_the_papers_also_for_short_task_vectors() -> None:
    base, *inputs = random_tensors((6,), 3, seed=2)
    inputs = [base + np.float32(1e-4) * (x - base) for x in inputs]
    made = merge_tensors("model_stock", inputs, base=base)
    wide = [x.astype(np.float64) - base for x in inputs]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for k, a in enumerate(wide) for b in wide[k + 1 :]]
    c = np.mean(cosines)
    t = 3 * c / (1 + 2 * c)
    expected = base + t * np.mean(wide, axis=0)
    np.testing.assert_allclose(made, expected, rtol=1e-6)
    assert not np.allclose(oracle("model_stock", [base, *inputs], True, np.float64), expected, rtol=1e-7)


def test_sce_weights_models_by_their_energy_at_every_scale() -> None:
    base, *inputs = random_tensors((30, 20), 2, seed=3)
    weak, strong = base + np.float32(1e-4) * (inputs[0] - base), base + np.float32(4e-4) * (inputs[1] - base)
    made = merge_tensors("sce", [weak, strong], base=base).astype(np.float64)
    a, b = weak.astype(np.float64) - base, strong.astype(np.float64) - base
    wa, wb = (a**2).mean(), (b**2).mean()
    sign = np.where(a + b >= 0, 1, -1)
    votes = [np.where(np.sign(a) == sign, wa, 0), np.where(np.sign(b) == sign, wb, 0)]
    expected = base + (a * votes[0] + b * votes[1]) / np.maximum(votes[0] + votes[1], 1e-300)
    np.testing.assert_allclose(made, expected, atol=3e-7)
    assert np.abs(oracle("sce", [base, weak, strong], True, np.float64) - expected).max() > 1e-5


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_rescales_by_the_density_or_by_the_sums(density: float) -> None:
    base = np.zeros(20_000, np.float32)
    x = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    paper = merge_tensors("dare_linear", [x], base=base, density=density, name="w")
    kept = paper != 0
    np.testing.assert_allclose(paper[kept], x[kept] / density, rtol=1e-6)
    assert abs(kept.mean() - density) < 0.02
    sums = merge_tensors("dare_linear", [x], base=base, density=density, rescale="l1", name="w")
    assert np.array_equal(sums != 0, kept)
    assert abs(np.abs(sums).sum(dtype=float) / np.abs(x).sum(dtype=float) - 1) < 1e-6


def test_della_keeps_large_entries_more_often_and_does_not_mind_columns() -> None:
    rows = np.tile(np.arange(1, 101, dtype=np.float32), (2000, 1))
    kept = merge_tensors("della", [rows], base=np.zeros_like(rows), density=0.5, epsilon=0.2, rescale="none") != 0
    expected = 0.3 + 0.4 * np.arange(100) / 99
    assert np.abs(kept.mean(axis=0) - expected).max() < 0.05
    column = merge_tensors("della", [rows[:, :1]], base=np.zeros_like(rows[:, :1]))
    assert 0.4 < (column != 0).mean() < 0.6


def test_della_keeps_the_expectation() -> None:
    rows = np.tile(np.arange(1, 101, dtype=np.float32), (4000, 1))
    made = merge_tensors("della_linear", [rows], base=np.zeros_like(rows), density=0.5, epsilon=0.2)
    assert np.abs(made.mean(axis=0) / rows[0] - 1).max() < 0.12


@pytest.mark.parametrize("method", ["karcher", "nuslerp", "multislerp"])
def test_half_precision_is_computed_wide(method: str) -> None:
    arrays = [x.astype(np.float16) for x in random_tensors((50, 40), 2)]
    made = merge_tensors(method, arrays[1:])
    wide = merge_tensors(method, [x.astype(np.float64) for x in arrays[1:]])
    assert np.abs(made.astype(float) - wide).max() <= np.spacing(np.float16(np.abs(wide).max()))
