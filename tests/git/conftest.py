"""A repository with a history, for the tests that are not about making one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, model
from tests.git.checks import commit_versions

NAME = "m.safetensors"
ONE, TWO, THREE = model(), model(layer_0_bias=bias(1.0)), model(layer_0_bias=bias(2.0))


@pytest.fixture
def new_history(copies_of: Callable[..., Callable[[str], GitSandbox]]) -> Callable[[str], GitSandbox]:
    """Make copies of a repository made once: ``main`` with two versions of a checkpoint, tagged ``one`` and ``two``."""
    return copies_of("history", lambda repo: commit_versions(repo, {"one": ONE, "two": TWO}, NAME))


@pytest.fixture
def history(new_history: Callable[[str], GitSandbox]) -> GitSandbox:
    """One such copy."""
    return new_history("history")
