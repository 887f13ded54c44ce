"""Bring objects here, from one remote or from wherever they are.

A remote on this machine gives a verified copy from store to store; every other one is reached by git-lfs. Whatever
arrived stays, so a command that failed is simply run again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from theta_nb.errors import ThetaError
from theta_nb.git.carrier import carrier_for
from theta_nb.git.endpoints import (
    ConfigLine,
    Endpoint,
    config_lines,
    default_remote,
    endpoints_of,
    mask_credentials,
    remote_names,
)
from theta_nb.git.errands import NO_ERRANDS, Errands
from theta_nb.git.lfs_client import LfsClient
from theta_nb.git.object_folders import folders_in, own_folders, repository_folders
from theta_nb.git.places import Places
from theta_nb.git.transfer_outcome import (
    Meter,
    Progress,
    TransferError,
    TransferReport,
    combined,
    count_objects,
    failed,
    list_objects,
)
from theta_nb.storage.durable import to_disk

__all__ = ["absent_here", "fetch_objects", "obtain_objects", "remotes_in_order"]


def absent_here(places: Places, objects: Mapping[str, int]) -> dict[str, int]:
    """Those of some objects that this repository can not read."""
    return {oid: size for oid, size in objects.items() if places.store.size(oid) != size}


def fetch_objects(
    places: Places, remote: str, objects: Mapping[str, int], *, progress: Progress | None = None
) -> TransferReport:
    """Bring objects here from one remote; those that are here already are not asked for.

    Parameters
    ----------
    places
        The repository.
    remote
        Name, URL or path.
    objects
        Lengths by name.
    progress
        Called with bytes done and bytes in all.

    Returns
    -------
    TransferReport
        ``missing`` names what the remote does not have; that is no error.

    Raises
    ------
    TransferError
        If the remote does not answer, or what it has is damaged. What arrived is kept.
    ThetaError
        If there is no such remote.
    """
    lines = config_lines(places)
    wanted = _still_wanted(places, lines, objects)
    report = TransferReport(mask_credentials(remote), present=len(objects) - len(wanted))
    return combined([report, _fetch(places, lines, remote, wanted, progress)]) if wanted else report


def obtain_objects(
    places: Places,
    objects: Mapping[str, int],
    *,
    remotes: Sequence[str] | None = None,
    progress: Progress | None = None,
    errands: Errands = NO_ERRANDS,
) -> TransferReport:
    """Bring objects here from wherever they are: one remote after the other, the default one first.

    Parameters
    ----------
    places
        The repository.
    objects
        Lengths by name.
    remotes
        Names of the remotes to ask, in order; all of them by default.
    progress
        Called with bytes done and bytes in all.
    errands
        What else is done meanwhile, or later.

    Raises
    ------
    TransferError
        If an object is not here in the end; the message says what each remote answered.
    """
    lines = config_lines(places)
    wanted = _still_wanted(places, lines, objects)
    reports = [TransferReport("", present=len(objects) - len(wanted))]
    answers: list[str] = []
    hint = ""
    for name in remotes_in_order(places, lines) if remotes is None else remotes:
        if not wanted:
            break
        try:
            report = _fetch(places, lines, name, wanted, progress, errands)
            answers.append(f"{name} does not have {count_objects(report.missing)}")
            reports.append(replace(report, missing=()))  # the next remote may have those
        except ThetaError as error:
            answers.append(f"{mask_credentials(name)}: {error.message}")
            hint = error.hint
        wanted = absent_here(places, wanted)
    if wanted:
        oids = tuple(sorted(wanted))
        asked = "; ".join(answers) or "there is no remote to ask"
        raise TransferError(
            f"{count_objects(oids)} could not be fetched ({list_objects(oids)}): {asked}",
            oids=oids,
            hint=hint or "Push them from a clone that has them: 'git theta push --all'.",
        )
    return combined(reports)


def _still_wanted(places: Places, lines: Sequence[ConfigLine], objects: Mapping[str, int]) -> dict[str, int]:
    """Those of some objects that are not in this repository at all."""
    wanted = absent_here(places, objects)
    adopted = _adopt(places, lines, wanted)
    return {oid: size for oid, size in wanted.items() if oid not in adopted}


def _fetch(
    places: Places,
    lines: Sequence[ConfigLine],
    remote: str,
    wanted: Mapping[str, int],
    progress: Progress | None,
    errands: Errands = NO_ERRANDS,
) -> TransferReport:
    reports = [TransferReport(mask_credentials(remote))]
    for endpoint in endpoints_of(places, remote, push=False, lines=lines):
        if endpoint.is_local:
            reports.append(_fetch_local(places, endpoint, wanted, progress))
        else:
            client = LfsClient(carrier_for(places, endpoint, lines), endpoint)
            reports.append(_fetch_lfs(places, client, endpoint, wanted, progress, errands))
    return combined(reports)


def _adopt(places: Places, lines: Sequence[ConfigLine], wanted: Mapping[str, int]) -> set[str]:
    """Take into our store what was pushed into this repository, where 'git lfs prune' would delete it."""
    received = folders_in(places.common_dir, config={line.key: line.value for line in lines})
    found = {oid: size for oid, size in wanted.items() if received.has(oid, size)}
    if not found:
        return set()
    from theta_nb.git.object_copies import copy_objects  # with threads, which git-lfs need not wait for

    return found.keys() - copy_objects(received, own_folders(places), found, workers=places.settings.workers)


def _fetch_local(
    places: Places, endpoint: Endpoint, wanted: Mapping[str, int], progress: Progress | None
) -> TransferReport:
    from theta_nb.git.object_copies import copy_objects

    source = repository_folders(endpoint.folder, fsync=places.settings.fsync)
    there = {oid: size for oid, size in wanted.items() if source.has(oid, size)}
    meter = Meter(sum(there.values()), progress)
    bad = copy_objects(source, own_folders(places), there, workers=places.settings.workers, advance=meter.add)
    if bad:
        raise TransferError(
            f"{count_objects(bad)} on {endpoint.shown} {'is' if len(bad) == 1 else 'are'} damaged: {list_objects(bad)}",
            oids=tuple(sorted(bad)),
            hint="Delete the damaged files there and run 'git theta push --all' in a clone that is complete.",
        )
    missing = tuple(sorted(wanted.keys() - there.keys()))
    return TransferReport(endpoint.remote, len(there), 0, sum(there.values()), missing)


def _fetch_lfs(
    places: Places,
    client: LfsClient,
    endpoint: Endpoint,
    wanted: Mapping[str, int],
    progress: Progress | None,
    errands: Errands,
) -> TransferReport:
    missing, error = client.fetch(wanted, progress, errands.meanwhile)
    late = own_folders(places).lacks(wanted)
    arrived = {oid: size for oid, size in wanted.items() if oid not in late}
    _settle(places, arrived, errands)
    lost = late.keys() - missing
    if error is not None:
        raise failed(endpoint, late, error) from error
    if lost:
        raise TransferError(
            f"git-lfs reports success, but {count_objects(lost)} did not arrive from {endpoint.shown}: "
            f"{list_objects(lost)}",
            oids=tuple(sorted(lost)),
            hint="'git theta env' shows the configuration of Git LFS that is in force.",
        )
    return TransferReport(endpoint.remote, len(arrived), 0, sum(arrived.values()), tuple(sorted(late)))


def _settle(places: Places, arrived: Iterable[str], errands: Errands) -> None:
    """Give what git-lfs wrote (and hashed) what our own objects have: read-only, and soon on the disk.

    Whoever asked for the objects need not wait for the disk to use them. A filter does not even when it ends: what the
    system has not written by then it writes in its own time, and what it loses is still on the remote.
    """
    paths = [places.store.path(oid) for oid in arrived]
    for path in paths:
        os.chmod(path, 0o444)
    if places.settings.fsync:
        errands.later(partial(_all_to_disk, paths))


def _all_to_disk(paths: Sequence[str]) -> None:
    """Begin to bring files to the disk."""
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(4, thread_name_prefix="theta-settle")
    for path in paths:
        executor.submit(_to_disk, path)
    executor.shutdown(wait=False)


def _to_disk(path: str) -> None:
    with suppress(OSError):  # what a disk loses is found by its digest when it is read
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            to_disk(fd)
        finally:
            os.close(fd)


def remotes_in_order(places: Places, lines: Sequence[ConfigLine]) -> list[str]:
    """Names of all remotes, the default one first."""
    names = remote_names(lines)
    with suppress(ThetaError):
        first = default_remote(places, lines=lines)
        names = [first, *(name for name in names if name != first)]
    return names
