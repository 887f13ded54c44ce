"""From the arguments of ``merge`` and ``replay`` to their verbs."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from theta_nb.commands.merge import abort_merge, continue_merge, merge
from theta_nb.commands.merge_methods import methods
from theta_nb.commands.merge_wishes import Wishes
from theta_nb.commands.replay import replay
from theta_nb.engine.merging.spelling import parse_assignments
from theta_nb.errors import ThetaError
from theta_nb.git.words import checkpoint_paths, name_in_repository, revisions_and_paths

if TYPE_CHECKING:
    from theta_nb.commands.dispatch import Context

__all__ = ["revisions_and_checkpoints", "run_merge", "run_replay", "wishes_of"]

_MAX_DOCUMENT = 64 * 2**20


def run_merge(arguments: Namespace, context: Context) -> Any:
    """Run ``merge``."""
    if arguments.methods:
        return methods()
    places = context.places
    if arguments.abort:
        _refuse_words(arguments.words, "--abort")
        return abort_merge(places)
    wishes = wishes_of(arguments, context)
    if arguments.continue_:
        _refuse_words(arguments.words, "--continue")
        with context.progress("merging", unit="") as progress:
            return continue_merge(places, wishes=wishes, message=arguments.message, progress=progress)
    revisions, paths = revisions_and_checkpoints(arguments, context)
    with context.progress("merging", unit="") as progress:
        return merge(
            places,
            revisions,
            paths,
            wishes=wishes,
            message=arguments.message,
            dry_run=arguments.dry_run,
            progress=progress,
        )


def wishes_of(arguments: Namespace, context: Context) -> Wishes:
    """How ``merge`` is asked to merge."""
    assignments = [
        f"{key.removeprefix('parameter_')}={value}"
        for key, value in vars(arguments).items()
        if key.startswith("parameter_") and value is not None
    ]
    document = ""
    if arguments.recipe is not None:
        document = _text_of(os.path.join(context.folder, arguments.recipe))
    overrides = tuple((pattern, method) for pattern, method in arguments.overrides)
    parameters = parse_assignments([*assignments, *arguments.assignments])
    statistics = tuple(name_in_repository(file, context.places) for file in arguments.statistics)
    return Wishes(arguments.method, parameters, overrides, document, statistics)


def _text_of(file: str) -> str:
    with open(file, "rb") as stream:
        data = stream.read(_MAX_DOCUMENT + 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ThetaError(f"{file} is no recipe: it is not a text", hint="A recipe is JSON or YAML.") from None


def _refuse_words(words: list[str], option: str) -> None:
    if words:
        raise ThetaError(f"{option} takes no commits or files", hint=f"Leave out {words[0]!r}.")


def revisions_and_checkpoints(arguments: Namespace, context: Context) -> tuple[list[str], list[str]]:
    """Commits, then checkpoints relative to the top."""
    revisions, paths = revisions_and_paths(context.places, arguments.words, arguments.dashes)
    return revisions, checkpoint_paths(context.places, paths) if paths else []


def run_replay(arguments: Namespace, context: Context) -> Any:
    """Run ``replay``."""
    revisions, paths = revisions_and_checkpoints(arguments, context)
    if len(revisions) > 1:
        raise ThetaError("more than one commit is named", hint="Replay one commit at a time.")
    with context.progress("merging", unit="") as progress:
        return tuple(replay(context.places, revisions[0] if revisions else "HEAD", paths, progress=progress))
