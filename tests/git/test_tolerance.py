"""``theta.tolerance``: what is near enough to the committed version stays as committed, and git is told so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import GitSandbox
from tests.git.checkpoints import pytorch, safetensors
from tests.git.checks import assert_quiet, digests, warnings

NAME = "m.safetensors"
RNG = np.random.default_rng(0)
FIRST = {"a": RNG.normal(size=(40, 50)).astype("f4"), "b": RNG.normal(size=7).astype("f2"), "n": np.arange(50)}


@pytest.fixture
def tolerant(repository: GitSandbox) -> GitSandbox:
    repository.write(NAME, safetensors(FIRST))
    repository.commit_all("first")
    repository("config", "theta.tolerance", "rtol=1e-4")
    return repository


def add(repo: GitSandbox, **changed: np.ndarray) -> str:
    repo.write(NAME, safetensors({**FIRST, **changed}))
    return repo.run("add", NAME).stderr


def test_near_values_stay(tolerant: GitSandbox) -> None:
    before = digests(tolerant, NAME)
    near = FIRST["a"] * np.float32(1 + 1e-5)
    said = add(tolerant, a=near)
    assert any("1 tensor is within theta.tolerance" in line and line.endswith(": a") for line in warnings(said)), said
    assert digests(tolerant, NAME) == before
    assert tolerant("status", "--porcelain") == ""
    assert tolerant("theta", "status") == "1 checkpoint unchanged\n"
    tolerant("checkout", "--", NAME)
    assert_quiet(tolerant)


def test_one_number_too_far_and_the_tensor_is_new(tolerant: GitSandbox) -> None:
    far = FIRST["a"] * np.float32(1 + 1e-5)
    far[3, 3] *= 1.01
    assert warnings(add(tolerant, a=far)) == []
    tolerant("commit", "-qm", "far")
    (tolerant.path / NAME).unlink()
    tolerant("checkout", "--", NAME)
    assert (tolerant.path / NAME).read_bytes() == safetensors({**FIRST, "a": far})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_never_with_nan_or_infinity(tolerant: GitSandbox, value: float) -> None:
    other = FIRST["a"].copy()
    other[0, 0] = value
    before = digests(tolerant, NAME)
    add(tolerant, a=other)
    assert digests(tolerant, NAME)["a"] != before["a"]
    tolerant("commit", "-qm", "not a number")
    still = other * np.float32(1 + 1e-5)
    before = digests(tolerant, NAME)
    add(tolerant, a=still)
    assert digests(tolerant, NAME)["a"] != before["a"]


def test_integers_always_count(tolerant: GitSandbox) -> None:
    tolerant("config", "theta.tolerance", "atol=100 rtol=1")
    before = digests(tolerant, NAME)
    add(tolerant, n=FIRST["n"] + 1)
    assert digests(tolerant, NAME)["n"] != before["n"]


def test_without_the_setting_every_bit_counts(tolerant: GitSandbox) -> None:
    tolerant("config", "--unset", "theta.tolerance")
    before = digests(tolerant, NAME)
    add(tolerant, a=np.nextafter(FIRST["a"], np.float32(9)))
    assert digests(tolerant, NAME)["a"] != before["a"]


def test_checksums_follow(repository: GitSandbox) -> None:
    """A PyTorch file whose tensor was kept is a sound zip with the kept tensor's checksum."""
    repository("config", "theta.tolerance", "atol=1e-3")
    first = {"w": torch.arange(1000.0), "v": torch.zeros(300)}
    repository.write("m.pt", pytorch(first))
    repository.commit_all("first")
    repository.write("m.pt", pytorch({"w": first["w"] + 1e-4, "v": torch.ones(300)}))
    repository("add", "m.pt")
    repository("commit", "-qm", "second")
    (repository.path / "m.pt").unlink()
    repository("checkout", "--", "m.pt")
    loaded = torch.load(repository.path / "m.pt", weights_only=True)
    assert torch.equal(loaded["w"], first["w"])
    assert torch.equal(loaded["v"], torch.ones(300))
    import zipfile

    assert zipfile.ZipFile(repository.path / "m.pt").testzip() is None


def test_a_setting_that_makes_no_sense(tolerant: GitSandbox) -> None:
    for text in ("1e-5", "rtol=x", "atol=-1", "rtol=nan"):
        tolerant("config", "theta.tolerance", text)
        said = add(tolerant, a=FIRST["a"] + 1)
        assert any("theta.tolerance" in line for line in warnings(said)), text
        assert "rtol=1e-6" in tolerant.run("theta", "status", check=False).stderr
