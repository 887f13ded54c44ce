"""Defaults of ``%theta`` that a user sets with ``%config Theta`` or in an IPython profile."""

from __future__ import annotations

import argparse

from traitlets import Bool, Enum, Int
from traitlets.config import Configurable

from theta_nb.commands.grammar.history import SORT_KEYS

__all__ = ["Theta", "apply_options"]


class Theta(Configurable):
    """Defaults of the magic ``%theta``.

    ``%config Theta`` lists them, ``%config Theta.sort = "relative"`` sets one for this kernel, and
    ``c.Theta.sort = "relative"`` in ``ipython_kernel_config.py`` for all.
    """

    progress = Bool(True, help="Whether work that takes a while shows its progress.").tag(config=True)
    sort = Enum(SORT_KEYS, "name", help="Order of the parameters that '%theta diff' shows.").tag(config=True)
    top = Int(0, min=0, help="How many parameters '%theta diff' shows; 0 for all.").tag(config=True)
    measure = Bool(True, help="Whether '%theta diff' reads values; if not, it is as with --stat.").tag(config=True)
    first_parent = Bool(False, help="Whether '%theta log' follows only first parents.").tag(config=True)


def apply_options(options: Theta, parsers: dict[str, argparse.ArgumentParser]) -> None:
    """Make settings the defaults of the commands' arguments."""
    parsers["diff"].set_defaults(sort=options.sort, top=options.top or None, stat=not options.measure)
    parsers["log"].set_defaults(first_parent=options.first_parent)
