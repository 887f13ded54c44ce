"""The cache of statistics: what it gives back, and what it survives."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from theta_nb.engine.statistics_cache import StatisticsCache, cache_key
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.moments import Piece
from theta_nb.tensors.pairs import PairKernel
from theta_nb.tensors.spec import TensorSpec
from theta_nb.tensors.statistics import Statistics

KEY = cache_key("chunk", "float64", b"1", b"2")


def piece(*, histograms: bool = True, scale: float = 1.0) -> Piece:
    spec = TensorSpec("w", dtype_named("float64"), (100,), (1,), 0)
    kernel = PairKernel(spec, spec, histograms=histograms)
    old, new = np.random.default_rng(0).standard_normal((2, 100)) * scale
    old[0] = np.nan
    found = kernel.block(memoryview(old.tobytes()), memoryview(new.tobytes()))
    found.tallies = kernel.take_tallies()
    return found


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_gives_back_what_it_was_given(tmp_path: Path, scale: float) -> None:
    cache = StatisticsCache(str(tmp_path / "theta" / "statistics.sqlite"))
    cache.remember({KEY: piece(scale=scale)})
    cache.close()
    again = StatisticsCache(str(tmp_path / "theta" / "statistics.sqlite"))
    found = again.find([KEY, cache_key("other")], histograms=True)
    again.close()
    assert list(found) == [KEY]
    assert repr(Statistics.of(found[KEY])) == repr(Statistics.of(piece(scale=scale)))


def test_asks_for_histograms_only_where_they_are_wanted(tmp_path: Path) -> None:
    cache = StatisticsCache(str(tmp_path / "c"))
    cache.remember({KEY: piece(histograms=False)})
    assert not cache.find([KEY], histograms=True)
    assert list(cache.find([KEY], histograms=False)) == [KEY]
    cache.close()


def test_many_keys(tmp_path: Path) -> None:
    cache = StatisticsCache(str(tmp_path / "c"))
    keys = [cache_key(str(number)) for number in range(2000)]
    one = piece(histograms=False)
    cache.remember(dict.fromkeys(keys, one))
    assert len(cache.find(keys, histograms=False)) == 2000
    cache.close()


def test_the_key_tells_apart_what_is_put_together() -> None:
    assert len({cache_key("ab", "c"), cache_key("a", "bc"), cache_key("abc"), cache_key("ab", "c", "")}) == 4


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\xff" * 4000], ids=["text", "torn"])
def test_a_broken_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(content)
    for _ in range(2):  # a torn one may be noticed only when it is used
        cache = StatisticsCache(str(path))
        cache.find([KEY], histograms=False)
        cache.remember({KEY: piece()})
        cache.close()
    cache = StatisticsCache(str(path))
    assert list(cache.find([KEY], histograms=True)) == [KEY]
    cache.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda form: None,
        lambda form: [],
        lambda form: {**form, "counts": [1, 2]},
        lambda form: {**form, "counts": [-1, 0, 0]},
        lambda form: {**form, "sums": ["1", 0, 0, 0]},
        lambda form: {**form, "sums": [float("nan"), 0, 0, 0]},
        lambda form: {**form, "moments": form["moments"][:2]},
        lambda form: {**form, "moments": [[1, 0.0, -1.0, 0, 0, 0]] * 3},
        lambda form: {**form, "moments": [[1, 0.0, 1.0, 10**9, 0, 0]] * 3},
        lambda form: {**form, "tallies": [[[256], [1]]] * 3},
        lambda form: {**form, "tallies": [[[1, 2], [1]]] * 3},
        lambda form: {**form, "tallies": 3},
    ],
)
def test_rows_that_make_no_sense_are_not_there(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "c"
    cache = StatisticsCache(str(path))
    cache.remember({KEY: piece()})
    cache.close()
    with sqlite3.connect(path) as connection:
        (text,) = connection.execute("SELECT piece FROM pieces").fetchone()
        connection.execute("UPDATE pieces SET piece = ?", (json.dumps(spoil(json.loads(text))),))  # type: ignore[operator]
    connection.close()
    cache = StatisticsCache(str(path))
    assert not cache.find([KEY], histograms=False)
    cache.close()


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = StatisticsCache(str(tmp_path / "file" / "c"))
    cache.remember({KEY: piece()})
    assert not cache.find([KEY], histograms=False)
    cache.close()


def test_several_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from theta_nb.engine.statistics_cache import *; from theta_nb.tensors.moments import Piece\n"
        "cache = StatisticsCache(sys.argv[1])\n"
        "for n in range(50): cache.remember({cache_key(sys.argv[2], str(n)): Piece(n)})\n"
        "cache.close()"
    )
    path = str(tmp_path / "c")
    running = [
        subprocess.Popen([sys.executable, "-c", code, path, str(n)], env={**os.environ, "PYTHONPATH": os.getcwd()})
        for n in range(3)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    cache = StatisticsCache(path)
    keys = [cache_key(str(process), str(n)) for process in range(3) for n in range(50)]
    assert len(cache.find(keys, histograms=False)) == 150
    cache.close()
