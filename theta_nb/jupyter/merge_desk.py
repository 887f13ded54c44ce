"""A merge session as its view in the browser needs it, and answers to what the view asks and does.

The desk owns the calls of its session: whatever changes it goes through :attr:`MergeDesk.lock`, one at a time.

What the view gets
    ``index()``     once: names, states, places, methods (``static/merge_data.js`` describes it)
    ``chosen()``    whenever something else is chosen, from the view or from a cell: choices, recipe, ways back
    ``opening``     asked for: numbers that no choice changes (``FACTS``), Gram matrices, and whose they are
    ``numbers``     asked for when ``chosen()`` has another revision: what the choices give (``OUTCOME``)

What the view asks (``what`` of a request; ``form`` is JSON)
    ``measure``     {}                  read the weights once, with progress
    ``preview``     {form: [edit, …]}   the numbers that edits would give; nothing is chosen
    ``choose``      {form: [edit, …]}   choose that, as one step that can be undone
    ``restore``     {form: settings}    choose everything at once, as :meth:`chosen` gave it
    ``undo``, ``redo``, ``reset``       {}
    ``samples``     {form: [place, …]}  samples of some parameters, to estimate by; see ``merge_samples.py``
    ``exact``       {}                  numbers that are no estimates, with progress
    ``explain``     {name}              formula of one parameter with its numbers
An edit is what :func:`theta_nb.engine.merging.edits.edits_of` takes. Panels answer for what they ask themselves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.documents import write_yaml
from theta_nb.engine.merging.edits import edited, edits_of
from theta_nb.engine.merging.recipe import Recipe, settings_json, settings_of
from theta_nb.engine.merging.statistics import Grams
from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer, Request
from theta_nb.jupyter.merge_index import FACTS, OUTCOME, index_of, shown
from theta_nb.jupyter.merge_samples import key_of, packed, places_of
from theta_nb.jupyter.worker import Stop
from theta_nb.report.grouping import block_of

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession

__all__ = ["MergeDesk"]

_MOST_GRAM = 8  # inputs; the browser computes previews of so many by itself
_LONGEST_RECIPE = 100_000
_SWIFT = 0.03  # seconds for which cells of the notebook may wait

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
        self._units = shown(session.units)
        self._names = [unit.name for unit in self._units]
        self._everything = tuple(unit.name for unit in session.units)
        places = {name: index for index, name in enumerate(session.decisions)}
        self._pace: tuple[frozenset[str], float] = (frozenset(), np.inf)
        self._order = np.array([places[name] for name in self._names], np.intp)
        """Places of the parameters in previews."""
        self._key = key_of(self._units)

    # --- what the view gets -------------------------------------------------------------------------------------------

    def index(self, *, measure: bool = True) -> dict[str, Any]:
        """Names, states and places of the parameters, and the methods; see :func:`index_of`."""
        return index_of(self.session, self._units, measure=measure)

    def chosen(self) -> dict[str, Any]:
        """What is chosen now, as the view and its panels show it."""
        session = self.session
        with self.lock:
            self.revision += 1
            settings = session.settings
            recipe = Recipe.of(session.base, session.inputs, settings, {}, session.kitchen.spare)
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
        with self.lock:
            known = {unit.name: session.statistics(unit.name) for unit in self._units}
            relations = session.preview(measure=False).relations
        at = [index for index, unit in enumerate(self._units) if known[unit.name] is not None]
        grams = Grams.of([self._units[index] for index in at], known, session.labels)  # type: ignore[arg-type]
        facts = np.full((len(FACTS) + 2 * count, len(self._units)), np.nan)
        with np.errstate(all="ignore"):
            facts[:, at] = _facts(grams)
            facts[0], facts[2] = relations.changes[self._order], relations.conflicts[self._order]
            cosines = relations.cosines[self._order]
            facts[1] = np.fmin.reduce(cosines, axis=1) if cosines.shape[1] else np.nan
        size = (count + 1) ** 2
        matrices = np.full((len(self._units), size) if count <= _MOST_GRAM else (0, size), np.nan)
        if len(matrices):
            matrices[at] = grams.matrices.reshape(len(at), size)
            matrices[at] = np.where(grams.has_base[:, None], matrices[at], np.nan)
        answer = Answer()
        with np.errstate(over="ignore"):
            answer.result = {"facts": answer.array(facts), "gram": answer.array(matrices)}
        answer.result |= {"measured": session.measured, "key": self._key}
        return answer

    def numbers(self, settings: Settings | None = None) -> Answer:
        """What the choices give, or what others would give."""
        session, answer = self.session, Answer()
        with self.lock:
            preview = session.preview(settings=settings, measure=session.measured)
            revision = self.revision
        decisions = [preview.decisions[index] for index in self._order]
        lengths, first = preview.lengths, int(preview.has_base)
        out = np.full((len(OUTCOME) + len(session.inputs), len(decisions)), np.nan)
        out[0], forms = _numbered(decisions, session.labels)
        out[1] = [decision.open for decision in decisions]
        out[2] = lengths.estimated[self._order]
        out[3] = lengths.norms[self._order]
        if first:
            out[4] = lengths.distances[self._order, 0]
        out[len(OUTCOME) :] = lengths.distances[self._order, first:].T
        with np.errstate(over="ignore"):
            answer.result = {"revision": revision, "numbers": answer.array(out), "choices": forms}
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
            "preview": self._preview,
            "samples": self._samples,
            "choose": lambda request, *_: self._restore(self._draft(request)),
            "restore": lambda request, *_: self._restore(settings_of(request.form())),
            "exact": self._exact,
            "undo": lambda *_: self._step(self.session.undo),
            "redo": lambda *_: self._step(self.session.redo),
            "reset": lambda *_: self._step(self.session.reset),
            "explain": self._explain,
        }
        if request.what not in answers:
            raise ThetaError(f"a merge view cannot ask for {request.what!r}")
        return answers[request.what](request, stop, progress)

    def is_swift(self, request: Request) -> bool:
        """Whether a request is one for a preview, and the last one by the same methods was a matter of milliseconds."""
        methods, seconds = self._pace
        return request.what == "preview" and seconds <= _SWIFT and _methods(request) == methods

    def _preview(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        began = time.thread_time()  # not by the clock: on a busy machine everything takes long
        answer = self.numbers(self._draft(request))
        self._pace = (_methods(request), time.thread_time() - began)
        return answer

    def _samples(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        wanted = [(place, self._units[place]) for place in places_of(request.form(), len(self._units))]
        with self.lock:
            samples = self.session.samples(unit.name for _, unit in wanted)
        return packed(wanted, samples, self._key)

    def _draft(self, request: Request) -> Settings:
        """The settings that the edits of a request would give."""
        edits = edits_of(request.form(), self._members, self._everything)
        return self.session.check(edited(self.session.settings, edits, self._everything))

    def _members(self, block: str) -> Iterable[str]:
        return [name for name in self._everything if block_of(name) == block]

    def _restore(self, settings: Settings) -> Answer:
        with self.lock:
            self.session.restore(self.session.check(settings))
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

    def _exact(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        """Numbers that are no estimates; what was computed before is remembered."""

        def told(done: int, total: int) -> None:
            stop()
            progress(done, total)

        self.session.preview(exact=True, progress=told)
        return self.numbers()

    def _explain(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        with self.lock:
            return Answer({"text": self.session.explain(request.text("name"), exact=False)})


def _methods(request: Request) -> frozenset[str]:
    """Methods that the edits of a request name; nothing else is known of its form yet."""
    try:
        form = request.form()
    except ThetaError:
        return frozenset()
    return (
        frozenset(str(edit.get("method")) for edit in form if isinstance(edit, dict))
        if isinstance(form, list)
        else frozenset()
    )


def _facts(grams: Grams) -> npt.NDArray[np.float64]:
    """Columns of the facts that follow from Gram matrices; see :data:`FACTS`."""
    matrices, count = grams.matrices, len(grams.labels)
    own = np.diagonal(matrices, axis1=1, axis2=2)
    base = np.where(grams.has_base, own[:, 0], np.nan)
    out = np.full((len(FACTS) + 2 * count, len(matrices)), np.nan)
    out[3] = np.sqrt(base)
    if count > 1:
        # The distance of ours and theirs, from differences: norms of the inputs would cancel.
        out[4] = np.sqrt(np.maximum(own[:, 1] + own[:, 2] - 2 * matrices[:, 1, 2], 0))
    inputs = own[:, :1] + 2 * matrices[:, 0, 1:] + own[:, 1:]
    out[len(FACTS) : len(FACTS) + count] = np.sqrt(np.maximum(inputs, 0)).T
    out[len(FACTS) + count :] = np.where(grams.has_base, np.sqrt(np.maximum(own[:, 1:], 0)).T, np.nan)
    return out


def _numbered(decisions: Sequence[Decision], labels: tuple[str, ...]) -> tuple[list[int], list[dict[str, Any]]]:
    """Which choice each parameter has, and the choices as plain data."""
    numbers: dict[Any, int] = {}
    forms: list[dict[str, Any]] = []
    out = []
    for decision in decisions:
        # Parameters are bound once for all that a choice is about, so they are told apart by identity.
        bound = id(decision.parameters) if decision.parameters else 0
        name = decision.method and decision.method.name
        key = (decision.take, name, bound, id(decision.override), decision.reason, decision.dropped)
        if key not in numbers:
            numbers[key] = len(forms)
            forms.append(_called(decision, labels))
        out.append(numbers[key])
    return out, forms


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
