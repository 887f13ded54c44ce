"""The merge methods that mergekit knows as well, and what it calls their parameters."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BASE_IS_OURS", "SHARED", "TRANSLATED", "WITHOUT_BASE"]

_TASK = {"lambda": "scale", "normalize": "normalize", "weight": "weight"}
_SPARSE = {**_TASK, "density": "density"}
TRANSLATED: Mapping[str, tuple[str, Mapping[str, str]]] = {
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
SHARED: Mapping[str, str] = {name: ours for name, (ours, _) in TRANSLATED.items()}
"""Methods of ours by the names that mergekit gives them."""

BASE_IS_OURS = ("slerp", "nearswap")
"""Methods by mergekit's names whose base model is an end of the path, and ours here."""

WITHOUT_BASE = ("linear", "karcher", "passthrough")
"""Methods by mergekit's names that look at no base model."""
