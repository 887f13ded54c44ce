"""One pass over the bytes of a checkpoint: cut them along their layout, encode, put the manifest together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import BinaryIO

from theta_nb.checkpoints.layout import ByteSource, Layout, Part
from theta_nb.engine.decode import Decoder
from theta_nb.engine.encode import ChunkEncoder
from theta_nb.engine.known import KnownChunk
from theta_nb.engine.layouts import anonymous, dump_layout, entry_of, owners, settle_derived
from theta_nb.engine.previous import Previous
from theta_nb.engine.streams import ByteStream, FileStream, MismatchError, Window
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value
from theta_nb.tensors.chunks import CHUNK_NBYTES, Extent, chunk_extents, storage_digest, tensor_digest
from theta_nb.updates.table import Numbers

__all__ = ["Pass", "Progress"]

Progress = Callable[[int], None]


class Pass:
    """One pass over one file.

    Parameters
    ----------
    layout
        Where its parts lie.
    encoder
        Encodes its chunks.
    decoder
        Reads them back, if the file turns out to be another one.
    previous
        The committed version of the same path.
    progress
        Called with the number of bytes done since the last call.
    hint
        What the layout was located in, if the bytes come from elsewhere.
    """

    def __init__(
        self,
        layout: Layout,
        encoder: ChunkEncoder,
        decoder: Decoder,
        previous: Previous | None = None,
        progress: Progress | None = None,
        hint: ByteSource | None = None,
    ) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._layout = layout
        self._hint = None if hint is None else Window(hint)
        self._progress = progress
        self._owners = owners(layout)
        self._previous = previous
        self._tensors = {tensor.name: tensor for tensor in layout.tensors}
        self._numbers: list[list[int]] = [[] for _ in layout.storages]  # chunk numbers by storage
        self._skeleton = bytearray()
        self._skeleton_numbers: list[int] = []
        self._skeleton_nbytes = 0
        self._derived: dict[int, bytes] = {}
        self._taken: tuple[bytes, ...] = ()  # digests of what was consumed, where others were put in their place
        self.kept: list[str] = []
        """Parameters that are within the tolerance of the committed version, and stay as they are there."""
        self._tape: list[tuple[Part, int, int]] = []  # what was consumed: part, chunk number or field, length

    def run(self, stream: ByteStream) -> Manifest:
        """Take the whole file; returns its manifest.

        Raises
        ------
        MismatchError
            If the bytes are not what the layout was located in.
        """
        try:
            for part, index, offset, nbytes in self._layout.segments():
                if part is Part.STORAGE:
                    self._take_storage(stream, index)
                elif part is Part.SKELETON:
                    self._take_skeleton(stream, offset, nbytes)
                else:
                    self._derived[index] = self._exactly(stream, nbytes)
                    self._tape.append((part, index, nbytes))
            extra = bytearray(1)
            if stream.readinto(memoryview(extra)):
                raise MismatchError(bytes(extra))
            layout = dump_layout(self._layout)
            layout_numbers = [self._encoder.add_bytes(piece) for piece in _pieces(layout)]
            self._flush_skeleton()
            self._encoder.finish()
        except MismatchError:
            try:
                self._encoder.finish()
            except BaseException:
                self._encoder.abandon()
                raise
            raise
        except BaseException:
            self._encoder.abandon()
            raise
        return self._manifest(layout_numbers, len(layout))

    def _take_storage(self, stream: ByteStream, index: int) -> None:
        storage = self._layout.storages[index]
        numbers, earlier = self._earlier(index)
        for extent in self._extents(index):
            space = self._encoder.space(extent.nbytes)
            read = None
            if isinstance(stream, FileStream):
                read = stream.later(extent.nbytes)
            elif (got := stream.readinto(space)) < extent.nbytes:
                raise MismatchError(bytes(space[:got]))
            number = self._encoder.add(
                extent.nbytes,
                storage.itemsize,
                numbers=numbers,
                previous=earlier.get(extent) if earlier else None,
                read=read,
            )
            self._numbers[index].append(number)
            self._tape.append((Part.STORAGE, number, extent.nbytes))
            if self._progress is not None:
                self._progress(extent.nbytes)

    def _earlier(self, index: int) -> tuple[Numbers | None, Mapping[Extent, KnownChunk]]:
        """What the chunks of a storage mean, and what stood in their places before."""
        owner = self._owners[index]
        tensor = self._tensors.get(owner)
        numbers = None if tensor is None else Numbers(tensor.dtype, max(1, math.prod(tensor.shape[1:])))
        if self._previous is None:
            return numbers, {}
        if tensor is None:
            return numbers, self._previous.chunks(owner, "bytes", (self._layout.storages[index].nbytes,))
        return numbers, self._previous.chunks(owner, tensor.dtype.name, tensor.shape)

    def _extents(self, index: int) -> list[Extent]:
        storage = self._layout.storages[index]
        if self._owners[index] == anonymous(index):
            return list(chunk_extents(storage.nbytes, 1, 1))
        return list(chunk_extents(storage.nbytes, storage.row_nbytes, storage.itemsize))

    def _take_skeleton(self, stream: ByteStream, offset: int, nbytes: int) -> None:
        while nbytes:
            step = min(nbytes, CHUNK_NBYTES - len(self._skeleton))
            data = self._exactly(stream, step)
            if self._hint is not None and data != self._hint.read(offset, step):
                raise MismatchError(data)
            self._skeleton += data
            self._skeleton_nbytes += step
            self._tape.append((Part.SKELETON, 0, step))
            offset += step
            nbytes -= step
            if len(self._skeleton) == CHUNK_NBYTES:
                self._flush_skeleton()

    def _flush_skeleton(self) -> None:
        if self._skeleton:
            self._skeleton_numbers.append(self._encoder.add_bytes(self._skeleton))
            self._skeleton = bytearray()

    @staticmethod
    def _exactly(stream: ByteStream, nbytes: int) -> bytes:
        data = bytearray(nbytes)
        got = stream.readinto(memoryview(data))
        if got < nbytes:
            raise MismatchError(bytes(data[:got]))
        return bytes(data)

    def replay(self, file: BinaryIO) -> None:
        """Write what was consumed so far, after a mismatch: chunks are decoded again."""
        digests = self._taken or self._encoder.digests
        skeleton = bytearray()
        for number in self._skeleton_numbers:
            skeleton += self._decode(digests[number], min(CHUNK_NBYTES, self._skeleton_nbytes - len(skeleton)))
        skeleton += self._skeleton
        position = 0
        for part, index, nbytes in self._tape:
            if part is Part.STORAGE:
                file.write(self._decode(digests[index], nbytes))
            elif part is Part.SKELETON:
                file.write(skeleton[position : position + nbytes])
                position += nbytes
            else:
                file.write(self._derived[index])

    def _decode(self, digest: bytes, nbytes: int) -> bytes:
        raw = bytearray(nbytes)
        self._decoder.into(self._encoder.known[digest].ref, memoryview(raw), "what was read already")
        return bytes(raw)

    # --- the manifest -------------------------------------------------------------------------------------------------

    def _manifest(self, layout_numbers: list[int], layout_nbytes: int) -> Manifest:
        self._keep_near()
        digests = self._encoder.digests
        layout = self._bytes_value(layout_numbers, layout_nbytes)
        skeleton = self._bytes_value(self._skeleton_numbers, self._skeleton_nbytes)
        values = {layout.digest: layout, skeleton.digest: skeleton}
        entries: dict[str, Entry] = {}
        for index, storage in enumerate(self._layout.storages):
            if self._owners[index] == anonymous(index):
                value = self._bytes_value(self._numbers[index], storage.nbytes)
                values.setdefault(value.digest, value)
                entries[anonymous(index)] = Entry(anonymous(index), "bytes", (storage.nbytes,), value.digest)
        for tensor in self._layout.tensors:
            numbers = self._numbers[tensor.storage]
            digest = tensor_digest(tensor, (digests[n] for n in numbers))
            owner = self._owners[tensor.storage]
            entries[tensor.name] = entry_of(tensor, digest, owner)
            if owner == tensor.name:
                nbytes = self._layout.storages[tensor.storage].nbytes
                values.setdefault(digest, Value(digest, nbytes, self._refs(numbers)))
        derived = settle_derived(self._layout, self._owners, self._derived, entries, values)
        objects = {
            step.ref.oid: step.object_size
            for value in values.values()
            for ref in value.chunks
            if ref.oid
            for step in self._encoder.known[ref.digest].steps()
        }
        return Manifest(
            self._layout.format, self._layout.size, layout.digest, skeleton.digest, entries, values, objects, derived
        )

    def _keep_near(self) -> None:
        """Put the committed value in place of every one that is within the tolerance of it as a whole."""
        if self._previous is None or not self._encoder.near:
            return
        digests, known = self._encoder.digests, self._encoder.known
        self._taken = tuple(digests)
        checksums = {field.storage: index for index, field in enumerate(self._layout.derived) if field.nbytes == 4}
        for storage, numbers in enumerate(self._numbers):
            name = self._owners[storage]
            old = self._previous.value_of(self._tensors.get(name))
            if old is None or not any(number in self._encoder.near for number in numbers):
                continue
            pairs = list(zip(numbers, old.chunks, strict=True))
            same = all(n in self._encoder.near or digests[n] == ref.digest for n, ref in pairs)
            if not same or (storage in checksums and not old.crc32):
                continue
            for number, ref in pairs:
                digests[number] = ref.digest
                known.setdefault(ref.digest, KnownChunk.of(ref, self._previous.manifest.objects))
            if storage in checksums:
                self._derived[checksums[storage]] = old.crc32
            self.kept.append(name)

    def _bytes_value(self, numbers: list[int], nbytes: int) -> Value:
        digest = storage_digest(nbytes, (self._encoder.digests[n] for n in numbers))
        return Value(digest, nbytes, self._refs(numbers))

    def _refs(self, numbers: list[int]) -> tuple[ChunkRef, ...]:
        known: dict[bytes, KnownChunk] = self._encoder.known
        digests = (self._encoder.digests[n] for n in numbers)
        # Without writing, new chunks have no reference; a reference to nothing keeps their digest.
        return tuple(known[d].ref if d in known else ChunkRef(d) for d in digests)


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK_NBYTES] for start in range(0, len(data), CHUNK_NBYTES)]
