"""Merge methods as the picker of the explorer needs them: controls follow from the signatures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from theta_nb.engine.merging.choices import PRESETS
from theta_nb.errors import MergeError, ThetaError
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import ParameterSpec
from theta_nb.merges.table import METHODS

__all__ = ["method_forms", "presets"]

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "one side": ("ours", "theirs", "original", "passthrough"),
    "averages": ("linear", "slerp", "nuslerp", "multislerp", "karcher", "model_stock", "nearswap"),
    "task vectors": (
        "task_arithmetic",
        "ties",
        "dare_linear",
        "dare_ties",
        "della",
        "della_linear",
        "breadcrumbs",
        "breadcrumbs_ties",
    ),
    "choosing entries": ("sce", "ram", "ramplus", "arcee_fusion", "consensus", "emr", "pcb", "widen"),
    "matrices": ("iso_c", "tsv_m"),
    "with statistics": ("fisher", "regmean"),
}


def method_forms(count: int, *, has_base: bool, statistics: bool) -> list[dict[str, Any]]:
    """All methods as plain data, in families; each says whether it fits a merge, or why not.

    Parameters
    ----------
    count
        Number of inputs.
    has_base
        Whether there is a common ancestor.
    statistics
        Whether statistics of the training data are at hand.

    Examples
    --------
    >>> slerp = next(form for form in method_forms(2, has_base=True, statistics=False) if form["name"] == "slerp")
    >>> slerp["family"], slerp["parameters"][0]["name"], slerp["gram"], slerp["problem"]
    ('averages', 't', True, '')
    """
    families = {name: family for family, names in _FAMILIES.items() for name in names}
    order = [*families, *(name for name in METHODS.names() if name not in families)]
    out: list[dict[str, Any]] = []
    for name in order:
        try:
            method = METHODS[name]
        except ThetaError as error:  # somebody's plug-in that cannot be loaded
            out.append({"name": name, "title": name, "family": "others", "problem": str(error), "parameters": []})
            continue
        out.append(
            {
                "name": name,
                "title": method.title,
                "family": families.get(name, "others"),
                "summary": method.summary,
                "paper": method.paper if method.paper.startswith("https://") else "",
                "support": method.support,
                "gram": method.gram,
                "base": method.base,
                "problem": _problem(method, count, has_base=has_base, statistics=statistics),
                "parameters": [_parameter(spec) for spec in method.parameters],
            }
        )
    return out


def _problem(method: Method, count: int, *, has_base: bool, statistics: bool) -> str:
    """Why a method does not fit; empty if it does."""
    try:
        method.check(count)
    except MergeError as error:
        return error.message
    if method.base == "needed" and not has_base:
        return "it needs a common ancestor, and there is none"
    if method.statistics and not statistics:
        return f"it wants {method.statistics} statistics, and the session was opened without"
    return ""


def _parameter(spec: ParameterSpec) -> dict[str, Any]:
    low, high = spec.range.low, spec.range.high
    return {
        "name": spec.name,
        "kind": spec.kind,
        "default": spec.default,
        "help": spec.help,
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) and high < 2**53 else None,
        "soft": spec.range.soft,
        "choices": list(spec.choices),
        "per_model": spec.per_model,
    }


def presets() -> list[dict[str, Any]]:
    """Choices with names of their own, as plain data."""
    return [{"name": name, **choice.json()} for name, choice in PRESETS.items()]
