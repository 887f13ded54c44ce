"""Files of every kind go through real git and come back."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch

from tests.conftest import GitSandbox
from tests.git.checkpoints import (
    bias,
    every_other,
    every_pytorch,
    every_safetensors,
    model,
    optimizer_of_20000_records,
    pytorch,
    safetensors,
)
from tests.git.checks import assert_quiet, digests, manifest_text, objects, warnings


def _files(kind: str) -> dict[str, bytes]:
    if kind == "safetensors":
        return {f"{name}.safetensors": data for name, data in every_safetensors().items()}
    if kind == "pytorch":
        return {f"{name}.pt": data for name, data in every_pytorch().items()}
    return {f"{name}.pt": data for name, data in every_other().items()}


@pytest.mark.parametrize("kind", ["safetensors", "pytorch", "other"])
def test_add_remove_checkout_gives_the_same_bytes_and_a_quiet_status(repository: GitSandbox, kind: str) -> None:
    files = _files(kind)
    for name, data in files.items():
        repository.write(name, data)
    repository.commit_all("every kind")
    assert_quiet(repository)
    for name in files:
        (repository.path / name).unlink()
    repository("checkout", "--", ".")
    wrong = [name for name, data in files.items() if (repository.path / name).read_bytes() != data]
    assert not wrong, f"came back changed: {wrong}"
    assert_quiet(repository)
    stored_raw = [
        name for name in files if files[name] and not manifest_text(repository, name).startswith("theta-manifest 1\n")
    ]
    assert not stored_raw, f"git holds something else than a manifest: {stored_raw}"


def test_an_empty_file_is_an_empty_blob(repository: GitSandbox) -> None:
    repository.write("m.pt", b"")
    repository.commit_all("nothing yet")
    assert repository("cat-file", "-s", ":m.pt").strip() == "0"
    assert_quiet(repository)


def test_a_file_that_is_not_taken_apart_is_announced(repository: GitSandbox) -> None:
    repository.write("m.safetensors", b"\x10\0\0\0\0\0\0\0" + b"{" * 20)
    said = warnings(repository.run("add", "m.safetensors").stderr)
    assert len(said) == 1
    assert "m.safetensors: stored whole, not by layer" in said[0]


@pytest.mark.slow
def test_an_optimizer_of_20000_records_goes_through_git(repository: GitSandbox) -> None:
    data = optimizer_of_20000_records()
    repository.write("m.pt", data)
    repository.commit_all("training state")
    (repository.path / "m.pt").unlink()
    repository("checkout", "m.pt")
    assert (repository.path / "m.pt").read_bytes() == data
    assert_quiet(repository)
    assert len(digests(repository, "m.pt")) == 20_000
    assert len(objects(repository)) < 10


def test_a_transposed_view_of_the_same_bytes_is_a_change(repository: GitSandbox) -> None:
    w = torch.arange(64.0).reshape(8, 8)
    repository.write("m.pt", pytorch({"w": w, "v": w + 1}))
    repository.commit_all("w")
    repository.write("m.pt", pytorch({"w": w.t(), "v": w + 1}))
    assert repository("status", "--porcelain").strip() == "M m.pt"
    before = digests(repository, "m.pt")
    repository("add", "m.pt")
    after = digests(repository, "m.pt")
    assert before["w"] != after["w"]
    assert before["v"] == after["v"]


def test_one_changed_value_changes_one_line_of_part_1(repository: GitSandbox) -> None:
    repository.write("m.safetensors", model())
    repository.commit_all("one")
    repository.write("m.safetensors", model(layer_0_bias=bias(1.0)))
    repository("add", "m.safetensors")
    before, after = (manifest_text(repository, "m.safetensors", rev).split("\n\n") for rev in ("HEAD", ""))
    assert before[0] == after[0], "the header changed"
    changed = [(a, b) for a, b in zip(before[1].splitlines(), after[1].splitlines(), strict=True) if a != b]
    assert [a.split("\t")[0] for a, _ in changed] == ["layer.0.bias"]
    gone = [line for line in before[2].splitlines() if line not in after[2].splitlines()]
    assert len(gone) == 1, f"more than one value was described anew: {gone}"


@pytest.mark.parametrize("kind", ["m.safetensors", "m.pt"])
def test_the_smallest_change_of_one_weight_is_kept(repository: GitSandbox, kind: str) -> None:
    def checkpoint(w: np.ndarray) -> bytes:
        return safetensors({"w": w}) if kind == "m.safetensors" else pytorch({"w": torch.from_numpy(w)})

    w = np.linspace(1, 2, 5000, dtype=np.float32)
    w[7] = np.nan
    repository.write(kind, checkpoint(w))
    repository.commit_all("one")
    w[4000] = np.nextafter(w[4000], np.float32(9))
    data = checkpoint(w)
    repository.write(kind, data)
    repository.commit_all("two")
    (repository.path / kind).unlink()
    repository("checkout", kind)
    assert (repository.path / kind).read_bytes() == data


def test_a_pytorch_file_with_one_changed_tensor_changes_one_line_of_part_1(repository: GitSandbox) -> None:
    w = torch.arange(640.0).reshape(8, 80)
    repository.write("m.pt", pytorch({"a": w, "b": w + 1, "c": w + 2}))
    repository.commit_all("one")
    repository.write("m.pt", pytorch({"a": w, "b": w + 1.5, "c": w + 2}))
    repository("add", "m.pt")
    before, after = (manifest_text(repository, "m.pt", rev).split("\n\n") for rev in ("HEAD", ""))
    changed = [a.split("\t")[0] for a in before[1].splitlines() if a not in after[1].splitlines()]
    assert changed == ["b"]
    skeletons = {line for part in (before, after) for line in part[0].splitlines() if line.startswith("skeleton")}
    assert len(skeletons) == 1, "the skeleton holds bytes that follow from the tensors"


# --- files that are manifests -----------------------------------------------------------------------------------------


@pytest.fixture
def manifest(repository: GitSandbox) -> bytes:
    """The manifest of a committed ``m.safetensors``."""
    repository.write("m.safetensors", model())
    repository.commit_all("model")
    return manifest_text(repository, "m.safetensors").encode()


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_a_manifest_in_the_work_tree_is_the_checkpoint_it_describes(
    repository: GitSandbox, manifest: bytes, ends: bytes
) -> None:
    repository.write("m.safetensors", manifest.replace(b"\n", ends))
    repository("add", "m.safetensors")
    assert repository("status", "--porcelain") == ""
    repository.write("copy.safetensors", manifest.replace(b"\n", ends))
    repository.commit_all("a copy, added as a manifest")
    assert manifest_text(repository, "copy.safetensors").encode() == manifest
    (repository.path / "copy.safetensors").unlink()
    repository("checkout", "copy.safetensors")
    assert (repository.path / "copy.safetensors").read_bytes() == model()


def test_a_manifest_of_a_later_version_is_refused_by_add_and_kept_by_checkout(
    repository: GitSandbox, manifest: bytes
) -> None:
    later = manifest.replace(b"theta-manifest 1\n", b"theta-manifest 2\n")
    repository.write("new.safetensors", later)
    result = repository.run("add", "new.safetensors", check=False)
    assert result.returncode != 0
    assert "Upgrade theta-nb" in result.stderr
    assert "new.safetensors" not in repository("ls-files")

    # A colleague with that later release committed one.
    oid = repository.run("hash-object", "-w", "--stdin", data=later).stdout.strip()
    repository("update-index", "--add", "--cacheinfo", f"100644,{oid},new.safetensors")
    repository("commit", "-qm", "from the future")
    (repository.path / "new.safetensors").unlink()
    result = repository.run("checkout", "new.safetensors")
    said = warnings(result.stderr)
    assert len(said) == 1
    assert "Upgrade theta-nb" in said[0]
    assert (repository.path / "new.safetensors").read_bytes() == later
    assert_quiet(repository)


def test_a_blob_of_the_original_git_theta_passes_with_a_message(repository: GitSandbox) -> None:
    blob = b'{\n    "w": {\n        "theta_metadata": {"update_type": "dense", "last_commit": null}\n    }\n}'
    oid = repository.run("hash-object", "-w", "--stdin", data=blob).stdout.strip()
    repository("update-index", "--add", "--cacheinfo", f"100644,{oid},old.pt")
    repository("commit", "-qm", "from git-theta")
    result = repository.run("checkout", "old.pt")
    said = warnings(result.stderr)
    assert len(said) == 1
    assert "git-theta (format 1)" in said[0]
    assert (repository.path / "old.pt").read_bytes() == blob
    assert_quiet(repository)


def test_a_text_that_only_looks_like_a_manifest_is_refused_with_its_reason(repository: GitSandbox) -> None:
    repository.write("m.pt", b"theta-manifest 1\nformat safetensors\n")
    result = repository.run("add", "m.pt", check=False)
    assert result.returncode != 0
    assert "m.pt: " in result.stderr
    assert "cut short" in result.stderr


def test_a_raw_checkpoint_that_was_committed_without_the_filter_is_checked_out_as_it_is(
    repository: GitSandbox,
) -> None:
    data = model()
    oid = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=repository.path, input=data, capture_output=True, check=True
    ).stdout
    repository("update-index", "--add", "--cacheinfo", f"100644,{oid.decode().strip()},m.pt")
    repository("commit", "-qm", "before tracking")
    assert warnings(repository.run("checkout", "m.pt").stderr) == []
    assert (repository.path / "m.pt").read_bytes() == data
    repository("add", "--renormalize", ".")
    repository("commit", "-qm", "track it")
    assert_quiet(repository)
    assert manifest_text(repository, "m.pt").startswith("theta-manifest 1\n")
