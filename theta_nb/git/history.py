"""The commits that changed one checkpoint, found by git and followed through renames of the file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from theta_nb.engine.history import Commit, Version, VersionReader
from theta_nb.errors import ManifestError, NotTrackedError, ThetaError
from theta_nb.git.commits import metrics_in
from theta_nb.git.places import Places
from theta_nb.git.process import LITERAL, GitError, git, git_ok
from theta_nb.git.tracked import resolve
from theta_nb.git.walk import manifest_texts
from theta_nb.manifest.memo import Memo
from theta_nb.manifest.text import parse

__all__ = ["Walk", "describe", "walk_history"]

_FIELDS = ("%H", "%P", "%an", "%aI", "%B")
_MOST_NAMES = 20
"""Names that one file is followed through; whoever renames it more often sees its last names."""


@dataclass(frozen=True)
class Walk:
    """Commits that changed a file, and what they made of it.

    Parameters
    ----------
    path
        Its name in the newest of them.
    commits
        Descendants before ancestors.
    versions
        What each commit, and each of their parents, has at the path, by commit id.
    """

    path: str
    commits: tuple[Commit, ...]
    versions: Mapping[str, Version]


def walk_history(
    places: Places,
    path: str,
    revisions: Sequence[str] = (),
    *,
    first_parent: bool = False,
    all_: bool = False,
    limit: int | None = None,
) -> Walk:
    """Find the commits that changed a file.

    Side branches that had no part in the file's content are left out, as in ``git log --simplify-merges``.

    Parameters
    ----------
    places
        The repository.
    path
        Relative to the top of the work tree.
    revisions
        Commits where the walk starts, or ranges ``A..B``; HEAD by default.
    first_parent
        Whether to follow only the first parent of merges.
    all_
        Whether to start at all branches and tags.
    limit
        Most commits, the newest.

    Raises
    ------
    NotTrackedError
        If the path exists, but no version of it is a manifest.
    ThetaError
        If a revision does not exist, or no commit has the path.
    """
    start = ["--branches", "--tags", *_head(places)] if all_ else _starts(places, revisions)
    commits = _list(places, start, [path], first_parent=first_parent)
    if not commits:
        raise ThetaError(f"no commit has {path}", hint="'git theta ls-files' lists the checkpoints.")
    renames: dict[str, dict[str, str]] = {}
    paths = [path]
    blobs = _blobs(places, commits, paths)
    # git log takes paths, not files: where the file begins, what it was called before is added to the paths.
    while len(paths) < _MOST_NAMES:
        names = _names(commits, blobs, renames, path)
        beginnings = [
            c.id
            for c in commits
            if c.id not in renames and (c.id, names.get(c.id)) in blobs
            and not any((p, names[c.id]) in blobs for p in c.parents)
        ]  # fmt: skip
        found = {commit: _renames_of(places, commit) for commit in beginnings}
        renames.update(found)
        older = {found[c][names[c]] for c in found if names[c] in found[c]} - set(paths)
        if not older:
            break
        paths += sorted(older)
        commits = _list(places, start, paths, first_parent=first_parent)
        blobs = _blobs(places, commits, paths)
    names = _names(commits, blobs, renames, path)
    commits = _alive(commits, blobs, names)[:limit]
    versions = _versions(places, commits, blobs, names)
    if not any(version.kind in ("manifest", "broken") for version in versions.values()):
        raise NotTrackedError(
            f"{path} is not stored by theta-nb in any commit", hint=f"Run 'git theta track {path}' and add it again."
        )
    return Walk(path, _with_refs(places, commits, blobs, names), versions)


# --- commits ----------------------------------------------------------------------------------------------------------


def _head(places: Places) -> list[str]:
    """HEAD, which a detached one is the only name of; nothing where there is no commit yet."""
    return ["HEAD"] if git_ok("rev-parse", "--verify", "--quiet", "HEAD", cwd=places.top) else []


def _starts(places: Places, revisions: Sequence[str]) -> list[str]:
    found = []
    for revision in revisions or ["HEAD"]:
        if "..." in revision:
            raise ThetaError(f"{revision!r} has three dots", hint="Write A..B for what B has and A has not.")
        left, dots, right = revision.partition("..")
        if dots:
            found.append(f"^{resolve(left or 'HEAD', places.cwd)}")
        found.append(resolve((right or "HEAD") if dots else left, places.cwd))
    return found


def _list(places: Places, start: Sequence[str], paths: Sequence[str], *, first_parent: bool) -> list[Commit]:
    """Commits that changed the paths, each with the nearest of its ancestors that did."""
    way = ["--first-parent"] if first_parent else ["--simplify-merges"]
    commits = _read(places, ["--parents", "--topo-order", *way, *start, "--", *paths])
    if not first_parent:
        return commits
    return [replace(commit, parents=commit.parents[:1]) for commit in commits]


def _read(places: Places, arguments: Sequence[str]) -> list[Commit]:
    """Commits that ``git log`` lists; what the user's configuration would add is turned off."""
    out = git(
        *("log", "-z", "--no-show-signature", "--no-follow", "--no-color", "--no-patch", "--encoding=UTF-8"),
        *(f"--format=tformat:{'%x00'.join(_FIELDS)}", *arguments),
        cwd=places.top,
        env=LITERAL,
    )
    words = out.decode("utf-8", "replace").split("\0")[:-1]
    return [_commit(*words[i : i + len(_FIELDS)]) for i in range(0, len(words), len(_FIELDS))]


def describe(places: Places, revision: str) -> Commit:
    """What git says of one commit, with the branches and tags that point at it."""
    commits = _read(places, ["--no-walk", resolve(revision, places.cwd)])
    return _with_refs(places, commits, {}, {commit.id: "" for commit in commits})[0]


def _commit(oid: str, parents: str, author: str, date: str, message: str) -> Commit:
    try:
        when = datetime.fromisoformat(date)
    except ValueError:  # a commit object may hold anything
        when = datetime.fromtimestamp(0, UTC)
    lines = message.strip().splitlines()
    return Commit(oid, tuple(parents.split()), author, when, lines[0] if lines else "", metrics_in(message))


def _renames_of(places: Places, commit: str) -> dict[str, str]:
    """Old name by new name of the files that a commit renamed."""
    out = git(
        *("diff-tree", "-r", "-m", "-z", "-M", "--raw", "--no-commit-id", "--diff-filter=R", commit), cwd=places.top
    )
    words = os.fsdecode(out).split("\0")
    return {words[i + 2]: words[i + 1] for i in range(0, len(words) - 2, 3)}


# --- what they have at the path ---------------------------------------------------------------------------------------

Blobs = Mapping[tuple[str, str], str]
"""Blob id by commit id and path."""


def _blobs(places: Places, commits: Iterable[Commit], paths: Sequence[str]) -> Blobs:
    """Blobs at each of some paths, in the commits and their parents."""
    ids = dict.fromkeys(oid for commit in commits for oid in (commit.id, *commit.parents))
    pairs = [(oid, path) for oid in ids for path in paths]
    simple = [pair for pair in pairs if "\n" not in pair[1]]
    data = b"".join(os.fsencode(f"{oid}:{path}\n") for oid, path in simple)
    out = git("cat-file", "--batch-check=%(objecttype) %(objectname)", "--buffer", cwd=places.top, data=data)
    found = {}
    # What is missing is named in the answer, and a name may hold blanks: only the beginning of a line counts.
    for pair, line in zip(simple, out.decode("ascii", "replace").split("\n"), strict=False):
        if line.startswith("blob "):
            found[pair] = line.removeprefix("blob ")
    for oid, path in pairs:
        if "\n" in path and (blob := _blob_at(places, oid, path)):
            found[oid, path] = blob
    return found


def _blob_at(places: Places, commit: str, path: str) -> str:
    try:
        out = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:{path}", cwd=places.top)
    except GitError:
        return ""
    return out.decode("ascii").strip()


def _names(
    commits: Sequence[Commit], blobs: Blobs, renames: Mapping[str, Mapping[str, str]], path: str
) -> dict[str, str]:
    """Name of the file in each commit and parent: that of a child, or a name that it had before that."""
    before: dict[str, set[str]] = {}
    for pairs in renames.values():
        for new, old in pairs.items():
            before.setdefault(new, set()).add(old)
    names: dict[str, str] = {}
    for commit in commits:
        name = names.setdefault(commit.id, path)
        for parent in commit.parents:
            # A merge may join a line that has renamed the file with one that has not.
            names.setdefault(parent, next((n for n in _earlier(name, before) if (parent, n) in blobs), name))
    return names


def _earlier(name: str, before: Mapping[str, set[str]]) -> list[str]:
    """A name and those that it replaced, the nearest first."""
    found = [name]
    for known in found:
        found += sorted(before.get(known, set()) - set(found))
    return found


def _alive(commits: Sequence[Commit], blobs: Blobs, names: Mapping[str, str]) -> list[Commit]:
    """Commits that have the file or take it away; others touched an older file of one of its names."""
    return [
        commit
        for commit in commits
        if (commit.id, names[commit.id]) in blobs or any((p, names[p]) in blobs for p in commit.parents)
    ]


def _versions(places: Places, commits: Sequence[Commit], blobs: Blobs, names: Mapping[str, str]) -> dict[str, Version]:
    where = {
        oid: (names[oid], blobs[oid, names[oid]])
        for commit in commits
        for oid in (commit.id, *commit.parents)
        if (oid, names[oid]) in blobs
    }
    contents = dict(_contents(places, {blob for _, blob in where.values()}))
    versions = {oid: replace(contents.get(blob, _RAW), path=name) for oid, (name, blob) in where.items()}
    for commit in commits:
        for oid in (commit.id, *commit.parents):
            versions.setdefault(oid, Version())
    return versions


_RAW = Version(kind="raw")


def _contents(places: Places, blobs: Iterable[str]) -> Iterator[tuple[str, Version]]:
    reader, memo = VersionReader(), Memo()
    for oid, text in manifest_texts(places, (blob.encode("ascii") for blob in blobs)):
        try:
            version = reader.read(parse(text, memo=memo))
        except ManifestError as error:
            version = Version(kind="broken", problem=error.message.removeprefix("manifest: "))
        yield oid.decode("ascii"), version


# --- names of commits -------------------------------------------------------------------------------------------------


def _with_refs(places: Places, commits: Sequence[Commit], blobs: Blobs, names: Mapping[str, str]) -> tuple[Commit, ...]:
    """Commits with the branches and tags that have their version of the file."""
    branches: dict[str, list[str]] = {}
    tags: dict[str, list[str]] = {}
    refs = list(_refs(places))
    ids = {commit.id for commit in commits}
    elsewhere = [target for _, target in refs if target not in ids]
    tips = _tip_blobs(places, elsewhere, dict.fromkeys(names.values()))
    holders: dict[str, list[str]] = {}
    for commit in commits:
        blob = blobs.get((commit.id, names[commit.id]))
        if blob is not None:
            holders.setdefault(blob, []).append(commit.id)
    head = ""
    for name, target in refs:
        # A ref beside the listed commits belongs to the one whose version it has, if that is clear.
        same = [target] if target in ids else holders.get(tips.get(target, ""), [])
        if len(same) != 1:
            continue
        if name == "HEAD":
            head = same[0]
        elif name.startswith("refs/tags/"):
            tags.setdefault(same[0], []).append(name.removeprefix("refs/tags/"))
        else:
            short = name.removeprefix("refs/heads/").removeprefix("refs/remotes/")
            branches.setdefault(same[0], []).append(short)
    return tuple(
        replace(c, branches=tuple(branches.get(c.id, ())), tags=tuple(tags.get(c.id, ())), head=c.id == head)
        for c in commits
    )


def _refs(places: Places) -> Iterator[tuple[str, str]]:
    """Full name and commit of HEAD, of every branch and of every tag."""
    try:
        yield "HEAD", resolve("HEAD", places.top)
    except GitError:
        return
    fields = "%(objecttype) %(objectname) %(*objecttype) %(*objectname) %(symref) %(refname)"
    out = git("for-each-ref", f"--format={fields}", "refs/heads", "refs/remotes", "refs/tags", cwd=places.top)
    for line in out.decode("utf-8", "surrogateescape").splitlines():
        kind, oid, peeled_kind, peeled, symref, name = line.split(" ", 5)
        if symref:  # origin/HEAD is another name of a branch
            continue
        if kind == "commit" or peeled_kind == "commit":
            yield name, oid if kind == "commit" else peeled


def _tip_blobs(places: Places, commits: Iterable[str], paths: Iterable[str]) -> dict[str, str]:
    """Blob of the file in some commits, under the first of its names that they have."""
    wanted = list(dict.fromkeys(commits))
    if not wanted:
        return {}
    epoch = datetime.fromtimestamp(0, UTC)
    names = list(paths)
    blobs = _blobs(places, [Commit(oid, (), "", epoch, "") for oid in wanted], names)
    return {oid: next((blobs[oid, n] for n in names if (oid, n) in blobs), "") for oid in wanted}
