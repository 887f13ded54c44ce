"""Whose form the result of a merge can have, and what it holds beside tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from theta_nb.engine.merging.decisions import BASE, Decision
from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.engine.merging.outline import outline_of
from theta_nb.engine.merging.placing import shape_of
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.engine.merging.values import Outlines

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession

__all__ = ["Form", "Stored", "merged_metadata", "version_at"]

Stored = FileInput | ManifestInput
View = tuple[Any, ...] | None
"""How a version has a name that is not the owner of its bytes everywhere: as what view on what, or not at all."""

_OWN: View = ("its own",)


def version_at(versions: Any, position: int | None) -> Any:
    """Part of a unit or of outlines at a position that a decision takes; ``None`` for none."""
    if position is None:
        return None
    return versions.base if position == BASE else versions.inputs[position]


class Form:
    """What the result looks like, compared with each input.

    Parameters
    ----------
    session
        Over versions that are stored, all in one format.
    """

    def __init__(self, session: MergeSession) -> None:
        self._session = session
        self._views = [_views(one) for one in session.inputs]
        self._base_views = {} if session.base is None else _views(session.base)

    @cached_property
    def outlines(self) -> Outlines:
        """The versions, taken apart."""
        session = self._session
        if session.outlines is not None:
            return session.outlines
        base = None if session.base is None else outline_of(session.base)
        return Outlines(base, tuple(map(outline_of, session.inputs)))

    @cached_property
    def clashes(self) -> frozenset[str]:
        """Names that are tensors in one version and values in another."""
        if self._session.outlines is None:
            return frozenset()
        tensors = {name for one in self._session.inputs for name in one.tensors}
        return frozenset(name for one in self.outlines.inputs for name in one.values if name in tensors)

    @cached_property
    def tied(self) -> Mapping[str, int | None]:
        """For each name that some version has as a view: the input whose view it becomes; ``None``: it is its own."""
        names = dict.fromkeys(name for views in (*self._views, self._base_views) for name in views)
        return {name: self._tie(name) for name in names}

    def _tie(self, name: str) -> int | None:
        session = self._session
        views = [self._view(k, name) for k in range(len(session.inputs))]
        if session.base is None:
            changed = [k for k, view in enumerate(views) if view is not None]
        else:
            before = self._base_views.get(name) or (_OWN if name in session.base.tensors else None)
            changed = [k for k, view in enumerate(views) if view != before]
        side = changed[0] if changed else 0
        return None if views[side] == _OWN else side

    def _view(self, position: int, name: str) -> View:
        own = _OWN if name in self._session.inputs[position].tensors else None
        return self._views[position].get(name) or own

    def frame(self) -> int | None:
        """The input whose file has everything that the result has, under the same names; ``None`` if none does."""
        order = sorted(range(len(self._session.inputs)), key=self._stale)
        return next((k for k in order if self._fits(k)), None)

    def _stale(self, position: int) -> bool:
        """Whether the side left alone what is no number: another one has the newer form, such as an order of keys."""
        base, source = self._session.base, self._session.inputs[position]
        if not isinstance(base, ManifestInput) or not isinstance(source, ManifestInput):
            return False
        return source.rest_digest() == base.rest_digest()

    def _fits(self, position: int) -> bool:
        session = self._session
        if self.clashes:
            return False
        source = session.inputs[position]
        own = {name: info for name, info in source.tensors.items() if not info.owner}
        kept = {d.unit.name: d for d in session.tensor_decisions if not d.dropped}
        if own.keys() != kept.keys() or not all(_same_kind(d, own[name]) for name, d in kept.items()):
            return False
        for name, side in self.tied.items():
            wanted = _OWN if side is None else self._view(side, name)
            if self._view(position, name) != (None if wanted == _OWN and name not in kept else wanted):
                return False
        decided = session.value_decisions.values()
        return all(_digest(d.info) == _digest(d.unit.versions[position]) for d in decided)


def _same_kind(decision: Decision, info: TensorInfo) -> bool:
    found = decision.info
    return found is not None and found.dtype == info.dtype and shape_of(decision) == info.shape


def _digest(info: TensorInfo | None) -> bytes:
    return b"" if info is None else info.digest


def _views(source: Any) -> dict[str, tuple[Any, ...]]:
    """Names that are views on what another name owns, with all that makes up the view."""
    if not isinstance(source, FileInput | ManifestInput):
        return {}
    found = {}
    for spec in source.layout.tensors:
        info = source.tensors[spec.name]
        if info.owner:
            found[spec.name] = (
                info.owner, spec.dtype.name, spec.shape, spec.strides, spec.offset, spec.conj, spec.neg
            )  # fmt: skip
    return found


def merged_metadata(session: MergeSession) -> dict[str, str]:
    """The metadata of a safetensors file that is written anew: ours, as the values were decided."""
    if not isinstance(session.inputs[0], FileInput | ManifestInput):
        return {}
    if session.inputs[0].layout.format != "safetensors":
        return {}
    outlines = Form(session).outlines
    decided = session.value_decisions
    # Where the others are of another kind, nothing was decided, and ours stays.
    versions = (*outlines.inputs, outlines.base) if session.outlines is not None else outlines.inputs[:1]
    names = dict.fromkeys(name for one in versions if one is not None for name in one.leaves)
    metadata = {}
    for name in names:
        side = decided[name].take if name in decided else 0
        found = version_at(outlines, side)
        if found is not None and name in found.leaves:
            key, value = found.leaves[name]
            metadata[key] = value
    return metadata
