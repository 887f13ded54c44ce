"""Small models to merge, as files, as versions in git's form, and in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.engine.filters import clean
from theta_nb.checkpoints.writers import write_pytorch, write_safetensors
from theta_nb.engine.merging.inputs import MergeInput, StateInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.storage.objects import MemoryStore

State = dict[str, Any]


def model(seed: int, base: State | None = None, size: float = 0.1) -> State:
    """A small transformer-like state dict, or one trained on from ``base``."""
    random = np.random.default_rng(seed)
    shapes = {"embed.weight": (30, 8), "norm.weight": (8,), "head.weight": (30, 8)}
    for layer in range(4):
        shapes |= {
            f"layers.{layer}.attn.weight": (8, 8),
            f"layers.{layer}.mlp.weight": (16, 8),
            f"layers.{layer}.bias": (16,),
        }
    if base is None:
        return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: x + np.float32(size) * random.standard_normal(x.shape).astype(np.float32) for name, x in base.items()}


def as_state(path: Path, label: str, state: State) -> MergeInput:
    return StateInput(label, state)


def as_safetensors(path: Path, label: str, state: State) -> MergeInput:
    write_safetensors(state, str(path / f"{label}.safetensors"), {"format": "pt"})
    return FileInput(label, path / f"{label}.safetensors")


def as_pytorch(path: Path, label: str, state: State) -> MergeInput:
    write_pytorch(state, str(path / f"{label}.pt"), {})
    return FileInput(label, path / f"{label}.pt")


def as_manifest(path: Path, label: str, state: State) -> MergeInput:
    file = as_safetensors(path, label, state)
    store = MemoryStore()
    manifest = clean(Path(file.path).read_bytes(), store, f"{label}.safetensors")
    return ManifestInput(label, manifest, store, f"rev-{label}")


FORMS: dict[str, Callable[[Path, str, State], MergeInput]] = {
    "memory": as_state,
    "safetensors": as_safetensors,
    "pytorch": as_pytorch,
    "objects": as_manifest,
}


def torch_state(state: State) -> State:
    return {name: torch.from_numpy(x) for name, x in state.items()}


def session_of(path: Path, form: str, base: State | None, *states: State, **options: Any) -> MergeSession:
    """A session over states in one of the forms."""
    make = FORMS[form]
    labels = ["ours", "theirs", "others"][: len(states)]
    origin = None if base is None else make(path, "original", base)
    return MergeSession(
        origin, [make(path, label, state) for label, state in zip(labels, states, strict=True)], **options
    )
