"""``git theta blame``: the commit that last changed each parameter."""

from __future__ import annotations

import re
from collections.abc import Sequence

from theta_nb.engine.checkpoint import matching
from theta_nb.engine.diff import natural
from theta_nb.engine.history import attribute
from theta_nb.errors import ManifestError, NotTrackedError, ThetaError
from theta_nb.git.history import walk_history
from theta_nb.git.places import Places
from theta_nb.report.blame import Blame

__all__ = ["blame"]


def blame(
    places: Places, path: str, patterns: Sequence[str | re.Pattern[str]] = (), *, revision: str | None = None
) -> Blame:
    """Which commit gave each parameter the value that it has now, or at another commit.

    Parameters
    ----------
    places
        The repository.
    path
        Relative to the top of the work tree.
    patterns
        Globs or compiled regular expressions over parameter names; all parameters by default.
    revision
        The version that is asked about; HEAD by default.

    Raises
    ------
    ManifestError
        If that version cannot be read.
    NotTrackedError
        If it is not stored by theta-nb.
    ThetaError
        If there is no such revision or path, or a pattern matches nothing.
    """
    shown = revision or "HEAD"
    walk = walk_history(places, path, [revision] if revision else ())
    newest = walk.versions[walk.commits[0].id]
    if newest.kind == "broken":
        raise ManifestError(f"{path} at {shown}: {newest.problem}", hint="'git theta log' shows the versions before.")
    if newest.kind == "raw":
        raise NotTrackedError(
            f"{path} at {shown} is a whole file in git", hint=f"Run 'git add --renormalize {path}' to store it."
        )
    if newest.kind == "none":
        raise ThetaError(f"{path} does not exist at {shown}", hint="'git theta log -- PATH' shows where it does.")
    names = dict.fromkeys(newest.parameters) if not patterns else {}
    for pattern in patterns:
        found = matching(newest.parameters, pattern)
        if not found:
            text = pattern if isinstance(pattern, str) else pattern.pattern
            raise ThetaError(
                f"no parameter of {path} matches {text!r}", hint="Patterns are globs over whole names, as 'encoder.*'."
            )
        names.update(dict.fromkeys(found))
    return Blame(walk.path, shown, attribute(walk.commits, walk.versions, sorted(names, key=natural)))
