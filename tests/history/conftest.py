"""Repositories with a history worth looking at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from tests.conftest import GitSandbox

NAME = "model.safetensors"


def weights(**shifts: float) -> bytes:
    """A little model of two blocks and a head; shifts by part (``block_0``, ``head``)."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    rng = np.random.default_rng(0)
    for part in ("encoder.0", "encoder.1", "head"):
        for kind, shape in (("weight", (8, 16)), ("bias", (24,))):
            value = rng.normal(size=shape).astype("f4")
            tensors[f"{part}.{kind}"] = value + np.float32(shifts.get(part.replace(".", "_"), 0.0))
    return save(tensors)


@pytest.fixture
def new_grown(copies_of: Callable[..., Callable[[str], GitSandbox]]) -> Callable[[str], GitSandbox]:
    """Make copies of a repository made once, with a history that has a bit of everything."""
    return copies_of("grown", _grow)


@pytest.fixture
def grown(new_grown: Callable[[str], GitSandbox]) -> GitSandbox:
    """One such copy."""
    return new_grown("grown")


def _grow(repo: GitSandbox) -> None:
    """Commits on ``main`` with metrics, a branch that was merged, a rename, and a file of another kind."""
    repo("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    repo.write("old.safetensors", weights())
    repo.commit_all("first weights\n\nTheta-Metric: val_loss=0.5")
    repo("tag", "v1")
    repo("switch", "-q", "-c", "tuning")
    repo.write("old.safetensors", weights(head=1.0))
    repo.commit_all("tune the head\n\nTheta-Metric: val_loss=0.25")
    repo("switch", "-q", "main")
    repo.write("old.safetensors", weights(encoder_0=1.0))
    repo.commit_all("train block 0")
    repo("merge", "-q", "--no-edit", "tuning")
    repo("mv", "old.safetensors", NAME)
    repo.commit_all("better name")
    repo.write("notes.txt", b"nothing to do with it\n")
    repo.commit_all("notes")
    repo("tag", "-a", "-m", "tagged", "v2")
    repo.write(NAME, weights(encoder_0=1.0, head=1.0, encoder_1=2.0))
    repo.commit_all("train block 1\n\nTheta-Metric: val_loss=0.125")


def folder(repo: GitSandbox, name: str) -> Path:
    """A folder of the work tree, made if need be."""
    path = repo.path / name
    path.mkdir(exist_ok=True)
    return path
