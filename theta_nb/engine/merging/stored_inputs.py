"""Checkpoints to merge that are stored somewhere: as files, or as versions in git."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from blake3 import blake3

from theta_nb.checkpoints.detection import locate
from theta_nb.checkpoints.layout import FileSource, Layout, Part
from theta_nb.engine.digest_cache import FileState
from theta_nb.engine.layouts import anonymous, owners
from theta_nb.engine.merging.inputs import RawReader, TensorInfo, describe_anonymous, input_digest, tensor_infos
from theta_nb.engine.rebuild import Decoder, read_layout
from theta_nb.errors import CheckpointError, MissingObjectError, count
from theta_nb.manifest.model import ChunkRef, Manifest
from theta_nb.merges.group import Array
from theta_nb.storage.objects import ObjectStore, lacking
from theta_nb.tensors.chunks import chunk_digest, chunk_extents

__all__ = ["FileInput", "ManifestInput"]

Digests = list[list[bytes]]
"""Of the chunks of each storage."""

_COPY_NBYTES = 2**24
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP)  # macOS, and some file systems
_MOST_FILES = 64
_digests: dict[str, Digests] = {}  # by the state of the file: whoever tries merges opens the same files again and again


def _names(layout: Layout) -> dict[str, str]:
    """Entry name of each storage of a layout, and the name it has in a merge.

    A storage that no tensor covers is only numbered, and its number changes with every tensor before it. In a merge it
    is called by the first view on it, or versions would be compared that have nothing in common.
    """
    views: dict[int, str] = {}
    for tensor in layout.tensors:
        views[tensor.storage] = min(tensor.name, views.get(tensor.storage, tensor.name))
    return {
        name: f"@/{views[index]}" if name == anonymous(index) and index in views else name
        for index, name in enumerate(owners(layout))
    }


def _renamed(tensors: Mapping[str, TensorInfo], names: Mapping[str, str]) -> dict[str, TensorInfo]:
    return {
        names.get(name, name): replace(info, owner=names.get(info.owner, info.owner)) for name, info in tensors.items()
    }


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


def _copied(source: int, target: int, position: int, nbytes: int) -> int:
    """Number of bytes that were copied to the same place of another file, which is where that one stands."""
    try:
        return os.sendfile(target, source, position, nbytes)
    except OSError as error:
        if error.errno not in _NO_SENDFILE:
            raise
    count = os.pwrite(target, os.pread(source, nbytes, position), position)
    os.lseek(target, position + count, os.SEEK_SET)
    return count


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
            self._state = FileState.of(self._fd)  # before its layout is read: whatever is remembered belongs to both
            self.layout = locate(FileSource(self._fd), self.path)
            if self.layout.format == "opaque":
                raise CheckpointError(f"{self.path} is no checkpoint that can be merged by tensor")
            self._names = _names(self.layout)
            self.storages = {name: index for index, name in enumerate(self._names.values())}
            self._tensors: dict[str, TensorInfo] | None = None
            self._digest = ""
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name; the first use reads the whole file, for the digests."""
        if self._tensors is None:
            digests = self._digests_of_storages()
            found = tensor_infos(self.layout, tuple(self._names), digests)
            self._digest = input_digest(found)
            self._tensors = _renamed(found, self._names)
        return self._tensors

    @property
    def digest(self) -> str:
        """Identity of all tensors."""
        _ = self.tensors
        return self._digest

    def source(self) -> FileSource:
        """The file's bytes."""
        return FileSource(self._fd)

    def rest_digest(self) -> bytes:
        """Identity of what is no number."""
        hasher, source = blake3(), self.source()
        for segment in self.layout.segments():
            if segment.part is Part.SKELETON:
                hasher.update(source.read(segment.offset, segment.nbytes))
        return hasher.digest()

    def _digests_of_storages(self) -> Digests:
        """Digests of all chunks, remembered for as long as the file stays as it is."""
        known = _digests.get(self._state.key)
        if known is None:
            with ThreadPoolExecutor(2) as executor:
                known = list(executor.map(self._chunks, range(len(self.layout.storages))))
            if self._state.settled and FileState.of(self._fd).key == self._state.key:
                for oldest in tuple(_digests)[: len(_digests) + 1 - _MOST_FILES]:
                    _digests.pop(oldest, None)
                _digests[self._state.key] = known
        return known

    def _chunks(self, index: int) -> list[bytes]:
        storage = self.layout.storages[index]
        raw = _FilePart(self._fd, storage.offset, self.path)
        named = tuple(self._names)[index] != anonymous(index)
        row, item = (storage.row_nbytes, storage.itemsize) if named else (1, 1)
        extents = chunk_extents(storage.nbytes, row, item)
        return [chunk_digest(raw.read(e.offset, e.offset + e.nbytes).data) for e in extents]

    def reader(self, name: str, /) -> RawReader:
        """The bytes of a storage, under the name of its owner."""
        return _FilePart(self._fd, self.layout.storages[self.storages[name]].offset, self.path)

    def verify(self) -> None:
        """Refuse a file that was written to since it was opened: its digests and values would not belong together.

        Raises
        ------
        CheckpointError
            If its size or times have changed.
        """
        now = FileState.of(self._fd)
        # Not by the ctime: it changes when the file is replaced, and what is open here is still the old one.
        if (now.size, now.mtime_ns) != (self._state.size, self._state.mtime_ns):
            raise CheckpointError(f"{self.path} was changed while it was merged", hint="Begin again.")

    def copy_to(self, fd: int, skip: Collection[int] = ()) -> None:
        """Write the file, as it is, to the same places of an open descriptor.

        Parameters
        ----------
        fd
            Of a regular file.
        skip
            Indices of storages whose bytes are left alone.
        """
        for segment in self.layout.segments():
            if segment.part is Part.STORAGE and segment.number in skip:
                continue
            position, end = segment.offset, segment.offset + segment.nbytes
            os.lseek(fd, position, os.SEEK_SET)
            while position < end:
                count = _copied(self._fd, fd, position, min(end - position, _COPY_NBYTES))
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
        describe_anonymous(self.tensors)
        self.digest = input_digest(self.tensors)
        names = _names(self.layout)
        self.tensors = _renamed(self.tensors, names)
        self.storages = {name: index for index, name in enumerate(names.values())}
        self._entries = {new: old for old, new in names.items()}

    def prepare(self, names: Iterable[str]) -> None:
        """Have the objects of some tensors at hand, fetched in one batch."""
        self._fetch(oid for name in names for oid in self.manifest.value_of(self._entries.get(name, name)).oids)

    def prepare_all(self) -> None:
        """Have all objects at hand."""
        self._fetch(self.manifest.objects)

    def rest_digest(self) -> bytes:
        """Identity of what is no number."""
        return self.manifest.skeleton

    def skeleton(self) -> bytes:
        """Everything of the file that is no number."""
        value = self.manifest.values[self.manifest.skeleton]
        self._fetch(value.oids)
        return self._decoder.value(value, "the skeleton")

    def _fetch(self, oids: Iterable[str]) -> None:
        missing = lacking({oid for oid in oids if oid}, self.store)
        if missing and self._bring is not None:
            self._bring({oid: self.manifest.objects[oid] for oid in missing})
        elif missing:
            raise MissingObjectError(
                f"{self.label}: {count(len(missing), 'object')} {'is' if len(missing) == 1 else 'are'} not here "
                f"(first: {missing[0][:12]})",
                oids=missing,
                hint="Run 'git theta fetch'.",
            )

    def reader(self, name: str, /) -> RawReader:
        """The bytes of a storage, under the name of its owner; every chunk is verified."""
        entry = self._entries[name]
        value = self.manifest.value_of(entry)
        index = self.storages[name]
        storage = self.layout.storages[index]
        row, item = (1, 1) if entry == anonymous(index) else (storage.row_nbytes, storage.itemsize)
        extents = chunk_extents(value.nbytes, row, item)
        chunks = ((e.offset, e.nbytes, ref) for e, ref in zip(extents, value.chunks, strict=True))
        return _ObjectPart(self._decoder, chunks, name)
