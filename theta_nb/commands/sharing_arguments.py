"""What the words behind ``git theta push``, ``fetch`` and ``pull`` mean: a remote, then commits or paths."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from theta_nb.errors import ThetaError
from theta_nb.git.endpoints import remote_first
from theta_nb.git.hooks import ensure_hooks
from theta_nb.git.standard_error import warn_on_stderr
from theta_nb.git.tracked import resolve

if TYPE_CHECKING:
    from theta_nb.commands.dispatch import Context
    from theta_nb.git.places import Places

__all__ = ["run_fetch", "run_pull", "run_push"]


def _remote_and_commits(places: Places, words: list[str]) -> tuple[str, list[str]]:
    remote, revisions = remote_first(places, words)
    if revisions and not remote:
        try:
            resolve(revisions[0], places.cwd)
        except ThetaError as error:
            raise ThetaError(
                f"{revisions[0]!r} is neither a remote nor a commit here",
                hint="'git remote' and 'git log' list what there is.",
            ) from error
    return remote, revisions


def _have_hooks(places: Places) -> None:
    """Have the next ``git push`` upload: in a bare clone no filter ever runs, which would have installed the hooks."""
    told = ensure_hooks(places)
    if told:
        warn_on_stderr(told)


def run_push(arguments: Namespace, context: Context) -> Any:
    """Upload weights."""
    from theta_nb.commands.push import push

    places = context.places
    remote, revisions = _remote_and_commits(places, arguments.words)
    if not arguments.dry_run:
        _have_hooks(places)
    with context.progress("uploading") as progress:
        return push(places, remote, revisions, all_=arguments.all_, dry_run=arguments.dry_run, progress=progress)


def run_fetch(arguments: Namespace, context: Context) -> Any:
    """Download weights."""
    from theta_nb.commands.fetch import fetch

    places = context.places
    remote, revisions = _remote_and_commits(places, arguments.words)
    if not arguments.dry_run:
        _have_hooks(places)
    with context.progress("downloading") as progress:
        return fetch(
            places,
            remote,
            revisions,
            all_=arguments.all_,
            recent=arguments.recent,
            include=arguments.include,
            exclude=arguments.exclude,
            parameters=arguments.parameters,
            dry_run=arguments.dry_run,
            progress=progress,
        )


def run_pull(arguments: Namespace, context: Context) -> Any:
    """Download weights and write checkpoints."""
    from theta_nb.commands.pull import pull

    places = context.places
    remote, paths = remote_first(places, arguments.words)
    arguments.paths = paths
    _have_hooks(places)
    with context.progress("downloading") as progress:
        return pull(places, remote, paths, progress=progress)
