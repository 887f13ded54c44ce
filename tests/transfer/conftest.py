"""Remotes of every kind, and repositories with objects to bring there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model
from tests.git.checks import age

collect_ignore = ["lfs_server.py"]

USER, PASSWORD = "ada", "s3cret@/:word"
NAME = "m.safetensors"
ONE, TWO = model(1), model(1, layer_0_weight=np.full((16, 16), 2.0, np.float32))


@dataclass(frozen=True)
class LfsServer:
    """The server of this session; ``group`` keeps the tests apart."""

    port: int
    folder: Path
    group: str

    def url(self, name: str = "repo", *, login: str = f"{USER}:{quote(PASSWORD, safe='')}@") -> str:
        """Address of a repository, by default with user and password."""
        return f"http://{login}127.0.0.1:{self.port}/{self.group}/{name}.git"

    def make(self, name: str = "repo") -> Path:
        """An empty git repository behind ``url(name)``."""
        path = self.folder / "git" / self.group / f"{name}.git"
        subprocess.run(["git", "init", "-q", "--bare", path], check=True)
        subprocess.run(["git", "-C", path, "config", "http.receivepack", "true"], check=True)
        return path

    def objects(self, name: str = "repo") -> dict[str, Path]:
        """Files of the objects that the server has, by name."""
        folder = self.folder / "lfs" / self.group / name
        return {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}

    def faults(self, *faults: dict[str, Any]) -> None:
        """What goes wrong from now on."""
        listed = [{"method": "PUT", "path": "", "count": 10**9, **fault} for fault in faults]
        self._ask("faults", json.dumps(listed).encode())

    def requests(self) -> list[str]:
        """What this server was asked about this group since the last call: ``"PUT /…"``."""
        return [line for line in json.loads(self._ask("requests")) if f"/{self.group}/" in line]

    def _ask(self, what: str, data: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{what}", data, timeout=60) as answer:
            return answer.read()


@pytest.fixture(scope="session")
def lfs_server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Port and folder of a server that ends with the session."""
    folder = tmp_path_factory.mktemp("lfs-server")
    program = Path(__file__).with_name("lfs_server.py")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "GIFTLESS_"))}
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(
            [sys.executable, program, folder, USER, PASSWORD],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=folder,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.strip().isdigit(), f"the server did not start: {(folder / 'log').read_text()}"
            yield int(line), folder
        finally:
            process.terminate()


@pytest.fixture
def lfs_server(lfs_server_process: tuple[int, Path], tmp_path: Path) -> Iterator[LfsServer]:
    """The server, without faults, and with names of this test alone."""
    port, folder = lfs_server_process
    server = LfsServer(port, folder, f"{tmp_path.parent.name}-{tmp_path.name}")
    server.faults()
    server.requests()
    yield server
    server.faults()


@pytest.fixture
def two_versions(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> GitSandbox:
    """A repository with two versions of a checkpoint on ``main``, made once and copied."""
    template = tmp_path_factory.getbasetemp() / "two-versions"
    if not template.exists():
        repo = new_repository("template")
        repo("config", "core.checkStat", "minimal")  # a copy has other inodes
        for number, data in enumerate((ONE, TWO), 1):
            repo.write(NAME, data)
            age(repo, [NAME, ".gitattributes"])
            repo.commit_all(f"version {number}")
        repo("status")
        repo.path.rename(template)
    shutil.copytree(template, tmp_path / "repo", symlinks=True)
    return GitSandbox(tmp_path / "repo")


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., GitSandbox]:
    """Make bare repositories."""

    def make(name: str = "server.git", *options: str) -> GitSandbox:
        path = tmp_path / name
        subprocess.run(["git", "init", "-q", "--bare", *options, path], check=True)
        return GitSandbox(path)

    return make
