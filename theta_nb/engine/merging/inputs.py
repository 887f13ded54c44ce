"""The checkpoints that take part in a merge, behind one small protocol.

A merge reads a tensor a block at a time, from a file, from stored objects or from memory, and knows everything else
about it (dtype, shape, digest) without reading it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from blake3 import blake3

from theta_nb.checkpoints.detection import locate
from theta_nb.checkpoints.layout import FileSource, Layout
from theta_nb.engine.layouts import anonymous, owners
from theta_nb.engine.rebuild import Decoder, read_layout
from theta_nb.errors import CheckpointError, MissingObjectError
from theta_nb.manifest.model import ChunkRef, Manifest
from theta_nb.merges.group import Array, widen
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.chunks import chunk_digest, chunk_extents, tensor_digest
from theta_nb.tensors.dtypes import DTYPES, DType
from theta_nb.tensors.spec import Shape, TensorSpec, contiguous_strides

__all__ = ["FileInput", "ManifestInput", "MergeInput", "RawReader", "StateInput", "TensorInfo", "WideReader"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor without reading it.

    Parameters
    ----------
    dtype
        Canonical name; ``"bytes"`` for a storage that no tensor covers.
    shape
        Shape; the byte length for such a storage.
    digest
        Identity of the value.
    owner
        Name of the tensor or storage that holds the bytes, if it is another: tied tensors and views are one unit.
    """

    dtype: str
    shape: Shape
    digest: bytes
    owner: str = ""

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class RawReader(Protocol):
    """Random access to the bytes of one storage."""

    def read(self, start: int, stop: int, /) -> Array:
        """Bytes ``start`` to ``stop`` as uint8; valid until the next call."""
        ...


class MergeInput(Protocol):
    """A checkpoint that takes part in a merge."""

    @property
    def label(self) -> str:
        """Name in messages and parameters (``"ours"``)."""
        ...

    @property
    def revision(self) -> str:
        """Where it comes from (a revision, a path); part of the recipe."""
        ...

    @property
    def digest(self) -> str:
        """Identity of all its tensors, in hexadecimal; part of the recipe."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        ...

    def reader(self, name: str, /) -> RawReader:
        """The bytes of a tensor that owns them; one reader serves one thread."""
        ...


class WideReader:
    """The elements of a tensor as float32 or float64, over its bytes.

    Parameters
    ----------
    raw
        The bytes.
    dtype
        Canonical name.
    """

    def __init__(self, raw: RawReader, dtype: str) -> None:
        self._raw = raw
        self._dtype = DTYPES[dtype].to_numpy()
        self._factor = 2 if self._dtype.kind == "c" else 1

    def read(self, start: int, stop: int, /) -> Array:
        """Elements ``start`` to ``stop``; those of complex numbers count twice."""
        size = self._dtype.itemsize
        raw = self._raw.read(start // self._factor * size, stop // self._factor * size)
        if raw.ctypes.data % self._dtype.alignment:
            raw = raw.copy()
        return widen(raw.view(self._dtype))


def input_digest(tensors: Mapping[str, TensorInfo]) -> str:
    """Identity of a set of tensors: BLAKE3 over names and digests, sorted by name."""
    hasher = blake3()
    for name in sorted(tensors):
        info = tensors[name]
        encoded = name.encode("utf-8", "surrogatepass")
        hasher.update(len(encoded).to_bytes(8, "little") + encoded + info.digest)
    return hasher.hexdigest()


class _Bytes:
    """Reads a buffer in memory."""

    def __init__(self, data: Array) -> None:
        self._data = data

    def read(self, start: int, stop: int, /) -> Array:
        """Bytes ``start`` to ``stop``."""
        return self._data[start:stop]


class StateInput:
    """A state dict in memory: names to NumPy arrays or torch tensors.

    Parameters
    ----------
    label, revision
        As in :class:`MergeInput`.
    state
        Flat; its arrays are read, never written.

    Examples
    --------
    >>> StateInput("ours", {"w": np.zeros((2, 3), np.float32)}).tensors["w"].shape
    (2, 3)
    """

    def __init__(self, label: str, state: Mapping[str, Any], revision: str = "") -> None:
        self.label = label
        self.revision = revision
        self._flat: dict[str, Array] = {}
        self.tensors: dict[str, TensorInfo] = {}
        for name, value in state.items():
            flat, dtype, shape = _bytes_of(name, value)
            self._flat[name] = flat
            spec = TensorSpec(name, dtype, shape, contiguous_strides(shape), 0)
            row = 1 if len(shape) < 2 else int(np.prod(shape[1:]))
            chunks = chunk_extents(flat.nbytes, max(row * dtype.itemsize, 1), dtype.itemsize)
            digests = [chunk_digest(flat[e.offset : e.offset + e.nbytes].data) for e in chunks]
            self.tensors[name] = TensorInfo(dtype.name, shape, tensor_digest(spec, digests))
        self.digest = input_digest(self.tensors)

    def reader(self, name: str, /) -> RawReader:
        """The bytes of a tensor."""
        return _Bytes(self._flat[name])


def _bytes_of(name: str, value: Any) -> tuple[Array, DType, Shape]:
    """Bytes, dtype and shape of an array or a torch tensor, without a copy where it is dense."""
    if hasattr(value, "detach"):  # torch, without importing it
        import torch

        kind = str(value.dtype).removeprefix("torch.")
        dense = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
        flat = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()
        shape = tuple(value.shape)
    else:
        array = np.asarray(value)
        kind, shape = array.dtype.name, tuple(array.shape)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if kind not in DTYPES:
        raise CheckpointError(f"{name!r} is an array of {kind}, which no checkpoint holds")
    return flat, DTYPES[kind], shape


class _FilePart:
    """Reads a stretch of a file with ``pread`` into a buffer of its own."""

    def __init__(self, fd: int, offset: int, name: str) -> None:
        self._fd = fd
        self._offset = offset
        self._name = name
        self._buffer = np.empty(0, np.uint8)

    def read(self, start: int, stop: int, /) -> Array:
        """Bytes ``start`` to ``stop``."""
        if len(self._buffer) < stop - start:
            self._buffer = np.empty(stop - start, np.uint8)
        view = self._buffer[: stop - start].data
        position = self._offset + start
        while view:
            count = os.preadv(self._fd, [view], position)
            if not count:
                raise CheckpointError(f"{self._name}: the file was cut short while it was read", hint="Begin again.")
            view = view[count:]
            position += count
        return self._buffer[: stop - start]


class FileInput:
    """A checkpoint file, read where it lies.

    Parameters
    ----------
    label, revision
        As in :class:`MergeInput`.
    path
        The file; opened now, closed by :meth:`close`.

    Raises
    ------
    CheckpointError
        If it cannot be read as a checkpoint.
    """

    def __init__(self, label: str, path: str | os.PathLike[str], revision: str = "") -> None:
        self.label = label
        self.path = os.fspath(path)
        self.revision = revision or self.path
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.layout = locate(FileSource(self._fd), self.path)
            if self.layout.format == "opaque":
                raise CheckpointError(f"{self.path} is no checkpoint that can be merged by tensor")
            self._owners = owners(self.layout)
            self._storage = {name: index for index, name in enumerate(self._owners)}
            self._tensors: dict[str, TensorInfo] | None = None
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name; the first use reads the whole file, for the digests."""
        if self._tensors is None:
            digests = [self._chunks(index) for index in range(len(self.layout.storages))]
            self._tensors = tensor_infos(self.layout, self._owners, digests)
        return self._tensors

    @property
    def digest(self) -> str:
        """Identity of all tensors."""
        return input_digest(self.tensors)

    def _chunks(self, index: int) -> list[bytes]:
        storage = self.layout.storages[index]
        raw = _FilePart(self._fd, storage.offset, self.path)
        named = self._owners[index] != anonymous(index)
        row, item = (storage.row_nbytes, storage.itemsize) if named else (1, 1)
        extents = chunk_extents(storage.nbytes, row, item)
        return [chunk_digest(raw.read(e.offset, e.offset + e.nbytes).data) for e in extents]

    def reader(self, name: str, /) -> RawReader:
        """The bytes of a storage, under the name of its owner."""
        return _FilePart(self._fd, self.layout.storages[self._storage[name]].offset, self.path)

    def copy_to(self, fd: int) -> None:
        """Write the whole file, as it is, to an open descriptor."""
        position, size = 0, self.layout.size
        while position < size:
            count = os.sendfile(fd, self._fd, position, min(size - position, 2**26))
            if not count:
                raise CheckpointError(f"{self.path}: the file was cut short while it was read", hint="Begin again.")
            position += count

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _ObjectPart:
    """Reads a value from its chunks; holds the chunk that was used last."""

    def __init__(self, decoder: Decoder, chunks: Iterable[tuple[int, int, ChunkRef]], name: str) -> None:
        self._decoder = decoder
        self._chunks = list(chunks)
        self._ends = np.cumsum([nbytes for _, nbytes, _ in self._chunks])
        self._name = name
        self._held = -1
        self._buffer = bytearray()

    def read(self, start: int, stop: int, /) -> Array:
        """Bytes ``start`` to ``stop``, of as many chunks as it takes."""
        index = int(np.searchsorted(self._ends, start, side="right"))
        pieces = []
        while start < stop:
            offset, nbytes, _ = self._chunks[index]
            chunk = self._chunk(index)
            end = min(stop, offset + nbytes)
            pieces.append(chunk[start - offset : end - offset])
            start, index = end, index + 1
            if start < stop:
                pieces[-1] = pieces[-1].copy()  # the buffer is about to hold the next chunk
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0, np.uint8)])

    def _chunk(self, index: int) -> Array:
        _, nbytes, ref = self._chunks[index]
        if self._held != index:
            if len(self._buffer) < nbytes:
                self._buffer = bytearray(nbytes)
            self._held = -1
            self._decoder.into(ref, memoryview(self._buffer)[:nbytes], self._name)
            self._held = index
        return np.frombuffer(self._buffer, np.uint8, nbytes)


class ManifestInput:
    """A version in git: its manifest, and the objects it names.

    Parameters
    ----------
    label, revision
        As in :class:`MergeInput`.
    manifest
        The version.
    store
        Where its objects are.
    bring
        Called with the lengths of missing objects, by name, to fetch them in one batch.

    Raises
    ------
    MissingObjectError
        If objects are missing and ``bring`` does not have them.
    """

    def __init__(
        self,
        label: str,
        manifest: Manifest,
        store: ObjectStore,
        revision: str = "",
        bring: Callable[[Mapping[str, int]], None] | None = None,
    ) -> None:
        self.label = label
        self.revision = revision
        self.manifest = manifest
        self.store = store
        self._bring = bring
        self._decoder = Decoder(store)
        self._fetch(manifest.values[manifest.layout].oids)
        self.layout = read_layout(manifest, self._decoder)
        entries = manifest.entries.items()
        self.tensors = {
            name: TensorInfo(entry.dtype, entry.shape, entry.digest, entry.owner) for name, entry in entries
        }
        _describe_anonymous(self.tensors)
        self.digest = input_digest(self.tensors)
        self._storage = {name: index for index, name in enumerate(owners(self.layout))}

    def prepare(self, names: Iterable[str]) -> None:
        """Have the objects of some tensors at hand, fetched in one batch."""
        self._fetch(oid for name in names for oid in self.manifest.value_of(name).oids)

    def _fetch(self, oids: Iterable[str]) -> None:
        missing = sorted({oid for oid in oids if oid and self.store.size(oid) is None})
        if missing and self._bring is not None:
            self._bring({oid: self.manifest.objects[oid] for oid in missing})
        elif missing:
            raise MissingObjectError(
                f"{self.label}: {len(missing)} objects are not here (first: {missing[0][:12]})",
                oids=tuple(missing),
                hint="Run 'git theta fetch'.",
            )

    def reader(self, name: str, /) -> RawReader:
        """The bytes of a storage, under the name of its owner; every chunk is verified."""
        value = self.manifest.value_of(name)
        index = self._storage[name]
        storage = self.layout.storages[index]
        row, item = (1, 1) if name == anonymous(index) else (storage.row_nbytes, storage.itemsize)
        extents = chunk_extents(value.nbytes, row, item)
        chunks = ((e.offset, e.nbytes, ref) for e, ref in zip(extents, value.chunks, strict=True))
        return _ObjectPart(self._decoder, chunks, name)


def tensor_infos(layout: Layout, names: tuple[str, ...], digests: list[list[bytes]]) -> dict[str, TensorInfo]:
    """Entries for the tensors of a layout, given the chunk digests of its storages."""
    from theta_nb.tensors.chunks import storage_digest

    infos: dict[str, TensorInfo] = {}
    for index, storage in enumerate(layout.storages):
        if names[index] == anonymous(index):
            digest = storage_digest(storage.nbytes, digests[index])
            infos[names[index]] = TensorInfo("bytes", (storage.nbytes,), digest)
    for tensor in layout.tensors:
        owner = names[tensor.storage]
        digest = tensor_digest(tensor, digests[tensor.storage])
        infos[tensor.name] = TensorInfo(tensor.dtype.name, tensor.shape, digest, "" if owner == tensor.name else owner)
    _describe_anonymous(infos)
    return infos


def _describe_anonymous(infos: dict[str, TensorInfo]) -> None:
    """Storages that no tensor covers, as flat tensors of the one dtype that all views on them have."""
    kinds: dict[str, set[str]] = {}
    for info in infos.values():
        if info.owner:
            kinds.setdefault(info.owner, set()).add(info.dtype)
    for name, found in kinds.items():
        info = infos[name]
        dtype = DTYPES[min(found)]
        if info.dtype == "bytes" and len(found) == 1 and dtype.bits % 8 == 0 and not info.shape[0] % dtype.itemsize:
            infos[name] = TensorInfo(dtype.name, (info.shape[0] // dtype.itemsize,), info.digest)
