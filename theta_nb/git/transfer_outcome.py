"""What a transfer did, how far it is, and what is said where it failed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from theta_nb.errors import ThetaError, count
from theta_nb.git.endpoints import Endpoint
from theta_nb.git.lfs_error import LfsError
from theta_nb.git.places import Places

__all__ = [
    "Meter",
    "Progress",
    "TransferError",
    "TransferReport",
    "combined",
    "count_objects",
    "damaged_here",
    "failed",
    "list_objects",
    "needed_by",
    "share",
]

Progress = Callable[[int, int], None]

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What moved.

    Parameters
    ----------
    remote
        Name of the remote, or its URL without credentials.
    transferred
        Objects that were sent or received.
    present
        Objects that were there already.
    nbytes
        Length of those that were sent or received.
    missing
        Objects that were asked for and that the remote does not have.
    """

    remote: str
    transferred: int = 0
    present: int = 0
    nbytes: int = 0
    missing: tuple[str, ...] = ()


class TransferError(ThetaError):
    """Objects could not be brought to or from a remote.

    Parameters
    ----------
    message, hint
        As for :class:`ThetaError`.
    oids
        Objects that are not where they should be.
    """

    def __init__(self, message: str, *, oids: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.oids = oids


class Meter:
    """Adds up bytes from several threads."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._lock = threading.Lock()
        self._done, self._total, self._progress = 0, total, progress

    def add(self, nbytes: int) -> None:
        """Count some more."""
        with self._lock:
            self._done += nbytes
            if self._progress is not None:
                self._progress(min(self._done, self._total), self._total)


def share(progress: Progress | None, number: int, count: int, nbytes: int) -> Progress | None:
    """Progress of one of several equal parts, in each of which some of ``nbytes`` may be done from the start."""
    if progress is None or count == 1:
        return progress

    def part(done: int, total: int) -> None:
        progress(number * nbytes + (nbytes - total) + done, count * nbytes)

    return part


def combined(reports: Sequence[TransferReport]) -> TransferReport:
    """One report of several."""
    return TransferReport(
        next((report.remote for report in reports if report.remote), ""),
        sum(report.transferred for report in reports),
        sum(report.present for report in reports),
        sum(report.nbytes for report in reports),
        tuple(dict.fromkeys(oid for report in reports for oid in report.missing)),
    )


def failed(endpoint: Endpoint, objects: Mapping[str, int], error: LfsError) -> TransferError:
    """Some of these objects are not where they should be, with git-lfs's last words."""
    oids = tuple(sorted(objects))
    reach = "did not reach" if len(oids) == 1 else "did not all reach"
    way = reach if endpoint.push else "did not arrive from"
    return TransferError(
        f"{count_objects(oids)} ({list_objects(oids)}) {way} {endpoint.shown}: {error.message}",
        oids=oids,
        hint=error.hint,
    )


def damaged_here(places: Places, bad: Iterable[str]) -> TransferError:
    """Objects of ours do not hold what their names say."""
    oids = tuple(sorted(bad))
    return TransferError(
        f"{count_objects(oids)} of {needed_by(places, oids)} {'is' if len(oids) == 1 else 'are'} damaged in "
        f"{os.path.join(places.theta_dir, 'objects')} and cannot be sent: {list_objects(oids)}",
        oids=oids,
        hint="'git theta fsck' lists the tensors; delete the damaged files and add the checkpoint again, or fetch "
        "them from a remote.",
    )


def needed_by(places: Places, oids: Iterable[str]) -> str:
    """Checkpoint and commit that need one of some objects, for messages: this walks the whole history."""
    wanted = set(oids)
    from theta_nb.git.walk import commit_of, everything, manifest_blobs, named_objects  # only where something fails

    for blob in manifest_blobs(places, everything(places)):
        if wanted & named_objects(blob.text).keys():
            return f"{blob.path or 'a checkpoint'} at {commit_of(places, blob.oid)[:12] or 'the index'}"
    return "a checkpoint"


def count_objects(oids: Iterable[str]) -> str:
    """How many objects, as words."""
    return count(len(tuple(oids)), "object")


def list_objects(oids: Iterable[str]) -> str:
    """The first few names, shortened."""
    names = sorted(oids)
    return ", ".join([*(oid[:12] for oid in names[:_SHOWN]), *(["…"] if len(names) > _SHOWN else [])])
