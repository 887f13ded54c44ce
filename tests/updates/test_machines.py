"""What one machine stores, another rebuilds to the last bit: with other threads, and without vector instructions."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy._core import _multiarray_umath as umath

from tests.conftest import GitSandbox
from tests.contracts.update_contract import ALL_DTYPES, Step, encode, of_patterns, step, usual_steps
from tests.git.checkpoints import safetensors
from tests.git.checks import manifest_of
from tests.updates.matrices import rank_two, scaled
from theta_nb.updates.low_rank import LowRank, dump_low_rank
from theta_nb.updates.table import UPDATES

PROGRAM = Path(__file__).with_name("elsewhere.py")
DISPATCHED = sorted(name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name])
"""Instructions beyond the baseline that NumPy chooses by the processor: a machine without them is an older one."""

MACHINES = {
    "one thread": ({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, 1),
    "many threads": ({"OMP_NUM_THREADS": "7", "OPENBLAS_NUM_THREADS": "7"}, 7),
    "an older processor": ({"NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCHED)}, 2),
    "another BLAS kernel": ({"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCHED)}, 3),
}


def _harsh() -> Step:
    """Factors that overflow, meet infinities and NaNs, and end in denormals."""
    rng = np.random.default_rng(5)
    old = rng.integers(0, 2**32, 40 * 30, np.uint64)
    return step(of_patterns(old, 4), b"", next(d for d in ALL_DTYPES if d.name == "float32"), 30)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of steps of every type and dtype, and the digests of what they lead to here."""
    folder, expected = tmp_path_factory.mktemp("steps"), {}

    def add(update: str, name: str, case: Step, payload: bytes) -> None:
        path = folder / f"{len(expected):04}-{update}-{case.numbers.dtype.name}-{name.replace(' ', '_')}.json"
        facts = {"update": update, "dtype": case.numbers.dtype.name, "columns": case.numbers.columns}
        path.write_text(json.dumps(facts))
        path.with_suffix(".old").write_bytes(case.old)
        path.with_suffix(".payload").write_bytes(payload)
        new = bytearray(case.old)
        UPDATES[update].apply(memoryview(payload), memoryview(new))
        expected[path.stem] = hashlib.sha256(new).hexdigest()

    for dtype in ALL_DTYPES:
        cases = usual_steps(dtype)
        for update in ("dense", "delta", "sparse"):
            for name in ("rows", "a few changed", "special to special", "a long run"):
                payload = encode(UPDATES[update], cases[name])
                if payload is not None:
                    add(update, name, cases[name], payload)
        for name, case in scaled(dtype).items():
            payload = encode(UPDATES["ia3"], case)
            assert payload is not None
            add("ia3", name, case, payload)
        for name, case in rank_two(dtype).items():
            payload = encode(LowRank(rank=2), case)
            assert payload is not None
            add("low-rank", name, case, payload)
    harsh = _harsh()
    factors = (
        np.random.default_rng(6).integers(0, 2**32, shape, np.uint64).astype("<u4") for shape in ((40, 3), (3, 30))
    )
    add("low-rank", "overflow", harsh, dump_low_rank("float32", *factors, "float32", scale=1e-3))
    return folder, expected


@pytest.fixture(scope="module")
def here(steps: tuple[Path, dict[str, str]]) -> list[list[str]]:
    """What the program says with the settings of this machine."""
    return _elsewhere(steps[0], {}, 2)["outcomes"]


def _elsewhere(folder: Path, env: dict[str, str], workers: int) -> dict[str, list]:
    result = subprocess.run(
        [sys.executable, PROGRAM, folder, str(workers)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_step_leads_to_the_same_bits(
    steps: tuple[Path, dict[str, str]], here: list[list[str]], machine: str
) -> None:
    folder, expected = steps
    env, workers = MACHINES[machine]
    said = _elsewhere(folder, env, workers)
    if "NPY_DISABLE_CPU_FEATURES" in env:
        assert said["features"] == [], "the instructions were not disabled"
    assert {name: digest for name, digest, *_ in said["outcomes"]} == expected
    assert said["outcomes"] == here, "the integer types also encode to the same bytes"


FILES = ("dense", "delta", "sparse", "low-rank", "ia3")


def _tensors(update: str, version: int) -> dict[str, np.ndarray]:
    """Versions of a checkpoint; the step between two is one that the update type is for."""
    rng = np.random.default_rng(FILES.index(update))
    value = rng.normal(size=(120, 90))
    for number in range(1, version + 1):
        if update == "low-rank":
            value = value + rng.normal(size=(120, 2)) @ rng.normal(size=(2, 90))
        elif update == "ia3":
            value = value * np.exp2(rng.integers(-1, 2, (1, 90)))
        elif update == "sparse":
            value = value.copy()
            value[number, :5] = number
        else:
            value = value * (1 + 1e-6 * rng.normal(size=value.shape))
    kinds = (np.float64, np.float32, np.float16)
    return {np.dtype(kind).name: value.astype(kind) for kind in kinds}


@pytest.fixture
def stored(new_repository: Callable[..., GitSandbox]) -> tuple[GitSandbox, dict[str, bytes]]:
    """A repository with a checkpoint for every update type, each a chain of two steps of that type."""
    repo = new_repository()
    lines = [f"{update}.safetensors theta-update={update}\n" for update in FILES]
    with (repo.path / ".gitattributes").open("a") as file:
        file.writelines(lines)
    for version in range(3):
        data = {f"{update}.safetensors": safetensors(_tensors(update, version)) for update in FILES}
        for name, content in data.items():
            repo.write(name, content)
        repo.commit_all(f"version {version}")
    return repo, data


def test_checkouts_on_other_machines_are_equal(stored: tuple[GitSandbox, dict[str, bytes]]) -> None:
    repo, data = stored
    for update in FILES:
        refs = [ref for ref in manifest_of(repo, f"{update}.safetensors", "HEAD").chunk_refs() if ref.base is not None]
        longest = max((len(ref.links()) for ref in refs), default=1)
        assert longest == (1 if update == "dense" else 3), update
        assert {link.update for ref in refs for link in ref.links()[1:]} <= {update}
    for env, workers in MACHINES.values():
        for name in data:
            (repo.path / name).unlink()
        repo.run("-c", f"theta.workers={workers}", "checkout", "-q", "--", ".", env=env)
        for name, content in data.items():
            assert (repo.path / name).read_bytes() == content, (name, env)
