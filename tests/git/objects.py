"""Objects of a repository's store: look at them and damage them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.conftest import GitSandbox
from tests.git.checks import objects, theta_dir


def object_path(repo: GitSandbox, oid: str) -> Path:
    """Where an object lies."""
    return theta_dir(repo) / "objects" / oid[:2] / oid[2:4] / oid


def largest(repo: GitSandbox) -> str:
    """Name of the largest object."""
    return max(objects(repo), key=lambda oid: object_path(repo, oid).stat().st_size)


def flip(repo: GitSandbox, oid: str, place: int) -> None:
    """Change one bit of an object, as a bad disk does; a negative place counts from the end."""
    path = object_path(repo, oid)
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    damage(repo, oid, bytes(data))


def damage(repo: GitSandbox, oid: str, data: bytes) -> None:
    """Put other bytes in the place of an object."""
    path = object_path(repo, oid)
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def assert_sound(repo: GitSandbox) -> None:
    """Whatever stands under the name of an object has that name."""
    folder = theta_dir(repo) / "objects"
    for path in folder.rglob("*"):
        if path.is_file():
            name = hashlib.sha256(path.read_bytes()).hexdigest()
            assert path.name == name, f"{path} holds something else than its name says"
            assert path.parts[-3:-1] == (name[:2], name[2:4]), f"{path} lies in a wrong folder"
