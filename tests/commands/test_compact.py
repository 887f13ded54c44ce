"""``git theta compact``: chains become dense again, and the content stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet, digests, manifest_of, objects
from theta_nb.commands.compact import compact
from theta_nb.engine.compact import longest_chain
from theta_nb.errors import CorruptObjectError, ThetaError
from theta_nb.git.places import find_places

NAME = "m.safetensors"
RNG = np.random.default_rng(0)
FIRST = {f"layer.{n}": RNG.normal(size=(150, 200)).astype(np.float32) for n in range(3)}


def tuned(tensors: dict[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return {
        k: (v * (1 + 1e-4 * RNG.normal(size=v.shape))).astype("f4") if k in names else v for k, v in tensors.items()
    }


@pytest.fixture
def chained(repository: GitSandbox) -> GitSandbox:
    """Three commits: the first dense, then one update of ``layer.0``, then of ``layer.0`` and ``layer.1``."""
    versions = [FIRST]
    versions.append(tuned(versions[-1], "layer.0"))
    versions.append(tuned(versions[-1], "layer.0", "layer.1"))
    for number, tensors in enumerate(versions):
        repository.write(NAME, safetensors(tensors))
        repository.commit_all(f"version {number}")
    assert longest_chain(manifest_of(repository, NAME, "HEAD")) > 0, "the scene has no chain"
    return repository


def test_the_content_stays_and_chains_go(chained: GitSandbox) -> None:
    data, before = (chained.path / NAME).read_bytes(), digests(chained, NAME)
    out = chained("theta", "compact")
    assert "compacted m.safetensors" in out
    assert "have none" in out
    assert chained("status", "--porcelain") == f"M  {NAME}\n"
    shown = chained("theta", "status")
    assert "modified  m.safetensors (staged)" in shown
    assert "The content is the same; how it is stored changed" in shown
    manifest = manifest_of(chained, NAME)
    assert longest_chain(manifest) == 0
    assert {value.update for value in manifest.values.values()} == {"dense"}
    assert digests(chained, NAME) == before
    chained("commit", "-qm", "compacted")
    assert_quiet(chained)
    (chained.path / NAME).unlink()
    chained("checkout", "--", NAME)
    assert (chained.path / NAME).read_bytes() == data
    assert "everything can be rebuilt" in chained("theta", "fsck", "--all")
    assert "no chain has more than" in chained("theta", "compact")
    chained("checkout", "-q", "HEAD~1")
    assert (chained.path / NAME).read_bytes() == data


def test_depth_and_json(chained: GitSandbox) -> None:
    longest = longest_chain(manifest_of(chained, NAME))
    head = manifest_of(chained, NAME)
    [result] = compact(find_places(chained.path), depth=longest)
    assert (result.before, result.after, result.new_bytes) == (longest, longest, 0)
    assert chained("status", "--porcelain") == ""
    assert '"read_before"' in chained("theta", "compact", "--json", NAME)
    assert longest_chain(manifest_of(chained, NAME)) == 0
    assert manifest_of(chained, NAME).same_content(head)


def test_changes_that_are_not_staged_stay_so(chained: GitSandbox) -> None:
    mine = safetensors(tuned(FIRST, "layer.2"))
    chained.write(NAME, mine)
    chained("theta", "compact")
    assert chained("status", "--porcelain") == f"MM {NAME}\n"
    assert (chained.path / NAME).read_bytes() == mine


def test_an_update_afterwards_starts_from_the_dense_value(chained: GitSandbox) -> None:
    chained("theta", "compact")
    chained("commit", "-qm", "compacted")
    chained.write(NAME, safetensors(tuned(FIRST, "layer.0")))
    chained("add", NAME)
    assert longest_chain(manifest_of(chained, NAME)) == 1


def test_what_is_damaged_is_named_and_nothing_is_staged(chained: GitSandbox) -> None:
    text = chained("ls-files", "-s")
    manifest = manifest_of(chained, NAME)
    ref = manifest.value_of("layer.0").chunks[0].links()[0]
    path = Path(find_places(chained.path).store.path(ref.oid))
    data = bytearray(path.read_bytes())
    data[ref.offset + 40] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(CorruptObjectError, match=r"layer\.0"):
        compact(find_places(chained.path))
    assert chained("ls-files", "-s") == text


def test_bad_input(chained: GitSandbox) -> None:
    with pytest.raises(ThetaError, match="negative"):
        compact(find_places(chained.path), depth=-1)
    assert chained("theta", "compact", "nothing.pt") == "No tracked checkpoint matches.\n"
    with pytest.raises(ThetaError, match="no index"):
        compact(find_places(chained.path / ".git"))


def test_status_says_how_new_objects_are_stored(chained: GitSandbox) -> None:
    chained.write(NAME, safetensors(tuned(FIRST, "layer.0", "layer.1", "layer.2")))
    before = objects(chained)
    chained("add", NAME)
    assert len(objects(chained) - before) >= 1
    assert " delta" in chained("theta", "status")


def test_log_says_what_each_commit_cost_by_update_type(chained: GitSandbox) -> None:
    lines = chained("theta", "log", "--storage", NAME).splitlines()
    head = next(line for line in lines if line.startswith("commit"))
    assert "stored" in head
    assert {"dense", "delta"} <= set(head.split())
    newest, _, first = [line for line in lines if "version " in line]
    assert " kB" in newest
    assert " -  " in first, "the first commit holds no update"


def test_a_lost_beginning_of_a_chain_is_healed_from_the_file(chained: GitSandbox) -> None:
    """From the file that is there, by 'git theta add --renormalize', or when something else of it changes."""
    store = find_places(chained.path).store
    lost = manifest_of(chained, NAME).value_of("layer.0").chunks[0].links()[0].oid
    store.delete(lost)
    assert chained.run("theta", "fsck", check=False).returncode == 1
    assert chained("status", "--porcelain") == "", "nothing changed, so git is told nothing"
    chained("theta", "add", "--renormalize", NAME)
    assert chained("status", "--porcelain") == f"M  {NAME}\n"
    chained("commit", "-qm", "healed")
    assert "everything can be rebuilt" in chained("theta", "fsck")
    assert_quiet(chained)


def test_a_lost_beginning_is_no_loss_where_the_file_changes_elsewhere(chained: GitSandbox) -> None:
    store = find_places(chained.path).store
    store.delete(manifest_of(chained, NAME).value_of("layer.0").chunks[0].links()[0].oid)
    state = load((chained.path / NAME).read_bytes())
    state["layer.2"] = state["layer.2"] + 1
    chained.write(NAME, safetensors(state))
    chained("add", NAME)
    chained("commit", "-qm", "another layer")
    assert "everything can be rebuilt" in chained("theta", "fsck")
