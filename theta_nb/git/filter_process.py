"""The long-running filter: one process serves all files of one git command.

Source: ``gitattributes(5)``, "Long Running Filter Process", protocol version 2.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from theta_nb.errors import ThetaError
from theta_nb.git.pktline import HungUpError, PacketReader, PacketStream, PacketWriter, ProtocolError
from theta_nb.git.places import PlacesSearch
from theta_nb.git.standard_error import warn_on_stderr

if TYPE_CHECKING:
    from theta_nb.git.filtering import Filter, Sink

__all__ = ["clean_once", "run", "serve", "smudge_once"]

_LIST = "list_available_blobs"
_CAPABILITIES = ("clean", "smudge", "delay")
_BUFFER_NBYTES = 2**16


def serve(stdin: int = 0, stdout: int = 1) -> None:
    """Answer git's requests until it closes the pipe.

    Raises
    ------
    ProtocolError
        If the other side is not git.
    """
    with PlacesSearch(settings=True) as search:
        reader, writer = PacketReader(stdin), PacketWriter(stdout)
        _shake_hands(reader, writer)
        filter_ = _filter(search)
    session = _Session(filter_, writer)
    try:
        while True:
            try:
                request = _header(reader)
            except EOFError:
                return
            session.answer(request, reader)
    finally:
        filter_.close()


def _filter(search: PlacesSearch) -> Filter:
    from theta_nb.git.filtering import Filter  # while git is searching

    return Filter(search.places(), warn_on_stderr)


def run() -> int:
    """Serve git on standard input and output; returns the exit status."""
    try:
        serve()
    except (BrokenPipeError, HungUpError, KeyboardInterrupt):
        # git was interrupted and has left: nobody is there to read a traceback.
        return 130
    except (ThetaError, OSError) as error:
        warn_on_stderr(str(error))
        return 1
    return 0


def _shake_hands(reader: PacketReader, writer: PacketWriter) -> None:
    try:
        welcome = list(reader.lines())
    except EOFError:
        raise ProtocolError("this command is started by git, as filter.theta.process") from None
    if welcome[:1] != [b"git-filter-client"] or b"version=2" not in welcome:
        raise ProtocolError("git does not speak version 2 of the filter protocol", hint="git 2.11 or newer is needed.")
    writer.lines("git-filter-server", "version=2")
    try:
        offered = set(reader.lines())
    except EOFError:
        raise HungUpError from None
    writer.lines(*(f"capability={name}" for name in _CAPABILITIES if f"capability={name}".encode() in offered))


@dataclass(frozen=True, slots=True)
class _Request:
    command: str
    path: str = ""
    treeish: str = ""
    blob: str = ""
    can_delay: bool = False


def _header(reader: PacketReader) -> _Request:
    values = {}
    for line in reader.lines():
        key, _, value = line.partition(b"=")
        values[key] = os.fsdecode(value)
    command = values.get(b"command", "")
    if not command or (b"pathname" not in values and command != _LIST):
        raise ProtocolError("a request of git has no command or no path name")
    return _Request(
        command,
        values.get(b"pathname", ""),
        values.get(b"treeish", ""),
        values.get(b"blob", ""),
        values.get(b"can-delay") == "1",
    )


class _Session:
    """Answers the requests of one git process.

    A file whose objects are missing is delayed, so that those of all files are fetched in one batch. git asks for what
    is available until it is told "nothing"; one path is named at a time, and rebuilt when git asks for it again.

    Parameters
    ----------
    filter_
        What does the work.
    writer
        Where answers go.
    """

    def __init__(self, filter_: Filter, writer: PacketWriter) -> None:
        self._filter = filter_
        self._writer = writer
        self._available: list[str] | None = None

    def answer(self, request: _Request, reader: PacketReader) -> None:
        """Answer one request, whose content is still to be read."""
        if request.command == _LIST:
            self._list()
            return
        content = reader.content()
        started = False
        try:
            write = self._prepare(request, content)
            content.drain()
            if write is None:
                self._writer.lines("status=delayed")
                return
            self._writer.lines("status=success")
            started = True
            write(self._writer.data)
            self._writer.flush()
            self._writer.flush()  # an empty list: the status stays as it is
        except (ThetaError, OSError) as error:
            if isinstance(error, BrokenPipeError | HungUpError):
                raise
            warn_on_stderr(_sentence(request.path, error))
            content.drain()
            if started:
                self._writer.flush()  # ends the content, which git then discards
            self._writer.lines("status=error")
        self._filter.settle()

    def _prepare(self, request: _Request, content: PacketStream) -> Callable[[Sink], None] | None:
        if request.command == "clean":
            manifest = self._filter.clean(request.path, content)
            return lambda sink: sink(memoryview(manifest))
        if request.command != "smudge":
            raise ProtocolError(f"git asks for {request.command!r}, which was not offered")
        if not request.can_delay:
            waited = self._filter.smudge_waiting(request.path)
            if waited is not None:
                return waited
        return self._filter.smudge(request.path, content, may_wait=lambda: self._may_delay(request))

    def _may_delay(self, request: _Request) -> bool:
        # 'git checkout -m PATH' and its like crash when an answer is delayed. Their requests name no commit that has
        # this blob at this path: they come from a merge, not from a tree.
        if not request.can_delay or not request.treeish:
            return False
        return self._filter.is_version(request.treeish, request.path, request.blob)

    def _list(self) -> None:
        if self._available is None:
            self._available = self._filter.fetch_waiting()
        path = self._available.pop(0) if self._available else None
        if path is None:
            self._available = None
            self._writer.lines()
        else:
            self._writer.lines(f"pathname={path}")
        self._writer.lines("status=success")


def _sentence(path: str, error: BaseException) -> str:
    text = str(error)
    return text if path in text else f"{path}: {text}"


def _write(stdout: BinaryIO, piece: memoryview) -> None:
    stdout.write(piece)


class _PlainStream:
    """The standard input of a single-shot filter."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pushed = memoryview(b"")

    def push_back(self, data: bytes) -> None:
        """Have ``data`` come (again) before everything else."""
        self._pushed = memoryview(data + bytes(self._pushed))

    def readinto(self, dest: memoryview) -> int:
        """Fill ``dest``; returns its length, or less at the end."""
        done = 0
        while done < len(dest):
            if not self._pushed and len(dest) - done < _BUFFER_NBYTES:
                self._pushed = memoryview(os.read(self._fd, _BUFFER_NBYTES))
                if not self._pushed:
                    break
            if self._pushed:
                count = min(len(self._pushed), len(dest) - done)
                dest[done : done + count] = self._pushed[:count]
                self._pushed = self._pushed[count:]
            else:
                count = os.readv(self._fd, [dest[done:]])
                if count == 0:
                    break
            done += count
        return done


def clean_once(path: str, stdin: int, stdout: BinaryIO) -> None:
    """Clean one file from ``stdin`` to ``stdout``, for programs that do not speak the protocol.

    Raises
    ------
    ThetaError
        If it cannot be stored; git then refuses the file.
    """
    with PlacesSearch(settings=True) as search:
        filter_ = _filter(search)
    try:
        stdout.write(filter_.clean(path, _PlainStream(stdin)))
        stdout.flush()
    finally:
        filter_.close()


def smudge_once(path: str, stdin: int, stdout: BinaryIO) -> None:
    """Smudge one file from ``stdin`` to ``stdout``, for programs that do not speak the protocol."""
    with PlacesSearch(settings=True) as search:
        filter_ = _filter(search)
    try:
        write = filter_.smudge(path, _PlainStream(stdin))
        if write is not None:
            write(partial(_write, stdout))
        stdout.flush()
    finally:
        filter_.close()
