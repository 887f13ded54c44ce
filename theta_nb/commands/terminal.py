"""What a command's output goes to: colours, progress bars and encodings of standard output and standard error."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from theta_nb.report.numbers import size as human_size
from theta_nb.report.visible import visible
from theta_nb.report.wording import count, folded, shown_path

__all__ = [
    "Progress",
    "ProgressFactory",
    "Style",
    "colour_wanted",
    "columns_of",
    "count",
    "folded",
    "git_allows_colour",
    "human_size",
    "prepare_streams",
    "progress_bars",
    "shown_path",
    "silence_stdout",
    "visible",
]

_EXPANDED = re.compile(r"[$`\\!]")  # within double quotes

Progress = Callable[[int, int], None]
"""Told how much is done, of how much."""


class ProgressFactory(Protocol):
    """Opens a progress display for the time of one piece of work; ``None`` where there is nobody to see it."""

    def __call__(self, what: str, *, unit: str = "B") -> AbstractContextManager[Progress | None]:
        """A display that says what is being done."""
        ...


class Style:
    """How a terminal shows names and emphasis.

    Parameters
    ----------
    colour
        Whether to emit escape sequences; plain text otherwise.
    prefix
        Folder, relative to the top of the work tree, that shown paths start from.
    columns
        Width of the terminal; 0 where output goes elsewhere, and lines may be of any length.

    Examples
    --------
    >>> Style(prefix="models").path("models/a.pt"), Style().red("missing")
    ('a.pt', 'missing')
    """

    def __init__(self, *, colour: bool = False, prefix: str = "", columns: int = 0) -> None:
        self._colour = colour
        self._prefix = prefix
        self.columns = columns

    def path(self, path: str) -> str:
        """A path of the work tree as it has to be typed here, on one line."""
        return shown_path(self.relative(path))

    def relative(self, path: str) -> str:
        """The same, with every character as it is."""
        return os.path.relpath(path, self._prefix) if self._prefix and not os.path.isabs(path) else path

    def word(self, path: str) -> str:
        """The same as one word of a shell, for commands that are to be copied."""
        shown = self.path(path)
        if shown.startswith('"'):
            return f"$'{shown[1:-1]}'".replace('\\"', '"')
        quoted = shlex.quote(shown)
        return f'"{shown}"' if quoted != shown and not _EXPANDED.search(shown) else quoted

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


def git_allows_colour() -> bool:
    """Whether git's own ``color.ui`` (or ``color.theta``) leaves a terminal its colours."""
    from theta_nb.git.process import GitError, git_text

    try:
        return git_text("config", "--get-colorbool", "color.theta", "true").strip() != "false"
    except GitError:  # no git, or a broken configuration, which is for others to complain of
        return True


def columns_of(stream: TextIO) -> int:
    """Width of the terminal behind a stream; 0 where there is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else 0


def prepare_streams() -> None:
    """Make standard output and error survive every path name in any encoding, and having been closed."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
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
    """Have nothing more written to standard output, not even at exit: its reader has left, or its disk is full."""
    with contextlib.suppress(OSError):  # where it is no file, nothing is written at exit
        fd = sys.stdout.fileno()
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, fd)
        os.close(devnull)
