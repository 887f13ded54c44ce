"""Single chunks: read, decoded, brought up to date by their updates, verified."""

from __future__ import annotations

import threading

from theta_nb.engine.pipeline import fresh_buffer
from theta_nb.errors import CorruptObjectError, ManifestError, ThetaError
from theta_nb.manifest.model import ChunkRef, Manifest, Value
from theta_nb.storage.encoding import FrameDecoder
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.chunks import CHUNK_NBYTES, chunk_digest, chunk_extents
from theta_nb.updates.table import UPDATES, max_payload_nbytes

__all__ = ["Decoder", "check_updates"]

_FRAME_OVERHEAD = 16  # Blosc never makes a frame longer than its content plus this header
_LOOK = "Run 'git theta fsck' to see what is affected."


def check_updates(manifest: Manifest) -> None:
    """Check that every update type of a manifest is known here, before anything is written.

    Raises
    ------
    ManifestError
        If one is not; the message names it.
    """
    names = {link.update for ref in manifest.chunk_refs() if ref.base is not None for link in ref.links()}
    for name in sorted(names):
        try:
            UPDATES[name]
        except ThetaError as error:
            raise ManifestError(
                f"it needs the update type {name!r}: {error.message}",
                hint="Install the plug-in that brings it, or upgrade theta-nb.",
            ) from error


class Decoder:
    """Reads, decodes and verifies single chunks; safe to share between threads.

    Parameters
    ----------
    store
        Where objects are read.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._scratch = threading.local()

    def into(self, ref: ChunkRef, dest: memoryview, what: str) -> None:
        """Put the raw bytes of a chunk into ``dest``, verified.

        Parameters
        ----------
        ref
            The chunk.
        dest
            Of exactly the chunk's length.
        what
            Name of the parameter, for messages.

        Raises
        ------
        CorruptObjectError
            If the bytes do not have the chunk's digest; ``dest`` is then garbage.
        MissingObjectError
            If an object is not in the store.
        ThetaError
            If an update type is not known here.
        """
        self.unverified(ref, dest, what)
        if chunk_digest(dest) != ref.digest:
            self._blame(ref, dest, what)

    def unverified(self, ref: ChunkRef, dest: memoryview, what: str) -> None:
        """The same, without a look at the digest: for guesses, never for what is handed out."""
        for link in ref.links():
            self._checked(link, dest, what)

    def _checked(self, link: ChunkRef, dest: memoryview, what: str) -> None:
        try:
            self._step(link, dest)
        except CorruptObjectError as error:
            raise CorruptObjectError(f"{what}: {error.message}", oid=link.oid or None, hint=_LOOK) from error

    def _step(self, link: ChunkRef, dest: memoryview) -> None:
        if link.base is not None:
            UPDATES[link.update].apply(self._payload(link, max_payload_nbytes(len(dest))), dest)
        elif link.oid:
            self._check(link, len(dest) + _FRAME_OVERHEAD)
            self._frames().decode(
                lambda position, buffer: self._store.read_into(link.oid, link.offset + position, buffer),
                link.length,
                dest,
            )
        elif len(link.inline) == len(dest):
            dest[:] = link.inline
        else:
            raise CorruptObjectError("an inline chunk has the wrong length")

    def _check(self, link: ChunkRef, most: int) -> None:
        if link.length > most:
            raise CorruptObjectError(f"an encoded chunk of {link.length} bytes is too long: it may have {most}")

    def _frames(self) -> FrameDecoder:
        frames: FrameDecoder | None = getattr(self._scratch, "frames", None)
        if frames is None:
            frames = self._scratch.frames = FrameDecoder(fresh_buffer)
        return frames

    def _payload(self, link: ChunkRef, most: int) -> memoryview:
        self._check(link, most)
        scratch: memoryview | None = getattr(self._scratch, "buffer", None)
        if scratch is None or len(scratch) < link.length:
            # Most checkpoints hold only small tensors or chunks of full size, so the buffer grows at most a few times.
            usual = CHUNK_NBYTES + _FRAME_OVERHEAD if link.length > 2**20 else 2**20 + _FRAME_OVERHEAD
            scratch = self._scratch.buffer = fresh_buffer(max(usual, link.length))
        payload = scratch[: link.length]
        self._store.read_into(link.oid, link.offset, payload)
        return payload

    def _blame(self, ref: ChunkRef, dest: memoryview, what: str) -> None:
        """Name the first step that does not lead to where its digest promises."""
        culprit = ref
        for link in ref.links():
            self._checked(link, dest, what)
            if chunk_digest(dest) != link.digest:
                culprit = link
                break
        raise CorruptObjectError(
            f"{what}: object {culprit.oid[:12]} does not hold the value that its digest promises",
            oid=culprit.oid or None,
            hint=_LOOK,
        )

    def value(self, value: Value, what: str) -> bytes:
        """All bytes of a value that is not a tensor's (the layout, the skeleton)."""
        data = bytearray(value.nbytes)
        view = memoryview(data)
        for extent, ref in zip(chunk_extents(value.nbytes, 1, 1), value.chunks, strict=True):
            self.into(ref, view[extent.offset : extent.offset + extent.nbytes], what)
        return bytes(data)
