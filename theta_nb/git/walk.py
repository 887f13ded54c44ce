"""Walk history for manifests: by content, never by path or by a side record."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from theta_nb.git.places import Places
from theta_nb.git.process import CatFile, GitError, git
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, is_manifest

__all__ = ["ManifestBlob", "everything", "manifest_blobs", "named_objects"]

_OBJECT_LINE = re.compile(rb"^object ([0-9a-f]{64}) ([0-9]+)\r?$", re.MULTILINE)
_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class ManifestBlob:
    """A manifest in git.

    Parameters
    ----------
    oid
        Blob id.
    path
        One path that it has, the first that git met; may be empty.
    text
        Its content.
    """

    oid: str
    path: str
    text: bytes


def everything(places: Places) -> list[str]:
    """Arguments of ``git rev-list`` that reach all that anything in this repository may still need.

    Branches, tags, stashes, reflogs and indexes of all work trees, and the heads of commands under way, which
    ``--all`` and ``--reflog`` do not cover.
    """
    return ["--all", "--reflog", "--indexed-objects", *_heads_under_way(places)]


def _heads_under_way(places: Places) -> list[str]:
    """Object ids in ``MERGE_HEAD``, ``AUTO_MERGE``, ``ORIG_HEAD`` and the like, of every work tree."""
    folders = [places.common_dir]
    worktrees = os.path.join(places.common_dir, "worktrees")
    if os.path.isdir(worktrees):
        folders += [os.path.join(worktrees, name) for name in os.listdir(worktrees)]
    ids: set[str] = set()
    for folder in folders:
        for name in os.listdir(folder):
            path = Path(folder, name)
            if (name.endswith("_HEAD") or name in ("HEAD", "AUTO_MERGE")) and path.is_file():
                words = path.read_text(encoding="utf-8", errors="replace").split()
                ids.update(word for word in words if _OBJECT_ID.fullmatch(word))
    out = git("cat-file", "--batch-check=%(objectname) %(objecttype)", cwd=places.top, data="\n".join(ids).encode())
    return sorted(line.split()[0] for line in out.decode().splitlines() if not line.endswith(" missing"))


def manifest_blobs(places: Places, revisions: Sequence[str]) -> Iterator[ManifestBlob]:
    """Every manifest that ``git rev-list --objects REVISIONS`` reaches, once each.

    Raises
    ------
    GitError
        If a revision does not exist.
    """
    options = [word for word in revisions if word.startswith("--")]
    names = "\n".join(word for word in revisions if not word.startswith("--"))
    listed = git(
        "rev-list", "--objects", "--missing=allow-any", *options, "--stdin", cwd=places.top, data=names.encode()
    )
    paths: dict[bytes, bytes] = {}
    for line in listed.splitlines():
        oid, _, path = line.partition(b" ")
        paths.setdefault(oid, path)
    checked = git(
        "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", cwd=places.top, data=b"\n".join(paths)
    )
    cat_file = CatFile(places.top)
    try:
        for line in checked.splitlines():
            words = line.split()
            if len(words) == 3 and words[1] == b"blob" and int(words[2]) <= MAX_MANIFEST_NBYTES:
                text = cat_file.read(words[0].decode("ascii"))
                if is_manifest(text):
                    yield ManifestBlob(words[0].decode("ascii"), os.fsdecode(paths[words[0]]), text)
    finally:
        cat_file.close()


def named_objects(text: bytes) -> dict[str, int]:
    """Objects that a manifest names and their sizes, read without parsing the rest.

    What must not be deleted is decided by this: it also holds for manifests that are broken or of a later version.
    """
    return {oid.decode("ascii"): int(size[:19]) for oid, size in _OBJECT_LINE.findall(text)}


def commit_of(places: Places, oid: str) -> str:
    """Short id of the newest commit on any ref that brought in a blob, or an empty string."""
    try:
        out = git("log", "--all", f"--find-object={oid}", "--format=%h", "--max-count=1", cwd=places.top)
    except GitError:
        return ""
    return out.decode("ascii", "replace").strip()
