"""Results as text for people and as JSON for programs."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any

from theta_nb.commands import show_checkpoints, show_setup, show_sharing
from theta_nb.commands.terminal import Style

__all__ = ["as_json", "as_text"]

_TEXTS: dict[str, Callable[[Namespace, Any, Style], list[str]]] = {
    "install": show_setup.install,
    "uninstall": show_setup.uninstall,
    "track": show_setup.track,
    "untrack": show_setup.untrack,
    "hooks": show_setup.hooks,
    "env": show_setup.env,
    "add": show_checkpoints.add,
    "status": show_checkpoints.status,
    "ls-files": show_checkpoints.ls_files,
    "checkout": show_checkpoints.checkout,
    "push": show_sharing.push,
    "fetch": show_sharing.fetch,
    "pull": show_sharing.pull,
    "fsck": show_checkpoints.fsck,
    "gc": show_checkpoints.gc,
    "compact": show_checkpoints.compact,
}
_LIST_NAMES = {
    "track": "patterns",
    "status": "checkpoints",
    "ls-files": "checkpoints",
    "checkout": "checkpoints",
    "compact": "checkpoints",
}


def as_text(arguments: Namespace, result: Any, style: Style) -> str:
    """What the command line prints for a result, without a final line end; may be empty.

    Parameters
    ----------
    arguments
        From the parser: the command, and how its result is to be shown.
    result
        From :func:`theta_nb.commands.dispatch.execute`.
    style
        How names and emphasis are shown.
    """
    return "\n".join(_TEXTS[arguments.command](arguments, result, style))


def as_json(arguments: Namespace, result: Any) -> str:
    """A result as one JSON object; lists stand under a name, and paths are relative to the top of the work tree."""
    if is_dataclass(result) and not isinstance(result, type):
        value = asdict(result)
    else:
        value = {_LIST_NAMES[arguments.command]: [asdict(item) for item in result]}
    return json.dumps(value, indent=2)
