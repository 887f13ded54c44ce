"""Keeps merge sessions on disk, with all their choices and tries."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from theta_nb.engine.merging.documents import read_json
from theta_nb.engine.merging.recipe import Recipe
from theta_nb.engine.merging.tries import Try
from theta_nb.errors import MergeError

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession

__all__ = ["load_session", "save_session"]


def save_session(session: MergeSession, path: str) -> None:
    """Write choices, history and tries as JSON."""
    recipe = session.recipe()

    def plain(settings: Any) -> dict[str, Any]:
        return Recipe(recipe.base, recipe.inputs, settings).json()

    form = {
        "theta-session": 1,
        "recipe": recipe.json(),
        "steps": [plain(step) for step in session._steps],
        "place": session._place,
        "tries": [
            {
                "recipe": plain(one.settings),
                "metrics": {name: _finite(value) for name, value in one.metrics.items()},
                "seconds": one.seconds,
            }
            for one in session.tries
        ],
    }
    text = json.dumps(form, indent=1, sort_keys=True)
    folder = os.path.dirname(os.path.abspath(path))
    handle, partial = tempfile.mkstemp(prefix=".theta-session-", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(partial, path)


def _finite(value: float) -> float | str:
    """A number as JSON has it; NaN and infinities as text."""
    return value if math.isfinite(value) else str(value)


def load_session(session: MergeSession, path: str) -> MergeSession:
    """Read what :func:`save_session` wrote into a session of the same inputs."""
    with open(path, encoding="utf-8") as file:
        form = read_json(file.read(), path)
    try:
        if form["theta-session"] != 1:
            raise MergeError(f"{path} was written by a newer release", hint="Update theta-nb to read it.")
        current = _recipe(form["recipe"])
        steps = [_recipe(step).settings for step in form["steps"]]
        tries = [_try(number, one) for number, one in enumerate(form["tries"], 1)]
        place = int(form["place"])
        if not steps or not 0 <= place < len(steps):
            raise KeyError("place")
    except (KeyError, TypeError, ValueError) as error:
        raise MergeError(f"{path} is no saved session: {error}") from None
    current.check(session.base, session.inputs, session.kitchen.spare)
    session._steps, session._place = steps, place
    session._forget()
    session.take_decided(current)
    session.tries.extend(tries)
    return session


def _recipe(form: Any) -> Recipe:
    return Recipe.parse(json.dumps(form))


def _try(number: int, form: Mapping[str, Any]) -> Try:
    metrics = {str(name): float(value) for name, value in form["metrics"].items()}
    return Try(number, _recipe(form["recipe"]).settings, metrics, float(form["seconds"]))
