"""What is no weight, and what becomes of it where both sides changed it.

An election of signs between step counters, or a mean of two generator states, is never what anybody wants. Each rule is
visible in the preview with its reason, and gives way to an override that names the parameter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.engine.merging.states import Unit
from theta_nb.tensors.dtypes import DTYPES

__all__ = ["RULES", "VALUES", "Rule", "mergeable", "rule_for"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of a kind of parameter.

    Parameters
    ----------
    name
        Kind, as people call it.
    method
        Merge method that is used.
    reason
        Why, in a phrase.
    pattern
        Regular expression found in the names it is about; ``None``: it is about dtypes.
    """

    name: str
    method: str
    reason: str
    pattern: re.Pattern[str] | None = None


_OPTIMIZER = re.compile(
    r"(?:^|[./\[])(?:optimizers?(?:_states?|_state_dict)?|optim|opt_state)(?:[./\[]|$)"
    r"|(?:^|[./])(?:exp_avg|exp_avg_sq|max_exp_avg_sqs?|momentum_buffer|square_avg|acc_delta|master_params?)(?:[./\[]|$)"
)

RULES = (
    Rule("optimizer state", "ours", "moments belong to the run that made them", _OPTIMIZER),
    Rule("counter", "ours", "steps are counted, not averaged", re.compile(r"(?:^|[./])(?:num_batches_tracked|step)$")),
    Rule(
        "batch statistics",
        "linear",
        "means and variances are averaged; a sum of changes could make a variance negative",
        re.compile(r"(?:^|[./])running_(?:mean|var)$"),
    ),
)
"""Rules by name, the first that fits counts."""

_NO_NUMBERS = Rule("no floats", "ours", "integers, booleans and quantized numbers are no weights")

VALUES = Rule("no tensor", "ours", "metadata and pickled values are taken from one side")
"""About what is no tensor, where a method was chosen that takes no side."""


def mergeable(info: TensorInfo) -> bool:
    """Whether the tensor holds numbers that methods compute with.

    Examples
    --------
    >>> mergeable(TensorInfo("bfloat16", (2,), b"")), mergeable(TensorInfo("int64", (2,), b""))
    (True, False)
    """
    dtype = DTYPES.get(info.dtype)
    return dtype is not None and dtype.kind in "fc" and dtype.numpy is not None and dtype.name != "float8_e8m0fnu"


def rule_for(unit: Unit) -> Rule | None:
    """The rule about a parameter, if it is no weight."""
    for rule in RULES:
        if rule.pattern is not None and rule.pattern.search(unit.name):
            return _NO_NUMBERS if rule.method != "ours" and not _floats(unit) else rule
    return None if _floats(unit) else _NO_NUMBERS


def _floats(unit: Unit) -> bool:
    return all(mergeable(info) for info in (unit.base, *unit.versions) if info is not None)
