"""Bring objects to a remote.

A remote on this machine gets a verified copy from store to store; every other one is reached by git-lfs. Whatever
arrived stays, so a command that failed is simply run again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

from theta_nb.git.carrier import carrier_for
from theta_nb.git.download import obtain_objects, remotes_in_order
from theta_nb.git.endpoints import Endpoint, config_lines, endpoints_of, mask_credentials
from theta_nb.git.lfs_client import LfsClient
from theta_nb.git.lfs_error import LfsError
from theta_nb.git.object_copies import copy_objects, damaged
from theta_nb.git.object_folders import ObjectFolders, folders_in, own_folders, repository_folders
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

__all__ = ["absent_there", "push_objects"]


def absent_there(
    places: Places, remote: str, objects: Mapping[str, int], *, push: bool = False, thorough: bool = False
) -> set[str]:
    """Those of some objects that a remote does not confirm to have; nothing is sent or received.

    Parameters
    ----------
    places
        The repository.
    remote
        Name, URL or path.
    objects
        Lengths by name.
    push
        Whether to ask where a push would go, which may be several places, each of which must have them.
    thorough
        Whether the copies of a remote on this machine are read; else their lengths decide.

    Raises
    ------
    TransferError
        If the remote does not answer.
    ThetaError
        If there is no such remote.
    """
    missing: set[str] = set()
    lines = config_lines(places) if objects else []
    for endpoint in endpoints_of(places, remote, push=push, lines=lines) if objects else ():
        if endpoint.is_local:
            folders = repository_folders(endpoint.folder)
            missing |= folders.lacks(objects).keys()
            if thorough:
                there = ((oid, folders.find(oid, size)) for oid, size in objects.items())
                found = [(oid, path) for oid, path in there if path]
                missing |= damaged(found, workers=places.settings.workers)
            continue
        try:
            missing |= LfsClient(carrier_for(places, endpoint, lines), endpoint).absent(objects)
        except LfsError as error:
            raise TransferError(
                f"{endpoint.shown} cannot be asked about {count_objects(objects)}: {error.message}",
                oids=tuple(sorted(objects)),
                hint=error.hint,
            ) from error
    return missing


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
    lines = config_lines(places)
    endpoints = endpoints_of(places, remote, push=True, url=url, lines=lines)
    reports = [TransferReport(mask_credentials(remote))]
    for number, endpoint in enumerate(endpoints if objects else ()):
        part = share(progress, number, len(endpoints), sum(objects.values()))
        if endpoint.is_local:
            reports.append(_push_local(places, endpoint, objects, part))
        else:
            client = LfsClient(carrier_for(places, endpoint, lines), endpoint)
            reports.append(_push_lfs(places, client, endpoint, objects, part))
    return combined(reports)


def _push_local(
    places: Places, endpoint: Endpoint, objects: Mapping[str, int], progress: Progress | None
) -> TransferReport:
    target = repository_folders(endpoint.folder, fsync=places.settings.fsync)
    if os.path.realpath(target.common_dir) == os.path.realpath(places.common_dir):
        return TransferReport(endpoint.remote, present=len(objects))
    wanted = target.lacks(objects)
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
    places: Places, client: LfsClient, endpoint: Endpoint, objects: Mapping[str, int], progress: Progress | None
) -> TransferReport:
    own = own_folders(places)
    apart = own.lacks(objects)
    elsewhere = folders_in(places.common_dir).lacks(apart) if apart else {}
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
        lost = _not_kept(client, {oid: wanted[oid] for oid in sent})
    except LfsError as error:
        raise failed(endpoint, _left_out(client, wanted, error), error) from error
    if lost:
        raise TransferError(
            f"git-lfs reports success, but {endpoint.shown} does not have {count_objects(lost)} "
            f"({list_objects(lost)}) that it was sent",
            oids=tuple(sorted(lost)),
            hint="Run it again; if they are lost each time, the server does not keep what it takes: ask whoever "
            "runs it.",
        )
    if progress is not None:  # what the server had already was never reported
        progress(sum(wanted.values()), sum(wanted.values()))
    return TransferReport(endpoint.remote, len(sent), len(objects) - len(sent), sum(wanted[oid] for oid in sent))


def _not_kept(client: LfsClient, sent: Mapping[str, int]) -> set[str]:
    """Those that the server took and does not have: git-lfs believes every answer to an upload.

    What the server has it does not want again. What it does want is sent, and then it is asked once more.

    Raises
    ------
    LfsError
        If the server does not answer any more.
    """
    if not sent or not client.has_server:
        return set()
    try:
        again = client.unattended.push(sent)
        return client.unattended.absent({oid: sent[oid] for oid in again}) if again else set()
    except LfsError as error:
        if error.wants_login:  # a person was asked for the password; nobody likes to be asked twice
            return set()
        raise


def _left_out(client: LfsClient, wanted: Mapping[str, int], error: LfsError) -> Mapping[str, int]:
    """What did not arrive when an upload failed: everything, as long as the server does not say otherwise."""
    if not error.begun:
        return wanted
    with suppress(LfsError):
        absent = client.unattended.absent(wanted)
        return {oid: wanted[oid] for oid in absent} or wanted
    return wanted


def _complete(places: Places, endpoint: Endpoint, wanted: Mapping[str, int]) -> ObjectFolders:
    """Folders that hold everything that is to be sent; what is not here is fetched from another remote.

    Raises
    ------
    TransferError
        If no remote has it; it names the checkpoint.
    """
    here = folders_in(places.common_dir)
    missing = here.lacks(wanted)
    if not missing:
        return here
    others = [name for name in remotes_in_order(places, config_lines(places)) if name != endpoint.remote]
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
