"""Progress in a notebook: one display that is updated, and ends as a summary of what was done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from theta_nb.commands.terminal import Progress, ProgressFactory, progress_bars
from theta_nb.report.fragments import Markup, fragment, text
from theta_nb.report.numbers import size

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["ProgressDisplay", "progress_displays"]

_DELAY = 0.5
"""Seconds before anything is shown: nobody needs a bar for work that takes no time."""
_STEP = 0.1
"""Seconds between two updates; each is a message to the browser."""


class ProgressDisplay:
    """One piece of work.

    Parameters
    ----------
    what
        What is being done ("checking").
    unit
        ``"B"`` for bytes, else a plain count.
    """

    def __init__(self, what: str, unit: str = "B") -> None:
        self._what = what
        self._unit = unit
        self._start = time.monotonic()
        self._shown_at = self._start + _DELAY - _STEP
        self._handle: Any = None
        self._done = self._total = 0

    def __call__(self, done: int, total: int) -> None:
        """Note how much is done; shown a few times a second."""
        self._done, self._total = done, total
        now = time.monotonic()
        if now - self._shown_at < _STEP or done >= total:
            return
        self._shown_at = now
        self._show(self._bar())

    def close(self, *, failed: bool = False) -> None:
        """Leave a summary, if anything was shown."""
        if self._handle is None:
            return
        took = f"{time.monotonic() - self._start:.1f} s"
        outcome = "stopped after" if failed else "done in"
        line = f"{self._what}: {self._amount(self._done)}, {outcome} {took}"
        self._show({"text/plain": line, "text/html": fragment(Markup(f"<span class='dim'>{text(line)}</span>"))})

    def _bar(self) -> dict[str, str]:
        share = self._done / self._total if self._total else 0.0
        line = f"{self._what}: {self._amount(self._done)} of {self._amount(self._total)}"
        bar = f"<progress value='{share:.3f}' max='1' aria-label='{text(self._what)}'></progress> {text(line)}"
        return {"text/plain": line, "text/html": fragment(Markup(bar))}

    def _amount(self, number: int) -> str:
        return size(number) if self._unit == "B" else f"{number:,}"

    def _show(self, bundle: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)


def progress_displays(shell: InteractiveShell, *, wanted: bool) -> ProgressFactory:
    """How work shows its progress: in a notebook by a display, in a terminal by a bar, or not at all."""
    if not hasattr(shell, "kernel"):  # IPython in a terminal, where a display cannot be updated
        import sys

        return progress_bars(sys.stderr) if wanted else _nothing

    @contextmanager
    def show(what: str, *, unit: str = "B") -> Iterator[Progress | None]:
        shown = ProgressDisplay(what, unit)
        try:
            yield shown
        except BaseException:
            shown.close(failed=True)
            raise
        shown.close()

    return show if wanted else _nothing


@contextmanager
def _nothing(what: str, *, unit: str = "B") -> Iterator[Progress | None]:
    yield None
