"""Merge configurations of mergekit (YAML) as choices.

What both know is translated with its meaning; what only mergekit knows (slices, tokenizers, unknown keys) is an error
and never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from theta_nb.engine.merging.choices import Choice, Override, Settings
from theta_nb.engine.merging.documents import read_yaml
from theta_nb.engine.merging.mergekit_methods import BASE_IS_OURS, TRANSLATED, WITHOUT_BASE
from theta_nb.errors import MergeError

__all__ = ["MergekitConfig", "import_mergekit"]

_DEFAULTS = {"dare_linear": 1.0, "dare_ties": 1.0, "della": 1.0, "della_linear": 1.0}
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
    if form["merge_method"] not in TRANSLATED:
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
    if method in BASE_IS_OURS:
        if not base:
            raise MergeError(f"{method} of a configuration needs a base_model")
        return (base, *(name for name in models if name != base)), ""
    if method in WITHOUT_BASE and base and base not in models:
        return (*models, base), ""  # where nobody looks at the base, it is one more model
    if method in WITHOUT_BASE or not base:
        return models, ""
    return tuple(name for name in models if name != base), base


def _settings(
    form: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]], names: tuple[str, ...], base: str
) -> Settings:
    method, translated = TRANSLATED[form["merge_method"]]
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
