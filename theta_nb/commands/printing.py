"""Results as text for people and as JSON for programs."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any

from theta_nb.commands import show_checkpoints, show_history, show_merging, show_setup, show_sharing
from theta_nb.commands.terminal import Style

__all__ = ["PAGED", "PLAIN_STYLE", "as_html", "as_json", "as_text"]

_TEXTS: dict[str, Callable[[Namespace, Any, Style], list[str]]] = {
    "install": show_setup.install,
    "uninstall": show_setup.uninstall,
    "track": show_setup.track,
    "untrack": show_setup.untrack,
    "hooks": show_setup.hooks,
    "env": show_setup.env,
    "add": show_checkpoints.add,
    "commit": show_checkpoints.commit,
    "status": show_checkpoints.status,
    "ls-files": show_checkpoints.ls_files,
    "checkout": show_checkpoints.checkout,
    "diff": show_history.diff,
    "log": show_history.log,
    "show": show_history.show,
    "blame": show_history.blame,
    "merge": show_merging.merge,
    "replay": show_merging.replay,
    "push": show_sharing.push,
    "fetch": show_sharing.fetch,
    "pull": show_sharing.pull,
    "fsck": show_checkpoints.fsck,
    "gc": show_checkpoints.gc,
    "compact": show_checkpoints.compact,
}
PAGED = frozenset({"diff", "log", "show", "blame"})
"""Commands whose output is long, and goes through a pager on a terminal."""

PLAIN_STYLE = Style()
"""For output that is no terminal."""

_LIST_NAMES = {
    "track": "patterns",
    "status": "checkpoints",
    "ls-files": "checkpoints",
    "checkout": "checkpoints",
    "compact": "checkpoints",
    "diff": "diffs",
    "log": "histories",
    "merge": "methods",
    "replay": "merges",
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
    if hasattr(result, "to_dict"):
        value = result.to_dict()
    elif is_dataclass(result) and not isinstance(result, type):
        value = asdict(result)
    else:
        # What failed is no diff: it stands under a name of its own, so that the schema of a diff holds for every other.
        failed = [_item(item) for item in result if _is_failed(arguments, item)]
        value = {_LIST_NAMES[arguments.command]: [_item(item) for item in result if not _is_failed(arguments, item)]}
        value |= {"errors": failed} if failed else {}
    return json.dumps(value, indent=2)


def as_html(result: Any) -> str:
    """A result as a document of its own."""
    return show_history.html_page(result)


def _is_failed(arguments: Namespace, item: Any) -> bool:
    if arguments.command != "diff":
        return False
    from theta_nb.commands.diff import FailedDiff

    return isinstance(item, FailedDiff)


def _item(item: Any) -> Any:
    return item.to_dict() if hasattr(item, "to_dict") else asdict(item)
