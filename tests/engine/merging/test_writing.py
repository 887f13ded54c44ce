"""Results as files: storages of every kind, disks without room, inputs that change meanwhile."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.engine.filters import clean
from tests.engine.merging.checkpoints import model, session_of
from theta_nb.engine.merging.inputs import MergeInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.errors import CheckpointError
from theta_nb.storage.objects import MemoryStore

BASE = model(0)
OURS, THEIRS = model(1, BASE), model(2, BASE)


def storages(seed: int, **more: Any) -> dict[str, Any]:
    """Slices with gaps between them, ties, transposed views, nothing at all, and all kinds of floats."""
    generator = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    shared, tied, square = values(100), values(5, 3), values(4, 4)
    return {
        "slices": [shared[10:30], shared[50:60]],
        "transposed": values(6, 4).t(),
        "empty": [torch.zeros(0, 3), torch.zeros(0)],
        "number": values(1)[0].clone(),
        "tied": [tied, tied],
        "square": [square, square.t()],
        "narrow": [values(7).half(), values(3, 3).bfloat16()],
        "complex": torch.complex(values(4), values(4)),
        "whole": torch.arange(5),
        "many blocks": values(300, 1000),
        "epoch": seed,
        **more,
    }


def leaves(state: Any) -> list[Any]:
    """Tensors and values, in order."""
    if isinstance(state, dict):
        return [leaf for one in state.values() for leaf in leaves(one)]
    return [leaf for one in state for leaf in leaves(one)] if isinstance(state, list) else [state]


def stored(data: bytes, label: str, folder: Path, form: str) -> MergeInput:
    if form == "file":
        (folder / f"{label}.pt").write_bytes(data)
        return FileInput(label, folder / f"{label}.pt")
    store = MemoryStore()
    return ManifestInput(label, clean(data, store, f"{label}.pt"), store, label)


def saved(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.mark.parametrize("frame", ["ours", "theirs"])
@pytest.mark.parametrize("form", ["file", "manifest"])
def test_storages_of_every_kind_are_filled(tmp_path: Path, form: str, frame: str) -> None:
    """The file of the side that brought a tensor is the frame, and all other bytes of it stay."""
    added = {"added": torch.full((9,), 2.5)}
    states = {
        label: storages(seed, **(added if label == frame else {}))
        for seed, label in enumerate(("original", "ours", "theirs"))
    }
    base, *inputs = (stored(saved(state), label, tmp_path, form) for label, state in states.items())
    session = MergeSession(base, inputs).use("linear").override("*epoch*", frame)
    path = tmp_path / "merged.pt"
    session.write(str(path))
    assert zipfile.ZipFile(path).testzip() is None
    made = torch.load(path, weights_only=True)
    left, right = (leaves({k: v for k, v in states[label].items() if k != "added"}) for label in ("ours", "theirs"))
    found = leaves({k: v for k, v in made.items() if k != "added"})
    for one, two, x in zip(left, right, found, strict=True):
        if not isinstance(x, torch.Tensor):
            assert x == states[frame]["epoch"]
            continue
        wide = torch.complex128 if x.is_complex() else torch.float64
        torch.testing.assert_close(x, ((one.to(wide) + two.to(wide)) / 2).to(one.dtype), rtol=1e-6, atol=1e-7)
        assert x.stride() == one.stride()
    assert torch.equal(made["added"], added["added"])
    for first, second in (made["slices"], made["tied"], made["square"]):
        assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    assert len(path.read_bytes()) == len(saved(states[frame])), "in the frame of that side"


# --- no room ----------------------------------------------------------------------------------------------------------

_WRITE = """
import os, resource, sys
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.stored_inputs import FileInput
from theta_nb.errors import ThetaError
base, ours, theirs = (FileInput(name, f"{name}.safetensors") for name in ("original", "ours", "theirs"))
session = MergeSession(base, [ours, theirs]).use("linear")
if len(sys.argv) > 1:
    os.ftruncate = lambda *_: None  # the length is found to be too much later, while blocks are written
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
try:
    session.write("merged.safetensors")
except ThetaError as error:
    print(error, "|", error.hint)
"""


@pytest.mark.parametrize("words", [[], ["late"]], ids=["known before", "found out while writing"])
def test_no_room_is_one_clear_error_and_leaves_the_old_file(tmp_path: Path, words: list[str]) -> None:
    session_of(tmp_path, "safetensors", BASE, OURS, THEIRS)
    (tmp_path / "merged.safetensors").write_bytes(b"old")
    before = sorted(entry.name for entry in tmp_path.iterdir())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY, "only the child is limited"
    result = subprocess.run(
        [sys.executable, "-c", _WRITE, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("cannot write merged.safetensors: File too large")
    assert "Free some disk space" in result.stdout
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before
    assert (tmp_path / "merged.safetensors").read_bytes() == b"old"


def test_a_disk_that_fails_while_the_rest_is_computed_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk is reported once, to whoever asks first: the last fsync may know nothing of it."""
    asked = Event()

    def fail(fd: int) -> None:
        asked.set()
        raise OSError(5, "Input/output error")

    def slow(done: int, total: int) -> None:
        assert asked.wait(60), "computing ends only after the disk was asked"

    session = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS).use("linear")
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):
        session.write(str(tmp_path / "merged.safetensors"), progress=slow)
    assert not [entry.name for entry in tmp_path.iterdir() if "merge" in entry.name]


# --- inputs that change -----------------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")


def test_a_file_that_is_only_copied_may_not_change_either(tmp_path: Path) -> None:
    session = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS).use("ours")
    spoil(tmp_path / "ours.safetensors")
    with pytest.raises(CheckpointError, match=r"ours.safetensors was changed while it was merged"):
        session.write(str(tmp_path / "merged.safetensors"))
    assert not (tmp_path / "merged.safetensors").exists()


def test_what_is_remembered_of_a_file_is_not_of_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened, written over in place, and only then hashed: the layout is of the old content, the times of the new."""
    now = time.time_ns()
    monkeypatch.setattr("theta_nb.engine.digest_cache.time.time_ns", lambda: now + 60 * 10**9)
    path, fresh = tmp_path / "model.safetensors", tmp_path / "fresh.safetensors"
    save_file({"a": np.arange(600, dtype=np.float32)}, path)
    save_file({"a": np.ones(600, np.float32), "b": np.ones(7, np.float32)}, fresh)
    early = FileInput("early", path)
    with open(path, "r+b") as file:
        file.write(fresh.read_bytes())
    assert early.tensors.keys() == {"a"}
    with pytest.raises(CheckpointError, match="was changed"):
        early.verify()
    late, other = FileInput("late", path), FileInput("other", fresh)
    assert late.digest == other.digest
    for one in (early, late, other):
        one.close()
