"""Methods made for many tasks at once: consensus of TALL masks, EMR, parameter competition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np

from theta_nb.errors import MergeError
from theta_nb.merges.group import Array, Group, keep
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import Range, Weight, spread
from theta_nb.merges.sign_election import Scale

__all__ = ["consensus", "emr", "pcb"]


@merge_method(
    "consensus",
    title="Consensus (TALL masks)",
    paper="https://arxiv.org/abs/2405.07813",
    base="needed",
    sample="entries",
)
def consensus(
    group: Group,
    *,
    tall: Annotated[float, Range(0, 2, soft=True), "how far a task vector must outweigh the others to count"] = 0.4,
    agreement: Annotated[
        int, Range(0, 1000, tuned=False), "number of tasks that must need an entry for it to stay"
    ] = 2,
    scale: Scale = 1.0,
) -> Iterator[Array]:
    """Sum the task vectors and drop what fewer than ``agreement`` tasks need.

    A task needs an entry where ``|delta| >= tall * |sum of all - delta|``.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("consensus", [[2.0, 5], [2, 0]], base=[0.0, 0]).tolist()
    [4.0, 0.0]
    """
    for part in group.deltas():
        total = sum(part.deltas[1:], part.deltas[0].copy())
        votes = np.zeros(len(total), np.int32)
        for delta in part.deltas:
            # An entry that no task changed needs nobody's vote: zero is not >= what is asked of it, but harmless.
            votes += np.abs(delta) >= group.number(tall) * np.abs(total - delta)
        keep(total, votes >= agreement)
        if scale != 1:
            total *= group.number(scale)
        total += part.base
        yield total


@merge_method("emr", title="EMR", paper="https://arxiv.org/abs/2405.17461", base="needed", sample="entries")
def emr(
    group: Group,
    *,
    task: Annotated[int, Range(0, 1000, tuned=False), "0 for the unified model, k for the one rebuilt for input k"] = 0,
    scale: Scale = 1.0,
) -> Iterator[Array]:
    """Elect a sign for each entry and the largest value that has it; mask and rescale it for one task, if asked.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("emr", [[1.0, -4], [3, 2]], base=[0.0, 0]).tolist()
    [3.0, -4.0]
    """
    if task > len(group.inputs):
        raise MergeError(f"emr: task is {task}, and there are {len(group.inputs)} inputs")

    def unified() -> Iterator[tuple[Array, Array, list[Array]]]:
        for part in group.deltas():
            negative = sum(part.deltas[1:], part.deltas[0].copy()) < 0
            size = np.zeros_like(part.base)
            for delta in part.deltas:
                largest = np.abs(delta)
                keep(largest, (delta < 0) == negative)
                np.maximum(size, largest, out=size)
            np.copysign(size, np.where(negative, size.dtype.type(-1), size.dtype.type(1)), out=size)
            yield part.base, size, part.deltas

    def rescale() -> float:
        wanted = kept = 0.0
        for _, total, deltas in unified():
            wanted += float(np.abs(deltas[task - 1]).sum(dtype=np.float64))
            kept += float(np.abs(total[deltas[task - 1] * total > 0]).sum(dtype=np.float64))
        return wanted / kept if kept > 0 and np.isfinite(wanted / kept) else 1.0

    factor = scale * (group.decide("rescale", rescale)[0] if task else 1.0)
    for base, total, deltas in unified():
        if task:
            keep(total, deltas[task - 1] * total > 0)
        if factor != 1:
            total *= group.number(factor)
        total += base
        yield total


@merge_method(
    "pcb",
    title="PCB",
    paper="https://arxiv.org/abs/2410.02396",
    base="needed",
    exact=False,
    tolerance=1e-5,
    sample="entries",
)
def pcb(
    group: Group,
    *,
    weight: Weight = 1.0,
    density: Annotated[float, Range(0, 1), "share of the entries, those that win the competition, that is kept"] = 0.1,
    scale: Scale = 1.0,
) -> Array:
    """Let entries compete within their task and across tasks, keep the winners, average them by their scores.

    The score is ``exp(N * norm(delta)^2) * tanh(delta * sum of all)``, where ``norm`` maps magnitudes to 0 to 1.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("pcb", [[4.0, 1, 0], [4, 0, 0]], base=[0.0, 0, 0], density=0.4).tolist()
    [4.0, 0.0, 0.0]
    """
    block = group.whole()
    if block.base is None:
        raise MergeError(f"{group.name}: there is no common ancestor, so there are no task vectors")
    if not group.size:
        return block.base
    deltas = np.stack([x.reshape(-1) - block.base.reshape(-1) for x in block.inputs])
    count, size = deltas.shape
    sizes = np.abs(deltas)
    within = np.exp(count * np.square(_unit(sizes)))
    scores = within * np.tanh(deltas * deltas.sum(axis=0))
    kept = max(1, int(density * size)) if density > 0 else 0
    if kept == 0:
        return block.base
    least = np.partition(scores, size - kept, axis=1)[:, size - kept, None]
    shares = _unit(np.where(scores >= least, scores, least)) if kept < size else _unit(scores)
    # The last winner stands at the lower end of the interval and would get nothing, also where it is the only one.
    shares = np.where(scores >= least, np.maximum(shares, shares.dtype.type(1e-6)), 0)
    shares *= np.asarray(spread(weight, count), group.dtype)[:, None]
    divisor = shares.sum(axis=0)
    merged = (deltas * shares).sum(axis=0) / np.where(divisor == 0, 1, divisor)
    made: Array = block.base.reshape(-1) + merged * group.number(scale)
    return made


def _unit(values: Array) -> Array:
    """Each row mapped to 0 to 1; zeros where all its numbers are equal."""
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    width = high - low
    made: Array = np.where(width > 0, (values - low) / np.where(width > 0, width, 1), 0)
    return made
