"""theta-nb: git for the inside of model checkpoints, made for notebooks.

Examples
--------
>>> import theta_nb
>>> theta_nb.Repository.__name__
'Repository'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from theta_nb.errors import ThetaError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from theta_nb.engine.checkpoint import Checkpoint, TensorView
    from theta_nb.jupyter.diff_explorer import DiffExplorer
    from theta_nb.jupyter.history_explorer import HistoryExplorer
    from theta_nb.jupyter.merge_explorer import MergeExplorer
    from theta_nb.report.checkpoint_diff import CheckpointDiff
    from theta_nb.report.history import History
    from theta_nb.repository import Repository

__all__ = [
    "Checkpoint",
    "CheckpointDiff",
    "DiffExplorer",
    "History",
    "HistoryExplorer",
    "MergeExplorer",
    "Repository",
    "TensorView",
    "ThetaError",
    "__version__",
]

__version__ = "0.1.0"

# Imported on first use: 'import theta_nb' costs nothing that a filter or a shell prompt would notice.
_LAZY = {
    "Checkpoint": "theta_nb.engine.checkpoint",
    "CheckpointDiff": "theta_nb.report.checkpoint_diff",
    "DiffExplorer": "theta_nb.jupyter.diff_explorer",
    "History": "theta_nb.report.history",
    "HistoryExplorer": "theta_nb.jupyter.history_explorer",
    "MergeExplorer": "theta_nb.jupyter.merge_explorer",
    "Repository": "theta_nb.repository",
    "TensorView": "theta_nb.engine.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magic ``%theta``; IPython calls it for ``%load_ext theta_nb``."""
    from theta_nb.jupyter.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magic away; IPython calls it for ``%unload_ext theta_nb``."""
    from theta_nb.jupyter.extension import unload

    unload(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
