"""What changed, from digests alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.filters import clean
from tests.git.checkpoints import pytorch, safetensors
from theta_nb.engine.diff import Parameter, natural, parameters_of, structural_diff
from theta_nb.engine.renames import match_renamed
from theta_nb.storage.objects import MemoryStore


def changes(old: bytes | None, new: bytes | None, name: str = "model.bin") -> dict[str, str]:
    sides = [parameters_of(None if data is None else clean(data, MemoryStore(), name)) for data in (old, new)]
    return {change.name: change.status for change in structural_diff(*sides)}


def ones(*shape: int, value: float = 1.0, dtype: str = "float32") -> np.ndarray:
    return np.full(shape, value, dtype)


def test_every_status() -> None:
    old = safetensors(
        {
            "same": ones(3),
            "value": ones(3, 2),
            "type": ones(4),
            "shape": ones(4, 3),
            "both": ones(2, 2),
            "gone": ones(5),
            "before": ones(6, value=7),
        }
    )
    new = safetensors(
        {
            "same": ones(3),
            "value": ones(3, 2, value=2),
            "type": ones(4, dtype="float16"),
            "shape": ones(5, 3),
            "both": ones(3, 2, dtype="float64"),
            "new": ones(7),
            "after": ones(6, value=7),
        }
    )
    assert changes(old, new) == {
        "same": "unchanged",
        "value": "modified",
        "type": "retyped",
        "shape": "reshaped",
        "both": "reshaped",
        "gone": "removed",
        "new": "added",
        "after": "renamed",
    }


def test_files_that_come_and_go() -> None:
    data = safetensors({"a": ones(2), "b": ones(3)})
    assert changes(None, data) == {"a": "added", "b": "added"}
    assert changes(data, None) == {"a": "removed", "b": "removed"}
    assert changes(None, None) == {}


def test_one_value_in_two_formats_is_unchanged() -> None:
    value = np.arange(12, dtype="float32").reshape(3, 4)
    saved = pytorch({"w": torch.from_numpy(value)})
    assert changes(safetensors({"w": value}), saved) == {"w": "unchanged"}


def test_views_are_listed_and_their_storage_is_not() -> None:
    whole = torch.arange(12.0)
    saved = {"upper": whole[:6], "lower": whole[6:]}
    assert changes(pytorch(saved), pytorch(saved)) == {"lower": "unchanged", "upper": "unchanged"}
    other = whole + 1
    assert changes(pytorch(saved), pytorch({"upper": other[:6], "lower": other[6:]})) == {
        "lower": "modified",
        "upper": "modified",
    }


def test_tied_tensors_name_the_one_they_are_tied_to() -> None:
    weight = torch.ones(3, 2)
    found = parameters_of(clean(pytorch({"head": weight, "embedding": weight}), MemoryStore(), "m.pt"))
    assert {name: parameter.tied for name, parameter in found.items()} == {"embedding": "", "head": "embedding"}


def test_opaque_bytes_are_one_entry() -> None:
    assert changes(b"\x00" * 100, b"\x01" * 100) == {"@0": "modified"}
    assert changes(b"\x00" * 100, b"\x00" * 100) == {"@0": "unchanged"}


def test_a_renamed_prefix_takes_equal_values_along() -> None:
    """Biases that are all zero have one digest; the weights around them tell which went where."""
    old = {f"encoder.{i}.{kind}": ones(2, value=i if kind == "w" else 0) for i in range(3) for kind in ("w", "b")}
    new = {f"bert.{name}": value for name, value in old.items()}
    found = changes(safetensors(old), safetensors(new))
    assert found == dict.fromkeys(new, "renamed")


def test_what_is_ambiguous_stays_added_and_removed() -> None:
    assert match_renamed({"a": b"0", "b": b"0"}, {"c": b"0", "d": b"0"}) == {}
    assert match_renamed({"a": b"0", "b": b"0"}, {"c": b"0"}) == {}
    assert match_renamed({"a": b"0"}, {"b": b"0"}) == {"a": "b"}
    assert match_renamed({"a": b"0"}, {"b": b"1"}) == {}


@given(
    st.dictionaries(st.text("ab.1", min_size=1, max_size=4), st.sampled_from([b"1", b"2", b"3"]), max_size=8),
    st.dictionaries(st.text("cd.1", min_size=1, max_size=4), st.sampled_from([b"1", b"2", b"3"]), max_size=8),
)
def test_renames_are_one_to_one_and_keep_the_value(removed: dict[str, bytes], added: dict[str, bytes]) -> None:
    found = match_renamed(removed, added)
    assert len(set(found.values())) == len(found)
    assert all(removed[old] == added[new] for old, new in found.items())


@given(st.lists(st.tuples(st.text("ab.019é", max_size=6), st.integers(0, 2)), max_size=10))
def test_every_parameter_is_in_one_change(drawn: list[tuple[str, int]]) -> None:
    old = {name: Parameter(name, "int8", (2,), bytes([value])) for name, value in drawn[::2]}
    new = {name: Parameter(name, "int8", (2,), bytes([value])) for name, value in drawn[1::2]}
    found = structural_diff(old, new)
    assert sorted(change.old.name for change in found if change.old) == sorted(old)
    assert sorted(change.new.name for change in found if change.new) == sorted(new)


def test_names_sort_as_people_count() -> None:
    names = ["layer.10.b", "layer.2.b", "layer.2.a", "Layer", "layer", "", "1" * 30, "2"]
    assert sorted(names, key=natural)[-4:] == ["layer", "layer.2.a", "layer.2.b", "layer.10.b"]
    assert len({natural(name) for name in names}) == len(names)


@pytest.mark.parametrize(("bits", "shape"), [("float32", (3, 2)), ("float4_e2m1", (4, 2)), ("bytes", (24,))])
def test_sizes(bits: str, shape: tuple[int, ...]) -> None:
    assert Parameter("w", bits, shape, b"").nbytes == {"float32": 24, "float4_e2m1": 4, "bytes": 24}[bits]
