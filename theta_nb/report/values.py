"""Where a diff gets the values of its sides: the seam between what is shown and what is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Protocol

from theta_nb.engine.diff import ParameterChange

if TYPE_CHECKING:
    from theta_nb.engine.pictures import Picture, Window
    from theta_nb.tensors.spectrum import Spectrum

__all__ = ["Progress", "Values"]

Progress = Callable[[int, int], None]
"""Told bytes done, and bytes in all."""


class Values(Protocol):
    """Where a diff gets the values of its two sides when numbers are asked for."""

    def measure(
        self,
        changes: Sequence[ParameterChange],
        *,
        histograms: bool,
        progress: Progress | None,
        executor: Executor | None,
    ) -> tuple[ParameterChange, ...]:
        """The same changes with statistics, or with a note why there are none."""
        ...

    def spectrum(self, change: ParameterChange, *, count: int, seed: int) -> Spectrum:
        """Singular values of the difference of one parameter."""
        ...

    def picture(self, change: ParameterChange, *, size: tuple[int, int], stop: Callable[[], None] | None) -> Picture:
        """The difference of one parameter, scaled down."""
        ...

    def window(self, change: ParameterChange, *, row: int, column: int, size: tuple[int, int]) -> Window:
        """Single values of one parameter."""
        ...
