"""What a merge will do, parameter by parameter, from statistics alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.statistics import Statistics
from theta_nb.errors import MergeError
from theta_nb.merges.gram import Combination, Gram, cosines
from theta_nb.merges.group import Array

__all__ = ["Preview", "PreviewRow", "explain", "predict"]


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One parameter of a preview.

    Parameters
    ----------
    name, state, choice, reason
        What happened to it, what is done, and why.
    open
        Whether somebody has to choose.
    norm
        Norm of the result; ``None`` where only computing it would tell.
    distances
        Distance of the result to the ancestor (if there is one), then to every input.
    cosines
        Cosine between the task vectors of each pair of inputs, in the order of pairs.
    conflict
        Share of the entries changed by several inputs at which they go in opposite directions.
    change
        Norm of the largest task vector over that of the ancestor.
    """

    name: str
    state: str
    choice: str
    reason: str
    open: bool
    norm: float | None = None
    distances: tuple[float, ...] | None = None
    cosines: tuple[float, ...] = ()
    conflict: float | None = None
    change: float | None = None


@dataclass(frozen=True)
class Preview:
    """A preview of all parameters.

    Parameters
    ----------
    rows
        In the order of the result.
    labels
        Names of the inputs.
    has_base
        Whether there is a common ancestor.
    """

    rows: tuple[PreviewRow, ...]
    labels: tuple[str, ...]
    has_base: bool

    def __iter__(self) -> Iterator[PreviewRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> PreviewRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def open(self) -> tuple[str, ...]:
        """Parameters that wait for a choice."""
        return tuple(row.name for row in self.rows if row.open)

    def counts(self) -> dict[str, int]:
        """Number of parameters in each state."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.state] = found.get(row.state, 0) + 1
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, shown: int = 40) -> Iterator[str]:
        """A heading and a line for each parameter that is not equal everywhere.

        Parameters
        ----------
        shown
            Most lines of parameters; the rest is counted.
        """
        yield ", ".join(f"{count} {state}" for state, count in self.counts().items()) or "nothing to merge"
        rows = [row for row in self.rows if row.state != "equal"]
        width, state, choice = (
            max((len(getattr(row, part)) for row in rows[:shown]), default=0) for part in ("name", "state", "choice")
        )
        for row in rows[:shown]:
            numbers = []
            if row.cosines:
                numbers.append(f"cos {row.cosines[0]:+.2f}")
            if row.conflict is not None:
                numbers.append(f"conflict {row.conflict:4.0%}")
            if row.distances is not None:
                numbers.append(f"moved {row.distances[0]:.3g}")
            mark = "?" if row.open else " "
            what = "  ".join(numbers) or ("" if row.reason == row.state else row.reason)
            yield f"{mark} {row.name:<{width}}  {row.state:<{state}}  {row.choice:<{choice}}  {what}".rstrip()
        if len(rows) > shown:
            yield f"  … and {len(rows) - shown} more"


Prediction = tuple[float, tuple[float, ...]]
"""Norm of the result, and its distances."""


def predict(
    decisions: Sequence[Decision], known: Sequence[Statistics | None], scales: Sequence[float]
) -> list[Prediction | None]:
    """Norms and distances of the results that follow from statistics, many parameters at once.

    Parameters
    ----------
    decisions
        What is done with each parameter.
    known
        Statistics of each; ``None`` where there are none.
    scales
        Factor that the method puts on the task vectors of each.

    Returns
    -------
    list
        ``None`` where only computing the result would tell.
    """
    out: list[Prediction | None] = [None] * len(decisions)
    batches: dict[Any, list[int]] = {}
    for index, (decision, statistics) in enumerate(zip(decisions, known, strict=True)):
        if statistics is None or (decision.method is not None and not decision.method.gram) or decision.dropped:
            continue
        count = len(statistics.gram) - 1
        if decision.method is not None and len(decision.inputs) != count:
            continue
        key = (
            decision.take,
            decision.method.name if decision.method is not None else "",
            tuple(decision.parameters.values()),
            scales[index],
            count,
            decision.unit.base is not None,
        )
        batches.setdefault(key, []).append(index)
    for indices in batches.values():
        first = decisions[indices[0]]
        matrix = np.stack([known[i].gram for i in indices])  # type: ignore[union-attr]
        found = _predict(first, Gram(matrix, first.unit.base is not None), scales[indices[0]])
        if found is None:
            continue
        for row, index in enumerate(indices):
            out[index] = (float(found[0][row]), tuple(found[1][row].tolist()))
    return out


def _predict(decision: Decision, gram: Gram, scale: float) -> tuple[Array, Array] | None:
    """Norms and distances of the results of one choice for a stack of Gram matrices."""
    if decision.method is None:
        present = [k for k, info in enumerate(decision.unit.versions) if info is not None]
        take = decision.take
        row = np.zeros(gram.count + 1)
        row[0] = 1
        if take is not None and take >= 0:
            row[1 + present.index(take)] = 1
        coordinates = np.broadcast_to(row, (len(gram.matrix), gram.count + 1))
    else:
        try:
            made: Combination = decision.method.from_gram(gram.scaled(scale), decision.parameters)
        except MergeError:  # it looks at rows, and needs the weights
            return None
        coordinates = made.coordinates(gram) * np.array([1.0] + [scale] * gram.count)
    parents = np.eye(gram.count + 1)
    parents[1:, 0] = 1  # an input is the origin plus its difference
    if not gram.has_base:
        parents = parents[1:]
    distances = np.stack([gram.length(coordinates - parent) for parent in parents], axis=-1)
    return gram.length(coordinates), distances


def relations(
    statistics: Statistics, has_base: bool, changed: int
) -> tuple[tuple[float, ...], float | None, float | None]:
    """Cosines between task vectors, share of conflicts, and size of the change, of ``changed`` inputs."""
    gram = statistics.gram
    if not has_base:
        products = Gram(gram, False).inputs
        upper = np.triu_indices(len(products), 1)
        return tuple(cosines(products)[upper].tolist()), None, None
    products = gram[1:, 1:]
    upper = np.triu_indices(len(products), 1)
    conflict = statistics.conflicts / statistics.shared if statistics.shared else 0.0
    norm = float(np.sqrt(max(gram[0, 0], 0)))
    largest = float(np.sqrt(max(np.diag(products).max(initial=0), 0)))
    if changed < 2:
        return (), None, largest / norm if norm else None
    return tuple(cosines(products)[upper].tolist()), conflict, largest / norm if norm else None


def explain(
    decision: Decision, statistics: Statistics | None, depth: float, labels: Sequence[str], scale: float
) -> str:
    """The formula of one parameter with the numbers in it, and why it is used."""
    unit = decision.unit
    head = f"{unit.name}: {unit.state.value}"
    if decision.method is None:
        if decision.dropped:
            return f"{head}\n  dropped"
        return f"{head}\n  = {decision.called(labels)}  ({decision.reason})"
    names = [labels[k] for k in decision.inputs]
    given = ", ".join(f"{name}={_shown(value)}" for name, value in decision.parameters.items())
    lines = [head, f"  {decision.method.name}({given}) of {', '.join(names)} at depth {depth:.2f}  ({decision.reason})"]
    if decision.method.gram and statistics is not None:
        gram = Gram(statistics.gram, unit.base is not None, unit.name)
        made = decision.method.from_gram(gram.scaled(scale), decision.parameters)
        lines.append(f"  = {_formula(made, names, scale)}")
        norm, distances = _predict(decision, Gram(statistics.gram[None], gram.has_base), scale) or (None, None)
        if norm is not None and distances is not None:
            parents = (["original"] if gram.has_base else []) + names
            far = ", ".join(f"{d:.4g} to {p}" for p, d in zip(parents, distances[0], strict=True))
            lines.append(f"  norm {norm[0]:.4g}; distance {far}")
    else:
        lines.append(f"  {decision.method.summary}")
        if decision.method.paper:
            lines.append(f"  {decision.method.paper}")
    return "\n".join(lines)


def _formula(made: Combination, names: Sequence[str], scale: float) -> str:
    terms = []
    factor = scale if made.shifted else 1.0
    if made.shifted:
        terms.append("original")
    elif float(made.base):
        terms.append(f"{float(made.base):.6g} original")
    for c, name in zip(made.inputs, names, strict=True):
        number = float(c) * factor
        if number:
            what = f"({name} - original)" if made.shifted or scale != 1 else name
            terms.append(f"{'+' if number > 0 else '-'} {abs(number):.6g} {what}" if terms else f"{number:.6g} {what}")
    return " ".join(terms) or "0"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return _shown(value[0]) if len(set(value)) == 1 else "[" + ", ".join(_shown(one) for one in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
