"""The ES modules of the explorers in node, one by one and joined."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jupyter.estimates import write_estimates
from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.edits import edited, edits_of
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import MergeError
from theta_nb.jupyter import static
from theta_nb.jupyter.merge_desk import MergeDesk
from theta_nb.jupyter.static import linked
from theta_nb.merges.gram import Gram
from theta_nb.merges.table import METHODS
from theta_nb.report.numbers import cosine, percent, short, size

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
HERE = Path(__file__).parent / "modules"

_VALUES = [
    0.0,
    1.0,
    -1.0,
    0.0123456,
    -3.25e-5,
    1.5e-7,
    999.6,
    1234.5,
    9999.0,
    123456.0,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
]
_SHARES = [0.0, 1e-6, 0.0009, 0.01234, 0.5, 0.9991, 1.0, math.nan]
_DISTANCES = [0.0, 2.5e-9, 4.9e-7, 5.2e-6, 9.8e-5, 1.2e-4, 5.1e-4, 0.5, 1.25, 2.0, math.nan]
_SIZES = [0, 999, 1000, 1500, 90_868_376, 999_960, 5 * 10**15]


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder with the modules, as node wants them, and their tests."""
    shutil.copytree(str(files("theta_nb.jupyter.static")), tmp_path / "static", ignore=shutil.ignore_patterns("*.py"))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for test in HERE.glob("*.test.mjs"):
        shutil.copy(test, tmp_path)
    cases: list[tuple[str, object, str]] = [("short", value, short(value)) for value in _VALUES]
    cases += [("percent", share, percent(share)) for share in _SHARES]
    cases += [("cosine", distance, cosine(1 - distance)) for distance in _DISTANCES]
    cases += [("size", number, size(number)) for number in _SIZES]
    told = [[name, value if math.isfinite(value) else _word(value), text] for name, value, text in cases]
    (tmp_path / "numbers.json").write_text(json.dumps(told))
    (tmp_path / "merges.json").write_text(json.dumps(_merges()))
    (tmp_path / "combinations.json").write_text(json.dumps(_combinations()))
    write_estimates(tmp_path)
    return tmp_path


def _merges() -> dict[str, Any]:
    """Edits of a merge, with the numbers before and after as Python says them."""
    random = np.random.default_rng(3)
    names = [f"layers.{layer}.{part}" for layer in range(4) for part in ("weight", "bias")] + ["head", "steps"]
    base = {name: random.normal(size=(4, 3)).astype(np.float32) for name in names}
    base["steps"] = np.arange(3)
    sides = [
        {name: value + by * random.normal(size=value.shape).astype(np.float32) for name, value in base.items()}
        for by in (0.01, 2)
    ]
    sides[0]["layers.0.bias"] = base["layers.0.bias"]
    for side in sides:
        side["steps"] = base["steps"] + 1
    inputs = [StateInput(label, side) for label, side in zip(("ours", "theirs"), sides, strict=True)]
    session = MergeSession(StateInput("original", base), inputs)
    session.measure()
    desk = MergeDesk(session)
    cases = []
    for first, edits in itertools.product(_BEFORE, _EDITS):
        before = edited(Settings(), edits_of(first, desk._members, names), names)
        session.restore(before)
        after = edited(before, edits_of(edits, desk._members, names), names)
        cases.append({"edits": edits, "before": _outcome(desk, before), "after": _outcome(desk, after)})
    opening = desk.opening()
    gradients = [
        (list(values), depth) for values in ((0.0, 1.0), (0.3, 0.1, 2.0), (5.0,)) for depth in (0, 0.3, 0.5, 1)
    ]
    return {
        "index": desk.index(),
        "facts": _plain(opening.arrays[0]),
        "gram": _plain(opening.arrays[1]),
        "cases": cases,
        "gradients": [[v, d, Choice("slerp", {"t": v}).at(d, ("ours", "theirs"))["t"]] for v, d in gradients],
    }


_BEFORE: list[Any] = [
    [{"method": "linear", "parameters": {}}],
    [{"method": "slerp", "parameters": {"t": 0.3}}, {"method": "slerp", "parameters": {"t": 0.9}, "block": "layers.1"}],
    [{"method": "task_arithmetic", "parameters": {}}, {"method": "ours", "names": ["head", "layers.2.bias"]}],
]
_EDITS: list[Any] = [
    [{"method": "slerp", "parameters": {"t": 0.8}}],
    [{"method": "slerp", "parameters": {"t": [0, 0.5, 1]}}],
    [{"method": "linear", "parameters": {"weight": {"theirs": 0.25}}}],
    [{"method": "linear", "parameters": {"weight": [0.5, 2], "normalize": False}}],
    [{"method": "task_arithmetic", "parameters": {"scale": 0.4, "weight": {"ours": -1, "theirs": [0, 2]}}}],
    [{"method": "task_arithmetic", "parameters": {"normalize": True, "scale": [0.1, 1]}}],
    [{"method": "linear", "parameters": {"weight": 2}, "names": ["head", "layers.0.bias"]}],
    [{"method": "slerp", "parameters": {"t": 0.1 * k}, "block": f"layers.{k}"} for k in range(4)],
    [{"method": "multislerp", "parameters": {"weight": {"ours": 0.2, "theirs": [1, 3]}}}],
    [{"method": "multislerp", "parameters": {"space": "task"}}],
    [{"method": "nuslerp", "parameters": {"weight": {"theirs": 2}}}],
    [{"method": "nuslerp", "parameters": {"weight": [0.5, 1], "space": "task"}}],
    [{"method": "karcher", "parameters": {"weight": {"theirs": 0.3}, "max_iter": 3}}],
    [{"method": "model_stock", "parameters": {}}],
    [{"method": "average-ours-theirs", "parameters": {"alpha": 0.3}}],
    [{"method": "average-all", "parameters": {"alpha1": 0.1, "alpha2": [0.2, 0.9]}}],
    [{"method": "average-ours-original", "parameters": {"alpha": 0.3}}],
    [{"method": "average-theirs-original", "parameters": {"alpha": 0.3}}],
    [{"method": method, "parameters": {}} for method in ("original", "theirs", "ours")],
    [{"method": "slerp", "parameters": {"t": 0.6}}, *({"method": None, "block": f"layers.{k}"} for k in range(4))],
]


def _combinations() -> list[dict[str, Any]]:
    """What Gram-determined methods make of inner products, also of such as break careless arithmetic."""
    random = np.random.default_rng(5)
    made = []
    for count, (kind, change) in itertools.product((1, 2, 3, 5), _CHANGES.items()):
        base, tasks = change(random.normal(size=7), random.normal(size=(count, 7)))
        matrix = np.vstack([base, tasks]) @ np.vstack([base, tasks]).T
        labels = [f"input {k}" for k in range(count)]
        for (name, given), depth in itertools.product(_GIVEN, (0.0, 0.7)):
            method = METHODS[name]
            if count < method.inputs[0] or 0 < method.inputs[1] < count:
                continue
            parameters = {key: _by_label(value, labels) for key, value in given.items()}
            gram = Gram(matrix, has_base=True)
            try:
                found = method.from_gram(gram, Choice(name, parameters).at(depth, labels)).coordinates(gram)
            except MergeError:
                found = None
            case = {"method": name, "kind": kind, "parameters": parameters, "labels": labels, "depth": depth}
            made.append({**case, "gram": matrix.ravel().tolist(), "wanted": None if found is None else found.tolist()})
    return made


def _by_label(value: Any, labels: list[str]) -> Any:
    """A tuple is one value for each of the first inputs."""
    return dict(zip(labels, value, strict=False)) if isinstance(value, tuple) else value


_CHANGES: dict[str, Any] = {
    "random": lambda base, tasks: (base, tasks),
    "a fine-tune": lambda base, tasks: (base, 1e-3 * tasks),
    "hardly changed": lambda base, tasks: (base, 1e-6 * tasks),
    "far away": lambda base, tasks: (base, 1e3 * tasks),
    "tiny": lambda base, tasks: (1e-12 * base, 1e-12 * tasks),
    "huge": lambda base, tasks: (1e15 * base, 1e15 * tasks),
    "no ancestor to speak of": lambda base, tasks: (0 * base, tasks),
    "one unchanged": lambda base, tasks: (base, tasks * (np.arange(len(tasks)) > 0)[:, None]),
    "nothing changed": lambda base, tasks: (base, 0 * tasks),
    "all zero": lambda base, tasks: (0 * base, 0 * tasks),
    "changed alike": lambda base, tasks: (base, 0 * tasks + tasks[0]),
    "in one direction": lambda base, tasks: (base, np.outer(1 + np.arange(len(tasks)), tasks[0])),
    "opposite": lambda base, tasks: (base, np.outer((-1.0) ** np.arange(len(tasks)), tasks[0])),
    "one erased": lambda base, tasks: (base, np.vstack([-base, tasks[1:]])),
    "one turned round": lambda base, tasks: (base, np.vstack([-2 * base, tasks[1:]])),
}
_GIVEN: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS.names() if METHODS[name].gram),
    *((name, {"weight": (0.3, 2.0, 1.0)}) for name in ("linear", "nuslerp", "multislerp", "karcher")),
    *((name, {"weight": (-0.5, [0, 3])}) for name in ("linear", "task_arithmetic", "nuslerp", "multislerp")),
    *((name, {"weight": (1.0, -1.0)}) for name in ("linear", "nuslerp", "multislerp", "karcher")),
    *((name, {"space": "task", "weight": (1.0, 0.25)}) for name in ("nuslerp", "multislerp")),
    ("karcher", {"max_iter": 1, "tol": 0.01}),
    ("karcher", {"max_iter": 200}),
    ("task_arithmetic", {"normalize": True, "scale": [0, 1]}),
    ("slerp", {"t": [1.2, -0.1]}),
]


def _outcome(desk: MergeDesk, settings: Settings) -> dict[str, Any]:
    answer = desk.numbers(settings)
    return {"numbers": _plain(answer.arrays[0]), "choices": answer.result["choices"]}


def _plain(numbers: Any) -> list[float | None]:
    return [float(number) if math.isfinite(number) else None for number in numbers.ravel()]


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@needs_node
def test_the_modules_pass_their_own_tests(modules: Path) -> None:
    done = subprocess.run([str(NODE), "--test"], cwd=modules, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# tests 0" not in done.stdout


@needs_node
@pytest.mark.parametrize("entry", ["diff_explorer", "history_explorer", "merge_explorer"])
def test_joined_modules_are_one_module(entry: str, tmp_path: Path) -> None:
    (tmp_path / "joined.mjs").write_text(linked(entry))
    code = "import('./joined.mjs').then(({ default: widget }) => console.log(typeof widget.render))"
    done = subprocess.run([str(NODE), "-e", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "function", done.stderr
    assert len(linked(entry)) < 250_000, "a page gets it once, in one message"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param('import "./other.js";\n', "not understood", id="bare import"),
        pytest.param('import all from "./other.js";\n', "not understood", id="default import"),
        pytest.param("export { a };\n", "not understood", id="list of exports"),
        pytest.param('import { a } from "./entry.js";\n', "import each other", id="circle"),
    ],
)
def test_other_forms_are_refused(source: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"entry": 'import { a } from "./part.js";\nexport default {};\n', "part": source}
    monkeypatch.setattr(static, "_source", sources.__getitem__)
    with pytest.raises(ValueError, match=said):
        linked.__wrapped__("entry")
