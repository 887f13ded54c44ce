"""Which objects there are, by who needs them and by where they lie."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import GitSandbox
from tests.git.checks import manifest_text
from theta_nb.git.places import find_places
from theta_nb.git.push_range import objects_of_revisions
from theta_nb.git.walk import named_objects


def needed(repo: GitSandbox, *revisions: str) -> dict[str, int]:
    """Everything that revisions reach; all refs by default."""
    return objects_of_revisions(find_places(repo.path), revisions or ["--all"])


def named(repo: GitSandbox, path: str, rev: str = "") -> set[str]:
    """Objects of one version of one checkpoint."""
    return set(named_objects(manifest_text(repo, path, rev).encode()))


def lfs_objects(repo: GitSandbox) -> set[str]:
    """What lies where Git LFS looks."""
    folder = Path(repo("rev-parse", "--path-format=absolute", "--git-common-dir").strip()) / "lfs" / "objects"
    return {path.name for path in folder.rglob("*") if path.is_file()}
