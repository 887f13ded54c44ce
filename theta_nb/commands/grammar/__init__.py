"""The arguments and the help text of each command, in modules by what the commands are about."""

from __future__ import annotations

from theta_nb.commands.grammar import care, checkpoints, history, merging, setup, sharing
from theta_nb.commands.grammar.arguments import Formatter

__all__ = ["GROUPS", "NOTEBOOK_COMMANDS", "NOTEBOOK_GROUPS", "Formatter"]

GROUPS = {
    "set up": (setup.install, setup.uninstall, setup.track, setup.untrack),
    "every day": (checkpoints.add, checkpoints.commit, checkpoints.status, checkpoints.ls_files, checkpoints.checkout),
    "see what changed": (history.diff, history.log, history.show, history.blame),
    "merge": (merging.merge, merging.replay),
    "share": (sharing.push, sharing.fetch, sharing.pull),
    "care": (care.fsck, care.gc, care.compact, care.hooks, care.env, care.help_),
}
"""Functions that add one command each and return its name and summary, by heading of the overview."""

NOTEBOOK_GROUPS = {
    heading: (*members, merging.evaluate, merging.sweep) if heading == "merge" else members
    for heading, members in GROUPS.items()
}
"""The same for notebooks, where functions can be named."""

NOTEBOOK_COMMANDS = ("evaluate", "sweep")
"""Names of the commands that exist only there."""
