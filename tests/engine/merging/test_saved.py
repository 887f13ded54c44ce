"""Saved sessions: everything comes back, and what is no saved session changes nothing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.engine.merging.checkpoints import model, session_of
from theta_nb.engine.merging.saved import SCHEMA
from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError

BASE = model(0)
OURS, THEIRS = model(1, BASE), model(2, BASE)


@pytest.fixture
def session(tmp_path: Path) -> MergeSession:
    return session_of(tmp_path, "memory", BASE, OURS, THEIRS)


@pytest.fixture
def saved(session: MergeSession, tmp_path: Path) -> Path:
    """A session with everything in it."""
    session.use("dare_ties", density=[0.2, 0.8], weight={"theirs": 0.5}, rescale="l1", seed=7)
    session.override("layers.1.*", "karcher", tol=1e-7).override("norm.weight", "theirs")
    session.evaluate(lambda state: {"norm": float(np.linalg.norm(np.asarray(state["norm.weight"]))), "inf": math.inf})
    session.evaluate(lambda state: float("nan"))
    session.tries.annotate(1, note="the first - with a line\nbreak", pinned=True)
    session.use("ties", density=0.1)
    session.undo()
    path = tmp_path / "session.json"
    session.save(str(path))
    return path


def test_a_saved_session_goes_on_where_it_was(session: MergeSession, saved: Path, tmp_path: Path) -> None:
    again = session_of(tmp_path, "memory", BASE, OURS, THEIRS).load(str(saved))
    assert again.recipe().dump() == session.recipe().dump(), "choices, and the numbers that were decided"
    assert [(one.number, one.settings, one.note, one.pinned) for one in again.tries] == [
        (one.number, one.settings, one.note, one.pinned) for one in session.tries
    ]
    assert again.tries[0].metrics == session.tries[0].metrics
    assert math.isnan(again.tries[1].metrics["score"])
    assert again.redo().settings.default.method == "ties"  # type: ignore[union-attr]
    for _ in range(4):
        again.undo()
    assert again.settings.default is None, "all the way back"
    jsonschema.validate(json.loads(saved.read_text()), SCHEMA)


def test_saving_twice_gives_the_same_file(session: MergeSession, saved: Path, tmp_path: Path) -> None:
    session_of(tmp_path, "memory", BASE, OURS, THEIRS).load(str(saved)).save(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_bytes() == saved.read_bytes()


def test_a_day_of_dragging_keeps_the_last_steps(session: MergeSession, tmp_path: Path) -> None:
    for k in range(1200):
        session.use("slerp", t=k / 1200)
    path = str(tmp_path / "long.json")
    session.save(path)
    again = session_of(tmp_path, "memory", BASE, OURS, THEIRS).load(path)
    assert again.settings == session.settings
    assert again.undo().settings.default.parameters == {"t": 1198 / 1200}  # type: ignore[union-attr]


def test_inputs_are_checked_by_digest(saved: Path, tmp_path: Path) -> None:
    other = session_of(tmp_path, "memory", BASE, OURS, model(3, BASE)).use("linear")
    with pytest.raises(MergeError, match=r"is a session of other checkpoints \(ours, theirs\)"):
        other.load(str(saved))
    assert other.settings.default.method == "linear"  # type: ignore[union-attr]
    assert len(other.tries) == 0


def changed(change: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    def damage(form: Any) -> bytes:
        change(form)
        return json.dumps(form).encode()

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(lambda _: b"", "cannot be read", id="empty"),
        pytest.param(lambda _: b"\0\xff", "it is no text", id="binary"),
        pytest.param(lambda _: b"[]", "wrong at its top", id="a list"),
        pytest.param(lambda _: b"{}", "wrong at its top", id="nothing in it"),
        pytest.param(lambda _: b"[" * 100_000, "cannot be read", id="deep"),
        pytest.param(changed(lambda f: f.update({"theta-session": 2})), "newer release", id="newer"),
        pytest.param(changed(lambda f: f.update(recipe={})), "wrong at its top", id="no recipe"),
        pytest.param(changed(lambda f: f.update(place=99)), "no step 99", id="place"),
        pytest.param(changed(lambda f: f.update(place=-1)), "place", id="negative"),
        pytest.param(changed(lambda f: f.update(steps=[])), "steps", id="no steps"),
        pytest.param(changed(lambda f: f.update(more=1)), "more", id="unknown key"),
        pytest.param(changed(lambda f: f["steps"][1]["choice"].update(method="tise")), "'ties'", id="method"),
        pytest.param(
            changed(lambda f: f["steps"][1]["choice"].update(parameters={"density": 7})), "0 to 1", id="value"
        ),
        pytest.param(changed(lambda f: f["tries"][0].update(metrics={"a": "high"})), "metrics/a", id="metric"),
        pytest.param(changed(lambda f: f["tries"][0].update(metrics={})), "metrics", id="no metric"),
        pytest.param(changed(lambda f: f["tries"][0].update(note=7)), "note", id="note"),
        pytest.param(changed(lambda f: f["tries"][0].update(pinned="yes")), "pinned", id="pinned"),
        pytest.param(
            changed(lambda f: f["tries"][0]["choice"].update(parameters={"x": 1})), "no parameter 'x'", id="try"
        ),
    ],
)
def test_what_is_no_saved_session_changes_nothing(
    session: MergeSession, saved: Path, damage: Callable[[Any], bytes], said: str
) -> None:
    saved.write_bytes(damage(json.loads(saved.read_text())))
    before, tries = session.recipe().dump(), list(session.tries)
    with pytest.raises(MergeError, match=said) as caught:
        session.load(str(saved))
    assert str(caught.value).startswith(str(saved))
    assert session.recipe().dump() == before
    assert list(session.tries) == tries


def test_places_that_cannot_be_read_or_written(session: MergeSession, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="cannot be read: No such file"):
        session.load(str(tmp_path / "none.json"))
    with pytest.raises(MergeError, match="cannot be read: Is a directory"):
        session.load(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MergeError, match="Is no file"):
        session.load(str(tmp_path / "pipe"))
    before = saved.read_bytes()
    with pytest.raises(MergeError, match="cannot be written: No such file"):
        session.save(str(tmp_path / "none" / "x.json"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(MergeError, match="cannot be written"):
        session.save(str(tmp_path / "folder.json"))
    assert saved.read_bytes() == before
    assert not list(tmp_path.glob(".theta-session-*")), "nothing half-written is left"


# --- forks ------------------------------------------------------------------------------------------------------------


def test_a_fork_tries_things_and_leaves_the_choices_alone(session: MergeSession) -> None:
    session.use("slerp", t=0.25)
    mine = session.arrays()["embed.weight"].copy()
    fork = session.fork().use("slerp", t=0.75)
    one = fork.evaluate(lambda state: float(np.asarray(state["embed.weight"]).sum()))
    assert (one.number, session.tries.number(1)) == (1, one)
    assert session.settings.default.parameters == {"t": 0.25}  # type: ignore[union-attr]
    assert np.array_equal(session.arrays()["embed.weight"], mine)
    assert session.undo().settings.default is None, "one step was made here"


def test_a_model_that_a_fork_filled_is_filled_again(session: MergeSession) -> None:
    import torch

    into = {name: torch.zeros(array.shape) for name, array in OURS.items()}
    session.use("slerp", t=0.25).materialize(into)
    wanted = {name: tensor.clone() for name, tensor in into.items()}
    session.fork().use("slerp", t=0.75).materialize(into)
    assert not torch.equal(into["embed.weight"], wanted["embed.weight"])
    session.materialize(into)
    assert all(torch.equal(into[name], wanted[name]) for name in wanted)


def test_notes_and_pins(session: MergeSession) -> None:
    session.use("linear").evaluate(lambda state: 1.0)
    assert session.tries.annotate(1, note="good").pinned is False
    assert session.tries.annotate(1, pinned=True).note == "good"
    with pytest.raises(MergeError, match="no try 2"):
        session.tries.annotate(2, note="x")
