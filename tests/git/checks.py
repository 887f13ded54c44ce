"""Questions that many tests ask of a repository."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from tests.conftest import GitSandbox
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import parse

_OLD_TIMES = itertools.count(1_000_000_000)


def age(repo: GitSandbox, names: Iterable[str]) -> None:
    """Give work-tree files a time stamp long before the index, and one that it does not know.

    git then has to clean them to see whether they changed, once; and it is not fooled by (nor does it call the filter
    again and again for) a file that is as young as the index.
    """
    stamp = next(_OLD_TIMES)
    for name in names:
        path = repo.path / name
        if path.is_file() and not path.is_symlink():
            os.utime(path, (stamp, stamp))


def commit_versions(repo: GitSandbox, versions: dict[str, bytes], name: str) -> None:
    """A commit and a tag for each version of a checkpoint, all of them older than the index, and a note beside it."""
    for tag, data in versions.items():
        repo.write("notes.txt", f"{tag}\n".encode())
        repo.write(name, data)
        age(repo, [name, "notes.txt", ".gitattributes"])
        repo.commit_all(tag)
        repo("tag", tag)


def assert_quiet(repo: GitSandbox) -> None:
    """Nothing is modified, staged, deleted or untracked, also after git looked into every file again."""
    age(repo, tracked(repo))
    assert repo("status", "--porcelain") == "", "git status is not quiet"
    assert repo("diff", "HEAD", "--stat") == "", "git diff shows changes"


def tracked(repo: GitSandbox) -> list[str]:
    """Every path of the index."""
    return repo("ls-files", "-z").split("\0")[:-1]


def manifest_text(repo: GitSandbox, name: str, rev: str = "") -> str:
    """What git stores for a path: at a revision, or in the index."""
    return repo("cat-file", "blob", f"{rev}:{name}")


def manifest_of(repo: GitSandbox, name: str, rev: str = "") -> Manifest:
    """The same, read."""
    return parse(manifest_text(repo, name, rev).encode("utf-8"))


def digests(repo: GitSandbox, name: str, rev: str = "") -> dict[str, str]:
    """Digest of every tensor of a checkpoint, by name."""
    return {entry.name: entry.digest.hex() for entry in manifest_of(repo, name, rev).entries.values()}


def theta_dir(repo: GitSandbox) -> Path:
    """Where the repository keeps what is ours."""
    return Path(repo("rev-parse", "--path-format=absolute", "--git-common-dir").strip()) / "theta"


def objects(repo: GitSandbox) -> set[str]:
    """Names of all objects in the store."""
    folder = theta_dir(repo) / "objects"
    return {path.name for path in folder.rglob("*") if path.is_file()}


def remove_objects(repo: GitSandbox) -> None:
    """Empty the store and forget the encodings, as in a clone that fetched nothing."""
    for path in sorted(theta_dir(repo).rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()


def warnings(stderr: str) -> list[str]:
    """What the filter said to the user."""
    return [line for line in stderr.splitlines() if line.startswith("theta: ")]
