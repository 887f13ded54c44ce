"""Stores of objects: immutable byte strings named by their SHA-256, as Git LFS names them.

The names and the two-level folders are those of Git LFS (``docs/spec.md`` of git-lfs), so that any LFS server can hold
our objects, but they live in a folder of our own: ``git lfs prune`` deletes what no pointer file refers to.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from theta_nb.errors import CorruptObjectError, MissingObjectError, ThetaError
from theta_nb.storage.durable import to_disk

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DirectoryStore", "MemoryStore", "ObjectStore", "is_oid", "lacking"]

_OID = re.compile(r"[0-9a-f]{64}")


def is_oid(text: str) -> bool:
    """Whether ``text`` is the name of an object: 64 lower-case hexadecimal digits."""
    return _OID.fullmatch(text) is not None


class ObjectStore(Protocol):
    """What the engine needs of a place that keeps objects."""

    def size(self, oid: str) -> int | None:
        """Length of an object in bytes, or ``None`` if it is not here."""
        ...

    def read_into(self, oid: str, offset: int, dest: memoryview) -> None:
        """Fill ``dest`` with the object's bytes from ``offset``.

        Raises
        ------
        MissingObjectError
            If the object is not here.
        CorruptObjectError
            If it is shorter than asked for.
        """
        ...

    def write(self, data: bytes | bytearray | memoryview) -> str:
        """Keep an object and return its name; one that is here already is not written again."""
        ...

    def freshen(self, oid: str) -> None:
        """Say that an object is about to be referred to again, so that no collector takes it for old."""
        ...

    def delete(self, oid: str) -> None:
        """Forget an object; one that is not here is no error."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Names of all objects, in no particular order."""
        ...


def lacking(oids: Iterable[str], store: ObjectStore) -> tuple[str, ...]:
    """Names of the objects among ``oids`` that a store does not have, sorted.

    Examples
    --------
    >>> store = MemoryStore()
    >>> len(lacking([store.write(b"here"), "ab" * 32], store))
    1
    """
    return tuple(oid for oid in sorted(oids) if store.size(oid) is None)


class MemoryStore:
    """A store in memory, for tests and previews.

    Examples
    --------
    >>> store = MemoryStore()
    >>> oid = store.write(b"weights")
    >>> store.size(oid)
    7
    """

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    def size(self, oid: str) -> int | None:
        """Length of an object in bytes, or ``None``."""
        data = self._objects.get(oid)
        return None if data is None else len(data)

    def read_into(self, oid: str, offset: int, dest: memoryview) -> None:
        """Fill ``dest`` with the object's bytes from ``offset``."""
        try:
            data = self._objects[oid]
        except KeyError:
            raise MissingObjectError(f"object {oid} is not in the store", oids=(oid,)) from None
        piece = data[offset : offset + len(dest)]
        if len(piece) != len(dest):
            raise CorruptObjectError(f"object {oid} is shorter than expected", oid=oid)
        dest[:] = piece

    def write(self, data: bytes | bytearray | memoryview) -> str:
        """Keep an object and return its name."""
        oid = hashlib.sha256(data).hexdigest()
        self._objects.setdefault(oid, bytes(data))
        return oid

    def freshen(self, oid: str) -> None:
        """Do nothing: objects in memory have no age."""

    def delete(self, oid: str) -> None:
        """Forget an object."""
        self._objects.pop(oid, None)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._objects))


class DirectoryStore:
    """A store in a folder: ``objects/ab/cd/abcd…``, written through temporary files and renames.

    Parameters
    ----------
    root
        Folder that holds ``objects`` and ``tmp``; made on the first write.
    alternates
        Further ``objects`` folders that are only read (borrowed repositories).
    fsync
        Whether an object reaches the disk before it gets its name.
    """

    def __init__(self, root: str | os.PathLike[str], *, alternates: Sequence[str] = (), fsync: bool = True) -> None:
        self._root = os.fspath(root)
        self._objects = os.path.join(self._root, "objects")
        self._tmp = os.path.join(self._root, "tmp")
        self._alternates = tuple(alternates)
        self._fsync = fsync

    @property
    def root(self) -> Path:
        """The folder of everything that is kept here."""
        from pathlib import Path  # not for those who only look an object up

        return Path(self._root)

    def in_front(self, root: str) -> DirectoryStore:
        """A store in another folder through which the objects of this one are seen, too."""
        return DirectoryStore(root, alternates=(self._objects, *self._alternates), fsync=False)

    def path(self, oid: str) -> str:
        """Where this store keeps (or would keep) an object.

        Raises
        ------
        ThetaError
            If ``oid`` is no object name: nothing else may become a path.
        """
        return self._path_in(self._objects, oid)

    def find(self, oid: str) -> str | None:
        """Path of an object here or in an alternate, or ``None``."""
        for folder in (self._objects, *self._alternates):
            path = self._path_in(folder, oid)
            if os.path.isfile(path):
                return path
        return None

    @staticmethod
    def _path_in(folder: str, oid: str) -> str:
        if not is_oid(oid):
            raise ThetaError(f"{oid!r} is not the name of an object")
        return f"{folder}/{oid[:2]}/{oid[2:4]}/{oid}"

    def size(self, oid: str) -> int | None:
        """Length of an object in bytes, or ``None``."""
        for folder in (self._objects, *self._alternates):
            try:
                info = os.stat(self._path_in(folder, oid))
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode):
                return info.st_size
        return None

    def read_into(self, oid: str, offset: int, dest: memoryview) -> None:
        """Fill ``dest`` with the object's bytes from ``offset``."""
        path = self.find(oid)
        if path is None:
            raise MissingObjectError(f"object {oid} is not in the store", oids=(oid,))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                done = 0
                while done < len(dest):
                    count = os.preadv(fd, [dest[done:]], offset + done)
                    if count == 0:
                        raise CorruptObjectError(f"object {oid} is shorter than expected", oid=oid)
                    done += count
            finally:
                os.close(fd)
        except OSError as error:  # a bad disk, or somebody else's file
            raise CorruptObjectError(f"object {oid} cannot be read: {error.strerror}", oid=oid) from error

    def write(self, data: bytes | bytearray | memoryview) -> str:
        """Keep an object and return its name.

        Raises
        ------
        ThetaError
            If the disk is full or the folder cannot be written; no half object stays under a valid name.
        """
        oid = hashlib.sha256(data).hexdigest()
        if self.size(oid) == len(data):
            self.freshen(oid)
            return oid
        path = self.path(oid)
        try:
            self._write_atomically(path, data)
        except OSError as error:
            hint = "Free some disk space and run the command again." if error.errno == errno.ENOSPC else ""
            raise ThetaError(
                f"cannot write object {oid[:12]} to {self._objects}: {error.strerror}", hint=hint
            ) from error
        return oid

    def _write_atomically(self, path: str, data: bytes | bytearray | memoryview) -> None:
        temporary, fd = self._temporary()
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                if self._fsync:
                    to_disk(fd)
            finally:
                os.close(fd)
            # Objects are read-only, as git's and git-lfs's are: an editor that truncates in place must fail.
            os.chmod(temporary, 0o444)
            try:
                os.replace(temporary, path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _temporary(self) -> tuple[str, int]:
        import tempfile  # only who writes waits for what it brings with it

        try:
            fd, name = tempfile.mkstemp(dir=self._tmp, prefix="object-")
        except FileNotFoundError:
            os.makedirs(self._tmp, exist_ok=True)
            fd, name = tempfile.mkstemp(dir=self._tmp, prefix="object-")
        return name, fd

    def freshen(self, oid: str) -> None:
        """Set an object's time to now."""
        with contextlib.suppress(OSError):
            os.utime(self.path(oid))

    def delete(self, oid: str) -> None:
        """Forget an object; alternates are never touched."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(oid))

    def __iter__(self) -> Iterator[str]:
        for first in _names(self._objects):
            for second in _names(f"{self._objects}/{first}"):
                for oid in _names(f"{self._objects}/{first}/{second}"):
                    if is_oid(oid) and oid.startswith(first + second):
                        yield oid


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
