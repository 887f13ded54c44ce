"""Adapters of PEFT (https://github.com/huggingface/peft): LoRA and (IA)³, as ``save_pretrained`` writes them.

The result is that of ``merge_and_unload``, computed by our arithmetic: it agrees to the rounding of the dtypes.

==============================  ======================================================================================
``X.lora_A``, ``X.lora_B``       X.weight + scale * (B @ A), transposed for a layer that stores (in, out)
``X.lora_embedding_A``, ``_B``   X.weight + scale * (B @ A).T
``X.ia3_l``                     X.weight * l; and X.bias * l where l belongs to the output
anything else                   a new value (``modules_to_save``, trained biases)
==============================  ======================================================================================

The scale is alpha / rank, or alpha / sqrt(rank) for rsLoRA (https://arxiv.org/abs/2312.03732). Settings that mean
another computation are refused by name, and so is every setting that is not known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from theta_nb.errors import ThetaError, listed
from theta_nb.updates.change import Array, Change, Parameter, Unfit
from theta_nb.updates.changes import Checked, Product, Replacement, Scaling
from theta_nb.updates.named import Bound

__all__ = ["PeftAdapter", "is_peft_key"]

_PREFIX = "base_model.model."
_KEY = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|ia3_l)(?:\.weight)?")
_FOREIGN = re.compile(
    r"\.(lora_[A-Za-z_]+|ia3_[a-z]+|[a-z]*ada_?lora[A-Za-z_]*|vera_[A-Za-z_]+|oft_[A-Za-z_]+)(?:\.|$)"
)

# Settings that do not change what merging means; what is in neither list must be off.
_HARMLESS = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_type"),
        *("peft_version", "target_modules", "exclude_modules", "lora_dropout", "bias", "modules_to_save"),
        *("layers_to_transform", "layers_pattern", "rank_pattern", "r", "megatron_core", "runtime_config"),
        *("qalora_group_size", "ensure_weight_tying", "velora_config", "eva_config", "loftq_config", "corda_config"),
        *("lora_ga_config", "init_ia3_weights", "peft_config_version"),
    }
)
_READ = frozenset({"lora_alpha", "alpha_pattern", "use_rslora", "fan_in_fan_out", "init_lora_weights"})
_READ_IA3 = frozenset({"feedforward_modules", "fan_in_fan_out"})
_PLAIN_STARTS = (True, None, "gaussian", "eva", "orthogonal", "default")  # others also change the base model
_SIMPLE_PATTERN = re.compile(r"\^?(?:[\w|-]|\\?\.|\\d|\[0-9\]|[*+](?![*+]))+\$?")


def is_peft_key(key: str) -> bool:
    """Whether a key of a state dict is that of a PEFT adapter.

    Examples
    --------
    >>> is_peft_key("base_model.model.q.lora_A.weight"), is_peft_key("q.weight/R")
    (True, False)
    """
    return key.startswith(_PREFIX) or _KEY.fullmatch(key) is not None


class PeftAdapter:
    """A LoRA or (IA)³ adapter.

    Parameters
    ----------
    arrays
        Content of ``adapter_model.safetensors`` or ``.bin``.
    config
        Content of ``adapter_config.json``.

    Raises
    ------
    ThetaError
        If it is of another kind, uses what is not supported (named), or lacks a factor.

    Examples
    --------
    >>> import numpy as np
    >>> arrays = {"base_model.model.q.lora_A.weight": np.ones((2, 3))}
    >>> arrays["base_model.model.q.lora_B.weight"] = np.ones((4, 2))
    >>> adapter = PeftAdapter(arrays, {"peft_type": "LORA", "r": 2, "lora_alpha": 4})
    >>> adapter.names
    ('q.weight',)
    >>> [(_, change)] = adapter.changes({"q.weight": Parameter("q.weight", "float32", (4, 3))}, [])
    >>> change.scale
    2.0
    """

    def __init__(self, arrays: Mapping[str, Array], config: Mapping[str, Any]) -> None:
        self._config = config
        kind = config.get("peft_type")
        if kind not in ("LORA", "IA3"):
            raise ThetaError(f"PEFT adapters of type {str(kind)[:40]!r} are not supported", hint="LORA and IA3 are.")
        self.update = "low-rank" if kind == "LORA" else "ia3"
        _check_settings(config, _READ if kind == "LORA" else _READ_IA3)
        self._layers: dict[str, _Layer] = {}
        values: dict[str, Replacement] = {}
        for key, array in arrays.items():
            self._take(key, array, values)
        for layer in self._layers.values():
            layer.complete()
        if not self._layers and not values:
            raise ThetaError("the adapter is empty", hint="Was it saved before its factors were gathered?")
        self._values = values

    def _take(self, key: str, array: Array, values: dict[str, Replacement]) -> None:
        name = key.removeprefix(_PREFIX)
        found = _KEY.fullmatch(name)
        if found is not None:
            module, part = found[1].replace(".base_layer", ""), found[2]
            if (part == "ia3_l") != (self.update == "ia3"):
                raise ThetaError(f"{key!r} does not belong to an adapter of type {self._config['peft_type']}")
            layer = self._layers.setdefault(module, _Layer(module, self._config))
            layer.parts[part] = array
            return
        foreign = _FOREIGN.search(name)
        if foreign is not None:
            raise ThetaError(f"{key!r}: {foreign[1]} is not supported", hint="Merge it with PEFT and add the result.")
        if ".original_module." in name:
            return  # what the module was before, beside what replaces it
        name = name.replace(".modules_to_save.", ".").replace(".base_layer.", ".")
        value = Replacement(array, key)
        other = values.setdefault(name, value)
        if other is not value and (other.values.tobytes(), other.values.shape) != (array.tobytes(), array.shape):
            raise ThetaError(f"{other.key!r} and {key!r} give {name!r} different values")

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that it changes."""
        return tuple(sorted({*self._values, *(f"{module}.weight" for module in self._layers)}))

    @property
    def optional(self) -> tuple[str, ...]:
        """Biases that are scaled with the output of their layer."""
        return tuple(f"{module}.bias" for module in sorted(self._layers) if self.update == "ia3")

    def changes(self, found: Mapping[str, Parameter], problems: list[str]) -> list[Bound]:
        """Changes of parameters; ``problems`` gets what does not fit."""
        made: dict[str, Change] = dict(self._values)
        turned = _Turned(bool(self._config.get("fan_in_fan_out")))
        for layer in self._layers.values():
            turned.see(layer, found[f"{layer.module}.weight"])
        for module, layer in self._layers.items():
            try:
                for name, change in layer.changes(found, turned):
                    expected = self._values.get(name)
                    if expected is not None and not name.endswith(".weight"):
                        raise Unfit(f"{name!r} is both replaced and scaled")
                    made[name] = change if expected is None else Checked(expected, change)
            except Unfit as problem:
                problems.append(f"{module}: {problem}")
        bound = []
        for name, change in made.items():
            try:
                change.check(found[name])
            except Unfit as problem:
                problems.append(str(problem))
            else:
                bound.append((found[name], change))
        return bound


class _Turned:
    """Which layers store their weights as (in, out), as ``transformers.Conv1D`` does and ``torch.nn.Linear`` does not.

    The shape tells, unless it is square. Then the setting of the adapter counts, but PEFT sets it for all layers by the
    last one that it saw: where the others contradict it, nobody can tell.
    """

    def __init__(self, setting: bool) -> None:
        self._setting = setting
        self._contradicted = False

    def see(self, layer: _Layer, parameter: Parameter) -> None:
        sizes = layer.sizes()
        if sizes is not None and sizes[0] != sizes[1] and parameter.shape in (sizes, sizes[::-1]):
            self._contradicted |= (parameter.shape == sizes[::-1]) != self._setting

    def __call__(self, sizes: tuple[int, int], parameter: Parameter) -> bool:
        if sizes[0] != sizes[1]:
            return parameter.shape == sizes[::-1]
        if self._contradicted:
            raise Unfit(
                f"{parameter.name!r} is square, and fan_in_fan_out = {self._setting} does not hold for all layers of "
                "the adapter, so its factors may be meant either way"
            )
        return self._setting


@dataclass(slots=True)
class _Layer:
    """The arrays of one layer."""

    module: str
    config: Mapping[str, Any]
    parts: dict[str, Array]

    def __init__(self, module: str, config: Mapping[str, Any]) -> None:
        self.module, self.config, self.parts = module, config, {}

    def complete(self) -> None:
        """Refuse a layer that lacks one of its factors."""
        for pair in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            present = [part for part in pair if part in self.parts]
            if len(present) == 1:
                missing = pair[1 - pair.index(present[0])]
                raise ThetaError(f"the adapter has {self.module}.{present[0]} without {self.module}.{missing}")
        if {"lora_A", "lora_embedding_A"} <= self.parts.keys():
            raise ThetaError(f"{self.module} has factors of two kinds")

    def sizes(self) -> tuple[int, int] | None:
        """(out, in) of a linear layer by its factors."""
        a, b = self.parts.get("lora_A"), self.parts.get("lora_B")
        if a is None or b is None or a.ndim != 2 or b.ndim != 2:
            return None
        return b.shape[0], a.shape[1]

    def changes(self, found: Mapping[str, Parameter], turned: _Turned) -> list[tuple[str, Change]]:
        name = f"{self.module}.weight"
        weight = found[name]
        if "ia3_l" in self.parts:
            return self._scalings(name, found, turned)
        if "lora_embedding_A" in self.parts:
            a, b = self.parts["lora_embedding_A"], self.parts["lora_embedding_B"]
            factors = f"{name}.lora_embedding_A", f"{name}.lora_embedding_B"
            return [(name, Product(a.T, b.T, self._scale(a), name, factors))]
        a, b = self.parts["lora_A"], self.parts["lora_B"]
        first, second = f"{name}.lora_A", f"{name}.lora_B"
        sizes = self.sizes()
        if sizes is not None and len(weight.shape) == 2:
            if turned(sizes, weight):
                return [(name, Product(a.T, b.T, self._scale(a), name, (first, second)))]
            return [(name, Product(b, a, self._scale(a), name, (second, first)))]
        if a.ndim < 3 or a.ndim != b.ndim or set(b.shape[2:]) != {1}:
            raise Unfit(f"factors of {list(a.shape)} and {list(b.shape)} do not fit {list(weight.shape)}")
        if a.shape[1:] != weight.shape[1:]:
            raise Unfit(f"factors of {list(a.shape)} do not fit {list(weight.shape)}; grouped convolutions cannot be")
        left, right = b.reshape(b.shape[:2]), a.reshape(a.shape[0], -1)
        return [(name, Product(left, right, self._scale(a), name, (second, first)))]

    def _scale(self, a: Array) -> float:
        alphas = self.config.get("alpha_pattern") or {}
        alpha = self.config.get("lora_alpha", 8)
        if not isinstance(alphas, dict):
            raise Unfit("alpha_pattern is not a table")
        # The first that matches, as in peft.utils.get_pattern_key.
        alpha = next((value for key, value in alphas.items() if _matches(key, self.module)), alpha)
        rank = a.shape[0] if a.ndim else 0
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not rank:
            raise Unfit(f"lora_alpha {str(alpha)[:20]} and rank {rank} give no scale")
        try:
            scale = alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank
        except OverflowError:
            scale = math.inf
        if not math.isfinite(scale):
            raise Unfit(f"the scale is {scale}")
        return scale

    def _scalings(self, name: str, found: Mapping[str, Parameter], turned: _Turned) -> list[tuple[str, Change]]:
        weight, factors = found[name], self.parts["ia3_l"]
        key = f"{self.module}.ia3_l"
        if factors.ndim < 2 or factors.ndim != len(weight.shape) or (factors.ndim > 2 and factors.shape[0] != 1):
            raise Unfit(f"{key!r} is {list(factors.shape)}, which does not fit {list(weight.shape)}")
        if factors.ndim > 2:
            by_input = _is_feedforward(self.config.get("feedforward_modules"), self.module)
            along = factors if by_input else factors.swapaxes(0, 1)
        else:
            by_input = factors.shape[0] == 1
            along = factors.T if self._is_turned(weight, factors, by_input, turned) else factors
        if along.shape[by_input] != weight.shape[by_input] and factors.ndim > 2:
            raise Unfit(f"{key!r} is {list(factors.shape)}; grouped convolutions cannot be")
        changes: list[tuple[str, Change]] = [(name, Scaling(along, key))]
        bias = f"{self.module}.bias"
        if not by_input and bias in found:
            changes.append((bias, Scaling(factors.reshape(-1), key)))
        return changes

    @staticmethod
    def _is_turned(weight: Parameter, factors: Array, by_input: bool, turned: _Turned) -> bool:
        rows, columns = weight.shape
        if rows == columns:
            return turned((rows, columns), weight)
        # As it is, (out, in): by input the factors go along the columns.
        return factors.size != (columns if by_input else rows)


def _check_settings(config: Mapping[str, Any], read: frozenset[str]) -> None:
    on = [
        key for key, value in config.items() if key not in _HARMLESS | read and value not in (None, False, {}, [], "")
    ]
    if on:
        raise ThetaError(
            f"the adapter uses {listed(sorted(on))}, which {'is' if len(on) == 1 else 'are'} not supported",
            hint="Merge it with PEFT and add the result.",
        )
    start = config.get("init_lora_weights", True)
    if start is not False and start not in _PLAIN_STARTS:
        raise ThetaError(
            f"the adapter was initialised by {str(start)[:40]!r}, which changes the base model as well",
            hint="Convert it as PEFT explains (path_initial_model_for_weight_conversion), or merge it with PEFT.",
        )


def _is_feedforward(setting: Any, module: str) -> bool:
    # By the end of the name alone, as in peft.tuners.ia3.
    if isinstance(setting, str):
        return _compiled(setting).fullmatch(module) is not None
    names: Sequence[Any] = setting if isinstance(setting, list) else ()
    return any(isinstance(name, str) and module.endswith(name) for name in names)


def _matches(pattern: str, module: str) -> bool:
    """Whether a pattern of the configuration means a module, as ``peft.utils.get_pattern_key`` decides it."""
    if pattern == module or module.endswith(f".{pattern}"):
        return True
    return _compiled(rf"(.*\.)?({pattern})$", pattern).match(module) is not None


def _compiled(expression: str, pattern: str = "") -> re.Pattern[str]:
    """A regular expression that came with the adapter; one that could take for ever is refused."""
    pattern = pattern or expression
    if len(pattern) > 500 or len(re.findall(r"[*+]", pattern)) > 2 or not _SIMPLE_PATTERN.fullmatch(pattern):
        raise Unfit(f"the pattern {pattern[:40]!r} of the adapter's configuration is too complicated")
    try:
        return re.compile(expression)
    except re.error:
        raise Unfit(f"the pattern {pattern[:40]!r} of the adapter's configuration is no regular expression") from None
