"""What the clean and smudge filters do with one file, whatever protocol brought it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from theta_nb.errors import ManifestError, MissingObjectError, ThetaError, listed
from theta_nb.git.cat_file import CatFile
from theta_nb.git.content import HEAD_NBYTES, Content, copy_rest, is_reference_manifest, read_rest, take
from theta_nb.git.errands import Errands
from theta_nb.git.on_demand import bring
from theta_nb.git.pending import leave_pending
from theta_nb.git.places import Places
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import declared_size, is_manifest, parse
from theta_nb.storage.objects import lacking

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from theta_nb.engine.known import EncodingCache
    from theta_nb.git.cleaning import FileCleaner

__all__ = ["Filter"]

_MOST_NAMED = 5

Sink = Callable[[memoryview], None]


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
        self._cleaner: FileCleaner | None = None
        self._waiting: dict[str, bytes] = {}
        self._left: set[str] = set()
        self._rebuilt: list[Manifest] = []
        self._hooks_seen = False
        self._put_off: list[Callable[[], None]] = []
        self._errands = Errands(meanwhile=_import_rebuilding, later=self._put_off.append)

    def settle(self) -> None:
        """Do what git need not wait for, once it has its answer: it is busy writing the file."""
        while self._put_off:
            self._put_off.pop()()
        for manifest in self._rebuilt:
            self._encodings.remember(manifest)
        if self._rebuilt:
            self._rebuilt.clear()
            self._install_hooks()

    def close(self) -> None:
        """End children and threads, quickly: git waits for it."""
        self.settle()
        self._cat_file.close()
        if "_encodings" in self.__dict__:
            self._encodings.close()
        if "_executor" in self.__dict__:
            self._executor.shutdown(wait=True)

    @cached_property
    def _executor(self) -> Executor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(self._places.settings.workers, thread_name_prefix="theta")

    @cached_property
    def _encodings(self) -> EncodingCache:
        return self._places.encodings()

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
        if self._cleaner is None:
            from theta_nb.git.cleaning import FileCleaner  # a checkout need not wait for what it never uses

            self._cleaner = FileCleaner(
                self._places, self._cat_file, self._encodings, self._executor, self._spool, self._warn
            )
        manifest, stored = self._cleaner.clean(path, content)
        if stored:
            self._install_hooks()
        return manifest

    def _spool(self) -> BinaryIO:
        import tempfile  # hardly ever, and it brings much with it

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
        head = take(content, HEAD_NBYTES)
        if not is_manifest(head):
            if is_reference_manifest(head):
                self._warn(
                    f"{path} was stored by git-theta (format 1), which is not supported yet; "
                    "its metadata is checked out instead of the checkpoint."
                )
            return self._pass_through(head, content)
        data = head + read_rest(content)
        # What is not rebuilt is not parsed either: 100 MB of text may promise anything.
        if self._stays_manifest(path, declared_size(data)):
            return lambda sink: sink(memoryview(data))
        try:
            manifest = parse(data, source=path)
        except ManifestError as error:
            self._warn(f"{_sentence(error)} git gets the manifest instead.")
            return lambda sink: sink(memoryview(data))
        if lacking(manifest.objects, self._places.store) and may_wait():
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
            bring(self._places, missing, errands=self._errands)
        except MissingObjectError as error:
            absent = set(error.oids)
            self._left = {path for path, part in objects.items() if not absent.isdisjoint(part)}
            self._tell_left(sorted(self._left), error)
        return list(self._waiting)

    def _tell_left(self, paths: Sequence[str], error: MissingObjectError) -> None:
        if len(paths) == 1:
            what, manifests, files = f"{paths[0]}: {error.message}", "its manifest", f" {paths[0]}"
        else:
            names = listed(paths, most=_MOST_NAMED)
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
                bring(self._places, manifest.objects, errands=self._errands)
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
            from theta_nb.git.hooks import ensure_hooks

            self._hooks_seen = True
            told = ensure_hooks(self._places)
            if told:
                self._warn(told)

    def _rebuild(self, manifest: Manifest) -> Callable[[Sink], None]:
        from theta_nb.engine.rebuild import Rebuilder

        rebuilder = Rebuilder(manifest, self._places.store, self._executor)

        def write(sink: Sink) -> None:
            rebuilder.stream(sink)
            # Only now is every chunk known to be what the manifest says: a later 'git add' trusts the cache.
            self._rebuilt.append(manifest)

        return write

    def _pass_through(self, head: bytes, content: Content) -> Callable[[Sink], None]:
        # git writes the whole content before it reads any answer, so it waits in a file.
        file = self._spool()
        file.write(head)
        copy_rest(content, file.write)
        file.seek(0)

        def write(sink: Sink) -> None:
            with closing(file):
                while piece := file.read(2**20):
                    sink(memoryview(piece))

        return write


def _sentence(error: ThetaError) -> str:
    """An error with its full stop, for a sentence to follow."""
    return f"{str(error).rstrip('.')}."


def _import_rebuilding() -> None:
    """Import what a checkpoint is rebuilt with; the transfer need not wait for it."""
    import concurrent.futures.thread  # noqa: F401

    import theta_nb.engine.rebuild  # noqa: F401
