"""The explorers on the side of Python, their messages caught where they would leave for the browser."""

from __future__ import annotations

import base64
import gc
import itertools
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
import traitlets
from comm.base_comm import BaseComm

import theta_nb
from tests.conftest import GitSandbox
from theta_nb.engine.diff import Parameter, ParameterChange
from theta_nb.jupyter import diff_desk
from theta_nb.jupyter.answers import MAX_MESSAGE_NBYTES, Answer, Request, messages, requests_of
from theta_nb.jupyter.diff_desk import COLUMNS
from theta_nb.jupyter.worker import Stop, Worker
from theta_nb.report.checkpoint_diff import CheckpointDiff, Side

NAME = "model.safetensors"


class CaughtComm(BaseComm):
    """A comm whose messages stay here."""

    caught: list[tuple[dict[str, Any], list[bytes]]]

    def publish_msg(
        self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
    ) -> None:
        CaughtComm.caught.append((data or {}, [bytes(buffer) for buffer in buffers or []]))


class Front:
    """What a browser would do: asks, and waits for the answer."""

    count = itertools.count()

    def __init__(self, widget: Any) -> None:
        self.widget = widget

    def ask(self, what: str, *, channel: str = "c", wait: bool = True, **details: Any) -> Any:
        """The result of a request with its arrays in place, or what went wrong."""
        name = f"n{next(Front.count)}"
        request = {"id": name, "channel": channel, "what": what, **details}
        self.widget._handle_custom_msg({"requests": [request], "cancel": []}, [])
        return self.answer(name) if wait else name

    def answer(self, name: str) -> Any:
        """The answer to a request that was sent."""
        parts: dict[int, bytes] = {}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for data, buffers in list(CaughtComm.caught):
                content = data.get("content", {})
                if content.get("id") != name or "progress" in content:
                    continue
                if "error" in content:
                    return RuntimeError(content["error"])
                parts[content["part"]] = buffers[0]
                if len(parts) == content["parts"]:
                    last = next(
                        d["content"]
                        for d, _ in CaughtComm.caught
                        if "sizes" in d.get("content", {}) and d["content"]["id"] == name
                    )
                    whole = np.frombuffer(b"".join(parts[i] for i in sorted(parts)), "<f4")
                    arrays = np.split(whole, np.cumsum(last["sizes"])[:-1])
                    return _with_arrays(last["result"], arrays)
            time.sleep(0.005)
        raise AssertionError(f"no answer to {name}")


def _with_arrays(value: Any, arrays: list[Any]) -> Any:
    if isinstance(value, dict) and set(value) == {"array", "shape"}:
        return arrays[value["array"]].reshape(value["shape"])
    if isinstance(value, dict):
        return {key: _with_arrays(inner, arrays) for key, inner in value.items()}
    return value


@pytest.fixture(autouse=True)
def comms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Catch messages; afterwards no widget and no thread is left."""
    CaughtComm.caught = []
    monkeypatch.setattr("comm.create_comm", CaughtComm)
    yield
    ipywidgets.Widget.close_all()
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("theta-explorer") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "threads are left"
        time.sleep(0.01)


@pytest.fixture
def repo(grown: GitSandbox) -> theta_nb.Repository:
    return theta_nb.Repository(grown.path)


@pytest.fixture
def diff(repo: theta_nb.Repository) -> CheckpointDiff:
    return repo.diff(NAME, "HEAD~1", "HEAD")


def index_of(widget: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(widget._index))
    return found


def test_the_view_gets_names_places_and_numbers(diff: CheckpointDiff) -> None:
    explorer = theta_nb.DiffExplorer(diff)
    index = index_of(explorer)
    assert index["names"] == [change.name for change in diff.parameters]
    numbers = np.frombuffer(explorer._numbers, "<f4").reshape(len(COLUMNS), len(index["names"]))
    for i, change in enumerate(diff.parameters):
        assert index["statuses"][index["status"][i]] == change.status
        if change.statistics is not None:
            assert numbers[0, i] == np.float32(change.statistics.relative)
            assert numbers[COLUMNS.index("distance"), i] == np.float32(1 - change.statistics.cosine)
        else:
            assert np.isnan(numbers[:, i]).all()


def test_a_parameter_is_answered_for_in_depth(diff: CheckpointDiff, grown: GitSandbox) -> None:
    from safetensors.numpy import load

    front = Front(theta_nb.DiffExplorer(diff))
    name = "encoder.1.weight"
    new = load((grown.path / NAME).read_bytes())[name]
    assert diff[name].statistics is not None
    found = front.ask("parameter", name=name)
    for side in ("old", "new", "delta"):
        assert found["histograms"][side]["counts"].sum() == pytest.approx(1)
    assert dict(found["facts"])["changed"] == "100 % of 128"
    picture = front.ask("picture", name=name)
    assert picture["rms"].shape == (8, 16)
    np.testing.assert_allclose(picture["rms"], 2.0, rtol=1e-4)
    np.testing.assert_allclose(picture["columns"], 2.0, rtol=1e-4)
    window = front.ask("window", name=name, row=100, column=3)
    assert (window["row"], window["column"]) == (2, 3), "a window that would stick out is moved inside"
    np.testing.assert_array_equal(window["new"], new[2:8, 3:13])
    np.testing.assert_allclose(window["new"] - window["old"], 2.0, rtol=1e-5)
    spectrum = front.ask("spectrum", name=name)
    assert spectrum["values"][0] == pytest.approx(2.0 * np.sqrt(128), rel=1e-4)
    assert spectrum["stable_rank"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("what", "details", "said"),
    [
        pytest.param("picture", {"name": "nothing"}, "there is no parameter nothing", id="name"),
        pytest.param("picture", {"name": "head.weight"}, "unchanged", id="unchanged"),
        pytest.param("spectrum", {"name": "encoder.1.bias"}, "no matrix", id="vector"),
        pytest.param("__class__", {"name": "head.weight"}, "cannot ask for", id="what"),
    ],
)
def test_what_cannot_be_answered_says_why(diff: CheckpointDiff, what: str, details: dict[str, Any], said: str) -> None:
    answer = Front(theta_nb.DiffExplorer(diff)).ask(what, **details)
    assert isinstance(answer, RuntimeError)
    assert said in str(answer)


def test_malformed_messages_are_left_alone(diff: CheckpointDiff) -> None:
    front = Front(theta_nb.DiffExplorer(diff))
    for content in (
        None,
        3,
        [],
        {"requests": 5},
        {"requests": [{}, {"id": 1}, {"id": "a", "channel": "", "what": "x"}]},
    ):
        front.widget._handle_custom_msg(content, [])
    assert front.ask("window", name="encoder.1.bias", row=-5, column="x")["row"] == 0


def test_a_diff_that_is_not_measured_appears_at_once_and_is_measured_on_demand(repo: theta_nb.Repository) -> None:
    explorer = theta_nb.DiffExplorer(repo.diff(NAME, "HEAD~1", "HEAD", measure=False))
    assert index_of(explorer)["measured"] is False
    assert np.isnan(np.frombuffer(explorer._numbers, "<f4")).all()
    Front(explorer).ask("measure")
    assert explorer.diff.measured == "scalars"
    assert index_of(explorer)["measured"] is True
    assert not np.isnan(np.frombuffer(explorer._numbers, "<f4")).all()
    assert index_of(theta_nb.DiffExplorer(repo.diff(NAME, "HEAD~1", measure=False), measure=False))["measure"] is False


def test_python_and_the_view_share_the_selection(diff: CheckpointDiff) -> None:
    explorer = theta_nb.DiffExplorer(diff, metric="changed_share", selection=["encoder.1.bias"])
    assert [row["name"] for row in explorer.to_table()] == ["encoder.1.bias"]
    explorer.set_state({"selection": ["encoder.1.weight", "head.bias"]})
    assert explorer.selection == ["encoder.1.weight", "head.bias"]
    assert explorer.to_table()[0]["changed_share"] == 1.0
    explorer.selection = []
    assert [row["name"] for row in explorer.to_table()] == [change.name for change in diff]
    with pytest.raises(traitlets.TraitError, match="no parameter 'nothing'"):
        explorer.selection = ["nothing"]
    with pytest.raises(traitlets.TraitError):
        explorer.pins = ["encoder.1.weight", "encoder.1.bias", "head.bias"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(
            lambda d, h: theta_nb.DiffExplorer(d, metrics="relative"),
            "no option 'metrics'; did you mean 'metric'",
            id="near",
        ),
        pytest.param(lambda d, h: theta_nb.DiffExplorer(d, zzz=1), "Options are filter, layout", id="far"),
        pytest.param(lambda d, h: theta_nb.DiffExplorer(h), "shows a diff, as repo.diff", id="no diff"),
        pytest.param(lambda d, h: theta_nb.HistoryExplorer(d), "shows a history, as repo.history", id="no history"),
        pytest.param(
            lambda d, h: theta_nb.HistoryExplorer(h, selected=1), "did you mean 'selected_commits'", id="history"
        ),
    ],
)
def test_wrong_arguments_are_explained(repo: theta_nb.Repository, make: Callable[..., Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        make(repo.diff(NAME, "HEAD~1"), repo.history(NAME))


def test_every_trait_says_what_it_is() -> None:
    for kind in (theta_nb.DiffExplorer, theta_nb.HistoryExplorer):
        assert all(kind.options().values())
        own = [trait for name, trait in kind.class_traits(sync=True).items() if name in kind.__dict__]
        assert all(trait.help for trait in own)


def test_the_history_answers_with_its_matrix_and_any_diff(repo: theta_nb.Repository) -> None:
    history = repo.history(NAME)
    explorer = theta_nb.HistoryExplorer(history)
    index = index_of(explorer)
    assert [commit["id"] for commit in index["commits"]] == [step.commit.id for step in reversed(history.steps)]
    assert all(parent < i for i, commit in enumerate(index["commits"]) for parent in commit["parents"])
    assert sum(commit["stored"] for commit in index["commits"]) == history.stored
    front = Front(explorer)
    found = front.ask("matrix", by="parameter")
    matrix = history.matrix("parameter")
    assert found["layers"] == list(matrix.layers)
    assert found["values"].shape == (len(matrix.layers), len(history))
    at = [commit["id"] for commit in index["commits"]].index(matrix.commits[-1].id)
    np.testing.assert_array_equal(found["values"][:, at], [row[-1] for row in matrix.values])
    first = [row * len(history) for row in range(len(matrix.layers))]
    assert found["added"] == first, "the first commit brought everything, and no other one anything"
    front.ask("measure")
    assert explorer.history.measured
    assert front.ask("matrix", by="block")["measured"] is True
    old, new = index["commits"][0]["id"], index["commits"][-1]["id"]
    opened = front.ask("diff", old=old, new=new)
    inner = json.loads(zlib.decompress(base64.b64decode(opened["index"])))
    assert old[:8] in inner["title"]
    assert inner["measured"] is False
    assert not np.isnan(front.ask("diff.measure")["numbers"]).all()
    assert front.ask("diff.picture", name="encoder.1.weight")["shape"] == [8, 16]
    assert explorer.diff is not None
    assert explorer.diff.measured == "scalars"
    assert "no commit" in str(front.ask("diff", old="ffffffff", new=new))


def test_selected_commits_are_put_in_order(repo: theta_nb.Repository) -> None:
    history = repo.history(NAME)
    explorer = theta_nb.HistoryExplorer(history)
    newest, oldest = history[0].commit, history[-1].commit
    explorer.selected_commits = [newest.short, oldest.id]
    assert explorer.selected_commits == [oldest.id, newest.id]
    assert explorer.open_diff().diff.old.label == oldest.short
    explorer.selected_commits = [newest.id]
    assert explorer.open_diff().diff.new.label == newest.short
    explorer.selected_commits = [oldest.id]
    with pytest.raises(theta_nb.ThetaError, match="no two commits"):
        explorer.open_diff()
    with pytest.raises(traitlets.TraitError, match="no commit"):
        explorer.selected_commits = ["zzz"]


def test_a_saved_notebook_shows_something(repo: theta_nb.Repository, diff: CheckpointDiff) -> None:
    for explorer, title in (
        (theta_nb.DiffExplorer(diff), "encoder"),
        (theta_nb.HistoryExplorer(repo.history(NAME)), "train block 1"),
    ):
        made = explorer._repr_mimebundle_()
        assert made is not None
        bundle, _ = made
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert title in bundle["text/html"]
        assert title in bundle["text/plain"]
        assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


def test_a_cell_has_the_stand_in_and_then_the_widget(
    repo: theta_nb.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.core.display_functions.publish_display_data", lambda data, *_: shown.append(data))
    explorer = theta_nb.HistoryExplorer(repo.history(NAME))
    explorer._ipython_display_()
    still, widget = shown
    assert f"id='theta-{explorer.model_id}'" in still["text/html"]
    assert "train block 1" in still["text/plain"]
    assert widget.keys() == {"application/vnd.jupyter.widget-view+json"}, "no text that a page would show twice"


def test_a_checkpoint_without_changes_is_shown_too(repo: theta_nb.Repository) -> None:
    explorer = theta_nb.DiffExplorer(repo.diff(NAME, "HEAD", "HEAD"))
    assert explorer.to_table() == []
    assert index_of(explorer)["measured"] is True
    made = explorer._repr_mimebundle_()
    assert made is not None
    assert "image/png" not in made[0]


# --- size and speed ---------------------------------------------------------------------------------------------------


def large_diff(count: int) -> CheckpointDiff:
    made = []
    for number in range(count):
        name = f"model.layers.{number // 10}.self_attn.part_{number % 10}_proj.weight"
        made.append(
            ParameterChange(
                "modified",
                Parameter(name, "bfloat16", (4096, 4096), b"1"),
                Parameter(name, "bfloat16", (4096, 4096), b"2"),
            )
        )
    return CheckpointDiff(Side("m", "a"), Side("m", "b"), tuple(made))


@pytest.mark.parametrize("count", [1000, 20_000, 25_000])
def test_messages_stay_below_a_megabyte(count: int) -> None:
    explorer = theta_nb.DiffExplorer(large_diff(count))
    for data, buffers in CaughtComm.caught:
        assert len(json.dumps(data)) + sum(map(len, buffers)) <= MAX_MESSAGE_NBYTES
    assert sum(len(buffer) for _, buffers in CaughtComm.caught for buffer in buffers) > 4 * count
    assert index_of(explorer)["left_out"] == max(0, count - diff_desk.MOST)


def test_large_answers_are_cut_into_parts() -> None:
    answer = Answer()
    answer.result = {"a": answer.array(np.arange(600_000)), "b": answer.array([7.0])}
    found = list(messages(Request("1", "c", "matrix"), answer))
    assert len(found) == 3
    assert all(len(buffers[0]) <= MAX_MESSAGE_NBYTES for _, buffers in found)
    whole = np.frombuffer(b"".join(buffers[0] for _, buffers in found), "<f4")
    assert found[-1][0]["sizes"] == [600_000, 1]
    np.testing.assert_array_equal(whole, [*range(600_000), 7])


def test_requests_are_bounded() -> None:
    many, cancelled = requests_of(
        {"requests": [{"id": "a", "channel": "b", "what": "c"}] * 1000, "cancel": ["x"] * 1000}
    )
    assert len(many) == len(cancelled) == 64
    long, _ = requests_of({"requests": [{"id": "a" * 5000, "channel": "b", "what": "c"}]})
    assert long == []


# --- threads and memory -----------------------------------------------------------------------------------------------


def test_newer_work_stops_older_work() -> None:
    worker = Worker(1)
    begun, stopped, done = threading.Event(), threading.Event(), threading.Event()

    def endless(stop: Stop) -> None:
        begun.set()
        try:
            while True:
                stop()
                time.sleep(0.001)
        finally:
            stopped.set()

    worker.submit("channel", endless)
    assert begun.wait(10)
    worker.submit("channel", lambda stop: done.set())
    assert stopped.wait(10)
    assert done.wait(10)
    worker.close()
    worker.submit("channel", lambda stop: pytest.fail("closed"))


def test_an_unexpected_error_reaches_the_view(diff: CheckpointDiff, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = theta_nb.DiffExplorer(diff)
    monkeypatch.setattr(explorer._desk, "answer", lambda *arguments: 1 / 0)
    assert str(Front(explorer).ask("picture", name="x")) == "ZeroDivisionError: division by zero"


def test_closing_lets_go_of_everything(repo: theta_nb.Repository, tmp_path: Path) -> None:
    import weakref

    for _ in range(3):
        explorer = theta_nb.DiffExplorer(repo.diff(NAME, "HEAD~1", "HEAD"))
        Front(explorer).ask("picture", name="encoder.1.weight")
        values = weakref.ref(explorer.diff._values)
        other = theta_nb.HistoryExplorer(repo.history(NAME))
        Front(other).ask("diff", old=other.history[-1].commit.id, new=other.history[0].commit.id)
        opened = weakref.ref(other.diff._values)  # type: ignore[union-attr]
        explorer.close()
        other.close()
        gc.collect()
        assert values() is None, "the sources, their files and buffers are free"
        assert opened() is None


def test_closing_leaves_no_widget_behind(repo: theta_nb.Repository) -> None:
    before = set(ipywidgets.widgets.widget._instances)
    shared = ipywidgets.Layout(width="50%")
    explorer = theta_nb.DiffExplorer(repo.diff(NAME, "HEAD~1"), layout=shared)
    other = theta_nb.HistoryExplorer(repo.history(NAME))
    explorer.close()
    other.close()
    other.close()
    assert set(ipywidgets.widgets.widget._instances) - before == {shared.model_id}, "what was handed in stays"


def test_two_explorers_answer_for_themselves(repo: theta_nb.Repository) -> None:
    one = theta_nb.DiffExplorer(repo.diff(NAME, "HEAD~1", "HEAD"))
    two = theta_nb.DiffExplorer(replace(one.diff, parameters=one.diff.parameters[:2]))
    assert Front(one).ask("picture", name="encoder.1.weight")["shape"] == [8, 16]
    assert "no parameter" in str(Front(two).ask("picture", name="head.weight"))
    one.selection = ["encoder.1.weight"]
    assert two.selection == []
