"""Repositories with checkpoints and remotes, and hooks that tell what they were given."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model
from tests.git.checks import commit_versions, manifest_of, theta_dir
from tests.git.conftest import history
from tests.hooks.pointer_files import FIRST, MODEL
from tests.transfer.conftest import LfsServer, lfs_server, lfs_server_process  # noqa: F401 - fixtures

__all__ = ["LfsServer", "Recorder", "history", "hook_path", "needed", "server_objects", "write_hook"]

NAME = "m.safetensors"
# Unlike each other in every tensor, so that each version has objects of its own.
ONE, TWO, THREE = model(1), model(2), model(3)
OURS = ("pre-push", "post-checkout", "post-merge", "post-commit", "post-rewrite", "prepare-commit-msg")


def hook_path(repo: GitSandbox, name: str) -> Path:
    """Where git looks for a hook."""
    return repo.path / repo("rev-parse", "--git-path", f"hooks/{name}").strip()


def write_hook(path: Path, script: str, *, mode: int = 0o755) -> Path:
    """A hook file; a shell script, unless it says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script if script.startswith("#!") or not script else f"#!/bin/sh\n{script}")
    path.chmod(mode)
    return path


class Recorder:
    """Hooks that write down their arguments and their input, each call to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def script(self, name: str, status: int = 0) -> str:
        """A hook of this name; its exit status is ``status``."""
        return (
            "#!/bin/sh\n"
            f'n=$(ls "{self.folder}" | wc -l)\n'
            f'printf "%s\\n" "$@" > "{self.folder}/$n-{name}-arguments"\n'
            f'cat > "{self.folder}/$n-{name}-input"\n'
            f"exit {status}\n"
        )

    def calls(self, name: str) -> list[tuple[list[str], bytes]]:
        """Arguments and input of each call, in order; they are forgotten."""
        found = []
        for path in sorted(self.folder.glob(f"*-{name}-arguments"), key=lambda p: int(p.name.split("-")[0])):
            other = path.with_name(path.name.replace("-arguments", "-input"))
            found.append((path.read_text().splitlines(), other.read_bytes()))
            path.unlink()
            other.unlink()
        return found


@pytest.fixture
def new_history(copies_of: Callable[..., Callable[[str], GitSandbox]]) -> Callable[[str], GitSandbox]:
    """Make copies of a repository made once: ``main`` with two versions of a checkpoint, tagged ``one`` and ``two``."""
    return copies_of("history-with-hooks", lambda repo: commit_versions(repo, {"one": ONE, "two": TWO}, NAME))


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "recorded")


def server_objects(server: Path) -> set[str]:
    """Names of the objects that were uploaded to a repository on this machine."""
    return {path.name for path in (server / "lfs" / "objects").rglob("*") if path.is_file()}


def needed(repo: GitSandbox, *revisions: str, name: str = NAME) -> set[str]:
    """Objects of a checkpoint at some revisions."""
    return {oid for rev in revisions for oid in manifest_of(repo, name, rev).objects}


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """An empty bare repository."""
    path = tmp_path / "server.git"
    subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    return path


@pytest.fixture
def pushing(history: GitSandbox, server: Path) -> GitSandbox:
    """``history`` with the empty repository as ``origin``."""
    history("remote", "add", "origin", str(server))
    return history


@pytest.fixture
def installed(isolated_home: Path) -> Path:
    """theta installed for the person, as ``git theta install`` does."""
    subprocess.run(["git", "theta", "install"], check=True, capture_output=True)
    return isolated_home


@pytest.fixture
def without_theta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have a PATH on which git-theta is not found from now on, and everything else is."""

    def hide() -> None:
        folder = tmp_path / "programs"
        folder.mkdir()
        for directory in reversed(os.environ["PATH"].split(os.pathsep)):
            for name in os.listdir(directory) if os.path.isdir(directory) else ():
                if not name.startswith("git-theta"):
                    (folder / name).unlink(missing_ok=True)
                    (folder / name).symlink_to(os.path.join(directory, name))
        monkeypatch.setenv("PATH", str(folder))
        assert shutil.which("git-theta") is None

    return hide


@pytest.fixture
def theta_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Record which ``git-theta`` commands are started from now on; returns them, and forgets."""
    program = shutil.which("git-theta")
    log = tmp_path / "calls"
    shim = tmp_path / "shim"
    shim.mkdir()
    write_hook(shim / "git-theta", f'#!/bin/sh\necho "$*" >> "{log}"\nexec "{program}" "$@"\n')
    monkeypatch.setenv("PATH", os.pathsep.join([str(shim), os.environ["PATH"]]))

    def calls() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    return calls


@pytest.fixture
def pointing(repository: GitSandbox, server: Path) -> GitSandbox:
    """A repository whose checkpoints have pointer files, with one of them committed by ``git theta add``."""
    repository("remote", "add", "origin", str(server))
    repository("theta", "track", "--pointers", "*.safetensors")
    repository.write(MODEL, FIRST)
    repository("theta", "add", MODEL)
    repository("commit", "-qm", "first")
    return repository


def forget(repo: GitSandbox) -> None:
    """Empty the store, keeping what is not an object."""
    shutil.rmtree(theta_dir(repo) / "objects", ignore_errors=True)
    (theta_dir(repo) / "encodings.sqlite").unlink(missing_ok=True)
