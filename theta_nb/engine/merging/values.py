"""What the sides of a merge did to what is no tensor: metadata, epochs, schedulers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.decisions import Decision, decide
from theta_nb.engine.merging.inputs import VALUE, MergeInput, TensorInfo
from theta_nb.engine.merging.outline import ATTRIBUTES, REST, Outline, outline_of
from theta_nb.engine.merging.states import State, Unit, units
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput

__all__ = ["Outlines", "decide_attribute", "is_attribute", "outlines", "value_units"]


@dataclass(frozen=True)
class Outlines:
    """The versions of a merge, taken apart.

    Parameters
    ----------
    base
        The ancestor; ``None`` if there is none.
    inputs
        Ours first.
    """

    base: Outline | None
    inputs: tuple[Outline, ...]


def outlines(base: MergeInput | None, inputs: Sequence[MergeInput]) -> Outlines | None:
    """The versions, taken apart; ``None`` where that would tell nothing.

    That is: one is in memory, they are in several formats, or all have the same bytes beside their tensors.
    """
    versions = [one for one in (base, *inputs) if isinstance(one, FileInput | ManifestInput)]
    if len(versions) < len(inputs) + (base is not None):
        return None
    if len({one.layout.format for one in versions}) > 1:
        return None
    stored = [one.manifest.skeleton for one in versions if isinstance(one, ManifestInput)]
    if len(stored) == len(versions) and len(set(stored)) == 1:
        return None
    return Outlines(None if base is None else outline_of(base), tuple(map(outline_of, inputs)))


def value_units(found: Outlines | None, tensors: Collection[str]) -> tuple[Unit, ...]:
    """What is not the same everywhere, with what each side did to it.

    Parameters
    ----------
    found
        From :func:`outlines`.
    tensors
        Names that are tensors in some version: they are decided as such.
    """
    if found is None:
        return ()

    def values(one: Outline) -> dict[str, TensorInfo]:
        if any(each.problem for each in everything):
            return {REST: TensorInfo(VALUE, (), one.rest)}
        return {name: info for name, info in one.values.items() if name not in tensors}

    everything = (*((found.base,) if found.base is not None else ()), *found.inputs)
    before = None if found.base is None else values(found.base)
    return tuple(unit for unit in units(before, [values(one) for one in found.inputs]) if unit.state is not State.EQUAL)


def is_attribute(name: str) -> bool:
    """Whether a value belongs to a container rather than to what it holds, such as the ``_metadata`` of a state dict.

    Examples
    --------
    >>> is_attribute("model/[state]/_metadata/layer.0/version"), is_attribute("epoch")
    (True, False)
    """
    return ATTRIBUTES in name.split("/")


def decide_attribute(unit: Unit, labels: Sequence[str]) -> Decision:
    """What is done with an attribute: ours counts where both sides changed it."""
    return decide(unit, Settings(Choice("ours", {})), 0.0, labels)
