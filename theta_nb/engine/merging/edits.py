"""Changes of what is chosen, as a view makes them: for everything, for some parameters, for a block.

A recipe speaks of patterns and a view of sets of parameters: what is chosen for a set becomes globs that name exactly
its members, and what was said about them before is taken out of the overrides that said it.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from theta_nb.engine.merging.choices import Choice, Override, Settings, compiled
from theta_nb.errors import MergeError

__all__ = ["Edit", "covering", "edited", "edits_of"]

_MOST = 20_000
_LAYER = re.compile(r"(?<=[./])\d+(?=[./])")
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
    everything = tuple(everything)
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


def _without(override: Override, edit: Edit, everything: tuple[str, ...]) -> Iterator[Override]:
    """An override without the parameters that an edit is about."""
    if edit.names is None or (edit.contested and not override.contested):
        yield override
        return
    about = _named(override.pattern, override.regex, everything)
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
    >>> covering([name for name in everything if name.startswith(("layers.0", "layers.1"))], everything)
    ('layers.0.*', 'layers.1.*')
    >>> covering(["layers.0.norm", "head"], everything)
    ('layers.0.norm', 'head')
    """
    return _covering(frozenset(names), tuple(everything))


@lru_cache(maxsize=1024)  # a slider says the same names at every step
def _covering(wanted: frozenset[str], everything: tuple[str, ...]) -> tuple[str, ...]:
    if not wanted:
        return ()
    if wanted.issuperset(everything):
        return ("*",)
    found = _globs(wanted)
    others = _glob_counts(everything)
    usable = [(len(members), pattern) for pattern, members in found.items() if others[pattern] == len(members) > 1]
    left, patterns = set(wanted), []
    for _, pattern in sorted(usable, key=lambda one: (-one[0], len(one[1]), one[1])):
        if len(found[pattern] & left) < 2 or not _only(pattern, wanted, everything):
            continue
        left -= found[pattern]
        patterns.append(pattern)
        if not left:
            break
    order = {name: index for index, name in enumerate(everything)}
    return (*patterns, *(glob.escape(name) for name in sorted(left, key=lambda name: order.get(name, 0))))


@lru_cache(maxsize=4)
def _glob_counts(everything: tuple[str, ...]) -> Counter[str]:
    """How many names each glob names that somebody would write for one of them."""
    return Counter(pattern for name in everything for pattern in _globs_of(name))


@lru_cache(maxsize=1024)
def _named(pattern: str, regex: bool, everything: tuple[str, ...]) -> frozenset[str]:
    """The names that a pattern is about."""
    expression = compiled(pattern, regex)
    return frozenset(name for name in everything if expression.fullmatch(name))


def _globs_of(name: str) -> Iterator[str]:
    """Globs that people would write for a name: its modules, its endings, and its modules in every layer."""
    layers = _LAYER.sub("*", name)
    for index, character in enumerate(name):
        if character in "./":
            yield f"{glob.escape(name[: index + 1])}*"
            yield f"*{glob.escape(name[index:])}"
    if layers != name:
        yield glob.escape(layers).replace("[*]", "*")
        for index, character in enumerate(layers):
            if character in "./" and "*" in layers[:index]:
                yield f"{glob.escape(layers[: index + 1]).replace('[*]', '*')}*"


def _globs(names: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in names:
        for pattern in _globs_of(name):
            found.setdefault(pattern, set()).add(name)
    return found


def _only(pattern: str, wanted: frozenset[str], everything: Sequence[str]) -> bool:
    """Whether a glob names nothing else: a star in the middle spans more than one step."""
    if pattern.count("*") < 2 and "[" not in pattern:
        return True
    expression = compiled(pattern, False)
    return all(name in wanted for name in everything if expression.fullmatch(name))


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
