"""Fetch what is missing when it is needed, in one batch, as ``theta.fetch`` allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from theta_nb.errors import MissingObjectError, ThetaError, count, listed
from theta_nb.git.asking import open_terminal
from theta_nb.git.errands import NO_ERRANDS, Errands
from theta_nb.git.places import Places
from theta_nb.git.process import git_lines
from theta_nb.storage.objects import lacking

__all__ = ["bring"]

Progress = Callable[[int, int], None]


def bring(
    places: Places,
    objects: Mapping[str, int],
    *,
    progress: Progress | None = None,
    errands: Errands = NO_ERRANDS,
) -> None:
    """Have objects here: nothing happens for those that are, the others are fetched from the remotes.

    One that is here but cut short is fetched again if it can be had.

    Parameters
    ----------
    places
        The repository, whose setting ``theta.fetch`` is ``auto``, ``ask`` (at the terminal) or ``never``.
    objects
        Lengths by name.
    progress
        Called with bytes done and bytes in all.
    errands
        What else is done meanwhile, or later.

    Raises
    ------
    MissingObjectError
        If some are not here in the end; the message says how many, how large, and why. What arrived is kept.
    """
    fetch = places.settings.fetch
    missing = {}
    for oid, size in objects.items():
        here = places.store.size(oid)
        # One that was on its way to the disk when the power went is cut short; whoever reads it says so otherwise.
        if here is None or (fetch == "auto" and here != size):
            missing[oid] = size
    if not missing:
        return
    what = f"{count(len(missing), 'object')} ({_megabytes(missing)}) {'is' if len(missing) == 1 else 'are'} not here"
    if fetch == "never" or (fetch == "ask" and not _consents(f"theta: {what}. Fetch them? [Y/n] ")):
        raise _refused(places, f"{what}, and theta.fetch is {fetch!r}", tuple(sorted(missing)))
    # Talking to remotes takes imports that a repository which has everything need not pay for.
    from theta_nb.git.download import obtain_objects

    try:
        obtain_objects(places, missing, progress=progress, errands=errands)
    except (ThetaError, OSError) as error:
        left = lacking(missing, places.store)
        if not left:
            return
        said = error if isinstance(error, ThetaError) else ThetaError(f"they cannot be fetched: {error}")
        raise MissingObjectError(said.message, oids=left, hint=said.hint) from error


def _refused(places: Places, what: str, oids: tuple[str, ...]) -> MissingObjectError:
    """The error that says where objects could have come from."""
    names = git_lines("remote", cwd=places.top)
    if not names:
        hint = "Run 'git theta fetch' with the path or URL of a repository that has them."
        return MissingObjectError(f"{what}: there is no remote to ask", oids=oids, hint=hint)
    verb = "was" if len(names) == 1 else "were"
    return MissingObjectError(f"{what}: {listed(names)} {verb} not asked", oids=oids, hint="Run 'git theta fetch'.")


def _megabytes(objects: Mapping[str, int]) -> str:
    return f"{sum(objects.values()) / 1e6:.1f} MB"


def _consents(question: str) -> bool:
    """Ask at the terminal; without one the answer is no."""
    with open_terminal() as terminal:
        if terminal is None:
            return False
        terminal.write(question)
        answer = terminal.readline()
    return answer[-1:] == "\n" and answer.strip().lower() in ("", "y", "yes")
