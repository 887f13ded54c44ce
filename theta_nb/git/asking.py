"""The terminal of the person who runs git, if there is one that is looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Terminal", "open_terminal"]

_MAX_ANSWER = 10_000


class Terminal:
    """Questions go out, lines come in.

    Parameters
    ----------
    fd
        Descriptor of the terminal.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, text: str) -> None:
        """Show a text."""
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(self._fd, data) :]

    def readline(self) -> str:
        """What was typed, with its line end; without one where the terminal was closed meanwhile."""
        data = b""
        while not data.endswith(b"\n") and len(data) < _MAX_ANSWER:
            piece = os.read(self._fd, 1)
            if not piece:
                break
            data += piece
        return data.decode("utf-8", "replace")


@contextmanager
def open_terminal() -> Iterator[Terminal | None]:
    """The terminal, not standard input, which may be git's protocol; ``None`` where nobody would see a question.

    A server started from a terminal still has it, but nobody looks there: messages of what it starts go elsewhere. A
    command in a notebook's cell has one that nobody can type into.
    """
    unwanted = os.environ.get("GIT_TERMINAL_PROMPT", "") == "0" or "JPY_PARENT_PID" in os.environ
    fd = -1
    if not unwanted and os.isatty(2):
        try:
            fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            fd = -1
    if fd < 0:
        yield None
        return
    try:
        yield Terminal(fd)
    finally:
        os.close(fd)
