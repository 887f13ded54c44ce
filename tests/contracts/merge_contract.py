"""What every merge method keeps to: subclass :class:`MergeContract` to try one of your own.

::

    class TestMyMethod(MergeContract):
        @pytest.fixture
        def method(self):
            return my_method
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from theta_nb.errors import MergeError
from theta_nb.merges.method import Method
from theta_nb.merges.tensors import merge_tensors

SHAPES = [(), (0,), (1,), (2,), (5,), (0, 3), (3, 0), (1, 1), (1, 7), (7, 1), (4, 6), (3, 2, 5), (2, 3, 2, 2)]
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn", "float8_e5m2"]


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)


def tensors(count: int, shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> list[np.ndarray]:
    """A base and ``count`` inputs that are near it."""
    random = np.random.default_rng(seed)
    base = random.standard_normal(shape)
    made = [base, *(base + 0.3 * random.standard_normal(shape) for _ in range(count))]
    return [np.asarray(x).astype(dtype_of(dtype)) for x in made]


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays have the same bits."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


class MergeContract:
    """Tests that need a fixture ``method``."""

    @pytest.fixture
    def method(self) -> Method:
        """The method."""
        raise NotImplementedError("the subclass gives the method")

    @pytest.fixture
    def count(self, method: Method) -> int:
        """A number of inputs that it takes."""
        return max(method.inputs[0], 2) if method.inputs[1] != 1 else 1

    def statistics(self, method: Method, shape: tuple[int, ...], count: int) -> list[np.ndarray]:
        """Statistics of the kind that the method wants."""
        random = np.random.default_rng(9)
        if method.statistics == "fisher":
            return [random.random(shape) + 0.1 for _ in range(count)]
        if method.statistics == "regmean" and len(shape) == 2:
            inputs = [random.standard_normal((20, shape[1])) for _ in range(count)]
            return [x.T @ x for x in inputs]
        return []

    def merge(self, method: Method, base: np.ndarray, *inputs: np.ndarray, **parameters: Any) -> np.ndarray:
        statistics = self.statistics(method, inputs[0].shape, len(inputs))
        return merge_tensors(method, inputs, base=base, statistics=statistics, name="w", **parameters)

    def test_it_says_what_it_is(self, method: Method) -> None:
        assert method.name
        assert method.title
        assert method.summary.endswith(".")
        for spec in method.parameters:
            assert spec.help, f"{spec.name} has no help"
            assert spec.parse(spec.default) == spec.default
            assert spec.schema()["description"] == spec.help

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_every_shape_gives_the_same_shape(self, method: Method, count: int, shape: tuple[int, ...]) -> None:
        made = self.merge(method, *tensors(count, shape))
        assert made.shape == shape
        assert made.dtype == np.float32
        assert np.isfinite(made).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_every_dtype_gives_the_same_dtype(self, method: Method, count: int, dtype: str) -> None:
        narrow = tensors(count, (6, 4), dtype)
        made = self.merge(method, *narrow)
        assert made.dtype == dtype_of(dtype)
        assert np.isfinite(made.astype(np.complex128)).all()
        if dtype in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"):
            # Computed in float32 and rounded once, not in the narrow type.
            wide = self.merge(method, *(x.astype(np.float32) for x in narrow))
            assert same(made, wide.astype(made.dtype))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38], ids=str)
    def test_extreme_values_are_no_crash_and_stay_where_they_are(
        self, method: Method, count: int, value: float
    ) -> None:
        base, *inputs = tensors(count, (8, 4))
        inputs[0][0, 0] = value
        made = self.merge(method, base, *inputs)
        assert made.shape == (8, 4)
        if not method.matrices and method.name not in ("pcb", "widen"):
            assert np.isfinite(made[1:]).all(), "rows without it are not touched"

    def test_inputs_are_not_changed(self, method: Method, count: int) -> None:
        arrays = tensors(count, (8, 4))
        before = [x.copy() for x in arrays]
        self.merge(method, *arrays)
        assert all(same(x, y) for x, y in zip(arrays, before, strict=True))

    def test_again_is_the_same(self, method: Method, count: int) -> None:
        arrays = tensors(count, (40, 30))
        assert same(self.merge(method, *arrays), self.merge(method, *arrays))

    def test_many_blocks_are_merged_like_one(self, method: Method, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        arrays = tensors(count, (60, 50))
        one = self.merge(method, *arrays)
        with monkeypatch.context() as patch:
            patch.setattr("theta_nb.merges.group.BLOCK", 128)
            many = self.merge(method, *arrays)
        # Sums of blocks are rounded differently; what is not a sum is the same.
        assert np.allclose(one, many, rtol=1e-5, atol=1e-6)

    def test_models_that_equal_the_base_are_merged_to_it(self, method: Method, count: int) -> None:
        base, *_ = tensors(count, (6, 4))
        made = self.merge(method, base, *[base] * count)
        assert np.allclose(made, base, rtol=1e-5, atol=1e-6)

    def test_what_lies_in_memory_in_another_order_is_merged_alike(self, method: Method, count: int) -> None:
        arrays = tensors(count, (6, 4))
        strided = [np.asfortranarray(x) for x in arrays]
        assert np.array_equal(self.merge(method, *arrays), self.merge(method, *strided))

    def test_integers_and_truth_values_are_no_weights(self, method: Method, count: int) -> None:
        for kind in ("int64", "uint8", "bool"):
            base = np.array([0, 1, 0], kind)
            inputs = [np.array([1, 1, 0], kind), *[base] * (count - 1)]
            assert same(self.merge(method, base, *inputs), inputs[0])

    def test_more_tokens_are_merged_where_all_have_them(self, method: Method, count: int) -> None:
        if count < 2:
            pytest.skip("takes one input")
        base, *inputs = tensors(count, (6, 4))
        longer = np.concatenate([inputs[-1], np.full((2, 4), 7, np.float32)])
        made = merge_tensors(method, [*inputs[:-1], longer], base=base)
        assert made.shape == (8, 4)
        assert (made[6:] == 7).all()
        assert np.array_equal(made[:6], merge_tensors(method, inputs, base=base))

    def test_a_missing_base_is_a_clear_error(self, method: Method, count: int) -> None:
        _, *inputs = tensors(count, (6, 4))
        if method.base == "needed":
            with pytest.raises(MergeError, match="ancestor"):
                merge_tensors(method, inputs, name="w")
        else:
            assert merge_tensors(method, inputs, name="w").shape == (6, 4)

    def test_unknown_parameters_and_numbers_of_inputs_are_refused(self, method: Method, count: int) -> None:
        base, *inputs = tensors(count, (2,))
        with pytest.raises(MergeError, match="no parameter 'colour'"):
            self.merge(method, base, *inputs, colour=1)
        low, high = method.inputs
        if high:
            with pytest.raises(MergeError, match="inputs"):
                self.merge(method, base, *inputs, *[base] * high)
        if low > 1:
            with pytest.raises(MergeError, match="inputs"):
                self.merge(method, base, inputs[0])
