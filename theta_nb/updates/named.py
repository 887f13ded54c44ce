"""Updates in the naming of git-theta (https://github.com/r-three/git-theta), and what every kind of update offers.

===========  ==================================================  ================================================
update type  keys, after the parameter's name                    the new value
===========  ==================================================  ================================================
low-rank     ``/R`` (rows, rank), ``/C`` (rank, columns)         old + R @ C
sparse       ``/data /indices /indptr /shape`` (a CSR matrix      old + the matrix, in the parameter's shape
             of one row: the flattened difference)
ia3          ``/ia3``                                            old * ia3, broadcast
===========  ==================================================  ================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from theta_nb.errors import ThetaError, listed
from theta_nb.updates.change import Array, Change, Parameter, Unfit
from theta_nb.updates.changes import Differences, Product, Scaling

__all__ = ["LOADED_TYPES", "Bound", "NamedUpdates", "UpdateSet"]

Bound = tuple[Parameter, Change]


class UpdateSet(Protocol):
    """Updates of many parameters, as they came from a file."""

    @property
    def update(self) -> str:
        """Update type."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What it calls the parameters that it changes."""
        ...

    @property
    def optional(self) -> tuple[str, ...]:
        """Further parameters that it changes where the checkpoint has them."""
        ...

    def changes(self, found: Mapping[str, Parameter], problems: list[str]) -> list[Bound]:
        """Changes of parameters.

        Parameters
        ----------
        found
            The checkpoint's parameters, by what they are called here.
        problems
            Gets a sentence for whatever does not fit.
        """
        ...


_PARTS = {"low-rank": ("R", "C"), "sparse": ("data", "indices", "indptr", "shape"), "ia3": ("ia3",)}

LOADED_TYPES = tuple(_PARTS)
"""Update types that a file can bring."""


class NamedUpdates:
    """Arrays by ``parameter/part``.

    Parameters
    ----------
    arrays
        What the file holds.
    update
        One of :data:`LOADED_TYPES`.

    Raises
    ------
    ThetaError
        If keys do not end in a part of the type, or a parameter lacks a part: all are listed.

    Examples
    --------
    >>> factors = {"w/R": np.ones((4, 1)), "w/C": np.ones((1, 3))}
    >>> updates = NamedUpdates(factors, "low-rank")
    >>> updates.names
    ('w',)
    >>> [(_, change)] = updates.changes({"w": Parameter("w", "float32", (4, 3))}, [])
    >>> change.scale
    1.0
    """

    optional: tuple[str, ...] = ()

    def __init__(self, arrays: Mapping[str, Array], update: str) -> None:
        self.update = update
        parts = _PARTS[update]
        self._arrays: dict[str, dict[str, Array]] = {}
        strange = []
        for key, array in arrays.items():
            name, slash, part = key.rpartition("/")
            if slash and name and part in parts:
                self._arrays.setdefault(name, {})[part] = array
            else:
                strange.append(key)
        endings = ", ".join(f"/{part}" for part in parts)
        if strange:
            raise ThetaError(
                f"{listed(strange)} {'is' if len(strange) == 1 else 'are'} no part of the update type {update}",
                hint=f"Names are those of parameters with {endings} behind.",
            )
        lacking = [f"{name}/{part}" for name, own in self._arrays.items() for part in parts if part not in own]
        if lacking:
            raise ThetaError(f"the {update} update lacks {listed(lacking)}", hint=f"Each parameter needs {endings}.")
        if not self._arrays:
            raise ThetaError("the update is empty", hint=f"Names are those of parameters with {endings} behind.")

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that it changes."""
        return tuple(sorted(self._arrays))

    def changes(self, found: Mapping[str, Parameter], problems: list[str]) -> list[Bound]:
        """Changes of parameters; ``problems`` gets what does not fit."""
        bound = []
        for name in self.names:
            try:
                change = _MAKERS[self.update](name, self._arrays[name])
                change.check(found[name])
            except Unfit as problem:
                problems.append(str(problem))
            else:
                bound.append((found[name], change))
        return bound


def _product(name: str, parts: Mapping[str, Array]) -> Change:
    rows, rest = parts["R"], parts["C"]
    # The factors of a parameter of more dimensions than two keep those in C.
    columns = rest.reshape(rest.shape[0], -1) if rest.ndim > 2 else rest
    return Product(rows, columns, 1.0, name, (f"{name}/R", f"{name}/C"))


def _differences(name: str, parts: Mapping[str, Array]) -> Change:
    for part in ("indices", "indptr", "shape"):
        if parts[part].dtype.kind not in "iu" or parts[part].ndim != 1:
            raise Unfit(f"'{name}/{part}' is not a list of integers")
    data, indices = parts["data"], parts["indices"].astype(np.int64)
    if data.ndim != 1 or len(data) != len(indices) or list(parts["indptr"]) != [0, len(indices)]:
        raise Unfit(f"{name!r}: data, indices and indptr are not those of a CSR matrix of one row")
    order = np.argsort(indices, kind="stable")
    places: NDArray[np.int64] = indices[order]
    if len(places) and (int(places[0]) < 0 or not (np.diff(places) > 0).all()):
        raise Unfit(f"{name!r} has negative or repeated positions")
    return Differences(places, data[order], tuple(int(size) for size in parts["shape"]), name)


def _scaling(name: str, parts: Mapping[str, Array]) -> Change:
    return Scaling(parts["ia3"], f"{name}/ia3")


_MAKERS: dict[str, Callable[[str, Mapping[str, Array]], Change]] = {
    "low-rank": _product,
    "sparse": _differences,
    "ia3": _scaling,
}
