"""Every kind of repository: bare, linked, nested, borrowed, sparse, shallow, of other hashes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, model, safetensors, tensors
from tests.git.checks import age, assert_quiet, digests, manifest_text, objects, theta_dir, warnings
from tests.git.conftest import NAME, ONE, THREE, TWO

Make = Callable[..., GitSandbox]


def _content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


def _output(repo: GitSandbox, *arguments: str, env: dict[str, str] | None = None) -> bytes:
    import os

    return subprocess.run(
        ["git", *arguments], cwd=repo.path, capture_output=True, check=True, env={**os.environ, **(env or {})}
    ).stdout


@pytest.fixture
def filter_for_all(isolated_home: Path) -> None:
    """The filter set up in the person's own configuration, as ``git theta install`` does: clones have it too."""
    for key, value in (("process", "git-theta filter-process"), ("required", "true")):
        subprocess.run(["git", "config", "--global", f"filter.theta.{key}", value], check=True)


# --- linked work trees ------------------------------------------------------------------------------------------------


def test_linked_worktrees_share_one_store(history: GitSandbox) -> None:
    linked = GitSandbox(history.path.parent / "linked")
    history("worktree", "add", "-q", "-b", "tune", str(linked.path), "one")
    assert _content(linked) == ONE
    assert_quiet(linked)
    linked.write(NAME, THREE)
    linked("commit", "-qam", "three")
    assert_quiet(linked)
    strays = list((history.path / ".git" / "worktrees").rglob("theta"))
    assert not strays, "a linked work tree got a store of its own"
    assert theta_dir(linked) == history.path / ".git" / "theta"
    history("merge", "-q", "-X", "theirs", "--no-edit", "-s", "ort", "tune", "-m", "m")
    history("worktree", "remove", str(linked.path))
    history("checkout", "-q", "tune")
    assert _content(history) == THREE
    assert_quiet(history)


def test_two_worktrees_hold_two_versions_at_once(history: GitSandbox) -> None:
    linked = GitSandbox(history.path / "inside")
    history("worktree", "add", "-q", "--detach", str(linked.path), "one")
    assert (_content(linked), _content(history)) == (ONE, TWO)
    assert_quiet(linked)


# --- submodules -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("filter_for_all")
def test_a_submodule_has_its_own_store(repository: GitSandbox, history: GitSandbox) -> None:
    allow = ("-c", "protocol.file.allow=always")
    repository(*allow, "submodule", "add", "-q", str(history.path), "sub")
    sub = GitSandbox(repository.path / "sub")
    repository("commit", "-qm", "with a submodule")
    data = safetensors(tensors(5, prefix="another."))
    sub.write(NAME, data)
    sub("commit", "-qam", "another model")
    assert theta_dir(sub) == repository.path / ".git" / "modules" / "sub" / "theta"
    assert objects(sub)
    assert not theta_dir(repository).exists() or not objects(repository)
    repository("commit", "-qam", "follow")
    assert repository("status", "--porcelain") == ""
    sub("checkout", "-q", "HEAD~1")
    repository("submodule", "update", "-q")
    assert _content(sub) == data
    assert_quiet(sub)


# --- bare -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(history: GitSandbox) -> GitSandbox:
    """A bare copy of the history; in it attributes count in ``info/attributes`` only."""
    history("config", "core.bare", "true")
    target = history.path.parent / "bare.git"
    (history.path / ".git").rename(target)
    (target / "index").unlink()
    (target / "info" / "attributes").write_bytes((history.path / ".gitattributes").read_bytes())
    return GitSandbox(target)


def test_a_bare_repository_answers_by_content(bare: GitSandbox) -> None:
    assert _output(bare, "cat-file", "--filters", f"two:{NAME}") == TWO
    assert "+layer.0.bias\t" in bare("diff", "one", "two")
    assert f"tensor/{NAME}" not in bare("diff", "--stat", "one", "two")


def test_a_bare_repository_hashes_checkpoints(bare: GitSandbox) -> None:
    source = bare.path.parent / "x.safetensors"
    source.write_bytes(TWO)
    named = _output(bare, "hash-object", "-w", "--path", NAME, str(source)).decode()
    assert named == bare("rev-parse", f"two:{NAME}")


def test_a_bare_repository_is_found_by_git_dir_from_anywhere(bare: GitSandbox, tmp_path: Path) -> None:
    for git_dir in (str(bare.path), "bare.git", "./bare.git/"):
        options = ["git", "--git-dir", git_dir]
        shown = subprocess.run([*options, "diff", "one", "two"], cwd=tmp_path, capture_output=True, check=True)
        assert b"+layer.0.bias\t" in shown.stdout
        for rev, data in (("one", ONE), ("two", TWO)):
            out = subprocess.run(
                [*options, "cat-file", "--filters", f"{rev}:{NAME}"], cwd=tmp_path, capture_output=True, check=True
            )
            assert out.stdout == data, git_dir


def test_a_relative_git_dir_with_a_work_tree_elsewhere(history: GitSandbox) -> None:
    options = ("--git-dir", "history/.git", "--work-tree", "history")
    above = GitSandbox(history.path.parent)
    history.write(NAME, THREE)
    above(*options, "commit", "-qam", "three")
    above(*options, "checkout", "-q", "one")
    assert _content(history) == ONE
    above(*options, "checkout", "-q", "main")
    assert _content(history) == THREE
    assert objects(history)
    assert not (history.path / "history").exists(), "something was written to a path taken from another folder"
    assert_quiet(history)


# --- where the git directory lies -------------------------------------------------------------------------------------


def test_a_separate_git_dir(new_repository: Make, tmp_path: Path) -> None:
    repo = new_repository("repo", "--separate-git-dir", str(tmp_path / "git data"))
    repo.write(NAME, ONE)
    repo.commit_all("one")
    (repo.path / NAME).unlink()
    repo("checkout", NAME)
    assert _content(repo) == ONE
    assert theta_dir(repo) == tmp_path / "git data" / "theta"
    assert_quiet(repo)


def test_a_repository_that_was_moved(history: GitSandbox) -> None:
    moved = GitSandbox(history.path.parent / "moved elsewhere")
    history.path.rename(moved.path)
    moved("checkout", "-q", "one")
    assert _content(moved) == ONE
    assert_quiet(moved)


def test_a_sha256_repository(new_repository: Make) -> None:
    repo = new_repository("repo", "--object-format=sha256")
    repo.write(NAME, ONE)
    repo.commit_all("one")
    repo.write(NAME, TWO)
    repo.commit_all("two")
    repo("checkout", "-q", "HEAD~1")
    assert _content(repo) == ONE
    assert_quiet(repo)
    assert len(repo("rev-parse", "HEAD").strip()) == 64
    repo.write(NAME, ONE)
    repo("add", NAME)
    assert repo("status", "--porcelain") == ""
    assert "+layer.0.bias\t" in repo("diff", "HEAD", "main")


def test_a_manifest_is_the_same_in_repositories_of_either_hash(new_repository: Make) -> None:
    texts = set()
    for name, options in (("a", ()), ("b", ("--object-format=sha256",))):
        repo = new_repository(name, *options)
        repo.write(NAME, ONE)
        repo.commit_all("one")
        texts.add(manifest_text(repo, NAME))
    assert len(texts) == 1


# --- borrowed objects -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("filter_for_all")
@pytest.mark.parametrize("how", ["--shared", "--reference"])
def test_a_clone_that_borrows_git_objects_borrows_ours(history: GitSandbox, how: str) -> None:
    options = ("--shared",) if how == "--shared" else ("--reference", str(history.path))
    clone = GitSandbox(history.path.parent / "clone")
    result = history.run("clone", "-q", *options, str(history.path), str(clone.path))
    assert warnings(result.stderr) == []
    assert _content(clone) == TWO
    assert_quiet(clone)
    assert objects(clone) == set(), "what can be borrowed was copied"
    clone.write(NAME, ONE)
    clone("commit", "-qam", "one again")
    assert objects(clone) == set(), "what can be borrowed was written again"
    before = objects(history)
    clone.write(NAME, model(5))
    clone("commit", "-qam", "five")
    assert objects(clone)
    assert objects(history) == before, "the borrowed store was written to"
    grandchild = GitSandbox(history.path.parent / "grandchild")
    clone("clone", "-q", "--shared", str(clone.path), str(grandchild.path))
    assert _content(grandchild) == model(5)
    assert_quiet(grandchild)


# --- clones without the objects ---------------------------------------------------------------------------------------


@pytest.fixture
def offline(history: GitSandbox) -> GitSandbox:
    """A repository whose objects lie where no clone finds them."""
    theta_dir(history).rename(history.path.parent / "objects of history")
    return history


@pytest.mark.usefixtures("filter_for_all")
@pytest.mark.parametrize("options", [(), ("--depth=1",)], ids=["full", "shallow"])
def test_a_clone_without_the_objects_gets_manifests_and_one_warning(
    offline: GitSandbox, options: tuple[str, ...]
) -> None:
    clone = GitSandbox(offline.path.parent / "clone")
    result = offline.run("clone", "-q", *options, f"file://{offline.path}", str(clone.path))
    said = warnings(result.stderr)
    assert len(said) == 1, result.stderr
    assert NAME in said[0]
    assert f"git theta checkout {NAME}" in said[0]
    assert _content(clone).decode() == manifest_text(clone, NAME)
    assert_quiet(clone)


@pytest.mark.usefixtures("filter_for_all")
def test_in_a_clone_without_the_objects_work_goes_on(offline: GitSandbox) -> None:
    clone = GitSandbox(offline.path.parent / "clone")
    offline("clone", "-q", f"file://{offline.path}", str(clone.path))
    clone("mv", NAME, "renamed.safetensors")
    clone("commit", "-qm", "rename")
    assert clone("rev-parse", "HEAD:renamed.safetensors") == clone("rev-parse", f"origin/main:{NAME}")
    clone("checkout", "-q", "one")
    clone("checkout", "-q", "main")
    assert "+layer.0.bias\t" in clone("diff", "one", "two", "--", NAME)
    clone.write("new.safetensors", THREE)
    clone.commit_all("a new checkpoint beside the manifest")
    (clone.path / "new.safetensors").unlink()
    clone("checkout", "new.safetensors")
    assert _content(clone, "new.safetensors") == THREE
    assert_quiet(clone)


@pytest.mark.usefixtures("filter_for_all")
def test_objects_that_arrive_later_are_found(offline: GitSandbox) -> None:
    clone = GitSandbox(offline.path.parent / "clone")
    offline("clone", "-q", f"file://{offline.path}", str(clone.path))
    shutil.copytree(offline.path.parent / "objects of history" / "objects", theta_dir(clone) / "objects")
    (clone.path / NAME).unlink()
    clone("checkout", NAME)
    assert _content(clone) == TWO
    assert_quiet(clone)


@pytest.mark.usefixtures("filter_for_all")
def test_a_checkpoint_whose_objects_are_absent_is_recognised(offline: GitSandbox) -> None:
    clone = GitSandbox(offline.path.parent / "clone")
    offline("clone", "-q", f"file://{offline.path}", str(clone.path))
    clone.write(NAME, TWO)
    clone("add", NAME)
    age(clone, [NAME])
    assert clone("status", "--porcelain") == "", "the same checkpoint shows as modified"


@pytest.mark.usefixtures("filter_for_all")
def test_what_was_added_comes_back_also_where_older_objects_are_absent(offline: GitSandbox) -> None:
    clone = GitSandbox(offline.path.parent / "clone")
    offline("clone", "-q", f"file://{offline.path}", str(clone.path))
    data = model(layer_0_bias=bias(7.0))
    clone.write(NAME, data)
    clone("commit", "-qam", "another bias, the rest as in a version whose objects are absent")
    (clone.path / NAME).unlink()
    clone("checkout", NAME)
    assert _content(clone) == data, "git add had every byte, and git checkout has not"


# --- partial work trees -----------------------------------------------------------------------------------------------


def test_sparse_checkout_skips_and_brings_checkpoints(history: GitSandbox) -> None:
    history.write("runs/a/x.safetensors", THREE)
    history.write("runs/b/x.safetensors", ONE)
    history.commit_all("runs")
    history("sparse-checkout", "set", "--cone", "runs/a")
    assert not (history.path / "runs" / "b").exists()
    assert_quiet(history)
    history("sparse-checkout", "add", "runs/b")
    assert _content(history, "runs/b/x.safetensors") == ONE
    history("sparse-checkout", "set", "--cone", "--sparse-index", "runs/a")
    history.write("runs/a/x.safetensors", ONE)
    history("commit", "-qam", "one again")
    assert_quiet(history)
    history("sparse-checkout", "disable")
    assert _content(history, "runs/b/x.safetensors") == ONE
    assert_quiet(history)


def test_a_repository_without_a_commit(new_repository: Make, tmp_path: Path) -> None:
    repo = new_repository()
    fresh = GitSandbox(tmp_path / "fresh")
    fresh.path.mkdir()
    fresh("init", "-q")
    fresh("config", "filter.theta.process", "git-theta filter-process")
    fresh("config", "filter.theta.required", "true")
    fresh.write(".gitattributes", (repo.path / ".gitattributes").read_bytes())
    fresh.write(NAME, ONE)
    fresh("add", ".")
    assert digests(fresh, NAME)
    assert fresh("status", "--porcelain").splitlines() == ["A  .gitattributes", f"A  {NAME}"]
    fresh("commit", "-qm", "first")
    assert_quiet(fresh)


def test_an_orphan_branch(history: GitSandbox) -> None:
    history("checkout", "-q", "--orphan", "fresh")
    history("commit", "-qm", "no parents")
    assert history("rev-parse", f"HEAD:{NAME}") == history("rev-parse", f"two:{NAME}")
    assert_quiet(history)


def test_a_namespace_and_literal_pathspecs_in_the_environment(history: GitSandbox) -> None:
    env = {"GIT_LITERAL_PATHSPECS": "1", "GIT_NAMESPACE": "foo"}
    history.write("a*b.safetensors", THREE)
    history.write("aXb.safetensors", ONE)
    history.run("add", "a*b.safetensors", env=env)
    assert history.run("ls-files", "a*b.safetensors", "aXb.safetensors", env=env).stdout == "a*b.safetensors\n"
    history("commit", "-qm", "a star")
    history.write("a*b.safetensors", ONE)
    age(history, ["a*b.safetensors"])
    assert " M a*b.safetensors" in history.run("status", "--porcelain", env=env).stdout


def test_another_index_file(history: GitSandbox, tmp_path: Path) -> None:
    env = {"GIT_INDEX_FILE": str(tmp_path / "other index")}
    history.run("read-tree", "one", env=env)
    history.write(NAME, THREE)
    history.run("add", NAME, env=env)
    tree = history.run("write-tree", env=env).stdout.strip()
    assert "+layer.0.bias\t" in history("diff", "one", tree, "--", NAME)
    history.write(NAME, TWO)
    assert_quiet(history)
