"""Objects through the real git-lfs: every server, protocol and way to log in that it knows."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from theta_nb.errors import ThetaError
from theta_nb.git.carrier import REMOTE, Carrier
from theta_nb.git.endpoints import Endpoint, mask_credentials
from theta_nb.git.pointer_trees import pointer_tree

__all__ = ["LfsClient", "LfsError"]

Progress = Callable[[int, int], None]

_POLL_SECONDS = 0.1
_STDIN_SINCE = (3, 3)
_OIDS_A_CALL = 500
_SHOWN_LINES = 3
_TRACES = ("GIT_TRACE", "GIT_CURL_VERBOSE", "GIT_TRANSFER_TRACE")
_NOISE = ("warning: current Git remote contains credentials", "error: failed to fetch some objects from", "info: ")
_OID = re.compile(r"[0-9a-f]{64}")
_ABSENT_ALL = re.compile(r"\[?404\]?.*Cannot find any of the requested objects")  # giftless, of a whole batch
_ABSENT = re.compile(r"\[([0-9a-f]{64})\].*(?:\[404\]|does not exist|not found)", re.I)


class LfsError(ThetaError):
    """git-lfs did not do what it was asked to.

    Parameters
    ----------
    message, hint
        As for :class:`ThetaError`.
    said
        Its own last lines.
    """

    def __init__(self, message: str, *, said: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.said = said


@dataclass(frozen=True)
class _Finished:
    returncode: int
    out: str
    err: str

    @property
    def said(self) -> tuple[str, ...]:
        lines = (mask_credentials(line.strip()) for line in self.err.splitlines())
        return tuple(dict.fromkeys(line for line in lines if line and not line.startswith(_NOISE)))


class LfsClient:
    """Moves objects between our store and one endpoint.

    Parameters
    ----------
    carrier
        The repository that git-lfs runs in.
    endpoint
        Where objects are read from or written to.
    """

    def __init__(self, carrier: Carrier, endpoint: Endpoint) -> None:
        self._carrier = carrier
        self._endpoint = endpoint

    def push(self, objects: Mapping[str, int], progress: Progress | None = None) -> set[str]:
        """Upload what the server lacks; every object must be in the store.

        Parameters
        ----------
        objects
            Lengths by name.
        progress
            Called with bytes sent and bytes in all.

        Returns
        -------
        set of str
            Those that were sent; the server has the others already.

        Raises
        ------
        LfsError
            If git-lfs fails; what was uploaded stays.
        """
        names = sorted(objects)
        meter = _Meter(objects, progress)
        if self._carrier.lfs_version >= _STDIN_SINCE:
            batches: Sequence[tuple[list[str], str]] = [(["--stdin", REMOTE], "\n".join(names) + "\n")]
        else:
            parts = [names[i : i + _OIDS_A_CALL] for i in range(0, len(names), _OIDS_A_CALL)]
            batches = [([REMOTE, *part], "") for part in parts]
        for arguments, data in batches:
            finished = self._run(["push", "--object-id", *arguments], data, meter)
            if finished.returncode:
                raise self._error("push", finished)
        return set(meter.seen)

    def fetch(
        self,
        objects: Mapping[str, int],
        progress: Progress | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[set[str], LfsError | None]:
        """Download objects into the store; what arrives stays, whatever happens to the others.

        Parameters
        ----------
        objects
            Lengths by name.
        progress
            Called with bytes received and bytes in all.
        meanwhile
            Called while git-lfs works.

        Returns
        -------
        set of str
            Objects that the server does not have, as far as they did not arrive.
        LfsError or None
            What went wrong beside that.
        """
        with pointer_tree(self._carrier.folder, objects) as tree:
            meter = None if progress is None else _Meter(objects, progress)
            finished = self._run(["fetch", "--include=", "--exclude=", REMOTE, tree], "", meter, meanwhile=meanwhile)
        absent = {match[1] for match in map(_ABSENT.search, finished.err.splitlines()) if match} & objects.keys()
        others = [line for line in finished.said if not _ABSENT.search(line)]
        if others and all(map(_ABSENT_ALL.search, others)):
            return set(objects), None
        if not finished.returncode or (absent and not others):
            return absent, None
        return absent, self._error("fetch", finished)

    def absent(self, objects: Mapping[str, int]) -> set[str]:
        """Objects that the server does not confirm to have; nothing is uploaded or downloaded.

        A server that cannot be reached confirms none, and git-lfs does not tell it from one that has none.

        git-lfs asks a server for what it is about to delete here (``git lfs prune --verify-remote``). So it gets a
        storage of empty stand-ins, a history in which they are old, and is told to delete nothing.

        Raises
        ------
        LfsError
            If git-lfs says nothing about some of them.
        """
        from theta_nb.git.stand_ins import stand_in_repository

        with stand_in_repository(self._carrier, objects) as folder:
            arguments = ["prune", "--dry-run", "--verify-remote"]
            finished = self._run(arguments, "", None, folder, [("lfs.pruneremotetocheck", REMOTE)])
        missing = set(_OID.findall(finished.out + finished.err)) & objects.keys()
        verified = re.search(r"(\d+) verified with remote", finished.out)
        if int(verified[1] if verified else 0) + len(missing) < len(objects):
            raise self._error("prune", finished)
        return missing

    def _run(
        self,
        arguments: Sequence[str],
        data: str,
        meter: _Meter | None,
        folder: str = "",
        config: Sequence[tuple[str, str]] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> _Finished:
        env = self._carrier.environment(self._endpoint, config)
        traced = any(env.get(name) for name in _TRACES)
        where = folder or self._carrier.folder
        with _scratch("in") as stdin, _scratch("out") as out, _scratch("err") as err, _scratch("progress") as progress:
            stdin.fill(data)
            if meter is not None:
                env["GIT_LFS_PROGRESS"] = progress.name
            process = subprocess.Popen(
                ["git", "lfs", *arguments],
                cwd=where,
                env=env,
                stdin=stdin.fd,
                stdout=out.fd,
                stderr=None if traced else err.fd,
            )
            try:
                if meanwhile is not None:
                    meanwhile()
                for line in _lines_until_exit(process, progress.fd):
                    if meter is not None:
                        meter.read(line)
            finally:
                # An interruption, or a progress callback that wants no more: git-lfs must not go on alone.
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            return _Finished(process.returncode, out.text(), err.text())

    def _error(self, what: str, finished: _Finished) -> LfsError:
        said = "; ".join(finished.said[-_SHOWN_LINES:]) or f"exit status {finished.returncode} from 'git lfs {what}'"
        return LfsError(
            f"git-lfs: {said}",
            said=finished.said,
            hint=_hint(finished.said),
        )


class _Meter:
    """Adds up what git-lfs writes about single objects."""

    def __init__(self, objects: Mapping[str, int], progress: Progress | None) -> None:
        self._objects = objects
        self._progress = progress
        self._total = sum(objects.values())
        self._done = 0
        self.seen: dict[str, int] = {}

    def read(self, line: str) -> None:
        """Take one line: ``upload 1/3 5/5 …/oid``; an object that is tried again counts once."""
        words = line.split(" ", 3)
        if len(words) != 4:
            return
        oid = words[3].rpartition("/")[2]
        count = words[2].partition("/")[0]
        if oid not in self._objects or not count.isdecimal():
            return
        nbytes = min(int(count), self._objects[oid])
        before = self.seen.get(oid, 0)
        if nbytes >= before:
            self.seen[oid] = nbytes
            self._done += nbytes - before
            if self._progress is not None:
                self._progress(self._done, self._total)


class _Scratch(NamedTuple):
    """A file that git-lfs reads or writes, and a name by which it can open it."""

    fd: int
    name: str

    def fill(self, data: str) -> None:
        """Write something to be read from its beginning."""
        with open(self.fd, "wb", closefd=False) as file:
            file.write(data.encode("ascii"))
        os.lseek(self.fd, 0, os.SEEK_SET)

    def text(self) -> str:
        """Everything in it."""
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0).decode("utf-8", "replace")


@contextmanager
def _scratch(what: str) -> Iterator[_Scratch]:
    """An empty file: in memory, because git-lfs waits for the disk after every line that it writes of its progress."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(f"theta-lfs-{what}")
        try:
            yield _Scratch(fd, f"/proc/{os.getpid()}/fd/{fd}")
        finally:
            os.close(fd)
    else:
        import tempfile

        with tempfile.NamedTemporaryFile(prefix=f"theta-lfs-{what}-") as file:
            yield _Scratch(file.fileno(), file.name)


def _lines_until_exit(process: subprocess.Popen[bytes], followed: int) -> Iterator[str]:
    """Whole lines that a process writes to a file, as they come."""
    rest, position = b"", 0
    # Popen.wait with a timeout sleeps up to 50 ms too long.
    waiting = threading.Thread(target=process.wait, name="theta-lfs", daemon=True)
    waiting.start()
    running = True
    while running:
        waiting.join(_POLL_SECONDS)
        running = waiting.is_alive()
        while piece := os.pread(followed, 2**20, position):
            position += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)


# git-lfs has words of its own for most statuses; other servers' words come with the number.
_HINTS = (
    (
        r"\b401\b|Authentication required|credentials|could not read Username",
        "Log in: 'git credential' must know a user and a password for it ('git lfs push' asks it as well).",
    ),
    (
        r"\b507\b|\b413\b|\b509\b|quota|insufficient server storage|limit exceeded",
        "Make room there, or choose another server (git config lfs.url URL). What arrived is kept; then run it again.",
    ),
    (
        r"expected OID",
        "The copy there, or on the way from there, is damaged: run it again, and if it stays so have it "
        "deleted there and run 'git theta push --all' in a clone that is complete.",
    ),
    (
        r"\b404\b|\b405\b|repository or object not found|git-lfs-authenticate: command not found",
        "Does that server offer Git LFS? 'git theta env' shows the address; 'git config lfs.url URL' changes it.",
    ),
    (r"\b403\b|authoriz|forbidden|proper access", "Your account may not do that there; ask for access."),
    (r"", "What arrived is kept: run it again, and only the rest is sent."),
)


def _hint(said: Sequence[str]) -> str:
    text = "\n".join(said)
    return next(hint for pattern, hint in _HINTS if re.search(pattern, text, re.I))
