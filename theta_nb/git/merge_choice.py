"""How what both sides changed is merged where nobody says so at the time: environment, attribute, configuration."""

from __future__ import annotations

import os

from theta_nb.engine.merging.choices import Choice
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.spelling import parse_choice
from theta_nb.errors import MergeError
from theta_nb.git.places import Places
from theta_nb.git.process import git

__all__ = ["choose_configured", "configured_choice"]


def configured_choice(places: Places, path: str) -> Choice | None:
    """The choice for a path: ``GIT_THETA_MERGE``, else its attribute ``theta-merge``, else ``theta.merge.method``.

    Raises
    ------
    MergeError
        If it names no method; the message says where it is set.
    """
    text, where = places.settings.merge_now, "GIT_THETA_MERGE"
    if not text:
        text, where = _attribute(places, path), f"the attribute theta-merge of {path}"
    if not text:
        text, where = places.settings.merge_method, "theta.merge.method"
    if not text:
        return None
    try:
        return parse_choice(text)
    except MergeError as error:
        raise MergeError(f"{where}: {error.message}", hint=error.hint) from error


def choose_configured(session: MergeSession, places: Places, path: str) -> bool:
    """Use the choice that is configured for a path; whether there is one.

    Raises
    ------
    MergeError
        If it is wrong, or does not fit this merge.
    """
    choice = configured_choice(places, path)
    if choice is None:
        return False
    session.use(choice.method, **choice.parameters)
    return True


def _attribute(places: Places, path: str) -> str:
    flags = ["--cached"] if places.work_tree is None else []
    data = os.fsencode(path) + b"\0"
    out = git("check-attr", *flags, "-z", "--stdin", "theta-merge", cwd=places.top, data=data)
    value = os.fsdecode(out.split(b"\0")[2])
    return "" if value in ("unspecified", "set", "unset") else value
