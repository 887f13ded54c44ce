"""What each side did to a parameter since the common ancestor: the exhaustive table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.merges.tensors import overlap

__all__ = ["TABLE", "Resolution", "Side", "State", "Unit", "contested", "contested_ties", "side_of", "units"]


class Side(StrEnum):
    """What one side did to a parameter."""

    ABSENT = "absent"
    """It is neither there nor in the ancestor."""
    ADDED = "added"
    SAME = "same"
    CHANGED = "changed"
    DELETED = "deleted"


class Resolution(StrEnum):
    """What becomes of a parameter without anybody's choice."""

    OURS = "ours"
    THEIRS = "theirs"
    DROP = "drop"
    MERGE = "merge"
    """A method decides."""
    CONFLICT = "conflict"
    """No method can decide; ours is kept until somebody says otherwise."""


class State(StrEnum):
    """What both sides together did to a parameter."""

    EQUAL = "equal"
    CHANGED_OURS = "changed by ours"
    CHANGED_THEIRS = "changed by theirs"
    CHANGED_SAME = "changed alike"
    CHANGED_BOTH = "changed by both"
    ADDED_OURS = "added by ours"
    ADDED_THEIRS = "added by theirs"
    ADDED_SAME = "added alike"
    ADDED_BOTH = "added by both"
    DELETED_OURS = "deleted by ours"
    DELETED_THEIRS = "deleted by theirs"
    DELETED_BOTH = "deleted by both"
    DELETED_OURS_CHANGED_THEIRS = "deleted by ours, changed by theirs"
    CHANGED_OURS_DELETED_THEIRS = "changed by ours, deleted by theirs"
    RESHAPED = "changed by both, to different shapes"
    RETYPED = "changed by both, to different dtypes"
    RENAMED_OURS = "renamed by ours"
    RENAMED_THEIRS = "renamed by theirs"
    RENAMED_SAME = "renamed alike"
    RENAMED_BOTH = "renamed by both, differently"

    @property
    def resolution(self) -> Resolution:
        """What becomes of it by itself."""
        return _RESOLUTIONS[self]


_RESOLUTIONS = {
    State.EQUAL: Resolution.OURS,
    State.CHANGED_OURS: Resolution.OURS,
    State.CHANGED_THEIRS: Resolution.THEIRS,
    State.CHANGED_SAME: Resolution.OURS,
    State.CHANGED_BOTH: Resolution.MERGE,
    State.ADDED_OURS: Resolution.OURS,
    State.ADDED_THEIRS: Resolution.THEIRS,
    State.ADDED_SAME: Resolution.OURS,
    State.ADDED_BOTH: Resolution.MERGE,
    State.DELETED_OURS: Resolution.DROP,
    State.DELETED_THEIRS: Resolution.DROP,
    State.DELETED_BOTH: Resolution.DROP,
    State.DELETED_OURS_CHANGED_THEIRS: Resolution.CONFLICT,
    State.CHANGED_OURS_DELETED_THEIRS: Resolution.CONFLICT,
    State.RESHAPED: Resolution.MERGE,
    State.RETYPED: Resolution.MERGE,
    State.RENAMED_OURS: Resolution.OURS,
    State.RENAMED_THEIRS: Resolution.THEIRS,
    State.RENAMED_SAME: Resolution.OURS,
    State.RENAMED_BOTH: Resolution.OURS,
}

_A, _S, _C, _D, _N = Side.ADDED, Side.SAME, Side.CHANGED, Side.DELETED, Side.ABSENT

TABLE: Mapping[tuple[Side, Side, bool], State] = {
    # ours, theirs, whether their values agree where both have a new one
    (_N, _A, False): State.ADDED_THEIRS,
    (_A, _N, False): State.ADDED_OURS,
    (_A, _A, True): State.ADDED_SAME,
    (_A, _A, False): State.ADDED_BOTH,
    (_S, _S, False): State.EQUAL,
    (_S, _C, False): State.CHANGED_THEIRS,
    (_S, _D, False): State.DELETED_THEIRS,
    (_C, _S, False): State.CHANGED_OURS,
    (_C, _C, True): State.CHANGED_SAME,
    (_C, _C, False): State.CHANGED_BOTH,
    (_C, _D, False): State.CHANGED_OURS_DELETED_THEIRS,
    (_D, _S, False): State.DELETED_OURS,
    (_D, _C, False): State.DELETED_OURS_CHANGED_THEIRS,
    (_D, _D, False): State.DELETED_BOTH,
}
"""State by what both sides did; every combination that can occur is here."""


def side_of(base: TensorInfo | None, version: TensorInfo | None) -> Side:
    """What one side did.

    Examples
    --------
    >>> side_of(None, TensorInfo("float32", (2,), b"1")).value
    'added'
    """
    if version is None:
        return Side.ABSENT if base is None else Side.DELETED
    if base is None:
        return Side.ADDED
    return Side.SAME if version.digest == base.digest else Side.CHANGED


@dataclass(frozen=True, slots=True)
class Unit:
    """A parameter, with all that is tied to it, as every version has it.

    Parameters
    ----------
    name
        Name in the result.
    state
        What the sides did.
    base
        In the ancestor, or ``None``.
    versions
        In each input, or ``None``; the first is ours.
    names
        Name in the ancestor and in each input, where it was renamed.
    """

    name: str
    state: State
    base: TensorInfo | None
    versions: tuple[TensorInfo | None, ...]
    names: tuple[str, ...]

    @property
    def present(self) -> tuple[int, ...]:
        """Positions of the inputs that have it."""
        return tuple(k for k, info in enumerate(self.versions) if info is not None)

    @property
    def resolution(self) -> Resolution:
        """What becomes of it by itself: that of the state, or a conflict where shapes do not overlap."""
        if self.state.resolution is not Resolution.MERGE:
            return self.state.resolution
        shapes = [info.shape for info in (self.base, *self.versions) if info is not None]
        return Resolution.MERGE if overlap(shapes) is not None else Resolution.CONFLICT

    @property
    def changed(self) -> tuple[int, ...]:
        """Positions of the inputs that have a value other than the ancestor's."""
        sides = [side_of(self.base, version) for version in self.versions]
        return tuple(k for k, side in enumerate(sides) if side in (Side.ADDED, Side.CHANGED))


def units(base: Mapping[str, TensorInfo] | None, inputs: Sequence[Mapping[str, TensorInfo]]) -> tuple[Unit, ...]:
    """All parameters of all versions with their states, in the order of ours, then of the others.

    Parameters
    ----------
    base
        The ancestor, or ``None`` if the histories are unrelated.
    inputs
        At least one; the first is ours.

    Examples
    --------
    >>> old, new = TensorInfo("float32", (2,), b"1"), TensorInfo("float32", (2,), b"2")
    >>> [(unit.name, unit.state.value) for unit in units({"w": old}, [{"w": old}, {"w": new}])]
    [('w', 'changed by theirs')]
    """
    origin = _owned(base or {})
    versions = [_owned(each) for each in inputs]
    renames = [_renames(origin, version) for version in versions]
    final = _final_names(origin, versions, renames)
    # What a side called by another name than the result does is no parameter of its own.
    gone = {found[old] for found in renames for old in final if old in found} - set(final.values())
    everything = (final.get(name, name) for each in (*versions, origin) for name in each)
    before = {new: old for old, new in final.items()}
    names = [name for name in dict.fromkeys(everything) if name not in gone]
    return tuple(_unit(name, before.get(name, name), origin, versions, renames) for name in names)


def _owned(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Tensors that hold their own bytes: what is tied to them or a view on them follows."""
    return {name: info for name, info in tensors.items() if not info.owner}


def _renames(base: Mapping[str, TensorInfo], version: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Old names to new ones: the same value, gone under one name and new under another, each only once."""
    gone = _unique((name for name in base if name not in version), base)
    new = _unique((name for name in version if name not in base), version)
    return {gone[digest]: new[digest] for digest in gone.keys() & new.keys()}


def _unique(names: Iterable[str], tensors: Mapping[str, TensorInfo]) -> dict[bytes, str]:
    found: dict[bytes, list[str]] = {}
    for name in names:
        found.setdefault(tensors[name].digest, []).append(name)
    return {digest: each[0] for digest, each in found.items() if len(each) == 1}


def _final_names(
    base: Mapping[str, TensorInfo], versions: Sequence[Mapping[str, TensorInfo]], renames: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Old names to the name in the result: that of the first side that renamed, unless another version uses it."""
    final: dict[str, str] = {}
    for k, found in enumerate(renames):
        for old, new in found.items():
            others = (version for j, version in enumerate(versions) if j != k and renames[j].get(old) != new)
            if old not in final and not any(new in version for version in others):
                final[old] = new
    return final


def _unit(
    name: str,
    old: str,
    base: Mapping[str, TensorInfo],
    versions: Sequence[Mapping[str, TensorInfo]],
    renames: Sequence[Mapping[str, str]],
) -> Unit:
    own = [renames[k].get(old, old) if old != name else name for k in range(len(versions))]
    found = tuple(version.get(own[k]) for k, version in enumerate(versions))
    origin = base.get(old)
    state = _state(origin, found)
    if old != name and state is State.EQUAL:
        new = [found.get(old) for found in renames]
        if len(set(new) - {None}) > 1:
            state = State.RENAMED_BOTH
        else:
            state = State.RENAMED_SAME if None not in new else State.RENAMED_OURS if new[0] else State.RENAMED_THEIRS
    return Unit(name, state, origin, found, (old, *own))


def _state(base: TensorInfo | None, versions: Sequence[TensorInfo | None]) -> State:
    sides = [side_of(base, version) for version in versions]
    theirs = _together(sides[1:]) if len(sides) > 1 else (Side.ABSENT if base is None else Side.SAME)
    new = [v for v, side in zip(versions, sides, strict=True) if v is not None and side in (Side.ADDED, Side.CHANGED)]
    alike = len({info.digest for info in new}) <= 1
    ours = sides[0]
    if not alike and ours in (Side.SAME, Side.ABSENT):
        ours = theirs  # several of the others changed it, differently
    agree = alike and ours == theirs and ours in (Side.ADDED, Side.CHANGED)
    state = TABLE[ours, theirs, agree]
    if state in (State.CHANGED_BOTH, State.ADDED_BOTH):
        present = [info for info in versions if info is not None]
        if len({info.shape for info in present}) > 1:
            return State.RESHAPED
        if len({info.dtype for info in present}) > 1:
            return State.RETYPED
    return state


def _together(sides: Sequence[Side]) -> Side:
    """What several others did together: a change counts before a deletion, both before nothing."""
    for side in (Side.ADDED, Side.CHANGED, Side.DELETED, Side.SAME):
        if side in sides:
            return side
    return Side.ABSENT


_BOTH = frozenset(state for state in State if state.resolution in (Resolution.MERGE, Resolution.CONFLICT))


def contested(found: Iterable[Unit]) -> tuple[str, ...]:
    """Names of what both sides changed, each in its own way."""
    return tuple(unit.name for unit in found if unit.state in _BOTH)


def contested_ties(base: Mapping[str, TensorInfo], inputs: Sequence[Mapping[str, TensorInfo]]) -> tuple[str, ...]:
    """Names of tensors that one side tied to another or untied from it, while another side changed their value.

    Examples
    --------
    >>> w, new = TensorInfo("float32", (2,), b"1"), TensorInfo("float32", (2,), b"2")
    >>> tied = {"w": w, "head": TensorInfo("float32", (2,), b"1", "w")}
    >>> trained = {"w": new, "head": TensorInfo("float32", (2,), b"2", "w")}
    >>> contested_ties(tied, [trained, {"w": w, "head": TensorInfo("float32", (2,), b"3")}])
    ('head',)
    """
    names = dict.fromkeys(name for one in (*inputs, base) for name, info in one.items() if info.owner)
    return tuple(name for name in names if _tie_contested(name, base, inputs))


def _tie_contested(name: str, base: Mapping[str, TensorInfo], inputs: Sequence[Mapping[str, TensorInfo]]) -> bool:
    def seen(version: Mapping[str, TensorInfo]) -> tuple[str | None, bytes | None]:
        info = version.get(name)
        return (info.owner, info.digest) if info is not None else (None, None)

    before, after = seen(base), [seen(one) for one in inputs]
    changed = {one for one in after if one != before}
    return len(changed) > 1 and any(owner != before[0] for owner, _ in changed)
