"""Bring objects to a remote and from it.

A remote on this machine gets a verified copy from store to store; every other one is reached by git-lfs. Whatever
arrived stays, so a command that failed is simply run again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from theta_nb.errors import ThetaError
from theta_nb.git.carrier import Carrier, carrier_of, has_git_lfs
from theta_nb.git.endpoints import (
    Endpoint,
    config_lines,
    default_remote,
    endpoints_of,
    mask_credentials,
    remote_names,
)
from theta_nb.git.lfs_client import LfsClient, LfsError
from theta_nb.git.object_copies import (
    ObjectFolders,
    copy_objects,
    damaged,
    folders_in,
    own_folders,
    repository_folders,
)
from theta_nb.git.places import Places
from theta_nb.git.transfer_outcome import (
    Meter,
    Progress,
    TransferError,
    TransferReport,
    combined,
    count_objects,
    damaged_here,
    failed,
    list_objects,
    needed_by,
    share,
)

__all__ = [
    "TransferError",
    "TransferReport",
    "absent_here",
    "absent_there",
    "fetch_objects",
    "obtain_objects",
    "push_objects",
]

# --- what is where ----------------------------------------------------------------------------------------------------


def absent_here(places: Places, objects: Mapping[str, int]) -> dict[str, int]:
    """Those of some objects that this repository can not read."""
    return {oid: size for oid, size in objects.items() if places.store.size(oid) != size}


def absent_there(places: Places, remote: str, objects: Mapping[str, int], *, thorough: bool = False) -> set[str]:
    """Those of some objects that a remote does not confirm to have; nothing is sent or received.

    A server that cannot be reached confirms none.

    Parameters
    ----------
    places
        The repository.
    remote
        Name, URL or path.
    objects
        Lengths by name.
    thorough
        Whether the copies of a remote on this machine are read; else their lengths decide.

    Raises
    ------
    TransferError
        If the remote does not answer.
    """
    missing: set[str] = set()
    for endpoint in endpoints_of(places, remote, push=False) if objects else ():
        if endpoint.is_local:
            folders = _folders(places, endpoint)
            missing |= _without(folders, objects).keys()
            if thorough:
                there = ((oid, folders.find(oid, size)) for oid, size in objects.items())
                found = [(oid, path) for oid, path in there if path]
                missing |= damaged(found, workers=places.settings.workers)
            continue
        try:
            missing |= LfsClient(_carrier(places, endpoint), endpoint).absent(objects)
        except LfsError as error:
            raise failed(endpoint, objects, error) from error
    return missing


def _without(folders: ObjectFolders, objects: Mapping[str, int]) -> dict[str, int]:
    return {oid: size for oid, size in objects.items() if not folders.has(oid, size)}


def _folders(places: Places, endpoint: Endpoint) -> ObjectFolders:
    return repository_folders(endpoint.folder, fsync=places.settings.fsync)


# --- push -------------------------------------------------------------------------------------------------------------


def push_objects(
    places: Places,
    remote: str,
    objects: Mapping[str, int],
    *,
    url: str = "",
    progress: Progress | None = None,
) -> TransferReport:
    """Bring objects to a remote that lacks them.

    Before anything is sent, every object is known to be here and sound. One that is not here is no error if the remote
    has it, or another remote does.

    Parameters
    ----------
    places
        The repository.
    remote
        Name, URL or path; a remote with several push URLs gets the objects at each.
    objects
        Lengths by name.
    url
        The one push URL that counts, as git tells a ``pre-push`` hook.
    progress
        Called with bytes done and bytes in all.

    Raises
    ------
    TransferError
        If an object is neither here nor there, is damaged here, or the remote does not take it.
    ThetaError
        If there is no such remote.
    """
    endpoints = endpoints_of(places, remote, push=True, url=url)
    reports = [TransferReport(mask_credentials(remote))]
    for number, endpoint in enumerate(endpoints if objects else ()):
        part = share(progress, number, len(endpoints), sum(objects.values()))
        push = _push_local if endpoint.is_local else _push_lfs
        reports.append(push(places, endpoint, objects, part))
    return combined(reports)


def _push_local(
    places: Places, endpoint: Endpoint, objects: Mapping[str, int], progress: Progress | None
) -> TransferReport:
    target = _folders(places, endpoint)
    if os.path.realpath(target.common_dir) == os.path.realpath(places.common_dir):
        return TransferReport(endpoint.remote, present=len(objects))
    wanted = _without(target, objects)
    # What the push is about to refer to must not look old to a collector there.
    _freshen(target, objects.keys() - wanted.keys())
    source = _complete(places, endpoint, wanted)
    meter = Meter(sum(wanted.values()), progress)
    bad = copy_objects(source, target, wanted, workers=places.settings.workers, advance=meter.add)
    if bad:
        raise damaged_here(places, bad)
    return TransferReport(endpoint.remote, len(wanted), len(objects) - len(wanted), sum(wanted.values()))


def _freshen(folders: ObjectFolders, oids: Iterable[str]) -> None:
    for oid in oids:
        for path in folders.candidates(oid):
            with suppress(OSError):  # somebody else's file: whoever owns it decides
                os.utime(path)


def _push_lfs(
    places: Places, endpoint: Endpoint, objects: Mapping[str, int], progress: Progress | None
) -> TransferReport:
    client = LfsClient(_carrier(places, endpoint), endpoint)
    own = own_folders(places)
    apart = _without(own, objects)
    elsewhere = _without(folders_in(places.common_dir), apart) if apart else {}
    lacking: set[str] = set()
    if elsewhere:
        # A clone that left the weights out may push them on: what the target has already is not needed here.
        try:
            lacking = client.absent(elsewhere)
        except LfsError:
            lacking = set(elsewhere)
    wanted = {oid: size for oid, size in objects.items() if oid not in elsewhere or oid in lacking}
    apart = {oid: size for oid, size in apart.items() if oid in wanted}
    source = _complete(places, endpoint, apart) if apart else own
    workers = places.settings.workers
    bad = copy_objects(source, own, apart, workers=workers)
    bad |= damaged(((oid, places.store.path(oid)) for oid in wanted if oid not in bad), workers=workers)
    if bad:
        raise damaged_here(places, bad)
    try:
        sent = client.push(wanted, progress) if wanted else set()
    except LfsError as error:
        raise failed(endpoint, wanted, error) from error
    if progress is not None:  # what the server had already was never reported
        progress(sum(wanted.values()), sum(wanted.values()))
    return TransferReport(endpoint.remote, len(sent), len(objects) - len(sent), sum(wanted[oid] for oid in sent))


def _complete(places: Places, endpoint: Endpoint, wanted: Mapping[str, int]) -> ObjectFolders:
    """Folders that hold everything that is to be sent; what is not here is fetched from another remote.

    Raises
    ------
    TransferError
        If no remote has it; it names the checkpoint.
    """
    here = folders_in(places.common_dir)
    missing = _without(here, wanted)
    if not missing:
        return here
    others = [name for name in _remotes(places) if name != endpoint.remote]
    try:
        obtain_objects(places, missing, remotes=others)
    except TransferError as error:
        where = f" nor on {', '.join(others)}" if others else ""
        raise TransferError(
            f"{count_objects(error.oids)} of {needed_by(places, error.oids)} "
            f"{'is' if len(error.oids) == 1 else 'are'} neither here{where}. {error.message}",
            oids=error.oids,
            hint="Fetch from where the checkpoint came from ('git theta fetch REMOTE'), or push from a clone that has "
            "its objects.",
        ) from error
    return here


# --- fetch ------------------------------------------------------------------------------------------------------------


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
    wanted = absent_here(places, objects)
    name = mask_credentials(remote)
    adopted = _adopt(places, wanted)
    wanted = {oid: size for oid, size in wanted.items() if oid not in adopted}
    report = TransferReport(name, present=len(objects) - len(wanted))
    for endpoint in endpoints_of(places, remote, push=False) if wanted else ():
        fetch = _fetch_local if endpoint.is_local else _fetch_lfs
        report = combined([report, fetch(places, endpoint, wanted, progress)])
    return report


def obtain_objects(
    places: Places,
    objects: Mapping[str, int],
    *,
    remotes: Sequence[str] | None = None,
    progress: Progress | None = None,
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

    Raises
    ------
    TransferError
        If an object is not here in the end; the message says what each remote answered.
    """
    wanted = absent_here(places, objects)
    adopted = _adopt(places, wanted)
    wanted = {oid: size for oid, size in wanted.items() if oid not in adopted}
    reports = [TransferReport("", present=len(objects) - len(wanted))]
    answers: list[str] = []
    hint = ""
    names = _remotes(places) if remotes is None else remotes
    for name in names:
        if not wanted:
            break
        try:
            report = fetch_objects(places, name, wanted, progress=progress)
            answers.append(f"{name} does not have {count_objects(report.missing)}")
            reports.append(TransferReport(name, report.transferred, 0, report.nbytes))
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


def _adopt(places: Places, wanted: Mapping[str, int]) -> set[str]:
    """Take into our store what was pushed into this repository, where 'git lfs prune' would delete it."""
    received = folders_in(places.common_dir) if wanted else None
    found = {oid: size for oid, size in wanted.items() if received is not None and received.has(oid, size)}
    if not found or received is None:
        return set()
    return found.keys() - copy_objects(received, own_folders(places), found, workers=places.settings.workers)


def _fetch_local(
    places: Places, endpoint: Endpoint, wanted: Mapping[str, int], progress: Progress | None
) -> TransferReport:
    source = _folders(places, endpoint)
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
    places: Places, endpoint: Endpoint, wanted: Mapping[str, int], progress: Progress | None
) -> TransferReport:
    client = LfsClient(_carrier(places, endpoint), endpoint)
    missing, error = client.fetch(wanted, progress)
    own = own_folders(places)
    late = _without(own, wanted)
    arrived = {oid: size for oid, size in wanted.items() if oid not in late}
    _settle(places, arrived)
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


def _settle(places: Places, arrived: Iterable[str]) -> None:
    """Give what git-lfs wrote (and hashed) what our own objects have: on the disk, and read-only."""

    def one(oid: str) -> None:
        fd = os.open(places.store.path(oid), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if places.settings.fsync:
                os.fdatasync(fd)
            os.fchmod(fd, 0o444)
        finally:
            os.close(fd)

    with ThreadPoolExecutor(max(4, places.settings.workers), thread_name_prefix="theta-settle") as executor:
        list(executor.map(one, arrived))


# --- parts ------------------------------------------------------------------------------------------------------------


def _remotes(places: Places) -> list[str]:
    """Names of all remotes, the default one first."""
    names = remote_names(config_lines(places))
    with suppress(ThetaError):
        first = default_remote(places)
        names = [first, *(name for name in names if name != first)]
    return names


def _carrier(places: Places, endpoint: Endpoint) -> Carrier:
    if not has_git_lfs():
        raise TransferError(
            f"git-lfs is not installed, and {endpoint.shown} is reached through it",
            hint="Install it (https://git-lfs.com; 'apt-get install git-lfs', 'brew install git-lfs') and run the "
            "command again; everything on this machine works without it.",
        )
    return carrier_of(places)
