"""The ES modules of the explorers in node, one by one and joined."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from theta_nb.jupyter import static
from theta_nb.jupyter.static import linked
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
_DISTANCES = [0.0, 2.5e-9, 4.9e-7, 0.5, 1.25, 2.0, math.nan]
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
    return tmp_path


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
    assert len(linked(entry)) < 150_000


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
