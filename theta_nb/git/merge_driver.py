"""The merge driver: three manifests in, one out, in place of ours.

git hands temporary files that hold manifests, but a side from before the file was tracked is a raw checkpoint, and the
ancestor is empty where both sides added the file. Nothing is written to standard output: it would end up in the output
of ``git merge-tree``.

What only one side changed needs no value, so the manifests alone are merged. Only where both sides changed something,
and it is known or can be asked how to merge that, a session is opened and values are read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace

from theta_nb.engine.three_way import merge_manifests, three_way_recipe
from theta_nb.errors import ThetaError, listed
from theta_nb.git.merge_files import manifest_of_file
from theta_nb.git.places import Places, find_places
from theta_nb.git.process import LITERAL, git, git_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import dump

__all__ = ["merge_driver"]

_SHOWN = 5


def merge_driver(
    base: str, ours: str, theirs: str, path: str, *, keep_base: bool = False, warn: Callable[[str], None]
) -> int:
    """Merge ``theirs`` into the file ``ours``.

    Parameters
    ----------
    base, ours, theirs
        Files that git made (``%O %A %B``).
    path
        Path of the result in the repository (``%P``).
    keep_base
        Whether this is the merge of a virtual ancestor: conflicts keep the base's value and are not reported.
    warn
        Shows one sentence.

    Returns
    -------
    int
        0 if everything resolved itself or was chosen, 1 for a conflict: ``ours`` is then unchanged.

    Raises
    ------
    ThetaError
        If a side cannot be read, or if a ``git merge`` ends in a conflict while the work tree has changes of the file
        that are not committed; git then leaves everything as it was.
    """
    places = find_places()
    if path in places.settings.merge_decided and not keep_base:
        return 1
    before, left, right = (_manifest(name, path, places) for name in (base, ours, theirs))
    if left is None or right is None:
        return _keep(places, ours, path, warn, ("the whole file",))
    merged = merge_manifests(before, left, right, keep_base=keep_base)
    if keep_base:
        _replace(ours, dump(merged.manifest))
        return 0
    sides = before, left, right
    review = places.settings.merge_review and not _trivial(*sides)
    # git makes the blobs of the sides' files, so their names are where a recipe finds the inputs again.
    names = [os.path.abspath(name) for name, side in zip((base, ours, theirs), sides, strict=True) if side is not None]
    blobs = git_text("hash-object", "--no-filters", "--", *names, cwd=places.top).split("\n")
    if not review and not merged.conflicts:
        if not _trivial(*sides):
            merged = replace(merged, manifest=_recorded(places, merged.manifest, before, (left, right), blobs))
        _replace(ours, dump(merged.manifest))
        return 0
    if places.settings.manual_merge:
        _refuse_changed(places, ours, path)
        return _write_versions(places, path, sides, warn)
    text = _chosen(places, path, sides, blobs, merged.conflicts, warn, review=review)
    if not isinstance(text, bytes):
        return _keep(places, ours, path, warn, text, review=review and not text)
    _replace(ours, text)
    return 0


def _recorded(
    places: Places, merged: Manifest, base: Manifest | None, sides: tuple[Manifest, Manifest], blobs: Sequence[str]
) -> Manifest:
    """The merged version with the recipe of a merge without choices."""
    return merged if _applies_patches(places) else replace(merged, recipe=three_way_recipe(base, sides, blobs))


def _applies_patches(places: Places) -> bool:
    """Whether ``git am`` is running, which takes only what the filter makes of the file, and that has no recipe.

    It cleans the file before its index has the result, and gives up unless the same text comes out again.
    """
    return os.path.exists(os.path.join(places.git_dir, "rebase-apply"))


def _trivial(base: Manifest | None, ours: Manifest, theirs: Manifest) -> bool:
    """Whether there is nothing to review: one side has all that the other has."""
    return ours.same_content(theirs) or (base is not None and (base.same_content(ours) or base.same_content(theirs)))


def _differ_in_form(base: Manifest | None, ours: Manifest, theirs: Manifest) -> bool:
    """Whether the sides have other tensors, ties or values, so that their files tell more than the manifests."""
    if base is None or len({base.format, ours.format, theirs.format}) > 1 or base.format == "opaque":
        return False
    return ours.skeleton != theirs.skeleton


def _manifest(name: str, path: str, places: Places) -> Manifest | None:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return manifest_of_file(places, fd, path) if os.fstat(fd).st_size else None
    finally:
        os.close(fd)


def _chosen(
    places: Places,
    path: str,
    sides: tuple[Manifest | None, Manifest, Manifest],
    blobs: Sequence[str],
    conflicts: tuple[str, ...],
    warn: Callable[[str], None],
    *,
    review: bool,
) -> bytes | tuple[str, ...]:
    """The merged manifest, by what is configured or what somebody chooses; else names of what no method resolved.

    Also without a choice: where the sides' files have other tensors or values, manifests alone do not tell whether
    both changed the same.
    """
    from theta_nb.git.asking import open_terminal
    from theta_nb.git.merge_choice import configured_choice
    from theta_nb.git.merge_inputs import session_of
    from theta_nb.git.merge_menu import MergeMenu
    from theta_nb.git.merge_result import kept_from_theirs, make_result

    base, ours, theirs = sides
    choice = configured_choice(places, path)
    with open_terminal() as terminal:
        if terminal is None and (review or (choice is None and not _differ_in_form(*sides))):
            return () if review else conflicts
        versions = [("ours", blobs[-2], ours), ("theirs", blobs[-1], theirs)]
        if base is not None:
            versions.insert(0, ("original", blobs[0], base))
        session = session_of(places, versions, has_base=base is not None)
        if choice is not None:
            session.use(choice.method, **choice.parameters)
        elif terminal is None and session.contested:
            return session.contested
        wanted = bool(session.open) or review
        if terminal is not None and wanted and not MergeMenu(session, path, terminal, review=review).run():
            return () if review else session.contested
    if session.open:
        return session.open
    note = kept_from_theirs(session)
    if note:
        warn(f"{path}: {note}")
    with make_result(places, session, path) as result:
        return dump(replace(result.manifest, recipe="")) if _applies_patches(places) else result.text


# --- conflicts --------------------------------------------------------------------------------------------------------


def _refuse_changed(places: Places, ours: str, path: str) -> None:
    """Have a ``git merge`` end before its conflict covers changes that are not committed.

    git itself refuses only to overwrite them. A conflict leaves the file as it is, and ``git merge --abort`` then takes
    it back to HEAD, hours of training or not. git gives up a merge, and changes nothing, when a driver's file is gone.
    """
    if not places.settings.merging or places.work_tree is None:
        return
    pathspec = {**LITERAL, "GIT_OPTIONAL_LOCKS": "0"}
    words = ("status", "--porcelain", "--untracked-files=no", "--", path)
    if git(*words, cwd=places.top, env=pathspec):
        os.unlink(ours)
        raise ThetaError(
            f"{path} has changes that are not committed, and merging it leaves a conflict",
            hint="Commit or 'git stash' them, then merge again.",
        )


def _keep(
    places: Places,
    ours: str,
    path: str,
    warn: Callable[[str], None],
    conflicts: tuple[str, ...],
    *,
    review: bool = False,
) -> int:
    _refuse_changed(places, ours, path)
    why = "every change waits for a choice (theta.merge.review)"
    if not review:
        why = f"both sides changed {listed(conflicts, most=_SHOWN)}"
    warn(
        f"{path}: {why}; the work tree keeps ours. Merge them with 'git theta merge --continue --method METHOD' "
        f"(or '%theta merge' in a notebook), or take a side with 'git checkout --ours' or '--theirs {path}' and "
        f"'git add {path}'."
    )
    return 1


def _write_versions(
    places: Places, path: str, sides: tuple[Manifest | None, Manifest, Manifest], warn: Callable[[str], None]
) -> int:
    """Write the three versions beside the file, for whoever merges them with tools of their own."""
    from concurrent.futures import ThreadPoolExecutor

    from theta_nb.engine.rebuild import Rebuilder
    from theta_nb.git.on_demand import bring

    if places.work_tree is None:
        raise ThetaError("GIT_THETA_MANUAL_MERGE needs a work tree", hint="Merge in a clone that has one.")
    stem, ending = os.path.splitext(os.path.join(places.work_tree, path))
    bring(places, {oid: size for side in sides if side is not None for oid, size in side.objects.items()})
    written = []
    for word, manifest in zip(("ancestor", "ours", "theirs"), sides, strict=True):
        if manifest is None:
            continue
        file = f"{stem}.{word}{ending}"
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with ThreadPoolExecutor(places.settings.workers) as executor, _new_file(file) as fd:
            Rebuilder(manifest, places.store, executor).file(fd)
        written.append(os.path.relpath(file, places.work_tree))
    warn(
        f"{path}: wrote {', '.join(written)}. Write the merged checkpoint to {path}, run 'git add {path}', and delete "
        "the others."
    )
    return 1


class _new_file:  # noqa: N801 - a context manager
    """A file that must not exist yet, and does not if writing it fails."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> int:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            raise ThetaError(f"{self._path} exists already", hint="Move it away, then merge again.") from None
        return self._fd

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self._fd)
        if kind is not None:
            os.unlink(self._path)


def _replace(path: str, data: bytes) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=".merge-theta-")
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
