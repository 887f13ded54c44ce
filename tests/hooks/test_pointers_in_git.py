"""Pointer files and what people do with git: other places, other histories, and interruptions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet
from tests.hooks.conftest import hook_path, write_hook
from tests.hooks.pointer_files import FIRST, LARGE, MODEL, SECOND, SMALL, assert_in_step, pointers
from theta_nb.errors import ThetaError
from theta_nb.git.places import find_places
from theta_nb.git.pointers import sync_pointers


def with_biases(*numbers: int, step: float = 1.0) -> bytes:
    """The first version with other small tensors: several that change together share one object."""
    changed = {f"layer.{n}.bias": SMALL[f"layer.{n}.bias"] + step for n in numbers}
    return safetensors({**LARGE, **SMALL, **changed})


@pytest.mark.parametrize(
    "name", ["a folder/the model.safetensors", "モデル/größe.safetensors", 'quo"te\tand\\.safetensors']
)
def test_any_path_and_from_a_subdirectory(pointing: GitSandbox, name: str) -> None:
    pointing.write(name, SECOND)
    folder = pointing.path / "models"
    subprocess.run(["git", "theta", "add", f"../{name}"], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-qm", "added"], cwd=folder, check=True)
    assert_in_step(pointing, name)
    pointing.write(name, FIRST)
    subprocess.run(["git", "commit", "-qam", "changed"], cwd=folder, check=True)
    assert_in_step(pointing, name)


def test_tracked_in_a_subdirectory(repository: GitSandbox) -> None:
    """Before there is any checkpoint, the hook must be there already."""
    (repository.path / "models").mkdir()
    subprocess.run(["git", "theta", "track", "--pointers", "*.pth"], cwd=repository.path / "models", check=True)
    assert hook_path(repository, "pre-commit").exists()
    repository.write("models/m.pth", FIRST)
    repository("add", "-A")
    repository("commit", "-qm", "first")
    assert_in_step(repository, "models/m.pth")


def test_sha256(new_repository: Callable[..., GitSandbox]) -> None:
    repo = new_repository("sha256", "--object-format=sha256")
    repo("theta", "track", "--pointers", "*.safetensors")
    repo.write(MODEL, FIRST)
    repo("add", MODEL)
    repo("commit", "-qm", "first")
    assert_in_step(repo)
    repo("rm", "-q", MODEL)
    repo("commit", "-qm", "gone")
    assert pointers(repo) == {}


def test_a_linked_worktree(pointing: GitSandbox, tmp_path: Path) -> None:
    other = GitSandbox(tmp_path / "other")
    pointing("worktree", "add", "-q", "-b", "side", str(other.path))
    other.write(MODEL, SECOND)
    other("commit", "-qam", "second")
    assert_in_step(other)
    assert_in_step(pointing)


def test_a_merge_commit_is_in_step(pointing: GitSandbox) -> None:
    """Both sides have a new object of several tensors, and need one tensor less of the old one."""
    pointing("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    pointing("switch", "-q", "-c", "side")
    pointing.write(MODEL, with_biases(0, 1))
    pointing("commit", "-qam", "two small tensors")
    pointing("switch", "-q", "main")
    pointing.write(MODEL, with_biases(2, 3))
    pointing("commit", "-qam", "two others")
    pointing("merge", "-q", "-m", "merged", "side")
    assert_in_step(pointing)
    pointing("lfs", "fsck", "--pointers")


def test_a_merge_that_stops_is_in_step_when_it_is_committed(pointing: GitSandbox) -> None:
    pointing("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    pointing("switch", "-q", "-c", "side")
    pointing.write(MODEL, with_biases(1))
    pointing("commit", "-qam", "theirs")
    pointing("switch", "-q", "main")
    pointing.write(MODEL, with_biases(1, step=2.0))
    pointing("commit", "-qam", "ours")
    assert pointing.run("merge", "side", check=False).returncode == 1
    pointing("checkout", "--theirs", MODEL)
    pointing("add", MODEL)
    pointing("commit", "-qm", "merged")
    assert_in_step(pointing)


def test_cherry_pick_and_rebase(pointing: GitSandbox) -> None:
    """Tensors of objects of their own: what is picked brings its pointers along."""
    pointing("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    pointing("switch", "-q", "-c", "side")
    pointing.write(MODEL, SECOND)
    pointing("commit", "-qam", "embed")
    pointing("switch", "-q", "main")
    head = {**LARGE, **SMALL, "head.weight": LARGE["head.weight"] + 1}
    pointing.write(MODEL, safetensors(head))
    pointing("commit", "-qam", "head")
    pointing("switch", "-q", "-c", "picked")
    pointing("cherry-pick", "side")
    assert_in_step(pointing)
    pointing("switch", "-q", "side")
    pointing("rebase", "-q", "main")
    assert_in_step(pointing)


def test_a_commit_without_hooks_is_made_up_for(pointing: GitSandbox) -> None:
    pointing.write("gone.safetensors", safetensors(SMALL))
    pointing("add", "gone.safetensors")
    pointing("commit", "-qm", "another")
    pointing("rm", "-q", "gone.safetensors")
    pointing.write(MODEL, SECOND)
    pointing("commit", "-qam", "without hooks", "--no-verify")
    assert any(path.startswith(".git_theta/gone") for path in pointers(pointing))
    pointing("commit", "-q", "--allow-empty", "-m", "with them")
    assert {path.split("/")[1] for path in pointers(pointing)} == {"models"}
    assert_in_step(pointing)


def test_untracked_checkpoints_lose_theirs(pointing: GitSandbox) -> None:
    pointing("theta", "untrack", "*.safetensors")
    pointing("add", "--renormalize", MODEL)
    pointing("commit", "-qm", "raw")
    assert pointers(pointing) == {}
    assert not (pointing.path / ".git_theta").exists()


def test_sparse_checkout(pointing: GitSandbox) -> None:
    """Where the folder is left out of the work tree it stays out, and the commit is in step all the same."""
    pointing("sparse-checkout", "set", "--cone", "models")
    assert not (pointing.path / ".git_theta").exists()
    pointing.write(MODEL, safetensors({**LARGE, **SMALL, "new": LARGE["head.weight"] - 1}))
    pointing("commit", "-qam", "one more tensor")
    assert not (pointing.path / ".git_theta").exists()
    assert any(path.endswith("/new") for path in pointers(pointing))
    assert_quiet(pointing)
    pointing("sparse-checkout", "disable")
    assert_in_step(pointing)


def test_a_locked_index(pointing: GitSandbox) -> None:
    pointing.write(MODEL, SECOND)
    pointing("add", MODEL)
    lock = pointing.path / ".git" / "index.lock"
    lock.touch()
    with pytest.raises(ThetaError, match=r"index\.lock"):
        sync_pointers(find_places(pointing.path))
    lock.unlink()
    sync_pointers(find_places(pointing.path))
    pointing("commit", "-qm", "second")
    assert_in_step(pointing)


@pytest.mark.parametrize("moment", ["fast-import", "update-index"])
def test_killed_in_the_middle(
    pointing: GitSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """What comes next makes up for it; git starts its own programs in hooks, so theta is started by itself."""
    pointing.write(MODEL, SECOND)
    with monkeypatch.context() as patch:
        program = shutil.which("git")
        write_hook(
            tmp_path / "bin" / "git", f'[ "$1" != {moment} ] || {{ kill -9 $PPID; exit 1; }}\nexec "{program}" "$@"\n'
        )
        patch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
        killed = subprocess.run(["git-theta", "add", MODEL], cwd=pointing.path, check=False)
    assert killed.returncode == -signal.SIGKILL
    pointing("commit", "-qm", "second")
    assert_in_step(pointing)


def test_a_conflict_of_pointer_files_alone(pointing: GitSandbox) -> None:
    """One side stored the tensor anew, the other one removed it from the file: 'git theta add' settles its pointers."""
    pointing("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    pointing("switch", "-q", "-c", "side")
    pointing.write(MODEL, SECOND)
    pointing("commit", "-qam", "embed")
    pointing("switch", "-q", "main")
    pointing.write(MODEL, safetensors({"head.weight": LARGE["head.weight"], **SMALL}))
    pointing("commit", "-qam", "no embed")
    merged = pointing.run("merge", "side", check=False)
    assert merged.returncode == 1
    assert "CONFLICT (modify/delete): .git_theta/" in merged.stdout
    pointing("checkout", "--ours", MODEL)
    pointing("theta", "add", MODEL)
    assert pointing("ls-files", "--unmerged") == ""
    pointing("commit", "-qm", "merged")
    assert_in_step(pointing)
