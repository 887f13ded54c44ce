"""``git theta replay``: do a recorded merge again, and compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from theta_nb.engine.merging.inputs import MergeInput, TensorInfo, WideReader
from theta_nb.engine.merging.recipe import Recipe, Source
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.errors import ThetaError
from theta_nb.git.attributes import tracked_in_tree
from theta_nb.git.cat_file import CatFile
from theta_nb.git.merge_files import manifest_of_blob
from theta_nb.git.merge_inputs import BASE_LABEL, Origin, blob_of_revision, open_session
from theta_nb.git.merge_result import make_result
from theta_nb.git.merge_trees import virtual_ancestor
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.process import git_text
from theta_nb.git.tracked import resolve
from theta_nb.git.versions import read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import parse

__all__ = ["Replayed", "replay"]

Progress = Callable[[int, int], None]

_BLOCK = 2**20


@dataclass(frozen=True)
class Replayed:
    """A merge that was done again.

    Parameters
    ----------
    path
        The checkpoint.
    commit
        The commit that has the result.
    recipe
        Short form of its recipe.
    same
        Number of parameters that came out with the same digest.
    within
        Names of those that came out within the tolerance of their method.
    different
        Names of those that came out otherwise.
    """

    path: str
    commit: str
    recipe: str
    same: int
    within: tuple[str, ...]
    different: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.different


def replay(
    places: Places, revision: str = "HEAD", paths: Sequence[str] = (), *, progress: Progress | None = None
) -> list[Replayed]:
    """Merge again what the recipes of a commit say, and compare.

    Parameters
    ----------
    places
        The repository.
    revision
        The commit.
    paths
        Checkpoints, relative to the top; by default all that have a recipe.
    progress
        Told how many parameters are computed.

    Raises
    ------
    ThetaError
        If a checkpoint has no recipe, or the inputs of one are not in the repository.
    MergeError
        If a recipe is broken.
    """
    commit = resolve(revision, places.top)
    cat_file = CatFile(places.top)
    try:
        found = []
        for path in paths or [blob.path for blob in tracked_in_tree(places, commit)]:
            text = read_text(f"{commit}:{path}", cat_file)
            manifest = parse(text, source=path) if text is not None else None
            if manifest is not None and manifest.recipe:
                found.append(_replayed(places, cat_file, commit, path, manifest, progress))
            elif paths:
                raise ThetaError(
                    f"{path} at {revision} is no recorded merge", hint="'git log --grep=Theta-Merge' shows which are."
                )
    finally:
        cat_file.close()
    if not found:
        raise ThetaError(
            f"no checkpoint of {revision} is a recorded merge", hint="'git log --grep=Theta-Merge' shows which are."
        )
    return found


def _replayed(
    places: Places, cat_file: CatFile, commit: str, path: str, manifest: Manifest, progress: Progress | None
) -> Replayed:
    recipe = Recipe.parse(manifest.recipe)
    base = None if recipe.base is None else _base(places, cat_file, recipe.base, commit, path)
    origins = [_origin(places, cat_file, source, source.label, path) for source in recipe.inputs]
    statistics = [_statistics(places, cat_file, source, commit, path) for source in recipe.statistics]
    try:
        session = open_session(places, path, base, origins, statistics=statistics)
        session.apply(recipe)
        with make_result(places, session, path, write=False, progress=progress) as result:
            new = result.manifest
            names = [
                name
                for name in sorted(manifest.entries.keys() | new.entries.keys())
                if manifest.entries.get(name) != new.entries.get(name)
            ]
            within = _within(places, session, manifest, new, names, result.file)
    finally:
        for one in statistics:
            if isinstance(one, FileInput):
                one.close()
    different = [name for name in names if name not in within]
    if new.skeleton != manifest.skeleton:
        different.append("what is no tensor")
    same = len(manifest.entries) - len(names)
    return Replayed(path, commit, session.recipe().short(), same, tuple(within), tuple(different))


def _base(places: Places, cat_file: CatFile, source: Source, commit: str, path: str) -> Origin:
    """The common ancestor; one that git made up for a criss-cross is made up again, from the commit's parents."""
    if blob_of_revision(cat_file, source.revision, path) is None:
        parents = git_text("rev-parse", f"{commit}^@", cwd=places.top).split()
        again = virtual_ancestor(places, parents[0], parents[1], path) if len(parents) == 2 else None
        if again is not None:  # its digest is checked with those of the others
            return Origin(BASE_LABEL, again, again)
    return _origin(places, cat_file, source, BASE_LABEL, path)


def _origin(places: Places, cat_file: CatFile, source: Source, label: str, path: str) -> Origin:
    blob = blob_of_revision(cat_file, source.revision, path)
    if blob is None:
        shallow = git_text("rev-parse", "--is-shallow-repository", cwd=places.top) == "true"
        raise ThetaError(
            f"{path}: the input {source.label!r} of its recipe ({source.revision[:60] or 'unknown'}) is not here",
            hint="This clone is shallow: 'git fetch --unshallow' brings what came before."
            if shallow
            else "Fetch the branch that it was on, if there still is one.",
        )
    return Origin(label, source.revision, blob)


def _statistics(places: Places, cat_file: CatFile, source: Source, commit: str, path: str) -> MergeInput:
    """Statistics of the training data: as the commit has them, or else the work tree; their digest is checked later."""
    name = source.revision
    blob = blob_of_revision(cat_file, f"{commit}:{name}", path)
    if blob is not None:
        manifest = manifest_of_blob(places, cat_file, blob, name)
        bring(places, manifest.objects)
        return ManifestInput(source.label, manifest, places.store, name)
    # A recipe comes from others: it names files of this work tree, or none.
    top = os.path.realpath(places.top)
    file = "" if "\0" in name else os.path.realpath(os.path.join(top, name))
    if not file.startswith(top + os.sep) or not os.path.isfile(file):
        raise ThetaError(
            f"{path}: the statistics {name[:60]!r} that it was merged with are not here",
            hint="Put the file there, below the top of the repository.",
        )
    return FileInput(source.label, file, name)


def _within(
    places: Places, session: MergeSession, old: Manifest, new: Manifest, names: Sequence[str], file: str
) -> tuple[str, ...]:
    """Names whose values are as near to the committed ones as their method promises."""
    tolerances = {}
    for name in names:
        before, after = old.entries.get(name), new.entries.get(name)
        decision = session.decisions.get((before.owner or name) if before is not None else name)
        inexact = decision is not None and decision.method is not None and not decision.method.exact
        if (
            inexact
            and before
            and after
            and (before.dtype, before.shape, before.owner)
            == (
                after.dtype,
                after.shape,
                after.owner,
            )
        ):
            tolerances[name] = decision.method.tolerance  # type: ignore[union-attr]
    if not tolerances:
        return ()
    bring(places, old.objects)
    committed = ManifestInput("committed", old, places.store)
    replayed = FileInput("replayed", file)
    try:
        return tuple(
            name
            for name, tolerance in tolerances.items()
            if old.entries[name].owner or _distance(committed, replayed, name) <= tolerance
        )
    finally:
        replayed.close()


def _distance(left: Any, right: Any, name: str) -> float:
    """Norm of the difference of two tensors over the norm of the first."""
    info: TensorInfo = left.tensors[name]
    one, two = WideReader(left.reader(name), info.dtype), WideReader(right.reader(name), info.dtype)
    difference = norm = 0.0
    for start in range(0, info.count, _BLOCK):
        a, b = (np.asarray(each.read(start, min(start + _BLOCK, info.count)), np.float64) for each in (one, two))
        difference += float(((a - b) ** 2).sum())
        norm += float((a**2).sum())
    return (difference / norm) ** 0.5 if norm else float(difference > 0)
