"""Words of a command line that may be commits or paths: told apart as git does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from theta_nb.errors import NotTrackedError, ThetaError, UnknownWordError
from theta_nb.git.attributes import tracked_in_tree
from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git_ok
from theta_nb.git.tracked import filter_of, resolve, tracked_in_index

__all__ = ["checkpoint_paths", "meanings", "name_in_repository", "revisions_and_paths", "spelled_out", "split_spec"]


def revisions_and_paths(places: Places, words: Sequence[str], dashes: int | None = None) -> tuple[list[str], list[str]]:
    """Tell commits from paths.

    Parameters
    ----------
    places
        The repository.
    words
        As they were typed, without ``--``.
    dashes
        How many of them stood behind ``--``, which makes them paths and all others commits; ``None`` without it.

    Returns
    -------
    list
        Commits and ranges.
    list
        Paths, relative to the current directory.

    Raises
    ------
    UnknownWordError
        If a word is neither.
    ThetaError
        If it is both.
    """
    if dashes is not None:
        before = len(words) - dashes
        for word in words[:before]:
            _require_revision(word, places)
        return list(words[:before]), list(words[before:])
    revisions: list[str] = []
    for index, word in enumerate(words):
        is_revision, is_path = _is_revision(word, places), _is_path(word, places)
        if is_revision and is_path:
            raise ThetaError(
                f"{word!r} is both a commit and a file here",
                hint=f"Write '{word} --' for the commit, '-- {word}' for the file.",
            )
        if is_path:  # as for git, what follows a path is a path
            return revisions, list(words[index:])
        if not is_revision:
            raise UnknownWordError(word)
        revisions.append(word)
    return revisions, []


def meanings(places: Places, word: str) -> list[str]:
    """What a word is here, in words: a commit, a file, both, or neither."""
    found = ["a commit"] if _is_revision(word, places) else []
    return [*found, "a file"] if _is_path(word, places) else found


def _is_revision(word: str, places: Places) -> bool:
    try:
        _require_revision(word, places)
    except GitError:
        return False
    return True


def _require_revision(word: str, places: Places) -> None:
    left, dots, right = word.partition("..")
    for part in (left, right.removeprefix(".")) if dots else (word,):
        if part or not dots:
            resolve(part, places.cwd)


def _is_path(word: str, places: Places) -> bool:
    if not word or word.startswith(":"):
        return bool(word)  # magic pathspecs
    if places.work_tree is not None and os.path.lexists(os.path.join(places.cwd, word)):
        return True
    # Also what is deleted here but in the index, and globs.
    return places.work_tree is not None and git_ok("ls-files", "--error-unmatch", "--", word, cwd=places.cwd)


def name_in_repository(word: str, places: Places) -> str:
    """A path as git spells it in trees: relative to the top.

    Raises
    ------
    ThetaError
        If it is outside of the repository.
    """
    if places.work_tree is None:
        return os.path.normpath(word)
    full = os.path.normpath(os.path.join(places.cwd, word))
    # Only the folder is resolved: a link is a file of its own for git.
    full = os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
    name = os.path.relpath(full, os.path.realpath(places.work_tree))
    if name == ".." or name.startswith("../"):
        raise ThetaError(f"{word} is outside the repository {places.top}")
    return name


def spelled_out(places: Places, pathspecs: Iterable[str]) -> frozenset[str]:
    """Paths, relative to the top, that pathspecs spell out whole; a folder, a glob or magic does not name its files.

    Raises
    ------
    ThetaError
        If one is outside of the repository.
    """
    return frozenset(name_in_repository(spec, places) for spec in pathspecs if not spec.startswith(":"))


def checkpoint_paths(places: Places, paths: Sequence[str] = (), *, revision: str | None = None) -> list[str]:
    """Tracked checkpoints that paths name, relative to the top; all of them where none is named.

    A path that exists in no index may exist in history, and is handed on as it is.

    Parameters
    ----------
    places
        The repository.
    paths
        Files, folders or pathspecs relative to the current directory.
    revision
        Commit whose checkpoints are meant where none is named, in a bare repository; HEAD by default.

    Raises
    ------
    NotTrackedError
        If a path names files, but none that is tracked.
    """
    if not paths:
        blobs = (
            tracked_in_index(places) if places.work_tree is not None else tracked_in_tree(places, revision or "HEAD")
        )
        return list(dict.fromkeys(blob.path for blob in blobs))
    found: dict[str, None] = {}
    for path in paths:
        tracked = tracked_in_index(places, [path]) if places.work_tree is not None else []
        found.update(dict.fromkeys(blob.path for blob in tracked))
        if not tracked:
            found[_untracked(path, places)] = None
    return list(found)


def _untracked(path: str, places: Places) -> str:
    name = name_in_repository(path, places)
    here = places.work_tree is not None and os.path.isfile(os.path.join(places.cwd, path))
    if here and filter_of(places, [name]).get(name) != "theta":
        raise NotTrackedError(f"{name} is not tracked by theta", hint=f"Run 'git theta track {name}' first.")
    return name


def split_spec(places: Places, spec: str) -> tuple[str, str]:
    """Commit and path of ``REV:PATH``, ``:PATH`` (the index) or a path alone (HEAD).

    As for git, ``PATH`` is relative to the top, and to the current directory if it begins with ``./`` or ``../``.

    Raises
    ------
    ThetaError
        If there is no such commit.
    """
    revision, colon, path = _partition(spec)
    if not colon:
        name = name_in_repository(spec, places)
        if meanings(places, spec) == ["a commit"]:
            raise ThetaError(f"{spec!r} is a commit and names no file", hint=f"Write '{spec}:PATH'.")
        return "HEAD", name
    if revision:
        resolve(revision, places.cwd)
    if not path:
        raise ThetaError(f"{spec!r} names no file", hint="Write REV:PATH, as in 'HEAD~1:model.safetensors'.")
    relative = path.startswith(("./", "../"))
    return revision, name_in_repository(path, places) if relative else os.path.normpath(path)


def _partition(spec: str) -> tuple[str, str, str]:
    """Split at the colon behind the commit; one within braces belongs to it (``HEAD@{12:00}``)."""
    depth = 0
    for index, character in enumerate(spec):
        depth += (character == "{") - (character == "}")
        if character == ":" and depth <= 0:
            return spec[:index], ":", spec[index + 1 :]
    return spec, "", ""
