"""``git theta uninstall``: take the filter out of git's configuration."""

from __future__ import annotations

from theta_nb.git import installation
from theta_nb.git.configuration import Scope
from theta_nb.git.installation import UninstallResult

__all__ = ["uninstall"]


def uninstall(scope: Scope = "global", *, folder: str | None = None) -> UninstallResult:
    """Remove from git's configuration what ``install`` wrote; attributes and objects stay.

    Parameters
    ----------
    scope, folder
        As for :func:`theta_nb.commands.install.install`.

    Raises
    ------
    ThetaError
        If the configuration cannot be written.
    """
    return installation.uninstall(scope, cwd=folder)
