"""Statistics of weights: right, remembered by digest, and never a reason to fail."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.merging.checkpoints import model, session_of
from theta_nb.engine.merging.statistics import Statistics, StatisticsCache
from theta_nb.engine.merging.stored_inputs import FileInput
from theta_nb.merges.table import METHODS

BASE = model(0)
OURS, THEIRS = model(1, BASE), model(2, BASE)


def test_small_changes_do_not_cancel(tmp_path: Path) -> None:
    base = {"w": np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)}
    mine, other = ({"w": base["w"] * np.float32(1 + k * 2.0**-20)} for k in (1, 3))
    session = session_of(tmp_path, "memory", base, mine, other).measure()
    gram = session._statistics["w"].gram
    vectors = [base["w"].astype(np.longdouble), *(x["w"].astype(np.longdouble) - base["w"] for x in (mine, other))]
    expected = np.array([[float((a * b).sum()) for b in vectors] for a in vectors])
    np.testing.assert_allclose(gram, expected, rtol=1e-6)


def refuse(self: Any, name: str) -> Any:
    raise AssertionError(f"{name} is read again")


def test_another_process_does_not_read_the_weights_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "cache" / "statistics.sqlite")
    first = StatisticsCache(path)
    rows = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS, cache=first).use("slerp").preview().rows
    first.close()
    with monkeypatch.context() as patch:
        patch.setattr(FileInput, "reader", refuse)
        again = StatisticsCache(path)
        assert session_of(tmp_path, "safetensors", BASE, OURS, THEIRS, cache=again).use("slerp").preview().rows == rows
        again.close()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, None])
def test_a_torn_cache_is_begun_anew(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "statistics.sqlite"
    if content is None:
        path.mkdir()  # a folder in the way
    else:
        path.write_bytes(content)
    for _ in range(2):
        cache = StatisticsCache(str(path))
        preview = session_of(tmp_path, "safetensors", BASE, OURS, THEIRS, cache=cache).use("slerp").preview()
        assert preview["embed.weight"].norm is not None
        cache.close()
    if content is not None:
        assert sqlite3.connect(path).execute("SELECT count(*) FROM statistics").fetchone()[0] == len(BASE)


@pytest.mark.parametrize("data", [b"", b"x" * 88, b"x" * 87, "text", 7, None])
def test_rows_that_are_not_statistics_are_unknown(tmp_path: Path, data: Any) -> None:
    path = str(tmp_path / "statistics.sqlite")
    cache = StatisticsCache(path)
    cache.put(b"key", Statistics(np.eye(3)))
    cache.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE statistics SET data = ?", (data,))
    connection.commit()
    connection.close()
    found = StatisticsCache(path).get(b"key", 2)
    assert found is None or found.gram.shape == (3, 3)
    assert StatisticsCache(path).get(b"key", 5) is None


def test_what_is_remembered_keeps_no_other_process_from_writing(tmp_path: Path) -> None:
    path = str(tmp_path / "statistics.sqlite")
    first, second = StatisticsCache(path), StatisticsCache(path)
    for cache, key in ((first, b"first"), (second, b"second")):
        cache.put(key, Statistics(np.eye(2)))
    second.save()
    first.save()
    assert all(StatisticsCache(path).get(key, 1) is not None for key in (b"first", b"second"))
    first.close(), second.close()


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("theta_nb.engine.merging.statistics._MAX_ROWS", 3)
    path = str(tmp_path / "statistics.sqlite")
    for number in range(6):
        cache = StatisticsCache(path)
        cache.put(b"%d" % number, Statistics(np.eye(2)))
        cache.close()
    again = StatisticsCache(path)
    assert [again.get(b"%d" % number, 1) is not None for number in range(6)] == [False] * 3 + [True] * 3
    again.close()


def test_a_read_only_place_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "file").write_bytes(b"")
    cache = StatisticsCache(os.fspath(folder / "file" / "statistics.sqlite"))
    cache.put(b"key", Statistics(np.eye(2)))
    assert cache.get(b"key", 1) is not None
    cache.close()


@pytest.mark.parametrize("method", [name for name in METHODS.names() if METHODS[name].gram])
def test_a_merge_gives_the_same_bits_whether_or_not_it_was_looked_at_before(tmp_path: Path, method: str) -> None:
    """Also the same recipe: the driver's has to be that of whoever merges again after a preview."""
    wide = [{name: x.astype(np.float64) for name, x in state.items()} for state in (BASE, OURS, THEIRS)]
    fresh, seen = (session_of(tmp_path, "memory", *wide).use(method) for _ in range(2))
    seen.preview()
    made = seen.arrays()
    assert all(x.tobytes() == made[name].tobytes() for name, x in fresh.arrays().items())
    assert fresh.recipe().dump() == seen.recipe().dump()
