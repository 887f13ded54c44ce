"""What each commit did to one checkpoint, and which commit last changed each parameter, from manifests handed in.

Nothing is read but manifests. Versions of one checkpoint have most parameters in common, so those are kept once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from theta_nb.engine.diff import Parameter, ParameterChange, parameters_of, structural_diff
from theta_nb.engine.storage_cost import by_object, total_storage
from theta_nb.manifest.model import Manifest

__all__ = ["Attribution", "Commit", "State", "Step", "Version", "VersionReader", "attribute", "steps_of"]

State = Literal["added", "modified", "unchanged", "deleted", "raw", "broken"]
"""What a commit did: ``"raw"`` put a whole file into git, ``"broken"`` a manifest that cannot be read; ``"unchanged"``
are merges that took one side's version, and changes of the file's mode."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What git says of a commit.

    Parameters
    ----------
    id
        Full commit id.
    parents
        Nearest ancestors that have another version of the file, the first parent's line first.
    author, date, subject
        Who, when (the author's date), and the first line of the message.
    metrics
        Numbers from the trailers of the message.
    branches, tags
        Short names of the refs whose version of the file this is.
    head
        Whether it is HEAD's version.
    """

    id: str
    parents: tuple[str, ...]
    author: str
    date: datetime
    subject: str
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    branches: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    head: bool = False

    @property
    def short(self) -> str:
        """The first digits of the id."""
        return self.id[:8]


@dataclass(frozen=True, slots=True)
class Version:
    """What a commit has at the path of the checkpoint.

    Parameters
    ----------
    path
        Name of the file there; empty where there is none.
    kind
        ``"manifest"``; ``"raw"`` for a whole file in git, ``"broken"`` for a manifest that cannot be read, ``"none"``.
    parameters
        Parameter groups by name.
    objects
        Length of each object that holds them, by name.
    format, size, skeleton, recipe
        As in the manifest.
    problem
        What is wrong with a broken manifest.
    stored
        Bytes by update type of what each object holds, by name.
    """

    path: str = ""
    kind: Literal["manifest", "raw", "broken", "none"] = "none"
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    objects: Mapping[str, int] = field(default_factory=dict)
    format: str = ""
    size: int = 0
    skeleton: bytes = b""
    recipe: str = ""
    problem: str = ""
    stored: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def tensors(self) -> int:
        """Number of tensors."""
        return sum(parameter.dtype != "bytes" for parameter in self.parameters.values())


class VersionReader:
    """Makes versions of manifests; what several have in common is kept once."""

    def __init__(self) -> None:
        self._shared: dict[Parameter, Parameter] = {}

    def read(self, manifest: Manifest, path: str = "") -> Version:
        """The version that a manifest describes."""
        shared = self._shared
        return Version(
            path,
            "manifest",
            {name: shared.setdefault(p, p) for name, p in parameters_of(manifest).items()},
            manifest.objects,
            manifest.format,
            manifest.size,
            manifest.skeleton,
            manifest.recipe,
            stored=by_object(manifest),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What one commit did to the checkpoint, against its first parent.

    Parameters
    ----------
    commit
        The commit.
    path
        Name of the file there.
    state
        One of :data:`State`.
    changes
        Parameter groups that differ.
    other
        Whether something that is no tensor differs (metadata, pickled values, order in the file).
    tensors, size, format
        Of this version: number of tensors, length of the file in bytes, file format.
    new_objects, new_bytes
        Stored objects that no earlier version refers to, and their length in bytes.
    storage
        The same bytes by update type, the largest first.
    renamed_from
        Name of the file before; empty if it is the same.
    recipe
        Recipe of the merge that made this version, a JSON text; empty if it is none.
    problem
        Why a version cannot be read.
    parameters
        Parameter groups of this version, by name; those that versions have in common are the same objects.
    """

    commit: Commit
    path: str
    state: State
    changes: tuple[ParameterChange, ...] = ()
    other: bool = False
    tensors: int = 0
    size: int = 0
    format: str = ""
    new_objects: int = 0
    new_bytes: int = 0
    storage: Mapping[str, int] = field(default_factory=dict, hash=False)
    renamed_from: str = ""
    recipe: str = ""
    problem: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict, repr=False)

    def names(self, *statuses: str) -> tuple[str, ...]:
        """Names of the parameters with one of some statuses; of all that differ by default."""
        return tuple(change.name for change in self.changes if not statuses or change.status in statuses)

    @property
    def is_merge(self) -> bool:
        """Whether the commit joins several lines of versions."""
        return len(self.commit.parents) > 1


def steps_of(commits: Sequence[Commit], versions: Mapping[str, Version]) -> tuple[Step, ...]:
    """What each commit did.

    Parameters
    ----------
    commits
        Descendants before ancestors.
    versions
        What each commit, and each parent, has at the path, by commit id.

    Returns
    -------
    tuple
        In the order of ``commits``.
    """
    listed = {commit.id for commit in commits}
    seen: set[str] = set()
    for commit in commits:  # what lies before the listed part is not new either
        for parent in commit.parents:
            if parent not in listed:
                seen.update(versions[parent].objects)
    steps = []
    for commit in reversed(commits):
        version = versions[commit.id]
        before = versions[commit.parents[0]] if commit.parents else Version()
        new = {oid: size for oid, size in version.objects.items() if oid not in seen}
        seen.update(new)
        step = _step(commit, before, version)
        storage = total_storage(version.stored.get(oid, {}) for oid in new)
        steps.append(replace(step, new_objects=len(new), new_bytes=sum(new.values()), storage=storage))
    return tuple(reversed(steps))


def _step(commit: Commit, before: Version, version: Version) -> Step:
    if version.kind == "none":
        return Step(commit, before.path, "deleted", changes_between(before, version))
    renamed = before.path if before.path not in ("", version.path) else ""
    if version.kind == "raw" or version.kind == "broken":
        return Step(commit, version.path, version.kind, renamed_from=renamed, problem=version.problem)
    changes = changes_between(before, version)
    same_kind = before.kind == "manifest"
    other = same_kind and (before.skeleton, before.format) != (version.skeleton, version.format)
    state: State = "added" if not same_kind else "modified" if changes or other else "unchanged"
    return Step(
        commit,
        version.path,
        state,
        changes,
        other,
        version.tensors,
        version.size,
        version.format,
        renamed_from=renamed,
        recipe=version.recipe if version.recipe != before.recipe else "",
        parameters=version.parameters,
    )


def changes_between(before: Version, after: Version) -> tuple[ParameterChange, ...]:
    """Parameter groups that differ between two versions, sorted as people count."""
    # Most are the same object on both sides, which needs no further look.
    old = {name: p for name, p in before.parameters.items() if after.parameters.get(name) is not p}
    new = {name: p for name, p in after.parameters.items() if before.parameters.get(name) is not p}
    return tuple(change for change in structural_diff(old, new) if change.differs)


@dataclass(frozen=True, slots=True)
class Attribution:
    """The commit that gave a parameter group its present value.

    Parameters
    ----------
    parameter
        The parameter, as it is now.
    commit
        The commit.
    status
        What it did to the parameter (``"added"``, ``"modified"``, …); ``"merged"`` where a merge chose a value that
        no parent has.
    """

    parameter: Parameter
    commit: Commit
    status: str


def attribute(
    commits: Sequence[Commit], versions: Mapping[str, Version], names: Iterable[str]
) -> tuple[Attribution, ...]:
    """Which commit last changed each of some parameters of the newest version.

    Merges pass on to the parent that has the value, so a parameter that came from a branch is attributed there.

    Parameters
    ----------
    commits
        Descendants before ancestors; the first is the version that is asked about.
    versions
        As for :func:`steps_of`.
    names
        Parameter names, in the order of the result.
    """
    by_id = {commit.id: commit for commit in commits}
    statuses: dict[str, Mapping[str, str]] = {}
    found = []
    for name in names:
        parameter = versions[commits[0].id].parameters[name]
        commit = _origin(commits[0], by_id, versions, parameter)
        if commit.id not in statuses:
            statuses[commit.id] = _statuses(commit, versions)
        found.append(Attribution(parameter, commit, statuses[commit.id].get(name, "merged")))
    return tuple(found)


def _origin(
    commit: Commit, by_id: Mapping[str, Commit], versions: Mapping[str, Version], parameter: Parameter
) -> Commit:
    """The first commit on the way back that no parent passed the value on to."""
    while True:
        same = [p for p in commit.parents if p in by_id and versions[p].parameters.get(parameter.name) == parameter]
        if not same:
            return commit
        commit = by_id[same[0]]


def _statuses(commit: Commit, versions: Mapping[str, Version]) -> Mapping[str, str]:
    """What a commit did to each parameter; nothing for a merge, which has several versions to differ from."""
    if len(commit.parents) > 1:
        return {}
    before = versions[commit.parents[0]] if commit.parents else Version()
    return {change.name: change.status for change in changes_between(before, versions[commit.id])}
