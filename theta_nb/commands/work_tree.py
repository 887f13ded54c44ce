"""Files of the work tree that a command writes itself: whole or not at all, and known to the index afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from theta_nb.errors import ThetaError
from theta_nb.git.places import Places
from theta_nb.git.process import LITERAL, git
from theta_nb.manifest.text import is_manifest
from theta_nb.storage.durable import to_disk

__all__ = ["changed", "check_place", "check_room", "created_mode", "refresh", "replacing", "state"]


def check_place(places: Places, path: str) -> None:
    """Refuse to write over a folder, or behind a link: that might lead anywhere."""
    parent = places.top
    for part in path.split("/")[:-1]:
        parent = os.path.join(parent, part)
        if os.path.islink(parent):
            raise ThetaError(
                f"{path} lies behind the symbolic link {parent}", hint="Put a folder in the place of the link first."
            )
        if os.path.lexists(parent) and not os.path.isdir(parent):
            raise ThetaError(f"{parent} is in the way of {path}", hint="Move it away first.")
    full = os.path.join(places.top, path)
    if os.path.isdir(full) and not os.path.islink(full):
        raise ThetaError(f"{path} is a folder in the work tree", hint="Move it away first.")


def state(places: Places, path: str) -> str:
    """``"missing"``, ``"manifest"`` (of this or another version) or ``"file"``."""
    full = os.path.join(places.top, path)
    try:
        info = os.lstat(full)
    except OSError:
        return "missing"
    if not stat.S_ISREG(info.st_mode):
        return "file"
    with open(full, "rb") as file:
        return "manifest" if is_manifest(file.read(64)) else "file"


def changed(places: Places, paths: Sequence[str]) -> set[str]:
    """Paths whose content in the work tree git does not have: changed, or not in the index at all."""
    if not paths:
        return set()
    # Unlike 'diff-files' this compares contents where only the times differ.
    differ = git("diff", "--name-only", "--no-ext-diff", "-z", "--", *paths, cwd=places.top, env=LITERAL)
    others = git("ls-files", "--others", "-z", "--", *paths, cwd=places.top, env=LITERAL)
    return {os.fsdecode(name) for name in (differ + others).split(b"\0") if name}


@contextmanager
def replacing(places: Places, path: str, nbytes: int, mode: int) -> Iterator[int]:
    """A descriptor to write the new file to; it takes the place of the old one when the block ends without error.

    Parameters
    ----------
    places
        The repository.
    path
        Relative to the top of the work tree.
    nbytes
        Length of the new file, which is reserved.
    mode
        Its permissions.

    Raises
    ------
    ThetaError
        If it cannot be written, or the disk is too small.
    """
    full = os.path.join(places.top, path)
    folder = os.path.dirname(full)
    temporary = os.path.join(folder, f".{os.path.basename(full)[:100]}.theta-{os.getpid()}")
    try:
        os.makedirs(folder, exist_ok=True)
        fd = _open_temporary(folder, temporary)
        try:
            _reserve(fd, path, nbytes)
            yield fd
            os.fchmod(fd, mode)
            if places.settings.fsync:
                # Else a power failure might leave the reserved length and no content, under the times that git knows.
                to_disk(fd)
            if os.fstat(fd).st_nlink == 0:
                # Python follows the link of /proc only if it is given a folder, which an absolute path ignores.
                os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd)
        finally:
            os.close(fd)
        os.replace(temporary, full)
    except OSError as error:
        raise ThetaError(f"cannot write {path}: {error.strerror}", hint="The old file is untouched.") from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _open_temporary(folder: str, name: str) -> int:
    """An open file without a name, so that a killed run leaves nothing behind; with one where that cannot be."""
    with suppress(OSError):  # left behind by a process of the same number
        os.unlink(name)
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)


def _reserve(fd: int, path: str, nbytes: int) -> None:
    """Make room before the first byte: a manifest may claim any size, and a full disk should show now."""
    check_room(os.fstatvfs(fd), path, nbytes)
    if nbytes:
        with suppress(OSError, AttributeError):  # not every system can, nor every file system
            os.posix_fallocate(fd, 0, nbytes)


def check_room(free: os.statvfs_result, path: str, nbytes: int) -> None:
    """Refuse what the disk has no room for."""
    if nbytes > free.f_bavail * free.f_frsize:
        raise ThetaError(f"{path} needs {nbytes} bytes, more than the disk has", hint="Free some space first.")


def created_mode(*, executable: bool) -> int:
    """Permissions that a new file gets from git."""
    mask = os.umask(0)
    os.umask(mask)
    return (0o777 if executable else 0o666) & ~mask


def refresh(places: Places, paths: Sequence[str]) -> None:
    """Tell the index of files that hold its content.

    It knows the sizes of manifests, so git would call the files modified for ever; given a path it cleans the file once
    and remembers size and times. Files of an earlier run that was interrupted here are among them.
    """
    if not paths:
        return
    stale = git("diff-files", "--name-only", "-z", "--", *paths, cwd=places.top, env=LITERAL)
    if stale:
        git("update-index", "-z", "--stdin", cwd=places.top, data=stale)
