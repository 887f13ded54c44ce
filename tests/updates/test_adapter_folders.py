"""Folders of adapters that lie, lack something, or cannot be understood."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands.running import said, theta
from tests.conftest import GitSandbox
from tests.git.checkpoints import pytorch
from tests.updates.loading import Loaded, save_adapter, side_load
from theta_nb.errors import ThetaError

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def model() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"q.weight": (6, 4), "q.bias": (6,), "sq.weight": (4, 4), "conv.weight": (4, 4, 3, 3), "conv.bias": (4,)}
    return {f"net.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def factors(name: str = "net.q", out: int = 6, into: int = 4, rank: int = 2) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_A.weight": torch.ones(rank, into), f"{name}.lora_B.weight": torch.ones(out, rank)}


def load(tmp_path: Path, arrays: dict[str, torch.Tensor], **config: Any) -> Loaded:
    folder = save_adapter(tmp_path / "adapter", {**CONFIG, **config}, arrays)
    return side_load(tmp_path, "m.pt", pytorch(model()), folder)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4 / 2**0.5),
        ({"lora_alpha": 0.5}, 0.25),
        ({"alpha_pattern": {"q": 6}}, 3.0),
        ({"alpha_pattern": {"^net.q": 6}}, 3.0),
        ({"alpha_pattern": {"k|q": 6}}, 3.0),
        ({"alpha_pattern": {r"net\.\w": 6, "q": 8}}, None),
        ({"alpha_pattern": {"n.*q": 6}}, 3.0),
        ({"alpha_pattern": {"et.q": 6, "v": 3}}, 2.0),
        ({"alpha_pattern": None, "lora_alpha": 2}, 1.0),
        ({"r": 64}, 2.0),
    ],
)
def test_the_scale_is_alpha_by_rank(tmp_path: Path, config: dict[str, Any], scale: float | None) -> None:
    if scale is None:
        with pytest.raises(ThetaError, match="too complicated"):
            load(tmp_path, factors(), **config)
        return
    found = load(tmp_path, factors(), **config).tensors()["net.q.weight"]
    assert torch.allclose(found, model()["net.q.weight"] + 2 * scale)


WRONG: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any], str]] = {
    "lacks-b": ({"net.q.lora_A.weight": torch.ones(2, 4)}, {}, r"net\.q\.lora_A without net\.q\.lora_B"),
    "unknown-module": (factors("net.z"), {}, r"no parameter for its only name of the update: net\.z\.weight"),
    "wrong-shape": (factors(out=5), {}, r"the product is \[5, 4\].*is \[6, 4\]"),
    "ranks-differ": ({**factors(), "net.q.lora_B.weight": torch.ones(6, 3)}, {}, "have no product"),
    "nan": ({**factors(), "net.q.lora_B.weight": torch.full((6, 2), torch.nan)}, {}, r"q.*lora_B' holds .* not finite"),
    "infinite-alpha": (factors(), {"lora_alpha": float("inf")}, "the scale is inf"),
    "alpha-of-text": (factors(), {"lora_alpha": "4"}, "give no scale"),
    "integers": ({k: v.to(torch.int32) for k, v in factors().items()}, {}, "is int32, not floats"),
    "dora": (factors(), {"use_dora": True}, "uses use_dora, which is not supported"),
    "from-the-future": (factors(), {"use_zeta": 1, "zeta_rank": 3}, "uses use_zeta, zeta_rank, which are"),
    "magnitude": ({**factors(), "net.q.lora_magnitude_vector": torch.ones(6)}, {}, "magnitude_vector is not"),
    "pissa": (factors(), {"init_lora_weights": "pissa_niter_4"}, "changes the base model"),
    "hostile-start": (factors(), {"init_lora_weights": ["x"]}, "changes the base model"),
    "kind": (factors(), {"peft_type": "PREFIX_TUNING"}, "'PREFIX_TUNING' are not supported"),
    "kind-of-number": (factors(), {"peft_type": 7}, "'7' are not supported"),
    "ia3-in-lora": ({"net.q.ia3_l": torch.ones(6, 1)}, {}, "does not belong"),
    "wrong-value": ({**factors(), "net.q.bias": torch.ones(5)}, {}, r"\[5\], and 'net\.q\.bias' is \[6\]"),
    "value-of-other-kind": ({**factors(), "net.q.bias": torch.ones(6, dtype=torch.int64)}, {}, "is int64"),
    "pattern-is-no-table": (factors(), {"alpha_pattern": ["q"]}, "not a table"),
    "huge-alpha": (factors(), {"lora_alpha": 10**400}, "the scale is inf"),
    "grouped": (
        {"net.conv.lora_A.weight": torch.ones(2, 2, 3, 3), "net.conv.lora_B.weight": torch.ones(4, 2, 1, 1)},
        {},
        "grouped",
    ),
    "empty": ({"net.q.original_module.bias": torch.ones(6)}, {}, "the adapter is empty"),
    "contradicted": (
        {**factors(), **factors("net.sq", 4, 4)}, {"fan_in_fan_out": True}, "'net.sq.weight' is square",
    ),
    "twice": ({"net.q.bias": torch.ones(6), "net.q.modules_to_save.bias": torch.zeros(6)}, {}, "different values"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "config", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(
    tmp_path: Path, arrays: dict[str, torch.Tensor], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ThetaError, match=message):
        load(tmp_path, arrays, **config)


@pytest.mark.parametrize("pattern", ["(a+)+$", "((a|b)*)*c", "a" * 501, "[", "*", r"(?=x)"])
def test_patterns_that_could_take_for_ever_are_refused(tmp_path: Path, pattern: str) -> None:
    start = time.monotonic()
    with pytest.raises(ThetaError, match="pattern"):
        load(tmp_path, factors(), alpha_pattern={pattern: 3})
    assert time.monotonic() - start < 20, "the pattern was tried"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"peft_type": "LORA"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (" " * (2**20 + 1), "too long"),
        (None, "No such file"),
    ],
    ids=["empty", "list", "cut", "deep", "long", "missing"],
)
def test_configurations_that_are_none(tmp_path: Path, text: str | None, message: str) -> None:
    folder = save_adapter(tmp_path / "adapter", CONFIG, factors())
    config = folder / "adapter_config.json"
    if text is None:
        config.unlink()
    else:
        config.write_text(text)
    with pytest.raises(ThetaError, match=message):
        side_load(tmp_path, "m.pt", pytorch(model()), folder)


def test_the_weights_file_alone_finds_its_configuration(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", CONFIG, factors())
    loaded = side_load(tmp_path, "m.pt", pytorch(model()), folder / "adapter_model.safetensors")
    assert set(loaded.updates()) == {"net.q.weight"}


def test_another_type_than_the_adapters_is_refused(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", CONFIG, factors())
    with pytest.raises(ThetaError, match="is of the update type 'low-rank', not 'ia3'"):
        side_load(tmp_path, "m.pt", pytorch(model()), folder, "ia3")


def test_values_are_rounded_to_the_parameters_dtype(tmp_path: Path) -> None:
    state = {name: value.bfloat16() for name, value in model().items()}
    folder = save_adapter(tmp_path / "adapter", CONFIG, {"net.q.bias": torch.full((6,), 1 / 3)})
    loaded = side_load(tmp_path, "m.pt", pytorch(state), folder)
    assert torch.equal(loaded.tensors()["net.q.bias"], torch.full((6,), 1 / 3).bfloat16())


@pytest.mark.parametrize(("feedforward", "along"), [(["conv"], 1), ([], 0), ("net.c.*", 1), ("conv", 0)])
def test_scalings_of_square_convolutions_follow_the_configuration(tmp_path: Path, feedforward: Any, along: int) -> None:
    factor = torch.tensor([1.0, 2.0, 3.0, 4.0])
    folder = save_adapter(
        tmp_path / "adapter",
        {"peft_type": "IA3", "feedforward_modules": feedforward},
        {"net.conv.ia3_l": factor.reshape(1, 4, 1, 1)},
    )
    found = side_load(tmp_path, "m.pt", pytorch(model()), folder).tensors()
    shape = (1, 4, 1, 1) if along else (4, 1, 1, 1)
    assert torch.equal(found["net.conv.weight"], model()["net.conv.weight"] * factor.reshape(shape))
    bias = model()["net.conv.bias"]
    assert torch.equal(found["net.conv.bias"], bias if along else bias * factor)


def test_an_adapter_needs_no_type_on_the_command_line(repository: GitSandbox) -> None:
    repository.write("m.pt", pytorch(model()))
    repository.commit_all("first")
    folder = save_adapter(repository.path.parent / "adapter", CONFIG, factors())
    assert said(repository.path, "add", "m.pt", "--update-data", "../adapter").startswith("added m.pt\nstored as ")
    assert repository("status", "--porcelain") == "M  m.pt\n"
    repository("reset", "-q", "--hard")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, "use_dora": True}))
    result = theta(repository.path, "add", "m.pt", "--update-data", "../adapter")
    assert result.err == (
        "theta: the adapter uses use_dora, which is not supported. Merge it with PEFT and add the result.\n"
    )
    assert repository("status", "--porcelain") == ""
