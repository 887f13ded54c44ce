"""``git theta push``: bring objects to a remote, without the commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from theta_nb.errors import ThetaError
from theta_nb.git.endpoints import default_remote
from theta_nb.git.places import Places
from theta_nb.git.process import git_ok
from theta_nb.git.push_range import objects_of_revisions
from theta_nb.git.tracked import resolve
from theta_nb.git.upload import absent_there, push_objects

__all__ = ["PushResult", "push"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PushResult:
    """What was uploaded.

    Parameters
    ----------
    remote
        Where to.
    objects
        Objects that were looked at.
    transferred, nbytes
        Those that the remote lacked (as far as it says, in a dry run), and their length.
    dry_run
        Whether nothing was sent.
    """

    remote: str
    objects: int
    transferred: int
    nbytes: int
    dry_run: bool = False


def push(
    places: Places,
    remote: str = "",
    revisions: Sequence[str] = (),
    *,
    all_: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PushResult:
    """Upload the objects that commits refer to; commits themselves are for ``git push``.

    Parameters
    ----------
    places
        The repository.
    remote
        Name, URL or path; the default remote where empty.
    revisions
        Branches, tags or commits, with their history; HEAD by default, all branches and tags with ``all_``.
    all_
        Whether to look at everything, also at what the branches of the remote reach: they tell of commits, which
        somebody may have pushed without their objects.
    dry_run
        Whether to only ask the remote what it lacks.
    progress
        Called with bytes done and bytes in all.

    Raises
    ------
    TransferError
        If the upload fails (what arrived stays), or the remote does not say what it lacks.
    ThetaError
        If there is no such remote or revision.
    """
    name = remote or default_remote(places, push=True)
    if revisions:
        wanted = [resolve(revision, places.cwd) for revision in revisions]
    elif all_:
        wanted = ["--branches", "--tags"]
    elif git_ok("rev-parse", "--verify", "--quiet", "HEAD", cwd=places.top):
        wanted = ["HEAD"]
    else:
        raise ThetaError("there is no commit to push yet", hint="Commit first.")
    objects = objects_of_revisions(places, wanted, remote="" if all_ else name)
    if dry_run:
        absent = absent_there(places, name, objects, push=True)
        return PushResult(name, len(objects), len(absent), sum(objects[oid] for oid in absent), dry_run=True)
    report = push_objects(places, name, objects, progress=progress)
    return PushResult(report.remote, len(objects), report.transferred, report.nbytes)
