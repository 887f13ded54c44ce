"""Laws that merge methods keep to, whatever the numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.merge_contract import tensors
from theta_nb.merges.group import Group
from theta_nb.merges.table import METHODS, method_named
from theta_nb.merges.tensors import merge_group, merge_tensors

SYMMETRIC = ["linear", "karcher", "multislerp", "task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties"]
SYMMETRIC += ["model_stock", "sce", "ram", "ramplus", "consensus", "emr", "iso_c", "widen", "pcb"]

SCALED = ["linear", "slerp", "nuslerp", "multislerp", "task_arithmetic", "ties", "model_stock", "sce", "consensus"]
SCALED += ["emr", "iso_c", "tsv_m", "breadcrumbs", "dare_ties", "della"]

STOCHASTIC = [name for name in METHODS.names() if METHODS[name].stochastic]


@pytest.mark.parametrize("method", SYMMETRIC)
def test_the_order_of_inputs_does_not_matter(method: str) -> None:
    base, *inputs = tensors(3, (12, 9))
    first = merge_tensors(method, inputs, base=base)
    for order in itertools.permutations(inputs):
        np.testing.assert_allclose(merge_tensors(method, order, base=base), first, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("method", SCALED)
@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_scaled_models_give_the_scaled_merge(method: str, factor: float) -> None:
    base, *inputs = tensors(2, (12, 9))
    made = merge_tensors(method, [x * np.float32(factor) for x in inputs], base=base * np.float32(factor), name="w")
    np.testing.assert_allclose(made, merge_tensors(method, inputs, base=base, name="w") * factor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["linear", "slerp", "nuslerp", "average-ours-theirs", "nearswap", "multislerp"])
def test_equal_inputs_are_left_alone(method: str) -> None:
    _, x, *_ = tensors(2, (12, 9))
    np.testing.assert_allclose(merge_tensors(method, [x, x]), x, rtol=3e-7)


@pytest.mark.parametrize("method", STOCHASTIC)
def test_what_is_kept_at_one_density_is_kept_at_every_higher_one(method: str) -> None:
    x = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    base = np.zeros_like(x)
    options: dict[str, Any] = {"epsilon": 0.0} if "della" in method else {}
    kept = [
        merge_tensors(method, [x], base=base, density=density, name="w", **options) != 0
        for density in (0.1, 0.3, 0.31, 0.8, 1.0)
    ]
    for fewer, more in itertools.pairwise(kept):
        assert not (fewer & ~more).any()
    assert kept[-1].all()


@pytest.mark.parametrize("method", STOCHASTIC)
def test_draws_depend_on_seed_tensor_and_model(method: str) -> None:
    x = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    base = np.zeros_like(x)

    def kept(**options: Any) -> np.ndarray:
        return merge_tensors(method, [x], base=base, **{"name": "w", **options}) != 0

    assert np.array_equal(kept(), kept())
    assert not np.array_equal(kept(), kept(seed=1))
    assert not np.array_equal(kept(), kept(name="v"))
    both = merge_tensors(method, [x, x], base=base, name="w", weight=[1, 0]) != 0
    second = merge_tensors(method, [x, x], base=base, name="w", weight=[0, 1]) != 0
    assert not np.array_equal(both, second)


@pytest.mark.parametrize("name", [name for name in METHODS.names() if METHODS[name].exact])
def test_a_replay_with_the_recorded_numbers_gives_the_same_bits(name: str) -> None:
    method = method_named(name)
    base, *inputs = tensors(max(method.inputs[0], 2), (50, 41))
    parameters = method.bind({"rescale": "l1"} if "dare" in name else {}, [str(k) for k in range(len(inputs))])
    first = Group.of(inputs, base, name="w")
    made = merge_group(method, first, parameters, np.dtype("float32"))
    # Through text and back, as a recipe does it.
    record = {key: tuple(float.fromhex(n.hex()) for n in numbers) for key, numbers in first.decided.items()}
    again = Group.of(inputs, base, name="w")
    again.decided.update(record)
    assert merge_group(method, again, parameters, np.dtype("float32")).tobytes() == made.tobytes()


NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.lists(NUMBERS, min_size=1, max_size=30), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_ties_never_leaves_what_the_models_span(values: list[float], density: float) -> None:
    x = np.array(values, np.float32)
    base, other = np.zeros_like(x), x[::-1].copy()
    made = merge_tensors("ties", [x, other], base=base, density=density)
    low, high = np.minimum(0, np.minimum(x, other)), np.maximum(0, np.maximum(x, other))
    # The mean of two numbers may be rounded past the larger by one unit.
    slack = np.abs(np.spacing(np.maximum(np.abs(low), high)))
    assert ((made >= low - slack) & (made <= high + slack)).all()


def test_lines_scales_by_depth_before_any_method() -> None:
    base, *inputs = tensors(2, (10, 10))
    for inner in ("ties", "task_arithmetic", "model_stock", "slerp"):
        made = merge_tensors(f"lines:{inner}", inputs, base=base, depth=0.5, lines_alpha=0.2, lines_beta=0.4)
        scaled = [base + np.float32(0.4) * (x - base) for x in inputs]
        np.testing.assert_allclose(made, merge_tensors(inner, scaled, base=base), rtol=1e-5, atol=1e-6)
