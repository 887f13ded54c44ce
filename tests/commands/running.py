"""Run the command line: in this process for what it says, in one of its own where the process itself is tested."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theta_nb.commands.cli import run_command_line

__all__ = ["Output", "checkpoint", "json_of", "said", "same_tensors", "start", "theta"]


@dataclass(frozen=True)
class Output:
    """What a command left behind."""

    status: int
    out: str
    err: str


def theta(folder: Path, *argv: str) -> Output:
    """Run ``git theta ARGV`` in a folder, in this process; git and its filters are real."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_command_line(argv)
    return Output(status, *(stream.buffer.getvalue().decode("utf-8", "surrogateescape") for stream in (out, err)))


def said(folder: Path, *argv: str) -> str:
    """Standard output of a command that succeeds without a word on standard error."""
    result = theta(folder, *argv)
    assert (result.status, result.err) == (0, ""), f"git theta {' '.join(argv)} gave {result}"
    return result.out


def json_of(folder: Path, *argv: str) -> Any:
    """The JSON object that a command prints."""
    return json.loads(theta(folder, *argv, "--json").out)


def start(folder: Path, *argv: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command line as a process of its own."""
    command: Sequence[str] = [sys.executable, "-m", "theta_nb", *argv]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **(env or {})}, **options)


def checkpoint(layers: int = 3, shifts: Sequence[float] = (), extra: str = "") -> bytes:
    """A small file as ``torch.save`` makes it; ``shifts`` are added to its first layers."""
    import torch

    generator = torch.Generator().manual_seed(0)
    state = {f"encoder.layer.{n}.weight": torch.randn(8, 16, generator=generator) for n in range(layers)}
    for n, shift in enumerate(shifts):
        state[f"encoder.layer.{n}.weight"] += shift
    if extra:
        state[extra] = torch.ones(3)
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def same_tensors(path: Path, data: bytes) -> bool:
    """Whether a file and ``data`` load as equal tensors under equal names."""
    import torch

    found, wanted = (torch.load(io.BytesIO(raw), weights_only=True) for raw in (path.read_bytes(), data))
    return list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)
