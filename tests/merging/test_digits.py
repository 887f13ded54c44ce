"""A real training: two fine-tunes that each saw half of the digits, and a merge that knows them all."""

from __future__ import annotations

import subprocess

import torch
from sklearn.datasets import load_digits

from tests.conftest import GitSandbox
from tests.git.checks import assert_quiet
from theta_nb import Repository

NAME = "digits.safetensors"


def _network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def _train(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, rate: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_merged_beats_both(repository: GitSandbox) -> None:
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    train = torch.arange(len(y)) % 3 > 0
    low, high = train & (y < 5), train & (y >= 5)

    def accuracy(state: dict[str, torch.Tensor]) -> dict[str, float]:
        model = _network()
        model.load_state_dict(state)
        with torch.no_grad():
            found = model(x[~train]).argmax(1) == y[~train]
        return {"accuracy": float(found.float().mean())}

    repo = Repository(repository.path)
    model = _network()
    few = train.nonzero().flatten()[:60]
    _train(model, x[few], y[few], 25, 0.1)
    repo.save(model.state_dict(), NAME, message="base")
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for branch, half in (("low", low), ("high", high)):
        model.load_state_dict(start)
        _train(model, x[half], y[half], 25, 0.05)
        repo.save(model.state_dict(), NAME, message=branch, branch=branch)
    repository("reset", "-q", "--hard", "low")
    alone = [accuracy(repo.load(NAME, rev))["accuracy"] for rev in ("low", "high")]
    session = repo.merge(NAME, "high").use("task_arithmetic")
    session.sweep(accuracy, method=["task_arithmetic", "ties"], scale=[0.4, 0.6, 0.8, 1.0])
    best = session.tries.best("accuracy")
    session.restore(best.settings).commit("Know all digits")
    merged = accuracy(repo.load(NAME))["accuracy"]
    assert merged == best.metrics["accuracy"]
    assert merged > max(alone) + 0.05, (merged, alone)
    assert f"Theta-Metric: accuracy={merged}" in repository("log", "-1", "--format=%B")
    assert_quiet(repository)
    subprocess.run(["git", "theta", "replay"], cwd=repository.path, check=True, capture_output=True)
