"""The result object: choosing, sorting, grouping, and what it shows as text, JSON, HTML and frames."""

from __future__ import annotations

import base64
import json
import math
import os
import pickle
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.report.conftest import modified, parameter
from theta_nb.engine.diff import STATUSES
from theta_nb.errors import ThetaError
from theta_nb.report.checkpoint_diff import CheckpointDiff, Side
from theta_nb.report.diff_frame import rows
from theta_nb.report.diff_json import BINS, schema
from theta_nb.report.diff_lines import Colours, diff_lines
from theta_nb.report.sorting import SORT_KEYS

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str, found: str) -> None:
    """Compare with a recorded file; ``RECORD_GOLDEN=1`` records it anew, to be looked at."""
    path = GOLDEN / name
    if os.environ.get("RECORD_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, "utf-8")
    assert found == path.read_text("utf-8")


def names(diff: CheckpointDiff) -> list[str]:
    return [change.name for change in diff]


class TestChoosing:
    def test_is_frozen(self, diff: CheckpointDiff) -> None:
        with pytest.raises(FrozenInstanceError):
            diff.hidden = 3  # type: ignore[misc]

    def test_is_a_collection_of_what_differs(self, diff: CheckpointDiff) -> None:
        assert len(diff) == len(list(diff)) == 14
        assert len(diff.parameters) == 15
        assert diff["pool.weight"] is diff["pooler.weight"], "by either name"
        with pytest.raises(KeyError):
            diff["nothing"]

    def test_is_true_where_something_differs(self, diff: CheckpointDiff) -> None:
        assert diff
        same = diff.filter(status="unchanged")
        assert same, "metadata changed"
        assert not replace(same, other=())
        assert replace(same, other=(), old=Side("m", "HEAD", exists=False)), "a file without tensors came"

    def test_globs_and_expressions(self, diff: CheckpointDiff) -> None:
        assert names(diff.filter("*.bias")) == [
            "encoder.layer.2.attention.query.bias",
            "encoder.layer.10.attention.query.bias",
            "old.bias",
        ]
        assert names(diff.filter(re.compile(r"encoder\.layer\.\d+\.output\.dense\.\w+"))) == [
            "encoder.layer.2.output.dense.weight",
            "encoder.layer.10.output.dense.weight",
        ]
        assert names(diff.filter("pool.*")) == ["pooler.weight"], "also by the old name"
        assert names(diff.filter("encoder", status="modified")) == []

    def test_by_status(self, diff: CheckpointDiff) -> None:
        assert names(diff.filter(status=["renamed", "removed"])) == ["pooler.weight", "old.bias"]
        with pytest.raises(ThetaError, match=r"'gone' is no status\. Use one of added"):
            diff.filter(status="gone")  # type: ignore[arg-type]

    def test_counts_what_is_hidden(self, diff: CheckpointDiff) -> None:
        few = diff.filter("encoder.*").top(3)
        assert (len(few), few.hidden) == (3, 12)
        assert "12 not shown" in few.summary()

    def test_the_command_line_offers_every_order(self) -> None:
        from theta_nb.commands.grammar import history

        assert history.SORT_KEYS == SORT_KEYS, "written twice, so that a parser needs no report"

    @pytest.mark.parametrize("key", SORT_KEYS)
    def test_every_key(self, diff: CheckpointDiff, key: str) -> None:
        found = diff.sort(key)
        assert sorted(names(found)) == sorted(names(diff))
        assert found.order == key
        if key == "size":
            sizes = [change.current.nbytes for change in found.parameters]
            assert sizes == sorted(sizes, reverse=True)

    def test_by_relative_change(self, diff: CheckpointDiff) -> None:
        found = diff.sort("relative")
        assert names(found)[:2] == ["scale", "encoder.layer.10.attention.query.bias"], "infinite first, ties by name"
        assert found.parameters[-1].statistics is None
        with pytest.raises(ThetaError, match="cannot be sorted by 'colour'"):
            diff.sort("colour")

    def test_groups(self, diff: CheckpointDiff) -> None:
        blocks = {group.key: group for group in diff.groups("block")}
        assert list(blocks)[:3] == ["embeddings", "encoder.layer.2", "encoder.layer.10"]
        group = blocks["encoder.layer.2"]
        assert group.counts == {"modified": 4, "unchanged": 1}
        assert group.old_norm == pytest.approx(20)
        assert group.relative == pytest.approx(0.0375)
        assert group.changed_share == 0.5
        assert math.isnan(blocks["old"].relative)
        assert {group.key for group in diff.groups("kind")} == {"weight", "bias", "norm", "other"}
        assert {group.key for group in diff.groups("dtype")} == {"float32", "float16"}
        assert {group.key for group in diff.groups("status")} == set(STATUSES)
        assert len(diff.groups("module")) == 11
        with pytest.raises(ThetaError, match="cannot be grouped by 'colour'"):
            diff.groups("colour")

    def test_tied_values_count_once(self, diff: CheckpointDiff) -> None:
        alone = diff.filter("embeddings.weight")
        assert diff.filter("embeddings.weight").total.old_norm == alone.total.old_norm
        both = replace(diff, parameters=(diff["embeddings.weight"], diff["scale"]))
        assert both.total.old_norm == alone.total.old_norm

    def test_has_no_values_of_its_own(self, diff: CheckpointDiff) -> None:
        assert diff.measure() is diff
        with pytest.raises(ThetaError, match="has no values"):
            diff.spectrum("embeddings.weight")


class TestText:
    def test_table(self, diff: CheckpointDiff) -> None:
        golden("diff.txt", diff.table() + "\n")
        assert str(diff) == diff.table()

    def test_lines_of_the_driver(self, diff: CheckpointDiff) -> None:
        golden("diff-lines.txt", "\n".join(diff_lines(diff)) + "\n")

    def test_folded_lines(self, diff: CheckpointDiff) -> None:
        found = list(diff_lines(diff, shown=3))
        assert any(re.fullmatch(r"encoder\.layer +8 modified +0\.\d+", line) for line in found), found
        assert not any("attention" in line for line in found)

    def test_colours_change_nothing_else(self, diff: CheckpointDiff) -> None:
        colours = Colours("\x1b[32m", "\x1b[31m", "\x1b[36m", "\x1b[1m", "\x1b[m")
        coloured = list(diff_lines(diff, colours=colours))
        assert [re.sub(r"\x1b\[\d*m", "", line) for line in coloured] == list(diff_lines(diff))
        assert any(line.startswith("\x1b[31m- old.bias\x1b[m") for line in coloured)

    def test_limits(self, diff: CheckpointDiff) -> None:
        assert diff.table(limit=2).endswith("\n  … and 12 more")
        assert "encoder.layer.2.output.dense.bias" in diff.table(unchanged=True)
        assert "encoder.layer.2.output.dense.bias" not in diff.table()

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            (Side("m.pt", "HEAD", exists=False), Side("m.pt", "work tree", parameters=3, size=2000), "new checkpoint"),
            (Side("m.pt", "HEAD", parameters=3, size=2000), Side("m.pt", "work tree", exists=False), "removed"),
            (Side("m.pt", "HEAD"), Side("m.pt", "work tree"), "no parameters"),
        ],
    )
    def test_files_that_come_and_go(self, old: Side, new: Side, expected: str) -> None:
        assert expected in CheckpointDiff(old, new, ()).summary()

    def test_headings(self) -> None:
        assert CheckpointDiff(Side("a.pt", "v1"), Side("b.pt", "v2"), ()).table().startswith("a.pt (v1) → b.pt (v2)\n")
        assert CheckpointDiff(Side("a.pt", "v1"), Side("", "memory"), ()).table().startswith("a.pt  v1 → memory\n")

    def test_text_of_others_cannot_move_the_cursor(self, diff: CheckpointDiff) -> None:
        side = Side("a\x1b[2J\n.pt", "v1\udcff\u202e")
        hostile = replace(diff, old=side, new=side, unavailable="no\x07 \x1b[1m")
        shown = hostile.table() + "".join(diff_lines(hostile)) + hostile.to_html()
        assert not set("\x1b\x07\u202e\udcff") & set(shown)
        assert "a\\x1b[2J\\n.pt  v1\\udcff\\u202e" in shown

    def test_nothing_differs(self, diff: CheckpointDiff) -> None:
        same = replace(diff.filter(status="unchanged"), other=(), unavailable="", hidden=0)
        assert same.table() == "model.safetensors  HEAD~1 → HEAD\nno parameter differs"


class TestJson:
    def test_keeps_to_the_schema(self, diff: CheckpointDiff) -> None:
        jsonschema.Draft202012Validator.check_schema(schema())
        for form in (diff, diff.sort("relative").top(2), diff.filter("nothing"), replace(diff, measured="scalars")):
            jsonschema.validate(form.to_dict(), schema())

    def test_the_schema_forbids_what_it_does_not_know(self, diff: CheckpointDiff) -> None:
        for change in (
            {"extra": 1},
            {"version": 2},
            {"counts": {"modified": 0}},
            {"parameters": [{"name": "w"}]},
            {"measured": "a bit"},
        ):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({**diff.to_dict(), **change}, schema())

    def test_is_json(self, diff: CheckpointDiff) -> None:
        form = diff.to_dict()
        assert json.loads(json.dumps(form, allow_nan=False)) == form
        golden("diff.json", json.dumps(form, indent=1, ensure_ascii=False) + "\n")

    def test_histograms(self, diff: CheckpointDiff) -> None:
        form = diff.to_dict()["histograms"]
        counts = np.frombuffer(base64.b64decode(form["counts"]), "<f4").reshape(-1, 3, BINS)
        assert len(counts) == len(form["parameters"]) == 10
        assert form["tops"][:3] == [0, 0, -5]
        assert counts[0, 0].tolist() == [10, *[0] * 12, 10, 0, 980]
        assert counts[0, 2].sum() == 700 + sum(range(25)), "what is smaller is in the lowest octave"
        assert counts[0, 2, 1:].tolist() == list(range(10, 25))


class TestHtml:
    def test_fragment(self, diff: CheckpointDiff) -> None:
        golden("diff.html", diff.to_html() + "\n")
        golden("diff-sorted.html", diff.sort("relative").to_html() + "\n")

    def test_is_well_formed_and_carries_no_script(self, diff: CheckpointDiff) -> None:
        for form in (diff, diff.sort("max"), replace(diff, measured="structure")):
            page = form.to_html(page=True)
            parsed = _Parsed(page)
            assert parsed.tags.keys() <= {
                *("html", "meta", "title", "style", "div", "p", "b", "table", "tr", "th", "td"),
                *("small", "details", "summary", "mark"),
            }
            assert not [name for name in parsed.attributes if name.startswith("on") or name in ("src", "href")]
            assert "url(" not in page
            assert "head.<script>alert(1)</script>&\"'" in parsed.text
            assert parsed.balance == {"div": 0, "details": 0, "summary": 0, "table": 0, "b": 0, "small": 0, "mark": 0}

    def test_every_parameter_that_differs_is_in_it(self, diff: CheckpointDiff) -> None:
        parsed = _Parsed(diff.sort("relative").to_html())
        assert all(change.name in parsed.text for change in diff)
        assert _Parsed(diff.to_html()).tags["td"] >= 14 * 2

    def test_one_thousand_tensors(self) -> None:
        many = tuple(
            modified(f"model.layers.{n // 10}.mlp.experts.{n % 10}.gate_proj.weight", 1 + n / 7) for n in range(1000)
        )
        diff = CheckpointDiff(Side("m", "a"), Side("m", "b"), many, measured="histograms")
        assert len(diff.to_html().encode()) < 300_000
        assert len(json.dumps(diff.to_dict(), separators=(",", ":"))) < 500_000

    def test_bundle(self, diff: CheckpointDiff) -> None:
        bundle = diff._repr_mimebundle_()
        assert list(bundle) == ["application/vnd.theta.diff+json", "text/html", "text/plain"]
        assert bundle["text/plain"] == diff.table()


class _Parsed(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.attributes: list[str] = []
        self.text = ""
        self.balance = dict.fromkeys(("div", "details", "summary", "table", "b", "small", "mark"), 0)
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes += [name for name, _ in attrs]
        if tag in self.balance:
            self.balance[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in self.balance:
            self.balance[tag] -= 1

    def handle_data(self, data: str) -> None:
        self.text += data


class TestFrames:
    def test_rows(self, diff: CheckpointDiff) -> None:
        found = rows(diff)
        assert len(found) == 15
        row: dict[str, Any] = found[1]
        assert row["name"] == "encoder.layer.2.attention.query.weight"
        assert (row["module"], row["block"], row["kind"]) == (
            "encoder.layer.2.attention.query",
            "encoder.layer.2",
            "weight",
        )
        assert row["relative"] == pytest.approx(0.0375)
        assert math.isnan(found[-1]["relative"])

    def test_without_pandas_there_is_a_hint(self, diff: CheckpointDiff, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)
        with pytest.raises(ThetaError, match="pip install pandas"):
            diff.to_pandas()

    def test_frame(self, diff: CheckpointDiff) -> None:
        pytest.importorskip("pandas")
        frame = diff.to_pandas()
        assert frame.loc["scale", "new_dtype"] == "float16"
        assert list(frame.index) == [change.name for change in diff.parameters]


class TestPlots:
    @pytest.mark.parametrize("kind", ["bars", "heatmap", "histograms"])
    def test_draws(self, diff: CheckpointDiff, kind: str, tmp_path: Path) -> None:
        figure = diff.plot(kind)
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 5000
        texts = {text.get_text() for axes in figure.axes for text in axes.get_yticklabels()}
        assert kind == "histograms" or any("embeddings" in text or text == "weight" for text in texts), texts

    def test_shows_itself_without_pyplot(self, diff: CheckpointDiff) -> None:
        code = (
            "import pickle, sys\n"
            "from IPython.core.interactiveshell import InteractiveShell\n"
            "diff = pickle.load(sys.stdin.buffer)\n"
            "shown, _ = InteractiveShell().display_formatter.format(diff.plot())\n"
            "print(sorted(shown), 'matplotlib.pyplot' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(diff), capture_output=True, check=True)
        assert done.stdout.decode().strip() == "['image/png', 'text/plain'] False"

    @pytest.mark.parametrize("kind", ["bars", "heatmap", "histograms"])
    def test_names_are_no_formulas(self, kind: str, tmp_path: Path) -> None:
        name = "layer.0.w$^{$"
        side = Side("m$_$.pt", "HEAD", parameters=1)
        change = replace(modified(name), old=parameter(name), new=parameter(name))
        CheckpointDiff(side, side, (change,), (), "histograms").plot(kind).savefig(tmp_path / "figure.png")

    def test_draws_into_given_axes(self, diff: CheckpointDiff) -> None:
        from matplotlib.figure import Figure

        figure = Figure()
        axes = figure.add_subplot()
        assert diff.plot("bars", metric="max_abs_delta", top=3, ax=axes) is figure
        assert len(axes.patches) == 3

    @pytest.mark.parametrize(
        ("kind", "options", "words"),
        [("pie", {}, "no plot 'pie'"), ("bars", {"metric": "beauty"}, "no metric 'beauty'")],
    )
    def test_what_it_cannot_draw(self, diff: CheckpointDiff, kind: str, options: dict[str, Any], words: str) -> None:
        with pytest.raises(ThetaError, match=words):
            diff.plot(kind, **options)

    def test_nothing_to_draw(self, diff: CheckpointDiff) -> None:
        for kind in ("bars", "heatmap", "histograms", "spectra"):
            with pytest.raises(ThetaError, match="no "):
                diff.filter("head.*").plot(kind)
