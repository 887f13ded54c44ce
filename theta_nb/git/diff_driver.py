"""The external diff driver of ``git theta install --rich-diff``: what changed in a checkpoint, and by how much.

git has smudged both sides to temporary files before it calls a driver (that is its cost, and why there is none by
default); they are read only where git does not hold the content yet. Source: ``git(1)``, ``GIT_EXTERNAL_DIFF``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from theta_nb.errors import ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.comparing import Opened, compare_sides, open_file, open_manifest
from theta_nb.git.places import Places, find_places
from theta_nb.git.process import GitError, git_text
from theta_nb.git.versions import read_text
from theta_nb.manifest.text import parse
from theta_nb.report.checkpoint_diff import CheckpointDiff, Side
from theta_nb.report.diff_lines import PLAIN, Colours, diff_lines
from theta_nb.report.visible import visible

__all__ = ["diff_driver"]


def diff_driver(arguments: Sequence[str], *, terminal: bool) -> list[str]:
    """Lines to print for one path.

    A path that cannot be compared (a corrupt manifest, a file that is no more) says so in its lines: were it an error,
    git would end there and leave out all paths behind it.

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
        If there is no repository here.
    """
    places = find_places()
    colours = _colours(places, terminal=terminal)
    path = arguments[0]
    new_path = arguments[7] if len(arguments) > 7 else path
    lines = [_heading(path if path == new_path else f"{path} → {new_path}", colours)]
    if len(arguments) < 7:
        return [*lines, "unmerged: take a side with 'git checkout --ours' or '--theirs', or write the merged file"]
    old_mode, new_mode = arguments[3], arguments[6]
    if old_mode != new_mode and "." not in (old_mode, new_mode):
        lines.append(f"mode {old_mode} → {new_mode}")
    lines += [line for line in arguments[8].splitlines() if line.startswith("similarity")] if arguments[8:] else []
    try:
        return [*lines, *diff_lines(_compared(places, arguments, new_path), colours=colours)]
    except (ThetaError, OSError) as error:
        return [*lines, f"{colours.removed}cannot be compared:{colours.reset} {visible(str(error))}"]


def _compared(places: Places, arguments: Sequence[str], new_path: str) -> CheckpointDiff:
    path, old_file, old_hex, _, new_file, new_hex, _ = arguments[:7]
    cat_file = CatFile(places.top)
    with ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta") as executor:
        try:
            old = _side(places, cat_file, path, old_file, old_hex, executor)
            new = _side(places, cat_file, new_path, new_file, new_hex, executor)
        finally:
            cat_file.close()
        return compare_sides(places, old, new).measure(executor=executor)


def _heading(text: str, colours: Colours) -> str:
    return f"{colours.module}theta diff {visible(text)}{colours.reset}"


def _side(places: Places, cat_file: CatFile, path: str, file: str, oid: str, executor: Executor) -> Opened:
    """One side: by its blob where git holds a manifest, else from the file; nothing is fetched for a diff."""
    side = Side(path, oid[:10] if oid.strip("0.") else "work tree")
    if file == os.devnull:
        return Opened(Side(path, side.label, exists=False))
    if oid.strip("0.") and (text := read_text(oid, cat_file)) is not None:
        return open_manifest(places, parse(text, source=path), side, fetch=False)
    return open_file(places, os.path.join(places.top, file), side, executor, fetch=False)


def _colours(places: Places, *, terminal: bool) -> Colours:
    """The user's own colours for diffs, if git would use any here."""
    try:
        wanted = git_text("config", "--get-colorbool", "color.diff", str(terminal).lower(), cwd=places.top)
    except GitError:
        return PLAIN
    if wanted != "true":
        return PLAIN

    slots = (("new", "green"), ("old", "red"), ("frag", "cyan"), ("meta", "bold"))
    added, removed, changed, module = (
        git_text("config", "--get-color", f"color.diff.{slot}", usual, cwd=places.top) for slot, usual in slots
    )
    return Colours(added, removed, changed, module, "\x1b[m")
