"""The panels of the merge explorer on the side of Python: real sessions, real threads, a comm that catches messages."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theta_nb
from tests.conftest import GitSandbox
from tests.git.checks import assert_quiet
from tests.jupyter.conftest import Shell, new_shell
from tests.jupyter.test_explorers import CaughtComm, Front, comms, index_of
from tests.merging.conftest import AVERAGE, BASE, NAME, OURS, THEIRS, content, repo, same, weights
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.jupyter.evaluator import failure_of
from theta_nb.jupyter.tries_desk import exported

__all__ = ["comms", "new_shell", "repo"]

WEIGHT = "layer.2.weight"


def closeness(state: Any) -> dict[str, float]:
    """Best in the middle between ours and theirs."""
    wanted = 0.5 * OURS[WEIGHT].astype(np.float64) + 0.5 * THEIRS[WEIGHT]
    return {"loss": float(np.abs(np.asarray(state[WEIGHT], np.float64) - wanted).sum()), "count": len(state)}


class Panels:
    """An explorer, asked as its view asks it."""

    def __init__(self, explorer: Any) -> None:
        self.explorer = explorer
        self.front = Front(explorer)

    def ask(self, what: str, **details: Any) -> Any:
        """The answer, or what went wrong."""
        if "form" in details:
            details["form"] = json.dumps(details["form"])
        return self.front.ask(what, channel=what, **details)

    def state(self, panel: str) -> dict[str, Any]:
        """What a view would draw now."""
        found: dict[str, Any] = self.explorer._panels[panel]
        assert json.loads(json.dumps(found)) == _plain(found), "JSON types, and no NaN"
        return found

    def settled(self, panel: str, test: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The state of a panel, once it is as it should be."""
        deadline = time.monotonic() + 20
        while not test(self.state(panel)):
            assert time.monotonic() < deadline, self.state(panel)
            time.sleep(0.01)
        return self.state(panel)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


@pytest.fixture
def session(repo: GitSandbox) -> MergeSession:
    return theta_nb.Repository(repo.path).merge(NAME, "theirs").use("slerp", t=0.25)


@pytest.fixture
def panels(session: MergeSession) -> Iterator[Panels]:
    explorer = theta_nb.MergeExplorer(session, evaluate=closeness)
    yield Panels(explorer)
    explorer.close()


def axis(name: str, low: float, high: float, count: int, label: str = "") -> dict[str, Any]:
    return {"name": name, "label": label, "low": low, "high": high, "count": count}


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_an_evaluation_is_a_numbered_try(panels: Panels, session: MergeSession) -> None:
    assert panels.ask("evaluation.evaluate", auto=0) == {"failed": False}
    state = panels.state("evaluation")
    assert (state["function"], state["target"]) == ("closeness", "a state dict")
    assert state["last"]["metrics"] == session.tries.number(1).metrics == closeness(session.arrays())
    assert state["last"]["settings"]["choice"]["parameters"] == {"t": 0.25}
    panels.ask("evaluation.evaluate", auto=1)
    assert len(session.tries) == 1, "nobody pressed a button, and the score is known"
    panels.ask("evaluation.evaluate", auto=0)
    assert len(session.tries) == 2


def test_the_inputs_and_the_ancestor_have_scores(panels: Panels, session: MergeSession) -> None:
    panels.ask("evaluation.references")
    wanted = {label: closeness(state) for label, state in (("ours", OURS), ("theirs", THEIRS), ("original", BASE))}
    assert panels.state("evaluation")["references"] == wanted
    assert len(session.tries) == 0, "they are no tries"
    assert session.settings.default.parameters == {"t": 0.25}  # type: ignore[union-attr]


def test_the_model_of_the_notebook_holds_what_is_chosen(session: MergeSession) -> None:
    import torch

    model = {name: torch.zeros(array.shape) for name, array in OURS.items()}
    seen: list[int] = []

    def function(state: Any) -> float:
        seen.append(id(state))
        return float(state[WEIGHT].sum())

    panels = Panels(theta_nb.MergeExplorer(session, evaluate=function, into=model))
    panels.ask("evaluation.references")
    panels.ask("sweep.run", form={"axes": [axis("t", 0, 1, 3)], "mode": "line"})
    assert set(seen) == {id(model)}
    assert len(seen) == 6
    _eventually(lambda: np.array_equal(model[WEIGHT].numpy(), session.arrays()[WEIGHT]))
    panels.ask("sweep.adopt", number=3)
    assert session.settings.default.parameters == {"t": 1.0}  # type: ignore[union-attr]
    _eventually(lambda: np.array_equal(model[WEIGHT].numpy(), session.arrays()[WEIGHT]))
    panels.explorer.close()


def failing(state: Any) -> float:
    limit = 3
    return helper(limit)


def helper(limit: int) -> float:
    return limit / 0


def test_errors_of_the_function_are_its_own_lines(panels: Panels, session: MergeSession) -> None:
    panels.explorer.evaluate = failing
    assert panels.ask("evaluation.evaluate") == {"failed": True}
    failure = panels.state("evaluation")["failure"]
    assert failure["text"].startswith("ZeroDivisionError: division by zero")
    places = [place for place, _ in failure["lines"]]
    assert [place.split(", in ")[1] for place in places] == ["failing", "helper"], "and no line of ours"
    assert all(place.startswith("test_merge_panels.py, line ") for place in places)
    assert failure["lines"][1][1] == "return limit / 0"
    assert len(session.tries) == 0
    panels.explorer.evaluate = lambda state: "good"
    panels.ask("evaluation.evaluate")
    assert "must return a number" in panels.state("evaluation")["failure"]["text"]
    panels.explorer.evaluate = closeness
    panels.ask("evaluation.evaluate")
    assert panels.state("evaluation")["failure"] is None


def test_an_exit_or_no_function_is_said(panels: Panels, session: MergeSession) -> None:
    def leaving(state: Any) -> float:
        raise SystemExit(3)

    panels.explorer.evaluate = leaving
    panels.ask("evaluation.evaluate")
    assert "SystemExit(3)" in panels.state("evaluation")["failure"]["text"]
    panels.explorer.evaluate = None
    assert panels.state("evaluation")["function"] == ""
    assert "%%theta evaluate NAME" in str(panels.ask("evaluation.evaluate"))
    assert "%%theta evaluate NAME" in str(panels.ask("sweep.run", form={"axes": [axis("t", 0, 1, 3)], "mode": "line"}))


def test_a_library_line_is_shown_only_where_it_ends() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        failure = failure_of(error)
    assert failure.lines[0][0].startswith("test_merge_panels.py")
    assert failure.lines[-1][0].startswith("decoder.py")
    assert len(failure.lines) == 2


def test_a_function_that_never_ends_is_stopped(panels: Panels, session: MergeSession) -> None:
    begun = threading.Event()

    def forever(state: Any) -> float:
        begun.set()
        while True:
            with contextlib.suppress(Exception):  # also where it swallows every error
                time.sleep(0.001)

    panels.explorer.evaluate = forever
    panels.front.ask("evaluation.evaluate", channel="a", wait=False)
    assert begun.wait(10)
    panels.explorer._handle_custom_msg({"requests": [], "cancel": ["a"]}, [])
    panels.explorer.evaluate = closeness
    assert panels.ask("evaluation.evaluate") == {"failed": False}, "the next one has its turn"
    assert panels.state("evaluation")["failure"] is None
    assert len(session.tries) == 1


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_a_line_is_measured_and_a_point_adopted(panels: Panels, session: MergeSession) -> None:
    steps = len(session._steps)
    answer = panels.ask("sweep.run", form={"axes": [axis("t", 0, 1, 5)], "mode": "line"})
    assert answer == {"failed": False, "points": 5}
    state = panels.state("sweep")
    assert [point["values"] for point in state["points"]] == [[0], [0.25], [0.5], [0.75], [1]]
    assert (state["running"], state["total"], len(state["references"])) == (False, 5, 3)
    best = min(state["points"], key=lambda point: point["metrics"]["loss"])
    assert best["values"] == [0.5]
    assert len(session._steps) == steps, "a sweep is nothing to undo"
    panels.ask("sweep.adopt", number=best["number"])
    assert session.settings.default.parameters == {"t": 0.5}  # type: ignore[union-attr]
    assert session.undo().settings.default.parameters == {"t": 0.25}  # type: ignore[union-attr]


def test_a_grid_over_weights_of_inputs(panels: Panels, session: MergeSession) -> None:
    session.use("linear", normalize=False)
    axes = [axis("weight", 0, 1, 3, "ours"), axis("weight", 0, 1, 2, "theirs")]
    panels.ask("sweep.run", form={"axes": axes, "mode": "grid"})
    state = panels.state("sweep")
    assert [one["title"] for one in state["axes"]] == ["weight of ours", "weight of theirs"]
    assert [point["values"] for point in state["points"]] == [[a, b] for a in (0, 0.5, 1) for b in (0, 1)]
    given = session.tries.number(state["points"][3]["number"]).settings.default
    assert given is not None
    assert given.parameters == {"normalize": False, "weight": {"ours": 0.5, "theirs": 1.0}}


def test_two_parameters_along_a_line(panels: Panels, session: MergeSession) -> None:
    session.use("ties")
    axes = [axis("density", 1, 0.2, 3), axis("scale", 0.5, 1, 3)]
    panels.ask("sweep.run", form={"axes": axes, "mode": "line"})
    assert [point["values"] for point in panels.state("sweep")["points"]] == [[1, 0.5], [0.6, 0.75], [0.2, 1]]


def test_a_sweep_that_is_stopped_keeps_its_points(panels: Panels, session: MergeSession) -> None:
    def slow(state: Any) -> float:
        time.sleep(0.05)
        return 1.0

    panels.explorer.evaluate = slow
    form = json.dumps({"axes": [axis("t", 0, 1, 100)], "mode": "line"})
    panels.front.ask("sweep.run", channel="s", wait=False, form=form)
    panels.settled("sweep", lambda state: state["running"] and len(state["points"]) > 2)
    panels.explorer._handle_custom_msg({"requests": [], "cancel": ["s"]}, [])
    state = panels.settled("sweep", lambda state: not state["running"])
    assert 2 < len(state["points"]) < 100
    assert state["failure"] is None
    assert len(session.tries) == len(state["points"])


def test_an_error_in_the_middle_of_a_sweep_is_shown(panels: Panels, session: MergeSession) -> None:
    calls: list[int] = []

    def third(state: Any) -> float:
        calls.append(1)
        return 1 / (6 - len(calls))

    panels.explorer.evaluate = third
    answer = panels.ask("sweep.run", form={"axes": [axis("t", 0, 1, 9)], "mode": "line"})
    assert answer == {"failed": True, "points": 2}, "three references, two points, and then it fails"
    assert "ZeroDivisionError" in panels.state("sweep")["failure"]["text"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        pytest.param([], "a sweep has axes", id="a list"),
        pytest.param({"axes": [], "mode": "line"}, "one parameter or two", id="no axis"),
        pytest.param({"axes": [axis("t", 0, 1, 3)], "mode": "circle"}, "line or over a grid", id="mode"),
        pytest.param({"axes": [axis("tt", 0, 1, 3)], "mode": "line"}, "no parameter 'tt'", id="parameter"),
        pytest.param({"axes": [axis("t", 0, 1, 3, "ours")], "mode": "line"}, "no value of its own", id="label"),
        pytest.param({"axes": [axis("t", 0, math.nan, 3)], "mode": "line"}, "no number of JSON", id="nan"),
        pytest.param({"axes": [axis("t", 0, 1e400, 3)], "mode": "line"}, "no number of JSON", id="infinite"),
        pytest.param({"axes": [axis("t", 0, 1, 10**9)], "mode": "line"}, "how many", id="too many"),
        pytest.param({"axes": [axis("t", 0, 1, 3)] * 2, "mode": "grid"}, "both axes are t", id="twice"),
    ],
)
def test_sweeps_that_make_no_sense(panels: Panels, session: MergeSession, form: Any, said: str) -> None:
    assert said in str(panels.ask("sweep.run", form=form))
    assert len(session.tries) == 0


def test_values_are_checked_before_anything_is_measured(panels: Panels, session: MergeSession) -> None:
    session.use("ties")
    assert "0 to 1" in str(panels.ask("sweep.run", form={"axes": [axis("density", 0, 7, 3)], "mode": "line"}))
    session.reset()
    assert "no method is in use" in str(panels.ask("sweep.run", form={"axes": [axis("t", 0, 1, 3)], "mode": "line"}))
    assert len(session.tries) == 0


# --- tries ------------------------------------------------------------------------------------------------------------


def test_tries_of_cells_show_and_are_annotated(panels: Panels, session: MergeSession) -> None:
    session.evaluate(closeness)
    session.use("ties", density=0.5).evaluate(lambda state: {"score": math.nan, "more": math.inf})
    state = panels.settled("tries", lambda state: len(state["tries"]) == 2)
    assert state["metrics"] == ["loss", "count", "score", "more"]
    assert [one["short"] for one in state["tries"]] == ["slerp(t=0.25)", "ties(density=0.5)"]
    assert state["tries"][1]["metrics"] == {"score": "nan", "more": "inf"}
    panels.ask("tries.note", number=1, note="fine")
    panels.ask("tries.pin", number=1, pinned=1)
    assert (session.tries.number(1).note, session.tries.number(1).pinned) == ("fine", True)
    assert panels.settled("tries", lambda state: state["tries"][0]["pinned"])["tries"][0]["note"] == "fine"
    panels.ask("tries.restore", number=1)
    assert session.settings.default.method == "slerp"  # type: ignore[union-attr]
    assert "no try 7" in str(panels.ask("tries.restore", number=7))


def test_two_tries_are_compared(panels: Panels, session: MergeSession) -> None:
    session.evaluate(closeness)
    session.use("slerp", t=0.75).override("layer.0.*", "theirs").evaluate(closeness)
    found = panels.ask("tries.compare", number=1, other=2)
    assert ["t", "0.25", "0.75"] in found["choices"]
    assert ["layer.0.*: method", "", "theirs"] in found["choices"]
    assert (found["parameters"], sorted(found["names"])) == (2, ["layer.0.weight", WEIGHT])
    assert [name for name, _, _ in found["metrics"]] == ["loss", "count"]


def test_exports_choose_the_same(panels: Panels, session: MergeSession, repo: GitSandbox, monkeypatch: Any) -> None:
    import re

    session.use("ties", density=[0.2, 0.8], weight={"ours": 1.0, "theirs": 0.5}).evaluate(closeness)
    session.override(re.compile(r"layer\.[01]\..*"), "theirs").override("layer.3.*", "slerp", t=0.5)
    monkeypatch.chdir(repo.path)
    code = panels.ask("tries.export", kind="python", number=0)["text"]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["session"].settings == session.settings
    yaml = panels.ask("tries.export", kind="yaml", number=0)["text"]
    from theta_nb.engine.merging.recipe import Recipe

    assert Recipe.parse(yaml) == session.recipe()
    assert "has one method for everything" in str(panels.ask("tries.export", kind="mergekit", number=0))
    session.restore(session.tries.number(1).settings).use("ties", density=0.3)
    from theta_nb.engine.merging.mergekit import import_mergekit

    text = exported(session, session.settings, "mergekit")
    assert import_mergekit(text).settings.default.method == "ties"  # type: ignore[union-attr]
    assert "no export called" in str(panels.ask("tries.export", kind="exe", number=0))


def test_what_sliders_of_blocks_did_is_exported_as_well(
    panels: Panels, session: MergeSession, repo: GitSandbox, monkeypatch: Any
) -> None:
    edits = [{"method": "slerp", "parameters": {"t": 0.9}, "block": "layer.2"}]
    answer = panels.front.ask("choose", channel="c", form=json.dumps(edits))
    assert not isinstance(answer, Exception), answer
    monkeypatch.chdir(repo.path)
    names: dict[str, Any] = {}
    exec(exported(session, session.settings, "python"), names)
    assert same(names["session"].arrays(), session.arrays())


# --- keeping ----------------------------------------------------------------------------------------------------------


def test_a_merge_is_rehearsed_and_committed(panels: Panels, session: MergeSession, repo: GitSandbox) -> None:
    session.use("linear").evaluate(closeness)
    panels.ask("keeping.look")
    state = panels.state("keeping")
    assert (state["path"], state["branch"], state["problem"]) == (NAME, "main", "")
    message = panels.ask("keeping.suggest")["message"]
    assert message.splitlines()[0] == "Merge branch 'theirs'"
    assert "linear for 1 parameter that both sides changed." in message
    assert "Measured: loss" in message
    before = repo("for-each-ref")
    found = panels.ask("keeping.rehearse", branch="")
    assert (found["tensors"], found["changed"], found["files"]) == (6, 2, ["theirs.txt"])
    assert repo("for-each-ref") == before
    made = panels.ask("keeping.commit", branch="", message=message)
    assert made["commit"] == repo("rev-parse", "HEAD").strip()
    assert made["parents"] == repo("rev-parse", "HEAD~1", "theirs").split()
    assert same(content(repo), AVERAGE)
    trailers = repo("log", "-1", "--format=%(trailers)")
    assert f"Theta-Merge: {NAME}: linear(" in trailers
    assert "Theta-Metric: loss=" in trailers
    assert panels.state("keeping")["committed"] == [made]
    assert "HEAD is no longer" in panels.state("keeping")["problem"]
    assert "HEAD is another commit" in str(panels.ask("keeping.commit", branch="", message="again"))
    assert_quiet(repo)


def test_a_point_that_the_view_adopted_keeps_its_metrics(
    panels: Panels, session: MergeSession, repo: GitSandbox
) -> None:
    session.use("task_arithmetic")
    panels.ask("sweep.run", form={"axes": [axis("scale", 0, 1, 3)], "mode": "line"})
    shown = panels.settled("tries", lambda state: len(state["tries"]) == 3)["tries"][1]
    panels.front.ask("restore", channel="c", form=json.dumps(shown["settings"]))
    panels.ask("keeping.commit", branch="", message="Kept")
    assert f"Theta-Metric: loss={shown['metrics']['loss']}" in repo("log", "-1", "--format=%(trailers)")


def test_another_branch_and_what_is_in_the_way(panels: Panels, session: MergeSession, repo: GitSandbox) -> None:
    repo.write(NAME, (repo.path / NAME).read_bytes()[:-4] + b"\0\0\0\0")
    panels.ask("keeping.look")
    assert "has changes that are not committed" in panels.state("keeping")["problem"]
    assert "has changes that are not committed" in str(panels.ask("keeping.commit", branch="", message="no"))
    assert "already" in str(panels.ask("keeping.commit", branch="theirs", message="no"))
    assert "message is empty" in str(panels.ask("keeping.commit", branch="x", message=" \n"))
    made = panels.ask("keeping.commit", branch="merged", message="On a branch of its own")
    assert (made["branch"], made["own"]) == ("merged", True)
    assert repo("rev-parse", "merged").strip() == made["commit"]
    session.reset()
    assert "waits for a choice" in str(panels.ask("keeping.commit", branch="more", message="no"))


def test_a_merge_of_git_is_ended_elsewhere(panels: Panels, session: MergeSession, repo: GitSandbox) -> None:
    assert index_of(panels.explorer)["title"] == f"theirs in {NAME}"
    repo.run("merge", "theirs", check=False)
    panels.ask("keeping.look")
    assert panels.state("keeping")["problem"].startswith("git is in a merge. End it here with '%theta merge'")


def test_a_session_is_saved_and_reopened(
    panels: Panels, session: MergeSession, repo: GitSandbox, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    session.evaluate(closeness)
    assert panels.ask("keeping.save", path="mine.json") == {"path": str(tmp_path / "mine.json")}
    assert len(theta_nb.Repository(repo.path).merge(NAME, "theirs", reopen=tmp_path / "mine.json").tries) == 1
    assert "End it with .json" in str(panels.ask("keeping.save", path="model.safetensors"))
    assert "cannot be written" in str(panels.ask("keeping.save", path="nowhere/x.json"))


def test_nothing_is_lost_when_the_kernel_dies(panels: Panels, session: MergeSession, repo: GitSandbox) -> None:
    session.use("ties", density=0.5).evaluate(closeness)
    session.tries.annotate(1, note="good")
    [file] = _eventually(lambda: list((repo.path / ".git/theta/merges").glob("*.json")))
    _eventually(lambda: '"good"' in file.read_text())
    # Another kernel: nothing was closed, and it begins as the notebook does.
    again = theta_nb.Repository(repo.path).merge(NAME, "theirs").use("linear")
    later = Panels(theta_nb.MergeExplorer(again, evaluate=closeness))
    found = later.state("keeping")["reopenable"]
    assert (found["tries"], found["short"].startswith("ties(")) == (1, True)
    again.evaluate(closeness)
    _eventually(lambda: len(list((repo.path / ".git/theta/merges").glob("*.json"))) == 2)
    later.ask("keeping.reopen")
    assert again.settings == session.settings
    assert [one.note for one in again.tries] == ["", "good"]
    assert later.state("keeping")["reopenable"] is None
    later.explorer.close()


def _eventually(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def test_a_broken_autosave_is_no_obstacle(session: MergeSession, repo: GitSandbox) -> None:
    session.use("ties", density=0.5).evaluate(closeness)
    first = theta_nb.MergeExplorer(session)
    session.use("ties", density=0.6)
    first.close()
    [file] = (repo.path / ".git/theta/merges").glob("*.json")
    file.write_text("{")
    later = Panels(theta_nb.MergeExplorer(theta_nb.Repository(repo.path).merge(NAME, "theirs")))
    assert later.state("keeping")["reopenable"] is None
    later.explorer.close()


def test_a_session_of_state_dicts_has_nowhere_to_go() -> None:
    sources = [StateInput(label, weights(2, seed=seed)) for label, seed in (("ours", 1), ("theirs", 2))]
    panels = Panels(theta_nb.MergeExplorer(MergeSession(StateInput("original", BASE), sources).use("linear")))
    assert "nowhere to commit" in panels.state("keeping")["nowhere"]
    assert "nowhere to commit" in str(panels.ask("keeping.commit", branch="", message="x"))
    panels.explorer.close()


def test_panels_refuse_what_they_do_not_know(panels: Panels) -> None:
    for panel in ("evaluation", "sweep", "tries", "keeping"):
        assert "cannot ask for" in str(panels.ask(f"{panel}.delete"))


def test_closing_lets_go_of_function_and_model(session: MergeSession) -> None:
    import gc
    import weakref

    class Model(dict[str, Any]):
        pass

    model = Model({name: np.zeros_like(array) for name, array in OURS.items()})
    panels = Panels(theta_nb.MergeExplorer(session, evaluate=closeness, into=model))
    panels.ask("evaluation.evaluate")
    panels.explorer.close()
    assert session.tries._watchers == []
    session.materialize({name: np.zeros_like(array) for name, array in OURS.items()})  # the last model is kept warm
    gone = weakref.ref(model)
    del model, panels
    CaughtComm.caught.clear()
    gc.collect()
    assert gone() is None


def test_a_function_of_a_cell_evaluates_in_open_explorers(new_shell: Callable[..., Shell], repo: GitSandbox) -> None:
    shell = new_shell(repo.path)
    shell("%%theta evaluate early\ndef early(state): return 1.0")
    session = shell("%theta merge theirs --method linear")
    panels = Panels(theta_nb.MergeExplorer(session))
    assert panels.state("evaluation")["function"] == "early"
    shell("%%theta evaluate later\ndef later(state): return 2.0")
    assert panels.state("evaluation")["function"] == "later"
    panels.ask("evaluation.evaluate")
    assert session.tries.number(1).metrics == {"score": 2.0}
    panels.explorer.close()
