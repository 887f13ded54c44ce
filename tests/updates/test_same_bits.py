"""A side-loaded update gives the same bits with any number of threads and on a processor without vector units."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.git.checkpoints import safetensors
from tests.updates.loading import side_load

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64,
          "float8_e4m3fn": ml_dtypes.float8_e4m3fn}  # fmt: skip

PROGRAM = """
import sys
from pathlib import Path
from tests.updates.test_same_bits import dispatched, results
assert dispatched() == []
print(results(Path(sys.argv[1]), workers=1))
"""


def results(folder: Path, *, workers: int) -> str:
    """Digests of every parameter after updates of every type and dtype, as JSON."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, dtype in DTYPES.items():
        # Ten times the columns of a block, with odd remainders; large and tiny numbers, NaN and Inf among them.
        # Made by exact operations: powers of ten differ between processors.
        w = np.ldexp(rng.normal(size=(301, 517)), rng.integers(-20, 9, size=(301, 517))).astype(dtype)
        w[0, :4] = np.array([np.nan, 448, -0.0, 1e-30]).astype(dtype)
        content = safetensors({"w": w})
        updates: dict[str, dict[str, Any]] = {
            "low-rank": {
                "w/R": rng.normal(size=(301, 7)).astype(np.float32),
                "w/C": rng.normal(size=(7, 517)).astype(np.float32),
            },
            "ia3": {"w/ia3": rng.normal(size=(1, 517)).astype(np.float32)},
            "sparse": {
                "w/data": rng.normal(size=2000).astype(np.float32),
                "w/indices": rng.choice(w.size, 2000, replace=False),
                "w/indptr": np.array([0, 2000]),
                "w/shape": np.array(w.shape),
            },
        }
        for update, data in updates.items():
            loaded = side_load(folder, "m.safetensors", content, data, update, workers=workers)
            found[f"{name} {update}"] = loaded.after.entries["w"].digest.hex()
    return json.dumps(found)


def dispatched() -> list[str]:
    """Processor features that NumPy chooses its loops by."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return [name for name in __cpu_dispatch__ if __cpu_features__[name]]


def test_the_number_of_threads_does_not_matter(tmp_path: Path) -> None:
    assert results(tmp_path, workers=1) == results(tmp_path, workers=3)


def test_the_instructions_of_the_processor_do_not_matter(tmp_path: Path) -> None:
    features = dispatched()
    if not features:
        pytest.skip("NumPy uses no optional instructions on this processor")
    env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(features), "PYTHONPATH": str(Path(__file__).parents[2])}
    other = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert other.returncode == 0, other.stderr
    assert other.stdout.strip() == results(tmp_path, workers=2)
