"""How long merging takes: theta-nb and mergekit 0.1.5 side by side, on the same files, both writing the result.

    python tests/benchmarks/merging.py [--quick] [--repeat 3] [--readme README.md] [--only METHOD]

Three float32 checkpoints of 346 MB, in the page cache. The contenders take turns; the table gives the median of the
repetitions' ratios with the smallest and the largest. *warm* is the merge within a process that has done one before,
*whole* a process from its start to its end, imports included (mergekit's tensor functions alone: its command line
imports much more). mergekit runs from the environment that runs this script.
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
from measuring import BenchmarkError, measure, run, settle
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


@dataclass
class Taken:
    """What one contender took for one method, a number for each repetition."""

    warm: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)


def main() -> int:
    """Measure, print the table, and put it into the README if asked to."""
    options = _options()
    try:
        with working_folder(options.workdir) as workdir:
            before = load()
            text = _table(*_measure(options, workdir))
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


def _measure(options: argparse.Namespace, workdir: Path) -> tuple[dict[str, dict[str, Taken]], dict[str, float]]:
    model = workdir / "model"
    _worker(workdir, "model", str(model), "35" if options.quick else "346")
    methods = options.only or list(GOALS)
    taken = {method: {OURS: Taken(), THEIRS: Taken()} for method in methods}
    for repetition in range(options.repeat):
        for method in methods:
            for who in (OURS, THEIRS) if repetition % 2 == 0 else (THEIRS, OURS):
                _once(who, method, model, workdir, taken[method][who])
                _say(f"{repetition + 1}/{options.repeat} {method} {who}", taken[method][who])
    return taken, json.loads(_worker(workdir, "preview", str(model)))


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


def _table(taken: dict[str, dict[str, Taken]], preview: dict[str, float]) -> str:
    lines = [
        "| merge of three checkpoints | theta-nb | mergekit 0.1.5 | times faster, median (min to max) | by CPU time "
        "| goal | whole process | peak memory |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for method, both in taken.items():
        ours, theirs = both[OURS], both[THEIRS]
        lines.append(
            f"| `{method}` | {statistics.median(ours.warm):.2f} s | {statistics.median(theirs.warm):.2f} s "
            f"| {_spread(theirs.warm, ours.warm)} | {_ratio(theirs.cpu, ours.cpu):.1f} | ≥ {GOALS[method]:g} "
            f"| {_ratio(theirs.whole, ours.whole):.1f} times faster (goal ≥ {_WHOLE:g}) "
            f"| {statistics.median(ours.peak):.0f} MB, {_ratio(ours.peak, theirs.peak):.2f} of it (goal ≤ {_PEAK:g}) |"
        )
    shown = ", ".join(f"`{name}` {1e3 * preview[name]:.0f} ms" for name in ("slerp", "karcher", "task_arithmetic"))
    again = preview["ties again"] / preview["ties"]
    lines += [
        "",
        f"Previews of 1,000 tensors after a parameter changed, CPU time: {shown} (goal ≤ 20 ms). Preview and result of "
        f"TIES after its density changed, against the first time: {again:.2f} (goal ≤ 0.5).",
    ]
    return "\n".join(lines)


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
