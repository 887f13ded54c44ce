"""One parameter that differs, looked at from near: the singular values, a picture, single values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from theta_nb.engine.alignment import Blocks, align
from theta_nb.engine.diff import ParameterChange
from theta_nb.engine.pictures import Picture, Window, as_matrix, picture_of, window_of
from theta_nb.engine.sources import Source, prepare
from theta_nb.engine.spectra import spectrum_of
from theta_nb.errors import ThetaError
from theta_nb.tensors.spectrum import Spectrum

__all__ = ["CloseUp"]


class CloseUp:
    """Both sides of a parameter, their values at hand.

    Parameters
    ----------
    old, new
        The two sides of the comparison.
    change
        The parameter.

    Raises
    ------
    ThetaError
        If there is no difference, or its values are not here.
    """

    def __init__(self, old: Source, new: Source, change: ParameterChange) -> None:
        if not change.comparable or change.old is None or change.new is None:
            raise ThetaError(f"{change.name} is {change.status}: there is no difference to look at")
        prepare(old, new, [change])
        self._name = change.name
        self._blocks = Blocks(old, new)
        self._old, self._new = old.stored(change.old.name), new.stored(change.new.name)
        self._alignment = align(self._old, self._new)

    def spectrum(self, *, count: int, seed: int) -> Spectrum:
        """Singular values of the difference."""
        return spectrum_of(self._pairs(), self._old.spec, self._new.spec, self._shape, count=count, seed=seed)

    def picture(self, *, size: tuple[int, int], stop: Callable[[], None] | None) -> Picture:
        """The difference scaled down to ``size`` rows and columns; ``stop`` is called between blocks."""
        return picture_of(_watched(self._pairs(), stop), self._old.spec, self._new.spec, self._shape, size=size)

    def window(self, *, row: int, column: int, size: tuple[int, int]) -> Window:
        """Single values; a window that would stick out is moved inside."""
        old, new = self._old, self._new
        if not self._alignment.flat or (old.spec.dtype.bits | new.spec.dtype.bits) % 8:
            raise ThetaError(
                f"{self._name} is a view or packed, and single values of it are not listed",
                hint="Read it with repo.checkpoint(...)[name].numpy().",
            )
        rows, columns = as_matrix(self._shape)
        height, width = min(rows, size[0]), min(columns, size[1])
        row, column = max(0, min(row, rows - height)), max(0, min(column, columns - width))
        starts = [(row + i) * columns + column for i in range(height)]
        pairs = (pair for start in starts for pair in self._blocks.flat(old, new, start, start + width))
        return window_of(pairs, old.spec, new.spec, shape=(rows, columns), row=row, column=column)

    @property
    def _shape(self) -> tuple[int, ...]:
        """What is compared: the part that both sides have."""
        return self._alignment.overlap or self._new.spec.shape

    def _pairs(self) -> Iterator[tuple[memoryview, memoryview]]:
        if self._alignment.flat:
            return self._blocks.flat(self._old, self._new, 0, self._alignment.numel)
        return self._blocks.rows(self._old, self._new, self._alignment)


def _watched(
    pairs: Iterable[tuple[memoryview, memoryview]], stop: Callable[[], None] | None
) -> Iterator[tuple[memoryview, memoryview]]:
    for pair in pairs:
        if stop is not None:
            stop()
        yield pair
