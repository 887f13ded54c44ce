"""What a fine-tune costs: bytes and time of storing it on top of the version before, beside Git LFS and git-theta.

    python tests/benchmarks/updating.py [--quick] [--repeat 3] [--readme README.md] [--only CASE] [--reference]

Ratios count: the contenders take turns within each repetition, and the table gives the median of the repetitions'
ratios. A series is as many fine-tunes of MiniLM, one commit each; it is stored once by each contender.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from circumstances import command, load, machine, versions, working_folder
from contenders import GIT_LFS, REFERENCE, THETA_NB, Contender, Sandbox, contenders
from journeys import Model, Results, make_model, repository
from measuring import BenchmarkError, measure, settle, sha256, tree_nbytes
from table import Measured, Row, replace_between_markers, table

_HERE = Path(__file__).parent
_LONG_AGO = 1_700_000_000  # files older than the index: git need not compare what it has just written
_STRIDE = 5  # every so many versions of a series are checked out, and the last ones, where chains are longest

ROWS = [
    Row("bf16", "stored for a fine-tune of bf16, relative change 2e-3", "stored", GIT_LFS, "stored", 0.17, "MB"),
    Row("bf16", "the same against dense by our codec", "stored", THETA_NB, "dense stored", 0.25, "MB"),
    Row("bf16", "`git add` of it", "add", GIT_LFS, "add", 1.0),
    Row("bf16", "`git checkout` of it, against the dense version", "checkout", THETA_NB, "dense checkout", 1.3),
    Row("fp32", "stored for a fine-tune of fp32, relative change 2e-3", "stored", GIT_LFS, "stored", 0.60, "MB"),
    Row("fp32", "the same against dense by our codec", "stored", THETA_NB, "dense stored", 0.70, "MB"),
    Row("fp32", "`git add` of it", "add", GIT_LFS, "add", 1.0),
    Row("fp32", "`git checkout` of it, against the dense version", "checkout", THETA_NB, "dense checkout", 1.3),
    Row(
        "choice",
        "`git add` of unrelated values, processor time, against plain dense",
        "add cpu",
        THETA_NB,
        "dense cpu",
        1.15,
    ),
    Row("row", "stored for one row of a 30,000 x 384 embedding", "stored", GIT_LFS, "stored", 0.01, "MB"),
    Row("lora", "stored for a LoRA of rank 8, side-loaded", "stored", GIT_LFS, "stored", 0.02, "MB"),
    Row("two layers", "stored for {n} fine-tunes of 2 of 6 layers, MiniLM", "stored", GIT_LFS, "stored", 0.20, "MB"),
    Row("two layers", "slowest checkout of them, against a dense one", "slowest", THETA_NB, "dense checkout", 2.0),
    Row("all layers", "stored for {n} fine-tunes of every tensor, MiniLM", "stored", GIT_LFS, "stored", 0.50, "MB"),
    Row("all layers", "slowest checkout of them, against a dense one", "slowest", THETA_NB, "dense checkout", 2.0),
]
CASES = list(dict.fromkeys(row.case for row in ROWS))


class _Steps:
    """One file of one repository, and the timed commands on it."""

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        self.sandbox = sandbox
        self.file = sandbox.path / name
        self.results: Results = {}
        self._clock = _LONG_AGO

    def commit(self, source: Path | None = None, *, timed: bool = False) -> int:
        """Add what lies there (or a copy of ``source``) and commit it; returns the bytes that this took."""
        if source is not None:
            shutil.copyfile(source, self.file)
        self._clock += 10
        os.utime(self.file, (self._clock, self._clock))
        before = tree_nbytes(self.sandbox.store)
        self._run("add" if timed else "", "git", "add", self.file.name, read=self.file)
        stored = tree_nbytes(self.sandbox.store) - before
        self.sandbox.git("commit", "-q", "-m", "version")
        return stored

    def checkout(self, revision: str, name: str) -> float:
        """Seconds to check a version out."""
        self.file.unlink()
        return self._run(name, "git", "checkout", "-q", revision, "--", self.file.name, read=self.sandbox.store)

    def _run(self, name: str, *words: str, read: Path) -> float:
        settle(read)
        sample = measure(words, cwd=self.sandbox.path, env=self.sandbox.env)
        if name:
            self.results[name] = sample.seconds
            self.results[f"{name} cpu"] = sample.cpu
        return sample.seconds

    def require(self, digest: str) -> None:
        if sha256(self.file) != digest:
            raise BenchmarkError(f"{self.sandbox.contender.name} gave back other bytes")


def fine_tune(contender: Contender, base: Model, tuned: Model, workdir: Path) -> Results:
    """Commit a model and a fine-tune of it, and check both out."""
    with repository(contender, workdir) as sandbox:
        steps = _Steps(sandbox, "model.safetensors")
        steps.commit(base.path)
        steps.results["stored"] = steps.commit(tuned.path, timed=True)
        steps.checkout("HEAD~1", "dense checkout")
        steps.require(base.sha256)
        steps.checkout("HEAD", "checkout")
        steps.require(tuned.sha256)
        results = steps.results
    if contender.name == THETA_NB:
        with repository(contender, workdir) as sandbox:
            results["dense stored"] = _Steps(sandbox, "model.safetensors").commit(tuned.path)
    return results


def choice(contender: Contender, base: Model, other: Model, workdir: Path) -> Results:
    """Add values that have nothing to do with the committed ones, where an update may be chosen and where not."""
    results: Results = {}
    if contender.name == THETA_NB:
        for name, setting in (("dense", "dense"), ("add", "auto")):
            with repository(contender, workdir) as sandbox:
                steps = _Steps(sandbox, "model.safetensors")
                steps.commit(base.path)
                sandbox.git("config", "theta.update", setting)
                steps.commit(other.path, timed=True)
                results[name], results[f"{name} cpu"] = steps.results["add"], steps.results["add cpu"]
    return results


def lora(contender: Contender, base: Model, workdir: Path) -> Results:
    """Side-load the factors of a LoRA; Git LFS stores what comes of it."""
    factors = Path(f"{base.path}.lora")
    with repository(contender, workdir) as sandbox:
        steps = _Steps(sandbox, "model.safetensors")
        steps.commit(base.path)
        if contender.name != THETA_NB:
            merged = workdir / "merged.safetensors"
            return {"stored": steps.commit(merged)}
        before = tree_nbytes(sandbox.store)
        words = ["--update-type", "low-rank", "--update-data", str(factors)]
        settle(steps.file)
        sample = measure(["git", "theta", "add", steps.file.name, *words], cwd=sandbox.path, env=sandbox.env)
        stored = tree_nbytes(sandbox.store) - before
        sandbox.git("commit", "-q", "-m", "lora")
        digest = sha256(steps.file)
        shutil.copyfile(steps.file, workdir / "merged.safetensors")
        steps.checkout("HEAD", "checkout")
        steps.require(digest)
        return {"stored": stored, "add": sample.seconds, "add cpu": sample.cpu}


def series(contender: Contender, base: Model, workdir: Path, number: int, layers: list[str]) -> Results:
    """Fine-tunes one after the other, a relative change of 1e-4 each; then checkouts of some of them."""
    with repository(contender, workdir) as sandbox:
        steps = _Steps(sandbox, "model.pt")
        stored = steps.commit(base.path)
        digests = [base.sha256]
        for seed in range(number):
            chosen = layers or [str(n) for n in ((2 * seed) % 6, (2 * seed + 1) % 6)]
            program = [sys.executable, str(_HERE / "models.py"), "tune", str(steps.file), str(seed), "1e-4", *chosen]
            subprocess.run(program, check=True)
            digests.append(sha256(steps.file))
            stored += steps.commit()
        steps.results["stored"] = stored
        if contender.name == THETA_NB:
            steps.results["dense checkout"] = min(steps.checkout(f"HEAD~{number}", "") for _ in range(3))
            slowest = 0.0
            for version in sorted({*range(_STRIDE, number + 1, _STRIDE), *range(max(1, number - 6), number + 1)}):
                seconds = min(steps.checkout(f"HEAD~{number - version}", "") for _ in range(3))
                slowest = max(slowest, seconds)
                steps.require(digests[version])
            steps.results["slowest"] = slowest
        return steps.results


def main() -> int:
    """Measure, print the table, and put it into the README if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="0.1 GB, series of 6, one repetition")
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions (default 3)")
    parser.add_argument("--tunes", type=int, metavar="N", help="fine-tunes of a series (default 30)")
    parser.add_argument("--only", action="append", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--reference", action="store_true", help="let git-theta 0.2.0 store the series, too (slow)")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="replace the table between the markers of FILE")
    parser.add_argument("--workdir", type=Path, default=Path(), help="where repositories are made (default: here)")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/theta-nb-benchmarks").expanduser())
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.quick else 3)
    options.tunes = options.tunes or (6 if options.quick else 30)
    options.cache = options.cache.absolute()
    options.cache.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that folders go
    try:
        with working_folder(options.workdir) as workdir:
            text = _report(options, workdir)
        print(text)
        if options.readme is not None:
            replace_between_markers(options.readme, text, "updating")
    except BenchmarkError as failure:
        print(f"benchmark: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _report(options: argparse.Namespace, workdir: Path) -> str:
    before = load()
    who = contenders(options.cache, [THETA_NB, GIT_LFS, *([REFERENCE] if options.reference else [])])
    cases = options.only or CASES
    measured: dict[str, Measured] = {case: {} for case in cases}
    for case in cases:
        for repetition in range(1 if case.endswith("layers") else options.repeat):
            names = list(who) if case.endswith("layers") else [THETA_NB, GIT_LFS]
            # Git LFS stores what side-loading made.
            for name in names if repetition % 2 == 0 or case == "lora" else reversed(names):
                results = _measure(case, who[name], options, workdir)
                measured[case].setdefault(name, []).append(results)
                said = ", ".join(f"{key} {value:.3g}" for key, value in results.items())
                print(f"{repetition + 1} {case} {name}, load {load()}: {said}", file=sys.stderr)
    rivals = [name for name in who if name != THETA_NB]
    rows = [replace(row, work=row.work.replace("{n}", str(options.tunes))) for row in ROWS]
    return (
        f"{table(measured, rows, rivals)}\n\n"
        f"{time.strftime('%Y-%m-%d')}, {options.repeat} interleaved repetition{'s' * (options.repeat > 1)}, medians; a "
        "series once, its checkouts every fifth version and the last seven, best of three. Models: 20 matrices of 4096 "
        f"columns in {'0.1' if options.quick else '1.0'} GB, a transformer of 7 layers (104 MB), all-MiniLM-L6-v2 as a "
        f"torch file with a relative change of 1e-4 each time. Machine: {machine(workdir)}, load average "
        f"{before} before and {load()} after it. {versions('numpy', 'numcodecs', 'blake3')}. "
        f"Command: `{shlex.join(['python', *command()])}`."
    )


def _measure(case: str, contender: Contender, options: argparse.Namespace, workdir: Path) -> Results:
    cache = options.cache
    if case in ("bf16", "fp32"):
        dtype = {"bf16": "bfloat16", "fp32": "float32"}[case]
        size = "small" if options.quick else "large"
        rows = (100_000_000 if options.quick else 1_000_000_000) // 20 // 4096 // {"bf16": 2, "fp32": 4}[case]
        base = make_model(cache, f"{dtype}-{size}.safetensors", dtype, str(rows))
        tuned = make_model(cache, f"{dtype}-{size}-tuned.safetensors", "tuned", str(base.path), "2e-3")
        return fine_tune(contender, base, tuned, workdir)
    if case == "choice":
        base = make_model(cache, "float32-small.safetensors", "float32", "305")
        return choice(contender, base, make_model(cache, "float32-other.safetensors", "float32", "305", "100"), workdir)
    if case == "row":
        base = make_model(cache, "embedding.safetensors", "embedding")
        return fine_tune(
            contender, base, make_model(cache, "embedding-row.safetensors", "row", str(base.path)), workdir
        )
    if case == "lora":
        return lora(contender, make_model(cache, "transformer.safetensors", "transformer"), workdir)
    base = make_model(cache, "minilm.pt", "minilm")
    return series(contender, base, workdir, options.tunes, ["all"] if case == "all layers" else [])


if __name__ == "__main__":
    sys.exit(main())
