"""The sweep panel on the side of Python: evaluates a line or a grid of settings, point by point."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.recipe import complete_settings, settings_json
from theta_nb.errors import MergeError, ThetaError
from theta_nb.jupyter.answers import Answer, Request
from theta_nb.jupyter.evaluation_desk import labels_of, numbers
from theta_nb.jupyter.evaluator import Bench, Evaluator, Failure, NoFunctionError, failure_of, stopped
from theta_nb.jupyter.worker import Stop, Stopped

if TYPE_CHECKING:
    from theta_nb.jupyter.merge_explorer import MergeExplorer

__all__ = ["Axis", "SweepDesk", "axes_of", "points_of"]

Progress = Callable[[int, int], None]

_MOST_POINTS = 400
_STEP = 0.2  # seconds between two messages with new points


@dataclass(frozen=True)
class Axis:
    """Values of one parameter.

    Parameters
    ----------
    name
        Parameter of the method in use.
    label
        Input whose value it is; empty for that of all.
    values
        In order.
    """

    name: str
    label: str
    values: tuple[float, ...]

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.name} of {self.label}" if self.label else self.name


def axes_of(form: Any, choice: Choice, labels: tuple[str, ...]) -> tuple[Axis, ...]:
    """One or two axes from plain data that a browser sent.

    Parameters
    ----------
    form
        A list of objects with ``name``, ``label``, ``low``, ``high`` and ``count``.
    choice
        The method in use.
    labels
        Names of the inputs.

    Raises
    ------
    MergeError
        If it is anything else.

    Examples
    --------
    >>> axes_of([{"name": "t", "label": "", "low": 0, "high": 1, "count": 3}], Choice("slerp", {}), ("ours", "theirs"))
    (Axis(name='t', label='', values=(0.0, 0.5, 1.0)),)
    """
    if not isinstance(form, list) or len(form) not in (1, 2):
        raise MergeError("a sweep goes over one parameter or two")
    axes = tuple(_axis(one, choice, labels) for one in form)
    if len({(axis.name, axis.label) for axis in axes}) < len(axes):
        raise MergeError(f"both axes are {axes[0].title}", hint="Choose another parameter for one of them.")
    return axes


def _axis(form: Any, choice: Choice, labels: tuple[str, ...]) -> Axis:
    if not isinstance(form, dict) or form.keys() != {"name", "label", "low", "high", "count"}:
        raise MergeError("an axis has a name, a label, a low and a high end, and a count")
    name, label, count = form["name"], form["label"], form["count"]
    spec = choice.function.parameter(str(name))
    if spec.kind not in ("float", "int"):
        raise MergeError(f"{name} is no number, and cannot be swept")
    if label != "" and (label not in labels or not spec.per_model):
        raise MergeError(f"{name} has no value of its own for {str(label)[:100]!r}")
    ends = [float(form[key]) for key in ("low", "high") if _is_number(form[key])]
    if len(ends) < 2 or not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST_POINTS:
        raise MergeError(f"the values of {name} are two numbers, and how many from one to the other")
    low, high = ends
    steps = [low + (high - low) * k / max(1, count - 1) for k in range(count)]
    if spec.kind == "int":
        steps = list(dict.fromkeys(float(round(value)) for value in steps))
    # Nine digits: what is shown is what is used, 0.3 and not 0.30000000000000004.
    values = tuple(float(f"{value:.9g}") for value in steps)
    for value in values:
        spec.parse(int(value) if spec.kind == "int" else value)
    return Axis(str(name), str(label), values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def points_of(axes: tuple[Axis, ...], mode: str) -> list[tuple[float, ...]]:
    """Values of all points: every combination, or along a line on which both move together.

    Raises
    ------
    MergeError
        If there are too many.

    Examples
    --------
    >>> axes = (Axis("a", "", (0.0, 1.0)), Axis("b", "", (5.0, 6.0)))
    >>> points_of(axes, "line"), len(points_of(axes, "grid"))
    ([(0.0, 5.0), (1.0, 6.0)], 4)
    """
    if mode == "line" and len(axes) > 1:
        if len({len(axis.values) for axis in axes}) > 1:
            raise MergeError("along a line both parameters take as many values")
        return list(zip(*(axis.values for axis in axes), strict=True))
    found: list[tuple[float, ...]] = [()]
    for axis in axes:
        found = [(*point, value) for point in found for value in axis.values]
    if len(found) > _MOST_POINTS:
        raise MergeError(f"{len(found)} points are too many", hint=f"Take fewer steps: up to {_MOST_POINTS} points.")
    return found


def settings_at(
    settings: Settings, axes: tuple[Axis, ...], point: tuple[float, ...], labels: tuple[str, ...]
) -> Settings:
    """What is chosen at a point: the method in use with other values of one or two parameters."""
    choice = settings.default
    if choice is None:
        raise MergeError("no method is in use", hint="Choose one first.")
    given = dict(choice.parameters)
    for axis, value in zip(axes, point, strict=True):
        spec = choice.function.parameter(axis.name)
        used = int(value) if spec.kind == "int" else value
        if not axis.label:
            given[axis.name] = used
            continue
        before = given.get(axis.name, spec.default)
        each = before if isinstance(before, Mapping) else dict.fromkeys(labels, before)
        given[axis.name] = {label: each.get(label, spec.default) for label in labels} | {axis.label: used}
    return replace(settings, default=Choice(choice.method, given))


class SweepDesk:
    """Answers for the sweep panel.

    Requests: ``run`` with ``form`` ``{axes, mode}``; ``adopt`` with the ``number`` of a try.

    Parameters
    ----------
    explorer
        Whose panel it is.
    """

    def __init__(self, explorer: MergeExplorer) -> None:
        self._explorer = explorer
        self._evaluator: Evaluator = explorer.evaluator
        self._clear((), "line", 0, None)

    def _clear(self, axes: tuple[Axis, ...], mode: str, total: int, settings: Settings | None) -> None:
        self._axes, self._mode, self._total, self._settings = axes, mode, total, settings
        self._points: list[dict[str, Any]] = []
        self._failure: Failure | None = None
        self._running = False

    def state(self) -> dict[str, Any]:
        """What ``static/sweep_panel.js`` draws."""
        return {
            "function": self._evaluator.name,
            "settings": None if self._settings is None else settings_json(self._settings),
            "axes": [{"name": a.name, "label": a.label, "title": a.title, "values": a.values} for a in self._axes],
            "mode": self._mode,
            "total": self._total,
            "points": list(self._points),
            "running": self._running,
            "labels": labels_of(self._evaluator),
            "references": {label: numbers(found) for label, found in self._evaluator.references.items()},
            "failure": None if self._failure is None else self._failure.json(),
        }

    def answer(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        """Answer a request of the panel."""
        if request.what == "adopt":
            session = self._evaluator.session
            with self._explorer.lock:
                session.restore(session.tries.number(request.number("number")).settings)
            self._explorer.fill()
            return Answer()
        if request.what != "run":
            raise ThetaError(f"the sweep panel cannot ask for {request.what!r}")
        form = request.form()
        if not isinstance(form, dict) or form.keys() != {"axes", "mode"} or form["mode"] not in ("line", "grid"):
            raise MergeError("a sweep has axes, and goes along a line or over a grid")
        return self._run(form, stop, progress)

    def _run(self, form: dict[str, Any], stop: Stop, progress: Progress) -> Answer:
        session = self._evaluator.session
        settings, labels = session.settings, session.labels
        if settings.default is None:
            raise MergeError("no method is in use", hint="Choose one first.")
        axes = axes_of(form["axes"], settings.default, labels)
        points = points_of(axes, form["mode"])
        for point in (points[0], points[-1]):  # refused now, and not in the middle
            session.check(settings_at(settings, axes, point, labels))
        try:
            with self._evaluator.bench(stop) as bench:
                self._clear(axes, form["mode"], len(points), complete_settings(settings))
                self._running = True
                for made in self._evaluated(bench, settings, points, progress):
                    self._points.append(made)
        except (NoFunctionError, Stopped):
            raise
        except Exception as error:
            if stopped(error):
                raise Stopped from error
            self._failure = failure_of(error)
        finally:
            self._running = False
            self._explorer.fill()
            self._explorer.refresh("sweep")
            self._explorer.refresh("evaluation")
        return Answer({"failed": self._failure is not None, "points": len(self._points)})

    def _evaluated(
        self, bench: Bench, settings: Settings, points: list[tuple[float, ...]], progress: Progress
    ) -> Iterator[dict[str, Any]]:
        """Evaluate the reference lines, then point by point."""
        said = -math.inf
        for label in labels_of(self._evaluator):
            try:
                bench.reference(label)
            except ThetaError:
                continue  # a version that does not fit into the model has no line
        for done, point in enumerate(points, 1):
            one = bench.evaluate(settings_at(settings, self._axes, point, self._evaluator.session.labels))
            yield {"values": list(point), "number": one.number, "metrics": numbers(one.metrics)}
            progress(done, len(points))
            if time.monotonic() - said > _STEP:
                said = time.monotonic()
                self._explorer.refresh("sweep")

    def close(self) -> None:
        """Let go of the points."""
        self._clear((), "line", 0, None)
