"""What Python estimates from samples, for the modules in node to be compared with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from theta_nb.engine.merging.choices import Settings
from theta_nb.engine.merging.edits import edited, edits_of
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.jupyter.answers import Request
from theta_nb.jupyter.merge_desk import MergeDesk

__all__ = ["write_estimates"]

State = dict[str, Any]


def _states(count: int) -> tuple[State, list[State]]:
    """An ancestor and some inputs, with whatever breaks careless arithmetic."""
    random = np.random.default_rng(count)
    shapes = {"wide": (120, 110), "tall": (1000, 13), "small": (40, 30), "bias": (33,), "one": (1,), "scalar": ()}
    base = {f"layers.{k}.{name}": random.normal(size=shape) for k in range(2) for name, shape in shapes.items()}
    base |= {f"layers.1.{name}": random.normal(size=(90, 100)) for name in _ODD}
    inputs = []
    for position in range(count):
        state = {
            name: value + 0.02 * random.standard_t(4, value.shape) * (1 + position) for name, value in base.items()
        }
        for name, odd in _ODD.items():
            key = f"layers.1.{name}"
            state[key] = odd(base[key], state[key], position)
        inputs.append(state)
    base["layers.1.emptied"] *= 0
    for state in (base, *inputs):
        for name, value in state.items():
            state[name] = value.astype("c8" if name.endswith("pairs") else "f4")
    base["layers.0.half"] = base["layers.0.wide"].astype("f2")
    for state in inputs:
        state["layers.0.half"] = state["layers.0.wide"].astype("f2")
    if count > 1:
        inputs[-1].pop("layers.1.absent")
    return base, inputs


def _with(value: Any, at: tuple[Any, ...], number: float) -> Any:
    value = value.copy()
    value[at] = number
    return value


_ODD: dict[str, Any] = {
    "ties": lambda base, x, k: base + np.round((x - base) * 100) / 64,  # few magnitudes, each of them often
    "coarse": lambda base, x, k: np.round(base * 64) / 64 + np.round((x - base) * 20) / 64,  # exact differences
    "unchanged": lambda base, x, k: base + 1e-3 * (k == 0),
    "alike": lambda base, x, k: base + np.sin(1e3 * base),
    "opposite": lambda base, x, k: base + (-1.0) ** k * np.sin(1e3 * base),
    "along": lambda base, x, k: base * (1 + 0.1 * k),
    "emptied": lambda base, x, k: x,
    "nan": lambda base, x, k: _with(x, (slice(None), slice(0, 3)), np.nan) if k == 0 else x,
    "rare": lambda base, x, k: _with(x, (0, 0), np.nan) if k == 0 else x,  # hardly in a sample
    "infinite": lambda base, x, k: _with(x, (slice(None), 5), np.inf if k else -np.inf),
    "huge": lambda base, x, k: 1e15 * x,
    "tiny": lambda base, x, k: base + 1e-6 * (x - base),
    "pairs": lambda base, x, k: x + 1j * base,
    "absent": lambda base, x, k: x,
}

_PARAMETERS: dict[str, list[State]] = {
    "ties": [
        *({"density": density} for density in (0, 1e-12, 3e-4, 0.3, 0.999, 1)),
        {"density": 0.3, "normalize": False},
        {"density": 0.3, "scale": 1.7},
        {"density": 0.3, "scale": [0, 2]},
        {"density": 0.5, "weight": -0.3},
        {"density": 0.5, "weight": (0.3, [2, 0.1], -1)},
        {"density": [0, 1], "weight": [0.2, 0.7, 1]},
        {"density": ([1, 0], 0.2), "normalize": False, "weight": (0, 1)},
    ],
    "breadcrumbs": [{}, {"density": 0.3, "gamma": 0.2, "weight": (2, -2)}, {"density": 0.5, "normalize": True}],
    "breadcrumbs_ties": [{"density": 0.4}, {"density": (0.1, 0.9), "gamma": [0.3, 0]}, {"density": 0, "gamma": 0}],
}


def _edits(labels: list[str]) -> Iterator[list[State]]:
    def by_label(value: Any) -> Any:
        """A tuple is one value for each of the first inputs."""
        return dict(zip(labels, value, strict=False)) if isinstance(value, tuple) else value

    for method, given in _PARAMETERS.items():
        for parameters in given:
            yield [{"method": method, "parameters": {key: by_label(value) for key, value in parameters.items()}}]
    yield [{"method": "ties", "parameters": {"density": 0.2 + 0.5 * k}, "block": f"layers.{k}"} for k in range(2)]
    yield [{"method": "ties", "parameters": {"density": 0.1}, "names": ["layers.0.wide", "layers.1.ties"]}]
    yield [{"method": "ties", "parameters": {}}, {"method": "linear", "parameters": {}, "block": "layers.0"}]


def write_estimates(folder: Path) -> None:
    """Sessions, samples and what Python estimates: ``estimates.json``, with arrays in ``estimates.bin``."""
    arrays: list[Any] = []

    def kept(numbers: Any) -> list[int]:
        start = sum(map(len, arrays))
        arrays.append(np.asarray(numbers, "<f4").reshape(-1))
        return [start, start + len(arrays[-1])]

    told = [_told(count, kept) for count in (1, 2, 3)]
    (folder / "estimates.json").write_text(json.dumps(told))
    (folder / "estimates.bin").write_bytes(np.concatenate(arrays).tobytes())


def _told(count: int, kept: Any) -> dict[str, Any]:
    base, inputs = _states(count)
    labels = ["ours", "theirs", "others"][:count]
    session = MergeSession(StateInput("original", base), list(map(StateInput, labels, inputs)))
    session.measure()
    desk = MergeDesk(session)
    names = desk._names

    def after_edits(settings: Settings, edits: list[State]) -> Settings:
        return edited(settings, edits_of(edits, desk._members, names), names)

    samples, left = [], list(range(len(names)))
    while left:
        request = Request("1", "c", "samples", {"form": json.dumps(left)})
        answer = desk.answer(request, lambda: None, lambda done, total: None)
        left = left[len(answer.result["places"]) :]
        samples.append({**answer.result, "values": kept(answer.arrays[0])})
    cases = []
    every: State = {"names": names} if count == 1 else {}  # of one input nothing is contested: methods are for names
    for about in _edits(labels):
        if every and "block" in about[-1]:
            continue
        edits = [{**every, **edit} for edit in about]
        # What is chosen before is another choice, or none of the numbers would have to be computed.
        start = after_edits(Settings(), [{"method": "ties", "parameters": {"density": 0.77}, **every}])
        session.restore(start)
        before, wanted = desk.numbers(), desk.numbers(session.check(after_edits(start, edits)))
        cases.append(
            {
                "edits": edits,
                "before": {"numbers": kept(before.arrays[0]), "choices": before.result["choices"]},
                "wanted": kept(wanted.arrays[0]),
            }
        )
    opening = desk.opening()
    facts, gram = map(kept, opening.arrays)
    told = {"index": desk.index(), "facts": facts, "gram": gram, "key": opening.result["key"]}
    return {**told, "samples": samples, "cases": cases}
