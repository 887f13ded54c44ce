"""What is imported when: git starts a Python for every command, and nobody waits two seconds for torch there."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save as safetensors_bytes

import theta_nb

PACKAGE = Path(theta_nb.__file__).parent
SLOW = {"torch", "IPython", "ipywidgets", "git", "matplotlib", "pandas", "scipy", "jupyterlab", "transformers"}
_IMPORT_LINE = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s*([\w.]+)$", re.MULTILINE)


def imported(command: list[str], folder: Path, **variables: str) -> set[str]:
    """Modules that all the Pythons of a command import, by ``-X importtime``."""
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}: {result.stdout}{_IMPORT_LINE.sub('', result.stderr)}"
    return set(_IMPORT_LINE.findall(result.stderr))


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def slow(modules: set[str]) -> set[str]:
    return {module for module in modules if module.partition(".")[0] in SLOW}


@pytest.fixture
def checkpoints(repository: Any) -> Path:
    """A repository with a checkpoint of either format, changed since its commit."""
    for scale in (1.0, 2.0):
        weight = np.linspace(0, scale, 4096, dtype=np.float32)
        repository.write("model.safetensors", safetensors_bytes({"w": weight}))
        torch.save({"model": {"w": torch.from_numpy(weight)}, "epoch": 1}, repository.path / "model.pt")
        if scale == 1.0:
            repository.commit_all("one")
    path: Path = repository.path
    return path


def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import sys, theta_nb, json; theta_nb.__version__, dir(theta_nb); print(json.dumps(list(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    modules = set(json.loads(out))
    heavy = SLOW | {"numpy", "numcodecs", "safetensors", "blake3", "sqlite3", "tqdm", "asyncio", "concurrent"}
    assert {module for module in modules if module.partition(".")[0] in heavy} == set()
    assert {module for module in modules if module.startswith("theta_nb")} == {"theta_nb", "theta_nb.errors"}


def test_every_lazy_name_can_be_had() -> None:
    code = "import theta_nb\nfor name in theta_nb.__all__: getattr(theta_nb, name)\nfrom theta_nb import *"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("command", "proof"),
    [
        pytest.param("git add model.safetensors model.pt", "theta_nb.engine.clean", id="clean"),
        pytest.param("git checkout HEAD -- model.safetensors model.pt", "theta_nb.engine.rebuild", id="smudge"),
        pytest.param("git status", "theta_nb.engine.clean", id="git status"),
        pytest.param("git diff", "theta_nb.engine.clean", id="plain diff"),
        pytest.param("git theta status", "theta_nb.commands.status", id="status"),
        pytest.param("git theta add model.pt", "theta_nb.commands.add", id="add"),
        pytest.param("git theta checkout --force", "theta_nb.commands.checkout", id="checkout"),
        pytest.param("git theta fsck", "theta_nb.commands.fsck", id="fsck"),
        pytest.param("git theta gc", "theta_nb.commands.gc", id="gc"),
        pytest.param("git theta diff HEAD", "theta_nb.commands.diff", id="diff"),
        pytest.param("git theta log", "theta_nb.commands.log", id="log"),
        pytest.param("git theta blame model.pt", "theta_nb.commands.blame", id="blame"),
        pytest.param("git theta ls-files", "theta_nb.commands.ls_files", id="ls-files"),
        pytest.param("git theta track *.bin", "theta_nb.commands.track", id="track"),
        pytest.param("git theta install --local", "theta_nb.commands.install", id="install"),
        pytest.param("git theta env", "theta_nb.commands.env", id="env"),
    ],
)
def test_commands_import_nothing_slow(checkpoints: Path, command: str, proof: str) -> None:
    found = imported(command.split(), checkpoints)
    assert proof in found, f"{command} runs our code, or nothing was measured"
    assert slow(found) == set(), f"{command} waits for them"


def test_one_filter_process_cleans_and_smudges_without_them(checkpoints: Path) -> None:
    """A stash does both: it cleans the changed files, then it smudges the old ones."""
    subprocess.run(["git", "add", "-A"], cwd=checkpoints, check=True)
    found = imported(["git", "stash", "--quiet"], checkpoints)
    assert {"theta_nb.engine.rebuild", "theta_nb.storage.blosc"} <= found
    assert slow(found) == set()
    assert packages(found) & {"numpy", "numcodecs"} == set(), "the codec needs neither"


def test_numpy_waits_for_the_first_changed_number(checkpoints: Path) -> None:
    for number in range(2):  # the second time every chunk is known
        found = imported(["git", "status"], checkpoints)
        assert "theta_nb.engine.clean" in found
        assert ("numpy" in packages(found)) == (number == 0)
    (checkpoints / "new.safetensors").write_bytes(safetensors_bytes({"w": np.ones(9000, np.float32)}))
    found = imported(["git", "add", "new.safetensors"], checkpoints)
    assert "theta_nb.engine.clean" in found
    assert packages(found) & {"numpy", "numcodecs"} == set()


def test_a_diff_of_two_commits_needs_no_python_at_all(checkpoints: Path) -> None:
    subprocess.run(["git", "commit", "-qam", "two"], cwd=checkpoints, check=True)
    assert imported(["git", "diff", "HEAD~1", "HEAD"], checkpoints) == set()
    assert imported(["git", "log", "-p"], checkpoints) == set()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, "-m", "theta_nb", "diff", "--stat", "HEAD~1", "HEAD"], id="terminal"),
        pytest.param(
            [
                sys.executable,
                "-c",
                "import theta_nb\n"
                "found = theta_nb.Repository('.').diff('model.safetensors', 'HEAD~1', 'HEAD', measure=False)\n"
                "assert found.counts == {'modified': 1}\n"
                "assert '1 of 1' in found.table() and found.sort('size').filter('*').total.counts",
            ],
            id="Python",
        ),
    ],
)
def test_which_tensors_changed_is_known_without_numpy(checkpoints: Path, command: list[str]) -> None:
    subprocess.run(["git", "commit", "-qam", "two"], cwd=checkpoints, check=True)
    found = imported(command, checkpoints)
    assert "theta_nb.git.comparing" in found
    assert packages(found) & {"numpy", "numcodecs"} == set()
    assert found & {"theta_nb.commands.fsck", "theta_nb.commands.status"} == set(), "commands that were not asked for"


def test_a_merge_of_two_branches_imports_nothing_slow(checkpoints: Path) -> None:
    from theta_nb.git.installation import install

    install("local", cwd=str(checkpoints))
    git = ["git", "-C", str(checkpoints)]
    base = {"a": np.zeros(4096, "f4"), "b": np.zeros(4096, "f4")}
    for branch, name in (("left", "a"), ("right", "b")):
        subprocess.run([*git, "checkout", "-q", "-f", "-B", branch, "main"], check=True)
        if branch == "left":
            (checkpoints / "merged.safetensors").write_bytes(safetensors_bytes(base))
            subprocess.run([*git, "add", "merged.safetensors"], check=True)
            subprocess.run([*git, "commit", "-qm", "base"], check=True)
            subprocess.run([*git, "branch", "-f", "main"], check=True)
        (checkpoints / "merged.safetensors").write_bytes(safetensors_bytes(base | {name: np.ones(4096, "f4")}))
        subprocess.run([*git, "commit", "-qam", branch], check=True)
    found = imported(["git", "merge", "-q", "-m", "both", "left"], checkpoints)
    assert "theta_nb.engine.three_way" in found, "the driver ran"
    assert slow(found) == set()


# --- layers, beyond what lint-imports checks --------------------------------------------------------------------------


def sources(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders or (".",):
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_engine_knows_no_git_and_starts_no_process() -> None:
    for name, tree in sources("tensors", "checkpoints", "storage", "manifest", "engine"):
        wrong = {m for m in imports(tree) if m.startswith(("theta_nb.git", "theta_nb.commands")) or m == "subprocess"}
        assert wrong == set(), f"{name} imports {wrong}"


def test_processes_are_started_by_git_and_commands_only() -> None:
    callers = {name for name, tree in sources() if "subprocess" in imports(tree)}
    elsewhere = {name for name in callers if not name.startswith(("git/", "commands/")) and name != "demo.py"}
    assert callers, "something starts git"
    assert elsewhere == set()


def test_no_shell_reads_a_command_line() -> None:
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                raise AssertionError(f"{name}:{node.value.lineno} passes shell=")
            if isinstance(node, ast.Attribute) and node.attr in ("system", "popen") and _is_name(node.value, "os"):
                raise AssertionError(f"{name}:{node.lineno} calls os.{node.attr}")


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def test_pickles_are_never_loaded_by_pickle() -> None:
    """The reader of our own subclasses the pure-Python unpickler; nothing else may touch the module."""
    users = {
        name
        for name, tree in sources()
        if {"pickle.loads", "pickle.load", "pickle.Unpickler", "_pickle", "dill", "cloudpickle", "joblib"}
        & imports(tree)
        or any(
            isinstance(node, ast.Attribute)
            and node.attr in ("load", "loads", "Unpickler")
            and _is_name(node.value, "pickle")
            for node in ast.walk(tree)
        )
        or any(
            isinstance(node, ast.Attribute) and node.attr == "load" and _is_name(node.value, "torch")
            for node in ast.walk(tree)
        )
    }
    assert users == set()
