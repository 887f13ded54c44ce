"""What the clean and smudge filters do with one file, whatever protocol brought it."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from typing import BinaryIO, Protocol

from theta_nb.checkpoints.layout import FileSource
from theta_nb.engine.clean import ByteStream, Cleaner
from theta_nb.engine.known import KnownChunks
from theta_nb.engine.previous import AUTO, Previous
from theta_nb.engine.rebuild import Rebuilder, missing_objects
from theta_nb.errors import ManifestError, MissingObjectError, ThetaError
from theta_nb.git.hook_entry import leave_pending
from theta_nb.git.hooks import ensure_hooks
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.process import CatFile
from theta_nb.git.versions import Version, previous_of, recorded_texts, text_of, versions_at
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, declared_size, is_manifest, parse
from theta_nb.updates.blas import single_threaded_blas

__all__ = ["Content", "Filter", "is_reference_manifest"]

_HEAD_NBYTES = 64 * 1024
_MOST_NAMED = 5
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")

Sink = Callable[[memoryview], None]


class Content(ByteStream, Protocol):
    """A stream that takes bytes back."""

    def push_back(self, data: bytes) -> None:
        """Have ``data`` come (again) before everything else."""
        ...


def is_reference_manifest(head: bytes) -> bool:
    """Whether content is a version-1 manifest of git-theta: JSON that nests ``theta_metadata``."""
    return head.lstrip()[:1] == b"{" and b'"theta_metadata"' in head


class Filter:
    """Cleans and smudges the files of one git command.

    Index, HEAD and attributes are asked for anew with every file: one process may serve a whole rebase.

    Parameters
    ----------
    places
        The repository.
    warn
        Shows one sentence to the user.
    """

    def __init__(self, places: Places, warn: Callable[[str], None]) -> None:
        self._places = places
        self._warn = warn
        self._cat_file = CatFile(places.top)
        places.forgive_settings(warn)
        self._encodings = places.encodings()
        self._threads: Executor | None = None
        self._waiting: dict[str, bytes] = {}
        self._left: set[str] = set()
        self._hooks_seen = False

    def close(self) -> None:
        """End children and threads, quickly: git waits for it."""
        self._cat_file.close()
        self._encodings.close()
        if self._threads is not None:
            self._threads.shutdown(wait=True)

    @property
    def _executor(self) -> Executor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._places.settings.workers, thread_name_prefix="theta")
        return self._threads

    # --- clean --------------------------------------------------------------------------------------------------------

    def clean(self, path: str, content: Content) -> bytes:
        """Manifest of a checkpoint; a manifest passes through, with LF line ends.

        Parameters
        ----------
        path
            Path of the file, relative to the top of the work tree; only a hint.
        content
            Bytes of the file.

        Raises
        ------
        ManifestError
            If the content is a broken manifest that git does not have already.
        CheckpointError, ThetaError
            If it cannot be stored.
        """
        head = _take(content, _HEAD_NBYTES)
        if not head:
            return b""
        if is_manifest(head) or is_reference_manifest(head):
            return self._clean_manifest(path, head + _rest(content))
        content.push_back(head)
        versions = versions_at(path, self._places, self._cat_file)
        known = KnownChunks((v.manifest for v in versions), behind=self._encodings)
        previous = self._previous(path, versions)
        cleaner = Cleaner(self._places.store, self._executor, previous=previous)
        decomposes = previous is not None and previous.update == "low-rank"
        with self._hint(path, head) as hint, single_threaded_blas() if decomposes else nullcontext():
            manifest, layout = cleaner.stream(
                content, os.path.basename(path) or path, known, hint=hint, spool=self._spool
            )
        for warning in layout.warnings:
            self._warn(f"{path}: {warning}")
        self._install_hooks()
        self._encodings.remember(manifest)
        if self._places.settings.renew:
            versions = [v for v in versions if not missing_objects(v.manifest, self._places.store)]
        return text_of(manifest, versions)

    def _previous(self, path: str, versions: Sequence[Version]) -> Previous | None:
        try:
            return previous_of(path, self._places, self._cat_file, versions)
        except ThetaError as error:
            # An error would make 'git status' fail as well, over how something is stored.
            self._warn(f"{error} It is stored as if nothing were set.")
            return previous_of(path, self._places, self._cat_file, versions, update=AUTO)

    def _clean_manifest(self, path: str, data: bytes) -> bytes:
        if is_reference_manifest(data):
            return data
        text = data.replace(b"\r\n", b"\n")
        try:
            parse(text, source=path)
        except ManifestError:
            # 'git status' must go on in a repository that holds a broken manifest already; a new one is refused, and so
            # is what a merge by lines just left behind (AUTO_MERGE knows it, but nobody committed it yet).
            if text not in recorded_texts(path, self._places, self._cat_file):
                raise
        return text

    @contextmanager
    def _hint(self, path: str, head: bytes) -> Iterator[FileSource | None]:
        """The work-tree file, if it is a regular file that begins like the content."""
        try:
            fd = os.open(
                os.path.join(self._places.top, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            )
        except (OSError, ValueError):
            yield None
            return
        try:
            same = stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(head), 0) == head
            yield FileSource(fd) if same else None
        finally:
            os.close(fd)

    def _spool(self) -> BinaryIO:
        folder = os.path.join(self._places.theta_dir, "tmp")
        os.makedirs(folder, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)

    # --- smudge -------------------------------------------------------------------------------------------------------

    def smudge(
        self, path: str, content: Content, *, may_wait: Callable[[], bool] = lambda: False
    ) -> Callable[[Sink], None] | None:
        """Prepare the checkpoint of a manifest; what is no manifest passes through.

        Everything that can be known to fail is found before a byte is made: git has unlinked the file already, and a
        failing smudge would leave it deleted. Objects that cannot be had leave the manifest, with one warning.

        Parameters
        ----------
        path
            Path of the file, for messages.
        content
            What git has.
        may_wait
            Asked only where objects are missing: whether git can do without an answer until those of all files are
            fetched in one go.

        Returns
        -------
        Callable or None
            Writes the content to a sink; ``None`` where git has to wait: see :meth:`fetch_waiting`.

        Raises
        ------
        CorruptObjectError
            If the layout is corrupt; the returned function raises it for the other objects.
        """
        head = _take(content, _HEAD_NBYTES)
        if not is_manifest(head):
            if is_reference_manifest(head):
                self._warn(
                    f"{path} was stored by git-theta (format 1), which is not supported yet; "
                    "its metadata is checked out instead of the checkpoint."
                )
            return self._pass_through(head, content)
        data = head + _rest(content)
        # What is not rebuilt is not parsed either: 100 MB of text may promise anything.
        if self._stays_manifest(path, declared_size(data)):
            return lambda sink: sink(memoryview(data))
        try:
            manifest = parse(data, source=path)
        except ManifestError as error:
            self._warn(f"{_sentence(error)} git gets the manifest instead.")
            return lambda sink: sink(memoryview(data))
        if missing_objects(manifest, self._places.store) and may_wait():
            self._waiting[path] = data
            return None
        return self._rebuild_or_leave(path, manifest, data)

    def fetch_waiting(self) -> list[str]:
        """Fetch the objects of all files that wait, in one batch; returns their paths.

        What cannot be fetched is told once for all of them.
        """
        objects = {path: parse(data, source=path).objects for path, data in self._waiting.items()}
        self._left = set()
        try:
            missing = {oid: size for part in objects.values() for oid, size in part.items()}
            bring(self._places, missing)
        except MissingObjectError as error:
            absent = set(error.oids)
            self._left = {path for path, part in objects.items() if not absent.isdisjoint(part)}
            self._tell_left(sorted(self._left), error)
        return list(self._waiting)

    def _tell_left(self, paths: Sequence[str], error: MissingObjectError) -> None:
        if len(paths) == 1:
            what, manifests, files = f"{paths[0]}: {error.message}", "its manifest", f" {paths[0]}"
        else:
            names = ", ".join(paths[:_MOST_NAMED]) + (f" and {n} more" if (n := len(paths) - _MOST_NAMED) > 0 else "")
            what, manifests, files = f"{names}: {error.message}", "their manifests", ""
        # A checkout asks for the file, but so does a diff with an external driver: git does not say which.
        self._warn(
            f"{what}; git gets {manifests} instead. Once the objects are here, 'git theta checkout{files}' writes the "
            f"{'checkpoint' if len(paths) == 1 else 'checkpoints'}."
        )

    def smudge_waiting(self, path: str) -> Callable[[Sink], None] | None:
        """What :meth:`smudge` returns, for a file that waited; ``None`` if there is no such file."""
        data = self._waiting.pop(path, None)
        if data is None:
            return None
        if path in self._left:
            return lambda sink: sink(memoryview(data))
        return self._rebuild_or_leave(path, parse(data, source=path), data, fetch=False)

    def is_version(self, treeish: str, path: str, blob: str) -> bool:
        """Whether a path of a commit is a blob."""
        found = self._cat_file.size(f"{treeish}:{path}")
        return found is not None and found[0] == blob

    def _rebuild_or_leave(
        self, path: str, manifest: Manifest, data: bytes, *, fetch: bool = True
    ) -> Callable[[Sink], None]:
        """The checkpoint, or its manifest with a warning."""
        try:
            if fetch:
                bring(self._places, manifest.objects)
            return self._rebuild(manifest)
        except ManifestError as error:
            self._warn(f"{path}: {_sentence(error)} git gets the manifest instead.")
        except MissingObjectError as error:
            self._tell_left([path], error)
        return lambda sink: sink(memoryview(data))

    def _stays_manifest(self, path: str, nbytes: int) -> bool:
        settings = self._places.settings
        if settings.skip_smudge:
            return True
        if nbytes <= settings.smudge_limit:
            return False
        self._install_hooks()
        leave_pending(self._places, path)
        self._warn(
            f"{path}: {nbytes / 2**30:.1f} GiB are above theta.smudgeLimit, so git gets the manifest; if the file is "
            f"not written in a moment, run 'git theta checkout {path}'."
        )
        return True

    def _install_hooks(self) -> None:
        """Install hooks on first use: a clone under a global installation must push its weights."""
        if not self._hooks_seen:
            self._hooks_seen = True
            told = ensure_hooks(self._places)
            if told:
                self._warn(told)

    def _rebuild(self, manifest: Manifest) -> Callable[[Sink], None]:
        rebuilder = Rebuilder(manifest, self._places.store, self._executor)
        self._install_hooks()

        def write(sink: Sink) -> None:
            rebuilder.stream(sink)
            # Only now is every chunk known to be what the manifest says: a later 'git add' trusts the cache.
            self._encodings.remember(manifest)

        return write

    def _pass_through(self, head: bytes, content: Content) -> Callable[[Sink], None]:
        # git writes the whole content before it reads any answer, so it waits in a file.
        file = self._spool()
        file.write(head)
        _copy(content, file.write)
        file.seek(0)

        def write(sink: Sink) -> None:
            with closing(file):
                while piece := file.read(2**20):
                    sink(memoryview(piece))

        return write


def _sentence(error: ThetaError) -> str:
    """An error with its full stop, for a sentence to follow."""
    return f"{str(error).rstrip('.')}."


def _take(content: Content, nbytes: int) -> bytes:
    buffer = memoryview(bytearray(nbytes))
    return bytes(buffer[: content.readinto(buffer)])


def _copy(content: Content, write: Callable[[memoryview], object]) -> None:
    buffer = memoryview(bytearray(2**20))
    while count := content.readinto(buffer):
        write(buffer[:count])


def _rest(content: Content) -> bytes:
    collected = io.BytesIO()

    def write(piece: memoryview) -> None:
        if collected.tell() + len(piece) > MAX_MANIFEST_NBYTES:
            raise ManifestError(f"the manifest is longer than {MAX_MANIFEST_NBYTES} bytes")
        collected.write(piece)

    _copy(content, write)
    return collected.getvalue()


def warn_on_stderr(message: str) -> None:
    """Show one sentence on one line; a closed terminal is no reason to fail."""
    # Names of files and parameters come from others: what they hold must not move the cursor or fake a line.
    line = _CONTROLS.sub(lambda match: repr(match[0])[1:-1], message)
    if sys.stderr is None:  # closed before we started
        return
    try:
        sys.stderr.write(f"theta: {line}\n")
        sys.stderr.flush()
    except OSError:
        pass
