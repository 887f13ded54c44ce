"""How histories show themselves: numbers against NumPy, JSON against its schema, HTML, text and pictures."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load

import theta_nb
from tests.conftest import GitSandbox
from tests.git.checks import objects
from tests.git.objects import object_path
from tests.history.conftest import NAME, weights

SCHEMA = json.loads((Path(theta_nb.__file__).parent / "report" / "history.schema.json").read_text())


@pytest.fixture
def history(grown: GitSandbox) -> theta_nb.History:
    return theta_nb.Repository(grown.path).history(NAME)


def relative(old: bytes, new: bytes, part: str) -> float:
    """‖Δ‖/‖old‖ of the tensors of a part, in float64."""
    before, after = load(old), load(new)
    names = [name for name in before if name.startswith(f"{part}.")]
    difference = [np.square(after[n].astype("f8") - before[n].astype("f8")).sum() for n in names]
    return float(np.sqrt(sum(difference) / sum(np.square(before[n].astype("f8")).sum() for n in names)))


def test_measured_numbers(history: theta_nb.History) -> None:
    seen: list[tuple[int, int]] = []
    measured = history.measure(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(7)]
    assert measured.measured
    assert not history.measured, "the history itself stays as it is"
    matrix = measured.matrix()
    assert matrix.layers == ("encoder.0", "encoder.1", "head")
    by_subject = {commit.subject: matrix.column(commit.id) for commit in matrix.commits}
    assert by_subject["train block 0"]["encoder.0"] == pytest.approx(
        relative(weights(), weights(encoder_0=1.0), "encoder.0"), rel=1e-6
    )
    assert by_subject["train block 1"]["encoder.1"] == pytest.approx(
        relative(weights(), weights(encoder_1=2.0), "encoder.1"), rel=1e-6
    )
    assert by_subject["train block 1"]["head"] == 0.0
    assert all(np.isnan(value) for value in by_subject["first weights"].values()), "there is nothing to compare it with"


def test_values_that_are_not_here_leave_gaps(grown: GitSandbox) -> None:
    for oid in objects(grown):
        object_path(grown, oid).unlink()
    measured = theta_nb.Repository(grown.path).history(NAME).measure()
    assert np.isnan(measured.matrix().column(measured[0].commit.id)["encoder.1"])
    assert measured.table(), "and it can still be shown"


def test_measuring_can_be_stopped(history: theta_nb.History) -> None:
    class StopHereError(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise StopHereError

    with pytest.raises(StopHereError):
        history.measure(progress=stop)


@pytest.mark.parametrize("measure", [False, True], ids=["structure", "measured"])
def test_json_follows_its_schema(measure: bool, history: theta_nb.History) -> None:
    shown = history.measure() if measure else history
    data = json.loads(json.dumps(shown.to_dict(), allow_nan=False))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(data, SCHEMA)
    assert data["steps"][0]["commit"]["subject"] == "train block 1"
    assert ("relative" in data["steps"][0]["changes"][0]) == measure
    data["steps"][0]["state"] = "nonsense"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_the_bundle_is_complete(history: theta_nb.History) -> None:
    bundle = history._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.theta.history+json", "text/html", "text/plain"}
    assert bundle["text/plain"] == history.table(limit=60)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"


@pytest.mark.parametrize("measure", [False, True], ids=["structure", "measured"])
def test_html_stands_on_its_own(measure: bool, history: theta_nb.History) -> None:
    html = (history.measure() if measure else history).to_html()
    tags = _Tags()
    tags.feed(html)
    assert tags.open == [], "every element is closed"
    assert not tags.seen & {"script", "link", "img", "iframe"}
    assert "url(" not in html
    assert html.count("<rect") >= 4, "the picture of what changed where"
    assert "<title>encoder.1, " in html
    for name in ("HEAD", "main", "tag: v1", "tuning"):
        assert f"<span class='chip'>{name}</span>" in html


def test_text_of_a_long_history_is_cut(history: theta_nb.History) -> None:
    lines = history.table(limit=2).splitlines()
    assert lines[-1] == "… and 4 earlier commits"
    assert len(lines) == 6
    assert "val_loss" in lines[2]
    assert str(history) == history.table()


def test_a_data_frame(history: theta_nb.History) -> None:
    pandas = pytest.importorskip("pandas")
    frame = history.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.subject.iloc[0] == "first weights"
    assert frame.val_loss.iloc[-1] == 0.125


@pytest.mark.parametrize("by", ["block", "module", "kind", "parameter"])
def test_pictures(by: str, history: theta_nb.History, tmp_path: Path) -> None:
    for index, shown in enumerate((history, history.measure())):
        figure = shown.plot(by)
        figure.savefig(tmp_path / f"{index}.png")
        assert (tmp_path / f"{index}.png").read_bytes().startswith(b"\x89PNG")
        labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
        assert labels == list(shown.matrix(by).layers)
        assert "val_loss" in figure.axes[0].get_ylabel()


def test_a_history_without_metrics_and_with_one_commit(repository: GitSandbox) -> None:
    repository.write("m.pt", weights())
    repository.commit_all("one")
    history = theta_nb.Repository(repository.path).history("m.pt")
    assert history.metrics == {}
    assert len(history.plot().axes) == 2, "the matrix and its scale"
    jsonschema.validate(history.to_dict(), SCHEMA)
    assert history.to_html()


def test_merges_show_their_recipe(grown: GitSandbox) -> None:
    text = grown("cat-file", "blob", f"HEAD:{NAME}")
    recipe = json.dumps({"method": "linear", "weight": 0.5, "note": "<b>&\u202e"}, ensure_ascii=True)
    head, _, tail = text.partition("\n\n")
    blob = grown.run("hash-object", "-w", "--stdin", data=f"{head}\nrecipe {recipe}\n\n{tail}".encode()).stdout.strip()
    grown("update-index", "--cacheinfo", f"100644,{blob},{NAME}")
    grown("commit", "-qm", "with a recipe")
    repo = theta_nb.Repository(grown.path)
    [step] = repo.history(NAME, limit=1)
    assert json.loads(step.recipe)["method"] == "linear"
    assert "recipe" in repo.history(NAME).table()
    html = repo.history(NAME).to_html()
    assert "merge recipe" in html
    assert "<b>&" not in html


def test_blame_shows_itself(grown: GitSandbox) -> None:
    blame = theta_nb.Repository(grown.path).blame(NAME)
    tags = _Tags()
    tags.feed(blame.to_html())
    assert tags.open == []
    assert next(commit.subject for commit in blame.commits()) == "train block 1"
    assert len(re.findall("<tr>", blame.to_html())) == 4, "a head and three commits"
    with pytest.raises(KeyError):
        blame["decoder"]
