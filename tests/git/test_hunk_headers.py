"""What plain git writes behind the line numbers of a hunk: where in the model it is, with the pattern as installed."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from theta_nb.git.configuration import CONFIGURATION
from theta_nb.git.installation import install

NAME = "m.safetensors"
MODULES = ("attention.key", "attention.query", "attention.value", "output.dense")


def model() -> dict[str, np.ndarray]:
    """Three blocks of eight tensors, something before them and something behind."""
    names = [f"encoder.layer.{block}.{module}.{role}" for block in range(3) for module in MODULES for role in "bw"]
    names += ["cls", "embeddings.norm.weight", "pooler.dense.bias", "pooler.dense.weight", "zero.0.w"]
    return {name: np.full((4, 8), float(number), np.float32) for number, name in enumerate(names)}


@pytest.fixture
def repo(new_repository: Callable[..., GitSandbox]) -> GitSandbox:
    """A checkpoint, and hunk headers as an installation sets them."""
    made = new_repository()
    install("local", cwd=str(made.path))
    made.write(NAME, safetensors(model()))
    made.commit_all("one")
    made("tag", "one")
    return made


def headers(out: str) -> list[str]:
    """Headers of the hunks among the rows of tensors, and of those behind them."""
    return re.findall(r"^@@ [^@]*@@ ?(.*)$", out, re.MULTILINE)


def change(repo: GitSandbox, tensor: str) -> None:
    """Commit another value of one tensor."""
    state = model()
    state[tensor] = state[tensor] + 0.5
    repo.write(NAME, safetensors(state))
    repo.commit_all(tensor)


def header_of(tensor: str, out: str) -> str:
    """Header of the hunk that shows a new value of a tensor."""
    [header] = [
        headers(hunk)[0]
        for hunk in re.split(r"(?m)^(?=@@)", out)
        if re.search(rf"^\+{re.escape(tensor)}\t", hunk, re.MULTILINE)
    ]
    return header


@pytest.mark.parametrize(
    ("tensor", "context", "expected"),
    [
        ("encoder.layer.1.attention.query.b", 0, "encoder.layer.1"),  # the first line of a module
        ("encoder.layer.1.attention.query.w", 0, "encoder.layer.1"),
        ("encoder.layer.1.attention.value.b", 3, "encoder.layer.1"),
        ("encoder.layer.1.output.dense.w", 3, "encoder.layer.1"),  # the last of a block
        ("encoder.layer.1.attention.key.b", 0, "encoder.layer.0"),  # the first of a block: git looks at what is before
        ("pooler.dense.weight", 0, "pooler"),
        ("encoder.layer.0.attention.key.b", 0, "embeddings"),
        ("embeddings.norm.weight", 0, "cls"),
        ("cls", 0, ""),
    ],
)
def test_the_block(repo: GitSandbox, tensor: str, context: int, expected: str) -> None:
    change(repo, tensor)
    for command in (("diff", "HEAD~1", "HEAD"), ("log", "-p", "-1"), ("show",)):
        out = repo(command[0], f"-U{context}", *command[1:])
        assert header_of(tensor, out) == expected, command


def test_most_tensors_get_the_header_of_their_block(repo: GitSandbox) -> None:
    """At least half, even with three lines of context; with the innermost module as the header it would be none."""
    names = [name for name in model() if name.startswith("encoder.layer.1.")][::2]
    right = []
    for name in names:
        change(repo, name)
        right.append(header_of(name, repo("diff", "one", "HEAD")) == "encoder.layer.1")
    assert sum(right) >= len(names) / 2, dict(zip(names, right, strict=True))


def test_lines_for_the_machine_have_no_header(repo: GitSandbox) -> None:
    state = model()
    state["encoder.layer.1.attention.key.b"] = np.arange(100_000, dtype=np.float32)
    repo.write(NAME, safetensors(state))
    repo.commit_all("two")
    out = repo("diff", "-U0", "HEAD~1", "HEAD")
    machine = [hunk for hunk in re.split(r"(?m)^(?=@@)", out)[1:] if re.search(r"(?m)^[+-](object|value) ", hunk)]
    assert len(machine) > 1
    assert not any(headers(hunk)[0] for hunk in machine[1:]), [headers(hunk) for hunk in machine]


def test_an_installation_replaces_the_former_pattern(repo: GitSandbox) -> None:
    key = "diff.theta.xfuncname"
    repo("config", key, "^([^\t]+)[./][^\t./]*\t\n^([^\t]+)\t\n^(object|value) ")
    done = install("local", cwd=str(repo.path))
    assert (done.changed, done.kept) == ((key,), ())
    assert repo("config", key).removesuffix("\n") == CONFIGURATION[key]
