"""``git theta install``: tell git about the filter."""

from __future__ import annotations

from theta_nb.git import installation
from theta_nb.git.configuration import Scope
from theta_nb.git.installation import InstallResult

__all__ = ["install"]


def install(
    scope: Scope = "global",
    *,
    folder: str | None = None,
    skip_smudge: bool | None = None,
    rich_diff: bool | None = None,
    no_hooks: bool | None = None,
    force: bool = False,
) -> InstallResult:
    """Write git's configuration.

    Parameters
    ----------
    scope
        Which configuration: of the user (``"global"``), one repository, one work tree, or the machine.
    folder
        Where to look for the repository; the current directory by default.
    skip_smudge
        Whether checkouts leave manifests; unchanged by default.
    rich_diff
        Whether ``git diff`` names what changed instead of comparing manifests as text; unchanged by default.
    no_hooks
        Whether the filter leaves the hooks of repositories alone; unchanged by default.
    force
        Whether values that somebody else chose are replaced.

    Raises
    ------
    ThetaError
        If git is too old or the configuration cannot be written.
    """
    return installation.install(
        scope, skip_smudge=skip_smudge, rich_diff=rich_diff, no_hooks=no_hooks, force=force, cwd=folder
    )
