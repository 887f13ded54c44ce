"""Configurations of mergekit: what it exports, mergekit takes and computes the same; what it imports means the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.engine.merging.checkpoints import model, session_of
from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.mergekit import import_mergekit
from theta_nb.engine.merging.mergekit_export import export_mergekit
from theta_nb.engine.merging.mergekit_methods import SHARED
from theta_nb.errors import MergeError
from theta_nb.merges.tensors import merge_tensors

BASE = model(0)
OURS, THEIRS = model(1, BASE), model(2, BASE)
STATES = {"base": BASE, "one": OURS, "two": THEIRS}
LABELS = ("one", "two")

# --- what mergekit makes of what is exported --------------------------------------------------------------------------

EVERY: list[tuple[Choice, str, Mapping[str, Any]]] = [
    # a choice, the base model that it needs there, and parameters of a first layer by mergekit's names
    (Choice("linear", {"weight": {"one": 0.2, "two": 0.7}, "normalize": False}), "", {"normalize": False}),
    (Choice("linear", {"weight": {"two": (0, 1)}}), "", {"normalize": True}),
    (Choice("slerp", {"t": 0.3}), "one", {"t": 0.3}),
    (Choice("slerp", {"t": (0, 0.5, 1)}), "one", {"t": 0.0}),
    (Choice("nuslerp", {"weight": {"one": 0.3}}), "", {"weight": [0.3, 1.0]}),
    (Choice("nuslerp", {"space": "task", "axis": "row"}), "base", {"nuslerp_flatten": False}),
    (Choice("nuslerp", {"space": "task", "axis": "column"}), "base", {"nuslerp_row_wise": True}),
    (Choice("multislerp", {"weight": {"two": 2.0}}), "", {"weight": [1.0, 2.0]}),
    (Choice("multislerp", {"space": "task"}), "base", {"weight": [1.0, 1.0]}),
    (Choice("karcher", {"max_iter": 4, "tol": 1e-7}), "", {"max_iter": 4, "tol": 1e-7}),
    (Choice("task_arithmetic", {"weight": {"one": -0.4}, "scale": 0.7}), "base", {"lambda": 0.7}),
    (Choice("ties", {"density": (0.1, 0.9), "weight": {"one": 0.3}}), "base", {"weight": [0.3, 1.0]}),
    (Choice("ties", {"density": {"two": 0.4}, "normalize": False}), "base", {"density": [1.0, 0.4]}),
    (Choice("dare_linear", {"rescale": "none", "density": 1.0}), "base", {"rescale": False}),
    (Choice("dare_ties", {"rescale": "l1", "density": 1.0, "normalize": True}), "base", {"rescale": True}),
    (Choice("della", {"rescale": "none", "density": 1.0, "epsilon": 0.0}), "base", {"epsilon": [0.0, 0.0]}),
    (Choice("della_linear", {"rescale": "l1", "density": 1.0, "epsilon": 0.0}), "base", {"normalize": False}),
    (Choice("breadcrumbs", {"density": 0.6, "gamma": 0.05}), "base", {"gamma": [0.05, 0.05]}),
    (Choice("breadcrumbs_ties", {"density": 0.6, "scale": 0.5}), "base", {"lambda": 0.5}),
    (Choice("model_stock", {}), "base", {"filter_wise": False}),
    (Choice("model_stock", {"axis": "row"}), "base", {"filter_wise": True}),
    (Choice("sce", {"density": 0.2}), "base", {"select_topk": 0.2}),
    (Choice("ram", {"epsilon": 1e-4}), "base", {"epsilon": 1e-4}),
    (Choice("ramplus", {"r": 0.2, "alpha": 0.5}), "base", {"r": 0.2, "alpha": 0.5}),
    (Choice("arcee_fusion", {}), "base", {}),
    (Choice("nearswap", {"t": 0.01}), "one", {"t": 0.01}),
    (Choice("passthrough", {"scale": 1.5}), "", {"scale": [1.5]}),
]


def inputs_of(choice: Choice) -> tuple[str, ...]:
    return LABELS[:1] if choice.method == "arcee_fusion" else LABELS


def test_every_shared_method_is_tried() -> None:
    registered = pytest.importorskip("mergekit.merge_methods").registered_methods()
    assert {method.spec.name for method in registered} == set(SHARED), "mergekit has others"
    assert set(SHARED.values()) == {choice.method for choice, _, _ in EVERY}


class Oracle:
    """A configuration as mergekit reads, plans and merges it, tensor by tensor."""

    def __init__(self, text: str) -> None:
        config = pytest.importorskip("mergekit.config")
        self._methods = pytest.importorskip("mergekit.merge_methods")
        self.config = config.MergeConfiguration.model_validate(yaml.safe_load(text))
        self.method = self._methods.get(self.config.merge_method)
        self.base = self.config.base_model
        self.models = [one.model for one in self.config.models]
        self._own = {one.model: one.parameters for one in self.config.models}
        if self.base is not None and self.base not in self.models:
            self.models.append(self.base)
        self.method.validate_inputs(self.models, self.base)

    def parameters(self, name: str, depth: float) -> dict[str, Any]:
        """All parameters of a tensor; those of single models as lists, without the base."""
        from mergekit.parameter_resolver import resolve_parameters

        shared, per = resolve_parameters(
            self.method.spec,
            tensor_name=name,
            inputs=dict.fromkeys(self.models, name),
            sources=lambda model: (self._own.get(model), self.config.parameters),
            base_model=self.base,
            t=depth,
        )
        keys = [spec.name for spec in self.method.spec.input_parameters]
        return {**shared, **{key: [one[key] for one in per.values() if key in one] for key in keys}}

    def unknown(self) -> set[str]:
        """Parameters of the configuration that mergekit would pass over without a word."""
        spec = self.method.spec
        shared, single = ({p.name for p in known} for known in (spec.parameters, spec.input_parameters))
        given = {key for one in self.config.models for key in one.parameters or {}}
        return set(self.config.parameters or {}) - shared | given - single

    def merge(self, name: str, depth: float) -> np.ndarray[Any, Any]:
        """Its result."""
        tensors = [torch.from_numpy(STATES[str(one)][name]) for one in self.models]
        index = None if self.base is None else self.models.index(self.base)
        made = self._methods.merge_tensors(
            tensors, self.config.merge_method, base_index=index, name=name, parameters=self.parameters(name, depth)
        )
        array: np.ndarray[Any, Any] = made.numpy()
        return array


IDS = [f"{number}-{choice.method}" for number, (choice, _, _) in enumerate(EVERY)]


@pytest.mark.parametrize(("choice", "base", "expected"), EVERY, ids=IDS)
def test_mergekit_takes_what_is_exported(choice: Choice, base: str, expected: Mapping[str, Any]) -> None:
    oracle = Oracle(export_mergekit(Settings(choice), inputs_of(choice), "base"))
    assert SHARED[oracle.config.merge_method] == choice.method
    assert ("" if oracle.base is None else str(oracle.base)) == base
    assert oracle.unknown() == set()
    found = oracle.parameters("w", 0.0)
    assert {key: found[key] for key in expected} == dict(expected)


@pytest.mark.parametrize(("choice", "base", "expected"), EVERY, ids=IDS)
def test_mergekit_computes_the_same(choice: Choice, base: str, expected: Mapping[str, Any]) -> None:
    labels = inputs_of(choice)
    oracle = Oracle(export_mergekit(Settings(choice), labels, "base"))
    for name in ("layers.1.mlp.weight", "embed.weight"):
        for depth in (0.0, 0.4, 1.0):
            inputs = [STATES[label][name] for label in labels]
            ours = merge_tensors(
                choice.method, inputs, base=BASE[name], name=name, depth=depth, **choice.at(depth, labels)
            )
            np.testing.assert_allclose(ours, oracle.merge(name, depth), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("choice", "base", "expected"), EVERY, ids=IDS)
def test_what_is_exported_comes_back(choice: Choice, base: str, expected: Mapping[str, Any]) -> None:
    labels = inputs_of(choice)
    config = import_mergekit(export_mergekit(Settings(choice), labels, "base"))
    again = config.settings.default
    assert again is not None
    assert again.method == choice.method
    assert config.models == (labels[:1] if choice.method == "passthrough" else labels)
    assert config.base == (base if base == "base" else "")
    for depth in (0.0, 0.25, 1.0):
        assert again.at(depth, labels) == choice.at(depth, labels)


def test_names_of_models_are_not_those_of_inputs() -> None:
    choice = Choice("ties", {"density": {"ours": 0.2}, "weight": {"theirs": 0.5}})
    text = export_mergekit(Settings(choice), ["org/a", "./b c"], "org/base", labels=["ours", "theirs"])
    config = import_mergekit(text)
    assert (config.models, config.base) == (("org/a", "./b c"), "org/base")
    default = config.labelled(["ours", "theirs"]).default
    assert default is not None
    assert default.at(0.5, ["ours", "theirs"]) == choice.at(0.5, ["ours", "theirs"])


# --- what is imported -------------------------------------------------------------------------------------------------

CONFIG = """
merge_method: {method}
{base}models:
  - model: one
  - model: two
parameters: {parameters}
"""


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("ties", {"density": 0.3, "weight": 0.7, "normalize": False, "lambda": 0.5, "int8_mask": True}),
        ("task_arithmetic", {"weight": 0.4}),
        ("breadcrumbs", {"density": 0.6, "gamma": 0.05, "weight": 1.0}),
        ("model_stock", {"filter_wise": True}),
        ("multislerp", {"weight": 1.0}),
        ("nuslerp", {"weight": 1.0, "nuslerp_flatten": False, "nuslerp_row_wise": True}),
        ("sce", {"select_topk": 0.5}),
        ("ramplus_tl", {"r": 0.2, "alpha": 0.5}),
        ("karcher", {"max_iter": 3}),
        ("dare_ties", {"weight": 0.5, "density": 1.0}),
    ],
)
def test_imported_configurations_give_mergekits_numbers(
    tmp_path: Path, method: str, parameters: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("mergekit.merge_methods").merge_tensors
    base = "" if method == "karcher" else "base_model: base\n"  # there it would be one more input
    config = import_mergekit(CONFIG.format(method=method, base=base, parameters=json.dumps(parameters)))
    states = [BASE, OURS, THEIRS] if config.base else [None, OURS, THEIRS]
    session = session_of(tmp_path, "memory", *states)
    made = session.restore(config.labelled(session.labels)).arrays()["layers.1.mlp.weight"]
    tensors = [torch.from_numpy(x["layers.1.mlp.weight"]) for x in (BASE, OURS, THEIRS)]
    given = (
        {"weight": 1.0, **parameters} if method not in ("model_stock", "sce", "ramplus_tl", "karcher") else parameters
    )
    theirs = oracle(
        tensors if config.base else tensors[1:], method, base_index=0 if config.base else None, parameters=given
    )
    np.testing.assert_allclose(made, theirs.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["linear", "karcher"])
@pytest.mark.parametrize("models", ["[{model: one}, {model: two}]", "[{model: one}, {model: two}, {model: base}]"])
def test_a_base_model_that_means_nothing_is_one_more_input(method: str, models: str) -> None:
    weight = "{weight: 0.5}" if method == "linear" else "{}"
    text = f"{{merge_method: {method}, base_model: base, models: {models}, parameters: {weight}}}"
    config = import_mergekit(text)
    assert (config.models, config.base) == (("one", "two", "base"), "")
    choice = config.settings.default
    assert choice is not None
    name = "embed.weight"
    made = merge_tensors(choice.method, [STATES[one][name] for one in config.models], **choice.at(0.0, config.models))
    np.testing.assert_allclose(made, Oracle(text).merge(name, 0.0), rtol=2e-5, atol=2e-6)


def test_slerp_goes_from_the_base_model() -> None:
    config = import_mergekit(
        "{merge_method: slerp, base_model: a, models: [{model: b}, {model: a}], parameters: {t: 0.2}}"
    )
    assert config.models == ("a", "b")
    assert config.base == ""


def test_filters_become_overrides_and_gradients_stay() -> None:
    config = import_mergekit(
        """
merge_method: slerp
base_model: a
models: [{model: a}, {model: b}]
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 1]
    - filter: mlp
      value: [1, 0]
    - value: 0.5
"""
    )
    assert config.settings.default == Choice("slerp", {"t": 0.5})
    found = config.settings.override_for("layers.3.self_attn.mlp")
    assert found is not None
    assert found.choice.parameters == {"t": [0, 0.5, 1]}, "the first filter counts there, the last override here"
    assert config.settings.override_for("layers.3.mlp.w").choice.parameters == {"t": [1, 0]}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge_method: ties\ncolour: red", "'colour' is no key"),
        ("merge_method: ties\nslices: []", "'slices' of the configuration"),
        ("merge_method: frankenmerge\nmodels: [{model: a}]", "has no counterpart"),
        ("merge_method: ties", "has no models"),
        ("merge_method: ties\nmodels: {a: 1}", "has no models"),
        ("merge_method: ties\nmodels: [{model: a, weight: 1}]", "'weight' is no key of a model"),
        ("merge_method: ties\nmodels: [{model: a}, {model: a}]", "there twice"),
        ("merge_method: ties\nmodels: [{model: a}]\nparameters: {densty: 1}", "'densty' is no parameter"),
        ("merge_method: ties\nmodels: [{model: a}]\nparameters: {density: 7}", "must lie in 0 to 1"),
        ("merge_method: ties\nmodels: [{model: a}]\nparameters: [1]", "must be a mapping"),
        ("merge_method: slerp\nmodels: [{model: a}]", "needs a base_model"),
        (
            "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: [{value: 1, if: x}]}",
            "conditional",
        ),
        ("models: []", "no merge_method"),
        ("- 1", "no merge_method"),
    ],
)
def test_unknown_keys_are_errors(text: str, message: str) -> None:
    with pytest.raises(MergeError, match=message):
        import_mergekit(text)


@pytest.mark.parametrize(
    ("choice", "models", "base"),
    [
        (Choice("emr", {}), LABELS, "base"),
        (Choice("dare_ties", {}), LABELS, "base"),
        (Choice("ties", {"scope": "model"}), LABELS, "base"),
        (Choice("ties", {}), LABELS, ""),
        (Choice("nuslerp", {"space": "task"}), LABELS, ""),
        (Choice("arcee_fusion", {}), LABELS, "base"),
        (Choice("karcher", {"weight": {"one": 2.0}}), LABELS, "base"),
        (Choice("model_stock", {"axis": "column"}), LABELS, "base"),
        (None, LABELS, "base"),
    ],
)
def test_what_mergekit_lacks_is_not_exported(choice: Choice | None, models: tuple[str, ...], base: str) -> None:
    with pytest.raises(MergeError, match="mergekit"):
        export_mergekit(Settings(choice), models, base)
