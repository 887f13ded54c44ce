"""Read many of git's objects through one process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from typing import IO

from theta_nb.git.process import GitError, child_environment

__all__ = ["CatFile"]


class CatFile:
    """Reads objects through long-lived ``git cat-file`` processes, started on first use.

    Only object names and ``REV:path`` may be asked for: the process keeps the first index it read, so ``:path`` would
    go stale.

    Parameters
    ----------
    cwd
        Directory of the repository.
    """

    def __init__(self, cwd: str | os.PathLike[str] | None = None) -> None:
        self._cwd = cwd
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def size(self, name: str) -> tuple[str, int] | None:
        """Object id and size of the blob called ``name``, or ``None`` if there is none."""
        header = self._ask("--batch-check", name)[0].split()
        if len(header) != 3 or header[1] != b"blob":
            return None
        return header[0].decode("ascii"), int(header[2])

    def read(self, oid: str) -> bytes:
        """Content of a blob.

        Raises
        ------
        GitError
            If it does not exist.
        """
        line, stream = self._ask("--batch", oid)
        header = line.split()
        if len(header) != 3:
            raise GitError(f"git object {oid} cannot be read", returncode=128)
        data = stream.read(int(header[2]))
        stream.read(1)
        return data

    def _ask(self, mode: str, name: str) -> tuple[bytes, IO[bytes]]:
        if "\n" in name:
            return b"missing", io.BytesIO()
        process = self._processes.get(mode)
        if process is not None and process.poll() is not None:
            # A name outside the repository (COMMIT:../x) ends it.
            with contextlib.suppress(OSError):
                process.communicate()
            process = None
        if process is None:
            process = self._processes[mode] = subprocess.Popen(
                ["git", "cat-file", mode],
                cwd=self._cwd,
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        if process.stdin is None or process.stdout is None:  # never: both are pipes
            raise GitError("git cat-file has no pipes", returncode=128)
        process.stdin.write(os.fsencode(name) + b"\n")
        process.stdin.flush()
        return process.stdout.readline(), process.stdout

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            with contextlib.suppress(OSError):
                process.communicate()
        self._processes.clear()
