"""Adapters that the real PEFT writes: what comes out is what its ``merge_and_unload`` gives, to the rounding."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.updates.loading import Loaded, side_load

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Small(nn.Module):
    """One layer of every kind that PEFT can adapt and merge."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.embed = nn.Embedding(50, 12)
        self.first = nn.Linear(12, 20)
        self.square = nn.Linear(20, 20)
        self.second = Conv1D(28, 20)
        nn.init.normal_(self.second.bias)
        self.image = nn.Conv2d(3, 8, 3)
        self.pixel = nn.Conv2d(8, 4, 1)
        self.line = nn.Conv1d(4, 6, 5)
        self.head = nn.Linear(28, 2)

    def forward(self, x: Any) -> Any:
        return x


class Square(nn.Module):
    """A layer whose shape does not tell how its weight is stored."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.attn = Conv1D(16, 16)

    def forward(self, x: Any) -> Any:
        return x


@pytest.fixture(scope="module", autouse=True)
def peft() -> Any:
    """The library, which warns while it is imported."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("HF_HUB_OFFLINE", "1")
        import peft

    return peft


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """PEFT warns about much that is not an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def randomize(model: nn.Module) -> None:
    """Give what is trained values that are not those of the start."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + ("ia3" in name))


def merged(
    peft: Any, tmp_path: Path, base: nn.Module, config: Any, ending: str = ".pt"
) -> tuple[Loaded, dict[str, Any]]:
    """The result of side-loading an adapter, and the state dict of PEFT's merge."""
    torch.manual_seed(0)
    content = io.BytesIO()
    torch.save(base.state_dict(), content)
    model = peft.get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False)
    randomize(model)
    model.save_pretrained(str(tmp_path / "adapter"), safe_serialization=ending == ".pt")
    if ending == ".bin":
        weights = tmp_path / "adapter/adapter_model.safetensors"
        if weights.exists():
            from safetensors.torch import load_file

            torch.save(load_file(weights), tmp_path / "adapter/adapter_model.bin")
            weights.unlink()
    loaded = side_load(tmp_path, "model.pt", content.getvalue(), tmp_path / "adapter")
    return loaded, model.merge_and_unload().state_dict()


def assert_agree(loaded: Loaded, base: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Every number is PEFT's to the rounding of its sum and of its product, which PEFT rounds both."""
    found = loaded.tensors()
    assert list(found) == list(wanted)
    for name, value in found.items():
        assert value.dtype == base[name].dtype
        old, new, other = base[name].double(), value.double(), wanted[name].double()
        if not value.is_floating_point():
            assert torch.equal(value, wanted[name])
            continue
        eps = torch.finfo(value.dtype).eps
        # The terms of PEFT's product, which it sums in float32, are about one.
        room = 2 * eps * (new.abs() + (other - old).abs() + old.abs()) + 4 * torch.finfo(torch.float32).eps
        assert ((new - other).abs() <= room).all(), f"{name}: off by {(new - other).abs().max()}"


LAYERS = ["embed", "first", "square", "image", "pixel", "line"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"target_modules": LAYERS, "r": 4, "lora_alpha": 10}, id="every-layer"),
        pytest.param({"target_modules": ["second"], "r": 4, "fan_in_fan_out": True}, id="fan-in-fan-out"),
        pytest.param({"target_modules": LAYERS, "r": 4, "use_rslora": True, "lora_alpha": 3}, id="rslora"),
        pytest.param(
            {
                "target_modules": LAYERS,
                "r": 4,
                "rank_pattern": {"first": 2, "im.*": 3},
                "alpha_pattern": {"^first": 5, "square": 1, "li.*": 9},
            },
            id="patterns",
        ),
        pytest.param(
            {"target_modules": ["first"], "modules_to_save": ["head"], "bias": "all"}, id="modules-and-biases"
        ),
        pytest.param({"target_modules": ["first", "square"], "bias": "lora_only"}, id="biases-of-adapted-layers"),
    ],
)
def test_lora_agrees_with_merge_and_unload(
    peft: Any, tmp_path: Path, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    base = Small().to(dtype)
    before = copy.deepcopy(base.state_dict())
    loaded, wanted = merged(peft, tmp_path, base, peft.LoraConfig(init_lora_weights=False, **settings))
    assert_agree(loaded, before, wanted)
    changed = {name.rpartition(".")[0] for name in loaded.updates()}
    assert set(settings["target_modules"]) <= changed


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"target_modules": ["first", "square", "image"], "feedforward_modules": []}, id="outputs"),
        pytest.param(
            {"target_modules": ["first", "square", "image"], "feedforward_modules": ["first", "square", "image"]},
            id="inputs",
        ),
        pytest.param(
            {"target_modules": ["second"], "feedforward_modules": [], "fan_in_fan_out": True}, id="outputs-turned"
        ),
        pytest.param(
            {"target_modules": ["second"], "feedforward_modules": ["second"], "fan_in_fan_out": True},
            id="inputs-turned",
        ),
    ],
)
def test_ia3_agrees_with_merge_and_unload(
    peft: Any, tmp_path: Path, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    base = Small().to(dtype)
    before = copy.deepcopy(base.state_dict())
    loaded, wanted = merged(peft, tmp_path, base, peft.IA3Config(**settings))
    assert_agree(loaded, before, wanted)
    biases = {f"{name}.bias" for name in settings["target_modules"] if name not in settings["feedforward_modules"]}
    assert {name for name in loaded.updates() if name.endswith(".bias")} == biases


@pytest.mark.parametrize("turned", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_a_square_weight_is_turned_as_the_setting_says(peft: Any, tmp_path: Path, kind: str, turned: bool) -> None:
    base: nn.Module = Square()
    if not turned:
        base.attn = nn.Linear(16, 16)
    before = copy.deepcopy(base.state_dict())
    config = (
        peft.LoraConfig(target_modules=["attn"], r=2, init_lora_weights=False, fan_in_fan_out=turned)
        if kind == "lora"
        else peft.IA3Config(target_modules=["attn"], feedforward_modules=["attn"], fan_in_fan_out=turned)
    )
    loaded, wanted = merged(peft, tmp_path, base, config)
    assert_agree(loaded, before, wanted)


def test_a_bin_file_is_read_like_a_safetensors_file(peft: Any, tmp_path: Path) -> None:
    base = Small()
    before = copy.deepcopy(base.state_dict())
    config = peft.LoraConfig(target_modules=["first"], init_lora_weights=False)
    loaded, wanted = merged(peft, tmp_path, base, config, ending=".bin")
    assert (tmp_path / "adapter/adapter_model.bin").exists()
    assert_agree(loaded, before, wanted)


def test_an_adapter_that_brings_its_base_layer_is_checked_against_it(peft: Any, tmp_path: Path) -> None:
    """PEFT saves an embedding beside its factors where it takes the vocabulary for changed."""
    from safetensors.torch import load_file, save_file

    base = Small()
    before = copy.deepcopy(base.state_dict())
    config = peft.LoraConfig(target_modules=["embed"], init_lora_weights=False)
    _, wanted = merged(peft, tmp_path, base, config)
    weights = tmp_path / "adapter/adapter_model.safetensors"
    arrays = load_file(weights) | {"base_model.model.embed.base_layer.weight": before["embed.weight"]}
    save_file(arrays, weights)
    content = io.BytesIO()
    torch.save(before, content)
    assert_agree(side_load(tmp_path, "again.pt", content.getvalue(), tmp_path / "adapter"), before, wanted)
    arrays["base_model.model.embed.base_layer.weight"] = before["embed.weight"] + 1
    save_file(arrays, weights)
    with pytest.raises(Exception, match=r"holds other values than 'embed\.weight' has"):
        side_load(tmp_path, "third.pt", content.getvalue(), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda peft: peft.LoraConfig(target_modules=["first"], use_dora=True), "use_dora"),
        (lambda peft: peft.LoraConfig(target_modules=["first"], lora_bias=True), "lora_bias"),
        (lambda peft: peft.LoraConfig(target_modules=["first"], init_lora_weights="pissa"), "pissa"),
        (
            lambda peft: peft.LoraConfig(target_modules=["first"], trainable_token_indices={"embed": [1]}),
            "trainable_token",
        ),
        (lambda peft: peft.LoraConfig(target_parameters=["first.weight"]), "target_parameters"),
        (lambda peft: peft.LoHaConfig(target_modules=["first"]), "LOHA"),
        (lambda peft: peft.VeraConfig(target_modules=["first"]), "VERA"),
    ],
    ids=["dora", "lora-bias", "pissa", "tokens", "parameters", "loha", "vera"],
)
def test_what_is_not_supported_is_refused_by_name(
    peft: Any, tmp_path: Path, make: Callable[[Any], Any], name: str
) -> None:
    with pytest.raises(Exception, match=rf"(?i){name}.*supported|{name}.*changes the base model"):
        merged(peft, tmp_path, Small(), make(peft))


def test_grouped_convolutions_are_refused(peft: Any, tmp_path: Path) -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, groups=2)

        def forward(self, x: Any) -> Any:
            return x

    model = peft.get_peft_model(Grouped(), peft.LoraConfig(target_modules=["conv"], r=2, init_lora_weights=False))
    model.save_pretrained(str(tmp_path / "adapter"))
    content = io.BytesIO()
    torch.save(Grouped().state_dict(), content)
    with pytest.raises(Exception, match="grouped convolutions"):
        side_load(tmp_path, "model.pt", content.getvalue(), tmp_path / "adapter")


def test_ours_is_the_nearest_number_to_the_exact_sum(peft: Any, tmp_path: Path) -> None:
    base = Small()
    before = copy.deepcopy(base.state_dict())
    loaded, _ = merged(peft, tmp_path, base, peft.LoraConfig(target_modules=["first"], r=3, init_lora_weights=False))
    from safetensors.numpy import load_file

    arrays = load_file(tmp_path / "adapter/adapter_model.safetensors")
    a, b = (arrays[f"base_model.model.first.lora_{x}.weight"].astype(np.float64) for x in "AB")
    exact = before["first.weight"].double().numpy() + 8 / 3 * (b @ a)
    found = loaded.tensors()["first.weight"].double().numpy()
    assert (np.abs(found - exact) <= np.spacing(np.abs(exact).astype(np.float32)) * 0.5001).all()
