"""``git theta show``: one version of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing

from theta_nb.commands.ls_files import content_digest
from theta_nb.engine.checkpoint import matching
from theta_nb.engine.diff import natural, parameters_of
from theta_nb.errors import NotTrackedError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.history import describe
from theta_nb.git.places import Places
from theta_nb.git.tracked import resolve
from theta_nb.git.versions import index_blobs, read_text
from theta_nb.manifest.text import parse
from theta_nb.report.version import CheckpointVersion

__all__ = ["show"]


def show(
    places: Places, path: str, revision: str = "HEAD", patterns: Sequence[str | re.Pattern[str]] = ()
) -> CheckpointVersion:
    """What a commit has at a path: format, size, parameters, and what the commit says.

    Parameters
    ----------
    places
        The repository.
    path
        Relative to the top of the work tree.
    revision
        A commit; empty for the index.
    patterns
        Globs or compiled regular expressions over parameter names; all parameters by default.

    Raises
    ------
    ManifestError
        If the manifest cannot be read.
    NotTrackedError
        If the file is not stored by theta-nb.
    ThetaError
        If there is no such revision or file, or a pattern matches nothing.
    """
    commit = resolve(revision, places.cwd) if revision else ""
    where = revision or "the index"
    with closing(CatFile(places.top)) as cat_file:
        names = [f"{commit}:{path}"] if commit else index_blobs(path, places.top)
        found = cat_file.size(names[0]) if names else None
        if found is None:
            raise ThetaError(f"{path} does not exist at {where}", hint="'git theta ls-files' lists the checkpoints.")
        text = read_text(found[0], cat_file)
    if text is None:
        raise NotTrackedError(f"{path} at {where} is not stored by theta-nb", hint=f"Run 'git theta track {path}'.")
    manifest = parse(text, source=f"{path} at {where}")
    parameters = parameters_of(manifest)
    chosen = dict.fromkeys(parameters) if not patterns else {}
    for pattern in patterns:
        matched = matching(parameters, pattern)
        if not matched:
            said = pattern if isinstance(pattern, str) else pattern.pattern
            raise ThetaError(
                f"no parameter of {path} matches {said!r}", hint="Patterns are globs over whole names, as 'encoder.*'."
            )
        chosen.update(dict.fromkeys(matched))
    return CheckpointVersion(
        path,
        where,
        describe(places, commit) if commit else None,
        manifest.format,
        manifest.size,
        sum(manifest.objects.values()),
        content_digest(manifest),
        tuple(parameters[name] for name in sorted(chosen, key=natural)),
        len(parameters),
        manifest.recipe,
    )
