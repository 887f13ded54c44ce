"""Where hooks are installed, when, and what takes them out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checks import assert_quiet, theta_dir, warnings
from tests.hooks.conftest import NAME, ONE, OURS, THREE, Recorder, hook_path, needed, server_objects, write_hook
from theta_nb.errors import ThetaError
from theta_nb.git.hooks import HOOKS, ensure_hooks, hook_problems, hook_states, install_hooks, remove_hooks
from theta_nb.git.places import find_places


def states(repo: GitSandbox) -> set[str]:
    return {state.state for state in hook_states(find_places(repo.path))}


def stage_something(repo: GitSandbox, data: bytes = THREE) -> list[str]:
    """Use the filter; returns what it told."""
    repo.write(NAME, data)
    return warnings(repo.run("add", NAME).stderr)


def forget_hooks(repo: GitSandbox) -> None:
    for name in OURS:
        hook_path(repo, name).unlink(missing_ok=True)


# --- the ordinary case ------------------------------------------------------------------------------------------------


def test_the_first_use_of_the_filter_installs_the_hooks(history: GitSandbox) -> None:
    forget_hooks(history)
    assert states(history) == {"missing"}
    assert stage_something(history) == []
    assert states(history) == {"ours"}
    assert all(os.access(hook_path(history, name), os.X_OK) for name in OURS)


@pytest.mark.parametrize("damage", ["not executable", "outdated"])
def test_a_hook_of_ours_that_is_damaged_is_written_anew(history: GitSandbox, damage: str) -> None:
    for name in OURS:
        path = hook_path(history, name)
        if damage == "not executable":
            path.chmod(0o644)
        else:
            path.write_text(path.read_text() + "echo from an older release\n")
    assert states(history) == {damage}
    assert stage_something(history) == []
    assert states(history) == {"ours"}
    assert not list(hook_path(history, "pre-push").parent.glob("*before-theta*")), "ours was chained with itself"


@pytest.mark.parametrize("scope", ["local", "global"])
def test_hooks_that_are_not_wanted(history: GitSandbox, scope: str) -> None:
    forget_hooks(history)
    history("config", f"--{scope}", "theta.hooks", "no")
    assert stage_something(history) == []
    assert states(history) == {"missing"}
    assert hook_problems(find_places(history.path)) == []


def test_install_without_hooks_and_back(history: GitSandbox) -> None:
    forget_hooks(history)
    history("theta", "install", "--no-hooks")
    stage_something(history)
    assert states(history) == {"missing"}
    history("theta", "install", "--hooks")
    stage_something(history, ONE)
    assert states(history) == {"ours"}


def test_remove_restores_what_was_there_and_lasts(history: GitSandbox, recorder: Recorder) -> None:
    forget_hooks(history)
    mine = write_hook(hook_path(history, "pre-push"), recorder.script("user"))
    link = hook_path(history, "post-merge")
    target = write_hook(history.path / "scripts" / "merge", recorder.script("merge"))
    link.symlink_to("../../scripts/merge")
    stage_something(history)
    assert states(history) == {"ours"}
    out = history("theta", "hooks", "--remove")
    assert "pre-push, post-checkout" in out
    assert "'git push' leaves the weights behind" in out
    assert "'git theta push --all' after it" in out
    assert mine.read_text() == recorder.script("user")
    assert link.is_symlink()
    assert target.read_text() == recorder.script("merge")
    assert {path.name for path in mine.parent.iterdir() if not path.name.endswith(".sample")} == {
        "pre-push",
        "post-merge",
    }
    stage_something(history, ONE)
    assert states(history) == {"foreign", "missing"}, "what was removed on purpose came back"
    assert "leaves the weights" not in history("theta", "hooks")
    assert states(history) == {"ours"}


def test_a_dangling_link_is_somebody_elses(history: GitSandbox) -> None:
    path = hook_path(history, "pre-push")
    path.unlink()
    path.symlink_to("../../not/here/yet")
    stage_something(history)
    assert states(history) == {"ours"}
    remove_hooks(find_places(history.path))
    assert os.readlink(path) == "../../not/here/yet"


def test_what_cannot_be_written_is_told_once(history: GitSandbox) -> None:
    folder = hook_path(history, "pre-push").parent
    folder.rename(folder.with_name("other"))
    folder.write_text("in the way")
    (said,) = stage_something(history)
    assert "git theta push" in said
    assert stage_something(history, ONE) == []
    with pytest.raises(ThetaError, match="hooks"):
        install_hooks(find_places(history.path))


def test_a_folder_in_the_place_of_a_hook(history: GitSandbox) -> None:
    path = hook_path(history, "pre-push")
    path.unlink()
    path.mkdir()
    (said,) = stage_something(history)
    assert f"{path} is a folder" in said


# --- core.hooksPath ---------------------------------------------------------------------------------------------------


def test_a_shared_folder_is_left_alone_unless_asked(pushing: GitSandbox, server: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared hooks"
    write_hook(shared / "pre-push", "exit 0\n")
    pushing("config", "core.hooksPath", str(shared))
    (said,) = stage_something(pushing)
    assert str(shared) in said
    assert "git theta hooks --force" in said
    assert stage_something(pushing, ONE) == [], "it was said twice"
    assert [path.name for path in shared.iterdir()] == ["pre-push"]
    refused = pushing.run("theta", "hooks", check=False)
    assert (refused.returncode, "--force" in refused.stderr) == (1, True)
    pushing("theta", "hooks", "--force")
    assert states(pushing) == {"ours"}
    pushing("push", "-q", "origin", "main")
    assert server_objects(server) == needed(pushing, "one", "two")
    assert pushing.run("theta", "hooks", "--remove", check=False).returncode == 1
    pushing("theta", "hooks", "--remove", "--force")
    assert [path.name for path in shared.iterdir()] == ["pre-push"]


def test_a_link_to_a_shared_folder_is_one(history: GitSandbox, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    folder = hook_path(history, "pre-push").parent
    folder.rename(shared)
    folder.symlink_to(shared)
    for name in OURS:
        (shared / name).unlink()
    assert len(stage_something(history)) == 1
    assert states(history) == {"missing"}


def test_hooks_that_are_versioned_are_not_changed_unasked(history: GitSandbox, recorder: Recorder) -> None:
    write_hook(history.path / ".githooks" / "pre-push", recorder.script("user"))
    history.commit_all("hooks for everybody")
    history("config", "core.hooksPath", ".githooks")
    (said,) = stage_something(history)
    assert ".githooks" in said
    assert "'git theta hooks'" in said
    history("commit", "-qm", "three")
    assert_quiet(history)
    history("theta", "hooks")
    assert states(history) == {"ours"}
    assert (history.path / ".githooks" / "pre-push.before-theta").read_text() == recorder.script("user")


def test_ignored_hooks_in_the_work_tree_are_chained_in_each_work_tree(pushing: GitSandbox, server: Path) -> None:
    """A relative path is another folder in each work tree, and a new work tree has none."""
    pushing.write(".gitignore", b".husky/_/\n")
    pushing.commit_all("as husky has it")
    pushing("config", "core.hooksPath", ".husky/_")
    assert stage_something(pushing) == []
    assert states(pushing) == {"ours"}
    pushing("commit", "-qm", "three")
    assert_quiet(pushing)
    linked = GitSandbox(pushing.path.parent / "linked")
    pushing("worktree", "add", "-q", "-b", "tune", str(linked.path), "main")
    assert states(linked) == {"ours"}
    assert_quiet(linked)
    linked("push", "-q", "origin", "tune")
    assert server_objects(server) == needed(pushing, "one", "two", "main")


# --- kinds of repositories --------------------------------------------------------------------------------------------


def test_linked_work_trees_and_subdirectories_share_the_hooks(pushing: GitSandbox, server: Path) -> None:
    linked = GitSandbox(pushing.path.parent / "linked")
    pushing("worktree", "add", "-q", "-b", "tune", str(linked.path), "one")
    linked.write(f"deep/er/{NAME}", THREE)
    linked.commit_all("three")
    GitSandbox(linked.path / "deep")("push", "-q", "origin", "tune")
    assert server_objects(server) == needed(linked, "one") | needed(linked, "HEAD", name=f"deep/er/{NAME}")


def test_a_bare_repository_pushes_on(pushing: GitSandbox, server: Path, tmp_path: Path) -> None:
    bare = GitSandbox(tmp_path / "bare.git")
    pushing("clone", "-q", "--bare", str(pushing.path), str(bare.path))
    install_hooks(find_places(bare.path))
    for where, options in ((bare, ()), (GitSandbox(tmp_path), ("--git-dir", "bare.git"))):
        where(*options, "push", "-q", str(server), f"main:refs/heads/branch-{len(options)}")
        assert server_objects(server) == needed(pushing, "one", "two"), options
        subprocess.run(["rm", "-r", server / "lfs"], check=True)


def test_a_submodule_has_hooks_and_objects_of_its_own(
    pushing: GitSandbox, installed: Path, tmp_path: Path, new_repository: Callable[..., GitSandbox]
) -> None:
    outer = new_repository("outer")
    outer("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(pushing.path), "inner")
    inner = GitSandbox(outer.path / "inner")
    assert states(inner) == {"ours"}
    assert hook_path(inner, "pre-push").resolve() == outer.path / ".git/modules/inner/hooks/pre-push"
    inner("checkout", "-q", "-b", "tune")
    inner.write(NAME, THREE)
    inner("commit", "-qam", "three")
    inner("push", "-q", "origin", "tune")
    received = {path.name for path in (pushing.path / ".git" / "lfs" / "objects").rglob("*") if path.is_file()}
    assert needed(inner, "HEAD") <= received | {p.name for p in (theta_dir(pushing) / "objects").rglob("*")}


def test_a_git_dir_that_is_named(pushing: GitSandbox, server: Path) -> None:
    above = GitSandbox(pushing.path.parent)
    for number, git_dir in enumerate(("history/.git", str(pushing.path / ".git"))):
        options = ("--git-dir", git_dir, "--work-tree", "history")
        above(*options, "push", "-q", str(server), f"main:refs/heads/branch-{number}")
        assert server_objects(server) == needed(pushing, "one", "two")
        subprocess.run(["rm", "-r", server / "lfs"], check=True)


def test_a_repository_that_cannot_be_written_is_left_alone(
    history: GitSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_hooks(history)
    # Tests may run as root, to whom everything is allowed: the answer of the system is what is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert ensure_hooks(find_places(history.path)) == ""
    assert states(history) == {"missing"}


def test_every_hook_is_a_sound_shell_script(tmp_path: Path) -> None:
    for name, text in HOOKS.items():
        subprocess.run(["sh", "-n", write_hook(tmp_path / name, text)], check=True)
