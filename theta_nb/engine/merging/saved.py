"""Sessions on disk: choices and the way to them, tries with their metrics and notes, and what was merged."""

from __future__ import annotations

import json
import math
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from theta_nb.engine.merging.choices import Settings
from theta_nb.engine.merging.documents import MAX_NBYTES, read_json
from theta_nb.engine.merging.recipe import SCHEMA as RECIPE
from theta_nb.engine.merging.recipe import Recipe, complete_settings, settings_json, valid_settings, validate
from theta_nb.engine.merging.tries import Try
from theta_nb.errors import MergeError

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession

__all__ = ["SCHEMA", "Saved", "load_session", "read_session", "save_session"]

_MOST_STEPS = 1000
"""Steps back that a file remembers: a day of dragging sliders would make it large."""
_MOST_TRIES = 100_000

_SETTINGS = {key: RECIPE["properties"][key] for key in ("choice", "overrides")}
_METRIC = {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}
_TRY = {
    "type": "object",
    "properties": {
        **_SETTINGS,
        "metrics": {"type": "object", "minProperties": 1, "maxProperties": 1000, "additionalProperties": _METRIC},
        "seconds": {"type": "number", "minimum": 0},
        "note": {"type": "string", "maxLength": 10_000},
        "pinned": {"type": "boolean"},
    },
    "required": [*_SETTINGS, "metrics", "seconds", "note", "pinned"],
    "additionalProperties": False,
}
_STEP = {"type": "object", "properties": _SETTINGS, "required": [*_SETTINGS], "additionalProperties": False}

SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Saved session of a merge of checkpoints",
    "type": "object",
    "properties": {
        "theta-session": {"const": 1, "description": "version of this form"},
        "recipe": {"type": "object", "description": "what is chosen and of which inputs, as a recipe"},
        "steps": {"type": "array", "items": _STEP, "minItems": 1, "maxItems": _MOST_STEPS, "description": "for undo"},
        "place": {"type": "integer", "minimum": 0, "maximum": _MOST_STEPS, "description": "step that is chosen"},
        "tries": {"type": "array", "items": _TRY, "maxItems": _MOST_TRIES},
    },
    "required": ["theta-session", "recipe", "steps", "place", "tries"],
    "additionalProperties": False,
}
"""JSON Schema of a saved session; the recipe in it has a schema of its own."""


def save_session(session: MergeSession, path: str) -> None:
    """Write choices, history and tries as JSON; the file appears whole or not at all.

    Raises
    ------
    MergeError
        If it cannot be written.
    """
    first = max(0, session._place - _MOST_STEPS + 1)
    form = {
        "theta-session": 1,
        "recipe": session.recipe().json(),
        "steps": [settings_json(step) for step in session._steps[first : first + _MOST_STEPS]],
        "place": session._place - first,
        "tries": [_plain_try(one) for one in session.tries],
    }
    text = json.dumps(form, indent=1, sort_keys=True)
    try:
        _write(path, text)
    except OSError as error:
        raise MergeError(f"{path} cannot be written: {error.strerror}", hint="Save it somewhere else.") from error


def _write(path: str, text: str) -> None:
    handle, partial = tempfile.mkstemp(prefix=".theta-session-", dir=os.path.dirname(os.path.abspath(path)))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.replace(partial, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def _plain_try(one: Try) -> dict[str, Any]:
    metrics = {name: value if math.isfinite(value) else str(value) for name, value in one.metrics.items()}
    return {
        **settings_json(one.settings),
        "metrics": metrics,
        "seconds": one.seconds,
        "note": one.note,
        "pinned": one.pinned,
    }


@dataclass(frozen=True)
class Saved:
    """What a file says of a session.

    Parameters
    ----------
    recipe
        What was chosen, of which inputs.
    steps, place
        The way there, and the step that is chosen.
    tries
        What was evaluated.
    """

    recipe: Recipe
    steps: tuple[Settings, ...]
    place: int
    tries: tuple[Try, ...]

    @property
    def settings(self) -> Settings:
        """What is chosen."""
        return self.steps[self.place]


def read_session(session: MergeSession, path: str) -> Saved:
    """Read what :func:`save_session` wrote of a session of the same inputs.

    Raises
    ------
    MergeError
        If the file is no saved session, or of a merge of other checkpoints.
    """
    text = _read(path)
    try:
        saved = _parsed(text)
        for settings in {repr(one): one for one in (*saved.steps, *(one.settings for one in saved.tries))}.values():
            session.check(settings)
    except MergeError as error:
        raise MergeError(f"{path}: {error.message}", hint=error.hint) from error
    _require_same_inputs(session, saved.recipe, path)
    return saved


def load_session(session: MergeSession, path: str) -> MergeSession:
    """Go on where a saved session was.

    Raises
    ------
    MergeError
        As :func:`read_session`. Nothing has changed then.
    """
    saved = read_session(session, path)
    session._steps, session._place = list(saved.steps), saved.place
    session._forget()
    # Of another release, whose defaults are others, the numbers that were decided are for another choice.
    if settings_json(complete_settings(saved.settings)) == settings_json(saved.recipe.settings):
        session.take_decided(saved.recipe)
    session.tries.extend(saved.tries)
    return session


def _parsed(text: str) -> Saved:
    form = read_json(text, "the saved session")
    if isinstance(form, dict) and isinstance(form.get("theta-session"), int) and form["theta-session"] > 1:
        raise MergeError("this session was saved by a newer release", hint="Update theta-nb to read it.")
    validate(form, SCHEMA, "the saved session")
    recipe, steps = Recipe.parse(json.dumps(form["recipe"])), tuple(valid_settings(step) for step in form["steps"])
    if form["place"] >= len(steps):
        raise MergeError(f"the saved session has no step {form['place']}")
    return Saved(recipe, steps, form["place"], tuple(_try(number, one) for number, one in enumerate(form["tries"], 1)))


def _read(path: str) -> str:
    try:
        # Without O_NONBLOCK, opening a pipe of that name would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise MergeError(f"{path} cannot be read: Is no file", hint="Name what session.save(path) wrote.")
            if status.st_size > MAX_NBYTES:
                raise MergeError(f"{path} is too long for a saved session ({status.st_size} bytes)")
            return file.read(MAX_NBYTES + 1).decode("utf-8")
    except UnicodeDecodeError:
        raise MergeError(f"{path} is no saved session: it is no text") from None
    except OSError as error:
        raise MergeError(f"{path} cannot be read: {error.strerror}") from error


def _require_same_inputs(session: MergeSession, recipe: Recipe, path: str) -> None:
    try:
        recipe.check(session.base, session.inputs, session.kitchen.spare)
    except MergeError as error:
        if "statistics" in error.message:
            raise MergeError(f"{path}: {error.message}", hint=error.hint) from error
        said = ", ".join(f"{one.label} {one.revision}".strip() for one in recipe.inputs)
        raise MergeError(
            f"{path} is a session of other checkpoints ({said})", hint="Open the merge of those first, then load it."
        ) from error


def _try(number: int, form: Mapping[str, Any]) -> Try:
    metrics = {name: float(value) for name, value in form["metrics"].items()}
    return Try(number, valid_settings(form), metrics, float(form["seconds"]), form["note"], form["pinned"])
