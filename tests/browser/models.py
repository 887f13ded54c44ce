"""A repository with a small transformer that was trained: commits with metrics, a branch that was merged, tags."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

NAME = "model.safetensors"
BLOCKS = 4
WIDTH = 32

State = dict[str, np.ndarray[Any, Any]]


def first_state() -> State:
    """Weights before training, 56 tensors."""
    random = np.random.default_rng(0)
    state: State = {"embeddings.word.weight": random.normal(0, 0.02, (200, WIDTH))}
    for block in range(BLOCKS):
        for role, shape in {
            "attention.query.weight": (WIDTH, WIDTH),
            "attention.query.bias": (WIDTH,),
            "attention.key.weight": (WIDTH, WIDTH),
            "attention.key.bias": (WIDTH,),
            "attention.value.weight": (WIDTH, WIDTH),
            "attention.value.bias": (WIDTH,),
            "attention.output.weight": (WIDTH, WIDTH),
            "attention.output.bias": (WIDTH,),
            "norm.weight": (WIDTH,),
            "norm.bias": (WIDTH,),
            "mlp.up.weight": (4 * WIDTH, WIDTH),
            "mlp.up.bias": (4 * WIDTH,),
            "mlp.down.weight": (WIDTH, 4 * WIDTH),
        }.items():
            state[f"encoder.layer.{block}.{role}"] = random.normal(0, 0.02, shape)
    state["head.weight"] = random.normal(0, 0.02, (10, WIDTH))
    state["head.bias"] = np.zeros(10)
    return {name: value.astype(np.float32) for name, value in state.items()}


def trained(state: State, seed: int, *parts: str, by: float = 0.05) -> State:
    """The state after a step that moves some parts, more the later the block; one direction stands out."""
    random = np.random.default_rng(seed)
    moved = dict(state)
    for name, value in state.items():
        if parts and not any(part in name for part in parts):
            continue
        depth = 1 + int(name.split(".")[2]) if name.startswith("encoder") else BLOCKS
        noise = random.normal(0, 0.3, value.shape)
        if value.ndim == 2:
            noise += np.outer(random.normal(size=value.shape[0]), random.normal(size=value.shape[1]))
        moved[name] = (value + by * depth * 0.01 * noise).astype(np.float32)
    return moved


def trained_repository(path: Path, environment: dict[str, str]) -> None:
    """Make it."""
    path.mkdir()
    (Path(environment["HOME"]) / ".gitconfig").write_text(
        "[init]\n\tdefaultBranch = main\n[user]\n\tname = Ada Tester\n\temail = ada@example.org\n"
    )

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=path, env=environment, check=True, capture_output=True)

    def commit(state: State, message: str, **metrics: float) -> State:
        save_file(state, path / NAME)
        git("add", "-A")
        trailers = [part for name, value in metrics.items() for part in ("-m", f"Theta-Metric: {name}={value}")]
        git("commit", "-q", "-m", message, *trailers)
        return state

    git("init", "-q")
    git("theta", "install", "--local")
    git("theta", "track", "*.safetensors")
    (path / ".gitignore").write_text("*.ipynb\n.ipynb_checkpoints/\n")
    state = commit(first_state(), "first weights", loss=2.3, accuracy=0.11)
    git("tag", "v0")
    for epoch, (loss, accuracy) in enumerate([(1.9, 0.4), (1.2, 0.62), (0.8, 0.75)], 1):
        state = commit(trained(state, epoch, by=0.1 / epoch), f"epoch {epoch}", loss=loss, accuracy=accuracy)
    git("switch", "-q", "-c", "head-only")
    commit(trained(state, 10, "head", by=0.2), "tune the head", loss=0.7, accuracy=0.79)
    git("switch", "-q", "main")
    state = commit(trained(state, 4, "layer.2", "layer.3"), "tune the upper layers", loss=0.6, accuracy=0.8)
    git("merge", "-q", "--no-edit", "head-only")
    git("tag", "v1")
    from safetensors.numpy import load_file

    state = load_file(path / NAME)
    state = trained(state, 5, "encoder")
    state["head2.weight"] = state["head.weight"][:5].copy() * np.float32(1.5)
    state["head.weight"] = np.vstack([state["head.weight"], state["head.weight"][:2]])
    state["encoder.layer.0.norm.scale"] = state.pop("encoder.layer.0.norm.weight") * np.float32(2)
    commit(state, "two more classes", loss=0.5, accuracy=0.84)
