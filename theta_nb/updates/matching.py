"""Which parameter of a checkpoint an update means: names with and without the prefixes of wrappers."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence

from theta_nb.checkpoints.naming import parse
from theta_nb.errors import CheckpointError, ThetaError, listed

__all__ = ["match", "plain_names"]

_TRIED = 4  # names from which prefixes are guessed: one of them may be wrong


def plain_names(names: Iterable[str]) -> dict[str, str]:
    r"""Names of parameters by what a person would call them: themselves, and without escapes where that is unique.

    Examples
    --------
    >>> plain_names(["a\\/b", "w"]) == {"a/b": "a\\/b", "a\\/b": "a\\/b", "w": "w"}
    True
    """
    own = list(names)
    plain: dict[str, str] = {}
    for name in own:
        try:
            path = parse(name)
        except CheckpointError:
            continue
        if len(path) == 1 and isinstance(path[0], str):
            plain[path[0]] = name
    return {**plain, **{name: name for name in own}}


def match(wanted: Sequence[str], parameters: Mapping[str, str], optional: Collection[str] = ()) -> dict[str, str]:
    """Find the parameters that an update names.

    All names are taken as they are if they fit; else one prefix, the same for all, is put in front of them or taken
    away (``model.``, ``base_model.``, or the container that holds a state dict), or exchanged for another one.

    Parameters
    ----------
    wanted
        Names of the update.
    parameters
        Names of the checkpoint's parameters, by what they may be called.
    optional
        Names of which it is no error that no parameter has them.

    Returns
    -------
    dict
        Names in ``parameters`` by name in ``wanted``, less the optional ones that do not exist.

    Raises
    ------
    ThetaError
        If names match nothing (all are listed), or match in two ways.

    Examples
    --------
    >>> match(["layer.0.weight"], {"model.layer.0.weight": "model.layer.0.weight", "b": "b"})
    {'layer.0.weight': 'model.layer.0.weight'}
    """
    names = [*wanted, *optional]
    for ways in _tiers(wanted, parameters):
        fitting = {way: _renamed(wanted, way, parameters) for way in sorted(ways)}
        complete = [way for way, found in fitting.items() if len(found) == len(wanted)]
        if len({tuple(fitting[way].values()) for way in complete}) > 1:
            first, second = (fitting[way][wanted[0]] for way in complete[:2])
            raise ThetaError(
                f"{wanted[0]!r} may be {first!r} or {second!r} of the checkpoint",
                hint="Give the parameters of the update their full names.",
            )
        if complete:
            return _renamed(names, complete[0], parameters)
    missing = _unmatched(wanted, parameters)
    near = difflib.get_close_matches(missing[0], list(parameters)[:10_000], n=1, cutoff=0.5)
    hint = f"Did the update mean {near[0]!r}?" if near else "'git show HEAD:PATH' lists the parameters."
    count = f"{len(missing)} of {len(wanted)} names" if len(wanted) > 1 else "its only name"
    raise ThetaError(f"the checkpoint has no parameter for {count} of the update: {listed(missing, most=8)}", hint=hint)


_Way = tuple[str, str]  # a prefix to take away, one to put there


def _tiers(wanted: Sequence[str], parameters: Mapping[str, str]) -> Iterable[set[_Way]]:
    """Ways to change names, the most obvious first."""
    yield {("", "")}
    ways = {way for name in wanted[:_TRIED] for way in _ways(name, parameters)}
    yield {way for way in ways if not way[0] or not way[1]}
    yield ways


def _ways(name: str, parameters: Mapping[str, str]) -> Iterable[_Way]:
    cuts = [0] + [place + 1 for place, char in enumerate(name) if char in "./"]
    for cut in cuts:
        rest = name[cut:]
        if cut and "." not in rest and "/" not in rest:
            return  # "weight" alone would fit anything
        for candidate in parameters:
            head = candidate.removesuffix(rest)
            if len(head) < len(candidate) and (not head or head[-1] in "./"):
                yield name[:cut], head


def _renamed(names: Iterable[str], way: _Way, parameters: Mapping[str, str]) -> dict[str, str]:
    old, new = way
    changed = {name: new + name[len(old) :] for name in names if name.startswith(old)}
    return {name: parameters[other] for name, other in changed.items() if other in parameters}


def _unmatched(wanted: Sequence[str], parameters: Mapping[str, str]) -> list[str]:
    """What is left by the way that fits best."""
    *_, ways = _tiers(wanted, parameters)
    found = max((_renamed(wanted, way, parameters) for way in sorted({*ways, ("", "")})), key=len)
    return [name for name in wanted if name not in found]
