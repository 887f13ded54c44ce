"""The public face of a repository, for programs and notebooks."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theta_nb.errors import NotTrackedError, ThetaError
from theta_nb.git.places import find_places
from theta_nb.git.process import child_environment, git_text

if TYPE_CHECKING:
    import torch
    from git import Commit, Repo

    from theta_nb.commands.add import AddResult
    from theta_nb.commands.checkout import CheckedOut
    from theta_nb.commands.fsck import FsckReport
    from theta_nb.commands.status import CheckpointStatus
    from theta_nb.commands.track import TrackResult
    from theta_nb.engine.checkpoint import Checkpoint
    from theta_nb.engine.merging.session import MergeSession
    from theta_nb.engine.update_files import UpdateData
    from theta_nb.git.comparing import Where
    from theta_nb.report.blame import Blame
    from theta_nb.report.checkpoint_diff import CheckpointDiff
    from theta_nb.report.history import History

__all__ = ["Repository"]

Progress = Callable[[int, int], None]
Name = str | os.PathLike[str]
"""A ``str`` names a file of the repository, relative to its top; a :class:`pathlib.Path` points to a file."""


class Repository:
    """A git repository that holds checkpoints.

    Every method works from any directory and inside a running event loop, and prints nothing.

    Parameters
    ----------
    path
        Any path inside the work tree, or a bare repository.
    executor
        Threads for encoding and decoding; a pool of its own by default.

    Raises
    ------
    ThetaError
        If there is no repository.

    Examples
    --------
    >>> import subprocess, tempfile
    >>> import numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = subprocess.run(["git", "init", "-q", folder.name], check=True)
    >>> repo = Repository(folder.name)
    >>> repo
    <Repository ...>
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str] = ".", *, executor: Executor | None = None) -> None:
        start = os.path.abspath(os.fspath(path))
        found = find_places(start if os.path.isdir(start) else os.path.dirname(start))
        # Names are relative to the top, wherever the process or the given path is.
        self._places = replace(found, cwd=found.top)
        self._given_executor = executor

    def __repr__(self) -> str:
        return f"<Repository {self._places.top}>"

    @property
    def path(self) -> Path:
        """Top of the work tree, or the bare repository."""
        return Path(self._places.top)

    @cached_property
    def git(self) -> Repo:
        """The same repository as a GitPython object: branches, commits, remotes."""
        from git import Repo

        repo = Repo(self._places.top)
        repo.git.update_environment(PATH=child_environment()["PATH"])
        return repo

    def _require_gitpython(self) -> None:
        """Refuse what ends in a GitPython object where there can be none, before anything is done."""
        name = git_text("rev-parse", "--show-object-format", cwd=self._places.top)
        if name != "sha1":
            raise ThetaError(
                f"{self._places.top} names its objects by {name.upper()}, which GitPython cannot read",
                hint="Use 'git commit' here.",
            )

    @cached_property
    def _executor(self) -> Executor:
        return self._given_executor or ThreadPoolExecutor(
            self._places.settings.workers, thread_name_prefix="theta-repository"
        )

    # --- tracking and staging -----------------------------------------------------------------------------------------

    def track(self, *patterns: Name) -> TrackResult:
        """Have files that match patterns stored by parameter, as ``git theta track`` does.

        Parameters
        ----------
        patterns
            Patterns of the top folder's ``.gitattributes`` (``"*.safetensors"``), or paths.

        Returns
        -------
        TrackResult
            What was done, and which files need attention.

        Raises
        ------
        ThetaError
            If another filter already claims a path.
        """
        from theta_nb.commands.track import track

        # A pattern is more than a name: the slash in "models/" and in "/model.pt" has a meaning.
        names = [pattern if isinstance(pattern, str) else self._name(pattern) for pattern in patterns]
        return track(self._places, names)

    def add(
        self,
        *paths: Name,
        force: bool = False,
        update_type: str | None = None,
        update_data: UpdateData | None = None,
        rank: int | None = None,
        tolerance: float | None = None,
    ) -> AddResult:
        """Stage checkpoints, as ``git theta add`` does.

        Parameters
        ----------
        paths
            Checkpoints; only one where an update is asked for.
        force
            Whether ignored files may be added.
        update_type
            ``"low-rank"``, ``"sparse"`` or ``"ia3"``; without ``update_data`` also another one (``"delta"``,
            ``"dense"``).
        update_data
            An update of the committed version, which is applied to the checkpoint: path of a file or of the folder of a
            PEFT adapter (relative to the current directory, also as a ``str``), or arrays and tensors by name
            (``"layer.0.weight/R"``, ``"layer.0.weight/C"``). Without it, what changed in the file is stored as an
            update of ``update_type``, exactly.
        rank, tolerance
            For ``"low-rank"`` without data: most ranks, and the share of the largest singular value below which the
            rest is left to an exact correction.

        Raises
        ------
        NotTrackedError
            If a path is not tracked.
        ThetaError
            If an update does not fit or does not pay; nothing is changed then.
        """
        names = self._pathspecs(paths)
        if update_type is None and update_data is None:
            from theta_nb.commands.add import add

            return add(self._places, names, force=force)
        from theta_nb.commands.add_update import add_as, add_update

        if update_data is not None:
            if isinstance(update_data, str | os.PathLike):
                update_data = os.path.abspath(update_data)
            return add_update(self._places, names, update_data, update=update_type or "")
        return add_as(self._places, names, update_type or "", force=force, rank=rank, tolerance=tolerance)

    def commit(self, message: str, *, metrics: Mapping[str, float] | None = None) -> Commit:
        """Commit what is staged, hooks included.

        Parameters
        ----------
        message
            Commit message.
        metrics
            Numbers by name, kept as trailers of the message (``Theta-Metric: val_loss=0.31``).

        Returns
        -------
        git.Commit
            The commit, as a GitPython object.

        Raises
        ------
        ThetaError
            If there is nothing to commit, a hook refuses, or a metric is no number.
        """
        from theta_nb.git.commits import commit_staged, message_with_metrics

        text = message_with_metrics(message, metrics)
        self._require_gitpython()
        return self.git.commit(commit_staged(self._places, text))

    def checkout(
        self,
        *paths: Name,
        rev: str | None = None,
        force: bool = False,
        progress: Progress | None = None,
    ) -> list[CheckedOut]:
        """Write checkpoints into the work tree, as ``git theta checkout`` does.

        Parameters
        ----------
        paths
            Checkpoints; all that are missing or still manifests by default.
        rev
            Commit to take them from, which also stages them; the index by default.
        force
            Whether files with changes that git does not have may be overwritten.
        progress
            Called with bytes done and bytes in all.
        """
        from theta_nb.commands.checkout import checkout

        return checkout(self._places, self._pathspecs(paths), source=rev, force=force, progress=progress)

    def status(self, *paths: Name, progress: Progress | None = None) -> list[CheckpointStatus]:
        """State of each tracked checkpoint."""
        from theta_nb.commands.status import status

        return status(self._places, self._pathspecs(paths), progress=progress)

    def fsck(self, *revisions: str, all_: bool = False, progress: Progress | None = None) -> FsckReport:
        """Prove that objects are sound and tensors can be rebuilt, as ``git theta fsck`` does."""
        from theta_nb.commands.fsck import fsck

        return fsck(self._places, revisions=revisions, all_=all_, progress=progress)

    # --- looking back -------------------------------------------------------------------------------------------------

    def history(
        self, path: Name, *revisions: str, first_parent: bool = False, all_: bool = False, limit: int | None = None
    ) -> History:
        """What the commits did to a checkpoint, through renames of the file; no value is read.

        Parameters
        ----------
        path
            The checkpoint.
        revisions
            Commits where it starts, or ranges ``A..B``; HEAD by default.
        first_parent
            Whether to follow only the first parent of merges.
        all_
            Whether to start at all branches and tags.
        limit
            Most commits, the newest.

        Raises
        ------
        NotTrackedError
            If no version of the file is stored by theta-nb.
        ThetaError
            If a revision does not exist, or no commit has the path.
        """
        from theta_nb.commands.log import log

        name = self._name(path)
        return log(self._places, name, revisions, first_parent=first_parent, all_=all_, limit=limit)

    def blame(self, path: Name, *patterns: str | re.Pattern[str], rev: str | None = None) -> Blame:
        """The commit that last changed each parameter.

        Parameters
        ----------
        path
            The checkpoint.
        patterns
            Globs or compiled regular expressions over parameter names; all parameters by default.
        rev
            The version that is asked about; HEAD by default.

        Raises
        ------
        ThetaError
            If there is no such version, it cannot be read, or a pattern matches nothing.
        """
        from theta_nb.commands.blame import blame

        return blame(self._places, self._name(path), patterns, revision=rev)

    # --- reading ------------------------------------------------------------------------------------------------------

    def checkpoint(self, path: Name, rev: str | None = None) -> Checkpoint:
        """A checkpoint as a lazy mapping from parameter names to tensors.

        Parameters
        ----------
        path
            The checkpoint.
        rev
            Commit; by default the file in the work tree (or, where that is a manifest, what it stands for). ``""`` is
            the index.

        Raises
        ------
        ThetaError
            If there is no such file or revision, or it is not stored by theta-nb.
        MissingObjectError
            When values are read whose objects are not here.
        """
        from theta_nb.git.opening import checkpoint_at, checkpoint_in_work_tree

        name = self._name(path)
        if rev is None:
            return checkpoint_in_work_tree(self._places, name, self._executor)
        return checkpoint_at(self._places, name, rev, self._executor)

    def load(
        self, path: Name, rev: str | None = None, *, pattern: str | re.Pattern[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """State dict of a checkpoint, or of the part whose names match ``pattern``.

        Parameters
        ----------
        path, rev
            As for :meth:`checkpoint`.
        pattern
            Glob or compiled regular expression over parameter names.
        """
        return self.checkpoint(path, rev).state_dict(pattern)

    # --- comparing ----------------------------------------------------------------------------------------------------

    def diff(
        self,
        path: Name,
        old: Where = "HEAD",
        new: Where = None,
        *,
        new_path: Name | None = None,
        measure: bool = True,
        histograms: bool = False,
        progress: Progress | None = None,
    ) -> CheckpointDiff:
        """What changed between two versions of a checkpoint, or between two checkpoints.

        Parameters
        ----------
        path
            The checkpoint.
        old, new
            Where each side is: a commit, ``""`` for the index, ``None`` for the work tree, a :class:`pathlib.Path` for
            any file, or a state dict or module in memory. By default HEAD against the work tree.
        new_path
            The checkpoint of the new side, if it is another one.
        measure
            Whether to read the values that differ; without, the answer is instant, and ``measure()`` of the result
            does it later.
        histograms
            Whether to count magnitudes as well.
        progress
            Called with bytes done and bytes in all. What it raises stops the work.

        Raises
        ------
        ThetaError
            If a revision is unknown, or neither side has the file.
        NotTrackedError
            If a version is not stored by theta-nb.
        ManifestError
            If a version is corrupt.
        """
        from theta_nb.git.comparing import compare_versions

        found = compare_versions(
            self._places,
            self._name(path),
            old,
            new,
            new_path=None if new_path is None else self._name(new_path),
            executor=self._executor,
        )
        return found.measure(histograms=histograms, progress=progress) if measure else found

    # --- merging ------------------------------------------------------------------------------------------------------

    def merge(
        self,
        path: Name,
        rev: str,
        *more: str,
        statistics: Sequence[Name] = (),
        reopen: Name | None = None,
        progress: Progress | None = None,
    ) -> MergeSession:
        """Begin to merge a checkpoint of other commits into that of HEAD; nothing changes before ``commit``.

        Parameters
        ----------
        path
            The checkpoint, as HEAD calls it.
        rev, more
            Commits to be merged; several make an octopus merge.
        statistics
            Checkpoints in the work tree that hold statistics of the training data, ours first, for the methods
            ``fisher`` and ``regmean``; :mod:`theta_nb.merges.gathering` makes them.
        reopen
            A file that ``session.save`` wrote in a merge of the same versions, to go on from there.
        progress
            Called with bytes done and bytes in all, while objects are fetched that are not here.

        Returns
        -------
        MergeSession
            Its inputs are called ``"ours"`` and ``"theirs"``, or by their names where there are several. Its
            ``commit(message)`` makes one merge commit with all parents; git merges the other files.

        Raises
        ------
        ThetaError
            If a revision does not exist, has no such checkpoint, or is part of HEAD already; if statistics cannot be
            read.
        MergeError
            If the file to reopen is no saved session, or one of other versions.
        """
        from theta_nb.git.merge_commit import MergeCommitter
        from theta_nb.git.merge_inputs import open_session, statistics_of_data
        from theta_nb.git.merge_plan import plan_merge

        plan = plan_merge(self._places, (rev, *more))
        if plan.up_to_date:
            raise ThetaError(f"{', '.join(plan.words)} is part of HEAD already", hint="There is nothing to merge.")
        versions = plan.versions(self._name(path)).required(plan.words)
        if any(not isinstance(name, str | os.PathLike) for name in statistics):
            raise ThetaError(
                "statistics are given as files, so that the merge can be replayed",
                hint="Save what gather_fisher or gather_regmean returns with safetensors.torch.save_file.",
            )
        session = open_session(
            self._places,
            versions.path,
            versions.base,
            versions.origins,
            executor=self._executor,
            committer=MergeCommitter(plan, versions.path),
            statistics=statistics_of_data(self._places, [self._name(name) for name in statistics]),
            progress=progress,
        )
        return session if reopen is None else session.load(os.path.join(self._places.top, os.fspath(reopen)))

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(
        self,
        state_dict: Mapping[str, Any],
        path: Name,
        *,
        message: str,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, str] | None = None,
        branch: str | None = None,
    ) -> Commit:
        """Commit a state dict as a new version of a checkpoint, without touching the work tree.

        Parameters
        ----------
        state_dict
            Torch tensors or NumPy arrays by name; ``.pt`` files also take nested containers.
        path
            The checkpoint; its ending decides the format.
        message, metrics
            As for :meth:`commit`. Only this file is in the commit (with the ``.gitattributes`` that tracks it, if that
            is only staged yet), and hooks do not run.
        metadata
            Text for the ``__metadata__`` of a safetensors file.
        branch
            Branch to commit on, made from HEAD if it does not exist; the current one by default. The file in the work
            tree then counts as modified until it is checked out (``repo.checkout(path, force=True)``).

        Returns
        -------
        git.Commit
            The commit, as a GitPython object.

        Raises
        ------
        NotTrackedError
            If the path is not tracked, here or on the branch.
        CheckpointError
            If the format cannot hold the state dict.
        ThetaError
            If other content of the path is staged, the branch is checked out in another work tree, or it moved
            meanwhile; nothing is committed then.
        """
        from theta_nb.git.commits import commit_blob, message_with_metrics, parent_of
        from theta_nb.git.saving import is_tracked, manifest_of_state

        name = self._name(path)
        self._require_gitpython()
        if not is_tracked(self._places, name, branch):
            raise NotTrackedError(f"{name} is not tracked by theta", hint=f"Run repo.track({name!r}) first.")
        text = message_with_metrics(message, metrics)
        parent = parent_of(self._places, branch)
        content = manifest_of_state(self._places, self._executor, state_dict, name, metadata or {}, parent)
        return self.git.commit(commit_blob(self._places, name, content, text, branch=branch))

    # --- names --------------------------------------------------------------------------------------------------------

    def _name(self, path: Name) -> str:
        """Name relative to the top."""
        if isinstance(path, str):
            name = path
        else:
            full = os.path.abspath(os.fspath(path))
            folder = os.path.realpath(os.path.dirname(full))
            name = os.path.relpath(os.path.join(folder, os.path.basename(full)), os.path.realpath(self._places.top))
        if os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir:
            raise ThetaError(f"{os.fspath(path)} is outside the repository {self._places.top}")
        return os.path.normpath(name)

    def _pathspecs(self, paths: Sequence[Name]) -> list[str]:
        return [f":(top,literal){self._name(path)}" for path in paths]
