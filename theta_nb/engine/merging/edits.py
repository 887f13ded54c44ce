"""Changes of what is chosen, as a view makes them: for everything, for some parameters, for a block.

A recipe speaks of patterns and a view of sets of parameters: what is chosen for a set becomes globs that name exactly
its members, and what was said about them before is taken out of the overrides that said it.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from theta_nb.engine.merging.choices import Choice, Override, Settings
from theta_nb.errors import MergeError

__all__ = ["Edit", "covering", "edited", "edits_of"]

_MOST = 20_000
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Edit:
    """One change.

    Parameters
    ----------
    choice
        What is chosen; ``None``: the same as for everything else.
    names
        For which parameters; ``None`` for everything that no override names.
    contested
        Whether only for those of them that both sides changed, as the choice for everything is.
    """

    choice: Choice | None
    names: frozenset[str] | None = None
    contested: bool = False


def edited(settings: Settings, edits: Iterable[Edit], everything: Sequence[str]) -> Settings:
    """Settings after some changes.

    Parameters
    ----------
    settings
        What was chosen before.
    edits
        One after the other.
    everything
        Names of all parameters.

    Examples
    --------
    >>> names = ["layers.0.a", "layers.0.b", "layers.1.a", "head"]
    >>> before = Settings(Choice("linear", {})).with_override(Override("layers.*", Choice("ours", {})))
    >>> edit = Edit(Choice("slerp", {"t": 0.3}), frozenset(["layers.1.a"]))
    >>> [(one.pattern, one.choice.method) for one in edited(before, [edit], names).overrides]
    [('layers.0.*', 'ours'), ('layers.1.a', 'slerp')]
    """
    for edit in edits:
        if edit.names is None:
            settings = replace(settings, default=edit.choice)
            continue
        kept = [part for one in settings.overrides for part in _without(one, edit, everything)]
        if edit.choice is not None:
            new = (
                Override(pattern, edit.choice, contested=edit.contested) for pattern in covering(edit.names, everything)
            )
            # What is said about single parameters stands behind what is said about blocks, and counts before it.
            place = sum(one.contested for one in kept) if edit.contested else len(kept)
            kept[place:place] = new
        kept.sort(key=lambda one: not one.contested)
        settings = replace(settings, overrides=tuple(kept))
    return settings


def _without(override: Override, edit: Edit, everything: Sequence[str]) -> Iterator[Override]:
    """An override without the parameters that an edit is about."""
    if edit.names is None or (edit.contested and not override.contested):
        yield override
        return
    about = {name for name in everything if override.matches(name)}
    if not about & edit.names:
        yield override
    elif left := about - edit.names:
        for pattern in covering(left, everything):
            yield replace(override, pattern=pattern, regex=False)


def covering(names: Iterable[str], everything: Sequence[str]) -> tuple[str, ...]:
    """Globs that together name exactly some parameters: modules and endings where they fit, else single names.

    Examples
    --------
    >>> everything = [f"layers.{i}.{part}" for i in range(3) for part in ("q.weight", "k.weight", "norm")] + ["head"]
    >>> covering([name for name in everything if "layers.1" in name], everything)
    ('layers.1.*',)
    >>> covering([name for name in everything if name.endswith("q.weight")], everything)
    ('*.q.weight',)
    >>> covering(["layers.0.norm", "head"], everything)
    ('layers.0.norm', 'head')
    """
    wanted = set(names)
    if not wanted:
        return ()
    if wanted.issuperset(everything):
        return ("*",)
    fits = _parts(wanted)
    others = _counts(everything)
    usable = [(len(found), part) for part, found in fits.items() if others[part] == len(found) > 1]
    left, patterns = set(wanted), []
    for _, (begins, text) in sorted(usable, key=lambda one: (-one[0], len(one[1][1]), one[1])):
        found = fits[begins, text]
        if len(found & left) > 1:
            left -= found
            patterns.append(f"{glob.escape(text)}*" if begins else f"*{glob.escape(text)}")
        if not left:
            break
    order = {name: index for index, name in enumerate(everything)}
    return (*patterns, *(glob.escape(name) for name in sorted(left, key=lambda name: order.get(name, 0))))


def _cuts(name: str) -> Iterator[tuple[bool, str]]:
    """Beginnings of a name up to a separator, and endings from one on."""
    for index, character in enumerate(name):
        if character in "./":
            yield True, name[: index + 1]
            yield False, name[index:]


def _parts(names: Iterable[str]) -> dict[tuple[bool, str], set[str]]:
    found: dict[tuple[bool, str], set[str]] = {}
    for name in names:
        for part in _cuts(name):
            found.setdefault(part, set()).add(name)
    return found


def _counts(names: Iterable[str]) -> Counter[tuple[bool, str]]:
    return Counter(part for name in names for part in _cuts(name))


def edits_of(form: Any, members: Callable[[str], Iterable[str]], everything: Iterable[str]) -> list[Edit]:
    """Changes from plain data, which comes from outside.

    Parameters
    ----------
    form
        A list of objects: ``method`` (``None``: as for everything else) and ``parameters``; ``names`` (a list) or
        ``block``, or neither for everything.
    members
        Names of the parameters of a block.
    everything
        Names of all parameters.

    Raises
    ------
    MergeError
        If it is anything else, or names what does not exist.

    Examples
    --------
    >>> edits_of([{"method": "ours", "names": ["w"]}], lambda block: [], ["w"])
    [Edit(choice=Choice(method='ours', parameters={}), names=frozenset({'w'}), contested=False)]
    """
    if not isinstance(form, list) or not 0 < len(form) <= _MOST:
        raise MergeError("a change of choices must be a list of edits")
    known = set(everything)
    return [_edit(one, members, known) for one in form]


def _edit(form: Any, members: Callable[[str], Iterable[str]], known: set[str]) -> Edit:
    if not isinstance(form, dict) or form.keys() - {"method", "parameters", "names", "block"}:
        raise MergeError("an edit has a method, parameters, and names or a block")
    choice = _choice(form.get("method"), form.get("parameters", {}))
    if "block" in form:
        block = form["block"]
        names = frozenset(members(block)) if isinstance(block, str) else frozenset()
        if not names or "names" in form:
            raise MergeError(f"there is no block {str(block)[:100]!r}")
        return Edit(choice, names, contested=True)
    if "names" not in form:
        return Edit(choice)
    names = form["names"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise MergeError("the names of an edit are a list of texts")
    for name in names:
        if name not in known:
            raise MergeError(f"no parameter is called {name[:100]!r}")
    return Edit(choice, frozenset(names))


def _choice(method: object, parameters: object) -> Choice | None:
    if method is None:
        return None
    if not isinstance(method, str) or not isinstance(parameters, dict):
        raise MergeError("a choice is the name of a method and an object of parameters")
    for value in parameters.values():
        _check_value(value)
    made = Choice(method, parameters)
    for name in parameters:
        made.function.parameter(name)
    return replace(made, method=made.function.name)


def _check_value(value: object, depth: int = 0) -> None:
    """Refuse what no parameter can be: numbers, texts, lists of these, and objects of both."""
    inner: Iterable[object] = ()
    if isinstance(value, Mapping) and depth == 0:
        inner = value.values()
    elif isinstance(value, list) and depth < 2:
        inner = value
    elif not isinstance(value, _SCALARS):
        raise MergeError("a parameter is a number, a text, a list of these, or one of them for each input")
    for one in inner:
        _check_value(one, depth + 1 if isinstance(value, Mapping) else 2)
