"""Which objects a commit, the index, a path or a pattern of parameters needs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git
from theta_nb.git.tracked import SKIP_WORKTREE, resolve
from theta_nb.git.walk import manifest_blobs, manifest_texts, named_objects
from theta_nb.git.words import spelled_out
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import parse

__all__ = ["Selection", "needed_objects", "recent_revisions"]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted.

    Parameters
    ----------
    revisions
        Commits whose trees are meant, without their history; ``""`` is the index, without what a sparse checkout
        leaves out and ``paths`` does not spell out.
    history
        Arguments of ``git rev-list``; everything that they reach is meant.
    paths
        Pathspecs for the index, relative to the current directory; all by default.
    include, exclude
        Globs over paths; a path is meant if it matches one of ``include`` (or there is none) and none of ``exclude``.
    parameters
        Globs over parameter names; all by default.
    """

    revisions: Sequence[str] = ()
    history: Sequence[str] = ()
    paths: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    parameters: Sequence[str] = ()

    def takes(self, path: str) -> bool:
        """Whether the globs let a path through."""
        return (not self.include or _matches(path, self.include)) and not _matches(path, self.exclude)


def needed_objects(places: Places, selection: Selection) -> tuple[dict[str, int], int]:
    """Objects that a selection needs, and how many manifests it has.

    Parameters
    ----------
    places
        The repository.
    selection
        What is wanted.

    Returns
    -------
    dict
        Lengths by name.
    int
        Number of different manifests.

    Raises
    ------
    GitError
        If a revision does not exist or a pathspec leaves the repository.
    ManifestError
        If parameters are asked for and a manifest is broken.
    """
    paths: dict[bytes, str] = {}
    for revision in selection.revisions:
        for oid, path in _index(places, selection) if revision == "" else _tree(places, revision):
            if selection.takes(path):
                paths.setdefault(oid, path)
    objects: dict[str, int] = {}
    number = 0
    for oid, text in manifest_texts(places, paths):
        objects.update(_objects(text, paths[oid], selection.parameters))
        number += 1
    for blob in manifest_blobs(places, selection.history) if selection.history else ():
        objects.update(_objects(blob.text, blob.path, selection.parameters))
        number += 1
    return objects, number


def _index(places: Places, selection: Selection) -> Iterator[tuple[bytes, str]]:
    specs = selection.paths or ([":/"] if places.work_tree else ["."])
    out = git("ls-files", "--stage", "-t", "--full-name", "-z", "--", *specs, cwd=places.cwd)
    named = spelled_out(places, selection.paths)
    for record in out.split(b"\0")[:-1]:
        info, _, name = record.partition(b"\t")
        tag, mode, oid, _ = info.split(b" ")
        path = os.fsdecode(name)
        if mode.startswith(b"100") and (tag != SKIP_WORKTREE.encode("ascii") or path in named):
            yield oid, path


def _tree(places: Places, revision: str) -> Iterator[tuple[bytes, str]]:
    out = git("ls-tree", "-r", "-z", "--full-tree", resolve(revision, places.cwd), cwd=places.top)
    for record in out.split(b"\0")[:-1]:
        info, _, name = record.partition(b"\t")
        mode, _, oid = info.split(b" ")
        if mode.startswith(b"100"):
            yield oid, os.fsdecode(name)


def _objects(text: bytes, path: str, parameters: Sequence[str]) -> Mapping[str, int]:
    if not parameters:
        return named_objects(text)
    manifest = parse(text, source=path or "a manifest")
    return {oid: manifest.objects[oid] for oid in _oids(manifest, parameters)}


def _oids(manifest: Manifest, parameters: Sequence[str]) -> Iterator[str]:
    """Objects of some parameters, and of what it takes to read a checkpoint at all."""
    values = [manifest.values[digest] for digest in (manifest.layout, manifest.skeleton)]
    values += [manifest.value_of(name) for name in manifest.entries if _any(name, parameters)]
    for value in values:
        yield from value.oids


def _matches(path: str, globs: Iterable[str]) -> bool:
    """Whether a glob means the path or a folder above it; without a slash in any folder: much as in a .gitignore.

    Examples
    --------
    >>> _matches("models/a/m.pt", ["*.pt"]), _matches("models/a/m.pt", ["/models"]), _matches("m.pt", ["models/"])
    (True, True, False)
    """
    parts = path.split("/")
    folders = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    for glob in globs:
        names = folders if "/" in glob.rstrip("/") else parts
        if any(_any(name, [glob.strip("/")]) for name in names):
            return True
    return False


def _any(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def recent_revisions(places: Places) -> list[str]:
    """Commits at the tips of branches and remote-tracking branches that changed of late.

    What is recent is set as for Git LFS: ``lfs.fetchRecentRefsDays`` (7), ``lfs.fetchRecentCommitsDays`` (0: tips
    only), ``lfs.fetchRecentRemoteRefs`` (true).
    """
    days = _number(places, "lfs.fetchrecentrefsdays", 7)
    before = _number(places, "lfs.fetchrecentcommitsdays", 0)
    patterns = ["refs/heads"] + (["refs/remotes"] if _flag(places, "lfs.fetchrecentremoterefs") else [])
    out = git("for-each-ref", "--format=%(objectname) %(committerdate:unix)", *patterns, cwd=places.top)
    refs = [line.split() for line in out.decode("ascii").splitlines()]
    limit = time.time() - days * 86400
    found: dict[str, None] = {}
    for words in refs:
        if len(words) != 2 or int(words[1]) < limit:
            continue
        found[words[0]] = None
        if before:
            since = f"--since={int(words[1]) - before * 86400}"
            found.update(dict.fromkeys(git("rev-list", since, words[0], cwd=places.top).decode("ascii").split()))
    return list(found)


def _number(places: Places, key: str, default: int) -> int:
    try:
        return int(git("config", "--type=int", "--get", key, cwd=places.top))
    except GitError:
        return default


def _flag(places: Places, key: str) -> bool:
    try:
        return git("config", "--type=bool", "--get", key, cwd=places.top).strip() == b"true"
    except GitError:
        return True
