"""The table of merge methods.

Outsiders publish a :class:`~theta_nb.merges.method.Method` in the entry-point group ``theta_nb.merges``.
"""

from __future__ import annotations

from theta_nb.errors import MergeError
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import nearest
from theta_nb.registry import Plugin, Registry

__all__ = ["ALIASES", "BUILTIN", "METHODS", "method_named"]

_MODULES = {
    "averages": ("ours", "theirs", "original", "linear", "passthrough", "task_arithmetic"),
    "spherical": ("slerp", "nuslerp", "multislerp", "karcher", "model_stock"),
    "sign_election": (
        "ties",
        "dare_linear",
        "dare_ties",
        "della",
        "della_linear",
        "breadcrumbs",
        "breadcrumbs_ties",
    ),
    "selective": ("sce", "ram", "ramplus", "arcee_fusion", "nearswap"),
    "multitask": ("consensus", "emr", "pcb"),
    "matrices": ("iso_c", "tsv_m", "widen"),
    "informed": ("fisher", "regmean"),
}

_GIT_THETA = ("average-ours-theirs", "average-all", "average-ours-original", "average-theirs-original")

BUILTIN = {
    **{name: Plugin(f"theta_nb.merges.{module}:{name}") for module, names in _MODULES.items() for name in names},
    **{name: Plugin(f"theta_nb.merges.averages:{name.replace('-', '_')}") for name in _GIT_THETA},
}

METHODS: Registry[Method] = Registry("merge method", "theta_nb.merges", BUILTIN)
"""All methods by name."""

ALIASES = {
    "average": "linear",
    "take_us": "ours",
    "take_them": "theirs",
    "take_original": "original",
    "ramplus_tl": "ramplus",
}
"""Names of git-theta and mergekit for methods of the table."""


def method_named(name: str) -> Method:
    """The method called ``name``, by any of its names; ``lines:NAME`` is it with task vectors scaled by depth.

    Raises
    ------
    MergeError
        If there is none; the message offers the nearest.

    Examples
    --------
    >>> method_named("average").name
    'linear'
    >>> method_named("tise")
    Traceback (most recent call last):
    theta_nb.errors.MergeError: no merge method is called 'tise'. Did you mean 'ties'?
    """
    wrapper, colon, inner = name.partition(":")
    if wrapper == "lines":
        from theta_nb.merges.lines import lines

        return lines(method_named(inner if colon else "task_arithmetic"))
    name = ALIASES.get(name, name)
    if name in BUILTIN or name in METHODS.names():
        return METHODS[name]
    raise MergeError(f"no merge method is called {name!r}", hint=nearest(name, METHODS.names()))
