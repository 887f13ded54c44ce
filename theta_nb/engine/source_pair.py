"""Two sides of a comparison, and what can be asked of their values.

What answers is imported with the first question: which parameters changed follows from digests, and whoever asks no
more does not wait for NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from theta_nb.engine.diff import ParameterChange

if TYPE_CHECKING:
    from theta_nb.engine.pictures import Picture, Window
    from theta_nb.engine.sources import Source
    from theta_nb.tensors.spectrum import Spectrum

__all__ = ["PairOfSources"]

Progress = Callable[[int, int], None]


class PairOfSources:
    """Measures what differs between two sides.

    Parameters
    ----------
    old, new
        The two sides.
    cache
        Path of the file that remembers statistics; empty for none.
    workers
        Threads, where no executor is given.
    """

    def __init__(self, old: Source, new: Source, *, cache: str = "", workers: int = 2) -> None:
        self._old, self._new = old, new
        self._cache_path = cache
        self._workers = workers

    def measure(
        self,
        changes: Sequence[ParameterChange],
        *,
        histograms: bool = False,
        progress: Progress | None = None,
        executor: Executor | None = None,
    ) -> tuple[ParameterChange, ...]:
        """The same changes, with statistics or a note that says why there are none.

        Parameters
        ----------
        changes
            From :func:`theta_nb.engine.diff.structural_diff`; those without values on both sides stay as they are, and
            so do unchanged ones, whose values are not read.
        histograms
            Whether to count magnitudes.
        progress
            Called with bytes done and bytes in all, from this thread. What it raises stops the work.
        executor
            Where chunks are worked on: threads, as they share memory.
        """
        from theta_nb.engine.measure import Measurement

        measurement = Measurement(self._old, self._new, cache=self._cache_path, histograms=histograms)
        return measurement.of(changes, executor or self._workers, progress)

    def spectrum(self, change: ParameterChange, *, count: int = 64, seed: int = 0) -> Spectrum:
        """Singular values of the difference of one parameter.

        Raises
        ------
        ThetaError
            If there is no difference, or its values are not here.
        """
        from theta_nb.engine.close_up import CloseUp

        return CloseUp(self._old, self._new, change).spectrum(count=count, seed=seed)

    def picture(
        self, change: ParameterChange, *, size: tuple[int, int] = (96, 96), stop: Callable[[], None] | None = None
    ) -> Picture:
        """The difference of one parameter, scaled down.

        Parameters
        ----------
        change
            The parameter.
        size
            Most rows and columns of the picture.
        stop
            Called between blocks. What it raises stops the work.

        Raises
        ------
        ThetaError
            If there is no difference, or its values are not here.
        """
        from theta_nb.engine.close_up import CloseUp

        return CloseUp(self._old, self._new, change).picture(size=size, stop=stop)

    def window(
        self, change: ParameterChange, *, row: int = 0, column: int = 0, size: tuple[int, int] = (8, 8)
    ) -> Window:
        """Single values of one parameter; a window that would stick out is moved inside.

        Raises
        ------
        ThetaError
            If there are no two sides, or their values are not here.
        """
        from theta_nb.engine.close_up import CloseUp

        return CloseUp(self._old, self._new, change).window(row=row, column=column, size=size)
