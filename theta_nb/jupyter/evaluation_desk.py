"""The evaluation panel on the side of Python: scores of what is chosen now, beside those of what is merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from theta_nb.engine.merging.recipe import complete_settings, settings_json
from theta_nb.engine.merging.tries import Try
from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer, Request
from theta_nb.jupyter.evaluator import Bench, Evaluator, Failure, NoFunctionError, failure_of, stopped
from theta_nb.jupyter.worker import Stop, Stopped

if TYPE_CHECKING:
    from theta_nb.jupyter.merge_explorer import MergeExplorer

__all__ = ["EvaluationDesk", "labels_of", "numbers"]

Progress = Callable[[int, int], None]


class EvaluationDesk:
    """Answers for the evaluation panel.

    Requests: ``evaluate`` with ``auto`` 1 where nobody pressed a button (what was evaluated already is then not
    evaluated again); ``references``, the scores of the inputs and the ancestor.

    Parameters
    ----------
    explorer
        Whose panel it is.
    """

    def __init__(self, explorer: MergeExplorer) -> None:
        self._explorer = explorer
        self._evaluator: Evaluator = explorer.evaluator
        self._failure: Failure | None = None
        self._last = 0
        self._unavailable: dict[str, str] = {}

        def changed() -> None:
            explorer.soon("scores", lambda _: explorer.refresh("evaluation"))

        session = self._evaluator.session
        self._unwatch = [session.watch(changed), session.tries.watch(changed)]

    def state(self) -> dict[str, Any]:
        """What ``static/evaluation_panel.js`` draws."""
        known = self._known(self._evaluator.session.settings)  # maybe evaluated before, or in a sweep or a cell
        last = known.number if known is not None else self._last
        return {
            "function": self._evaluator.name,
            "target": self._evaluator.target,
            "last": None if not last else self._described(last),
            "labels": labels_of(self._evaluator),
            "references": {label: numbers(found) for label, found in self._evaluator.references.items()},
            "unavailable": self._unavailable,
            "failure": None if self._failure is None else self._failure.json(),
        }

    def _described(self, number: int) -> dict[str, Any]:
        one = self._evaluator.session.tries.number(number)
        settings = settings_json(complete_settings(one.settings))
        metrics = numbers(one.metrics)
        return {"number": one.number, "settings": settings, "metrics": metrics, "seconds": round(one.seconds, 3)}

    def answer(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        """Answer a request of the panel."""
        work = {"evaluate": self._evaluate, "references": self._references}.get(request.what)
        if work is None:
            raise ThetaError(f"the evaluation panel cannot ask for {request.what!r}")
        try:
            with self._evaluator.bench(stop) as bench:
                work(bench, request, progress)
            self._failure = None
        except NoFunctionError:
            raise
        except Stopped:
            raise
        except Exception as error:
            if stopped(error):
                raise Stopped from error
            self._failure = failure_of(error)
        finally:
            self._explorer.fill()
            self._explorer.refresh("evaluation")
        return Answer({"failed": self._failure is not None})

    def _evaluate(self, bench: Bench, request: Request, progress: Progress) -> None:
        settings = self._evaluator.session.settings
        known = self._known(settings) if request.number("auto") else None
        if known is None:
            known = bench.evaluate(settings, progress)
        self._last = known.number

    def _known(self, settings: Any) -> Try | None:
        return next(reversed(self._evaluator.session.tries.having(settings)), None)

    def _references(self, bench: Bench, request: Request, progress: Progress) -> None:
        labels = labels_of(self._evaluator)
        self._unavailable = {}
        for done, label in enumerate(labels):
            progress(done, len(labels))
            try:
                bench.reference(label)
            except ThetaError as error:  # a version that does not fit into the model has no score
                self._unavailable[label] = str(error)

    def close(self) -> None:
        """Let go of the function and the model."""
        for end in self._unwatch:
            end()
        self._evaluator.close()


def labels_of(evaluator: Evaluator) -> list[str]:
    """What has reference scores: the inputs, and the ancestor if there is one."""
    session = evaluator.session
    return [*session.labels, *([session.base.label] if session.base is not None else [])]


def numbers(scores: Any) -> dict[str, float | str]:
    """Metrics as JSON has them: what is no finite number is a text."""
    finite = float("inf")
    return {name: value if -finite < value < finite else str(value) for name, value in scores.items()}
