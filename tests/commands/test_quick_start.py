"""The sessions that git-theta documents, word for word, work with ours."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from tests.commands.running import checkpoint
from tests.conftest import GitSandbox


def test_quick_start_of_git_theta(tmp_path: Path, isolated_home: Path) -> None:
    repo = GitSandbox(tmp_path / "project")
    repo.path.mkdir()
    repo("init", "-q")
    model = repo.path / "model.pt"

    repo("theta", "install")
    assert "filter-process" in (isolated_home / ".gitconfig").read_text(), "'install' configures the account"
    repo("theta", "track", "model.pt")
    assert "A  .gitattributes" in repo("status", "--short"), "'track' stages the attributes, as the original does"

    first, second = checkpoint(), checkpoint(shifts=(1.0,))
    model.write_bytes(first)
    repo("add", "model.pt")
    repo("commit", "-q", "-m", "first")
    stored = repo("cat-file", "-s", "HEAD:model.pt")
    assert int(stored) < len(first), "git stores the manifest in place of the checkpoint"

    model.write_bytes(second)
    repo("add", "model.pt")
    repo("commit", "-q", "-m", "second")
    changed = [line for line in repo("diff", "HEAD~1", "HEAD", "--", "model.pt").split("\n") if line.startswith("+enc")]
    assert len(changed) == 1, f"one tensor changed, so one line of the manifest does: {changed}"

    repo("checkout", "-q", "HEAD~1", "--", "model.pt")
    assert model.read_bytes() == first, "the first version comes back byte for byte"
    repo("checkout", "-q", "HEAD", "--", "model.pt")
    assert model.read_bytes() == second, "and so does the second"
    state = torch.load(io.BytesIO(model.read_bytes()), weights_only=True)
    assert sorted(state) == [f"encoder.layer.{n}.weight" for n in range(3)]


def test_a_new_user_who_forgets_to_install(tmp_path: Path) -> None:
    repo = GitSandbox(tmp_path / "project")
    repo.path.mkdir()
    repo("init", "-q")
    assert "now, in this repository" in repo("theta", "track", "*.pt")
    repo.write("model.pt", checkpoint())
    repo("add", "model.pt")
    assert repo("cat-file", "blob", ":model.pt").startswith("theta-manifest "), "nothing raw reaches git"


def test_a_repository_of_git_theta_keeps_its_line(tmp_path: Path) -> None:
    repo = GitSandbox(tmp_path / "project")
    repo.path.mkdir()
    repo("init", "-q")
    repo("theta", "install", "--scope", "repository")
    repo.write(".gitattributes", b"model.pt filter=theta merge=theta diff=theta\n")
    data = repo.write("model.pt", checkpoint()).read_bytes()
    repo.commit_all("without -text")
    (repo.path / "model.pt").unlink()
    repo("checkout", "--", "model.pt")
    assert (repo.path / "model.pt").read_bytes() == data
