"""What a command's output goes to: colours, progress bars and encodings of standard output and standard error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

__all__ = [
    "Progress",
    "ProgressFactory",
    "Style",
    "colour_wanted",
    "human_size",
    "prepare_streams",
    "progress_bars",
    "silence_stdout",
]

Progress = Callable[[int, int], None]
"""Told how much is done, of how much."""


class ProgressFactory(Protocol):
    """Opens a progress display for the time of one piece of work; ``None`` where there is nobody to see it."""

    def __call__(self, what: str, *, unit: str = "B") -> AbstractContextManager[Progress | None]:
        """A display that says what is being done."""
        ...


class Style:
    """Emphasis for a terminal that can show it.

    Parameters
    ----------
    colour
        Whether to emit escape sequences; plain text otherwise.

    Examples
    --------
    >>> Style(colour=False).red("missing")
    'missing'
    """

    def __init__(self, *, colour: bool = False) -> None:
        self._colour = colour

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and text else text

    def bold(self, text: str) -> str:
        """What a line is about."""
        return self._wrap("1", text)

    def dim(self, text: str) -> str:
        """What may be skipped."""
        return self._wrap("2", text)

    def red(self, text: str) -> str:
        """What is wrong, removed or not staged."""
        return self._wrap("31", text)

    def green(self, text: str) -> str:
        """What is right, added or staged."""
        return self._wrap("32", text)

    def yellow(self, text: str) -> str:
        """What needs attention."""
        return self._wrap("33", text)


def colour_wanted(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether output to ``stream`` may be coloured: on a terminal that is not dumb, unless ``NO_COLOR`` is set."""
    # https://no-color.org: present and not empty, whatever its value.
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and stream.isatty()


def human_size(nbytes: int) -> str:
    """A length in bytes, to be read by people.

    Examples
    --------
    >>> human_size(999), human_size(90_900_000), human_size(2 * 10**12)
    ('999 B', '90.9 MB', '2.0 TB')
    """
    size = float(nbytes)
    if size < 1000:
        return f"{nbytes} B"
    units = iter(("kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    size /= 1000
    while size >= 999.95:
        size, unit = size / 1000, next(units, "PB")
    return f"{size:.1f} {unit}"


def prepare_streams() -> None:
    """Make standard output and error survive every path name, whatever the terminal's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def progress_bars(stream: TextIO) -> ProgressFactory:
    """Progress bars on ``stream``, shown only if it is a terminal."""

    @contextmanager
    def bar(what: str, *, unit: str = "B") -> Iterator[Progress | None]:
        if not stream.isatty():
            yield None
            return
        from tqdm import tqdm

        # Nothing is drawn for work that takes no time.
        with tqdm(desc=what, unit=unit, unit_scale=True, file=stream, leave=False, delay=0.5, total=0) as shown:

            def progress(done: int, total: int) -> None:
                shown.total = total
                shown.update(done - shown.n)

            yield progress

    return bar


def silence_stdout() -> None:
    """After the reader of a pipe has left: have nothing more written to it, not even at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
