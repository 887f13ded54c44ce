"""Writes the result of a merge as a PyTorch file that none of the sides has the form of.

The pickle is put together from those of the sides, branch by branch, and written again without running anything; the
archive is planned from the sizes of its records, and every record is filled where it belongs.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from theta_nb.checkpoints.naming import ROOT
from theta_nb.checkpoints.pickle_graph import Graph, NewObject, StorageNode, nodes, write_graph
from theta_nb.checkpoints.pickle_objects import Global, Instance
from theta_nb.checkpoints.pickle_tensors import CONSTRUCTORS, storage_dtype
from theta_nb.checkpoints.pytorch_zip import Archive
from theta_nb.checkpoints.zip_directory import Record
from theta_nb.checkpoints.zip_writer import ZipPlan
from theta_nb.engine.merging.computing import nbytes_of
from theta_nb.engine.merging.decisions import BASE, Decision
from theta_nb.engine.merging.form import Form, version_at
from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.engine.merging.outline import STATE, Container, Outline
from theta_nb.engine.merging.placing import shape_of
from theta_nb.errors import CheckpointError
from theta_nb.tensors.spec import Shape, contiguous_strides

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession, Progress

__all__ = ["crc32", "pwrite", "rewrite"]

_HINT = "Write it to a .safetensors file, or take the set of tensors from one side with overrides."

# Records that say how others lie in the file: readers that trust them compute offsets instead of looking.
_STALE = (".format_version", ".storage_alignment", ".data/serialization_id")
_MISSING = object()


def rewrite(session: MergeSession, fd: int, progress: Progress | None) -> None:
    """Write the result as a new archive.

    Raises
    ------
    CheckpointError
        If the sides' files cannot be put together: what is in them is not understood, or would not fit.
    """
    merged = _Merged(session)
    graph = merged.build("")
    if graph is _MISSING:
        raise CheckpointError("nothing is left of the checkpoint", hint=_HINT)
    pickled = write_graph(graph, merged.place)
    merged.check_globals(graph)
    archive, outline = merged.archive
    others = [record for record in archive.records if _is_kept(record, archive)]
    prefix = archive.prefix
    records = [(f"{prefix}data.pkl", len(pickled)), *((record.name, record.nbytes) for record in others)]
    records += [(f"{prefix}data/{number}", one.nbytes) for number, one in enumerate(merged.storages.values())]
    plan = ZipPlan([(name.encode("utf-8", "surrogateescape"), nbytes) for name, nbytes in records])
    head, tail = plan.members[: 1 + len(others)], plan.members[1 + len(others) :]
    os.ftruncate(fd, plan.directory_offset)
    pwrite(fd, pickled, head[0].offset)
    for member, record in zip(head[1:], others, strict=True):
        pwrite(fd, outline.source.read(record.offset, record.nbytes), member.offset)  # type: ignore[union-attr]
    starts = {name: member.offset for name, member in zip(merged.storages, tail, strict=True)}

    def fill(decision: Decision) -> None:
        start = starts[decision.unit.name]
        session.produce(decision, lambda offset, data: pwrite(fd, data, start + offset))

    session._each([one.decision for one in merged.storages.values()], fill, progress)
    sums = [crc32(fd, member.offset, member.nbytes) for member in plan.members]
    for member, checksum in zip(plan.members, sums, strict=True):
        pwrite(fd, member.local_header(checksum), member.header)
    pwrite(fd, plan.directory(sums), plan.directory_offset)


def _is_kept(record: Record, archive: Archive) -> bool:
    """Whether a record of ours is copied: ``version``, ``byteorder`` and what programs add."""
    name = record.name.removeprefix(archive.prefix)
    if name.startswith("code/") or name == "constants.pkl":
        raise CheckpointError("a TorchScript program cannot be put together from two", hint=_HINT)
    if name == "data.pkl" or name.startswith("data/") or name in _STALE:
        return False
    if not record.stored:
        raise CheckpointError(f"the record {record.name!r} is compressed", hint=_HINT)
    return True


@dataclass
class _Storage:
    """A record of the new archive."""

    key: str
    decision: Decision
    info: TensorInfo

    @property
    def nbytes(self) -> int:
        return nbytes_of(self.info)


@dataclass
class _Merged:
    """The sides' graphs as one; see :func:`rewrite`."""

    session: MergeSession
    storages: dict[str, _Storage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        session = self.session
        form = Form(session)
        self._outlines = form.outlines
        self._tied = form.tied
        versions = self._versions()
        for outline in versions.values():
            if outline.problem:
                raise CheckpointError(f"the result has another form than ours, and {outline.problem}", hint=_HINT)
        if form.clashes:
            raise CheckpointError(f"{min(form.clashes)!r} is a tensor on one side and a value on another", hint=_HINT)
        self._values = session.value_decisions
        self._decisions = {d.unit.name: d for d in session.tensor_decisions}
        # The same record is another one in each version: nodes are told apart by identity.
        self._owner: dict[int, Decision | None] = {}
        for position, outline in versions.items():
            has = (d for d in self._decisions.values() if (d.unit.base, *d.unit.versions)[position + 1] is not None)
            by_name = {d.unit.names[position + 1]: d for d in has}
            for node in nodes(outline.containers[""].node if outline.containers else list(outline.leaves.values())):
                if type(node) is StorageNode:
                    self._owner[id(node)] = by_name.get(outline.owners[node.key])

    def _versions(self) -> dict[int, Outline]:
        found = dict(enumerate(self._outlines.inputs))
        return found if self._outlines.base is None else {**found, BASE: self._outlines.base}

    @property
    def archive(self) -> tuple[Archive, Outline]:
        """Where records beside pickle and storages come from: ours."""
        outline = self._outlines.inputs[0]
        if outline.archive is None:
            raise CheckpointError("ours is no PyTorch file", hint=_HINT)
        return outline.archive, outline

    # --- the graph ------------------------------------------------------------------------------------------------

    def build(self, name: str) -> Any:
        """Node called ``name`` in the result, or ``_MISSING``."""
        versions = self._versions()
        found = [one.containers[name] for one in versions.values() if name in one.containers]
        if not found:
            return self._leaf(name or ROOT)
        if any((name or ROOT) in one.leaves for one in self._outlines.inputs):
            raise CheckpointError(f"{name or ROOT!r} is a container on one side only", hint=_HINT)
        children: dict[str, Any] = {}
        for container in found:
            for child, step in container.children.items():
                children.setdefault(child, step)
        parts = {child: self.build(child) for child in children}
        parts = {child: part for child, part in parts.items() if part is not _MISSING}
        # One that was empty stays where all have it; else it is there for what it holds.
        if not parts and not all(name in one.containers for one in versions.values()):
            return _MISSING
        return _filled(found[0], parts, children, name)

    def _leaf(self, name: str) -> Any:
        side = self._tied.get(name)
        if side is not None:
            info = self.session.inputs[side].tensors.get(name)
            if info is None:
                return _MISSING
            node = self._outlines.inputs[side].leaves[name]
            owner = self._decided(node, name)
            covers = self.session.inputs[side].tensors[info.owner].shape == info.shape
            return self._fitted(node, name, info, shape_of(owner) if covers else info.shape)
        decision = self._decisions.get(name)
        if decision is not None:
            return self._tensor(decision)
        value = self._values.get(name)
        if value is not None:
            outline = version_at(self._outlines, value.take)
            return _MISSING if outline is None else outline.leaves.get(name, _MISSING)
        ours = self._outlines.inputs[0]
        return ours.leaves.get(name, _MISSING) if name in ours.values else _MISSING

    def _tensor(self, decision: Decision) -> Any:
        if decision.dropped or decision.info is None:
            return _MISSING
        side = decision.inputs[0] if decision.method is not None else decision.take
        node = version_at(self._outlines, side).leaves.get(decision.unit.names[(side or 0) + 1])
        if node is None:
            raise CheckpointError(f"{decision.unit.name!r} is not where its name says", hint=_HINT)
        return self._fitted(node, decision.unit.name, decision.info, shape_of(decision))

    def _decided(self, node: Graph, name: str) -> Decision:
        """What is done with the storage of a tensor."""
        storage = next((one for one in nodes(node) if type(one) is StorageNode), None)
        decision = None if storage is None else self._owner.get(id(storage))
        if decision is None or decision.dropped:
            raise CheckpointError(f"{name!r} shares its memory with what is not in the result", hint=_HINT)
        return decision

    def _fitted(self, node: Graph, name: str, info: TensorInfo, shape: Shape) -> Graph:
        return node if info.shape == shape else _reshaped(node, name, shape)

    # --- storages -------------------------------------------------------------------------------------------------

    def place(self, node: StorageNode) -> tuple[str, int]:
        """Key of the record that a storage becomes, and its length in elements."""
        decision = self._owner.get(id(node))
        if decision is None or decision.dropped or decision.info is None:
            raise CheckpointError(
                "a value of the result refers to a tensor that is not in it", hint="Take both from one side."
            )
        name, info = decision.unit.name, decision.info
        if name not in self.storages:
            self.storages[name] = _Storage(
                str(len(self.storages)), decision, TensorInfo(info.dtype, shape_of(decision), info.digest)
            )
        kept = self.storages[name]
        dtype = storage_dtype(node.kind)
        return kept.key, kept.nbytes // (dtype.itemsize if dtype is not None else 1)

    def check_globals(self, graph: Graph) -> None:
        """Refuse names that ours does not have and that are not PyTorch's own: a merge brings data, not programs.

        Raises
        ------
        CheckpointError
            It says which name it is.
        """
        ours = self._outlines.inputs[0].containers
        mine = {one.dotted for one in nodes(ours[""].node if "" in ours else None) if type(one) is Global}
        for one in nodes(graph):
            if type(one) is Global and one.dotted not in mine and not _is_known(one):
                raise CheckpointError(
                    f"theirs brings an object of {one.dotted[:80]}, which ours has not",
                    hint="Keep what it belongs to from ours, with --override NAME ours.",
                )


def _is_known(name: Global) -> bool:
    return name.dotted in CONSTRUCTORS or (name.module == "torch" and "." not in name.name and name.name.isidentifier())


def _filled(container: Container, parts: Mapping[str, Graph], steps: Mapping[str, Any], name: str) -> Graph:
    """A container like another one, with other content."""
    node = container.node
    if isinstance(node, list | tuple):
        indices = [steps[child] for child in parts]
        if indices != list(range(len(indices))):
            raise CheckpointError(f"the list {name!r} would have gaps", hint=_HINT)
        return type(node)(parts.values())
    states = [part for child, part in parts.items() if steps[child] is STATE]
    entries = {steps[child]: part for child, part in parts.items() if steps[child] is not STATE}
    if isinstance(node, dict):
        return entries
    made = (NewObject if type(node) is NewObject else Instance)(node.maker, node.args)
    made.entries, made.states = entries, states or None
    return made


def _reshaped(node: Graph, name: str, shape: Shape) -> Graph:
    """The call that makes a tensor, for one of another shape that has its storage for itself."""
    if type(node) is Instance and type(node.maker) is Global:
        maker, args = node.maker.dotted, node.args
        if maker in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3") and len(args) >= 6:
            return Instance(node.maker, (args[0], 0, shape, contiguous_strides(shape), *args[4:]))
        if maker == "torch._utils._rebuild_parameter" and len(args) == 3:
            return Instance(node.maker, (_reshaped(args[0], name, shape), *args[1:]))
    raise CheckpointError(f"{name!r} changes its shape, and is no plain tensor", hint=_HINT)


# --- bytes ------------------------------------------------------------------------------------------------------------


def crc32(fd: int, offset: int, nbytes: int) -> int:
    """CRC-32 of a stretch of a file."""
    found = 0
    while nbytes:
        piece = os.pread(fd, min(nbytes, 2**20), offset)
        if not piece:
            raise CheckpointError("the file was cut short while it was written", hint="Begin again.")
        found = zlib.crc32(piece, found)
        offset, nbytes = offset + len(piece), nbytes - len(piece)
    return found


def pwrite(fd: int, data: Any, offset: int) -> None:
    """Write all of ``data`` at an offset."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
