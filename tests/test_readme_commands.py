"""README.md, ``.ci/run`` and ``constraints.txt`` agree: what a reader is told to type works on the machine it names."""

from __future__ import annotations

import re
import shlex
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")
RUN = (TOP / ".ci" / "run").read_text(encoding="utf-8")


def command_after(marker: str) -> str:
    match = re.search(rf"^<!-- {marker} -->\n```\w*\n(.+?)\n```$", README, re.MULTILINE | re.DOTALL)
    assert match, f"README.md has a fenced command right after <!-- {marker} -->"
    return match[1]


@pytest.mark.parametrize(
    ("marker", "ending"),
    [("demo-command", "-m theta_nb.demo"), ("test-command", '-m pytest -n 2 -m "not slow"')],
)
def test_the_command_is_one_line_that_ends_in_what_it_is_for(marker: str, ending: str) -> None:
    assert README.count(f"<!-- {marker} -->") == 1
    command = command_after(marker)
    assert "\n" not in command, "one line to copy"
    assert command.endswith(ending)
    assert "-c constraints.txt" in command, "without it pip takes a PyTorch with gigabytes of CUDA"


@pytest.mark.parametrize("marker", ["demo-command", "test-command"])
def test_ci_finds_the_same_command(marker: str, tmp_path: Path) -> None:
    function = RUN[RUN.index("readme_command() {") : RUN.index("\n}\n") + 3]
    script = f"set -euo pipefail\n{function}\nreadme_command {shlex.quote(marker)}"
    found = subprocess.run(["bash", "-c", script], cwd=TOP, capture_output=True, text=True, check=True).stdout
    assert found == command_after(marker) + "\n"
    (tmp_path / "README.md").write_text("# nothing here\n")
    lost = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert lost.returncode == 1, "a README without the marker fails the run instead of testing nothing"
    assert marker in lost.stderr


def test_every_pinned_version_installs_on_the_python_of_debian_12() -> None:
    pins = [
        Requirement(line) for line in (TOP / "constraints.txt").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert len(pins) > 100
    refused, compared = [], 0
    for pin in pins:
        try:
            found = distribution(pin.name)
        except PackageNotFoundError:
            continue
        if pin.specifier.contains(found.version, prereleases=True):
            compared += 1
            if not SpecifierSet(found.metadata.get("Requires-Python") or "").contains("3.11.2"):
                refused.append(f"{pin.name} {found.version}")
    assert compared, "something that is pinned is installed here"
    assert refused == []
