"""Where the bytes of a checkpoint's storages are read: in a file, or from objects, fetched where they are not here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Protocol

from theta_nb.checkpoints.layout import ByteSource, Layout
from theta_nb.engine.layouts import anonymous, owners
from theta_nb.engine.rebuild import Decoder
from theta_nb.errors import MissingObjectError, count
from theta_nb.manifest.model import Manifest
from theta_nb.storage.objects import ObjectStore, lacking
from theta_nb.tensors.chunks import chunk_extents

__all__ = ["FETCH", "Bring", "FileStorages", "ObjectStorages", "StorageReader"]

Bring = Callable[[Mapping[str, int]], None]
"""Fetches objects, given their lengths by name; raises :class:`MissingObjectError` where it cannot."""

FETCH = "Fetch them from a remote, or copy them from the theta/objects folder of a clone that has them."


class StorageReader(Protocol):
    """Where the bytes of storages come from."""

    def prepare(self, storages: Iterable[int]) -> None:
        """Have what some storages are made of at hand, fetched in one batch where it is not."""
        ...

    def read(self, storage: int) -> bytearray:
        """All bytes of one storage, in memory that the caller owns."""
        ...


class FileStorages:
    """Storages of a checkpoint file.

    Parameters
    ----------
    source
        The file.
    layout
        Where its storages are.
    """

    def __init__(self, source: ByteSource, layout: Layout) -> None:
        self._source = source
        self._layout = layout

    def prepare(self, storages: Iterable[int]) -> None:
        """Do nothing: the file is here."""

    def read(self, storage: int) -> bytearray:
        """All bytes of one storage."""
        place = self._layout.storages[storage]
        return bytearray(self._source.read(place.offset, place.nbytes))


class ObjectStorages:
    """Storages of a version in git, decoded from objects in parallel.

    Parameters
    ----------
    manifest, layout
        The version.
    store, executor
        Where objects are read and decoded.
    bring
        Called with the lengths of missing objects, by name, to have them fetched into the store.
    """

    def __init__(
        self,
        manifest: Manifest,
        layout: Layout,
        store: ObjectStore,
        executor: Executor,
        bring: Bring | None = None,
    ) -> None:
        self._manifest = manifest
        self._layout = layout
        self._store = store
        self._decoder = Decoder(store)
        self._executor = executor
        self._bring = bring
        self._owners = owners(layout)

    def prepare(self, storages: Iterable[int]) -> None:
        """Fetch the missing objects of some storages in one batch."""
        if self._bring is None:
            return
        values = (self._manifest.value_of(self._owners[storage]) for storage in storages)
        oids = lacking({oid for value in values for oid in value.oids}, self._store)
        if oids:
            self._bring({oid: self._manifest.objects[oid] for oid in oids})

    def read(self, storage: int) -> bytearray:
        """All bytes of one storage, every chunk verified."""
        owner = self._owners[storage]
        try:
            self.prepare([storage])
        except MissingObjectError as error:
            raise MissingObjectError(
                f"parameter {owner!r}: {error.message}", oids=error.oids, hint=error.hint
            ) from error
        place = self._layout.storages[storage]
        value = self._manifest.value_of(owner)
        missing = lacking(set(value.oids), self._store)
        if missing:
            lost = f"{count(len(missing), 'object')} of it {'is' if len(missing) == 1 else 'are'} not here"
            raise MissingObjectError(
                f"parameter {owner!r}: {lost} (first: {missing[0][:12]})",
                oids=missing,
                hint=FETCH,
            )
        data = bytearray(value.nbytes)
        view = memoryview(data)
        row, itemsize = (1, 1) if owner == anonymous(storage) else (place.row_nbytes, place.itemsize)
        jobs = [
            self._executor.submit(self._decoder.into, ref, view[e.offset : e.offset + e.nbytes], owner)
            for e, ref in zip(chunk_extents(value.nbytes, row, itemsize), value.chunks, strict=True)
        ]
        for job in jobs:
            job.result()
        return data
