"""Shorten chains of updates: what was stored as steps is stored whole again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace

from theta_nb.engine.decode import Decoder, check_updates
from theta_nb.engine.encode import ChunkEncoder
from theta_nb.engine.known import KnownChunk, KnownChunks
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value
from theta_nb.storage.objects import ObjectStore

__all__ = ["compacted", "longest_chain"]


def longest_chain(manifest: Manifest) -> int:
    """Most updates that any chunk of a manifest is rebuilt by."""
    return max((len(ref.links()) - 1 for ref in manifest.chunk_refs()), default=0)


def compacted(
    manifest: Manifest,
    store: ObjectStore,
    executor: Executor,
    *,
    depth: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """The same content with no chain of more than ``depth`` updates.

    Parameters
    ----------
    manifest
        What to rewrite; returned as it is where no chain is longer.
    store
        Has its objects, and takes new ones.
    executor
        Where chunks are encoded.
    depth
        Updates that may stay; longer chains become dense.
    progress
        Called with the number of raw bytes done since the last call.

    Raises
    ------
    MissingObjectError, CorruptObjectError
        If a chunk cannot be read.
    ManifestError
        If it needs an update type that is not here.
    """
    check_updates(manifest)
    decoder = Decoder(store)
    encoder = ChunkEncoder(store, KnownChunks(), executor)
    owners = {entry.digest: entry for entry in manifest.entries.values() if not entry.owner}
    try:
        for value in manifest.values.values():
            for extent, ref in zip(_entry(owners, value).extents(value.nbytes), value.chunks, strict=True):
                if len(ref.links()) - 1 > depth:
                    decoder.into(ref, encoder.space(extent.nbytes), owners[value.digest].name)
                    encoder.add(extent.nbytes, owners[value.digest].itemsize)
                    if progress is not None:
                        progress(extent.nbytes)
        encoder.finish()
    except BaseException:
        encoder.abandon()
        raise
    if not encoder.known:
        return manifest
    values = {digest: replace(value, chunks=_refs(value, encoder.known)) for digest, value in manifest.values.items()}
    sizes = {**manifest.objects, **{known.ref.oid: known.object_size for known in encoder.known.values()}}
    used = {oid for value in values.values() for oid in value.oids}
    return replace(manifest, values=values, objects={oid: sizes[oid] for oid in sorted(used)})


def _entry(owners: dict[bytes, Entry], value: Value) -> Entry:
    """Layout and skeleton belong to no entry, and are bytes."""
    return owners.get(value.digest) or Entry("@", "bytes", (value.nbytes,), value.digest)


def _refs(value: Value, known: dict[bytes, KnownChunk]) -> tuple[ChunkRef, ...]:
    return tuple(known[ref.digest].ref if ref.base is not None and ref.digest in known else ref for ref in value.chunks)
