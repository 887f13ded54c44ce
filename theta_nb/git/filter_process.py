"""The long-running filter: one process serves all files of one git command.

Source: ``gitattributes(5)``, "Long Running Filter Process", protocol version 2.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from theta_nb.errors import ThetaError
from theta_nb.git.filtering import Filter, warn_on_stderr
from theta_nb.git.pktline import HungUpError, PacketReader, PacketStream, PacketWriter, ProtocolError
from theta_nb.git.places import find_places

__all__ = ["clean_once", "run", "serve", "smudge_once"]

_CAPABILITIES = ("clean", "smudge")
_BUFFER_NBYTES = 2**16


def serve(stdin: int = 0, stdout: int = 1) -> None:
    """Answer git's requests until it closes the pipe.

    Raises
    ------
    ProtocolError
        If the other side is not git.
    """
    reader, writer = PacketReader(stdin), PacketWriter(stdout)
    _shake_hands(reader, writer)
    filter_ = Filter(find_places(), warn_on_stderr)
    try:
        while True:
            try:
                header = _header(reader)
            except EOFError:
                return
            _answer(filter_, header, reader.content(), writer)
    finally:
        filter_.close()


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
    path: str


def _header(reader: PacketReader) -> _Request:
    values = {}
    for line in reader.lines():
        key, _, value = line.partition(b"=")
        values[key] = value
    if b"command" not in values or b"pathname" not in values:
        raise ProtocolError("a request of git has no command or no path name")
    return _Request(values[b"command"].decode("ascii", "replace"), os.fsdecode(values[b"pathname"]))


def _answer(filter_: Filter, request: _Request, content: PacketStream, writer: PacketWriter) -> None:
    started = False
    try:
        if request.command == "clean":
            manifest = filter_.clean(request.path, content)
            content.drain()
            writer.lines("status=success")
            started = True
            writer.data(manifest)
        elif request.command == "smudge":
            write = filter_.smudge(request.path, content)
            content.drain()
            writer.lines("status=success")
            started = True
            write(writer.data)
        else:
            raise ProtocolError(f"git asks for {request.command!r}, which was not offered")
        writer.flush()
        writer.flush()  # an empty list: the status stays as it is
    except (ThetaError, OSError) as error:
        if isinstance(error, BrokenPipeError | HungUpError):
            raise
        warn_on_stderr(_sentence(request.path, error))
        content.drain()
        if started:
            writer.flush()  # ends the content, which git then discards
        writer.lines("status=error")


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
    filter_ = Filter(find_places(), warn_on_stderr)
    try:
        stdout.write(filter_.clean(path, _PlainStream(stdin)))
        stdout.flush()
    finally:
        filter_.close()


def smudge_once(path: str, stdin: int, stdout: BinaryIO) -> None:
    """Smudge one file from ``stdin`` to ``stdout``, for programs that do not speak the protocol."""
    filter_ = Filter(find_places(), warn_on_stderr)
    try:
        filter_.smudge(path, _PlainStream(stdin))(partial(_write, stdout))
        stdout.flush()
    finally:
        filter_.close()
