"""The magic in a real kernel, through the messages that a front end gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import GitSandbox
from tests.history.conftest import NAME

# Work that takes no time would show no progress.
CELLS = {
    "load": "%load_ext theta_nb\nimport theta_nb.jupyter.progress as shown\nshown._DELAY = 0",
    "fsck": "%theta fsck --all",
    "quiet": "%config Theta.progress = False\n%theta fsck --all",
    "assigned": "diff = %theta diff HEAD~1 HEAD\nlen(diff)",
    "picture": "%config Theta.progress = True\ndiff.plot()",
    "mistake": "%theta diff nope",
    "after": "1 + 1",
    "merge": (
        "import numpy as np\nfrom theta_nb.engine.merging.inputs import StateInput\n"
        "from theta_nb.engine.merging.session import MergeSession\n"
        "MergeSession(None, [StateInput(label, {'w': np.ones(2)}) for label in ('ours', 'theirs')]).use('linear')"
    ),
    "await": "import asyncio\nawait asyncio.sleep(0)\nh = %theta log -n 1\nh[0].commit.subject",
}


@pytest.fixture(scope="module")
def replies() -> dict[str, Any]:
    """What kernels said, shared by the tests of this module: starting one takes seconds."""
    return {}


@pytest.fixture
def said(
    replies: dict[str, Any], grown: GitSandbox, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Outputs by name of the cell, and completions."""
    if replies:
        return replies
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(isolated_home / name.lower()))
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text, id=name) for name, text in CELLS.items()]
    )
    resources = {"metadata": {"path": str(grown.path)}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True, resources=resources)
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        for text in ("%theta diff --so", "x = %theta blame model.safetensors head.w", "%theta show HEAD:mo"):
            reply = client.wait_for_reply(client.kc.complete(text, len(text)))
            content = reply["content"]
            replies[text] = [text[: content["cursor_start"]] + match for match in content["matches"]]
    replies.update({cell.id: cell.outputs for cell in notebook.cells})
    return replies


def test_progress_is_one_display_that_ends_as_a_summary(said: dict[str, Any]) -> None:
    progress, result = said["fsck"]
    assert progress["output_type"] == "display_data"
    assert "checking: " in progress["data"]["text/plain"]
    assert ", done in " in progress["data"]["text/plain"]
    assert "<progress" not in progress["data"]["text/html"], "no bar is left behind"
    assert "everything can be rebuilt" in result["data"]["text/plain"]


def test_progress_can_be_turned_off(said: dict[str, Any]) -> None:
    assert [output["output_type"] for output in said["quiet"]] == ["execute_result"]


def test_values_and_pictures(said: dict[str, Any]) -> None:
    assert said["assigned"][-1]["data"]["text/plain"] == "2"
    assert "image/png" in said["picture"][0]["data"]
    assert said["await"][0]["data"]["text/plain"] == "'train block 1'"


def test_a_merge_session_shows_itself_as_an_explorer(said: dict[str, Any]) -> None:
    still, widget = said["merge"]
    assert "linear" in still["data"]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in widget["data"]


def test_a_mistake_is_one_line_and_the_kernel_lives(said: dict[str, Any]) -> None:
    [mistake] = said["mistake"]
    assert mistake["output_type"] == "error"
    assert len(mistake["traceback"]) == 1
    assert "'nope' is neither a commit nor a file here" in mistake["traceback"][0]
    assert said["after"][0]["data"]["text/plain"] == "2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%theta diff --so", ["%theta diff --sort"]),
        ("x = %theta blame model.safetensors head.w", ["x = %theta blame model.safetensors head.weight"]),
        ("%theta show HEAD:mo", [f"%theta show HEAD:{NAME}"]),
    ],
)
def test_completion_replaces_the_right_part(text: str, expected: list[str], said: dict[str, Any]) -> None:
    assert said[text] == expected
