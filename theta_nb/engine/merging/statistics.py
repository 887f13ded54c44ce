"""Sufficient statistics of the inputs of a merge, from one pass over the weights, remembered by digest."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from theta_nb.engine.cache_file import CacheFile
from theta_nb.engine.merging.states import Unit
from theta_nb.merges.gram import Gram, gram_along, inner_products
from theta_nb.merges.group import Array, Group

__all__ = ["KERNEL_VERSION", "Grams", "Statistics", "StatisticsCache", "measure"]

KERNEL_VERSION = 2
"""Raised whenever the numbers would come out otherwise: older entries of a cache are then unknown."""

_MAX_ROWS = 200_000
_COLUMNS = "key BLOB PRIMARY KEY, data BLOB"


@dataclass(frozen=True)
class Statistics:
    """What one pass over a tensor tells.

    Parameters
    ----------
    gram
        Inner products of base and differences, float64 of shape (K+1, K+1).
    conflicts
        Entries at which two task vectors have opposite signs.
    shared
        Entries at which at least two are not zero.
    """

    gram: Array
    conflicts: int = 0
    shared: int = 0

    def dump(self) -> bytes:
        """As bytes."""
        counts = np.array([self.conflicts, self.shared], "<i8").tobytes()
        return counts + self.gram.astype("<f8").tobytes()

    @classmethod
    def load(cls, data: bytes, count: int) -> Statistics | None:
        """Back from bytes; ``None`` if these are not statistics of ``count`` inputs."""
        if len(data) != 16 + 8 * (count + 1) ** 2:
            return None
        conflicts, shared = (int(n) for n in np.frombuffer(data, "<i8", 2))
        return cls(np.frombuffer(data, "<f8", offset=16).reshape(count + 1, count + 1), conflicts, shared)


@dataclass(frozen=True)
class Grams:
    """Gram matrices of many parameters: all that a preview of a linear merge needs.

    A result ``origin + sum(c[k] * difference[k])`` has the squared norm ``v @ m @ v`` for ``v = [1, *c]``, and the
    squared distance ``(v - p) @ m @ (v - p)`` to a parent: ``p = [1, 0, …]`` is the origin, ``p = [1, 0, …, 1, …]`` an
    input. The origin is the ancestor; where a parameter has none, it is the first input that has the parameter, and
    that input's own difference is zero. The average of inputs with weights w that sum to 1 has ``c = w``.

    Parameters
    ----------
    names
        Parameters, in the order of the matrices.
    labels
        Names of the inputs.
    matrices
        Float64, shape (N, K+1, K+1) for K inputs; NaN in the rows and columns of an input that lacks the parameter.
    has_base
        Whether the origin is the ancestor, bool of shape (N,).

    Examples
    --------
    >>> from theta_nb.engine.merging.inputs import StateInput
    >>> from theta_nb.engine.merging.session import MergeSession
    >>> base, ours, theirs = (StateInput(label, {"w": np.array(x)}) for label, x in zip("oab", ([2.0], [3.0], [5.0])))
    >>> grams = MergeSession(base, [ours, theirs]).gram()
    >>> v = np.array([1, 0.5, 0.5])  # linear
    >>> float(np.sqrt(v @ grams.matrices[0] @ v))
    4.0
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    matrices: Array
    has_base: Array

    @classmethod
    def of(cls, units: Sequence[Unit], known: Mapping[str, Statistics], labels: Sequence[str]) -> Grams:
        """From the statistics of some parameters."""
        matrices = np.full((len(units), len(labels) + 1, len(labels) + 1), np.nan)
        for matrix, unit in zip(matrices, units, strict=True):
            present = [0, *(k + 1 for k in unit.present)]
            matrix[np.ix_(present, present)] = known[unit.name].gram
        has_base = np.array([unit.base is not None for unit in units], bool)
        return cls(tuple(unit.name for unit in units), tuple(labels), matrices, has_base)


def measure(group: Group) -> Statistics:
    """Statistics of a group, in one pass."""
    conflicts = shared = 0

    def watch(deltas: list[Array]) -> None:
        nonlocal conflicts, shared
        positive = np.zeros(len(deltas[0]), np.int16)
        negative = np.zeros(len(deltas[0]), np.int16)
        for delta in deltas:
            positive += delta > 0
            negative += delta < 0
        conflicts += int(np.count_nonzero((positive > 0) & (negative > 0)))
        shared += int(np.count_nonzero(positive + negative > 1))

    with np.errstate(all="ignore"):
        products = inner_products(group, watch if group.base is not None and len(group.inputs) > 1 else None)
    return Statistics(products, conflicts, shared)


def key_of(digests: list[bytes], has_base: bool) -> bytes:
    """Key of a cache entry: the kernel, and the digests, which cover dtype, shape and values."""
    head = f"gram {KERNEL_VERSION} {int(has_base)}\n".encode("ascii")
    return blake3(head + b"".join(digests)).digest()


class StatisticsCache:
    """Statistics by digest, in memory and, if a path is given, in an SQLite file.

    A cache that cannot be read or written is an empty one; a torn file is begun anew.

    Parameters
    ----------
    path
        File of the cache, made on first use; empty for none.

    Examples
    --------
    >>> cache = StatisticsCache()
    >>> cache.put(b"key", Statistics(np.eye(2)))
    >>> cache.get(b"key", 1).gram.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, path: str = "") -> None:
        self._file = CacheFile(path, "statistics", _COLUMNS) if path else None
        self._known: dict[bytes, Statistics] = {}
        self._new: dict[bytes, Statistics] = {}
        self._lock = threading.Lock()

    def get(self, key: bytes, count: int) -> Statistics | None:
        """Statistics of ``count`` inputs, or ``None``."""
        found = self._known.get(key)
        if found is None and self._file is not None:
            rows = self._file.ask("SELECT data FROM statistics WHERE key = ?", (key,))
            found = Statistics.load(rows[0][0], count) if rows and isinstance(rows[0][0], bytes) else None
            if found is not None:
                self._known[key] = found
        return found

    def put(self, key: bytes, statistics: Statistics) -> None:
        """Remember; the file has it after :meth:`save`."""
        with self._lock:
            self._known[key] = self._new[key] = statistics

    def save(self) -> None:
        """Write what is new to the file, which forgets what is too much."""
        with self._lock:
            new, self._new = self._new, {}
        if self._file is not None:
            self._file.remember([(key, one.dump()) for key, one in new.items()], most=_MAX_ROWS)

    def close(self) -> None:
        """Save, and close the file."""
        self.save()
        if self._file is not None:
            self._file.close()


def gram_for(group: Group, statistics: Statistics) -> Gram:
    """The Gram matrix that methods get, on statistics that are known."""
    return Gram(statistics.gram, group.base is not None, group.name, lambda axis: gram_along(group, axis))
