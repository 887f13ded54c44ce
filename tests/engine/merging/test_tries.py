"""Sweeps and searches: whole numbers, ranges of the methods, scores that are none, functions that fail."""

from __future__ import annotations

import math
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.merging.checkpoints import model, session_of
from theta_nb.engine.merging.searching import Dimension, climb, dimensions
from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError
from theta_nb.merges.table import METHODS, method_named

BASE = model(0)
OURS, THEIRS = model(1, BASE), model(2, BASE)


@pytest.fixture
def session(tmp_path: Path) -> MergeSession:
    return session_of(tmp_path, "memory", BASE, OURS, THEIRS)


def chosen(session: MergeSession, name: str) -> Any:
    default = session.settings.default
    assert default is not None
    return default.parameters[name]


def test_whole_numbers_are_searched_and_none_is_tried_twice(session: MergeSession) -> None:
    session.use("consensus", agreement=2)
    seen: list[int] = []

    def score(state: Any) -> float:
        seen.append(chosen(session, "agreement"))
        return -abs(seen[-1] - 3.0)

    best = session.search(score, budget=40, agreement=(0, 5))
    assert chosen(session, "agreement") == 3
    assert all(isinstance(one, int) for one in seen)
    assert len(seen) == len(set(seen)) <= 6
    assert best.score() == 0


def test_numbers_and_whole_numbers_are_searched_together(session: MergeSession) -> None:
    session.use("consensus")

    def score(state: Any) -> float:
        return -abs(chosen(session, "agreement") - 1) - (chosen(session, "tall") - 0.7) ** 2

    session.search(score, budget=60, agreement=(0, 4), tall=(0, 2))
    assert chosen(session, "agreement") == 1
    assert chosen(session, "tall") == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("method", METHODS.names())
def test_every_methods_own_ranges_can_be_searched(method: str) -> None:
    try:
        found = dimensions(method_named(method), ("ours", "theirs"), {})
    except MergeError:
        assert not any(spec.range.searched for spec in METHODS[method].parameters if spec.kind in ("float", "int"))
        return
    assert {one.name for one in found}.isdisjoint({"seed", "tol", "max_iter", "which", "task", "floor"})
    assert all(math.isfinite(one.low) and one.low < one.high for one in found)


def test_a_search_without_ranges_takes_the_methods_own(session: MergeSession) -> None:
    def score(state: Any) -> float:
        return -float(np.square(np.asarray(state["embed.weight"]) - THEIRS["embed.weight"]).sum())

    session.use("linear").search(score, budget=60)
    weight = chosen(session, "weight")
    assert weight.keys() == {"ours", "theirs"}
    assert abs(weight["ours"]) < 0.1 * abs(weight["theirs"])
    with pytest.raises(MergeError, match="no parameter to search over by itself"):
        session.use("ours").search(score, budget=5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("linear", {"normalize": (0, 1)}, "normalize is no number, so it has no range. Compare its values by a sweep"),
        ("ties", {"density": (0, 2)}, "density is 2, and must lie in 0 to 1"),
        ("ties", {"density": (1, 0)}, r"the range of density is \(1, 0\)"),
        ("ties", {"density": 0.5}, "the range of density is 0.5"),
        ("ties", {"density": (0, math.nan)}, "density is nan, and must be finite"),
        ("ties", {"densty": (0, 1)}, "Did you mean 'density'"),
        ("consensus", {"agreement": (0, 2.5)}, "agreement is 2.5, and must be a whole number"),
        ("ties", {"budget": 0}, "its budget is 0"),
    ],
)
def test_mistakes_in_a_search_cost_no_evaluation(
    session: MergeSession, method: str, options: dict[str, Any], message: str
) -> None:
    before = session.use(method).settings
    with pytest.raises(MergeError, match=message):
        session.search(lambda state: 1.0, **{"budget": 5, **options})
    assert len(session.tries) == 0
    assert session.settings is before


def test_scores_that_are_no_numbers_count_as_worst(session: MergeSession) -> None:
    """Most of the range diverges; the best is found beside it."""
    session.use("slerp")

    def score(state: Any) -> dict[str, float]:
        t = float(chosen(session, "t"))
        bad = math.nan if t < 0.3 else math.inf if t > 0.8 else -math.inf if t > 0.7 else 0.0
        return {"gain": -abs(t - 0.5) + bad, "loss": abs(t - 0.5) + bad}

    for metric, smallest in (("gain", False), ("loss", True)):
        best = session.search(score, budget=40, metric=metric, smallest=smallest, t=(0, 1))
        assert chosen(session, "t") == pytest.approx(0.5, abs=0.02)
        assert session.tries.best(metric, smallest=smallest).score(metric) == best.score(metric)
    tries = session.sweep(score, t=[0.1, 0.5, 0.9])
    assert [str(one).endswith("(counts as worst)") for one in tries] == [True, False, True]
    assert str(tries[1]).endswith("slerp(t=0.5): gain 0, loss 0")


def test_a_search_without_a_single_number_says_so_and_chooses_nothing(session: MergeSession) -> None:
    before = session.use("slerp").settings
    with pytest.raises(MergeError, match="none of 6 tries gave a finite score"):
        session.search(lambda state: math.nan, budget=6, t=(0, 1))
    assert session.settings == before
    assert len(session.tries) == 6
    with pytest.raises(MergeError, match="finite"):
        session.tries.best()
    with pytest.raises(MergeError, match=r"no try has a metric 'acc'. Known: score"):
        session.tries.best("acc")


def test_tries_of_other_metrics_do_not_count(session: MergeSession) -> None:
    session.use("linear").evaluate(lambda state: {"loss": 2.0})
    session.evaluate(lambda state: {"acc": 0.5})
    assert session.tries.best("acc").number == 2
    assert session.tries.best("loss", smallest=True).number == 1


def test_functions_that_fail_are_told_which_try_it_was(session: MergeSession) -> None:
    session.use("slerp")

    def fail(state: Any) -> float:
        if chosen(session, "t") == 0.5:
            raise ZeroDivisionError("no such class")
        return 1.0

    with pytest.raises(ZeroDivisionError, match="no such class") as caught:
        session.sweep(fail, t=[0.25, 0.5, 0.75])
    assert caught.value.__notes__ == ["in try 2: slerp(t=0.5)"]
    assert len(session.tries) == 1
    with pytest.raises(MergeError) as refused:
        session.use("ties", density=0.3).override("norm.*", "ours").evaluate(lambda state: None)
    assert refused.value.__notes__ == ["in try 2: ties(density=0.3); norm.*: ours()"]


@pytest.mark.parametrize("end", ["all", "error", "interrupt", "search", "a search without a number"])
def test_a_model_holds_what_is_chosen_when_trying_ends(session: MergeSession, end: str) -> None:
    into = {name: np.zeros_like(x) for name, x in BASE.items()}
    session.use("slerp", t=0.5)

    def score(state: Any) -> float:
        if chosen(session, "t") == 0.2 and end in ("error", "interrupt"):
            raise ZeroDivisionError if end == "error" else KeyboardInterrupt
        return math.nan if "without" in end else -abs(chosen(session, "t") - 0.3)

    if "search" in end:
        with nullcontext() if end == "search" else pytest.raises(MergeError, match="none of 6 tries"):
            session.search(score, into=into, budget=6, t=(0, 1))
    else:
        expected = {"error": ZeroDivisionError, "interrupt": KeyboardInterrupt}
        with pytest.raises(expected[end]) if end in expected else nullcontext():
            session.sweep(score, into=into, t=[0.1, 0.2, 0.3])
    assert (chosen(session, "t") == 0.5) == (end != "search")
    made = session.arrays()
    assert all(x.tobytes() == made[name].tobytes() for name, x in into.items())


def test_what_is_tried_cannot_be_undone_for_it_was_never_chosen(session: MergeSession) -> None:
    session.use("linear").use("slerp", t=0.1)
    session.sweep(lambda state: 1.0, t=[0.2, 0.3])
    assert session.undo().settings.default.method == "linear"  # type: ignore[union-attr]
    session.redo()
    best = session.search(lambda state: chosen(session, "t"), budget=8, t=(0, 1))
    assert session.settings == best.settings
    assert session.undo().settings.default.parameters == {"t": 0.1}  # type: ignore[union-attr]


def test_weights_that_cancel_are_a_hole_and_no_end(session: MergeSession) -> None:
    session.use("linear")
    session.search(lambda state: 1.0, budget=12, weight=(0, 1))
    assert len(session.tries) > 3
    with pytest.raises(MergeError, match="the weights sum to 0"):
        session.search(lambda state: 1.0, budget=12, weight=(0, 0))


def test_a_climb_keeps_to_its_budget() -> None:
    for budget in (1, 2, 7):
        seen: list[Any] = []

        def score(point: Any, seen: list[Any] = seen) -> float:
            seen.append(point)
            return -((point[0] - 0.3) ** 2)

        climb(score, [Dimension("t", 0, 1), Dimension("k", 1, 9, whole=True)], budget, 0)
        assert len(seen) == budget


_FIRST = """
import sys
import numpy as np
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
states = [StateInput(name, {"w": np.full(3, k, np.float32)}) for k, name in enumerate(("ours", "theirs"))]
session = MergeSession(None, states).use("linear")
assert "torch" not in sys.modules
print(session.evaluate(lambda state: float(state["w"].float().sum().item())).score())
"""


def test_functions_get_torch_tensors_also_before_anything_imported_torch() -> None:
    result = subprocess.run([sys.executable, "-c", _FIRST], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("1.5\n", "")
