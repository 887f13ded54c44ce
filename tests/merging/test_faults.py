"""Merges that are killed while the result is written, or find no room for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.commands.running import said
from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet
from tests.git.killing import command_of, group, run_and_kill
from tests.git.objects import assert_sound
from tests.git.test_faults_disk import MIB, fill, needs_mount, small_disk
from tests.merging.conftest import DRIVERS, NAME, State, content, same

HALF = np.float32(0.5)


def large(seed: int, base: State | None = None) -> State:
    """Four tensors of a megabyte, or what became of them."""
    random = np.random.default_rng(seed)
    noise = {f"layer.{k}": random.standard_normal((512, 512), dtype=np.float32) for k in range(4)}
    return noise if base is None else {name: base[name] + HALF * x for name, x in noise.items()}


BASE = large(0)
OURS, THEIRS = large(1, BASE), large(2, BASE)


def expected() -> State:
    return {name: (OURS[name] + THEIRS[name]) * HALF for name in OURS}


def sides(repo: GitSandbox) -> GitSandbox:
    """``main`` and ``theirs``, which changed every tensor."""
    for key, value in DRIVERS.items():
        repo("config", key, value)
    repo.write(NAME, safetensors(BASE))
    repo.commit_all("base")
    for branch, state in (("theirs", THEIRS), ("main", OURS)):
        repo("switch", "-q", *(["-c"] if branch != "main" else []), branch)
        repo.write(NAME, safetensors(state))
        repo.commit_all(branch)
    return repo


def writing(repo: GitSandbox) -> Callable[[float], bool]:
    """The moment at which a part of the result lies in its temporary file."""
    folder = repo.path / ".git/theta/tmp"

    def reached(_: float) -> bool:
        files = list(folder.glob("merge-*/.theta-merge-*"))
        return any(os.path.getsize(file) > 0 for file in files if file.exists())

    return reached


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_git_theta_merge_that_is_killed_has_changed_nothing(repository: GitSandbox, number: signal.Signals) -> None:
    repo = sides(repository)
    before = repo("rev-parse", "HEAD")
    words = ["git", "theta", "merge", "theirs", "--method", "linear"]
    ended = run_and_kill(words, repo.path, writing(repo), group, number)
    assert ended.killed
    assert ended.returncode
    assert "Traceback" not in ended.stderr
    assert repo("rev-parse", "HEAD") == before
    assert same(content(repo), OURS)
    assert_quiet(repo)
    assert_sound(repo)
    said(repo.path, *words[2:])
    assert same(content(repo), expected())
    assert_quiet(repo)


def test_a_driver_that_is_killed_leaves_a_conflict_that_can_be_ended(repository: GitSandbox) -> None:
    repo = sides(repository)
    repo("config", "theta.merge.method", "linear")
    ended = run_and_kill(
        ["git", "merge", "--no-edit", "theirs"], repo.path, writing(repo), command_of(b"merge-driver"), signal.SIGKILL
    )
    assert ended.killed
    assert ended.returncode
    assert same(content(repo), OURS)
    if not repo("ls-files", "-u"):  # git gives up a merge whose driver dies by a signal
        assert repo("status", "--porcelain") == ""
        repo("merge", "-q", "--no-edit", "theirs")
    else:
        said(repo.path, "merge", "--continue")
    assert same(content(repo), expected())
    assert_quiet(repo)


@needs_mount
def test_a_full_disk_leaves_a_conflict_that_can_be_ended_when_there_is_room(
    new_repository: Callable[..., GitSandbox], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 40 * MIB):
        repo = sides(new_repository("disk/repo"))
        repo("config", "theta.merge.method", "linear")
        ballast = fill(repo.path, MIB)
        result = repo.run("merge", "--no-edit", "theirs", check=False)
        assert result.returncode == 1
        assert f"/{NAME}: No space left on device. Free some disk space" in result.stderr
        assert same(content(repo), OURS)
        assert list((repo.path / ".git/theta/tmp").iterdir()) == [], "temporary files take what room is left"
        ballast.unlink()
        said(repo.path, "merge", "--continue")
        assert same(content(repo), expected())
        assert_quiet(repo)
        assert_sound(repo)
