"""How a merge is asked to merge what both sides changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.spelling import apply_document, checked_choice, parse_choice
from theta_nb.errors import MergeError
from theta_nb.git.merge_choice import choose_configured
from theta_nb.git.places import Places

__all__ = ["Wishes"]


@dataclass(frozen=True)
class Wishes:
    """How to merge what both sides changed.

    Parameters
    ----------
    method
        A method or preset (``METHOD`` or ``METHOD:NAME=VALUE,NAME=VALUE``); empty: what is configured, else somebody
        is asked.
    parameters
        Its parameters, beside those that ``method`` spells.
    overrides
        Pattern and method (``METHOD:NAME=VALUE``) of each.
    document
        Text of a recipe or of a configuration of mergekit.
    statistics
        Files with statistics of the training data, one for each input, relative to the top.
    """

    method: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[tuple[str, str], ...] = ()
    document: str = ""
    statistics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.parameters and not self.method:
            raise MergeError(f"{next(iter(self.parameters))} is given without a method", hint="Add --method METHOD.")
        if self.document and (self.method or self.overrides):
            raise MergeError("a recipe says everything", hint="Give either --recipe, or --method and --override.")

    @property
    def explicit(self) -> bool:
        """Whether they are about more than what both sides changed."""
        return bool(self.overrides or self.document)

    def apply(self, session: MergeSession, places: Places, path: str, *, configured: bool = True) -> None:
        """Choose as wished, or, if no method is, as it is configured for the path.

        Raises
        ------
        MergeError
            If there is no such method or parameter, or they do not fit the inputs.
        """
        if self.document:
            apply_document(session, self.document)
            return
        if self.method:
            spelled = parse_choice(self.method)
            choice = checked_choice(spelled.method, {**spelled.parameters, **self.parameters})
            session.use(choice.method, **choice.parameters)
        elif configured:
            choose_configured(session, places, path)
        for pattern, text in self.overrides:
            choice = parse_choice(text)
            session.override(pattern, choice.method, **choice.parameters)
