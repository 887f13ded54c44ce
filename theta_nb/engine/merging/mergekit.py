"""Merge configurations of mergekit (YAML), to and from choices.

What both know is translated with its meaning; what only mergekit knows (slices, tokenizers, unknown keys) is an error
and never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from theta_nb.engine.merging.choices import Choice, Override, Settings
from theta_nb.engine.merging.documents import read_yaml, write_yaml
from theta_nb.errors import MergeError

__all__ = ["SHARED", "MergekitConfig", "export_mergekit", "import_mergekit"]

_TASK = {"lambda": "scale", "normalize": "normalize", "weight": "weight"}
_SPARSE = {**_TASK, "density": "density"}
_NAMES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    # mergekit's method: ours, and names of parameters that mean the same
    "linear": ("linear", {"weight": "weight", "normalize": "normalize"}),
    "slerp": ("slerp", {"t": "t"}),
    "nuslerp": ("nuslerp", {"weight": "weight"}),
    "multislerp": ("multislerp", {"weight": "weight"}),
    "karcher": ("karcher", {"max_iter": "max_iter", "tol": "tol"}),
    "task_arithmetic": ("task_arithmetic", _TASK),
    "ties": ("ties", _SPARSE),
    "dare_linear": ("dare_linear", _SPARSE),
    "dare_ties": ("dare_ties", _SPARSE),
    "della": ("della", {**_SPARSE, "epsilon": "epsilon"}),
    "della_linear": ("della_linear", {**_SPARSE, "epsilon": "epsilon"}),
    "breadcrumbs": ("breadcrumbs", {**_SPARSE, "gamma": "gamma"}),
    "breadcrumbs_ties": ("breadcrumbs_ties", {**_SPARSE, "gamma": "gamma"}),
    "model_stock": ("model_stock", {}),
    "sce": ("sce", {"select_topk": "density"}),
    "ram": ("ram", {"epsilon": "epsilon"}),
    "ramplus_tl": ("ramplus", {"r": "r", "alpha": "alpha", "epsilon": "epsilon"}),
    "arcee_fusion": ("arcee_fusion", {}),
    "nearswap": ("nearswap", {"t": "t"}),
    "passthrough": ("passthrough", {"scale": "scale"}),
}
SHARED: Mapping[str, str] = {name: ours for name, (ours, _) in _NAMES.items()}
"""Methods of ours by the names that mergekit gives them."""

_DEFAULTS = {"dare_linear": 1.0, "dare_ties": 1.0, "della": 1.0, "della_linear": 1.0}
_BASE_IS_OURS = ("slerp", "nearswap")
_WITHOUT_BASE = ("linear", "karcher", "passthrough")
_TOP = ("merge_method", "models", "base_model", "parameters", "dtype")
_REFUSED = ("slices", "modules", "tokenizer", "tokenizer_source", "chat_template", "out_dtype")


@dataclass(frozen=True)
class MergekitConfig:
    """A configuration, translated.

    Parameters
    ----------
    settings
        The choices; per-model values are by the names of the models.
    models
        Names of the inputs, ours first.
    base
        Name of the common ancestor, or empty.
    dtype
        Of the result, if the configuration says it.
    """

    settings: Settings
    models: tuple[str, ...]
    base: str = ""
    dtype: str = ""

    def labelled(self, labels: Sequence[str]) -> Settings:
        """The choices for inputs of other names, in the same order.

        Raises
        ------
        MergeError
            If there is another number of them.
        """
        if len(labels) != len(self.models):
            raise MergeError(f"the configuration merges {len(self.models)} models, and there are {len(labels)}")
        names = dict(zip(self.models, labels, strict=True))

        def renamed(choice: Choice) -> Choice:
            given = choice.parameters.items()
            return Choice(choice.method, {key: _renamed(value, names) for key, value in given})

        default = self.settings.default
        overrides = tuple(replace(one, choice=renamed(one.choice)) for one in self.settings.overrides)
        return Settings(None if default is None else renamed(default), overrides)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    return {names[key]: one for key, one in value.items()} if isinstance(value, Mapping) else value


def import_mergekit(text: str) -> MergekitConfig:
    """Translate a configuration of mergekit.

    Parameters
    ----------
    text
        YAML.

    Raises
    ------
    MergeError
        If it is no such configuration, or says something that has no translation; the message names the key.

    Examples
    --------
    >>> config = import_mergekit('''
    ... merge_method: ties
    ... base_model: base
    ... models:
    ...   - model: one
    ...   - model: two
    ...     parameters: {weight: 0.3}
    ... parameters: {density: 0.5, weight: 1.0}
    ... ''')
    >>> config.models, config.settings.default.parameters
    (('one', 'two'), {'density': 0.5, 'weight': {'one': 1.0, 'two': 0.3}})
    """
    form = read_yaml(text, "the configuration")
    if not isinstance(form, dict) or not isinstance(form.get("merge_method"), str):
        raise MergeError("the configuration has no merge_method", hint="It should be the YAML of one mergekit merge.")
    for key in form:
        if key in _REFUSED:
            raise MergeError(f"{key!r} of the configuration has no counterpart: whole models are merged here")
        if key not in _TOP:
            raise MergeError(f"{key!r} is no key of a configuration", hint=f"Known: {', '.join(_TOP)}.")
    if form["merge_method"] not in _NAMES:
        raise MergeError(f"mergekit's method {form['merge_method']!r} has no counterpart")
    base = form.get("base_model") or ""
    models = _models(form.get("models"))
    if not isinstance(base, str):
        raise MergeError("base_model of the configuration must be a name")
    names, origin = _inputs(form["merge_method"], tuple(models), base)
    return MergekitConfig(_settings(form, models, names, origin), names, origin, str(form.get("dtype") or ""))


def _models(form: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(form, list) or not form:
        raise MergeError("the configuration has no models")
    found: dict[str, Mapping[str, Any]] = {}
    for one in form:
        if not isinstance(one, dict) or not isinstance(one.get("model"), str):
            raise MergeError("each of the models needs a name under 'model'")
        extra = one.keys() - {"model", "parameters"}
        if extra or one["model"] in found:
            what = f"{min(extra)!r} is no key of a model" if extra else f"the model {one['model']!r} is there twice"
            raise MergeError(what)
        found[one["model"]] = _mapping(one.get("parameters"), one["model"])
    return found


def _mapping(form: Any, what: str) -> Mapping[str, Any]:
    if form is None:
        return {}
    if not isinstance(form, dict) or not all(isinstance(key, str) for key in form):
        raise MergeError(f"the parameters of {what!r} must be a mapping")
    return form


def _inputs(method: str, models: tuple[str, ...], base: str) -> tuple[tuple[str, ...], str]:
    """Inputs, ours first, and the ancestor: where mergekit's base is an end of the path, it is ours here."""
    if method in _BASE_IS_OURS:
        if not base:
            raise MergeError(f"{method} of a configuration needs a base_model")
        return (base, *(name for name in models if name != base)), ""
    if method in _WITHOUT_BASE or not base:
        return models, ""
    return tuple(name for name in models if name != base), base


def _settings(
    form: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]], names: tuple[str, ...], base: str
) -> Settings:
    method, translated = _NAMES[form["merge_method"]]
    shared = _mapping(form.get("parameters"), "the configuration")
    given: dict[str, Any] = {**shared}
    for name in names:
        for key, value in models.get(name, {}).items():
            per = given.get(key)
            if not isinstance(per, _PerModel):
                per = given[key] = _PerModel({other: shared[key] for other in names if key in shared})
            per[name] = value
    filters = _filters(given.values())

    def choice(text: str) -> Choice:
        values = {key: _resolved(value, text) for key, value in given.items()}
        out = _special(form["merge_method"], values, base)
        for key, value in values.items():
            if key not in translated:
                raise MergeError(f"{key!r} is no parameter of mergekit's {form['merge_method']}, or has no counterpart")
            if value is not None:
                out[translated[key]] = value
        made = Choice(method, out)
        for depth in (0.0, 1.0):
            made.at(depth, names)
        return made

    overrides = tuple(Override(f"*{_escaped(text)}*", choice(text)) for text in reversed(filters))
    return Settings(choice(""), overrides)


class _PerModel(dict[str, Any]):
    """Values of one parameter by model."""


def _escaped(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _filters(values: Any) -> list[str]:
    """The filters of conditional values, the first that fits counting, in one order for all parameters."""
    orders = []
    for value in values:
        for one in value.values() if isinstance(value, _PerModel) else (value,):
            found = [cond["filter"] for cond in _conditions(one) if cond.get("filter") not in (None, "*")]
            if found and found not in orders:
                orders.append(found)
    if len(orders) > 1:
        raise MergeError("parameters have different filters, which cannot be translated", hint="Use the same for all.")
    return orders[0] if orders else []


def _conditions(value: Any) -> list[Mapping[str, Any]]:
    """Conditional values; none if the value is a plain one."""
    found = [value] if isinstance(value, dict) else value
    if not isinstance(found, list) or not any(isinstance(one, dict) for one in found):
        return []
    for one in found:
        if not isinstance(one, dict) or "value" not in one or one.keys() - {"value", "filter"}:
            raise MergeError("a conditional value needs 'value' and may have 'filter'")
        if not isinstance(one.get("filter"), str | None):
            raise MergeError("a filter must be text")
    return found


def _resolved(value: Any, text: str) -> Any:
    """The value for parameters whose names contain ``text``."""
    if isinstance(value, _PerModel):
        found = {name: _resolved(one, text) for name, one in value.items()}
        return {name: one for name, one in found.items() if one is not None}
    conditions = _conditions(value)
    if not conditions:
        return value
    for one in conditions:
        if one.get("filter") in (None, "*") or (text and one["filter"] in text):
            return one["value"]
    return None


def _special(method: str, values: dict[str, Any], base: str) -> dict[str, Any]:
    """Parameters of ours for those of mergekit that are spelled otherwise; taken out of ``values``."""
    out: dict[str, Any] = {}
    values.pop("int8_mask", None)  # saves memory there, and changes no number
    if method in ("task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties") and values.pop("rescale", False):
        raise MergeError(f"rescale of mergekit's {method} has no counterpart")
    if method in _DEFAULTS:
        out["rescale"] = "l1" if values.pop("rescale", True) else "none"
        values.setdefault("density", _DEFAULTS[method])
    if method in ("nuslerp", "multislerp") and base:
        out["space"] = "task"
    if method == "nuslerp":
        flat, column = values.pop("nuslerp_flatten", True), values.pop("nuslerp_row_wise", False)
        out["axis"] = "tensor" if flat else "column" if column else "row"
    if method == "multislerp" and (not values.pop("normalize_weights", True) or values.pop("eps", 1e-8) != 1e-8):
        raise MergeError("multislerp of a configuration must normalize its weights, with the eps of mergekit")
    if method == "model_stock":
        out["axis"] = "row" if values.pop("filter_wise", False) else "tensor"
    return out


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
    found = next(((name, keys) for name, (ours, keys) in _NAMES.items() if ours == method.name), None)
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
    if name in _BASE_IS_OURS:
        return models, labels, models[0]
    if name in _WITHOUT_BASE or space == "weights":  # mergekit takes task vectors wherever there is a base
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
