"""Start a command, wait for a moment, and kill a part of what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK = 0.0005
"""How often a moment is looked for, in seconds."""

LIMIT = 60.0
"""When a command that does not end is given up, in seconds."""

Moment = Callable[[float], bool]
"""Whether the time has come, given the seconds since the start."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status (negative: the signal) and what was said by all its processes."""

    returncode: int
    stderr: str
    killed: bool


def run_and_kill(
    arguments: Sequence[str], cwd: Path, moment: Moment, victims: Callable[[int], list[int]], number: signal.Signals
) -> Ended:
    """Run a command in a session of its own and send a signal to some of its processes.

    Parameters
    ----------
    arguments, cwd
        The command.
    moment
        Asked again and again; the signal is sent as soon as it says yes and there is somebody to send it to.
    victims
        Ids of the processes to kill, given the session; asked anew until there are any.
    number
        The signal.
    """
    process = subprocess.Popen(
        arguments,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell's background job ignores SIGINT and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    start = time.monotonic()
    killed = False
    while not killed and process.poll() is None:
        elapsed = time.monotonic() - start
        assert elapsed < LIMIT, f"{arguments} does not end"
        if moment(elapsed):
            for pid in victims(process.pid):
                killed = _kill(pid, number) or killed
        time.sleep(TICK)
    with process.stderr as stderr:
        said = stderr.read().decode("utf-8", "replace")
    returncode = process.wait()
    while list(_processes(process.pid)):  # children of what was killed go on until they notice
        assert time.monotonic() - start < LIMIT, f"something that {arguments} started does not end"
        time.sleep(TICK)
    return Ended(returncode, said, killed)


def _kill(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def leader(session: int) -> list[int]:
    """The command itself."""
    return [session]


def group(session: int) -> list[int]:
    """Everything, as Ctrl-C in a terminal."""
    return [-session]


def filters(session: int) -> list[int]:
    """The filter processes of the session."""
    return [pid for pid, command in _processes(session) if b"filter-process" in command]


def command_of(name: bytes) -> Callable[[int], list[int]]:
    """The processes whose command line holds a word."""
    return lambda session: [pid for pid, command in _processes(session) if name in command.split(b"\0")]


def _processes(session: int) -> Iterator[tuple[int, bytes]]:
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            status = Path("/proc", name, "stat").read_text()
            command = Path("/proc", name, "cmdline").read_bytes()
        except OSError:
            continue
        # The command's name, in parentheses, may hold anything; behind it: state, parent, group, session.
        if int(status.rpartition(")")[2].split()[3]) == session:
            yield int(name), command
