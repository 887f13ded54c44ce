"""``git theta track``: have the filter handle the files of a pattern."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from theta_nb.errors import ThetaError
from theta_nb.git.attributes import (
    FILTER,
    Claim,
    attribute_files,
    claim_of,
    filters_of,
    paths_matching,
    require_work_tree,
    sample_path,
)
from theta_nb.git.attributes_file import AttributesFile
from theta_nb.git.blobs import is_stored
from theta_nb.git.configuration import installed
from theta_nb.git.hooks import ensure_hooks
from theta_nb.git.installation import InstallResult, install, program_problem
from theta_nb.git.places import Places
from theta_nb.git.pointers import ATTRIBUTE, FOLDER, RULE, exclude_from_git_lfs, sync_pointers
from theta_nb.git.process import git
from theta_nb.git.tracked import tracked_in_index

__all__ = ["PatternChange", "TrackResult", "TrackedPattern", "place_of", "track", "tracked_patterns"]

_NO_FILTER = frozenset({"unspecified", "unset", "set", FILTER})
_SPECIAL = re.compile(r"^!|[*?\[\\]")
_MOST_CLAIMS = 50


@dataclass(frozen=True, slots=True)
class TrackedPattern:
    """A pattern that is tracked.

    Parameters
    ----------
    pattern
        As git understands it, without quotes.
    file, line
        Where it stands; relative to the top of the work tree where it lies below it.
    missing
        Attributes that its line lacks (``-text`` in lines written by git-theta).
    """

    pattern: str
    file: str
    line: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PatternChange:
    """What was done for one pattern.

    Parameters
    ----------
    pattern
        As it stands in the file.
    file
        The attributes file, relative to the top of the work tree.
    action
        ``"added"``, ``"upgraded"`` (an existing line got the attributes it lacked) or ``"unchanged"``.
    """

    pattern: str
    file: str
    action: str


@dataclass(frozen=True, slots=True)
class TrackResult:
    """What tracking did.

    Parameters
    ----------
    patterns
        Patterns, in the order in which they were named.
    raw
        Committed or staged files that match and are not stored by theta yet; ``git add --renormalize`` does it.
    elsewhere
        Files that match but are ruled by another line, with that line.
    installed
        What was installed because git knew no filter of ours; ``None`` where it did.
    warnings
        What would make git fail to run the filter.
    """

    patterns: tuple[PatternChange, ...]
    raw: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str], ...] = ()
    installed: InstallResult | None = None
    warnings: tuple[str, ...] = ()


def tracked_patterns(places: Places) -> tuple[TrackedPattern, ...]:
    """Every pattern that is tracked, in the order in which git reads them.

    Raises
    ------
    ThetaError
        If there is no work tree.
    """
    return tuple(
        TrackedPattern(rule.pattern, name, rule.number, rule.missing)
        for name, _, file in attribute_files(places)
        for rule in file.rules
        if rule.filter == FILTER
    )


def place_of(argument: str, folder: str, top: str) -> tuple[str, str]:
    """Which attributes file a pattern or path belongs into, and how it is spelled there.

    Parameters
    ----------
    argument
        A pattern, or the path of a file or folder, as typed.
    folder
        Where it was typed, absolute.
    top
        Top of the work tree.

    Returns
    -------
    tuple
        Folder relative to the top (``""`` for the top), and the pattern.

    Raises
    ------
    ThetaError
        If it names nothing in this work tree, or is no pattern that git knows.
    """
    exists = bool(argument) and os.path.lexists(os.path.join(folder, argument))
    if not exists and (not argument or argument.startswith("!")):
        raise ThetaError(f"{argument!r} is no pattern for attributes", hint="Name a file, or a pattern such as '*.pt'.")
    here = _inside(folder, folder, top)
    here = "" if here == "." else here
    named = exists or argument.startswith(("./", "../", f"{top}/")) or "/../" in argument
    if not named:
        return here, f"{argument}**" if argument.endswith("/") else argument
    path = _inside(argument, folder, top)
    if path == ".":
        return "", "**"
    # The current folder's file cannot name what is above it.
    base = here
    while base and not path.startswith(f"{base}/"):
        base = os.path.dirname(base)
    pattern = path.removeprefix(f"{base}/") if base else path
    if exists:
        pattern = _SPECIAL.sub(r"\\\g<0>", pattern)
    if argument.endswith("/") or os.path.isdir(os.path.join(top, path)):
        return base, f"{pattern}/**"
    # "./model.pt" is this one, "model.pt" also those of the same name further down, as for git.
    return base, f"/{pattern}" if argument.startswith(("./", "../", "/")) and "/" not in pattern else pattern


def track(places: Places, patterns: Sequence[str], *, pointers: bool = False) -> TrackResult:
    """Track patterns: write the attributes file of the current directory and stage it.

    Parameters
    ----------
    places
        The repository.
    patterns
        Patterns, or paths of files or folders, relative to the current directory.
    pointers
        Whether their checkpoints also get pointer files of Git LFS (:mod:`theta_nb.git.pointers`).

    Returns
    -------
    TrackResult
        What was done, and which files need attention.

    Raises
    ------
    ThetaError
        If a file is handled by another filter already; nothing is written then.
    """
    top = require_work_tree(places)
    wanted = [place_of(pattern, places.cwd, top) for pattern in patterns]
    files: dict[str, AttributesFile] = {}
    changes = []
    elsewhere: dict[str, str] = {}
    for base, pattern in wanted:
        elsewhere |= _other_claims(pattern, base, places)
        name = os.path.join(base, ".gitattributes")
        file = files.setdefault(name, AttributesFile.read(os.path.join(top, name)))
        changes.append(PatternChange(pattern, name, file.track(pattern, *([ATTRIBUTE] if pointers else []))))
    moved = _put_pointers_last(files, top, pointers=pointers)
    # The filter comes first: with the attribute alone, 'git add' would store the checkpoint raw.
    new = None if installed(top).filters else install("local", cwd=top)
    for name in {change.file for change in changes if change.action != "unchanged"} | moved:
        files[name].write()
    git("add", "--", *files, cwd=top)
    told = ""
    if pointers:
        if exclude_from_git_lfs(places):
            git("add", "--", ".lfsconfig", cwd=top)
        told = ensure_hooks(places)
        sync_pointers(places)
    matching = {path for base, pattern in wanted for path in paths_matching(pattern, base, places)}
    problem = program_problem()
    return TrackResult(
        tuple(changes),
        _stored_raw(matching, places),
        tuple(sorted(elsewhere.items())),
        new,
        tuple(warning for warning in (problem, told) if warning),
    )


def _put_pointers_last(files: dict[str, AttributesFile], top: str, *, pointers: bool) -> set[str]:
    """Have the rule for pointer files win over patterns such as ``*``; returns the files that changed."""
    name = ".gitattributes"
    pattern, attributes = RULE
    if pointers:
        files.setdefault(name, AttributesFile.read(os.path.join(top, name)))
    file = files.get(name)
    if file is None or not (pointers or any(rule.pattern == pattern for rule in file.rules)):
        return set()
    return {name} if file.put_last(pattern, attributes) else set()


def _inside(argument: str, folder: str, top: str) -> str:
    """Normalised path relative to the top of the work tree; ``"."`` for the top itself."""
    path = os.path.normpath(os.path.join(folder, argument))
    # Only the folder is resolved: a link to a checkpoint is a file of its own for git.
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    relative = os.path.relpath(path, os.path.realpath(top))
    if relative == ".." or relative.startswith("../"):
        raise ThetaError(f"{argument} is outside the work tree {top}")
    return relative


def _other_claims(pattern: str, base: str, places: Places) -> dict[str, str]:
    """Files of a pattern that another rule wins for, with the rule; an error if the new line would take over."""
    own = os.path.join(base, ".gitattributes")
    matching = paths_matching(pattern, base, places, also=[own])
    attributes = [path for path in matching if os.path.basename(path) == ".gitattributes"]
    if attributes:
        # git reads it from the index, too, where the filter would have put a manifest.
        raise ThetaError(
            f"'{pattern}' also matches {attributes[0]}", hint="Name the checkpoints, as in '*.safetensors'."
        )
    # Pointer files have a rule of their own, which stays last.
    paths = [*(path for path in matching if not path.startswith(f"{FOLDER}/")), sample_path(pattern, base)]
    filters = filters_of(paths, places)
    found: dict[str, str] = {}
    for path in paths:
        if filters[path] in _NO_FILTER or len(found) == _MOST_CLAIMS:
            continue
        claim = claim_of(path, places)
        if claim is not None and _comes_after(claim, base) and path != sample_path(pattern, base):
            found[path] = str(claim)
        else:
            raise _claimed(pattern, filters[path], claim)
    return found


def _comes_after(claim: Claim, base: str) -> bool:
    """Whether a rule wins over new lines of the attributes file of folder ``base``."""
    return claim.folder is None or len(claim.folder) > len(base)


def _claimed(pattern: str, name: str, claim: Claim | None) -> ThetaError:
    who = "Git LFS" if name == "lfs" else f"the filter '{name}'"
    where = f" ({claim})" if claim else ""
    if name == "lfs" and claim:
        hint = f"Run 'git lfs untrack \"{claim.rule.pattern}\"' first, then track it here."
    else:
        hint = "Remove that line first, then track it here."
    return ThetaError(f"'{pattern}' is handled by {who} already{where}", hint=hint)


def _stored_raw(paths: Iterable[str], places: Places) -> tuple[str, ...]:
    """Those of the paths that the filter handles now and whose content in the index is no manifest."""
    wanted = set(paths)
    return tuple(
        entry.path
        for entry in tracked_in_index(places)
        if entry.path in wanted and entry.stage == 0 and not is_stored(entry.oid, places)
    )
