"""Checkpoints that a merge, rebase, cherry-pick or stash left in conflict."""

from __future__ import annotations

import os
from collections.abc import Mapping

from theta_nb.errors import ThetaError
from theta_nb.git.merge_inputs import BASE_LABEL, Origin
from theta_nb.git.merge_plan import Versions
from theta_nb.git.places import Places
from theta_nb.git.process import git
from theta_nb.git.tracked import filter_of

__all__ = ["unmerged_checkpoints", "unmerged_paths", "versions_in_conflict"]


def unmerged_paths(places: Places) -> dict[str, dict[int, str]]:
    """Blob ids by stage (1 base, 2 ours, 3 theirs) of every path in conflict."""
    found: dict[str, dict[int, str]] = {}
    for record in git("ls-files", "--unmerged", "--full-name", "-z", cwd=places.top).split(b"\0")[:-1]:
        info, _, name = record.partition(b"\t")
        _, oid, stage = info.decode("ascii").split(" ")
        found.setdefault(os.fsdecode(name), {})[int(stage)] = oid
    return found


def unmerged_checkpoints(places: Places) -> dict[str, dict[int, str]]:
    """The same of tracked checkpoints only."""
    found = unmerged_paths(places)
    filters = filter_of(places, found)
    return {path: stages for path, stages in found.items() if filters.get(path) == "theta"}


def versions_in_conflict(path: str, stages: Mapping[int, str]) -> Versions:
    """The versions of a checkpoint in conflict, named by their blobs.

    Raises
    ------
    ThetaError
        If one side deleted the file: there is nothing to merge then.
    """
    if 2 not in stages or 3 not in stages:
        side = "ours" if 2 not in stages else "theirs"
        raise ThetaError(
            f"{path} was deleted by {side} and changed by the other side",
            hint=f"Keep it with 'git add {path}', or delete it with 'git rm {path}'.",
        )
    base = Origin(BASE_LABEL, stages[1], stages[1]) if 1 in stages else None
    theirs = Origin("theirs", stages[3], stages[3])
    return Versions(path, base, Origin("ours", stages[2], stages[2]), (theirs,))
