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

from theta_nb.errors import ThetaError
from theta_nb.git.configuration import (
    CONFIGURATION,
    DIFF_COMMAND,
    FORMER,
    HOOKS,
    OPTIONAL,
    PROGRAM,
    SKIP_SMUDGE,
    ConfigEntry,
    Installed,
    Scope,
    installed,
    ours,
    scope_error,
    values_in,
)
from theta_nb.git.places import read_config
from theta_nb.git.process import GitError, git, git_text

__all__ = [
    "InstallResult",
    "UninstallResult",
    "check_git_version",
    "install",
    "program_problem",
    "uninstall",
]

MIN_GIT = (2, 31)


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
    no_hooks
        The value that has the filter leave the hooks of repositories alone, where one counts here.
    """

    scope: Scope
    changed: tuple[str, ...] = ()
    kept: tuple[ConfigEntry, ...] = ()
    overriding: tuple[ConfigEntry, ...] = ()
    warnings: tuple[str, ...] = ()
    no_hooks: ConfigEntry | None = None


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
    present = values_in(scope, cwd)
    if rich_diff is None and read_config(cwd).get("theta.diff", "").lower() == "rich":
        rich_diff = True
    wanted: dict[str, str | None] = {**CONFIGURATION}
    if present.get(DIFF_COMMAND) == [FORMER[DIFF_COMMAND]]:
        wanted[DIFF_COMMAND] = None  # git-theta's driver cannot read our manifests
    for key, choice in ((SKIP_SMUDGE, skip_smudge), (DIFF_COMMAND, rich_diff), (HOOKS, no_hooks)):
        if choice is not None:
            wanted[key] = OPTIONAL[key] if choice else None
    changed, kept = [], []
    for key, value in wanted.items():
        values = present.get(key.lower(), [])
        if values == ([] if value is None else [value]):
            continue
        foreign = [v for v in values if v not in ours(key)]
        if foreign and not force:
            kept.append(ConfigEntry(key, foreign[-1], scope))
        elif value is None:
            _write(scope, cwd, "--unset-all", key)
            changed.append(key)
        else:
            _write(scope, cwd, "--replace-all", key, value)
            changed.append(key)
    now = installed(cwd)
    overriding = tuple(e for e in now.differing if e.scope != scope)
    problem = program_problem(search_path)
    return InstallResult(
        scope, tuple(changed), tuple(kept), overriding, (problem,) if problem else (), _without_hooks(now, cwd)
    )


def _without_hooks(now: Installed, cwd: str | None) -> ConfigEntry | None:
    entry = now.effective.get(HOOKS)
    try:
        off = entry is not None and git_text("config", "--type=bool", "--get", HOOKS, cwd=cwd) == "false"
    except GitError:  # neither true nor false: the next command says so
        return None
    return entry if off else None


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
    names = {key.lower(): key for key in (*CONFIGURATION, *OPTIONAL)}
    removed, kept = [], []
    for lower, values in values_in(scope, cwd).items():
        name = names.get(lower, lower)
        for found in dict.fromkeys(values):
            if found in ours(name):
                _write(scope, cwd, "--unset-all", "--fixed-value", name, found)
                removed.append(name)
            else:
                kept.append(ConfigEntry(name, found, scope))
    remaining = tuple(e for e in installed(cwd).entries if e.scope != scope)
    return UninstallResult(scope, tuple(removed), tuple(kept), remaining)


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


def _write(scope: Scope, cwd: str | None, *arguments: str) -> None:
    try:
        git("config", f"--{scope}", *arguments, cwd=cwd)
    except GitError as error:
        raise scope_error(scope, error) from error
