"""The notebooks run from top to bottom in a real kernel and show what their text promises."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebooks.conftest import NOTEBOOKS, texts


def test_the_quickstart_keeps_its_promises(execute: Callable[[Any], dict[str, Any]]) -> None:
    notebook = nbformat.read(NOTEBOOKS / "01-quickstart.ipynb", as_version=4)
    # A kernel has a running event loop; a cell that awaits proves that one runs while the library is called.
    extra = """
import asyncio

async def inside():
    asyncio.get_running_loop()
    return len(repo.load("model.safetensors", rev="fine-tune", pattern="pooler.*"))

print(await inside(), "tensors within a coroutine")
"""
    position = next(i for i, cell in enumerate(notebook.cells) if cell.id == "compare")
    notebook.cells.insert(position, nbformat.v4.new_code_cell(extra, id="in-a-loop"))
    cells = execute(notebook)

    assert texts(cells["track"]) == "Weights as published\n\nTheta-Metric: spearman=0.82\n"
    assert "104 tensors, 90.9 MB" in texts(cells["lazy"])
    assert "TensorView('encoder.layer.5.output.dense.weight', float32, [384, 1536])" in texts(cells["lazy"])
    assert "16 tensors of layer 5" in texts(cells["numbers"])
    log = texts(cells["save"]).splitlines()
    assert [line.split(" ", 1)[1] for line in log] == [
        "Epoch 2 | Theta-Metric: spearman=0.85",
        "Epoch 1 | Theta-Metric: spearman=0.83",
        "Weights as published | Theta-Metric: spearman=0.82",
    ]
    assert re.fullmatch(r"model\.safetensors is unchanged on branch \w+\n", texts(cells["untouched"]))
    assert texts(cells["in-a-loop"]) == "2 tensors within a coroutine\n"
    changed = texts(cells["compare"]).rpartition("changed: ")[2].strip().split(", ")
    expected = [f"encoder.layer.{i}.{part}" for i in (4, 5) for part in ("attention", "intermediate", "output")]
    assert changed == expected, "the two layers that were trained, and no other"
    pictures = [output for output in cells["compare"].outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 1
    published, tuned, back = (line.split()[-1] for line in texts(cells["back"]).splitlines())
    assert published == back != tuned
    whole, ours = (float(number) for number in re.findall(r"([\d.]+) MB", texts(cells["storage"])))
    assert whole == pytest.approx(272.6, abs=0.1)
    assert ours < whole / 2, f"{ours} MB: three versions take less than half of three copies"
    assert texts(cells["proof"]).endswith(" 0 problems\n")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], f"cell {cell.id} of {path.name} has outputs"
            assert cell.execution_count is None, f"cell {cell.id} of {path.name} has a number"
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, "no traces of the editor"
