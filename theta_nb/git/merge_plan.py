"""What a merge of commits is about: its commits, their common ancestor, and where each has a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from theta_nb.errors import ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.merge_inputs import BASE_LABEL, Origin
from theta_nb.git.merge_trees import virtual_ancestor
from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git, git_lines, git_ok, git_text
from theta_nb.git.tracked import resolve

__all__ = ["MergePlan", "Versions", "changed_files", "default_message", "plan_merge"]


@dataclass(frozen=True)
class Versions:
    """Where the versions of one checkpoint are.

    Parameters
    ----------
    path
        Where the result goes.
    base
        In the common ancestor; ``None`` if that lacks it, or there is none.
    ours
        In HEAD.
    theirs
        In the other commits, in their order; ``None`` for one that lacks it.
    """

    path: str
    base: Origin | None
    ours: Origin
    theirs: tuple[Origin | None, ...]

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The versions that there are, ours first."""
        return (self.ours, *(one for one in self.theirs if one is not None))

    @property
    def contested(self) -> bool:
        """Whether more than one side has a version of its own."""
        old = self.base.blob if self.base is not None else ""
        return len({one.blob for one in self.origins} - {old}) > 1

    def required(self, words: Sequence[str]) -> Versions:
        """The same, if every commit has the checkpoint.

        Raises
        ------
        ThetaError
            If one lacks it; it is named as in ``words``.
        """
        for word, one in zip(words, self.theirs, strict=True):
            if one is None:
                raise ThetaError(f"{self.path} does not exist at {word}", hint="'git log -- PATH' shows where it does.")
        return self


@dataclass(frozen=True)
class MergePlan:
    """Commits to be merged into HEAD.

    Parameters
    ----------
    places
        The repository.
    head
        Commit id of HEAD.
    words
        The other commits as they were named.
    commits
        Their ids.
    base
        Id of the common ancestor; empty if the histories are unrelated.
    criss_cross
        Whether there are several equally good ancestors, of which ``base`` is one, so that git makes up another.
    """

    places: Places
    head: str
    words: tuple[str, ...]
    commits: tuple[str, ...]
    base: str
    criss_cross: bool = False

    @property
    def up_to_date(self) -> bool:
        """Whether HEAD has all of them already."""
        return all(git_ok("merge-base", "--is-ancestor", one, self.head, cwd=self.places.top) for one in self.commits)

    @property
    def fast_forward(self) -> bool:
        """Whether the branch could simply move."""
        return len(self.commits) == 1 and self.base == self.head

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the other inputs: ``theirs`` for a single one, else as they were named."""
        return ("theirs",) if len(self.words) == 1 else self.words

    def versions(self, path: str) -> Versions:
        """Where each commit has a checkpoint; one that was renamed is followed.

        Raises
        ------
        ThetaError
            If HEAD lacks it.
        """
        cat_file = CatFile(self.places.top)
        try:
            old = self._name_in_base(path, cat_file)
            ours = _blob(cat_file, self.head, path)
            if ours is None:
                raise ThetaError(f"{path} does not exist at HEAD", hint="'git theta ls-files' lists the checkpoints.")
            base = _blob(cat_file, self.base, old) if self.base else None
            names = [self._name_in(commit, path, old, cat_file) for commit in self.commits]
            blobs = [_blob(cat_file, commit, name) for commit, name in zip(self.commits, names, strict=True)]
        finally:
            cat_file.close()
        # Where only they renamed it, git's own merge moves the file as well.
        moved = [name for name, blob in zip(names, blobs, strict=True) if blob is not None and name != old]
        target = moved[0] if moved and path == old else path

        def origin(label: str, commit: str, name: str, blob: str | None) -> Origin | None:
            revision = commit if name == target else f"{commit}:{name}"
            return None if blob is None else Origin(label, revision, blob)

        others = zip(self.labels, self.commits, names, blobs, strict=True)
        theirs = tuple(origin(*one) for one in others)
        mine = Origin("ours", self.head if path == target else f"{self.head}:{path}", ours)
        return Versions(target, self._ancestor(target) or origin(BASE_LABEL, self.base, old, base), mine, theirs)

    def _ancestor(self, path: str) -> Origin | None:
        """The version that git makes up, as the merge driver gets it; else ``None``."""
        blob = virtual_ancestor(self.places, self.head, self.commits[0], path) if self.criss_cross else None
        return None if blob is None else Origin(BASE_LABEL, blob, blob)

    def _name_in_base(self, path: str, cat_file: CatFile) -> str:
        if not self.base or _blob(cat_file, self.base, path) is not None:
            return path
        return next((old for old, new in _renames(self.places, self.base, self.head) if new == path), path)

    def _name_in(self, commit: str, path: str, old: str, cat_file: CatFile) -> str:
        for name in (old, path):
            if _blob(cat_file, commit, name) is not None:
                return name
        renames = _renames(self.places, self.base, commit) if self.base else []
        return next((new for before, new in renames if before == old), path)


def plan_merge(places: Places, words: Sequence[str]) -> MergePlan:
    """Find the commits and their common ancestor.

    Parameters
    ----------
    places
        The repository.
    words
        Revisions to be merged into HEAD.

    Raises
    ------
    ThetaError
        If there is no commit yet, a revision is none, or none or one of them twice is given.
    """
    if not words:
        raise ThetaError("nothing is named to merge", hint="Name a branch or a commit.")
    head = resolve("HEAD", places.top)
    commits = tuple(resolve(word, places.top) for word in words)
    if len(set(commits)) < len(commits):
        raise ThetaError("one commit is named twice", hint="Name every commit once.")
    which = "--octopus" if len(commits) > 1 else "--all"
    found = git_lines("merge-base", which, head, *commits, cwd=places.top)
    criss_cross = len(commits) == 1 and len(found) > 1
    return MergePlan(places, head, tuple(words), commits, found[0] if found else "", criss_cross)


def default_message(plan: MergePlan) -> str:
    """What git would call the merge."""
    kinds = {"refs/heads/": ("branch", "branches"), "refs/tags/": ("tag", "tags"), "": ("commit", "commits")}
    groups: dict[str, list[str]] = {}
    for word in plan.words:
        ref = _symbolic(plan.places, word)
        groups.setdefault(next(prefix for prefix in kinds if ref.startswith(prefix)), []).append(f"'{word}'")
    parts = []
    for prefix, names in groups.items():
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        parts.append(f"{kinds[prefix][len(names) > 1]} {listed}")
    return f"Merge {', '.join(parts)}"


def _symbolic(places: Places, word: str) -> str:
    try:
        return git_text(
            "rev-parse", "--verify", "--quiet", "--symbolic-full-name", "--end-of-options", word, cwd=places.top
        )
    except GitError:
        return ""


def _blob(cat_file: CatFile, commit: str, path: str) -> str | None:
    found = cat_file.size(f"{commit}:{path}") if commit else None
    return found[0] if found is not None else None


def changed_files(places: Places, old: str, new: str) -> set[str]:
    """Paths of the files that differ between two commits; a renamed one has two."""
    out = git("diff-tree", "-r", "--no-renames", "--name-only", "-z", old, new, cwd=places.top)
    return {os.fsdecode(name) for name in out.split(b"\0")[:-1]}


def _renames(places: Places, old: str, new: str) -> list[tuple[str, str]]:
    out = git("diff-tree", "-r", "-M", "--diff-filter=R", "--name-status", "-z", old, new, cwd=places.top)
    words = [os.fsdecode(word) for word in out.split(b"\0")[:-1]]
    return list(zip(words[1::3], words[2::3], strict=True))
