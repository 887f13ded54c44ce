"""Parameters that belong together, seen as one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from theta_nb.engine.diff import STATUSES, ParameterChange, Status
from theta_nb.report.grouping import block_of, kind_of, module_of

__all__ = ["GROUPERS", "ChangeGroup"]


@dataclass(frozen=True, slots=True)
class ChangeGroup:
    """Parameters that belong together, and what happened to them as a whole.

    Parameters
    ----------
    key
        Name of the module or block, kind or dtype.
    changes
        The parameters, unchanged ones included.

    Notes
    -----
    Norms are those of one long vector of the parameters that were measured: the values of unchanged parameters are
    not read, so they are no part of it. A value that several parameters share counts once.
    """

    key: str
    changes: tuple[ParameterChange, ...]

    @property
    def counts(self) -> dict[Status, int]:
        """Number of parameters by status, in the order of :data:`theta_nb.engine.diff.STATUSES`, without zeros."""
        found = Counter(change.status for change in self.changes)
        return {status: found[status] for status in STATUSES if found[status]}

    @property
    def differing(self) -> int:
        """Number of parameters that are not unchanged."""
        return sum(change.differs for change in self.changes)

    @property
    def old_norm(self) -> float:
        """Norm of the old values of what was measured; NaN if nothing was."""
        return self._norm("old_norm")

    @property
    def delta_norm(self) -> float:
        """Norm of the difference; NaN if nothing was measured."""
        return self._norm("delta_norm")

    @property
    def relative(self) -> float:
        """‖Δ‖/‖old‖ over what was measured; NaN if nothing was."""
        delta, old = self.delta_norm, self.old_norm
        if math.isnan(delta) or delta == 0:
            return delta
        return delta / old if old else math.inf

    @property
    def max_abs_delta(self) -> float:
        """Largest absolute difference; NaN if nothing was measured."""
        return max((c.statistics.max_abs_delta for c in self.changes if c.statistics is not None), default=math.nan)

    @property
    def changed_share(self) -> float:
        """Share of entries changed among what was measured; NaN if nothing was."""
        measured = [c.statistics for c in self.changes if c.statistics is not None and not c.tied]
        total = sum(statistics.numel for statistics in measured)
        return sum(statistics.changed for statistics in measured) / total if total else math.nan

    def _norm(self, attribute: str) -> float:
        squares = [
            float(getattr(c.statistics, attribute)) ** 2
            for c in self.changes
            if c.statistics is not None and not c.tied
        ]
        return math.sqrt(math.fsum(squares)) if squares else math.nan


GROUPERS: dict[str, Callable[[ParameterChange], str]] = {
    "module": lambda c: module_of(c.name),
    "block": lambda c: block_of(c.name),
    "kind": lambda c: kind_of(c.name),
    "dtype": lambda c: c.dtype,
    "status": lambda c: c.status,
}
"""What parameters can be grouped by: the key of the group that each belongs to."""
