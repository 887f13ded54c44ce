"""``git theta log``: what each commit did to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from theta_nb.engine.diff import ParameterChange
from theta_nb.engine.history import Step, steps_of
from theta_nb.git.comparing import compare_versions
from theta_nb.git.history import walk_history
from theta_nb.git.places import Places
from theta_nb.report.checkpoint_diff import CheckpointDiff
from theta_nb.report.history import History

__all__ = ["log"]

Progress = Callable[[int, int], None]


def log(
    places: Places,
    path: str,
    revisions: Sequence[str] = (),
    *,
    first_parent: bool = False,
    all_: bool = False,
    limit: int | None = None,
) -> History:
    """History of one checkpoint, through renames of the file, from manifests alone.

    Parameters and errors are those of :func:`theta_nb.git.history.walk_history`, which finds the commits; values are
    read when the history is measured.
    """
    walk = walk_history(places, path, revisions, first_parent=first_parent, all_=all_, limit=limit)
    steps = steps_of(walk.commits, walk.versions)
    return History(walk.path, steps, first_parent, _values=_Values(places))


@dataclass(frozen=True)
class _Values:
    """Where a history gets values: the repository."""

    places: Places

    def __call__(self, step: Step, progress: Progress | None) -> tuple[ParameterChange, ...]:
        """The changes of a step with statistics, from its parent's values and its own."""
        before = step.renamed_from or step.path
        with self._threads() as executor:
            found = compare_versions(
                self.places, before, step.commit.parents[0], step.commit.id, new_path=step.path, executor=executor
            )
            return tuple(found.measure(progress=progress, executor=executor))

    def between(self, old: Step, new: Step) -> CheckpointDiff:
        """What differs between the versions of two commits."""
        with self._threads() as executor:
            found = compare_versions(
                self.places, old.path, old.commit.id, new.commit.id, new_path=new.path, executor=executor
            )
        sides = replace(found.old, label=old.commit.short), replace(found.new, label=new.commit.short)
        return replace(found, old=sides[0], new=sides[1])

    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.places.settings.workers, thread_name_prefix="theta")
