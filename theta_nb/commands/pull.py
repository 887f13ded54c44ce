"""``git theta pull``: fetch what the index needs, then write the checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from theta_nb.commands.checkout import CheckedOut, checkout
from theta_nb.commands.fetch import FetchResult, fetch_selection
from theta_nb.errors import ThetaError
from theta_nb.git.configuration import require_filter
from theta_nb.git.places import Places
from theta_nb.git.selection import Selection

__all__ = ["PullResult", "pull"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PullResult:
    """What was fetched and written.

    Parameters
    ----------
    fetched
        Objects.
    checkpoints
        Files of the work tree.
    """

    fetched: FetchResult
    checkpoints: tuple[CheckedOut, ...]


def pull(
    places: Places, remote: str = "", paths: Sequence[str] = (), *, progress: Progress | None = None
) -> PullResult:
    """Complete a clone: fetch the objects of checkpoints in the index and write those that are still manifests.

    Parameters
    ----------
    places
        The repository; needs a work tree.
    remote
        Name, URL or path; all remotes in turn where empty, the default one first.
    paths
        Pathspecs relative to the current directory; all tracked checkpoints by default, without those that a sparse
        checkout leaves out.
    progress
        Called with bytes done and bytes in all, first of the fetch and then of the files.

    Raises
    ------
    TransferError
        If an object cannot be had; what arrived is kept.
    ThetaError
        If git does not know the filter, a file that was named has changes of the user's, or one cannot be written.
    """
    if places.work_tree is None:
        raise ThetaError("there is no work tree here to write checkpoints into", hint="'git theta fetch' needs none.")
    require_filter(places.top)  # here already, before the long part
    fetched = fetch_selection(places, remote, Selection([""], paths=paths), progress=progress)
    return PullResult(fetched, tuple(checkout(places, paths, progress=progress)))
