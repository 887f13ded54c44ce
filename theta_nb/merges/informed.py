"""Methods that need statistics of the training data beside the weights, given as checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np

from theta_nb.errors import MergeError
from theta_nb.merges.group import Array, Group
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import Range, Weight, spread

__all__ = ["fisher", "regmean"]


@merge_method(
    "fisher",
    title="Fisher",
    paper="https://arxiv.org/abs/2111.09832",
    base="none",
    statistics="fisher",
    sample="entries",
)
def fisher(
    group: Group,
    *,
    weight: Weight = 1.0,
    floor: Annotated[float, Range(0, 1, tuned=False), "least Fisher information of an entry"] = 1e-6,
) -> Iterator[Array]:
    """Average every entry by its Fisher information: the sum of w F x over the sum of w F.

    The statistics are checkpoints with the same names and shapes as the inputs: the mean squared gradient of the log
    likelihood. A tensor without statistics is averaged by weight alone.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("fisher", [[0.0, 0], [4, 4]], statistics=[[1.0, 3], [1, 1]]).round(4).tolist()
    [2.0, 1.0]
    """
    weights = spread(weight, len(group.inputs))
    known = [statistic.reshape(-1) for statistic in group.statistics]
    if known and (len(known) != len(weights) or any(len(f) != group.size for f in known)):
        raise MergeError(f"{group.name}: the Fisher information has another shape than the weights")
    for block in group.blocks():
        total = np.zeros_like(block.inputs[0])
        divisor = np.zeros_like(total)
        stop = block.start + len(total)
        for k, x in enumerate(block.inputs):
            information = np.full(len(total), group.number(weights[k]))
            if known:
                information *= np.maximum(known[k][block.start : stop], floor).astype(group.dtype)
            total += information * x
            divisor += information
        divisor[divisor == 0] = 1
        total /= divisor
        yield total


@merge_method(
    "regmean",
    title="RegMean",
    paper="https://arxiv.org/abs/2212.09849",
    base="none",
    statistics="regmean",
    exact=False,
    tolerance=1e-4,
    matrices=True,
)
def regmean(
    group: Group,
    *,
    weight: Weight = 1.0,
    alpha: Annotated[float, Range(0, 1), "what is left of the off-diagonal of the inner products"] = 0.9,
) -> Array:
    """Merge linear layers so that their outputs differ least: the regression (sum G)^-1 sum G W^T.

    The statistics are checkpoints that hold, under the name of a weight of shape (out, in), the inner products of the
    layer's inputs, shape (in, in). What has none is averaged by weight.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> grams = [np.diag([1.0, 3]), np.diag([1.0, 1])]
    >>> merge_tensors("regmean", [[[0.0, 0]], [[4, 4]]], statistics=grams).round(4).tolist()
    [[2.0, 1.0]]
    """
    weights = spread(weight, len(group.inputs))
    block = group.whole()
    inputs = [x.astype(np.float64) for x in block.inputs]
    if not group.statistics or len(group.shape) != 2:
        total = sum(weights) or 1.0
        mean: Array = sum((w / total * x for w, x in zip(weights, inputs, strict=True)), np.zeros(group.shape))
        return mean.astype(group.dtype)
    width = group.shape[1]
    grams = []
    for statistic, w in zip(group.statistics, weights, strict=True):
        gram = np.asarray(statistic, np.float64)
        if gram.shape != (width, width) or not np.isfinite(gram).all():
            raise MergeError(f"{group.name}: the inner products must be finite, of shape ({width}, {width})")
        grams.append(w * (alpha * gram + (1 - alpha) * np.diag(np.diag(gram))))
    right = sum((gram @ x.T for gram, x in zip(grams, inputs, strict=True)), np.zeros((width, group.shape[0])))
    # Least squares instead of an inverse: inputs that never occurred leave directions open, and the shortest wins.
    solved = np.linalg.lstsq(sum(grams, np.zeros((width, width))), right, rcond=None)[0]
    made: Array = solved.T.astype(group.dtype)
    return made
