"""Walk history for manifests: by content, never by path or by a side record."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from theta_nb.git.places import Places
from theta_nb.git.process import GitError, child_environment, git, git_text
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, is_manifest

__all__ = [
    "ManifestBlob",
    "commit_of",
    "everything",
    "manifest_blobs",
    "manifest_texts",
    "named_objects",
    "object_lines",
    "objects_in",
]

_OBJECT_LINE = re.compile(rb"object ([0-9a-f]{64}) ([0-9]+)\r?")
_OBJECT_LINE_NBYTES = 200
_LARGE_NBYTES = 2**20
_OBJECT_ID = re.compile(r"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")


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
    """Objects named by what git notes while a command is under way, and by refs of single work trees."""
    folders = [Path(places.common_dir), *Path(places.common_dir, "worktrees").glob("*")]
    ids: set[str] = set()
    for folder in folders:
        for path in _notes(folder):
            with suppress(OSError):  # the command has just ended
                ids.update(_OBJECT_ID.findall(path.read_text(encoding="utf-8", errors="replace")))
    out = git("cat-file", "--batch-check=%(objectname) %(objecttype)", cwd=places.top, data="\n".join(ids).encode())
    return sorted(line.split()[0] for line in out.decode().splitlines() if not line.endswith(" missing"))


def _notes(folder: Path) -> Iterator[Path]:
    """Such files in one git directory: ``MERGE_HEAD``, ``AUTO_MERGE``, a rebase's list and its autostash."""
    for path in folder.glob("*"):
        if path.name.endswith("_HEAD") or path.name in ("HEAD", "AUTO_MERGE", "MERGE_AUTOSTASH"):
            yield path
    for name in ("rebase-merge", "rebase-apply", "sequencer", "refs/bisect", "refs/rewritten", "refs/worktree"):
        yield from (path for path in (folder / name).rglob("*") if path.is_file())


def manifest_blobs(places: Places, revisions: Sequence[str], *, holes: bool = True) -> Iterator[ManifestBlob]:
    """Every manifest that ``git rev-list --objects REVISIONS`` reaches, once each.

    Parameters
    ----------
    places
        The repository.
    revisions
        Arguments of ``git rev-list``.
    holes
        Whether to pass over objects that git lacks; if not, only those that a partial clone lacks on purpose.

    Raises
    ------
    GitError
        If a revision does not exist, or an object where there may be no hole.
    """
    options = [word for word in revisions if word.startswith("--")]
    names = "\n".join(word for word in revisions if not word.startswith("--"))
    missing = f"--missing=allow-{'any' if holes else 'promisor'}"
    listed = git("rev-list", "--objects", missing, *options, "--stdin", cwd=places.top, data=names.encode())
    paths: dict[bytes, bytes] = {}
    for line in listed.splitlines():
        oid, _, path = line.partition(b" ")
        paths.setdefault(oid, path)
    for oid, text in manifest_texts(places, paths):
        yield ManifestBlob(oid.decode("ascii"), os.fsdecode(paths[oid]), text)


def manifest_texts(
    places: Places, oids: Iterable[bytes], *, env: Mapping[str, str] | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Id and content of the manifests among some git objects, whatever else those are.

    Contents come through one process. Of large blobs only the head is read first: a history may hold gigabytes that
    are no manifests.
    """
    check = ("cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", "--buffer")
    small: list[bytes] = []
    for line in git(*check, cwd=places.top, data=b"\n".join(oids), env=env).splitlines():
        words = line.split()
        if len(words) != 3 or words[1] != b"blob" or int(words[2]) > MAX_MANIFEST_NBYTES:
            continue
        if int(words[2]) <= _LARGE_NBYTES or is_manifest(_head(words[0], places)):
            small.append(words[0])
    import tempfile  # what only names objects need not wait for it

    with tempfile.TemporaryFile() as asked:
        asked.write(b"".join(oid + b"\n" for oid in small))
        asked.seek(0)
        with subprocess.Popen(
            ["git", "cat-file", "--batch", "--buffer"],
            cwd=places.top,
            env=child_environment(env),
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=2**20,
        ) as process:
            try:
                stdout = cast(IO[bytes], process.stdout)
                for oid in small:
                    header = stdout.readline().split()
                    if len(header) != 3:
                        raise GitError(f"git object {oid.decode('ascii')} cannot be read", returncode=128)
                    text = stdout.read(int(header[2]))
                    stdout.read(1)
                    if is_manifest(text):
                        yield oid, text
            finally:
                process.kill()


def _head(oid: bytes, places: Places) -> bytes:
    command = ["git", "cat-file", "blob", oid.decode("ascii")]
    with subprocess.Popen(
        command, cwd=places.top, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        head = process.stdout.read(64) if process.stdout else b""
        process.kill()
    return head


def named_objects(text: bytes) -> dict[str, int]:
    """Objects that a manifest names and their sizes, read without parsing the rest.

    What must not be deleted is decided by this: it also holds for manifests that are broken or of a later version.
    """
    return objects_in(object_lines(text))


def object_lines(text: bytes) -> list[bytes]:
    """Lines of a manifest among which are all that name objects; many manifests have most of them in common."""
    start, end = text.find(b"\nobject "), text.rfind(b"\nobject ")
    return text[start + 1 : end + _OBJECT_LINE_NBYTES].split(b"\n") if start >= 0 else []


def objects_in(lines: Iterable[bytes]) -> dict[str, int]:
    """Objects and their sizes that lines of manifests name."""
    found = {}
    for line in lines:
        match = _OBJECT_LINE.fullmatch(line)
        if match:
            found[match[1].decode("ascii")] = int(match[2][:19])
    return found


def commit_of(places: Places, oid: str) -> str:
    """Short id of the newest commit on any ref or reflog that brought in a blob, or an empty string."""
    options = ("--raw", "--no-abbrev", "-m", "--format=commit %H", f"--find-object={oid}")
    try:
        out = git("log", "--all", "--reflog", *options, cwd=places.top)
    except GitError:
        return ""
    commit = b""
    for line in out.splitlines():
        words = line.split(b"\t")[0].split()
        if words[:1] == [b"commit"]:
            commit = words[1]
        # git also lists the commit that took the blob away.
        elif len(words) == 5 and words[3] == oid.encode("ascii"):
            return git_text("rev-parse", "--short", commit, cwd=places.top)
    return ""
