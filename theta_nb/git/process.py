"""Run git commands: argument lists in, bytes out, errors with git's own words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Self

from theta_nb.errors import ThetaError

__all__ = [
    "LITERAL",
    "GitError",
    "Started",
    "child_environment",
    "config_items",
    "git",
    "git_elsewhere",
    "git_lines",
    "git_ok",
    "git_text",
    "know_local_variables",
    "run_gently",
    "without_local_variables",
]


LITERAL = {"GIT_LITERAL_PATHSPECS": "1"}
"""Variables with which git takes paths for what they are; stars and brackets are letters of a name."""

_LOCAL_VARIABLES: set[str] = set()


class GitError(ThetaError):
    """A git command failed.

    Parameters
    ----------
    message
        What was attempted and git's last words.
    returncode
        git's exit status.
    """

    def __init__(self, message: str, *, returncode: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.returncode = returncode


def git(
    *arguments: str | bytes,
    cwd: str | os.PathLike[str] | None = None,
    data: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Standard output of a git command.

    Parameters
    ----------
    arguments
        Subcommand and its arguments.
    cwd
        Where it runs; the current directory by default.
    data
        Standard input; none by default: a filter's own input is the protocol, which no child may read.
    env
        Variables added to the environment.

    Raises
    ------
    GitError
        If git exits with another status than 0.
    """
    return _output(arguments, _run(arguments, cwd, data, env))


def _output(arguments: Sequence[str | bytes], result: subprocess.CompletedProcess[bytes]) -> bytes:
    if result.returncode:
        said = result.stderr.decode("utf-8", "replace").strip()
        name = " ".join(os.fsdecode(a) for a in arguments[:2])
        raise GitError(
            f"'git {name}' failed: {said or f'exit status {result.returncode}'}", returncode=result.returncode
        )
    return result.stdout


def git_text(*arguments: str | bytes, cwd: str | os.PathLike[str] | None = None) -> str:
    """Standard output as text without its final newline; paths survive as surrogate escapes."""
    return os.fsdecode(git(*arguments, cwd=cwd)).removesuffix("\n")


def config_items(words: bytes) -> list[tuple[str, str]]:
    r"""Keys and values in what ``git config --null`` prints; a key without a value is set.

    Examples
    --------
    >>> config_items(b"core.bare\nfalse\0theta.skipsmudge\0")
    [('core.bare', 'false'), ('theta.skipsmudge', 'true')]
    """
    parts = (item.partition("\n") for item in words.decode("utf-8", "surrogateescape").split("\0")[:-1])
    return [(key, value if separator else "true") for key, separator, value in parts]


def git_elsewhere(
    *arguments: str | bytes,
    cwd: str | os.PathLike[str],
    data: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Standard output of a git command in another repository than the one that the environment may name.

    Raises
    ------
    GitError
        If git exits with another status than 0.
    """
    environment = {**without_local_variables(), **(env or {})}
    command = ["git", *arguments]
    stdin = subprocess.DEVNULL if data is None else None
    result = subprocess.run(
        command, cwd=cwd, env=environment, input=data, stdin=stdin, capture_output=True, check=False
    )
    return _output(arguments, result)


def git_lines(*arguments: str | bytes, cwd: str | os.PathLike[str] | None = None) -> list[str]:
    """Lines that a git command prints, also before it fails."""
    return os.fsdecode(_run(arguments, cwd, None, None).stdout).split("\n")[:-1]


def git_ok(*arguments: str | bytes, cwd: str | os.PathLike[str] | None = None) -> bool:
    """Whether a git command succeeds."""
    return _run(arguments, cwd, None, None).returncode == 0


def _run(
    arguments: Sequence[str | bytes],
    cwd: str | os.PathLike[str] | None,
    data: bytes | None,
    env: Mapping[str, str] | None,
) -> subprocess.CompletedProcess[bytes]:
    return _finished(_start(arguments, cwd, data, env), data)


def _start(
    arguments: Sequence[str | bytes],
    cwd: str | os.PathLike[str] | None,
    data: bytes | None,
    env: Mapping[str, str] | None,
) -> subprocess.Popen[bytes]:
    try:
        return _popen(["git", *arguments], cwd, data, child_environment(env))
    except FileNotFoundError as error:
        if cwd is not None and not os.path.isdir(cwd):
            raise
        raise ThetaError("git is not on the PATH", hint="Install git.") from error


def run_gently(
    command: Sequence[str | bytes],
    *,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str],
    data: bytes | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command like :func:`subprocess.run`, but let it clean up when we are interrupted.

    Ctrl-C in a notebook reaches the kernel alone. ``subprocess.run`` then kills its child outright, and git leaves
    ``index.lock`` behind; told to end, it removes it.
    """
    return _finished(_popen(command, cwd, data, env), data)


def _popen(
    command: Sequence[str | bytes], cwd: str | os.PathLike[str] | None, data: bytes | None, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    stdin = subprocess.DEVNULL if data is None else subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _finished(process: subprocess.Popen[bytes], data: bytes | None) -> subprocess.CompletedProcess[bytes]:
    with process:
        try:
            out, errors = process.communicate(data)
        except BaseException:
            process.terminate()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of git commands: untranslated messages, and a PATH on which git finds ``git-theta``.

    A notebook kernel often runs without its virtual environment being activated; git would then say no more than "the
    remote end hung up unexpectedly".
    """
    environment = {**os.environ, "LC_ALL": "C", **(extra or {})}
    for key in ("GIT_DIR", "GIT_WORK_TREE"):
        # 'git --git-dir x.git' hands it on as it is typed, and commands of ours run elsewhere.
        if environment.get(key):
            environment[key] = os.path.abspath(environment[key])
    path = environment.get("PATH", os.defpath)
    if _scripts() not in path.split(os.pathsep):
        environment["PATH"] = f"{path}{os.pathsep}{_scripts()}"
    return environment


@cache
def _scripts() -> str:
    """Folder of this environment's programs, ``git-theta`` among them."""
    beside = os.path.dirname(sys.executable)
    if os.path.isfile(os.path.join(beside, "git-theta")):
        return beside
    import sysconfig  # its first answer takes as long as a command of git

    return sysconfig.get_path("scripts")


def without_local_variables() -> dict[str, str]:
    """The environment without what ties git to one repository; for commands in another one."""
    if not _LOCAL_VARIABLES:
        know_local_variables(git_text("rev-parse", "--local-env-vars").split())
    return {key: value for key, value in child_environment().items() if key not in _LOCAL_VARIABLES}


def know_local_variables(names: Iterable[str]) -> None:
    """Remember what git calls its variables that are about one repository, so that it need not be asked again."""
    _LOCAL_VARIABLES.update(names)


class Started:
    """A git command that runs while something else is done; as a context, no longer than that.

    Parameters
    ----------
    arguments, cwd, env
        As for :func:`git`.

    Examples
    --------
    >>> with Started("version") as command:
    ...     said = "asked"
    ...     command.output()[:12]
    b'git version '
    """

    def __init__(
        self, *arguments: str, cwd: str | os.PathLike[str] | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._arguments = arguments
        self._process = _start(arguments, cwd, None, env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it where nobody waited for it."""
        if self._process.returncode is None:
            self._process.terminate()
            self._process.communicate()

    def finish(self) -> subprocess.CompletedProcess[bytes]:
        """Wait for its end; to be called once."""
        return _finished(self._process, None)

    def output(self) -> bytes:
        """Wait for its end, and return its standard output; to be called once.

        Raises
        ------
        GitError
            If git exits with another status than 0.
        """
        return _output(self._arguments, self.finish())
