"""Tell git about our filter, merge driver and hunk headers, in its configuration; and take it back.

Only ``git config`` writes, key by key, so comments, order and everything else of a configuration file stay. A value
that somebody else chose is left alone and named in the result.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from typing import Literal

from theta_nb.errors import ThetaError
from theta_nb.git.places import read_config
from theta_nb.git.process import GitError, git, git_text

__all__ = [
    "CONFIGURATION",
    "ConfigEntry",
    "InstallResult",
    "Installed",
    "Scope",
    "UninstallResult",
    "check_git_version",
    "install",
    "installed",
    "program_problem",
    "require_filter",
    "uninstall",
]

Scope = Literal["global", "local", "worktree", "system"]

PROGRAM = "git-theta"
MIN_GIT = (2, 31)

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

_SKIP_SMUDGE = "theta.skipSmudge"
_HOOKS = "theta.hooks"
_DIFF_COMMAND = "diff.theta.command"

# What is written only on demand.
_OPTIONAL = {_SKIP_SMUDGE: "true", _HOOKS: "false", _DIFF_COMMAND: f"{PROGRAM} diff-driver"}

# What git-theta (the reference implementation) and our own former versions write; replaced, or removed where we have no
# such key.
_FORMER: dict[str, str] = {
    "filter.theta.clean": "git-theta-filter clean %f",
    "filter.theta.smudge": "git-theta-filter smudge %f",
    "merge.theta.name": "Merge Models with Git-Theta",
    "merge.theta.driver": "git-theta-merge %O %A %B %P",
    _DIFF_COMMAND: "git-theta-diff",
    "diff.theta.xfuncname": _FORMER_HUNK_HEADER,
}

# What each key may say without being worth a remark.
_ACCEPTED = {key.lower(): (value,) for key, value in CONFIGURATION.items()} | {
    _DIFF_COMMAND: (_OPTIONAL[_DIFF_COMMAND], "")
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
class InstallResult:
    """What an installation did.

    Parameters
    ----------
    scope
        Which configuration was written.
    changed
        Keys that were set or removed; empty where everything was in place.
    kept
        Values of somebody else's under our keys in this configuration, left as they are.
    overriding
        Values in configurations of higher precedence that hide what was written.
    warnings
        What would make git fail to run the filter.
    """

    scope: Scope
    changed: tuple[str, ...] = ()
    kept: tuple[ConfigEntry, ...] = ()
    overriding: tuple[ConfigEntry, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UninstallResult:
    """What was taken back.

    Parameters
    ----------
    scope
        Which configuration was written.
    removed
        Keys that were removed.
    kept
        Values of somebody else's under our keys, left as they are.
    remaining
        Our values in other configurations, which still count here.
    """

    scope: Scope
    removed: tuple[str, ...] = ()
    kept: tuple[ConfigEntry, ...] = ()
    remaining: tuple[ConfigEntry, ...] = ()


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


def install(
    scope: Scope = "global",
    *,
    skip_smudge: bool | None = None,
    rich_diff: bool | None = None,
    no_hooks: bool | None = None,
    force: bool = False,
    cwd: str | None = None,
    search_path: str | None = None,
) -> InstallResult:
    """Write the configuration; what is in place already is not written again.

    Parameters
    ----------
    scope
        Which configuration: of the user (``"global"``), one repository, one work tree, or the machine.
    skip_smudge
        Whether checkouts leave manifests instead of checkpoints; unchanged by default.
    rich_diff
        Whether ``git diff`` calls our driver, for which git writes both checkpoints to temporary files; by default on
        where ``theta.diff`` is ``rich``, else unchanged.
    no_hooks
        Whether the filter leaves the hooks of repositories alone; unchanged by default.
    force
        Whether values of somebody else's are replaced.
    cwd
        Folder that says which repository; the current directory by default.
    search_path
        The ``PATH`` that git will have; the process's own by default.

    Raises
    ------
    ThetaError
        If git is too old, or the configuration cannot be written.
    """
    check_git_version()
    present = _values(scope, cwd)
    if rich_diff is None and read_config(cwd).get("theta.diff", "").lower() == "rich":
        rich_diff = True
    wanted: dict[str, str | None] = {**CONFIGURATION}
    if present.get(_DIFF_COMMAND) == [_FORMER[_DIFF_COMMAND]]:
        wanted[_DIFF_COMMAND] = None  # git-theta's driver cannot read our manifests
    for key, choice in ((_SKIP_SMUDGE, skip_smudge), (_DIFF_COMMAND, rich_diff), (_HOOKS, no_hooks)):
        if choice is not None:
            wanted[key] = _OPTIONAL[key] if choice else None
    changed, kept = [], []
    for key, value in wanted.items():
        values = present.get(key.lower(), [])
        if values == ([] if value is None else [value]):
            continue
        foreign = [v for v in values if v not in _ours(key)]
        if foreign and not force:
            kept.append(ConfigEntry(key, foreign[-1], scope))
        elif value is None:
            _write(scope, cwd, "--unset-all", key)
            changed.append(key)
        else:
            _write(scope, cwd, "--replace-all", key, value)
            changed.append(key)
    overriding = tuple(e for e in installed(cwd).differing if e.scope != scope)
    problem = program_problem(search_path)
    return InstallResult(scope, tuple(changed), tuple(kept), overriding, (problem,) if problem else ())


def uninstall(scope: Scope = "global", *, cwd: str | None = None) -> UninstallResult:
    """Remove what an installation wrote, and nothing else.

    Parameters
    ----------
    scope, cwd
        As for :func:`install`.

    Raises
    ------
    ThetaError
        If the configuration cannot be written.
    """
    names = {key.lower(): key for key in (*CONFIGURATION, *_OPTIONAL)}
    removed, kept = [], []
    for lower, values in _values(scope, cwd).items():
        name = names.get(lower, lower)
        for found in dict.fromkeys(values):
            if found in _ours(name):
                _write(scope, cwd, "--unset-all", "--fixed-value", name, found)
                removed.append(name)
            else:
                kept.append(ConfigEntry(name, found, scope))
    remaining = tuple(e for e in installed(cwd).entries if e.scope != scope)
    return UninstallResult(scope, tuple(removed), tuple(kept), remaining)


def installed(cwd: str | None = None) -> Installed:
    """What git's configuration says about us, seen from a folder."""
    try:
        out = git("config", "--null", "--show-scope", "--show-origin", "--get-regexp", _OUR_KEYS, cwd=cwd)
    except GitError as error:
        if error.returncode == 1:  # no such key
            return Installed(())
        raise
    words = out.decode("utf-8", "surrogateescape").split("\0")[:-1]
    entries = []
    for scope, origin, item in zip(words[::3], words[1::3], words[2::3], strict=True):
        key, separator, value = item.partition("\n")
        entries.append(ConfigEntry(key, value if separator else "true", scope, origin))
    return Installed(tuple(entries))


def require_filter(cwd: str | None = None) -> None:
    """Refuse to have git stage a checkpoint where it knows no filter: it would take the file whole, and say nothing.

    Raises
    ------
    ThetaError
        If nothing is installed that counts in this folder.
    """
    if not installed(cwd).filters:
        raise ThetaError(
            "theta is not installed here, so git would store the checkpoint whole", hint="Run 'git theta install' first."
        )


def check_git_version() -> None:
    """Refuse a git that lacks what we call.

    Raises
    ------
    ThetaError
        If git is older than 2.31.
    """
    text = git_text("version").removeprefix("git version ")
    match = re.match(r"(\d+)\.(\d+)", text)
    if match and (int(match[1]), int(match[2])) < MIN_GIT:
        raise ThetaError(
            f"git {text} is too old: theta needs git {MIN_GIT[0]}.{MIN_GIT[1]} or newer", hint="Upgrade git."
        )


def program_problem(search_path: str | None = None) -> str:
    """Why git would not find the right ``git-theta``; empty where it would.

    Parameters
    ----------
    search_path
        A ``PATH``; the process's own by default.
    """
    beside = os.path.join(os.path.dirname(sys.executable), PROGRAM)
    found = shutil.which(PROGRAM, path=search_path)
    if found is None:
        where = os.path.dirname(beside) if os.path.exists(beside) else f"the folder of {PROGRAM}"
        return f"{PROGRAM} is not on the PATH, so git cannot run the filter; add {where} to the PATH"
    if os.path.exists(beside) and os.path.realpath(found) != os.path.realpath(beside):
        return f"git will run {found}, not the {PROGRAM} of this Python environment ({beside})"
    return ""


def _ours(key: str) -> frozenset[str]:
    """Values of a key that an installation may have written: ours or git-theta's."""
    tables = (CONFIGURATION, _OPTIONAL, _FORMER, {_SKIP_SMUDGE: "false", _HOOKS: "true"})
    return frozenset(table[key] for table in tables if key in table)


def _values(scope: Scope, cwd: str | None) -> dict[str, list[str]]:
    """Values of one configuration under our keys, by key as git prints it."""
    try:
        out = git("config", f"--{scope}", "--null", "--get-regexp", _OUR_KEYS, cwd=cwd)
    except GitError as error:
        if error.returncode == 1:  # no such key, or no such file yet
            return {}
        raise _scope_error(scope, error) from error
    found: dict[str, list[str]] = {}
    for item in out.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        key, separator, value = item.partition("\n")
        found.setdefault(key, []).append(value if separator else "true")
    return found


def _write(scope: Scope, cwd: str | None, *arguments: str) -> None:
    try:
        git("config", f"--{scope}", *arguments, cwd=cwd)
    except GitError as error:
        raise _scope_error(scope, error) from error


def _scope_error(scope: Scope, error: GitError) -> ThetaError:
    if scope in ("local", "worktree") and "git repository" in error.message:
        return ThetaError(
            f"--{scope} configures one repository, and there is none here",
            hint="Run it inside a repository, or leave the option out to configure your account.",
        )
    hint = "It needs an administrator's rights." if scope == "system" else ""
    return ThetaError(f"the {scope} configuration cannot be used: {error.message}", hint=hint)
