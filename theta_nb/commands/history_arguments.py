"""What the words behind ``git theta diff``, ``log``, ``show`` and ``blame`` mean: versions, then paths."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from theta_nb.errors import ThetaError
from theta_nb.git.words import checkpoint_paths, meanings, name_in_repository, revisions_and_paths, split_spec

if TYPE_CHECKING:
    from theta_nb.commands.diff import FailedDiff
    from theta_nb.commands.dispatch import Context
    from theta_nb.report.blame import Blame
    from theta_nb.report.checkpoint_diff import CheckpointDiff
    from theta_nb.report.history import History
    from theta_nb.report.version import CheckpointVersion

__all__ = ["run_blame", "run_diff", "run_log", "run_show"]


def run_diff(arguments: Namespace, context: Context) -> tuple[CheckpointDiff | FailedDiff, ...]:
    """What differs, in the order and the number that was asked for."""
    from theta_nb.commands.diff import diff, sides_of

    places = context.places
    sides, paths = _sides_and_paths(arguments, context)
    meant = sides_of(sides, staged=arguments.staged)
    arguments.paths = paths
    with context.progress("comparing") as progress:
        found = diff(places, meant, paths, patterns=arguments.filters, measure=not arguments.stat, progress=progress)
    return tuple(_chosen(one, arguments) for one in found)


def _sides_and_paths(arguments: Namespace, context: Context) -> tuple[list[Any], list[str]]:
    """Versions (a commit by its name, state in memory as it is), then paths."""
    words, dashes = list(arguments.words), arguments.dashes
    last = len(words) if dashes is None else len(words) - dashes
    in_memory = [index for index, word in enumerate(words[:last]) if word in context.states]
    for index in in_memory:
        _refuse_ambiguous(words[index], context)
    if not in_memory:
        revisions, paths = revisions_and_paths(context.places, words, dashes)
        return list(revisions), paths
    end = in_memory[-1] + 1
    sides = [
        context.states[word] if index in in_memory else revisions_and_paths(context.places, [word], 0)[0][0]
        for index, word in enumerate(words[:end])
    ]
    revisions, paths = revisions_and_paths(context.places, words[end:], dashes)
    return [*sides, *revisions], paths


def _refuse_ambiguous(word: str, context: Context) -> None:
    others = meanings(context.places, word)
    if others:
        raise ThetaError(
            f"{word!r} is a variable and also {' and '.join(others)} here",
            hint="Give the variable another name, or write './' before the file or 'heads/' before the branch.",
        )


def _chosen(found: CheckpointDiff | FailedDiff, arguments: Namespace) -> CheckpointDiff | FailedDiff:
    """The first parameters of a diff, in the order that was asked for."""
    from theta_nb.commands.diff import FailedDiff

    if isinstance(found, FailedDiff):
        return found
    found = found.sort(arguments.sort)
    return found if arguments.top is None else found.top(arguments.top)


def run_log(arguments: Namespace, context: Context) -> tuple[History, ...]:
    """The history of each checkpoint."""
    from theta_nb.commands.log import log

    places = context.places
    revisions, paths = revisions_and_paths(places, arguments.words, arguments.dashes)
    arguments.paths = paths
    newest = revisions[-1].rpartition("..")[2] or "HEAD" if revisions else None
    return tuple(
        log(
            places,
            path,
            revisions,
            first_parent=arguments.first_parent,
            all_=arguments.all_,
            limit=arguments.max_count,
        )
        for path in checkpoint_paths(places, paths, revision=newest)
    )


def run_show(arguments: Namespace, context: Context) -> CheckpointVersion:
    """One version."""
    from theta_nb.commands.show import show

    revision, path = split_spec(context.places, arguments.spec)
    return show(context.places, path, revision, arguments.patterns)


def run_blame(arguments: Namespace, context: Context) -> Blame:
    """Where each parameter comes from."""
    from theta_nb.commands.blame import blame

    path = name_in_repository(arguments.path, context.places)
    return blame(context.places, path, arguments.patterns, revision=arguments.source)
