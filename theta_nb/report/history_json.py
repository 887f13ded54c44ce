"""Histories and blames as JSON types and as data frames."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from theta_nb.errors import ThetaError

if TYPE_CHECKING:
    import pandas as pd

    from theta_nb.engine.diff import ParameterChange
    from theta_nb.engine.history import Commit, Step
    from theta_nb.report.blame import Blame
    from theta_nb.report.history import History

__all__ = ["blame_to_dict", "commit_to_dict", "to_dict", "to_pandas"]


def to_dict(history: History) -> dict[str, Any]:
    """A history as JSON types; what is no finite number is ``null``."""
    matrix = history.matrix()
    return {
        "version": 1,
        "path": history.path,
        "first_parent": history.first_parent,
        "measured": history.measured,
        "steps": [_step(step) for step in history],
        "matrix": {
            "layers": list(matrix.layers),
            "commits": [commit.id for commit in matrix.commits],
            "values": [[_finite(value) for value in row] for row in matrix.values],
        },
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "commit": commit_to_dict(step.commit),
        "path": step.path,
        "renamed_from": step.renamed_from,
        "state": step.state,
        # Of a new checkpoint everything is new, which needs no list.
        "changes": [_change(change) for change in step.changes] if step.state == "modified" else [],
        "other": step.other,
        "tensors": step.tensors,
        "size": step.size,
        "format": step.format,
        "new_objects": step.new_objects,
        "new_bytes": step.new_bytes,
        "storage": dict(step.storage),
        "recipe": step.recipe,
        "problem": step.problem,
    }


def commit_to_dict(commit: Commit) -> dict[str, Any]:
    """A commit as JSON types."""
    return {
        "id": commit.id,
        "parents": list(commit.parents),
        "author": commit.author,
        "date": commit.date.isoformat(),
        "subject": commit.subject,
        "metrics": {name: _finite(value) for name, value in commit.metrics.items()},
        "branches": list(commit.branches),
        "tags": list(commit.tags),
        "head": commit.head,
    }


def _change(change: ParameterChange) -> dict[str, Any]:
    found: dict[str, Any] = {"name": change.name, "status": change.status}
    if change.status == "renamed":
        found["old_name"] = change.old_name
    if change.statistics is not None:
        found["relative"] = _finite(change.statistics.relative)
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def to_pandas(history: History) -> pd.DataFrame:
    """A data frame with a row per commit, oldest first.

    Raises
    ------
    ThetaError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ThetaError("pandas is not installed", hint="Run 'pip install pandas'.") from error
    rows = [
        {
            "commit": step.commit.id,
            "date": step.commit.date,
            "author": step.commit.author,
            "subject": step.commit.subject,
            "state": step.state,
            "changed": len(step.changes),
            "tensors": step.tensors,
            "new_bytes": step.new_bytes,
            **step.commit.metrics,
        }
        for step in reversed(history.steps)
    ]
    return pd.DataFrame(rows).set_index("commit")


def blame_to_dict(blame: Blame) -> dict[str, Any]:
    """A blame as JSON types: the commits once, and for each parameter which one it is."""
    return {
        "version": 1,
        "path": blame.path,
        "revision": blame.revision,
        "commits": [commit_to_dict(commit) for commit in {line.commit.id: line.commit for line in blame}.values()],
        "parameters": [
            {
                "name": line.parameter.name,
                "dtype": line.parameter.dtype,
                "shape": list(line.parameter.shape),
                "commit": line.commit.id,
                "status": line.status,
            }
            for line in blame
        ],
    }
