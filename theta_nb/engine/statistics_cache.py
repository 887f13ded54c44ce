"""Statistics that were computed before, remembered across processes by the digests of what was compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from blake3 import blake3

from theta_nb.engine.cache_file import CacheFile
from theta_nb.tensors.moments import Moments, Piece
from theta_nb.tensors.statistics import KERNEL_VERSION
from theta_nb.tensors.tallies import Tallies, Tally

__all__ = ["StatisticsCache", "cache_key"]

_MAX_ROWS = 200_000  # some 100 MB
_ASKED_AT_ONCE = 500
_COLUMNS = "key BLOB PRIMARY KEY, piece TEXT"

_NUMBERS = ("count", "mean", "scatter", "unit", "nan", "inf")


def cache_key(*parts: str | bytes) -> bytes:
    """Key of a comparison: what was compared, by digests and dtypes, and the version of the kernel."""
    hasher = blake3(b"statistics %d\n" % KERNEL_VERSION)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8")
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.digest()


class StatisticsCache:
    """Statistics of pairs of chunks or tensors, by :func:`cache_key`.

    Parameters
    ----------
    path
        File of the cache; made on first use.
    """

    def __init__(self, path: str) -> None:
        self._file = CacheFile(path, "pieces", _COLUMNS)

    def find(self, keys: Sequence[bytes], *, histograms: bool) -> dict[bytes, Piece]:
        """What is known of some comparisons; with ``histograms``, only what includes them."""
        found: dict[bytes, Piece] = {}
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            some = keys[start : start + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(some))
            for key, text in self._file.ask(f"SELECT key, piece FROM pieces WHERE key IN ({marks})", some):  # noqa: S608
                piece = _read(text)
                if piece is not None and (piece.tallies is not None or not histograms):
                    found[key] = piece
        return found

    def remember(self, pieces: Mapping[bytes, Piece]) -> None:
        """Add comparisons; the oldest are dropped where there are too many."""
        self._file.remember([(key, _write(piece)) for key, piece in pieces.items()], most=_MAX_ROWS)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _write(piece: Piece) -> str:
    form: dict[str, Any] = {
        "counts": [piece.numel, piece.changed, piece.flips],
        "sums": [piece.largest, piece.dot, piece.old_square, piece.new_square],
        "moments": [[getattr(m, name) for name in _NUMBERS] for m in (piece.old, piece.new, piece.delta)],
    }
    if piece.tallies is not None:
        form["tallies"] = [_sparse(tally) for tally in piece.tallies]
    return json.dumps(form, separators=(",", ":"))


def _sparse(tally: Tally) -> list[list[int]]:
    filled = np.flatnonzero(tally.counts)
    return [filled.tolist(), tally.counts[filled].tolist()]


def _read(text: Any) -> Piece | None:
    """A row, or ``None`` where it is not what :func:`_write` makes: a cache is a file like any other."""
    try:
        form = json.loads(text)
        numel, changed, flips = _whole(form["counts"], 3)
        largest, dot, old_square, new_square = _floats(form["sums"], 4)
        old, new, delta = (_moments(row) for row in form["moments"])
        tallies = form.get("tallies")
        return Piece(
            numel,
            changed,
            flips,
            old,
            new,
            delta,
            largest,
            dot,
            old_square,
            new_square,
            None if tallies is None else _tallies(tallies),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None


def _moments(row: Sequence[Any]) -> Moments:
    count, mean, scatter, unit, nan, inf = row
    count, nan, inf = _whole([count, nan, inf], 3)
    mean, scatter = _floats([mean, scatter], 2)
    if type(unit) is not int or abs(unit) > 5000 or scatter < 0:
        raise ValueError(row)
    return Moments(count, mean, scatter, unit, nan, inf)


def _tallies(rows: Sequence[Any]) -> Tallies:
    first, second, third = (_tally(row) for row in rows)
    return first, second, third


def _tally(row: Sequence[Any]) -> Tally:
    bins, counts = row
    tally = Tally()
    for index, count in zip(_whole(bins, len(bins)), _whole(counts, len(bins)), strict=True):
        tally.counts[index] = count
    return tally


def _whole(numbers: Iterable[Any], count: int) -> list[int]:
    found = list(numbers)
    if len(found) != count or not all(type(n) is int and 0 <= n < 2**62 for n in found):
        raise ValueError(found)
    return found


def _floats(numbers: Iterable[Any], count: int) -> list[float]:
    found = list(numbers)
    if len(found) != count or not all(type(n) in (int, float) and not math.isnan(n) for n in found):
        raise ValueError(found)
    return [float(n) for n in found]
