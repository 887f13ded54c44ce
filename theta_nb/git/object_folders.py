"""Where the repositories of this machine keep objects; taking one in, verified on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from theta_nb.errors import ThetaError
from theta_nb.git.places import Places, borrowed_folders
from theta_nb.git.process import GitError, config_items, git_elsewhere
from theta_nb.storage.durable import to_disk

__all__ = ["Advance", "ObjectFolders", "copy_and_hash", "folders_in", "own_folders", "repository_folders"]

_BLOCK = 2**20

Advance = Callable[[int], None]


@dataclass(frozen=True)
class ObjectFolders:
    """Where a repository of this machine keeps objects.

    Parameters
    ----------
    common_dir
        Its git directory.
    reading
        Folders with objects, in the order in which they are looked through.
    writing
        The folder that takes new objects.
    temporary
        Where they are written first.
    shared
        Permission bits that new files and folders get beyond the umask (``core.sharedRepository``).
    fsync
        Whether an object reaches the disk before it gets its name.
    """

    common_dir: str
    reading: tuple[str, ...]
    writing: str
    temporary: str
    shared: int = 0
    fsync: bool = True
    _made: set[str] = field(default_factory=set, compare=False)

    def candidates(self, oid: str) -> Iterator[str]:
        """Paths that an object may have."""
        for folder in self.reading:
            yield _path(folder, oid)

    def has(self, oid: str, nbytes: int) -> bool:
        """Whether an object of this length is here."""
        return bool(self.find(oid, nbytes))

    def lacks(self, objects: Mapping[str, int]) -> dict[str, int]:
        """Those of some objects that are not here."""
        return {oid: size for oid, size in objects.items() if not self.has(oid, size)}

    def find(self, oid: str, nbytes: int) -> str:
        """Path of an object of this length, or nothing."""
        return next((path for path in self.candidates(oid) if _length(path) == nbytes), "")

    def take(self, source: str, oid: str, nbytes: int, advance: Advance | None = None) -> bool:
        """Copy one object from a file; ``False`` if the file is not there or does not hold it.

        Raises
        ------
        ThetaError
            If it cannot be written; no half object stays under a valid name.
        """
        try:
            read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(read).st_size != nbytes:
                return False
            return self._write(read, oid, advance)
        except OSError as error:
            hint = "Free some disk space and run the command again." if error.errno == errno.ENOSPC else ""
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                hint = "You need the right to write there."
            raise ThetaError(
                f"cannot write object {oid[:12]} to {self.writing}: {error.strerror}", hint=hint
            ) from error
        finally:
            os.close(read)

    def _write(self, read: int, oid: str, advance: Advance | None) -> bool:
        target = _path(self.writing, oid)
        self._make_folder(os.path.dirname(target))
        self._make_folder(self.temporary)
        temporary = os.path.join(self.temporary, f"object-{os.urandom(8).hex()}")
        write = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                mode = stat.S_IMODE(os.fstat(write).st_mode)
                digest = copy_and_hash(read, write, advance)
                if digest != oid:
                    return False
                # Read-only, as git's and git-lfs's are: an editor that truncates in place must fail.
                os.fchmod(write, (mode | self.shared & 0o444) & 0o444)
                if self.fsync:
                    to_disk(write)
            finally:
                os.close(write)
            os.replace(temporary, target)
        finally:
            with suppress(OSError):
                os.unlink(temporary)
        return True

    def _make_folder(self, folder: str) -> None:
        if folder in self._made:
            return
        if not os.path.isdir(folder):
            self._make_folder(os.path.dirname(folder))
            with suppress(FileExistsError):
                os.mkdir(folder)
                if self.shared:
                    execute = self.shared >> 2 & 0o111
                    os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | self.shared | execute | stat.S_ISGID)
        self._made.add(folder)


def own_folders(places: Places) -> ObjectFolders:
    """Our own store, without what it borrows."""
    own = os.path.join(places.theta_dir, "objects")
    temporary = os.path.join(places.theta_dir, "tmp")
    return ObjectFolders(places.common_dir, (own,), own, temporary, fsync=places.settings.fsync)


def repository_folders(folder: str, *, fsync: bool = True) -> ObjectFolders:
    """Where the repository in a folder keeps objects.

    They are read from ``theta/objects``, as in a colleague's clone, and from the storage of Git LFS, and are written to
    the latter, where git-lfs finds them too.

    Parameters
    ----------
    folder
        The repository or its work tree.
    fsync
        Whether objects that are written there reach the disk before they get their names.

    Raises
    ------
    ThetaError
        If there is no repository, or git refuses to read it.
    """
    return folders_in(_common_dir(folder), fsync=fsync)


def folders_in(common: str, *, fsync: bool = True, config: Mapping[str, str] | None = None) -> ObjectFolders:
    """The same for a git directory, whose configuration may be known already."""
    config = _config_of(common) if config is None else config
    storage = os.path.join(common, config.get("lfs.storage") or "lfs")
    reading = [os.path.join(common, "theta", "objects"), os.path.join(storage, "objects")]
    for other in borrowed_folders(common):
        reading += [os.path.join(other, "theta", "objects"), os.path.join(other, "lfs", "objects")]
    return ObjectFolders(
        common,
        tuple(reading),
        os.path.join(storage, "objects"),
        os.path.join(storage, "tmp"),
        _shared_bits(config.get("core.sharedrepository", "")),
        fsync,
    )


def _common_dir(folder: str) -> str:
    # As git does for a path: the folder itself or, if there is none, with '.git' behind it. Nothing above it counts.
    if not os.path.isdir(folder):
        if not os.path.isdir(f"{folder}.git"):
            raise ThetaError(f"there is no repository at {folder}", hint="Is the disk mounted, and the path right?")
        folder = f"{folder}.git"
    ask = ("-c", "safe.bareRepository=all", "rev-parse", "--path-format=absolute", "--git-common-dir")
    ceiling = {"GIT_CEILING_DIRECTORIES": os.path.dirname(os.path.realpath(folder))}
    try:
        out = git_elsewhere(*ask, cwd=folder, env=ceiling)
    except GitError as error:
        if "safe.directory" in error.message:
            raise ThetaError(
                f"git does not trust {folder}, because it belongs to another user",
                hint=f"If you do, run: git config --global --add safe.directory {folder}",
            ) from error
        raise ThetaError(f"{folder} is no git repository", hint="'git remote -v' shows the remotes.") from error
    return os.fsdecode(out).removesuffix("\n")


def _config_of(common: str) -> dict[str, str]:
    try:
        out = git_elsewhere("config", "--file", os.path.join(common, "config"), "--null", "--list", cwd=common)
    except GitError:
        return {}
    return dict(config_items(out))


def _shared_bits(value: str) -> int:
    """Permission bits of ``core.sharedRepository``, as ``git-config(1)`` explains them.

    Examples
    --------
    >>> oct(_shared_bits("group")), oct(_shared_bits("0640")), _shared_bits("umask")
    ('0o660', '0o640', 0)
    """
    word = value.strip().lower()
    if word in ("group", "true", "yes", "on", "1"):
        return 0o660
    if word in ("all", "world", "everybody", "2", "3"):
        return 0o664
    if len(word) >= 3 and all(digit in "01234567" for digit in word):
        return int(word, 8) & 0o666
    return 0


_buffers = threading.local()


def copy_and_hash(read: int, write: int | None, advance: Advance | None) -> str:
    """SHA-256 of what ``read`` holds, written to ``write`` on the way."""
    digest = hashlib.sha256()
    buffer = getattr(_buffers, "memory", None)
    if buffer is None:  # fresh memory is dear: one buffer a thread
        buffer = _buffers.memory = memoryview(bytearray(_BLOCK))
    while count := os.readv(read, [buffer]):
        piece = buffer[:count]
        digest.update(piece)
        while write is not None and piece:
            piece = piece[os.write(write, piece) :]
        if advance is not None:
            advance(count)
    return digest.hexdigest()


def _path(folder: str, oid: str) -> str:
    return f"{folder}/{oid[:2]}/{oid[2:4]}/{oid}"


def _length(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
