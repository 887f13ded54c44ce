"""Samples of the weights for the browser, which estimates by them while a hand drags (``static/samples.js``).

A method that trims and elects signs follows from no Gram matrix, and a question to the kernel and back takes longer
than a hand waits. So the view asks for samples once, some parameters at a time, and does the arithmetic itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from blake3 import blake3

from theta_nb.engine.merging.sampling import Sample
from theta_nb.engine.merging.states import Unit
from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer

__all__ = ["key_of", "packed", "places_of"]

_NBYTES = 300_000  # of an answer: what a hand asks for meanwhile does not wait behind a long one


def key_of(units: Sequence[Unit]) -> str:
    """Which weights they are: samples and Gram matrices with one key belong together."""
    made = blake3()
    for unit in units:
        for info in (unit.base, *unit.versions):
            made.update(b"-" if info is None else info.digest)
        made.update(b"\n")
    return made.hexdigest(length=16)


def places_of(form: object, count: int) -> list[int]:
    """The places of parameters that a view asks about.

    Parameters
    ----------
    form
        What the view sent.
    count
        How many parameters it has.

    Raises
    ------
    ThetaError
        If they are no places.

    Examples
    --------
    >>> places_of([2, 0, 2], 3)
    [2, 0]
    """
    if not isinstance(form, list) or not all(type(place) is int and 0 <= place < count for place in form):
        raise ThetaError(f"samples are asked for by places from 0 to {count - 1}")
    return list(dict.fromkeys(form))


def packed(wanted: Sequence[tuple[int, Unit]], samples: Mapping[str, Sample], key: str) -> Answer:
    """Some samples, as many as are sent at once, at least one.

    Parameters
    ----------
    wanted
        Places and parameters; the view asks again for those that are left.
    samples
        By name. Those of float64 are left out as well: messages hold float32.
    key
        From :func:`key_of`.

    Returns
    -------
    Answer
        Of ``places``; for each the ``lengths`` of a sample (0: there is none), its ``shares`` and ``inputs``; and
        ``values``, one after the other: the ancestor's, then those of each of the inputs.
    """
    answer, size = Answer(), 0
    places: list[int] = []
    lengths: list[int] = []
    shares: list[float] = []
    inputs: list[list[int]] = []
    values: list[np.ndarray] = []
    for place, unit in wanted:
        sample = samples.get(unit.name)
        parts = [] if sample is None or sample.base is None else [sample.base, *sample.inputs]
        if any(part.dtype != np.float32 for part in parts):
            parts = []
        size += sum(part.nbytes for part in parts)
        if size > _NBYTES and places:
            break
        places.append(place)
        lengths.append(len(parts[0]) if parts else 0)
        shares.append(sample.share if sample is not None else 1.0)
        inputs.append(list(unit.present))
        values += parts
    answer.result = {"key": key, "places": places, "lengths": lengths, "shares": shares, "inputs": inputs}
    answer.result["values"] = answer.array(np.concatenate(values) if values else np.zeros(0, np.float32))
    return answer
