"""Digests of files are remembered as long as the files stay as they are, and not a moment longer."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.git.checkpoints import pytorch, safetensors
from theta_nb.engine.clean import Cleaner
from theta_nb.engine.digest_cache import DigestCache, FileState
from theta_nb.engine.sources import FileSource

OLD = time.time_ns() - 3600 * 10**9


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read from their beginning to their end."""
    names: list[str] = []
    real = Cleaner.file

    def file(self: Cleaner, fd: int, name: str, *rest: object) -> object:
        names.append(name)
        return real(self, fd, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Cleaner, "file", file)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is an hour ahead: what is written now was written long ago, whichever way."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)


def model(value: float) -> dict[str, np.ndarray]:
    return {
        "a.weight": np.full((40, 3), value, np.float32),
        "b": np.arange(4, dtype=np.int64),
        "empty": np.zeros((0, 2)),
    }


def torch_zip(state: dict[str, np.ndarray]) -> bytes:
    """A PyTorch file; one of its tensors is a view, whose place the layout tells."""
    made = {name: torch.from_numpy(value) for name, value in state.items()}
    return pytorch({**made, "view": made["a.weight"].t()[1:]})


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("write", [safetensors, torch_zip], ids=["safetensors", "pytorch"])
def test_a_file_that_stays_is_hashed_once(
    tmp_path: Path, executor: ThreadPoolExecutor, hashed: list[str], write: Callable[[dict[str, np.ndarray]], bytes]
) -> None:
    path, cache = tmp_path / "m.pt", str(tmp_path / "digests.sqlite")
    path.write_bytes(write(model(1.0)))
    first, second = (FileSource(path, executor, cache=cache) for _ in range(2))
    assert hashed == ["m.pt"]
    assert second.parameters == first.parameters
    assert second.manifest.same_content(first.manifest)
    stored = first.stored("a.weight"), second.stored("a.weight")
    assert stored[0] == stored[1]
    values = [bytes(s.block(stored[0], 0, 0, memoryview(bytearray(480)))) for s in (first, second)]
    assert values == [np.full(120, 1.0, np.float32).tobytes()] * 2


@pytest.mark.usefixtures("settled")
def test_every_trace_of_a_write_counts(tmp_path: Path, executor: ThreadPoolExecutor, hashed: list[str]) -> None:
    path, cache = tmp_path / "m.safetensors", str(tmp_path / "digests.sqlite")
    path.write_bytes(safetensors(model(1.0)))
    os.utime(path, ns=(OLD, OLD))
    assert FileSource(path, executor, cache=cache).parameters
    with open(path, "r+b") as file:  # the same length, and the same time of writing
        file.seek(-8, os.SEEK_END)
        file.write(b"\x07" * 8)
    os.utime(path, ns=(OLD, OLD))
    changed = FileSource(path, executor, cache=cache).parameters
    other = tmp_path / "other"  # another file of the same length and time under its name
    other.write_bytes(safetensors(model(3.0)))
    os.utime(other, ns=(OLD, OLD))
    other.replace(path)
    replaced = FileSource(path, executor, cache=cache).parameters
    assert len(hashed) == 3
    assert changed != replaced


def test_a_file_that_was_just_written_is_not_trusted(
    tmp_path: Path, executor: ThreadPoolExecutor, hashed: list[str]
) -> None:
    path, cache = tmp_path / "m.safetensors", str(tmp_path / "digests.sqlite")
    path.write_bytes(safetensors(model(1.0)))
    for _ in range(2):
        assert FileSource(path, executor, cache=cache).parameters
    assert len(hashed) == 2
    os.utime(path, ns=(OLD, OLD))  # whoever sets the time back does not make it older
    assert FileSource(path, executor, cache=cache).parameters
    assert FileSource(path, executor, cache=cache).parameters
    assert len(hashed) == 4


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE files SET form = x'00'",
        "UPDATE files SET form = NULL",
        "UPDATE files SET form = 'text'",
        "UPDATE files SET form = x'789c010100feff5b005c005c'",
        "DROP TABLE files",
        "",
    ],
)
def test_a_damaged_cache_is_an_empty_one(
    tmp_path: Path, executor: ThreadPoolExecutor, hashed: list[str], damage: str
) -> None:
    path, cache = tmp_path / "m.safetensors", tmp_path / "digests.sqlite"
    path.write_bytes(safetensors(model(1.0)))
    first = FileSource(path, executor, cache=str(cache))
    if damage:
        with sqlite3.connect(cache) as connection:
            connection.execute(damage)
        connection.close()
    else:
        cache.write_bytes(b"no database")
    again = FileSource(path, executor, cache=str(cache))
    assert again.parameters == first.parameters
    assert len(hashed) == 2


@pytest.mark.usefixtures("settled")
def test_a_row_of_another_layout_is_not_believed(
    tmp_path: Path, executor: ThreadPoolExecutor, hashed: list[str]
) -> None:
    """Another release may see other tensors in the same bytes."""
    path, other, cache = tmp_path / "m.safetensors", tmp_path / "o.safetensors", str(tmp_path / "digests.sqlite")
    path.write_bytes(safetensors(model(1.0)))
    other.write_bytes(safetensors({"c": np.ones(3)}))
    wrong = FileSource(other, executor).manifest
    fd = os.open(path, os.O_RDONLY)
    try:
        DigestCache(cache).remember(str(path), FileState.of(fd), wrong)
    finally:
        os.close(fd)
    assert set(FileSource(path, executor, cache=cache).parameters) == set(model(1.0))
