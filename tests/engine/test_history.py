"""Histories, from manifests alone: what each commit did, and where the present values come from."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from theta_nb.engine.diff import Parameter
from theta_nb.engine.history import Commit, Version, attribute, steps_of
from theta_nb.report.history import History

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def commit(name: str, *parents: str) -> Commit:
    return Commit(name, parents, "Ada", NOON, f"commit {name}")


def version(objects: dict[str, int] | None = None, path: str = "m.pt", **digests: str) -> Version:
    """A version whose parameters have one element for each letter of their digest."""
    parameters = {
        name.replace("_", "."): Parameter(name.replace("_", "."), "float32", (len(digest),), digest.encode())
        for name, digest in digests.items()
    }
    return Version(path, "manifest", parameters, objects or {}, "pytorch", 100)


LINE = [commit("c", "b"), commit("b", "a"), commit("a")]
VERSIONS = {
    "a": version({"o1": 10, "o2": 5}, w_0="aa", w_1="bb"),
    "b": version({"o1": 10, "o3": 7}, w_0="aa", w_1="cc"),
    "c": version({"o2": 5, "o3": 7}, w_0="aa", w_2="cc"),
}


def test_each_step_says_what_changed_and_what_is_new_in_the_store() -> None:
    steps = steps_of(LINE, VERSIONS)
    assert [step.state for step in steps] == ["modified", "modified", "added"]
    assert steps[1].names() == ("w.1",)
    assert [change.status for change in steps[0].changes] == ["renamed"]
    assert [step.new_bytes for step in steps] == [0, 7, 15], "an object counts where it first appears"
    assert sum(step.new_bytes for step in steps) == 22


def test_objects_of_a_parent_beyond_the_list_are_not_new() -> None:
    steps = steps_of(LINE[:2], VERSIONS)
    assert [step.new_bytes for step in steps] == [0, 7]
    assert steps[1].names() == ("w.1",), "compared with the parent that is not listed"


@pytest.mark.parametrize(
    ("kind", "state"), [("raw", "raw"), ("broken", "broken"), ("none", "deleted")], ids=["raw", "broken", "deleted"]
)
def test_what_cannot_be_compared(kind: str, state: str) -> None:
    odd = Version("" if kind == "none" else "m.pt", kind, problem="cut short" if kind == "broken" else "")  # type: ignore[arg-type]
    steps = steps_of(LINE, {**VERSIONS, "b": odd})
    assert [step.state for step in steps] == ["added", state, "added"]
    assert steps[1].path == "m.pt"
    assert History("m.pt", steps).table(), "it can be shown"


def test_a_merge_is_compared_with_its_first_parent_and_blame_finds_the_branch() -> None:
    commits = [commit("m", "x", "y"), commit("y", "a"), commit("x", "a"), commit("a")]
    versions = {
        "a": version(w_0="aa", w_1="bb", w_2="cc"),
        "x": version(w_0="xx", w_1="bb", w_2="cx"),
        "y": version(w_0="aa", w_1="yy", w_2="cy"),
        "m": version(w_0="xx", w_1="yy", w_2="mm"),
    }
    merge = steps_of(commits, versions)[0]
    assert merge.is_merge
    assert merge.names() == ("w.1", "w.2")
    found = {
        line.parameter.name: (line.commit.id, line.status)
        for line in attribute(commits, versions, ["w.0", "w.1", "w.2"])
    }
    assert found == {"w.0": ("x", "modified"), "w.1": ("y", "modified"), "w.2": ("m", "merged")}


def test_the_matrix_tells_which_part_changed_in_which_commit() -> None:
    history = History(
        "m.pt", steps_of(LINE[1:], {"a": version(w_0="aa", w_1="bbbb"), "b": version(w_0="ax", w_1="bbbb")})
    )
    matrix = history.matrix("parameter")
    assert matrix.layers == ("w.0", "w.1")
    assert [c.id for c in matrix.commits] == ["a", "b"], "oldest first"
    assert matrix.values == ((1.0, 1.0), (1.0, 0.0))
    whole = history.matrix("kind")
    assert whole.column("b") == {"other": pytest.approx(2 / 6)}
    with pytest.raises(KeyError):
        matrix.column("z")


def test_removed_parts_leave_no_number() -> None:
    history = History("m.pt", steps_of(LINE, VERSIONS))
    values = dict(zip(history.matrix("parameter").layers, history.matrix("parameter").values, strict=True))
    assert values["w.1"][:2] == (1.0, 1.0)
    assert values["w.1"][2] != values["w.1"][2], "not a number: that commit has no such parameter"


def test_an_unknown_grouping_is_named() -> None:
    with pytest.raises(Exception, match="cannot be grouped by 'colour'"):
        History("m.pt", ()).matrix("colour")
