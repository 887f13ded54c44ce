"""What git's configuration says about us, and what it should say.

The tables are those of an installation (:mod:`theta_nb.git.installation` writes them); reading them back tells whether
git knows the filter, seen from one folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from theta_nb.errors import ThetaError
from theta_nb.git.process import GitError, config_items, git

__all__ = [
    "CONFIGURATION",
    "ConfigEntry",
    "Installed",
    "Scope",
    "config_entries",
    "installed",
    "require_filter",
]

Scope = Literal["global", "local", "worktree", "system"]

PROGRAM = "git-theta"

# What 'git diff' writes behind the line numbers of a hunk: the block of the model, 'encoder.layer.3'. git takes it from
# the last matching line *before* the hunk, context included, so with three lines of context the header of a single
# module would nearly always be that of its neighbour; the block is right for most tensors, and changed lines say the
# whole name anyway. That is a row's name up to its first number, or up to its first dot. The lines behind the rows,
# for the machine, belong to no module: they match with nothing, so their hunks get no header instead of the last row's.
# A tab must be a real one: these are POSIX expressions.
_HUNK_HEADER = (
    "^(([0-9]*[^\t./0-9][^\t./]*[./])*[0-9]+)[./][^\t]*\t\n"  # encoder.layer.3.norm.weight
    "^([^\t./]+)[./][^\t]*\t\n"  # embeddings.norm.weight
    "^([^\t]+)\t\n"  # weight
    "^()(object|value) "
)
_FORMER_HUNK_HEADER = "^([^\t]+)[./][^\t./]*\t\n^([^\t]+)\t\n^(object|value) "

CONFIGURATION: dict[str, str] = {
    "filter.theta.process": f"{PROGRAM} filter-process",
    # git quotes %f itself: quotes around it would reach the command.
    "filter.theta.clean": f"{PROGRAM} clean %f",
    "filter.theta.smudge": f"{PROGRAM} smudge %f",
    # Without it a failing filter would put the raw checkpoint into git and say nothing.
    "filter.theta.required": "true",
    "merge.theta.name": "merge checkpoints by parameter group",
    "merge.theta.driver": f"{PROGRAM} merge-driver %O %A %B %P %L",
    # A criss-cross merge first merges the ancestors; "ours" left there would hide a conflict of the real merge.
    "merge.theta.recursive": "theta-base",
    "merge.theta-base.name": "merge common ancestors of checkpoints",
    "merge.theta-base.driver": f"{PROGRAM} merge-driver --base %O %A %B %P %L",
    "diff.theta.xfuncname": _HUNK_HEADER,
}
"""Every key that an installation sets, with its value."""

SKIP_SMUDGE = "theta.skipSmudge"
HOOKS = "theta.hooks"
DIFF_COMMAND = "diff.theta.command"

# What is written only on demand.
OPTIONAL = {SKIP_SMUDGE: "true", HOOKS: "false", DIFF_COMMAND: f"{PROGRAM} diff-driver"}

# What git-theta (the reference implementation) and our own former versions write; replaced, or removed where we have no
# such key.
FORMER: dict[str, str] = {
    "filter.theta.clean": "git-theta-filter clean %f",
    "filter.theta.smudge": "git-theta-filter smudge %f",
    "merge.theta.name": "Merge Models with Git-Theta",
    "merge.theta.driver": "git-theta-merge %O %A %B %P",
    DIFF_COMMAND: "git-theta-diff",
    "diff.theta.xfuncname": _FORMER_HUNK_HEADER,
}

# What each key may say without being worth a remark.
_ACCEPTED = {key.lower(): (value,) for key, value in CONFIGURATION.items()} | {
    DIFF_COMMAND: (OPTIONAL[DIFF_COMMAND], "")
}

_OUR_KEYS = r"^(filter|diff)\.theta\.|^merge\.theta(-base)?\.|^theta\.(skipsmudge|hooks)$"


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One value of git's configuration.

    Parameters
    ----------
    key
        As git prints it: section and last part in lower case.
    value
        Its value.
    scope, origin
        ``"local"``, ``"global"`` … and where it was read (``"file:.git/config"``); empty where not asked for.
    """

    key: str
    value: str
    scope: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Installed:
    """What git's configuration says about the filter, seen from one folder.

    Parameters
    ----------
    entries
        Every value of our keys, in the order in which git reads them; the last one of a key counts.
    """

    entries: tuple[ConfigEntry, ...]

    @property
    def effective(self) -> dict[str, ConfigEntry]:
        """The entry that counts, by key."""
        return {entry.key: entry for entry in self.entries}

    @property
    def filters(self) -> bool:
        """Whether git has a long-running filter of this name to call."""
        entry = self.effective.get("filter.theta.process")
        return entry is not None and entry.value != ""

    @property
    def differing(self) -> tuple[ConfigEntry, ...]:
        """Values that count and are not those of an installation."""
        return tuple(e for key, e in self.effective.items() if key in _ACCEPTED and e.value not in _ACCEPTED[key])


def installed(cwd: str | None = None) -> Installed:
    """What git's configuration says about us, seen from a folder."""
    return Installed(config_entries(_OUR_KEYS, cwd))


def config_entries(keys: str, cwd: str | None = None) -> tuple[ConfigEntry, ...]:
    """All values of some keys (a regular expression), in the order in which git reads them."""
    try:
        out = git("config", "--null", "--show-scope", "--show-origin", "--get-regexp", keys, cwd=cwd)
    except GitError as error:
        if error.returncode == 1:  # no such key
            return ()
        raise
    words = out.decode("utf-8", "surrogateescape").split("\0")[:-1]
    entries = []
    for scope, origin, item in zip(words[::3], words[1::3], words[2::3], strict=True):
        key, separator, value = item.partition("\n")
        entries.append(ConfigEntry(key, value if separator else "true", scope, origin))
    return tuple(entries)


def require_filter(cwd: str | None = None) -> None:
    """Refuse to have git stage a checkpoint where it knows no filter: it would take the file whole, and say nothing.

    Raises
    ------
    ThetaError
        If nothing is installed that counts in this folder.
    """
    if not installed(cwd).filters:
        raise ThetaError(
            "theta is not installed here, so git would store the checkpoint whole",
            hint="Run 'git theta install' first.",
        )


def ours(key: str) -> frozenset[str]:
    """Values of a key that an installation may have written: ours or git-theta's."""
    tables = (CONFIGURATION, OPTIONAL, FORMER, {SKIP_SMUDGE: "false", HOOKS: "true"})
    return frozenset(table[key] for table in tables if key in table)


def values_in(scope: Scope, cwd: str | None) -> dict[str, list[str]]:
    """Values of one configuration under our keys, by key as git prints it."""
    try:
        out = git("config", f"--{scope}", "--null", "--get-regexp", _OUR_KEYS, cwd=cwd)
    except GitError as error:
        if error.returncode == 1:  # no such key, or no such file yet
            return {}
        raise scope_error(scope, error) from error
    found: dict[str, list[str]] = {}
    for key, value in config_items(out):
        found.setdefault(key, []).append(value)
    return found


def scope_error(scope: Scope, error: GitError) -> ThetaError:
    if scope in ("local", "worktree") and "git repository" in error.message:
        return ThetaError(
            f"--{scope} configures one repository, and there is none here",
            hint="Run it inside a repository, or leave the option out to configure your account.",
        )
    hint = "It needs an administrator's rights." if scope == "system" else ""
    return ThetaError(f"the {scope} configuration cannot be used: {error.message}", hint=hint)
