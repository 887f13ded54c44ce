"""A repository with a history, for the tests that are not about making one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, model
from tests.git.checks import age

NAME = "m.safetensors"
ONE, TWO, THREE = model(), model(layer_0_bias=bias(1.0)), model(layer_0_bias=bias(2.0))


@pytest.fixture
def new_history(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], GitSandbox]:
    """Make copies of a repository made once: ``main`` with the versions ``one`` and ``two`` of a checkpoint and a note.

    The copy's files have other inodes than its index says, so it is told to look at times and sizes only.
    """
    template = tmp_path_factory.getbasetemp() / "history-template"
    if not template.exists():
        repo = new_repository("template")
        repo("config", "core.checkStat", "minimal")
        for tag, data in (("one", ONE), ("two", TWO)):
            repo.write("notes.txt", f"{tag}\n".encode())
            repo.write(NAME, data)
            age(repo, [NAME, "notes.txt", ".gitattributes"])
            repo.commit_all(tag)
            repo("tag", tag)
        repo("status")
        repo.path.rename(template)

    def make(name: str) -> GitSandbox:
        shutil.copytree(template, tmp_path / name, symlinks=True)
        return GitSandbox(tmp_path / name)

    return make


@pytest.fixture
def history(new_history: Callable[[str], GitSandbox]) -> GitSandbox:
    """One such copy."""
    return new_history("history")
