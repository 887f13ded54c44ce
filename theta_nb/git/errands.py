"""What else is done around a transfer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["NO_ERRANDS", "Errands"]


def _at_once(work: Callable[[], None]) -> None:
    work()


@dataclass(frozen=True, slots=True)
class Errands:
    """What else is done around a transfer, by somebody for whom every millisecond counts.

    Parameters
    ----------
    meanwhile
        Called while git-lfs fetches; not for remotes on this machine.
    later
        Given what nobody has to wait for (bringing to the disk what arrived), to be called when there is time.
    """

    meanwhile: Callable[[], None] | None = None
    later: Callable[[Callable[[], None]], None] = _at_once


NO_ERRANDS = Errands()
"""Nothing meanwhile, everything at once."""
