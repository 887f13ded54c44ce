"""git's side of the filter protocol, by hand: a test decides what is sent, when, and in which pieces."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

PACKET = 65516

Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class Answer:
    """What the filter said to one request: its last status, and the content where it was collected."""

    status: str
    content: bytes = b""


def pieces(data: bytes) -> Iterator[bytes]:
    """``data`` in packets of full length, as git cuts it."""
    for start in range(0, len(data), PACKET):
        yield data[start : start + PACKET]


class FilterClient:
    """One ``git-theta filter-process`` and git's end of its pipes.

    Parameters
    ----------
    cwd
        Top of the work tree, where git starts filters.
    """

    def __init__(self, cwd: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "theta_nb", "filter-process"],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.stderr = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def shake_hands(self) -> None:
        """Agree on version 2 and on clean and smudge."""
        self.lines("git-filter-client", "version=2")
        assert self._text() == ["git-filter-server", "version=2"]
        self.lines("capability=clean", "capability=smudge", "capability=delay")
        assert {"capability=clean", "capability=smudge"} <= set(self._text())

    def begin(self, command: str, path: str) -> None:
        """Send the head of a request."""
        self.lines(f"command={command}", f"pathname={path}")

    def lines(self, *lines: str) -> None:
        """Send text packets and a flush packet."""
        self._all(b"".join(_packet(os.fsencode(line) + b"\n") for line in lines) + b"0000")

    def send(self, data: bytes) -> None:
        """Send content; the caller ends it with :meth:`end`."""
        for piece in pieces(data):
            self._all(_packet(piece))

    def end(self) -> None:
        """End the content."""
        self._all(b"0000")

    def answer(self, sink: Sink | None = None) -> Answer:
        """Read the answer; content goes to ``sink`` where there is one."""
        first = self._status(self._text())
        if first != "success":
            return Answer(first)
        collected = bytearray()
        while piece := self._packet():
            (sink or collected.extend)(piece)
        return Answer(self._status(self._text(), first), bytes(collected))

    def request(self, command: str, path: str, content: Iterable[bytes] | bytes, sink: Sink | None = None) -> Answer:
        """One whole request and its answer."""
        self.begin(command, path)
        for piece in pieces(content) if isinstance(content, bytes) else content:
            self._all(_packet(piece))
        self.end()
        return self.answer(sink)

    def peak(self) -> int:
        """Most memory that the filter has had resident so far, in bytes."""
        return peak_of(self.process.pid)

    def close(self) -> int:
        """Hang up, as git does when it is done; returns the exit status."""
        if not self.stdin.closed:
            self.stdin.close()
        self.stdout.close()
        assert self.process.stderr is not None
        if not self.process.stderr.closed:
            with self.process.stderr as stderr:
                self.stderr += stderr.read().decode("utf-8", "replace")
        return self.process.wait()

    def _all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.stdin.fileno(), view) :]

    def _packet(self) -> bytes:
        """Data of the next packet; empty for a flush packet."""
        length = int(self._exactly(4), 16)
        return self._exactly(length - 4) if length else b""

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = os.read(self.stdout.fileno(), count - len(data))
            if not piece:
                self.close()
                raise EOFError(f"the filter hung up: {self.stderr}")
            data += piece
        return data

    def _text(self) -> list[str]:
        found = []
        while line := self._packet():
            found.append(os.fsdecode(line.removesuffix(b"\n")))
        return found

    @staticmethod
    def _status(lines: list[str], default: str = "") -> str:
        return lines[-1].removeprefix("status=") if lines else default


def _packet(data: bytes) -> bytes:
    return b"%04x%s" % (len(data) + 4, data)


def peak_of(pid: int) -> int:
    """Most memory that a living process has had resident so far, in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
