"""A repository on a server, complete with its objects, and clones of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model, safetensors, tensors
from tests.git.checks import objects, theta_dir
from tests.hooks.conftest import forget, installed, needed, server_objects, theta_calls  # noqa: F401 - fixtures

__all__ = ["FILES", "Fetches", "forget", "needed", "objects", "server_objects"]

# No two have a tensor, or the list of their tensors, in common: equal values are stored once, whatever the file.
FILES = {
    "a.safetensors": model(1),
    "b.safetensors": safetensors(tensors(2, "b.")),
    "models/c.safetensors": safetensors(tensors(3, "c.")),
}
OLD = safetensors({**tensors(4), "extra": np.ones(50, np.float32)})


@pytest.fixture
def origin(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> GitSandbox:
    """A bare repository to which two commits were pushed: three checkpoints, the first in two versions."""
    template = tmp_path_factory.getbasetemp() / "origin-template"
    if not template.exists():
        author = new_repository("author")
        author.write("a.safetensors", OLD)
        author.commit_all("old")
        author("tag", "old")
        for name, data in FILES.items():
            author.write(name, data)
        author.commit_all("new")
        bare = tmp_path / "origin-template"
        subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
        author("push", "-q", str(bare), "main", "old")
        subprocess.run(["git", "-C", bare, "config", "uploadpack.allowFilter", "true"], check=True)
        subprocess.run(["git", "-C", bare, "config", "uploadpack.allowAnySHA1InWant", "true"], check=True)
        shutil.rmtree(author.path)
        bare.rename(template)
    shutil.copytree(template, tmp_path / "origin.git")
    return GitSandbox(tmp_path / "origin.git")


@pytest.fixture
def clone(origin: GitSandbox, tmp_path: Path) -> Callable[..., GitSandbox]:
    """Clone the repository; what the clone said is in ``said``."""

    def make(*options: str, url: str = "", name: str = "clone") -> GitSandbox:
        made = GitSandbox(tmp_path / name)
        result = origin.run("clone", "-q", *options, url or str(origin.path), str(made.path))
        made.said = result.stderr  # type: ignore[attr-defined]
        return made

    return make


class Fetches:
    """What the repositories of a test fetched: objects by name, with the calls that brought them."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def take(self) -> list[int]:
        """How many objects each batch asked for; they are forgotten."""
        counts = [int(line) for line in self._log.read_text().split()] if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return counts


@pytest.fixture
def fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetches:
    """Record the batches of every process from now on, in the function through which all of them go."""
    log = tmp_path / "fetches"
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"""
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder


class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "theta_nb.git.download":
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            obtain = module.obtain_objects

            def obtain_objects(places, objects, **options):
                with open({str(log)!r}, "a") as file:
                    print(len(objects), file=file)
                return obtain(places, objects, **options)

            module.obtain_objects = obtain_objects

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Watch())
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return Fetches(log)


def wipe(repo: GitSandbox) -> None:
    """Have no object here, nor anything that git-lfs or a carrier keeps."""
    forget(repo)
    shutil.rmtree(theta_dir(repo), ignore_errors=True)
