"""The terminal of the person who runs git, if there is one that is looked at."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

__all__ = ["Terminal", "open_terminal"]

_MAX_ANSWER = 10_000
_CTRL_C = b"\x03"


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

    def readline(self, *, interrupts: bool = True) -> str:
        """What was typed, with its line end; without one where the terminal was closed meanwhile.

        Parameters
        ----------
        interrupts
            Whether Ctrl-C ends this program and the git that started it, which then leaves its temporary files behind.
            If not, it ends the line.
        """
        with nullcontext() if interrupts else self._without_interrupts():
            data = b""
            while data[-1:] not in (b"\n", _CTRL_C) and len(data) < _MAX_ANSWER:
                piece = os.read(self._fd, 1)
                if not piece:
                    break
                data += piece
        return data.decode("utf-8", "replace")

    @contextmanager
    def _without_interrupts(self) -> Iterator[None]:
        before = termios.tcgetattr(self._fd)
        changed = termios.tcgetattr(self._fd)
        changed[3] &= ~termios.ISIG
        changed[6][termios.VEOL] = _CTRL_C  # or it would wait for the end of the line
        termios.tcsetattr(self._fd, termios.TCSADRAIN, changed)
        try:
            yield
        finally:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, before)


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
