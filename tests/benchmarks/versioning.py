"""How long versioning a checkpoint takes: theta-nb, Git LFS and git-theta 0.2.0 side by side, as whole processes.

    python tests/benchmarks/versioning.py [--quick] [--repeat 3] [--readme README.md] [--only CASE]

Seconds say little about another machine, ratios carry over: the contenders take turns within each repetition, the order
turns with it, and the table gives the median of the repetitions' ratios with the smallest and the largest. Every step
starts with nothing left to write and its input in the page cache; every checkout is compared with what was added.
``--quick`` measures models of a tenth of the size, for trying the benchmark itself: start-up then weighs more.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from circumstances import command, load, machine, versions, working_folder
from contenders import GIT_LFS, REFERENCE, THETA_NB, Contender, contenders
from journeys import Model, Results, make_model, matrices, memory, minilm, startup
from measuring import BenchmarkError
from table import CASES, Measured, replace_between_markers, table

_ROWS = {"fp32": ("float32", 3052), "bf16": ("bfloat16", 6104)}  # 20 matrices of 4096 columns: 1.00 GB
_CONTENDERS = {
    "fp32": (THETA_NB, GIT_LFS),
    "bf16": (THETA_NB, GIT_LFS),
    "minilm": (THETA_NB, GIT_LFS, REFERENCE),
    "startup": (THETA_NB,),
    "memory": (THETA_NB, GIT_LFS),
}

Journey = Callable[[Contender, Path], Results]


def main() -> int:
    """Measure, print the table, and put it into the README if asked to."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is open gets closed
    options.cache.mkdir(parents=True, exist_ok=True)
    cases = options.only or CASES
    try:
        with working_folder(options.workdir) as workdir:
            before = load()
            measured = _measure(cases, options, workdir)
            text = f"{table(measured)}\n\n{_circumstances(options, workdir, before)}"
        print(text)
        if options.readme is not None:
            replace_between_markers(options.readme, text)
    except BenchmarkError as failure:
        print(f"benchmark: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="models of 100 MB instead of 1 GB, one repetition")
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions (default 3)")
    parser.add_argument("--only", action="append", choices=CASES, metavar="CASE", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="replace the table between the markers of FILE")
    parser.add_argument("--workdir", type=Path, default=Path(), help="where repositories are made (default: here)")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/theta-nb-benchmarks").expanduser())
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.quick else 3)
    options.cache = options.cache.absolute()
    return options


def _measure(cases: list[str], options: argparse.Namespace, workdir: Path) -> dict[str, Measured]:
    who = contenders(options.cache, sorted({name for case in cases for name in _CONTENDERS[case]}))
    journeys = {case: _journey(case, options) for case in cases}
    _warm_up(who, options, workdir)
    measured: dict[str, Measured] = {case: {} for case in cases}
    for repetition in range(options.repeat):
        for case in cases:
            names = list(_CONTENDERS[case])
            for name in names if repetition % 2 == 0 else reversed(names):
                start = time.perf_counter()
                results = journeys[case](who[name], workdir)
                measured[case].setdefault(name, []).append(results)
                seconds = time.perf_counter() - start
                _say(f"{repetition + 1}/{options.repeat} {case} {name} in {seconds:.0f} s, load {load()}", results)
    return measured


def _journey(case: str, options: argparse.Namespace) -> Journey:
    if case == "startup":
        return startup
    if case == "minilm":
        model = make_model(options.cache, "minilm.pt", "minilm")
        return lambda contender, workdir: minilm(contender, model, workdir)
    dtype, rows = _ROWS["fp32" if case == "memory" else case]
    model = _matrices_model(options.cache, dtype, rows // 10 if options.quick else rows)
    journey: Callable[[Contender, Model, Path], Results] = memory if case == "memory" else matrices
    return lambda contender, workdir: journey(contender, model, workdir)


def _matrices_model(cache: Path, dtype: str, rows: int) -> Model:
    return make_model(cache, f"{dtype}-{rows}-rows.safetensors", dtype, str(rows))


def _warm_up(who: dict[str, Contender], options: argparse.Namespace, workdir: Path) -> None:
    """Once, unmeasured: compiled modules get cached, programs get into memory."""
    small = _matrices_model(options.cache, "float32", 8)
    torch_file = make_model(options.cache, "minilm.pt", "minilm") if REFERENCE in who else None
    for name, contender in who.items():
        if name != REFERENCE:
            matrices(contender, small, workdir)
        elif torch_file is not None:
            minilm(contender, torch_file, workdir)


def _say(what: str, results: Results) -> None:
    shown = ", ".join(
        f"{name} {value / 1e6:.1f} MB" if value > 1e4 else f"{name} {value:.3f}" for name, value in results.items()
    )
    print(f"{what}: {shown}", file=sys.stderr, flush=True)


# --- the circumstances ------------------------------------------------------------------------------------------------


def _circumstances(options: argparse.Namespace, workdir: Path, before: str) -> str:
    size = "0.1" if options.quick else "1.0"
    return (
        f"{time.strftime('%Y-%m-%d')}, {options.repeat} interleaved repetition{'s' * (options.repeat > 1)}, "
        f"medians; ratios are of theta-nb to the other. Models: fp32 and bf16 safetensors files of {size} GB, 20 equal "
        "matrices of 4096 columns, normally distributed with a scale per row (generated; real models compress a "
        f"little better), and all-MiniLM-L6-v2. Machine: {machine(workdir)}, load average {before} before and {load()} "
        f"after it. {versions('numpy', 'numcodecs', 'blake3', 'torch')}. "
        f"Command: `{shlex.join(['python', *command()])}`."
    )


if __name__ == "__main__":
    sys.exit(main())
