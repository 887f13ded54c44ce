"""The manual page: in step with the commands, and found by ``git theta --help``."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from theta_nb.commands.dispatch import command_names
from theta_nb.commands.manual import manual_page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "man" / "git-theta.1"


def test_the_page_is_in_step() -> None:
    assert PAGE.read_text(encoding="utf-8") == manual_page(), (
        "run: python -m theta_nb.commands.manual > man/git-theta.1"
    )
    for name in command_names():
        assert f".B git theta {name}\n".replace("ls-files", r"ls\-files") in manual_page()


def test_the_wheel_brings_it_to_where_man_looks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"man/git-theta.1": "share/man/man1/git-theta.1"}


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no 'man' here")
def test_git_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "man1").mkdir()
    shutil.copy(PAGE, tmp_path / "man1")
    monkeypatch.setenv("MANPATH", str(tmp_path))
    monkeypatch.setenv("MAN_KEEP_FORMATTING", "")
    shown = subprocess.run(["git", "theta", "--help"], capture_output=True, text=True, check=False)
    if "minimized" in shown.stdout:
        pytest.skip("'man' is a stand-in without pages here")
    assert shown.returncode == 0, shown.stderr
    assert "git theta track" in shown.stdout
    assert "warning" not in shown.stderr
