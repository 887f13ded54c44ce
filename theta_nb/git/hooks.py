"""Hooks: upload on push, complete what a checkout left as a manifest, say how merges were made; chained with others.

What the files hold is in :mod:`theta_nb.git.hook_scripts`.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from theta_nb.errors import ThetaError
from theta_nb.git.hook_scripts import HOOKS, MARK, POINTER_HOOKS
from theta_nb.git.places import Places
from theta_nb.git.pointers import uses_pointers
from theta_nb.git.process import git_ok, git_text

__all__ = [
    "HookState",
    "ensure_hooks",
    "hook_problems",
    "hook_states",
    "hooks_folder",
    "install_hooks",
    "kept_hooks",
    "remove_hooks",
]

_BEFORE = ".before-theta"
_MOST_KEPT = 9


@dataclass(frozen=True, slots=True)
class HookState:
    """One hook of a repository.

    Parameters
    ----------
    name
        ``"pre-push"`` and so on.
    path
        Its file; another one than git's where a program took our place and runs ours (``pre-push.legacy``).
    state
        ``"ours"``, ``"outdated"`` (ours, of another release), ``"foreign"``, ``"missing"`` or ``"not executable"``.
    chained
        Whether a hook that was there before runs first.
    """

    name: str
    path: str
    state: str
    chained: bool


# --- what is there ----------------------------------------------------------------------------------------------------


def hooks_folder(places: Places) -> str:
    """Absolute path of the folder that git runs hooks from (``core.hooksPath`` counts)."""
    return os.path.join(places.top, git_text("rev-parse", "--git-path", "hooks", cwd=places.top))


def kept_hooks(folder: str, name: str) -> list[str]:
    """Files of the hooks that were there before ours, in the order in which they run."""
    first = os.path.join(folder, name + _BEFORE)
    paths = [first, *(f"{first}-{number}" for number in range(2, _MOST_KEPT + 1))]
    return [path for path in paths if os.path.lexists(path)]


def hook_states(places: Places) -> list[HookState]:
    """State of each hook that we use."""
    folder = hooks_folder(places)
    return [_state(folder, name) for name in _names(places)]


def hook_problems(places: Places) -> list[str]:
    """A sentence for each hook that should be there and does not do its part.

    None where hooks are not wanted, or nothing was ever stored.
    """
    if not places.settings.hooks or not os.path.isdir(os.path.join(places.theta_dir, "objects")):
        return []
    lost = {
        "foreign": "is somebody else's and does not run ours",
        "missing": "is missing",
        "not executable": "is not executable, so git skips it",
    }
    effect = dict.fromkeys(POINTER_HOOKS, "pointer files grow stale")
    effect["pre-push"] = "'git push' leaves the weights behind"
    effect["prepare-commit-msg"] = "messages of merges do not say how checkpoints were merged"
    return [
        f"the hook {state.path} {lost[state.state]}: "
        f"{effect.get(state.name, 'large checkpoints stay manifests')}; run 'git theta hooks'"
        for state in hook_states(places)
        if state.state in lost
    ]


def _names(places: Places) -> list[str]:
    """Hooks to be installed here."""
    return [name for name in HOOKS if name not in POINTER_HOOKS or uses_pointers(places)]


def _state(folder: str, name: str) -> HookState:
    path = os.path.join(folder, name)
    chained = any(_runs(kept) for kept in kept_hooks(folder, name))
    text = _text(path)
    if text is None:
        return HookState(name, path, "missing", chained)
    if MARK not in text and _runs(path):
        # pre-commit runs what it found in its place, under this name.
        legacy = f"{path}.legacy"
        inner = _text(legacy)
        if inner and MARK in inner and _runs(legacy):
            path, text, chained = legacy, inner, True
    if MARK not in text:
        return HookState(name, path, "foreign", chained)
    if not _runs(path):
        return HookState(name, path, "not executable", chained)
    return HookState(name, path, "ours" if text == HOOKS[name] else "outdated", chained)


def _text(path: str) -> str | None:
    """Content of a hook; empty where it cannot be read, ``None`` where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(2**20)
    except OSError:
        return "" if os.path.lexists(path) else None


def _runs(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


# --- installing -------------------------------------------------------------------------------------------------------


def ensure_hooks(places: Places) -> str:
    """Install the hooks on first use of the filter or of a remote; returns a sentence for the user, or nothing.

    Nothing is done where ``theta.hooks`` is false, where the hooks were removed on purpose, and in a folder that is not
    this repository's alone (``core.hooksPath``): that is said once.
    """
    if not places.settings.hooks:
        return ""
    folder = hooks_folder(places)
    if all(_state(folder, name).state == "ours" for name in _names(places)):
        return ""
    if not os.access(places.common_dir, os.W_OK):
        return ""  # somebody else's repository, to be looked at: there is nothing to push from it
    if _is_shared(places, folder):
        reason = f"hooks are in {folder}, which other repositories may share, so none is installed"
        command = "git theta hooks --force"
    elif _would_show(places, folder):
        reason = f"hooks are in {folder}, in the work tree and not ignored by git, so none is installed"
        command = "git theta hooks"
    else:
        try:
            _install(places, folder)
        except (ThetaError, OSError) as error:
            reason = f"the hooks cannot be installed ({error})"
            command = "git theta hooks"
        else:
            return ""
    advice = f"'git push' will not upload checkpoints. Run '{command}' to install ours, or 'git theta push' before "
    return _once(places, f"{reason}: {advice}each push.")


def _is_shared(places: Places, folder: str) -> bool:
    """Whether the folder lies outside the repository, where other repositories may use it too."""
    return not any(_is_in(folder, home) for home in (places.common_dir, places.work_tree) if home)


def _would_show(places: Places, folder: str) -> bool:
    """Whether hooks written there would be changes of the work tree: the folder itself may be versioned."""
    if places.work_tree is None or _is_in(folder, places.common_dir) or not _is_in(folder, places.work_tree):
        return False
    return not all(git_ok("check-ignore", "-q", "--", os.path.join(folder, name), cwd=places.top) for name in HOOKS)


def _is_in(path: str, home: str) -> bool:
    path, home = os.path.realpath(path), os.path.realpath(home)
    return path == home or path.startswith(os.path.join(home, ""))


def _once(places: Places, sentence: str) -> str:
    """The sentence, or nothing if it was said before."""
    said = Path(places.theta_dir, "hooks-told")
    with suppress(OSError):
        if said.read_text(encoding="utf-8", errors="replace") == sentence:
            return ""
    with suppress(OSError):
        os.makedirs(places.theta_dir, exist_ok=True)
        said.write_text(sentence, encoding="utf-8", errors="replace")
    return sentence


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
        raise ThetaError(
            f"{folder} may be shared with other repositories", hint="Add --force to install or remove hooks there."
        )
    return _install(places, folder)


def _install(places: Places, folder: str) -> list[str]:
    try:
        os.makedirs(folder, exist_ok=True)
        written = []
        for name in _names(places):
            state = _state(folder, name)
            if state.state == "ours":
                continue
            if state.state == "foreign":
                _keep(folder, state)
            _write(state.path, HOOKS[name])
            written.append(name)
    except OSError as error:
        raise ThetaError(f"no hook can be written to {folder}: {error.strerror}") from error
    return written


def _keep(folder: str, state: HookState) -> None:
    """Give a foreign hook its second name; the first one is taken over in one step."""
    if stat.S_ISDIR(os.lstat(state.path).st_mode):
        raise ThetaError(f"{state.path} is a folder", hint="Move it away, then run 'git theta hooks'.")
    kept = kept_hooks(folder, state.name)
    text = _text(state.path)
    # 'git lfs update --force' puts the same text over ours each time.
    if text and any(_text(path) == text and _runs(path) == _runs(state.path) for path in kept):
        return
    first = os.path.join(folder, state.name + _BEFORE)
    names = [first, *(f"{first}-{number}" for number in range(2, _MOST_KEPT + 1))]
    free = next((name for name in names if name not in kept), None)
    if free is None:
        raise ThetaError(
            f"{state.path} is not ours, and {len(kept)} hooks like it are kept already",
            hint="Merge them by hand, then run 'git theta hooks'.",
        )
    try:
        os.link(state.path, free, follow_symlinks=False)
    except FileExistsError:
        return  # another process of ours was faster
    except OSError:  # a file system without hard links
        os.rename(state.path, free)


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


def remove_hooks(places: Places, *, force: bool = False) -> list[str]:
    """Take our hooks out and put back what was there before; returns the names that were changed.

    Parameters
    ----------
    places
        The repository.
    force
        Whether to take them out of a folder that other repositories share.

    Raises
    ------
    ThetaError
        If the folder is shared.
    """
    folder = hooks_folder(places)
    found = [state for state in (_state(folder, name) for name in HOOKS) if state.state not in ("missing", "foreign")]
    if found and _is_shared(places, folder) and not force:
        raise ThetaError(
            f"{folder} may be shared with other repositories", hint="Add --force to install or remove hooks there."
        )
    for state in found:
        kept = kept_hooks(folder, state.name)
        if kept:
            os.replace(kept[0], state.path)
        else:
            os.unlink(state.path)
    return [state.name for state in found]
