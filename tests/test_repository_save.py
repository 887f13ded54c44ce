"""``Repository.save``: commits that leave the work tree alone."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from theta_nb import Repository, ThetaError
from theta_nb.errors import CheckpointError, NotTrackedError
from theta_nb.git.process import GitError

FILE = "model.safetensors"


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "encoder.weight": torch.randn(40, 16, generator=generator),
        "encoder.bias": torch.randn(16, generator=generator),
    }


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_save_commits_one_file_and_touches_nothing_else(repository: Any) -> None:
    repo = Repository(repository.path)
    repo.save(weights(0), FILE, message="one")
    repo.checkout(FILE)
    repository.write("notes.txt", b"half a thought")
    repository.write("staged.txt", b"for later")
    repository("add", "staged.txt")
    before = snapshot(repository.path)
    commit = repo.save(weights(1), FILE, message="two", metrics={"loss": 0.5}, metadata={"epoch": "2"})
    assert snapshot(repository.path) == before, "no file of the work tree changes"
    assert repository("diff", "--name-only", "HEAD~1", "HEAD").split() == [FILE], "only the checkpoint is committed"
    assert repository("diff", "--cached", "--name-only").split() == ["staged.txt"], "what was staged stays staged"
    assert repository("rev-parse", "HEAD").strip() == commit.hexsha
    assert commit.message == "two\n\nTheta-Metric: loss=0.5"
    assert repository("status", "--porcelain").splitlines() == [f" M {FILE}", "A  staged.txt", "?? notes.txt"]
    assert same(repo.load(FILE, "HEAD"), weights(1))
    assert same(repo.load(FILE, "HEAD~1"), weights(0))
    repo.checkout(FILE, force=True)
    assert repository("status", "--porcelain", FILE) == ""
    assert b'"__metadata__":{"epoch":"2"}' in (repository.path / FILE).read_bytes()
    assert repo.fsck().problems == ()


def test_a_save_is_repeatable_and_an_unchanged_state_stores_nothing(repository: Any) -> None:
    repo = Repository(repository.path)
    one = repo.save(weights(), FILE, message="one")
    objects = sorted((repository.path / ".git" / "theta" / "objects").rglob("*"))
    two = repo.save(weights(), FILE, message="the same again")
    assert two.tree == one.tree
    assert sorted((repository.path / ".git" / "theta" / "objects").rglob("*")) == objects


def test_other_staged_content_is_not_lost(repository: Any) -> None:
    repo = Repository(repository.path)
    repo.save(weights(0), FILE, message="one")
    _write(repository.path / FILE, weights(5))
    repo.add(FILE)
    head, staged = repository("rev-parse", "HEAD"), repository("ls-files", "--stage")
    with pytest.raises(ThetaError, match=r"other content of model\.safetensors is staged"):
        repo.save(weights(1), FILE, message="two")
    assert (repository("rev-parse", "HEAD"), repository("ls-files", "--stage")) == (head, staged)
    # On another branch nothing of this index is in the way.
    repo.save(weights(1), FILE, message="two", branch="elsewhere")
    assert repository("ls-files", "--stage") == staged


def _write(path: Path, state: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(state, path)


def test_a_new_file_that_is_staged_is_not_lost_either(repository: Any) -> None:
    _write(repository.path / FILE, weights(5))
    repo = Repository(repository.path)
    repo.add(FILE)
    with pytest.raises(ThetaError, match="is staged"):
        repo.save(weights(1), FILE, message="one")


def test_a_new_branch_starts_from_head_and_the_current_one_stays(repository: Any) -> None:
    repo = Repository(repository.path)
    one = repo.save(weights(0), FILE, message="one")
    index = repository("ls-files", "--stage")
    first = repo.save(weights(1), FILE, message="run 1", branch="runs/7")
    second = repo.save(weights(2), FILE, message="run 2", branch="runs/7")
    assert first.parents == (one,)
    assert second.parents == (first,)
    assert repository("rev-parse", "HEAD", "runs/7").split() == [one.hexsha, second.hexsha]
    assert repository("ls-files", "--stage") == index
    assert same(repo.load(FILE, "runs/7"), weights(2))
    repository("checkout", "-q", "-f", "runs/7")
    assert same(repo.load(FILE), weights(2)), "a plain git checkout gives the file that was saved"


def test_the_current_branch_by_name_is_the_current_branch(repository: Any) -> None:
    repo = Repository(repository.path)
    repo.save(weights(0), FILE, message="one", branch="main")
    assert repository("diff", "--cached", "--name-only") == "", "the index follows the branch"


def test_an_unborn_branch_gets_its_first_commit(repository: Any) -> None:
    repository("checkout", "-q", "--orphan", "fresh")
    repo = Repository(repository.path)
    commit = repo.save(weights(), FILE, message="first of its branch")
    assert commit.parents == ()
    assert repository("symbolic-ref", "--short", "HEAD").strip() == "fresh"
    assert repository("ls-tree", "--name-only", "HEAD").split() == [".gitattributes", FILE]
    assert same(repo.load(FILE, "fresh"), weights())


@pytest.mark.parametrize("branch", [None, "runs"])
def test_a_line_that_is_only_staged_is_committed_too(repository: Any, branch: str | None) -> None:
    """Otherwise a checkout of the commit would give the manifest in place of the file."""
    repo = Repository(repository.path)
    repo.track("sub/*.gguf", "deep/er/*.ckpt")
    repo.save({"w": torch.ones(3)}, "deep/er/model.ckpt", message="one", branch=branch)
    assert repository("show", "--format=", "--name-only", branch or "HEAD").split() == [
        ".gitattributes",
        "deep/er/model.ckpt",
    ]
    repository("checkout", "-q", "-f", branch or "main")
    repository("checkout", "-q", "HEAD", "--", "deep")
    assert torch.equal(torch.load(repository.path / "deep/er/model.ckpt")["w"], torch.ones(3))


def test_a_branch_that_does_not_track_the_file_is_refused(repository: Any) -> None:
    repository("checkout", "-q", "-b", "old")
    repository.write(".gitattributes", b"*.bin -text\n")
    repository.commit_all("nothing is tracked here")
    repository("checkout", "-q", "main")
    tip = repository("rev-parse", "old")
    with pytest.raises(NotTrackedError, match=r"model\.safetensors is not tracked on old"):
        Repository(repository.path).save(weights(), FILE, message="no", branch="old")
    assert repository("rev-parse", "old") == tip
    repository.write(".git/info/attributes", b"*.safetensors filter=theta merge=theta diff=theta -text\n")
    Repository(repository.path).save(weights(), FILE, message="yes", branch="old")
    assert repository("log", "-1", "--format=%s", "old").strip() == "yes"


def test_a_detached_head_moves_and_no_branch_does(repository: Any) -> None:
    repo = Repository(repository.path)
    one = repo.save(weights(0), FILE, message="one")
    repository("checkout", "-q", "--detach")
    two = repo.save(weights(1), FILE, message="two")
    assert repository("rev-parse", "HEAD", "main").split() == [two.hexsha, one.hexsha]


@pytest.mark.parametrize("branch", ["../escape", "two words", "-d", "a..b", "", "refs/heads/"])
def test_what_cannot_be_a_branch(repository: Any, branch: str) -> None:
    refs = repository("for-each-ref")
    with pytest.raises(ThetaError, match="cannot be the name of a branch"):
        Repository(repository.path).save(weights(), FILE, message="no", branch=branch)
    assert repository("for-each-ref") == refs


def test_a_branch_of_another_work_tree_is_not_moved_under_its_feet(repository: Any, tmp_path: Path) -> None:
    repo = Repository(repository.path)
    repo.save(weights(0), FILE, message="one")
    repository("worktree", "add", "-q", "-b", "feature", str(tmp_path / "linked"))
    tip = repository("rev-parse", "feature")
    with pytest.raises(ThetaError, match=r"feature is checked out in .*linked"):
        repo.save(weights(1), FILE, message="two", branch="feature")
    assert repository("rev-parse", "feature") == tip


@pytest.mark.parametrize("branch", [None, "runs"])
def test_a_branch_that_moves_meanwhile_keeps_the_other_commit(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, branch: str | None
) -> None:
    repo = Repository(repository.path)
    repo.save(weights(0), FILE, message="one", branch=branch)
    ref = f"refs/heads/{branch or 'main'}"
    # A git that lets somebody else commit at the very moment when the new commit is made.
    real = shutil.which("git")
    script = tmp_path / "tools" / "git"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = commit-tree ]; then "{real}" update-ref {ref} '
        f'"$("{real}" commit-tree -m theirs -p {ref} {ref}^{{tree}} </dev/null)"; fi\nexec "{real}" "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(GitError, match="moved while"):
            repo.save(weights(1), FILE, message="two", branch=branch)
    assert repository("log", "-1", "--format=%s", ref).strip() == "theirs", "the other commit is on top"
    again = repo.save(weights(1), FILE, message="two", branch=branch)
    assert repository("log", "--format=%s", ref).split()[:3] == ["two", "theirs", "one"]
    assert same(repo.load(FILE, again.hexsha), weights(1))


def test_an_untracked_path_is_refused(repository: Any) -> None:
    repo = Repository(repository.path)
    with pytest.raises(NotTrackedError, match=r"model\.bin is not tracked by theta.*repo\.track"):
        repo.save(weights(), "model.bin", message="no")


def test_an_empty_message_is_refused(repository: Any) -> None:
    head = repository("rev-parse", "HEAD")
    with pytest.raises(ThetaError, match="message is empty"):
        Repository(repository.path).save(weights(), FILE, message="  \n")
    assert repository("rev-parse", "HEAD") == head


def test_a_nested_training_state_keeps_its_containers(repository: Any) -> None:
    layer = torch.nn.Linear(8, 8)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    state = {"model": layer.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    repo = Repository(repository.path)
    repo.save(state, "run.pt", message="state")
    moments = repo.load("run.pt", "HEAD", pattern="optimizer/*")
    assert torch.equal(moments["optimizer/state/[0]/exp_avg"], state["optimizer"]["state"][0]["exp_avg"])
    repo.checkout("run.pt")
    back = torch.load(repository.path / "run.pt", weights_only=True)
    assert back["epoch"] == 3
    assert torch.equal(back["model"]["weight"], state["model"]["weight"])
    with pytest.raises(CheckpointError, match=r"'model' is a OrderedDict.*Save it as a \.pt file"):
        repo.save(state, FILE, message="no")


def test_tied_tensors_need_a_format_that_can_tie(repository: Any) -> None:
    shared = torch.randn(64, 64)
    state = {"embed": shared, "head": shared}
    repo = Repository(repository.path)
    head = repository("rev-parse", "HEAD")
    with pytest.raises(CheckpointError, match=r"share memory.*\.pt"):
        repo.save(state, FILE, message="no")
    assert repository("rev-parse", "HEAD") == head
    repo.save(state, "tied.pt", message="tied")
    back = repo.load("tied.pt", "HEAD")
    assert back["embed"].data_ptr() == back["head"].data_ptr()
    again = repository.path / "again.pt"
    torch.save(back, again)
    assert again.stat().st_size < 2 * shared.nbytes, "torch, too, takes them for tied and writes them once"


def test_metadata_belongs_into_safetensors(repository: Any) -> None:
    with pytest.raises(CheckpointError, match="cannot hold metadata"):
        Repository(repository.path).save(weights(), "model.pt", message="no", metadata={"a": "b"})


def test_numpy_arrays_are_saved_as_they_are(repository: Any) -> None:
    state = {"w": np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2], "n": np.float16(1.5)}
    repo = Repository(repository.path)
    repo.save(state, FILE, message="arrays")
    back = repo.checkpoint(FILE, "HEAD")
    np.testing.assert_array_equal(back["w"].numpy(), state["w"])
    np.testing.assert_array_equal(back["n"].numpy(), state["n"])
    assert (back["w"].dtype, back["n"].dtype) == ("float32", "float16")


def test_nothing_stays_behind_when_a_save_fails(repository: Any) -> None:
    repo = Repository(repository.path)
    with pytest.raises(CheckpointError):
        repo.save({"w": "text"}, FILE, message="no")
    leftover = repository.path / ".git" / "theta" / "tmp"
    assert list(leftover.iterdir()) == []


def test_an_identity_is_asked_for_in_the_words_of_git(repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME")
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    repository("config", "user.useConfigOnly", "true")
    with pytest.raises(GitError, match=r"user\.email|user\.name|identity"):
        Repository(repository.path).save(weights(), FILE, message="who")
