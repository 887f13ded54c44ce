"""How many directions a change has: the singular values of a matrix."""

from __future__ import annotations

from dataclasses import dataclass

from theta_nb.tensors.spec import Shape

__all__ = ["Spectrum"]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The largest singular values of a matrix, and ranks that follow from them.

    Parameters
    ----------
    singular_values
        In descending order: all of a small matrix, the largest ones of a large one.
    shape
        Of the matrix: a tensor of more dimensions is seen as its first one against all others.
    stable_rank
        ‖A‖²/σ₁² (Frobenius norm over the largest singular value): exact up to the accuracy of σ₁.
    effective_rank
        exp(H(p)) with p the singular values over their sum and H the entropy (Roy & Vetterli, EUSIPCO 2007). Where not
        all singular values are known, the rest of the norm is taken as spread evenly over the others: an upper bound.
    exact
        Whether all singular values were computed; else by a randomized, seeded method (Halko, Martinsson & Tropp,
        SIAM Review 2011).
    """

    singular_values: tuple[float, ...]
    shape: Shape
    stable_rank: float
    effective_rank: float
    exact: bool = True
