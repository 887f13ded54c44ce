"""The table of checkpoint formats.

A format is a module with a ``FORMAT``. Outsiders publish theirs in the entry-point group ``theta_nb.checkpoints``;
it is asked only for files that no built-in format recognises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from theta_nb.checkpoints.layout import ByteSource, Layout
from theta_nb.errors import CheckpointError
from theta_nb.registry import Plugin, Registry

__all__ = ["BUILTIN", "FORMATS", "FileFormat", "Format", "State"]

State = Mapping[str, Any]
"""A state dict: names to torch tensors or NumPy arrays, and, where the format can hold them, other values."""


class Format(Protocol):
    """What a checkpoint format offers."""

    @property
    def name(self) -> str:
        """Name in the table of formats."""
        ...

    @property
    def extensions(self) -> tuple[str, ...]:
        """File name endings, lower case, with the dot."""
        ...

    def matches(self, head: bytes, size: int, /) -> bool:
        """Whether a file of ``size`` bytes that begins with ``head`` can be of this format."""
        ...

    def locate(self, source: ByteSource, /) -> Layout:
        """Find the tensors of a file.

        Raises
        ------
        CheckpointError
            If the file is not of this format or lies.
        """
        ...

    def write(self, state: State, path: str, metadata: Mapping[str, str], /) -> None:
        """Write a new file.

        Raises
        ------
        CheckpointError
            If the format cannot hold ``state``.
        """
        ...


def _cannot_write(state: State, path: str, metadata: Mapping[str, str]) -> None:
    raise CheckpointError(f"{path} cannot be written", hint="Use a .safetensors or .pt file name.")


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A :class:`Format` made of functions.

    Parameters
    ----------
    name, extensions, matches, locate, write
        As in :class:`Format`; without ``write`` the format can only be read.
    """

    name: str
    extensions: tuple[str, ...]
    matches: Callable[[bytes, int], bool]
    locate: Callable[[ByteSource], Layout]
    write: Callable[[State, str, Mapping[str, str]], None] = _cannot_write


BUILTIN = {
    "safetensors": Plugin("theta_nb.checkpoints.safetensors:FORMAT"),
    "pytorch": Plugin("theta_nb.checkpoints.pytorch_zip:FORMAT"),
    "opaque": Plugin("theta_nb.checkpoints.opaque:FORMAT"),
}

FORMATS: Registry[Format] = Registry("checkpoint format", "theta_nb.checkpoints", BUILTIN)
"""All formats by name."""
