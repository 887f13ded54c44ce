"""``git theta fsck``: prove that every object is sound and every tensor can be rebuilt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from theta_nb.engine.layouts import anonymous, owners
from theta_nb.engine.rebuild import Decoder, read_layout
from theta_nb.errors import CorruptObjectError, ManifestError, MissingObjectError, ThetaError
from theta_nb.git.hooks import hook_problems
from theta_nb.git.places import Places
from theta_nb.git.process import git_ok
from theta_nb.git.tracked import resolve
from theta_nb.git.walk import ManifestBlob, commit_of, everything, manifest_blobs
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value
from theta_nb.manifest.text import parse
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.chunks import Extent, chunk_extents

__all__ = ["FsckReport", "Problem", "fsck"]

_READ_NBYTES = 2**20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be rebuilt.

    Parameters
    ----------
    kind
        ``"missing"``, ``"corrupt"``, ``"manifest"``, or ``"update"`` where it needs an update type that is not here.
    oid
        Object, or empty.
    commit, path, parameter
        Where it is needed: newest commit that brought in the manifest, path of the checkpoint, parameter names.
    message
        One sentence.
    """

    kind: str
    oid: str
    commit: str
    path: str
    parameter: str
    message: str


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What was checked and what is wrong.

    Parameters
    ----------
    checked_objects, checked_values
        Objects re-hashed, values decoded and compared with their digests.
    nbytes
        Bytes of the objects.
    problems
        Empty if everything can be rebuilt.
    warnings
        Hooks that do not do their part.
    """

    checked_objects: int
    checked_values: int
    nbytes: int
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Use:
    """A value, and where the first manifest that holds it needs it."""

    blob: ManifestBlob
    names: tuple[str, ...]
    value: Value
    extents: tuple[Extent, ...]


def fsck(
    places: Places,
    *,
    revisions: Sequence[str] = (),
    all_: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FsckReport:
    """Check objects and values.

    Parameters
    ----------
    places
        The repository.
    revisions
        Commits whose checkpoints are checked, without their history; HEAD and the index by default.
    all_
        Whether to check everything that any ref, reflog, stash or index reaches.
    progress
        Called with work done and work in all, in bytes of objects and values.

    Raises
    ------
    GitError
        If a revision does not exist.
    """
    problems: list[Problem] = []
    uses: dict[Value, _Use] = {}  # one value may be stored in several ways
    sizes: dict[str, int] = {}
    for blob in manifest_blobs(places, _arguments(places, revisions, all_=all_)):
        try:
            manifest = parse(blob.text, source=blob.path or blob.oid)
        except ManifestError as error:
            problems.append(Problem("manifest", "", commit_of(places, blob.oid), blob.path, "", str(error)))
            continue
        sizes.update(manifest.objects)
        for use in _uses(blob, manifest):
            uses.setdefault(use.value, use)
        problem = _check_layout(places.store, blob, manifest)
        if problem is not None:
            problems.append(problem)
    with ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta") as executor:
        meter = _Meter(sum(sizes.values()) + sum(u.value.nbytes for u in uses.values()), progress)
        bad: dict[str, _Damage] = {}
        checks = executor.map(lambda oid: _check_object(places.store, oid, sizes[oid]), sizes)
        for oid, damage in zip(sizes, checks, strict=True):
            meter.add(sizes[oid])
            if damage is not None:
                bad[oid] = damage
        decoder = Decoder(places.store)
        found = executor.map(lambda use: _check_value(decoder, use, bad), uses.values())
        for use, failure in zip(uses.values(), found, strict=True):
            meter.add(use.value.nbytes)
            if failure is not None:
                problems.append(_problem(places, use, bad, failure))
    problems += _harmless(places, uses.values(), bad, {problem.oid for problem in problems})
    return FsckReport(len(sizes), len(uses), sum(sizes.values()), tuple(problems), tuple(hook_problems(places)))


def _arguments(places: Places, revisions: Sequence[str], *, all_: bool) -> list[str]:
    if all_:
        return everything(places)
    if revisions:
        return ["--no-walk", *(resolve(revision, places.cwd) for revision in revisions)]
    head = ["HEAD"] if git_ok("rev-parse", "--verify", "--quiet", "HEAD", cwd=places.top) else []
    return ["--no-walk", "--indexed-objects", *head]


class _Meter:
    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)


def _uses(blob: ManifestBlob, manifest: Manifest) -> list[_Use]:
    names: dict[bytes, list[str]] = {manifest.layout: ["the layout"], manifest.skeleton: ["the skeleton"]}
    owners: dict[bytes, Entry] = {}
    for entry in manifest.entries.values():
        if not entry.owner:
            names.setdefault(entry.digest, []).append(entry.name)
            owners[entry.digest] = entry
    return [_Use(blob, tuple(names[d]), manifest.values[d], _extents(manifest.values[d], owners.get(d))) for d in names]


def _extents(value: Value, owner: Entry | None) -> tuple[Extent, ...]:
    """Where the chunks of a value lie; layout and skeleton belong to no entry, and are bytes."""
    return tuple(chunk_extents(value.nbytes, 1, 1) if owner is None else owner.extents(value.nbytes))


def _check_layout(store: ObjectStore, blob: ManifestBlob, manifest: Manifest) -> Problem | None:
    """Whether the layout fits the manifest; missing and corrupt objects are reported with their values."""
    try:
        layout = read_layout(manifest, Decoder(store))
    except (MissingObjectError, CorruptObjectError):
        return None
    except ManifestError as error:
        return Problem("manifest", "", "", blob.path, "", str(error))
    skeleton = layout.size - sum(s.nbytes for s in layout.storages) - sum(f.nbytes for f in layout.derived)
    if manifest.values[manifest.skeleton].nbytes != skeleton:
        return Problem("manifest", "", "", blob.path, "", "the skeleton does not have the length the layout asks for")
    held = [manifest.value_of(owner).nbytes for owner in owners(layout)]
    wrong = [anonymous(i) for i, s in enumerate(layout.storages) if held[i] != s.nbytes]
    return Problem("manifest", "", "", blob.path, wrong[0], "a value has another length") if wrong else None


@dataclass(frozen=True, slots=True)
class _Damage:
    """What is wrong with an object; ``whole`` if nothing in it can be read, else its values are tried one by one."""

    kind: str
    message: str
    whole: bool = True


def _check_object(store: ObjectStore, oid: str, size: int) -> _Damage | None:
    found = store.size(oid)
    if found is None:
        return _Damage("missing", f"object {oid} is missing")
    if found != size:
        return _Damage("corrupt", f"object {oid} has {found} bytes instead of {size}")
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(size, _READ_NBYTES)))
    try:
        for offset in range(0, size, _READ_NBYTES):
            piece = buffer[: min(_READ_NBYTES, size - offset)]
            store.read_into(oid, offset, piece)
            digest.update(piece)
    except ThetaError as error:
        return _Damage("corrupt", error.message)
    if digest.hexdigest() == oid:
        return None
    return _Damage("corrupt", f"object {oid} does not hold what its name says", whole=False)


def _check_value(decoder: Decoder, use: _Use, bad: Mapping[str, _Damage]) -> ThetaError | None:
    if any(oid in bad and bad[oid].whole for oid in use.value.oids):
        return CorruptObjectError("an object of it is damaged")
    try:
        for extent, ref in zip(use.extents, use.value.chunks, strict=True):
            _decode(decoder, ref, extent.nbytes, use.names[0])
    except ThetaError as error:
        return error
    return None


def _harmless(places: Places, uses: Iterable[_Use], bad: Mapping[str, _Damage], told: set[str]) -> Iterator[Problem]:
    """Damaged objects whose every value in use can be rebuilt; no server will take them, so they are told as well."""
    for use in uses:
        for oid in use.value.oids:
            if oid in bad and oid not in told:
                told.add(oid)
                commit = commit_of(places, use.blob.oid)
                yield Problem(bad[oid].kind, oid, commit, use.blob.path, "", bad[oid].message)


def _decode(decoder: Decoder, ref: ChunkRef, nbytes: int, what: str) -> None:
    decoder.into(ref, memoryview(bytearray(nbytes)), what)


def _problem(places: Places, use: _Use, bad: Mapping[str, _Damage], error: ThetaError) -> Problem:
    oid = next((oid for oid in use.value.oids if oid in bad), "")
    if oid:
        kind, message = bad[oid].kind, bad[oid].message
    else:
        kinds = ((CorruptObjectError, "corrupt"), (MissingObjectError, "missing"), (ThetaError, "update"))
        kind, message = next(kind for of, kind in kinds if isinstance(error, of)), error.message
    return Problem(kind, oid, commit_of(places, use.blob.oid), use.blob.path, ", ".join(use.names), message)
