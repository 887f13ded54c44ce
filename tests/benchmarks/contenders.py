"""Who is measured, and how each sets up a repository."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measuring import run

__all__ = ["GIT_LFS", "REFERENCE", "THETA_NB", "Contender", "Sandbox", "contenders", "theta_nb_has"]

THETA_NB = "theta-nb"
GIT_LFS = "Git LFS"
REFERENCE = "git-theta 0.2.0"

_REFERENCE_REQUIREMENTS = ("git-theta==0.2.0", "safetensors")

_ATTRIBUTES = (
    "*.safetensors filter=theta merge=theta diff=theta -text\n*.pt filter=theta merge=theta diff=theta -text\n"
)


@dataclass(frozen=True)
class Contender:
    """One way to keep checkpoints in git.

    Parameters
    ----------
    name
        As in the table.
    bin
        Folder that goes first on the PATH: two contenders bring a ``git-theta``.
    filter
        Command that git starts, as the configuration names it.
    """

    name: str
    bin: Path | None
    filter: str

    def sandbox(self, folder: Path) -> Sandbox:
        """A new repository in ``folder``, under a home of its own, that tracks checkpoints."""
        home, repository = folder / "home", folder / "repository"
        home.mkdir(parents=True)
        repository.mkdir()
        sandbox = Sandbox(self, repository, _environment(self.bin, home))
        sandbox.git("init", "-q", "-b", "main")
        if self.name == GIT_LFS:
            sandbox.git("lfs", "install")
            sandbox.git("lfs", "track", "*.safetensors", "*.pt")
        elif self.name == REFERENCE:
            sandbox.git("theta", "install")
            sandbox.git("theta", "track", "*.pt")
        elif theta_nb_has("install") and theta_nb_has("track"):
            sandbox.git("theta", "install")
            sandbox.git("theta", "track", "*.safetensors", "*.pt")
        else:
            sandbox.git("config", "filter.theta.process", self.filter)
            sandbox.git("config", "filter.theta.required", "true")
            (repository / ".gitattributes").write_text(_ATTRIBUTES)
        sandbox.git("add", ".gitattributes")
        sandbox.git("commit", "-q", "-m", "track checkpoints")
        return sandbox


@dataclass(frozen=True)
class Sandbox:
    """A repository of one contender."""

    contender: Contender
    path: Path
    env: dict[str, str]

    def git(self, *arguments: str) -> str:
        """Output of a git command that is not measured."""
        return run(["git", *arguments], cwd=self.path, env=self.env)

    @property
    def store(self) -> Path:
        """Everything that is kept: git's own objects, Git LFS's and theta-nb's."""
        return self.path / ".git"


def theta_nb_has(command: str) -> bool:
    """Whether theta-nb brings a command."""
    try:
        return all(importlib.util.find_spec(f"theta_nb.commands.{name}") for name in ("cli", command))
    except ModuleNotFoundError:
        return False


def contenders(cache: Path, names: list[str]) -> dict[str, Contender]:
    """The contenders called ``names``; git-theta is installed first, if it is not yet."""
    made = {
        THETA_NB: Contender(THETA_NB, Path(sys.executable).parent, "git-theta filter-process"),
        GIT_LFS: Contender(GIT_LFS, None, "git-lfs filter-process"),
    }
    if REFERENCE in names:
        made[REFERENCE] = Contender(REFERENCE, _reference_environment(cache) / "bin", "")
    return {name: made[name] for name in names}


def _reference_environment(cache: Path) -> Path:
    """A virtual environment with git-theta 0.2.0, made once; an unfinished one is made anew."""
    place = cache / f"git-theta-0.2.0-python{sys.version_info.major}.{sys.version_info.minor}"
    finished = place / "finished"
    if finished.exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    print(f"Installing git-theta 0.2.0 into {place}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    # The torch of this environment and no other: both read the same files with the same code, and pip would otherwise
    # fetch gigabytes of CUDA where a build for processors only is wanted.
    torch = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"
    subprocess.run([place / "bin" / "pip", "install", "--quiet", torch, *_REFERENCE_REQUIREMENTS], check=True)
    finished.touch()
    return place


def _environment(bin_folder: Path | None, home: Path) -> dict[str, str]:
    """No configuration of the person who measures, and no variable that ties git to a repository."""
    keep = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("GIT_", "THETA_", "XDG_", "PYTHON", "VIRTUAL_ENV"))
    }
    own = Path(sys.executable).parent
    path = [p for p in keep.get("PATH", "").split(os.pathsep) if Path(p) != own]
    return {
        **keep,
        "HOME": str(home),
        "PATH": os.pathsep.join([str(bin_folder), *path] if bin_folder else path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ada Bench",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada Bench",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
    }
