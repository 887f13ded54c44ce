"""A diff as a pandas data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from theta_nb.errors import ThetaError
from theta_nb.report.diff_json import NUMBERS
from theta_nb.report.grouping import block_of, kind_of, module_of

if TYPE_CHECKING:
    import pandas as pd

    from theta_nb.report.checkpoint_diff import CheckpointDiff

__all__ = ["to_pandas"]


def to_pandas(diff: CheckpointDiff) -> pd.DataFrame:
    """A row per parameter, in the present order; what was not measured is NaN.

    Raises
    ------
    ThetaError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ThetaError("pandas is not installed", hint="Run 'pip install pandas', or use to_dict().") from error
    return pd.DataFrame(rows(diff)).set_index("name")


def rows(diff: CheckpointDiff) -> list[dict[str, Any]]:
    """The rows of the frame as plain dicts."""
    found = []
    for change in diff.parameters:
        row: dict[str, Any] = {
            "name": change.name,
            "status": change.status,
            "module": module_of(change.name),
            "block": block_of(change.name),
            "kind": kind_of(change.name),
            "old_name": change.old_name,
            "old_dtype": change.old.dtype if change.old is not None else None,
            "new_dtype": change.new.dtype if change.new is not None else None,
            "old_shape": change.old.shape if change.old is not None else None,
            "new_shape": change.new.shape if change.new is not None else None,
            "tied": change.tied,
            "note": change.note,
        }
        for name in (*NUMBERS, "changed_share", "flipped_share"):
            row[name] = float("nan") if change.statistics is None else getattr(change.statistics, name)
        found.append(row)
    return found
