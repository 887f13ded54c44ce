"""What both sides did to a parameter: every combination, and what becomes of it."""

from __future__ import annotations

import itertools

import pytest

from theta_nb.engine.merging.choices import Choice, Override, Settings
from theta_nb.engine.merging.decisions import decide
from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.engine.merging.states import TABLE, Resolution, Side, State, units

LABELS = ("ours", "theirs")
VALUES = {
    None: None,
    "b": TensorInfo("float32", (4, 3), b"b"),
    "x": TensorInfo("float32", (4, 3), b"x"),
    "y": TensorInfo("float32", (4, 3), b"y"),
    "longer": TensorInfo("float32", (6, 3), b"l"),
    "other": TensorInfo("float32", (3, 4), b"o"),
    "half": TensorInfo("float16", (4, 3), b"h"),
}

S = State
CASES = [
    # ancestor, ours, theirs, state, what becomes of it
    (None, "x", None, S.ADDED_OURS, "ours"),
    (None, None, "x", S.ADDED_THEIRS, "theirs"),
    (None, "x", "x", S.ADDED_SAME, "ours"),
    (None, "x", "y", S.ADDED_BOTH, "linear"),
    (None, "x", "longer", S.RESHAPED, "linear"),
    (None, "x", "half", S.RETYPED, "linear"),
    ("b", "b", "b", S.EQUAL, "ours"),
    ("b", "b", "x", S.CHANGED_THEIRS, "theirs"),
    ("b", "b", "half", S.CHANGED_THEIRS, "theirs"),
    ("b", "b", "other", S.CHANGED_THEIRS, "theirs"),
    ("b", "x", "b", S.CHANGED_OURS, "ours"),
    ("b", "longer", "b", S.CHANGED_OURS, "ours"),
    ("b", "x", "x", S.CHANGED_SAME, "ours"),
    ("b", "x", "y", S.CHANGED_BOTH, "ties"),
    ("b", "x", "longer", S.RESHAPED, "ties"),
    ("b", "x", "other", S.RESHAPED, "ours, open"),
    ("b", "x", "half", S.RETYPED, "ties"),
    ("b", "longer", "longer", S.CHANGED_SAME, "ours"),
    ("b", "b", None, S.DELETED_THEIRS, "dropped"),
    ("b", None, "b", S.DELETED_OURS, "dropped"),
    ("b", None, None, S.DELETED_BOTH, "dropped"),
    ("b", None, "x", S.DELETED_OURS_CHANGED_THEIRS, "dropped, open"),
    ("b", "x", None, S.CHANGED_OURS_DELETED_THEIRS, "ours, open"),
]


def versions(*names: str | None) -> list[dict[str, TensorInfo]]:
    return [{} if VALUES[name] is None else {"w": VALUES[name]} for name in names]  # type: ignore[dict-item]


@pytest.mark.parametrize(("base", "ours", "theirs", "state", "done"), CASES)
def test_each_case_has_its_state_and_resolution(base: str, ours: str, theirs: str, state: State, done: str) -> None:
    origin, mine, other = versions(base, ours, theirs)
    (unit,) = units(origin, [mine, other])
    assert unit.state is state
    decision = decide(unit, Settings(Choice("ties", {})), 0.0, LABELS)
    assert decision.label + (", open" if decision.open else "") == done


def test_the_table_has_every_combination_that_can_occur() -> None:
    known = {"b", "x", "y"}
    seen = set()
    for base, ours, theirs in itertools.product([None, *known], repeat=3):
        if base is ours is theirs is None:
            continue
        (unit,) = units(*(lambda o, m, t: (o, [m, t]))(*versions(base, ours, theirs)))
        seen.add(unit.state)
    assert seen == set(TABLE.values())
    for ours_did, theirs_did, _ in TABLE:
        # Absent and added: without an ancestor. Same, changed and deleted: with one. Never both.
        assert (ours_did in (Side.ABSENT, Side.ADDED)) == (theirs_did in (Side.ABSENT, Side.ADDED))
    assert {state.resolution for state in State} == set(Resolution)


def test_a_side_is_the_mirror_of_the_other() -> None:
    mirror = {"ours": "theirs", "theirs": "ours"}
    for base, ours, theirs in itertools.product(VALUES, repeat=3):
        if base is ours is theirs is None:
            continue
        origin, mine, other = versions(base, ours, theirs)
        (one,), (two,) = units(origin, [mine, other]), units(origin, [other, mine])
        swapped = " ".join(mirror.get(word.strip(","), word.strip(",")) for word in one.state.value.split())
        words = two.state.value.replace(",", "")
        if "ours" in words and "theirs" in words:
            assert sorted(words.split()) == sorted(swapped.split())
        else:
            assert words == swapped


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        ("a:b", "c:b", "a:b", {"c": S.RENAMED_OURS}),
        ("a:b", "a:b", "c:b", {"c": S.RENAMED_THEIRS}),
        ("a:b", "c:b", "c:b", {"c": S.RENAMED_SAME}),
        ("a:b", "c:b", "d:b", {"c": S.RENAMED_BOTH}),
        ("a:b", "c:b", "a:x", {"c": S.CHANGED_THEIRS}),
        ("a:b", "a:x", "c:b", {"c": S.CHANGED_OURS}),
        ("a:b", "c:b", "a:b c:x", {"a": S.DELETED_OURS, "c": S.ADDED_BOTH}),
        (
            "a:b e:b",
            "c:b d:b",
            "a:b e:b",
            {"c": S.ADDED_OURS, "d": S.ADDED_OURS, "a": S.DELETED_OURS, "e": S.DELETED_OURS},
        ),
    ],
)
def test_renames_are_found_by_value(base: str, ours: str, theirs: str, expected: dict[str, State]) -> None:
    def parse(text: str) -> dict[str, TensorInfo]:
        return {pair[0]: VALUES[pair[2]] for pair in text.split()}  # type: ignore[misc]

    found = {unit.name: unit.state for unit in units(parse(base), [parse(ours), parse(theirs)])}
    assert found == expected


@pytest.mark.parametrize(
    ("others", "state"),
    [
        (["b", "b"], S.CHANGED_OURS),
        (["x", "b"], S.CHANGED_SAME),
        (["y", "b"], S.CHANGED_BOTH),
        (["b", None], S.CHANGED_OURS_DELETED_THEIRS),
    ],
)
def test_several_others_count_together(others: list[str | None], state: State) -> None:
    origin, *given = versions("b", "x", *others)
    assert units(origin, given)[0].state is state


def test_others_that_disagree_are_merged_also_where_ours_is_the_ancestors() -> None:
    origin, *given = versions("b", "b", "x", "y")
    (unit,) = units(origin, given)
    assert unit.state is S.CHANGED_BOTH
    assert decide(unit, Settings(Choice("ties", {})), 0.0, ("ours", "a", "b")).inputs == (0, 1, 2)


def test_unrelated_histories_have_no_ancestor() -> None:
    _, mine, other = versions(None, "x", "y")
    (unit,) = units(None, [mine, other])
    assert unit.state is S.ADDED_BOTH
    assert decide(unit, Settings(), 0.0, LABELS).open


def test_what_is_tied_is_one_unit() -> None:
    def tied(value: str) -> dict[str, TensorInfo]:
        info = VALUES[value]
        assert info is not None
        return {"w": info, "head": TensorInfo("float32", (4, 3), info.digest, "w")}

    assert [unit.name for unit in units(tied("b"), [tied("x"), tied("y")])] == ["w"]


@pytest.mark.parametrize(
    ("name", "dtype", "label"),
    [
        ("optimizer/state/[0]/exp_avg", "float32", "ours"),
        ("optimizer_state_dict.state.0.exp_avg_sq", "float32", "ours"),
        ("state.3.momentum_buffer", "float32", "ours"),
        ("bn1.num_batches_tracked", "int64", "ours"),
        ("step", "float32", "ours"),
        ("bn1.running_mean", "float32", "linear"),
        ("bn1.running_var", "float32", "linear"),
        ("position_ids", "int64", "ours"),
        ("mask", "bool", "ours"),
        ("packed", "float4_e2m1", "ours"),
        ("layer.weight", "bfloat16", "ties"),
        ("stepper.weight", "float32", "ties"),
        ("my_optimizer_layer.weight", "float32", "ties"),
    ],
)
def test_what_is_no_weight_follows_rules_that_can_be_overridden(name: str, dtype: str, label: str) -> None:
    base, mine, other = ({name: TensorInfo(dtype, (4,), digest)} for digest in (b"b", b"x", b"y"))
    (unit,) = units(base, [mine, other])
    decision = decide(unit, Settings(Choice("ties", {})), 0.0, LABELS)
    assert decision.label == label
    if label != "ties":
        assert ": " in decision.reason, "the reason is visible"
    theirs = Settings(Choice("ties", {}), (Override("*", Choice("theirs", {})),))
    assert decide(unit, theirs, 0.0, LABELS).label == "theirs"
