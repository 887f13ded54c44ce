"""Choices as people type them: ``ties:density=0.3,weight=[0, 0.5, 1]`` in a setting, an attribute or a menu."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from theta_nb.engine.merging.choices import PRESETS, Choice
from theta_nb.engine.merging.documents import read_yaml
from theta_nb.engine.merging.mergekit import import_mergekit
from theta_nb.engine.merging.recipe import Recipe
from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError
from theta_nb.merges.table import method_named

__all__ = ["apply_document", "checked_choice", "parse_assignments", "parse_choice", "parse_grid", "parse_value"]

_MAX_LENGTH = 10_000
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_METHOD = re.compile(r"(?:lines:)?[A-Za-z0-9_.-]+")


def parse_choice(text: str) -> Choice:
    """A method with its parameters: ``METHOD`` or ``METHOD:NAME=VALUE,NAME=VALUE``.

    Parameters
    ----------
    text
        ``METHOD`` is a name of the table of methods, ``lines:NAME``, or a preset.

    Raises
    ------
    MergeError
        If there is no such method or parameter, or a value is wrong.

    Examples
    --------
    >>> parse_choice("ties:density=0.3,weight=[0, 0.5, 1]")
    Choice(method='ties', parameters={'density': 0.3, 'weight': [0, 0.5, 1]})
    >>> parse_choice("gentle")
    Choice(method='task_arithmetic', parameters={'scale': 0.5})
    """
    text = text.strip()
    found = _METHOD.match(text)
    if len(text) > _MAX_LENGTH or found is None or text[found.end() : found.end() + 1] not in ("", ":"):
        raise MergeError(f"{text[:60]!r} is no merge method", hint="Write METHOD or METHOD:NAME=VALUE,NAME=VALUE.")
    name, rest = found[0], text[found.end() + 1 :]
    given = parse_assignments(_split(rest)) if rest.strip() else {}
    return checked_choice(name, given)


def checked_choice(name: str, given: Mapping[str, Any]) -> Choice:
    """A choice of a method or preset by name, with the names of its parameters checked.

    Raises
    ------
    MergeError
        If there is none of that name, or it has no such parameter.
    """
    if name in PRESETS:
        chosen = PRESETS[name]
        choice = Choice(chosen.method, {**chosen.parameters, **given})
    else:
        choice = Choice(method_named(name).name, dict(given))
    for key in given:
        choice.function.parameter(key)
    return choice


def parse_assignments(items: Iterable[str]) -> dict[str, Any]:
    """Values by name, from ``NAME=VALUE`` each.

    Raises
    ------
    MergeError
        If one is no assignment, or a name is there twice.

    Examples
    --------
    >>> parse_assignments(["density=0.3", "weight={theirs: 0.7}"])
    {'density': 0.3, 'weight': {'theirs': 0.7}}
    """
    found: dict[str, Any] = {}
    for item in items:
        name, value = _assignment(item)
        if name in found:
            raise MergeError(f"{name} is given twice")
        found[name] = parse_value(value)
    return found


def _assignment(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not _NAME.fullmatch(name) or not value.strip():
        raise MergeError(f"{item.strip()[:60]!r} is no NAME=VALUE", hint="For example density=0.3.")
    return name, value


def parse_grid(items: Iterable[str]) -> dict[str, list[Any]]:
    """Lists of values by name, from ``NAME=VALUE,VALUE`` each.

    Raises
    ------
    MergeError
        If one is no assignment, or a name is there twice.

    Examples
    --------
    >>> parse_grid(["density=0.1,0.3", "weight=[0, 1],[1, 0]"])
    {'density': [0.1, 0.3], 'weight': [[0, 1], [1, 0]]}
    """
    found: dict[str, list[Any]] = {}
    for item in items:
        name, values = _assignment(item)
        if name in found:
            raise MergeError(f"{name} is given twice")
        found[name] = [parse_value(value) for value in _split(values)]
    return found


def parse_value(text: str) -> Any:
    """A number, a word, a gradient ``[0, 0.5, 1]``, or ``{theirs: 0.7}`` for values by input.

    Examples
    --------
    >>> parse_value("0.3"), parse_value("yes"), parse_value("[0, .5, 1]")
    (0.3, 'yes', [0, 0.5, 1])
    """
    text = text.strip()
    if text[:1] in ("[", "{"):
        return read_yaml(text, f"the value {text[:40]!r}")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets."""
    items, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            items.append(text[start:index])
            start = index + 1
    return [*items, text[start:]]


def apply_document(session: MergeSession, text: str) -> MergeSession:
    """Choose what a recipe, or a configuration of mergekit, says.

    If the recipe was made of these very inputs, the numbers that it decided are used as well; otherwise its choices
    alone.

    Parameters
    ----------
    session
        The session that chooses.
    text
        JSON or YAML.

    Raises
    ------
    MergeError
        If it cannot be read, or its choices do not fit the inputs.
    """
    if re.search(r"^\s*[\"']?merge_method[\"']?\s*:", text, re.MULTILINE):
        settings = import_mergekit(text).labelled(session.labels)
        return session.apply(Recipe(None, (), settings), check=False)
    recipe = Recipe.parse(text)
    try:
        recipe.check(session.base, session.inputs, session.kitchen.spare)
    except MergeError:
        return session.apply(recipe, check=False)
    return session.apply(recipe)
