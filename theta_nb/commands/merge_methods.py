"""``git theta merge --methods``: the merge methods and their parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from theta_nb.merges.parameters import ParameterSpec
from theta_nb.merges.table import METHODS

__all__ = ["MethodSummary", "methods"]


@dataclass(frozen=True)
class MethodSummary:
    """A merge method, for a list.

    Parameters
    ----------
    name, summary, paper
        What it is called, what it does, and where it is defined.
    parameters
        Name, kind, default and meaning of each.
    """

    name: str
    summary: str
    paper: str
    parameters: tuple[ParameterSpec, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data; parameters by name, as JSON Schema with their defaults."""
        parameters = {one.name: {**one.schema(), "default": one.default} for one in self.parameters}
        return {"name": self.name, "summary": self.summary, "paper": self.paper, "parameters": parameters}


def methods() -> tuple[MethodSummary, ...]:
    """All merge methods."""
    found = [METHODS[name] for name in METHODS.names()]
    return tuple(MethodSummary(one.name, one.summary, one.paper, one.parameters) for one in found)
