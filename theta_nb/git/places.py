"""Where a repository keeps things: resolved once, before anything changes directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Self

from theta_nb.errors import ThetaError
from theta_nb.git.process import GitError, Started, config_items, know_local_variables
from theta_nb.settings import Settings

if TYPE_CHECKING:
    from theta_nb.engine.known import EncodingCache
    from theta_nb.storage.objects import DirectoryStore

__all__ = ["Places", "PlacesSearch", "borrowed_folders", "find_places"]

_MOST_ALTERNATES, _MOST_ALTERNATES_NBYTES = 50, 2**20


@dataclass(frozen=True)
class Places:
    """Absolute paths of one repository.

    Parameters
    ----------
    git_dir
        Directory of this work tree's git data.
    common_dir
        Directory shared by all work trees.
    work_tree
        Top of the work tree, or ``None`` in a bare repository.
    cwd
        Directory that relative paths and pathspecs start from.
    _config
        Where git reads the settings already.
    """

    git_dir: str
    common_dir: str
    work_tree: str | None
    cwd: str
    _config: Started | None = field(default=None, repr=False, compare=False, kw_only=True)

    @property
    def theta_dir(self) -> str:
        """Folder of everything that is ours, shared by all work trees."""
        return os.path.join(self.common_dir, "theta")

    @property
    def top(self) -> str:
        """Where git commands run: the top of the work tree, or the bare repository."""
        return self.work_tree or self.git_dir

    @cached_property
    def settings(self) -> Settings:
        """Settings of this repository and environment."""
        return Settings.parse(_theta_values(self._config or _start_config(self.top)), os.environ)

    def forgive_settings(self, warn: Callable[[str], None]) -> None:
        """Use the defaults, with one warning, where the user's settings make no sense.

        For the filter: an error would make git fail, and before a smudge git has unlinked the file already.
        """
        try:
            _ = self.settings
        except ThetaError as error:
            warn(f"{error.message}; the default settings are used")
            vars(self)["settings"] = Settings.parse({}, {})

    @cached_property
    def store(self) -> DirectoryStore:
        """The store of objects, with those of borrowed repositories behind it."""
        from theta_nb.storage.objects import DirectoryStore  # the filter begins without

        siblings = tuple(os.path.join(other, "theta", "objects") for other in borrowed_folders(self.common_dir))
        return DirectoryStore(self.theta_dir, alternates=siblings, fsync=self.settings.fsync)

    def encodings(self) -> EncodingCache:
        """The cache of encodings; to be closed by the caller."""
        from theta_nb.engine.known import EncodingCache  # with SQLite, for which a checkout has time at its end

        return EncodingCache(os.path.join(self.theta_dir, "encodings.sqlite"), self.store)


def borrowed_folders(common_dir: str) -> list[str]:
    """Git directories of the repositories that one borrows objects from, directly or not (alternates)."""
    found: list[str] = []
    waiting = [os.path.join(common_dir, "objects")]
    for folder in waiting:
        try:
            with open(os.path.join(folder, "info", "alternates"), "rb") as file:
                lines = file.read(_MOST_ALTERNATES_NBYTES).split(b"\n")
        except OSError:
            continue
        for line in lines:
            other = os.path.normpath(os.path.join(folder, os.fsdecode(line)))
            if line and not line.startswith(b"#") and other not in waiting and len(waiting) < _MOST_ALTERNATES:
                waiting.append(other)
                found.append(os.path.dirname(other))
    return found


class PlacesSearch:
    """git looks for a repository, while something else is done; as a context, no longer than that.

    Parameters
    ----------
    start
        Folder in or below it; the current directory by default.
    settings
        Whether it reads the settings at the same time, for a process that is sure to need them.

    Raises
    ------
    ThetaError
        If that is no folder, or git is not installed.
    """

    def __init__(self, start: str | os.PathLike[str] | None = None, *, settings: bool = False) -> None:
        self._start = start
        wanted = ("--git-dir", "--git-common-dir", "--show-toplevel")
        self._running = ExitStack()
        try:
            folders = Started("rev-parse", "--local-env-vars", "--path-format=absolute", *wanted, cwd=start)
        except (NotADirectoryError, FileNotFoundError):
            raise ThetaError(f"{os.fspath(start or '.')} is not a folder") from None
        self._folders = self._running.enter_context(folders)
        self._config = self._running.enter_context(_start_config(start)) if settings else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what nobody waited for."""
        self._running.close()

    def places(self) -> Places:
        """What was found; to be called once.

        Raises
        ------
        ThetaError
            If there is no repository.
        """
        # The last one fails in a bare repository and inside of '.git', when the others are told already.
        lines = os.fsdecode(self._folders.finish().stdout).split("\n")[:-1]
        variables = list(takewhile(lambda line: line.startswith("GIT_"), lines))
        try:
            git_dir, common_dir, *top = lines[len(variables) :]
        except ValueError:
            where = os.fspath(self._start) if self._start is not None else os.getcwd()
            raise ThetaError(f"{where} is not inside a git repository", hint="Run 'git init' first.") from None
        if len(top) > 1 or not all(map(os.path.isabs, (git_dir, common_dir, *top))):
            raise ThetaError("the path of this repository has a line break in it", hint="Move it to another folder.")
        know_local_variables(variables)
        cwd = os.path.abspath(self._start or os.curdir)
        return Places(git_dir, common_dir, top[0] if top else None, cwd, _config=self._config)


def find_places(start: str | os.PathLike[str] | None = None) -> Places:
    """The repository around ``start`` (the current directory by default).

    Raises
    ------
    ThetaError
        If there is none.
    """
    with PlacesSearch(start) as search:
        return search.places()


def _start_config(cwd: str | os.PathLike[str] | None) -> Started:
    return Started("config", "--null", "--get-regexp", r"^theta\.", cwd=cwd)


def read_config(cwd: str | os.PathLike[str] | None) -> dict[str, str]:
    """All ``theta.*`` values of git's configuration, by lower-case key; the last one wins."""
    return _theta_values(_start_config(cwd))


def _theta_values(started: Started) -> dict[str, str]:
    try:
        out = started.output()
    except GitError as error:
        if error.returncode == 1:  # no such key
            return {}
        raise
    return {key.lower(): value for key, value in config_items(out)}
