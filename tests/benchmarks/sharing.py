"""How long sharing takes: pushes and clones through an LFS server on this machine, theta-nb and Git LFS side by side.

    python tests/benchmarks/sharing.py [--quick] [--repeat 3] [--readme README.md] [--only CASE]

Both contenders move the same number of objects of the same lengths to the same server. The ratio counts: the
contenders take turns within each repetition, and the table gives the median of the repetitions' ratios. What a
repetition of a clone takes is itself the median of several in a row.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from circumstances import command, load, machine, versions, working_folder
from contenders import GIT_LFS, THETA_NB, Contender, Sandbox, contenders
from journeys import Model, Results, make_model
from measuring import BenchmarkError, measure, settle, sha256
from table import Measured, Row, replace_between_markers, table

_HERE = Path(__file__).parent
_SIDE = 130  # a float32 matrix of 130 x 130 fills an object of its own

# The memory that a file of 91 MB is written to costs 0.02 s, or 0.24 s in a virtual machine whose host took it back, as
# it does every few seconds. So one clone measures the host more than whoever makes it, and a few in a row are made.
_CLONES = 5

_CASES = ["clone", "history", "tensors"]

ROWS = [
    Row("tensors", "`git push`, {n} new tensors", "push", GIT_LFS, "push", 1.2),
    Row("tensors", "`git push` again, nothing new", "again", goal=1.0),
    Row("tensors", "`git push`, 1 of {n} tensors changed", "changed", goal=2.0),
    Row("clone", "`git clone`, MiniLM, 91 MB", "clone", GIT_LFS, "clone", 1.2),
    Row("history", "what a push of 500 commits x 500 tensors needs, found by a new process", "walk", goal=1.0),
]


class Server:
    """The LFS server of one journey."""

    def __init__(self, folder: Path) -> None:
        program = [sys.executable, str(_HERE / "lfs_store.py"), str(folder)]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is None:
            raise BenchmarkError("the server has no output")
        self.port = int(self._process.stdout.readline())

    @property
    def url(self) -> str:
        """Value of ``lfs.url``."""
        return f"http://127.0.0.1:{self.port}/repository"

    def uploads(self) -> int:
        """Objects that came since the last call."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/uploads") as answer:
            return int(answer.read())

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def _pair(contender: Contender, workdir: Path) -> Iterator[tuple[Sandbox, Server, Path]]:
    """A repository, an LFS server, and a bare repository that is its remote."""
    folder = Path(tempfile.mkdtemp(prefix="journey-", dir=workdir))
    server = Server(folder / "objects")
    try:
        sandbox = contender.sandbox(folder)
        bare = folder / "server.git"
        sandbox.git("init", "-q", "--bare", str(bare))
        sandbox.git("remote", "add", "origin", f"file://{bare}")
        sandbox.git("config", "--global", "lfs.url", server.url)
        sandbox.git("config", "--global", f"lfs.{server.url}.locksverify", "false")
        yield sandbox, server, bare
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def _timed(sandbox: Sandbox, *arguments: str, cwd: Path | None = None) -> tuple[float, float]:
    settle()
    sample = measure(["git", *arguments], cwd=cwd or sandbox.path, env=sandbox.env)
    return sample.seconds, sample.cpu


def tensors(contender: Contender, model: Model, workdir: Path) -> Results:
    """Push a checkpoint of many tensors, again, and after one of them changed; Git LFS pushes as many files."""
    results: Results = {}
    with _pair(contender, workdir) as (sandbox, server, _):
        count = _prepare(sandbox, model)
        sandbox.git("add", "-A")
        sandbox.git("commit", "-q", "-m", "new")
        results["push"], results["push cpu"] = _timed(sandbox, "push", "-q", "origin", "main")
        came = server.uploads()
        if came < count:
            raise BenchmarkError(f"{came} of {count} objects came to the server")
        results["again"], results["again cpu"] = _timed(sandbox, "push", "-q", "origin", "main")
        if server.uploads():
            raise BenchmarkError("something was uploaded that was there already")
        if contender.name == THETA_NB:
            with open(sandbox.path / "model.safetensors", "r+b") as file:
                file.seek(-4 * _SIDE * _SIDE, 2)
                file.write(random.Random(0).randbytes(4 * _SIDE * _SIDE))
            sandbox.git("commit", "-q", "-a", "-m", "changed")
            results["changed"], results["changed cpu"] = _timed(sandbox, "push", "-q", "origin", "main")
            if not 1 <= server.uploads() <= 3:
                raise BenchmarkError("more was uploaded than what changed")
    return results


def _prepare(sandbox: Sandbox, model: Model) -> int:
    """Put the model, or as many files of the lengths that its objects have, into the work tree."""
    sizes = [int(word) for word in Path(f"{model.path}.sizes").read_text().split()]
    if sandbox.contender.name == THETA_NB:
        shutil.copyfile(model.path, sandbox.path / "model.safetensors")
        return len(sizes)
    noise = random.Random(1)
    for number, size in enumerate(sizes):
        (sandbox.path / f"{number:05}.pt").write_bytes(noise.randbytes(size))
    return len(sizes)


def make_tensors(cache: Path, workdir: Path, contender: Contender, number: int) -> Model:
    """A checkpoint of so many matrices, and beside it the lengths of its objects."""
    path = cache / f"tensors-{number}.safetensors"
    sizes = Path(f"{path}.sizes")
    if not sizes.exists():
        program = [sys.executable, str(_HERE / "models.py"), str(path), "tensors", str(number), str(_SIDE)]
        subprocess.run(program, check=True)
        folder = Path(tempfile.mkdtemp(prefix="journey-", dir=workdir))
        sandbox = contender.sandbox(folder)
        shutil.copyfile(path, sandbox.path / "model.safetensors")
        sandbox.git("add", "-A")
        objects = [p for p in (sandbox.store / "theta" / "objects").rglob("*") if p.is_file()]
        sizes.write_text(" ".join(str(p.stat().st_size) for p in objects))
        shutil.rmtree(folder, ignore_errors=True)
    return Model(path, None, sha256(path))


def clone(contender: Contender, model: Model, workdir: Path) -> Results:
    """Clone a repository with one real checkpoint, several times; medians."""
    with _pair(contender, workdir) as (sandbox, _, bare):
        shutil.copyfile(model.path, sandbox.path / "model.pt")
        sandbox.git("add", "-A")
        sandbox.git("commit", "-q", "-m", "new")
        sandbox.git("push", "-q", "origin", "main")
        target = sandbox.path.parent / "clone"
        times = []
        for _ in range(_CLONES):
            shutil.rmtree(target, ignore_errors=True)
            times.append(_timed(sandbox, "clone", "-q", "-b", "main", f"file://{bare}", str(target), cwd=target.parent))
            if sha256(target / "model.pt") != model.sha256:
                raise BenchmarkError("the clone has another file")
        return {"clone": median(seconds for seconds, _ in times), "clone cpu": median(cpu for _, cpu in times)}


_WALK = """
import sys
from theta_nb.git.places import find_places
from theta_nb.git.push_range import RefUpdate, objects_of_push
wanted = objects_of_push(find_places(), "file:///elsewhere", [RefUpdate("main", sys.argv[1], "main", "0" * 40)])
assert len(wanted) == int(sys.argv[2]), len(wanted)
"""


def history(contender: Contender, workdir: Path) -> Results:
    """Find what a push of a long history needs."""
    with _pair(contender, workdir) as (sandbox, _, _bare):
        stream, number = _long_history(500, 500)
        subprocess.run(
            ["git", "fast-import", "--quiet", "--force"], cwd=sandbox.path, env=sandbox.env, input=stream, check=True
        )
        head = sandbox.git("rev-parse", "main").strip()
        settle()
        program = [sys.executable, "-c", _WALK, head, str(number)]
        sample = measure(program, cwd=sandbox.path, env=sandbox.env)
        return {"walk": sample.seconds, "walk cpu": sample.cpu}


def _long_history(commits: int, number: int) -> tuple[bytes, int]:
    """A stream for ``git fast-import`` of manifests of which a tenth changes with every commit."""

    def name(*parts: object) -> str:
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    since = [0] * number
    seen = set()
    stream = []
    for commit in range(commits):
        for tensor in random.Random(commit).sample(range(number), number // 10):
            since[tensor] = commit
        objects = {t: name("object", t, s) for t, s in enumerate(since)}
        digests = {t: name("digest", t, s) for t, s in enumerate(since)}
        seen.update(objects.values())
        lines = ["theta-manifest 1", "format safetensors", "size 1000", "layout ab", "skeleton ab", ""]
        lines += [f"layer.{t}.weight\tfloat32\t[130,130]\t{digests[t][:16]}\tdense" for t in range(number)]
        lines += ["", *sorted(f"object {oid} {50_000 + t}" for t, oid in objects.items())]
        lines += sorted(
            f"value {digests[t]} dense 67600 {name('chunk', t, since[t])}:{objects[t][:16]}:0:{50_000 + t}"
            for t in range(number)
        )
        text = "\n".join([*lines, ""]).encode()
        head = f"commit refs/heads/main\ncommitter a <a@b> {1_700_000_000 + commit} +0000\ndata 1\nx\n"
        stream.append(f"{head}M 100644 inline m.safetensors\ndata {len(text)}\n".encode() + text + b"\n")
    return b"".join(stream), len(seen)


def main() -> int:
    """Measure, print the table, and put it into the README if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 tensors instead of 5,000, one repetition")
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions (default 3)")
    parser.add_argument("--only", action="append", choices=_CASES, metavar="CASE")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="replace the table between the markers of FILE")
    parser.add_argument("--workdir", type=Path, default=Path(), help="where repositories are made (default: here)")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/theta-nb-benchmarks").expanduser())
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.quick else 3)
    options.cache = options.cache.absolute()
    options.cache.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and folders go
    try:
        with working_folder(options.workdir) as workdir:
            text = _report(options, workdir)
        print(text)
        if options.readme is not None:
            replace_between_markers(options.readme, text, "sharing")
    except BenchmarkError as failure:
        print(f"benchmark: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _report(options: argparse.Namespace, workdir: Path) -> str:
    number = 500 if options.quick else 5000
    before = load()
    measured = _measure(options, workdir, number)
    rows = [replace(row, work=row.work.replace("{n}", f"{number:,}")) for row in ROWS]
    return (
        f"{table(measured, rows, (GIT_LFS,))}\n\n"
        f"{time.strftime('%Y-%m-%d')}, {options.repeat} interleaved repetition{'s' * (options.repeat > 1)}, medians. "
        f"The server is a small one on the same machine; the tensors are float32 matrices of {_SIDE} x {_SIDE}, and "
        f"Git LFS pushes as many files of the lengths of their objects; a clone's time is the median of {_CLONES} in a "
        f"row. Machine: {machine(workdir)}, "
        f"load average {before} before and {load()} after it. {versions('numcodecs', 'blake3')}. "
        f"Command: `{shlex.join(['python', *command()])}`."
    )


def _measure(options: argparse.Namespace, workdir: Path, number: int) -> dict[str, Measured]:
    who = contenders(options.cache, [THETA_NB, GIT_LFS])
    # 5,000 files, once they are deleted, slow what comes next: clones and walks are measured before there are any.
    cases = [case for case in _CASES if case in (options.only or _CASES)]
    small = make_tensors(options.cache, workdir, who[THETA_NB], 20)
    real = make_model(options.cache, "minilm.pt", "minilm")
    for contender in who.values():  # unmeasured: programs get into memory
        tensors(contender, small, workdir)
    measured: dict[str, Measured] = {case: {} for case in cases}
    for case in cases:
        for repetition in range(options.repeat):
            names = [THETA_NB] if case == "history" else [THETA_NB, GIT_LFS]
            for name in names if repetition % 2 == 0 else reversed(names):
                if case == "tensors":
                    many = make_tensors(options.cache, workdir, who[THETA_NB], number)
                    results = tensors(who[name], many, workdir)
                elif case == "clone":
                    results = clone(who[name], real, workdir)
                else:
                    results = history(who[name], workdir)
                measured[case].setdefault(name, []).append(results)
                shown = ", ".join(f"{key} {value:.2f}" for key, value in results.items())
                print(f"{repetition + 1}/{options.repeat} {case} {name}, load {load()}: {shown}", file=sys.stderr)
    return measured


if __name__ == "__main__":
    sys.exit(main())
