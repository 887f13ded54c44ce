"""``git theta env``: what a report of a bug needs to say about the machine and the repository."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from theta_nb import __version__
from theta_nb.commands.track import TrackedPattern, tracked_patterns
from theta_nb.errors import ThetaError
from theta_nb.git.configuration import ConfigEntry, config_entries, installed
from theta_nb.git.endpoints import endpoints, mask_credentials
from theta_nb.git.hooks import hook_problems
from theta_nb.git.installation import program_problem
from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git_text

__all__ = ["EndpointReport", "EnvReport", "RepositoryReport", "env", "mask_credentials"]

_THROUGH = {True: "copy", False: "git-lfs"}

_PACKAGES = (
    "numpy", "numcodecs", "blake3", "safetensors", "ml_dtypes", "torch", "gitpython", "ipython", "ipywidgets",
    "jupyterlab",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """Where the objects of a remote are.

    Parameters
    ----------
    remote
        Its name.
    push
        Whether this is where they are written to.
    address
        URL or folder, without credentials.
    through
        ``"copy"`` for a repository on this machine, else ``"git-lfs"``.
    """

    remote: str
    push: bool
    address: str
    through: str


@dataclass(frozen=True, slots=True)
class RepositoryReport:
    """One repository.

    Parameters
    ----------
    git_dir, common_dir, work_tree
        Its folders; no work tree in a bare repository.
    object_format
        ``"sha1"`` or ``"sha256"``.
    remotes
        URL by name, without credentials.
    endpoints
        Where the objects of each remote are read from and written to.
    patterns
        What is tracked.
    store
        Folder of the objects.
    objects, nbytes
        Number of objects there and their total length.
    settings
        Settings as they are in force.
    """

    git_dir: str
    common_dir: str
    work_tree: str | None
    object_format: str
    remotes: dict[str, str]
    endpoints: tuple[EndpointReport, ...]
    patterns: tuple[TrackedPattern, ...]
    store: str
    objects: int
    nbytes: int
    settings: dict[str, object]


@dataclass(frozen=True, slots=True)
class EnvReport:
    """What ``git theta env`` finds out.

    Parameters
    ----------
    versions
        Version by name of program or package; ``None`` where it is not installed.
    platform
        Operating system and machine.
    executables
        Where the programs are.
    configuration
        Values of git's configuration under our keys, with where each was read.
    problems
        What looks wrong.
    repository
        The repository, or ``None`` outside of one.
    """

    versions: dict[str, str | None]
    platform: str
    executables: dict[str, str | None]
    configuration: tuple[ConfigEntry, ...]
    problems: tuple[str, ...]
    repository: RepositoryReport | None


def env(places: Places | None, *, folder: str | None = None) -> EnvReport:
    """Gather versions, configuration and the state of the repository; nothing is imported to learn its version.

    Parameters
    ----------
    places
        The repository, or ``None`` outside of one.
    folder
        Where configuration is looked up; the current directory by default.
    """
    problems = []
    state = installed(folder)
    if not state.filters:
        problems.append("git knows no filter 'theta': run 'git theta install'")
    for entry in state.differing:
        problems.append(f"{entry.key} is {entry.value!r} in {entry.origin}, not what 'git theta install' writes")
    program = program_problem()
    if program:
        problems.append(program)
    report = None
    if places is not None:
        try:
            report = _repository(places)
            problems += hook_problems(places)
        except ThetaError as error:
            problems.append(str(error))
    return EnvReport(
        _versions(),
        platform.platform(),
        {"python": sys.executable, "git": shutil.which("git"), "git-theta": shutil.which("git-theta")},
        tuple(ConfigEntry(e.key, mask_credentials(e.value), e.scope, e.origin) for e in _configuration(folder)),
        tuple(problems),
        report,
    )


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"theta-nb": __version__, "python": platform.python_version()}
    found["git"] = _first_line("version").removeprefix("git version ") or None
    lfs = _first_line("lfs", "version")
    found["git-lfs"] = lfs.split()[0].removeprefix("git-lfs/") if lfs else None
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _first_line(*arguments: str) -> str:
    try:
        return git_text(*arguments).partition("\n")[0]
    except GitError:
        return ""


def _configuration(folder: str | None) -> tuple[ConfigEntry, ...]:
    """Our keys, and those of git and Git LFS that change how we work."""
    keys = (
        r"^(filter|diff)\.(theta|lfs)\.|^merge\.theta(-base)?\.|^theta\.|^lfs\.(url|storage|fetch)"
        r"|^core\.(attributesfile|autocrlf|hookspath|bare|worktree)$|^extensions\.|^merge\.renormalize$"
    )
    try:
        return config_entries(keys, folder)
    except GitError:
        return ()


def _repository(places: Places) -> RepositoryReport:
    sizes = [places.store.size(oid) for oid in places.store]
    remotes = {}
    for name in git_text("remote", cwd=places.top).split("\n"):
        if name:
            remotes[name] = mask_credentials(_first_line_in(places, "remote", "get-url", name))
    return RepositoryReport(
        places.git_dir,
        places.common_dir,
        places.work_tree,
        git_text("rev-parse", "--show-object-format", cwd=places.top),
        remotes,
        tuple(
            EndpointReport(e.remote, e.push, mask_credentials(e.folder or e.lfs_url or e.url), _THROUGH[e.is_local])
            for e in endpoints(places)
        ),
        tracked_patterns(places) if places.work_tree else (),
        os.path.join(places.theta_dir, "objects"),
        len(sizes),
        sum(size or 0 for size in sizes),
        asdict(places.settings),
    )


def _first_line_in(places: Places, *arguments: str) -> str:
    try:
        return git_text(*arguments, cwd=places.top).partition("\n")[0]
    except GitError:
        return ""
