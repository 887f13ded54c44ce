"""Checkpoints that are too large for git itself are written by the hooks, of a rebase at its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, model
from tests.git.checks import assert_quiet
from tests.hooks.conftest import NAME, ONE, THREE, TWO
from theta_nb.git.hook_entry import pending_paths
from theta_nb.git.pending import PENDING, leave_pending
from theta_nb.git.places import find_places

OTHER = "other.safetensors"


@pytest.fixture
def small(history: GitSandbox) -> GitSandbox:
    """``history``, where every checkpoint is above the limit."""
    history("config", "theta.smudgeLimit", "100")
    return history


def content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


def test_switching_merging_picking_and_reverting(small: GitSandbox) -> None:
    small("checkout", "-q", "one")
    assert content(small) == ONE, "git checkout"
    assert_quiet(small)
    small("switch", "-q", "-c", "side")
    small("merge", "-q", "--ff-only", "main")
    assert content(small) == TWO, "a fast-forward"
    assert_quiet(small)
    small("revert", "--no-edit", "two")
    assert content(small) == ONE, "git revert"
    small("reset", "-q", "--hard", "one")
    small("theta", "checkout")
    small("cherry-pick", "two")
    assert content(small) == TWO, "git cherry-pick"
    small("checkout", "one", "--", NAME)
    assert content(small) == ONE, "git checkout of a path"
    small("restore", "--staged", "--worktree", NAME)
    assert content(small) == TWO, "git restore"
    assert_quiet(small)
    assert not (small.path / ".git" / PENDING).exists()


def test_pull(small: GitSandbox, new_history: Callable[[str], GitSandbox]) -> None:
    other = new_history("other")
    other.write(NAME, THREE)
    other("commit", "-qam", "three")
    small("remote", "add", "other", str(other.path))
    small("pull", "-q", "other", "main")
    assert content(small) == THREE
    small("commit", "-q", "--allow-empty", "-m", "ours")
    other.write("other.safetensors", ONE)
    other.commit_all("another checkpoint")
    small("pull", "-q", "--no-rebase", "--no-edit", "other", "main")
    assert content(small, "other.safetensors") == ONE, "a pull that merges"
    assert_quiet(small)


@pytest.mark.usefixtures("installed")
def test_clones_and_work_trees(small: GitSandbox, tmp_path: Path) -> None:
    small("config", "--global", "theta.smudgeLimit", "100")
    clone = GitSandbox(tmp_path / "clone")
    small("clone", "-q", str(small.path), str(clone.path))
    assert content(clone) == TWO, "a clone"
    assert_quiet(clone)
    linked = GitSandbox(tmp_path / "linked")
    clone("worktree", "add", "-q", str(linked.path), "one")
    assert content(linked) == ONE, "git worktree add, whose hook finds a file called .git"
    assert_quiet(linked)
    linked("checkout", "-q", "two")
    assert content(linked) == TWO
    outside = GitSandbox(tmp_path / "outside")
    small("clone", "-q", "--separate-git-dir", str(tmp_path / "its.git"), str(small.path), str(outside.path))
    assert content(outside) == TWO, "a separate git directory"
    outside("checkout", "-q", "one")
    assert content(outside) == ONE


@pytest.fixture
def branched(small: GitSandbox) -> GitSandbox:
    """``small`` on a branch from ``one``, with two commits of another checkpoint; ``main`` has other weights."""
    small("checkout", "-q", "-b", "side", "one")
    for number in (1, 2):
        small.write(OTHER, model(layer_0_bias=bias(float(number))))
        small("add", OTHER)
        small("commit", "-qm", f"side {number}", "--", OTHER)
    small("checkout", "-q", "-f", "side")
    return small


def assert_rebased(repo: GitSandbox, *subjects: str) -> None:
    assert repo("log", "--format=%s", "main..side").splitlines() == list(subjects)
    assert content(repo) == TWO
    assert content(repo, OTHER) == model(layer_0_bias=bias(2.0))
    assert not (repo.path / ".git" / PENDING).exists()


@pytest.mark.parametrize(
    "options", [("--merge",), ("--apply",), ("-i",), ("--no-ff", "--exec", "true")], ids=lambda options: options[0]
)
def test_a_rebase_is_left_alone_until_its_end(branched: GitSandbox, options: tuple[str, ...]) -> None:
    branched.run("rebase", "-q", *options, "main", env={"GIT_SEQUENCE_EDITOR": "true"})
    assert_rebased(branched, "side 2", "side 1")
    assert_quiet(branched)


@pytest.mark.parametrize("backend", ["--merge", "--apply"])
def test_a_rebase_of_a_work_tree_with_changes(branched: GitSandbox, backend: str) -> None:
    attributes = branched.path / ".gitattributes"
    attributes.write_text(attributes.read_text() + "# mine\n")
    branched("rebase", "-q", backend, "--autostash", "main")
    assert_rebased(branched, "side 2", "side 1")
    assert branched("status", "--porcelain") == " M .gitattributes\n"


def test_commits_that_are_amended_inside_a_rebase(branched: GitSandbox) -> None:
    branched.run("rebase", "-q", "-i", "main", env={"GIT_SEQUENCE_EDITOR": "sed -i 1s/^pick/edit/"})
    branched("commit", "-q", "--amend", "-m", "amended")
    assert content(branched).startswith(b"theta-manifest "), "it was written in the middle of a rebase"
    branched("rebase", "--continue")
    assert_rebased(branched, "side 2", "amended")
    assert_quiet(branched)


def test_a_rebase_that_stops_at_a_conflict(branched: GitSandbox) -> None:
    branched("checkout", "-q", "main")
    branched.write("text", b"main")
    branched.commit_all("text")
    branched("checkout", "-q", "side")
    branched.write("text", b"side")
    branched("add", "text")
    branched("commit", "-qm", "side 3")
    assert branched.run("rebase", "-q", "main", check=False).returncode == 1
    branched.write("text", b"both")
    branched("add", "text")
    branched.run("rebase", "--continue", env={"GIT_EDITOR": "true"})
    assert_rebased(branched, "side 3", "side 2", "side 1")
    assert_quiet(branched)


def test_a_rebase_in_a_linked_work_tree(branched: GitSandbox, tmp_path: Path) -> None:
    branched("checkout", "-q", "main")
    linked = GitSandbox(tmp_path / "linked")
    branched("worktree", "add", "-q", str(linked.path), "side")
    linked("rebase", "-q", "main")
    assert (content(linked), content(linked, OTHER)) == (TWO, model(layer_0_bias=bias(2.0)))
    assert_quiet(linked)


def test_a_sequence_is_left_alone_until_its_end(small: GitSandbox) -> None:
    small("checkout", "-q", "-b", "side")
    for number in (3, 4):
        small.write(NAME, model(layer_0_bias=bias(float(number))))
        small("commit", "-qam", str(number))
    small("checkout", "-q", "main")
    small("cherry-pick", "side~1", "side")
    assert small("status", "--porcelain") == ""
    small("commit", "-q", "--allow-empty", "-m", "the next hook")
    assert content(small) == model(layer_0_bias=bias(4.0))
    assert_quiet(small)


def test_nothing_is_started_where_nothing_waits(history: GitSandbox, theta_calls: Callable[[], list[str]]) -> None:
    history("commit", "-q", "--allow-empty", "-m", "empty")
    history("checkout", "-q", "-b", "side")
    history("commit", "-q", "--allow-empty", "-m", "empty")
    history("checkout", "-q", "main")
    history("merge", "-q", "--ff-only", "side")
    history("commit", "-q", "--amend", "--allow-empty", "-m", "amended")
    assert theta_calls() == [], "Python was started for a commit without checkpoints"
    history("config", "theta.smudgeLimit", "100")
    history("checkout", "-q", "one")
    assert "hook post-checkout" in " ".join(theta_calls())


def test_what_a_damaged_list_says_is_not_believed(small: GitSandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    text = small("cat-file", "blob", f"two:{NAME}").encode()
    for path in (outside, small.path / "not tracked", small.path / NAME):
        path.write_bytes(text)
    pending = small.path / ".git" / PENDING
    names = [
        b"../outside.safetensors",
        os.fsencode(outside),
        b"not tracked",
        b"--force",
        b":(top)*",
        b"\xff\xfe\n",
        b"",
    ]
    pending.write_bytes(b"\0".join([*names, NAME.encode(), b"x" * 5000]))
    result = small.run("commit", "-q", "--allow-empty", "-m", "empty")
    assert result.stderr == ""
    assert content(small) == TWO
    assert outside.read_bytes() == (small.path / "not tracked").read_bytes() == text
    assert not pending.exists()
    pending.mkdir()
    assert small.run("commit", "-q", "--allow-empty", "-m", "empty").stderr == ""
    assert pending_paths(find_places(small.path)) == []


def test_each_work_tree_has_a_list_of_its_own(small: GitSandbox, tmp_path: Path) -> None:
    linked = GitSandbox(tmp_path / "linked")
    small("worktree", "add", "-q", str(linked.path), "one")
    linked.write(NAME, small("cat-file", "blob", f"one:{NAME}").encode())
    leave_pending(find_places(linked.path), NAME)
    assert pending_paths(find_places(small.path)) == []
    assert pending_paths(find_places(linked.path)) == [NAME]
    assert pending_paths(find_places(linked.path)) == [], "it was not forgotten"


def test_literal_pathspecs_are_no_hindrance(small: GitSandbox) -> None:
    small("mv", NAME, "a [b]*.safetensors")
    small("commit", "-qm", "a name with everything")
    for variable in ("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"):
        small.run("checkout", "-q", "one", env={variable: "1"})
        assert content(small) == ONE, variable
        small.run("checkout", "-q", "main", env={variable: "1"})
        assert content(small, "a [b]*.safetensors") == TWO, variable
    assert_quiet(small)
