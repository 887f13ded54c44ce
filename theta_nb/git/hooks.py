"""Hooks: upload on push, complete what a checkout left as a manifest; chained with what was there.

A hook file of ours is a few lines of shell that start ``git-theta hook NAME``. A hook that was there before is kept
beside it as ``NAME.before-theta`` and runs first, with the same arguments and input. ``git lfs install`` refuses to
chain with a foreign hook, so files that plain Git LFS tracks are uploaded by ours as well. Source: ``githooks(5)``.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from theta_nb.errors import ThetaError
from theta_nb.git.places import Places, read_config
from theta_nb.git.process import child_environment, git_text

__all__ = ["HOOKS", "HookState", "ensure_hooks", "hook_states", "install_hooks", "remove_hooks", "run_before"]

_MARK = "# managed by theta-nb"
_BEFORE = ".before-theta"

_HEAD = f"""#!/bin/sh
{_MARK}; 'git theta hooks --remove' takes it out again
"""

# Without git-theta the objects cannot be uploaded, and a push that leaves them behind must not succeed.
_PRE_PUSH = (
    _HEAD
    + """command -v git-theta >/dev/null 2>&1 || {
    echo >&2 "theta: the checkpoints of this repository cannot be uploaded: git-theta is not on the PATH."
    echo >&2 "theta: activate its environment, or push the text alone with 'git push --no-verify'."
    exit 2
}
exec git-theta hook pre-push "$@"
"""
)

# Python is started only where the filter left something to complete: these hooks run with every commit.
_COMPLETE = (
    _HEAD
    + """before="$0.before-theta"
if [ -x "$before" ]; then "$before" "$@" || exit; fi
if [ -e "${GIT_DIR:-.git}/theta-pending" ] && command -v git-theta >/dev/null 2>&1; then
    git-theta hook NAME "$@"
fi
exit 0
"""
)

HOOKS = {
    "pre-push": _PRE_PUSH,
    "post-checkout": _COMPLETE.replace("NAME", "post-checkout"),
    "post-merge": _COMPLETE.replace("NAME", "post-merge"),
    "post-commit": _COMPLETE.replace("NAME", "post-commit"),
}
"""Content of each hook file. ``post-commit`` is what runs at the end of a cherry-pick or revert."""


@dataclass(frozen=True, slots=True)
class HookState:
    """One hook of a repository.

    Parameters
    ----------
    name
        ``"pre-push"`` and so on.
    path
        Its file.
    state
        ``"ours"``, ``"outdated"`` (ours, of another release), ``"foreign"``, ``"missing"`` or ``"not executable"``.
    chained
        Whether a hook that was there before runs first.
    """

    name: str
    path: str
    state: str
    chained: bool


def hooks_folder(places: Places) -> str:
    """Absolute path of the folder that git runs hooks from (``core.hooksPath`` counts)."""
    return os.path.join(places.top, git_text("rev-parse", "--git-path", "hooks", cwd=places.top))


def _is_shared(places: Places, folder: str) -> bool:
    """Whether the folder lies outside the repository, where other repositories may use it too."""
    real = os.path.realpath(folder)
    homes = [os.path.realpath(home) for home in (places.common_dir, places.work_tree) if home]
    return not any(real == home or real.startswith(home + os.sep) for home in homes)


def hook_states(places: Places) -> list[HookState]:
    """State of each hook that we use."""
    folder = hooks_folder(places)
    return [_state(folder, name) for name in HOOKS]


def _state(folder: str, name: str) -> HookState:
    path = os.path.join(folder, name)
    chained = os.access(path + _BEFORE, os.X_OK)
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return HookState(name, path, "missing", chained)
    if _MARK not in text:
        return HookState(name, path, "foreign", chained)
    if not os.access(path, os.X_OK):
        return HookState(name, path, "not executable", chained)
    return HookState(name, path, "ours" if text == HOOKS[name] else "outdated", chained)


def ensure_hooks(places: Places) -> str:
    """Install the hooks on first use of the filter; returns a sentence for the user, or nothing.

    Nothing is done where ``theta.hooks`` is false, where the hooks were removed on purpose, or in a folder that other
    repositories share (``core.hooksPath``): that is said once.
    """
    if read_config(places.top).get("theta.hooks", "true").lower() in ("false", "no", "off", "0"):
        return ""
    folder = hooks_folder(places)
    wrong = [name for name in HOOKS if _state(folder, name).state != "ours"]
    if not wrong:
        return ""
    if _is_shared(places, folder):
        said = os.path.join(places.theta_dir, "hooks-shared")
        if os.path.exists(said):
            return ""
        with suppress(OSError):
            os.makedirs(places.theta_dir, exist_ok=True)
            Path(said).touch()
        return (
            f"hooks are in {folder}, which other repositories share, so none is installed: 'git push' will not upload "
            "checkpoints. Run 'git theta hooks --force' to add ours there, or 'git theta push' before each push."
        )
    try:
        install_hooks(places)
    except (ThetaError, OSError) as error:
        return f"the hooks cannot be installed ({error}); run 'git theta push' before each push."
    return ""


def install_hooks(places: Places, *, force: bool = False) -> list[str]:
    """Write our hooks, keeping what was there; returns the names that were written.

    Parameters
    ----------
    places
        The repository.
    force
        Whether to write into a folder that other repositories share.

    Raises
    ------
    ThetaError
        If the folder is shared, or a hook can neither be chained nor kept.
    """
    folder = hooks_folder(places)
    if _is_shared(places, folder) and not force:
        raise ThetaError(f"{folder} is shared with other repositories", hint="Add --force to install hooks there.")
    os.makedirs(folder, exist_ok=True)
    written = []
    for name, text in HOOKS.items():
        state = _state(folder, name)
        if state.state == "ours":
            continue
        if state.state == "foreign":
            _keep_before(state)
        _write(state.path, text)
        written.append(name)
    return written


def _keep_before(state: HookState) -> None:
    """Move a foreign hook aside."""
    kept = state.path + _BEFORE
    if os.path.lexists(kept):
        raise ThetaError(
            f"{state.path} is not ours and {kept} exists already",
            hint="Merge the two by hand, then run 'git theta hooks'.",
        )
    os.rename(state.path, kept)


def _write(path: str, text: str) -> None:
    fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".theta-hook-")
    try:
        with open(fd, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o755)  # noqa: S103 - git runs no other hooks
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def remove_hooks(places: Places) -> list[str]:
    """Take our hooks out and put back what was there before; returns the names that were changed."""
    folder = hooks_folder(places)
    removed = []
    for name in HOOKS:
        state = _state(folder, name)
        if state.state in ("missing", "foreign"):
            continue
        before = state.path + _BEFORE
        if os.path.lexists(before):
            os.replace(before, state.path)
        else:
            os.unlink(state.path)
        removed.append(name)
    return removed


def run_before(places: Places, name: str, arguments: Sequence[str], data: bytes) -> int:
    """Run the hook that was there before ours, then Git LFS's; returns the first exit status that is not 0.

    Parameters
    ----------
    places
        The repository.
    name
        Hook.
    arguments
        As git gave them.
    data
        What git wrote to the hook's input; each hook gets all of it.
    """
    before = os.path.join(hooks_folder(places), name + _BEFORE)
    if os.access(before, os.X_OK):
        status = _run([before, *arguments], data)
        if status:
            return status
    if name == "pre-push" and _tracks_lfs(places) and not _is_lfs(before, name):
        return _run(["git", "lfs", name, *arguments], data)
    return 0


def _run(command: Sequence[str], data: bytes) -> int:
    # A hook that reads nothing is no error: git itself ignores the broken pipe.
    return subprocess.run(list(command), input=data, env=child_environment(), check=False).returncode


def _is_lfs(path: str, name: str) -> bool:
    try:
        return f"git lfs {name}" in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _tracks_lfs(places: Places) -> bool:
    return which("git-lfs") is not None and git_text("ls-files", "--", ":(top,attr:filter=lfs)", cwd=places.top) != ""
