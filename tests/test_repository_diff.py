"""``Repository.diff``: every way to name the two sides, and a clear error for what cannot be compared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import theta_nb
from tests.conftest import GitSandbox
from tests.git.checkpoints import pytorch, safetensors
from theta_nb.errors import ManifestError, NotTrackedError, ThetaError

NAME = "m.safetensors"


def state(shift: float = 0.0) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    found = {f"layer.{n}.weight": random.standard_normal((16, 64)).astype("float32") for n in range(3)}
    found["layer.1.weight"] += np.float32(shift)
    return found


@pytest.fixture
def repo(new_repository: Callable[..., GitSandbox]) -> GitSandbox:
    made = new_repository()
    for message, shift in (("one", 0.0), ("two", 0.5)):
        made.write(NAME, safetensors(state(shift)))
        made.commit_all(message)
    return made


def changed(diff: theta_nb.CheckpointDiff) -> list[str]:
    return [change.name for change in diff]


def test_commits(repo: GitSandbox) -> None:
    diff = theta_nb.Repository(repo.path).diff(NAME, "HEAD~1", "HEAD")
    assert changed(diff) == ["layer.1.weight"]
    found = diff["layer.1.weight"].statistics
    assert found is not None
    assert found.delta_norm == pytest.approx(0.5 * 32, rel=1e-5)
    assert (diff.old.label, diff.new.label, diff.old.parameters) == ("HEAD~1", "HEAD", 3)
    assert diff.measured == "scalars"
    assert diff.spectrum("layer.1.weight").stable_rank == pytest.approx(1, abs=1e-3)
    assert diff.plot("spectra").axes


def test_structure_alone_reads_no_object(repo: GitSandbox) -> None:
    repository = theta_nb.Repository(repo.path)
    (repo.path / ".git" / "theta" / "objects").rename(repo.path / "elsewhere")
    diff = repository.diff(NAME, "HEAD~1", "HEAD", measure=False)
    assert (changed(diff), diff.measured) == (["layer.1.weight"], "structure")
    measured = diff.measure()
    assert changed(measured) == ["layer.1.weight"]
    assert measured.unavailable
    assert measured["layer.1.weight"].note.startswith("not measured: ")
    assert str(measured).count("1 parameter is not measured: ") == 1
    (repo.path / "elsewhere").rename(repo.path / ".git" / "theta" / "objects")
    assert measured.measure()["layer.1.weight"].statistics is not None, "asked again, it looks again"


def test_work_tree_and_index(repo: GitSandbox) -> None:
    repository = theta_nb.Repository(repo.path)
    assert not repository.diff(NAME)
    repo.write(NAME, safetensors({**state(0.5), "new": np.ones(3, "float32")}))
    assert changed(repository.diff(NAME)) == ["new"]
    assert changed(repository.diff(NAME, "HEAD", "")) == []
    repo("add", NAME)
    assert changed(repository.diff(NAME, "HEAD", "")) == ["new"]
    assert repository.diff(NAME, "").new.label == "work tree"
    os.unlink(repo.path / NAME)
    gone = repository.diff(NAME, "")
    assert {change.status for change in gone} == {"removed"}
    assert gone.summary().startswith("checkpoint removed, 4 parameters")


def test_two_paths_and_formats(repo: GitSandbox, tmp_path: Path) -> None:
    repository = theta_nb.Repository(repo.path)
    repo.write("other.pt", pytorch({name: torch.from_numpy(value) for name, value in state(0.5).items()}))
    repo.commit_all("other")
    diff = repository.diff(NAME, "HEAD~1", "HEAD", new_path="other.pt")
    assert changed(diff) == []
    assert diff.other == ("format safetensors → pytorch",)
    assert changed(repository.diff(NAME, "HEAD~2", None, new_path=repo.path / "other.pt")) == ["layer.1.weight"]
    outside = tmp_path / "elsewhere.safetensors"
    outside.write_bytes(safetensors(state(0.25)))
    diff = repository.diff(NAME, "HEAD", outside)
    assert changed(diff) == ["layer.1.weight"]
    assert diff.new.path == str(outside)


def test_state_in_memory(repo: GitSandbox) -> None:
    repository = theta_nb.Repository(repo.path)
    loaded = repository.load(NAME, "HEAD")
    assert not repository.diff(NAME, "HEAD", loaded)
    loaded["layer.2.weight"].mul_(2)
    diff = repository.diff(NAME, "HEAD", loaded)
    assert changed(diff) == ["layer.2.weight"]
    assert diff.total.relative == pytest.approx(1)
    assert str(diff).startswith("m.safetensors  HEAD → memory\n")
    back = repository.diff(NAME, loaded, "HEAD")
    assert back.total.relative == pytest.approx(0.5)
    layer = torch.nn.Linear(64, 16, bias=False)
    module = torch.nn.ModuleDict({"layer": torch.nn.ModuleList([layer, layer, layer])})
    assert changed(repository.diff(NAME, "HEAD", module)) == [f"layer.{n}.weight" for n in range(3)]


def test_is_remembered_on_disk(repo: GitSandbox) -> None:
    repository = theta_nb.Repository(repo.path)
    first = repository.diff(NAME, "HEAD~1", "HEAD", histograms=True)
    assert (repo.path / ".git" / "theta" / "statistics.sqlite").exists()
    (repo.path / ".git" / "theta" / "objects").rename(repo.path / "elsewhere")
    again = theta_nb.Repository(repo.path).diff(NAME, "HEAD~1", "HEAD", histograms=True)
    assert repr(again.parameters) == repr(first.parameters)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("none.pt", "HEAD", None), ThetaError, "none.pt exists neither in HEAD nor in work tree"),
        ((NAME, "nowhere", "HEAD"), ThetaError, "'nowhere'"),
        ((NAME, "HEAD", Path("/nowhere/m.pt")), ThetaError, "/nowhere/m.pt does not exist"),
        ((NAME, "HEAD", Path("/")), ThetaError, "/ is not a file"),
        ((NAME, "HEAD", 3), ThetaError, "int is no state"),
        (("raw.bin", "HEAD", "HEAD"), NotTrackedError, "raw.bin at HEAD is not stored by theta-nb"),
        (("../m.pt", "HEAD", "HEAD"), ThetaError, "outside the repository"),
    ],
)
def test_what_cannot_be_compared(
    repo: GitSandbox, arguments: tuple[Any, ...], kind: type[Exception], words: str
) -> None:
    repo.write("raw.bin", b"raw")
    repo.commit_all("raw")
    with pytest.raises(kind, match=words):
        theta_nb.Repository(repo.path).diff(*arguments)


def test_a_corrupt_manifest(repo: GitSandbox) -> None:
    text = repo("cat-file", "blob", f"HEAD:{NAME}")
    broken = repo.run("hash-object", "-w", "--stdin", data=text[: len(text) // 2].encode()).stdout.strip()
    repo("update-index", "--cacheinfo", f"100644,{broken},{NAME}")
    with pytest.raises(ManifestError, match="index"):
        theta_nb.Repository(repo.path).diff(NAME, "HEAD", "")


def test_structure_imports_no_torch(repo: GitSandbox) -> None:
    code = (
        "import sys, theta_nb\n"
        f"diff = theta_nb.Repository({str(repo.path)!r}).diff({NAME!r}, 'HEAD~1', 'HEAD')\n"
        "diff._repr_mimebundle_()\n"
        "print([name for name in ('torch', 'matplotlib', 'IPython', 'git', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
