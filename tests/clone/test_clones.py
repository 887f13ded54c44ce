"""Every way to clone a repository whose checkpoints theta stores."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clone.conftest import FILES, OLD, Fetches
from tests.conftest import GitSandbox
from tests.git.checks import assert_quiet, manifest_text, objects, warnings
from tests.hooks.conftest import OURS, needed, server_objects
from theta_nb.git.hooks import hook_states
from theta_nb.git.places import find_places

Clone = Callable[..., GitSandbox]


def assert_complete(repo: GitSandbox) -> None:
    for name, data in FILES.items():
        assert (repo.path / name).read_bytes() == data, f"{name} is not the checkpoint"
    assert_quiet(repo)


def assert_manifests(repo: GitSandbox) -> None:
    for name in FILES:
        assert (repo.path / name).read_bytes().decode() == manifest_text(repo, name), f"{name} is not the manifest"
    assert_quiet(repo)


# --- with theta -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_clone_has_its_checkpoints_fetched_at_once_and_hooks(
    clone: Clone, origin: GitSandbox, fetches: Fetches, scheme: str
) -> None:
    made = clone(url=f"{scheme}{origin.path}")
    assert warnings(made.said) == []
    assert_complete(made)
    assert fetches.take() == [len({oid for name in FILES for oid in needed(made, "HEAD", name=name)})]
    assert {state.state for state in hook_states(find_places(made.path))} == {"ours"}
    made.write("a.safetensors", OLD)
    made("commit", "-qam", "back to the old one")
    made("push", "-q", "origin", "main")
    assert objects(made) <= server_objects(origin.path)


@pytest.mark.usefixtures("installed")
def test_an_older_version_is_fetched_when_it_is_checked_out(clone: Clone, fetches: Fetches) -> None:
    made = clone()
    fetches.take()
    made("checkout", "-q", "old")
    assert (made.path / "a.safetensors").read_bytes() == OLD
    assert len(fetches.take()) == 1
    made("checkout", "-q", "main")
    assert fetches.take() == [], "what was here was fetched again"
    assert_complete(made)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "options",
    [("--depth=1",), ("--single-branch",), ("--filter=blob:none",), ("--filter=tree:0",), ("--shared",)],
    ids=lambda options: options[0],
)
def test_clones_of_parts(clone: Clone, origin: GitSandbox, options: tuple[str, ...]) -> None:
    made = clone("--no-local" if options != ("--shared",) else "-q", *options, url=f"file://{origin.path}")
    if options == ("--shared",):
        made = clone(*options, name="sharing")
    assert warnings(made.said) == []
    assert_complete(made)
    if options != ("--depth=1",):
        made("checkout", "-q", "old")
        assert (made.path / "a.safetensors").read_bytes() == OLD
        made("checkout", "-q", "main")
    assert made("theta", "fsck")
    made.write("a.safetensors", OLD)
    made("commit", "-qam", "back to the old one")
    made("push", "-q", "origin", "HEAD:refs/heads/side")


@pytest.mark.usefixtures("installed")
def test_a_sparse_clone_fetches_what_it_shows(clone: Clone) -> None:
    made = clone("--sparse")
    assert not (made.path / "models").exists()
    assert objects(made) == {oid for name in ("a.safetensors", "b.safetensors") for oid in needed(made, "", name=name)}
    made("sparse-checkout", "set", "models")
    assert_complete(made)


@pytest.mark.usefixtures("installed")
def test_what_a_sparse_checkout_leaves_out_is_neither_fetched_nor_written_unless_it_is_named(clone: Clone) -> None:
    made = clone("--sparse")
    outside = made.path / "models"

    def left_out() -> bool:
        return not outside.exists() and "S models/c.safetensors\n" in made("ls-files", "-t")

    before = objects(made)
    for command in (
        ("pull",),
        ("checkout",),
        ("pull", "."),
        ("checkout", "--source", "main"),
        ("checkout", "--source", "main", "*.safetensors"),
        ("compact",),
    ):
        made("theta", *command)
        assert left_out(), command
        assert objects(made) == before, command
    for paths in ("models", "models/*"):
        refused = made.run("theta", "pull", paths, check=False)
        assert (refused.returncode, "sparse-checkout add" in refused.stderr) == (1, True), paths
        assert left_out(), paths
    made("theta", "pull", "models/c.safetensors")
    assert (outside / "c.safetensors").read_bytes() == FILES["models/c.safetensors"]
    assert_quiet(made)
    (outside / "c.safetensors").unlink()
    made("sparse-checkout", "reapply")
    made("theta", "checkout")
    assert not (outside / "c.safetensors").exists()
    made("theta", "checkout", "--source", "main", "models/c.safetensors")
    assert_complete(made)


@pytest.mark.usefixtures("installed")
def test_without_a_work_tree_nothing_is_fetched_until_it_is_asked_for(clone: Clone, tmp_path: Path) -> None:
    for options in (("--mirror",), ("--bare",), ("--no-checkout",)):
        made = clone(*options, name=options[0].strip("-"))
        assert objects(made) == set(), options
        made("theta", "fetch", "--all")
        wanted = needed(made, "old", name="a.safetensors") | {
            oid for name in FILES for oid in needed(made, "main", name=name)
        }
        assert objects(made) == wanted, options
    made("checkout", "-q", "main")
    assert_complete(made)


@pytest.mark.usefixtures("installed")
def test_submodules_and_work_trees(clone: Clone, origin: GitSandbox, tmp_path: Path) -> None:
    outer = GitSandbox(tmp_path / "outer")
    outer.path.mkdir()
    outer("init", "-q")
    outer("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(origin.path), "inner")
    outer("commit", "-qm", "with a submodule")
    assert_complete(GitSandbox(outer.path / "inner"))
    again = GitSandbox(tmp_path / "again")
    outer("-c", "protocol.file.allow=always", "clone", "-q", "--recurse-submodules", str(outer.path), str(again.path))
    assert_complete(GitSandbox(again.path / "inner"))
    made = clone("--no-checkout")
    linked = GitSandbox(tmp_path / "linked")
    made("worktree", "add", "-q", str(linked.path), "main~0")
    assert_complete(linked)


# --- without theta ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["pull", "checkout"])
def test_a_clone_without_theta_can_be_read_and_completed_later(clone: Clone, fetches: Fetches, command: str) -> None:
    made = clone()
    assert made.said == ""
    assert "embed.weight\tF32" in (made.path / "a.safetensors").read_text() or "embed.weight" in manifest_text(
        made, "a.safetensors"
    )
    assert_manifests(made)
    assert not [name for name in OURS if (made.path / ".git" / "hooks" / name).exists()]
    made("theta", "install", "--local")
    assert_manifests(made)
    made("theta", command)
    assert_complete(made)
    if command == "checkout":
        assert len(fetches.take()) == 1, "git theta checkout fetches in one batch"
    made.write("a.safetensors", OLD)
    made("commit", "-qam", "back")
    assert {state.state for state in hook_states(find_places(made.path))} == {"ours"}


@pytest.mark.parametrize("command", [["pull"], ["checkout"], ["add", "a.safetensors"]], ids=" ".join)
def test_before_theta_is_installed_no_command_has_git_take_a_checkpoint_whole(
    clone: Clone, fetches: Fetches, command: list[str]
) -> None:
    made = clone()
    staged = made("ls-files", "-s")
    result = made.run("theta", *command, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        "theta: theta is not installed here, so git would store the checkpoint whole. Run 'git theta install' first.\n"
    )
    assert fetches.take() == [], "objects were fetched for nothing"
    assert made("ls-files", "-s") == staged
    assert_manifests(made)


# --- offline ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(origin: GitSandbox) -> GitSandbox:
    """The server keeps its commits and has lost its objects."""
    (origin.path / "lfs").rename(origin.path.parent / "objects of origin")
    return origin


@pytest.mark.usefixtures("installed", "offline")
def test_one_warning_says_what_is_missing_and_where_it_was_looked_for(clone: Clone, origin: GitSandbox) -> None:
    made = clone()
    (said,) = warnings(made.said)
    for part in (*FILES, "objects", "origin", "git theta checkout"):
        assert part in said, f"{part!r} is not in: {said}"
    assert_manifests(made)
    (origin.path.parent / "objects of origin").rename(origin.path / "lfs")
    made("theta", "checkout")
    assert_complete(made)


@pytest.mark.usefixtures("installed", "offline")
def test_some_objects_missing_and_some_not(clone: Clone, origin: GitSandbox) -> None:
    kept = origin.path.parent / "objects of origin"
    made = clone("--no-checkout")
    (kept).rename(origin.path / "lfs")
    for oid in needed(made, "HEAD", name="b.safetensors"):
        next((origin.path / "lfs").rglob(oid)).unlink()
    said = warnings(made.run("checkout", "-q", "main").stderr)
    assert len(said) == 1
    assert "b.safetensors" in said[0]
    assert "a.safetensors" not in said[0]
    assert (made.path / "a.safetensors").read_bytes() == FILES["a.safetensors"]
    assert (made.path / "b.safetensors").read_text() == manifest_text(made, "b.safetensors")
    assert_quiet(made)


@pytest.mark.usefixtures("installed")
def test_a_remote_that_is_gone(clone: Clone, origin: GitSandbox) -> None:
    made = clone("--no-checkout")
    origin.path.rename(origin.path.parent / "moved.git")
    result = made.run("checkout", "main")
    (said,) = warnings(result.stderr)
    assert str(origin.path) in said
    assert "not filtered properly" not in result.stderr
    assert_manifests(made)


@pytest.mark.usefixtures("installed")
def test_damaged_objects_on_the_remote_are_not_taken(clone: Clone, origin: GitSandbox) -> None:
    made = clone("--no-checkout")
    for oid in needed(made, "HEAD", name="a.safetensors"):
        path = next((origin.path / "lfs").rglob(oid))
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    (said,) = warnings(made.run("checkout", "-q", "main").stderr)
    assert "damaged" in said
    assert (made.path / "b.safetensors").read_bytes() == FILES["b.safetensors"]
    assert (made.path / "a.safetensors").read_text() == manifest_text(made, "a.safetensors")
    assert_quiet(made)


@pytest.mark.usefixtures("installed")
def test_a_store_that_cannot_be_written_leaves_manifests(clone: Clone) -> None:
    made = clone("--no-checkout")
    (made.path / ".git" / "theta").write_text("in the way")
    result = made.run("checkout", "-q", "main", check=False)
    assert result.returncode == 0, result.stderr
    assert "not filtered properly" not in result.stderr
    assert_manifests(made)


def test_alternates_without_theta_objects_of_their_own(origin: GitSandbox, tmp_path: Path, installed: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--shared", "--bare", origin.path, tmp_path / "fork.git"], check=True)
    made = GitSandbox(tmp_path / "from the fork")
    origin("clone", "-q", str(tmp_path / "fork.git"), str(made.path))
    assert_complete(made)
