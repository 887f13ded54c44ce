"""From parsed arguments to the verb: each command is imported when it is called, and returns a value.

Printing is elsewhere (``printing``); the notebook magics call :func:`execute` and show the value in their own way.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from theta_nb.errors import ThetaError

if TYPE_CHECKING:
    from theta_nb.commands.terminal import ProgressFactory
    from theta_nb.git.places import Places

__all__ = ["Context", "command_names", "execute", "exit_status"]


class Context:
    """Where a command runs.

    Parameters
    ----------
    folder
        Absolute; paths among the arguments are relative to it.
    progress
        Opens progress displays.
    states
        State dicts and modules in memory that words of the command line may name; there are some in notebooks only.
    """

    def __init__(
        self, folder: str, progress: ProgressFactory, *, states: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.folder = folder
        self.progress = progress
        self.states = states or {}

    @cached_property
    def places(self) -> Places:
        """The repository around the folder.

        Raises
        ------
        ThetaError
            If there is none, or git is too old to say.
        """
        from theta_nb.git.installation import check_git_version
        from theta_nb.git.places import find_places

        try:
            return find_places(self.folder)
        except ThetaError:
            check_git_version()
            raise

    @property
    def prefix(self) -> str:
        """The folder relative to the top of the work tree; empty at the top and where there is none."""
        places = self.__dict__.get("places")  # a command that needed no repository needs no prefix
        if places is None or places.work_tree is None:
            return ""
        relative = os.path.relpath(os.path.realpath(self.folder), os.path.realpath(places.work_tree))
        return "" if relative == "." or relative.startswith("..") else relative


def execute(arguments: Namespace, context: Context) -> Any:
    """Run one command.

    Parameters
    ----------
    arguments
        From the parser of :func:`theta_nb.commands.parser.build_parser`.
    context
        Where it runs.

    Returns
    -------
    object
        The verb's frozen result.

    Raises
    ------
    ThetaError
        As the verb does.
    """
    return _COMMANDS[arguments.command](arguments, context)


def exit_status(arguments: Namespace, result: Any) -> int:
    """1 where a check found something wrong, a file could not be compared, or a merge is not done, else 0."""
    if arguments.command == "fsck":
        return 1 if result.problems else 0
    if arguments.command == "diff":
        from theta_nb.commands.diff import FailedDiff

        return 1 if any(isinstance(one, FailedDiff) for one in result) else 0
    if arguments.command == "replay":
        return 0 if all(one.agrees for one in result) else 1
    return 1 if getattr(result, "waiting", ()) else 0


def _install(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.install import install

    return install(
        arguments.scope,
        folder=context.folder,
        skip_smudge=arguments.skip_smudge,
        rich_diff=arguments.rich_diff,
        no_hooks=arguments.no_hooks,
        force=arguments.force,
    )


def _uninstall(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.uninstall import uninstall

    return uninstall(arguments.scope, folder=context.folder)


def _track(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.track import track, tracked_patterns

    places = context.places
    if not arguments.patterns:
        return tracked_patterns(places)
    return track(places, arguments.patterns, pointers=arguments.pointers)


def _untrack(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.untrack import untrack

    return untrack(context.places, arguments.patterns)


def _add(arguments: Namespace, context: Context) -> Any:
    if arguments.update_data is not None:
        from theta_nb.commands.add_update import add_update

        if arguments.rank is not None or arguments.tolerance is not None:
            raise ThetaError("--rank and --tolerance are for changes that are searched for, not for those of a file")
        places = context.places  # before the display opens
        with context.progress("updating") as progress:
            return add_update(
                places, arguments.paths, arguments.update_data, update=arguments.update_type or "", progress=progress
            )
    if arguments.update_type is not None:
        from theta_nb.commands.add_update import add_as

        return add_as(
            context.places,
            arguments.paths,
            arguments.update_type,
            force=arguments.force,
            rank=arguments.rank,
            tolerance=arguments.tolerance,
        )
    if arguments.rank is not None or arguments.tolerance is not None:
        raise ThetaError("--rank and --tolerance need an update type", hint="Add --update-type low-rank.")
    from theta_nb.commands.add import add

    return add(context.places, arguments.paths, force=arguments.force, renormalize=arguments.renormalize)


def _commit(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.commit import commit

    return commit(context.places, arguments.messages, dict(arguments.metrics))


def _status(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.status import status

    with context.progress("comparing") as progress:
        return tuple(status(context.places, arguments.paths, progress=progress))


def _ls_files(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.ls_files import ls_files

    return ls_files(context.places, arguments.paths, source=arguments.source)


def _checkout(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.checkout import checkout

    places = context.places  # before the display opens
    with context.progress("writing") as progress:
        return tuple(
            checkout(places, arguments.paths, source=arguments.source, force=arguments.force, progress=progress)
        )


def _push(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.sharing_arguments import run_push

    return run_push(arguments, context)


def _fetch(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.sharing_arguments import run_fetch

    return run_fetch(arguments, context)


def _pull(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.sharing_arguments import run_pull

    return run_pull(arguments, context)


def _fsck(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.fsck import fsck

    with context.progress("checking") as progress:
        return fsck(context.places, revisions=arguments.revisions, all_=arguments.all_, progress=progress)


def _gc(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.gc import gc

    with context.progress("looking at objects", unit="") as progress:
        return gc(
            context.places,
            dry_run=arguments.dry_run,
            grace_days=arguments.grace_days,
            verify_remote=arguments.verify_remote,
            progress=progress,
        )


def _compact(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.compact import compact

    with context.progress("compacting") as progress:
        return tuple(compact(context.places, arguments.paths, depth=arguments.depth, progress=progress))


def _hooks(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.hooks import hooks

    return hooks(context.places, remove=arguments.remove, force=arguments.force)


def _env(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.env import env

    try:
        places = context.places
    except ThetaError:  # outside of a repository there is still something to tell
        return env(None, folder=context.folder)
    return env(places, folder=context.folder)


def _diff(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.history_arguments import run_diff

    return run_diff(arguments, context)


def _log(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.history_arguments import run_log

    return run_log(arguments, context)


def _show(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.history_arguments import run_show

    return run_show(arguments, context)


def _blame(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.history_arguments import run_blame

    return run_blame(arguments, context)


def _merge(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.merging_arguments import run_merge

    return run_merge(arguments, context)


def _replay(arguments: Namespace, context: Context) -> Any:
    from theta_nb.commands.merging_arguments import run_replay

    return run_replay(arguments, context)


_COMMANDS: dict[str, Callable[[Namespace, Context], Any]] = {
    "install": _install,
    "uninstall": _uninstall,
    "track": _track,
    "untrack": _untrack,
    "add": _add,
    "commit": _commit,
    "status": _status,
    "ls-files": _ls_files,
    "checkout": _checkout,
    "diff": _diff,
    "log": _log,
    "show": _show,
    "blame": _blame,
    "merge": _merge,
    "replay": _replay,
    "push": _push,
    "fetch": _fetch,
    "pull": _pull,
    "fsck": _fsck,
    "gc": _gc,
    "compact": _compact,
    "hooks": _hooks,
    "env": _env,
}


def command_names() -> list[str]:
    """Names of the commands that people type."""
    return [*_COMMANDS, "help"]
