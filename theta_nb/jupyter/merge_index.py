"""What a merge view gets once: names, states and places of the parameters, and the methods.

``static/merge_data.js`` is the other end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from theta_nb.engine.diff import natural
from theta_nb.engine.merging.states import Resolution, State, Unit
from theta_nb.jupyter.merge_methods import method_forms, presets
from theta_nb.report.grouping import block_of, role_of
from theta_nb.report.tree import module_tree

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession

__all__ = ["BADGES", "FACTS", "OUTCOME", "badge_of", "index_of", "shown"]

FACTS = ("change", "cosine", "conflict", "base_norm", "apart")
"""Rows of numbers that no choice changes; the norm of every input and its change follow."""

OUTCOME = ("choice", "open", "estimated", "norm", "moved")
"""Rows of numbers that follow from the choices; the distance of the result to every input follows."""

BADGES = ("both", "conflict", "ours", "theirs", "alike", "added", "deleted", "renamed", "equal")
"""What happened to a parameter, in one word."""

MOST = 20_000
"""Parameters of a larger model are not all shown: those that differ come first."""


def index_of(session: MergeSession, units: Sequence[Unit], *, measure: bool) -> dict[str, Any]:
    """Names, states and places of parameters, and the methods, as plain data.

    Parameters
    ----------
    session
        The merge.
    units
        The parameters that are shown: :func:`shown`.
    measure
        Whether a view should have the weights read by itself.
    """
    names = [unit.name for unit in units]
    versions = [next(info for info in (*unit.versions, unit.base) if info is not None) for unit in units]
    blocks = list(dict.fromkeys(block_of(name) for name in sorted(names, key=lambda name: _place(session, name))))
    roles = list(dict.fromkeys(role_of(unit.name) for unit in units))
    states = list(dict.fromkeys(unit.state.value for unit in units))
    dtypes = list(dict.fromkeys(version.dtype for version in versions))
    return {
        "labels": list(session.labels),
        "has_base": session.base is not None,
        "revisions": [source.revision for source in session.inputs],
        "facts": [*FACTS, *_each("norm", session), *_each("change", session)],
        "outcome": [*OUTCOME, *_each("to", session)],
        "badges": list(BADGES),
        "states": states,
        "dtypes": dtypes,
        "blocks": blocks,
        "roles": roles,
        "names": names,
        "badge": [BADGES.index(badge_of(unit)) for unit in units],
        "state": [states.index(unit.state.value) for unit in units],
        "dtype": [dtypes.index(version.dtype) for version in versions],
        "shapes": [list(version.shape) for version in versions],
        "block": [blocks.index(block_of(unit.name)) for unit in units],
        "role": [roles.index(role_of(unit.name)) for unit in units],
        "contested": [int(unit.name in session.undecided) for unit in units],
        "depth": [session.depths[unit.name] for unit in units],
        "tree": module_tree(units).indexed({id(unit): index for index, unit in enumerate(units)}),
        "methods": method_forms(len(session.inputs), has_base=session.base is not None, statistics=session.informed),
        "presets": presets(),
        "measure": measure,
        "left_out": len(session.units) - len(units),
    }


def _place(session: MergeSession, name: str) -> Any:
    """Where the block of a parameter stands: stems, then layers, then heads."""
    block, depth = block_of(name), session.depths[name]
    numbered = block.rstrip("]")[-1:].isdigit()
    return (1 if numbered else 2 * round(depth), natural(block))


def badge_of(unit: Unit) -> str:
    """What happened to a parameter, in one word of :data:`BADGES`."""
    if unit.resolution is Resolution.CONFLICT:
        return "conflict"
    word = _WORDS.get(unit.state)
    # What is left begins with what happened: "added by ours", "deleted alike".
    return word if word is not None else unit.state.value.split()[0]


_WORDS = {
    State.EQUAL: "equal",
    State.CHANGED_OURS: "ours",
    State.CHANGED_THEIRS: "theirs",
    State.CHANGED_SAME: "alike",
    State.CHANGED_BOTH: "both",
    State.ADDED_BOTH: "both",
    State.RESHAPED: "both",
    State.RETYPED: "both",
}


def shown(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """The parameters that are shown, in the order in which people count."""
    ordered = sorted(units, key=lambda unit: natural(unit.name))
    if len(ordered) > MOST:
        ordered = sorted(ordered, key=lambda unit: unit.state is State.EQUAL)[:MOST]
        ordered.sort(key=lambda unit: natural(unit.name))
    return tuple(ordered)


def _each(word: str, session: MergeSession) -> list[str]:
    return [f"{word} {k}" for k in range(len(session.inputs))]
