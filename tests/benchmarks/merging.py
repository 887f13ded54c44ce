"""How long merging takes: theta-nb and mergekit 0.1.5 side by side, on the same files, both writing the result.

    python tests/benchmarks/merging.py [--quick] [--repeat 3] [--readme README.md] [--only METHOD]

Three float32 checkpoints of 346 MB, in the page cache. The contenders take turns; the table gives the median of the
repetitions' ratios with the smallest and the largest. *warm* is the merge within a process that has done one before,
*whole* a process from its start to its end, imports included (mergekit's tensor functions alone: its command line
imports much more). mergekit runs from the environment that runs this script.

Then what has to keep up with a hand: previews while a parameter changes, TIES on MiniLM on a sample and exact, and a
``git merge`` of two fine-tunes of MiniLM that changed different layers.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from circumstances import command, load, machine, versions, working_folder
from measuring import BenchmarkError, Sample, measure, run, settle
from merging_git import merges_of_minilm
from table import replace_between_markers

OURS, THEIRS = "theta-nb", "mergekit"
_WORKER = Path(__file__).with_name("merging_worker.py")

GOALS = {  # times faster
    "linear": 1.0,
    "slerp": 1.0,
    "task_arithmetic": 1.0,
    "ties": 5.0,
    "dare_ties": 5.0,
    "della": 5.0,
    "sce": 5.0,
    "karcher": 1.0,
    "model_stock": 1.0,
}
_WHOLE = 3.0
_PEAK = 0.5
_MEGABYTES = 346.0
_MINILM = 1.5  # seconds of a git merge


@dataclass
class Taken:
    """What one contender took for one method, a number for each repetition."""

    warm: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)


@dataclass
class Interactive:
    """What a person waits for; seconds."""

    preview: dict[str, float]
    dragging: dict[str, list[float]]
    merges: list[Sample]
    peaks: dict[str, float]


def main() -> int:
    """Measure, print the table, and put it into the README if asked to."""
    options = _options()
    try:
        with working_folder(options.workdir) as workdir:
            before = load()
            taken = _measure(options, workdir)
            rest = _interactive(options, workdir)
            text = "\n".join([*_table(taken, options), "", *_rest(rest, taken, options)])
            text += f"\n\n{_circumstances(options, workdir, before)}"
        print(text)
        if options.readme is not None:
            replace_between_markers(options.readme, text, "merging")
    except BenchmarkError as failure:
        print(f"benchmark: {failure}", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="checkpoints of 35 MB, one repetition")
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions (default 3)")
    parser.add_argument("--only", action="append", choices=list(GOALS), metavar="METHOD")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="replace the table between the markers of FILE")
    parser.add_argument("--workdir", type=Path, default=Path(), help="where files are made (default: here)")
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.quick else 3)
    return options


def _megabytes(options: argparse.Namespace) -> float:
    return _MEGABYTES / 10 if options.quick else _MEGABYTES


def _small(options: argparse.Namespace) -> float:
    """Megabytes of a model that is large enough to fill every buffer."""
    return max(_megabytes(options) / 4, _MEGABYTES / 10)


def _measure(options: argparse.Namespace, workdir: Path) -> dict[str, dict[str, Taken]]:
    model = workdir / "model"
    _worker(workdir, "model", str(model), str(_megabytes(options)))
    methods = options.only or list(GOALS)
    taken = {method: {OURS: Taken(), THEIRS: Taken()} for method in methods}
    for repetition in range(options.repeat):
        for method in methods:
            for who in (OURS, THEIRS) if repetition % 2 == 0 else (THEIRS, OURS):
                _once(who, method, model, workdir, taken[method][who])
                _say(f"{repetition + 1}/{options.repeat} {method} {who}", taken[method][who])
    return taken


def _interactive(options: argparse.Namespace, workdir: Path) -> Interactive:
    small = workdir / "small"
    _worker(workdir, "model", str(small), str(_small(options)))
    peaks = {}
    for method in options.only or list(GOALS):
        taken = Taken()
        _once(OURS, method, small, workdir, taken)
        peaks[method] = taken.peak[0]
    preview = json.loads(_worker(workdir, "preview", str(workdir / "model")))
    dragging = json.loads(_worker(workdir, "dragging", str(workdir)))
    return Interactive(preview, dragging, merges_of_minilm(workdir, 2 * options.repeat + 1), peaks)


def _once(who: str, method: str, model: Path, workdir: Path, taken: Taken) -> None:
    out = workdir / f"{who}.safetensors"
    settle(model)
    first, second = json.loads(_worker(workdir, who, method, str(model), str(out), "2"))
    del first  # opens files, fills caches
    taken.warm.append(second[0])
    taken.cpu.append(second[1])
    settle(model)
    arguments = [sys.executable, str(_WORKER), who, method, str(model), str(out), "1"]
    sample = measure(arguments, cwd=workdir, env=dict(os.environ))
    taken.whole.append(sample.seconds)
    taken.peak.append(sample.peak / 1e6)


def _worker(workdir: Path, *arguments: str) -> str:
    return run([sys.executable, str(_WORKER), *arguments], cwd=workdir, env=dict(os.environ))


def _table(taken: dict[str, dict[str, Taken]], options: argparse.Namespace) -> list[str]:
    lines = [
        f"| merge of three checkpoints of {_megabytes(options):.0f} MB | theta-nb | mergekit 0.1.5 "
        "| times faster (min to max) | goal | by CPU time | whole process, times faster | peak memory, of mergekit's |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for method, both in taken.items():
        ours, theirs = both[OURS], both[THEIRS]
        warm, whole, peak = (
            _ratio(theirs.warm, ours.warm),
            _ratio(theirs.whole, ours.whole),
            _ratio(ours.peak, theirs.peak),
        )
        lines.append(
            f"| `{method}` | {statistics.median(ours.warm):.2f} s | {statistics.median(theirs.warm):.2f} s "
            f"| {_spread(theirs.warm, ours.warm)} | ≥ {GOALS[method]:g}{_met(warm >= GOALS[method])} "
            f"| {_ratio(theirs.cpu, ours.cpu):.1f} | {whole:.1f}{_met(whole >= _WHOLE)} "
            f"| {statistics.median(ours.peak):.0f} MB, {peak:.2f}{_met(peak <= _PEAK)} |"
        )
    lines += ["", f"Goals for whole processes: ≥ {_WHOLE:g} times faster; for their peak memory: ≤ {_PEAK:g}."]
    return lines


def _rest(rest: Interactive, taken: dict[str, dict[str, Taken]], options: argparse.Namespace) -> list[str]:
    """The table of what a person waits for."""
    rows = ["| what a person waits for | theta-nb | goal |", "|---|--:|--:|"]

    def row(what: str, value: float, limit: float, unit: str) -> None:
        shown = f"{1e3 * value:.0f} ms" if unit == "ms" else f"{value:.2f} {unit}".rstrip()
        limit_shown = f"{1e3 * limit:.0f} ms" if unit == "ms" else f"{limit:g} {unit}".rstrip()
        rows.append(f"| {what} | {shown} | ≤ {limit_shown}{_met(value <= limit)} |")

    for name in ("slerp", "karcher", "task_arithmetic"):
        row(f"preview of 1,000 tensors after a parameter of `{name}` changed, CPU time", rest.preview[name], 0.02, "ms")
    again = rest.preview["ties again"] / rest.preview["ties"]
    row("preview and result of `ties` after its density changed, against the first time, CPU time", again, 0.5, "")
    row(
        "preview of `ties`, MiniLM, on a sample, while a slider moves",
        statistics.median(rest.dragging["sample"]),
        0.05,
        "ms",
    )
    row("the same, exact, when it is let go", statistics.median(rest.dragging["exact"]), 0.5, "ms")
    whole = statistics.median(sample.seconds for sample in rest.merges)
    row("`git merge`, MiniLM, each tensor changed by one side at most, whole command", whole, _MINILM, "s")
    grown = max(statistics.median(taken[method][OURS].peak) / peak for method, peak in rest.peaks.items())
    row(
        f"peak memory, against that of a model of {_megabytes(options) / 4:.0f} MB, largest of all methods",
        grown,
        1.2,
        "",
    )
    return rows


def _met(met: bool) -> str:
    return "" if met else ", not met"


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def _spread(one: list[float], other: list[float]) -> str:
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def _say(what: str, taken: Taken) -> None:
    print(
        f"{what}: warm {taken.warm[-1]:.2f} s, cpu {taken.cpu[-1]:.2f} s, whole {taken.whole[-1]:.2f} s, "
        f"peak {taken.peak[-1]:.0f} MB, load {load()}",
        file=sys.stderr,
        flush=True,
    )


def _circumstances(options: argparse.Namespace, workdir: Path, before: str) -> str:
    return (
        f"{time.strftime('%Y-%m-%d')}, {options.repeat} interleaved repetition{'s' * (options.repeat > 1)}. Machine: "
        f"{machine(workdir)}, load average {before} before and {load()} after it. "
        f"{versions('numpy', 'torch', 'mergekit')}. Command: `{shlex.join(['python', *command()])}`."
    )


if __name__ == "__main__":
    sys.exit(main())
