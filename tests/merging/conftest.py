"""Repositories in which both sides changed a checkpoint."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import pytorch, safetensors
from tests.git.checks import age, tracked
from theta_nb.manifest.text import parse

NAME = "m.safetensors"
State = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

DRIVERS = {
    "merge.theta.driver": "git-theta merge-driver %O %A %B %P %L",
    "merge.theta.recursive": "theta-base",
    "merge.theta-base.driver": "git-theta merge-driver --base %O %A %B %P %L",
}


def weights(*changed: int, seed: int = 0, amount: float = 0.1) -> State:
    """Six layers, of which ``seed`` changes some."""
    start, noise = np.random.default_rng(0), np.random.default_rng(seed)
    state = {f"layer.{i}.weight": start.normal(size=(16, 24)).astype(np.float32) for i in range(6)}
    for i in changed:
        state[f"layer.{i}.weight"] += (amount * noise.normal(size=(16, 24))).astype(np.float32)
    return state


BASE, OURS, THEIRS = weights(), weights(0, 1, 2, seed=1), weights(2, 3, seed=2)
OTHERS = weights(2, 4, seed=3)
AVERAGE = {name: (OURS[name] + THEIRS[name]) / 2 if name == "layer.2.weight" else OURS[name] for name in OURS}
AVERAGE["layer.3.weight"] = THEIRS["layer.3.weight"]
"""What each side alone changed, and the mean of what both did."""


def loaded(data: bytes) -> State:
    """Arrays of a safetensors file."""
    from safetensors.numpy import load

    return dict(load(data))


def content(repo: GitSandbox, name: str = NAME) -> State:
    """Arrays of the file in the work tree."""
    return loaded((repo.path / name).read_bytes())


def same(left: State, right: State) -> bool:
    """Whether all arrays are equal, bit for bit."""
    return left.keys() == right.keys() and all(left[name].tobytes() == right[name].tobytes() for name in left)


def recipe_of(repo: GitSandbox, rev: str = "HEAD", name: str = NAME) -> str:
    """Recipe in the manifest; empty if there is none."""
    return parse(repo("cat-file", "blob", f"{rev}:{name}").encode()).recipe


@pytest.fixture
def drivers(repository: GitSandbox) -> GitSandbox:
    """A repository with the merge drivers."""
    for key, value in DRIVERS.items():
        repository("config", key, value)
    return repository


def branches(repo: GitSandbox, *, name: str = NAME, write: Callable[[State], bytes] = safetensors) -> GitSandbox:
    """``main`` (OURS), ``theirs`` and ``others``, all from one base."""
    repo.write(name, write(BASE))
    repo.write("notes.txt", b"base\n")
    repo.commit_all("base")
    for branch, state in (("theirs", THEIRS), ("others", OTHERS)):
        repo("switch", "-qc", branch, "main")
        repo.write(name, write(state))
        repo.write(f"{branch}.txt", b"new\n")
        repo.commit_all(branch)
    repo("switch", "-q", "main")
    repo.write(name, write(OURS))
    repo.write("ours.txt", b"new\n")
    repo.commit_all("ours")
    return repo


@pytest.fixture
def repo(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> GitSandbox:
    """These branches of a safetensors file: a copy of a repository that is made once.

    The copy's files have other inodes than its index says, so it is told to look at times and sizes only.
    """
    template = tmp_path_factory.getbasetemp() / "branches-template"
    if not template.exists():
        made = new_repository("template")
        for key, value in {**DRIVERS, "core.checkStat": "minimal"}.items():
            made("config", key, value)
        branches(made)
        age(made, tracked(made))
        made("status")
        made.path.rename(template)
    shutil.copytree(template, tmp_path / "branches", symlinks=True)
    return GitSandbox(tmp_path / "branches")


def as_pytorch(state: State) -> bytes:
    """A file as ``torch.save`` makes it, with a counter beside the tensors."""
    import torch

    return pytorch({**{name: torch.from_numpy(array) for name, array in state.items()}, "epoch": 3})


def run_python(code: str, folder: Path) -> str:
    """Output of a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    return result.stdout
