"""From a merge session to what git keeps: the checkpoint file, and its manifest with the recipe."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from theta_nb.engine.clean import Cleaner
from theta_nb.engine.known import KnownChunks
from theta_nb.engine.merging.rules import VALUES
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.states import contested
from theta_nb.engine.merging.stored_inputs import ManifestInput
from theta_nb.engine.previous import Previous
from theta_nb.errors import listed
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.versions import update_for
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import dump

__all__ = ["Result", "kept_from_theirs", "make_result"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Result:
    """A merged checkpoint.

    Parameters
    ----------
    manifest
        With the recipe of the merge.
    file
        The checkpoint itself, which is deleted unless somebody moves it.
    """

    manifest: Manifest
    file: str

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return os.path.getsize(self.file)

    @property
    def text(self) -> bytes:
        """What git stores."""
        return dump(self.manifest)


@contextmanager
def make_result(
    places: Places, session: MergeSession, path: str, *, write: bool = True, progress: Progress | None = None
) -> Iterator[Result]:
    """Compute the result and store it as the filter would, changed tensors as updates of ours.

    Parameters
    ----------
    places
        The repository.
    session
        With no choice open.
    path
        Where the result goes; its ending decides the format where ours' form cannot be kept.
    write
        Whether objects are stored; without, the manifest has digests only.
    progress
        Told how many parameters are computed.

    Raises
    ------
    MergeError
        If choices are open.
    CheckpointError
        If the format cannot hold the result.
    MissingObjectError
        If objects of ours cannot be had.
    """
    session.require_closed()
    ours = session.inputs[0]
    if isinstance(ours, ManifestInput):
        bring(places, ours.manifest.objects)  # the parts that nobody changed are written as well
    folder = os.path.join(places.theta_dir, "tmp")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="merge-") as scratch:
        file = os.path.join(scratch, os.path.basename(path))
        session.write(file, progress)
        manifest = _stored(places, session, path, file, write=write)
        yield Result(replace(manifest, recipe=session.recipe().dump()), file)


def _stored(places: Places, session: MergeSession, path: str, file: str, *, write: bool) -> Manifest:
    known = [one.manifest for one in (*session.inputs, session.base) if isinstance(one, ManifestInput)]
    # Without tolerance: what comes out is what the recipe says, whatever is near to it.
    previous = Previous(known[0], update_for(path, places)) if known and write else None
    encodings = places.encodings()
    try:
        with ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta-merge") as executor:
            cleaner = Cleaner(places.store, executor, write=write, previous=previous)
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                manifest, _ = cleaner.file(fd, os.path.basename(path), KnownChunks(known, behind=encodings))
            finally:
                os.close(fd)
        if write:
            encodings.remember(manifest)
    finally:
        encodings.close()
    return manifest


def kept_from_theirs(session: MergeSession) -> str:
    """A phrase for what is no tensor, was changed by both sides, and stays as ours has it; may be empty."""
    if not session.values:
        return ""
    names = [name for name in contested(session.values) if name in session.decisions]
    kept = [name for name in names if session.decisions[name].reason.startswith(VALUES.name)]
    if not kept:
        return ""
    return f"both sides changed {listed(kept)}, no tensor: ours is kept ('--override NAME theirs' takes theirs)"
