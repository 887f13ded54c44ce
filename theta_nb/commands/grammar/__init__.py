"""The arguments and the help text of each command, in modules by what the commands are about."""

from __future__ import annotations

from theta_nb.commands.grammar import care, checkpoints, history, setup, sharing
from theta_nb.commands.grammar.arguments import Formatter

__all__ = ["GROUPS", "Formatter"]

GROUPS = {
    "set up": (setup.install, setup.uninstall, setup.track, setup.untrack),
    "every day": (checkpoints.add, checkpoints.commit, checkpoints.status, checkpoints.ls_files, checkpoints.checkout),
    "see what changed": (history.diff, history.log, history.show, history.blame),
    "share": (sharing.push, sharing.fetch, sharing.pull),
    "care": (care.fsck, care.gc, care.hooks, care.env, care.help_),
}
"""Functions that add one command each and return its name and summary, by heading of the overview."""
