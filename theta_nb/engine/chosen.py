"""Encode a file by an update type that somebody chose, and say what the other choices would cost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from theta_nb.engine.clean import Cleaner
from theta_nb.engine.known import KnownChunks
from theta_nb.engine.previous import AUTO, Previous
from theta_nb.engine.side_load import Stored, stored_as
from theta_nb.manifest.model import Manifest
from theta_nb.storage.objects import ObjectStore
from theta_nb.updates.blas import single_threaded_blas
from theta_nb.updates.table import Update

__all__ = ["Chosen", "encode_as"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version whose changed tensors are stored by one update type.

    Parameters
    ----------
    manifest
        The version.
    warnings
        Sentences about the file.
    stored
        How what changed is stored.
    dense, automatic
        Bytes that dense encoding and the automatic choice would take instead.
    """

    manifest: Manifest
    warnings: tuple[str, ...]
    stored: Stored
    dense: int
    automatic: int

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return sum(self.stored.nbytes.values())


class _Unwritten:
    """A store to which nothing is written: what it would keep has a name and a length."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._sizes: dict[str, int] = {}
        self.read_into = store.read_into

    def size(self, oid: str) -> int | None:
        """Length of an object that is there, or that would be."""
        return self._sizes.get(oid, self._store.size(oid))

    def write(self, data: bytes | bytearray | memoryview) -> str:
        """Name an object."""
        oid = hashlib.sha256(data).hexdigest()
        self._sizes[oid] = len(data)
        return oid

    def freshen(self, oid: str) -> None:
        """Do nothing."""

    def delete(self, oid: str) -> None:
        """Do nothing."""

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)


def encode_as(
    fd: int,
    name: str,
    head: Manifest,
    update: str,
    encoder: Update | None,
    store: ObjectStore,
    executor: Executor,
) -> Chosen:
    """Encode an open file against a version.

    Parameters
    ----------
    fd, name
        The file, and its name.
    head
        The version.
    update, encoder
        Update type, and what encodes it where that is not the type with its default settings.
    store
        Has the objects of ``head`` and gets those of the result.
    executor
        Where chunks are encoded.
    """

    def cleaned(where: ObjectStore, previous: Previous | None) -> tuple[Manifest, tuple[str, ...]]:
        cleaner = Cleaner(where, executor, previous=previous)
        manifest, layout = cleaner.file(fd, name, KnownChunks([head]))
        return manifest, layout.warnings

    cost = partial(_cost, head=head)
    with single_threaded_blas():
        manifest, warnings = cleaned(store, Previous(head, update, encoder=encoder))
    dense = cost(cleaned(_Unwritten(store), None)[0])
    automatic = cost(cleaned(_Unwritten(store), Previous(head, AUTO))[0])
    return Chosen(manifest, warnings, stored_as(manifest, head), dense, automatic)


def _cost(manifest: Manifest, *, head: Manifest) -> int:
    return sum(stored_as(manifest, head).nbytes.values())
