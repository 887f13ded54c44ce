"""``git theta ls-files``: the checkpoints that the index holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from blake3 import blake3

from theta_nb.errors import ManifestError
from theta_nb.git.attributes import tracked_in_tree
from theta_nb.git.blobs import blob_head
from theta_nb.git.cat_file import CatFile
from theta_nb.git.content import is_reference_manifest
from theta_nb.git.places import Places
from theta_nb.git.tracked import TrackedBlob, tracked_in_index
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, is_manifest, parse

__all__ = ["StoredCheckpoint", "ls_files"]

_HEAD_NBYTES = 64


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """One tracked file of the index.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    state
        ``"complete"``: the work tree holds a file of its own. ``"manifest only"``: it holds the manifest.
        ``"missing"``: it holds nothing. ``"stored"``: listed from a commit, so the work tree does not matter.
        ``"conflict"``: a merge is not finished. ``"raw"``: the filter never stored it; git holds the whole file.
        ``"git-theta"``: stored by git-theta, format 1. ``"broken"``: the manifest cannot be read.
    format
        Format of the checkpoint; empty where no manifest says it.
    tensors
        Number of tensors.
    size
        Length of the checkpoint in bytes.
    digest
        Identity of the content: equal for equal files, however they are encoded; empty where no manifest says it.
    message
        What is wrong with a broken manifest.
    """

    path: str
    state: str
    format: str = ""
    tensors: int = 0
    size: int = 0
    digest: str = ""
    message: str = ""


def ls_files(places: Places, paths: Sequence[str] = (), *, source: str | None = None) -> tuple[StoredCheckpoint, ...]:
    """Tracked files of the index or of a commit, sorted by path.

    Parameters
    ----------
    places
        The repository.
    paths
        Pathspecs relative to the current directory; everything by default.

    source
        A commit; the index by default, or HEAD in a bare repository.

    Raises
    ------
    ThetaError
        If there is no such commit.
    """
    if source is None and places.work_tree is None:
        source = "HEAD"
    blobs = tracked_in_index(places, paths) if source is None else tracked_in_tree(places, source, paths)
    with closing(CatFile(places.top)) as cat_file:
        return tuple(
            _describe(blob, _state(blob, places) if source is None else "stored", places, cat_file)
            for blob in _one_a_path(blobs)
        )


def _one_a_path(entries: Sequence[TrackedBlob]) -> Iterator[TrackedBlob]:
    """One entry for each path: in a conflict ours, or what there is."""
    best = {entry.path: entry for entry in sorted(entries, key=lambda e: (e.path, e.stage == 2))}
    yield from best.values()


def _describe(entry: TrackedBlob, state: str, places: Places, cat_file: CatFile) -> StoredCheckpoint:
    found = cat_file.size(entry.oid)
    head = blob_head(entry.oid, places) if found is None or found[1] > MAX_MANIFEST_NBYTES else None
    data = cat_file.read(entry.oid) if head is None else head
    if is_reference_manifest(data[: 64 * 1024]):
        return StoredCheckpoint(entry.path, "git-theta")
    if not is_manifest(data):
        return StoredCheckpoint(entry.path, "raw" if data and state in ("complete", "stored") else state)
    try:
        manifest = parse(data, source=entry.path)
    except ManifestError as error:
        return StoredCheckpoint(entry.path, "broken", message=str(error))
    tensors = sum(1 for e in manifest.entries.values() if e.dtype != "bytes")
    return StoredCheckpoint(entry.path, state, manifest.format, tensors, manifest.size, content_digest(manifest))


def _state(entry: TrackedBlob, places: Places) -> str:
    if entry.stage:
        return "conflict"
    try:
        with open(os.path.join(places.top, entry.path), "rb") as file:
            return "manifest only" if is_manifest(file.read(_HEAD_NBYTES)) else "complete"
    except OSError:
        return "missing"


def content_digest(manifest: Manifest) -> str:
    """BLAKE3 over everything that determines the checkpoint's bytes, in hexadecimal."""
    hasher = blake3(f"{manifest.format}\n{manifest.size}\n".encode() + manifest.layout + manifest.skeleton)
    for name in sorted(manifest.entries):
        entry = manifest.entries[name]
        hasher.update(f"\n{name}\t{entry.dtype}\t{entry.shape}\t{entry.digest.hex()}\t{entry.owner}".encode())
    derived, checksums = manifest.derived_bytes()
    for index, data in sorted(derived.items()):
        hasher.update(f"\n{index}\t{data.hex()}".encode())
    for digest, checksum in sorted(checksums.items()):
        hasher.update(b"\n" + digest + checksum)
    return hasher.hexdigest()
