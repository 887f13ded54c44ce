"""A small diff with everything in it, the same whatever the machine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from theta_nb.engine.diff import Parameter, ParameterChange
from theta_nb.report.checkpoint_diff import CheckpointDiff, Side
from theta_nb.tensors.statistics import Histogram, Statistics


def statistics(scale: float = 1.0, **changed: object) -> Statistics:
    values: dict[str, object] = {
        "numel": 1000,
        "changed": 500,
        "sign_flips": 3,
        "old_norm": 10.0,
        "new_norm": 10.5,
        "delta_norm": 0.125 * scale,
        "max_abs_delta": 0.03125 * scale,
        "cosine": 0.9995,
        "old_mean": 0.001,
        "new_mean": -0.002,
        "old_std": 0.3,
        "new_std": 0.31,
        "old_histogram": Histogram(-3, np.array([10, 0, 980], np.int64), 10),
        "new_histogram": Histogram(-3, np.array([20, 0, 980], np.int64)),
        "delta_histogram": Histogram(-30, np.arange(25, dtype=np.int64), 700),
    }
    return Statistics(**{**values, **changed})  # type: ignore[arg-type]


def parameter(name: str, dtype: str = "float32", shape: tuple[int, ...] = (10, 100), tied: str = "") -> Parameter:
    return Parameter(name, dtype, shape, name.encode(), tied)


def modified(name: str, scale: float = 1.0, **changed: object) -> ParameterChange:
    return ParameterChange("modified", parameter(name), parameter(name), statistics(scale, **changed))


@pytest.fixture
def diff() -> CheckpointDiff:
    layers = [
        modified(f"encoder.layer.{layer}.{name}", 1.0 + layer)
        for layer in (2, 10)
        for name in ("attention.query.weight", "attention.query.bias", "output.LayerNorm.weight", "output.dense.weight")
    ]
    same = parameter("encoder.layer.2.output.dense.bias")
    return CheckpointDiff(
        Side("model.safetensors", "HEAD~1", format="safetensors", size=1_000_000, parameters=14),
        Side("model.safetensors", "HEAD", format="safetensors", size=1_100_000, parameters=14),
        (
            ParameterChange(
                "reshaped",
                parameter("embeddings.weight", shape=(100, 8)),
                parameter("embeddings.weight", shape=(120, 8)),
                statistics(overlap=(100, 8)),
                "compared over the first 100 of 120 rows",
            ),
            *layers[:4],
            ParameterChange("unchanged", same, same),
            *layers[4:],
            ParameterChange("added", None, parameter("head.<script>alert(1)</script>&\"'")),
            ParameterChange("renamed", parameter("pool.weight"), parameter("pooler.weight")),
            ParameterChange("removed", parameter("old.bias", shape=()), None),
            ParameterChange(
                "retyped",
                parameter("scale", "float32"),
                parameter("scale", "float16", tied="embeddings.weight"),
                statistics(old_norm=0.0, cosine=math.nan, new_nan=2, old_inf=1, new_inf=1),
            ),
            ParameterChange(
                "modified", parameter("step"), parameter("step"), None, "not measured: 1 objects are not here"
            ),
        ),
        ("metadata or pickled values changed",),
        "histograms",
        "1 objects are not here",
    )
