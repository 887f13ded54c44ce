"""Trailers that say how checkpoints were merged, for the commits that ``git merge`` and ``git commit`` make.

``Theta-Merge: model.pt: ties(density=0.3)`` is for people; what a replay needs is the recipe in the manifest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from theta_nb.engine.three_way import is_without_choices
from theta_nb.errors import ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.places import Places
from theta_nb.git.process import git
from theta_nb.git.tracked import tracked_in_index
from theta_nb.git.versions import read_text
from theta_nb.manifest.text import parse

__all__ = ["MERGE_TRAILER", "note_merges", "with_trailers"]

MERGE_TRAILER = "Theta-Merge"

_MAX_HEADS = 64


def note_merges(places: Places, file: str) -> None:
    """Add a trailer to a prepared message for each checkpoint of the index that this merge has put together.

    Nothing is added outside of a merge, about what one of the parents has as it is, twice, or to an empty message,
    which is how a merge is given up.

    Parameters
    ----------
    places
        The repository.
    file
        Where git keeps the message, with comments for the editor.
    """
    parents = ["HEAD", *_merged_heads(places)]
    if len(parents) == 1:
        return
    with open(file, "rb") as opened:
        text = opened.read()
    if not any(line.strip() and not line.startswith(b"#") for line in text.split(b"\n")):
        return
    said = {path: short for path, short in _recipes(places, parents).items() if not _names(text, path)}
    if said:
        new = with_trailers(text, (f"{MERGE_TRAILER}: {path}: {short}" for path, short in said.items()))
        with open(file, "wb") as opened:
            opened.write(new)


def with_trailers(text: bytes, trailers: Iterable[str]) -> bytes:
    """A message with trailers at its end, before the comments that git puts there for the editor."""
    # A line break in a name would end the trailer.
    words = [word for line in trailers for word in ("--trailer", " ".join(line.split()))]
    options = ("--no-divider", "--where=end", "--if-exists=add", "--if-missing=add")
    # Behind a last line that is not ended no paragraph would begin.
    return git("interpret-trailers", *options, *words, data=text.rstrip(b"\n") + b"\n")


def _merged_heads(places: Places) -> list[str]:
    """Commits that are being merged: ids of a merge, or of a squashed one, whose message lists what it squashes."""
    found: list[str] = []
    for name, pattern in (("MERGE_HEAD", rb"^([0-9a-f]{40,64})$"), ("SQUASH_MSG", rb"^commit ([0-9a-f]{40,64})$")):
        try:
            with open(os.path.join(places.git_dir, name), "rb") as file:
                found += [oid.decode("ascii") for oid in re.findall(pattern, file.read(2**20), re.MULTILINE)]
        except OSError:
            continue
    return found[:_MAX_HEADS]


def _recipes(places: Places, parents: Iterable[str]) -> Mapping[str, str]:
    """Short recipes of the checkpoints in the index that no parent has as they are, by path."""
    cat_file = CatFile(places.top)
    found = {}
    try:
        for blob in tracked_in_index(places):
            sizes = (cat_file.size(f"{parent}:{blob.path}") for parent in parents)
            if blob.stage or blob.oid in {size[0] for size in sizes if size is not None}:
                continue
            text = read_text(blob.oid, cat_file)
            if text is None:
                continue
            try:
                recipe = parse(text, source=blob.path).recipe
                if recipe:
                    found[blob.path] = _short(recipe)
            except ThetaError:  # fsck tells of it; a message is no reason to stop a merge
                continue
    finally:
        cat_file.close()
    return found


def _short(recipe: str) -> str:
    if is_without_choices(recipe):
        return "three-way"
    from theta_nb.engine.merging.recipe import Recipe

    return Recipe.parse(recipe).short()


def _names(text: bytes, path: str) -> bool:
    """Whether a trailer tells of the path already: the message of ``git theta merge``, or of a second try."""
    start = f"{MERGE_TRAILER}: {' '.join(path.split())}: ".encode("utf-8", "surrogateescape")
    return any(line.startswith(start) for line in text.split(b"\n"))
