"""MergeExplorer on the side of Python, its messages caught where they would leave for the browser."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
import traitlets

import theta_nb
from tests.jupyter.test_explorers import CaughtComm, Front, comms, index_of
from theta_nb.engine.merging.choices import Choice, Override, Settings
from theta_nb.engine.merging.edits import covering, edited, edits_of
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.recipe import settings_json
from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError
from theta_nb.jupyter.answers import MAX_MESSAGE_NBYTES
from theta_nb.jupyter.merge_index import FACTS, OUTCOME

__all__ = ["comms"]  # the fixture that catches messages

NAMES = [f"encoder.layer.{k}.{part}" for k in range(4) for part in ("attention.query.weight", "attention.query.bias")]
NAMES += ["embeddings.word.weight", "head.weight", "head.bias", "steps"]


def states(seed: int = 0, names: list[str] = NAMES) -> list[dict[str, Any]]:
    """An ancestor and two that changed all of it but the head's bias, which theirs lacks."""
    random = np.random.default_rng(seed)
    base = {name: random.normal(size=(6, 4)).astype(np.float32) for name in names}
    out = [base, *({n: v + random.normal(size=v.shape).astype(np.float32) for n, v in base.items()} for _ in "ab")]
    if "steps" in base:
        for k, state in enumerate(out):
            state["steps"] = np.array([k])
    out[2].pop("head.bias", None)
    return out


def new_session(**options: Any) -> MergeSession:
    base, ours, theirs = states(**options)
    return MergeSession(StateInput("original", base), [StateInput("ours", ours), StateInput("theirs", theirs)])


@pytest.fixture
def session() -> MergeSession:
    return new_session()


def settled(explorer: Any) -> dict[str, Any]:
    """What the view is told is chosen, once that is what the session says."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if explorer._chosen["settings"] == settings_json(explorer.session.recipe().settings):
            return dict(explorer._chosen)
        time.sleep(0.005)
    raise AssertionError(f"the view still has {explorer._chosen['short']}")


def numbers(front: Front, what: str = "numbers", **details: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rows of an answer by name, and the choices."""
    found = front.ask(what, **details)
    assert not isinstance(found, Exception), found
    index = index_of(front.widget)
    return dict(zip(index["outcome"], found["numbers"], strict=True)), found["choices"]


def gone(kept: list[weakref.ref[Any]]) -> bool:
    """Whether nothing is left, once the threads that were told to stop have done so."""
    deadline = time.monotonic() + 10
    while any(one() is not None for one in kept) and time.monotonic() < deadline:
        gc.collect()
    return all(one() is None for one in kept)


def form(*edits: dict[str, Any]) -> str:
    return json.dumps(edits)


def test_numbers_are_those_of_the_preview(session: MergeSession) -> None:
    front = Front(theta_nb.MergeExplorer(session.use("slerp", t=0.3)))
    assert front.ask("measure") == {}
    index = index_of(front.widget)
    assert index["outcome"][: len(OUTCOME)] == list(OUTCOME)
    opening = front.ask("opening")
    facts = dict(zip(index["facts"], opening["facts"], strict=True))
    rows, choices = numbers(front)
    preview = session.preview()
    for i, name in enumerate(index["names"]):
        row = preview[name]
        assert choices[int(rows["choice"][i])]["name"] == row.choice
        assert bool(rows["open"][i]) == row.open
        if row.distances is None:
            assert np.isnan(rows["norm"][i])
            continue
        assert rows["norm"][i] == np.float32(row.norm)
        told = [rows["moved"][i], *(rows[f"to {k}"][i] for k in (0, 1))]
        assert [value for value in told if not np.isnan(value)] == [np.float32(d) for d in row.distances]
        if row.cosines:
            assert facts["cosine"][i] == np.float32(row.cosines[0])
    _, ours, theirs = states()
    at = index["names"].index("head.weight")
    apart = np.linalg.norm(ours["head.weight"] - theirs["head.weight"])
    assert facts["apart"][at] == pytest.approx(apart, rel=1e-5)
    assert facts["norm 1"][at] == pytest.approx(np.linalg.norm(theirs["head.weight"]), rel=1e-5)
    assert facts[FACTS[0]][at] > 0


def test_what_is_dragged_is_not_chosen(session: MergeSession) -> None:
    front = Front(theta_nb.MergeExplorer(session.use("linear")))
    front.ask("measure")
    before, _ = numbers(front)
    draft, _ = numbers(front, "preview", form=form({"method": "slerp", "parameters": {"t": 0.9}}))
    assert not np.array_equal(draft["norm"], before["norm"], equal_nan=True)
    assert session.settings.default == Choice("linear", {})
    assert front.ask("choose", form=form({"method": "slerp", "parameters": {"t": 0.9}})) == {}
    after, _ = numbers(front)
    assert np.array_equal(after["norm"], draft["norm"], equal_nan=True)
    assert settled(front.widget)["undo"]
    front.ask("undo")
    assert session.settings.default == Choice("linear", {})
    front.ask("redo")
    front.ask("reset")
    assert settled(front.widget)["open"] == len(session.open) > 0


def test_what_is_quick_is_answered_before_anything_else_happens(session: MergeSession) -> None:
    explorer = theta_nb.MergeExplorer(session.measure())
    front = Front(explorer)

    def threads(method: str) -> str:
        """Who answers a preview: the thread that took the request, or another one."""
        said: list[str] = []
        send, explorer.send = explorer.send, lambda *what: (said.append(threading.current_thread().name), send(*what))
        try:
            front.ask("preview", form=form({"method": method, "parameters": {}}))
        finally:
            explorer.send = send
        return said[0]

    here = threading.current_thread().name
    assert [threads("linear") == here for _ in range(2)] == [False, True], "the first one tells how long it takes"
    assert threads("slerp") != here
    held, done = threading.Event(), threading.Event()

    def compute() -> None:
        with explorer.lock:
            held.set()
            done.wait(10)

    other = threading.Thread(target=compute)
    other.start()
    held.wait(10)
    threading.Timer(0.1, done.set).start()
    assert threads("slerp") != here, "a kernel does not wait for what computes"
    other.join()
    explorer.close()


@pytest.mark.parametrize("wrong", ["{", "3", '["x"]', "[" * 2000])
def test_nonsense_for_a_preview_is_an_answer(session: MergeSession, wrong: str) -> None:
    explorer = theta_nb.MergeExplorer(session.measure())
    front = Front(explorer)
    numbers(front, "preview", form=form({"method": "linear", "parameters": {}}))
    assert isinstance(front.ask("preview", form=wrong), RuntimeError)
    explorer.close()


def test_a_choice_in_a_cell_shows_in_the_view(session: MergeSession) -> None:
    explorer = theta_nb.MergeExplorer(session)
    first = explorer._chosen["revision"]
    session.use("ties", density=0.4)
    assert settled(explorer)["short"].startswith("ties(")
    assert explorer._chosen["revision"] > first
    explorer.close()
    session.use("linear")  # nobody listens any more


@pytest.mark.parametrize(
    ("what", "details", "said"),
    [
        pytest.param("preview", {"form": "{"}, "cannot be read", id="no JSON"),
        pytest.param("preview", {"form": "{}"}, "list of edits", id="no list"),
        pytest.param("choose", {"form": "[7]"}, "an edit has", id="no edit"),
        pytest.param("choose", {"form": form({"method": "tise"})}, "did you mean|Did you mean", id="no method"),
        pytest.param("choose", {"form": form({"method": "slerp", "parameters": {"q": 1}})}, "no parameter", id="name"),
        pytest.param("choose", {"form": form({"method": "ties", "parameters": {"density": 7}})}, "0 to 1", id="range"),
        pytest.param("choose", {"form": form({"method": "ours", "names": ["nobody"]})}, "no parameter", id="unknown"),
        pytest.param("choose", {"form": form({"method": "ours", "block": "nobody"})}, "no block", id="block"),
        pytest.param("choose", {"form": form({"method": "ours", "names": []})}, "list of texts", id="nothing"),
        pytest.param("choose", {"form": '[{"method": "slerp", "parameters": {"t": {"a": {}}}}]'}, "", id="nested"),
        pytest.param("restore", {"form": '{"choice": 7, "overrides": []}'}, "wrong at", id="settings"),
        pytest.param("restore", {"form": '{"choice": null}'}, "overrides", id="half"),
        pytest.param("samples", {"form": "{}"}, "by places", id="no places"),
        pytest.param("samples", {"form": "[0, 99]"}, "from 0 to", id="no such place"),
        pytest.param("samples", {"form": "[true]"}, "by places", id="true is no place"),
        pytest.param("explain", {"name": "nobody"}, "no parameter is called", id="explain"),
        pytest.param("delete", {}, "cannot ask", id="what"),
        pytest.param("nobody.what", {}, "no panel", id="panel"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(
    session: MergeSession, what: str, details: dict[str, Any], said: str
) -> None:
    import re

    front = Front(theta_nb.MergeExplorer(session.use("linear")))
    before = session.settings
    answer = front.ask(what, **details)
    assert isinstance(answer, RuntimeError)
    assert re.search(said, str(answer))
    assert session.settings is before


def test_options_and_selection(session: MergeSession) -> None:
    with pytest.raises(TypeError, match="did you mean 'metric'"):
        theta_nb.MergeExplorer(session, metrik="moved")
    with pytest.raises(TypeError, match=r"repo\.merge\(\)"):
        theta_nb.MergeExplorer("session")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a model"):
        theta_nb.MergeExplorer(session, evaluate=3)  # type: ignore[arg-type]
    explorer = theta_nb.MergeExplorer(session, metric="conflict", selection=["head.weight"])
    assert [row["name"] for row in explorer.to_table()] == ["head.weight"]
    with pytest.raises(traitlets.TraitError, match="no parameter 'nobody'"):
        explorer.selection = ["nobody"]


def test_saved_notebooks_show_a_table_and_a_picture(session: MergeSession) -> None:
    explorer = theta_nb.MergeExplorer(session.use("slerp"))
    bundle, _ = explorer._repr_mimebundle_()  # type: ignore[misc]
    assert "embeddings.word.weight" in bundle["text/html"]
    assert "image/png" not in bundle, "nothing is read to show a fallback"
    session.measure()
    bundle, _ = explorer._repr_mimebundle_()  # type: ignore[misc]
    assert len(bundle["image/png"]) > 1000
    assert "slerp" in bundle["text/plain"]


def test_the_still_is_renewed_once_values_are_known(session: MergeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[tuple[str, bool, str]] = []

    def publish(data: dict[str, Any], *_: Any, transient: Any = None, update: bool = False) -> None:
        if transient is not None:
            published.append((transient["display_id"], update, data["text/html"]))

    monkeypatch.setattr("IPython.core.display_functions.publish_display_data", publish)
    explorer = theta_nb.MergeExplorer(session.use("slerp"))
    explorer._renew_still(lambda: None)
    assert published == [], "nothing is on a page yet"
    explorer._ipython_display_()
    session.measure()
    explorer._renew_still(lambda: None)
    (first, later) = published
    assert (first[0], first[1], later[1]) == (later[0], False, True), "the same output"
    assert "<img" not in first[2]
    assert "<img" in later[2]
    explorer.close()


def test_messages_stay_small() -> None:
    names = [f"model.layers.{k // 20}.part.{k % 20}.weight" for k in range(6000)]
    value = np.ones(2, np.float32)
    sides = [dict.fromkeys(names, factor * value) for factor in (0, 1, 2)]
    inputs = [StateInput("ours", sides[1]), StateInput("theirs", sides[2])]
    front = Front(theta_nb.MergeExplorer(MergeSession(StateInput("original", sides[0]), inputs).use("linear")))
    front.ask("measure")
    front.ask("opening")
    front.ask("choose", form=form(*({"method": "linear", "block": f"model.layers.{k}"} for k in range(0, 300, 2))))
    numbers(front)
    settled(front.widget)
    assert front.widget._chosen["short"].count("model.layers") == 150
    sizes = [len(json.dumps(data).encode()) + sum(map(len, buffers)) for data, buffers in CaughtComm.caught]
    assert max(sizes) <= MAX_MESSAGE_NBYTES


def test_samples_are_told_some_at_a_time_with_whose_they_are() -> None:
    random = np.random.default_rng(4)
    base = {f"layers.{k}.weight": random.normal(size=(100, 100)).astype(np.float32) for k in range(30)}
    base |= {"double": random.normal(size=(9, 9)), "steps": np.arange(3)}
    sides = [{name: value + k for name, value in base.items()} for k in (1, 2)]
    del sides[1]["layers.3.weight"]
    inputs = [StateInput("ours", sides[0]), StateInput("theirs", sides[1])]
    session = MergeSession(StateInput("original", base), inputs)
    front = Front(theta_nb.MergeExplorer(session))
    names = index_of(front.widget)["names"]
    assert not any(front.ask("samples", form="[0, 1]")["lengths"]), "nothing is measured"
    front.ask("measure")
    key = front.ask("opening")["key"]
    left, found = list(range(len(names))), {}
    while left:
        told = front.ask("samples", form=json.dumps(left))
        assert told["key"] == key
        at = 0
        for place, length, share, inside in zip(
            told["places"], told["lengths"], told["shares"], told["inputs"], strict=True
        ):
            stop = at + length * (1 + len(inside))
            found[names[place]] = (told["values"][at:stop].reshape(-1, max(length, 1)), share, inside)
            at = stop
        assert at == len(told["values"])
        assert told["places"] == left[: len(told["places"])]
        left = left[len(told["places"]) :]
    samples = session.samples(names)
    assert len(found["double"][0]) == len(found["steps"][0]) == 0, "not as float32"
    assert found["layers.3.weight"][2] == [0]
    for name in base:
        if name.startswith("layers"):
            values, share, _ = found[name]
            assert np.array_equal(values, [samples[name].base, *samples[name].inputs])  # type: ignore[list-item]
            assert share == samples[name].share > 1
    sizes = [sum(map(len, buffers)) for _, buffers in CaughtComm.caught]
    assert max(sizes) < 400_000
    sides[1]["double"] = sides[1]["double"] + 1
    other = theta_nb.MergeExplorer(MergeSession(StateInput("original", base), [inputs[0], StateInput("x", sides[1])]))
    assert Front(other).ask("opening")["key"] != key


def test_closing_lets_go() -> None:
    session = new_session().use("slerp")
    explorer = theta_nb.MergeExplorer(session)
    front = Front(explorer)
    front.ask("measure")
    kept = weakref.ref(session)
    explorer.close()
    assert not session._watchers
    del front, explorer, session
    assert gone([kept])


def test_many_explorers_leave_nothing_behind() -> None:
    sessions = []
    for _ in range(20):
        session = new_session().use("slerp")
        front = Front(theta_nb.MergeExplorer(session))
        for step in range(10):
            numbers(front, "preview", form=form({"method": "slerp", "parameters": {"t": step / 10}}))
        sessions.append(weakref.ref(session))
        front.widget.close()
        CaughtComm.caught.clear()
        del front, session
    assert gone(sessions)


def test_blocks_keep_to_what_both_sides_changed() -> None:
    base, ours, theirs = states()
    ours["encoder.layer.1.attention.query.bias"] = base["encoder.layer.1.attention.query.bias"]
    session = MergeSession(StateInput("original", base), [StateInput("ours", ours), StateInput("theirs", theirs)])
    front = Front(theta_nb.MergeExplorer(session.use("linear")))
    front.ask("choose", form=form({"method": "slerp", "parameters": {"t": 0.2}, "block": "encoder.layer.1"}))
    assert session.decision("encoder.layer.1.attention.query.weight").label == "slerp"
    assert session.decision("encoder.layer.1.attention.query.bias").reason == "changed by theirs"
    front.ask("choose", form=form({"method": "ours", "names": ["encoder.layer.1.attention.query.weight"]}))
    front.ask("choose", form=form({"method": "slerp", "parameters": {"t": 0.9}, "block": "encoder.layer.1"}))
    assert session.decision("encoder.layer.1.attention.query.weight").label == "ours", "a name counts before its block"
    assert session.recipe() == type(session.recipe()).parse(session.recipe().dump())


def test_covers_name_exactly_what_is_meant() -> None:
    random = np.random.default_rng(1)
    names = [*NAMES, "odd[0].w", "odd[1].w", "odd/[0]/*", "a*b.c", "layer.0.x.attention.y", "layer.1.attention.y"]
    for _ in range(60):
        wanted = {name for name in names if random.random() < random.random()}
        patterns = covering(wanted, names)
        found = {name for name in names if any(Override(p, Choice("ours", {})).matches(name) for p in patterns)}
        assert found == wanted


def test_edits_take_names_out_of_older_overrides() -> None:
    before = Settings(Choice("linear", {})).with_override(Override(r"encoder\..*", Choice("ours", {}), regex=True))
    edits = edits_of([{"method": None, "names": [n for n in NAMES if "layer.2" in n]}], lambda block: [], NAMES)
    after = edited(before, edits, NAMES)
    assert not [n for n in NAMES if "layer.2" in n and any(o.matches(n) for o in after.overrides)]
    assert all(any(o.matches(n) for o in after.overrides) for n in NAMES if "layer.1" in n)
    with pytest.raises(MergeError, match="list of edits"):
        edits_of([], lambda block: [], NAMES)
