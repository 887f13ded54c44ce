"""Checkpoint files as inputs of a merge: what is remembered of them, and copied."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from theta_nb.checkpoints.layout import Part
from theta_nb.engine.merging import stored_inputs
from theta_nb.engine.merging.stored_inputs import FileInput


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint that was last written to a minute ago."""
    path = tmp_path / "model.safetensors"
    save_file({"a": np.arange(600, dtype=np.float32), "b": np.ones((20, 30), np.float32)}, path)
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of what is hashed."""
    seen: list[int] = []
    digest = stored_inputs.chunk_digest

    def watched(data: memoryview) -> bytes:
        seen.append(len(data))
        return digest(data)

    monkeypatch.setattr(stored_inputs, "chunk_digest", watched)
    return seen


def digest_of(path: Path) -> str:
    source = FileInput("ours", path)
    try:
        return source.digest
    finally:
        source.close()


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let it be later than it is: times of a file that was just written are no proof that it stays as it is."""
    now = time.time_ns()
    monkeypatch.setattr("theta_nb.engine.digest_cache.time.time_ns", lambda: now + int(seconds * 1e9))


def test_a_file_is_hashed_once_for_as_long_as_it_stays(
    file: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    later(monkeypatch, 60)
    first = digest_of(file)
    assert sum(hashed) == 2 * 600 * 4
    hashed.clear()
    assert digest_of(file) == first
    assert not hashed
    save_file({"a": np.zeros(600, np.float32), "b": np.ones((20, 30), np.float32)}, file)
    assert digest_of(file) != first, "written anew"
    assert hashed


def test_a_file_of_just_now_is_hashed_again(file: Path, hashed: list[int]) -> None:
    os.utime(file)
    first = digest_of(file)
    hashed.clear()
    assert digest_of(file) == first
    assert hashed, "a second write could have left the same times"


def test_only_so_many_files_are_remembered(file: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, 60)
    monkeypatch.setattr(stored_inputs, "_digests", {})
    monkeypatch.setattr(stored_inputs, "_MOST_FILES", 2)
    for k in range(3):
        (copy := file.with_name(f"{k}.safetensors")).write_bytes(file.read_bytes())
        digest_of(copy)
    hashed.clear()
    digest_of(file.with_name("2.safetensors"))
    assert not hashed
    digest_of(file.with_name("0.safetensors"))
    assert hashed, "the one that was hashed first made room"


def test_a_copy_leaves_out_what_is_computed(file: Path, tmp_path: Path) -> None:
    source = FileInput("ours", file)
    skipped = source.storages["a"]
    copy = tmp_path / "copy"
    with copy.open("wb") as out:
        os.ftruncate(out.fileno(), source.layout.size)
        source.copy_to(out.fileno(), skip={skipped})
    source.close()
    before, after = file.read_bytes(), copy.read_bytes()
    assert len(after) == len(before)
    for part, number, offset, nbytes in source.layout.segments():
        there = after[offset : offset + nbytes]
        if part is Part.STORAGE and number == skipped:
            assert there == bytes(nbytes)
        else:
            assert there == before[offset : offset + nbytes]
