"""``git theta fetch``: bring objects here, for whole checkpoints or some of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from theta_nb.errors import ThetaError
from theta_nb.git.download import absent_here, fetch_objects, obtain_objects
from theta_nb.git.endpoints import mask_credentials
from theta_nb.git.places import Places
from theta_nb.git.process import git_ok
from theta_nb.git.selection import Selection, needed_objects, recent_revisions
from theta_nb.git.transfer_outcome import TransferError

__all__ = ["FetchResult", "fetch", "fetch_selection"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What was fetched.

    Parameters
    ----------
    remote
        Where from; empty where no remote was named and none was needed.
    checkpoints
        Versions of checkpoints that were looked at.
    objects
        Objects that they need.
    transferred, nbytes
        Those that were not here, and their length.
    dry_run
        Whether nothing was fetched.
    """

    remote: str
    checkpoints: int
    objects: int
    transferred: int
    nbytes: int
    dry_run: bool = False


def fetch(
    places: Places,
    remote: str = "",
    revisions: Sequence[str] = (),
    *,
    all_: bool = False,
    recent: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    parameters: Sequence[str] = (),
    dry_run: bool = False,
    progress: Progress | None = None,
) -> FetchResult:
    """Fetch the objects of checkpoints into the store; files and refs stay as they are.

    Parameters
    ----------
    places
        The repository.
    remote
        Name, URL or path; all remotes in turn where empty, the default one first.
    revisions
        Commits whose checkpoints are meant; HEAD and the index by default.
    all_
        Whether to fetch everything that any branch, tag or remote-tracking branch reaches.
    recent
        Whether to add the tips of branches that changed of late.
    include, exclude
        Globs over paths.
    parameters
        Globs over parameter names: only their objects are fetched.
    dry_run
        Whether to only count.
    progress
        Called with bytes done and bytes in all.

    Raises
    ------
    TransferError
        If an object is not here in the end; what arrived is kept.
    ThetaError
        If there is no such remote or revision.
    """
    if all_ and (include or exclude or revisions):
        raise ThetaError(
            "everything is asked for, and a part of it", hint="Leave out --all, or the commits and path patterns."
        )
    if all_:
        selection = Selection(history=["--all"], parameters=parameters)
    else:
        wanted = list(revisions)
        if not wanted:
            born = git_ok("rev-parse", "--verify", "--quiet", "HEAD", cwd=places.top)
            wanted = (["HEAD"] if born else []) + ([""] if places.work_tree else [])
        if recent:
            wanted += recent_revisions(places)
        selection = Selection(wanted, include=include, exclude=exclude, parameters=parameters)
    return fetch_selection(places, remote, selection, dry_run=dry_run, progress=progress)


def fetch_selection(
    places: Places, remote: str, selection: Selection, *, dry_run: bool = False, progress: Progress | None = None
) -> FetchResult:
    """Fetch what a selection needs.

    Raises
    ------
    TransferError
        If an object is not here in the end; what arrived is kept.
    """
    objects, number = needed_objects(places, selection)
    if dry_run:
        absent = absent_here(places, objects)
        return FetchResult(mask_credentials(remote), number, len(objects), len(absent), sum(absent.values()), dry_run)
    if not remote:
        report = obtain_objects(places, objects, progress=progress)
    else:
        report = fetch_objects(places, remote, objects, progress=progress)
    if report.missing:
        raise TransferError(
            f"{mask_credentials(remote)} does not have {len(report.missing)} of {len(objects)} objects: "
            f"{', '.join(oid[:12] for oid in report.missing[:3])}{', …' if len(report.missing) > 3 else ''}",
            oids=report.missing,
            hint="Another remote may ('git theta fetch' asks all of them), or a clone that can push them: "
            "'git theta push --all'.",
        )
    return FetchResult(report.remote, number, len(objects), report.transferred, report.nbytes)
