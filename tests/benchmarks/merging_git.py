"""``git merge`` of two fine-tunes of MiniLM that changed different layers, drivers and filters included."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from contenders import THETA_NB, contenders
from measuring import BenchmarkError, Sample, measure, run, settle

__all__ = ["merges_of_minilm"]

_MODELS = Path(__file__).with_name("models.py")
_NAME = "model.pt"


def merges_of_minilm(workdir: Path, repeat: int) -> list[Sample]:
    """What each of ``repeat`` equal merges took.

    Both sides changed the file, so git calls the driver; each tensor was changed by one side at most, so nobody has to
    choose.

    Raises
    ------
    BenchmarkError
        If a merge does not take every tensor from the side that changed it.
    """
    sandbox = contenders(workdir, [THETA_NB])[THETA_NB].sandbox(workdir / "minilm")
    model = sandbox.path / _NAME

    def make(*arguments: str) -> None:
        run([sys.executable, str(_MODELS), *arguments], cwd=workdir, env=dict(os.environ))

    def commit(message: str) -> None:
        sandbox.git("commit", "-q", "-a", "-m", message)

    make(str(model), "minilm")
    sandbox.git("add", _NAME)
    commit("as published")
    sandbox.git("branch", "theirs")
    make("tune", str(model), "1", "1e-3", "0", "1")
    commit("lower layers")
    sandbox.git("switch", "-q", "theirs")
    make("tune", str(model), "2", "1e-3", "4", "5")
    commit("upper layers")
    # What comes out: both tunes, one after the other, on the model as published.
    expected = workdir / "expected.pt"
    make(str(expected), "minilm")
    make("tune", str(expected), "1", "1e-3", "0", "1")
    make("tune", str(expected), "2", "1e-3", "4", "5")
    sandbox.git("switch", "-q", "main")
    before = sandbox.git("rev-parse", "HEAD").strip()
    samples = []
    for _ in range(repeat):
        sandbox.git("reset", "-q", "--hard", before)
        settle(sandbox.store, model)
        samples.append(measure(["git", "merge", "-q", "--no-edit", "theirs"], cwd=sandbox.path, env=sandbox.env))
    make("same", str(model), str(expected))
    if len(sandbox.git("log", "-1", "--format=%P").split()) != 2:
        raise BenchmarkError("there is no merge commit")
    return samples
