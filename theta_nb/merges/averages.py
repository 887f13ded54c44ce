"""Copies and averages: linear combinations whose coefficients are known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from theta_nb.errors import MergeError
from theta_nb.merges.gram import Combination, Gram
from theta_nb.merges.group import Array, Group
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import Range, Weight, spread

__all__ = [
    "average_all",
    "average_ours_original",
    "average_ours_theirs",
    "average_theirs_original",
    "linear",
    "original",
    "ours",
    "passthrough",
    "task_arithmetic",
    "theirs",
]

Share = Annotated[float, Range(0, 1)]


def one_of(count: int, index: int) -> tuple[float, ...]:
    """Coefficients that pick one input."""
    return tuple(float(k == index) for k in range(count))


@merge_method("ours", title="Ours", base="none")
def ours(gram: Gram) -> Combination:
    """Take our value.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("ours", [[1.0, 2], [3, 4]]).tolist()
    [1.0, 2.0]
    """
    return Combination(one_of(gram.count, 0))


@merge_method("theirs", title="Theirs", base="none", inputs=(2, 0))
def theirs(
    gram: Gram, *, which: Annotated[int, Range(1, 1000, tuned=False), "which of the others, counted from 1"] = 1
) -> Combination:
    """Take their value; of several others, the first or the one that ``which`` says.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("theirs", [[1.0, 2], [3, 4]]).tolist()
    [3.0, 4.0]
    """
    if which >= gram.count:
        raise MergeError(f"theirs: which is {which}, and there are {gram.count - 1} others")
    return Combination(one_of(gram.count, which))


@merge_method("original", title="Original", base="needed")
def original(gram: Gram) -> Combination:
    """Keep the value of the common ancestor.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("original", [[1.0, 2], [3, 4]], base=[0.0, 5]).tolist()
    [0.0, 5.0]
    """
    return Combination(one_of(gram.count, -1), base=1.0)


@merge_method("passthrough", title="Passthrough", base="none", sample="entries")
def passthrough(group: Group, *, scale: Annotated[float, Range(-2, 2, soft=True), "factor"] = 1.0) -> Iterator[Array]:
    """Take the first input, times a factor.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("passthrough", [[1.0, 2]], scale=3).tolist()
    [3.0, 6.0]
    """
    for block in group.blocks():
        yield block.inputs[0] if scale == 1 else block.inputs[0] * group.number(scale)


def _normalized(weights: Sequence[float], name: str) -> tuple[float, ...]:
    total = sum(weights)
    if abs(total) < 1e-8:
        raise MergeError(
            f"{name}: the weights sum to {total:g}, and cannot be normalized",
            hint="Change them, or set normalize=false.",
        )
    return tuple(weight / total for weight in weights)


@merge_method("linear", title="Linear (model soup)", paper="https://arxiv.org/abs/2203.05482", base="none")
def linear(
    gram: Gram, *, weight: Weight = 1.0, normalize: Annotated[bool, "divide by the sum of the weights"] = True
) -> Combination:
    """Average the inputs: the sum of weight times input over the sum of the weights.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("linear", [[4.0], [8.0]]).tolist()
    [6.0]
    """
    weights = spread(weight, gram.count)
    return Combination(_normalized(weights, gram.name or "linear") if normalize else weights)


@merge_method("task_arithmetic", title="Task arithmetic", paper="https://arxiv.org/abs/2212.04089", base="needed")
def task_arithmetic(
    gram: Gram,
    *,
    weight: Weight = 1.0,
    normalize: Annotated[bool, "divide by the sum of the weights"] = False,
    scale: Annotated[float, Range(0, 2, soft=True), "factor of the merged task vector"] = 1.0,
) -> Combination:
    """Add the weighted task vectors (differences to the ancestor) to the ancestor.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("task_arithmetic", [[1.0, 2], [1, 5]], base=[1.0, 1]).tolist()
    [1.0, 6.0]
    """
    weights = spread(weight, gram.count)
    # Weights that cancel are not divided by: the sum of task vectors is a sum of differences then.
    total = sum(weights)
    divisor = total if normalize and abs(total) >= 1e-8 else 1.0
    return Combination(tuple(scale * w / divisor for w in weights), shifted=True)


@merge_method("average-ours-theirs", title="Average of ours and theirs", base="none", inputs=(2, 2))
def average_ours_theirs(gram: Gram, *, alpha: Annotated[Share, "share of ours"] = 0.5) -> Combination:
    """Average ours and theirs: alpha times ours plus (1 - alpha) times theirs, a name of git-theta.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("average-ours-theirs", [[4.0], [8.0]]).tolist()
    [6.0]
    """
    return Combination((alpha, 1 - alpha))


@merge_method("average-all", title="Average of ours, theirs and the original", base="needed", inputs=(2, 2))
def average_all(
    gram: Gram,
    *,
    alpha1: Annotated[Share, "share of ours"] = 1 / 3,
    alpha2: Annotated[Share, "share of theirs; the rest is that of the original"] = 1 / 3,
) -> Combination:
    """Average ours, theirs and the original, a name of git-theta.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("average-all", [[4.0], [8.0]], base=[12.0], alpha1=0.25, alpha2=0.25).tolist()
    [9.0]
    """
    return Combination((alpha1, alpha2), base=1 - alpha1 - alpha2)


@merge_method("average-ours-original", title="Average of ours and the original", base="needed", inputs=(2, 2))
def average_ours_original(gram: Gram, *, alpha: Annotated[Share, "share of ours"] = 0.5) -> Combination:
    """Average ours and the original, a name of git-theta.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("average-ours-original", [[4.0], [8.0]], base=[12.0]).tolist()
    [8.0]
    """
    return Combination((alpha, 0.0), base=1 - alpha)


@merge_method("average-theirs-original", title="Average of theirs and the original", base="needed", inputs=(2, 2))
def average_theirs_original(gram: Gram, *, alpha: Annotated[Share, "share of theirs"] = 0.5) -> Combination:
    """Average theirs and the original, a name of git-theta.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("average-theirs-original", [[4.0], [8.0]], base=[12.0]).tolist()
    [10.0]
    """
    return Combination((0.0, alpha), base=1 - alpha)
