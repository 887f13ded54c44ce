"""A command that is killed in the middle leaves sound objects, and the next one goes on."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import objects, remove_objects, theta_dir
from tests.git.killing import Moment, group, leader, run_and_kill
from tests.git.objects import assert_sound
from tests.transfer.conftest import LfsServer
from tests.transfer.objects import lfs_objects, needed

TENSORS = 24


@pytest.fixture(scope="module")
def many() -> bytes:
    """A checkpoint of many objects."""
    rng = np.random.default_rng(0)
    return safetensors({f"w{i:02}": rng.normal(size=(150, 150)).astype(np.float32) for i in range(TENSORS)})


@pytest.fixture
def repo(repository: GitSandbox, many: bytes) -> GitSandbox:
    repository.write("m.safetensors", many)
    repository.commit_all("many")
    assert len(objects(repository)) >= TENSORS
    return repository


def once(number: int, folder: Path, pattern: str) -> Moment:
    """The moment when so many files are there."""
    return lambda _elapsed: len(list(folder.glob(pattern))) >= number


VICTIMS = {"the command": leader, "everything": group}


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("seed", [1, 2])
def test_while_pushing_to_a_folder(repo: GitSandbox, bare: Callable[..., GitSandbox], seed: int, victim: str) -> None:
    server = bare()
    wanted = needed(repo)
    moment = once(random.Random(seed).randrange(1, TENSORS), server.path / "lfs" / "objects", "??/??/*")
    ended = run_and_kill(
        ["git-theta", "push", "--all", str(server.path)], repo.path, moment, VICTIMS[victim], signal.SIGKILL
    )
    assert ended.killed
    assert lfs_objects(server) <= set(wanted)
    for path in (server.path / "lfs" / "objects").rglob("*"):
        assert path.is_dir() or path.stat().st_size == wanted[path.name], f"{path} is a half object"
    repo("theta", "push", "--all", str(server.path))
    assert lfs_objects(server) == set(wanted)


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("seed", [3, 4])
def test_while_fetching_from_a_folder(
    repo: GitSandbox, bare: Callable[..., GitSandbox], seed: int, victim: str
) -> None:
    server = bare()
    wanted = needed(repo)
    repo("theta", "push", "--all", str(server.path))
    remove_objects(repo)
    moment = once(random.Random(seed).randrange(1, TENSORS), theta_dir(repo) / "objects", "??/??/*")
    ended = run_and_kill(["git-theta", "fetch", str(server.path)], repo.path, moment, VICTIMS[victim], signal.SIGKILL)
    assert ended.killed
    assert_sound(repo)
    repo("theta", "fetch", str(server.path))
    assert objects(repo) == set(wanted)
    assert_sound(repo)


@pytest.mark.parametrize(("seed", "number"), [(5, signal.SIGKILL), (6, signal.SIGINT), (7, signal.SIGTERM)])
def test_while_pushing_to_a_server(repo: GitSandbox, lfs_server: LfsServer, seed: int, number: signal.Signals) -> None:
    wanted = needed(repo)
    folder = lfs_server.folder / "lfs" / lfs_server.group / "repo"
    moment = once(random.Random(seed).randrange(1, TENSORS - 4), folder, "*")
    ended = run_and_kill(["git-theta", "push", "--all", lfs_server.url()], repo.path, moment, group, number)
    assert ended.killed
    repo("theta", "push", "--all", lfs_server.url())
    sizes = {oid: path.stat().st_size for oid, path in lfs_server.objects().items()}
    assert sizes == wanted


@pytest.mark.parametrize(("seed", "number"), [(8, signal.SIGKILL), (9, signal.SIGINT), (10, signal.SIGTERM)])
def test_while_fetching_from_a_server(
    repo: GitSandbox, lfs_server: LfsServer, seed: int, number: signal.Signals
) -> None:
    wanted = needed(repo)
    repo("theta", "push", "--all", lfs_server.url())
    remove_objects(repo)
    moment = once(random.Random(seed).randrange(1, TENSORS - 4), theta_dir(repo) / "objects", "??/??/*")
    ended = run_and_kill(["git-theta", "fetch", lfs_server.url()], repo.path, moment, group, number)
    assert ended.killed
    assert_sound(repo)
    repo("theta", "fetch", lfs_server.url())
    assert objects(repo) == set(wanted)
    assert_sound(repo)
