"""Throw-away trees of LFS pointer files: how git-lfs is told which objects to fetch."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from theta_nb.git.carrier import INSIDE
from theta_nb.git.process import git_elsewhere

__all__ = ["pointer_tree"]

_TREE, _BLOB = 2, 3
_TYPES = {_TREE: b"tree", _BLOB: b"blob"}
_LEFT_OVER_SECONDS = 24 * 3600.0


@contextmanager
def pointer_tree(folder: str, objects: Mapping[str, int]) -> Iterator[str]:
    """Put one pointer file for each object into a bare repository, as long as the context lasts.

    Parameters
    ----------
    folder
        A bare repository with SHA-1 names.
    objects
        Lengths by name.

    Yields
    ------
    str
        Id of the tree.
    """
    # Something of its own makes the pack's name differ from that of every other process that fetches the same objects.
    blobs = {f".{os.urandom(8).hex()}": os.urandom(8).hex().encode()}
    for oid in sorted(objects):
        blobs[oid] = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {objects[oid]}\n".encode()
    tree = b"".join(b"100644 " + name.encode() + b"\0" + _name(_BLOB, data) for name, data in blobs.items())
    packs = os.path.join(folder, "objects", "pack")
    _sweep(packs)
    content = _pack([*((_BLOB, data) for data in blobs.values()), (_TREE, tree)])
    out = git_elsewhere(*INSIDE, "index-pack", "--stdin", cwd=folder, data=content)
    name = "pack-" + out.split()[-1].decode("ascii")
    try:
        yield _name(_TREE, tree).hex()
    finally:
        for ending in ("idx", "rev", "pack"):
            with suppress(OSError):
                os.unlink(os.path.join(packs, f"{name}.{ending}"))


def _name(kind: int, data: bytes) -> bytes:
    return hashlib.sha1(b"%s %d\0%s" % (_TYPES[kind], len(data), data), usedforsecurity=False).digest()


def _pack(objects: Iterable[tuple[int, bytes]]) -> bytes:
    """A pack of whole objects (``gitformat-pack``)."""
    entries = [_entry(kind, data) for kind, data in objects]
    content = b"PACK" + struct.pack(">II", 2, len(entries)) + b"".join(entries)
    return content + hashlib.sha1(content, usedforsecurity=False).digest()


def _entry(kind: int, data: bytes) -> bytes:
    length = len(data)
    byte, length = kind << 4 | length & 15, length >> 4
    head = bytearray()
    while length:
        head.append(byte | 0x80)
        byte, length = length & 0x7F, length >> 7
    head.append(byte)
    return bytes(head) + zlib.compress(data, 1)


def _sweep(packs: str) -> None:
    """Remove what killed processes left."""
    limit = time.time() - _LEFT_OVER_SECONDS
    for name in os.listdir(packs):
        path = os.path.join(packs, name)
        with suppress(OSError):
            if os.stat(path).st_mtime < limit:
                os.unlink(path)
