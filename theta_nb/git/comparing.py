"""Compare two versions of a checkpoint: in commits, the index, the work tree, other files, or memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from theta_nb.engine.diff import structural_diff
from theta_nb.engine.source_pair import PairOfSources
from theta_nb.engine.sources import FileSource, ManifestSource, Source
from theta_nb.errors import NotTrackedError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.tracked import resolve
from theta_nb.git.versions import index_blobs, read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, is_manifest, parse
from theta_nb.report.checkpoint_diff import CheckpointDiff, Side

__all__ = ["Opened", "Where", "compare_sides", "compare_versions", "open_file", "open_manifest", "open_version"]


class HasState(Protocol):
    """A module or an optimizer."""

    def state_dict(self) -> Any:
        """Tensors by name."""
        ...


Where = str | Path | Mapping[Any, Any] | HasState | None
"""A commit (``""``: the index), a file, state in memory, or ``None``: the work tree."""


@dataclass(frozen=True)
class Opened:
    """One side that can be read.

    Parameters
    ----------
    side
        What a person calls it.
    source
        Its parameters and values; ``None`` where there is no such file.
    manifest
        Its manifest, where it has one.
    """

    side: Side
    source: Source | None = None
    manifest: Manifest | None = None


def compare_versions(
    places: Places,
    path: str,
    old: Where = "HEAD",
    new: Where = None,
    *,
    new_path: str | None = None,
    executor: Executor,
) -> CheckpointDiff:
    """What changed between two versions of a checkpoint, not measured yet.

    Parameters
    ----------
    places
        The repository.
    path
        The checkpoint, relative to the top.
    old, new
        Where each side is: a commit, ``""`` for the index, ``None`` for the work tree, a :class:`pathlib.Path` for any
        file, or a state dict.
    new_path
        Path of the new side, if another one.
    executor
        Where files and tensors in memory are hashed.

    Raises
    ------
    ThetaError
        If a revision is unknown, or neither side has the file.
    NotTrackedError
        If a version is not stored by theta-nb.
    ManifestError
        If a version is corrupt.
    """
    if _in_memory(old) and not _in_memory(new):
        after = open_version(places, new_path or path, new, executor)
        before = open_version(places, path, old, executor, names=_names(after))
    else:
        before = open_version(places, path, old, executor)
        after = open_version(places, new_path or path, new, executor, names=_names(before))
    if not before.side.exists and not after.side.exists:
        raise ThetaError(
            f"{path} exists neither in {before.side.label} nor in {after.side.label}",
            hint="'git theta ls-files' shows the checkpoints, 'git log -- PATH' where one was.",
        )
    return compare_sides(places, before, after)


def compare_sides(places: Places, old: Opened, new: Opened) -> CheckpointDiff:
    """What changed between two sides that are open, not measured yet."""
    before = old.source.parameters if old.source is not None else {}
    after = new.source.parameters if new.source is not None else {}
    values = None
    if old.source is not None and new.source is not None:
        cache = os.path.join(places.theta_dir, "statistics.sqlite")
        values = PairOfSources(old.source, new.source, cache=cache, workers=places.settings.workers)
    return CheckpointDiff(old.side, new.side, structural_diff(before, after), _other(old, new), _values=values)


def _in_memory(where: Where) -> bool:
    return where is not None and not isinstance(where, str | Path)


def _names(opened: Opened) -> frozenset[str]:
    return frozenset(opened.source.parameters) if opened.source is not None else frozenset()


def _other(old: Opened, new: Opened) -> tuple[str, ...]:
    """Sentences about what is no tensor."""
    before, after = old.manifest, new.manifest
    if before is None or after is None:
        return ()
    if before.format != after.format:
        return (f"format {before.format} → {after.format}",)
    # Names, shapes and dtypes stand in the same part of the file, and have lines of their own.
    frame = [{(e.name, e.dtype, e.shape, e.owner) for e in one.entries.values()} for one in (before, after)]
    if frame[0] != frame[1]:
        return ()
    return ("metadata or pickled values changed",) if before.skeleton != after.skeleton else ()


def open_version(
    places: Places, path: str, where: Where, executor: Executor, *, names: frozenset[str] = frozenset()
) -> Opened:
    """One side of a comparison.

    Parameters
    ----------
    places, path, where, executor
        As for :func:`compare_versions`.
    names
        Parameter names of the other side: a key of a state dict that is one of them is meant as it is spelled.
    """
    if where is None:
        return open_file(places, os.path.join(places.top, path), Side(path, "work tree"), executor)
    if isinstance(where, Path):
        found = open_file(places, os.path.abspath(where), Side(os.fspath(where), ""), executor)
        if not found.side.exists:
            raise ThetaError(f"{where} does not exist", hint="Name a checkpoint.")
        return found
    if isinstance(where, str):
        return _open_committed(places, path, where)
    from theta_nb.engine.memory_source import MemorySource  # it needs NumPy, versions in git do not

    source = MemorySource(where, executor, names)
    size = sum(parameter.nbytes for parameter in source.parameters.values() if not parameter.tied)
    return Opened(Side("", "memory", format="memory", size=size, parameters=len(source.parameters)), source)


def open_manifest(places: Places, manifest: Manifest, side: Side, *, fetch: bool = True) -> Opened:
    """A side whose manifest is at hand; with ``fetch``, objects that are missing are fetched when they are needed."""
    source = ManifestSource(manifest, places.store, bring=partial(bring, places) if fetch else None)
    return Opened(_described(side, manifest, source), source, manifest)


def _described(side: Side, manifest: Manifest, source: Source) -> Side:
    return replace(side, format=manifest.format, size=manifest.size, parameters=len(source.parameters))


def _open_committed(places: Places, path: str, revision: str) -> Opened:
    side = Side(path, revision or "index")
    cat_file = CatFile(places.top)
    try:
        names = [f"{resolve(revision, places.top)}:{path}"] if revision else index_blobs(path, places.top)[:1]
        found = cat_file.size(names[0]) if names else None
        if found is None:
            return Opened(Side(path, side.label, exists=False))
        text = read_text(found[0], cat_file)
    finally:
        cat_file.close()
    if text is None:
        raise NotTrackedError(
            f"{path} at {side.label} is not stored by theta-nb", hint=f"Run 'git theta track {path}' and add it."
        )
    return open_manifest(places, parse(text, source=f"{path} at {side.label}"), side)


def open_file(places: Places, full: str, side: Side, executor: Executor, *, fetch: bool = True) -> Opened:
    """A side that is a file: a checkpoint, or the manifest that stands for one.

    Raises
    ------
    ThetaError
        If it is no file, or cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(full).st_mode):
            raise ThetaError(f"{side.path} is not a file", hint="Name a checkpoint.")
        with open(full, "rb") as file:
            head = file.read(64)
            text = head + file.read(MAX_MANIFEST_NBYTES + 1) if is_manifest(head) else None
        if text is not None:
            return open_manifest(places, parse(text, source=side.path), side, fetch=fetch)
        source = FileSource(full, executor, cache=os.path.join(places.theta_dir, "digests.sqlite"))
    except (FileNotFoundError, NotADirectoryError):
        return Opened(replace(side, exists=False))
    except OSError as error:
        raise ThetaError(f"{side.path} cannot be read ({error.strerror})") from error
    return Opened(_described(side, source.manifest, source), source, source.manifest)
