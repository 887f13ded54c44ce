r"""Which module, block and kind a parameter belongs to, told from its name.

============================================  ==========================  =======================  ======
name                                          module                      block                    kind
============================================  ==========================  =======================  ======
``encoder.layer.5.attention.query.weight``    ``….5.attention.query``     ``encoder.layer.5``      weight
``encoder.layer.5.output.LayerNorm.bias``     ``….5.output.LayerNorm``    ``encoder.layer.5``      norm
``embeddings.word_embeddings.weight``         ``embeddings.word_…``       ``embeddings``           weight
``optimizer/state/[0]/exp_avg``               ``optimizer/state/[0]``     ``optimizer/state/[0]``  other
============================================  ==========================  =======================  ======
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["block_of", "kind_of", "module_of", "role_of", "steps_of"]

_STEP = re.compile(r"(?:\\.|[^./\\])+[./]?", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+|\[-?[0-9]+\]")
_NORM = re.compile(r"(?i)(?:.*norm.*|ln(?:_?\w{1,2})?|bn_?\d*|gn_?\d*)")


@lru_cache(maxsize=65536)
def steps_of(name: str) -> tuple[str, ...]:
    """Steps of a name, each with the separator behind it.

    Examples
    --------
    >>> steps_of("model/encoder.layer.5.weight")
    ('model/', 'encoder.', 'layer.', '5.', 'weight')
    """
    return tuple(_STEP.findall(name)) or (name,)


def module_of(name: str) -> str:
    """Name of the module that holds the parameter; empty at the top.

    Examples
    --------
    >>> module_of("encoder.layer.5.attention.self.query.weight")
    'encoder.layer.5.attention.self.query'
    """
    return _joined(steps_of(name)[:-1])


def block_of(name: str) -> str:
    """The repeated block that a parameter belongs to: its name up to the first number, or its first step.

    Examples
    --------
    >>> block_of("encoder.layer.5.attention.self.query.weight"), block_of("pooler.dense.bias"), block_of("scale")
    ('encoder.layer.5', 'pooler', 'scale')
    """
    steps = steps_of(name)
    return _joined(steps[: _block_length(steps)])


def role_of(name: str) -> str:
    """What the parameter is within its block; its last step where the block is all there is.

    Examples
    --------
    >>> role_of("encoder.layer.5.attention.self.query.weight"), role_of("pooler.dense.bias")
    ('attention.self.query.weight', 'dense.bias')
    """
    steps = steps_of(name)
    return _joined(steps[_block_length(steps) :]) or _joined(steps[-1:])


def kind_of(name: str) -> str:
    """``"norm"`` for what belongs to a normalisation, else ``"weight"``, ``"bias"`` or ``"other"``.

    Examples
    --------
    >>> [kind_of(n) for n in ("a.LayerNorm.bias", "a.query.bias", "a.query.weight", "bn1.running_mean", "steps")]
    ['norm', 'bias', 'weight', 'norm', 'other']
    """
    steps = [step.rstrip("./") for step in steps_of(name)]
    if any(_NORM.fullmatch(step) for step in steps):
        return "norm"
    last = steps[-1].lower()
    if "bias" in last:
        return "bias"
    return "weight" if "weight" in last or last in ("w", "kernel", "embedding") or last.startswith("lora_") else "other"


def _block_length(steps: tuple[str, ...]) -> int:
    for index, step in enumerate(steps):
        if _NUMBER.fullmatch(step.rstrip("./")):
            return index + 1
    return 1


def _joined(steps: tuple[str, ...]) -> str:
    text = "".join(steps)
    return text[:-1] if text.endswith((".", "/")) else text
