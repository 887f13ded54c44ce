"""Runs the user's evaluation: one at a time, stoppable, on a fork of the session; and says what went wrong."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import theta_nb
from theta_nb.engine.merging.choices import Choice, Override, Settings
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.tries import Try
from theta_nb.errors import MergeError, ThetaError
from theta_nb.jupyter.worker import Stop, Stopped

__all__ = ["Evaluator", "Failure", "NoFunctionError", "Scores", "failure_of", "offer"]

Function = Callable[[Any], Mapping[str, float] | float]
Progress = Callable[[int, int], None]
Scores = dict[str, float]

_OURS = os.path.dirname(os.path.abspath(theta_nb.__file__))
_MOST_LINES = 8
_WAIT = 0.05  # seconds between two looks at whether somebody still wants the outcome


_OFFERED: WeakKeyDictionary[MergeSession, Function] = WeakKeyDictionary()
_LIVE: WeakSet[Evaluator] = WeakSet()


def offer(session: MergeSession, function: Function) -> None:
    """Have a session evaluated by a function wherever it is shown, now and later, until another one is given."""
    _OFFERED[session] = function
    for evaluator in tuple(_LIVE):
        if evaluator.session is session:
            evaluator.use(function, evaluator.into)


class _Ended(BaseException):
    """Ends a function from within; no :class:`Exception`, since functions of others catch those."""


class NoFunctionError(ThetaError):
    """There is nothing to evaluate with."""

    def __init__(self) -> None:
        super().__init__(
            "there is no evaluation yet",
            hint="Define one in a cell that begins with '%%theta evaluate NAME', or give MergeExplorer(…, evaluate=f).",
        )


@dataclass(frozen=True)
class Failure:
    """What went wrong in somebody's function.

    Parameters
    ----------
    text
        Type and message of the error.
    lines
        Where: place and source of every line of the function, and the last one elsewhere.
    """

    text: str
    lines: tuple[tuple[str, str], ...] = ()

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {"text": self.text, "lines": [list(line) for line in self.lines]}


def failure_of(error: BaseException) -> Failure:
    """What to show of an error: of the traceback only what is the user's own.

    Examples
    --------
    >>> def score(state):
    ...     return state["missing"]
    >>> try:
    ...     score({})
    ... except KeyError as error:
    ...     failure_of(error).text
    "KeyError: 'missing'"
    """
    if isinstance(error, ThetaError):
        return Failure(str(error))
    frames = traceback.extract_tb(error.__traceback__)
    while frames and frames[0].filename.startswith(_OURS):
        frames.pop(0)
    text = "".join(traceback.format_exception_only(error)).strip()
    if not frames:
        return Failure(text[:2000])
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    shown = own if frames[-1] in own else [*own, frames[-1]]
    lines = [(f"{_place(one.filename)}, line {one.lineno}, in {one.name}", one.line or "") for one in shown]
    return Failure(text[:2000], tuple(lines[-_MOST_LINES:]))


def _place(filename: str) -> str:
    """A file as people know it: cells have names that mean nothing."""
    return "cell" if "ipykernel_" in filename or filename.startswith("<") else os.path.basename(filename)


class Evaluator:
    """Evaluates merges, one after the other.

    Parameters
    ----------
    session
        Whose choices are evaluated; they are never changed here.
    function
        The user's; by default the one that was offered for this session.
    into
        Model or state dict that results are put into.
    changed
        Called when another function is used.
    """

    def __init__(
        self,
        session: MergeSession,
        function: Function | None = None,
        into: Any = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.session = session
        self.function = function or _OFFERED.get(session)
        self.into = into
        self.references: dict[str, Scores] = {}
        """Scores of the inputs and the ancestor, by label, as far as they are known."""
        self._changed = changed
        self._busy = threading.Lock()
        _LIVE.add(self)

    @property
    def name(self) -> str:
        """What the function is called; empty if there is none."""
        return "" if self.function is None else str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def target(self) -> str:
        """What the function gets, in a few words."""
        if self.into is None:
            return "a state dict"
        kind = type(self.into).__name__
        return "a state dict of this notebook" if isinstance(self.into, Mapping) else f"a {kind} of this notebook"

    def use(self, function: Function | None, into: Any = None) -> None:
        """Evaluate with another function from now on."""
        self.function, self.into, self.references = function, into, {}
        self._changed()

    def close(self) -> None:
        """Let go of the function and the model."""
        _LIVE.discard(self)
        self.function, self.into, self.references, self._changed = None, None, {}, lambda: None

    @contextmanager
    def bench(self, stop: Stop) -> Iterator[Bench]:
        """A place to evaluate; while somebody has it, others wait until they are stopped.

        Raises
        ------
        NoFunctionError
            If there is no function.
        """
        if self.function is None:
            raise NoFunctionError
        with self._alone(stop):
            yield Bench(self, self.session.fork(), self.function, stop)

    def fill(self, stop: Stop) -> None:
        """Have the model hold what is chosen, if something is."""
        fork = self.session.fork()
        if self.into is None or (fork.settings.default is None and fork.open):
            return
        with self._alone(stop):
            fork.materialize(self.into, lambda *_: stop())

    @contextmanager
    def _alone(self, stop: Stop) -> Iterator[None]:
        while not self._busy.acquire(timeout=_WAIT):
            stop()
        try:
            yield
        finally:
            self._busy.release()


@dataclass
class Bench:
    """Where evaluations are done, in one thread.

    Parameters
    ----------
    evaluator
        Whose.
    fork
        A session to choose in.
    function
        The user's.
    stop
        Raises :class:`Stopped` when the outcome is not wanted any more; also within the function.
    """

    evaluator: Evaluator
    fork: MergeSession
    function: Function
    stop: Stop

    def evaluate(self, settings: Settings, progress: Progress | None = None) -> Try:
        """Evaluate choices; the outcome is a numbered try of the session."""
        self.fork.restore(settings)
        return self.fork.tries.evaluate(self._guarded, self.evaluator.into, progress=self._told(progress))

    def reference(self, label: str) -> Scores:
        """Scores of an input, or of the ancestor; remembered."""
        known = self.evaluator.references
        if label not in known:
            self.fork.restore(_taking(label, self.fork))
            found, _ = self.fork.tries.measured(self._guarded, self.evaluator.into, progress=self._told(None))
            known[label] = found
        return known[label]

    def _told(self, progress: Progress | None) -> Progress:
        def told(done: int, total: int) -> None:
            self.stop()
            if progress is not None:
                progress(done, total)

        return told

    def _guarded(self, model: Any) -> Any:
        """The user's function, which ends when it calls something after it was stopped."""
        self.stop()

        def at_call(frame: FrameType, event: str, argument: Any) -> None:
            try:
                self.stop()
            except Stopped as moved_on:
                raise _Ended from moved_on

        before = sys.getprofile()
        try:
            # Python cannot end a thread from outside: whatever the function calls is where it can be ended.
            if before is None:  # a profiler that is at work has precedence
                sys.setprofile(at_call)
            found = self.function(model)
        except _Ended:
            raise Stopped from None
        except SystemExit as error:
            raise MergeError(f"the evaluation ended with {error!r}") from error
        finally:
            if before is None:
                sys.setprofile(None)
        self.stop()
        return found


def _taking(label: str, session: MergeSession) -> Settings:
    """Choices whose result is one of the inputs, or the ancestor."""
    if label not in session.labels:
        return Settings(None, (Override("*", Choice("original", {})),))
    which = session.labels.index(label)
    choice = Choice("theirs", {"which": which}) if which else Choice("ours", {})
    return Settings(None, (Override("*", choice),))


def stopped(error: BaseException) -> bool:
    """Whether an error, or what it came from, is that nobody wants the outcome."""
    while error is not None:
        if isinstance(error, Stopped):
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False
