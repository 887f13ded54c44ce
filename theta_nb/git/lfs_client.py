"""Objects through the real git-lfs: every server, protocol and way to log in that it knows."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from theta_nb.git.carrier import REMOTE, Carrier
from theta_nb.git.endpoints import Endpoint
from theta_nb.git.lfs_error import LfsError, hint_for, last_words
from theta_nb.git.pointer_trees import pointer_tree

__all__ = ["LfsClient"]

Progress = Callable[[int, int], None]

_POLL_SECONDS = 0.1
_STDIN_SINCE = (3, 3)
_OIDS_A_CALL = 500
_SHOWN_LINES = 3
_TRACES = ("GIT_TRACE", "GIT_CURL_VERBOSE", "GIT_TRANSFER_TRACE")
# All that git-lfs says of an answer with status 422, which it forgives.
_REFUSED = "Uploading failed due to unsupported Content-Type"
_NO_QUESTIONS = {"GIT_TERMINAL_PROMPT": "0", "GCM_INTERACTIVE": "never"}
_OID = re.compile(r"[0-9a-f]{64}")
_ABSENT_ALL = re.compile(r"\[?404\]?.*Cannot find any of the requested objects")  # giftless, of a whole batch
_ABSENT = re.compile(r"\[([0-9a-f]{64})\].*(?:\[404\]|does not exist|not found)", re.I)


@dataclass(frozen=True)
class _Finished:
    returncode: int
    out: str
    err: str

    @property
    def said(self) -> tuple[str, ...]:
        return last_words(self.err)


class LfsClient:
    """Moves objects between our store and one endpoint.

    Parameters
    ----------
    carrier
        The repository that git-lfs runs in.
    endpoint
        Where objects are read from or written to.
    may_ask
        Whether a person may be asked for a password.
    """

    def __init__(self, carrier: Carrier, endpoint: Endpoint, *, may_ask: bool = True) -> None:
        self._carrier = carrier
        self._endpoint = endpoint
        self._may_ask = may_ask

    @property
    def unattended(self) -> LfsClient:
        """The same, but nobody is asked for a password; a helper or a program that was set for git may know it."""
        return LfsClient(self._carrier, self._endpoint, may_ask=False)

    @property
    def has_server(self) -> bool:
        """Whether somebody can say what is there; a transfer agent in the server's place is only told to act."""
        return not self._carrier.has_standalone_agent

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
            Those that were sent, which says nothing of whether they were kept; the server has the others already.

        Raises
        ------
        LfsError
            If git-lfs fails, or should have: what a server answers with status 422 it calls a success. What was
            uploaded stays.
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
                raise self._error("push", finished, meter.seen)
            if _REFUSED in finished.err:
                raise LfsError(
                    "the server answered with status 422, which git-lfs takes for success",
                    said=finished.said,
                    begun=meter.seen,
                    hint="Either it lost what it was sent, or it wants no content types ('git config lfs.contenttype "
                    "false'); then run it again.",
                )
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

        Without a server to ask (:attr:`has_server`) nothing is confirmed.

        git-lfs asks a server for what it is about to delete here (``git lfs prune --verify-remote``). So it gets a
        storage of empty stand-ins, a history in which they are old, and is told to delete nothing.

        Raises
        ------
        LfsError
            If the server cannot be reached or does not let us in, or git-lfs says nothing about some of them.
        """
        from theta_nb.git.stand_ins import stand_in_repository

        if not self.has_server:
            return set(objects)
        with stand_in_repository(self._carrier, objects) as folder:
            arguments = ["prune", "--dry-run", "--verify-remote"]
            finished = self._run(arguments, "", None, folder, [("lfs.pruneremotetocheck", REMOTE)])
        missing = set(_OID.findall(finished.out + finished.err)) & objects.keys()
        verified = re.search(r"(\d+) verified with remote", finished.out)
        if int(verified[1] if verified else 0) + len(missing) < len(objects):
            raise self._error("prune", finished)
        if objects and len(missing) == len(objects):
            self._check_that_it_answers()
        return missing

    def _check_that_it_answers(self) -> None:
        """Tell a server that has nothing from one that nobody can ask: for ``git lfs prune`` they are the same."""
        _, error = self.fetch({os.urandom(32).hex(): 1})
        if error is not None:
            hint = hint_for(error.said, "Run it again when the server answers.")
            raise LfsError(error.message, said=error.said, hint=hint) from error

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
        if not self._may_ask:
            env.update(_NO_QUESTIONS)
            if not any(line.key == "core.askpass" for line in self._carrier.lines):
                # No window of SSH_ASKPASS's in the place of the terminal; a program for git may know the password.
                env.setdefault("GIT_ASKPASS", "")
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

    def _error(self, what: str, finished: _Finished, begun: Iterable[str] = ()) -> LfsError:
        said = "; ".join(finished.said[-_SHOWN_LINES:]) or f"exit status {finished.returncode} from 'git lfs {what}'"
        return LfsError(
            f"git-lfs: {said}",
            said=finished.said,
            begun=begun,
            hint=hint_for(finished.said, "What arrived is kept: run it again, and only the rest is sent."),
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
