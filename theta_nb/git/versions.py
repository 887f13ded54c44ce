"""Versions of a path that git has: in the index, in HEAD, in a merge under way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from theta_nb.engine.previous import AUTO, Previous
from theta_nb.errors import ManifestError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.places import Places
from theta_nb.git.process import LITERAL, GitError, git
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, dump, is_manifest, parse
from theta_nb.updates.table import UPDATES

__all__ = [
    "Version",
    "index_blobs",
    "previous_of",
    "read_text",
    "recorded_texts",
    "text_of",
    "update_for",
    "versions_at",
]

_COMMITS = ("AUTO_MERGE", "HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD")
"""Where the value of a path may also stand; AUTO_MERGE is the only place of a merge driver's own result."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one checkpoint.

    Parameters
    ----------
    text
        Content of git's blob.
    manifest
        What it says.
    oid
        Name of the blob.
    """

    text: bytes
    manifest: Manifest
    oid: str


def index_blobs(path: str, top: str) -> list[str]:
    """Blob ids of a path in the index, all stages, stage 0 or ours first."""
    path = _relative(path, top)
    if not path:
        return []
    try:
        out = git("ls-files", "--stage", "-z", "--", path, cwd=top, env=LITERAL)
    except GitError:
        return []
    found = []
    for record in out.split(b"\0")[:-1]:
        info, _, name = record.partition(b"\t")
        mode, oid, stage = info.split(b" ")
        if name == os.fsencode(path) and mode.startswith(b"100"):
            # Ours (2) before theirs (3) before the base (1): after a conflict the work tree holds ours.
            found.append((b"0231".index(stage), oid.decode("ascii")))
    return [oid for _, oid in sorted(found)]


def _relative(path: str, top: str) -> str:
    """A path as git spells it in trees; empty outside the repository ('git hash-object FILE' gives any path)."""
    if os.path.isabs(path):
        path = os.path.relpath(path, top)
    path = os.path.normpath(path)
    return "" if path.split("/", 1)[0] == ".." else path


def read_text(name: str, cat_file: CatFile) -> bytes | None:
    """Content of a blob (``REV:path`` or id) if it is a manifest, else ``None``; large blobs are not read."""
    found = cat_file.size(name)
    if found is None or found[1] > MAX_MANIFEST_NBYTES:
        return None
    data = cat_file.read(found[0])
    return data if is_manifest(data) else None


def recorded_texts(path: str, places: Places, cat_file: CatFile) -> Iterator[bytes]:
    """Texts of the manifests at a path in the index and in HEAD, sound or not."""
    for name in _names(path, places, ("HEAD",)):
        text = read_text(name, cat_file)
        if text is not None:
            yield text


def versions_at(path: str, places: Places, cat_file: CatFile) -> list[Version]:
    """Manifests that git has at a path, the most telling first: index, result of a merge driver, HEAD, other heads.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    places, cat_file
        The repository.
    """
    seen: set[str] = set()
    found = []
    for name in _names(path, places, _COMMITS):
        header = cat_file.size(name)
        if header is None or header[0] in seen:
            continue
        seen.add(header[0])
        text = read_text(header[0], cat_file)
        if text is None:
            continue
        with contextlib.suppress(ManifestError):
            found.append(Version(text, parse(text, source=path), header[0]))
    return found


def previous_of(
    path: str,
    places: Places,
    cat_file: CatFile,
    versions: Sequence[Version],
    *,
    revision: str = "HEAD",
    update: str = "",
) -> Previous | None:
    """The committed version that changed chunks of a path may be stored as updates of, if there is one.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    places, cat_file
        The repository.
    versions
        What :func:`versions_at` found.
    revision
        Commit on which the new version will stand.
    update
        Update type, whatever is set for the path.

    Raises
    ------
    ThetaError
        If the update type that is set for the path does not exist.
    """
    relative = _relative(path, places.top)
    header = cat_file.size(f"{revision}:{relative}") if relative else None
    if header is None:
        return None
    manifest = next((version.manifest for version in versions if version.oid == header[0]), None)
    if manifest is None:
        text = read_text(header[0], cat_file)
        if text is None:
            return None
        try:
            manifest = parse(text, source=path)
        except ManifestError:
            return None
    return Previous(manifest, update or update_for(relative, places), places.settings.tolerance)


def update_for(path: str, places: Places) -> str:
    """Update type that the attribute ``theta-update`` of a path asks for, else the setting ``theta.update``.

    Raises
    ------
    ThetaError
        If there is no such type; the message says where it is set.
    """
    name, where = places.settings.update, "theta.update"
    out = git("check-attr", "-z", "--stdin", "theta-update", cwd=places.top, data=os.fsencode(path) + b"\0")
    value = os.fsdecode(out.split(b"\0")[2])
    value = value.lower()
    if value not in ("unspecified", "set"):
        name, where = ("dense" if value == "unset" else value), f"the attribute theta-update of {path}"
    if name != AUTO and name not in UPDATES.names():
        known = ", ".join((AUTO, *UPDATES.names()))
        raise ThetaError(f"{where} names the update type {name[:40]!r}, which does not exist", hint=f"Known: {known}.")
    return name


def _names(path: str, places: Places, commits: Sequence[str]) -> list[str]:
    relative = _relative(path, places.top)
    if not relative:
        return []
    return index_blobs(relative, places.top) + [f"{commit}:{relative}" for commit in commits]


def text_of(manifest: Manifest, versions: Sequence[Version]) -> bytes:
    """Text of a manifest: that of the first version with the same content, encoding and recipe included, or its own."""
    for version in versions:
        if manifest.same_content(version.manifest):
            return version.text
    return dump(manifest)
