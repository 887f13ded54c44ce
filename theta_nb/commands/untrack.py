"""``git theta untrack``: have git store the files of a pattern as they are again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from theta_nb.commands.track import place_of, tracked_patterns
from theta_nb.errors import NotTrackedError
from theta_nb.git.attributes import claim_of, require_work_tree, tracked_paths
from theta_nb.git.attributes_file import AttributesFile
from theta_nb.git.places import Places
from theta_nb.git.process import git

__all__ = ["UntrackResult", "untrack"]


@dataclass(frozen=True, slots=True)
class UntrackResult:
    """What untracking did.

    Parameters
    ----------
    patterns
        Patterns with the attributes file each was taken out of.
    raw
        Files of the index that the filter handled and handles no longer: git stores them whole at their next ``add``.
    still
        Files that a pattern named but another rule keeps tracked, with that rule.
    """

    patterns: tuple[tuple[str, str], ...]
    raw: tuple[str, ...] = ()
    still: tuple[tuple[str, str], ...] = ()


def untrack(places: Places, patterns: Sequence[str]) -> UntrackResult:
    """Stop tracking patterns: take our attributes out of the current directory's attributes file and stage it.

    Parameters
    ----------
    places
        The repository.
    patterns
        As they were given to ``track``, relative to the current directory.

    Raises
    ------
    NotTrackedError
        If a pattern is not tracked there; nothing is written then.
    """
    top = require_work_tree(places)
    before = tracked_paths(places)
    files: dict[str, AttributesFile] = {}
    done: list[tuple[str, str]] = []
    for typed in patterns:
        base, pattern = place_of(typed, places.cwd, top)
        name = os.path.join(base, ".gitattributes")
        file = files.setdefault(name, AttributesFile.read(os.path.join(top, name)))
        if not file.untrack(pattern):
            raise _not_tracked(typed, pattern, os.path.normpath(os.path.join(base, typed)), places)
        done.append((pattern, name))
    for file in files.values():
        file.write()
    git("add", "--", *files, cwd=top)
    after = set(tracked_paths(places))
    named = {os.path.normpath(os.path.join(os.path.dirname(name), pattern.lstrip("/"))) for pattern, name in done}
    still = [(path, str(claim_of(path, places))) for path in sorted(named & after)]
    return UntrackResult(tuple(done), tuple(path for path in before if path not in after), tuple(still))


def _not_tracked(typed: str, pattern: str, path: str, places: Places) -> NotTrackedError:
    for tracked in tracked_patterns(places):
        if tracked.pattern.lstrip("/") == pattern.lstrip("/"):
            return NotTrackedError(
                f"'{typed}' is not tracked by this folder's attributes file but by {tracked.file}, line {tracked.line}",
                hint="Run the command in that file's folder, with the pattern as it stands there.",
            )
    claim = claim_of(path, places)
    if claim is not None and claim.rule.filter == "theta":
        return NotTrackedError(
            f"'{typed}' is tracked through {claim}", hint=f"Run \"git theta untrack '{claim.rule.pattern}'\"."
        )
    return NotTrackedError(f"'{typed}' is not tracked", hint="'git theta track' lists what is.")
