"""Parameters follow from signatures, and what comes from outside is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from theta_nb.errors import MergeError, ThetaError
from theta_nb.merges.gram import Combination, Gram
from theta_nb.merges.method import Method, merge_method
from theta_nb.merges.parameters import Range, signature
from theta_nb.merges.table import BUILTIN, METHODS, method_named
from theta_nb.merges.tensors import merge_tensors
from theta_nb.registry import Registry


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("ties", {"density": 1.5}, "ties: density is 1.5, and must lie in 0 to 1"),
        ("ties", {"density": -1e-9}, "must lie in 0 to 1"),
        ("ties", {"density": "half"}, "must be a number"),
        ("ties", {"density": True}, "must be a number"),
        ("ties", {"density": None}, "must be a number"),
        ("ties", {"density": float("nan")}, "must be finite"),
        ("ties", {"weight": float("inf")}, "must be finite"),
        ("ties", {"density": [0.1, 0.2, 0.3]}, "has 3 values for 2 inputs"),
        ("ties", {"density": {"nobody": 0.1}}, "'nobody', which is no input"),
        ("ties", {"densty": 0.1}, "Did you mean 'density'"),
        ("ties", {"normalize": "perhaps"}, "must be true or false"),
        ("ties", {"scope": "world"}, "Known: tensor, model"),
        ("dare_ties", {"seed": 1.5}, "must be a whole number"),
        ("dare_ties", {"seed": -1}, "must lie in"),
        ("karcher", {"max_iter": 10**400}, "must be a number"),
        ("karcher", {"max_iter": "1e3"}, "must be a number"),
        ("tise", {}, "Did you mean 'ties'"),
        ("", {}, "no merge method"),
        ("lines:lines:nothing", {}, "no merge method"),
        ("linear", {"weight": [1, -1]}, "cannot be normalized"),
        ("theirs", {"which": 2}, "there are 1 others"),
    ],
)
def test_mistakes_are_named(method: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(MergeError, match=message):
        merge_tensors(method, [np.zeros(2), np.ones(2)], base=np.zeros(2), **parameters)


@pytest.mark.parametrize(
    "density", [0.3, "0.3", [0.3, 0.3], {"0": 0.3, "1": "0.3"}, np.float64(0.3), np.array([0.3] * 2)]
)
def test_a_number_may_come_in_many_forms(density: object) -> None:
    inputs, base = [np.arange(9.0), -np.arange(9.0)[::-1]], np.zeros(9)
    expected = merge_tensors("ties", inputs, base=base, density=0.3)
    assert np.array_equal(merge_tensors("ties", inputs, base=base, density=density), expected)


def test_shapes_that_do_not_overlap_are_named() -> None:
    with pytest.raises(MergeError, match=r"head.weight has shapes \[2, 3\], \[3, 2\]"):
        merge_tensors("linear", [np.zeros((2, 3)), np.zeros((3, 2))], name="head.weight")
    with pytest.raises(MergeError, match="no inputs"):
        merge_tensors("linear", [])


def test_a_method_of_ones_own_needs_nothing_but_a_function() -> None:
    @merge_method("extrapolate", title="Extrapolate", inputs=(2, 2), base="none")
    def extrapolate(gram: Gram, *, by: Annotated[float, Range(0, 3), "how far beyond theirs"] = 1.0) -> Combination:
        """Go on in the direction of theirs."""
        return Combination((-by, 1 + by))

    assert isinstance(extrapolate, Method)
    assert extrapolate.parameter("by").range.high == 3
    assert merge_tensors(extrapolate, [[1.0], [2.0]], by=2).tolist() == [4.0]


def test_signatures_that_cannot_be_parameters_are_refused() -> None:
    def no_default(gram: Gram, *, t: float) -> Combination: ...  # type: ignore[empty-body]

    def odd(gram: Gram, *, t: bytes = b"") -> Combination: ...  # type: ignore[empty-body]

    for function in (no_default, odd):
        with pytest.raises(TypeError):
            signature(function)


def test_a_plug_in_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ThetaError, match="no merge method is called"):
        METHODS["nothing"]


def test_a_published_plug_in_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_merges.py").write_text(
        "from theta_nb.merges.gram import Combination, Gram\n"
        "from theta_nb.merges.method import merge_method\n"
        "@merge_method('double', title='Double')\n"
        "def double(gram: Gram) -> Combination:\n"
        '    """Twice ours."""\n'
        "    return Combination((2.0,) + (0.0,) * (gram.count - 1))\n"
    )
    info = tmp_path / "their_merges-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-merges\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[theta_nb.merges]\ndouble = their_merges:double\nties = their_merges:double\nlost = their_merges:nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    table: Registry[Method] = Registry("merge method", "theta_nb.merges", BUILTIN)
    assert "double" in table.names()
    assert merge_tensors(table["double"], [[1.0], [5.0]]).tolist() == [2.0]
    assert table["ties"].name == "ties", "a plug-in does not replace what comes with the package"
    with pytest.raises(ThetaError, match="'lost' cannot be loaded"):
        table["lost"]


def test_every_builtin_is_found_by_its_name() -> None:
    for name in METHODS.names():
        assert method_named(name).name == name
        assert help(method_named(name)) is None
