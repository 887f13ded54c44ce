"""Apply an update that came from outside to a version: its new manifest, and its new file, in one pass.

The chunks of the parameters that change are decoded, changed, written to their places and encoded as the update on top
of what they were, in parallel; the rest of the file is rebuilt around them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

from theta_nb.checkpoints.layout import Layout
from theta_nb.engine.decode import Decoder
from theta_nb.engine.encode import ChunkEncoder
from theta_nb.engine.incremental import Incremental, Step
from theta_nb.engine.known import KnownChunk, KnownChunks
from theta_nb.engine.layouts import derived_bytes, entry_of, owners, settle_derived
from theta_nb.engine.previous import Previous
from theta_nb.engine.rebuild import Rebuilder, read_layout
from theta_nb.errors import ThetaError, listed
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.checksums import combined_crc32
from theta_nb.tensors.chunks import Extent, chunk_extents, tensor_digest
from theta_nb.tensors.spec import TensorSpec
from theta_nb.updates.change import Change, Parameter, Part
from theta_nb.updates.matching import match, plain_names
from theta_nb.updates.named import UpdateSet
from theta_nb.updates.table import Numbers

__all__ = ["Plan", "Stored", "apply_update", "plan_update", "stored_as"]

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Target:
    """A storage that changes."""

    spec: TensorSpec  # of the tensor that owns it
    parameter: Parameter
    change: Change


@dataclass(frozen=True, slots=True)
class Plan:
    """An update that fits a version.

    Parameters
    ----------
    manifest, layout
        The version.
    targets
        What changes, by index of the storage.
    shared
        Names of further parameters that share a storage with one that changes, and so change with it.
    """

    manifest: Manifest
    layout: Layout
    targets: Mapping[int, _Target]
    shared: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """How the changed part of a version is stored.

    Parameters
    ----------
    nbytes
        Encoded bytes by update type.
    dense
        Bytes that the same part takes in dense encoding, as far as is known.
    """

    nbytes: Mapping[str, int]
    dense: int


def plan_update(update: UpdateSet, manifest: Manifest, store: ObjectStore, *, source: str = "") -> Plan:
    """Find the parameters that an update changes, and check that it fits them.

    Parameters
    ----------
    update
        The update.
    manifest, store
        The version that it changes.
    source
        File that it came from, for messages.

    Raises
    ------
    ThetaError
        If names match no parameter, or shapes, dtypes or numbers do not fit: one error that lists them.
    """
    layout = read_layout(manifest, Decoder(store))
    specs = {spec.name: spec for spec in layout.tensors}
    found = match(update.names, plain_names(specs), update.optional)
    parameters = {name: Parameter(own, specs[own].dtype.name, specs[own].shape) for name, own in found.items()}
    problems: list[str] = []
    owned = owners(layout)
    targets: dict[int, _Target] = {}
    for parameter, change in update.changes(parameters, problems):
        spec = specs[parameter.name]
        owner = specs.get(owned[spec.storage])
        if spec.numel == 0:
            continue
        if owner is None or not spec.covers(layout.storages[spec.storage].nbytes) or owner.shape != spec.shape:
            problems.append(f"{parameter.name!r} is a view on a part of a storage, which cannot be updated by itself")
        elif spec.storage in targets:
            other = targets[spec.storage].parameter.name
            problems.append(f"{parameter.name!r} and {other!r} are tied, so only one of them can be updated")
        else:
            targets[spec.storage] = _Target(owner, parameter, change)
    if problems:
        raise ThetaError(
            f"{source or 'the update'} does not fit the checkpoint: {listed(problems, '; ', most=8)}",
            hint="Nothing was changed.",
        )
    named = {target.parameter.name for target in targets.values()}
    shared = sorted(spec.name for spec in layout.tensors if spec.storage in targets and spec.name not in named)
    return Plan(manifest, layout, targets, tuple(shared))


def apply_update(
    plan: Plan, store: ObjectStore, executor: Executor, fd: int, progress: Progress | None = None
) -> Manifest:
    """Write the new file, and return its manifest; its objects are in the store.

    Parameters
    ----------
    plan
        From :func:`plan_update`.
    store
        Has the objects of the old version, and gets those of the new one.
    executor
        Where chunks are worked on.
    fd
        Of an empty file.
    progress
        Called with the number of bytes done since the last call.

    Raises
    ------
    ThetaError
        If an object is missing or corrupt, or the update was made for other old values. What was written of the file
        is then garbage.
    """
    manifest = _Application(plan, store, executor, fd, progress).run()
    Rebuilder(manifest, store, executor).file(fd, progress, skip=plan.targets.keys())
    return manifest


class _Application:
    """One pass over the storages that change."""

    def __init__(self, plan: Plan, store: ObjectStore, executor: Executor, fd: int, progress: Progress | None) -> None:
        self._plan, self._fd, self._progress = plan, fd, progress
        self._manifest, self._layout = plan.manifest, plan.layout
        self._owners = owners(plan.layout)
        self._decoder = Decoder(store)
        self._encoder = ChunkEncoder(store, KnownChunks([plan.manifest]), executor, previous=Previous(plan.manifest))
        self._numbers: dict[int, list[int]] = {}
        self._crcs: dict[int, dict[Extent, int]] = {index: {} for index in plan.targets}

    def run(self) -> Manifest:
        try:
            for index, target in self._plan.targets.items():
                self._numbers[index] = self._storage(index, target)
            self._encoder.finish()
        except BaseException:
            self._encoder.abandon()
            raise
        return self._result()

    def _storage(self, index: int, target: _Target) -> list[int]:
        storage = self._layout.storages[index]
        value = self._manifest.value_of(target.spec.name)
        numbers = Numbers(target.spec.dtype, max(1, target.parameter.matrix[1]))
        added = []
        extents = chunk_extents(storage.nbytes, storage.row_nbytes, storage.itemsize)
        for extent, ref in zip(extents, value.chunks, strict=True):
            previous = KnownChunk.of(ref, self._manifest.objects)
            self._encoder.space(extent.nbytes)
            make = partial(self._make, index, target, extent, previous)
            added.append(
                self._encoder.add(extent.nbytes, storage.itemsize, numbers=numbers, previous=previous, make=make)
            )
            if self._progress is not None:
                self._progress(extent.nbytes)
        return added

    def _make(self, index: int, target: _Target, extent: Extent, previous: KnownChunk, dest: memoryview) -> Step | None:
        """The new bytes of a chunk, also in the file; in a worker thread."""
        self._decoder.into(previous.ref, dest, target.parameter.name)
        payload = target.change.apply(Part(target.parameter, extent), dest)
        self._crcs[index][extent] = zlib.crc32(dest)
        offset = self._layout.storages[index].offset + extent.offset
        left = dest
        while left:
            count = os.pwrite(self._fd, left, offset)
            offset += count
            left = left[count:]
        dense = previous.steps()[0].ref.length
        if payload is None or not previous.ref.oid or not Incremental.allowed(previous, len(payload), dense):
            return None
        return Step(target.change.update, payload, previous)

    # --- the manifest -------------------------------------------------------------------------------------------------

    def _result(self) -> Manifest:
        entries: dict[str, Entry] = dict(self._manifest.entries)
        values = self._kept(entries)
        for spec in self._layout.tensors:
            if spec.storage not in self._numbers:
                continue
            digests = [self._encoder.digests[number] for number in self._numbers[spec.storage]]
            digest = tensor_digest(spec, digests)
            owner = self._owners[spec.storage]
            entries[spec.name] = entry_of(spec, digest, owner)
            if owner == spec.name:
                nbytes = self._layout.storages[spec.storage].nbytes
                refs = tuple(self._encoder.known[chunk].ref for chunk in digests)
                values.setdefault(digest, Value(digest, nbytes, refs))
        derived = settle_derived(self._layout, self._owners, self._derived(), entries, values)
        sizes = dict(self._manifest.objects)
        for known in self._encoder.known.values():
            sizes.update((step.ref.oid, step.object_size) for step in known.steps())
        used = sorted({oid for value in values.values() for oid in value.oids})
        return replace(
            self._manifest,
            entries=entries,
            values=values,
            objects={oid: sizes[oid] for oid in used},
            derived=derived,
            recipe="",
        )

    def _kept(self, entries: Mapping[str, Entry]) -> dict[bytes, Value]:
        """Values of what does not change; their CRC-32s are settled anew."""
        changed = {target.spec.name for target in self._plan.targets.values()}
        digests = {entry.digest for name, entry in entries.items() if not entry.owner and name not in changed}
        digests |= {self._manifest.layout, self._manifest.skeleton}
        return {digest: replace(self._manifest.values[digest], crc32=b"") for digest in digests}

    def _derived(self) -> dict[int, bytes]:
        found = dict(derived_bytes(self._manifest, self._layout, self._owners))
        for index, field in enumerate(self._layout.derived):
            if field.storage in self._crcs and field.nbytes == 4:
                pieces = sorted(self._crcs[field.storage].items())
                crc = combined_crc32((crc, extent.nbytes) for extent, crc in pieces)
                found[index] = crc.to_bytes(4, "little")
        return found


def stored_as(new: Manifest, old: Manifest) -> Stored:
    """How the chunks of a version that another one does not have are stored."""
    before = {ref.digest for ref in old.chunk_refs()}
    fresh: dict[bytes, ChunkRef] = {ref.digest: ref for ref in new.chunk_refs() if ref.digest not in before}
    nbytes: dict[str, int] = {}
    for ref in fresh.values():
        nbytes[ref.update] = nbytes.get(ref.update, 0) + (ref.length or len(ref.inline))
    dense = sum(first.length or len(first.inline) for first in (ref.links()[0] for ref in fresh.values()))
    return Stored(nbytes, dense)
