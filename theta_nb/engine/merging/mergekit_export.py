"""Choices as merge configurations of mergekit (YAML).

What mergekit would compute otherwise, or not at all, is an error and never left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theta_nb.engine.merging.choices import Settings
from theta_nb.engine.merging.documents import write_yaml
from theta_nb.engine.merging.mergekit_methods import BASE_IS_OURS, TRANSLATED, WITHOUT_BASE
from theta_nb.errors import MergeError

__all__ = ["export_mergekit"]


def export_mergekit(settings: Settings, models: Sequence[str], base: str = "", *, labels: Sequence[str] = ()) -> str:
    """Choices as a configuration of mergekit.

    Parameters
    ----------
    settings
        One method for everything: overrides have no counterpart there.
    models
        Paths or names of the inputs, ours first.
    base
        Of the common ancestor.
    labels
        Names of the inputs in the choices; those of the models by default.

    Raises
    ------
    MergeError
        If mergekit has no such method or parameter, or would compute something else.

    Examples
    --------
    >>> from theta_nb.engine.merging.choices import Choice
    >>> print(export_mergekit(Settings(Choice("ties", {"density": 0.3})), ["one", "two"], "base"))
    merge_method: ties
    base_model: base
    models:
    - model: one
      parameters: {weight: 1.0, density: 0.3}
    - model: two
      parameters: {weight: 1.0, density: 0.3}
    parameters: {normalize: true, lambda: 1.0}
    <BLANKLINE>
    """
    if settings.default is None or settings.overrides:
        raise MergeError("a configuration of mergekit has one method for everything")
    choice, method = settings.default, settings.default.function
    found = next(((name, keys) for name, (ours, keys) in TRANSLATED.items() if ours == method.name), None)
    if found is None:
        raise MergeError(f"mergekit has no method {method.name!r}")
    name, keys = found
    spelled = {ours: theirs for theirs, ours in keys.items()}
    values = {spec.name: choice.parameters.get(spec.name, spec.default) for spec in method.parameters}
    models, labels, base = _exported_inputs(name, values.pop("space", ""), models, labels or models, base)
    shared = _exported(name, values)
    per: dict[str, dict[str, Any]] = {model: {} for model in models}
    for key, value in values.items():
        spec = method.parameter(key)
        if key not in spelled:
            raise MergeError(f"{key!r} of {method.name} has no counterpart in mergekit")
        if not spec.per_model:
            shared[spelled[key]] = _listed(value)
            continue
        for label, model in zip(labels, models, strict=True):
            per[model][spelled[key]] = _listed(value.get(label, spec.default) if isinstance(value, Mapping) else value)
    form: dict[str, Any] = {"merge_method": name}
    if base:
        form["base_model"] = base
    form["models"] = [{"model": m, **({"parameters": per[m]} if per[m] else {})} for m in models]
    if shared:
        form["parameters"] = shared
    return write_yaml(form)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _exported_inputs(
    name: str, space: Any, models: Sequence[str], labels: Sequence[str], base: str
) -> tuple[Sequence[str], Sequence[str], str]:
    """Models, their labels and the base model with which mergekit does the same."""
    if name == "passthrough":
        return models[:1], labels[:1], ""
    if name == "arcee_fusion" and len(models) > 1:
        raise MergeError(f"mergekit's arcee_fusion takes one model beside its base, and there are {len(models)}")
    if name in BASE_IS_OURS:
        return models, labels, models[0]
    if name in WITHOUT_BASE or space == "weights":  # mergekit takes task vectors wherever there is a base
        return models, labels, ""
    if not base:
        raise MergeError(f"mergekit's {name} needs a base_model, and there is no common ancestor")
    return models, labels, base


def _exported(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Parameters of mergekit for those of ours that are spelled otherwise; taken out of ``values``."""
    shared: dict[str, Any] = {}
    rescale = values.pop("rescale", None)
    if rescale is not None and rescale not in ("l1", "none"):
        raise MergeError(f"mergekit cannot rescale by {rescale!r}", hint="Use rescale=l1 or rescale=none.")
    if rescale is not None:
        shared["rescale"] = rescale == "l1"
    values.pop("seed", None)  # mergekit draws otherwise, whatever the seed
    if values.pop("scope", "tensor") != "tensor":
        raise MergeError("mergekit ranks entries within tensors", hint="Use scope=tensor.")
    axis = values.pop("axis", "tensor")
    if name == "nuslerp" and axis != "tensor":
        shared |= {"nuslerp_flatten": False, "nuslerp_row_wise": axis == "column"}
    elif name == "model_stock" and axis != "tensor":
        if axis != "row":
            raise MergeError("mergekit's model_stock knows rows only")
        shared["filter_wise"] = True
    if name == "karcher" and values.pop("weight", 1.0) != 1.0:
        raise MergeError("mergekit's karcher has no weights")
    return shared
