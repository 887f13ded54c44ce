"""``git theta diff``: what differs between two versions of each checkpoint, and by how much."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from fnmatch import translate
from functools import partial
from typing import Any

from theta_nb.engine.checkpoint import matching
from theta_nb.errors import ThetaError
from theta_nb.git.changed_paths import changed_paths
from theta_nb.git.comparing import compare_versions
from theta_nb.git.places import Places
from theta_nb.git.words import checkpoint_paths, name_in_repository
from theta_nb.report.checkpoint_diff import CheckpointDiff

__all__ = ["FailedDiff", "Sides", "diff", "sides_of"]

_MOST_COMPARED = 10_000
Progress = Callable[[int, int], None]
Side = str | Mapping[str, Any] | None
"""A commit, ``""`` for the index, ``None`` for the work tree, or state in memory."""


@dataclass(frozen=True)
class Sides:
    """What is compared with what.

    Parameters
    ----------
    old, new
        The sides.
    """

    old: Side
    new: Side


@dataclass(frozen=True)
class FailedDiff:
    """A checkpoint among several that could not be compared.

    Parameters
    ----------
    path
        Relative to the top, on the new side.
    error
        Why not.
    """

    path: str
    error: str

    def to_dict(self) -> dict[str, str]:
        """As JSON types."""
        return asdict(self)


def sides_of(words: Sequence[Side], *, staged: bool = False) -> Sides:
    """The sides that the words of a command line mean, as for ``git diff``.

    Parameters
    ----------
    words
        At most two commits (or one range ``A..B``) or states in memory.
    staged
        Whether the index is meant instead of the work tree.

    Raises
    ------
    ThetaError
        If that makes no comparison.

    Examples
    --------
    >>> sides_of([]), sides_of(["v1"]), sides_of(["v1..v2"]), sides_of([], staged=True)
    (Sides(old='', new=None), Sides(old='v1', new=None), Sides(old='v1', new='v2'), Sides(old='HEAD', new=''))
    """
    if len(words) == 1 and isinstance(words[0], str) and ".." in words[0]:
        if "..." in words[0]:
            raise ThetaError(f"{words[0]!r} has three dots", hint="Write A..B to compare A with B.")
        old, _, new = words[0].partition("..")
        words = [old or "HEAD", new or "HEAD"]
    if len(words) > 2 or (staged and len(words) > 1):
        raise ThetaError("more than two versions are named", hint="Name at most two, then '--' and paths.")
    if len(words) == 1 and not isinstance(words[0], str):
        return Sides("" if staged else "HEAD", words[0])  # what is in memory comes after what is in git
    if len(words) == 2:
        return Sides(words[0], words[1])
    if staged:
        return Sides(words[0] if words else "HEAD", "")
    return Sides(words[0], None) if words else Sides("", None)


def diff(
    places: Places,
    sides: Sides,
    paths: Sequence[str] = (),
    *,
    patterns: Sequence[str] = (),
    measure: bool = True,
    progress: Progress | None = None,
) -> tuple[CheckpointDiff | FailedDiff, ...]:
    """Compare the checkpoints that differ between two sides, sorted by path.

    One that cannot be compared, for a corrupt manifest or a file that cannot be read, does not hide the others.

    Parameters
    ----------
    places
        The repository.
    sides
        What is compared with what.
    paths
        Files, folders or pathspecs relative to the current directory; all tracked checkpoints by default. A file that
        is named is in the result even if nothing differs.
    patterns
        Globs over the names of the parameters that are wanted; others are not read. All by default.
    measure
        Whether to read the values that differ.
    progress
        Called with bytes done and bytes in all, for each checkpoint.

    Raises
    ------
    NotTrackedError
        If a path names files, but none that is tracked.
    ThetaError
        If a revision does not exist, state in memory could be compared with several checkpoints, or a pattern matches
        no parameter of any checkpoint that differs; or what is wrong with the only one.
    """
    if (sides.new is None or sides.old == "" or sides.new == "") and places.work_tree is None:
        raise ThetaError("there is no work tree and no index here", hint="Name two commits.")
    pairs = _pairs(places, sides, paths)
    with ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta") as executor:
        failing = _raised if len(pairs) == 1 else _told

        def compare(old: str, new: str) -> CheckpointDiff:
            return compare_versions(places, old, sides.old, sides.new, new_path=new, executor=executor)

        def measured(one: CheckpointDiff) -> CheckpointDiff:
            return one.measure(progress=progress, executor=executor) if measure else one

        found = [failing(new, partial(compare, old, new)) for old, new in pairs]
        if patterns:
            found = _filtered(found, patterns)
        return tuple(
            one if isinstance(one, FailedDiff) else failing(one.new.path, partial(measured, one)) for one in found
        )


def _raised(_: str, work: Callable[[], CheckpointDiff]) -> CheckpointDiff | FailedDiff:
    return work()


def _told(path: str, work: Callable[[], CheckpointDiff]) -> CheckpointDiff | FailedDiff:
    try:
        return work()
    except ThetaError as error:
        return FailedDiff(path, str(error))


def _filtered(
    found: Sequence[CheckpointDiff | FailedDiff], patterns: Sequence[str]
) -> list[CheckpointDiff | FailedDiff]:
    """What the patterns want; one without any match is refused: an empty diff would read as "nothing changed"."""
    compared = [one for one in found if not isinstance(one, FailedDiff)]
    names = list(dict.fromkeys(n for one in compared for c in one.parameters for n in (c.name, c.old_name) if n))
    for pattern in patterns:
        if compared and not matching(names, pattern):
            raise ThetaError(f"no parameter matches {pattern!r}", hint=_nearest(pattern, names))
    wanted = re.compile("|".join(map(translate, patterns)))
    return [one if isinstance(one, FailedDiff) else one.filter(wanted) for one in found]


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """What someone may have meant: a part of names, which needs stars, or names that look alike."""
    if any(pattern in name for name in names):
        return f"Patterns are globs over whole names: '*{pattern}*'."
    close = get_close_matches(pattern.strip("*"), names[:_MOST_COMPARED], 3, 0.5)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"Patterns are globs over whole names, as {names[0]!r}." if names else ""


def _pairs(places: Places, sides: Sides, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Paths to compare, old and new."""
    memory = [side for side in (sides.old, sides.new) if side is not None and not isinstance(side, str)]
    if memory:
        names = checkpoint_paths(places, paths)
        if len(names) != 1:
            raise ThetaError(
                f"{len(names)} checkpoints could be compared with what is in memory"
                + (f": {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else ""),
                hint="Name one behind the versions.",
            )
        return [(names[0], names[0])]
    old, new = sides.old, sides.new
    if not isinstance(old, str) or not (new is None or isinstance(new, str)):  # never: memory was all else there is
        raise TypeError(f"{type(old).__name__} is no version")
    pairs = {change.new: (change.old, change.new) for change in changed_paths(places, old, new, paths)}
    seen = set(pairs) | {before for before, _ in pairs.values()}
    for path in _named(places, paths):
        if path not in seen:
            pairs[path] = (path, path)
    return [pairs[path] for path in sorted(pairs)]


def _named(places: Places, paths: Sequence[str]) -> list[str]:
    """Files that were named one by one: whoever does so wants to hear that nothing differs."""
    found = []
    for path in paths:
        name = name_in_repository(path, places) if not path.startswith(":") else ""
        if name in checkpoint_paths(places, [path]):
            found.append(name)
    return found
