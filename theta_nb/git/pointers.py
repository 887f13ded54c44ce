"""Pointer files beside the manifests, for programs that know Git LFS and not theta; only where they were asked for.

Some servers delete LFS objects that no pointer file refers to, and ``git lfs fetch --all`` copies no others. Where a
pattern has the attribute ``theta-pointers``, the index holds a small file ``.git_theta/<checkpoint>/<tensor>`` for
each object of a checkpoint. They are ordinary files in the work tree too: ``skip-worktree`` would be forgotten by the
next checkout. ``lfs.fetchexclude`` in ``.lfsconfig`` keeps git-lfs from replacing them by the objects in clones; what
copies everything (``git lfs fetch --all``, ``git lfs push``) does not look at it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from theta_nb.errors import ManifestError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.index import index_entry, put_entries
from theta_nb.git.object_folders import folders_in
from theta_nb.git.places import Places
from theta_nb.git.pointer_names import pointer_names
from theta_nb.git.process import GitError, git, git_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import is_manifest, parse

__all__ = [
    "ATTRIBUTE",
    "FOLDER",
    "RULE",
    "exclude_from_git_lfs",
    "link_objects",
    "sync_pointers",
    "uses_pointers",
]

ATTRIBUTE = "theta-pointers"
"""Attribute of the patterns whose checkpoints get pointer files; every clone reads it."""

FOLDER = ".git_theta"

# Pointers are lines of text, and two of them cannot be averaged: a union never stops a merge of checkpoints, and the
# next commit writes them anew.
RULE = (f"{FOLDER}/**", ("filter=lfs", "diff=lfs", "merge=union", "-text"))

_VERSION = b"version https://git-lfs.github.com/spec/v1\n"


# --- index and work tree ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    oid: str
    merged: bool
    left_out: bool  # of the work tree, by a sparse checkout


def uses_pointers(places: Places) -> bool:
    """Whether pointer files are wanted here; a look at two names, no command of git."""
    if places.work_tree is None:
        return False
    if os.path.isdir(os.path.join(places.work_tree, FOLDER)):
        return True
    try:
        with open(os.path.join(places.work_tree, ".gitattributes"), "rb") as file:
            return RULE[0].encode() in file.read(2**20)
    except OSError:
        return False


def sync_pointers(places: Places) -> tuple[str, ...]:
    """Make the pointer files of the index, and of the work tree, those of the checkpoints in the index.

    The index is that of ``GIT_INDEX_FILE``, as git tells hooks: the one of the commit that is being made.

    Returns
    -------
    tuple of str
        Paths that were added, changed or removed in the index.

    Raises
    ------
    ThetaError
        If the folder in the work tree is a symbolic link, or nothing can be written.
    """
    if places.work_tree is None:
        return ()
    index = _index(places)
    present = {path: entry for path, entry in index.items() if _owner(path)}
    owners = {_owner(path) for path in present}
    # An attribute counts for a checkpoint that is gone, too: what was left of it is known by that.
    pointed = _with_pointers(places, {path for path in index if path not in present} | owners)
    cat_file = CatFile(places.top)
    try:
        wanted, objects, unknown = _wanted(index, pointed, cat_file)
        owners = {o for o in owners - unknown if o in pointed or o in index or cat_file.size(f"HEAD:{o}")}
        stale = [
            path
            for path, entry in present.items()
            if path not in wanted and _owner(path) in owners and _is_pointer(entry, cat_file)
        ]
    finally:
        cat_file.close()
    link_objects(places, objects)
    width = len(next(iter(index.values())).oid) if index else 40
    changed = {
        path: data
        for path, data in wanted.items()
        if path not in present or not present[path].merged or present[path].oid != _blob_id(data, width)
    }
    if changed or stale:
        hidden = _hidden(present, changed)
        shown = {path: data for path, data in changed.items() if path not in hidden}
        _write(places.work_tree, shown, [path for path in stale if not present[path].left_out])
        _stage(places, changed, stale, hidden, width)
    return tuple(sorted([*changed, *stale]))


def _owner(path: str) -> str:
    """The checkpoint that a pointer file belongs to by its name; nothing for other files."""
    return os.path.dirname(path).removeprefix(f"{FOLDER}/") if path.startswith(f"{FOLDER}/") else ""


def _index(places: Places) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for record in git("ls-files", "--stage", "-t", "-z", cwd=places.top).split(b"\0")[:-1]:
        info, _, name = record.partition(b"\t")
        tag, mode, oid, stage = info.decode("ascii").split(" ")
        if mode.startswith("100"):
            found[os.fsdecode(name)] = _Entry(oid, stage == "0", tag == "S")
    return found


def _wanted(
    index: Mapping[str, _Entry], pointed: Iterable[str], cat_file: CatFile
) -> tuple[dict[str, bytes], dict[str, int], set[str]]:
    """Pointer files of the checkpoints in the index, their objects, and checkpoints that do not say what they need."""
    files: dict[str, bytes] = {}
    objects: dict[str, int] = {}
    unknown: set[str] = set()
    for path in pointed:
        if path not in index:
            continue
        manifest = _manifest(index[path], path, cat_file)
        if manifest is None:
            unknown.add(path)
            continue
        objects.update(manifest.objects)
        for name, oid in pointer_names(manifest).items():
            files[f"{FOLDER}/{path}/{name}"] = _pointer(oid, manifest.objects[oid])
    return files, objects, unknown


def _hidden(present: Mapping[str, _Entry], changed: Iterable[str]) -> set[str]:
    """Files that a sparse checkout keeps out of the work tree: new ones follow those of their folder, or all others."""
    folders = {os.path.dirname(path) for path, entry in present.items() if entry.left_out}
    everywhere = bool(present) and all(entry.left_out for entry in present.values())
    return {
        path
        for path in changed
        if (present[path].left_out if path in present else everywhere or os.path.dirname(path) in folders)
    }


def _with_pointers(places: Places, paths: Iterable[str]) -> set[str]:
    data = b"".join(os.fsencode(path) + b"\0" for path in paths)
    if not data:
        return set()
    words = git("check-attr", "-z", "--stdin", ATTRIBUTE, "filter", cwd=places.top, data=data).split(b"\0")[:-1]
    said = {(os.fsdecode(path), name): value for path, name, value in zip(*[iter(words)] * 3, strict=True)}
    return {
        path
        for (path, name), value in said.items()
        if name == ATTRIBUTE.encode() and value == b"set" and said[path, b"filter"] == b"theta"
    }


def _manifest(entry: _Entry, path: str, cat_file: CatFile) -> Manifest | None:
    """The manifest in the index, or nothing where it is in conflict, broken, or no manifest at all."""
    if not entry.merged:
        return None
    try:
        text = cat_file.read(entry.oid)
        return parse(text, source=path) if is_manifest(text) else None
    except (GitError, ManifestError):
        return None


def _is_pointer(entry: _Entry, cat_file: CatFile) -> bool:
    """Whether a file is a pointer; whatever else lies in that folder is left alone."""
    found = cat_file.size(entry.oid)
    return found is not None and found[1] < 1024 and cat_file.read(entry.oid).startswith(_VERSION)


def _pointer(oid: str, nbytes: int) -> bytes:
    return _VERSION + f"oid sha256:{oid}\nsize {nbytes}\n".encode("ascii")


def _blob_id(data: bytes, width: int) -> str:
    content = f"blob {len(data)}\0".encode("ascii") + data
    return (hashlib.sha256(content) if width == 64 else hashlib.sha1(content, usedforsecurity=False)).hexdigest()


def _write(top: str, changed: Mapping[str, bytes], stale: Iterable[str]) -> None:
    """The same in the work tree."""
    try:
        for path in stale:
            _check_parents(top, path)
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(os.path.join(top, path))
            _remove_empty(top, os.path.dirname(path))
        for path, data in changed.items():
            _check_parents(top, path)
            full = os.path.join(top, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with suppress(FileNotFoundError):
                os.unlink(full)  # it may be a link to somewhere else
            with open(full, "xb") as file:
                file.write(data)
    except OSError as error:
        raise ThetaError(f"{error.filename} cannot be written: {error.strerror}") from error


def _remove_empty(top: str, folder: str) -> None:
    with suppress(OSError):
        while folder:
            os.rmdir(os.path.join(top, folder))
            folder = os.path.dirname(folder)


def _check_parents(top: str, path: str) -> None:
    parent = top
    for part in path.split("/")[:-1]:
        parent = os.path.join(parent, part)
        if os.path.islink(parent):
            raise ThetaError(f"{path} lies behind the symbolic link {parent}", hint="Remove that link first.")


def _stage(
    places: Places, changed: Mapping[str, bytes], stale: Iterable[str], hidden: Iterable[str], width: int
) -> None:
    # One process, and one pack where they are many.
    blobs = b"".join(b"blob\ndata %d\n%s\n" % (len(data), data) for data in set(changed.values()))
    if blobs:
        git("fast-import", "--quiet", cwd=places.top, data=blobs)
    entries = [b"0 " + b"0" * width + b"\t" + os.fsencode(path) + b"\0" for path in [*changed, *stale]]
    entries += [index_entry(path, _blob_id(data, width)) for path, data in changed.items()]
    put_entries(places, b"".join(entries))
    left_out = b"".join(os.fsencode(path) + b"\0" for path in hidden)
    if left_out:
        git("update-index", "--skip-worktree", "-z", "--stdin", cwd=places.top, data=left_out)


# --- git-lfs ----------------------------------------------------------------------------------------------------------


def link_objects(places: Places, objects: Mapping[str, int]) -> None:
    """Show objects of ours to git-lfs: as second names in its folder, or as copies where that cannot be."""
    target = folders_in(places.common_dir, fsync=places.settings.fsync)
    for oid, nbytes in objects.items():
        source = places.store.path(oid)
        other = f"{target.writing}/{oid[:2]}/{oid[2:4]}/{oid}"
        if os.path.lexists(other) or places.store.size(oid) != nbytes:
            continue
        try:
            os.makedirs(os.path.dirname(other), exist_ok=True)
            os.link(source, other)
        except OSError:
            target.take(source, oid, nbytes)


def exclude_from_git_lfs(places: Places) -> bool:
    """Have git-lfs leave the pointer files of clones as they are (``.lfsconfig``); returns whether that was new."""
    file = os.path.join(places.top, ".lfsconfig")
    try:
        value = git_text("config", "--file", file, "lfs.fetchexclude", cwd=places.top)
    except GitError:
        value = ""
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if FOLDER in parts:
        return False
    git("config", "--file", file, "lfs.fetchexclude", ",".join([*parts, FOLDER]), cwd=places.top)
    return True
