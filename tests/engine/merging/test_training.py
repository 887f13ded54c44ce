"""Two fine-tunes of a digit classifier, each on its own half of the digits, merged into one that knows both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.merges.gathering import gather_fisher, gather_regmean

State = dict[str, torch.Tensor]


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))


def train(state: State | None, x: torch.Tensor, y: torch.Tensor, steps: int) -> State:
    torch.manual_seed(0)
    net = network()
    if state is not None:
        net.load_state_dict(state)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in net.state_dict().items()}


class Digits:
    """The data, a base, and a fine-tune on each half of the digits."""

    def __init__(self) -> None:
        data = load_digits()
        order = np.random.default_rng(0).permutation(len(data.target))
        x = torch.tensor(data.data[order] / 16, dtype=torch.float32)
        y = torch.tensor(data.target[order])
        self.x, self.y, self.test_x, self.test_y = x[:1200], y[:1200], x[1200:], y[1200:]
        self.base = train(None, self.x[:200], self.y[:200], 20)
        self.halves = [self.y < 5, self.y >= 5]
        self.tuned = [train(self.base, self.x[half], self.y[half], 8) for half in self.halves]

    def accuracy(self, model: Any) -> float:
        if not isinstance(model, torch.nn.Module):
            state, model = model, network()
            model.load_state_dict(state)
        return float((model(self.test_x).argmax(1) == self.test_y).float().mean())

    def session(self, **options: Any) -> MergeSession:
        inputs = [StateInput(label, s) for label, s in zip(("ours", "theirs"), self.tuned, strict=True)]
        return MergeSession(StateInput("original", self.base), inputs, **options)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_a_sweep_finds_a_merge_that_beats_both_fine_tunes(digits: Digits) -> None:
    alone = [digits.accuracy(state) for state in digits.tuned]
    session = digits.session().use("task_arithmetic")
    net = network()
    session.sweep(digits.accuracy, into=net, scale=[0.3, 0.5, 0.7, 1.0])
    best = session.tries.best()
    assert best.score() > max(alone) + 0.2
    assert best.score() > digits.accuracy(digits.base)
    session.restore(best.settings)
    assert digits.accuracy(session.materialize(net)) == pytest.approx(best.score())
    assert digits.accuracy(session.state_dict()) == pytest.approx(best.score())


def test_statistics_gathered_from_the_data_beat_the_plain_average(digits: Digits) -> None:
    alone = max(digits.accuracy(state) for state in digits.tuned)
    plain = digits.accuracy(digits.session().use("linear").state_dict())
    fisher, grams = [], []
    for state, half in zip(digits.tuned, digits.halves, strict=True):
        net = network()
        net.load_state_dict(state)
        x, y = digits.x[half], digits.y[half]
        fisher.append(gather_fisher(net, [(x, y)], torch.nn.functional.cross_entropy, limit=300))
        grams.append(gather_regmean(net, [(x, y)]))
        assert net.training
        assert all(p.grad is None for p in net.parameters())
    for method, found in (("fisher", fisher), ("regmean", grams)):
        inputs = [StateInput(f"statistics {k}", one) for k, one in enumerate(found)]
        merged = digits.accuracy(digits.session(statistics=inputs).use(method).state_dict())
        assert merged > alone, method
        assert merged > plain - 0.05, method
