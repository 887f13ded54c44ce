"""What is done with each contender: one journey is one fresh repository and the timed steps in it.

A journey gives measurements by name: seconds (``add``), bytes (``stored``), and the samples behind them.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contenders import GIT_LFS, REFERENCE, THETA_NB, Contender, Sandbox, theta_nb_has
from measuring import BenchmarkError, Sample, measure, run, settle, sha256, tree_nbytes

__all__ = ["Model", "Results", "make_model", "matrices", "memory", "minilm", "repository", "startup"]

Results = dict[str, float]

_HERE = Path(__file__).parent
_LONG_AGO = 1_700_000_000  # files older than the index: git need not compare what it has just written


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint to measure with.

    Parameters
    ----------
    path
        Where it lies in the cache.
    changed
        Bytes to write over its last tensor; ``None`` where nothing is changed.
    sha256
        Of the file.
    """

    path: Path
    changed: Path | None
    sha256: str


def make_model(cache: Path, name: str, *arguments: str) -> Model:
    """A model of the cache, generated if it is not there yet."""
    path = cache / name
    changed = Path(f"{path}.tensor")
    if not path.exists():
        print(f"Generating {path}", file=sys.stderr)
        subprocess.run([sys.executable, _HERE / "models.py", path, *arguments], check=True)
    return Model(path, changed if changed.exists() else None, sha256(path))


@contextmanager
def repository(contender: Contender, workdir: Path) -> Iterator[Sandbox]:
    folder = Path(tempfile.mkdtemp(prefix="journey-", dir=workdir))
    try:
        yield contender.sandbox(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # objects are read-only files in writable folders


class _Steps:
    """The timed steps on one file of one repository."""

    def __init__(self, sandbox: Sandbox, model: Model, file_name: str) -> None:
        self.sandbox = sandbox
        self.model = model
        self.file = sandbox.path / file_name
        self.results: Results = {}
        self._clock = _LONG_AGO

    def timed(self, name: str, *command: str, read: Path) -> Sample:
        settle(read)
        sample = measure(command, cwd=self.sandbox.path, env=self.sandbox.env)
        self.results[name] = sample.seconds
        self.results[f"{name} cpu"] = sample.cpu
        self.results[f"{name} peak"] = sample.peak
        return sample

    def touch(self) -> None:
        self._clock += 10
        os.utime(self.file, (self._clock, self._clock))

    def add(self, name: str) -> None:
        before = tree_nbytes(self.sandbox.store)
        self.timed(name, "git", "add", self.file.name, read=self.file)
        self.results[f"{name} stored"] = tree_nbytes(self.sandbox.store) - before

    def first_add(self) -> None:
        shutil.copyfile(self.model.path, self.file)
        self.touch()
        self.add("add")
        self.sandbox.git("commit", "-q", "-m", "model")

    def checkout(self) -> None:
        self.file.unlink()
        self.timed("checkout", "git", "checkout", "--", self.file.name, read=self.sandbox.store)

    def verify(self) -> None:
        if sha256(self.file) != self.model.sha256:
            raise BenchmarkError(f"{self.sandbox.contender.name} gave back other bytes")

    def change(self) -> None:
        changed = self.model.changed
        if changed is None:
            raise BenchmarkError("this model has no changed version")
        with open(self.file, "r+b") as file, open(changed, "rb") as tensor:
            file.seek(-changed.stat().st_size, os.SEEK_END)
            shutil.copyfileobj(tensor, file, 2**20)
        self.touch()


def matrices(contender: Contender, model: Model, workdir: Path) -> Results:
    """Add, add again untouched, check out, change one tensor of twenty and add."""
    with repository(contender, workdir) as sandbox:
        steps = _Steps(sandbox, model, "model.safetensors")
        steps.first_add()
        steps.touch()
        steps.add("touched")
        steps.checkout()
        steps.verify()
        if contender.name == THETA_NB and theta_nb_has("checkout"):
            _direct_checkout(steps)
        steps.change()
        steps.add("changed")
        return steps.results


def _direct_checkout(steps: _Steps) -> None:
    """``git theta checkout`` where the work tree holds the manifest."""
    sandbox, name = steps.sandbox, steps.file.name
    steps.file.unlink()
    run(["git", "checkout", "--", name], cwd=sandbox.path, env={**sandbox.env, "GIT_THETA_SKIP_SMUDGE": "1"})
    if steps.file.stat().st_size > 2**20:
        raise BenchmarkError("GIT_THETA_SKIP_SMUDGE=1 did not leave the manifest")
    steps.timed("direct", "git", "theta", "checkout", name, read=sandbox.store)
    steps.verify()
    settle(steps.file)
    # diff-files compares the index with stat data and refreshes nothing: quiet only if the command did it.
    sandbox.git("diff-files", "--quiet")
    sample = measure(("git", "status", "--porcelain"), cwd=sandbox.path, env=sandbox.env)
    steps.results["status"] = sample.seconds
    if said := sandbox.git("status", "--porcelain"):
        raise BenchmarkError(f"git status after 'git theta checkout' says {said}")


def minilm(contender: Contender, model: Model, workdir: Path) -> Results:
    """Add and check out a real model as a torch file."""
    with repository(contender, workdir) as sandbox:
        steps = _Steps(sandbox, model, "model.pt")
        steps.first_add()
        steps.checkout()
        if contender.name == REFERENCE:
            same = [sys.executable, str(_HERE / "models.py"), "same", str(model.path), str(steps.file)]
            run(same, cwd=sandbox.path, env=sandbox.env)
        else:
            steps.verify()
        return steps.results


def memory(contender: Contender, model: Model, workdir: Path) -> Results:
    """Peak memory of the filter process alone, above that of an interpreter that does nothing."""
    with repository(contender, workdir) as sandbox:
        peaks = sandbox.path.parent / "peaks"
        wrapper = [sys.executable, "-S", str(_HERE / "peak.py"), str(peaks)]
        filter_name = "lfs" if contender.name == GIT_LFS else "theta"
        sandbox.git("config", f"filter.{filter_name}.process", f"{_shell(wrapper)} {contender.filter}")
        steps = _Steps(sandbox, model, "model.safetensors")
        steps.first_add()
        steps.checkout()
        steps.verify()
        run([*wrapper, sys.executable, "-c", "pass"], cwd=sandbox.path, env=sandbox.env)
        values = [int(line) for line in peaks.read_text().split()]
        if len(values) != 3:
            raise BenchmarkError(f"{contender.name} ran {len(values) - 1} filters instead of 2")
        add, checkout, bare = values
        base = bare if contender.name == THETA_NB else 0
        return {"add": add - base, "checkout": checkout - base}


def _shell(command: list[str]) -> str:
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in command)


def startup(contender: Contender, workdir: Path) -> Results:
    """Start of the filter to the first byte of a checkpoint that it gives out; import over bare Python."""
    with repository(contender, workdir) as sandbox:
        tensor = bytes(range(256)) * 16
        header = json.dumps({"weight": {"dtype": "F32", "shape": [1024], "data_offsets": [0, 4096]}}).encode()
        (sandbox.path / "tiny.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + tensor)
        sandbox.git("add", "tiny.safetensors")
        manifest = sandbox.git("cat-file", "blob", ":tiny.safetensors").encode()
        request = b"".join(
            [
                *map(_packet, (b"git-filter-client\n", b"version=2\n")),
                b"0000",
                *map(_packet, (b"capability=clean\n", b"capability=smudge\n")),
                b"0000",
                *map(_packet, (b"command=smudge\n", b"pathname=tiny.safetensors\n")),
                b"0000",
                _packet(manifest),
                b"0000",
            ]
        )
        return {
            "first byte": _median(lambda: _first_byte(sandbox, request, header)),
            "import": _median(lambda: _python(sandbox, "import theta_nb") - _python(sandbox, "pass")),
        }


def _python(sandbox: Sandbox, code: str) -> float:
    return measure([sys.executable, "-c", code], cwd=sandbox.path, env=sandbox.env).seconds


def _median(attempt: Callable[[], float]) -> float:
    return statistics.median(attempt() for _ in range(9))


def _packet(data: bytes) -> bytes:
    return b"%04x%s" % (len(data) + 4, data)


def _first_byte(sandbox: Sandbox, request: bytes, awaited: bytes) -> float:
    start = time.perf_counter()
    command = sandbox.contender.filter.split()
    command[0] = shutil.which(command[0], path=sandbox.env["PATH"]) or command[0]
    with subprocess.Popen(
        command, cwd=sandbox.path, env=sandbox.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise BenchmarkError("no pipes")
        process.stdin.write(request)
        said = b""
        while awaited not in said:
            piece = process.stdout.read(2**16)
            if not piece:
                raise BenchmarkError("the filter gave no checkpoint")
            said += piece
        seconds = time.perf_counter() - start
        process.stdin.close()
        while process.stdout.read(2**16):
            pass
    return seconds
