"""Pictures of differences, against the same computed from the whole matrix at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from theta_nb.engine.pictures import picture_of, window_of
from theta_nb.errors import CheckpointError
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.spec import TensorSpec, contiguous_strides


def spec(shape: tuple[int, ...], dtype: str = "float32") -> TensorSpec:
    return TensorSpec("w", dtype_named(dtype), shape, contiguous_strides(shape), 0)


def blocks(old: np.ndarray, new: np.ndarray, seed: int) -> Iterator[tuple[memoryview, memoryview]]:
    """Both arrays in stretches of random length."""
    random = np.random.default_rng(seed)
    position, old, new = 0, old.ravel(), new.ravel()
    while position < old.size:
        count = int(random.integers(1, max(2, old.size // 5)))
        part = slice(position, position + count)
        yield memoryview(old[part].tobytes()), memoryview(new[part].tobytes())
        position += count


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((100, 70), (96, 64)),
        ((7, 1000), (96, 96)),
        ((300, 3), (96, 96)),
        ((500,), (96, 96)),
        ((), (96, 96)),
        ((6, 5, 4, 3), (4, 7)),
    ],
)
def test_cells_hold_the_mean_and_the_rms_of_their_entries(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    old, new = (random.normal(size=shape).astype("f4") for _ in range(2))
    found = picture_of(blocks(old, new, 1), spec(shape), spec(shape), shape, size=size)
    rows, columns = found.shape
    delta = (new.astype("f8") - old.astype("f8")).reshape(rows, columns)
    height, width = min(rows, size[0]), min(columns, size[1])
    assert found.rms.shape == (height, width)
    row, column = np.arange(rows) * height // rows, np.arange(columns) * width // columns
    for i in range(height):
        for j in range(width):
            cell = delta[np.ix_(row == i, column == j)]
            np.testing.assert_allclose(
                [found.mean[i, j], found.rms[i, j]], [cell.mean(), np.sqrt((cell**2).mean())], rtol=1e-5, atol=1e-7
            )
    np.testing.assert_allclose(found.row_rms[0], np.sqrt((delta[row == 0] ** 2).mean()), rtol=1e-5)
    np.testing.assert_allclose(found.column_rms[-1], np.sqrt((delta[:, column == width - 1] ** 2).mean()), rtol=1e-5)


def test_what_is_no_number_is_left_out() -> None:
    old = np.zeros((2, 2), "f4")
    new = np.array([[np.nan, 2], [np.inf, np.nan]], "f4")
    found = picture_of(blocks(old, new, 0), spec((2, 2)), spec((2, 2)), (2, 2))
    np.testing.assert_array_equal(found.rms, [[np.nan, 2], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.row_rms, [2, np.nan])


def test_complex_and_empty_tensors_are_refused() -> None:
    for shape, dtype, said in (((2,), "complex64", "complex"), ((0, 3), "float32", "empty")):
        with pytest.raises(CheckpointError, match=said):
            picture_of([], spec(shape, dtype), spec(shape, dtype), shape)
    with pytest.raises(CheckpointError, match="complex"):
        window_of([], spec((2,), "complex64"), spec((2,)), shape=(1, 2), row=0, column=0)
