"""Notebooks run from top to bottom in a real kernel that sees an empty home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def texts(cell: Any) -> str:
    """What a cell printed and returned."""
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", [])
    )


@pytest.fixture
def execute(tmp_path: Path, isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], dict[str, Any]]:
    """Run a notebook in a kernel that sees an empty home; its cells by id."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(isolated_home / name.lower()))
    for role in ("AUTHOR", "COMMITTER"):  # a newcomer's machine may know no identity
        monkeypatch.delenv(f"GIT_{role}_NAME")
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    work = tmp_path / "work"
    temporary = tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))

    def run(notebook: Any) -> dict[str, Any]:
        NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(work)}}
        ).execute()
        assert list(work.iterdir()) == [], "the notebook leaves no file in the folder that it runs in"
        assert [path.name for path in temporary.glob("theta-*")] == [], "the temporary repository is removed"
        return {cell.id: cell for cell in notebook.cells}

    return run
