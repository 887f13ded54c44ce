"""Versions of a path that git has: in the index, in HEAD, in a merge under way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from theta_nb.errors import ManifestError
from theta_nb.git.places import Places
from theta_nb.git.process import CatFile, GitError, git
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, dump, is_manifest, parse

__all__ = ["Version", "index_blobs", "read_text", "text_of", "versions_at"]

_NO_MANIFEST = Manifest("", 0, b"", b"", {}, {})

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
    """

    text: bytes
    manifest: Manifest


def index_blobs(path: str, top: str) -> list[str]:
    """Blob ids of a path in the index, all stages, stage 0 or ours first."""
    if os.path.isabs(path):
        path = os.path.relpath(path, top)
    path = os.path.normpath(path)
    if path.split("/", 1)[0] == "..":
        return []
    try:
        out = git("ls-files", "--stage", "-z", "--", path, cwd=top, env={"GIT_LITERAL_PATHSPECS": "1"})
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


def read_text(name: str, cat_file: CatFile) -> bytes | None:
    """Content of a blob (``REV:path`` or id) if it is a manifest, else ``None``; large blobs are not read."""
    found = cat_file.size(name)
    if found is None or found[1] > MAX_MANIFEST_NBYTES:
        return None
    data = cat_file.read(found[0])
    return data if is_manifest(data) else None


def versions_at(path: str, places: Places, cat_file: CatFile, *, broken: bool = False) -> list[Version]:
    """Manifests that git has at a path, the most telling first: index, result of a merge driver, HEAD, other heads.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    places, cat_file
        The repository.
    broken
        Whether to list manifests that cannot be parsed, with an empty manifest.
    """
    names = index_blobs(path, places.top) + [f"{commit}:{path}" for commit in _COMMITS]
    seen: set[str] = set()
    found = []
    for name in names:
        header = cat_file.size(name)
        if header is None or header[0] in seen:
            continue
        seen.add(header[0])
        text = read_text(header[0], cat_file)
        if text is None:
            continue
        try:
            found.append(Version(text, parse(text, source=path)))
        except ManifestError:
            if broken:
                found.append(Version(text, _NO_MANIFEST))
    return found


def text_of(manifest: Manifest, versions: Sequence[Version]) -> bytes:
    """Text of a manifest: that of the first version with the same content, encoding and recipe included, or its own."""
    for version in versions:
        if manifest.same_content(version.manifest):
            return version.text
    return dump(manifest)
