"""Recipes: the same text for the same merge, the same result for the same recipe, and errors for everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.engine.merging.checkpoints import model, session_of
from theta_nb.engine.merging.choices import Settings
from theta_nb.engine.merging.recipe import SCHEMA, Recipe
from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError

BASE = model(0)
OURS, THEIRS = model(1, BASE), model(2, BASE)


@pytest.fixture
def session(tmp_path: Path) -> MergeSession:
    return session_of(tmp_path, "memory", BASE, OURS, THEIRS)


def chosen(session: MergeSession) -> MergeSession:
    session.use("dare_ties", density=[0.2, 0.8], weight={"theirs": 0.5}, rescale="l1", seed=7)
    session.override("layers.1.*", "karcher", tol=1e-7)
    return session.override("norm.weight", "theirs")


def test_a_recipe_gives_the_same_bits(session: MergeSession, tmp_path: Path) -> None:
    made = chosen(session).arrays()
    text = session.recipe().dump()
    again = session_of(tmp_path, "memory", BASE, OURS, THEIRS).apply(Recipe.parse(text))
    assert all(np.array_equal(x, made[name]) for name, x in again.arrays().items())
    assert again.recipe().dump() == text
    assert Recipe.parse(session.recipe().yaml()) == session.recipe()
    assert "rescale 0" in json.loads(text)["decided"]["embed.weight"], "numbers that come from sums are recorded"
    jsonschema.validate(json.loads(text), SCHEMA)
    assert json.loads(text)["choice"]["parameters"]["seed"] == 7
    assert json.loads(text)["choice"]["parameters"]["scale"] == 1.0, "defaults are written out"


def test_recorded_numbers_are_used_and_not_computed(session: MergeSession, tmp_path: Path) -> None:
    session.use("slerp", t=0.25).arrays()
    form = json.loads(session.recipe().dump())
    form["decided"]["embed.weight"]["combination"] = [(0.0).hex(), (0.0).hex(), (2.0).hex(), (0.0).hex()]
    again = session_of(tmp_path, "memory", BASE, OURS, THEIRS).apply(Recipe.parse(json.dumps(form)))
    assert np.array_equal(again.arrays()["embed.weight"], 2 * OURS["embed.weight"])
    again.use("slerp", t=0.5)
    assert not np.array_equal(again.arrays()["embed.weight"], 2 * OURS["embed.weight"]), "not for another choice"


def test_the_short_form_is_one_line(session: MergeSession) -> None:
    assert session.recipe().short() == "three-way"
    text = chosen(session).recipe().short()
    assert "\n" not in text
    assert text.startswith("dare_ties(weight={theirs: 0.5}, density=[0.2, 0.8], rescale=l1")
    assert "; layers.1.*: karcher(" in text


def test_other_inputs_are_refused(session: MergeSession, tmp_path: Path) -> None:
    recipe = chosen(session).recipe()
    other = session_of(tmp_path, "memory", BASE, OURS, model(3, BASE))
    with pytest.raises(MergeError, match="'theirs' of the recipe"):
        other.apply(recipe)
    assert other.settings == Settings()
    assert other.apply(recipe, check=False).settings == recipe.settings
    with pytest.raises(MergeError, match="common ancestor"):
        session_of(tmp_path, "memory", None, OURS, THEIRS).apply(recipe)
    with pytest.raises(MergeError, match="merges 2 checkpoints"):
        session_of(tmp_path, "memory", BASE, OURS).apply(recipe)


def damaged(change: Any) -> str:
    form: dict[str, Any] = {
        "theta-merge": 1,
        "version": "0.1.0",
        "base": None,
        "inputs": [{"label": "ours", "revision": "", "digest": ""}],
        "choice": {"method": "linear", "parameters": {}},
        "overrides": [],
    }
    change(form)
    return json.dumps(form)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wrong at its top"),
        ("[]", "wrong at its top"),
        ("{", "cannot be read"),
        ('{"a": 1, "a": 2}', "there twice"),
        ('{"a": NaN}', "no number"),
        ("[" * 100_000, "cannot be read"),
        ("{" + '"a":{' * 100_000, "cannot be read"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: 1\na: 2", "there twice"),
        ("!!python/object/apply:os.system ['false']", "cannot be read"),
        ("? [1]\n: 2", "cannot be read"),
        (damaged(lambda f: f.update({"theta-merge": 2})), "Update theta-nb"),
        (damaged(lambda f: f.update(colour=1)), "colour"),
        (damaged(lambda f: f.pop("inputs")), "inputs"),
        (damaged(lambda f: f["inputs"].clear()), "inputs"),
        (damaged(lambda f: f["inputs"][0].update(digest="../..")), "digest"),
        (damaged(lambda f: f["choice"].update(method="tise")), "Did you mean 'ties'"),
        (damaged(lambda f: f["choice"].update(method=1)), "choice/method"),
        (damaged(lambda f: f["choice"]["parameters"].update(colour=1)), "no parameter 'colour'"),
        (damaged(lambda f: f["choice"]["parameters"].update(weight={"a": {"b": 1}})), "choice/parameters/weight"),
        (damaged(lambda f: f["choice"]["parameters"].update(weight=None)), "choice/parameters/weight"),
        (damaged(lambda f: f["overrides"].append({"method": "ours", "parameters": {}})), "overrides/0"),
        (damaged(lambda f: f["overrides"].append({"regex": "(", "method": "ours", "parameters": {}})), "no regular"),
        (damaged(lambda f: f.update(decided={"w": {"c": ["1.5"]}})), "decided/w/c/0"),
        (damaged(lambda f: f.update(decided={"w": {"c": [1.5]}})), "decided/w/c/0"),
    ],
)
def test_damaged_recipes_are_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(MergeError, match=message) as caught:
        Recipe.parse(text)
    assert len(str(caught.value)) < 1500


def test_a_recorded_combination_of_another_size_is_refused(session: MergeSession) -> None:
    session.use("slerp").arrays()
    form = json.loads(session.recipe().dump())
    form["decided"]["embed.weight"]["combination"] = ["0x1.0000000000000p+0"]
    again = MergeSession(session.base, session.inputs).apply(Recipe.parse(json.dumps(form)))
    with pytest.raises(MergeError, match="has 1 numbers for 2 inputs"):
        again.arrays()


# --- tries ------------------------------------------------------------------------------------------------------------


def score(state: Any) -> dict[str, float]:
    """Best at t = 0.3 between ours and theirs, whatever else."""
    x = np.asarray(state["embed.weight"], np.float64)
    wanted = 0.7 * OURS["embed.weight"].astype(np.float64) + 0.3 * THEIRS["embed.weight"]
    return {"loss": float(np.square(x - wanted).sum()), "gain": -float(np.square(x - wanted).sum())}


def test_sweeps_evaluate_the_whole_grid_and_change_no_choice(session: MergeSession) -> None:
    session.use("nuslerp")
    before = session.settings
    tries = session.sweep(score, weight=[{"ours": 0.7, "theirs": 0.3}, 1], axis=["tensor", "row"])
    assert len(tries) == len(session.tries) == 4
    assert [one.number for one in tries] == [1, 2, 3, 4]
    assert session.settings == before
    best = session.tries.best("loss", smallest=True)
    assert best.settings.default.parameters["weight"] == {"ours": 0.7, "theirs": 0.3}  # type: ignore[union-attr]
    assert session.restore(session.tries.number(best.number).settings).settings == best.settings
    with pytest.raises(MergeError, match="no try 5"):
        session.tries.number(5)


def test_sweeps_can_be_stopped_and_keep_what_they_have(session: MergeSession) -> None:
    session.use("slerp")
    before = session.settings

    def stop(done: int, total: int, made: Any) -> None:
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.tries.sweep(score, t=[0.1, 0.2, 0.3], progress=stop)
    assert len(session.tries) == 2
    assert session.settings == before
    with pytest.raises(MergeError, match="must lie in"):
        session.use("ties").sweep(score, density=[0.5, 5])
    assert len(session.tries) == 2, "a mistake is found before anything is evaluated"


def test_searches_find_the_best(session: MergeSession) -> None:
    session.use("slerp")
    best = session.search(score, budget=30, metric="loss", smallest=True, t=(0, 1))
    assert best.settings.default.parameters["t"] == pytest.approx(0.3, abs=0.02)  # type: ignore[union-attr]
    session.reset().use("slerp")
    found = session.tries.search(score, budget=30, metric="gain", t=(0, 1))
    assert found.settings.default.parameters["t"] == pytest.approx(0.3, abs=0.02)  # type: ignore[union-attr]
    assert session.settings == found.settings
    assert len(session.tries) <= 60


@pytest.mark.parametrize("answer", [None, {}, "good", {"a": "b"}, [1, 2]])
def test_evaluations_must_return_numbers(session: MergeSession, answer: Any) -> None:
    with pytest.raises(MergeError, match="evaluation"):
        session.use("linear").evaluate(lambda state: answer)
    assert len(session.tries) == 0
