"""``git theta merge --continue`` and ``--abort`` that fail, or are killed, can be run again; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.commands.running import said, theta
from tests.conftest import GitSandbox
from tests.git.checks import assert_quiet
from tests.hooks.conftest import hook_path, write_hook
from tests.merging.conftest import AVERAGE, NAME, OURS, THEIRS, content, same
from theta_nb.commands.merge import continue_merge
from theta_nb.commands.merge_wishes import Wishes
from theta_nb.git import merge_settle
from theta_nb.git.places import find_places


@pytest.fixture
def conflict(repo: GitSandbox) -> GitSandbox:
    assert repo.run("merge", "-q", "--no-edit", "theirs", check=False).returncode == 1
    return repo


@pytest.mark.parametrize("words", [("--continue", "--method", "linear"), ("--abort",)], ids=lambda words: words[0])
def test_a_locked_index(conflict: GitSandbox, words: tuple[str, ...]) -> None:
    lock = conflict.write(".git/index.lock", b"")
    refused = theta(conflict.path, "merge", *words)
    assert refused.status == 1
    assert "the index is locked" in refused.err
    assert "run this again" in refused.err
    assert same(content(conflict), OURS)
    assert conflict("ls-files", "-u").count(NAME) == 3
    lock.unlink()
    said(conflict.path, "merge", *words)
    assert same(content(conflict), AVERAGE if "--continue" in words else OURS)
    assert_quiet(conflict)


def _stopped_after(step: str, monkeypatch: pytest.MonkeyPatch, repo: GitSandbox) -> None:
    """As if killed right before a step: an exception that nothing catches."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(merge_settle, step, stop)
        with pytest.raises(KeyboardInterrupt):
            continue_merge(find_places(repo.path), wishes=Wishes("linear"))


@pytest.mark.parametrize("step", ["_remember_placed", "_place", "_stage", "_forget_placed", "commit_prepared"])
def test_stopped_before_any_step(conflict: GitSandbox, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    _stopped_after(step, monkeypatch, conflict)
    assert same(content(conflict), AVERAGE) or same(content(conflict), OURS)
    said(conflict.path, "merge", "--continue", *(("--method", "linear") if conflict("ls-files", "-u") else ()))
    assert same(content(conflict), AVERAGE)
    assert_quiet(conflict)
    assert len(conflict("log", "-1", "--format=%P").split()) == 2
    assert "Theta-Merge: m.safetensors: linear" in conflict("log", "-1", "--format=%B")


def test_another_choice_after_a_stop(conflict: GitSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    _stopped_after("_stage", monkeypatch, conflict)
    said(conflict.path, "merge", "--continue", "--method", "theirs")
    assert content(conflict)["layer.2.weight"].tobytes() == THEIRS["layer.2.weight"].tobytes()
    assert_quiet(conflict)


@pytest.mark.parametrize("step", ["_place", "_stage", "commit_prepared"])
def test_given_up_after_a_stop(conflict: GitSandbox, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    _stopped_after(step, monkeypatch, conflict)
    said(conflict.path, "merge", "--abort")
    assert same(content(conflict), OURS)
    assert_quiet(conflict)


def test_what_was_placed_once_is_not_taken_for_ours_later(
    conflict: GitSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's own file is refused as before, though a result was placed there."""
    _stopped_after("_stage", monkeypatch, conflict)
    mine = conflict.write(NAME, b"mine").read_bytes()
    assert theta(conflict.path, "merge", "--continue", "--method", "linear").status == 1
    assert (conflict.path / NAME).read_bytes() == mine


def test_a_hook_that_refuses(conflict: GitSandbox) -> None:
    hook: Callable[[str], object] = lambda script: write_hook(hook_path(conflict, "pre-commit"), script)  # noqa: E731
    hook("echo not today >&2; exit 1\n")
    refused = theta(conflict.path, "merge", "--continue", "--method", "linear")
    assert refused.status == 1
    assert "not today" in refused.err
    assert "git theta merge --continue" in refused.err
    hook("exit 0\n")
    said(conflict.path, "merge", "--continue")
    assert same(content(conflict), AVERAGE)
    assert conflict("log", "-1", "--format=%B").count("Theta-Merge") == 1
    assert_quiet(conflict)
