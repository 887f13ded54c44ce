"""What a checkpoint to merge holds beside its tensors: metadata, pickled values, and the containers of both.

Values are merged like tensors, by name and by who changed them, so each is described as one: its dtype is ``value``,
and its digest covers what it is and what it is called.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from theta_nb.checkpoints.flattening import MAX_DEPTH, joined, key_step
from theta_nb.checkpoints.layout import ByteSource, Part
from theta_nb.checkpoints.naming import ROOT, Other, Step, spell_step
from theta_nb.checkpoints.pickle_graph import Graph, StorageNode, is_ordered_dict, read_graph, write_graph
from theta_nb.checkpoints.pickle_objects import Instance
from theta_nb.checkpoints.pytorch_zip import Archive, open_archive
from theta_nb.engine.merging.inputs import VALUE, MergeInput, TensorInfo
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.errors import CheckpointError

__all__ = ["ATTRIBUTES", "METADATA", "REST", "STATE", "Container", "Outline", "outline_of"]

METADATA = "__metadata__"
"""Where safetensors files keep theirs; also the first step of the names here."""

REST = "[rest]"
"""Name of all that is no tensor together, where it cannot be taken apart."""

ATTRIBUTES = "[state]"
"""Step to what an ordered dict has beside its entries, such as the ``_metadata`` of a state dict."""

STATE = object()
"""In place of a key, what an ordered dict has beside its entries."""


@dataclass(frozen=True, slots=True)
class Container:
    """A dict, an ordered dict, a list or a tuple.

    Parameters
    ----------
    node
        The container itself.
    children
        Names of what it holds, in order, with the keys; :data:`STATE` for attributes.
    """

    node: Graph
    children: Mapping[str, Any]


@dataclass(frozen=True)
class Outline:
    """One version, taken apart.

    Parameters
    ----------
    values
        What is no tensor, by name.
    rest
        Identity of all of it together.
    leaves
        Nodes of the values and of the tensors, by name.
    containers
        By name; the root's is empty.
    owners
        Name of the tensor or storage that each record of a PyTorch file holds the bytes of, by key.
    archive, source
        Of a PyTorch file.
    problem
        Why it could not be taken apart; empty if it could.
    """

    values: Mapping[str, TensorInfo]
    rest: bytes = b""
    leaves: Mapping[str, Graph] = field(default_factory=dict)
    containers: Mapping[str, Container] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    archive: Archive | None = None
    source: ByteSource | None = None
    problem: str = ""


def outline_of(version: MergeInput) -> Outline:
    """Take a version apart; one in memory has tensors only.

    Raises
    ------
    MissingObjectError
        If objects are missing and cannot be had.
    """
    if not isinstance(version, FileInput | ManifestInput):
        return Outline({})
    source: ByteSource = version.source() if isinstance(version, FileInput) else _Skeleton(version)
    if version.layout.format == "safetensors":
        found = _metadata(source)
        values = {f"{METADATA}/{spell_step(key)}": _info(key, value) for key, value in found.items()}
        return Outline(values, leaves=dict(zip(values, found.items(), strict=True)))
    if version.layout.format != "pytorch":
        return Outline({})
    rest = version.rest_digest()
    try:
        archive = open_archive(source)
        pickled = source.read(archive.pickled.offset, archive.pickled.nbytes)
        sizes = {key: record.nbytes for key, record in archive.data.items()}
        owners = _owners_by_key(version, archive)
        walk = _Walk(version.tensors, owners)
        walk.run(read_graph(pickled, sizes))
        return Outline(walk.values, rest, walk.leaves, walk.containers, owners, archive, source)
    except CheckpointError as error:
        return Outline({}, rest, problem=error.message)


def _metadata(source: ByteSource) -> dict[str, str]:
    """Of a safetensors file, which was located before."""
    length = int.from_bytes(source.read(0, 8), "little")
    found = json.loads(source.read(8, length)).get(METADATA)
    return found if isinstance(found, dict) else {}


def _info(name: str, value: object) -> TensorInfo:
    # With the name, so that equal values under two names are not taken for one that was renamed.
    return TensorInfo(VALUE, (), blake3(repr((name, value)).encode("utf-8", "surrogatepass")).digest())


def _owners_by_key(version: FileInput | ManifestInput, archive: Archive) -> dict[str, str]:
    """Name of the tensor or storage that each record holds the bytes of."""
    places = [(storage.offset, storage.nbytes) for storage in version.layout.storages]
    if places != [(record.offset, record.nbytes) for record in archive.data.values()]:
        raise CheckpointError("the archive has other records than its layout says")
    return dict(zip(archive.data, version.storages, strict=True))


class _Skeleton:
    """The bytes of a stored version that are no numbers, where they lie in the file; all others read as zeros."""

    def __init__(self, version: ManifestInput) -> None:
        self._data = version.skeleton()
        self.size = version.layout.size
        self._starts: list[int] = []
        self._pieces: list[tuple[int, int]] = []
        position = 0
        for segment in version.layout.segments():
            if segment.part is Part.SKELETON:
                self._starts.append(segment.offset)
                self._pieces.append((segment.nbytes, position))
                position += segment.nbytes
        if position != len(self._data):
            raise CheckpointError("the skeleton does not fit the layout")

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly ``nbytes`` bytes from ``offset``."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise CheckpointError(f"bytes {offset}..{offset + nbytes} lie outside the file of {self.size} bytes")
        out = bytearray(nbytes)
        index = max(bisect_right(self._starts, offset) - 1, 0)
        while index < len(self._starts) and self._starts[index] < offset + nbytes:
            start, (length, position) = self._starts[index], self._pieces[index]
            begin, end = max(start, offset), min(start + length, offset + nbytes)
            if begin < end:
                at = position + begin - start
                out[begin - offset : end - offset] = self._data[at : at + end - begin]
            index += 1
        return bytes(out)


class _Walk:
    """Lists what a graph holds, under the names that :func:`named_tensors` gives to its tensors."""

    def __init__(self, tensors: Mapping[str, TensorInfo], owners: Mapping[str, str]) -> None:
        self._tensors = tensors
        self._owners = owners
        self._seen: set[int] = set()
        self.values: dict[str, TensorInfo] = {}
        self.leaves: dict[str, Graph] = {}
        self.containers: dict[str, Container] = {}

    def run(self, root: Graph) -> None:
        self._visit("", root, 0)

    def _visit(self, name: str, node: Graph, depth: int) -> None:
        if (name or ROOT) in self._tensors:
            self.leaves[name or ROOT] = node
        elif not _is_container(node):
            self.leaves[name or ROOT] = node
            self.values[name or ROOT] = TensorInfo(VALUE, (), self._digest(name, node))
        else:
            if depth >= MAX_DEPTH:
                raise CheckpointError(f"{name[:60]} nests more than {MAX_DEPTH} deep")
            if id(node) in self._seen:
                raise CheckpointError(f"{name or 'the root'} is a container that is in two places")
            self._seen.add(id(node))
            children = {joined(name, step): (key, child) for step, key, child in _children(node)}
            self.containers[name] = Container(node, {child: key for child, (key, _) in children.items()})
            for child, (_, below) in children.items():
                self._visit(child, below, depth + 1)

    def _digest(self, name: str, node: Graph) -> bytes:
        if node is None or type(node) in (bool, int, float, str):
            return _info(name, node).digest

        def place(storage: StorageNode) -> tuple[str, int]:
            return self._owners[storage.key], 0

        return blake3(name.encode("utf-8", "surrogatepass") + b"\0" + write_graph(node, place)).digest()


def _is_container(node: Graph) -> bool:
    """Whether what a node holds is merged one by one; a list of plain values is one value."""
    if isinstance(node, list | tuple):
        return any(isinstance(part, list | tuple | dict | Instance) for part in node) and len(node) > 0
    return isinstance(node, dict) or is_ordered_dict(node)


def _children(node: Graph) -> Iterator[tuple[Step, Any, Graph]]:
    """Steps, keys and values."""
    if isinstance(node, list | tuple):
        yield from ((index, index, part) for index, part in enumerate(node))
        return
    entries = node if isinstance(node, dict) else node.entries or {}
    for position, (key, value) in enumerate(entries.items()):
        yield (key if type(key) is str else key_step(key, position)), key, value
    states = [] if isinstance(node, dict) else node.states or []
    if len(states) > 1:
        raise CheckpointError("an ordered dict was given attributes twice")
    for state in states:
        yield Other("state"), STATE, state
