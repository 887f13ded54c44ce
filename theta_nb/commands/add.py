"""``git theta add``: stage checkpoints, and say what plain ``git add`` would not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from theta_nb.errors import NotTrackedError, ThetaError
from theta_nb.git.blobs import is_stored
from theta_nb.git.configuration import require_filter
from theta_nb.git.places import Places
from theta_nb.git.pointers import sync_pointers, uses_pointers
from theta_nb.git.process import LITERAL, GitError, child_environment, git, run_gently
from theta_nb.git.tracked import filter_of, tracked_in_index

if TYPE_CHECKING:
    from theta_nb.engine.side_load import Stored

__all__ = ["AddResult", "add", "matching", "stage_files"]


@dataclass(frozen=True, slots=True)
class AddResult:
    """What was staged.

    Parameters
    ----------
    added
        Paths relative to the top of the work tree.
    notes
        Sentences for the user.
    stored
        How changed tensors are stored, where an update was asked for.
    """

    added: tuple[str, ...]
    notes: tuple[str, ...]
    stored: Stored | None = None


def add(places: Places, paths: Sequence[str], *, force: bool = False, renormalize: bool = False) -> AddResult:
    """Stage tracked checkpoints.

    A file that was committed raw before it was tracked is cleaned as well, which plain ``git add`` skips as long as
    the file's times match the index.

    Parameters
    ----------
    places
        The repository.
    paths
        Pathspecs relative to the current directory.
    force
        Whether ignored files may be added.
    renormalize
        Whether to clean files again that git takes for unchanged, and to store anew what was lost from the store.

    Raises
    ------
    NotTrackedError
        If a path is not handled by the theta filter.
    ThetaError
        If nothing matches or a file cannot be stored; nothing is staged then.
    """
    return stage_files(places, matching(places, paths, force=force), force=force, renormalize=renormalize)


def stage_files(
    places: Places, names: Sequence[str], *, force: bool = False, renormalize: bool = False, notes: Sequence[str] = ()
) -> AddResult:
    """Stage tracked files by name, as :func:`add` does; ``notes`` come first among its notes."""
    told = [*notes, *_stage(places, ["add", *(["--force"] if force else []), "--", *names])]
    raw = names if renormalize else _stored_raw(places, names)
    if raw:
        # What was lost from the store is stored anew as well.
        told += _stage(places, ["add", "--renormalize", "--", *raw], {"GIT_THETA_RENEW": "1"})
    if uses_pointers(places):
        sync_pointers(places)
    return AddResult(tuple(names), tuple(told))


def matching(places: Places, paths: Sequence[str], *, force: bool = False) -> list[str]:
    """Tracked files that the pathspecs name, in the index or not yet, and deleted ones.

    Raises
    ------
    NotTrackedError
        If a path is not handled by the theta filter.
    ThetaError
        If nothing matches, there is no work tree, or git does not know the filter.
    """
    if places.work_tree is None:
        raise ThetaError("there is no work tree here", hint="Run it in a clone that has one.")
    if not paths:
        raise ThetaError("nothing is named to add", hint="Run 'git theta add PATH'.")
    exclude = [] if force else ["--exclude-standard"]
    out = git("ls-files", "--cached", "--others", *exclude, "--full-name", "-z", "--", *paths, cwd=places.cwd)
    names = sorted({os.fsdecode(name) for name in out.split(b"\0") if name})
    if not names:
        raise ThetaError(f"no file matches {', '.join(paths)}", hint="Ignored files need --force.")
    filters = filter_of(places, names)
    foreign = [name for name in names if filters.get(name) != "theta"]
    if foreign:
        name = os.path.relpath(os.path.join(places.top, foreign[0]), os.path.realpath(places.cwd))  # to be typed here
        raise NotTrackedError(f"{name} is not tracked by theta", hint=f"Run 'git theta track {name}' first.")
    require_filter(places.top)
    return names


def _stored_raw(places: Places, names: Sequence[str]) -> list[str]:
    """Files whose staged content is not a manifest."""
    wanted = set(names)
    return [
        blob.path
        for blob in tracked_in_index(places)
        if blob.path in wanted and blob.stage == 0 and not is_stored(blob.oid, places)
    ]


def _stage(places: Places, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> list[str]:
    """Run ``git add``; returns what the filter told."""
    env = child_environment({**LITERAL, **(variables or {})})
    result = run_gently(["git", *arguments], cwd=places.top, env=env)
    said = result.stderr.decode("utf-8", "replace").splitlines()
    told = [line.removeprefix("theta: ") for line in said if line.startswith("theta: ")]
    if result.returncode:
        reason = told[-1] if told else "\n".join(said).strip() or f"exit status {result.returncode}"
        raise GitError(reason, returncode=result.returncode)
    return told
