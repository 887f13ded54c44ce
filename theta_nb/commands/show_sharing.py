"""What push, fetch and pull print."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from theta_nb.commands import show_checkpoints
from theta_nb.commands.terminal import Style, count, human_size, visible

if TYPE_CHECKING:
    from theta_nb.commands.fetch import FetchResult
    from theta_nb.commands.pull import PullResult
    from theta_nb.commands.push import PushResult

__all__ = ["fetch", "pull", "push"]


def push(arguments: Namespace, result: PushResult, style: Style) -> list[str]:
    """What was uploaded, or would be."""
    where = visible(result.remote)
    moved = f"{count(result.transferred, 'object')}, {human_size(result.nbytes)}"
    if not result.objects:
        if arguments.all_:
            return [f"There is nothing to upload to {where}: no commit has a checkpoint."]
        return [f"There is nothing to upload to {where}; 'git theta push --all' checks everything."]
    if result.dry_run:
        return [f"would upload {moved}, to {where}; it has {result.objects - result.transferred:,} of them"]
    if not result.transferred:
        return [f"{where} has {count(result.objects, 'object')} already"]
    return [
        style.green(f"uploaded {moved}, to {where}"),
        style.dim("These were the weights; 'git push' sends commits."),
    ]


def fetch(_: Namespace, result: FetchResult, style: Style) -> list[str]:
    """What was fetched, or would be."""
    moved = f"{count(result.transferred, 'object')}, {human_size(result.nbytes)}"
    if not result.checkpoints:
        return ["There is nothing to fetch: no stored checkpoint matches."]
    if result.dry_run:
        return [f"would fetch {moved}; {result.objects - result.transferred:,} are here"]
    if not result.transferred:
        return [style.dim(f"everything is here: {count(result.objects, 'object')}")]
    source = f", from {visible(result.remote)}" if result.remote else ""
    return [style.green(f"fetched {moved}{source}")]


def pull(arguments: Namespace, result: PullResult, style: Style) -> list[str]:
    """What was fetched, then what was written."""
    fetched = fetch(arguments, result.fetched, style) if result.fetched.transferred else []
    return [*fetched, *show_checkpoints.checkout(arguments, result.checkpoints, style)]
