"""The two sides of a comparison: what a version holds, and where its values are read.

A side is a version in git (:class:`ManifestSource`), a checkpoint file (:class:`FileSource`) or state in memory
(:class:`theta_nb.engine.memory_source.MemorySource`). All are cut into the same chunks, so equal chunks have equal
digests wherever they lie.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from theta_nb.checkpoints.detection import locate
from theta_nb.checkpoints.layout import FileSource as LayoutSource
from theta_nb.checkpoints.layout import Layout
from theta_nb.engine.clean import Cleaner
from theta_nb.engine.diff import RAW, Parameter, ParameterChange, parameters_of
from theta_nb.engine.digest_cache import DigestCache, FileState, layout_digest
from theta_nb.engine.known import KnownChunks
from theta_nb.engine.layouts import dump_layout
from theta_nb.engine.rebuild import Decoder, read_layout
from theta_nb.engine.storages import Bring
from theta_nb.errors import CheckpointError, ThetaError
from theta_nb.manifest.model import Manifest
from theta_nb.storage.objects import MemoryStore, ObjectStore
from theta_nb.tensors.chunks import CHUNK_NBYTES, Extent, chunk_extents, row_nbytes
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.spec import TensorSpec, contiguous_strides

__all__ = ["FileSource", "ManifestSource", "Source", "Stored", "prepare"]


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the elements of a parameter lie.

    Parameters
    ----------
    spec
        The view; its ``storage`` is the source's own number.
    nbytes
        Length of the storage.
    extents, digests
        The storage's chunks, in order.
    """

    spec: TensorSpec
    nbytes: int
    extents: tuple[Extent, ...]
    digests: tuple[bytes, ...]

    def chunk_at(self, offset: int) -> int:
        """Index of the chunk that holds byte ``offset`` of the storage."""
        low, high = 0, len(self.extents) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.extents[middle].offset <= offset:
                low = middle
            else:
                high = middle - 1
        return low


class Source(Protocol):
    """One side of a comparison. Reading is safe from several threads."""

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Parameter groups by name."""
        ...

    def stored(self, name: str) -> Stored:
        """Where the elements of a parameter lie.

        Raises
        ------
        ThetaError
            If that cannot be told (an object with the layout is missing), or there are only raw bytes.
        """
        ...

    def prepare(self, names: Iterable[str]) -> None:
        """Have the values of some parameters at hand, fetched in one batch where they are not."""
        ...

    def block(self, stored: Stored, chunk: int, offset: int, dest: memoryview) -> memoryview:
        """``len(dest)`` bytes of a chunk from ``offset`` on: in ``dest``, or wherever they are at hand.

        They stay valid until the same thread asks this source again.
        """
        ...


def prepare(old: Source, new: Source, changes: Iterable[ParameterChange]) -> str:
    """Have the values of both sides of some changes at hand; why that failed, or nothing.

    A failure is no error yet: what is here can be read all the same.
    """
    changes = list(changes)
    problem = ""
    for source, names in (
        (old, [change.old.name for change in changes if change.old is not None]),
        (new, [change.new.name for change in changes if change.new is not None]),
    ):
        try:
            source.prepare(names)
        except ThetaError as error:
            problem = str(error)
    return problem


class ManifestSource:
    """A version in git.

    Parameters
    ----------
    manifest
        The version.
    store
        Where its objects are read.
    bring
        Fetches missing objects.
    """

    def __init__(self, manifest: Manifest, store: ObjectStore, bring: Bring | None = None) -> None:
        self.manifest = manifest
        self._store = store
        self._decoder = Decoder(store)
        self._bring = bring
        self._local = threading.local()
        self._lock = threading.Lock()

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """Parameter groups by name."""
        return parameters_of(self.manifest)

    def stored(self, name: str) -> Stored:
        """Where the elements of a parameter lie; the layout is read only for views."""
        return _stored(self.manifest, name, self._spec)

    def _spec(self, name: str) -> TensorSpec:
        with self._lock:
            return self._specs[name]

    @cached_property
    def _specs(self) -> dict[str, TensorSpec]:
        if self._bring is not None:
            oids = self.manifest.values[self.manifest.layout].oids
            self._bring({oid: self.manifest.objects[oid] for oid in oids})
        return {spec.name: spec for spec in read_layout(self.manifest, self._decoder).tensors}

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch what is missing of some parameters, in one batch."""
        if self._bring is None:
            return
        oids = {oid for name in names for oid in self.manifest.value_of(name).oids}
        missing = {oid: self.manifest.objects[oid] for oid in oids if self._store.size(oid) is None}
        if missing:
            self._bring(missing)

    def block(self, stored: Stored, chunk: int, offset: int, dest: memoryview) -> memoryview:
        """A part of a chunk, which is decoded once per thread and verified."""
        ref = self.manifest.value_of(stored.spec.name).chunks[chunk]
        local = self._local
        if getattr(local, "digest", None) != ref.digest:
            nbytes = stored.extents[chunk].nbytes
            buffer = getattr(local, "buffer", None)
            if buffer is None or len(buffer) < nbytes:
                local.buffer = buffer = memoryview(bytearray(max(nbytes, min(stored.nbytes, CHUNK_NBYTES))))
            local.digest = None
            self._decoder.into(ref, buffer[:nbytes], stored.spec.name)
            local.digest = ref.digest
        data: memoryview = local.buffer
        return data[offset : offset + len(dest)]


class FileSource:
    """A checkpoint file that is not in git (yet); it must stay as it is while it is compared.

    Parameters
    ----------
    path
        The file.
    executor
        Where its chunks are hashed.
    cache
        Path of the file that remembers digests of files as long as they stay as they are; empty for none.

    Raises
    ------
    OSError
        If it cannot be opened.
    CheckpointError
        If it changes meanwhile.
    """

    def __init__(self, path: str | os.PathLike[str], executor: Executor, *, cache: str = "") -> None:
        self._path = os.path.abspath(path)
        self._name = os.path.basename(self._path)
        # Without O_NONBLOCK, opening a pipe of that name would wait for ever.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._times = self._now()
        self.manifest, self._layout = self._read(executor, DigestCache(cache)) if cache else self._hash(executor)
        self._specs = {spec.name: spec for spec in self._layout.tensors}

    def _read(self, executor: Executor, cache: DigestCache) -> tuple[Manifest, Layout]:
        try:
            state = FileState.of(self._fd)
            manifest = cache.find(self._path, state)
            if manifest is not None:
                layout = locate(LayoutSource(self._fd), self._name)
                # Another release may see other tensors in the same bytes.
                if layout_digest(dump_layout(layout)) == manifest.layout and layout.format == manifest.format:
                    return manifest, layout
            manifest, layout = self._hash(executor)
            if FileState.of(self._fd).key == state.key:
                cache.remember(self._path, state, manifest)
            return manifest, layout
        finally:
            cache.close()

    def _hash(self, executor: Executor) -> tuple[Manifest, Layout]:
        return Cleaner(MemoryStore(), executor, write=False).file(self._fd, self._name, KnownChunks())

    @property
    def layout(self) -> Layout:
        """What the file holds."""
        return self._layout

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """Parameter groups by name."""
        return parameters_of(self.manifest)

    def stored(self, name: str) -> Stored:
        """Where the elements of a parameter lie."""
        return _stored(self.manifest, name, self._specs.__getitem__)

    def prepare(self, names: Iterable[str]) -> None:
        """Do nothing: the file is here."""

    def block(self, stored: Stored, chunk: int, offset: int, dest: memoryview) -> memoryview:
        """A part of a chunk, read from the file."""
        storage = self._layout.storages[self._specs[stored.spec.name].storage]
        position = storage.offset + stored.extents[chunk].offset + offset
        done = 0
        while done < len(dest):
            count = os.preadv(self._fd, [dest[done:]], position + done)
            if count == 0:
                break
            done += count
        if done < len(dest) or self._now() != self._times:
            raise CheckpointError(
                f"{self._name} was overwritten while it was compared", hint="Compare again when it is written."
            )
        return dest

    def _now(self) -> tuple[int, int]:
        info = os.fstat(self._fd)
        return info.st_size, info.st_mtime_ns

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            os.close(fd)


class _SpecOf(Protocol):
    def __call__(self, name: str, /) -> TensorSpec: ...


def _stored(manifest: Manifest, name: str, spec_of: _SpecOf) -> Stored:
    """Where the elements of an entry lie; ``spec_of`` is asked for views only."""
    entry = manifest.entries[name]
    if entry.dtype == RAW:
        raise CheckpointError(f"{name} is raw bytes, in which there are no numbers")
    value = manifest.value_of(name)
    digests = tuple(ref.digest for ref in value.chunks)
    holder = manifest.entries[entry.owner] if entry.owner else entry
    extents = tuple(chunk_extents(value.nbytes, *_steps(holder.dtype, holder.shape)))
    if holder.digest == entry.digest:  # the same view as its owner's, which covers the storage
        dtype = dtype_named(entry.dtype)
        spec = TensorSpec(name, dtype, entry.shape, contiguous_strides(entry.shape), 0)
    else:
        spec = spec_of(name)
    return Stored(spec, value.nbytes, extents, digests)


def _steps(dtype: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Row and element length that a storage is cut by."""
    if dtype == RAW:
        return 1, 1
    kind = dtype_named(dtype)
    return row_nbytes(kind, shape), kind.itemsize
