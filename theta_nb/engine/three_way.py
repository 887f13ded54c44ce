"""Merge two versions of a checkpoint by the parameters they changed, from manifests alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

import theta_nb
from theta_nb.manifest.model import Entry, Manifest, Value

__all__ = ["Merged", "digest_of", "is_without_choices", "merge_manifests", "three_way_recipe"]

_Group = tuple[Entry, ...]
"""Entries that share one storage, sorted by name: they change together."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Result of a three-way merge.

    Parameters
    ----------
    manifest
        The merged version; where ``conflicts`` is not empty, those parts are as the caller's side wanted.
    conflicts
        What both sides changed differently: parameter names, or a phrase for what is no parameter.
    """

    manifest: Manifest
    conflicts: tuple[str, ...]


def merge_manifests(base: Manifest | None, ours: Manifest, theirs: Manifest, *, keep_base: bool = False) -> Merged:
    """Take every storage from the side that changed it.

    Parameters
    ----------
    base
        Common ancestor, or ``None`` where there is none.
    ours, theirs
        The two sides.
    keep_base
        Whether a conflict keeps the ancestor's value instead of ours: right for a virtual ancestor, so that the
        conflict shows in the outer merge.

    Returns
    -------
    Merged
        Without a recipe: what is merged here follows from its parents.
    """
    if ours.same_content(theirs):
        return Merged(ours, ())
    if base is not None and base.same_content(ours):
        return Merged(theirs, ())
    if base is not None and base.same_content(theirs):
        return Merged(ours, ())
    fallback = base if keep_base and base is not None else ours
    if base is None:
        return Merged(fallback, ("the whole file, added on both sides",))
    if ours.format != theirs.format:
        return Merged(fallback, ("the file format",))
    if ours.layout == theirs.layout or theirs.layout == base.layout:
        frame, other = ours, theirs
    elif ours.layout == base.layout:
        frame, other = theirs, ours
    else:
        return Merged(fallback, ("the set of tensors, their shapes or dtypes",))
    return _Merge(base, frame, other, fallback).run()


def three_way_recipe(base: Manifest | None, sides: Sequence[Manifest], revisions: Sequence[str]) -> str:
    """Recipe of a merge in which nothing had to be chosen: the same text as that of a session without choices.

    Parameters
    ----------
    base
        The common ancestor.
    sides
        Ours and theirs.
    revisions
        Where the versions can be found again, the ancestor first if there is one.
    """
    versions = [one for one in (base, *sides) if one is not None]
    labels = ["original"] * (base is not None) + ["ours", "theirs"]
    sources = [
        {"label": label, "revision": revision, "digest": digest_of({e.name: e.digest for e in one.entries.values()})}
        for label, revision, one in zip(labels, revisions, versions, strict=True)
    ]
    form = {
        "theta-merge": 1,
        "version": theta_nb.__version__,
        "base": sources.pop(0) if base is not None else None,
        "inputs": sources,
        "choice": None,
        "overrides": [],
    }
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def is_without_choices(recipe: str) -> bool:
    """Whether a recipe, from wherever it comes, says that nothing had to be chosen; found out without numpy.

    Examples
    --------
    >>> is_without_choices('{"choice": null, "overrides": []}'), is_without_choices("[")
    (True, False)
    """
    try:
        form = json.loads(recipe)
    except (ValueError, RecursionError):
        return False
    return isinstance(form, dict) and form.get("choice", "") is None and form.get("overrides") == []


def digest_of(tensors: Mapping[str, bytes]) -> str:
    """Identity of a set of tensors: BLAKE3 over names and digests, sorted by name, in hexadecimal.

    Examples
    --------
    >>> digest_of({"w": b"1"}) == digest_of({"w": b"2"})
    False
    """
    hasher = blake3()
    for name in sorted(tensors):
        encoded = name.encode("utf-8", "surrogatepass")
        hasher.update(len(encoded).to_bytes(8, "little") + encoded + tensors[name])
    return hasher.hexdigest()


class _Merge:
    """A merge along the structure of ``frame``, the side whose layout is used."""

    def __init__(self, base: Manifest, frame: Manifest, other: Manifest, fallback: Manifest) -> None:
        self._base, self._frame, self._other, self._fallback = base, frame, other, fallback
        self._conflicts: list[str] = []

    def run(self) -> Merged:
        base, frame, other = map(_groups, (self._base, self._frame, self._other))
        fallback = _groups(self._fallback)
        chosen: dict[str, Entry] = {}
        values: dict[bytes, Value] = {}
        for name in sorted(frame.keys() | other.keys()):
            group, side = self._choose(name, base.get(name), frame.get(name), other.get(name), fallback.get(name))
            for entry in group:
                chosen[entry.name] = entry
                if not entry.owner:
                    values[entry.digest] = side.values[entry.digest]
        skeleton, holder = self._skeleton()
        if self._conflicts and _structure(chosen) != _structure(self._frame.entries):
            return Merged(self._fallback, tuple(self._conflicts))
        values[skeleton] = holder.values[skeleton]
        values[self._frame.layout] = self._frame.values[self._frame.layout]
        objects = {**self._base.objects, **self._other.objects, **self._frame.objects}
        used = {oid for value in values.values() for oid in value.oids}
        merged = Manifest(
            format=self._frame.format,
            size=self._frame.size,
            layout=self._frame.layout,
            skeleton=skeleton,
            entries=chosen,
            values=values,
            objects={oid: objects[oid] for oid in sorted(used)},
            derived=self._frame.derived,
        )
        return Merged(merged, tuple(self._conflicts))

    def _choose(
        self, name: str, base: _Group | None, frame: _Group | None, other: _Group | None, fallback: _Group | None
    ) -> tuple[_Group, Manifest]:
        if frame is None:
            # Removed by the side whose structure is used; lost only if the other side changed it meanwhile.
            if other != base:
                self._conflicts.append(name)
            return (), self._frame
        if other is None or frame == other or other == base:
            return frame, self._frame
        if frame == base and _structure(_by_name(frame)) == _structure(_by_name(other)):
            return other, self._other
        self._conflicts.append(name)
        if fallback is not None and _structure(_by_name(fallback)) == _structure(_by_name(frame)):
            return fallback, self._fallback
        return frame, self._frame

    def _skeleton(self) -> tuple[bytes, Manifest]:
        base, frame, other = self._base.skeleton, self._frame.skeleton, self._other.skeleton
        if frame == other or other == base:
            return frame, self._frame
        if frame == base and self._frame.layout == self._other.layout:
            return other, self._other
        self._conflicts.append("what is no tensor (metadata, pickled values)")
        if self._fallback.layout == self._frame.layout:
            return self._fallback.skeleton, self._fallback
        return frame, self._frame


def _groups(manifest: Manifest) -> dict[str, _Group]:
    members: dict[str, list[Entry]] = {}
    for name in sorted(manifest.entries):
        entry = manifest.entries[name]
        members.setdefault(entry.owner or entry.name, []).append(entry)
    return {owner: tuple(entries) for owner, entries in members.items()}


def _by_name(group: _Group) -> dict[str, Entry]:
    return {entry.name: entry for entry in group}


def _structure(entries: Mapping[str, Entry]) -> dict[str, tuple[str, tuple[int, ...], str]]:
    return {name: (entry.dtype, entry.shape, entry.owner) for name, entry in entries.items()}
