"""Whole processes, measured: wall clock, processor time and peak memory of everything they start.

Only the standard library is imported: a child inherits the peak memory of the process that starts it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BenchmarkError", "Sample", "measure", "run", "settle", "sha256", "tree_nbytes", "warm"]


class BenchmarkError(Exception):
    """A contender did not do what is measured."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one command took.

    Parameters
    ----------
    seconds
        Wall clock from start to exit.
    cpu
        User and system time of the command and all its children.
    peak
        Largest resident memory of any one of them, in bytes.
    """

    seconds: float
    cpu: float
    peak: int


def measure(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Sample:
    """Run a command in a session of its own and wait for it; an interruption ends all that it started.

    Raises
    ------
    BenchmarkError
        If it exits with another status than 0; the message holds its output.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            words = said.read().decode("utf-8", "replace").strip()
            raise BenchmarkError(f"{' '.join(command)} gave {process.returncode}:\n{words[-4000:]}")
    return Sample(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> str:
    """Output of a command that is not measured.

    Raises
    ------
    BenchmarkError
        If it exits with another status than 0.
    """
    result = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise BenchmarkError(
            f"{' '.join(command)} gave {result.returncode}:\n{(result.stdout + result.stderr)[-4000:]}"
        )
    return result.stdout


def settle(*inputs: Path) -> None:
    """Before every timed step: nothing left to write from the step before, and the inputs in the page cache."""
    os.sync()
    for path in inputs:
        warm(path)


def warm(path: Path) -> None:
    """Read a file, or all files of a folder, into the page cache."""
    for file in _files(path):
        with open(file, "rb", buffering=0) as stream:
            while stream.read(2**20):
                pass


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_nbytes(path: Path) -> int:
    """Total length of the files of a folder, in bytes."""
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
