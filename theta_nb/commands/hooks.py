"""``git theta hooks``: install, repair or remove the hooks of one repository."""

from __future__ import annotations

from dataclasses import dataclass

from theta_nb.git.hooks import HookState, hook_states, install_hooks, remove_hooks
from theta_nb.git.places import Places
from theta_nb.git.process import git

__all__ = ["HooksResult", "hooks"]


@dataclass(frozen=True, slots=True)
class HooksResult:
    """What was done, and what is there now.

    Parameters
    ----------
    changed
        Names of the hooks that were written or removed.
    removed
        Whether this was a removal.
    states
        Every hook that we use.
    """

    changed: tuple[str, ...]
    removed: bool
    states: tuple[HookState, ...]


def hooks(places: Places, *, remove: bool = False, force: bool = False) -> HooksResult:
    """Install the hooks, chained with those that are there, or take them out again.

    Parameters
    ----------
    places
        The repository.
    remove
        Whether to remove them, and remember that they are not wanted (``theta.hooks = false``): the filter installs
        them on first use otherwise.
    force
        Whether to change a folder that other repositories share (``core.hooksPath``).

    Raises
    ------
    ThetaError
        If the folder is shared, or a foreign hook cannot be kept.
    """
    if remove:
        changed = remove_hooks(places, force=force)
        git("config", "--local", "theta.hooks", "false", cwd=places.top)
    else:
        changed = install_hooks(places, force=force)
        git("config", "--local", "theta.hooks", "true", cwd=places.top)
    return HooksResult(tuple(changed), remove, tuple(hook_states(places)))
