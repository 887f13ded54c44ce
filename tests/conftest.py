"""Fixtures shared by all tests: an isolated home and real git repositories."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# A shell's background job ignores Ctrl-C and hands that down, and a test that sends it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ATTRIBUTES = "filter=theta merge=theta diff=theta -text"


class GitSandbox:
    """A real git work tree; ``git(...)`` runs git in it and returns its output."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(
        self, *arguments: str, check: bool = True, data: bytes | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            input=data if data is None else data.decode("utf-8", "surrogateescape"),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            env={**os.environ, **(env or {})},
        )
        if check and result.returncode:
            raise AssertionError(f"git {' '.join(arguments)} gave {result.returncode}:\n{result.stdout}{result.stderr}")
        return result

    def __call__(self, *arguments: str) -> str:
        return self.run(*arguments).stdout

    def write(self, name: str, data: bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def commit_all(self, message: str) -> str:
        self("add", "-A")
        self("commit", "-q", "-m", message)
        return self("rev-parse", "HEAD").strip()


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees, or writes to, the configuration of the person who runs it."""
    home = tmp_path_factory.mktemp("home")
    for key in list(os.environ):
        if key.startswith(("GIT_", "THETA_", "XDG_")):
            monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada Tester")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    # git looks git-theta up on the PATH: the one of this interpreter, also where the environment is not activated.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    (home / ".gitconfig").write_text("[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n")
    return home


@pytest.fixture
def new_repository(tmp_path: Path, isolated_home: Path) -> Callable[..., GitSandbox]:
    """Make repositories whose filters are set up and which track ``*.safetensors`` and ``*.pt``."""

    def make(name: str = "repo", *init: str) -> GitSandbox:
        path = tmp_path / name
        path.mkdir(parents=True)
        sandbox = GitSandbox(path)
        sandbox("init", "-q", *init)
        sandbox("config", "filter.theta.process", "git-theta filter-process")
        sandbox("config", "filter.theta.required", "true")
        sandbox.write(".gitattributes", f"*.safetensors {ATTRIBUTES}\n*.pt {ATTRIBUTES}\n".encode())
        sandbox.commit_all("track checkpoints")
        return sandbox

    return make


@pytest.fixture
def copies_of(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Callable[[GitSandbox], None]], Callable[[str], GitSandbox]]:
    """Have a repository made once for all tests, by name, and make copies of it.

    A copy's files have other inodes than its index says, so it is told to look at times and sizes only.
    """

    def prepare(what: str, build: Callable[[GitSandbox], None]) -> Callable[[str], GitSandbox]:
        template = tmp_path_factory.getbasetemp() / f"{what}-template"
        if not template.exists():
            repo = new_repository("template")
            repo("config", "core.checkStat", "minimal")
            build(repo)
            repo("status")
            repo.path.rename(template)

        def make(name: str) -> GitSandbox:
            shutil.copytree(template, tmp_path / name, symlinks=True)
            return GitSandbox(tmp_path / name)

        return make

    return prepare


@pytest.fixture
def repository(new_repository: Callable[..., GitSandbox]) -> GitSandbox:
    """One such repository."""
    return new_repository()
