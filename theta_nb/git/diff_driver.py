"""The external diff driver of ``git theta install --rich-diff``: names what changed, from manifests.

git has smudged both sides to temporary files before it calls a driver (that is its cost, and why there is none by
default); they are read only where git does not hold the content yet. Source: ``git(1)``, ``GIT_EXTERNAL_DIFF``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from theta_nb.engine.clean import Cleaner
from theta_nb.engine.known import KnownChunks
from theta_nb.git.places import Places, find_places
from theta_nb.git.process import CatFile, GitError, git_text
from theta_nb.git.versions import read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import is_manifest, parse
from theta_nb.report.changes import change_lines

__all__ = ["diff_driver"]


def diff_driver(arguments: Sequence[str], *, terminal: bool) -> list[str]:
    """Lines to print for one path.

    Parameters
    ----------
    arguments
        As git gives them: ``path old-file old-hex old-mode new-file new-hex new-mode [new-path headers]``, or the path
        alone where it is unmerged.
    terminal
        Whether standard output is one; git's own setting decides about colours.

    Raises
    ------
    ThetaError
        If a side can be read neither from git nor from its file.
    """
    path = arguments[0]
    if len(arguments) < 7:
        return [f"theta diff {path}", "unmerged"]
    places = find_places()
    old_file, old_hex, old_mode, new_file, new_hex, new_mode = arguments[1:7]
    cat_file = CatFile(places.top)
    try:
        old = _side(places, cat_file, path, old_file, old_hex, None)
        new = _side(places, cat_file, path, new_file, new_hex, old)
    finally:
        cat_file.close()
    lines = [f"theta diff {path}" + (f" -> {arguments[7]}" if len(arguments) > 7 else "")]
    if old_mode != new_mode and "." not in (old_mode, new_mode):
        lines.append(f"mode {old_mode} -> {new_mode}")
    return lines + list(change_lines(old, new, colour=_colour(places, terminal=terminal)))


def _side(places: Places, cat_file: CatFile, path: str, file: str, oid: str, known: Manifest | None) -> Manifest | None:
    if file == os.devnull:
        return None
    if oid.strip("0.") and (text := read_text(oid, cat_file)) is not None:
        return parse(text, source=path)
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with open(fd, "rb", closefd=False) as stream:
            if is_manifest(stream.read(64)):
                stream.seek(0)
                return parse(stream.read(), source=path)
        with ThreadPoolExecutor(places.settings.workers) as executor:
            cleaner = Cleaner(places.store, executor, write=False)
            return cleaner.file(fd, os.path.basename(path), KnownChunks([known] if known else []))[0]
    finally:
        os.close(fd)


def _colour(places: Places, *, terminal: bool) -> bool:
    try:
        return git_text("config", "--get-colorbool", "color.diff", str(terminal).lower(), cwd=places.top) == "true"
    except GitError:
        return False
