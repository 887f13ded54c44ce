"""What there is to choose from in a repository: commits, checkpoints, parameters, remotes, patterns."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from theta_nb.checkpoints.formats import FORMATS
from theta_nb.commands.track import tracked_patterns
from theta_nb.errors import ManifestError, ThetaError
from theta_nb.git.attributes import tracked_in_tree
from theta_nb.git.cat_file import CatFile
from theta_nb.git.places import Places, find_places
from theta_nb.git.process import git, git_text
from theta_nb.git.tracked import tracked_in_index, untracked_checkpoints
from theta_nb.git.versions import index_blobs, read_text
from theta_nb.manifest.text import parse

__all__ = ["Choices"]

Choice = tuple[str, str]
"""A completion, and what it is."""


class Choices:
    """Choices in the repository around a folder.

    Parameters
    ----------
    folder
        Where paths are relative to.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @cached_property
    def _places(self) -> Places:
        return find_places(self._folder)

    def revisions(self) -> list[Choice]:
        """HEAD, branches and tags."""
        out = git_text(
            *("for-each-ref", "--sort=-creatordate", "--count=300", "--format=%(refname)"),
            *("refs/heads", "refs/tags", "refs/remotes"),
            cwd=self._places.top,
        )
        found = [("HEAD", "commit"), ("HEAD~1", "commit")]
        for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag"), ("refs/remotes/", "remote branch")):
            found += [(ref.removeprefix(prefix), kind) for ref in out.split("\n") if ref.startswith(prefix)]
        return found

    def remotes(self) -> list[Choice]:
        """Names of remotes."""
        return [(name, "remote") for name in git_text("remote", cwd=self._places.top).split("\n") if name]

    def paths(self, *, new: bool = False) -> list[Choice]:
        """Tracked checkpoints, relative to the folder; ``new`` ones are those that git does not have yet."""
        places = self._places
        names = dict.fromkeys(blob.path for blob in tracked_in_index(places))
        if new:
            names.update(dict.fromkeys(untracked_checkpoints(places)))
        return [(self._word(name), "checkpoint") for name in names]

    def paths_at(self, revision: str) -> list[Choice]:
        """Checkpoints of a commit, or of the index, relative to the top."""
        blobs = tracked_in_tree(self._places, revision) if revision else tracked_in_index(self._places)
        return [(shlex.quote(name), "checkpoint") for name in dict.fromkeys(blob.path for blob in blobs)]

    def files(self) -> list[Choice]:
        """Patterns and files that look like checkpoints and could be tracked."""
        endings = tuple(ending for format_ in map(FORMATS.__getitem__, FORMATS) for ending in format_.extensions)
        out = git("ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=self._folder)
        names = [os.fsdecode(name) for name in out.split(b"\0") if name]
        found = [name for name in names if name.endswith(endings)]
        patterns = dict.fromkeys(f'"*{os.path.splitext(name)[1]}"' for name in found)
        return [*((pattern, "pattern") for pattern in patterns), *((shlex.quote(name), "file") for name in found)]

    def patterns(self) -> list[Choice]:
        """Patterns that are tracked."""
        return [(shlex.quote(rule.pattern), "pattern") for rule in tracked_patterns(self._places)]

    def parameters(self, words: Sequence[str]) -> list[Choice]:
        """Parameter names of the checkpoints that words of the line name, or of all."""
        places = self._places
        tracked = dict.fromkeys(blob.path for blob in tracked_in_index(places))
        named = {os.path.normpath(os.path.join(self._prefix, word.rpartition(":")[2])) for word in words}
        chosen = [path for path in tracked if path in named] or list(tracked)
        names: dict[str, None] = {}
        cat_file = CatFile(places.top)
        try:
            for path in chosen[:20]:
                for oid in index_blobs(path, places.top)[:1]:
                    text = read_text(oid, cat_file)
                    with suppress(ManifestError):
                        names.update(dict.fromkeys(parse(text).entries if text is not None else ()))
        finally:
            cat_file.close()
        return [(shlex.quote(name), "parameter") for name in names if not name.startswith("@")]

    @cached_property
    def _prefix(self) -> str:
        top = self._places.work_tree
        if top is None:
            return ""
        relative = os.path.relpath(os.path.realpath(self._folder), os.path.realpath(top))
        if relative.startswith(".."):
            raise ThetaError(f"{self._folder} is outside of {top}")
        return "" if relative == "." else relative

    def _word(self, path: str) -> str:
        return shlex.quote(os.path.relpath(path, self._prefix) if self._prefix else path)
