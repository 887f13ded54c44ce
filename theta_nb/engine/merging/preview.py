"""What a merge will do, parameter by parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.outcomes import Outcome
from theta_nb.engine.merging.statistics import Statistics
from theta_nb.merges.gram import Gram, cosines
from theta_nb.merges.group import Array

__all__ = ["Lengths", "Preview", "PreviewRow", "Relations", "parents_of"]


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
        Distance of the result to the ancestor (if there is one), then to every input that has it.
    cosines
        Cosine between the task vectors of each pair of inputs, in the order of pairs.
    conflict
        Share of the entries changed by several inputs at which they go in opposite directions.
    change
        Norm of the largest task vector over that of the ancestor.
    estimated
        Whether norm and distances come from a sample of the entries.
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
    estimated: bool = False


@dataclass(frozen=True)
class Lengths:
    """How long the results are and how far from their parents, as arrays; one entry for each parameter.

    Parameters
    ----------
    norms
        Float64, shape (N,); NaN where only computing the result would tell.
    distances
        Float64, shape (N, P), to the ancestor, if the session has one, and to every input; NaN where it is not known,
        or the parent lacks the parameter.
    known, estimated
        Whether there are numbers at all, and whether they come from a sample; bool, shape (N,).
    """

    norms: Array
    distances: Array
    known: Array
    estimated: Array

    @classmethod
    def unknown(cls, count: int, parents: int) -> Lengths:
        """Of ``count`` parameters, to be filled in."""
        nothing = np.zeros(count, bool)
        return cls(np.full(count, np.nan), np.full((count, parents), np.nan), nothing, nothing.copy())

    def put(self, index: int, outcome: Outcome, columns: Sequence[int]) -> None:
        """Fill in one parameter; ``columns`` are its parents."""
        self.norms[index] = outcome.norm
        if outcome.distances:
            self.distances[index, columns] = outcome.distances
        self.known[index] = True
        self.estimated[index] = outcome.estimated


@dataclass(frozen=True)
class Relations:
    """How the inputs stand to one another, as arrays; one entry for each parameter. Choices do not change it.

    Parameters
    ----------
    cosines
        Between the task vectors of each pair of inputs (or between the inputs, without an ancestor), in the order of
        pairs: float64, shape (N, K(K-1)/2); NaN where fewer than two inputs changed it, or one lacks it.
    conflicts
        Share of the entries changed by several inputs at which they go in opposite directions, shape (N,).
    changes
        Norm of the largest task vector over that of the ancestor, shape (N,).
    """

    cosines: Array
    conflicts: Array
    changes: Array

    @classmethod
    def of(cls, decisions: Sequence[Decision], known: Sequence[Statistics | None], inputs: int) -> Relations:
        """From the statistics of every parameter."""
        pairs = list(zip(*np.triu_indices(inputs, 1), strict=True))
        made = cls(
            np.full((len(decisions), len(pairs)), np.nan),
            np.full(len(decisions), np.nan),
            np.full(len(decisions), np.nan),
        )
        with np.errstate(all="ignore"):  # of weights that hold NaN or Inf
            for row, (decision, statistics) in enumerate(zip(decisions, known, strict=True)):
                if statistics is not None:
                    made._put(row, decision, statistics, pairs)
        return made

    def _put(self, row: int, decision: Decision, statistics: Statistics, pairs: Sequence[Any]) -> None:
        unit, gram = decision.unit, Gram(statistics.gram, decision.unit.base is not None)
        present = unit.present
        if gram.has_base:
            norm = np.sqrt(max(gram.matrix[0, 0], 0))
            largest = np.sqrt(max(np.diag(gram.differences).max(initial=0), 0))
            self.changes[row] = largest / norm if norm else np.nan
            if len(unit.changed) < 2:
                return
            self.conflicts[row] = statistics.conflicts / statistics.shared if statistics.shared else 0.0
        found = cosines(gram.space("task" if gram.has_base else "weights"))
        for column, (i, j) in enumerate(pairs):
            if i in present and j in present:
                self.cosines[row, column] = found[present.index(i), present.index(j)]


@dataclass(frozen=True)
class Preview:
    """A preview of all parameters: arrays, and rows that are made when they are looked at.

    Parameters
    ----------
    decisions
        In the order of the result.
    labels
        Names of the inputs.
    has_base
        Whether there is a common ancestor.
    lengths
        Of the results.
    relations
        Between the inputs.
    """

    decisions: tuple[Decision, ...]
    labels: tuple[str, ...]
    has_base: bool
    lengths: Lengths
    relations: Relations

    def __iter__(self) -> Iterator[PreviewRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.decisions)

    def __getitem__(self, name: str) -> PreviewRow:
        return self._row(self._places[name])

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {decision.unit.name: index for index, decision in enumerate(self.decisions)}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of the arrays."""
        return tuple(self._places)

    @property
    def parents(self) -> tuple[str, ...]:
        """Whom ``lengths.distances`` are to, in the order of its columns."""
        return ("original", *self.labels) if self.has_base else self.labels

    @cached_property
    def rows(self) -> tuple[PreviewRow, ...]:
        """A row for every parameter."""
        return tuple(map(self._row, range(len(self.decisions))))

    def _row(self, index: int) -> PreviewRow:
        decision, lengths, relations = self.decisions[index], self.lengths, self.relations
        unit, known = decision.unit, bool(lengths.known[index])
        columns = parents_of(decision, self.has_base)
        distances = tuple(lengths.distances[index, columns].tolist()) if known else ()
        found = relations.cosines[index]
        conflict, change = float(relations.conflicts[index]), float(relations.changes[index])
        return PreviewRow(
            unit.name,
            unit.state.value,
            decision.called(self.labels),
            decision.reason,
            decision.open,
            float(lengths.norms[index]) if known else None,
            distances if known and not (np.isnan(distances).all() and np.isfinite(lengths.norms[index])) else None,
            tuple(found[~np.isnan(found)].tolist()),
            None if np.isnan(conflict) else conflict,
            None if np.isnan(change) else change,
            bool(lengths.estimated[index]),
        )

    @property
    def open(self) -> tuple[str, ...]:
        """Parameters that wait for a choice."""
        return tuple(decision.unit.name for decision in self.decisions if decision.open)

    def counts(self) -> dict[str, int]:
        """Number of parameters in each state."""
        found: dict[str, int] = {}
        for decision in self.decisions:
            state = decision.unit.state.value
            found[state] = found.get(state, 0) + 1
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; numbers that are not finite are null."""
        rows = [{name: _finite(value) for name, value in asdict(row).items()} for row in self.rows]
        return {"rows": rows, "labels": list(self.labels), "has_base": self.has_base}

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
                numbers.append(f"moved {'about ' if row.estimated else ''}{row.distances[0]:.3g}")
            mark = "?" if row.open else " "
            what = "  ".join(numbers) or ("" if row.reason == row.state else row.reason)
            yield f"{mark} {row.name:<{width}}  {row.state:<{state}}  {row.choice:<{choice}}  {what}".rstrip()
        if len(rows) > shown:
            yield f"  … and {len(rows) - shown} more"


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parents_of(decision: Decision, has_base: bool) -> list[int]:
    """Columns of the parents that have a parameter: the ancestor, if the session has one, then the inputs."""
    shift = int(has_base)
    columns = [k + shift for k, info in enumerate(decision.unit.versions) if info is not None]
    return [0, *columns] if decision.unit.base is not None else columns
