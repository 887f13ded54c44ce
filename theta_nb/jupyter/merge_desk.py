"""A merge session as its view in the browser needs it, and answers to what the view asks and does.

The desk owns the calls of its session: whatever changes it goes through :attr:`MergeDesk.lock`, one at a time.

What the view gets
    ``index()``     once: names, states, places, methods (``static/merge_data.js`` describes it)
    ``chosen()``    whenever something else is chosen, from the view or from a cell: choices, recipe, ways back
    ``opening``     asked for: numbers that no choice changes (:data:`FACTS`), and Gram matrices
    ``numbers``     asked for when ``chosen()`` has another revision: what the choices give (:data:`OUTCOME`)

What the view asks (``what`` of a request; ``form`` is JSON)
    ``measure``     {}                  read the weights once, with progress
    ``preview``     {form: [edit, …]}   the numbers that edits would give; nothing is chosen
    ``choose``      {form: [edit, …]}   choose that, as one step that can be undone
    ``restore``     {form: settings}    choose everything at once, as :meth:`chosen` gave it
    ``undo``, ``redo``, ``reset``       {}
    ``explain``     {name}              formula of one parameter with its numbers
An edit is what :func:`theta_nb.engine.merging.edits.edits_of` takes. Panels answer for what they ask themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from theta_nb.engine.diff import natural
from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.documents import write_yaml
from theta_nb.engine.merging.edits import edited, edits_of
from theta_nb.engine.merging.recipe import Recipe, settings_json, settings_of
from theta_nb.engine.merging.states import Resolution, State, Unit
from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer, Request
from theta_nb.jupyter.merge_methods import method_forms, presets
from theta_nb.jupyter.worker import Stop
from theta_nb.merges.gram import Gram, cosines
from theta_nb.report.grouping import block_of, role_of
from theta_nb.report.tree import module_tree

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession

__all__ = ["BADGES", "FACTS", "OUTCOME", "MergeDesk", "badge_of"]

FACTS = ("change", "cosine", "conflict", "base_norm", "apart")
"""Rows of numbers that no choice changes; the norm of every input and its change follow."""

OUTCOME = ("choice", "open", "norm", "moved")
"""Rows of numbers that follow from the choices; the distance of the result to every input follows."""

BADGES = ("both", "conflict", "ours", "theirs", "alike", "added", "deleted", "renamed", "equal")
"""What happened to a parameter, in one word."""

MOST = 20_000
"""Parameters of a larger model are not all shown: those that differ come first."""

_MOST_GRAM = 8  # inputs; the browser computes previews of so many by itself
_LONGEST_RECIPE = 100_000

Progress = Callable[[int, int], None]


class MergeDesk:
    """Everything that a merge view needs of one session.

    Parameters
    ----------
    session
        What is looked at and changed.
    """

    def __init__(self, session: MergeSession) -> None:
        self.session = session
        self.lock = threading.RLock()
        """Held while the session is changed or computes."""
        self.revision = 0
        self._units = _shown(session.units)
        self._names = [unit.name for unit in self._units]
        self._everything = [unit.name for unit in session.units]

    # --- what the view gets -------------------------------------------------------------------------------------------

    def index(self, *, measure: bool = True) -> dict[str, Any]:
        """Names, states and places of the parameters, and the methods.

        Parameters
        ----------
        measure
            Whether a view should have the weights read by itself.
        """
        session, units = self.session, self._units
        versions = [next(info for info in (*unit.versions, unit.base) if info is not None) for unit in units]
        blocks = list(dict.fromkeys(sorted((block_of(unit.name) for unit in units), key=natural)))
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
            "names": self._names,
            "badge": [BADGES.index(badge_of(unit)) for unit in units],
            "state": [states.index(unit.state.value) for unit in units],
            "dtype": [dtypes.index(version.dtype) for version in versions],
            "shapes": [list(version.shape) for version in versions],
            "block": [blocks.index(block_of(unit.name)) for unit in units],
            "role": [roles.index(role_of(unit.name)) for unit in units],
            "contested": [int(unit.name in session.contested) for unit in units],
            "depth": [round(session.depths[unit.name], 6) for unit in units],
            "tree": module_tree(units).indexed({id(unit): index for index, unit in enumerate(units)}),
            "methods": method_forms(
                len(session.inputs), has_base=session.base is not None, statistics=session.informed
            ),
            "presets": presets(),
            "measure": measure,
            "left_out": len(session.units) - len(units),
        }

    def chosen(self) -> dict[str, Any]:
        """What is chosen now, as the view and its panels show it."""
        session = self.session
        with self.lock:
            self.revision += 1
            settings = session.settings
            recipe = Recipe.of(session.base, session.inputs, settings, {})
            yaml, form = recipe.yaml(), settings_json(recipe.settings)
            return {
                "revision": self.revision,
                "settings": form,
                "short": recipe.short(),
                "choices": write_yaml(form)[:_LONGEST_RECIPE],
                "yaml": yaml if len(yaml) <= _LONGEST_RECIPE else "",
                "undo": session.can_undo,
                "redo": session.can_redo,
                "open": len(session.open),
                "measured": session.measured,
            }

    def opening(self) -> Answer:
        """Numbers that no choice changes, and the Gram matrices: NaN where there are none."""
        session, count = self.session, len(self.session.inputs)
        facts = np.full((len(FACTS) + 2 * count, len(self._units)), np.nan, np.float32)
        size = count + 1
        with_gram = count <= _MOST_GRAM
        gram = np.full((len(self._units), size * size) if with_gram else (0, 0), np.nan, np.float32)
        with np.errstate(all="ignore"):
            for index, unit in enumerate(self._units):
                known = session.statistics(unit.name)
                if known is None:
                    continue
                facts[:, index] = _facts(known.gram, known, unit, count, has_base=session.base is not None)
                if with_gram and known.gram.shape == (size, size) and unit.base is not None:
                    gram[index] = known.gram.ravel()
        answer = Answer()
        answer.result = {"facts": answer.array(facts), "gram": answer.array(gram), "measured": session.measured}
        return answer

    def numbers(self, settings: Settings | None = None) -> Answer:
        """What the choices give, or what others would give."""
        session, answer = self.session, Answer()
        with self.lock:
            decisions, predicted = session.predict(settings)
        found = {d.unit.name: (d, prediction) for d, prediction in zip(decisions, predicted, strict=True)}
        out = np.full((len(OUTCOME) + len(session.inputs), len(self._units)), np.nan, np.float32)
        choices: dict[Any, int] = {}
        forms = []
        with np.errstate(over="ignore"):
            for index, unit in enumerate(self._units):
                decision, prediction = found[unit.name]
                called = decision.called(session.labels)
                key = (called, decision.reason, tuple(decision.parameters.items()), id(decision.override))
                if key not in choices:
                    choices[key] = len(choices)
                    forms.append(_called(decision, session.labels))
                out[:2, index] = choices[key], decision.open
                if prediction is not None:
                    _put_outcome(out[2:, index], unit, *prediction)
        answer.result = {"revision": self.revision, "numbers": answer.array(out), "choices": forms}
        return answer

    # --- what the view asks -------------------------------------------------------------------------------------------

    def answer(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        """Answer what a view asks.

        Raises
        ------
        ThetaError
            If it cannot be done; the session is then as before.
        """
        answers: dict[str, Callable[[Request, Stop, Progress], Answer]] = {
            "opening": lambda *_: self.opening(),
            "numbers": lambda *_: self.numbers(),
            "measure": self._measure,
            "preview": lambda request, *_: self.numbers(self._draft(request)),
            "choose": lambda request, *_: self._restore(self._draft(request)),
            "restore": lambda request, *_: self._restore(settings_of(request.form())),
            "undo": lambda *_: self._step(self.session.undo),
            "redo": lambda *_: self._step(self.session.redo),
            "reset": lambda *_: self._step(self.session.reset),
            "explain": self._explain,
        }
        if request.what not in answers:
            raise ThetaError(f"a merge view cannot ask for {request.what!r}")
        return answers[request.what](request, stop, progress)

    def _draft(self, request: Request) -> Settings:
        """The settings that the edits of a request would give."""
        edits = edits_of(request.form(), self._members, self._everything)
        return self.session.checked(edited(self.session.settings, edits, self._everything))

    def _members(self, block: str) -> Iterable[str]:
        return [name for name in self._everything if block_of(name) == block]

    def _restore(self, settings: Settings) -> Answer:
        with self.lock:
            self.session.decide(self.session.checked(settings))  # refuses what fits the method and not the inputs
            self.session.restore(settings)
        return Answer()

    def _step(self, step: Callable[[], object]) -> Answer:
        with self.lock:
            step()
        return Answer()

    def _measure(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        def told(done: int, total: int) -> None:
            stop()
            progress(done, total)

        self.session.measure(told)
        return Answer()

    def _explain(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        with self.lock:
            return Answer({"text": self.session.explain(request.text("name"))})


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


def _shown(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """The parameters that are shown, in the order in which people count."""
    ordered = sorted(units, key=lambda unit: natural(unit.name))
    if len(ordered) > MOST:
        ordered = sorted(ordered, key=lambda unit: unit.state is State.EQUAL)[:MOST]
        ordered.sort(key=lambda unit: natural(unit.name))
    return tuple(ordered)


def _each(word: str, session: MergeSession) -> list[str]:
    return [f"{word} {k}" for k in range(len(session.inputs))]


def _facts(matrix: Any, known: Any, unit: Unit, count: int, *, has_base: bool) -> npt.NDArray[np.float64]:
    """The column of one parameter; see :data:`FACTS`."""
    out = np.full(len(FACTS) + 2 * count, np.nan)
    present = [k for k, info in enumerate(unit.versions) if info is not None]
    gram = Gram(matrix, unit.base is not None)
    norms = gram.norms()
    out[[len(FACTS) + k for k in present]] = norms
    products = gram.inputs
    if len(present) > 1:
        out[4] = np.sqrt(max(products[0, 0] + products[1, 1] - 2 * products[0, 1], 0))
    if unit.base is None:
        return out
    changes = np.sqrt(np.maximum(np.diagonal(gram.differences), 0))
    out[[len(FACTS) + count + k for k in present]] = changes
    out[3] = np.sqrt(max(matrix[0, 0], 0))
    if out[3] > 0:
        out[0] = changes.max() / out[3]
    if len(present) > 1:
        # The distance of ours and theirs, from differences: norms of the inputs would cancel.
        inner = gram.differences
        out[4] = np.sqrt(max(inner[0, 0] + inner[1, 1] - 2 * inner[0, 1], 0))
    if len(unit.changed) > 1:
        upper = np.triu_indices(len(present), 1)
        out[1] = cosines(gram.differences)[upper].min()
        out[2] = known.conflicts / known.shared if known.shared else 0.0
    return out


def _put_outcome(column: npt.NDArray[np.float32], unit: Unit, norm: float, distances: tuple[float, ...]) -> None:
    """Norm of the result, and its distances to the ancestor and to the inputs that have the parameter."""
    first = 1 if unit.base is not None else 0
    column[0] = norm
    if first:
        column[1] = distances[0]
    present = [k for k, info in enumerate(unit.versions) if info is not None]
    for k, distance in zip(present, distances[first:], strict=True):
        column[2 + k] = distance


_OVERRIDES = {True: "block", False: "names"}


def _called(decision: Decision, labels: tuple[str, ...]) -> dict[str, Any]:
    """What is done, as plain data; ``override`` says whether one of a block or of names decided."""
    override = decision.override
    method = decision.method
    return {
        "name": decision.called(labels),
        "method": method.name if method is not None else "",
        "parameters": Choice("", decision.parameters).json()["parameters"],
        "inputs": list(decision.inputs),
        "take": decision.take,
        "reason": decision.reason,
        "dropped": decision.dropped,
        "open": decision.open,
        "override": _OVERRIDES[override.contested] if override is not None else "",
    }
